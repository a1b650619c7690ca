//! The event loop: one queue in true time, one thing at a time.
//!
//! Owns: order. Deliberately absent: what each thing does (`machine.rs`, `node.rs`, `caller.rs`, `faults.rs`, `calm.rs`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use quorate_coord::SessionKey;
use quorate_replica::{Output, PeerMessage, Response};
use quorate_types::{GroupName, Time};

use crate::caller::Caller;
use crate::calm::Calm;
use crate::checkers::{Checkers, Verdict, Violation};
use crate::clock::{Clock, Moment};
use crate::faults::{OldDisk, SnapshotCut};
use crate::key_watch::{KEY_WATCHERS, KeyWatcher};
use crate::machine::{Job, Server};
use crate::network::Network;
use crate::node::{Node, Timer};
use crate::plant::Plant;
use crate::resource::Resource;
use crate::setup::{Clocks, Setup};
use crate::stats::Stats;
use crate::stream::{Down, Sender, Up};
use crate::trace::Trace;
use crate::watch::{WATCHERS, Watcher};

/// What holds only while clocks keep their bound (docs/guarantees.md). Everything else holds in any case.
const REST_ON_CLOCKS: [&str; 4] = [
    "believed_tenures_never_overlap",
    "sessions_never_expire_early",
    "sessions_end_in_time",
    "changes_hands_bounded",
];

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message between servers arrives.
    Peer {
        from: usize,
        to: usize,
        generation: u32,
        message: Box<PeerMessage>,
    },
    /// A replica's deadline.
    Tick { server: usize, boot: u32 },
    /// A server's log writer finished a sync.
    Synced { server: usize, boot: u32 },
    /// A server's snapshot thread finished something.
    Job {
        server: usize,
        boot: u32,
        job: Box<Job>,
    },
    /// A server hands the calls that came in to its replica.
    Calls { server: usize, boot: u32 },
    /// Two servers try to connect.
    Connect { a: usize, b: usize, generation: u32 },
    /// A server starts again.
    Restart { server: usize },
    /// A paused server goes on.
    ResumeServer { server: usize },
    /// A client's message reaches a server.
    Up {
        server: usize,
        from: Sender,
        message: Box<Up>,
    },
    /// A server's message reaches a node.
    Down {
        node: usize,
        life: u32,
        stream: u64,
        message: Box<Down>,
    },
    /// A server's answer reaches a caller.
    Answer {
        caller: usize,
        operation: u64,
        server: usize,
        response: Box<Response>,
    },
    /// A node's timer.
    Node {
        node: usize,
        life: u32,
        timer: Timer,
    },
    /// A paused node goes on.
    ResumeNode { node: usize, life: u32 },
    /// A dead node starts again.
    StartNode { node: usize },
    /// A caller's next operation, or its patience with the last one.
    Caller { caller: usize, operation: u64 },
    /// A write reaches a group's resource.
    Write {
        group: usize,
        write: crate::resource::ResourceWrite,
    },
    /// A watcher looks.
    Watch { watcher: usize },
    /// A watcher of keys looks.
    KeyWatch { watcher: usize },
    /// A planned fault strikes.
    Fault(usize),
    /// A lasting fault ends.
    FaultEnds(usize),
    /// A fault of several steps goes on.
    FaultStep { at: usize, step: u32 },
    /// Faults cease.
    Heal,
    /// A look at the calm.
    Calm,
}

#[derive(Debug)]
struct Scheduled {
    at: Moment,
    seq: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

/// One seed's world.
///
/// # Invariants
/// - Everything random comes from generators seeded by `seed`; nothing iterates in a random order.
/// - `now` never decreases.
#[derive(Debug)]
pub struct World {
    pub(crate) now: Moment,
    queue: BinaryHeap<Reverse<Scheduled>>,
    queue_seq: u64,
    pub(crate) setup: Setup,
    pub(crate) random: fastrand::Rng,
    pub(crate) servers: Vec<Server>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) callers: Vec<Caller>,
    pub(crate) groups: Vec<GroupName>,
    pub(crate) group_index: BTreeMap<GroupName, usize>,
    pub(crate) resources: Vec<Resource>,
    pub(crate) network: Network,
    pub(crate) checkers: Checkers,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    pub(crate) calm: Option<Calm>,
    pub(crate) plant: Option<Plant>,
    pub(crate) violation: Option<Violation>,
    pub(crate) over: bool,
    pub(crate) outputs: Vec<Output>,
    pub(crate) stream_next: u64,
    pub(crate) call_next: u64,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) key_watchers: Vec<KeyWatcher>,
    /// Tells pieces of holders' work apart.
    pub(crate) piece_next: u64,
    /// Tells writes of callers' shared keys apart.
    pub(crate) key_tag: u64,
    /// The key of the key space that callers write now.
    pub(crate) kv_key: usize,
    /// Sessions without a node that callers opened.
    pub(crate) loose_sessions: Vec<SessionKey>,
    /// The cuts that each fault of the plan made.
    pub(crate) cuts: Vec<(usize, Vec<(usize, usize)>)>,
    /// How the next transfers of snapshots are cut.
    pub(crate) snapshot_cuts: Vec<SnapshotCut>,
    pub(crate) old_disks: Vec<OldDisk>,
    /// Until then no fault strikes.
    pub(crate) quiet_until: Moment,
}

