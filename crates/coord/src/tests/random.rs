//! Random commands, plausible and not: whatever comes, invariants hold, and a stored copy has the same future.

use quorate_types::{
    GroupName, NodeName, ReplicaId, RequestId, Revision, SessionId, TenureNumber, Term,
};

use super::world::{World, group, node, node_spec};
use crate::kv::{
    Blob, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KvOp, Put, Range, Txn,
};
use crate::*;

/// A linear congruential generator (Knuth's MMIX constants): tests need no better one.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    fn group(&mut self) -> GroupName {
        group(&format!("g{}", self.below(12)))
    }
    fn node(&mut self) -> NodeName {
        node(&format!("n{}", self.below(6)))
    }
    fn session(&mut self, state: &State) -> SessionKey {
        let count = state.session_count() as u64;
        if count == 0 || self.chance(3) {
            return SessionKey {
                id: SessionId(self.below(50)),
                created: Revision(self.below(90)),
            };
        }
        state
            .sessions()
            .nth(self.below(count) as usize)
            .unwrap()
            .key
    }
    fn spec(&mut self) -> GroupSpec {
        GroupSpec {
            policy: match self.below(4) {
                0 => ElectionPolicy::Freshest { answers_min: None },
                1 => ElectionPolicy::Freshest {
                    answers_min: Some(1 + self.below(3) as u32),
                },
                _ => ElectionPolicy::Priority,
            },
            require: if self.chance(10) {
                [("zone".into(), "x".into())].into()
            } else {
                Default::default()
            },
            prefer: if self.chance(30) {
                vec![("zone".into(), "y".into())]
            } else {
                vec![]
            },
            readiness: self.chance(40),
            prepare_deadline_ms: 1 + self.below(1_000),
            handover_deadline_ms: 1 + self.below(1_000),
            handover_overdue: if self.chance(50) {
                OverduePolicy::Abort
            } else {
                OverduePolicy::Revoke
            },
            minimum_tenure_ms: self.below(300),
            cooldown_ms: self.below(100),
            cooldown_max_ms: 100 + self.below(500),
            spread: self.chance(60),
            weight: 1 + self.below(3) as u32,
            depose_quorum: match self.below(4) {
                0 => DeposeQuorum::Off,
                1 => DeposeQuorum::Majority,
                _ => DeposeQuorum::Reports {
                    min: 1 + self.below(3) as u32,
                },
            },
            depose_window_ms: 1 + self.below(10_000),
        }
    }
    fn position(&mut self) -> Position {
        Position(self.below(20))
    }

    fn tenure(&mut self, state: &State) -> TenureKey {
        let name = self.group();
        match state.group(&name) {
            Some(found) if self.chance(95) => found.tenure_key(),
            _ => None,
        }
        .unwrap_or(TenureKey {
            group: GroupKey {
                name,
                created: Revision(self.below(50)),
            },
            number: TenureNumber(self.below(9)),
        })
    }

    /// A report, mostly by somebody whom it may concern.
    fn reports(&mut self, state: &State) -> Command {
        let mut session = self.session(state);
        let count = 1 + self.below(4);
        let mut reports = Vec::new();
        for _ in 0..count {
            let tenure = self.tenure(state);
            if reports.is_empty() && self.chance(70) {
                let found = state.group(&tenure.group.name);
                let successor = found
                    .and_then(|g| g.successor().map(|s| s.session))
                    .filter(|_| self.chance(50));
                let holder = found.and_then(Group::holder);
                if let Some(key) = successor
                    .or(holder)
                    .and_then(|id| state.session(id))
                    .map(|s| s.key)
                {
                    session = key;
                }
            }
            let report = match self.below(8) {
                0 | 1 => Report::Polled {
                    position: self.position(),
                },
                2..=4 => Report::Ready {
                    position: self.position(),
                },
                5 => Report::Failed,
                6 => Report::Released {
                    position: self.chance(60).then(|| self.position()),
                },
                _ => Report::Declined,
            };
            reports.push((tenure, report));
        }
        Command::Report { session, reports }
    }

    /// A report of a faulty holder, or its withdrawal, mostly by somebody who has a say.
    fn fault_report(&mut self, state: &State) -> Command {
        let mut tenure = self.tenure(state);
        for _ in 0..4 {
            let found = state.group(&tenure.group.name);
            if found.is_some_and(|g| g.phase.is_believed() && g.contenders.len() > 1) {
                break;
            }
            tenure = self.tenure(state);
        }
        let mut session = self.session(state);
        if let Some(found) = state.group(&tenure.group.name)
            && !found.contenders.is_empty()
            && self.chance(90)
        {
            let at = self.below(found.contenders.len() as u64) as usize;
            let id = *found.contenders.keys().nth(at).unwrap();
            session = state.session(id).unwrap().key;
        }
        if self.chance(15) {
            return Command::WithdrawReport { session, tenure };
        }
        let reason = "x".repeat(self.below(REASON_BYTES_MAX as u64 + 8) as usize);
        Command::ReportFaulty {
            session,
            tenure,
            reason,
        }
    }

    fn key(&mut self) -> Blob {
        let key = match self.below(24) {
            0 => format!("{GROUP_KEYS_PREFIX}g{}", self.below(12)),
            1 => "/quorate".to_owned(),
            _ => format!("k{}", self.below(8)),
        };
        Blob::from(key.as_str())
    }
    fn key_range(&mut self) -> KeyRange {
        let range_end = match self.below(4) {
            0 => self.key(),
            1 => Blob::from("\0"),
            _ => Blob::default(),
        };
        let key = self.key();
        KeyRange { key, range_end }
    }

    fn op(&mut self, state: &State, depth: u32) -> KvOp {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0..=2 => KvOp::Put(Put {
                key: self.key(),
                value: Blob::from(vec![7; self.below(20) as usize]),
                lease: if self.chance(50) {
                    self.session(state).id.0.cast_signed()
                } else {
                    0
                },
                prev_kv: self.chance(30),
                ignore_value: false,
                ignore_lease: false,
            }),
            3 => KvOp::DeleteRange(DeleteRange {
                range: self.key_range(),
                prev_kv: self.chance(30),
            }),
            4 | 5 => KvOp::Range(Range {
                range: self.key_range(),
                ..Range::default()
            }),
            _ => {
                let range = self.key_range();
                let compare = vec![Compare {
                    result: CompareResult::Greater,
                    target: CompareTarget::Mod(self.below(40) as i64),
                    range,
                }];
                let mut ops = || {
                    (0..self.below(4))
                        .map(|_| self.op(state, depth - 1))
                        .collect()
                };
                KvOp::Txn(Txn {
                    success: ops(),
                    failure: ops(),
                    compare,
                })
            }
        }
    }

    /// A command of the key space or of its leases.
    fn key_space(&mut self, state: &State) -> Command {
        let caller = None;
        match self.below(12) {
            0 | 1 => Command::GrantLease {
                caller,
                id: self.below(60),
                ttl_ms: self.below(5_000),
            },
            2 => Command::RevokeLease {
                caller,
                id: self.session(state).id.0,
            },
            3 => Command::CompactKv {
                caller,
                revision: (state.kv().revision() + 1).cast_signed() - self.below(5) as i64,
            },
            4 if self.chance(30) => Command::Alarm {
                action: if self.chance(20) {
                    AlarmAction::Raise
                } else {
                    AlarmAction::Clear
                },
                member: ReplicaId(1 + self.below(2)),
                kind: if self.chance(80) {
                    AlarmKind::NoSpace
                } else {
                    AlarmKind::Corrupt
                },
            },
            _ => Command::Kv {
                caller,
                op: self.op(state, 2),
            },
        }
    }

    fn command(&mut self, state: &State, term: Term) -> Command {
        match self.below(58) {
            0..=3 => {
                let labels = [(
                    "zone".to_owned(),
                    if self.chance(50) { "x" } else { "y" }.to_owned(),
                )];
                let spec = NodeSpec {
                    labels: labels.into(),
                    weight: 1 + self.below(3) as u32,
                    max_tenures: self.below(8) as u32,
                    max_preparing: self.below(3) as u32,
                    name: self.node(),
                    ..node_spec("any")
                };
                Command::OpenSession {
                    ttl_ms: 90 + self.below(1_000),
                    node: self.chance(95).then_some(spec),
                }
            }
            4 if self.chance(50) => Command::CloseSession {
                session: self.session(state),
            },
            5 if self.chance(50) => Command::RevokeSession {
                session: self.session(state).id,
            },
            6 => Command::ExpireSessions {
                term: if self.chance(80) {
                    term
                } else {
                    Term(term.0 - 1)
                },
                sessions: (0..self.below(3)).map(|_| self.session(state)).collect(),
            },
            7 | 8 => Command::VacateTenures {
                term: if self.chance(80) {
                    term
                } else {
                    Term(term.0 - 1)
                },
                tenures: (0..6).map(|_| self.tenure(state)).collect(),
            },
            9 | 10 => Command::Advance,
            11 | 12 => Command::CreateGroups {
                groups: (0..self.below(4))
                    .map(|_| (self.group(), self.spec()))
                    .collect(),
            },
            13 => Command::UpdateGroup {
                group: self.group(),
                spec: self.spec(),
                expected: None,
            },
            14 if self.chance(50) => Command::DeleteGroup {
                group: self.group(),
                expected: None,
            },
            15..=20 => Command::Contend {
                session: self.session(state),
                groups: (0..self.below(8))
                    .map(|_| {
                        let priority = self.below(3) as i32 * i32::from(self.chance(40));
                        (
                            self.group(),
                            ContenderSpec {
                                priority,
                                ..ContenderSpec::default()
                            },
                        )
                    })
                    .collect(),
            },
            21 => Command::Withdraw {
                session: self.session(state),
                groups: (0..self.below(4)).map(|_| self.group()).collect(),
            },
            22..=33 => self.reports(state),
            34 | 35 => Command::Transfer {
                group: self.group(),
                to: self.chance(60).then(|| self.node()),
                mode: if self.chance(70) {
                    TransferMode::Handover
                } else {
                    TransferMode::Force
                },
            },
            36 => Command::AbortTransfer {
                group: self.group(),
            },
            37 | 38 => Command::AdmitNode {
                node: self.node(),
                admission: match self.below(5) {
                    0 if self.chance(50) => NodeAdmission::Cordoned,
                    1 => NodeAdmission::Draining,
                    _ => NodeAdmission::Open,
                },
            },
            39..=45 => self.fault_report(state),
            46..=55 => self.key_space(state),
            _ => Command::Rebalance {
                prefix: "g1".into(),
                moves_max: 3,
            },
        }
    }

    fn request(&mut self, state: &State, command: &Command) -> RequestKey {
        if matches!(command, Command::Kv { .. }) && self.chance(95) {
            return RequestKey::Unkeyed;
        }
        match self.below(10) {
            0 => RequestKey::Caller(RequestId(u128::from(self.below(500)))),
            1 => {
                let session = self.session(state);
                let last = state.session(session.id).map_or(0, |s| s.request_seq);
                RequestKey::Session {
                    session,
                    seq: last + self.below(3),
                }
            }
            _ => RequestKey::Internal,
        }
    }
}

