//! `quorate kv`: the same transcript against servers of ours and against a real etcd.

use std::process::Command;

use crate::etcd::Etcd;
use crate::harness::{Cluster, Process, eventually, run, said};
use crate::snapshot::check;

/// Runs each line through a shell, where `quorate` is the binary under test; gives a transcript.
fn transcript(quorate: impl Fn(&[&str]) -> Command, script: &str) -> String {
    let mut out = String::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let mut command = quorate(&[]);
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        // Endpoints; not with whom to die, which is not the shell.
        let before = arguments
            .iter()
            .skip(2)
            .map(|a| a.to_string_lossy().into_owned());
        let before: Vec<String> = before.collect();
        let shell = format!(
            "q() {{ {} {} \"$@\"; }}; {}",
            program.to_string_lossy(),
            before.join(" "),
            line.replace("quorate ", "q ")
        );
        command = Command::new("bash");
        command
            .args(["-c", &shell])
            .stdin(std::process::Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUORATE_")) {
            command.env_remove(name);
        }
        let said = said(&command.output().expect("bash runs"));
        out.push_str(&format!("$ {line}\n{}{}", said.out, said.err));
        if said.code != 0 {
            out.push_str(&format!("[exit code {}]\n", said.code));
        }
        out.push('\n');
    }
    out
}

const SCRIPT: &str = r#"
    quorate kv put config/a 1
    quorate kv put config/a 2 --prev
    quorate kv put config/b 'x y' -o json
    quorate kv get config/a
    quorate kv get config/ --prefix -o json
    quorate kv get config/ --prefix --keys-only --limit 1
    quorate kv get config/a --rev 2 --value-only
    quorate kv get nope
    quorate kv get ''
    quorate kv get config/ --prefix --count-only
    quorate kv get a z --sort mod --descending
    quorate kv put ff00 00ff --encoding hex
    quorate kv get /wA= --encoding base64 -o json
    quorate kv get xyz --encoding hex
    quorate kv get '' --prefix
    quorate kv put x y --lease 77
    quorate kv put x y --lease never
    quorate kv put nope --ignore-value
    quorate kv del nope
    quorate kv del config/ --prefix --dry-run
    quorate kv txn --if 'version(jobs/1) = 0' --then 'put jobs/1 n1' --then 'get config/ --prefix' --else 'get jobs/1'
    quorate kv txn --if 'version(jobs/1) = 0' --then 'put jobs/1 n1' --else 'get jobs/1' -o json
    quorate kv txn --if 'version(jobs/1) = 0' --then 'put jobs/1 n1'
    printf 'if\n value(jobs/1) = n1\n version(prefix config/) > 0\nthen\n del jobs/1 --prev\n put jobs/2 "a\\nb"\n' | quorate kv txn
    quorate kv txn --if 'version(jobs/1' --then 'put a 1'
    quorate kv watch config/ --prefix --rev 1 --changes 3 --prev
    quorate kv watch jobs/ --prefix --rev 1 --only deletes --changes 1 -o json
    quorate kv compact 4 --dry-run
    quorate kv compact 4
    quorate kv compact 4
    quorate kv compact 400
    quorate kv get config/a --rev 2
    quorate kv get config/a --rev 200
    quorate kv watch config/ --prefix --rev 1
    quorate kv del config/ --prefix --prev --yes
    echo -n 'from standard input' | quorate kv put s
    quorate kv get s --value-only
"#;

#[test]
fn the_key_space_is_read_written_and_watched() {
    let cluster = Cluster::start();
    check(
        "kv.txt",
        &transcript(|arguments| cluster.quorate(arguments), SCRIPT),
    );
}

#[test]
fn etcd_answers_the_same() {
    let Some(etcd) = Etcd::start() else { return };
    check(
        "kv.txt",
        &transcript(|arguments| etcd.quorate(arguments), SCRIPT),
    );
}

