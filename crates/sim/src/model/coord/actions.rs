//! The environment: every command that may come next. Contenders, operators, the leader's own commands, and time.

use quorate_coord::{
    Command, ContenderSpec, Group, NodeAdmission, NodeSpec, Phase, Position, Report, SessionKey,
    State, TenureKey, TransferMode,
};
use quorate_types::GroupName;

use super::{Action, Allowed, Coord, Promise, TERM, World};
use crate::model::liveness::FREE;

/// Fairness classes: what a run must do again and again while it can.
pub mod class {
    /// Time passes, and the leader proposes what is due.
    pub const TIME: u8 = 1;
    /// The leader vacates tenures that it waited out.
    pub const VACATE: u8 = 2;
    /// The good contender answers.
    pub const GOOD: u8 = 3;
    /// Operators: they stop some day.
    pub const OPERATOR: u8 = 4;
    /// Others come, go, or stand otherwise.
    pub const CHURN: u8 = 5;
    /// The first of the classes of the others' answers, by node.
    pub const OTHERS: u8 = 8;
}

/// The kinds of an action, as far as fairness and the contract's initiators are concerned.
impl Coord {
    pub(crate) fn open(&self, node: usize) -> Command {
        Command::OpenSession {
            ttl_ms: 1_000,
            node: Some(self.nodes[node].clone()),
        }
    }

    pub(crate) fn contend(&self, session: SessionKey, group: &GroupName, priority: i32) -> Command {
        let spec = ContenderSpec {
            priority,
            ..ContenderSpec::default()
        };
        Command::Contend {
            session,
            groups: vec![(group.clone(), spec)],
        }
    }

    /// Everything that may come next.
    pub(crate) fn list(&self, world: &World, out: &mut Vec<Action>) {
        let state = &world.state;
        let first = out.len();
        for node in 0..self.nodes.len() {
            self.list_node(state, node, out);
        }
        for (number, (name, spec)) in self.groups.iter().enumerate() {
            match state.group(name) {
                Some(group) => self.list_group(state, group, out),
                None => push(
                    out,
                    Command::CreateGroups {
                        groups: vec![(self.groups[number].0.clone(), spec.clone())],
                    },
                ),
            }
        }
        if self.allowed.close && self.promise.is_none() && state.session_count() >= 2 {
            let sessions = state.sessions().map(|session| session.key).collect();
            push(
                out,
                Command::ExpireSessions {
                    term: TERM,
                    sessions,
                },
            );
        }
        if self.allowed.late {
            let later = |action: &Action| Action {
                command: action.command.clone(),
                ticks: 1,
            };
            let late: Vec<_> = out[first..].iter().map(later).collect();
            out.extend(late);
        }
        if !self.is_time_frozen && !self.is_answer_due(state) {
            let most = if self.allowed.late { 2 } else { 1 };
            out.extend((1..=most).map(|ticks| Action {
                command: Command::Advance,
                ticks,
            }));
        }
        if state
            .next_deadline()
            .is_some_and(|at| at <= state.cluster_time())
        {
            push(out, Command::Advance);
        }
    }

    fn list_node(&self, state: &State, at: usize, out: &mut Vec<Action>) {
        let spec = &self.nodes[at];
        let is_good = self.promise.is_some_and(|promise| promise.good == at);
        let allowed = &self.allowed;
        let Some(key) = Self::session_of(state, &spec.name) else {
            push(out, self.open(at));
            self.list_admissions(state, spec, out);
            return;
        };
        if is_good {
            for (name, _) in &self.groups {
                let group = state.group(name);
                if group.is_some_and(|group| !group.contenders.contains_key(&key.id)) {
                    push(out, self.contend(key, name, self.priorities[0]));
                }
            }
            return;
        }
        let session = state.session(key.id).expect("the node's session lives");
        push(
            out,
            Command::ExpireSessions {
                term: TERM,
                sessions: vec![key],
            },
        );
        if allowed.close {
            push(out, Command::CloseSession { session: key });
        }
        if allowed.revoke_session && !session.revoked {
            push(out, Command::RevokeSession { session: key.id });
        }
        self.list_admissions(state, spec, out);
        if session.revoked {
            return;
        }
        for (name, _) in &self.groups {
            let Some(group) = state.group(name) else {
                continue;
            };
            let standing = group.contenders.get(&key.id);
            for priority in &self.priorities {
                if standing.is_none_or(|c| c.priority != *priority || c.withdrawing) {
                    push(out, self.contend(key, name, *priority));
                }
            }
            if allowed.withdraw && standing.is_some_and(|c| !c.withdrawing) {
                push(
                    out,
                    Command::Withdraw {
                        session: key,
                        groups: vec![name.clone()],
                    },
                );
            }
        }
    }

