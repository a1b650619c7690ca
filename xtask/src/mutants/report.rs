//! What came of each mutant, for people and for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::list::{Detector, Mutant};

/// What came of one mutant.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Noticed.
    Caught {
        /// The checker or test.
        by: String,
        /// The seed, of the simulator.
        seed: Option<u64>,
        /// What it said.
        what: String,
    },
    /// Nobody noticed: a checker, a workload or a fault is missing.
    NotCaught {
        /// Of so many seeds.
        seeds: u64,
    },
    /// It no longer applies.
    Stale(String),
    /// The compiler noticed, which proves nothing.
    DoesNotBuild(String),
    /// The run never ended.
    Endless,
    /// The seed fails without the mutant, too.
    FailsUnmutated(String),
}

/// One mutant's row.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) detector: Detector,
    pub(crate) verdict: Verdict,
    pub(crate) build: Duration,
    pub(crate) ran: Duration,
}

impl Outcome {
    pub(crate) fn is_caught(&self) -> bool {
        matches!(self.verdict, Verdict::Caught { .. })
    }

    fn by(&self) -> String {
        match &self.verdict {
            Verdict::Caught { by, .. } => match self.detector {
                Detector::Simulator => by.clone(),
                Detector::Model => format!("model: {by}"),
                Detector::Storage => format!("storage: {by}"),
            },
            Verdict::NotCaught { .. } if self.detector != Detector::Simulator => {
                "NOT CAUGHT".to_owned()
            }
            Verdict::NotCaught { seeds } => format!("NOT CAUGHT in {seeds} seeds"),
            Verdict::Stale(_) => "STALE".to_owned(),
            Verdict::DoesNotBuild(_) => "DOES NOT BUILD".to_owned(),
            Verdict::Endless => "NO END".to_owned(),
            Verdict::FailsUnmutated(_) => "FAILS UNMUTATED".to_owned(),
        }
    }

    fn seed(&self) -> Option<u64> {
        match self.verdict {
            Verdict::Caught { seed, .. } => seed,
            _ => None,
        }
    }

    fn detail(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Stale(why) | Verdict::DoesNotBuild(why) | Verdict::FailsUnmutated(why) => {
                Some(why)
            }
            Verdict::Caught { what, .. } => Some(what),
            Verdict::NotCaught { .. } | Verdict::Endless => None,
        }
    }
}

fn clipped(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

/// One line of progress.
pub(crate) fn line(outcome: &Outcome) -> String {
    let seed = outcome
        .seed()
        .map(|seed| format!(" at seed {seed}"))
        .unwrap_or_default();
    let detail = match &outcome.verdict {
        Verdict::DoesNotBuild(why) | Verdict::Stale(why) => format!("\n{why}"),
        _ => outcome
            .detail()
            .map(|what| format!(": {}", clipped(what, 160)))
            .unwrap_or_default(),
    };
    format!(
        "{}: {}{seed} (built in {:.1} s, ran {:.1} s){detail}",
        outcome.name,
        outcome.by(),
        outcome.build.as_secs_f64(),
        outcome.ran.as_secs_f64(),
    )
}

/// The table.
pub(crate) fn print_table(outcomes: &[Outcome], wall: Duration) {
    let head = [
        "mutant",
        "caught by",
        "at seed",
        "after",
        "build s",
        "run s",
        "source",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(outcomes.iter().map(|outcome| {
        let seed = outcome.seed();
        [
            outcome.name.clone(),
            outcome.by(),
            seed.map_or("-".to_owned(), |seed| seed.to_string()),
            seed.map_or("-".to_owned(), |seed| (seed + 1).to_string()),
            format!("{:.1}", outcome.build.as_secs_f64()),
            format!("{:.1}", outcome.ran.as_secs_f64()),
            outcome.source.clone(),
        ]
    }));
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
    }
    let caught = outcomes
        .iter()
        .filter(|outcome| outcome.is_caught())
        .count();
    println!(
        "{caught} of {} caught in {:.0} s",
        outcomes.len(),
        wall.as_secs_f64()
    );
    for outcome in outcomes.iter().filter(|outcome| !outcome.is_caught()) {
        println!("{}", line(outcome));
    }
}

/// The same for programs.
pub(crate) fn json(outcomes: &[Outcome], clean: &[String], seeds: u64, wall: Duration) -> Value {
    let rows: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "name": outcome.name,
                "source": outcome.source,
                "detector": format!("{:?}", outcome.detector).to_lowercase(),
                "caught": outcome.is_caught(),
                "by": outcome.by(),
                "seed": outcome.seed(),
                "what": outcome.detail(),
                "build_s": outcome.build.as_secs_f64(),
                "run_s": outcome.ran.as_secs_f64(),
            })
        })
        .collect();
    json!({
        "ok": outcomes.iter().all(Outcome::is_caught),
        "seeds_max": seeds,
        "clean": clean,
        "mutants": rows,
        "wall_s": wall.as_secs_f64(),
    })
}

/// What there is.
pub(crate) fn print_list(mutants: &[Mutant]) {
    for mutant in mutants {
        let smoke = if mutant.smoke { " [smoke]" } else { "" };
        println!("{}{smoke}", mutant.name);
        println!("    breaks    {}", mutant.source);
        for change in mutant.changes() {
            println!("    in        {}", change.file);
        }
        let expect = match mutant.detector {
            Detector::Simulator => mutant.expect.join(", "),
            other => format!(
                "{}, {}",
                super::detect::command_of(other, &mutant.args),
                mutant.expect.join(", ")
            ),
        };
        println!("    expected  {expect}");
        if mutant.detector == Detector::Simulator && !mutant.args.is_empty() {
            println!("    run with  {}", mutant.args.join(" "));
        }
    }
    println!("{} mutants", mutants.len());
}
