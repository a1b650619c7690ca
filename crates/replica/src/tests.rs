//! Tests of the joined replica: a few replicas in memory, writes durable at once, messages delivered until none is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_consensus::{
    Boot as ConsensusBoot, Configuration, Member, Role, SnapshotMeta, Timing, VoterSet,
};
use quorate_coord::{
    Command, ContenderSpec, Event, GroupSpec, NodeSpec, Outcome, Phase, Reply, RequestKey,
    SessionKey, State, TransferMode,
};
use quorate_types::{
    ConfigEpoch, ContractVersion, DriftBound, GroupName, NodeName, Principal, ReplicaId, RequestId,
    Time, TraceId, WallTime,
};

use crate::{
    Boot, CallId, Config, Input, Output, PeerMessage, Proposal, Refusal, Replica, Request, Response,
};

const TTL: Duration = Duration::from_secs(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Replicas 1 to n with a network that loses what crosses a cut.
struct Cluster {
    now: Time,
    replicas: BTreeMap<ReplicaId, Replica>,
    network: VecDeque<(ReplicaId, ReplicaId, PeerMessage)>,
    cut: BTreeSet<ReplicaId>,
    /// Steps no more, but messages still queue.
    paused: BTreeSet<ReplicaId>,
    answers: BTreeMap<CallId, Response>,
    events: Vec<(ReplicaId, Event)>,
    calls: u64,
}

impl Cluster {
    fn of(size: u64) -> Self {
        let ids: BTreeSet<ReplicaId> = (1..=size).map(ReplicaId).collect();
        let configuration = Configuration {
            epoch: ConfigEpoch(1),
            incoming: VoterSet {
                voters: ids.clone(),
            },
            members: ids.iter().map(|id| (*id, Member::default())).collect(),
            ..Configuration::default()
        };
        let now = Time(1_000_000_000);
        let replicas = ids
            .iter()
            .map(|id| (*id, start(*id, &configuration, now)))
            .collect();
        Self {
            now,
            replicas,
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            paused: BTreeSet::new(),
            answers: BTreeMap::new(),
            events: Vec::new(),
            calls: 0,
        }
    }

    fn step(&mut self, id: ReplicaId, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut out = Vec::new();
            let replica = self.replicas.get_mut(&id).expect("a known replica");
            replica.step(self.now, input, &mut out);
            replica.check_invariants();
            for output in out {
                match output {
                    Output::Persist(write) => {
                        inputs.push_back(Input::Persisted { through: write.seq });
                    }
                    // Everything here is durable as soon as it is ordered.
                    Output::Send { to, message } | Output::SendAfterPersist { to, message, .. } => {
                        self.network.push_back((id, to, message));
                    }
                    Output::Answer { call, response } => {
                        let before = self.answers.insert(call, response);
                        assert_eq!(before, None, "call {call:?} is answered twice");
                    }
                    Output::Publish(published) => {
                        let events = published
                            .applied
                            .into_iter()
                            .flat_map(|applied| applied.events);
                        self.events.extend(events.map(|event| (id, event)));
                    }
                    Output::SaveSnapshot { meta, .. } => {
                        inputs.push_back(Input::SnapshotSaved { meta });
                    }
                    Output::RoleChanged { .. } => {}
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, message)) = self.network.pop_front() {
            if self.cut.contains(&from) == self.cut.contains(&to) && !self.paused.contains(&to) {
                self.step(to, Input::Peer { from, message });
            }
        }
    }

    /// Runs for a while, ticking every replica when it asks for it.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.deliver();
            let awake = self
                .replicas
                .iter()
                .filter(|(id, _)| !self.paused.contains(id));
            let (due, id) = awake
                .map(|(id, replica)| (replica.deadline(), *id))
                .min()
                .expect("somebody is awake");
            if due > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(due);
            self.step(id, Input::Tick);
        }
    }

    fn leader(&self) -> ReplicaId {
        let leads =
            |id: &&ReplicaId| self.replicas[id].role() == Role::Leader && !self.cut.contains(id);
        *self.replicas.keys().find(leads).expect("somebody leads")
    }

    fn follower(&self) -> ReplicaId {
        let follows =
            |id: &&ReplicaId| self.replicas[id].role() != Role::Leader && !self.cut.contains(id);
        *self
            .replicas
            .keys()
            .find(follows)
            .expect("somebody follows")
    }

    fn call(&mut self, at: ReplicaId, request: Request) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        self.step(at, Input::Calls(vec![(call, request)]));
        call
    }

    /// Calls and waits for the answer.
    fn ask(&mut self, at: ReplicaId, request: Request) -> Response {
        let call = self.call(at, request);
        self.deliver();
        self.answers
            .get(&call)
            .cloned()
            .expect("the call is answered at once")
    }

    fn propose(&mut self, at: ReplicaId, command: Command) -> Outcome {
        let request = proposal(u128::from(self.calls) + 1_000, command);
        match self.ask(at, request) {
            Response::Applied { outcome, .. } => outcome,
            other => panic!("not applied: {other:?}"),
        }
    }

    fn open(&mut self, name: &str) -> SessionKey {
        let node = NodeSpec {
            name: NodeName::new(name).unwrap(),
            labels: BTreeMap::new(),
            weight: 1,
            max_tenures: 0,
            max_preparing: 0,
            contract_min: ContractVersion(1),
            contract_max: ContractVersion(1),
        };
        let at = self.leader();
        let ttl_ms = u64::try_from(TTL.as_millis()).unwrap();
        match self.propose(
            at,
            Command::OpenSession {
                ttl_ms,
                node: Some(node),
            },
        ) {
            Ok(Reply::SessionOpened { session, .. }) => session,
            other => panic!("not opened: {other:?}"),
        }
    }

    fn keep_alive(&mut self, at: ReplicaId, session: SessionKey, seq: u64) -> Response {
        self.ask(at, Request::KeepAlive { session, seq })
    }

    fn state(&self) -> &State {
        self.replicas[&self.leader()].state()
    }

    /// A group led by a node of this name.
    fn lead(&mut self, group: &str, node: &str) -> (GroupName, SessionKey) {
        let name = GroupName::new(group).unwrap();
        let session = self.open(node);
        let at = self.leader();
        self.propose(
            at,
            Command::CreateGroups {
                groups: vec![(name.clone(), GroupSpec::default())],
            },
        )
        .unwrap();
        self.propose(
            at,
            Command::Contend {
                session,
                groups: vec![(name.clone(), ContenderSpec::default())],
            },
        )
        .unwrap();
        assert_eq!(self.state().group(&name).unwrap().phase, Phase::Active);
        (name, session)
    }
}

