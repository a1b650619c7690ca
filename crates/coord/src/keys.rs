//! Commands of the key space and its leases: who may, what the alarms forbid, and what a session's end means for its keys.
//!
//! Deliberately absent: the store itself (`kv`), and reads without a command, which a version answers.

use std::sync::Arc;

use imbl::OrdMap;
use quorate_types::{DirectiveSeq, NodeName, Principal, ReplicaId, SessionId};

use crate::command::{AlarmAction, AlarmKind, RequestKey, SessionKey};
use crate::event::{Cause, Event};
use crate::kv::{self, KvCaller, KvError, KvOp, KvStore};
use crate::lifecycle::Context;
use crate::reply::{Outcome, Rejection, Reply};
use crate::spec::{LEASE_ID_MAX, LEASE_TTL_MS_MAX, LEASE_TTL_MS_MIN};
use crate::state::{Session, State};
use crate::validate;

/// Most alarms that are on at once: a cluster has few servers, and a caller may name any.
pub(crate) const ALARMS_MAX: usize = 64;

/// Most operations of a list of a transaction when it is applied. The servers' limit is lower, and may be configured.
const TXN_OPS_MAX: usize = 100_000;
/// Most changes freed by one `Advance` after a compaction: some milliseconds of work.
pub(crate) const SWEPT_MAX: usize = 2_000;

/// The alarms that are on.
pub(crate) type Alarms = OrdMap<(AlarmKind, ReplicaId), ()>;

impl State {
    /// The alarms that are on, by kind and server.
    pub fn alarms(&self) -> impl Iterator<Item = (AlarmKind, ReplicaId)> {
        self.alarms.keys().copied()
    }

    /// Whether an alarm of this kind is on about any server.
    #[must_use]
    pub fn is_alarmed(&self, kind: AlarmKind) -> bool {
        self.alarms.keys().any(|(on, _)| *on == kind)
    }

    /// The key space, as of this version.
    #[must_use]
    pub fn kv(&self) -> &KvStore {
        &self.kv
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
            let found = self.kv.size_bytes();
            return Err(KvError::NoSpace { found });
        }
        Ok(())
    }

    pub(crate) fn execute_kv(
        &mut self,
        request: &RequestKey,
        caller: Option<&KvCaller>,
        op: &KvOp,
    ) -> Outcome {
        // What is remembered of keyed requests stays small, and a reply here may have megabytes.
        if !matches!(request, RequestKey::Unkeyed | RequestKey::Internal) {
            return Err(Rejection::OutOfBounds {
                what: "the key of a request of the key space".into(),
                found: format!("{request:?}"),
                allowed: "none: it is never repeated".into(),
            });
        }
        self.check_open()?;
        if puts(op) {
            self.check_space()?;
        }
        let lease_keys = |lease| self.kv.lease_keys(lease).cloned().collect();
        self.auth.check_op(caller, op, &lease_keys)?;
        kv::check(op, TXN_OPS_MAX)?;
        let sessions = &self.sessions;
        let lives = |lease: u64| {
            sessions
                .get(&SessionId(lease))
                .is_some_and(|session| !session.revoked)
        };
        let reply = self.kv.execute(op, &lives)?;
        Ok(Reply::Kv {
            revision: self.kv.revision(),
            reply: Box::new(reply),
        })
    }

    pub(crate) fn compact_kv(&mut self, caller: Option<&KvCaller>, revision: i64) -> Outcome {
        self.check_open()?;
        self.auth.check_known(caller)?;
        self.kv.compact(revision)?;
        Ok(Reply::Compacted {
            revision: self.kv.revision(),
        })
    }

    /// Frees a piece of the history that was given up. The rest waits for the next `Advance`, so that no command waits long.
    pub(crate) fn sweep_kv(&mut self) {
        self.kv.sweep(SWEPT_MAX);
    }

    /// Whether history that was given up waits to be freed: then the leader proposes `Advance`.
    pub(crate) fn has_kv_to_sweep(&self) -> bool {
        self.kv.swept() < self.kv.compacted()
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

    pub(crate) fn revoke_lease(
        &mut self,
        cx: &mut Context<'_>,
        caller: Option<&KvCaller>,
        id: u64,
    ) -> Outcome {
        self.check_open()?;
        let mut keys = self.kv.lease_keys(id).cloned();
        self.auth.check_lease(caller, &mut keys)?;
        drop(keys);
        let Some(session) = self.session(SessionId(id)) else {
            return Err(KvError::LeaseNotFound { lease: id }.into());
        };
        if let Some(node) = &session.node {
            let node = node.to_string();
            return Err(KvError::LeaseIsNode { lease: id, node }.into());
        }
        let key = session.key;
        self.end_sessions(cx, &[key], Cause::Closed);
        Ok(Reply::LeaseRevoked {
            revision: self.kv.revision(),
        })
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