    fn list_admissions(&self, state: &State, spec: &NodeSpec, out: &mut Vec<Action>) {
        let Some(node) = state.node(&spec.name) else {
            return;
        };
        let Allowed { cordon, drain, .. } = self.allowed;
        let wanted = [
            (NodeAdmission::Open, cordon || drain),
            (NodeAdmission::Cordoned, cordon),
            (NodeAdmission::Draining, drain),
        ];
        for (admission, is_allowed) in wanted {
            if is_allowed && node.admission != admission {
                let node = spec.name.clone();
                push(out, Command::AdmitNode { node, admission });
            }
        }
    }

    fn list_group(&self, state: &State, group: &Group, out: &mut Vec<Action>) {
        let name = &group.key.name;
        if let (Some(tenure), Some(key)) = (&group.tenure, group.tenure_key()) {
            if let Some(holder) = tenure.holder.and_then(|id| state.session(id)) {
                self.list_holder(group, holder.key, &key, out);
            }
            for (session, answer) in &tenure.asked {
                let asked = state.session(*session).expect("who is asked lives");
                let is_good = self.is_good(state, asked.key);
                if answer.is_none() {
                    for position in self.positions_of(is_good) {
                        report(out, asked.key, &key, Report::Polled { position });
                    }
                }
                if self.allowed.fail && !is_good {
                    report(out, asked.key, &key, Report::Failed);
                }
            }
            if let Some(successor) = &tenure.successor {
                let next = state
                    .session(successor.session)
                    .expect("who is to succeed lives");
                let is_good = self.is_good(state, next.key);
                for position in self.positions_of(is_good) {
                    if successor.ready != Some(position) {
                        report(out, next.key, &key, Report::Ready { position });
                    }
                }
                if self.allowed.fail && !is_good {
                    report(out, next.key, &key, Report::Failed);
                }
            }
            if group.phase == Phase::Revoking {
                push(
                    out,
                    Command::VacateTenures {
                        term: TERM,
                        tenures: vec![key],
                    },
                );
            }
        }
        if self.allowed.depose {
            Self::list_reports_of_faults(state, group, out);
        }
        self.list_orders(group, name, out);
    }

    /// Others report the holder as faulty, or take it back.
    fn list_reports_of_faults(state: &State, group: &Group, out: &mut Vec<Action>) {
        let (Some(tenure), Some(key)) = (&group.tenure, group.tenure_key()) else {
            return;
        };
        for id in group.contenders.keys() {
            let session = state.session(*id).expect("who stands lives").key;
            let tenure_key = key.clone();
            if tenure.reports.contains_key(id) {
                push(
                    out,
                    Command::WithdrawReport {
                        session,
                        tenure: tenure_key,
                    },
                );
            } else if group.holder() != Some(*id) && group.phase.is_believed() {
                push(
                    out,
                    Command::ReportFaulty {
                        session,
                        tenure: tenure_key,
                        reason: "slow".into(),
                    },
                );
            }
        }
    }

    fn list_holder(
        &self,
        group: &Group,
        holder: SessionKey,
        tenure: &TenureKey,
        out: &mut Vec<Action>,
    ) {
        let is_good = self.is_good_by_group(group, holder);
        match group.phase {
            Phase::Preparing => {
                for position in self.positions_of(is_good) {
                    report(out, holder, tenure, Report::Ready { position });
                }
                if self.allowed.fail && !is_good {
                    report(out, holder, tenure, Report::Failed);
                    report(out, holder, tenure, Report::Released { position: None });
                }
            }
            Phase::Active | Phase::Draining | Phase::Revoking => {
                report(out, holder, tenure, Report::Released { position: None });
                if group.is_freshest() || group.spec.readiness {
                    for position in self.positions_of(false) {
                        let position = Some(position);
                        report(out, holder, tenure, Report::Released { position });
                    }
                }
                if self.allowed.fail && group.phase == Phase::Draining {
                    report(out, holder, tenure, Report::Declined);
                }
            }
            Phase::Vacant | Phase::Polling => {}
        }
    }

