//! Users, roles and what they may: part of the replicated state, by the rules of etcd's auth store (ADR auth-tokens).
//!
//! Deliberately absent: passwords in the clear and how they are hashed, tokens' form and expiry. The serving process does both; here a
//! hash is opaque bytes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Blob, KeyRange};

mod change;
mod check;
mod cover;

#[cfg(test)]
mod tests;

pub use check::LeaseKeys;
use cover::Cover;

/// The user, and the role, that may everything.
pub const ROOT: &str = "root";

/// Bytes that no log and no message shows: a password's hash, the key that tokens are signed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Blob);

impl Secret {
    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self(Blob::from(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "({} secret bytes)", self.0.len())
    }
}

/// What a permission allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// To read.
    Read,
    /// To write.
    Write,
    /// Both.
    ReadWrite,
}

/// A role's right to keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// What.
    pub access: Access,
    /// To which keys.
    pub range: KeyRange,
}

/// Somebody who may be told apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The hash of the password; `None`: no password lets in, only a certificate does.
    pub password: Option<Secret>,
    /// The roles, by name. `root` may be among them without being there.
    pub roles: BTreeSet<String>,
    /// Tokens made at an earlier revision of users and roles are void: the user was added, or the password changed, then.
    pub tokens_from: u64,
}

/// Rights under a name.
///
/// # Invariants
/// - `read` and `write` are what `permissions` say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    permissions: Vec<Permission>,
    read: Cover,
    write: Cover,
}

impl Role {
    fn new(permissions: Vec<Permission>) -> Self {
        let ranges = |denied: Access| {
            let granted = permissions.iter().filter(move |p| p.access != denied);
            Cover::new(granted.map(|permission| &permission.range))
        };
        let (read, write) = (ranges(Access::Write), ranges(Access::Read));
        Self {
            permissions,
            read,
            write,
        }
    }

    /// Its permissions, by key; of one key in the order in which they were granted.
    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }
}

/// What may be asked of users and roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthChange {
    /// From now on every caller must be a user. Needs the user `root` with the role `root`.
    Enable {
        /// What tokens are signed with from now on, drawn by the serving process. Ignored where users are distinguished already.
        token_key: Secret,
    },
    /// Everybody may everything again. Voids all tokens.
    Disable,
    /// Adds a user.
    AddUser {
        /// Its name.
        name: String,
        /// The hash of its password.
        password: Option<Secret>,
    },
    /// Removes a user and voids its tokens.
    DeleteUser {
        /// Its name.
        name: String,
    },
    /// Gives a user another password and voids its tokens. A user without a password stays without.
    ChangePassword {
        /// Its name.
        name: String,
        /// The hash of the new one.
        password: Secret,
    },
    /// Gives a user a role.
    GrantRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Takes a role away from a user.
    RevokeRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Adds a role without permissions.
    AddRole {
        /// Its name.
        name: String,
    },
    /// Removes a role, from its users, too.
    DeleteRole {
        /// Its name.
        name: String,
    },
    /// Gives a role a permission, or changes what one of the same range allows.
    GrantPermission {
        /// The role.
        role: String,
        /// The permission.
        permission: Permission,
    },
    /// Takes all permissions of exactly this range away from a role.
    RevokePermission {
        /// The role.
        role: String,
        /// The range.
        range: KeyRange,
    },
}

impl AuthChange {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let range_bytes = |range: &KeyRange| range.key.len() + range.range_end.len() + 16;
        let bytes = match self {
            Self::Enable { token_key } => token_key.0.len(),
            Self::Disable => 0,
            Self::AddUser { name, password } => {
                name.len() + password.as_ref().map_or(0, |hash| hash.0.len())
            }
            Self::ChangePassword { name, password } => name.len() + password.0.len(),
            Self::GrantRole { user, role } | Self::RevokeRole { user, role } => {
                user.len() + role.len()
            }
            Self::DeleteUser { name } | Self::AddRole { name } | Self::DeleteRole { name } => {
                name.len()
            }
            Self::GrantPermission { role, permission } => {
                role.len() + range_bytes(&permission.range)
            }
            Self::RevokePermission { role, range } => role.len() + range_bytes(range),
        };
        bytes + 16
    }
}

