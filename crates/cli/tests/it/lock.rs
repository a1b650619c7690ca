//! `quorate lock`: COMMAND runs only while the lock is held, and one at a time has it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Cluster, Process, eventually, is_alive};

/// COMMAND: notes its process and token.
const NOTING: &str = r#"echo "$QUORATE_LOCK_NAME $QUORATE_FENCING_TOKEN $$" >> "$NOTES"; while :; do sleep 0.05; done"#;

struct Locker {
    process: Process,
    notes: std::path::PathBuf,
}

impl Locker {
    fn start(cluster: &Cluster, name: &str) -> Self {
        let notes = cluster.directory().join(format!("{name}.notes"));
        let mut command = cluster.quorate(&["lock", "l", "--ttl", "2s", "--", "sh", "-c", NOTING]);
        let log = std::fs::File::create(cluster.directory().join(format!("{name}.log"))).unwrap();
        command
            .env("NOTES", &notes)
            .stdout(Stdio::null())
            .stderr(log);
        Self {
            process: Process::spawn(&mut command),
            notes,
        }
    }

    fn held(&self) -> Option<(u64, u32)> {
        let text = std::fs::read_to_string(&self.notes).unwrap_or_default();
        let words: Vec<&str> = text.lines().next()?.split(' ').collect();
        Some((words[1].parse().unwrap(), words[2].parse().unwrap()))
    }

    /// Waits until COMMAND runs; its token and process.
    fn wait_held(&self) -> (u64, u32) {
        eventually("COMMAND runs", || self.held())
    }
}

#[test]
fn command_runs_under_the_lock_and_its_exit_code_is_passed_on() {
    let cluster = Cluster::start();
    let script = "echo $QUORATE_LOCK_NAME; test -n \"$QUORATE_FENCING_TOKEN\" && exit 3";
    let said = cluster.run(&["lock", "jobs/nightly", "--", "sh", "-c", script]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (3, "jobs/nightly\n"),
        "{said:?}"
    );
    // Let go, not expired: nobody has to wait for the next run.
    let begin = Instant::now();
    cluster
        .run(&["lock", "jobs/nightly", "--wait", "0s", "--", "true"])
        .ok();
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(
        cluster.run(&["lock", "l", "--", "/nowhere/at/all"]).code,
        127
    );
}

#[test]
fn the_next_one_has_the_lock_with_a_higher_token_when_the_holder_is_killed() {
    let cluster = Cluster::start();
    let mut first = Locker::start(&cluster, "n1");
    let (token, command) = first.wait_held();
    let said = cluster.run(&["lock", "l", "--wait", "0s", "--", "true"]);
    said.fails(4, "another holds it");
    cluster
        .run(&["lock", "l", "--wait", "300ms", "--", "true"])
        .fails(4, "was not free");
    let second = Locker::start(&cluster, "n2");
    first.process.kill();
    let (newer, _) = second.wait_held();
    assert!(newer > token, "{newer} after {token}");
    assert!(!is_alive(command), "the first COMMAND still runs");
}

#[test]
fn command_is_dead_before_another_has_the_lock_of_a_holder_that_is_stopped() {
    let cluster = Cluster::start();
    let first = Locker::start(&cluster, "n1");
    let (_, command) = first.wait_held();
    let second = Locker::start(&cluster, "n2");
    first.process.signal(Signal::STOP);
    second.wait_held();
    assert!(!is_alive(command), "two at once");
    first.process.signal(Signal::CONT);
}

#[test]
fn a_lock_whose_key_is_deleted_is_lost() {
    let cluster = Cluster::start();
    let mut first = Locker::start(&cluster, "n1");
    let (_, command) = first.wait_held();
    cluster.run(&["kv", "del", "l/", "--prefix", "--yes"]).ok();
    assert_eq!(first.process.wait(), 7);
    assert!(!is_alive(command));
}

#[test]
fn a_lock_without_a_command_is_held_until_it_is_stopped() {
    let cluster = Cluster::start();
    let out = cluster.directory().join("held");
    let file = std::fs::File::create(&out).unwrap();
    let mut holding = Process::spawn(cluster.quorate(&["lock", "l", "-o", "json"]).stdout(file));
    let text = eventually("it is held", || {
        let text = std::fs::read_to_string(&out).unwrap();
        text.ends_with('\n').then_some(text)
    });
    let held: serde_json::Value = serde_json::from_str(&text).unwrap();
    let key = held["key"].as_str().unwrap();
    let pair = cluster.run(&["kv", "get", key, "-o", "json"]).ok();
    let pair: serde_json::Value = serde_json::from_str(&pair).unwrap();
    assert_eq!(pair["pairs"][0]["create_revision"], held["fencing_token"]);
    holding.signal(Signal::TERM);
    assert_eq!(holding.wait(), 128 + 15);
    assert_eq!(cluster.run(&["kv", "get", key]).code, 3);
}
