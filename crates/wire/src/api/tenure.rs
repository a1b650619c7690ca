//! Tenures, and the directives by which a session learns of them.

use std::collections::BTreeMap;

use quorate_types::{
    DirectiveSeq, FencingToken, GroupName, NodeName, Revision, SessionId, TenureNumber,
};
use serde::{Deserialize, Serialize};

/// How far a contender's data has got; larger is fresher. Its unit is the service's (a log offset, say).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

/// A session's identity: an id with the revision that created it, so that a reused id is another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey {
    /// Its id.
    pub id: SessionId,
    /// The revision at which it was opened.
    pub created: Revision,
}

/// One tenure of one group incarnation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TenureId {
    /// The group's name.
    pub group: GroupName,
    /// The revision at which the group was created: a recreated group of the same name is another group.
    pub incarnation: Revision,
    /// The tenure's number within the incarnation, from 1.
    pub number: TenureNumber,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody leads and nobody is elected.
    Vacant,
    /// Contenders are asked for their positions.
    Polling,
    /// A contender is elected and gets ready; it may not lead yet.
    Preparing,
    /// The holder may lead.
    Active,
    /// The holder may lead, and hands over.
    Draining,
    /// The tenure is to end; the holder must stop, and is waited out.
    Revoking,
}

/// Why a tenure ended, a session ended, or a phase changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A contender was available.
    Elected,
    /// The poll was answered by enough.
    Polled,
    /// The elected contender was ready, or needed no preparation.
    Ready,
    /// The holder let go: nothing is in flight.
    Released,
    /// The session expired.
    Expired,
    /// The session was closed by its owner.
    Closed,
    /// An operator or caller ordered it.
    Ordered,
    /// A revoked tenure was waited out.
    WaitedOut,
    /// A deadline passed.
    Overdue,
    /// The contender reported that it cannot.
    Failed,
    /// A handover was called off.
    Aborted,
    /// A better placed contender takes over within the policy.
    Rebalanced,
    /// The contender withdrew.
    Withdrawn,
    /// The group was deleted.
    Deleted,
    /// The session was revoked.
    SessionRevoked,
    /// A quorum of contenders reported the holder as faulty.
    Deposed,
}

/// How the tenure before ended, for the successor to complete or roll back its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Its number.
    pub number: TenureNumber,
    /// Why it ended: [`Cause::Released`] means that nothing is in flight.
    pub outcome: Cause,
    /// The position it released at, or the last one known; what was acknowledged under it may go further unless it
    /// released.
    pub position: Option<Position>,
}

/// One order or notice to one session, numbered from 1 without gaps, to be processed in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Its number.
    pub seq: DirectiveSeq,
    /// About which tenure.
    pub tenure: TenureId,
    /// What.
    pub kind: DirectiveKind,
}

/// What a directive says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectiveKind {
    /// Fence out older tokens, then report the position.
    Poll {
        /// The new tenure's token.
        token: FencingToken,
        /// Milliseconds left.
        deadline_ms: u64,
    },
    /// You are elected: get ready, then report `Ready`.
    Prepare {
        /// The tenure's token.
        token: FencingToken,
        /// Milliseconds left.
        deadline_ms: u64,
        /// How the tenure before ended.
        predecessor: Option<Predecessor>,
    },
    /// You lead, as long as your session is confirmed.
    Activate {
        /// The tenure's token.
        token: FencingToken,
        /// How the tenure before ended.
        predecessor: Option<Predecessor>,
    },
    /// You are chosen to succeed this tenure: catch up while its holder still serves.
    CatchUp,
    /// You are no longer chosen to succeed this tenure.
    StandBy,
    /// Hand over: stop taking work, finish what is in flight, report `Released`.
    Drain {
        /// Milliseconds left.
        deadline_ms: u64,
        /// Who is to follow, where one is chosen.
        successor: Option<NodeName>,
    },
    /// The handover is off: go on leading.
    Continue,
    /// Stop leading now, then report `Released`.
    Revoke,
    /// The tenure (or your part in it) is over.
    Ended {
        /// Why.
        cause: Cause,
    },
}

/// What part a session has in a tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Asked for its position.
    Polled,
    /// Asked for its position, and has answered.
    Answered,
    /// Elected, and getting ready.
    Preparing,
    /// Leads.
    Active,
    /// Leads, and hands over.
    Draining,
    /// Led, and must let go.
    Revoking,
    /// Chosen to succeed the holder.
    Successor,
}

/// One tenure that a session takes part in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingTenure {
    /// Which.
    pub tenure: TenureId,
    /// As what.
    pub part: Part,
    /// The tenure's token.
    pub token: FencingToken,
    /// How the tenure before ended.
    pub predecessor: Option<Predecessor>,
    /// Milliseconds left to answer, prepare or hand over, where that is bounded.
    pub deadline_ms: Option<u64>,
    /// Who is to follow, while it hands over.
    pub successor: Option<NodeName>,
}

/// A contender's claim that a holder is alive but faulty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// Who claims it.
    pub session: SessionId,
    /// Its node.
    pub node: NodeName,
    /// What it says is wrong.
    pub reason: String,
    /// When it was last said, on the cluster's clock, in milliseconds.
    pub at_ms: u64,
}

/// What clients look up to find and use the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProposedConfiguration {
    /// Where the holder is reached.
    pub endpoints: Vec<String>,
    /// What else the service wants to publish.
    pub metadata: BTreeMap<String, String>,
}

/// What a contender says about a tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The old token is fenced out here and this is how far the data has got (answers a poll).
    Polled {
        /// How far.
        position: Position,
    },
    /// The elected contender has caught up to this position.
    Ready {
        /// How far.
        position: Position,
    },
    /// The elected contender cannot prepare; elect the next.
    Failed,
    /// The holder ended its belief and lets go; what it acknowledged ends here.
    Released {
        /// The position its successor must reach, where it is known.
        position: Option<Position>,
    },
    /// The holder refuses a handover and goes on leading.
    Declined,
}
