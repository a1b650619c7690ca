//! What an apply tells the world: notices for watchers, directives for sessions, transitions for the record.

use quorate_types::{DirectiveSeq, FencingToken, NodeName, SessionId};
use serde::{Deserialize, Serialize};

use crate::command::{GroupKey, SessionKey, TenureKey};
use crate::depose::FaultReport;
use crate::spec::{Position, ProposedConfiguration};

/// Where a group stands. The transitions between these are the table in `contract.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Nobody leads and nobody is elected.
    Vacant,
    /// A tenure is numbered; contenders are asked for their positions (freshest policy).
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
pub enum Cause {
    /// A contender was available.
    Elected,
    /// The poll was answered by enough.
    Polled,
    /// The elected contender was ready, or needed no preparation.
    Ready,
    /// The holder let go.
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
    pub number: quorate_types::TenureNumber,
    /// Why it ended: `Released` means that nothing is in flight.
    pub outcome: Cause,
    /// The position it released at, or the last one known; what was acknowledged under it may go further unless it released.
    pub position: Option<Position>,
}

/// One order or notice to one session. Numbered per session; processed in order by the SDK (protocol, section 3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directive {
    /// Its number: one more than the session's one before.
    pub seq: DirectiveSeq,
    /// About which tenure.
    pub tenure: TenureKey,
    /// What.
    pub kind: DirectiveKind,
}

/// What a directive says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectiveKind {
    /// Fence out older tokens, then report the position.
    Poll {
        /// The new tenure's token.
        token: FencingToken,
        /// Milliseconds of cluster time left.
        deadline_ms: u64,
    },
    /// You are elected: get ready, then report `Ready`.
    Prepare {
        /// The tenure's token.
        token: FencingToken,
        /// Milliseconds of cluster time left.
        deadline_ms: u64,
        /// How the tenure before ended.
        predecessor: Option<Predecessor>,
    },
    /// You lead.
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
        /// Milliseconds of cluster time left.
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

/// What is known of a tenure, for watchers and look-ups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenureView {
    /// Which.
    pub key: TenureKey,
    /// Its token.
    pub token: FencingToken,
    /// Who was elected; none while polling.
    pub holder: Option<SessionId>,
    /// The holder's node.
    pub node: Option<NodeName>,
    /// What the holder publishes.
    pub configuration: ProposedConfiguration,
}

/// A notice of what an apply changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A session was opened.
    SessionOpened {
        /// Which.
        session: SessionKey,
        /// Its TTL.
        ttl_ms: u64,
    },
    /// A session was revoked: it is refused keep-alives and waits for its end.
    SessionRevoked {
        /// Which.
        session: SessionKey,
    },
    /// A session ended.
    SessionEnded {
        /// Which.
        session: SessionKey,
        /// `Expired`, `Closed` or `SessionRevoked`.
        cause: Cause,
    },
    /// A group was created.
    GroupCreated {
        /// Which.
        group: GroupKey,
    },
    /// A group's spec was replaced.
    GroupUpdated {
        /// Which.
        group: GroupKey,
    },
    /// A group is gone.
    GroupDeleted {
        /// Which.
        group: GroupKey,
    },
    /// A group moved from phase to phase, or to the next contender within one.
    Transition {
        /// The group.
        group: GroupKey,
        /// From where.
        from: Phase,
        /// To where.
        to: Phase,
        /// Why.
        cause: Cause,
        /// The tenure after the transition; for `to == Vacant`, the one that ended.
        tenure: TenureView,
    },
    /// An order or notice to a session.
    Directive {
        /// To whom.
        session: SessionKey,
        /// What.
        directive: Directive,
    },
    /// A node joined, left, or was opened, cordoned or drained.
    NodeChanged {
        /// Which.
        node: NodeName,
    },
    /// A contender reported a holder as faulty, or said so again.
    HolderReported {
        /// Whose tenure.
        tenure: TenureKey,
        /// By whom, and why.
        report: FaultReport,
    },
    /// A contender took its report of a holder back.
    ReportWithdrawn {
        /// About which tenure.
        tenure: TenureKey,
        /// Whose report.
        session: SessionKey,
    },
    /// A quorum of reports revoked a tenure.
    HolderDeposed {
        /// Which.
        tenure: TenureKey,
        /// On whose word.
        reports: Vec<FaultReport>,
    },
}
