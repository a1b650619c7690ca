//! A process of a service: the SDK's lease arithmetic on its own clock, and a behaviour around it.
//!
//! Owns: opening a session, standing in all groups, keep-alives, answering orders (or not), retrying requests under their keys,
//! moving from server to server, dying and pausing. Each change of belief is told to the checkers in true time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_client::lease::{DirectiveKind, LeaseCore, LeaseEvent, TenureId};
use quorate_coord::{
    Command, ContenderSpec, NodeSpec, Outcome, Position, Rejection, Reply, Report, RequestKey,
    SessionKey,
};
use quorate_replica::{Proposal, Request, Response};
use quorate_types::{ContractVersion, NodeName, Principal, RequestId, Time, TraceId, WallTime};
use quorate_wire::api::Part;

use crate::checkers::Violation;
use crate::checkers::believed_tenures_never_overlap::Process;
use crate::clock::{Clock, Moment};
use crate::convert;
use crate::plant::Plant;
use crate::resource::ResourceWrite;
use crate::stream::{Down, Sender, Up};
use crate::trace::hash_bytes;
use crate::world::{Event, World};

mod orders;
mod reports;
mod requests;
mod work;

use work::Work;

/// How long a request may stay unanswered before it is sent again.
const PATIENCE: Duration = Duration::from_millis(900);

/// What wakes a node.
#[derive(Clone, Debug)]
pub(crate) enum Timer {
    /// Keep-alives and housekeeping.
    Beat,
    /// An order is to be answered.
    React {
        tenure: Box<TenureId>,
        reaction: Reaction,
    },
    /// A request is to be sent again.
    Resend { tag: u64 },
    /// Belief ends only now, though the release was sent before (a planted mistake).
    LateRelease { tenure: Box<TenureId> },
}

/// How an order is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaction {
    Polled,
    Ready,
    Failed,
    Release,
    Decline,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Outstanding {
    tag: u64,
    proposal: Proposal,
    sent_at: Time,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    index: usize,
    pub(crate) clock: Clock,
    pub(crate) spec: NodeSpec,
    /// Which of its processes this is.
    pub(crate) life: u32,
    pub(crate) up: bool,
    paused: Option<VecDeque<Event>>,
    ttl_ms: u64,
    pub(crate) session: Option<SessionKey>,
    closing: bool,
    lease: LeaseCore,
    /// Tenures that it believed after the last event.
    believed: Vec<TenureId>,
    request_seq: u64,
    tag: u64,
    outstanding: Option<Outstanding>,
    wants: VecDeque<Command>,
    server: usize,
    /// Its stream; zero: none.
    stream: u64,
    heard_at: Time,
    beats: u64,
    /// How far its data has got, by group.
    data: BTreeMap<usize, u64>,
    priorities: BTreeMap<usize, i32>,
    /// What it has in flight, by tenure.
    work: BTreeMap<TenureId, Work>,
}

impl Node {
    pub(crate) fn new(index: usize, clock: Clock, random: &mut fastrand::Rng) -> Self {
        let limited = random.u8(..6) == 0;
        let zone = ["a", "b"][index % 2];
        let spec = NodeSpec {
            name: NodeName::new(&format!("n{index}")).expect("a short name"),
            labels: [("zone".to_owned(), zone.to_owned())].into(),
            weight: random.u32(1..4),
            max_tenures: if limited { random.u32(1..12) } else { 0 },
            max_preparing: if random.bool() { random.u32(1..6) } else { 0 },
            contract_min: ContractVersion(1),
            contract_max: ContractVersion(1),
        };
        Self {
            index,
            clock,
            spec,
            life: 0,
            up: false,
            paused: None,
            ttl_ms: 0,
            session: None,
            closing: false,
            lease: LeaseCore::new(quorate_types::DriftBound::default()),
            believed: Vec::new(),
            request_seq: 0,
            tag: 0,
            outstanding: None,
            wants: VecDeque::new(),
            server: 0,
            stream: 0,
            heard_at: Time::ZERO,
            beats: 0,
            data: BTreeMap::new(),
            priorities: BTreeMap::new(),
            work: BTreeMap::new(),
        }
    }

    /// A group that it believes to lead, if there is one.
    pub(crate) fn held_group(&self) -> Option<quorate_types::GroupName> {
        self.believed.first().map(|tenure| tenure.group.clone())
    }

    fn process(&self) -> Process {
        Process {
            node: self.index,
            life: self.life,
        }
    }

