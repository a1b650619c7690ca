//! `quorate-sim`: runs seeds, prints failures with their replay command, and what was met on the way.

use std::process::ExitCode;

use quorate_sim::options::{Options, USAGE};
use quorate_sim::run::run;
use quorate_sim::summary::replay;
use quorate_sim::trace::Trace;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .iter()
        .any(|argument| argument == "--help" || argument == "-h")
    {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(arguments.into_iter()) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("quorate-sim: {wrong}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    run_seeds(&options)
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
