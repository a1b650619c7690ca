//! What the protocol asks of its surroundings, in order.

use quorate_types::{LogIndex, ReplicaId, Term};
use std::sync::Arc;

use crate::{Entry, HardState, LogPosition, Message, RoundId, SnapshotMeta};

/// Names a durable write. Writes are carried out in order and reported by
/// [`Consensus::on_persisted`](crate::Consensus::on_persisted), possibly several at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteSeq(pub u64);

/// One durable write: its parts are carried out in the order of its fields, then made durable together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write<C> {
    /// Its number.
    pub seq: WriteSeq,
    /// The vote, where it changed.
    pub hard_state: Option<HardState>,
    /// Drop entries from here on.
    pub truncate_from: Option<LogIndex>,
    /// Drop entries up to here (beyond the end: all of them; the log then starts after it). A durable snapshot covers them.
    pub purge_through: Option<LogPosition>,
    /// Append these.
    pub entries: Vec<Entry<C>>,
}

/// The role of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads its term.
    Leader,
}

/// Why a replica must stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatalError {
    /// A peer saw this replica's future: its disk was rolled back or replaced (protocol, section 7).
    #[error(
        "replica {peer} saw this member at term {seen_term}, vote {seen_vote:?}, match {seen_match:?}; its disk holds less: it was restored or rolled back"
    )]
    RolledBack {
        /// Who saw it.
        peer: ReplicaId,
        /// The term it saw.
        seen_term: Term,
        /// The vote it saw.
        seen_vote: Option<ReplicaId>,
        /// The acknowledged position it saw.
        seen_match: LogPosition,
    },
    /// A leader's append contradicts a committed entry.
    #[error(
        "an append of term {term} conflicts with the committed entry {index}: a log is corrupt"
    )]
    CommittedConflict {
        /// The leader's term.
        term: Term,
        /// The entry.
        index: LogIndex,
    },
}

/// An order to the surroundings. Orders are carried out in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<C> {
    /// Make this durable, then report it.
    Persist(Write<C>),
    /// Send now.
    Send {
        /// The receiver.
        to: ReplicaId,
        /// The message.
        message: Message<C>,
    },
    /// Send once `write` is durable, not before: the message promises it.
    SendAfterPersist {
        /// The write it waits for.
        write: WriteSeq,
        /// The receiver.
        to: ReplicaId,
        /// The message.
        message: Message<C>,
    },
    /// A commit quorum has confirmed this leader's term in a round at or after `round`.
    Confirmed {
        /// The round; earlier ones are confirmed too.
        round: RoundId,
    },
    /// The commit index rose; read the entries with [`Consensus::entries`](crate::Consensus::entries).
    Committed {
        /// The new commit index.
        through: LogIndex,
    },
    /// Role, term or known leader changed.
    RoleChanged {
        /// The role now.
        role: Role,
        /// The term now.
        term: Term,
        /// The leader of `term`, where known.
        leader: Option<ReplicaId>,
    },
    /// Read `chunk_bytes` of the snapshot file at `offset` and send them as a [`Message::SnapshotChunk`].
    SendSnapshotChunk {
        /// The receiver.
        to: ReplicaId,
        /// The leader's term, for the message.
        term: Term,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// From where.
        offset: u64,
    },
    /// Write this piece of an incoming snapshot (offset 0 starts afresh), then call
    /// [`Consensus::on_snapshot_chunk_written`](crate::Consensus::on_snapshot_chunk_written); once the last piece is written, verify and
    /// decode the file, make it durable, and call [`Consensus::on_snapshot_installed`](crate::Consensus::on_snapshot_installed) instead.
    WriteSnapshotChunk {
        /// Who sent it.
        from: ReplicaId,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece starts.
        offset: u64,
        /// The file's length.
        total: u64,
        /// The bytes.
        data: Arc<[u8]>,
    },
    /// Stop the process; nothing given after this counts.
    Fatal(FatalError),
}