    fn sender(&self) -> Sender {
        Sender::Node {
            node: self.index,
            life: self.life,
            stream: self.stream,
        }
    }
}

/// The trace of a request: derived from its key, so that retries share it.
pub(crate) fn trace_of(key: &RequestKey) -> TraceId {
    let bytes = match key {
        RequestKey::Internal | RequestKey::Unkeyed => return TraceId::default(),
        RequestKey::Session { session, seq } => [session.id.0, session.created.0, *seq]
            .iter()
            .flat_map(|n| n.to_le_bytes())
            .collect(),
        RequestKey::Caller(id) => id.0.to_le_bytes().to_vec(),
    };
    TraceId(u128::from(hash_bytes(&bytes)) << 64 | 1)
}

/// A command on its way to the log.
pub(crate) fn proposal(request: RequestKey, trace: TraceId, command: Command) -> Proposal {
    Proposal {
        principal: Principal::new("sim").expect("a short name"),
        request,
        trace,
        wall: WallTime(0),
        contract: ContractVersion(1),
        command,
    }
}

impl World {
    pub(crate) fn start_node(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        let ttl_ms = self.random.u64(self.setup.ttl_ms.0..=self.setup.ttl_ms.1);
        let server = self.random.usize(..self.servers.len());
        let this = &mut self.nodes[node];
        this.up = true;
        this.life += 1;
        this.ttl_ms = ttl_ms;
        this.server = server;
        let (life, now) = (this.life, self.now);
        self.trace
            .note(now, 20, [node as u64, u64::from(life), 0], || {
                format!("n{node} starts")
            });
        self.at(
            now,
            Event::Node {
                node,
                life,
                timer: Timer::Beat,
            },
        );
    }

    pub(crate) fn kill_node(&mut self, node: usize, down: Duration) {
        let now = self.now;
        let this = &mut self.nodes[node];
        if !this.up {
            return;
        }
        self.trace
            .note(now, 21, [node as u64, 0, 0], || format!("n{node} dies"));
        this.up = false;
        this.paused = None;
        this.work.clear();
        self.checkers.beliefs.on_death(this.process());
        self.forget_session(node);
        self.at(now + down, Event::StartNode { node });
    }

    /// Lets a node stand still; says whether it does so only now.
    pub(crate) fn pause_node(&mut self, node: usize, lasts: Duration) -> bool {
        let this = &mut self.nodes[node];
        let pauses = this.up && this.paused.is_none();
        if pauses {
            this.paused = Some(VecDeque::new());
            let (life, at) = (this.life, self.now + lasts);
            self.at(at, Event::ResumeNode { node, life });
        }
        pauses
    }

    pub(crate) fn resume_node(&mut self, node: usize, life: u32) {
        let this = &mut self.nodes[node];
        if this.life != life {
            return;
        }
        let Some(waiting) = this.paused.take() else {
            return;
        };
        let now = self.now;
        self.trace
            .note(now, 22, [node as u64, waiting.len() as u64, 0], || {
                format!("n{node} goes on")
            });
        for event in waiting {
            self.at(now, event);
        }
    }

