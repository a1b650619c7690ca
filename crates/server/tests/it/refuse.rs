//! What must be refused, clearly, without a panic, and with nothing half applied.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_server::{BootError, Server, StartError};
use quorate_types::{ContractVersion, GroupName};
use quorate_wire::api::{
    ApiErrorKind, CreateGroups, DeleteGroup, Freshness, GetGroup, GroupSpec, ListGroups, NodeUp,
    TransferGroup, TransferMode,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_both_ports_is_closed_counted_and_harmless() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let term = cluster.server(leader).role_view().term;
    let server = cluster.server(leader);
    let mut random = fastrand::Rng::with_seed(7);
    let payloads: Vec<Vec<u8>> = (0..20)
        .map(|n| match n {
            0 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            1 => b"QUORATE\x01\xff\xff\xff\xff".to_vec(),
            2 => b"QUORATE\x01\x00\x00\x00\x01\x09".to_vec(),
            3 => b"QUORATE\x01\x00\x00\x00\x05\x00\x01\x02\x03\x04".to_vec(),
            4 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            n => (0..n * 997).map(|_| random.u8(..)).collect(),
        })
        .collect();
    for address in [server.peer_address(), server.client_address()] {
        for payload in &payloads {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(payload).await; // it may be closed on us already
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
            assert!(
                read.is_ok(),
                "the connection stays open after {} bytes of garbage",
                payload.len()
            );
        }
    }
    let text = server.metrics_text();
    assert!(
        metric(&text, "quorate_peer_refused_total{reason=\"garbage\"}") >= 15.0,
        "{text}"
    );
    assert_eq!(
        server.role_view().term,
        term,
        "garbage disturbed the backbone"
    );
    create_names(&cluster.client(leader).await, &names("fine", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_cluster_is_refused_on_both_sides() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    // The same addresses but another token: it takes the place of a stopped member.
    let mut stranger = Cluster::start_with(1, |_| ()).await;
    let mut config = stranger.configs[0].clone();
    stranger.kill(0);
    let mut members = cluster.configs[0].initial_cluster.clone();
    members[0].peer_address = config.peer_listen.to_string();
    members[0].name = config.name.clone();
    config.initial_cluster = members;
    config.cluster_token = "another".to_owned();
    config.data_dir = stranger.dir.path().join("fresh");
    let intruder = Server::start(&config).unwrap();
    let refused = |text: String, reason: &str| {
        let name = format!("quorate_peer_refused_total{{reason=\"{reason}\"}}");
        text.lines().any(|line| line.starts_with(&name))
    };
    eventually("the refusal at the members", || {
        cluster
            .running()
            .any(|(_, server)| refused(server.metrics_text(), "foreign_cluster"))
            .then_some(())
    })
    .await;
    eventually("the refusal at the stranger", || {
        refused(intruder.metrics_text(), "by_peer").then_some(())
    })
    .await;
    assert_eq!(intruder.role_view().leader, None);
    create_names(&cluster.client(leader).await, &names("fine", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bootstrap_on_a_data_directory_is_refused() {
    let mut cluster = Cluster::start(1).await;
    cluster.leader().await;
    create_names(&cluster.client(0).await, &names("a", 3)).await;
    cluster.kill(0);
    let mut config = cluster.configs[0].clone();
    config.cluster_token = "second".to_owned();
    let error = Server::start(&config).unwrap_err();
    let StartError::Boot(BootError::Storage(quorate_storage::StorageError::ForeignCluster {
        ..
    })) = &error
    else {
        panic!("{error:?}");
    };
    assert!(
        error.hint().unwrap().contains("--initial-cluster"),
        "{:?}",
        error.hint()
    );
    // Nothing was changed: the right configuration still finds everything.
    cluster.restart(0);
    cluster.leader().await;
    let page = cluster
        .client(0)
        .await
        .list_groups(
            ListGroups {
                limit: 10,
                ..ListGroups::default()
            },
            TIMEOUT,
        )
        .await
        .unwrap();
    assert_eq!(page.groups.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_lost_its_data_directory_is_refused_by_its_peers() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let lost = (leader + 1) % 3;
    create_names(&cluster.client(leader).await, &names("a", 3)).await;
    cluster.converge().await;
    cluster.kill(lost);
    std::fs::remove_dir_all(&cluster.configs[lost].data_dir).unwrap();
    cluster.restart(lost);
    eventually("the refusal", || {
        let text = cluster.server(leader).metrics_text();
        text.contains("quorate_peer_refused_total{reason=\"disk_changed\"}")
            .then_some(())
    })
    .await;
    assert_eq!(cluster.server(lost).role_view().leader, None);
    create_names(&cluster.client(leader).await, &names("fine", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_in_use_is_refused() {
    let cluster = Cluster::start(1).await;
    let mut config = cluster.configs[0].clone();
    config.client_listen.set_port(0);
    config.peer_listen.set_port(0);
    let error = Server::start(&config).unwrap_err();
    assert!(
        matches!(
            &error,
            StartError::Boot(BootError::Storage(
                quorate_storage::StorageError::InUse { .. }
            ))
        ),
        "{error:?}"
    );
    let taken = Server::start(&cluster.configs[0]).unwrap_err();
    assert!(matches!(taken, StartError::Listen { .. }), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_told_what_is_wrong_and_nothing_is_half_applied() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.client((leader + 1) % 3).await;
    create_names(&client, &names("a", 1)).await;
    let freshness = Freshness::default();

    let kind = |error: quorate_wire::api::ApiError| error.kind;
    let unknown = client
        .get_group(
            GetGroup {
                freshness,
                group: group("none"),
            },
            TIMEOUT,
        )
        .await
        .unwrap_err();
    assert!(unknown.message.contains("none"), "{unknown}");
    assert_eq!(kind(unknown), ApiErrorKind::UnknownGroup);
    let transfer = TransferGroup {
        mutation: mutation(),
        group: group("none"),
        to: None,
        mode: TransferMode::Handover,
    };
    assert_eq!(
        kind(client.transfer_group(transfer, TIMEOUT).await.unwrap_err()),
        ApiErrorKind::UnknownGroup
    );
    let delete = DeleteGroup {
        mutation: mutation(),
        group: group("none"),
        expected: None,
    };
    assert_eq!(
        kind(client.delete_group(delete, TIMEOUT).await.unwrap_err()),
        ApiErrorKind::UnknownGroup
    );

    // All or none: the last of these exists.
    let both = vec![
        (group("b"), GroupSpec::default()),
        (group("a/0000"), GroupSpec::default()),
    ];
    assert_eq!(
        kind(create(&client, both).await.unwrap_err()),
        ApiErrorKind::GroupExists
    );
    assert_eq!(
        kind(
            client
                .get_group(
                    GetGroup {
                        freshness,
                        group: group("b")
                    },
                    TIMEOUT
                )
                .await
                .unwrap_err()
        ),
        ApiErrorKind::UnknownGroup
    );

    let large = GroupSpec {
        require: BTreeMap::from([("k".to_owned(), "v".repeat(70_000))]),
        ..GroupSpec::default()
    };
    assert_eq!(
        kind(
            create(&client, vec![(group("big"), large)])
                .await
                .unwrap_err()
        ),
        ApiErrorKind::Invalid
    );
    let bad = GroupSpec {
        prepare_deadline_ms: 0,
        ..GroupSpec::default()
    };
    assert_eq!(
        kind(
            create(&client, vec![(group("bad"), bad)])
                .await
                .unwrap_err()
        ),
        ApiErrorKind::Invalid
    );

    let mut newer = mutation();
    newer.contract = ContractVersion(99);
    let request = CreateGroups {
        mutation: newer,
        groups: vec![(group("new"), GroupSpec::default())],
    };
    assert_eq!(
        kind(client.create_groups(request, TIMEOUT).await.unwrap_err()),
        ApiErrorKind::NewerContract
    );

    for ttl_ms in [0, 99, 86_400_001, u64::MAX] {
        let node = Node::stream(&client, open("n", ttl_ms), Duration::from_secs(1))
            .await
            .unwrap();
        let told = node
            .until("the refusal", |told| told.refused.is_some())
            .await;
        assert_eq!(
            told.refused.unwrap().kind,
            ApiErrorKind::Invalid,
            "ttl {ttl_ms}"
        );
    }
    let NodeUp::Open {
        request_id,
        ttl_ms,
        node,
        ..
    } = open("n", 1_000)
    else {
        unreachable!()
    };
    let newer = NodeUp::Open {
        request_id,
        ttl_ms,
        node,
        contract_min: ContractVersion(2),
        contract_max: ContractVersion(9),
    };
    let node = Node::stream(&client, newer, Duration::from_secs(1))
        .await
        .unwrap();
    let told = node
        .until("the refusal", |told| told.refused.is_some())
        .await;
    assert_eq!(told.refused.unwrap().kind, ApiErrorKind::NewerContract);

    // A batch names what it refuses and does the rest.
    let mut node = Node::open(&client, "n1", 5_000).await;
    let done = node
        .contend(&[group("a/0000"), group("none")])
        .await
        .unwrap();
    assert_eq!(done.refused.len(), 1);
    assert_eq!(
        (done.refused[0].0, done.refused[0].1.kind),
        (1, ApiErrorKind::UnknownGroup)
    );
    node.until("the other led", |told| told.leads() == 1).await;
    let twin = Node::stream(&client, open("n1", 5_000), Duration::from_secs(1))
        .await
        .unwrap();
    let told = twin
        .until("the refusal", |told| told.refused.is_some())
        .await;
    assert_eq!(told.refused.unwrap().kind, ApiErrorKind::NodeLive);

    // Names are checked before they become names; the wire's own tests send the others.
    assert!(GroupName::new(&"x".repeat(513)).is_err() && GroupName::new("a\u{7}").is_err());
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_changes_are_refused_or_unknown_and_stale_reads_still_answer() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.client(leader).await;
    create_names(&client, &names("a", 1)).await;
    cluster.converge().await;
    cluster.kill((leader + 1) % 3);
    cluster.kill((leader + 2) % 3);
    let request = CreateGroups {
        mutation: mutation(),
        groups: vec![(group("b"), GroupSpec::default())],
    };
    let error = client
        .create_groups(request.clone(), Duration::from_secs(20))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error.kind,
            ApiErrorKind::NoLeader | ApiErrorKind::UnknownOutcome
        ),
        "{error:?}"
    );
    let stale = Freshness {
        stale_ok: true,
        ..Freshness::default()
    };
    client
        .get_group(
            GetGroup {
                freshness: stale,
                group: group("a/0000"),
            },
            TIMEOUT,
        )
        .await
        .unwrap();
    let fresh = GetGroup {
        freshness: Freshness::default(),
        group: group("a/0000"),
    };
    let error = client
        .get_group(fresh, Duration::from_secs(20))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::NoLeader, "{error:?}");
    assert_eq!(
        get(cluster.server(leader).client_address(), "/readyz")
            .await
            .0,
        503
    );
    assert_eq!(
        get(cluster.server(leader).client_address(), "/livez")
            .await
            .0,
        200
    );

    // The same request again, once there is a quorum: it has its effect once.
    cluster.restart((leader + 1) % 3);
    cluster.leader().await;
    let begun = std::time::Instant::now();
    loop {
        match client.create_groups(request.clone(), TIMEOUT).await {
            Ok(_) => break,
            Err(error) => assert!(
                error.kind.is_transient() && begun.elapsed() < PATIENCE,
                "{error:?}"
            ),
        }
    }
}
