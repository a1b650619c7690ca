//! Calls: what clients ask of a replica, and how it answers.

use quorate_coord::{Command, Envelope, Outcome, RequestKey, SessionKey};
use quorate_types::{
    ClusterTime, ContractVersion, DirectiveSeq, LogIndex, Principal, ReplicaId, TraceId, WallTime,
};
use serde::{Deserialize, Serialize};

/// One call at one server; given by the shell, unique while the process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// A command on its way to the log: an envelope that the leader has not stamped yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Who asks.
    pub principal: Principal,
    /// Makes retries exactly-once.
    pub request: RequestKey,
    /// Follows the request through logs.
    pub trace: TraceId,
    /// The proposer's wall clock.
    pub wall: WallTime,
    /// The contract version the caller speaks.
    pub contract: ContractVersion,
    /// What to do.
    pub command: Command,
}

impl Proposal {
    /// Stamps it with cluster time.
    #[must_use]
    pub fn into_envelope(self, cluster_time: ClusterTime) -> Envelope {
        Envelope {
            principal: self.principal,
            request: self.request,
            trace: self.trace,
            wall: self.wall,
            cluster_time,
            contract: self.contract,
            command: self.command,
        }
    }
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Put a command through the log.
    Propose(Box<Proposal>),
    /// Keep a session alive. Not replicated (protocol, section 2).
    KeepAlive {
        /// Which session.
        session: SessionKey,
        /// The SDK's counter; echoed, and only that send time counts.
        seq: u64,
    },
    /// A linearizable read: answered once this server's published version holds everything committed when the call arrived.
    Read,
    /// Hand the backbone's leadership to another replica.
    TransferLeader {
        /// To whom; `None`: the most caught-up voter.
        to: Option<ReplicaId>,
    },
    /// How long a session has left, as the leader's memory has it. Says nothing to the session and does not extend it.
    SessionAge {
        /// Which session.
        session: SessionKey,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The command was applied, with this outcome.
    Applied {
        /// What it did, or why it changed nothing.
        outcome: Outcome,
        /// Where: a version applied up to here shows it.
        index: LogIndex,
    },
    /// The session lives; a quorum confirmed the leader's term after the keep-alive arrived.
    KeptAlive {
        /// Which session.
        session: SessionKey,
        /// The keep-alive answered.
        seq: u64,
        /// The session's TTL in milliseconds.
        ttl_ms: u64,
        /// Directives given so far: tenures may be extended only by who has processed them all.
        directive_seq: DirectiveSeq,
    },
    /// The session is over, or about to be.
    SessionGone {
        /// Which session.
        session: SessionKey,
        /// The keep-alive answered.
        seq: u64,
    },
    /// The version published here holds at least this.
    ReadAt {
        /// The read index.
        index: LogIndex,
    },
    /// The handover of the backbone's leadership has begun.
    Transferring,
    /// Nothing was or will be done; try again.
    Refused(Refusal),
    /// It may have been applied, or may yet be. Retry with the same request key to learn which.
    Unknown,
    /// How long a session has left. A quorum confirmed the leader's term after the question arrived.
    SessionAge {
        /// Which session.
        session: SessionKey,
        /// Milliseconds until it may be expired if no keep-alive comes, at most its TTL; 0 while its end is being committed.
        /// `None`: it is over.
        remaining_ms: Option<u64>,
    },
    /// Between servers only: the command was applied, and its outcome is too large to be carried; the asking server takes it from its own
    /// apply of that entry.
    AppliedAt {
        /// Where.
        index: LogIndex,
    },
}

impl Response {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Applied {
                outcome: Ok(reply), ..
            } => 64 + reply.size_bytes(),
            _ => 256,
        }
    }
}

impl Request {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Propose(proposal) => {
                proposal.command.size_bytes() + proposal.principal.as_str().len() + 128
            }
            _ => 32,
        }
    }
}

/// Why a call was refused before it had any effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No leader was known in time.
    #[error("the backbone has no leader that this server can reach")]
    NoLeader,
    /// The server that the call was forwarded to does not lead.
    #[error("the server no longer leads (leader: {leader:?})")]
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<ReplicaId>,
    },
    /// Too much is waiting.
    #[error("too many requests are waiting; retry after {retry_after_ms} ms")]
    Overloaded {
        /// When to try again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The end of the session is being committed; its outcome is not known yet. Ask again.
    #[error("the end of the session is being committed")]
    SessionEnding,
    /// The transfer named a replica that cannot lead.
    #[error("that replica cannot take over the leadership")]
    BadTransfer,
}
