//! What goes wrong, and when: drawn from the seed before the run. Swarm testing: each seed enables a random subset of the kinds
//! with random weights (Groce et al., Swarm Testing, ISSTA 2012), since a mix of everything hides what a few do together.

use std::time::Duration;

use crate::plant::Plant;
use crate::setup::Setup;
use crate::world::{Event, World};

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A server's process dies, with its machine or alone.
    Crash {
        /// Which.
        server: usize,
        /// The machine loses power: unsynced writes may be lost or torn.
        power: bool,
        /// For how long.
        down: Duration,
    },
    /// A server dies after carrying out so many more orders of its replica.
    CrashAtOutput {
        /// Which.
        server: usize,
        /// How many.
        outputs: u32,
        /// With its machine.
        power: bool,
    },
    /// A server's power is cut within a write: after so many more operations of its disk.
    PowerCutInWrite {
        /// Which.
        server: usize,
        /// How many.
        operations: u64,
    },
    /// All servers lose power at once.
    PowerLoss {
        /// For how long.
        down: Duration,
    },
    /// A server's next sync fails.
    FailedSync {
        /// Which.
        server: usize,
    },
    /// A server's disk is full.
    FullDisk {
        /// Which.
        server: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A server's syncs are slow.
    SlowDisk {
        /// Which.
        server: usize,
        /// How long one takes.
        latency: Duration,
        /// For how long.
        lasts: Duration,
    },
    /// A byte of a server's log rots, on a copy of its disk: opening the copy must refuse, or find everything.
    Rot {
        /// Which.
        server: usize,
    },
    /// A server stands still; messages wait.
    PauseServer {
        /// Which.
        server: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A node stands still.
    PauseNode {
        /// Which.
        node: usize,
        /// For how long.
        lasts: Duration,
    },
    /// A node dies and comes back.
    KillNode {
        /// Which.
        node: usize,
        /// For how long.
        down: Duration,
    },
    /// Directions between servers are cut.
    Partition {
        /// Its name, for the count.
        kind: &'static str,
        /// Which directions.
        cuts: Vec<(usize, usize)>,
        /// Whether the connections break, too.
        breaks: bool,
        /// For how long.
        lasts: Duration,
    },
    /// A node is cut from servers.
    CutNode {
        /// Which.
        node: usize,
        /// From which.
        servers: Vec<usize>,
        /// For how long.
        lasts: Duration,
    },
    /// The network is bad.
    Storm {
        /// Lost messages, of a million.
        loss_ppm: u32,
        /// Duplicated ones.
        duplicate_ppm: u32,
        /// Reordered ones.
        reorder_ppm: u32,
        /// All take longer by this factor.
        slower: u32,
        /// For how long.
        lasts: Duration,
    },
    /// A connection between two servers breaks and is made again.
    Reset {
        /// One.
        a: usize,
        /// The other.
        b: usize,
    },
    /// All nodes' streams break at once.
    MassReconnect,
    /// A server's directives to nodes are late; its answers are not.
    LateDirectives {
        /// Which.
        server: usize,
        /// By how much at most.
        by: Duration,
        /// For how long.
        lasts: Duration,
    },
    /// Many reads at once.
    Burst {
        /// Where.
        server: usize,
        /// How many.
        calls: usize,
    },
    /// The leader is told to hand over, as on a graceful stop.
    HandOver,
}

const KINDS: usize = 19;

/// Draws a plan: at least ten faults, all over before the calm.
#[must_use]
pub fn plan(random: &mut fastrand::Rng, setup: &Setup) -> Vec<(Duration, Fault)> {
    let mut weights: Vec<u32> = (0..KINDS)
        .map(|_| {
            if random.u8(..5) < 3 {
                random.u32(1..10)
            } else {
                0
            }
        })
        .collect();
    if weights.iter().sum::<u32>() == 0 {
        weights[random.usize(..KINDS)] = 1;
    }
    let total: u32 = weights.iter().sum();
    let count = random.usize(12..=40);
    let end = u64::try_from(setup.faulty_for.as_millis()).expect("short");
    let mut plan: Vec<(Duration, Fault)> = (0..count)
        .map(|_| {
            let at = Duration::from_millis(random.u64(2_000..end));
            let mut left = random.u32(..total);
            let kind = weights
                .iter()
                .position(|weight| match left.checked_sub(*weight) {
                    Some(rest) => {
                        left = rest;
                        false
                    }
                    None => true,
                })
                .expect("the weights sum to the total");
            (at, draw(random, setup, kind))
        })
        .collect();
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn draw(random: &mut fastrand::Rng, setup: &Setup, kind: usize) -> Fault {
    let server = random.usize(..setup.replicas);
    let node = random.usize(..setup.nodes);
    // Mostly short, sometimes long.
    let mut lasts = |short: u64, long: u64| {
        Duration::from_millis(if random.u8(..3) > 0 {
            random.u64(1..=short)
        } else {
            random.u64(short..=long)
        })
    };
    let (brief, outage) = (lasts(800, 5_000), lasts(1_500, 8_000));
    let ttl_max = setup.ttl_ms.1;
    let pause_node = lasts(ttl_max, (ttl_max * 10).min(9_000));
    let pause_server = lasts(300, 6_000);
    match kind {
        0 => Fault::Crash {
            server,
            power: random.bool(),
            down: brief,
        },
        1 => Fault::CrashAtOutput {
            server,
            outputs: random.u32(0..200),
            power: random.bool(),
        },
        2 => Fault::PowerCutInWrite {
            server,
            operations: random.u64(0..40),
        },
        3 => Fault::PowerLoss { down: brief },
        4 => Fault::FailedSync { server },
        5 => Fault::FullDisk {
            server,
            lasts: outage,
        },
        6 => Fault::SlowDisk {
            server,
            latency: Duration::from_millis(random.u64(5..600)),
            lasts: outage,
        },
        7 => Fault::PauseServer {
            server,
            lasts: pause_server,
        },
        8 => Fault::PauseNode {
            node,
            lasts: pause_node,
        },
        9 => Fault::KillNode { node, down: brief },
        10 | 11 => partition(random, setup, server, outage),
        12 => {
            let all = random.bool();
            let servers = (0..setup.replicas)
                .filter(|_| all || random.bool())
                .collect();
            Fault::CutNode {
                node,
                servers,
                lasts: outage,
            }
        }
        13 => Fault::Storm {
            loss_ppm: random.u32(0..300_000),
            duplicate_ppm: random.u32(0..200_000),
            reorder_ppm: random.u32(0..300_000),
            slower: random.u32(1..20),
            lasts: outage,
        },
        14 => Fault::Reset {
            a: server,
            b: (server + 1) % setup.replicas,
        },
        15 => Fault::MassReconnect,
        16 => Fault::LateDirectives {
            server,
            by: Duration::from_millis(random.u64(10..3_000)),
            lasts: outage,
        },
        17 if random.bool() => Fault::Burst {
            server,
            calls: random.usize(10..400),
        },
        17 => Fault::HandOver,
        _ => Fault::Rot { server },
    }
}

/// Every shape: one server off, halves, one direction, one pair (the partial partitions of the Omni-Paxos paper, section 2).
fn partition(random: &mut fastrand::Rng, setup: &Setup, server: usize, lasts: Duration) -> Fault {
    let all = || 0..setup.replicas;
    let pairs = all().flat_map(|a| all().filter(move |b| *b != a).map(move |b| (a, b)));
    let (kind, cuts): (_, Vec<_>) = match random.u8(..6) {
        0 => (
            "partition: one server off",
            pairs
                .filter(|(a, b)| *a == server || *b == server)
                .collect(),
        ),
        1 => {
            let side: Vec<bool> = all().map(|_| random.bool()).collect();
            (
                "partition: halves",
                pairs.filter(|(a, b)| side[*a] != side[*b]).collect(),
            )
        }
        2 => (
            "partition: deaf",
            pairs.filter(|(_, b)| *b == server).collect(),
        ),
        3 => (
            "partition: mute",
            pairs.filter(|(a, _)| *a == server).collect(),
        ),
        4 => (
            "partition: all but one pivot",
            pairs
                .filter(|(a, b)| *a != server && *b != server)
                .collect(),
        ),
        _ => {
            let other = random.usize(..setup.replicas);
            let pair = |(a, b): &(usize, usize)| {
                (*a, *b) == (server, other) || (*b, *a) == (server, other)
            };
            ("partition: one pair", pairs.filter(pair).collect())
        }
    };
    Fault::Partition {
        kind,
        cuts,
        breaks: random.bool(),
        lasts,
    }
}

impl Fault {
    /// The node that it strikes, if it is one.
    #[must_use]
    pub fn node(&self) -> Option<usize> {
        match self {
            Self::PauseNode { node, .. }
            | Self::KillNode { node, .. }
            | Self::CutNode { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// Its name, for the count.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Crash { power: true, .. } => "power cut",
            Self::Crash { .. } => "process killed",
            Self::CrashAtOutput { .. } => "crash between orders",
            Self::PowerCutInWrite { .. } => "power cut within a write",
            Self::PowerLoss { .. } => "power cut everywhere",
            Self::FailedSync { .. } => "failed sync",
            Self::FullDisk { .. } => "full disk",
            Self::SlowDisk { .. } => "slow disk",
            Self::Rot { .. } => "rot (on a copy)",
            Self::PauseServer { .. } => "server paused",
            Self::PauseNode { .. } => "node paused",
            Self::KillNode { .. } => "node killed",
            Self::Partition { kind, .. } => kind,
            Self::CutNode { .. } => "node cut off",
            Self::Storm { .. } => "network storm",
            Self::Reset { .. } => "connection reset",
            Self::MassReconnect => "mass reconnect",
            Self::LateDirectives { .. } => "late directives",
            Self::Burst { .. } => "burst of calls",
            Self::HandOver => "leader told to hand over",
        }
    }
}

impl World {
    /// A planned fault strikes.
    pub(crate) fn strike(&mut self, at: usize) {
        let fault = self.setup.plan[at].1.clone();
        let now = self.now;
        self.trace
            .note(now, 1, [at as u64, 0, 0], || format!("fault: {fault:?}"));
        self.stats.fault(fault.kind());
        let mut lasting = None;
        match fault {
            Fault::Crash {
                server,
                power,
                down,
            } => self.crash(server, power, down),
            Fault::CrashAtOutput {
                server,
                outputs,
                power,
            } => {
                self.servers[server].crash_after = Some((outputs, power));
            }
            Fault::PowerCutInWrite { server, operations } => {
                self.servers[server].disk.cut_power_after(operations);
            }
            Fault::PowerLoss { down } => {
                (0..self.servers.len()).for_each(|server| self.crash(server, true, down));
            }
            Fault::FailedSync { server } => self.servers[server].disk.fail_syncs(1),
            Fault::FullDisk { server, lasts } => {
                self.servers[server].disk.set_capacity(Some(0));
                lasting = Some(lasts);
            }
            Fault::SlowDisk {
                server,
                latency,
                lasts,
            } => {
                self.servers[server].disk.set_latency(latency);
                lasting = Some(lasts);
            }
            Fault::Rot { server } => self.try_rot(server),
            Fault::PauseServer { server, lasts } => self.pause_server(server, lasts),
            Fault::PauseNode { node, lasts } => self.pause_node(node, lasts),
            Fault::KillNode { node, down } => self.kill_node(node, down),
            Fault::Partition {
                cuts,
                breaks,
                lasts,
                ..
            } => {
                for (from, to) in cuts {
                    self.network.cut(from, to);
                    if breaks {
                        self.break_connection(from, to);
                    }
                }
                lasting = Some(lasts);
            }
            Fault::CutNode {
                node,
                servers,
                lasts,
            } => {
                for server in servers {
                    self.network.cut_node(node, server);
                }
                lasting = Some(lasts);
            }
            Fault::Storm {
                loss_ppm,
                duplicate_ppm,
                reorder_ppm,
                slower,
                lasts,
            } => {
                let base = self.network.base;
                let quality = &mut self.network.quality;
                (quality.loss_ppm, quality.duplicate_ppm) = (loss_ppm, duplicate_ppm);
                quality.reorder_ppm = reorder_ppm;
                quality.delay_mean = base.delay_mean * slower;
                lasting = Some(lasts);
            }
            Fault::Reset { a, b } => self.break_connection(a, b),
            Fault::MassReconnect => self.break_streams(),
            Fault::LateDirectives { server, by, lasts } => {
                self.servers[server].directives_late = by;
                lasting = Some(lasts);
            }
            Fault::Burst { server, calls } => self.burst(server, calls),
            Fault::HandOver => self.hand_over(),
        }
        if let Some(lasts) = lasting {
            self.at(now + lasts, Event::FaultEnds(at));
        }
    }

    /// A lasting fault ends.
    pub(crate) fn relent(&mut self, at: usize) {
        if self.is_calm() || self.is_planted(Plant::NeverHeals) {
            // The calm lifted everything at once.
            return;
        }
        match self.setup.plan[at].1.clone() {
            Fault::FullDisk { server, .. } => self.servers[server].disk.set_capacity(None),
            Fault::SlowDisk { server, .. } => self.servers[server].disk.set_latency(Duration::ZERO),
            Fault::Partition { cuts, .. } => cuts
                .iter()
                .for_each(|(from, to)| self.network.mend(*from, *to)),
            Fault::CutNode { node, servers, .. } => {
                servers
                    .iter()
                    .for_each(|server| self.network.mend_node(node, *server));
            }
            Fault::Storm { .. } => self.network.quality = self.network.base,
            Fault::LateDirectives { server, .. } => {
                self.servers[server].directives_late = Duration::ZERO;
            }
            _ => {}
        }
    }
}
