//! What replicas say to each other. One message family per handler file.

use std::sync::Arc;

use quorate_types::{LogIndex, ReplicaId, Term};
use serde::{Deserialize, Serialize};

use crate::{Entry, LogPosition, SnapshotMeta};

/// Identifies a confirmation round of one leader's term; carried by heartbeats and appends
/// (protocol, section 1). Zero precedes the first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RoundId(pub u64);

/// A message between two replicas. `term` is the sender's term, save in pre-votes, where it is the term
/// that the sender would stand in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message<C> {
    /// Would you vote for me? Changes nothing at the receiver (thesis, section 9.6).
    PreVoteRequest {
        /// The term the sender would stand in.
        term: Term,
        /// The end of the sender's log.
        last: LogPosition,
    },
    /// The answer to a pre-vote.
    PreVoteResponse {
        /// The term asked about where granted, else the responder's own term.
        term: Term,
        /// Whether it would vote.
        granted: bool,
        /// The end of the responder's log: a candidate refused only for its log will fetch the rest (a later issue).
        last: LogPosition,
    },
    /// Vote for me.
    VoteRequest {
        /// The term the sender stands in.
        term: Term,
        /// The end of the sender's log.
        last: LogPosition,
    },
    /// The answer to a vote request, sent only after the vote is durable.
    VoteResponse {
        /// The responder's term.
        term: Term,
        /// Whether it voted for the receiver.
        granted: bool,
    },
    /// Entries for a follower or learner, or a probe for where its log matches.
    Append {
        /// The leader's term.
        term: Term,
        /// The entry that precedes `entries`.
        previous: LogPosition,
        /// The entries, consecutive.
        entries: Vec<Entry<C>>,
        /// The leader's commit index.
        commit: LogIndex,
        /// The newest confirmation round.
        round: RoundId,
    },
    /// The answer to an append; an accepting one is sent only after the entries are durable.
    AppendResponse {
        /// The responder's term.
        term: Term,
        /// Whether the logs matched, and to where.
        outcome: AppendOutcome,
        /// The round of the append answered.
        round: RoundId,
    },
    /// Says that the leader lives, carries rounds and the commit index.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// What the receiver may take as committed: never beyond what it is known to match.
        commit: LogIndex,
        /// The newest confirmation round.
        round: RoundId,
    },
    /// The answer to a heartbeat.
    HeartbeatResponse {
        /// The responder's term.
        term: Term,
        /// The round of the heartbeat answered.
        round: RoundId,
        /// How far the responder's log is durable and known to equal the leader's, so that a lost append and a
        /// restart are noticed.
        last: LogIndex,
    },
    /// Stand now, without a pre-vote: the leader hands over (thesis, section 3.10).
    TimeoutNow {
        /// The leader's term.
        term: Term,
    },
    /// The leader of `term` has stepped down: the receiver need not wait for a timeout (protocol, section 1).
    SteppedDown {
        /// The term it led.
        term: Term,
    },
    /// A piece of a snapshot file, for a follower whose next entry was purged.
    SnapshotChunk {
        /// The leader's term.
        term: Term,
        /// What the snapshot covers.
        meta: SnapshotMeta,
        /// Where this piece starts in the file.
        offset: u64,
        /// The file's length.
        total: u64,
        /// The bytes.
        data: Arc<[u8]>,
    },
    /// How far a snapshot file has arrived durably enough to go on; complete when `next == total`.
    SnapshotChunkResponse {
        /// The responder's term.
        term: Term,
        /// The last entry the snapshot covers.
        last: LogPosition,
        /// The offset wanted next; zero restarts the transfer.
        next: u64,
    },
    /// Said on every new connection: what the sender saw durable of the receiver (protocol, section 7).
    SeenOfYou {
        /// The sender's term.
        term: Term,
        /// The highest term that the receiver was seen to have made durable.
        seen_term: Term,
        /// Whom the receiver was seen to vote for in `seen_term`.
        seen_vote: Option<ReplicaId>,
        /// The highest index that the receiver acknowledged in `seen_match.term`, the term of the leader it acknowledged it to.
        seen_match: LogPosition,
    },
}

impl<C> Message<C> {
    /// The sender's own term; nothing for a pre-vote that names the term it is about.
    ///
    /// By the rule that a message leaves only after the term it carries is durable, it is also a term that the sender
    /// can never fall behind again.
    pub(crate) fn sender_term(&self) -> Option<Term> {
        match self {
            Self::PreVoteRequest { .. } | Self::PreVoteResponse { granted: true, .. } => None,
            Self::PreVoteResponse { term, .. }
            | Self::VoteRequest { term, .. }
            | Self::VoteResponse { term, .. }
            | Self::Append { term, .. }
            | Self::AppendResponse { term, .. }
            | Self::Heartbeat { term, .. }
            | Self::HeartbeatResponse { term, .. }
            | Self::TimeoutNow { term }
            | Self::SteppedDown { term }
            | Self::SnapshotChunk { term, .. }
            | Self::SnapshotChunkResponse { term, .. }
            | Self::SeenOfYou { term, .. } => Some(*term),
        }
    }
}

/// Whether an append fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppendOutcome {
    /// The receiver's log equals the leader's up to here, durably.
    Matched {
        /// The last index known equal.
        through: LogIndex,
    },
    /// The entry before the append differs or is missing.
    Conflict {
        /// The `previous` that was refused.
        refused: LogIndex,
        /// The receiver's best guess of where the logs may match (thesis, section 3.5: skip a term at a time).
        hint: LogPosition,
    },
}
