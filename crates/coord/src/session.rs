//! Sessions: opening, closing, revoking, expiring, and what their end means for the tenures they hold.

use std::sync::Arc;

use quorate_types::{Principal, Revision, SessionId, Term};

use crate::command::{NodeAdmission, SessionKey, TenureKey};
use crate::event::{Cause, Event, Phase};
use crate::lifecycle::Context;
use crate::reply::{Outcome, Rejection, Reply};
use crate::spec::NodeSpec;
use crate::state::{GroupId, Load, Node, Seat, Session, State};
use crate::validate;

impl State {
    /// The session, if it lives and is not revoked.
    pub(crate) fn unrevoked(&self, key: SessionKey) -> Result<&Session, Rejection> {
        let session = self
            .live(key)
            .ok_or(Rejection::UnknownSession { session: key.id })?;
        if session.revoked {
            Err(Rejection::SessionRevoked { session: key.id })
        } else {
            Ok(session)
        }
    }

    /// What a command that took effect, or found its wish fulfilled, replies; the revision is filled in at the end.
    pub(crate) fn done() -> Outcome {
        Ok(Reply::Done {
            revision: Revision::ZERO,
        })
    }

    pub(crate) fn open_session(
        &mut self,
        cx: &mut Context<'_>,
        principal: &Principal,
        ttl_ms: u64,
        node: Option<&NodeSpec>,
    ) -> Outcome {
        validate::ttl(ttl_ms)?;
        if let Some(spec) = node {
            validate::node(spec)?;
            if let Some(session) = self.node(&spec.name).and_then(|n| n.session) {
                return Err(Rejection::NodeLive {
                    node: spec.name.clone(),
                    session,
                });
            }
        }
        // Leases choose their ids: those in use are skipped.
        self.session_last = self.session_last.next();
        while self.sessions.contains_key(&self.session_last) {
            self.session_last = self.session_last.next();
        }
        let key = self.file_session(
            cx,
            self.session_last,
            principal,
            node.map(|spec| spec.name.clone()),
            ttl_ms,
        );
        if let Some(spec) = node {
            let admission = self
                .node(&spec.name)
                .map(|n| n.admission)
                .unwrap_or_default();
            let filed = Node {
                spec: spec.clone(),
                session: Some(key.id),
                admission,
                load: Load::default(),
            };
            self.nodes.insert(spec.name.clone(), Arc::new(filed));
            cx.emit(Event::NodeChanged {
                node: spec.name.clone(),
            });
        }
        Ok(Reply::SessionOpened {
            session: key,
            ttl_ms,
        })
    }

    pub(crate) fn close_session(&mut self, cx: &mut Context<'_>, key: SessionKey) -> Outcome {
        if self.live(key).is_none() {
            return Err(Rejection::UnknownSession { session: key.id });
        }
        self.end_sessions(cx, &[key], Cause::Closed);
        Self::done()
    }

    pub(crate) fn expire_sessions(
        &mut self,
        cx: &mut Context<'_>,
        entry: Term,
        stamp: Term,
        sessions: &[SessionKey],
    ) -> Outcome {
        // The leader that judged may have been deposed, and its successor have answered keep-alives since (protocol, section 2).
        if entry != stamp {
            return Err(Rejection::StaleTerm);
        }
        self.end_sessions(cx, sessions, Cause::Expired);
        Self::done()
    }

    pub(crate) fn vacate_tenures(
        &mut self,
        cx: &mut Context<'_>,
        entry: Term,
        stamp: Term,
        tenures: &[TenureKey],
    ) -> Outcome {
        if entry != stamp {
            return Err(Rejection::StaleTerm);
        }
        for tenure in tenures {
            let Some(id) = self.derived.names.get(&tenure.group.name).copied() else {
                continue;
            };
            let group = self.by_id(id);
            // One that has ended meanwhile, by release say, is nothing to wait for.
            if group.phase == Phase::Revoking && group.tenure_key().as_ref() == Some(tenure) {
                self.end_tenure(cx, id, Cause::WaitedOut, None);
            }
        }
        Self::done()
    }

