//! Commands against three servers: what they print, their exit codes, their hints.

use std::process::Stdio;

use rustix::process::Signal;

use crate::harness::{Cluster, quorate, run};
use crate::snapshot::{check, steady};

/// Runs each line as a command; gives a transcript.
fn transcript(cluster: &Cluster, script: &str) -> String {
    let mut out = String::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let words: Vec<&str> = line.split(' ').collect();
        let said = cluster.run(&words);
        out.push_str(&format!("$ quorate {line}\n{}{}", said.out, said.err));
        if said.code != 0 {
            out.push_str(&format!("[exit code {}]\n", said.code));
        }
        out.push('\n');
    }
    steady(&out)
}

#[test]
fn groups_are_created_shown_changed_and_deleted() {
    let cluster = Cluster::start();
    let file = cluster.directory().join("groups.toml");
    std::fs::write(
        &file,
        "[[group]]\nname = 'jobs/a'\n[[group]]\nname = 'jobs/b'\nminimum_tenure_ms = 7\n",
    )
    .unwrap();
    let script = format!(
        "group create jobs/a jobs/c --handover-deadline 3s
        group list
        group list jobs/c -o json
        group create jobs/a
        group create jobs/x jobs/a
        group list jobs/x
        group update jobs/a --readiness true --dry-run
        group update jobs/a --readiness true
        group update jobs/a --readiness true
        group update jobs/a --readiness false --if-revision 1
        group update jobs/a --answers-min 2
        group show jobs/a
        group show jobs/nowhere
        group delete jobs/a --if-revision 1
        group delete jobs/c --dry-run
        group delete jobs/c
        group delete jobs/c
        group apply -f {file} --dry-run
        group apply -f {file}
        group apply -f {file} -o json
        group transfer jobs/b
        group transfer jobs/b --abort
        group wait jobs/b --timeout 100ms
        group wait jobs/nowhere
        group rebalance --dry-run
        group rebalance
        node list
        node show n1
        node drain n1
        session revoke 77
        why jobs/b",
        file = file.display()
    );
    let text =
        transcript(&cluster, &script).replace(&cluster.directory().display().to_string(), "DIR");
    check("groups.txt", &text);
}