#[test]
fn a_watch_goes_on_without_a_gap_when_its_server_is_killed() {
    let mut cluster = Cluster::start();
    let out = cluster.directory().join("watched");
    let file = std::fs::File::create(&out).unwrap();
    let watch = [
        "kv",
        "watch",
        "n/",
        "--prefix",
        "-o",
        "json",
        "--changes",
        "40",
    ];
    let mut watching = Process::spawn(cluster.quorate(&watch).stdout(file));
    let lines = || std::fs::read_to_string(&out).unwrap_or_default();
    eventually("it watches", || {
        lines().contains("watching_from").then_some(())
    });
    for n in 0..40 {
        let arguments = ["kv", "put", &format!("n/{n:02}"), "x"];
        let arguments: Vec<&str> = arguments.iter().map(|a| &**a).collect();
        // Of unknown outcome where the server that was asked is killed meanwhile: put again.
        eventually("it is put", || {
            (cluster.run(&arguments).code == 0).then_some(())
        });
        if n % 15 == 7 {
            let killed = n / 15;
            cluster.kill_server(killed);
            cluster.start_server(killed);
        }
    }
    assert_eq!(watching.wait(), 0);
    let text = lines();
    let changes = text.lines().skip(1).map(|line| {
        let change: serde_json::Value = serde_json::from_str(line).unwrap();
        (
            change["revision"].as_u64().unwrap(),
            change["key"].as_str().unwrap().to_owned(),
        )
    });
    let changes: Vec<(u64, String)> = changes.collect();
    // In order, each once, none left out.
    assert!(
        changes.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "{changes:?}"
    );
    let mut keys: Vec<String> = changes.into_iter().map(|(_, key)| key).collect();
    keys.dedup();
    let expected: Vec<String> = (0..keys.len()).map(|n| format!("n/{n:02}")).collect();
    assert_eq!(keys, expected);
}

#[test]
fn a_write_whose_server_cannot_commit_it_is_of_unknown_outcome() {
    let mut cluster = Cluster::start();
    let leader = tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(cluster.leader());
    for n in (0..3).filter(|n| *n != leader) {
        cluster.server(n).signal(rustix::process::Signal::STOP);
    }
    let endpoint = cluster.endpoint(leader);
    let said = run(crate::harness::quorate().args([
        "--endpoints",
        &endpoint,
        "--timeout",
        "1s",
        "kv",
        "put",
        "a",
        "1",
    ]));
    said.fails(6, "may have been applied");
    said.hints("look whether it was done");
    let said = run(crate::harness::quorate().args([
        "--endpoints",
        &endpoint,
        "--timeout",
        "1s",
        "kv",
        "get",
        "a",
    ]));
    assert_eq!(said.code, 5, "{said:?}");
}

const LEASES: &str = r#"
    quorate lease grant 600s --id 4d
    quorate lease grant 10m --id 0x4e -o json
    quorate lease grant 600 --id 4d
    quorate lease grant 1500ms
    quorate lease grant 0
    quorate lease list
    quorate kv put members/n1 up --lease 4d
    quorate kv put members/n2 up --lease 4d
    quorate lease ttl 4d | sed 's/[0-9]* s left/N s left/'
    quorate lease ttl 4d --keys | sed 's/[0-9]* s left/N s left/'
    quorate lease ttl 4d --keys --encoding hex -o json | sed 's/seconds": [0-9]*/seconds": N/'
    quorate lease ttl s78 | sed 's/[0-9]* s left/N s left/'
    quorate lease ttl 999
    quorate lease keep-alive 4d --once
    quorate lease keep-alive 4d --once -o json
    quorate lease keep-alive 999
    quorate lease keep-alive nonsense
    quorate lease revoke 4d --dry-run
    quorate lease revoke 4d
    quorate lease revoke 4d
    quorate lease revoke 4e -o json
    quorate kv get members/ --prefix --count-only
    quorate lease list -o json
"#;

#[test]
fn leases_are_granted_kept_shown_and_revoked() {
    let cluster = Cluster::start();
    let transcript = transcript(|arguments| cluster.quorate(arguments), LEASES);
    check("lease.txt", &transcript);
}

#[test]
fn etcd_answers_the_same_of_leases() {
    let Some(etcd) = Etcd::start() else { return };
    let transcript = transcript(|arguments| etcd.quorate(arguments), LEASES);
    check("lease.txt", &transcript);
}

#[test]
fn a_lease_is_kept_alive_until_it_is_revoked_by_another() {
    let cluster = Cluster::start();
    cluster.run(&["lease", "grant", "1s", "--id", "7"]).ok();
    let out = cluster.directory().join("kept");
    let file = std::fs::File::create(&out).unwrap();
    let mut keeping = Process::spawn(cluster.quorate(&["lease", "keep-alive", "7"]).stdout(file));
    // So often that it would have ended several times.
    eventually("it is kept alive", || {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        (text.lines().count() > 8).then_some(())
    });
    cluster.run(&["lease", "revoke", "7"]).ok();
    assert_eq!(keeping.wait(), 3);
}