fn start(id: ReplicaId, configuration: &Configuration, now: Time) -> Replica {
    let config = Config {
        consensus: quorate_consensus::Config {
            id,
            timing: Timing {
                heartbeat_interval: ms(50),
                detection_timeout: ms(300),
                election_jitter: ms(200),
            },
            append_bytes_max: 1 << 20,
            appends_in_flight_max: 16,
            uncommitted_bytes_max: 1 << 26,
            seed: id.0,
        },
        drift: DriftBound::default(),
        incarnation: id.0,
        snapshot_entries: 50,
        snapshot_retain: 10,
        calls_max: 1000,
        call_timeout: ms(2_000),
        stall_min: ms(100),
    };
    let snapshot = SnapshotMeta {
        configuration: configuration.clone(),
        ..SnapshotMeta::default()
    };
    let consensus = ConsensusBoot {
        hard_state: Default::default(),
        snapshot,
        entries: Vec::new(),
    };
    Replica::new(
        config,
        Boot {
            consensus,
            state: State::new(),
        },
        now,
    )
}

fn proposal(id: u128, command: Command) -> Request {
    Request::Propose(Box::new(Proposal {
        principal: Principal::new("test").unwrap(),
        request: RequestKey::Caller(RequestId(id)),
        trace: TraceId::default(),
        wall: WallTime::default(),
        contract: ContractVersion(1),
        command,
    }))
}

#[test]
fn a_silent_session_expires_one_stretched_ttl_after_its_last_keep_alive() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let (group, session) = cluster.lead("g", "n1");
    let leader = cluster.leader();
    cluster.run(ms(900));
    assert!(matches!(
        cluster.keep_alive(leader, session, 1),
        Response::KeptAlive {
            seq: 1,
            ttl_ms: 1_000,
            ..
        }
    ));
    cluster.run(ms(1_005));
    assert_eq!(
        cluster.state().group(&group).unwrap().phase,
        Phase::Active,
        "1 % of drift is still waited for"
    );
    cluster.run(ms(10));
    assert_eq!(cluster.state().group(&group).unwrap().phase, Phase::Vacant);
    assert!(matches!(
        cluster.keep_alive(leader, session, 2),
        Response::SessionGone { seq: 2, .. }
    ));
}

