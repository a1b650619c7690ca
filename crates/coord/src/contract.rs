//! The contract of a tenure's lifecycle: one table of every transition, its causes, who may initiate it and what must hold.
//!
//! Deliberately absent: how a transition is carried out (`lifecycle`). Apply asserts that each one it makes is listed here.

use std::ops::RangeInclusive;

use crate::event::{Cause, Phase};

/// The contract versions this state machine speaks with nodes.
pub const CONTRACT_VERSIONS: RangeInclusive<u32> = 1..=1;

/// Who may cause a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// The tenure's holder, or the end of its session.
    Holder,
    /// A session standing in the group.
    Contender,
    /// An operator, or any caller that may order it.
    Operator,
    /// The backbone's leader, by a term-stamped command.
    Leader,
    /// A deadline on cluster time.
    ClusterTime,
    /// A quorum of the contenders, by their reports.
    Peers,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The phase before.
    pub from: Phase,
    /// The phase after.
    pub to: Phase,
    /// Why.
    pub cause: Cause,
    /// Who may initiate it.
    pub initiators: &'static [Initiator],
    /// What must hold.
    pub needs: &'static str,
}

const fn row(
    from: Phase,
    to: Phase,
    cause: Cause,
    initiators: &'static [Initiator],
    needs: &'static str,
) -> Transition {
    Transition {
        from,
        to,
        cause,
        initiators,
        needs,
    }
}

