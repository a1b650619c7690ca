//! `quorate contend`: COMMAND runs only while its group is led, and never outlives the lease.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Cluster, Process, eventually, is_alive, run};

/// COMMAND: notes its start with what it was given, and its being asked to stop.
const NOTING: &str = r#"
trap 'echo "stopping $QUORATE_GROUP" >> "$NOTES"; exit 0' TERM
echo "leads $QUORATE_GROUP $QUORATE_TENURE $QUORATE_FENCING_TOKEN $$" >> "$NOTES"
while :; do sleep 0.05; done
"#;

fn notes(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// What a `leads` line says: group, tenure, token, process.
fn leads(line: &str) -> Option<(String, u64, u64, u32)> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["leads", group, tenure, token, process] => Some((
            group.to_owned(),
            tenure.parse().ok()?,
            token.parse().ok()?,
            process.parse().ok()?,
        )),
        _ => None,
    }
}

struct Contender {
    process: Process,
    notes: PathBuf,
}

impl Contender {
    fn start(cluster: &Cluster, name: &str, more: &[&str], group: &str, script: &str) -> Self {
        let notes = cluster.directory().join(format!("{name}.notes"));
        let mut command = cluster.quorate(&["contend", "--create", "--name", name, "--ttl", "2s"]);
        command
            .args(more)
            .args([group, "--", "sh", "-c", script])
            .env("NOTES", &notes);
        let log = std::fs::File::create(cluster.directory().join(format!("{name}.log"))).unwrap();
        Self {
            process: Process::spawn(command.stdout(Stdio::null()).stderr(log)),
            notes,
        }
    }

    /// Waits until COMMAND runs; its process and token.
    fn wait_leads(&self) -> (u32, u64) {
        eventually("COMMAND runs", || {
            notes(&self.notes)
                .iter()
                .rev()
                .find_map(|line| leads(line))
                .map(|led| (led.3, led.2))
        })
    }
}

#[test]
fn command_learns_its_tenure_and_its_exit_code_is_passed_on() {
    let cluster = Cluster::start();
    let script =
        "echo $QUORATE_GROUP $QUORATE_TENURE; test -n \"$QUORATE_FENCING_TOKEN\" && exit 3";
    let said = cluster.run(&[
        "contend",
        "--create",
        "jobs/nightly",
        "--",
        "sh",
        "-c",
        script,
    ]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (3, "jobs/nightly 1\n"),
        "{said:?}"
    );
    // Released, not expired: nobody has to wait for the next run.
    let begin = Instant::now();
    let said = cluster.run(&[
        "elect",
        "jobs/nightly",
        "--",
        "sh",
        "-c",
        "echo $QUORATE_TENURE",
    ]);
    assert_eq!((said.code, said.out.as_str()), (0, "2\n"), "{said:?}");
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );

    assert_eq!(
        cluster
            .run(&["contend", "jobs/nightly", "--", "/nowhere/at/all"])
            .code,
        127
    );
    assert_eq!(
        cluster
            .run(&["contend", "jobs/nightly", "--", "sh", "-c", "kill -9 $$"])
            .code,
        137
    );
    let said = cluster.run(&["contend", "jobs/unknown", "--", "true"]);
    said.fails(3, "jobs/unknown");
    said.hints("--create");
}

#[test]
fn several_groups_have_a_command_each_and_the_first_failure_is_the_exit_code() {
    let cluster = Cluster::start();
    let script = "echo $QUORATE_GROUP; case $QUORATE_GROUP in b) exit 4;; esac";
    let said = cluster.run(&[
        "contend", "--create", "a", "b", "c", "--", "sh", "-c", script,
    ]);
    assert_eq!(said.code, 4, "{said:?}");
    let mut lines: Vec<&str> = said.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b", "c"]);
}

