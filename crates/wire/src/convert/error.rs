//! Errors: a stable code in the metadata, and a gRPC status that tells the truth to who does not know the code.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::{Decoded, required};
use crate::api::{ApiError, ApiErrorKind};
use crate::proto;

const CODE_KEY: &str = "quorate-error";
const RETRY_AFTER_KEY: &str = "quorate-retry-after-ms";

/// The status of a kind. Only a call that was certainly not applied gets a definite status.
fn status_code(kind: ApiErrorKind) -> Code {
    use ApiErrorKind as Kind;
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::UnknownGroup | Kind::UnknownNode | Kind::UnknownSession => Code::NotFound,
        Kind::GroupExists | Kind::NodeLive => Code::AlreadyExists,
        Kind::RevisionMismatch
        | Kind::StaleTenure
        | Kind::WrongPhase
        | Kind::GroupDeleting
        | Kind::NotEligible
        | Kind::NotANode
        | Kind::SessionRevoked
        | Kind::RequestOutOfOrder
        | Kind::BadTransfer => Code::FailedPrecondition,
        Kind::NewerContract => Code::OutOfRange,
        Kind::Overloaded => Code::ResourceExhausted,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::NoLeader
        | Kind::Behind
        | Kind::ShuttingDown
        | Kind::Unreachable
        | Kind::UnknownOutcome => Code::Unavailable,
        Kind::Internal => Code::Internal,
    }
}

/// The status to answer with.
pub(crate) fn status_of(error: ApiError) -> Status {
    let mut status = Status::new(status_code(error.kind), error.message);
    status
        .metadata_mut()
        .insert(CODE_KEY, MetadataValue::from_static(error.kind.code()));
    if let Some(retry_after_ms) = error.retry_after_ms {
        status
            .metadata_mut()
            .insert(RETRY_AFTER_KEY, retry_after_ms.into());
    }
    status
}

/// What a status means to the caller.
#[must_use]
pub fn error_of(status: &Status) -> ApiError {
    let text = |key: &str| {
        status
            .metadata()
            .get(key)
            .and_then(|value| value.to_str().ok())
    };
    let retry_after_ms = text(RETRY_AFTER_KEY).and_then(|value| value.parse().ok());
    let kind = text(CODE_KEY).and_then(ApiErrorKind::from_code);
    if let Some(kind) = kind {
        return ApiError {
            kind,
            message: status.message().to_owned(),
            retry_after_ms,
        };
    }
    // Not from a server of ours, or from a newer one. What is not a definite refusal may have been applied.
    let kind = match status.code() {
        Code::InvalidArgument | Code::Unimplemented => ApiErrorKind::Invalid,
        Code::OutOfRange => ApiErrorKind::NewerContract,
        Code::ResourceExhausted => ApiErrorKind::Overloaded,
        Code::PermissionDenied | Code::Unauthenticated => ApiErrorKind::PermissionDenied,
        Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => {
            ApiErrorKind::Invalid
        }
        Code::Unavailable if never_sent(status) => {
            let message = format!("connect: {}", chain(status));
            return ApiError {
                kind: ApiErrorKind::Unreachable,
                message,
                retry_after_ms,
            };
        }
        _ => {
            return ApiError {
                retry_after_ms,
                ..ApiError::unknown_outcome(chain(status))
            };
        }
    };
    ApiError {
        kind,
        message: chain(status),
        retry_after_ms,
    }
}

/// The connection was never made: the error's chain says so. Anything less certain counts as sent.
#[must_use]
pub fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.downcast_ref::<tonic::ConnectError>().is_some() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The message with its causes, each once.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = if text.is_empty() {
                next
            } else {
                format!("{text}: {next}")
            };
        }
        cause = error.source();
    }
    text
}

pub(super) fn info(error: Option<proto::ErrorInfo>) -> Decoded<ApiError> {
    let proto::ErrorInfo {
        code,
        message,
        retry_after_ms,
    } = required(error, "error")?;
    // A code from the future: what it says is for people, and nothing may be taken for granted.
    let kind = ApiErrorKind::from_code(&code).unwrap_or(ApiErrorKind::Internal);
    Ok(ApiError {
        kind,
        message,
        retry_after_ms,
    })
}

pub(super) fn info_to(error: ApiError) -> proto::ErrorInfo {
    let ApiError {
        kind,
        message,
        retry_after_ms,
    } = error;
    proto::ErrorInfo {
        code: kind.code().to_owned(),
        message,
        retry_after_ms,
    }
}