    /// Ends sessions: all of them first, then all they held, and the elections after the command, so that none of the batch
    /// is elected and no group is granted twice (protocol, section 4).
    pub(crate) fn end_sessions(&mut self, cx: &mut Context<'_>, keys: &[SessionKey], cause: Cause) {
        let mut ended = Vec::new();
        for key in keys {
            if self.live(*key).is_none() {
                continue;
            }
            let session = self
                .sessions
                .remove(&key.id)
                .expect("the session was found live just above");
            // A revoked session ends by the same wait as its tenures, and says what began it.
            let cause = if session.revoked && cause == Cause::Expired {
                Cause::SessionRevoked
            } else {
                cause
            };
            cx.emit(Event::SessionEnded {
                session: *key,
                cause,
            });
            ended.push((session, cause));
        }
        for (session, cause) in ended {
            let id = session.key.id;
            // One key-value revision for each that had keys, in the order of the batch, and before any group is led anew.
            self.kv.end_lease(id.0);
            let seat = self.derived.seats.get(&id).cloned().unwrap_or_default();
            self.vacate_seat(cx, id, &seat, cause);
            if let Some(name) = &session.node {
                let node = self
                    .nodes
                    .get_mut(name)
                    .expect("a live session's node is filed");
                assert_eq!(
                    node.load,
                    Load::default(),
                    "node {name:?} carries something without a session"
                );
                if node.admission == NodeAdmission::Open {
                    self.nodes.remove(name);
                } else {
                    Arc::make_mut(node).session = None;
                }
                cx.emit(Event::NodeChanged { node: name.clone() });
            }
        }
    }

    fn vacate_seat(&mut self, cx: &mut Context<'_>, session: SessionId, seat: &Seat, cause: Cause) {
        // The index of where it stands goes as a whole: cheaper than group by group, and a node may stand in all.
        self.stand_nowhere(session);
        for id in &seat.held {
            self.end_tenure(cx, *id, cause, None);
        }
        for id in &seat.aside {
            self.leave_aside(cx, *id, session, cause);
        }
        for id in &seat.contending {
            // Its own tenure's end may have taken the group along, or the contender, where it had withdrawn.
            if self
                .groups
                .get(id)
                .is_some_and(|group| group.contenders.contains_key(&session))
            {
                self.edit(*id, |group| group.remove_contender(session));
            }
        }
        cx.changed |= !seat.contending.is_empty();
    }

    /// Takes a session out of a poll or a succession.
    pub(crate) fn leave_aside(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        session: SessionId,
        cause: Cause,
    ) {
        let Some(group) = self.groups.get(&id) else {
            return;
        };
        match group.phase {
            Phase::Polling => self.leave_poll(cx, id, session, cause),
            Phase::Draining if group.successor().is_some_and(|s| s.session == session) => {
                self.replace_successor(cx, id, None);
                cx.dirty.insert(id);
            }
            _ => {}
        }
    }

    /// Ends another's session: what is believed under it is revoked and waited out (protocol, section 3).
    pub(crate) fn revoke_session(&mut self, cx: &mut Context<'_>, id: SessionId) -> Outcome {
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err(Rejection::UnknownSession { session: id });
        };
        if session.revoked {
            return Self::done();
        }
        Arc::make_mut(session).revoked = true;
        cx.emit(Event::SessionRevoked {
            session: session.key,
        });
        let seat = self.derived.seats.get(&id).cloned().unwrap_or_default();
        for group in &seat.held {
            match self.by_id(*group).phase {
                Phase::Preparing => self.end_tenure(cx, *group, Cause::SessionRevoked, None),
                Phase::Active | Phase::Draining => {
                    self.revoke_tenure(cx, *group, Cause::SessionRevoked);
                }
                Phase::Revoking => {}
                Phase::Vacant | Phase::Polling => unreachable!("a group held has a holder"),
            }
        }
        for group in &seat.aside {
            self.leave_aside(cx, *group, id, Cause::SessionRevoked);
        }
        Self::done()
    }

    /// Ends a believed tenure by revocation, any other at once.
    pub(crate) fn stop_tenure(&mut self, cx: &mut Context<'_>, id: GroupId, cause: Cause) {
        match self.by_id(id).phase {
            Phase::Vacant | Phase::Revoking => {}
            Phase::Polling | Phase::Preparing => self.end_tenure(cx, id, cause, None),
            Phase::Active | Phase::Draining => self.revoke_tenure(cx, id, cause),
        }
    }
}
