//! Peers depose a holder that is alive, keeps its session, and does not do its work.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quorate_client::{
    Cause, Client, ContenderSpec, ErrorKind, GroupName, GroupSpec, Leadership, NodeName, NodeSpec,
    Phase, Session, SessionEvent, SessionEvents, SessionOptions, TenureId, boot_time,
};

use crate::harness::Cluster;

const TTL: Duration = Duration::from_millis(1_500);

async fn stand(client: &Client, name: &str, group: &GroupName) -> (Session, SessionEvents) {
    let node = NodeSpec::new(NodeName::new(name).unwrap());
    let options = SessionOptions {
        ttl: TTL,
        ..SessionOptions::for_node(node)
    };
    let (session, events) = client.open_session(options).await.unwrap();
    let contention = session
        .contend([(group.clone(), ContenderSpec::default())])
        .await
        .unwrap();
    assert!(contention.refused().is_empty(), "{contention:?}");
    (session, events)
}

async fn active(events: &mut SessionEvents) -> Leadership {
    loop {
        match events.next().await.expect("the session lives") {
            SessionEvent::Active { leadership, .. } => return leadership,
            SessionEvent::SessionLost { cause } => panic!("the session was lost: {cause:?}"),
            _ => {}
        }
    }
}

/// Looks all the time whether a holder believes that it leads, and notes when it last did.
struct Watched {
    stop: Arc<AtomicBool>,
    last: Arc<AtomicU64>,
    looker: std::thread::JoinHandle<()>,
}

impl Watched {
    fn start(leadership: Leadership) -> Self {
        let (stop, last) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (ends, notes): (_, Arc<AtomicU64>) = (Arc::clone(&stop), Arc::clone(&last));
        let looker = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                // Read before the check: what is noted is never later than the belief itself.
                let now = boot_time();
                if leadership.check() {
                    notes.store(now.0, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self { stop, last, looker }
    }

    fn last(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.looker.join().expect("it only looks");
        self.last.load(Ordering::SeqCst)
    }
}

fn metrics(cluster: &Cluster, name: &str) -> Vec<u64> {
    let value = |endpoint: String| {
        let mut stream = TcpStream::connect(endpoint.trim_start_matches("http://")).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line
            .and_then(|line| line.rsplit(' ').next())
            .map(str::parse);
        value.expect("the metric is there").expect("a count")
    };
    cluster.endpoints().into_iter().map(value).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_three_depose_a_live_holder_whose_belief_ends_before_the_next_is_granted() {
    let cluster = Cluster::start();
    let client = cluster.client();
    let group = GroupName::new("orders/1").unwrap();
    client
        .create_groups(vec![(group.clone(), GroupSpec::default())])
        .await
        .unwrap();
    let (a, mut a_events) = stand(&client, "a", &group).await;
    let old = active(&mut a_events).await;
    let (b, mut b_events) = stand(&client, "b", &group).await;
    let (c, mut c_events) = stand(&client, "c", &group).await;
    let tenure = old.tenure().clone();
    let watched = Watched::start(old.clone());

    // One report does nothing, however often it is said; nor do those of who has no say.
    for _ in 0..3 {
        b.report_faulty(&tenure, "probes time out").await.unwrap();
    }
    let error = a.report_faulty(&tenure, "it is me").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Denied, "{error:?}");
    let error = b.report_faulty(&tenure, "").await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Invalid, "{error:?}");
    let stale = TenureId {
        number: quorate_client::TenureNumber(tenure.number.0 + 1),
        ..tenure.clone()
    };
    let error = b.report_faulty(&stale, "not yet").await.unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::NotLeader { hint: None },
        "{error:?}"
    );
    let view = client.get_group(&group).await.unwrap().group;
    assert_eq!((view.state.phase, view.fault_reports), (Phase::Active, 1));
    let why = client.explain_group(&group).await.unwrap();
    assert_eq!(why.fault_reports_needed, Some(2));
    assert_eq!(why.fault_reports[0].node.as_str(), "b");
    assert!(
        cluster
            .run(&["group", "show", "orders/1"])
            .ok()
            .contains("as faulty by 1 contender")
    );
    b.withdraw_report(&tenure).await.unwrap();
    c.report_faulty(&tenure, "writes fail").await.unwrap();
    assert!(old.check(), "deposed by one report");

    // The second one deposes it. It stays alive, and never lets go: the group waits it out.
    b.report_faulty(&tenure, "probes time out").await.unwrap();
    let (new, granted_at) = tokio::select! {
        new = active(&mut b_events) => (new, boot_time()),
        new = active(&mut c_events) => (new, boot_time()),
    };
    let believed_last = watched.last();
    assert!(
        believed_last > 0 && believed_last < granted_at.0,
        "believed at {believed_last}, the next was granted by {granted_at:?}"
    );
    assert!(!old.check() && new.check());
    assert!(new.fencing_token() > old.fencing_token());
    assert!(!a.is_over(), "the session of who is deposed lives on");

    let why = client.explain_group(&group).await.unwrap();
    let past = &why.history[0];
    assert_eq!(past.number, tenure.number);
    assert_eq!(
        (past.cause, past.revoked_for),
        (Cause::WaitedOut, Some(Cause::Deposed))
    );
    let mut said: Vec<_> = past
        .fault_reports
        .iter()
        .map(|r| (r.node.as_str(), r.reason.as_str()))
        .collect();
    said.sort_unstable();
    assert_eq!(said, [("b", "probes time out"), ("c", "writes fail")]);
    let text = cluster.run(&["why", "orders/1"]).ok();
    assert!(
        text.contains("revoked: deposed") && text.contains("c said \"writes fail\""),
        "{text}"
    );
    assert!(metrics(&cluster, "quorate_tenures_deposed_total").contains(&1));
    assert!(metrics(&cluster, "quorate_tenures_fault_reports_total").contains(&5));

    for session in [a, b, c] {
        session.close().await.unwrap();
    }
}
