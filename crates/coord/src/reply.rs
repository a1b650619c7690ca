//! What the caller of a command is told.

use quorate_types::{GroupName, NodeName, Revision, SessionId};
use serde::{Deserialize, Serialize};

use crate::command::{SessionKey, TenureKey};
use crate::kv::{AuthError, KvError, KvOpReply};

/// A command's outcome. Kept for retries, so it stays small.
pub type Outcome = Result<Reply, Rejection>;

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It took effect (or changed nothing, where the wish already held).
    Done {
        /// The revision after it.
        revision: Revision,
    },
    /// A session was opened.
    SessionOpened {
        /// Its identity.
        session: SessionKey,
        /// Its TTL in milliseconds.
        ttl_ms: u64,
    },
    /// A batch took effect, save these.
    Partly {
        /// The revision after it.
        revision: Revision,
        /// What was refused: position in the batch, and why.
        refused: Vec<(u32, Rejection)>,
    },
    /// Handovers were started.
    Moving {
        /// The revision after it.
        revision: Revision,
        /// How many.
        moves: u32,
    },
    /// What an operation on the key space did.
    Kv {
        /// The key-value revision after it.
        revision: u64,
        /// Its answer.
        reply: Box<KvOpReply>,
    },
    /// History was forgotten.
    Compacted {
        /// The key-value revision after it: compaction does not move it.
        revision: u64,
    },
    /// A lease was granted.
    LeaseGranted {
        /// The session that it is.
        session: SessionKey,
        /// Its TTL in milliseconds.
        ttl_ms: u64,
    },
    /// A lease was revoked and its keys deleted.
    LeaseRevoked {
        /// The key-value revision after it.
        revision: u64,
    },
    /// An alarm was raised or cleared.
    Alarmed {
        /// Whether it was on before.
        was_on: bool,
    },
    /// Users or roles were changed.
    AuthChanged {
        /// Their revision after it.
        auth_revision: u64,
    },
}

/// Why a command changed nothing. Each names the thing, what was expected and found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// There is no such group. Create it first.
    #[error("group {group:?} does not exist")]
    UnknownGroup {
        /// Its name.
        group: GroupName,
    },
    /// There is already such a group.
    #[error("group {group:?} already exists since revision {created}")]
    GroupExists {
        /// Its name.
        group: GroupName,
        /// Since when.
        created: Revision,
    },
    /// The group is being deleted.
    #[error("group {group:?} is being deleted")]
    GroupDeleting {
        /// Its name.
        group: GroupName,
    },
    /// The session is not there (any more). Open a new one; every tenure of the old one is over.
    #[error("session {session} expired, was closed, or never was")]
    UnknownSession {
        /// Its id.
        session: SessionId,
    },
    /// The session is revoked and waits for its end.
    #[error("session {session} was revoked")]
    SessionRevoked {
        /// Its id.
        session: SessionId,
    },
    /// The session is not a node's and so cannot contend.
    #[error("session {session} names no node; open it with one to contend")]
    NotANode {
        /// Its id.
        session: SessionId,
    },
    /// There is no such node.
    #[error("node {node:?} is not known")]
    UnknownNode {
        /// Its name.
        node: NodeName,
    },
    /// A live session already bears that node name.
    #[error("node {node:?} is live under session {session}; its session must end first")]
    NodeLive {
        /// Its name.
        node: NodeName,
        /// The live session.
        session: SessionId,
    },
    /// The report or order is about a tenure that is not the group's current one.
    #[error("tenure {} of group {:?} is not current (it is {current:?})", .tenure.number, .tenure.group.name)]
    StaleTenure {
        /// The one named.
        tenure: TenureKey,
        /// The current one's number.
        current: Option<quorate_types::TenureNumber>,
    },
    /// The group is in another phase than the command needs.
    #[error("group {group:?} is {phase:?}; {needed}")]
    WrongPhase {
        /// The group.
        group: GroupName,
        /// Its phase.
        phase: crate::event::Phase,
        /// What the command needs.
        needed: String,
    },
    /// The spec changed since the caller read it. Read again.
    #[error("group {group:?} was last changed at revision {found}, not {expected}")]
    RevisionMismatch {
        /// The group.
        group: GroupName,
        /// What the caller expected.
        expected: Revision,
        /// What it is.
        found: Revision,
    },
    /// The named node cannot take the leadership.
    #[error("node {node:?} cannot lead group {group:?}: {why}")]
    NotEligible {
        /// The group.
        group: GroupName,
        /// The node.
        node: NodeName,
        /// Why not.
        why: String,
    },
    /// A value is out of its bounds.
    #[error("{what} is {found}; allowed: {allowed}")]
    OutOfBounds {
        /// Which value.
        what: String,
        /// What was given.
        found: String,
        /// What is allowed.
        allowed: String,
    },
    /// The contract versions do not meet.
    #[error(
        "the node speaks contract versions {found}, this cluster {allowed}; upgrade the older side"
    )]
    ContractMismatch {
        /// What the node speaks.
        found: String,
        /// What the cluster speaks.
        allowed: String,
    },
    /// The session's request counter went back or skipped: the answer is no longer kept.
    #[error("request {seq} of session {session} is not the next ({expected}) nor the last")]
    RequestOutOfOrder {
        /// The session.
        session: SessionId,
        /// The one given.
        seq: u64,
        /// The one expected.
        expected: u64,
    },
    /// The window in which retries are told apart is full. Try again later.
    #[error("too many recent requests without a session ({count}); retry later or use a session")]
    DedupWindowFull {
        /// How many are remembered.
        count: u64,
    },
    /// A leader's own command of an earlier term: dropped.
    #[error("the entry's term differs from its stamp; dropped")]
    StaleTerm,
    /// The session has no say about the group's holder.
    #[error("session {session} may not report the holder of group {group:?}: {why}")]
    MayNotReport {
        /// The group.
        group: GroupName,
        /// The session.
        session: SessionId,
        /// Why not.
        why: String,
    },
    /// The key space, its leases or its users refused.
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl From<AuthError> for Rejection {
    fn from(error: AuthError) -> Self {
        Self::Kv(error.into())
    }
}
