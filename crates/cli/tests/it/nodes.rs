//! Nodes as processes (the demo's), which record when they believed that they led.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Stdio};

use rustix::process::Signal;

use crate::harness::{Cluster, Process, eventually, quorate, run};

/// A resource without fences: every write is let through, so that only the nodes' own checks hold them back.
fn lax_resource() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut answers = stream.try_clone().unwrap();
                for _line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if answers.write_all(b"ok\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) name: String,
    pub(crate) record: PathBuf,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Node {
    fn start(
        cluster: &Cluster,
        name: &str,
        resource: SocketAddr,
        groups: usize,
        ttl_ms: u64,
    ) -> Self {
        let record = cluster.directory().join(format!("{name}.record"));
        let mut command = quorate();
        command
            .args([
                "--endpoints",
                &cluster.endpoints().join(","),
                "__demo-node",
                "--name",
                name,
                "--prefix",
                "g/",
            ])
            .args([
                "--groups",
                &groups.to_string(),
                "--ttl-ms",
                &ttl_ms.to_string(),
                "--resource",
                &resource.to_string(),
            ])
            .arg("--record")
            .arg(&record)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Process::spawn(&mut command);
        let input = process.0.stdin.take().unwrap();
        let output = BufReader::new(process.0.stdout.take().unwrap());
        Self {
            process,
            name: name.to_owned(),
            record,
            input,
            output,
        }
    }

    pub(crate) fn tell(&mut self, order: &str) {
        writeln!(self.input, "{order}").unwrap();
    }

    pub(crate) fn answer(&mut self) -> Vec<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    }
}

/// Groups `g/0000` and so on, and nodes that stand in all of them.
pub(crate) fn fleet(cluster: &Cluster, nodes: usize, groups: usize, ttl_ms: u64) -> Vec<Node> {
    let names: Vec<String> = (0..groups).map(|n| format!("g/{n:04}")).collect();
    let mut create = cluster.quorate(&[
        "group",
        "create",
        "--minimum-tenure",
        "0ms",
        "--cooldown",
        "100ms",
    ]);
    run(create.args(&names)).ok();
    let resource = lax_resource();
    let nodes: Vec<Node> = (1..=nodes)
        .map(|n| Node::start(cluster, &format!("n{n}"), resource, groups, ttl_ms))
        .collect();
    let mut before = Vec::new();
    eventually("all groups are led, about evenly, and stay so", || {
        let led = led_by(cluster);
        let even = groups / nodes.len();
        let spread = led.len() == nodes.len()
            && led
                .values()
                .all(|led| led.len().abs_diff(even) <= (even / 10).max(1));
        let now = tenures(cluster);
        let calm = before == now;
        before = now;
        (spread && calm && before.len() == groups).then_some(())
    });
    nodes
}

/// Which groups each node leads.
pub(crate) fn led_by(cluster: &Cluster) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut led: std::collections::BTreeMap<String, Vec<String>> =
        std::collections::BTreeMap::new();
    for (group, node, _) in tenures(cluster) {
        led.entry(node).or_default().push(group);
    }
    led
}

/// Group, leading node and tenure of every group that is led.
pub(crate) fn tenures(cluster: &Cluster) -> Vec<(String, String, u64)> {
    let said = cluster.run(&["group", "list", "g/", "-o", "json"]).ok();
    let groups: serde_json::Value = serde_json::from_str(&said).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let state = |group: &serde_json::Value| group["state"].clone();
    let groups = groups.as_array().unwrap().iter().map(state);
    let led = groups.filter(|state| {
        ["active", "draining"].contains(&text(&state["phase"]).to_lowercase().as_str())
    });
    led.map(|state| {
        (
            text(&state["name"]),
            text(&state["node"]),
            state["tenure"].as_u64().unwrap(),
        )
    })
    .collect()
}

/// Has the records of all nodes checked; the number of tenures in them.
#[track_caller]
pub(crate) fn check_records(nodes: &[Node]) -> u64 {
    let said = run(quorate()
        .arg("__demo-check")
        .args(nodes.iter().map(|node| &node.record)));
    let findings: serde_json::Value = serde_json::from_str(&said.out).expect("findings");
    assert_eq!(
        (said.code, &findings["overlaps"]),
        (0, &serde_json::json!(0)),
        "{findings}"
    );
    findings["tenures_checked"].as_u64().unwrap()
}

#[test]
fn a_holder_that_was_stopped_past_its_ttl_answers_no_first_and_another_leads() {
    let cluster = Cluster::start();
    let mut nodes = fleet(&cluster, 2, 10, 1_000);
    let stopped = &mut nodes[0];
    stopped.tell("check 4");
    let checked = stopped.answer();
    assert_eq!(checked.len(), 1 + 4, "{checked:?}");
    stopped.process.signal(Signal::STOP);
    eventually("the other leads all", || {
        (led_by(&cluster).get("n2").map(Vec::len) == Some(10)).then_some(())
    });
    // Orders wait in the pipe: obeyed first thing after continuing.
    stopped.tell("act");
    stopped.process.signal(Signal::CONT);
    let acted = stopped.answer();
    assert_eq!(
        (acted[0].as_str(), acted[1].as_str()),
        ("acted", "0"),
        "a check was true after the lease had passed on: {acted:?}"
    );
    // It did act on its old checks, and nothing fenced it here: that is what tokens are for.
    assert_eq!(acted[2], "4");
    eventually("it leads again, under a new session", || {
        led_by(&cluster).contains_key("n1").then_some(())
    });
    check_records(&nodes);
}

#[test]
fn transfers_and_a_drain_under_load_never_have_two_holders_and_print_the_gap() {
    let cluster = Cluster::start();
    let nodes = fleet(&cluster, 3, 60, 2_000);
    for n in 0..10 {
        let group = format!("g/{:04}", n * 6);
        let to = format!("n{}", n % 3 + 1);
        let holder = tenures(&cluster)
            .into_iter()
            .find(|(name, ..)| *name == group)
            .unwrap()
            .1;
        if holder == to {
            continue;
        }
        let mut transfer = vec!["group", "transfer", &group, "--to", &to];
        if n % 4 == 3 {
            transfer.extend(["--force", "--yes"]);
        }
        let said = cluster.run(&transfer).ok();
        assert!(
            said.contains(&format!("{holder} -> {to}")) && said.contains("without a holder for"),
            "{said}"
        );
    }
    let held = led_by(&cluster)[&nodes[1].name].len();
    let said = cluster
        .run(&["node", "drain", "n2", "--timeout", "20s"])
        .ok();
    assert!(
        said.contains("`n2` is drained") && said.contains("(median)") && said.contains("(maximum)"),
        "{said}"
    );
    assert!(held > 0 && !led_by(&cluster).contains_key("n2"));
    let status = cluster.run(&["status"]).ok();
    assert!(status.contains("n2 (draining, 0 groups left)"), "{status}");
    cluster.run(&["node", "uncordon", "n2"]).ok();
    eventually("it is given leaderships again", || {
        cluster.run(&["group", "rebalance"]).ok();
        led_by(&cluster).contains_key("n2").then_some(())
    });
    assert!(check_records(&nodes) > 60);
}
