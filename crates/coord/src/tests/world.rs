//! The harness: applies commands, and checks after each what must hold whatever the command was.

use std::collections::BTreeMap;

use quorate_types::{
    ClusterTime, ContractVersion, FencingToken, GroupName, LogIndex, NodeName, Principal,
    RequestId, Revision, SessionId, Term, TraceId, WallTime,
};

use crate::{
    Cause, Command, ContenderSpec, Directive, DirectiveKind, Envelope, Event, Group, GroupKey,
    GroupSpec, NodeSpec, Outcome, Part, Phase, Position, ProposedConfiguration, Report, RequestKey,
    SessionKey, State, TenureKey, is_listed,
};

pub(super) fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

pub(super) fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// A spec whose rules on time do not get in a test's way.
pub(super) fn plain() -> GroupSpec {
    GroupSpec {
        minimum_tenure_ms: 0,
        cooldown_ms: 0,
        cooldown_max_ms: 0,
        spread: false,
        ..GroupSpec::default()
    }
}

pub(super) fn node_spec(name: &str) -> NodeSpec {
    NodeSpec {
        name: node(name),
        labels: BTreeMap::new(),
        weight: 1,
        max_tenures: 0,
        max_preparing: 0,
        contract_min: ContractVersion(1),
        contract_max: ContractVersion(1),
    }
}

