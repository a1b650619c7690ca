//! Exhaustive model checks of the shipping cores for small sizes: every state, not a sample.
//!
//! A model wraps the shipping code: its actions are real inputs, its transitions real steps. What is bounded, and what a
//! fingerprint leaves out, is argued at each model. `quorate-model` runs them and prints the table.

use std::fmt::Write as _;

use self::explorer::Report;

pub mod consensus;
pub mod coord;
pub mod explorer;
pub mod liveness;

/// Which sizes of a model to run.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The big ones too.
    pub is_deep: bool,
    /// Only those whose name holds this.
    pub only: Option<String>,
}

impl Wanted {
    /// Whether a size of this name is meant.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

/// The reports as a table, with the invariants and how often each was looked at below.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let mut text = format!(
        "{:<34} {:>10} {:>12} {:>6} {:>10} {:>8}\n",
        "model", "states", "transitions", "depth", "exhausted", "seconds"
    );
    for report in reports {
        let exhausted = match (&report.violation, report.is_exhausted) {
            (Some(_), _) => "VIOLATED",
            (None, true) => "yes",
            (None, false) => "NO (bound)",
        };
        let _ = writeln!(
            text,
            "{:<34} {:>10} {:>12} {:>6} {exhausted:>10} {:>8.1}",
            report.name,
            report.states,
            report.transitions,
            report.depth,
            report.elapsed.as_secs_f64()
        );
    }
    let mut counts: Vec<(&str, u64)> = Vec::new();
    for (name, count) in reports.iter().flat_map(|report| &report.counts) {
        match counts.iter_mut().find(|(known, _)| *known == *name) {
            Some((_, sum)) => *sum += count,
            None => counts.push((name, *count)),
        }
    }
    text.push_str("checked:\n");
    for (name, count) in counts {
        let _ = writeln!(text, "  {count:>12}  {name}");
    }
    text
}
