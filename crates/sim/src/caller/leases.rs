//! Leases of the key space: callers that are granted one, attach keys to it, keep it alive, revoke it, or let it run out.

use std::time::Duration;

use quorate_coord::kv::{DeleteRange, KeyRange, KvError, KvOp, Put};
use quorate_coord::{Command, Outcome, Rejection, Reply, SessionKey};
use quorate_replica::{Request, Response};
use quorate_types::LogIndex;

use super::Operation;
use crate::clock::Moment;
use crate::world::World;

/// Ids that callers choose begin above those that the cluster gives.
const IDS_FROM: u64 = 1 << 40;
/// How many keys each caller attaches.
const KEYS: usize = 3;

/// What a caller does with its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseCall {
    /// Is granted one, of this TTL in milliseconds.
    Grant(u64, u64),
    /// Keeps it alive.
    KeepAlive(SessionKey),
    /// Puts a key, attached to it.
    Attach(SessionKey),
    /// Ends it, or writes without it.
    Other,
}

impl World {
    /// Draws what a caller does with its lease.
    pub(super) fn lease_operation(&mut self, caller: usize) -> Operation {
        let floor = self.checkers.acknowledged.newest();
        let Some(lease) = self.callers[caller].lease else {
            return self.grant(caller, floor);
        };
        let key = format!("l{caller}-{}", self.random.usize(..KEYS));
        let put = |lease: i64, value: u64| Command::Kv {
            caller: None,
            op: KvOp::Put(Put {
                key: key.as_str().into(),
                value: value.to_string().as_str().into(),
                lease,
                ..Put::default()
            }),
        };
        let id = i64::try_from(lease.id.0).expect("chosen below");
        let value = self.random.u64(..1_000);
        let (command, call) = match self.random.u8(..16) {
            0..5 => (put(id, value), LeaseCall::Attach(lease)),
            5 => (put(0, value), LeaseCall::Other),
            6 => {
                let range = KeyRange {
                    key: key.as_str().into(),
                    ..KeyRange::default()
                };
                let prev_kv = false;
                let op = KvOp::DeleteRange(DeleteRange { range, prev_kv });
                (Command::Kv { caller: None, op }, LeaseCall::Other)
            }
            7 => {
                self.give_up(caller);
                let (caller, id) = (None, lease.id.0);
                (Command::RevokeLease { caller, id }, LeaseCall::Other)
            }
            8 => {
                // It runs out.
                self.give_up(caller);
                return self.grant(caller, floor);
            }
            _ => {
                let request = Request::KeepAlive {
                    session: lease,
                    seq: 1,
                };
                return Operation {
                    lease: Some(LeaseCall::KeepAlive(lease)),
                    ..Operation::plain(request, floor)
                };
            }
        };
        let mut operation = self.propose_once(command, floor);
        operation.lease = Some(call);
        operation
    }

    fn grant(&mut self, caller: usize, floor: LogIndex) -> Operation {
        // An id may be used again once its lease is over; until then that is refused.
        let id = IDS_FROM + self.random.u64(..8) * 64 + caller as u64;
        let ttl_ms = self.random.u64(1_000..4_000);
        let command = Command::GrantLease {
            caller: None,
            id,
            ttl_ms,
        };
        let mut operation = self.propose_once(command, floor);
        operation.lease = Some(LeaseCall::Grant(id, ttl_ms));
        operation
    }

    fn give_up(&mut self, caller: usize) {
        if let Some(lease) = self.callers[caller].lease.take() {
            self.checkers.sessions.on_abandoned(lease);
        }
    }

    /// What a caller did with its lease is answered.
    pub(super) fn lease_answered(&mut self, caller: usize, done: &Operation, response: &Response) {
        let Some(call) = done.lease else { return };
        let sent = self.callers[caller].sent_at;
        match (call, response) {
            (LeaseCall::Grant(id, ttl_ms), Response::Applied { outcome, .. }) => match outcome {
                Ok(Reply::LeaseGranted { session, ttl_ms }) => {
                    self.count_on(caller, *session, *ttl_ms, sent);
                }
                Err(Rejection::Kv(KvError::LeaseExists { .. })) => {}
                other => panic!("lease {id} of {ttl_ms} ms is answered by {other:?}"),
            },
            (LeaseCall::KeepAlive(session), Response::KeptAlive { ttl_ms, .. }) => {
                self.count_on(caller, session, *ttl_ms, sent);
            }
            (LeaseCall::KeepAlive(session), Response::SessionGone { .. }) => {
                self.lost(caller, session);
            }
            (LeaseCall::Attach(session), Response::Applied { outcome, .. }) if is_gone(outcome) => {
                self.lost(caller, session);
            }
            _ => {}
        }
    }

    /// The lease lives for a TTL from when what was answered was sent.
    fn count_on(&mut self, caller: usize, session: SessionKey, ttl_ms: u64, sent: Moment) {
        let valid = sent + Duration::from_millis(ttl_ms);
        self.callers[caller].lease = Some(session);
        let verdict = self.checkers.sessions.on_valid(session, valid);
        self.judge(verdict);
    }

    /// A server says that the lease is over.
    fn lost(&mut self, caller: usize, session: SessionKey) {
        let known = self.callers[caller].lease;
        if known == Some(session) {
            self.callers[caller].lease = None;
            self.checkers.sessions.on_abandoned(session);
        }
    }
}

fn is_gone(outcome: &Outcome) -> bool {
    matches!(outcome, Err(Rejection::Kv(KvError::LeaseNotFound { .. })))
}
