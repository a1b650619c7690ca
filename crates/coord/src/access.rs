//! Who may give which command: the rights of the key space's users, checked when a command is applied, since they may change between
//! its proposal and that.
//!
//! Deliberately absent: the rules themselves (`kv`), and the native commands, which know no users.

use crate::kv::{AuthChange, AuthStore, KvCaller};
use crate::reply::{Outcome, Reply};
use crate::state::State;

impl State {
    /// Users, roles and what they may.
    #[must_use]
    pub fn auth(&self) -> &AuthStore {
        &self.auth
    }

    pub(crate) fn change_auth(
        &mut self,
        caller: Option<&KvCaller>,
        change: &AuthChange,
    ) -> Outcome {
        self.auth
            .change(caller, change)
            .map_err(crate::kv::KvError::from)?;
        Ok(Reply::AuthChanged {
            auth_revision: self.auth.revision(),
        })
    }
}
