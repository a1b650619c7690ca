//! Running many seeds: each on one thread, as many at once as there are cores.

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::case::Case;
use crate::checkers::Violation;
use crate::options::Options;
use crate::plant::Plant;
use crate::setup::Setup;
use crate::stats::Stats;
use crate::trace::Trace;
use crate::world::{Ended, World};

/// Runs one seed; a broken assertion counts as a violation.
#[must_use]
pub fn run_seed(seed: u64, replicas: Option<usize>, trace: bool) -> Ended {
    run_case(&Case::whole(seed, replicas), trace)
}

/// Runs one case; a broken assertion counts as a violation.
pub fn run_case(case: &Case, trace: impl Into<Trace>) -> Ended {
    let trace = trace.into();
    guard(|| World::with_setup(case.seed, case.setup(), trace, None).run())
}

/// Turns a broken assertion into a violation.
pub fn guard(run: impl FnOnce() -> Ended) -> Ended {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic without text");
        let violation = Violation {
            checker: "assertion",
            guarantee: "every assertion of the cores, which states what must hold between steps",
            what: text.to_owned(),
        };
        Ended {
            violation: Some(violation),
            stats: Stats {
                seeds: 1,
                ..Stats::default()
            },
            trace_hash: 0,
        }
    })
}

/// Runs seeds with a mistake planted until the checker reports it; `setup` bends each seed's world towards where it shows.
///
/// # Panics
/// Where none of the seeds shows it to that checker; the message names the others that noticed.
pub fn hunt(plant: Plant, checker: &str, seeds_max: u64, setup: impl Fn(u64) -> Setup) {
    let mut others = Vec::new();
    for seed in 0..seeds_max {
        let ended = guard(|| World::with_setup(seed, setup(seed), false, Some(plant)).run());
        match ended.violation {
            Some(violation) if violation.checker == checker => {
                println!("{plant:?}: caught at seed {seed}: {violation}");
                return;
            }
            Some(violation) => others.push((seed, violation.checker)),
            None => {}
        }
    }
    panic!(
        "{plant:?} went unnoticed by {checker} for {seeds_max} seeds; others noticed: {others:?}"
    );
}

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// Counts, summed.
    pub stats: Stats,
    /// The failed seeds and what did not hold, in order of the seeds.
    pub failures: Vec<(u64, Violation)>,
    /// How long it took.
    pub wall: Duration,
    /// How long processors were at it, all threads together.
    pub busy: Duration,
    /// The trace hashes, mixed in order of the seeds; of one seed, its own.
    pub trace_hash: u64,
}

/// What the threads have found so far.
#[derive(Debug, Default)]
struct Found {
    stats: Stats,
    failures: Vec<(u64, Violation)>,
    hashes: Vec<(u64, u64)>,
    busy: Duration,
    /// When people were last told how far it has got.
    told: Duration,
}

/// People are told this often how far it has got.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Runs the seeds; `trace` gives each its record, and `report` is called for each failure as it is found.
pub fn run(
    options: &Options,
    trace: impl Fn() -> Trace + Sync,
    report: impl Fn(&Case, &Violation) + Sync,
) -> Summary {
    let started = Instant::now();
    let next = AtomicU64::new(options.seeds.start);
    let stop = AtomicBool::new(false);
    let found = Mutex::new(Found::default());
    let watched = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.seeds.end {
                        break;
                    }
                    let case = options.case(seed);
                    let began = cpu_time();
                    let ended = run_case(&case, trace());
                    let took = cpu_time().saturating_sub(began);
                    let mut found = found.lock().expect("no holder of the lock panics");
                    found.busy += took;
                    found.stats += &ended.stats;
                    found.hashes.push((seed, ended.trace_hash));
                    if let Some(violation) = ended.violation {
                        report(&case, &violation);
                        found.failures.push((seed, violation));
                        // A few tell as much as all.
                        if found.failures.len() >= options.failures_max {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    if watched && started.elapsed() >= found.told + TELL_EVERY {
                        found.told = started.elapsed();
                        eprintln!(
                            "{} of {} seeds, {} failed",
                            found.stats.seeds,
                            options.seeds.end - options.seeds.start,
                            found.failures.len()
                        );
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no holder of the lock panicked");
    found.failures.sort_by_key(|(seed, _)| *seed);
    found.hashes.sort_unstable();
    let trace_hash = match found.hashes[..] {
        [(_, hash)] => hash,
        _ => found
            .hashes
            .iter()
            .fold(0, |sum, (_, hash)| crate::trace::mix(sum ^ hash)),
    };
    Summary {
        stats: found.stats,
        failures: found.failures,
        wall: started.elapsed(),
        busy: found.busy,
        trace_hash,
    }
}

/// How long a processor has been at this thread. Other programs' share does not count, so that speed means the same on a busy machine.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}
