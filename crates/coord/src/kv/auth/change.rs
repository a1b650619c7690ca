//! Changes of users and roles: all or nothing, by etcd's order of checks, since clients tell the refusals apart.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{AuthChange, AuthStore, Permission, ROOT, Role, Secret, User, cover};
use crate::kv::{AuthError, KeyRange, KvCaller};

impl AuthStore {
    /// Does what is asked, on behalf of a caller that must have the role `root` once users are distinguished.
    ///
    /// # Errors
    /// [`AuthError`]: nothing was changed.
    pub fn change(
        &mut self,
        caller: Option<&KvCaller>,
        change: &AuthChange,
    ) -> Result<(), AuthError> {
        self.check_admin(caller)?;
        match change {
            AuthChange::Enable { token_key } => return self.enable(token_key),
            AuthChange::Disable if !self.is_enabled() => return Ok(()),
            AuthChange::Disable => self.token_key = None,
            AuthChange::AddUser { name, password } => self.add_user(name, password.clone())?,
            AuthChange::DeleteUser { name } => self.delete_user(name)?,
            AuthChange::ChangePassword { name, password } => {
                self.change_password(name, password)?;
            }
            AuthChange::GrantRole { user, role } => {
                if !self.grant_role(user, role)? {
                    return Ok(());
                }
            }
            AuthChange::RevokeRole { user, role } => self.revoke_role(user, role)?,
            AuthChange::AddRole { name } => self.add_role(name)?,
            AuthChange::DeleteRole { name } => self.delete_role(name)?,
            AuthChange::GrantPermission { role, permission } => {
                self.grant_permission(role, permission)?;
            }
            AuthChange::RevokePermission { role, range } => self.revoke_permission(role, range)?,
        }
        self.revision += 1;
        Ok(())
    }

    fn enable(&mut self, token_key: &Secret) -> Result<(), AuthError> {
        if self.is_enabled() {
            return Ok(());
        }
        let root = self.user(ROOT).ok_or(AuthError::RootUserMissing)?;
        if !root.roles.contains(ROOT) {
            return Err(AuthError::RootRoleMissing);
        }
        self.token_key = Some(token_key.clone());
        Ok(())
    }

    fn add_user(&mut self, name: &str, password: Option<Secret>) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(AuthError::UserExists);
        }
        let user = User {
            password,
            roles: BTreeSet::new(),
            tokens_from: self.revision + 1,
        };
        self.users.insert(name.to_owned(), Arc::new(user));
        Ok(())
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, AuthError> {
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        Ok(Arc::make_mut(user))
    }

    fn delete_user(&mut self, name: &str) -> Result<(), AuthError> {
        if self.is_enabled() && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        match self.users.remove(name) {
            Some(_) => Ok(()),
            None => Err(AuthError::UserNotFound),
        }
    }

    fn change_password(&mut self, name: &str, password: &Secret) -> Result<(), AuthError> {
        let next = self.revision + 1;
        let user = self.user_mut(name)?;
        if let Some(hash) = &mut user.password {
            *hash = password.clone();
        }
        user.tokens_from = next;
        Ok(())
    }

    /// Whether the user did not have it.
    fn grant_role(&mut self, user: &str, role: &str) -> Result<bool, AuthError> {
        let has_role = role == ROOT || self.roles.contains_key(role);
        let user = self.user_mut(user)?;
        if !has_role {
            return Err(AuthError::RoleNotFound);
        }
        Ok(user.roles.insert(role.to_owned()))
    }

    fn revoke_role(&mut self, user: &str, role: &str) -> Result<(), AuthError> {
        if self.is_enabled() && user == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        if self.user_mut(user)?.roles.remove(role) {
            return Ok(());
        }
        Err(AuthError::RoleNotGranted)
    }

    fn add_role(&mut self, name: &str) -> Result<(), AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleExists);
        }
        self.roles.insert(name.to_owned(), Arc::default());
        Ok(())
    }

    fn delete_role(&mut self, name: &str) -> Result<(), AuthError> {
        if self.is_enabled() && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        if self.roles.remove(name).is_none() {
            return Err(AuthError::RoleNotFound);
        }
        let has_it = |user: &Arc<User>| user.roles.contains(name);
        let users: Vec<_> = self.users.iter().filter(|(_, user)| has_it(user)).collect();
        let users: Vec<String> = users.into_iter().map(|(name, _)| name.clone()).collect();
        for user in users {
            self.user_mut(&user)
                .expect("the user was just found")
                .roles
                .remove(name);
        }
        Ok(())
    }

    /// The permissions of a role, edited.
    fn edit_role(
        &mut self,
        name: &str,
        edit: impl FnOnce(&mut Vec<Permission>) -> Result<(), AuthError>,
    ) -> Result<(), AuthError> {
        let role = self.roles.get_mut(name).ok_or(AuthError::RoleNotFound)?;
        let mut permissions = role.permissions.clone();
        edit(&mut permissions)?;
        *role = Arc::new(Role::new(permissions));
        Ok(())
    }

    fn grant_permission(&mut self, role: &str, permission: &Permission) -> Result<(), AuthError> {
        if !cover::is_sound(&permission.range) {
            return Err(AuthError::InvalidManagement);
        }
        self.edit_role(role, |permissions| {
            // etcd looks at the first permission of the key only, and then adds a second one of the same range, so that a right taken
            // back by granting less remains. Here the range has one permission.
            match permissions.iter_mut().find(|p| p.range == permission.range) {
                Some(found) => found.access = permission.access,
                None => {
                    let after =
                        permissions.partition_point(|p| p.range.key <= permission.range.key);
                    permissions.insert(after, permission.clone());
                }
            }
            Ok(())
        })
    }

    fn revoke_permission(&mut self, role: &str, range: &KeyRange) -> Result<(), AuthError> {
        self.edit_role(role, |permissions| {
            let before = permissions.len();
            permissions.retain(|permission| permission.range != *range);
            if permissions.len() == before {
                return Err(AuthError::PermissionNotGranted);
            }
            Ok(())
        })
    }
}
