//! Stopping in good order.

use std::time::{Duration, Instant};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_leader_hands_over_before_it_goes() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    create_names(&cluster.client(leader).await, &names("a", 1)).await;
    cluster.converge().await;
    let stopping = cluster.servers[leader].take().unwrap();
    let begun = Instant::now();
    let reason = stopping.shutdown().await;
    assert!(reason.is_asked(), "{reason:?}");
    let after = cluster.leader().await;
    assert_ne!(after, leader);
    println!("handed over and stopped in {:?}", begun.elapsed());
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    create_names(&cluster.client(after).await, &names("b", 1)).await;
    cluster.restart(leader);
    cluster.leader().await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_stops_although_nobody_takes_over() {
    let mut cluster = Cluster::start_with(1, |config| {
        config.shutdown_timeout = Duration::from_millis(200);
    })
    .await;
    cluster.leader().await;
    let reason = cluster.servers[0].take().unwrap().shutdown().await;
    assert!(reason.is_asked());
    cluster.restart(0);
    cluster.leader().await;
}
