//! Running many seeds: each on one thread, as many at once as there are cores.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::checkers::Violation;
use crate::options::Options;
use crate::stats::Stats;
use crate::world::{Ended, World};

/// Runs one seed; a broken assertion counts as a violation.
#[must_use]
pub fn run_seed(seed: u64, replicas: Option<usize>, trace: bool) -> Ended {
    guard(|| World::new(seed, replicas, trace).run())
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

/// What came of many seeds.
#[derive(Debug, Default)]
pub struct Summary {
    /// Counts, summed.
    pub stats: Stats,
    /// The failed seeds and what did not hold, in order of the seeds.
    pub failures: Vec<(u64, Violation)>,
    /// How long it took.
    pub wall: Duration,
    /// The trace hashes, mixed in order of the seeds; of one seed, its own.
    pub trace_hash: u64,
}

/// Runs the seeds; `report` is called for each failure as it is found.
pub fn run(options: &Options, report: impl Fn(u64, &Violation) + Sync) -> Summary {
    let started = Instant::now();
    let next = AtomicU64::new(options.seeds.start);
    let stop = AtomicBool::new(false);
    let results = Mutex::new((Stats::default(), Vec::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= options.seeds.end {
                        break;
                    }
                    let ended = run_seed(seed, options.replicas, options.trace);
                    let mut results = results.lock().expect("no holder of the lock panics");
                    results.0 += &ended.stats;
                    results.2.push((seed, ended.trace_hash));
                    if let Some(violation) = ended.violation {
                        report(seed, &violation);
                        results.1.push((seed, violation));
                        // A few tell as much as all.
                        if results.1.len() >= 20 {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let (stats, mut failures, mut hashes) = results
        .into_inner()
        .expect("no holder of the lock panicked");
    failures.sort_by_key(|(seed, _)| *seed);
    hashes.sort_unstable();
    let trace_hash = match hashes[..] {
        [(_, hash)] => hash,
        _ => hashes
            .iter()
            .fold(0, |sum, (_, hash)| crate::trace::mix(sum ^ hash)),
    };
    Summary {
        stats,
        failures,
        wall: started.elapsed(),
        trace_hash,
    }
}
