//! What servers refuse through etcd's API, told apart by gRPC code and text, as all its clients do.

use quorate_wire::api::{ApiError, ApiErrorKind};
use tonic::{Code, Status};

use crate::error::{Error, ErrorKind};

/// Why the key space refused, where it is something that a program may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvFault {
    /// The revision was compacted: start again from a newer one.
    Compacted,
    /// The revision is not there yet.
    FutureRevision,
    /// There is no such lease (any more).
    LeaseNotFound,
    /// A lease of that id is there.
    LeaseExists,
    /// The key that was to stay as it is is not there.
    KeyNotFound,
    /// The key is written by the servers only.
    ReadOnlyKey,
    /// The key space is used up.
    NoSpace,
    /// The request is larger than servers take.
    TooLarge,
    /// The user, the password or the token is wrong.
    Unauthenticated,
    /// The user may not do this.
    PermissionDenied,
    /// The server does not do this.
    Unsupported,
    /// The server could not be reached: certainly not applied.
    Unreachable,
    /// Something else: what the server said is for people.
    Other,
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KvRefusal {
    /// What it refused.
    pub fault: KvFault,
    /// In its words.
    pub message: String,
}

/// A failed attempt.
#[derive(Clone, Debug)]
pub(super) enum Attempt {
    /// A server of ours said exactly what it is.
    Api(ApiError),
    /// By etcd's code and text.
    Kv(ErrorKind, KvRefusal),
}

impl Attempt {
    /// Nothing came back in time.
    pub(super) fn silent(address: &str, after: std::time::Duration) -> Self {
        let message = format!("{address} did not answer within {after:?}");
        Self::Kv(
            ErrorKind::Unknown,
            KvRefusal {
                fault: KvFault::Other,
                message,
            },
        )
    }

    pub(super) fn from_status(address: &str, status: &Status) -> Self {
        let api = quorate_wire::error_of(status);
        let is_ours = status.metadata().contains_key("quorate-error");
        if is_ours && api.kind != ApiErrorKind::Internal {
            return Self::Api(api);
        }
        let (kind, fault) = meaning(status);
        // Who cannot be reached is said; what a server says of a request is the same from any of them.
        let message = if fault == KvFault::Unreachable || kind == ErrorKind::Unknown {
            format!("{address}: {}", api.message)
        } else {
            status.message().to_owned()
        };
        Self::Kv(kind, KvRefusal { fault, message })
    }

    /// Whether nothing was applied, and the same call may succeed later or elsewhere.
    pub(super) fn is_refused_for_now(&self) -> bool {
        match self {
            Self::Api(error) => error.kind.is_transient() && !error.kind.may_be_applied(),
            Self::Kv(kind, _) => *kind == ErrorKind::Retry,
        }
    }

    /// Whether the call may have been applied, or may yet be.
    pub(super) fn may_be_applied(&self) -> bool {
        match self {
            Self::Api(error) => error.kind.may_be_applied(),
            Self::Kv(kind, _) => matches!(kind, ErrorKind::Unknown | ErrorKind::Internal),
        }
    }

    pub(super) fn fault(&self) -> KvFault {
        match self {
            Self::Api(_) => KvFault::Other,
            Self::Kv(_, refusal) => refusal.fault,
        }
    }

    pub(super) fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Api(error) => error.retry_after_ms.map(std::time::Duration::from_millis),
            Self::Kv(..) => None,
        }
    }

    /// The error of a read: it has no effect, so what may have been "applied" may be asked again.
    pub(super) fn of_read(self, what: &str) -> Error {
        match self {
            Self::Api(error) => Error::api(what, error.of_read()),
            Self::Kv(ErrorKind::Unknown, refusal) => Error::kv(ErrorKind::Retry, what, refusal),
            Self::Kv(kind, refusal) => Error::kv(kind, what, refusal),
        }
    }

    /// The error of a write.
    pub(super) fn of_write(self, what: &str) -> Error {
        if !self.may_be_applied() {
            return match self {
                Self::Api(error) => Error::api(what, error),
                Self::Kv(kind, refusal) => Error::kv(kind, what, refusal),
            };
        }
        match self {
            Self::Api(error) => Error::maybe_applied(what, error),
            Self::Kv(_, refusal) => {
                let what = format!("{what}; it may have been applied");
                Error::kv(ErrorKind::Unknown, what, refusal)
            }
        }
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Api(error) => error.fmt(f),
            Self::Kv(_, refusal) => refusal.fmt(f),
        }
    }
}