    fn list_orders(&self, group: &Group, name: &GroupName, out: &mut Vec<Action>) {
        let targets =
            || std::iter::once(None).chain(self.nodes.iter().map(|node| Some(node.name.clone())));
        let modes = [
            (TransferMode::Handover, self.allowed.transfer),
            (TransferMode::Force, self.allowed.force),
        ];
        for (mode, is_allowed) in modes {
            for to in targets().filter(|_| is_allowed) {
                let group = name.clone();
                push(out, Command::Transfer { group, to, mode });
            }
        }
        if self.allowed.transfer && group.pending.is_some() {
            push(
                out,
                Command::AbortTransfer {
                    group: name.clone(),
                },
            );
        }
        if self.allowed.delete && !group.deleting {
            push(
                out,
                Command::DeleteGroup {
                    group: name.clone(),
                    expected: None,
                },
            );
        }
    }

    /// Who keeps the promise reports the freshest position only.
    fn positions_of(&self, is_good: bool) -> impl Iterator<Item = Position> {
        let all: &[u64] = match self.positions.split_last() {
            Some((last, _)) if is_good => std::slice::from_ref(last),
            _ => &self.positions,
        };
        all.iter().copied().map(Position)
    }

    fn is_good(&self, state: &State, key: SessionKey) -> bool {
        self.promise.is_some_and(|promise| {
            Self::session_of(state, &self.nodes[promise.good].name) == Some(key)
        })
    }

    fn is_good_by_group(&self, group: &Group, holder: SessionKey) -> bool {
        let node = group.tenure.as_ref().and_then(|t| t.node.as_ref());
        group.holder() == Some(holder.id)
            && self
                .promise
                .is_some_and(|promise| node == Some(&self.nodes[promise.good].name))
    }

    /// Whether somebody who promised to answer before time passes has not answered.
    fn is_answer_due(&self, state: &State) -> bool {
        let Some(promise) = self.promise else {
            return false;
        };
        let promised = |id| {
            let session = state.session(id).expect("who takes part lives");
            promise.others_answer || self.is_good(state, session.key)
        };
        state.groups().any(|group| {
            let Some(tenure) = &group.tenure else {
                return false;
            };
            let is_preparing =
                group.phase == Phase::Preparing && tenure.holder.is_some_and(promised);
            is_preparing
                || tenure
                    .asked
                    .iter()
                    .any(|(session, answer)| answer.is_none() && promised(*session))
        })
    }

    /// One bit per group that nobody leads although the good contender stands.
    pub(crate) fn hungry(&self, world: &World) -> u64 {
        let Some(Promise {
            good,
            after_release,
            ..
        }) = self.promise
        else {
            return 0;
        };
        let state = &world.state;
        let node = state.node(&self.nodes[good].name);
        let Some(session) = node
            .filter(|node| node.admission == NodeAdmission::Open)
            .and_then(|node| node.session)
        else {
            return 0;
        };
        let mut bits = 0;
        for group in state.groups() {
            let stands = group
                .contenders
                .get(&session)
                .is_some_and(|contender| !contender.withdrawing);
            let number = self.number_of(&group.key.name);
            let counts = !after_release || world.ghosts[number].is_complete;
            if stands && counts && !group.phase.is_believed() && !group.deleting {
                bits |= 1 << number;
            }
        }
        bits
    }

    /// An action's fairness class.
    pub(crate) fn class_of(&self, world: &World, action: &Action) -> u8 {
        match &action.command {
            Command::Advance => class::TIME,
            Command::VacateTenures { .. } => class::VACATE,
            Command::OpenSession { .. }
            | Command::CloseSession { .. }
            | Command::ExpireSessions { .. }
            | Command::Contend { .. }
            | Command::Withdraw { .. } => class::CHURN,
            Command::Report { session, reports } => {
                let is_answer = matches!(
                    reports.first(),
                    Some((
                        _,
                        Report::Polled { .. } | Report::Ready { .. } | Report::Failed
                    ))
                );
                if !is_answer {
                    FREE
                } else if self.is_good(&world.state, *session) {
                    class::GOOD
                } else {
                    let of = |node: &NodeSpec| {
                        Self::session_of(&world.state, &node.name) == Some(*session)
                    };
                    let node = self.nodes.iter().position(of);
                    node.map_or(FREE, |node| class::OTHERS + node as u8)
                }
            }
            _ => class::OPERATOR,
        }
    }
}

fn push(out: &mut Vec<Action>, command: Command) {
    out.push(Action { command, ticks: 0 });
}

fn report(out: &mut Vec<Action>, session: SessionKey, tenure: &TenureKey, report: Report) {
    push(
        out,
        Command::Report {
            session,
            reports: vec![(tenure.clone(), report)],
        },
    );
}