/// Applies the same to a twin and demands the same outcome, events and digest.
fn apply_to_twin(w: &mut World, twin: &mut State, request: RequestKey, command: Command) {
    let envelope = w.envelope(request, command.clone());
    let outcome = w.request(request, command);
    let mut events = Vec::new();
    let twin_outcome = twin.apply(w.index, w.term, &envelope, &mut events);
    assert_eq!(outcome, twin_outcome);
    assert_eq!(w.events, events);
}

/// At rest, no group waits for what it could have (guarantee 9): whatever made somebody eligible had it looked at.
fn nothing_is_missed(state: &State) {
    for group in state.groups() {
        let taker = match (group.phase, &group.pending) {
            (Phase::Vacant, _) => state.choose(group, group.spec.readiness, None),
            (Phase::Active, Some(pending)) if pending.not_before <= state.cluster_time() => {
                state.choose(group, group.is_prepared_for(), group.holder())
            }
            (Phase::Active, None) if group.calm_until <= state.cluster_time() => state
                .outranking(group)
                .map(|bid| (bid, Criterion::Priority)),
            _ => None,
        };
        assert!(taker.is_none(), "{taker:?} could have {group:#?}");
    }
}

fn run(seed: u64, steps: usize) -> (u64, [usize; 7]) {
    let mut w = World::new();
    w.term = Term(2);
    let mut rng = Lcg(seed);
    let mut twin = w.stored();
    // How often each phase was seen, and at the end how often somebody was deposed.
    let mut phases = [0; 7];
    for step in 0..steps {
        if rng.chance(30) {
            w.now = w.now.plus_ms(rng.below(60));
        }
        let command = rng.command(&w.state, w.term);
        let request = rng.request(&w.state, &command);
        apply_to_twin(&mut w, &mut twin, request, command);
        for group in w.state.groups() {
            phases[group.phase as usize] += 1;
        }
        let is_deposed = |event: &&Event| matches!(event, Event::HolderDeposed { .. });
        phases[6] += w.events.iter().filter(is_deposed).count();
        if step % 50 == 0 {
            assert_eq!(w.state.digest(), twin.digest());
            // From here on the twin is what came out of a snapshot.
            twin = w.stored();
            assert_eq!(w.state.digest(), twin.digest());
            for name in 0..12 {
                let why = w.state.explain(&group(&format!("g{name}")));
                assert_eq!(
                    why.is_some(),
                    w.state.group(&group(&format!("g{name}"))).is_some()
                );
            }
            let mut at_rest = 0;
            while w.state.next_deadline().is_some_and(|at| at <= w.now) {
                apply_to_twin(&mut w, &mut twin, RequestKey::Internal, Command::Advance);
                at_rest += 1;
                assert!(at_rest < 100, "always something due");
            }
            nothing_is_missed(&w.state);
        }
        if rng.chance(1) {
            w.term = w.term.next();
        }
    }
    (w.state.digest(), phases)
}

#[test]
fn random_commands_keep_every_invariant_and_a_stored_copy_has_the_same_future() {
    let mut phases = [0; 7];
    for seed in 0..40 {
        let (_, seen) = run(seed, 1_250);
        phases
            .iter_mut()
            .zip(seen)
            .for_each(|(sum, seen)| *sum += seen);
    }
    assert!(
        phases[..6].iter().all(|seen| *seen > 1_000) && phases[6] > 50,
        "a phase is hardly visited, or few are deposed: {phases:?}"
    );
}

#[test]
fn the_same_commands_lead_to_the_same_digest() {
    assert_eq!(run(99, 2_000).0, run(99, 2_000).0);
    assert_ne!(run(99, 200).0, run(98, 200).0);
}
