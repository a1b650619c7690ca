//! The codes and texts that clients of etcd match on.
//!
//! # Invariants
//! - Whatever is not `UNAVAILABLE` or `DEADLINE_EXCEEDED` was not applied and never will be. The converse does not hold: a refusal
//!   for want of a leader is `UNAVAILABLE`, as clients expect it, and definite all the same.

use quorate_coord::Rejection;
use quorate_coord::kv::{AuthError, KvError};
use quorate_replica::Refusal;
use tonic::{Code, Status};

/// A refusal by the replica, before there was any effect.
pub(crate) fn of_refusal(refusal: Refusal) -> Status {
    match refusal {
        Refusal::NoLeader => Status::unavailable("etcdserver: no leader"),
        Refusal::NotLeader { .. } => Status::unavailable("etcdserver: leader changed"),
        Refusal::Overloaded { .. } => Status::resource_exhausted("etcdserver: too many requests"),
        Refusal::BadTransfer => Status::failed_precondition("etcdserver: bad leader transferee"),
        // Whether the session goes on is known once its end is applied; until then nothing can be said of it.
        Refusal::SessionEnding => Status::unavailable("etcdserver: request timed out"),
    }
}

/// The outcome is not known: it may have been applied, or may yet be.
pub(crate) fn timed_out() -> Status {
    Status::unavailable("etcdserver: request timed out")
}

/// This server does not get to what was asked for in time.
pub(crate) fn behind() -> Status {
    Status::unavailable(
        "etcdserver: request timed out, waiting for the applied index took too long",
    )
}

/// The request could not be carried by the log.
pub(crate) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}

/// A command that changed nothing.
pub(crate) fn of_rejection(rejection: &Rejection) -> Status {
    match rejection {
        Rejection::Kv(error) => of_kv(error),
        other => Status::failed_precondition(format!("quorate: {other}")),
    }
}

/// A refusal by the key space.
pub(crate) fn of_kv(error: &KvError) -> Status {
    use Code::{DataLoss, FailedPrecondition, InvalidArgument, NotFound, OutOfRange};
    let (code, text) = match error {
        KvError::EmptyKey => (InvalidArgument, "key is not provided"),
        KvError::ValueProvided => (InvalidArgument, "value is provided"),
        KvError::LeaseProvided => (InvalidArgument, "lease is provided"),
        KvError::KeyNotFound => (InvalidArgument, "key not found"),
        KvError::DuplicateKey => (InvalidArgument, "duplicate key given in txn request"),
        KvError::TooManyOps { .. } => (InvalidArgument, "too many operations in txn request"),
        KvError::Compacted { .. } => (OutOfRange, "mvcc: required revision has been compacted"),
        KvError::FutureRevision { .. } => {
            (OutOfRange, "mvcc: required revision is a future revision")
        }
        KvError::LeaseNotFound { .. } => (NotFound, "requested lease not found"),
        KvError::LeaseExists { .. } => (FailedPrecondition, "lease already exists"),
        KvError::TtlTooLarge => (OutOfRange, "too large lease TTL"),
        KvError::NoSpace { .. } => (Code::ResourceExhausted, "mvcc: database space exceeded"),
        KvError::Corrupt => (DataLoss, "corrupt cluster"),
        KvError::Auth(error) => return of_auth(error),
        // Not in etcd: the words are ours.
        KvError::LeaseIsNode { .. } | KvError::ReadOnlyKey { .. } => {
            return Status::permission_denied(format!("quorate: {error}"));
        }
        other => return Status::invalid_argument(format!("quorate: {other}")),
    };
    Status::new(code, format!("etcdserver: {text}"))
}

/// A refusal by the rules of users and roles.
pub(crate) fn of_auth(error: &AuthError) -> Status {
    let code = match error {
        AuthError::RootUserMissing
        | AuthError::RootRoleMissing
        | AuthError::UserExists
        | AuthError::UserNotFound
        | AuthError::RoleExists
        | AuthError::RoleNotFound
        | AuthError::RoleNotGranted
        | AuthError::PermissionNotGranted
        | AuthError::NotEnabled => Code::FailedPrecondition,
        AuthError::PermissionDenied => Code::PermissionDenied,
        AuthError::InvalidToken => Code::Unauthenticated,
        _ => Code::InvalidArgument,
    };
    Status::new(code, format!("etcdserver: {error}"))
}

/// Our own bug: what was applied was answered with something else. The outcome counts as not known.
pub(crate) fn unexpected(reply: &impl std::fmt::Debug) -> Status {
    tracing::error!(?reply, "a command was applied with an unexpected reply");
    Status::unavailable("quorate: the command was applied with an unexpected reply")
}
