//! Draws the plan. Swarm testing: each seed enables a random subset of the kinds with random weights (Groce et al., Swarm Testing,
//! ISSTA 2012), since a mix of everything hides what a few do together; how many faults there are, and whether they come one by one
//! or in clusters, is drawn, too.

use std::time::Duration;

use super::{CrashPoint, Fault, Shape, SnapshotCut, Whose};
use crate::setup::{Clocks, Setup};

/// What is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    CrashAt,
    PowerCutInWrite,
    PowerLoss,
    FailedSync,
    FullDisk,
    SlowDisk,
    MisdirectedWrite,
    Rot,
    RotAtRest,
    OldDisk,
    PauseServer,
    PauseNode,
    KillNode,
    Partition,
    PartialPartition,
    Flap,
    CutNode,
    Storm,
    Reset,
    MassReconnect,
    LateDirectives,
    Burst,
    Overload,
    HandOver,
    CutSnapshot,
    ForcePausedHolder,
    /// Only where clocks are beyond the bound.
    Clock,
}

impl Kind {
    /// Whether it may be aimed at the leader.
    fn is_a_servers(self) -> bool {
        matches!(
            self,
            Self::Crash
                | Self::CrashAt
                | Self::PowerCutInWrite
                | Self::FailedSync
                | Self::FullDisk
                | Self::SlowDisk
                | Self::PauseServer
                | Self::Partition
        )
    }
}

const KINDS: [Kind; 28] = [
    Kind::Crash,
    Kind::CrashAt,
    Kind::PowerCutInWrite,
    Kind::PowerLoss,
    Kind::FailedSync,
    Kind::FullDisk,
    Kind::SlowDisk,
    Kind::MisdirectedWrite,
    Kind::Rot,
    Kind::RotAtRest,
    Kind::OldDisk,
    Kind::PauseServer,
    Kind::PauseNode,
    Kind::KillNode,
    Kind::Partition,
    Kind::PartialPartition,
    Kind::Flap,
    Kind::CutNode,
    Kind::Storm,
    Kind::Reset,
    Kind::MassReconnect,
    Kind::LateDirectives,
    Kind::Burst,
    Kind::Overload,
    Kind::HandOver,
    Kind::CutSnapshot,
    Kind::ForcePausedHolder,
    Kind::Clock,
];

/// The first fault strikes no earlier: the servers have started.
const FIRST: Duration = Duration::from_millis(1_000);

/// Draws a plan, in order of time; all of it is over before the calm.
#[must_use]
pub fn plan(random: &mut fastrand::Rng, setup: &Setup) -> Vec<(Duration, Fault)> {
    let breadth = [1, 3, 6][random.usize(..3)];
    let mut weights = KINDS.map(|_| {
        if random.u32(..10) < breadth {
            random.u32(1..10)
        } else {
            0
        }
    });
    let clock = KINDS.len() - 1;
    match setup.clocks {
        Clocks::WithinBound => weights[clock] = 0,
        Clocks::BeyondBound => weights[clock] = random.u32(5..15),
    }
    if weights.iter().all(|weight| *weight == 0) {
        weights[random.usize(..clock)] = 1;
    }
    // Per twenty seconds.
    let density = [
        random.u64(1..5),
        random.u64(5..20),
        random.u64(10..40),
        random.u64(30..70),
    ][random.usize(..4)];
    let end = millis(setup.faulty_for);
    let count = (density * end / 20_000).max(1);
    let clusters: Vec<u64> = (0..if random.u8(..4) == 0 {
        random.u64(1..5)
    } else {
        0
    })
        .map(|_| random.u64(millis(FIRST)..end))
        .collect();
    let mut plan: Vec<(Duration, Fault)> = (0..count)
        .map(|_| {
            let at = match clusters.len() {
                0 => random.u64(millis(FIRST)..end),
                some => (clusters[random.usize(..some)] + random.u64(..400)).min(end - 1),
            };
            let kind = pick(random, &weights);
            let mut fault = draw(random, setup, kind);
            if kind.is_a_servers() && random.u8(..3) == 0 {
                // The leader's troubles matter most.
                fault = Fault::OnLeader(Box::new(fault));
            }
            (Duration::from_millis(at), fault)
        })
        .collect();
    plan.sort_by_key(|(at, _)| *at);
    plan
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("short")
}

fn pick(random: &mut fastrand::Rng, weights: &[u32; KINDS.len()]) -> Kind {
    let mut left = random.u32(..weights.iter().sum::<u32>());
    for (kind, weight) in KINDS.iter().zip(weights) {
        match left.checked_sub(*weight) {
            Some(rest) => left = rest,
            None => return *kind,
        }
    }
    unreachable!("what is left is below the sum of all weights")
}

/// Between two durations, each order of magnitude as likely as the others.
fn spread(random: &mut fastrand::Rng, least_ms: u64, most_ms: u64) -> Duration {
    let (least, most) = (least_ms.max(1) as f64, most_ms.max(2) as f64);
    Duration::from_secs_f64(least * (most / least).powf(random.f64()) / 1e3)
}

