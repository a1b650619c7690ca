//! Reading the key space, now and at earlier revisions. Nothing here changes anything.

use std::cmp::Reverse;
use std::ops::{Bound, RangeBounds};

use super::index::Bounds;
use super::{
    Blob, KeyValue, KvChange, KvError, KvStore, Range, RangeReply, SortOrder, SortTarget, Txn,
    TxnReply,
};

impl KvStore {
    /// The current version of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.index.live.get(key).map(|change| change.version())
    }

    /// The version of a key that a revision saw; `None`, too, where history was given up, or is not there yet.
    #[must_use]
    pub fn get_at(&self, key: &[u8], revision: u64) -> Option<KeyValue> {
        if revision < self.compacted() || revision > self.revision {
            return None;
        }
        if let Some(kv) = self.get(key)
            && kv.mod_revision <= revision
        {
            return Some(kv.clone());
        }
        let from = Bound::Included((Blob::from(key), Reverse(revision)));
        let ((found, _), past) = self.index.past.range((from, Bound::Unbounded)).next()?;
        let is_seen = found.as_bytes() == key && past.end > revision;
        is_seen.then(|| past.change.version().clone())
    }

    /// Reads a range of keys.
    ///
    /// # Errors
    /// [`KvError::Compacted`], [`KvError::FutureRevision`]: the revision cannot be read.
    pub fn range(&self, asked: &Range) -> Result<RangeReply, KvError> {
        let at = self.readable(asked.revision)?;
        let Some(bounds) = asked.range.bounds() else {
            return Ok(RangeReply::default());
        };
        let limit = usize::try_from(asked.limit).unwrap_or(0);
        // As etcd does: only an order or a filter makes it look at all before it cuts; a target without an order does not.
        let is_cut_early = limit > 0 && asked.sort_order == SortOrder::None && !is_filtered(asked);
        let fetched = match (asked.count_only, is_cut_early) {
            (true, _) => 0,
            (false, true) => limit.saturating_add(1),
            (false, false) => usize::MAX,
        };
        let (mut found, count) = match at {
            None => self.scan(bounds, fetched),
            Some(revision) => {
                let mut found = self.scan_at(bounds, revision);
                let count = found.len() as u64;
                found.truncate(fetched);
                (found, count)
            }
        };
        filter(asked, &mut found);
        sort(asked, &mut found);
        let more = limit > 0 && found.len() > limit;
        if more {
            found.truncate(limit);
        }
        let nothing = Blob::default();
        let kvs = found
            .into_iter()
            .map(|kv| {
                let value = if asked.keys_only { &nothing } else { &kv.value };
                KeyValue {
                    key: kv.key.clone(),
                    value: value.clone(),
                    ..*kv
                }
            })
            .collect();
        Ok(RangeReply { kvs, more, count })
    }

    /// Answers a transaction without taking it to the log. What it writes, if it does, is lost: ask [`Txn::is_read_only`] first.
    ///
    /// # Errors
    /// Those of the reads in it.
    pub fn read_txn(&self, txn: &Txn) -> Result<TxnReply, KvError> {
        self.clone().execute_txn(txn, &|_| true)
    }

    /// The changes from a revision on, in the order they were made. Those before [`KvStore::compacted`] are not told: who asks for them
    /// must be told so instead.
    pub fn changes(&self, from_revision: u64) -> impl Iterator<Item = &KvChange> {
        let start = self.log_position(from_revision.max(self.compacted()));
        let focus = self.log.focus().narrow(start..);
        focus.into_iter().map(|change| &**change)
    }

    /// The keys attached to a lease, in their order.
    pub fn lease_keys(&self, lease: u64) -> impl Iterator<Item = &Blob> {
        self.index
            .leases
            .range((lease, Blob::default())..)
            .take_while(move |(of, _)| *of == lease)
            .map(|(_, key)| key)
    }

    /// The leases that have keys, in their order.
    pub fn leases(&self) -> impl Iterator<Item = u64> {
        let mut last = None;
        self.index.leases.iter().filter_map(move |(lease, _)| {
            let is_new = last != Some(*lease);
            last = Some(*lease);
            is_new.then_some(*lease)
        })
    }

    /// Where a read looks: `None` at the newest version.
    fn readable(&self, asked: i64) -> Result<Option<u64>, KvError> {
        let asked = match u64::try_from(asked) {
            Err(_) | Ok(0) => return Ok(None),
            Ok(asked) => asked,
        };
        if asked > self.revision {
            let now = self.revision;
            return Err(KvError::FutureRevision { asked, now });
        }
        if asked < self.compacted() {
            let compacted = self.compacted();
            return Err(KvError::Compacted { asked, compacted });
        }
        let is_now = asked == self.revision && !self.is_writing();
        Ok((!is_now).then_some(asked))
    }

    /// How many changes of the log come before a revision.
    fn log_position(&self, revision: u64) -> usize {
        let (mut from, mut to) = (0, self.log.len());
        let mut focus = self.log.focus();
        while from < to {
            let middle = from + (to - from) / 2;
            if focus.index(middle).mod_revision() < revision {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        from
    }

    /// The first `limit` current versions within the bounds, and how many there are.
    fn scan(&self, bounds: Bounds<'_>, limit: usize) -> (Vec<&KeyValue>, u64) {
        let mut found = Vec::new();
        let mut count = 0;
        for (_, change) in self.index.live.range::<_, [u8]>(bounds) {
            count += 1;
            if found.len() < limit {
                found.push(change.version());
            }
        }
        (found, count)
    }

    /// The versions within the bounds that a revision saw, by key.
    pub(super) fn scan_at(&self, bounds: Bounds<'_>, revision: u64) -> Vec<&KeyValue> {
        let live = self.index.live.range::<_, [u8]>(bounds);
        let mut found: Vec<&KeyValue> = live
            .map(|(_, change)| change.version())
            .filter(|kv| kv.mod_revision <= revision)
            .collect();
        let (start, end) = bounds;
        let mut from = match start {
            Bound::Included(key) => Bound::Included((Blob::from(key), Reverse(revision))),
            Bound::Excluded(key) => Bound::Excluded((Blob::from(key), Reverse(0))),
            Bound::Unbounded => Bound::Unbounded,
        };
        let range = (Bound::Unbounded, end);
        loop {
            let next = self.index.past.range((from, Bound::Unbounded)).next();
            let Some(((key, Reverse(begun)), past)) = next else {
                break;
            };
            if !RangeBounds::<[u8]>::contains(&range, key.as_bytes()) {
                break;
            }
            // Versions on the wrong side are leapt over: a hot key may have very many.
            from = if *begun > revision {
                Bound::Included((key.clone(), Reverse(revision)))
            } else {
                if past.end > revision {
                    found.push(past.change.version());
                }
                Bound::Excluded((key.clone(), Reverse(0)))
            };
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found
    }
}

fn is_filtered(asked: &Range) -> bool {
    asked.min_mod_revision != 0
        || asked.max_mod_revision != 0
        || asked.min_create_revision != 0
        || asked.max_create_revision != 0
}

fn filter(asked: &Range, found: &mut Vec<&KeyValue>) {
    let is_within = |revision: u64, min: i64, max: i64| {
        let revision = i64::try_from(revision).unwrap_or(i64::MAX);
        (min == 0 || revision >= min) && (max == 0 || revision <= max)
    };
    if is_filtered(asked) {
        found.retain(|kv| {
            is_within(
                kv.mod_revision,
                asked.min_mod_revision,
                asked.max_mod_revision,
            ) && is_within(
                kv.create_revision,
                asked.min_create_revision,
                asked.max_create_revision,
            )
        });
    }
}

/// Ties stay in the keys' order, in both directions.
fn sort(asked: &Range, found: &mut [&KeyValue]) {
    let order = match (asked.sort_order, asked.sort_target) {
        (SortOrder::None, SortTarget::Key) => return,
        // Without an order a target other than the key means ascending.
        (SortOrder::None, _) => SortOrder::Ascend,
        (order, _) => order,
    };
    found.sort_by(|a, b| {
        let ascending = match asked.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::Create => a.create_revision.cmp(&b.create_revision),
            SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if order == SortOrder::Descend {
            ascending.reverse()
        } else {
            ascending
        }
    });
}
