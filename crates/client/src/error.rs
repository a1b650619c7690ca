//! The SDK's one error, coarse by what the caller does next.

use quorate_types::NodeName;
use quorate_wire::api::{ApiError, ApiErrorKind, TenureId};

use crate::fence::FenceError;
use crate::kv::{KvFault, KvRefusal};

/// What to do about an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing was applied, and it may work later: try again.
    Retry,
    /// This session does not lead, or cannot know that it does: stop acting. The node that leads, where it is known.
    NotLeader {
        /// Who leads.
        hint: Option<NodeName>,
    },
    /// A newer holder has written: stop leading for good.
    Fenced,
    /// The request is wrong, or names what is not there: correct it.
    Invalid,
    /// Something changed since the caller looked: read again, then decide again.
    Conflict,
    /// The caller may not do this: ask the operator.
    Denied,
    /// It may have been applied, or may yet be: look before trying again.
    Unknown,
    /// The session is over, and with it every tenure: open a new one.
    SessionLost,
    /// A fault of ours, or of the server: report it.
    Internal,
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    kind: ErrorKind,
    what: String,
    #[source]
    said: Option<Said>,
}

/// What a server said, by which of its APIs.
#[derive(Clone, Debug, thiserror::Error)]
enum Said {
    #[error(transparent)]
    Api(ApiError),
    #[error(transparent)]
    Kv(KvRefusal),
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            said: None,
        }
    }

    /// What a server said while `what` was tried.
    pub(crate) fn api(what: impl Into<String>, error: ApiError) -> Self {
        Self {
            kind: kind_of(error.kind),
            what: what.into(),
            said: Some(Said::Api(error)),
        }
    }

    /// The same, where an earlier attempt may have been applied.
    pub(crate) fn maybe_applied(what: impl Into<String>, error: ApiError) -> Self {
        let what = format!("{}; it may have been applied", what.into());
        Self {
            kind: ErrorKind::Unknown,
            what,
            said: Some(Said::Api(error)),
        }
    }

    /// What a server said through etcd's API while `what` was tried.
    pub(crate) fn kv(kind: ErrorKind, what: impl Into<String>, refusal: KvRefusal) -> Self {
        Self {
            kind,
            what: what.into(),
            said: Some(Said::Kv(refusal)),
        }
    }

    pub(crate) fn not_leader(tenure: &TenureId) -> Self {
        let what = format!(
            "act as leader: tenure {} of group {:?} is not held",
            tenure.number, tenure.group
        );
        Self::new(ErrorKind::NotLeader { hint: None }, what)
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What exactly the server refused, where it was a server.
    #[must_use]
    pub fn api_kind(&self) -> Option<ApiErrorKind> {
        match &self.said {
            Some(Said::Api(error)) => Some(error.kind),
            _ => None,
        }
    }

    /// What exactly the key space refused, where it was that.
    #[must_use]
    pub fn kv_fault(&self) -> Option<KvFault> {
        match &self.said {
            Some(Said::Kv(refusal)) => Some(refusal.fault),
            _ => None,
        }
    }
}

impl From<FenceError> for Error {
    fn from(error: FenceError) -> Self {
        Self::new(ErrorKind::Fenced, error.to_string())
    }
}

fn kind_of(kind: ApiErrorKind) -> ErrorKind {
    use ApiErrorKind as Api;
    match kind {
        Api::Invalid
        | Api::UnknownGroup
        | Api::UnknownNode
        | Api::NotANode
        | Api::NotEligible
        | Api::BadTransfer
        | Api::NewerContract => ErrorKind::Invalid,
        Api::GroupExists
        | Api::NodeLive
        | Api::RevisionMismatch
        | Api::WrongPhase
        | Api::GroupDeleting => ErrorKind::Conflict,
        Api::StaleTenure => ErrorKind::NotLeader { hint: None },
        Api::UnknownSession | Api::SessionRevoked => ErrorKind::SessionLost,
        Api::Overloaded | Api::NoLeader | Api::Behind | Api::ShuttingDown | Api::Unreachable => {
            ErrorKind::Retry
        }
        Api::PermissionDenied => ErrorKind::Denied,
        Api::UnknownOutcome => ErrorKind::Unknown,
        // A kind from a newer wire crate cannot be told apart; neither can be acted on.
        Api::RequestOutOfOrder | Api::Internal | _ => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_applied_is_never_folded_into_retry() {
        for kind in ApiErrorKind::ALL
            .into_iter()
            .filter(|kind| kind.may_be_applied())
        {
            assert_ne!(kind_of(kind), ErrorKind::Retry, "{kind:?}");
        }
    }
}
