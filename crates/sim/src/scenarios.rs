//! Named scenarios: bugs that were fixed, and traces that protocol.md tells of, set up on purpose. Each runs over a few seeds,
//! which move the rest a little, must be clean in all of them, and must show that what its story tells did happen.

use std::ops::RangeFrom;
use std::time::Duration;

use quorate_consensus::Timing;
use quorate_types::DriftBound;

use crate::checkers::Violation;
use crate::faults::Fault;
use crate::network::Quality;
use crate::run::guard;
use crate::setup::{Clocks, Habits, Setup};
use crate::stats::Stats;
use crate::trace::Trace;
use crate::world::World;

mod backbone;
mod partitions;
mod storage;
mod tenures;

/// Something that must have happened: what it is, how often it did, how often at least it must.
pub type Shown = (&'static str, u64, RangeFrom<u64>);

/// One scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// What `--scenario` names it by.
    pub name: &'static str,
    /// Where its rule is: a section of protocol.md.
    pub rule: &'static str,
    /// Its world.
    pub setup: fn() -> Setup,
    /// What must have happened, over all seeds.
    pub shows: fn(&Stats) -> Vec<Shown>,
}

/// All of them.
pub const ALL: [Scenario; 16] = [
    backbone::UNACKNOWLEDGED_SUFFIX,
    backbone::STALE_EXPIRY,
    backbone::KEEP_ALIVE_AROUND_EXPIRY,
    partitions::QUORUM_LOSS,
    partitions::CONSTRAINED_ELECTION,
    partitions::CHAINED,
    storage::RESTORED_DISK_ADOPTS_TERM,
    storage::RESTORED_DISK_WAS_IN_THE_QUORUM,
    storage::SNAPSHOT_CUT_MIDWAY,
    storage::POWER_LOST_AROUND_WRITES,
    tenures::PAUSED_HOLDER_FORCED,
    tenures::LATE_DIRECTIVE,
    tenures::SLOW_REVOCATION,
    tenures::REVOKED_IN_SNAPSHOT,
    tenures::FRESHEST_ON_FULL_NODE,
    tenures::FROZEN_HOLDER,
];

/// How many seeds each runs over.
pub const SEEDS: u64 = 12;

/// What came of a scenario.
#[derive(Debug)]
pub struct Outcome {
    /// The first violation, and its seed.
    pub failure: Option<(u64, Violation)>,
    /// What should have happened and did not.
    pub missing: Vec<String>,
    /// Counts over all seeds.
    pub stats: Stats,
}

impl Scenario {
    /// Runs one seed of it.
    #[must_use]
    pub fn run_seed(&self, seed: u64, trace: impl Into<Trace>) -> crate::world::Ended {
        let trace = trace.into();
        guard(|| World::with_setup(seed, (self.setup)(), trace, None).run())
    }

    /// Runs all its seeds, or up to the first that fails.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let mut stats = Stats::default();
        for seed in 0..SEEDS {
            let ended = self.run_seed(seed, false);
            stats += &ended.stats;
            if let Some(violation) = ended.violation {
                return Outcome {
                    failure: Some((seed, violation)),
                    missing: Vec::new(),
                    stats,
                };
            }
        }
        let missing = (self.shows)(&stats)
            .into_iter()
            .filter(|(_, seen, least)| !least.contains(seen))
            .map(|(what, seen, least)| {
                format!("{what}: {seen} times, expected {} or more", least.start)
            })
            .collect();
        Outcome {
            failure: None,
            missing,
            stats,
        }
    }
}

/// The scenarios of a name: one, or `all`.
#[must_use]
pub fn named(name: &str) -> Vec<Scenario> {
    ALL.into_iter()
        .filter(|scenario| name == "all" || scenario.name == name)
        .collect()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// How often a fault of a kind struck.
fn struck(stats: &Stats, kind: &str) -> u64 {
    stats.faults.get(kind).copied().unwrap_or(0)
}

/// How often a checker looked.
fn checked(stats: &Stats, checker: &str) -> u64 {
    stats.checks.get(checker).copied().unwrap_or(0)
}

/// A world in which nothing goes wrong that the plan does not say, and clients are well behaved.
fn peaceful(replicas: usize, plan: Vec<(Duration, Fault)>) -> Setup {
    Setup {
        replicas,
        nodes: 4,
        callers: 3,
        groups: 8,
        timing: Timing {
            heartbeat_interval: ms(50),
            detection_timeout: ms(300),
            election_jitter: ms(200),
        },
        drift: DriftBound::default(),
        clocks: Clocks::WithinBound,
        rate_ppm_max: 4_970,
        faulty_for: plan.last().map_or(ms(5_000), |(at, _)| *at + ms(4_000)),
        calm_for: ms(3_000),
        operations_min: 50,
        quality: Quality {
            delay_min: ms(1) / 5,
            delay_mean: ms(1) / 2,
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
        },
        sync: ms(1),
        snapshot_entries: 100,
        snapshot_retain: 20,
        chunk_bytes: 1_024,
        codec_every: 8,
        ttl_ms: (800, 1_500),
        tenures_max: None,
        think_max: ms(150),
        habits: Habits {
            resign: 0,
            decline: 0,
            ignore: 0,
            fail: 0,
            restand: 0,
            close: 0,
            wander: false,
            reaction_max: ms(50),
            violence: 0,
        },
        plan,
    }
}

/// The same fault, every so often.
fn again(from: Duration, every: Duration, times: u32, fault: &Fault) -> Vec<(Duration, Fault)> {
    (0..times)
        .map(|at| (from + every * at, fault.clone()))
        .collect()
}

/// Plans, merged in order of time.
fn together(plans: impl IntoIterator<Item = Vec<(Duration, Fault)>>) -> Vec<(Duration, Fault)> {
    let mut all: Vec<_> = plans.into_iter().flatten().collect();
    all.sort_by_key(|(at, _)| *at);
    all
}
