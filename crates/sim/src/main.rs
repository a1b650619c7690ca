//! `quorate-sim`: runs seeds, prints failures with their replay command, and what was met on the way.

use std::process::ExitCode;

use quorate_sim::options::{Options, USAGE, help};
use quorate_sim::run::{run, run_case};
use quorate_sim::scenarios;
use quorate_sim::shrink::shrink;
use quorate_sim::summary::replay;
use quorate_sim::trace::Trace;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        println!("{}", help());
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(arguments.into_iter()) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("quorate-sim: {wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match &options.scenario {
        Some(name) => run_scenarios(&options, name),
        None => run_seeds(&options),
    }
}

fn run_scenarios(options: &Options, name: &str) -> ExitCode {
    if name == "list" {
        for scenario in scenarios::ALL {
            println!(
                "{:<28} protocol.md, section {}",
                scenario.name, scenario.rule
            );
        }
        return ExitCode::SUCCESS;
    }
    let mut clean = true;
    for scenario in scenarios::named(name) {
        if options.trace {
            // One seed of it, told.
            let ended = scenario.run_seed(options.seeds.start, true);
            clean &= ended.violation.is_none();
            continue;
        }
        let outcome = scenario.run();
        let seen: Vec<String> = (scenario.shows)(&outcome.stats)
            .iter()
            .map(|(what, seen, _)| format!("{what} {seen}"))
            .collect();
        println!("{:<28} {}", scenario.name, seen.join(", "));
        if let Some((seed, violation)) = &outcome.failure {
            println!("FAILED seed {seed}: {violation}");
            println!(
                "  replay: cargo run --release -p quorate-sim -- --scenario {} --seed {seed} --trace",
                scenario.name
            );
        }
        for missing in &outcome.missing {
            println!("FAILED: {missing}");
        }
        clean &= outcome.failure.is_none() && outcome.missing.is_empty();
    }
    if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_seeds(options: &Options) -> ExitCode {
    if !options.json {
        match options.seeds.end - options.seeds.start {
            1 => println!("seed {}", options.seeds.start),
            count => println!(
                "seeds {}..{} ({count}), {} at once",
                options.seeds.start, options.seeds.end, options.jobs
            ),
        }
    }
    // Opened once, to find out early that it cannot be written.
    if let Some(file) = &options.trace_file
        && let Err(error) = std::fs::File::create(file)
    {
        eprintln!("quorate-sim: cannot write {}: {error}", file.display());
        return ExitCode::from(2);
    }
    let trace = || match &options.trace_file {
        Some(file) => Trace::to_file(file).expect("the file was made just now"),
        None => Trace::from(options.trace),
    };
    let summary = run(options, trace, |case, violation| {
        let text = format!(
            "FAILED seed {}: {violation}\n  replay: {}",
            case.seed,
            replay(case)
        );
        if options.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    });
    if options.shrink
        && let Some((seed, violation)) = summary.failures.first()
    {
        let case = options.case(*seed);
        let shrunk = shrink(&case, violation.clone(), |case| {
            run_case(case, false).violation
        });
        eprintln!(
            "shrunk in {} runs, still {}\nplan:\n{}  replay: {}",
            shrunk.runs,
            shrunk.violation,
            shrunk.plan(),
            replay(&shrunk.case)
        );
    }
    if options.json {
        println!("{}", summary.json(options));
    } else {
        print!("{}", summary.text());
    }
    if summary.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
