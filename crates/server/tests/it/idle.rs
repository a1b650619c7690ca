//! Idle groups cost nothing: what a node pays depends on its sessions only.

use std::time::{Duration, Instant};

use crate::support::*;

struct Cost {
    keep_alives: f64,
    log_entries: f64,
    vital_bytes: f64,
}

/// What a cluster spends while one node holds `count` groups and nothing happens.
async fn cost_of(count: usize) -> Cost {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.client((leader + 1) % 3).await;
    let groups = names("idle", count);
    create_names(&client, &groups).await;
    let mut node = Node::open(&client, "n1", 2_000).await;
    node.contend(&groups).await.unwrap();
    node.until("all groups led", |told| told.leads() == count)
        .await;
    cluster.converge().await;
    // Past minimum tenures, so that no timer of the lifecycle is left.
    let calm = Instant::now() + Duration::from_secs(6);
    tokio::time::sleep_until(calm.into()).await;
    let read = || {
        let texts: Vec<_> = cluster
            .running()
            .map(|(_, server)| server.metrics_text())
            .collect();
        let sum = |name: &str| texts.iter().map(|text| metric_sum(text, name)).sum::<f64>();
        let vital: f64 = texts
            .iter()
            .map(|text| metric(text, "quorate_peer_sent_bytes_total{lane=\"vital\"}"))
            .sum();
        (
            sum("quorate_calls_keep_alives_total"),
            sum("quorate_log_entries_total"),
            vital,
        )
    };
    let before = read();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = read();
    Cost {
        keep_alives: after.0 - before.0,
        log_entries: after.1 - before.1,
        vital_bytes: after.2 - before.2,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_groups_cost_what_one_does() {
    let (one, thousand) = tokio::join!(cost_of(1), cost_of(1_000));
    println!(
        "vital bytes in 4 s: {} with one group, {} with a thousand",
        one.vital_bytes, thousand.vital_bytes
    );
    assert_eq!(one.log_entries, 0.0, "an idle group writes to the log");
    assert_eq!(thousand.log_entries, 0.0, "idle groups write to the log");
    assert!(
        (one.keep_alives - thousand.keep_alives).abs() <= 2.0,
        "{} and {}",
        one.keep_alives,
        thousand.keep_alives
    );
    // Heartbeats vary with the machine's load; a cost per group would show as a multiple.
    assert!(
        thousand.vital_bytes < one.vital_bytes * 1.5,
        "{} and {}",
        one.vital_bytes,
        thousand.vital_bytes
    );
}
