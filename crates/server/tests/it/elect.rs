//! The whole path: servers elect, groups are created, a session leads.

use std::time::Duration;

use quorate_types::Revision;
use quorate_wire::api::{
    ExplainGroup, Freshness, GetGroup, ListGroups, Phase, Report, TransferLeader,
};

use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_elect_and_a_session_leads_groups_created_at_any_server() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let groups = names("orders", 20);
    let (here, there) = (
        cluster.client((leader + 1) % 3).await,
        cluster.client((leader + 2) % 3).await,
    );
    let done = create_names(&here, &groups).await;
    assert!(done.revision > Revision::ZERO);

    let mut node = Node::open(&there, "n1", 3_000).await;
    node.contend(&groups).await.unwrap();
    let told = node
        .until("all groups led", |told| told.leads() == 20)
        .await;
    node.until("an answered keep-alive", |told| told.kept_alive > 0)
        .await;

    // A linearizable read at a third server sees it.
    let client = cluster.client(leader).await;
    let found = client
        .get_group(
            GetGroup {
                freshness: Freshness::default(),
                group: groups[3].clone(),
            },
            TIMEOUT,
        )
        .await
        .unwrap();
    assert_eq!(found.group.state.phase, Phase::Active);
    assert_eq!(
        found.group.state.node.as_ref().map(|node| node.as_str()),
        Some("n1")
    );
    assert_eq!(
        found.group.state.session,
        told.session.map(|session| session.id)
    );
    assert_eq!(found.contenders.len(), 1);

    // Pages, in order, without a repetition.
    let mut listed = Vec::new();
    loop {
        let request = ListGroups {
            prefix: "orders/".to_owned(),
            after: listed.last().cloned(),
            limit: 7,
            ..ListGroups::default()
        };
        let page = here.list_groups(request, TIMEOUT).await.unwrap();
        listed.extend(page.groups.into_iter().map(|group| group.state.name));
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, groups);

    let why = here
        .explain_group(
            ExplainGroup {
                freshness: Freshness::default(),
                group: groups[0].clone(),
            },
            TIMEOUT,
        )
        .await
        .unwrap();
    assert!(why.reason.contains("n1 leads"), "{}", why.reason);

    // A released group goes to nobody else, so it comes back under another tenure.
    let tenure = told.parts.keys().next().unwrap().clone();
    node.report(tenure.clone(), Report::Released { position: None })
        .await
        .unwrap();
    let again = node
        .until("the group led again", |told| {
            told.leads() == 20 && !told.parts.contains_key(&tenure)
        })
        .await;
    let next = again
        .parts
        .keys()
        .find(|id| id.group == tenure.group)
        .unwrap();
    assert!(next.number > tenure.number);

    node.close().await;
    node.until("the end of the session", |told| told.gone && told.ended)
        .await;
    let vacant = there
        .get_group(
            GetGroup {
                freshness: Freshness::default(),
                group: groups[3].clone(),
            },
            TIMEOUT,
        )
        .await
        .unwrap();
    assert_eq!(vacant.group.state.phase, Phase::Vacant);
    cluster.converge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_leaders_are_served_beside_the_api() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let client = cluster.client(0).await;
    create_names(&client, &names("orders", 2)).await;
    let mut node = Node::open(&client, "n1", 3_000).await;
    node.contend(&names("orders", 1)).await.unwrap();
    node.until("the group led", |told| told.leads() == 1).await;
    let at = cluster.server(0).client_address();

    assert_eq!(get(at, "/livez").await.0, 200);
    let (status, text) = get(at, "/readyz?verbose").await;
    assert_eq!(status, 200, "{text}");
    assert!(
        text.contains("[+] read ok") && text.contains("[+] disk ok"),
        "{text}"
    );
    assert_eq!(get(at, "/readyz").await.0, 200);
    assert!(get(at, "/health").await.1.contains("\"health\":\"true\""));
    assert!(
        get(at, "/version")
            .await
            .1
            .contains(quorate_server::VERSION)
    );

    let (status, text) = get(at, "/leader/orders/0000").await;
    assert_eq!(status, 200, "{text}");
    assert!(
        text.contains("quorate-leader: n1") && text.contains("quorate-endpoints: 127.0.0.1:9"),
        "{text}"
    );
    assert!(text.contains("\"endpoints\":[\"127.0.0.1:9\"]"), "{text}");
    let (status, text) = get(at, "/leader/orders/0001").await;
    assert_eq!(status, 503, "{text}");
    assert!(
        text.contains("retry-after: 1") && text.contains("vacant"),
        "{text}"
    );
    assert_eq!(get(at, "/leader/nothing").await.0, 404);
    assert_eq!(get(at, "/nothing").await.0, 404);
    assert_eq!(
        get(at, &format!("/leader/{}", "x".repeat(513))).await.0,
        400
    );

    let (status, text) = get(at, "/metrics").await;
    assert_eq!(status, 200);
    assert_eq!(metric(&text, "quorate_backbone_has_leader"), 1.0);
    assert_eq!(metric(&text, "quorate_backbone_is_leader"), 1.0);
    assert_eq!(metric(&text, "quorate_sessions"), 1.0);
    assert_eq!(metric(&text, "quorate_groups{phase=\"active\"}"), 1.0);
    assert_eq!(metric(&text, "quorate_groups{phase=\"vacant\"}"), 1.0);
    assert!(metric(&text, "quorate_log_sync_seconds_count") > 0.0);
    assert!(metric(&text, "quorate_calls_keep_alives_total") > 0.0);

    let status = client.status(TIMEOUT).await.unwrap();
    assert_eq!((status.sessions, status.nodes), (1, 1));
    assert_eq!(status.leader, Some(status.id));
    assert!(
        !client
            .contract(TIMEOUT)
            .await
            .unwrap()
            .transitions
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leadership_of_the_backbone_moves_on_order() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let to = (leader + 1) % 3;
    let client = cluster.client((leader + 2) % 3).await;
    // The voters must have answered the leader once.
    create_names(&client, &names("a", 1)).await;
    let target = cluster.server(to).id();
    eventually_ok(|| client.transfer_leader(TransferLeader { to: Some(target) }, TIMEOUT)).await;
    eventually("the new leader", || {
        (cluster.server(leader).role_view().leader == Some(target)).then_some(())
    })
    .await;
    let status = cluster.client(to).await.status(TIMEOUT).await.unwrap();
    assert_eq!(status.peers.len(), 2);
    let bad = client
        .transfer_leader(
            TransferLeader {
                to: Some(quorate_types::ReplicaId(9)),
            },
            TIMEOUT,
        )
        .await
        .unwrap_err();
    assert_eq!(bad.kind, quorate_wire::api::ApiErrorKind::BadTransfer);
}

async fn eventually_ok<T, F: Future<Output = Result<T, quorate_wire::api::ApiError>>>(
    mut call: impl FnMut() -> F,
) -> T {
    let begun = std::time::Instant::now();
    loop {
        match call().await {
            Ok(answer) => return answer,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
