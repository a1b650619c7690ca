//! Applying one entry: deadlines first, then the command, each with its own revision where it changed something.

use quorate_types::{LogIndex, Term};

use crate::command::{Command, Envelope};
use crate::dedup::Recall;
use crate::event::Event;
use crate::lifecycle::Context;
use crate::reply::{Outcome, Reply};
use crate::state::{GroupId, State};

impl State {
    /// Applies one entry and says what it changed. Deterministic; no command makes it panic.
    ///
    /// # Panics
    /// When entries come out of order: the caller's bug.
    pub fn apply(
        &mut self,
        index: LogIndex,
        term: Term,
        envelope: &Envelope,
        events: &mut Vec<Event>,
    ) -> Outcome {
        self.note_applied(index, term);
        self.cluster_time = self.cluster_time.max(envelope.cluster_time);
        let mut cx = Context::new(events);
        // Before the command, and with a revision of their own: a group that both would grant gets two tokens.
        self.fire_deadlines(&mut cx);
        self.complete(&mut cx);
        if let Recall::Answer(outcome) = self.recall(&envelope.request) {
            return outcome;
        }
        let mut outcome = self.execute(&mut cx, term, envelope);
        if outcome.is_ok() {
            self.complete(&mut cx);
        }
        assert!(
            !cx.changed && cx.dirty.is_empty() && cx.moved.is_empty() && cx.gone.is_empty(),
            "a refused command had an effect: {:?}",
            envelope.command
        );
        if let Ok(
            Reply::Done { revision }
            | Reply::Partly { revision, .. }
            | Reply::Moving { revision, .. },
        ) = &mut outcome
        {
            *revision = self.revision;
        }
        self.remember(&envelope.request, &outcome);
        outcome
    }

    /// Notes an entry that carries no command (a leader's own-term entry, a configuration).
    ///
    /// # Panics
    /// When entries come out of order: the caller's bug.
    pub fn note_applied(&mut self, index: LogIndex, term: Term) {
        assert!(
            index > self.applied_index,
            "entry {index} applied after {}",
            self.applied_index
        );
        assert!(
            term >= self.applied_term,
            "entry {index} of term {term} applied after term {}",
            self.applied_term
        );
        self.applied_index = index;
        self.applied_term = term;
    }

    fn complete(&mut self, cx: &mut Context<'_>) {
        self.settle_all(cx);
        self.run_sweep(cx);
        self.run_balance(cx);
        self.settle_all(cx);
        // After the keys that ended sessions lost, and before the next command: a transaction sees who leads when it is applied.
        self.write_group_keys(cx);
        if cx.changed {
            self.revision = self.revision.next();
            cx.changed = false;
        }
    }

    fn settle_all(&mut self, cx: &mut Context<'_>) {
        // Successors first: the places kept for them must not go to other groups of the same command (design, section 7: the
        // successor is granted in the apply of the release).
        let has_heir = |id: &GroupId| {
            self.groups
                .get(id)
                .is_some_and(|group| group.heir.is_some())
        };
        let heirs: Vec<_> = cx.dirty.iter().copied().filter(has_heir).collect();
        for id in heirs {
            cx.dirty.remove(&id);
            self.settle(cx, id);
        }
        while let Some(id) = cx.dirty.pop_first() {
            self.settle(cx, id);
        }
    }

    fn execute(&mut self, cx: &mut Context<'_>, term: Term, envelope: &Envelope) -> Outcome {
        match &envelope.command {
            Command::OpenSession { ttl_ms, node } => {
                self.open_session(cx, &envelope.principal, *ttl_ms, node.as_ref())
            }
            Command::CloseSession { session } => self.close_session(cx, *session),
            Command::RevokeSession { session } => self.revoke_session(cx, *session),
            Command::ExpireSessions {
                term: stamp,
                sessions,
            } => self.expire_sessions(cx, term, *stamp, sessions),
            Command::VacateTenures {
                term: stamp,
                tenures,
            } => self.vacate_tenures(cx, term, *stamp, tenures),
            Command::Advance => {
                self.sweep_kv();
                Self::done()
            }
            Command::CreateGroups { groups } => self.create_groups(cx, groups),
            Command::UpdateGroup {
                group,
                spec,
                expected,
            } => self.update_group(cx, group, spec, *expected),
            Command::DeleteGroup { group, expected } => self.delete_group(cx, group, *expected),
            Command::Contend { session, groups } => self.contend(cx, *session, groups),
            Command::Withdraw { session, groups } => self.withdraw(cx, *session, groups),
            Command::Report { session, reports } => self.report(cx, *session, reports),
            Command::Transfer { group, to, mode } => self.transfer(cx, group, to.as_ref(), *mode),
            Command::AbortTransfer { group } => self.abort_transfer(cx, group),
            Command::AdmitNode { node, admission } => self.admit_node(cx, node, *admission),
            Command::Rebalance { prefix, moves_max } => {
                self.rebalance_command(cx, prefix, *moves_max)
            }
            Command::ReportFaulty {
                session,
                tenure,
                reason,
            } => self.report_faulty(cx, *session, tenure, reason),
            Command::WithdrawReport { session, tenure } => {
                self.withdraw_report(cx, *session, tenure)
            }
            Command::Kv { caller, op } => self.execute_kv(&envelope.request, caller.as_ref(), op),
            Command::CompactKv { caller, revision } => self.compact_kv(caller.as_ref(), *revision),
            Command::GrantLease { caller, id, ttl_ms } => {
                self.auth.check_known(caller.as_ref())?;
                self.grant_lease(cx, &envelope.principal, *id, *ttl_ms)
            }
            Command::RevokeLease { caller, id } => self.revoke_lease(cx, caller.as_ref(), *id),
            Command::Alarm {
                action,
                member,
                kind,
            } => self.set_alarm(*action, *member, *kind),
            Command::Auth { caller, change } => self.change_auth(caller.as_ref(), change),
        }
    }
}
