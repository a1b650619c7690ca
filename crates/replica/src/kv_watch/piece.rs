//! One bounded piece of a version's changes, as watches are told of it.

use std::collections::BTreeMap;

use quorate_coord::kv::KvChange;

use super::index::Index;
use super::{Filter, KvEvent, KvLog, KvWatchLimits, WatchKey};

/// What one piece holds.
pub(super) struct Piece {
    /// What each watch is told.
    pub(super) found: BTreeMap<WatchKey, Vec<KvEvent>>,
    /// Everything from the start of the piece through this revision was read.
    pub(super) through: u64,
    /// Whether the log goes on.
    pub(super) more: bool,
}

impl Piece {
    /// Reads from a revision on, whole revisions, until a limit is reached.
    pub(super) fn read<'a>(
        log: &impl KvLog,
        from: u64,
        limits: KvWatchLimits,
        index: &Index,
        filter_of: impl Fn(WatchKey) -> &'a Filter,
    ) -> Self {
        let newest = log.revision();
        let mut piece = Self {
            found: BTreeMap::new(),
            through: from - 1,
            more: false,
        };
        let (mut changes, mut bytes) = (0, 0);
        for change in log.changes(from) {
            let revision = change.mod_revision();
            assert!(
                from <= revision && piece.through <= revision && revision <= newest,
                "a change of revision {revision} follows one of {} in a log from {from} to {newest}",
                piece.through
            );
            let full = changes >= limits.piece_changes_max || bytes >= limits.piece_bytes_max;
            if full && revision > piece.through {
                piece.more = true;
                return piece;
            }
            piece.through = revision;
            changes += 1;
            // Looked up once for all that want it. What the events point to is shared, too: it counts once.
            let mut before = None;
            let mut shared_bytes = 0;
            index.find(change.key(), &mut |watch| {
                let filter = filter_of(watch);
                if !filter.wants(change) {
                    return;
                }
                let prev = (filter.prev_kv && !creates(change)).then(|| {
                    before
                        .get_or_insert_with(|| log.at(change.key(), revision - 1))
                        .clone()
                });
                let event = KvEvent {
                    change: change.clone(),
                    prev: prev.flatten(),
                };
                shared_bytes = shared_bytes.max(event.size_bytes());
                bytes += size_of::<KvEvent>();
                piece.found.entry(watch).or_default().push(event);
            });
            bytes += shared_bytes;
        }
        piece.through = piece.through.max(newest);
        piece
    }
}

/// As in etcd, a key that is created has nothing before it, also where the same transaction deleted it first.
fn creates(change: &KvChange) -> bool {
    matches!(change, KvChange::Put(kv) if kv.create_revision == kv.mod_revision)
}
