//! What a session tells its owner.

use quorate_types::NodeName;
use quorate_wire::api::{Predecessor, TenureId};

use crate::leadership::Leadership;
use crate::lease::LostCause;

/// What happened to a session, in order. Events inform; before each act as a leader ask [`Leadership::check`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionEvent {
    /// Fence out older tokens, then answer with [`Leadership::polled`].
    Poll {
        /// The new tenure, led by nobody yet.
        leadership: Leadership,
        /// Milliseconds left when it was sent.
        deadline_ms: u64,
    },
    /// Elected, but not leading yet: get ready, then answer with [`Leadership::ready`] or [`Leadership::failed`].
    Elected {
        /// The tenure.
        leadership: Leadership,
        /// Milliseconds left when it was sent.
        deadline_ms: u64,
        /// How the tenure before ended: complete its work, or roll it back.
        predecessor: Option<Predecessor>,
    },
    /// This session leads.
    Active {
        /// The tenure.
        leadership: Leadership,
        /// How the tenure before ended.
        predecessor: Option<Predecessor>,
    },
    /// Chosen to succeed the holder: catch up while it still serves, then answer with [`Leadership::ready`].
    CatchUp {
        /// The holder's tenure.
        leadership: Leadership,
    },
    /// No longer chosen to succeed the holder.
    StandBy {
        /// The holder's tenure.
        tenure: TenureId,
    },
    /// Hand over: stop taking work, finish what is in flight, then [`Leadership::release`]. Or [`Leadership::decline`].
    HandoverRequested {
        /// The tenure.
        leadership: Leadership,
        /// Milliseconds left when it was sent.
        deadline_ms: u64,
        /// Who is to follow, where one is chosen.
        successor: Option<NodeName>,
    },
    /// The handover is off: go on leading.
    Continue {
        /// The tenure.
        leadership: Leadership,
    },
    /// The session's confirmation ran out: stop acting. The tenure may yet be confirmed again.
    Unconfirmed {
        /// The tenure.
        leadership: Leadership,
    },
    /// Confirmed again, under the same tenure and token.
    Confirmed {
        /// The tenure.
        leadership: Leadership,
    },
    /// Stop now, then [`Leadership::release`]: until then the group waits for this holder's lease to run out.
    Revoked {
        /// The tenure.
        leadership: Leadership,
    },
    /// The tenure, or this session's part in it, is over.
    Lost {
        /// The tenure.
        tenure: TenureId,
        /// Why.
        cause: LostCause,
    },
    /// The session is over, and everything with it. The last event.
    SessionLost {
        /// Why.
        cause: LostCause,
    },
}