/// What a text that cancels a watch means; none where another server may be asked to go on.
pub(super) fn of_cancel(reason: &str) -> Option<(ErrorKind, KvRefusal)> {
    let fault = fault_of(reason);
    let kind = match fault {
        KvFault::PermissionDenied | KvFault::Unauthenticated => ErrorKind::Denied,
        _ if reason.contains("range") || reason.contains("duplicate") => ErrorKind::Invalid,
        _ => return None,
    };
    let message = reason.to_owned();
    Some((kind, KvRefusal { fault, message }))
}

fn fault_of(text: &str) -> KvFault {
    const TEXTS: [(&str, KvFault); 13] = [
        ("required revision has been compacted", KvFault::Compacted),
        ("is a future revision", KvFault::FutureRevision),
        ("requested lease not found", KvFault::LeaseNotFound),
        ("lease already exists", KvFault::LeaseExists),
        ("key not found", KvFault::KeyNotFound),
        ("read-only", KvFault::ReadOnlyKey),
        ("database space exceeded", KvFault::NoSpace),
        ("request is too large", KvFault::TooLarge),
        ("permission denied", KvFault::PermissionDenied),
        ("invalid auth token", KvFault::Unauthenticated),
        ("revision of auth store is old", KvFault::Unauthenticated),
        ("user name is empty", KvFault::Unauthenticated),
        ("authentication failed", KvFault::Unauthenticated),
    ];
    let found = TEXTS.into_iter().find(|(part, _)| text.contains(part));
    found.map_or(KvFault::Other, |(_, fault)| fault)
}

/// Only what certainly was not applied, nor will be, is told apart from an unknown outcome.
fn meaning(status: &Status) -> (ErrorKind, KvFault) {
    let fault = fault_of(status.message());
    let kind = match status.code() {
        Code::Unavailable if quorate_wire::never_sent(status) => {
            return (ErrorKind::Retry, KvFault::Unreachable);
        }
        Code::Unimplemented => return (ErrorKind::Invalid, KvFault::Unsupported),
        Code::PermissionDenied => return (ErrorKind::Denied, KvFault::PermissionDenied),
        Code::Unauthenticated => return (ErrorKind::Denied, KvFault::Unauthenticated),
        Code::InvalidArgument if fault == KvFault::Unauthenticated => ErrorKind::Denied,
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound => ErrorKind::Invalid,
        Code::AlreadyExists | Code::FailedPrecondition => ErrorKind::Conflict,
        Code::ResourceExhausted if fault == KvFault::NoSpace => ErrorKind::Denied,
        Code::ResourceExhausted => ErrorKind::Retry,
        Code::Internal | Code::DataLoss => ErrorKind::Internal,
        _ => ErrorKind::Unknown,
    };
    (kind, fault)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: &Status, kind: &ErrorKind, fault: KvFault, maybe_applied: bool) {
        let attempt = Attempt::from_status("s1", status);
        assert_eq!(attempt.fault(), fault, "{status:?}");
        assert_eq!(attempt.may_be_applied(), maybe_applied, "{status:?}");
        let error = attempt.of_write("put a");
        assert_eq!(error.kind(), kind, "{status:?}");
        let says = error.to_string().contains("may have been applied");
        assert_eq!(says, maybe_applied, "{error}");
    }

    #[test]
    fn texts_of_etcd_are_told_apart() {
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        check(
            &Status::out_of_range(compacted),
            &ErrorKind::Invalid,
            KvFault::Compacted,
            false,
        );
        let no_lease = "etcdserver: requested lease not found";
        check(
            &Status::not_found(no_lease),
            &ErrorKind::Invalid,
            KvFault::LeaseNotFound,
            false,
        );
        let full = "etcdserver: mvcc: database space exceeded";
        check(
            &Status::resource_exhausted(full),
            &ErrorKind::Denied,
            KvFault::NoSpace,
            false,
        );
        let busy = "etcdserver: too many requests";
        check(
            &Status::resource_exhausted(busy),
            &ErrorKind::Retry,
            KvFault::Other,
            false,
        );
        let token = "etcdserver: invalid auth token";
        check(
            &Status::unauthenticated(token),
            &ErrorKind::Denied,
            KvFault::Unauthenticated,
            false,
        );
    }

    #[test]
    fn what_is_not_a_definite_refusal_may_have_been_applied() {
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Cancelled,
            Code::Unknown,
            Code::Aborted,
        ] {
            check(
                &Status::new(code, "etcdserver: request timed out"),
                &ErrorKind::Unknown,
                KvFault::Other,
                true,
            );
        }
        check(
            &Status::internal("a fault"),
            &ErrorKind::Unknown,
            KvFault::Other,
            true,
        );
    }

    #[test]
    fn a_read_of_unknown_outcome_is_to_be_tried_again() {
        let attempt = Attempt::from_status("s1", &Status::deadline_exceeded("late"));
        assert_eq!(*attempt.of_read("read a").kind(), ErrorKind::Retry);
    }
}