#[test]
fn the_contract_is_printed_as_the_cluster_follows_it() {
    let cluster = Cluster::start();
    let text = cluster.run(&["contract"]).ok();
    let row = text
        .lines()
        .find(|line| line.contains("waited_out"))
        .unwrap();
    assert!(
        row.starts_with("revoking") && row.contains("vacant"),
        "{row}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&cluster.run(&["contract", "-o", "json"]).ok()).unwrap();
    assert_eq!(
        json["transitions"].as_array().unwrap().len(),
        text.lines().count() - 2
    );
}

#[test]
fn status_names_every_server_and_the_one_that_is_down() {
    let mut cluster = Cluster::start();
    let all: serde_json::Value =
        serde_json::from_str(&cluster.run(&["status", "-o", "json"]).ok()).unwrap();
    let servers = all["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 3);
    let leaders = servers
        .iter()
        .filter(|server| server["status"]["role"] == "leader")
        .count();
    assert_eq!(leaders, 1, "{all}");

    cluster.kill_server(2);
    let text = cluster.run(&["status"]).ok();
    assert!(text.contains("unreachable"), "{text}");
    // One endpoint is enough: it names the others.
    let one = run(quorate().args(["--endpoints", &cluster.endpoint(0), "status"])).ok();
    assert!(one.contains("s1") && one.contains("s2"), "{one}");
    let only = run(quorate().args([
        "--endpoints",
        &cluster.endpoint(0),
        "status",
        "--only-endpoints",
        "-o",
        "json",
    ]))
    .ok();
    let only: serde_json::Value = serde_json::from_str(&only).unwrap();
    assert_eq!(only["servers"].as_array().unwrap().len(), 1);
}

#[test]
fn the_backbones_leadership_is_handed_over_by_order() {
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let leader = runtime.block_on(cluster.leader());
    let to = (leader + 1) % 3;
    cluster
        .run(&["transfer-leader", "--to", "s9"])
        .fails(3, "`s9` is not a member");
    cluster
        .run(&["transfer-leader", "--to", &format!("s{}", to + 1)])
        .ok();
    crate::harness::eventually("the named server leads", || {
        (runtime.block_on(cluster.leader()) == to).then_some(())
    });
}

#[test]
fn wrong_usage_is_code_2_and_does_nothing() {
    let check = |arguments: &[&str], needle: &str| run(quorate().args(arguments)).fails(2, needle);
    check(&["group", "frobnicate"], "frobnicate");
    check(&["group", "list", "--timeout", "soon"], "`soon` is no time");
    check(&["group", "show", ""], "the name is empty");
    check(&["group", "show", &"x".repeat(513)], "at most 512");
    check(&["group", "create", "a\u{7}b"], "control character");
    check(&["node", "drain", "a\nb"], "control character");
    check(
        &["--cacert", "/nowhere.pem", "status"],
        "read `/nowhere.pem`",
    );
    check(
        &["group", "apply", "-f", "/nowhere.json"],
        "read `/nowhere.json`",
    );
    check(
        &[
            "contend",
            "g",
            "--ttl",
            "1s",
            "--term-before",
            "900ms",
            "--",
            "true",
        ],
        "--term-before",
    );
    run(quorate().args(["--endpoints", "http://[", "group", "list"])).fails(2, "");
}

#[test]
fn nobody_there_is_code_5_with_a_hint_and_soon() {
    let nobody = format!("http://127.0.0.1:{}", crate::harness::free_ports(1)[0]);
    let begin = std::time::Instant::now();
    for command in [
        vec!["group", "create", "a"],
        vec!["group", "list"],
        vec!["status"],
        vec!["contract"],
    ] {
        let said = run(quorate()
            .args(["--endpoints", &nobody, "--timeout", "500ms"])
            .args(&command));
        said.fails(5, "127.0.0.1");
        said.hints("--endpoints");
    }
    assert!(begin.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn what_may_have_been_applied_is_code_6_and_is_never_called_failed() {
    let mut cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let leader = runtime.block_on(cluster.leader());
    // The leader takes the change, but nobody is there to make it durable with.
    for n in (0..3).filter(|n| *n != leader) {
        cluster.server(n).signal(Signal::STOP);
    }
    let said = run(quorate().args([
        "--endpoints",
        &cluster.endpoint(leader),
        "--timeout",
        "1s",
        "group",
        "create",
        "maybe",
    ]));
    said.fails(6, "may have been applied");
    said.hints("look whether it was done");
    for n in (0..3).filter(|n| *n != leader) {
        cluster.server(n).signal(Signal::CONT);
    }
}

#[test]
fn limits_are_refused_by_name_and_leave_nothing_behind() {
    let cluster = Cluster::start();
    let label = format!("k={}", "v".repeat(70_000));
    cluster
        .run(&["group", "create", "big", "--require", &label])
        .fails(2, "65536");
    for ttl in ["99ms", "25h"] {
        cluster
            .run(&["contend", "big", "--create", "--ttl", ttl, "--", "true"])
            .fails(2, "TTL");
    }
    cluster
        .run(&["group", "update", "nope", "--spread", "false"])
        .fails(3, "does not exist");
    let left = cluster.run(&["group", "list", "-o", "json"]).ok();
    let left: serde_json::Value = serde_json::from_str(&left).unwrap();
    // `contend --create` had created its group before the TTL was refused; no session is left.
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(
        cluster.run(&["node", "list", "-o", "json"]).ok().trim(),
        "[]"
    );
}

#[test]
fn the_environment_gives_flags_and_flags_win() {
    let cluster = Cluster::start();
    let endpoints = cluster.endpoints().join(",");
    let json = run(quorate()
        .env("QUORATE_ENDPOINTS", &endpoints)
        .env("QUORATE_OUTPUT", "json")
        .args(["group", "list"]))
    .ok();
    assert_eq!(json.trim(), "[]");
    let table = run(quorate()
        .env("QUORATE_ENDPOINTS", &endpoints)
        .env("QUORATE_OUTPUT", "json")
        .args(["group", "list", "-o", "table"]))
    .ok();
    assert!(table.starts_with("GROUP"), "{table}");
}

#[test]
fn help_version_and_completion_need_no_server() {
    let help = run(quorate().arg("--help")).ok();
    check("help.txt", &help);
    let version = run(quorate().args(["version", "-o", "json"])).ok();
    let version: serde_json::Value = serde_json::from_str(&version).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    for (shell, needle) in [
        ("bash", "_quorate"),
        ("zsh", "#compdef quorate"),
        ("fish", "complete -c quorate"),
    ] {
        let script = run(quorate().args(["completion", shell])).ok();
        assert!(script.contains(needle), "{shell}");
        assert!(
            !script.contains("__guard"),
            "hidden commands are not completed in {shell}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = quorate()
        .args(["completion", "bash"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
}
