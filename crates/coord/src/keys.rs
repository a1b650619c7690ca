//! Commands of the key space and its leases: who may, what the alarms forbid, and what a session's end means for its keys.
//!
//! Deliberately absent: the store itself (`kv`), and reads without a command, which a version answers.

use std::sync::Arc;

use imbl::OrdMap;
use quorate_types::{DirectiveSeq, NodeName, Principal, ReplicaId, SessionId};

use crate::command::{AlarmAction, AlarmKind, SessionKey};
use crate::event::{Cause, Event};
use crate::kv::{KvError, KvOp};
use crate::lifecycle::Context;
use crate::reply::{Outcome, Reply};
use crate::spec::{LEASE_ID_MAX, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN};
use crate::state::{Session, State};
use crate::validate;

/// Most alarms that are on at once: a cluster has few servers, and a caller may name any.
pub(crate) const ALARMS_MAX: usize = 64;

/// The alarms that are on.
pub(crate) type Alarms = OrdMap<(AlarmKind, ReplicaId), ()>;

impl State {
    /// The alarms that are on, by kind and server.
    pub fn alarms(&self) -> impl Iterator<Item = (AlarmKind, ReplicaId)> {
        self.alarms.keys().copied()
    }

    fn is_alarmed(&self, kind: AlarmKind) -> bool {
        self.alarms.keys().any(|(on, _)| *on == kind)
    }

    /// Nothing of the key space is changed on data that are known to be corrupt somewhere.
    fn check_open(&self) -> Result<(), KvError> {
        if self.is_alarmed(AlarmKind::Corrupt) {
            return Err(KvError::Corrupt);
        }
        Ok(())
    }

    /// Nothing is added to a space that is used up.
    fn check_space(&self) -> Result<(), KvError> {
        if self.is_alarmed(AlarmKind::NoSpace) {
            return Err(KvError::NoSpace { found: 0 });
        }
        Ok(())
    }

    pub(crate) fn execute_kv(&mut self, op: &KvOp) -> Outcome {
        self.check_open()?;
        if puts(op) {
            self.check_space()?;
        }
        Err(KvError::Corrupt.into())
    }

    pub(crate) fn grant_lease(
        &mut self,
        cx: &mut Context<'_>,
        principal: &Principal,
        id: u64,
        ttl_ms: u64,
    ) -> Outcome {
        self.check_open()?;
        self.check_space()?;
        if id == 0 || id > LEASE_ID_MAX {
            let max = LEASE_ID_MAX;
            return Err(KvError::LeaseIdOutOfBounds { found: id, max }.into());
        }
        if ttl_ms > LEASE_TTL_MS_MAX {
            return Err(KvError::TtlTooLarge.into());
        }
        if self.session(SessionId(id)).is_some() {
            return Err(KvError::LeaseExists { lease: id }.into());
        }
        let ttl_ms = ttl_ms.max(LEASE_TTL_MS_MIN);
        let session = self.file_session(cx, SessionId(id), principal, None, ttl_ms);
        Ok(Reply::LeaseGranted { session, ttl_ms })
    }

    /// Files a session under an id that is free.
    pub(crate) fn file_session(
        &mut self,
        cx: &mut Context<'_>,
        id: SessionId,
        principal: &Principal,
        node: Option<NodeName>,
        ttl_ms: u64,
    ) -> SessionKey {
        let key = SessionKey {
            id,
            created: self.revision_next(),
        };
        let session = Session {
            key,
            ttl_ms,
            node,
            revoked: false,
            directive_seq: DirectiveSeq::ZERO,
            request_seq: 0,
            request_outcome: None,
            opened_at: self.cluster_time,
            principal: principal.clone(),
        };
        let before = self.sessions.insert(id, Arc::new(session));
        assert!(before.is_none(), "session {id} was opened over another");
        cx.emit(Event::SessionOpened {
            session: key,
            ttl_ms,
        });
        key
    }

    pub(crate) fn revoke_lease(&mut self, cx: &mut Context<'_>, id: u64) -> Outcome {
        self.check_open()?;
        let Some(session) = self.session(SessionId(id)) else {
            return Err(KvError::LeaseNotFound { lease: id }.into());
        };
        if let Some(node) = &session.node {
            let node = node.to_string();
            return Err(KvError::LeaseIsNode { lease: id, node }.into());
        }
        let key = session.key;
        self.end_sessions(cx, &[key], Cause::Closed);
        Ok(Reply::LeaseRevoked { revision: 1 })
    }

    pub(crate) fn set_alarm(
        &mut self,
        action: AlarmAction,
        member: ReplicaId,
        kind: AlarmKind,
    ) -> Outcome {
        let alarm = (kind, member);
        let was_on = self.alarms.contains_key(&alarm);
        match action {
            AlarmAction::Raise if was_on => {}
            AlarmAction::Raise => {
                validate::alarms(self.alarms.len() + 1)?;
                self.alarms.insert(alarm, ());
            }
            AlarmAction::Clear => {
                self.alarms.remove(&alarm);
            }
        }
        Ok(Reply::Alarmed { was_on })
    }
}

/// Whether an operation may put something, whatever its conditions come to.
fn puts(op: &KvOp) -> bool {
    match op {
        KvOp::Put(_) => true,
        KvOp::Range(_) | KvOp::DeleteRange(_) => false,
        KvOp::Txn(txn) => txn.success.iter().chain(&txn.failure).any(puts),
    }
}
