//! Log entries and what must be durable about elections.

use quorate_types::{LogIndex, Payload, ReplicaId, Term};
use serde::{Deserialize, Serialize};

use crate::Configuration;

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body<C> {
    /// The first entry of a leader's own term. Committing it commits what earlier terms left
    /// (Raft thesis, section 3.6.2).
    OwnTerm,
    /// A change of the backbone's membership or quorum shape.
    Configuration(Configuration),
    /// A command for the state machine.
    Command(C),
}

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry<C> {
    /// Its position.
    pub index: LogIndex,
    /// The term of the leader that proposed it.
    pub term: Term,
    /// What it carries.
    pub body: Body<C>,
}

impl<C> Entry<C> {
    /// Where it stands in the log.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        LogPosition {
            term: self.term,
            index: self.index,
        }
    }
}

impl<C: Payload> Entry<C> {
    /// Roughly its encoded size, for flow control only.
    pub(crate) fn size_bytes(&self) -> usize {
        const HEADER_BYTES: usize = 16;
        const MEMBER_BYTES: usize = 64;
        HEADER_BYTES
            + match &self.body {
                Body::OwnTerm => 0,
                Body::Configuration(configuration) => MEMBER_BYTES * configuration.members.len(),
                Body::Command(command) => command.size_bytes(),
            }
    }
}

/// A position in the log, compared by term first: which of two logs is more up to date (thesis, section 3.6.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct LogPosition {
    /// Term of the entry.
    pub term: Term,
    /// Index of the entry.
    pub index: LogIndex,
}

/// The vote, which must be durable before it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The highest term seen.
    pub term: Term,
    /// Whom this replica voted for in `term`.
    pub voted_for: Option<ReplicaId>,
}

/// What a snapshot covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry it covers.
    pub last: LogPosition,
    /// The configuration in force at that entry.
    pub configuration: Configuration,
}
