//! From the state machine's types to those that the SDK sees, as the server's API does it.

use quorate_coord as coord;
use quorate_coord::{GroupKey, TenureKey};
use quorate_wire::api;

/// A tenure's identity.
#[must_use]
pub fn tenure_id(key: &TenureKey) -> api::TenureId {
    api::TenureId {
        group: key.group.name.clone(),
        incarnation: key.group.created,
        number: key.number,
    }
}

/// The other way round.
#[must_use]
pub fn tenure_key(id: &api::TenureId) -> TenureKey {
    TenureKey {
        group: GroupKey {
            name: id.group.clone(),
            created: id.incarnation,
        },
        number: id.number,
    }
}

/// A cause.
#[must_use]
pub fn cause(cause: coord::Cause) -> api::Cause {
    match cause {
        coord::Cause::Elected => api::Cause::Elected,
        coord::Cause::Polled => api::Cause::Polled,
        coord::Cause::Ready => api::Cause::Ready,
        coord::Cause::Released => api::Cause::Released,
        coord::Cause::Expired => api::Cause::Expired,
        coord::Cause::Closed => api::Cause::Closed,
        coord::Cause::Ordered => api::Cause::Ordered,
        coord::Cause::WaitedOut => api::Cause::WaitedOut,
        coord::Cause::Overdue => api::Cause::Overdue,
        coord::Cause::Failed => api::Cause::Failed,
        coord::Cause::Aborted => api::Cause::Aborted,
        coord::Cause::Rebalanced => api::Cause::Rebalanced,
        coord::Cause::Withdrawn => api::Cause::Withdrawn,
        coord::Cause::Deleted => api::Cause::Deleted,
        coord::Cause::SessionRevoked => api::Cause::SessionRevoked,
        coord::Cause::Deposed => api::Cause::Deposed,
    }
}

/// How the tenure before ended.
#[must_use]
pub fn predecessor(predecessor: coord::Predecessor) -> api::Predecessor {
    api::Predecessor {
        number: predecessor.number,
        outcome: cause(predecessor.outcome),
        position: predecessor
            .position
            .map(|position| api::Position(position.0)),
    }
}

/// A directive's content.
#[must_use]
pub fn directive_kind(kind: coord::DirectiveKind) -> api::DirectiveKind {
    use coord::DirectiveKind as From;
    match kind {
        From::Poll { token, deadline_ms } => api::DirectiveKind::Poll { token, deadline_ms },
        From::Prepare {
            token,
            deadline_ms,
            predecessor: before,
        } => api::DirectiveKind::Prepare {
            token,
            deadline_ms,
            predecessor: before.map(predecessor),
        },
        From::Activate {
            token,
            predecessor: before,
        } => api::DirectiveKind::Activate {
            token,
            predecessor: before.map(predecessor),
        },
        From::CatchUp => api::DirectiveKind::CatchUp,
        From::StandBy => api::DirectiveKind::StandBy,
        From::Drain {
            deadline_ms,
            successor,
        } => api::DirectiveKind::Drain {
            deadline_ms,
            successor,
        },
        From::Continue => api::DirectiveKind::Continue,
        From::Revoke => api::DirectiveKind::Revoke,
        From::Ended { cause: why } => api::DirectiveKind::Ended { cause: cause(why) },
    }
}