/// What came of a seed.
#[derive(Debug)]
pub struct Ended {
    /// What did not hold.
    pub violation: Option<Violation>,
    /// What happened, counted.
    pub stats: Stats,
    /// The trace's hash.
    pub trace_hash: u64,
}

impl World {
    /// A world drawn from a seed.
    #[must_use]
    pub fn new(seed: u64, replicas: Option<usize>, trace: bool) -> Self {
        Self::with_setup(seed, Setup::from_seed(seed, replicas), trace, None)
    }

    /// A world of a given setup, and with a mistake planted in it.
    #[must_use]
    pub fn with_setup(
        seed: u64,
        setup: Setup,
        trace: impl Into<Trace>,
        plant: Option<Plant>,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x3013);
        let groups: Vec<GroupName> = (0..setup.groups)
            .map(|at| GroupName::new(&format!("g{at:02}")).expect("a short name"))
            .collect();
        let group_index = groups
            .iter()
            .cloned()
            .enumerate()
            .map(|(at, name)| (name, at))
            .collect();
        let mut world = Self {
            now: Moment::default(),
            queue: BinaryHeap::new(),
            queue_seq: 0,
            servers: Vec::new(),
            nodes: Vec::new(),
            callers: Vec::new(),
            resources: groups.iter().map(|_| Resource::default()).collect(),
            groups,
            group_index,
            network: Network::new(setup.replicas, setup.nodes, setup.quality, random.u64(..)),
            checkers: Checkers::default(),
            trace: trace.into(),
            stats: Stats {
                seeds: 1,
                ..Stats::default()
            },
            calm: None,
            plant,
            violation: None,
            over: false,
            outputs: Vec::new(),
            stream_next: 0,
            call_next: 0,
            watchers: Vec::new(),
            key_watchers: Vec::new(),
            piece_next: 0,
            key_tag: 0,
            kv_key: crate::caller::keys::GROUPS,
            loose_sessions: Vec::new(),
            cuts: Vec::new(),
            snapshot_cuts: Vec::new(),
            old_disks: Vec::new(),
            quiet_until: Moment::default(),
            setup,
            random,
        };
        for server in 0..world.setup.replicas {
            let mut clock = world.draw_clock();
            if plant == Some(Plant::ServersCountSlowly) {
                clock.set_rate(Moment::default(), -500_000);
            }
            let seed = world.random.u64(..);
            world.servers.push(Server::new(server, clock, seed));
            world.at(Moment::default(), Event::Restart { server });
        }
        for node in 0..world.setup.nodes {
            let mut clock = world.draw_clock();
            if plant == Some(Plant::ClockBeyondBound) {
                clock.set_rate(Moment::default(), -500_000);
            }
            let mut created = Node::new(node, clock, &mut world.random);
            if let Some(most) = world.setup.tenures_max {
                created.spec.max_tenures = most;
            }
            world.nodes.push(created);
            let start = Duration::from_millis(world.random.u64(100..3_000));
            world.at(Moment::default() + start, Event::StartNode { node });
        }
        if world.setup.clocks == Clocks::BeyondBound {
            world.checkers.excused = &REST_ON_CLOCKS;
        }
        for watcher in 0..WATCHERS {
            world.watchers.push(Watcher::default());
            let start = Duration::from_millis(world.random.u64(100..2_000));
            world.at(Moment::default() + start, Event::Watch { watcher });
        }
        for watcher in 0..KEY_WATCHERS {
            world.key_watchers.push(KeyWatcher::default());
            let start = Duration::from_millis(world.random.u64(100..2_000));
            world.at(Moment::default() + start, Event::KeyWatch { watcher });
        }
        for caller in 0..world.setup.callers {
            world.callers.push(Caller::new());
            let start = Duration::from_millis(world.random.u64(50..500));
            world.at(
                Moment::default() + start,
                Event::Caller {
                    caller,
                    operation: 0,
                },
            );
        }
        for at in 0..world.setup.plan.len() {
            let when = Moment::default() + world.setup.plan[at].0;
            world.at(when, Event::Fault(at));
        }
        let heal = Moment::default() + world.setup.faulty_for;
        world.at(heal, Event::Heal);
        world
    }

    fn draw_clock(&mut self) -> Clock {
        let most = self.setup.rate_ppm_max;
        // The ends of the bound matter most.
        let rate_ppm = match self.random.u8(..4) {
            0 => most,
            1 => -most,
            _ => self.random.i32(-most..=most),
        };
        Clock::new(Time(self.random.u64(0..1 << 45)), rate_ppm)
    }

    /// Schedules an event.
    pub(crate) fn at(&mut self, at: Moment, event: Event) {
        if at == Moment::NEVER {
            return;
        }
        self.queue_seq += 1;
        self.queue.push(Reverse(Scheduled {
            at: at.max(self.now),
            seq: self.queue_seq,
            event,
        }));
    }

    /// Runs to the end, or to the first violation.
    #[must_use]
    pub fn run(mut self) -> Ended {
        while self.violation.is_none() && !self.over {
            let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() else {
                break;
            };
            self.now = at;
            self.stats.events += 1;
            self.handle(event);
        }
        self.finish()
    }

    fn finish(mut self) -> Ended {
        self.stats.simulated = self.now.since(Moment::default());
        self.stats.entries = self.checkers.log.last().0;
        self.stats.leaders = self.checkers.leaders.count();
        let network = &self.network;
        let counts = [
            ("message lost", network.lost),
            ("message duplicated", network.duplicated),
            ("message reordered", network.reordered),
            ("message cut off", network.cut_off),
        ];
        for (kind, count) in counts {
            self.stats.faults(kind, count);
        }
        for server in &self.servers {
            let counts = server.disk.fault_counts();
            self.stats.faults("write lost", counts.writes_lost);
            self.stats.faults("write torn", counts.writes_torn);
            self.stats.faults("write misdirected", counts.misdirected);
            self.stats
                .faults("write refused by a full disk", counts.full);
            self.stats.faults("failed sync", counts.failed_syncs);
        }
        self.stats.worlds.insert(
            match self.servers.len() {
                1 => "1 replica",
                3 => "3 replicas",
                5 => "5 replicas",
                7 => "7 replicas",
                _ => "other sizes",
            },
            1,
        );
        self.stats.worlds.insert(
            match self.setup.clocks {
                Clocks::WithinBound => "clocks within the bound",
                Clocks::BeyondBound => "clocks beyond the bound",
            },
            1,
        );
        self.stats.checks = self.checkers.counts();
        self.stats.rows = std::mem::take(&mut self.checkers.lifecycle.rows);
        self.stats.tenures = self.checkers.tokens.granted_count;
        Ended {
            violation: self.violation,
            stats: self.stats,
            trace_hash: self.trace.hash(),
        }
    }

    /// Takes a checker's verdict.
    pub(crate) fn judge(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.violation.is_none()
            && !self.excuses(&violation)
        {
            let now = self.now;
            self.trace
                .note(now, 2, [0; 3], || format!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    /// Whether a violation is none where clocks keep no bound.
    fn excuses(&self, violation: &Violation) -> bool {
        self.setup.clocks == Clocks::BeyondBound && REST_ON_CLOCKS.contains(&violation.checker)
    }

    /// Whether a mistake is planted.
    pub(crate) fn is_planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Peer {
                from,
                to,
                generation,
                message,
            } => self.on_peer(from, to, generation, message),
            Event::Tick { server, boot } => self.on_tick(server, boot),
            Event::Synced { server, boot } => self.on_synced(server, boot),
            Event::Job { server, boot, job } => self.on_job(server, boot, job),
            Event::Calls { server, boot } => self.on_calls(server, boot),
            Event::Connect { a, b, generation } => self.on_connect(a, b, generation),
            Event::Restart { server } => self.restart(server),
            Event::ResumeServer { server } => self.resume_server(server),
            Event::Up {
                server,
                from,
                message,
            } => self.on_up(server, from, message),
            Event::Down {
                node,
                life,
                stream,
                message,
            } => self.on_down(node, life, stream, message),
            Event::Answer {
                caller,
                operation,
                server,
                response,
            } => {
                self.on_answer(caller, operation, server, *response);
            }
            Event::Node { node, life, timer } => self.on_node_timer(node, life, timer),
            Event::ResumeNode { node, life } => self.resume_node(node, life),
            Event::StartNode { node } => self.start_node(node),
            Event::Caller { caller, operation } => self.on_caller(caller, operation),
            Event::Write { group, write } => self.on_resource_write(group, &write),
            Event::Watch { watcher } => self.on_watch(watcher),
            Event::KeyWatch { watcher } => self.on_key_watch(watcher),
            Event::Fault(at) => self.strike(at),
            Event::FaultEnds(at) => self.relent(at),
            Event::FaultStep { at, step } => self.fault_goes_on(at, step),
            Event::Heal => self.heal(),
            Event::Calm => self.look_at_calm(),
        }
    }
}