#[test]
fn command_dies_with_a_wrapper_that_is_killed() {
    let cluster = Cluster::start();
    // Ignores SIGTERM, and leaves a process behind in a session of its own.
    let script = r#"trap '' TERM
        setsid sh -c 'trap "" TERM; echo "leads escaped 0 0 $$" >> "$NOTES.escaped"; sleep 1000' &
        echo "leads $QUORATE_GROUP $QUORATE_TENURE $QUORATE_FENCING_TOKEN $$" >> "$NOTES"
        while :; do sleep 0.05; done"#;
    let mut contender = Contender::start(&cluster, "n1", &[], "g", script);
    let (child, _) = contender.wait_leads();
    let escaped = contender.notes.with_extension("notes.escaped");
    let grandchild = eventually("the grandchild runs", || {
        notes(&escaped).first().and_then(|line| leads(line))
    })
    .3;
    assert!(is_alive(child) && is_alive(grandchild));
    let killed = Instant::now();
    contender.process.kill();
    eventually("COMMAND is gone", || (!is_alive(child)).then_some(()));
    // Within the lease that was left, even though it ignores SIGTERM.
    assert!(
        killed.elapsed() < Duration::from_secs(2),
        "{:?}",
        killed.elapsed()
    );
    eventually("what it left behind is gone", || {
        (!is_alive(grandchild)).then_some(())
    });
}

#[test]
fn command_is_dead_before_another_leads_when_its_wrapper_is_stopped() {
    let cluster = Cluster::start();
    // Ignores SIGTERM: only the guard's SIGKILL ends it.
    let stubborn = r#"trap '' TERM
        echo "leads $QUORATE_GROUP $QUORATE_TENURE $QUORATE_FENCING_TOKEN $$" >> "$NOTES"
        while :; do sleep 0.05; done"#;
    let first = Contender::start(&cluster, "n1", &[], "g", stubborn);
    let (child, token) = first.wait_leads();
    // Says at once whether the other's COMMAND is still there.
    let looking = format!(
        "test -d /proc/{child} && grep -qv ' Z ' /proc/{child}/stat && echo 'two at once' >> \"$NOTES\"\n{NOTING}"
    );
    let second = Contender::start(&cluster, "n2", &[], "g", &looking);
    eventually("the second stands", || {
        (cluster.run(&["group", "show", "g"]).out.contains("n2")).then_some(())
    });
    first.process.signal(Signal::STOP);
    let (_, newer) = second.wait_leads();
    assert!(newer > token);
    assert!(!is_alive(child));
    assert!(
        !notes(&second.notes).contains(&"two at once".to_owned()),
        "{:?}",
        notes(&second.notes)
    );
    first.process.signal(Signal::CONT);
    // It stands again under a new session, and takes over when the other goes.
    drop(second);
    eventually("the first leads again", || {
        notes(&first.notes)
            .iter()
            .filter_map(|line| leads(line))
            .nth(1)
    });
}

#[test]
fn a_transfer_stops_command_before_the_next_one_starts() {
    let cluster = Cluster::start();
    cluster
        .run(&[
            "group",
            "create",
            "g",
            "--minimum-tenure",
            "0ms",
            "--spread",
            "false",
        ])
        .ok();
    let first = Contender::start(&cluster, "n1", &[], "g", NOTING);
    let (child, token) = first.wait_leads();
    let looking = format!(
        "test -d /proc/{child} && grep -qv ' Z ' /proc/{child}/stat && echo 'two at once' >> \"$NOTES\"\n{NOTING}"
    );
    let second = Contender::start(&cluster, "n2", &[], "g", &looking);
    eventually("the second stands", || {
        (cluster.run(&["group", "show", "g"]).out.contains("n2")).then_some(())
    });
    let said = cluster
        .run(&["group", "transfer", "g", "--to", "n2", "-o", "json"])
        .ok();
    let moved: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (moved["from"].as_str(), moved["to"].as_str()),
        (Some("n1"), Some("n2")),
        "{moved}"
    );
    assert!(moved["gap_ms"].is_number());
    let (_, newer) = second.wait_leads();
    assert!(newer > token);
    assert!(notes(&first.notes).contains(&"stopping g".to_owned()));
    assert!(!notes(&second.notes).contains(&"two at once".to_owned()));
    assert!(!is_alive(child));
    // The first one still stands.
    let text = cluster.run(&["group", "transfer", "g", "--to", "n1"]).ok();
    assert!(
        text.contains("n2 -> n1") && text.contains("without a holder for"),
        "{text}"
    );
    eventually("the first leads again", || {
        notes(&first.notes)
            .iter()
            .filter_map(|line| leads(line))
            .nth(1)
    });
    let text = cluster.run(&["group", "transfer", "g", "--to", "n1"]).ok();
    assert!(text.contains("is led by `n1` already"), "{text}");
}

