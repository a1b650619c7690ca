//! `quorate snapshot`: saved under load, restored as another cluster, which the old one is kept apart from.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Cluster, eventually, quorate, run};

/// The options by which server `n` of a cluster is run, without the program and `server`.
fn server_options(cluster: &Cluster, n: usize) -> Vec<std::ffi::OsString> {
    let command = cluster.server_command(n);
    let all = command.get_args().map(ToOwned::to_owned);
    all.skip_while(|argument| argument != "server")
        .skip(1)
        .collect()
}

#[test]
fn a_snapshot_saved_under_load_is_restored_as_another_cluster() {
    let mut old = Cluster::start();
    old.run(&["kv", "put", "before", "1"]).ok();
    old.run(&["group", "create", "g"]).ok();
    let file = old.directory().join("saved");
    let file = file.to_str().unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                n += 1;
                old.run(&["kv", "put", "load", &n.to_string()]);
            }
        });
        eventually("writes go on", || {
            (old.run(&["kv", "get", "load"]).code == 0).then_some(())
        });
        old.run(&["snapshot", "save", file]).ok();
        stop.store(true, Ordering::SeqCst);
    });
    let status = run(quorate().args(["snapshot", "status", file, "-o", "json"])).ok();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(
        (&status["epoch"], &status["groups"]),
        (&0.into(), &1.into()),
        "{status}"
    );
    let saved_revision = status["kv_revision"].as_u64().unwrap();

    // The same members at the same addresses; one server of the old cluster is still there.
    let mut new = old.moved();
    let restore = |n: usize| {
        let mut command = quorate();
        command.args(["snapshot", "restore", file, "--ttl-longest", "1s"]);
        run(command.args(server_options(&new, n)))
    };
    for n in 0..3 {
        restore(n).ok();
        // Nothing is overwritten.
        restore(n).fails(4, "is not empty");
    }
    old.kill_server(0);
    old.kill_server(1);
    new.start_server(0);
    new.start_server(1);
    let endpoints = [new.endpoint(0), new.endpoint(1)].join(",");
    let ask = |arguments: &[&str]| run(quorate().args(["--endpoints", &endpoints]).args(arguments));
    let found = eventually("the restored servers answer", || {
        let said = ask(&["kv", "get", "before", "-o", "json"]);
        (said.code == 0).then_some(said.out)
    });
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["pairs"][0]["value"], "1");
    let revision = found["revision"].as_u64().unwrap();
    assert!(revision > saved_revision + (1 << 40), "{revision}");
    assert_eq!(
        ask(&["group", "list", "-o", "json"])
            .ok()
            .matches("\"name\"")
            .count(),
        1
    );
    // A server of the old cluster knocks, and is turned away.
    eventually("the old server is refused", || {
        let log = std::fs::read_to_string(new.log_path(0)).unwrap_or_default();
        (log.contains("epoch") && log.contains("restored by disaster recovery")).then_some(())
    });
    ask(&["kv", "put", "after", "2"]).ok();
    let said = ask(&["kv", "watch", "before", "--rev", "2", "--changes", "1"]);
    assert_eq!(
        said.code, 3,
        "history before the restore is compacted: {said:?}"
    );
}

#[test]
fn what_is_no_snapshot_or_is_damaged_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "no snapshot").unwrap();
    let shown = path.to_str().unwrap();
    run(quorate().args(["snapshot", "status", shown])).fails(2, "this is not a backup");
    run(quorate().args(["snapshot", "status", "/nowhere"])).fails(2, "/nowhere");
    let cluster = Cluster::start();
    cluster.run(&["snapshot", "save", shown]).ok();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut restore = quorate();
    restore.args(["snapshot", "restore", shown]);
    run(restore.args(server_options(&cluster, 0))).fails(2, "checksum");
}

#[test]
fn what_is_sent_and_is_no_snapshot_leaves_no_file() {
    let Some(etcd) = crate::etcd::Etcd::start() else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("saved");
    let shown = path.to_str().unwrap();
    etcd.run(&["snapshot", "save", shown])
        .fails(1, "this is not a backup");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    etcd.run(&["snapshot", "save", "/nowhere/saved"])
        .fails(2, "/nowhere/saved");
}
