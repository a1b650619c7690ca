//! What a session's belief tells its owner.

use quorate_types::{DirectiveSeq, FencingToken, NodeName};
use quorate_wire::api::{Cause, Predecessor, TenureId};

/// Why a tenure, or the part in it, is over for this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCause {
    /// The backbone ended it.
    Ended(Cause),
    /// It ended while this side was cut off; the full picture holds it no longer.
    Superseded,
    /// The session expired or was revoked.
    SessionGone,
    /// This side closed the session.
    Closed,
}

/// What changed. Whoever acts on these still asks `check()` before each act as a leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Fence out older tokens, then report the position.
    Poll {
        /// The new tenure.
        tenure: TenureId,
        /// Its token.
        token: FencingToken,
        /// Milliseconds left when it was sent.
        deadline_ms: u64,
    },
    /// Elected, not leading yet: get ready, then report `Ready`.
    Elected {
        /// The tenure.
        tenure: TenureId,
        /// Its token.
        token: FencingToken,
        /// Milliseconds left when it was sent.
        deadline_ms: u64,
        /// How the tenure before ended.
        predecessor: Option<Predecessor>,
    },
    /// This session leads.
    Activated {
        /// The tenure.
        tenure: TenureId,
        /// Its token.
        token: FencingToken,
        /// How the tenure before ended.
        predecessor: Option<Predecessor>,
    },
    /// Chosen to succeed the tenure: catch up while its holder serves.
    CatchUp {
        /// The holder's tenure.
        tenure: TenureId,
    },
    /// No longer chosen to succeed the tenure.
    StandBy {
        /// The holder's tenure.
        tenure: TenureId,
    },
    /// A handover was asked for: finish, then release.
    Draining {
        /// The tenure.
        tenure: TenureId,
        /// Milliseconds left when it was sent.
        deadline_ms: u64,
        /// Who is to follow.
        successor: Option<NodeName>,
    },
    /// The handover is off.
    Continue {
        /// The tenure.
        tenure: TenureId,
    },
    /// The session's confirmation ran out: stop acting; the tenure may yet be confirmed again.
    Unconfirmed {
        /// The tenure.
        tenure: TenureId,
    },
    /// Confirmed again, under the same tenure and token.
    Confirmed {
        /// The tenure.
        tenure: TenureId,
    },
    /// Belief ended by order: stop now, then report `Released`.
    Revoked {
        /// The tenure.
        tenure: TenureId,
    },
    /// The tenure, or this session's part in it, is over.
    Lost {
        /// The tenure.
        tenure: TenureId,
        /// Why.
        cause: LostCause,
    },
    /// A directive is missing: ask for the full picture by resuming the session.
    NeedResync {
        /// The newest processed directive.
        processed: DirectiveSeq,
    },
    /// The session is over; everything it had is lost.
    SessionLost {
        /// Why.
        cause: LostCause,
    },
}
