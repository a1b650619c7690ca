//! The same seed is the same run, in one process and in two.

use std::process::Command;

use quorate_sim::run::run_seed;

#[test]
fn a_seed_runs_clean_and_the_same_twice() {
    for (seed, replicas) in [(1, 3), (2, 5), (3, 1)] {
        let (first, second) = (
            run_seed(seed, Some(replicas), false),
            run_seed(seed, Some(replicas), false),
        );
        assert_eq!(first.violation, None, "seed {seed}");
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        let stats = first.stats;
        assert!(stats.simulated.as_secs() >= 9, "{stats:?}");
        assert!(stats.operations >= 150, "{stats:?}");
        assert!(
            stats.entries > 100 && stats.tenures > 10 && stats.writes_taken > 10,
            "{stats:?}"
        );
    }
}

#[test]
fn two_processes_print_the_same_trace_and_hash() {
    let run = |seed: &str, replicas: &str, trace: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
            .args(["--seed", seed, "--replicas", replicas])
            .args(trace)
            .output()
            .expect("the simulator starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        // How long it took is real time: the one thing that may differ.
        let text = String::from_utf8(output.stdout).expect("the simulator prints text");
        text.lines()
            .filter(|line| !line.starts_with("wall") && !line.starts_with("events"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    for (seed, replicas) in [("7", "3"), ("8", "1"), ("9", "5"), ("10", "7")] {
        let first = run(seed, replicas, &["--trace"]);
        assert!(
            first.starts_with(&format!("seed {seed}\n")),
            "it comes first"
        );
        let lines = first.lines().count();
        assert!(lines > 2_000, "{lines} lines tell what happened");
        // Not `assert_eq`, which would print both.
        let same = first == run(seed, replicas, &["--trace"]);
        assert!(same, "seed {seed}: another process, another trace");
        let last = |text: &str| text.lines().last().map(str::to_owned);
        let unprinted = run(seed, replicas, &[]);
        assert_eq!(last(&first), last(&unprinted), "printing changes nothing");
    }
}

#[test]
fn wrong_usage_says_what_is_right() {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
        .output()
        .expect("the simulator starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--seeds A..B"));
}
