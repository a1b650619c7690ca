//! The key space as a value: its log of changes, what is derived from it, and the four ways it is written.
//!
//! Deliberately absent: refusals (`txn` and `compact` decide them before anything is written), leases' lives (a session is the state's).

use std::collections::BTreeMap;
use std::sync::Arc;

use imbl::Vector;

use super::index::Index;
use super::{Blob, KeyValue, KvChange};

/// Where the state machine's own keys live; nobody else writes below it.
pub const OWN_PREFIX: &[u8] = b"/quorate/";

/// What a change occupies beside its key and value: its numbers, and its places in the log and the index.
const CHANGE_BYTES: u64 = 128;

impl KvChange {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &Blob {
        match self {
            KvChange::Put(kv) => &kv.key,
            KvChange::Delete { key, .. } => key,
        }
    }

    /// The revision of the change.
    #[must_use]
    pub fn mod_revision(&self) -> u64 {
        match self {
            KvChange::Put(kv) => kv.mod_revision,
            KvChange::Delete { mod_revision, .. } => *mod_revision,
        }
    }

    /// What was put.
    ///
    /// # Panics
    /// For a deletion: those are never filed where a version is expected.
    pub(super) fn version(&self) -> &KeyValue {
        match self {
            KvChange::Put(kv) => kv,
            KvChange::Delete { .. } => panic!("{self:?} is filed as a version"),
        }
    }

    pub(super) fn footprint(&self) -> u64 {
        let value = match self {
            KvChange::Put(kv) => kv.value.len(),
            KvChange::Delete { .. } => 0,
        };
        (self.key().len() + value) as u64 + CHANGE_BYTES
    }
}

/// The key space at one version. A clone shares structure and is O(1).
///
/// # Invariants
/// - `swept <= compacted <= revision`; `revision` and `compaction` never decrease.
/// - `log` holds every change after `swept` in the order they were made; a prefix of those below `compaction` may be gone.
/// - `index` is a function of the log and of the versions that were current at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvStore {
    pub(super) revision: u64,
    /// Through where history was given up; `None` before the first compaction, which may be at 0.
    pub(super) compaction: Option<u64>,
    /// The last compaction whose physical part is done.
    pub(super) swept: u64,
    pub(super) log: Vector<Arc<KvChange>>,
    pub(super) index: Index,
    /// The state machine's own changes that are to share a revision; always `None` between two applies.
    pub(super) own: Option<BTreeMap<Blob, Option<Blob>>>,
}

impl Default for KvStore {
    fn default() -> Self {
        Self::new()
    }
}

impl KvStore {
    /// The empty key space, at revision 1 as etcd's.
    #[must_use]
    pub fn new() -> Self {
        Self {
            revision: 1,
            compaction: None,
            swept: 0,
            log: Vector::new(),
            index: Index::default(),
            own: None,
        }
    }

    /// The revision of the last change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Through which revision history was given up: the oldest that can be read; 0 where all is there.
    #[must_use]
    pub fn compacted(&self) -> u64 {
        self.compaction.unwrap_or(0)
    }

    /// The last compaction that is physically done, too: equals `compacted` when nothing is left to sweep.
    #[must_use]
    pub fn swept(&self) -> u64 {
        self.swept
    }

    /// How many keys there are.
    #[must_use]
    pub fn key_count(&self) -> u64 {
        self.index.live.len() as u64
    }

