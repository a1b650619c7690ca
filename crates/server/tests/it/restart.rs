//! Crashes: what was acknowledged is there, and holders that kept trying go on under the same tenure.

use std::time::{Duration, Instant};

use quorate_wire::api::{Freshness, GetGroup, GroupSpec};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_leader_moves_no_group_and_clients_of_the_others_go_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let other = (leader + 1) % 3;
    let client = cluster.client(other).await;
    let groups = names("orders", 50);
    create_names(&client, &groups).await;
    let mut node = Node::open(&client, "n1", 10_000).await;
    node.contend(&groups).await.unwrap();
    let before = node
        .until("all groups led", |told| told.leads() == 50)
        .await;

    cluster.kill(leader);
    let begun = Instant::now();
    create(&client, vec![(group("after"), GroupSpec::default())])
        .await
        .unwrap();
    println!(
        "a write at another server succeeded {:?} after the leader was killed",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );

    let kept = node.told.borrow().kept_alive;
    let after = node
        .until("another answered keep-alive", |told| {
            told.kept_alive > kept + 1
        })
        .await;
    assert_eq!(after.parts, before.parts, "a group changed hands");
    cluster.restart(leader);
    cluster.leader().await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_all_three_loses_nothing_and_a_resumed_session_keeps_its_tenures() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let client = cluster.client(0).await;
    let groups = names("orders", 30);
    let done = create_names(&client, &groups).await;
    let mut node = Node::open(&client, "n1", 20_000).await;
    node.contend(&groups).await.unwrap();
    let before = node
        .until("all groups led", |told| told.leads() == 30)
        .await;
    let seq = node.request_seq();

    for at in 0..3 {
        cluster.kill(at);
    }
    node.until("the end of the stream", |told| told.ended).await;
    for at in 0..3 {
        cluster.restart(at);
    }
    let leader = cluster.leader().await;
    let client = cluster.client((leader + 1) % 3).await;
    let freshness = Freshness {
        min_revision: done.revision,
        stale_ok: false,
    };
    for name in &groups {
        client
            .get_group(
                GetGroup {
                    freshness,
                    group: name.clone(),
                },
                TIMEOUT,
            )
            .await
            .unwrap();
    }
    let mut node = Node::stream(&client, resume(&before), Duration::from_millis(500))
        .await
        .unwrap();
    node.set_request_seq(seq);
    let after = node
        .until("the standing", |told| {
            told.leads() == 30 && told.kept_alive > 0
        })
        .await;
    assert_eq!(after.parts, before.parts, "the tenures are other ones");
    assert_eq!(after.session, before.session);

    // The request counter went on, too: the next request has its effect once.
    create(&client, vec![(group("more"), GroupSpec::default())])
        .await
        .unwrap();
    node.contend(&[group("more")]).await.unwrap();
    node.until("the new group led", |told| told.leads() == 31)
        .await;
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_session_expires_and_its_groups_go_to_another_node() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    let client = cluster.client(0).await;
    let groups = names("orders", 40);
    create_names(&client, &groups).await;
    let mut first = Node::open(&client, "n1", 1_000).await;
    first.contend(&groups).await.unwrap();
    first
        .until("all groups led", |told| told.leads() == 40)
        .await;
    let mut second = Node::open(&client, "n2", 20_000).await;
    second.contend(&groups).await.unwrap();
    let session = first.told.borrow().clone();
    drop(first);
    let begun = Instant::now();
    second
        .until("all groups led by the other", |told| told.leads() == 40)
        .await;
    assert!(
        begun.elapsed() >= Duration::from_millis(700),
        "expired early: {:?}",
        begun.elapsed()
    );
    let late = Node::stream(&client, resume(&session), Duration::from_millis(100))
        .await
        .unwrap();
    late.until("the end of the session", |told| told.gone).await;
}