fn draw(random: &mut fastrand::Rng, setup: &Setup, kind: Kind) -> Fault {
    let server = random.usize(..setup.replicas);
    let node = random.usize(..setup.nodes);
    // Any server but it, where there are more.
    let other = (server + 1 + random.usize(..setup.replicas.max(2) - 1)) % setup.replicas;
    let brief = spread(random, 10, 5_000);
    let outage = spread(random, 30, 8_000);
    // From a millisecond to ten times the TTL.
    let pause = spread(random, 1, setup.ttl_ms.1 * 10);
    match kind {
        Kind::Crash => Fault::Crash {
            server,
            power: random.bool(),
            down: brief,
        },
        Kind::CrashAt if random.u8(..5) == 0 => Fault::CrashAtOutput {
            server,
            outputs: random.u32(0..200),
            power: random.bool(),
        },
        Kind::CrashAt => Fault::CrashAt {
            server,
            point: [
                CrashPoint::BeforeWrite,
                CrashPoint::DuringSync,
                CrashPoint::AfterSync,
                CrashPoint::AfterPromises,
            ][random.usize(..4)],
            passes: random.u32(0..30),
            power: random.bool(),
        },
        Kind::PowerCutInWrite => Fault::PowerCutInWrite {
            server,
            operations: random.u64(0..40),
        },
        Kind::PowerLoss => Fault::PowerLoss { down: brief },
        Kind::FailedSync => Fault::FailedSync { server },
        Kind::FullDisk => Fault::FullDisk {
            server,
            lasts: outage,
        },
        Kind::SlowDisk => Fault::SlowDisk {
            server,
            latency: spread(random, 5, 600),
            lasts: outage,
        },
        Kind::MisdirectedWrite => Fault::MisdirectedWrite { server },
        Kind::Rot => Fault::Rot { server },
        Kind::RotAtRest => Fault::RotAtRest {
            server,
            down: brief,
        },
        Kind::OldDisk => Fault::OldDisk {
            server,
            age: spread(random, 100, 4_000),
            sure: true,
        },
        Kind::PauseServer => Fault::PauseServer {
            server,
            lasts: pause,
        },
        Kind::PauseNode => Fault::PauseNode { node, lasts: pause },
        Kind::KillNode => Fault::KillNode { node, down: brief },
        Kind::Partition | Kind::PartialPartition => {
            let shapes = match kind {
                Kind::Partition => &Shape::ALL[..5],
                _ => &Shape::ALL[5..],
            };
            Fault::Shaped {
                shape: shapes[random.usize(..shapes.len())],
                server,
                one_way: random.u8(..3) == 0,
                seed: random.u64(..),
                breaks: random.bool(),
                lasts: outage,
            }
        }
        Kind::Flap => Fault::Flap {
            a: server,
            b: other,
            times: random.u32(2..20),
            period: spread(random, 5, 600),
            one_way: random.bool(),
        },
        Kind::CutNode => {
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
        Kind::Storm => Fault::Storm {
            loss_ppm: random.u32(0..300_000),
            duplicate_ppm: random.u32(0..200_000),
            reorder_ppm: random.u32(0..300_000),
            slower: random.u32(1..20),
            lasts: outage,
        },
        Kind::Reset => Fault::Reset {
            a: server,
            b: other,
        },
        Kind::MassReconnect => Fault::MassReconnect,
        Kind::LateDirectives => Fault::LateDirectives {
            server,
            // Past any TTL, sometimes: what a holder is told then comes after its tenure was waited out.
            by: spread(random, 10, 6_000),
            lasts: outage,
        },
        Kind::Burst => Fault::Burst {
            server,
            calls: random.usize(10..400),
        },
        Kind::Overload => Fault::Overload {
            // Often more than a server takes (`calls_max`).
            calls: random.usize(50..2_000),
        },
        Kind::HandOver => Fault::HandOver,
        Kind::CutSnapshot => Fault::CutSnapshot {
            server,
            down: spread(random, 1_200, 6_000),
            cut: [
                SnapshotCut::Connection,
                SnapshotCut::Sender,
                SnapshotCut::Receiver,
            ][random.usize(..3)],
        },
        Kind::ForcePausedHolder => Fault::ForcePausedHolder { lasts: pause },
        Kind::Clock => {
            let whose = if random.bool() {
                Whose::Server(server)
            } else {
                Whose::Node(node)
            };
            match random.u8(..3) {
                0 => Fault::ClockJump {
                    whose,
                    by: spread(random, 10, 20_000),
                },
                1 => Fault::ClockRate {
                    whose,
                    rate_ppm: random.i32(-800_000..3_000_000),
                },
                _ => Fault::ClockFrozen {
                    whose,
                    paused: random.bool(),
                    lasts: outage,
                },
            }
        }
    }
}