    /// Roughly what the space occupies, history included. A sweep lowers it.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.index.size_bytes
    }

    /// Deletes a lease's keys, at one revision and in their order, as etcd does. `false`: it had none, nothing changed.
    pub(crate) fn end_lease(&mut self, lease: u64) -> bool {
        let keys: Vec<Blob> = self.lease_keys(lease).cloned().collect();
        for key in &keys {
            self.write_delete(key);
        }
        self.seal()
    }

    /// From here to [`KvStore::end_own`] the state machine's own changes share one revision; of several to one key the last counts.
    pub(crate) fn begin_own(&mut self) {
        assert!(self.own.is_none(), "own changes are being collected");
        self.own = Some(BTreeMap::new());
    }

    /// Writes what was collected since [`KvStore::begin_own`], in the keys' order. `false`: nothing changed.
    pub(crate) fn end_own(&mut self) -> bool {
        let own = self.own.take().expect("own changes are being collected");
        for (key, value) in own {
            match value {
                Some(value) => self.write_put(&key, value, 0),
                None => {
                    self.write_delete(&key);
                }
            }
        }
        self.seal()
    }

    /// Puts one of the state machine's own keys.
    pub(crate) fn put_own(&mut self, key: Blob, value: Blob) {
        assert!(key.starts_with(OWN_PREFIX), "{key:?} is not ours");
        if let Some(own) = &mut self.own {
            own.insert(key, Some(value));
        } else {
            self.write_put(&key, value, 0);
            self.seal();
        }
    }

    /// Deletes one of the state machine's own keys, if it is there.
    pub(crate) fn delete_own(&mut self, key: &Blob) {
        assert!(key.starts_with(OWN_PREFIX), "{key:?} is not ours");
        if let Some(own) = &mut self.own {
            own.insert(key.clone(), None);
        } else {
            self.write_delete(key);
            self.seal();
        }
    }

    /// Goes on at a much later revision and gives up the history before it: what a restored space does, so that no client mistakes its
    /// revisions for those of the one it was taken from.
    pub(crate) fn raise(&mut self, by: u64) {
        self.revision = self.revision.saturating_add(by);
        self.compaction = Some(self.revision);
    }

    /// Writes a version at the revision that is being made.
    pub(super) fn write_put(&mut self, key: &[u8], value: Blob, lease: u64) {
        let mod_revision = self.revision + 1;
        let kv = match self.get(key) {
            Some(before) => KeyValue {
                // The bytes of the key are shared by all its versions.
                key: before.key.clone(),
                value,
                create_revision: before.create_revision,
                mod_revision,
                version: before.version + 1,
                lease,
            },
            None => KeyValue {
                key: Blob::from(key),
                value,
                create_revision: mod_revision,
                mod_revision,
                version: 1,
                lease,
            },
        };
        let change = Arc::new(KvChange::Put(kv));
        self.index.apply(&change);
        self.log.push_back(change);
    }

    /// Deletes a key at the revision that is being made; `false` if it is not there.
    pub(super) fn write_delete(&mut self, key: &[u8]) -> bool {
        let Some(before) = self.get(key) else {
            return false;
        };
        let change = Arc::new(KvChange::Delete {
            key: before.key.clone(),
            mod_revision: self.revision + 1,
        });
        self.index.apply(&change);
        self.log.push_back(change);
        true
    }

    /// Whether the revision that is being made has changes.
    pub(super) fn is_writing(&self) -> bool {
        self.log
            .back()
            .is_some_and(|change| change.mod_revision() > self.revision)
    }

    /// Ends the revision that is being made, if it has changes.
    pub(super) fn seal(&mut self) -> bool {
        let changed = self.is_writing();
        self.revision += u64::from(changed);
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{filled, found, put, put_leased, read, run};
    use super::*;

    #[test]
    fn lease_takes_its_keys_along_at_one_revision_in_their_order() {
        let mut store = filled(&[("d", "1")]);
        for (key, lease) in [("c", 7), ("a", 7), ("b", 8)] {
            run(&mut store, &put_leased(key, lease));
        }
        assert_eq!(store.leases().collect::<Vec<_>>(), [7, 8]);
        assert!(store.end_lease(7));
        assert_eq!(store.revision(), 6);
        let keys: Vec<_> = store.changes(6).map(|change| change.key()).collect();
        assert_eq!(keys, [&Blob::from("a"), &Blob::from("c")]);
        assert!(!store.end_lease(7), "it has none any more");
        assert_eq!(store.revision(), 6);
        assert_eq!(found(&store, &read("a", "\0")), "bd");
    }

    #[test]
    fn own_changes_collected_share_a_revision_and_the_last_of_a_key_counts() {
        let mut store = KvStore::new();
        let key = |name: &str| Blob::from(format!("/quorate/groups/{name}").as_str());
        store.begin_own();
        store.put_own(key("b"), "1".into());
        store.put_own(key("a"), "1".into());
        store.put_own(key("b"), "2".into());
        store.delete_own(&key("missing"));
        assert!(store.end_own());
        assert_eq!((store.revision(), store.changes(0).count()), (2, 2));
        assert_eq!(&*store.get(&key("b")).unwrap().value, b"2");
        store.begin_own();
        assert!(!store.end_own(), "nothing was written");
        store.delete_own(&key("a"));
        assert_eq!(store.revision(), 3);
        store.check_invariants();
    }

    #[test]
    fn raised_space_keeps_its_keys_and_gives_up_its_history() {
        let mut store = filled(&[("a", "1"), ("a", "2")]);
        store.raise(1 << 40);
        store.check_invariants();
        assert_eq!(store.compacted(), store.revision());
        assert_eq!(store.get(b"a").unwrap().mod_revision, 3);
        assert!(!store.sweep(9));
        run(&mut store, &put("a", "3"));
        assert_eq!(store.get(b"a").unwrap().mod_revision, (1 << 40) + 4);
    }
}
