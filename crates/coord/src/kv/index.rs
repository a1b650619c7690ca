//! What is derived from the log: current versions, superseded ones, keys of leases. Rebuilt on loading, never stored.
//!
//! A hot key costs a put no more than any other: superseded versions are entries of one ordered map, not a list within the key's entry.

use std::cmp::Reverse;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::{Blob, KeyRange, KeyValue, KvChange};

/// A version that is not current any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Past {
    /// The revision that superseded it: it is visible from its own revision up to before this one.
    pub(super) end: u64,
    pub(super) change: Arc<KvChange>,
}

/// The borrowed bounds of a range.
pub(super) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl KeyRange {
    /// The keys meant; `None` where none can be.
    pub(super) fn bounds(&self) -> Option<Bounds<'_>> {
        let from = Bound::Included(self.key.as_bytes());
        match self.range_end.as_bytes() {
            [] => Some((from, from)),
            [0] => Some((from, Bound::Unbounded)),
            end if end <= self.key.as_bytes() => None,
            end => Some((from, Bound::Excluded(end))),
        }
    }

    /// Whether the key is one of those meant.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.range_end.as_bytes() {
            [] => key == self.key.as_bytes(),
            [0] => key >= self.key.as_bytes(),
            end => key >= self.key.as_bytes() && key < end,
        }
    }
}

/// # Invariants
/// - `live` holds the current version of each key that is there.
/// - `past` holds a superseded version exactly as long as the log holds the change that superseded it, and that is not of the revision
///   through which the store was swept; and none that began and ended within one revision: no read can see those.
/// - `leases` holds `(lease, key)` for each live key with a lease.
/// - `size_bytes` is the sum of the footprints of the changes in the log and of those held here only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) live: OrdMap<Blob, Arc<KvChange>>,
    /// By key, then newest first: one step finds the version that a revision saw.
    pub(super) past: OrdMap<(Blob, Reverse<u64>), Past>,
    pub(super) leases: OrdSet<(u64, Blob)>,
    pub(super) size_bytes: u64,
}

impl Index {
    /// Takes in the newest change.
    pub(super) fn apply(&mut self, change: &Arc<KvChange>) {
        self.size_bytes += change.footprint();
        let before = match &**change {
            KvChange::Put(kv) => self.live.insert(kv.key.clone(), change.clone()),
            KvChange::Delete { key, .. } => self.live.remove(key.as_bytes()),
        };
        let lease_before = before.as_ref().map_or(0, |before| before.version().lease);
        let lease_now = match &**change {
            KvChange::Put(kv) => kv.lease,
            KvChange::Delete { .. } => 0,
        };
        if lease_before != lease_now {
            let key = change.key();
            if lease_before != 0 {
                self.leases.remove(&(lease_before, key.clone()));
            }
            if lease_now != 0 {
                self.leases.insert((lease_now, key.clone()));
            }
        }
        let end = change.mod_revision();
        if let Some(before) = before
            && before.mod_revision() < end
        {
            let at = (before.key().clone(), Reverse(before.mod_revision()));
            let past = Past {
                end,
                change: before,
            };
            self.past.insert(at, past);
        }
    }

    /// Takes in a version that was current before the log's first change.
    pub(super) fn apply_base(&mut self, kv: KeyValue) {
        let change = Arc::new(KvChange::Put(kv));
        let kv = change.version();
        self.size_bytes += change.footprint();
        if kv.lease != 0 {
            self.leases.insert((kv.lease, kv.key.clone()));
        }
        self.live.insert(kv.key.clone(), change.clone());
    }

    /// Forgets what the log's first change, which leaves it, had superseded; and the change itself unless it made a version that is
    /// still to be seen.
    pub(super) fn forget(&mut self, change: &Arc<KvChange>) {
        self.forget_before(change);
        if !self.holds(change) {
            self.size_bytes -= change.footprint();
        }
    }

    /// Forgets what a change superseded: no revision that can be read sees it any more.
    pub(super) fn forget_before(&mut self, change: &Arc<KvChange>) {
        let revision = change.mod_revision();
        let key = change.key();
        let before = self
            .past
            .range((
                Bound::Excluded((key.clone(), Reverse(revision))),
                Bound::Unbounded,
            ))
            .next()
            .filter(|((found, _), past)| found == key && past.end == revision)
            .map(|(at, past)| (at.clone(), past.change.footprint()));
        if let Some((at, bytes)) = before {
            self.past.remove(&at);
            self.size_bytes -= bytes;
        }
    }

    /// Whether the change made a version that is held here.
    pub(super) fn holds(&self, change: &Arc<KvChange>) -> bool {
        let is_live = self
            .live
            .get(change.key().as_bytes())
            .is_some_and(|held| Arc::ptr_eq(held, change));
        is_live
            || self
                .past
                .get(&(change.key().clone(), Reverse(change.mod_revision())))
                .is_some_and(|past| Arc::ptr_eq(&past.change, change))
    }
}
