//! `quorate-sim`: runs seeds, prints failures with their replay command, and what was met on the way.

use std::process::ExitCode;

use quorate_sim::options::{Options, USAGE};
use quorate_sim::run::{Summary, run};

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
    match options.seeds.end - options.seeds.start {
        1 => println!("seed {}", options.seeds.start),
        count => println!(
            "seeds {}..{} ({count}), {} at once",
            options.seeds.start, options.seeds.end, options.jobs
        ),
    }
    let replicas = options
        .replicas
        .map(|count| format!(" --replicas {count}"))
        .unwrap_or_default();
    let summary = run(&options, |seed, violation| {
        println!("FAILED seed {seed}: {violation}");
        println!("  replay: cargo run --release -p quorate-sim -- --seed {seed}{replicas} --trace");
    });
    print(&summary);
    if summary.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn print(summary: &Summary) {
    let stats = &summary.stats;
    let seconds = summary.wall.as_secs_f64().max(1e-9);
    let simulated = stats.simulated.as_secs_f64();
    println!(
        "seeds            {} ({} failed)",
        stats.seeds,
        summary.failures.len()
    );
    println!(
        "simulated        {:.2} h ({:.0} s per seed)",
        simulated / 3600.0,
        simulated / stats.seeds.max(1) as f64
    );
    println!(
        "wall             {seconds:.1} s ({:.0} times real time)",
        simulated / seconds
    );
    println!(
        "events           {} ({:.0}/s), {} replica steps",
        stats.events,
        stats.events as f64 / seconds,
        stats.steps
    );
    println!(
        "operations       {}, {} keep-alives answered",
        stats.operations, stats.keep_alives
    );
    println!(
        "entries          {} committed, {} backbone leaders",
        stats.entries, stats.leaders
    );
    println!(
        "resource writes  {} taken, {} fenced",
        stats.writes_taken, stats.writes_fenced
    );
    println!("checked:");
    for (checker, count) in &stats.checks {
        println!("  {count:>12}  {checker}");
    }
    println!("faults:");
    for (kind, count) in &stats.faults {
        println!("  {count:>12}  {kind}");
    }
    println!("trace hash       {:016x}", summary.trace_hash);
}