#[test]
fn any_server_takes_a_keep_alive_and_a_command_and_a_read() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let session = cluster.open("n1");
    let follower = cluster.follower();
    assert!(matches!(
        cluster.keep_alive(follower, session, 1),
        Response::KeptAlive { seq: 1, .. }
    ));
    let name = GroupName::new("g").unwrap();
    cluster
        .propose(
            follower,
            Command::CreateGroups {
                groups: vec![(name.clone(), GroupSpec::default())],
            },
        )
        .unwrap();
    let call = cluster.call(follower, Request::Read);
    cluster.run(ms(100));
    let Some(Response::ReadAt { index }) = cluster.answers.get(&call) else {
        panic!("no read index")
    };
    assert!(cluster.replicas[&follower].applied() >= *index);
    assert!(cluster.replicas[&follower].state().group(&name).is_some());
}

#[test]
fn a_leader_cut_off_from_the_quorum_answers_no_keep_alive_and_its_calls_end_as_unknown() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let session = cluster.open("n1");
    let old = cluster.leader();
    cluster.cut.insert(old);
    let keep_alive = cluster.call(old, Request::KeepAlive { session, seq: 1 });
    let command = cluster.call(
        old,
        proposal(
            7,
            Command::RevokeSession {
                session: session.id,
            },
        ),
    );
    cluster.run(ms(3_000));
    assert!(matches!(cluster.answers[&keep_alive], Response::Refused(_)));
    assert_eq!(cluster.answers[&command], Response::Unknown);
    assert_ne!(cluster.leader(), old);
}

#[test]
fn a_new_leader_gives_each_session_one_full_ttl_from_its_election() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let (group, _) = cluster.lead("g", "n1");
    let old = cluster.leader();
    cluster.run(ms(900));
    cluster.cut.insert(old);
    cluster.run(ms(600));
    assert_ne!(cluster.leader(), old, "the others elected one of them");
    assert_eq!(cluster.state().group(&group).unwrap().phase, Phase::Active);
    cluster.run(ms(1_100));
    assert_eq!(cluster.state().group(&group).unwrap().phase, Phase::Vacant);
}

#[test]
fn a_revoked_holder_is_waited_out_while_its_session_lives() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let (group, session) = cluster.lead("g", "n1");
    let other = cluster.open("n2");
    let leader = cluster.leader();
    cluster
        .propose(
            leader,
            Command::Contend {
                session: other,
                groups: vec![(group.clone(), ContenderSpec::default())],
            },
        )
        .unwrap();
    cluster
        .propose(
            leader,
            Command::Transfer {
                group: group.clone(),
                to: None,
                mode: TransferMode::Force,
            },
        )
        .unwrap();
    let revoked_at = cluster.now;
    for seq in 1..=10 {
        assert_eq!(
            cluster.state().group(&group).unwrap().phase,
            Phase::Revoking,
            "at {:?}",
            cluster.now.since(revoked_at)
        );
        assert!(matches!(
            cluster.keep_alive(leader, session, seq),
            Response::KeptAlive { .. }
        ));
        assert!(matches!(
            cluster.keep_alive(leader, other, seq),
            Response::KeptAlive { .. }
        ));
        cluster.run(ms(100));
    }
    cluster.run(ms(20));
    let led = cluster.state().group(&group).unwrap();
    assert_eq!(led.phase, Phase::Active);
    assert_eq!(led.tenure.as_ref().unwrap().holder, Some(other.id));
}

#[test]
fn a_stalled_leader_credits_the_stall_so_that_unread_keep_alives_count() {
    let mut cluster = Cluster::of(1);
    cluster.run(ms(1_000));
    let (group, session) = cluster.lead("g", "n1");
    let leader = cluster.leader();
    assert!(matches!(
        cluster.keep_alive(leader, session, 1),
        Response::KeptAlive { .. }
    ));
    // The process stands still for 1.5 TTL; a keep-alive sent meanwhile is read only after the tick that was due.
    cluster.now = cluster.now + ms(1_500);
    cluster.step(leader, Input::Tick);
    assert!(matches!(
        cluster.keep_alive(leader, session, 2),
        Response::KeptAlive { .. }
    ));
    cluster.run(ms(900));
    assert_eq!(cluster.state().group(&group).unwrap().phase, Phase::Active);
}

