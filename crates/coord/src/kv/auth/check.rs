//! Who may do what. Stricter than etcd 3.4 where later versions of etcd are, too: nested transactions, and leases and previous values of
//! puts within transactions, are checked like any other.

use super::{AuthStore, ROOT, User, cover};
use crate::kv::{AuthError, Blob, KeyRange, KvCaller, KvOp, Put};

/// The keys of a lease.
pub type LeaseKeys<'a> = &'a dyn Fn(u64) -> Vec<Blob>;

#[derive(Clone, Copy)]
enum Right {
    Read,
    Write,
}

fn is_root(user: &User) -> bool {
    user.roles.contains(ROOT)
}

impl AuthStore {
    /// Whether the caller is anybody.
    ///
    /// # Errors
    /// [`AuthError::UserEmpty`]: authenticate first.
    pub fn check_known(&self, caller: Option<&KvCaller>) -> Result<(), AuthError> {
        if self.is_enabled() {
            known(caller)?;
        }
        Ok(())
    }

    /// Whether the caller has the role `root`.
    ///
    /// # Errors
    /// [`AuthError::UserEmpty`] or [`AuthError::PermissionDenied`].
    pub fn check_admin(&self, caller: Option<&KvCaller>) -> Result<(), AuthError> {
        if !self.is_enabled() {
            return Ok(());
        }
        let caller = known(caller)?;
        match self.user(&caller.user) {
            Some(user) if is_root(user) => Ok(()),
            _ => Err(AuthError::PermissionDenied),
        }
    }

    /// Whether the caller may read the keys.
    ///
    /// # Errors
    /// [`AuthError`]: who the caller is, or that it may not.
    pub fn check_range(
        &self,
        caller: Option<&KvCaller>,
        range: &KeyRange,
    ) -> Result<(), AuthError> {
        self.check(caller, range, Right::Read)
    }

    /// Whether the caller may do the operation, with all that is nested in it.
    ///
    /// # Errors
    /// [`AuthError`]: who the caller is, or that it may not.
    pub fn check_op(
        &self,
        caller: Option<&KvCaller>,
        op: &KvOp,
        lease_keys: LeaseKeys<'_>,
    ) -> Result<(), AuthError> {
        if !self.is_enabled() {
            return Ok(());
        }
        match op {
            KvOp::Range(range) => self.check(caller, &range.range, Right::Read),
            KvOp::Put(put) => self.check_put(caller, put, lease_keys),
            KvOp::DeleteRange(delete) => {
                self.check(caller, &delete.range, Right::Write)?;
                if delete.prev_kv {
                    self.check(caller, &delete.range, Right::Read)?;
                }
                Ok(())
            }
            KvOp::Txn(txn) => {
                for compare in &txn.compare {
                    self.check(caller, &compare.range, Right::Read)?;
                }
                txn.success
                    .iter()
                    .chain(&txn.failure)
                    .try_for_each(|op| self.check_op(caller, op, lease_keys))
            }
        }
    }

    /// Whether the caller may end a lease, keep it alive, or attach a key to it: it may write all keys that are attached.
    ///
    /// # Errors
    /// [`AuthError`]: who the caller is, or that it may not.
    pub fn check_lease(
        &self,
        caller: Option<&KvCaller>,
        keys: &mut dyn Iterator<Item = Blob>,
    ) -> Result<(), AuthError> {
        self.check_keys(caller, keys, Right::Write)
    }

    /// Whether the caller may be told which keys a lease has.
    ///
    /// # Errors
    /// [`AuthError`]: who the caller is, or that it may not.
    pub fn check_lease_read(
        &self,
        caller: Option<&KvCaller>,
        keys: &mut dyn Iterator<Item = Blob>,
    ) -> Result<(), AuthError> {
        self.check_keys(caller, keys, Right::Read)
    }

    /// Whether the caller may see a user: root may, and everybody its own.
    ///
    /// # Errors
    /// [`AuthError`]: who the caller is, or that it may not.
    pub fn check_user(&self, caller: Option<&KvCaller>, name: &str) -> Result<(), AuthError> {
        match self.check_admin(caller) {
            // Nobody may ask about nobody, as in etcd: there is no such user.
            Err(_) if caller.map_or("", |caller| &caller.user) == name => Ok(()),
            result => result,
        }
    }

    /// Whether the caller may see a role: root may, and everybody its own.
    ///
    /// # Errors
    /// [`AuthError`]: who the caller is, or that it may not.
    pub fn check_role(&self, caller: Option<&KvCaller>, role: &str) -> Result<(), AuthError> {
        let user = caller.and_then(|caller| self.user(&caller.user));
        match self.check_admin(caller) {
            Err(_) if user.is_some_and(|user| user.roles.contains(role)) => Ok(()),
            result => result,
        }
    }

    fn check_put(
        &self,
        caller: Option<&KvCaller>,
        put: &Put,
        lease_keys: LeaseKeys<'_>,
    ) -> Result<(), AuthError> {
        let range = point(put.key.clone());
        self.check(caller, &range, Right::Write)?;
        // Who cannot write all keys of a lease cannot revoke it, and shall not tie a key to it.
        if let Ok(lease) = u64::try_from(put.lease)
            && lease != 0
        {
            self.check_lease(caller, &mut lease_keys(lease).into_iter())?;
        }
        if put.prev_kv {
            self.check(caller, &range, Right::Read)?;
        }
        Ok(())
    }

    fn check_keys(
        &self,
        caller: Option<&KvCaller>,
        keys: &mut dyn Iterator<Item = Blob>,
        right: Right,
    ) -> Result<(), AuthError> {
        if self.check_admin(caller).is_ok() {
            return Ok(());
        }
        self.check_known(caller)?;
        for key in keys {
            self.check(caller, &point(key), right)?;
        }
        Ok(())
    }

    fn check(
        &self,
        caller: Option<&KvCaller>,
        range: &KeyRange,
        right: Right,
    ) -> Result<(), AuthError> {
        if !self.is_enabled() {
            return Ok(());
        }
        let caller = known(caller)?;
        if caller.auth_revision < self.revision() {
            return Err(AuthError::OldRevision);
        }
        let user = self.user(&caller.user).ok_or(AuthError::PermissionDenied)?;
        let roles = user.roles.iter().filter_map(|name| self.role(name));
        let covers = roles.map(|role| match right {
            Right::Read => &role.read,
            Right::Write => &role.write,
        });
        if is_root(user) || cover::holds(&covers, range) {
            return Ok(());
        }
        Err(AuthError::PermissionDenied)
    }
}

fn known(caller: Option<&KvCaller>) -> Result<&KvCaller, AuthError> {
    caller
        .filter(|caller| !caller.user.is_empty())
        .ok_or(AuthError::UserEmpty)
}

fn point(key: Blob) -> KeyRange {
    KeyRange {
        key,
        range_end: Blob::default(),
    }
}
