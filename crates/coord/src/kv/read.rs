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

#[cfg(test)]
mod tests {
    use super::super::tests::{delete, filled, found, pairs, put, read, run};
    use super::*;

    fn three() -> KvStore {
        filled(&[("a", "2"), ("b", "3"), ("c", "1"), ("a", "4")])
    }

    #[test]
    fn ends_of_ranges_mean_what_they_mean_in_etcd() {
        let store = three();
        for (key, end, keys) in [
            ("a", "", "a"),
            ("aa", "", ""),
            ("a", "c", "ab"),
            ("b", "\0", "bc"),
            ("\0", "\0", "abc"),
            ("b", "a", ""),
            ("b", "b", ""),
        ] {
            assert_eq!(found(&store, &read(key, end)), keys, "{key:?} {end:?}");
        }
    }

    #[test]
    fn limit_cuts_and_says_so_and_counts_all() {
        let limited = Range {
            limit: 2,
            ..read("a", "\0")
        };
        let reply = three().range(&limited).unwrap();
        assert_eq!((reply.kvs.len(), reply.more, reply.count), (2, true, 3));
        let just = Range {
            limit: 3,
            ..limited.clone()
        };
        assert!(!three().range(&just).unwrap().more);
        let counted = Range {
            count_only: true,
            limit: 1,
            ..limited
        };
        let reply = three().range(&counted).unwrap();
        assert_eq!((reply.kvs.len(), reply.more, reply.count), (0, false, 3));
    }

    /// Tried on etcd 3.4.23.
    #[test]
    fn target_without_an_order_sorts_what_the_limit_left() {
        let sorted = |limit, sort_order, sort_target| {
            let asked = Range {
                limit,
                sort_order,
                sort_target,
                ..read("a", "\0")
            };
            found(&three(), &asked)
        };
        assert_eq!(sorted(1, SortOrder::None, SortTarget::Version), "b");
        assert_eq!(sorted(1, SortOrder::Ascend, SortTarget::Value), "c");
        assert_eq!(sorted(0, SortOrder::None, SortTarget::Value), "cba");
        assert_eq!(sorted(0, SortOrder::Descend, SortTarget::Version), "abc");
        assert_eq!(sorted(0, SortOrder::Descend, SortTarget::Mod), "acb");
        assert_eq!(sorted(2, SortOrder::Descend, SortTarget::Key), "cb");
    }

    #[test]
    fn filters_leave_the_count_alone() {
        let asked = Range {
            min_mod_revision: 4,
            max_create_revision: 3,
            ..read("a", "\0")
        };
        let reply = three().range(&asked).unwrap();
        assert_eq!(pairs(&reply), [("a".into(), "4".into())]);
        assert_eq!(reply.count, 3);
        let none = Range {
            max_mod_revision: -1,
            ..read("a", "\0")
        };
        assert_eq!(found(&three(), &none), "");
    }

    #[test]
    fn earlier_revisions_are_read_as_they_were() {
        let mut store = three();
        run(&mut store, &delete("b"));
        let at = |store: &KvStore, revision| {
            let asked = Range {
                revision,
                ..read("a", "\0")
            };
            store.range(&asked).map(|reply| pairs(&reply).len())
        };
        let counts: Vec<_> = (1..7).map(|revision| at(&store, revision)).collect();
        assert_eq!(counts, [Ok(0), Ok(1), Ok(2), Ok(3), Ok(3), Ok(2)]);
        let future = KvError::FutureRevision { asked: 7, now: 6 };
        assert_eq!(at(&store, 7), Err(future));
        store.compact(5).unwrap();
        let compacted = KvError::Compacted {
            asked: 4,
            compacted: 5,
        };
        assert_eq!(at(&store, 4), Err(compacted));
        assert_eq!(at(&store, 5), Ok(3));
        assert_eq!(at(&store, -4), Ok(2), "not positive: the newest");
        assert_eq!(store.get_at(b"b", 4), None);
        assert_eq!(store.get_at(b"b", 5).unwrap().mod_revision, 3);
        assert_eq!(store.get_at(b"b", 6), None);
    }

    #[test]
    fn keys_only_leaves_the_values_out() {
        let asked = Range {
            keys_only: true,
            ..read("a", "")
        };
        let reply = three().range(&asked).unwrap();
        assert_eq!(pairs(&reply), [("a".into(), String::new())]);
    }

    #[test]
    fn changes_begin_at_the_revision_asked_for() {
        let store = three();
        let revisions = |from| -> Vec<u64> {
            let changes = store.changes(from);
            changes.map(KvChange::mod_revision).collect()
        };
        assert_eq!(revisions(0), [2, 3, 4, 5]);
        assert_eq!(revisions(4), [4, 5]);
        assert!(revisions(6).is_empty());
    }

    #[test]
    fn older_versions_do_not_see_later_writes() {
        let mut store = three();
        let before = store.clone();
        run(&mut store, &put("d", "5"));
        assert_eq!(found(&before, &read("a", "\0")), "abc");
        assert_eq!(before.revision(), 5);
    }
}
