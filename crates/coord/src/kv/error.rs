//! Why the key space refused. Nothing was changed then. The server gives each the code and text that etcd's clients match on.

use serde::{Deserialize, Serialize};

/// A refusal of the key space, its leases or its users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum KvError {
    /// The key is empty.
    #[error("the key is empty")]
    EmptyKey,
    /// A put asks to keep a value or a lease and gives one.
    #[error("a value or lease to be ignored was given")]
    ValueProvided,
    /// A put asks to keep a lease and gives one.
    #[error("a lease to be ignored was given")]
    LeaseProvided,
    /// A put asks to keep the value or the lease of a key that is not there.
    #[error("the key is not there")]
    KeyNotFound,
    /// A transaction puts a key twice.
    #[error("the transaction writes a key twice")]
    DuplicateKey,
    /// The transaction, or one nested in it, holds too many operations.
    #[error("the transaction holds {found} operations, at most {max} are allowed")]
    TooManyOps {
        /// How many there are.
        found: u64,
        /// How many there may be.
        max: u64,
    },
    /// The revision was compacted.
    #[error("revision {asked} was compacted (through {compacted})")]
    Compacted {
        /// The one asked for.
        asked: u64,
        /// Through where it was.
        compacted: u64,
    },
    /// The revision is not there yet.
    #[error("revision {asked} is in the future (now {now})")]
    FutureRevision {
        /// The one asked for.
        asked: u64,
        /// The one that is.
        now: u64,
    },
    /// The lease is not there (any more).
    #[error("lease {lease} is not there")]
    LeaseNotFound {
        /// Which.
        lease: u64,
    },
    /// A lease or session of that id is there.
    #[error("lease {lease} exists")]
    LeaseExists {
        /// Which.
        lease: u64,
    },
    /// The lease is a node's session: revoke that by `quorate session`, or with the right to.
    #[error("lease {lease} is the session of node {node}; it is not revoked through this API")]
    LeaseIsNode {
        /// Which.
        lease: u64,
        /// Whose.
        node: String,
    },
    /// The TTL is over the limit.
    #[error("the TTL is too large")]
    TtlTooLarge,
    /// The key is written by the state machine only.
    #[error("{key:?} is below /quorate/, which is read-only")]
    ReadOnlyKey {
        /// Which, as text.
        key: String,
    },
    /// The space is used up: a server raised the alarm. Delete, compact, then clear the alarm.
    #[error("the key space is out of space: it holds {found} bytes")]
    NoSpace {
        /// How much is there.
        found: u64,
    },
    /// A server's data differ from the others': nothing is read or written until that alarm is cleared.
    #[error("the data of a server are corrupt; the key space is closed")]
    Corrupt,
    /// A lease's id is not a positive signed number. The serving server draws one where 0 was asked for.
    #[error("leases are numbered from 1 to {max}, not {found}")]
    LeaseIdOutOfBounds {
        /// What was given.
        found: u64,
        /// The greatest one.
        max: u64,
    },
    /// The users' part refused.
    #[error(transparent)]
    Auth(#[from] AuthError),
}

/// A refusal by the rules of users and roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AuthError {
    /// Authentication cannot be enabled without a user `root`.
    #[error("root user does not exist")]
    RootUserMissing,
    /// Authentication cannot be enabled while `root` lacks the role `root`.
    #[error("root user does not have root role")]
    RootRoleMissing,
    /// The user exists.
    #[error("user name already exists")]
    UserExists,
    /// The name is empty.
    #[error("user name is empty")]
    UserEmpty,
    /// There is no such user.
    #[error("user name not found")]
    UserNotFound,
    /// The role exists.
    #[error("role name already exists")]
    RoleExists,
    /// There is no such role.
    #[error("role name not found")]
    RoleNotFound,
    /// The role's name is empty.
    #[error("role name is empty")]
    RoleEmpty,
    /// Name or password is wrong.
    #[error("authentication failed, invalid user ID or password")]
    AuthFailed,
    /// No password was given where one is needed.
    #[error("no password given for the user")]
    NoPasswordUser,
    /// The caller may not.
    #[error("permission denied")]
    PermissionDenied,
    /// The user does not have the role.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// The role does not have the permission.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// The permission is not given, or malformed.
    #[error("permission not given")]
    PermissionNotGiven,
    /// Authentication is not enabled.
    #[error("authentication is not enabled")]
    NotEnabled,
    /// The token is not valid (any more).
    #[error("invalid auth token")]
    InvalidToken,
    /// Users or roles changed since the token was made, or the password was checked.
    #[error("revision of auth store is old")]
    OldRevision,
    /// Root, or the role root, cannot be taken away while authentication is enabled.
    #[error("invalid auth management")]
    InvalidManagement,
}
