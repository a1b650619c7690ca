//! The one error of the API: what happened, and above all whether anything may have been applied.

use std::fmt;

/// How the message of every unknown outcome ends.
const MAYBE_APPLIED: &str = "; it may have been applied";

/// Why a call failed. Each kind has a stable code (`quorate-error` on the wire) that says what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ApiErrorKind {
    /// The request is wrong: correct it.
    Invalid,
    /// There is no such group.
    UnknownGroup,
    /// There is no such node.
    UnknownNode,
    /// The session is over: open a new one.
    UnknownSession,
    /// The group is there already.
    GroupExists,
    /// A live session bears that node name.
    NodeLive,
    /// The spec changed since it was read.
    RevisionMismatch,
    /// The tenure named is not current: stop.
    StaleTenure,
    /// The group is in another phase.
    WrongPhase,
    /// The group is being deleted.
    GroupDeleting,
    /// The named node cannot take the leadership.
    NotEligible,
    /// The session names no node.
    NotANode,
    /// The session was revoked.
    SessionRevoked,
    /// The request counter is wrong: a fault of the client.
    RequestOutOfOrder,
    /// The named replica cannot take over the backbone.
    BadTransfer,
    /// The contract versions do not meet: upgrade the older side.
    NewerContract,
    /// Too much is waiting: retry after the time given.
    Overloaded,
    /// The caller may not do this.
    PermissionDenied,
    /// No leader was found: certainly not applied.
    NoLeader,
    /// The server has not reached the revision asked for.
    Behind,
    /// The server stops: certainly not applied.
    ShuttingDown,
    /// The server could not be reached: certainly not applied. Made by the client only.
    Unreachable,
    /// It may have been applied, or may yet be: retry with the same request id.
    UnknownOutcome,
    /// A fault of the server; it may have been applied.
    Internal,
}

impl ApiErrorKind {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Invalid,
        Self::UnknownGroup,
        Self::UnknownNode,
        Self::UnknownSession,
        Self::GroupExists,
        Self::NodeLive,
        Self::RevisionMismatch,
        Self::StaleTenure,
        Self::WrongPhase,
        Self::GroupDeleting,
        Self::NotEligible,
        Self::NotANode,
        Self::SessionRevoked,
        Self::RequestOutOfOrder,
        Self::BadTransfer,
        Self::NewerContract,
        Self::Overloaded,
        Self::PermissionDenied,
        Self::NoLeader,
        Self::Behind,
        Self::ShuttingDown,
        Self::Unreachable,
        Self::UnknownOutcome,
        Self::Internal,
    ];

    /// Its stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::UnknownGroup => "unknown-group",
            Self::UnknownNode => "unknown-node",
            Self::UnknownSession => "unknown-session",
            Self::GroupExists => "group-exists",
            Self::NodeLive => "node-live",
            Self::RevisionMismatch => "revision-mismatch",
            Self::StaleTenure => "stale-tenure",
            Self::WrongPhase => "wrong-phase",
            Self::GroupDeleting => "group-deleting",
            Self::NotEligible => "not-eligible",
            Self::NotANode => "not-a-node",
            Self::SessionRevoked => "session-revoked",
            Self::RequestOutOfOrder => "request-out-of-order",
            Self::BadTransfer => "bad-transfer",
            Self::NewerContract => "newer-contract",
            Self::Overloaded => "overloaded",
            Self::PermissionDenied => "permission-denied",
            Self::NoLeader => "no-leader",
            Self::Behind => "behind",
            Self::ShuttingDown => "shutting-down",
            Self::Unreachable => "unreachable",
            Self::UnknownOutcome => "unknown-outcome",
            Self::Internal => "internal",
        }
    }

    /// The kind of a code; none where it is not known here.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether a change may have been applied, or may yet be.
    #[must_use]
    pub fn may_be_applied(self) -> bool {
        matches!(self, Self::UnknownOutcome | Self::Internal)
    }

    /// Whether the same call may succeed later, or at another server, without the caller changing anything.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::NoLeader
                | Self::Behind
                | Self::ShuttingDown
                | Self::Unreachable
                | Self::UnknownOutcome
        )
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// What happened, by what the caller does next.
    pub kind: ApiErrorKind,
    /// For people: what was tried, on what, expected versus found.
    pub message: String,
    /// When to try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl ApiError {
    /// An error of a kind.
    #[must_use]
    pub fn new(kind: ApiErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after_ms: None,
        }
    }

    /// A wrong request.
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ApiErrorKind::Invalid, message)
    }

    /// A call whose outcome is not known.
    #[must_use]
    pub fn unknown_outcome(message: impl fmt::Display) -> Self {
        Self::new(
            ApiErrorKind::UnknownOutcome,
            format!("{message}{MAYBE_APPLIED}"),
        )
    }

    /// The failure of a read, which has no effect: an outcome that is not known means only that nobody answered.
    #[must_use]
    pub fn of_read(mut self) -> Self {
        if self.kind == ApiErrorKind::UnknownOutcome {
            self.kind = ApiErrorKind::Unreachable;
            let answered = self.message.strip_suffix(MAYBE_APPLIED).map(str::to_owned);
            self.message = answered.unwrap_or(self.message);
        }
        self
    }

    /// The same, to be tried again after a while.
    #[must_use]
    pub fn retry_after_ms(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