/// Users and roles. A clone shares structure.
///
/// # Invariants
/// - `revision` starts at 1 and rises with every change but enabling, as etcd counts.
/// - `token_key` is there exactly while users are distinguished.
/// - No name is empty; no permission's range is empty or without a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct AuthStore {
    revision: u64,
    token_key: Option<Secret>,
    users: OrdMap<String, Arc<User>>,
    roles: OrdMap<String, Arc<Role>>,
}

impl Default for AuthStore {
    fn default() -> Self {
        Self::new()
    }
}

impl AuthStore {
    /// Nobody is distinguished, and there is no user.
    #[must_use]
    pub fn new() -> Self {
        Self {
            revision: 1,
            token_key: None,
            users: OrdMap::new(),
            roles: OrdMap::new(),
        }
    }

    /// Whether every caller must be a user.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.token_key.is_some()
    }

    /// How often users or roles changed, from 1.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// What tokens are signed with, while users are distinguished.
    #[must_use]
    pub fn token_key(&self) -> Option<&Secret> {
        self.token_key.as_ref()
    }

    /// A user.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(Arc::as_ref)
    }

    /// All users, by name.
    pub fn users(&self) -> impl Iterator<Item = (&str, &User)> {
        self.users
            .iter()
            .map(|(name, user)| (name.as_str(), user.as_ref()))
    }

    /// A role.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(Arc::as_ref)
    }

    /// All roles, by name.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &Role)> {
        self.roles
            .iter()
            .map(|(name, role)| (name.as_str(), role.as_ref()))
    }

    /// Whether a token made for the user at a revision still counts.
    #[must_use]
    pub fn accepts_token_of(&self, user: &str, revision: u64) -> bool {
        revision <= self.revision
            && self
                .user(user)
                .is_some_and(|user| revision >= user.tokens_from)
    }
}

/// What is stored: nothing derived.
#[derive(Serialize, Deserialize)]
struct Stored {
    revision: u64,
    token_key: Option<Secret>,
    #[serde(deserialize_with = "crate::bounded::map")]
    users: OrdMap<String, Arc<User>>,
    #[serde(deserialize_with = "crate::bounded::map")]
    roles: OrdMap<String, Vec<Permission>>,
}

impl From<AuthStore> for Stored {
    fn from(store: AuthStore) -> Self {
        let roles = store.roles.iter();
        let roles = roles.map(|(name, role)| (name.clone(), role.permissions.clone()));
        Self {
            revision: store.revision,
            token_key: store.token_key,
            users: store.users,
            roles: roles.collect(),
        }
    }
}

impl TryFrom<Stored> for AuthStore {
    type Error = String;

    fn try_from(stored: Stored) -> Result<Self, String> {
        let Stored {
            revision,
            token_key,
            users,
            roles,
        } = stored;
        if revision == 0 {
            return Err("users and roles are at revision 0".into());
        }
        for (name, user) in &users {
            if name.is_empty() || user.tokens_from > revision {
                return Err(format!("user {name:?} has no name or is of the future"));
            }
        }
        let mut filed = OrdMap::new();
        for (name, permissions) in roles {
            let sorted = permissions.is_sorted_by(|a, b| a.range.key <= b.range.key);
            let sound = permissions
                .iter()
                .all(|permission| cover::is_sound(&permission.range));
            if name.is_empty() || !sorted || !sound {
                return Err(format!("role {name:?} has no name or a wrong permission"));
            }
            filed.insert(name, Arc::new(Role::new(permissions)));
        }
        Ok(Self {
            revision,
            token_key,
            users,
            roles: filed,
        })
    }
}