    /// Ends all pauses of nodes.
    pub(crate) fn resume_nodes(&mut self) {
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            self.resume_node(node, life);
        }
    }

    pub(crate) fn on_node_timer(&mut self, node: usize, life: u32, timer: Timer) {
        let this = &mut self.nodes[node];
        if !this.up || this.life != life {
            return;
        }
        if let Some(waiting) = &mut this.paused {
            waiting.push_back(Event::Node { node, life, timer });
            return;
        }
        match timer {
            Timer::Beat => self.beat(node),
            Timer::React { tenure, reaction } => self.react(node, &tenure, reaction),
            Timer::Resend { tag } => {
                if self.nodes[node]
                    .outstanding
                    .as_ref()
                    .is_some_and(|outstanding| outstanding.tag == tag)
                {
                    self.send_outstanding(node);
                }
            }
            Timer::LateRelease { tenure } => {
                self.nodes[node].lease.begin_release(&tenure);
                self.on_lease_changed(node);
            }
        }
    }

    fn beat(&mut self, node: usize) {
        let reading = self.nodes[node].clock.reading(self.now);
        self.nodes[node].beats += 1;
        if let Some(session) = self.nodes[node].session {
            let this = &self.nodes[node];
            let silence = reading.since(this.heard_at);
            let silent = silence
                > Duration::from_millis(this.ttl_ms * 2 / 5).max(Duration::from_millis(250));
            if this.stream == 0 || silent || this.lease.needs_resync() {
                self.connect(node);
            }
            if !self.nodes[node].closing {
                self.keep_alive(node, session, reading);
                self.act(node, reading);
            }
        } else if self.nodes[node].outstanding.is_none() {
            self.open(node);
        }
        if let Some(outstanding) = &self.nodes[node].outstanding
            && reading.since(outstanding.sent_at) > PATIENCE
        {
            self.connect(node);
            self.send_outstanding(node);
        }
        self.next_request(node);
        self.on_lease_changed(node);
        let this = &self.nodes[node];
        let interval = Duration::from_millis(this.ttl_ms) / 4;
        let interval = this
            .clock
            .true_duration(interval.min(Duration::from_millis(600)));
        let jitter = self
            .random
            .u64(0..=u64::try_from(interval.as_nanos()).expect("short") / 4);
        let (life, at) = (
            this.life,
            self.now + interval + Duration::from_nanos(jitter),
        );
        self.at(
            at,
            Event::Node {
                node,
                life,
                timer: Timer::Beat,
            },
        );
    }

    fn keep_alive(&mut self, node: usize, session: SessionKey, reading: Time) {
        let this = &mut self.nodes[node];
        let seq = this.lease.keep_alive_sent(reading);
        let (sender, mut server) = (this.sender(), this.server);
        let stray = self.setup.habits.wander && self.random.u8(..4) == 0;
        if stray {
            server = self.random.usize(..self.servers.len());
        }
        self.send_up(
            sender,
            server,
            Up::KeepAlive {
                session,
                seq,
                stray,
            },
        );
    }

    /// What a node does of its own accord.
    fn act(&mut self, node: usize, reading: Time) {
        let habits = self.setup.habits;
        let calm = self.is_calm();
        let per_cent =
            |world: &mut Self, chance: u32| !calm && chance > 0 && world.random.u32(..100) < chance;
        if self.nodes[node].wants.is_empty() && self.nodes[node].beats.is_multiple_of(6) {
            self.stand(node);
        }
        if per_cent(self, habits.close) {
            self.close(node);
            return;
        }
        if per_cent(self, habits.restand) {
            let group = self.random.usize(..self.groups.len());
            let priority = self.random.i32(0..3);
            self.nodes[node].priorities.insert(group, priority);
            let session = self.nodes[node]
                .session
                .expect("only who has a session acts");
            let name = self.groups[group].clone();
            let command = if self.random.bool() {
                Command::Withdraw {
                    session,
                    groups: vec![name],
                }
            } else {
                Command::Contend {
                    session,
                    groups: vec![(
                        name,
                        ContenderSpec {
                            priority,
                            ..ContenderSpec::default()
                        },
                    )],
                }
            };
            self.nodes[node].wants.push_back(command);
        }
        if self.nodes[node].wants.is_empty() && self.nodes[node].beats.is_multiple_of(2) {
            self.report_holder(node);
        }
        if self.is_planted(Plant::ExpireEarly) && self.nodes[node].beats.is_multiple_of(8) {
            self.expire_early(node);
        }
        for tenure in self.nodes[node].believed.clone() {
            let this = &self.nodes[node];
            if !this.lease.check(reading, &tenure) {
                continue;
            }
            if self.random.u8(..3) > 0 {
                self.work(node, &tenure, reading);
            } else if per_cent(self, habits.resign) {
                self.react(node, &tenure, Reaction::Release);
            }
        }
    }

    /// A client proposes the leader's own command (a planted mistake: no API lets it).
    fn expire_early(&mut self, node: usize) {
        let Some(session) = self.nodes[node].session else {
            return;
        };
        let leader = self.servers.iter().filter_map(|server| {
            let replica = &server.running.as_ref()?.replica;
            (replica.role() == quorate_consensus::Role::Leader)
                .then_some((server.index, replica.term()))
        });
        let Some((server, term)) = leader.max_by_key(|(_, term)| *term) else {
            return;
        };
        let command = Command::ExpireSessions {
            term,
            sessions: vec![session],
        };
        let key = RequestKey::Caller(RequestId(self.random.u128(..)));
        let request = Request::Propose(Box::new(proposal(key, TraceId::default(), command)));
        self.call(server, crate::stream::Origin::Nobody, request);
    }
}