#[test]
fn a_session_tells_what_it_has_left_and_the_question_does_not_extend_it() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let session = cluster.open("n1");
    let follower = cluster.follower();
    let ttl = cluster.state().session(session.id).unwrap().ttl_ms;
    let mut left = || match cluster.ask(follower, Request::SessionAge { session }) {
        Response::SessionAge { remaining_ms, .. } => {
            cluster.run(ms(300));
            remaining_ms
        }
        other => panic!("not told: {other:?}"),
    };
    let (first, second) = (left().unwrap(), left().unwrap());
    assert!(
        first <= ttl && second + 200 < first,
        "of {ttl}: {first}, then {second}"
    );
    let at = cluster.leader();
    cluster
        .propose(at, Command::CloseSession { session })
        .unwrap();
    let Response::SessionAge { remaining_ms, .. } =
        cluster.ask(follower, Request::SessionAge { session })
    else {
        panic!("not told")
    };
    assert_eq!(remaining_ms, None);
}

#[test]
fn a_session_whose_close_is_appended_is_not_kept_alive() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let session = cluster.open("n1");
    let leader = cluster.leader();
    let keep_alive = cluster.call(leader, Request::KeepAlive { session, seq: 1 });
    let close = cluster.call(leader, proposal(9, Command::CloseSession { session }));
    cluster.deliver();
    assert!(matches!(
        cluster.answers[&close],
        Response::Applied { outcome: Ok(_), .. }
    ));
    assert!(
        matches!(
            cluster.answers[&keep_alive],
            Response::SessionGone { .. } | Response::Refused(Refusal::SessionEnding)
        ),
        "the keep-alive came first, but its round ended after the close was appended: {:?}",
        cluster.answers[&keep_alive]
    );
}

#[test]
fn an_answer_to_an_earlier_process_of_a_server_is_ignored() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let call = cluster.call(follower, Request::Read);
    let stale = PeerMessage::Answers {
        incarnation: 99,
        answers: vec![(call, Response::Unknown)],
    };
    cluster.step(
        follower,
        Input::Peer {
            from: leader,
            message: stale,
        },
    );
    assert_eq!(cluster.answers.get(&call), None);
    cluster.run(ms(100));
    assert!(matches!(cluster.answers[&call], Response::ReadAt { .. }));
}

#[test]
fn a_retry_of_an_unknown_outcome_has_its_effect_once() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let leader = cluster.leader();
    let request = proposal(
        5,
        Command::OpenSession {
            ttl_ms: 1_000,
            node: None,
        },
    );
    let Response::Applied { outcome: first, .. } = cluster.ask(leader, request.clone()) else {
        panic!("not applied")
    };
    let Response::Applied { outcome: again, .. } = cluster.ask(leader, request) else {
        panic!("not applied")
    };
    assert_eq!(first, again);
    assert_eq!(cluster.state().session_count(), 1);
}

#[test]
fn commands_that_wait_do_not_keep_out_keep_alives() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let session = cluster.open("n1");
    let leader = cluster.leader();
    let command = |id| {
        let ttl_ms = 60_000;
        proposal(id, Command::OpenSession { ttl_ms, node: None })
    };
    let calls: Vec<_> = (0..1_001)
        .map(|id| (CallId(10_000 + id), command(u128::from(id))))
        .collect();
    cluster.step(leader, Input::Calls(calls));
    assert!(matches!(
        cluster.answers.get(&CallId(11_000)),
        Some(Response::Refused(Refusal::Overloaded { .. }))
    ));
    let keep_alive = cluster.call(leader, Request::KeepAlive { session, seq: 1 });
    cluster.deliver();
    assert!(matches!(
        cluster.answers[&keep_alive],
        Response::KeptAlive { .. }
    ));
}

/// The order to stand overtakes the answer: the new leader must not take the call back and hand the leadership on once more.
#[test]
fn a_transfer_asked_of_any_follower_moves_the_leadership_once() {
    for place in 0..2 {
        let mut cluster = Cluster::of(3);
        cluster.run(ms(2_000));
        let leader = cluster.leader();
        let term = cluster.replicas[&leader].term();
        let mut followers = (1..=3).map(ReplicaId).filter(|id| *id != leader);
        let follower = followers.nth(place).expect("two of three follow");
        let response = cluster.ask(follower, Request::TransferLeader { to: None });
        assert_eq!(response, Response::Transferring);
        cluster.run(ms(2_000));
        assert_ne!(cluster.leader(), leader);
        assert_eq!(cluster.replicas[&cluster.leader()].term(), term.next());
    }
}

#[test]
fn without_a_leader_calls_are_refused_as_not_applied() {
    let mut cluster = Cluster::of(3);
    let at = ReplicaId(1);
    cluster.cut.insert(at);
    let call = cluster.call(
        at,
        proposal(
            1,
            Command::OpenSession {
                ttl_ms: 1_000,
                node: None,
            },
        ),
    );
    cluster.run(ms(2_500));
    assert_eq!(cluster.answers[&call], Response::Refused(Refusal::NoLeader));
}

