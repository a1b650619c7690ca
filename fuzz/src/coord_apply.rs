//! Any sequence of commands: `apply` never panics, the invariants hold after each, and a stored copy has the same future.

use quorate_codec::{decode_snapshot, encode_snapshot};
use quorate_consensus::SnapshotMeta;
use quorate_coord::{
    Command, ContenderSpec, ElectionPolicy, Envelope, Event, GroupKey, GroupSpec, NodeAdmission,
    NodeSpec, OverduePolicy, Position, Report, RequestKey, SessionKey, State, TenureKey,
    TransferMode,
};
use quorate_types::{
    ClusterTime, ContractVersion, GroupName, LogIndex, NodeName, Principal, RequestId, Revision,
    SessionId, TenureNumber, Term, TraceId, WallTime,
};

use crate::input::Input;

/// Most commands of one input: the invariants are checked after each, and inputs that only repeat find nothing.
const COMMANDS_MAX: usize = 96;

/// Applies the input's commands: made to fit the state, or decoded as they are.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World {
        state: State::new(),
        index: LogIndex::ZERO,
        term: Term(2),
        now: ClusterTime(1_000),
    };
    // A bit of each: pure streams of decoded commands keep what the encoders' seeds say.
    let only_decoded = input.flag();
    for _ in 0..COMMANDS_MAX {
        if input.is_empty() {
            break;
        }
        let command = if only_decoded || input.below(16) == 1 {
            let Some(command) = input.decode::<Command>() else {
                break;
            };
            command
        } else {
            world.command(&mut input)
        };
        let request = world.request(&mut input);
        world.apply(request, command, &mut input);
    }
    world.check_stored();
}

/// Lets the deadlines of a state fire, as its replica would: it comes to rest, and stays sound.
pub(crate) fn go_on(state: State) {
    let (index, term) = state.applied();
    // A replica at the very end of its counters is none that ever was.
    if index.0 > u64::MAX / 2 || state.revision().0 > u64::MAX / 2 {
        return;
    }
    let mut world = World {
        now: state.cluster_time(),
        state,
        index,
        term,
    };
    for _ in 0..8 {
        let Some(at) = world.state.next_deadline() else {
            break;
        };
        world.now = world.now.max(at);
        world.apply(RequestKey::Internal, Command::Advance, &mut Input::new(&[]));
    }
}

struct World {
    state: State,
    index: LogIndex,
    term: Term,
    now: ClusterTime,
}

impl World {
    fn apply(&mut self, request: RequestKey, command: Command, input: &mut Input<'_>) {
        match input.below(16) {
            1..=6 => self.now = self.now.plus_ms(10 * input.below(256)),
            7 => self.now = self.now.plus_ms(input.u64() >> 20),
            8 => self.term = self.term.next(),
            _ => {}
        }
        self.index = self.index.next();
        let envelope = Envelope {
            principal: Principal::new("fuzz").expect("it is a name"),
            request,
            trace: TraceId(0),
            wall: WallTime(0),
            cluster_time: self.now,
            contract: ContractVersion(1),
            command,
        };
        let before = (self.state.revision(), self.state.cluster_time());
        let mut events: Vec<Event> = Vec::new();
        let outcome = self
            .state
            .apply(self.index, self.term, &envelope, &mut events);
        self.state.check_invariants();
        assert!(
            before <= (self.state.revision(), self.state.cluster_time()),
            "the revision or the time went back"
        );
        assert!(
            self.state.revision().0 <= before.0.0.saturating_add(2),
            "one entry made more revisions than it has parts: deadlines, and the command"
        );
        if envelope.request != RequestKey::Internal && outcome.is_ok() {
            let mut again = Vec::new();
            self.index = self.index.next();
            let retried = self
                .state
                .apply(self.index, self.term, &envelope, &mut again);
            self.state.check_invariants();
            // A session that its own request closed is forgotten with what it asked.
            if self.state.dedup_lookup(&request).is_some() {
                assert_eq!(retried, outcome, "a retry is answered otherwise");
            }
        }
    }

    /// What is stored and loaded is the same state.
    fn check_stored(&self) {
        let (index, term) = self.state.applied();
        let meta = SnapshotMeta {
            last: quorate_consensus::LogPosition { term, index },
            ..SnapshotMeta::default()
        };
        let (_, loaded) =
            decode_snapshot(&encode_snapshot(&meta, &self.state)).expect("what we encode decodes");
        assert_eq!(
            loaded.digest(),
            self.state.digest(),
            "a stored state is another one"
        );
        go_on(loaded);
    }

    fn session(&self, input: &mut Input<'_>) -> SessionKey {
        let (which, count) = (input.u8(), self.state.session_count());
        if which >= 250 || count == 0 {
            return SessionKey {
                id: SessionId(input.number(3)),
                created: Revision(input.number(9)),
            };
        }
        let nth = usize::from(which) % count;
        let found = self.state.sessions().nth(nth);
        found.expect("it is below their number").key
    }

    fn group(input: &mut Input<'_>) -> GroupName {
        GroupName::new(&format!("g{}", input.below(6))).expect("it is a name")
    }

    fn node(input: &mut Input<'_>) -> NodeName {
        NodeName::new(&format!("n{}", input.below(5))).expect("it is a name")
    }

    fn tenure(&self, input: &mut Input<'_>) -> TenureKey {
        let name = Self::group(input);
        let known = self.state.group(&name).and_then(|group| group.tenure_key());
        match known {
            Some(known) if input.u8() < 250 => known,
            _ => TenureKey {
                group: GroupKey {
                    name,
                    created: Revision(input.number(4)),
                },
                number: TenureNumber(input.number(1)),
            },
        }
    }

