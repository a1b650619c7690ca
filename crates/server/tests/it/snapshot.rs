//! A member that was away for longer than the log reaches back gets the state as a snapshot.

use quorate_server::config::SnapshotConfig;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_member_is_sent_a_snapshot_and_starts_from_it_again() {
    let mut cluster = Cluster::start_with(3, |config| {
        config.snapshot = SnapshotConfig {
            entries: 40,
            retain: 5,
        }
    })
    .await;
    let leader = cluster.leader().await;
    let client = cluster.client(leader).await;
    create_names(&client, &names("before", 3)).await;
    cluster.converge().await;
    let away = (leader + 1) % 3;
    cluster.kill(away);
    for n in 0..200 {
        create_names(&client, &names(&format!("away{n}"), 5)).await;
    }
    let saved = metric(
        &cluster.server(leader).metrics_text(),
        "quorate_snapshots_saved_total",
    );
    assert!(saved >= 4.0, "{saved} snapshots saved");
    cluster.restart(away);
    cluster.converge().await;
    let installed = metric(
        &cluster.server(away).metrics_text(),
        "quorate_snapshots_installed_total",
    );
    assert!(installed >= 1.0);

    // It starts again from its own disk, and everything is there.
    let (applied, digest) = cluster.server(away).digest();
    cluster.kill(away);
    cluster.restart(away);
    cluster.server(away).wait_applied(applied).await;
    cluster.converge().await;
    let (again, same) = cluster.server(away).digest();
    assert!(again > applied || same == digest);

    // So do all, from snapshot and log. Until each is where it was, they may agree on less.
    for at in 0..3 {
        cluster.kill(at);
    }
    for at in 0..3 {
        cluster.restart(at);
    }
    cluster.leader().await;
    for at in 0..3 {
        cluster.server(at).wait_applied(again).await;
    }
    cluster.converge().await;
    let status = cluster.client(0).await.status(TIMEOUT).await.unwrap();
    assert_eq!(
        status.groups.iter().map(|(_, count)| count).sum::<u64>(),
        1_003
    );
}