/// Every transition there is. `Preparing -> Preparing(next)` and a new poll round are two rows in one apply, through
/// `Vacant`, so that each end of a tenure is seen; so is the grant to a successor in the apply of a release.
pub const TRANSITIONS: &[Transition] = {
    use Cause::*;
    use Initiator::*;
    use Phase::*;
    &[
        row(
            Vacant,
            Polling,
            Elected,
            &[Contender, Operator, ClusterTime],
            "freshest policy, and an eligible contender",
        ),
        row(
            Vacant,
            Preparing,
            Elected,
            &[Contender, Operator, ClusterTime],
            "a precondition, and an eligible contender",
        ),
        row(
            Vacant,
            Active,
            Elected,
            &[Contender, Operator, ClusterTime],
            "no precondition, or one that the successor met while the holder drained",
        ),
        row(
            Polling,
            Preparing,
            Polled,
            &[Contender, ClusterTime],
            "enough answers, and a freshest contender not behind the released position",
        ),
        row(
            Polling,
            Active,
            Polled,
            &[Contender, ClusterTime],
            "enough answers, and a freshest contender not behind the released position",
        ),
        row(
            Polling,
            Vacant,
            Overdue,
            &[ClusterTime],
            "too few answers by the deadline, or all behind the released position",
        ),
        row(
            Polling,
            Vacant,
            Failed,
            &[Contender],
            "nobody is left to answer",
        ),
        row(
            Polling,
            Vacant,
            Ordered,
            &[Operator],
            "a transfer was ordered",
        ),
        row(
            Polling,
            Vacant,
            Deleted,
            &[Operator],
            "the group is deleted",
        ),
        row(
            Preparing,
            Active,
            Ready,
            &[Holder],
            "the elected contender reached the released position",
        ),
        row(
            Preparing,
            Vacant,
            Overdue,
            &[ClusterTime],
            "not ready by the deadline",
        ),
        row(
            Preparing,
            Vacant,
            Failed,
            &[Holder],
            "the elected contender cannot prepare",
        ),
        row(
            Preparing,
            Vacant,
            Released,
            &[Holder],
            "the elected contender lets go",
        ),
        row(
            Preparing,
            Vacant,
            Withdrawn,
            &[Holder],
            "the elected contender withdrew",
        ),
        row(Preparing, Vacant, Expired, &[Leader], "its session expired"),
        row(
            Preparing,
            Vacant,
            Closed,
            &[Holder],
            "its session was closed",
        ),
        row(
            Preparing,
            Vacant,
            SessionRevoked,
            &[Operator],
            "its session was revoked",
        ),
        row(
            Preparing,
            Vacant,
            Ordered,
            &[Operator],
            "a transfer or a node's drain was ordered",
        ),
        row(
            Preparing,
            Vacant,
            Deleted,
            &[Operator],
            "the group is deleted",
        ),
        row(
            Active,
            Draining,
            Ordered,
            &[Operator],
            "a successor can be chosen",
        ),
        row(
            Active,
            Draining,
            Withdrawn,
            &[Holder],
            "the holder withdrew",
        ),
        row(
            Active,
            Draining,
            Rebalanced,
            &[Contender, Operator, ClusterTime],
            "a better placed contender, and the minimum tenure over",
        ),
        row(Active, Revoking, Ordered, &[Operator], "a forced transfer"),
        row(
            Active,
            Revoking,
            Deleted,
            &[Operator],
            "the group is deleted",
        ),
        row(
            Active,
            Revoking,
            SessionRevoked,
            &[Operator],
            "the holder's session is revoked",
        ),
        row(
            Active,
            Revoking,
            Deposed,
            &[Peers],
            "a quorum of fresh reports that the holder is faulty",
        ),
        row(
            Active,
            Vacant,
            Released,
            &[Holder],
            "the holder ended its belief first",
        ),
        row(
            Active,
            Vacant,
            Expired,
            &[Leader],
            "the holder's session expired",
        ),
        row(
            Active,
            Vacant,
            Closed,
            &[Holder],
            "the holder ended every belief and closed its session",
        ),
        row(
            Draining,
            Active,
            Aborted,
            &[Operator, Holder, Contender],
            "called off, declined, or no successor is left",
        ),
        row(
            Draining,
            Active,
            Overdue,
            &[ClusterTime],
            "past the deadline, under the abort policy",
        ),
        row(
            Draining,
            Revoking,
            Overdue,
            &[ClusterTime],
            "past the deadline, under the revoke policy",
        ),
        row(
            Draining,
            Revoking,
            Ordered,
            &[Operator],
            "a forced transfer",
        ),
        row(
            Draining,
            Revoking,
            Deleted,
            &[Operator],
            "the group is deleted",
        ),
        row(
            Draining,
            Revoking,
            SessionRevoked,
            &[Operator],
            "the holder's session is revoked",
        ),
        row(
            Draining,
            Revoking,
            Deposed,
            &[Peers],
            "a quorum of fresh reports that the holder is faulty",
        ),
        row(
            Draining,
            Vacant,
            Released,
            &[Holder],
            "the holder ended its belief first",
        ),
        row(
            Draining,
            Vacant,
            Expired,
            &[Leader],
            "the holder's session expired",
        ),
        row(
            Draining,
            Vacant,
            Closed,
            &[Holder],
            "the holder ended every belief and closed its session",
        ),
        row(
            Revoking,
            Vacant,
            Released,
            &[Holder],
            "the holder ended its belief first",
        ),
        row(
            Revoking,
            Vacant,
            Expired,
            &[Leader],
            "the holder's session expired",
        ),
        row(
            Revoking,
            Vacant,
            Closed,
            &[Holder],
            "the holder ended every belief and closed its session",
        ),
        row(
            Revoking,
            Vacant,
            WaitedOut,
            &[Leader],
            "a stretched TTL passed at the leader since it applied the revocation",
        ),
        row(
            Revoking,
            Vacant,
            SessionRevoked,
            &[Leader],
            "the revoked session was waited out",
        ),
    ]
};

/// Whether the table lists this transition.
#[must_use]
pub fn is_listed(from: Phase, to: Phase, cause: Cause) -> bool {
    TRANSITIONS
        .iter()
        .any(|row| row.from == from && row.to == to && row.cause == cause)
}

impl Phase {
    /// Whether a holder may answer "I lead": only here, and only while the SDK's lease lasts.
    #[must_use]
    pub fn is_believed(self) -> bool {
        matches!(self, Self::Active | Self::Draining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_unique_and_only_release_session_end_or_wait_end_a_believed_tenure() {
        for (at, row) in TRANSITIONS.iter().enumerate() {
            assert!(
                !TRANSITIONS[..at]
                    .iter()
                    .any(|r| (r.from, r.to, r.cause) == (row.from, row.to, row.cause)),
                "{row:?} is listed twice"
            );
            if row.from.is_believed() && row.to == Phase::Vacant {
                assert!(
                    matches!(row.cause, Cause::Released | Cause::Expired | Cause::Closed),
                    "{row:?}"
                );
            }
            if row.from == Phase::Revoking {
                assert_eq!(row.to, Phase::Vacant, "a revocation is never taken back");
            }
        }
    }
}