#[test]
fn snapshots_are_taken_as_entries_are_applied() {
    let mut cluster = Cluster::of(1);
    cluster.run(ms(1_000));
    let at = cluster.leader();
    for id in 0..120 {
        let Response::Applied { .. } = cluster.ask(
            at,
            proposal(
                id,
                Command::OpenSession {
                    ttl_ms: 60_000,
                    node: None,
                },
            ),
        ) else {
            panic!("not applied")
        };
    }
    assert!(
        cluster.replicas[&at].status().first.0 > 50,
        "the log was compacted: {:?}",
        cluster.replicas[&at].status()
    );
}

#[test]
fn a_leader_that_stalls_again_and_again_still_expires_a_silent_session() {
    let mut cluster = Cluster::of(1);
    cluster.run(ms(1_000));
    let (group, session) = cluster.lead("g", "n1");
    let leader = cluster.leader();
    assert!(matches!(
        cluster.keep_alive(leader, session, 1),
        Response::KeptAlive { .. }
    ));
    // Every tick comes late enough to be a stall: the grace after each must not add up for ever.
    for _ in 0..60 {
        cluster.now = cluster.now + ms(200);
        cluster.step(leader, Input::Tick);
    }
    assert_eq!(cluster.state().group(&group).unwrap().phase, Phase::Vacant);
}

#[test]
fn one_stall_counts_once_however_much_is_read_after_it() {
    let mut cluster = Cluster::of(1);
    cluster.run(ms(1_000));
    let (group, _) = cluster.lead("g", "n1");
    let leader = cluster.leader();
    // Longer than what is ever credited, so that only the grace after it is left.
    cluster.now = cluster.now + ms(7_000);
    for _ in 0..10 {
        cluster.step(leader, Input::Calls(Vec::new()));
        cluster.now = cluster.now + ms(1);
    }
    cluster.step(leader, Input::Tick);
    cluster.now = cluster.now + ms(300);
    cluster.step(leader, Input::Tick);
    assert_eq!(
        cluster.state().group(&group).unwrap().phase,
        Phase::Active,
        "the second stall has a grace of its own"
    );
}

#[test]
fn a_stall_between_the_election_and_its_own_entry_is_credited_too() {
    let mut cluster = Cluster::of(3);
    cluster.run(ms(1_000));
    let (group, session) = cluster.lead("g", "n1");
    let old = cluster.leader();
    cluster.cut.insert(old);
    let elected = loop {
        let leads = |id: &&ReplicaId| **id != old && cluster.replicas[*id].role() == Role::Leader;
        if let Some(id) = cluster.replicas.keys().find(leads) {
            break *id;
        }
        if let Some((from, to, message)) = cluster.network.pop_front() {
            if cluster.cut.contains(&from) == cluster.cut.contains(&to) {
                cluster.step(to, Input::Peer { from, message });
            }
            continue;
        }
        let (due, id) = cluster
            .replicas
            .iter()
            .map(|(id, replica)| (replica.deadline(), *id))
            .min()
            .unwrap();
        cluster.now = cluster.now.max(due);
        cluster.step(id, Input::Tick);
    };
    assert_eq!(cluster.replicas[&elected].status().sessions, None);
    // The elected leader stands still for 1.5 TTL before it learns that its first entry is committed.
    cluster.now = cluster.now + ms(1_500);
    cluster.deliver();
    assert_eq!(cluster.leader(), elected);
    assert_eq!(cluster.replicas[&elected].status().sessions, Some(1));
    assert!(
        matches!(
            cluster.keep_alive(elected, session, 1),
            Response::KeptAlive { .. }
        ),
        "what was sent meanwhile is read right after"
    );
    assert_eq!(cluster.state().group(&group).unwrap().phase, Phase::Active);
}

#[test]
fn a_stall_is_not_credited_to_a_keep_alive_read_after_it() {
    let mut cluster = Cluster::of(1);
    cluster.run(ms(1_000));
    let (group, session) = cluster.lead("g", "n1");
    let leader = cluster.leader();
    // The keep-alive is the first that is read after the stall, in the same step that notices it.
    cluster.now = cluster.now + ms(900);
    assert!(matches!(
        cluster.keep_alive(leader, session, 1),
        Response::KeptAlive { .. }
    ));
    cluster.run(ms(1_100));
    assert_eq!(
        cluster.state().group(&group).unwrap().phase,
        Phase::Vacant,
        "silent for a stretched TTL since"
    );
}
