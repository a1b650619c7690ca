//! What a watch is asked for, what its stream is told, and how much of it may wait.

use quorate_coord::kv::{KeyRange, KeyValue, KvChange};

/// The watch id of answers that are about all watches of a stream, or about none.
pub const NO_WATCH_ID: i64 = -1;

/// What is asked of a new watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvWatchSpec {
    /// Its id, chosen by the client; 0: the stream draws one.
    pub id: i64,
    /// Which keys, by the rules of [`KeyRange`]; an empty key is the smallest one.
    pub range: KeyRange,
    /// The first revision; 0: what comes next; negative: the first there is.
    pub start_revision: i64,
    /// Tell what was there before, too.
    pub prev_kv: bool,
    /// Leave puts out.
    pub no_put: bool,
    /// Leave deletions out.
    pub no_delete: bool,
    /// Tell it now and then how far it is, when nothing else is told.
    pub progress: bool,
    /// Large answers may come in fragments. Only handed on.
    pub fragment: bool,
}

/// Why a watch was not created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvWatchRefusal {
    /// The stream has a watch of that id.
    DuplicateId,
    /// The range ends at or before its start.
    EmptyRange,
    /// The caller may not: the shell's reason.
    Denied(String),
}

/// One change, as a watch is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvEvent {
    /// What happened.
    pub change: KvChange,
    /// What was there before, where it was asked for, and was not compacted.
    pub prev: Option<KeyValue>,
}

impl KvEvent {
    pub(super) fn size_bytes(&self) -> usize {
        let pair = |pair: &KeyValue| pair.key.len() + pair.value.len();
        let change = match &self.change {
            KvChange::Put(now) => pair(now),
            KvChange::Delete { key, .. } => key.len(),
        };
        size_of::<Self>() + change + self.prev.as_ref().map_or(0, pair)
    }
}

/// What a stream is told, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvNotice {
    /// A watch is there.
    Created {
        /// Its id.
        id: i64,
        /// The revision then.
        revision: u64,
    },
    /// A watch was not created.
    Refused {
        /// Why.
        why: KvWatchRefusal,
        /// The revision then.
        revision: u64,
    },
    /// A watch was cancelled, as asked.
    Canceled {
        /// Its id.
        id: i64,
        /// The revision then.
        revision: u64,
    },
    /// A watch ended because what it had to be told next was compacted.
    Compacted {
        /// Its id.
        id: i64,
        /// Through where.
        compacted: u64,
    },
    /// Changes, those of one revision always together.
    Events {
        /// Of which watch.
        id: i64,
        /// The changes, in their order; at least one.
        events: Vec<KvEvent>,
        /// The watch has been told everything through this revision.
        revision: u64,
        /// Whether the answer may be cut.
        fragment: bool,
    },
    /// A watch, or with [`NO_WATCH_ID`] all of the stream, has been told everything through this revision.
    Progress {
        /// Which.
        id: i64,
        /// Through where.
        revision: u64,
    },
}

/// How much waits for slow streams, and how much is done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvWatchLimits {
    /// Events that wait for one stream. Beyond, its watches fall behind.
    pub stream_bytes_max: usize,
    /// Events that wait for all streams together.
    pub total_bytes_max: usize,
    /// Changes read in one piece of work, save that a revision is never cut.
    pub piece_changes_max: usize,
    /// Bytes of changes told in one piece of work, save that a revision is never cut.
    pub piece_bytes_max: usize,
    /// Watches that catch up in one piece of work.
    pub piece_watches_max: usize,
}

impl Default for KvWatchLimits {
    fn default() -> Self {
        Self {
            stream_bytes_max: 2 * 1024 * 1024,
            total_bytes_max: 256 * 1024 * 1024,
            piece_changes_max: 2_048,
            piece_bytes_max: 1024 * 1024,
            piece_watches_max: 512,
        }
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvWatchStats {
    /// Open streams.
    pub streams: usize,
    /// Watches.
    pub watches: usize,
    /// Those of them that are behind.
    pub behind: usize,
    /// Events that wait in queues.
    pub queued_events: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}