#[test]
fn once_ends_with_code_7_when_leadership_is_lost_and_0_when_it_is_handed_over() {
    let cluster = Cluster::start();
    let mut lost = Contender::start(&cluster, "n1", &["--once"], "g", NOTING);
    let (child, _) = lost.wait_leads();
    let nodes: serde_json::Value =
        serde_json::from_str(&cluster.run(&["node", "list", "-o", "json"]).ok()).unwrap();
    let session = nodes[0]["session"]["id"].to_string();
    cluster.run(&["session", "revoke", &session, "--yes"]).ok();
    assert_eq!(lost.process.wait(), 7);
    assert!(!is_alive(child));

    let mut handed = Contender::start(&cluster, "n2", &["--once"], "h", NOTING);
    handed.wait_leads();
    let other = Contender::start(&cluster, "n3", &[], "h", NOTING);
    eventually("the other stands", || {
        (cluster.run(&["group", "show", "h"]).out.contains("n3")).then_some(())
    });
    cluster.run(&["group", "transfer", "h", "--to", "n3"]).ok();
    assert_eq!(handed.process.wait(), 0);
    drop(other);
}

#[test]
fn sigterm_stops_command_in_good_order_and_frees_the_group_at_once() {
    let cluster = Cluster::start();
    let mut contender = Contender::start(&cluster, "n1", &[], "g", NOTING);
    let (child, _) = contender.wait_leads();
    contender.process.signal(Signal::TERM);
    assert_eq!(contender.process.wait(), 128 + 15);
    assert!(!is_alive(child));
    assert!(notes(&contender.notes).contains(&"stopping g".to_owned()));
    let text =
        run(&mut cluster.quorate(&["group", "wait", "g", "--vacant", "--timeout", "1s"])).ok();
    assert!(text.contains("vacant"), "{text}");
    let nodes = cluster.run(&["node", "list", "-o", "json"]).ok();
    assert_eq!(nodes.trim(), "[]", "the session was closed");
}

#[test]
fn without_any_server_command_is_stopped_before_its_lease_ends() {
    let mut cluster = Cluster::start();
    let contender = Contender::start(&cluster, "n1", &[], "g", NOTING);
    let (child, _) = contender.wait_leads();
    let cut = Instant::now();
    for n in 0..3 {
        cluster.kill_server(n);
    }
    eventually("COMMAND is stopped", || (!is_alive(child)).then_some(()));
    assert!(
        cut.elapsed() < Duration::from_secs(2),
        "{:?}",
        cut.elapsed()
    );
    assert!(
        notes(&contender.notes).contains(&"stopping g".to_owned()),
        "it had time to stop by itself"
    );
    // The session outlives the servers' absence where they come back soon enough, or else a new one is opened.
    for n in 0..3 {
        cluster.start_server(n);
    }
    eventually("COMMAND runs again", || {
        notes(&contender.notes)
            .iter()
            .filter_map(|line| leads(line))
            .nth(1)
    });
}

#[test]
fn contend_does_not_need_a_terminal_or_a_shell() {
    let cluster = Cluster::start();
    let mut command: Command = cluster.quorate(&["contend", "--create", "g", "--", "cat"]);
    // Standard input of COMMAND is empty: it ends at once.
    assert_eq!(run(command.stdin(Stdio::piped())).code, 0);
}
