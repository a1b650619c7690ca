//! `quorate demo`, small.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::harness::{Process, eventually, is_alive, quorate, run};

#[test]
fn the_demo_finds_no_overlap_and_fences_stale_writes() {
    let said = run(quorate().args(["demo", "--groups", "60", "--nodes", "3", "--json"]));
    assert_eq!(said.code, 0, "{said:?}");
    let mut summary: serde_json::Value = serde_json::from_str(&said.out).expect("one JSON object");
    let keys: Vec<&String> = summary.as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 6, "{keys:?}");
    assert_eq!(summary["ok"], true);
    assert_eq!(summary["groups"], 60);
    assert_eq!(summary["overlaps"], 0);
    assert!(summary["tenures_checked"].as_u64().unwrap() >= 60);
    assert!(summary["stale_writes_fenced"].as_u64().unwrap() > 0);
    let steps = summary["steps"].take();
    let steps = steps.as_array().unwrap();
    assert_eq!(steps.len(), 6);
    for step in steps {
        assert!(
            step["name"].is_string() && step.as_object().unwrap().len() == 4,
            "{step}"
        );
        let ms = |key: &str| step[key].as_f64().unwrap();
        assert!(
            (ms("detect_ms") + ms("elect_ms") - ms("total_ms")).abs() < 0.2,
            "{step}"
        );
    }
}

#[test]
fn all_processes_die_with_a_demo_that_is_killed() {
    // What a killed demo leaves on disk goes with the test.
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Process::spawn(
        quorate()
            .args(["demo", "--groups", "20", "--nodes", "3", "--keep"])
            .env("TMPDIR", directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let id = demo.id();
    let children = eventually("servers and nodes run", || {
        let found = children(id);
        (found.len() >= 6).then_some(found)
    });
    demo.kill();
    for child in children {
        eventually("the demo's processes are gone", || {
            (!is_alive(child)).then_some(())
        });
    }
}

#[test]
fn a_demo_that_is_kept_serves_until_it_is_asked_to_end_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = Process::spawn(
        quorate()
            .args(["demo", "--groups", "10", "--nodes", "3", "--keep"])
            .env("TMPDIR", directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    );
    let lines = BufReader::new(demo.0.stdout.take().unwrap()).lines();
    let endpoints = lines
        .map_while(Result::ok)
        .find_map(|line| {
            line.strip_prefix("export QUORATE_ENDPOINTS=")
                .map(str::to_owned)
        })
        .expect("the endpoints are printed");
    let groups = run(quorate().args(["--endpoints", &endpoints, "group", "list", "demo/"])).ok();
    assert_eq!(groups.lines().count(), 1 + 10, "{groups}");
    let children = children(demo.id());
    demo.signal(rustix::process::Signal::INT);
    assert_eq!(demo.wait(), 0);
    assert!(children.len() >= 5 && !children.into_iter().any(is_alive));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task");
    let tasks = std::fs::read_dir(path).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect()
}