pub(super) struct World {
    pub(super) state: State,
    pub(super) index: LogIndex,
    pub(super) term: Term,
    pub(super) now: ClusterTime,
    /// Events of the last apply.
    pub(super) events: Vec<Event>,
    /// Whether every apply is followed by the full check.
    pub(super) checked: bool,
    phases: BTreeMap<GroupKey, Phase>,
    tokens: BTreeMap<GroupName, FencingToken>,
    directives: BTreeMap<SessionId, u64>,
    /// What a session that follows its directives believes of its parts.
    parts: BTreeMap<(SessionId, TenureKey), Part>,
    /// How often each group was activated.
    pub(super) activations: BTreeMap<GroupName, u32>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: State::new(),
            index: LogIndex::ZERO,
            term: Term(1),
            now: ClusterTime(1_000),
            events: Vec::new(),
            checked: true,
            phases: BTreeMap::new(),
            tokens: BTreeMap::new(),
            directives: BTreeMap::new(),
            parts: BTreeMap::new(),
            activations: BTreeMap::new(),
        }
    }

    /// Goes on with a state that did not come from entries applied here.
    pub(super) fn adopt(&mut self, state: State) {
        let phases = state.groups().map(|group| (group.key.clone(), group.phase));
        self.phases = phases.collect();
        self.parts.clear();
        self.state = state;
    }

    pub(super) fn envelope(&self, request: RequestKey, command: Command) -> Envelope {
        Envelope {
            principal: Principal::new("tester").unwrap(),
            request,
            trace: TraceId::default(),
            wall: WallTime(0),
            cluster_time: self.now,
            contract: ContractVersion(1),
            command,
        }
    }

    pub(super) fn apply(&mut self, command: Command) -> Outcome {
        self.request(RequestKey::Internal, command)
    }

    pub(super) fn request_as(&mut self, id: u128, command: Command) -> Outcome {
        self.request(RequestKey::Caller(RequestId(id)), command)
    }

    pub(super) fn request(&mut self, request: RequestKey, command: Command) -> Outcome {
        self.index = self.index.next();
        let envelope = self.envelope(request, command);
        let before = self.state.revision();
        let mut events = Vec::new();
        let outcome = self
            .state
            .apply(self.index, self.term, &envelope, &mut events);
        assert!(
            self.state.revision().0 <= before.0 + 2,
            "more than the deadlines' and the command's revision"
        );
        assert!(
            events.is_empty() || self.state.revision() > before,
            "events without a revision"
        );
        self.check_events(&events);
        self.events = events;
        if self.checked {
            self.state.check_invariants();
            self.check_standings();
        }
        outcome
    }

    fn check_events(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::GroupCreated { group } => {
                    self.phases.insert(group.clone(), Phase::Vacant);
                }
                Event::GroupDeleted { group } => {
                    assert_eq!(
                        self.phases.remove(group),
                        Some(Phase::Vacant),
                        "{group:?} went under a tenure"
                    );
                }
                Event::Transition {
                    group,
                    from,
                    to,
                    cause,
                    tenure,
                } => {
                    assert!(
                        is_listed(*from, *to, *cause),
                        "{from:?} -> {to:?} by {cause:?}"
                    );
                    assert_eq!(
                        self.phases.insert(group.clone(), *to),
                        Some(*from),
                        "{group:?} jumped to {to:?}"
                    );
                    if *from == Phase::Vacant {
                        let last = self.tokens.insert(group.name.clone(), tenure.token);
                        assert!(
                            last.is_none_or(|last| last < tenure.token),
                            "{group:?}: {last:?}, {:?}",
                            tenure.token
                        );
                    }
                    if *to == Phase::Active && *from != Phase::Draining {
                        *self.activations.entry(group.name.clone()).or_default() += 1;
                    }
                }
                Event::Directive { session, directive } => self.follow(session.id, directive),
                Event::SessionEnded { session, .. } => {
                    self.parts.retain(|(id, _), _| *id != session.id);
                }
                Event::HolderDeposed { tenure, reports } => {
                    let found = self.state.group(&tenure.group.name).unwrap();
                    assert_eq!(found.phase, Phase::Revoking, "{tenure:?}");
                    let holder = found.holder();
                    assert!(
                        !reports.is_empty() && reports.iter().all(|r| Some(r.session) != holder),
                        "{tenure:?} was deposed by nobody or by its holder: {reports:?}"
                    );
                }
                _ => {}
            }
        }
    }

    fn follow(&mut self, session: SessionId, directive: &Directive) {
        let seq = self.directives.entry(session).or_default();
        assert_eq!(
            directive.seq.0,
            *seq + 1,
            "session {session} misses a directive"
        );
        *seq += 1;
        let key = (session, directive.tenure.clone());
        let part = match directive.kind {
            DirectiveKind::Poll { .. } => Part::Polled,
            DirectiveKind::Prepare { .. } => Part::Preparing,
            DirectiveKind::Activate { .. } | DirectiveKind::Continue => Part::Active,
            DirectiveKind::CatchUp => Part::Successor,
            DirectiveKind::Drain { .. } => Part::Draining,
            DirectiveKind::Revoke => Part::Revoking,
            DirectiveKind::StandBy | DirectiveKind::Ended { .. } => {
                assert!(
                    self.parts.remove(&key).is_some(),
                    "{session} is told the end of what it has no part in: {directive:?}"
                );
                return;
            }
        };
        self.parts.insert(key, part);
    }

    /// Who follows its directives knows exactly what its standing says.
    fn check_standings(&self) {
        let mut parts = BTreeMap::new();
        for session in self.state.sessions() {
            let standing = self.state.standing(session.key.id).unwrap();
            assert_eq!(standing.directive_seq, session.directive_seq);
            for held in standing.parts {
                let part = if held.part == Part::Answered {
                    Part::Polled
                } else {
                    held.part
                };
                parts.insert((session.key.id, held.tenure), part);
            }
        }
        assert_eq!(
            parts, self.parts,
            "standings (left) and directives (right) differ"
        );
    }

    pub(super) fn advance(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.apply(Command::Advance).unwrap();
        self.catch_up();
    }

    /// Lets the leader propose `Advance` while something is due. Must come to rest.
    pub(super) fn catch_up(&mut self) {
        for _ in 0..1_000 {
            if self.state.next_deadline().is_none_or(|at| at > self.now) {
                return;
            }
            self.apply(Command::Advance).unwrap();
        }
        panic!(
            "always something due: {:?} at {:?}",
            self.state.next_deadline(),
            self.now
        );
    }

    pub(super) fn open_spec(&mut self, spec: NodeSpec) -> SessionKey {
        match self.apply(Command::OpenSession {
            ttl_ms: 1_000,
            node: Some(spec),
        }) {
            Ok(crate::Reply::SessionOpened { session, .. }) => session,
            other => panic!("not opened: {other:?}"),
        }
    }

    pub(super) fn open(&mut self, name: &str) -> SessionKey {
        self.open_spec(node_spec(name))
    }

    pub(super) fn create(&mut self, name: &str, spec: GroupSpec) {
        done(&self.apply(Command::CreateGroups {
            groups: vec![(group(name), spec)],
        }));
    }

    pub(super) fn contend_at(&mut self, session: SessionKey, name: &str, priority: i32) {
        let configuration = ProposedConfiguration {
            endpoints: vec![format!("host-{}:1", session.id)],
            metadata: BTreeMap::new(),
        };
        let groups = vec![(
            group(name),
            ContenderSpec {
                priority,
                configuration,
            },
        )];
        done(&self.apply(Command::Contend { session, groups }));
    }

    pub(super) fn contend(&mut self, session: SessionKey, name: &str) {
        self.contend_at(session, name, 0);
    }

    pub(super) fn report(&mut self, session: SessionKey, name: &str, report: Report) -> Outcome {
        let tenure = self.group(name).tenure_key().unwrap();
        self.apply(Command::Report {
            session,
            reports: vec![(tenure, report)],
        })
    }

    pub(super) fn report_done(&mut self, session: SessionKey, name: &str, report: Report) {
        done(&self.report(session, name, report));
    }

    pub(super) fn report_faulty(
        &mut self,
        session: SessionKey,
        name: &str,
        reason: &str,
    ) -> Outcome {
        let tenure = self.group(name).tenure_key().unwrap();
        self.apply(Command::ReportFaulty {
            session,
            tenure,
            reason: reason.into(),
        })
    }

    pub(super) fn release(&mut self, session: SessionKey, name: &str, position: Option<u64>) {
        self.report_done(
            session,
            name,
            Report::Released {
                position: position.map(Position),
            },
        );
    }

    pub(super) fn expire(&mut self, sessions: &[SessionKey]) {
        done(&self.apply(Command::ExpireSessions {
            term: self.term,
            sessions: sessions.to_vec(),
        }));
    }

    pub(super) fn vacate(&mut self, name: &str) {
        let tenures = vec![self.group(name).tenure_key().unwrap()];
        done(&self.apply(Command::VacateTenures {
            term: self.term,
            tenures,
        }));
    }

    pub(super) fn group(&self, name: &str) -> &Group {
        self.state.group(&group(name)).unwrap()
    }

    pub(super) fn check(&self, name: &str, phase: Phase, holder: Option<SessionKey>) {
        let group = self.group(name);
        assert_eq!(
            (group.phase, group.holder()),
            (phase, holder.map(|h| h.id)),
            "{name}: {group:#?}"
        );
    }

    pub(super) fn causes(&self) -> Vec<(Phase, Phase, Cause)> {
        let transition = |event: &Event| match event {
            Event::Transition {
                from, to, cause, ..
            } => Some((*from, *to, *cause)),
            _ => None,
        };
        self.events.iter().filter_map(transition).collect()
    }

    /// A copy through bytes, as a snapshot travels.
    pub(super) fn stored(&self) -> State {
        let bytes = postcard::to_allocvec(&self.state).unwrap();
        let loaded: State = postcard::from_bytes(&bytes).unwrap();
        loaded.check_invariants();
        loaded
    }

    pub(super) fn load(&self, name: &str) -> u32 {
        self.state.node(&node(name)).unwrap().load.tenures
    }

    pub(super) fn revision(&self) -> Revision {
        self.state.revision()
    }
}

pub(super) fn done(outcome: &Outcome) {
    assert!(
        matches!(outcome, Ok(reply) if !matches!(reply, crate::Reply::Partly { .. })),
        "{outcome:?}"
    );
}