    fn spec(input: &mut Input<'_>) -> GroupSpec {
        let traits = input.u8();
        let labels = || ("zone".to_owned(), "x".to_owned());
        GroupSpec {
            require: (traits & 1 != 0).then(labels).into_iter().collect(),
            prefer: (traits & 2 != 0).then(labels).into_iter().collect(),
            policy: match input.below(4) {
                0 => ElectionPolicy::Freshest { answers_min: None },
                1 => ElectionPolicy::Freshest {
                    answers_min: Some(u32::from(input.u8())),
                },
                _ => ElectionPolicy::Priority,
            },
            readiness: traits & 4 != 0,
            prepare_deadline_ms: input.number(100),
            handover_deadline_ms: input.number(100),
            handover_overdue: if traits & 8 != 0 {
                OverduePolicy::Abort
            } else {
                OverduePolicy::Revoke
            },
            minimum_tenure_ms: input.number(100),
            cooldown_ms: input.number(20),
            cooldown_max_ms: input.number(200),
            spread: traits & 16 != 0,
            weight: if traits & 32 != 0 { u32::MAX } else { 1 },
            ..GroupSpec::default()
        }
    }

    fn node_spec(input: &mut Input<'_>) -> NodeSpec {
        let traits = input.u8();
        let zone = if traits & 1 != 0 { "x" } else { "y" };
        NodeSpec {
            name: Self::node(input),
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            weight: if traits & 2 != 0 { u32::MAX } else { 1 },
            max_tenures: u32::from(traits >> 6),
            max_preparing: u32::from(traits >> 4 & 3),
            contract_min: ContractVersion(1),
            contract_max: ContractVersion(1),
        }
    }

    fn report(&self, input: &mut Input<'_>) -> Command {
        let count = 1 + input.below(3);
        let mut session = self.session(input);
        let mut reports = Vec::new();
        for _ in 0..count {
            let tenure = self.tenure(input);
            let group = self.state.group(&tenure.group.name);
            // Mostly by somebody whom it may concern.
            let concerned = match input.below(4) {
                0 => None,
                1 => group.and_then(|group| group.successor().map(|heir| heir.session)),
                _ => group.and_then(|group| group.holder()),
            };
            if let Some(found) = concerned.and_then(|id| self.state.session(id)) {
                session = found.key;
            }
            let position = Position(input.number(5));
            reports.push((
                tenure,
                match input.below(6) {
                    0 => Report::Polled { position },
                    1 | 2 => Report::Ready { position },
                    3 => Report::Failed,
                    4 => Report::Released {
                        position: input.flag().then_some(position),
                    },
                    _ => Report::Declined,
                },
            ));
        }
        Command::Report { session, reports }
    }

    fn stamp(&self, input: &mut Input<'_>) -> Term {
        if input.below(8) == 1 {
            Term(input.number(self.term.0))
        } else {
            self.term
        }
    }

    fn command(&self, input: &mut Input<'_>) -> Command {
        let expected =
            |input: &mut Input<'_>| (input.below(4) == 1).then(|| Revision(input.number(3)));
        match input.below(24) {
            0..=2 => Command::OpenSession {
                ttl_ms: 1_000,
                node: (input.below(8) > 0).then(|| Self::node_spec(input)),
            },
            3 => Command::CloseSession {
                session: self.session(input),
            },
            4 => Command::RevokeSession {
                session: self.session(input).id,
            },
            5 => Command::ExpireSessions {
                term: self.stamp(input),
                sessions: (0..input.below(3)).map(|_| self.session(input)).collect(),
            },
            6 => Command::VacateTenures {
                term: self.stamp(input),
                tenures: (0..input.below(4)).map(|_| self.tenure(input)).collect(),
            },
            7 => Command::Advance,
            8 | 9 => Command::CreateGroups {
                groups: (0..=input.below(3))
                    .map(|_| (Self::group(input), Self::spec(input)))
                    .collect(),
            },
            10 => Command::UpdateGroup {
                group: Self::group(input),
                spec: Self::spec(input),
                expected: expected(input),
            },
            11 => Command::DeleteGroup {
                group: Self::group(input),
                expected: expected(input),
            },
            12..=14 => Command::Contend {
                session: self.session(input),
                groups: (0..=input.below(5))
                    .map(|_| {
                        let spec = ContenderSpec {
                            priority: i32::from(input.u8() % 3) - 1,
                            ..ContenderSpec::default()
                        };
                        (Self::group(input), spec)
                    })
                    .collect(),
            },
            15 => Command::Withdraw {
                session: self.session(input),
                groups: (0..=input.below(3)).map(|_| Self::group(input)).collect(),
            },
            16..=19 => self.report(input),
            20 => Command::Transfer {
                group: Self::group(input),
                to: input.flag().then(|| Self::node(input)),
                mode: if input.flag() {
                    TransferMode::Handover
                } else {
                    TransferMode::Force
                },
            },
            21 => Command::AbortTransfer {
                group: Self::group(input),
            },
            22 => Command::AdmitNode {
                node: Self::node(input),
                admission: match input.below(3) {
                    0 => NodeAdmission::Open,
                    1 => NodeAdmission::Cordoned,
                    _ => NodeAdmission::Draining,
                },
            },
            _ => Command::Rebalance {
                prefix: if input.flag() { "g" } else { "" }.to_owned(),
                moves_max: u32::from(input.u8()),
            },
        }
    }

    fn request(&self, input: &mut Input<'_>) -> RequestKey {
        match input.below(16) {
            1 => RequestKey::Caller(RequestId(u128::from(input.u8()))),
            2 => {
                let session = self.session(input);
                let last = self.state.session(session.id).map_or(0, |s| s.request_seq);
                RequestKey::Session {
                    session,
                    seq: input.number(last.wrapping_add(1)),
                }
            }
            _ => RequestKey::Internal,
        }
    }
}
