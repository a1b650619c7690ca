//! What is printed at the end: for people, and as JSON for other programs.

use std::fmt::Write as _;

use serde_json::json;

use crate::case::Case;
use crate::options::Options;
use crate::run::Summary;

/// From so many seeds on, a kind of fault that struck less often than [`RARE`] is told.
const MANY_SEEDS: u64 = 10_000;
/// See [`MANY_SEEDS`].
const RARE: u64 = 1_000;

/// The one command that runs a case again.
#[must_use]
pub fn replay(case: &Case) -> String {
    format!("cargo run --release -p quorate-sim -- {case} --trace")
}

impl Summary {
    /// Events per second of one core.
    #[must_use]
    pub fn events_per_core(&self) -> f64 {
        self.stats.events as f64 / self.busy.as_secs_f64().max(1e-9)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let stats = &self.stats;
        let seconds = self.wall.as_secs_f64().max(1e-9);
        let simulated = stats.simulated.as_secs_f64();
        let seeds = stats.seeds.max(1) as f64;
        let mut text = String::new();
        let mut line = |label: &str, rest: String| {
            writeln!(text, "{label:<16} {rest}").expect("a string takes text");
        };
        line(
            "seeds",
            format!("{} ({} failed)", stats.seeds, self.failures.len()),
        );
        line(
            "simulated",
            format!(
                "{:.2} h ({:.1} s per seed)",
                simulated / 3600.0,
                simulated / seeds
            ),
        );
        line(
            "wall",
            format!(
                "{seconds:.1} s ({:.0} times real time)",
                simulated / seconds
            ),
        );
        line(
            "events",
            format!(
                "{} ({:.0} per seed, {:.0}/s per core), {} replica steps",
                stats.events,
                stats.events as f64 / seeds,
                self.events_per_core(),
                stats.steps
            ),
        );
        line(
            "operations",
            format!(
                "{}, {} keep-alives answered",
                stats.operations, stats.keep_alives
            ),
        );
        line(
            "entries",
            format!(
                "{} committed, {} backbone leaders",
                stats.entries, stats.leaders
            ),
        );
        line(
            "resource writes",
            format!(
                "{} taken, {} fenced",
                stats.writes_taken, stats.writes_fenced
            ),
        );
        for (heading, counts) in [
            ("worlds:", &stats.worlds),
            ("checked:", &stats.checks),
            ("faults:", &stats.faults),
        ] {
            text.push_str(heading);
            text.push('\n');
            for (kind, count) in counts {
                writeln!(text, "  {count:>12}  {kind}").expect("a string takes text");
            }
        }
        if stats.seeds >= MANY_SEEDS {
            for (kind, count) in stats.faults.iter().filter(|(_, count)| **count < RARE) {
                writeln!(text, "rare: {kind} struck only {count} times")
                    .expect("a string takes text");
            }
        }
        writeln!(text, "trace hash       {:016x}", self.trace_hash).expect("a string takes text");
        text
    }

    /// For programs: one object.
    #[must_use]
    pub fn json(&self, options: &Options) -> String {
        let stats = &self.stats;
        let failures: Vec<_> = self
            .failures
            .iter()
            .map(|(seed, violation)| {
                json!({
                    "seed": seed,
                    "checker": violation.checker,
                    "guarantee": violation.guarantee,
                    "what": violation.what,
                    "replay": replay(&options.case(*seed)),
                })
            })
            .collect();
        json!({
            "seeds_run": stats.seeds,
            "failures": failures,
            "events": stats.events,
            "events_per_core": self.events_per_core(),
            "steps": stats.steps,
            "operations": stats.operations,
            "keep_alives": stats.keep_alives,
            "entries": stats.entries,
            "tenures": stats.tenures,
            "leaders": stats.leaders,
            "simulated_s": stats.simulated.as_secs_f64(),
            "wall_s": self.wall.as_secs_f64(),
            "worlds": stats.worlds,
            "checks": stats.checks,
            "faults": stats.faults,
            "trace_hash": format!("{:016x}", self.trace_hash),
        })
        .to_string()
    }
}
