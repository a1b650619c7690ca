//! Catching up: some watches of one stream read one bounded piece of the newest version's changes, without anybody waiting for them.

use std::collections::BTreeMap;

use super::index::{Index, Keys};
use super::piece::Piece;
use super::{Filter, KvEvent, KvLog, KvStreamId, KvWatchLimits, WatchKey};

/// Some watches of a stream that are behind, as they were when it [took](super::KvWatches::take).
#[derive(Debug)]
pub struct KvCatchUp {
    stream: KvStreamId,
    limits: KvWatchLimits,
    watches: BTreeMap<WatchKey, (Keys, Filter)>,
}

/// What a catch-up found; to be [settled](super::KvWatches::settle).
#[derive(Debug)]
pub struct KvCaught {
    pub(super) stream: KvStreamId,
    /// Everything through this revision was read.
    pub(super) through: u64,
    /// Watches whose next revision is before it have lost changes.
    pub(super) compacted: u64,
    pub(super) found: BTreeMap<WatchKey, Vec<KvEvent>>,
}

impl KvCatchUp {
    pub(super) fn new(
        stream: KvStreamId,
        limits: KvWatchLimits,
        watches: Vec<(WatchKey, Keys, Filter)>,
    ) -> Self {
        Self {
            stream,
            limits,
            watches: watches
                .into_iter()
                .map(|(key, keys, filter)| (key, (keys, filter)))
                .collect(),
        }
    }

    /// Reads one piece from the newest version.
    #[must_use]
    pub fn scan(self, log: &impl KvLog) -> KvCaught {
        let compacted = log.compacted();
        let mut index = Index::default();
        let mut from = u64::MAX;
        for (key, (keys, filter)) in &self.watches {
            if filter.next_revision >= compacted {
                index.insert(keys, *key);
                from = from.min(filter.next_revision);
            }
        }
        let mut caught = KvCaught {
            stream: self.stream,
            through: log.revision(),
            compacted,
            found: BTreeMap::new(),
        };
        if from <= log.revision() {
            let filter_of = |watch| &self.watches[&watch].1;
            let piece = Piece::read(log, from, self.limits, &index, filter_of);
            caught.through = piece.through;
            caught.found = piece.found;
        }
        // Those without an event have come further, too.
        for key in self.watches.into_keys() {
            caught.found.entry(key).or_default();
        }
        caught
    }
}
