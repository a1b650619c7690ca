//! `quorate server`: file < environment < flags, what is refused, and how it stops.

use std::net::TcpListener;
use std::process::Stdio;

use rustix::process::Signal;

use crate::harness::{Cluster, Process, eventually, quorate, run, said};

const CLUSTER: &str = "s1=127.0.0.1:2380,s2=127.0.0.1:2390,s3=127.0.0.1:2400";

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.toml");
    let text = format!(
        "name = 's1'\ndata_dir = '/file'\ninitial_cluster = '{CLUSTER}'\ncluster_token = 'file'\n[timing]\nheartbeat_ms = 20\n"
    );
    std::fs::write(&file, text).unwrap();
    let check = || {
        let mut command = quorate();
        command
            .args(["server", "--check-config", "--config"])
            .arg(&file);
        command
    };
    let from_file = run(&mut check()).ok();
    assert!(
        from_file.contains("\"/file\"") && from_file.contains("heartbeat_interval: 20ms"),
        "{from_file}"
    );
    let from_env = run(check()
        .env("QUORATE_DATA_DIR", "/env")
        .env("QUORATE_CLUSTER_TOKEN", "env"))
    .ok();
    assert!(
        from_env.contains("\"/env\"") && from_env.contains("cluster_token: \"env\""),
        "{from_env}"
    );
    let from_flag = run(check()
        .env("QUORATE_DATA_DIR", "/env")
        .args(["--data-dir", "/flag"]))
    .ok();
    assert!(
        from_flag.contains("\"/flag\"") && !from_flag.contains("/env"),
        "{from_flag}"
    );
}

#[test]
fn a_wrong_configuration_is_code_2_and_names_the_field() {
    let base = [
        "server",
        "--check-config",
        "--name",
        "s1",
        "--data-dir",
        "/d",
        "--initial-cluster",
        CLUSTER,
    ];
    run(quorate().args(base)).ok();
    let check = |more: &[&str], needle: &str| run(quorate().args(base).args(more)).fails(2, needle);
    check(&["--client-listen", "0.0.0.0:2379"], "insecure = true");
    check(&["--heartbeat-ms", "0"], "timing.heartbeat_ms");
    check(&["--peer-tls-cert", "c"], "peer_tls");
    check(&["--id", "2"], "`id`");
    run(quorate().args(["server", "--check-config"])).fails(2, "`name` is not set");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.toml");
    std::fs::write(&file, "nmae = 's1'\n").unwrap();
    let said = run(quorate().args(["server", "--config"]).arg(&file));
    said.fails(2, "nmae");
    said.hints("--help");
    run(quorate().args(["server", "--config", "/nowhere.toml"])).fails(2, "/nowhere.toml");
}

#[test]
fn a_data_directory_in_use_or_of_another_cluster_is_code_1_with_a_hint() {
    let mut cluster = Cluster::start();
    let ports = crate::harness::free_ports(2);
    let (client, peer) = (
        format!("127.0.0.1:{}", ports[0]),
        format!("127.0.0.1:{}", ports[1]),
    );
    let said = run(cluster
        .server_command_on(0, &client, &peer)
        .args(["--log-filter", "off"]));
    said.fails(1, "in use");
    said.hints("data directory");

    cluster.kill_server(0);
    let mut foreign = quorate();
    foreign.args([
        "server",
        "--name",
        "s1",
        "--log-filter",
        "off",
        "--client-listen",
        &client,
        "--peer-listen",
        &peer,
    ]);
    foreign
        .args(["--initial-cluster", &format!("s1={peer}/{client}")])
        .arg("--data-dir")
        .arg(cluster.data_dir(0));
    let said = run(&mut foreign);
    said.fails(1, "cluster");
    said.hints("--initial-cluster");
}

#[test]
fn a_taken_port_is_code_1_and_named() {
    let cluster = Cluster::prepare();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = run(quorate()
        .args([
            "server",
            "--name",
            "s1",
            "--initial-cluster",
            "s1=127.0.0.1:1",
            "--client-listen",
            &address,
            "--log-filter",
            "off",
        ])
        .arg("--data-dir")
        .arg(cluster.data_dir(0)));
    said.fails(1, &address);
}

#[test]
fn on_sigterm_a_leader_hands_over_and_ends_with_code_0() {
    let mut cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let leader = runtime.block_on(cluster.leader());
    let mut leaving = cluster.take_server(leader);
    leaving.signal(Signal::TERM);
    assert_eq!(leaving.wait(), 0);
    let log = std::fs::read_to_string(cluster.log_path(leader)).unwrap();
    assert!(
        log.contains("handing the backbone's leadership over"),
        "{log}"
    );
    assert!(!log.contains("nobody took the leadership over"), "{log}");
    // The next one leads already: a change through the others is not held up by a timeout.
    let others: Vec<String> = (0..3)
        .filter(|n| *n != leader)
        .map(|n| cluster.endpoint(n))
        .collect();
    run(quorate().args([
        "--endpoints",
        &others.join(","),
        "--timeout",
        "2s",
        "group",
        "create",
        "after",
    ]))
    .ok();
}

#[test]
fn dev_prints_endpoints_serves_and_removes_what_it_made() {
    let mut dev = Process::spawn(
        quorate()
            .args(["dev", "--port", "0", "-o", "json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let mut line = String::new();
    let mut out = std::io::BufReader::new(dev.0.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let started: serde_json::Value = serde_json::from_str(&line).unwrap();
    let endpoints: Vec<&str> = started["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e.as_str().unwrap())
        .collect();
    assert_eq!(endpoints.len(), 3);
    let directory = started["data_dir"].as_str().unwrap();
    let create = || {
        said(
            &quorate()
                .args(["--endpoints", &endpoints.join(","), "group", "create", "a"])
                .output()
                .unwrap(),
        )
    };
    eventually("dev serves", || (create().code != 5).then_some(()));
    assert!(std::path::Path::new(directory).exists());
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(), 0);
    assert!(
        !std::path::Path::new(directory).exists(),
        "{directory} is left behind"
    );
}
