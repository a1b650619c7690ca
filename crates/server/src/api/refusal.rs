//! What callers are told of refusals and rejections: definite, none of them was or will be applied.

use quorate_coord::Rejection;
use quorate_replica::Refusal;
use quorate_wire::api::{ApiError, ApiErrorKind};

/// A call that was refused before it had any effect.
pub(super) fn of(refusal: Refusal) -> ApiError {
    let message = refusal.to_string();
    match refusal {
        Refusal::NoLeader | Refusal::NotLeader { .. } => {
            ApiError::new(ApiErrorKind::NoLeader, message).retry_after_ms(100)
        }
        Refusal::Overloaded { retry_after_ms } => {
            ApiError::new(ApiErrorKind::Overloaded, message).retry_after_ms(retry_after_ms)
        }
        // Soon it is known whether the session is over; until then nothing can be said of it.
        Refusal::SessionEnding => {
            ApiError::new(ApiErrorKind::Overloaded, message).retry_after_ms(50)
        }
        Refusal::BadTransfer => ApiError::new(ApiErrorKind::BadTransfer, message),
    }
}

/// A command that changed nothing.
pub(super) fn of_rejection(rejection: &Rejection) -> ApiError {
    let kind = match rejection {
        Rejection::UnknownGroup { .. } => ApiErrorKind::UnknownGroup,
        Rejection::GroupExists { .. } => ApiErrorKind::GroupExists,
        Rejection::GroupDeleting { .. } => ApiErrorKind::GroupDeleting,
        Rejection::UnknownSession { .. } => ApiErrorKind::UnknownSession,
        Rejection::SessionRevoked { .. } => ApiErrorKind::SessionRevoked,
        Rejection::NotANode { .. } => ApiErrorKind::NotANode,
        Rejection::UnknownNode { .. } => ApiErrorKind::UnknownNode,
        Rejection::NodeLive { .. } => ApiErrorKind::NodeLive,
        Rejection::StaleTenure { .. } => ApiErrorKind::StaleTenure,
        Rejection::WrongPhase { .. } => ApiErrorKind::WrongPhase,
        Rejection::RevisionMismatch { .. } => ApiErrorKind::RevisionMismatch,
        Rejection::NotEligible { .. } => ApiErrorKind::NotEligible,
        Rejection::OutOfBounds { .. } => ApiErrorKind::Invalid,
        Rejection::ContractMismatch { .. } => ApiErrorKind::NewerContract,
        Rejection::RequestOutOfOrder { .. } => ApiErrorKind::RequestOutOfOrder,
        Rejection::DedupWindowFull { .. } => ApiErrorKind::Overloaded,
        // Only the leader's own commands carry a term; a caller never sees this.
        Rejection::StaleTerm => ApiErrorKind::Internal,
        Rejection::MayNotReport { .. } => ApiErrorKind::PermissionDenied,
        // The native API has no command of the key space; the etcd API says these in its own words.
        Rejection::Kv(_) => ApiErrorKind::Internal,
    };
    let error = ApiError::new(kind, rejection.to_string());
    if kind == ApiErrorKind::Overloaded {
        error.retry_after_ms(1_000)
    } else {
        error
    }
}
