//! `quorate-model`: explores the models exhaustively, prints what was visited, and the shortest trace where something is wrong.

use std::process::ExitCode;

use quorate_sim::model::explorer::Report;
use quorate_sim::model::{self, Wanted};

/// Runs the wanted sizes of a model.
type Suite = fn(&Wanted) -> Vec<Report>;

/// The models by name, one line each.
const SUITES: &[(&str, Suite)] = &[
    ("coord", model::coord::sizes::run),
    ("consensus", model::consensus::sizes::run),
];

const USAGE: &str = "\
usage: quorate-model [coord|consensus|all] [--deep] [--size TEXT]

Explores every state of small sizes of the shipping state machine (coord) and of the backbone's elections (consensus).
  --deep       bigger sizes too: minutes, and gigabytes of memory
  --size TEXT  only the sizes whose name holds the text

Exit code 1 where an invariant is violated; the shortest trace is printed.";

fn main() -> ExitCode {
    let mut sizes = Wanted::default();
    let mut wanted = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--deep" => sizes.is_deep = true,
            "--size" => match arguments.next() {
                Some(text) => sizes.only = Some(text),
                None => {
                    eprintln!("quorate-model: --size needs a text\n\n{USAGE}");
                    return ExitCode::from(2);
                }
            },
            "--help" | "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            name if name == "all" || SUITES.iter().any(|(known, _)| *known == name) => {
                wanted = Some(argument);
            }
            other => {
                eprintln!("quorate-model: unknown argument `{other}`\n\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let wanted = wanted.unwrap_or_else(|| "all".to_owned());
    let mut reports = Vec::new();
    for (name, run) in SUITES {
        if wanted == "all" || wanted == *name {
            reports.extend(run(&sizes));
        }
    }
    if reports.is_empty() {
        eprintln!("quorate-model: no size has such a name");
        return ExitCode::from(2);
    }
    print!("{}", model::table(&reports));
    let mut is_clean = true;
    for report in &reports {
        if let Some(violation) = &report.violation {
            is_clean = false;
            println!("\nVIOLATED in {}: {violation}", report.name);
        }
    }
    if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
