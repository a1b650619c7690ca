//! Watches of the key space while the leader is killed with -9: whoever goes on at its next revision elsewhere has no gap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_client::kv::pb::EventType;
use quorate_client::kv::{KeyRange, KvWatchEvent, Read, WatchOptions};
use quorate_client::{Client, ClientOptions, ErrorKind};
use tokio::sync::watch;

use crate::harness::{Cluster, eventually};

/// What a watcher was told: value by revision.
type Told = BTreeMap<u64, String>;

fn client(endpoints: impl IntoIterator<Item = String>) -> Client {
    let options = ClientOptions {
        timeout: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    Client::lazy(endpoints, options).expect("the endpoints are well-formed")
}

/// Follows the keys at one server; whenever told of another, at that one from the next revision on. Ends at the value `end`.
async fn follow(mut endpoint: watch::Receiver<String>) -> (Told, usize) {
    let mut told = Told::new();
    let (mut next, mut watches) = (2, 0);
    loop {
        let at = endpoint.borrow_and_update().clone();
        let options = WatchOptions {
            start_revision: next,
            ..WatchOptions::of(KeyRange::prefix("key/"))
        };
        let moved = async |endpoint: &mut watch::Receiver<String>| {
            endpoint.changed().await.expect("the test holds the sender");
        };
        let kv = client([at]).kv();
        let mut watching = tokio::select! {
            watching = kv.watch(options) => watching.expect("the server serves it"),
            () = moved(&mut endpoint) => continue,
        };
        watches += 1;
        loop {
            let event = tokio::select! {
                event = watching.next() => event,
                () = moved(&mut endpoint) => break,
            };
            let event = event
                .expect("a watch goes on")
                .expect("nothing is compacted");
            let KvWatchEvent::Changes {
                next_revision,
                events,
            } = event
            else {
                continue;
            };
            for event in events {
                assert_eq!(event.r#type(), EventType::Put);
                let kv = event.kv.expect("a put has its key");
                let revision = u64::try_from(kv.mod_revision).expect("revisions are positive");
                let value = String::from_utf8(kv.value.to_vec()).expect("values are text");
                let is_end = value == "end";
                assert!(revision >= next, "{revision} was told again");
                assert!(told.insert(revision, value).is_none());
                if is_end {
                    return (told, watches);
                }
            }
            next = next_revision;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_go_on_without_a_gap_when_the_leader_is_killed() {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let leader = cluster.leader().await;
    let (moves, watchers): (Vec<_>, Vec<_>) = (0..3)
        .map(|n| {
            let (sender, receiver) = watch::channel(cluster.endpoint(n));
            (sender, tokio::spawn(follow(receiver)))
        })
        .unzip();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        // Tries all servers, the one that is killed first.
        let endpoints = (leader..leader + 3).map(|n| cluster.endpoint(n % 3));
        let kv = client(endpoints).kv();
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut acknowledged = Told::new();
            for n in 0_u64.. {
                let last = stop.load(Ordering::Relaxed);
                let value = if last {
                    "end".to_owned()
                } else {
                    n.to_string()
                };
                match kv.put(format!("key/{}", n % 7), value.clone()).await {
                    Ok(revision) => {
                        acknowledged.insert(revision, value);
                        if last {
                            break;
                        }
                    }
                    // Neither is counted as done; either may have been.
                    Err(error) => assert!(
                        matches!(error.kind(), ErrorKind::Retry | ErrorKind::Unknown),
                        "{error:?}"
                    ),
                }
            }
            acknowledged
        })
    };
    let survivor_kv = client([cluster.endpoint((leader + 2) % 3)]).kv();
    let revision = async || {
        let read = Read::of(KeyRange::prefix("key/")).serializable();
        let header = survivor_kv
            .range(read)
            .await
            .ok()
            .and_then(|read| read.header);
        header.map_or(0, |header| header.revision)
    };
    let survivor = (leader + 2) % 3;
    while revision().await < 50 {
        assert!(!writer.is_finished(), "the writer gave up");
        tokio::task::yield_now().await;
    }
    let at_kill = revision().await;
    tokio::task::block_in_place(|| cluster.kill_server(leader));
    moves[leader].send_replace(cluster.endpoint(survivor));
    while revision().await < at_kill + 50 {
        assert!(!writer.is_finished(), "the writer gave up");
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged = writer.await.expect("the writer finishes");
    let last = *acknowledged.keys().last().expect("something was written");
    let mut whole = Told::new();
    for (n, watcher) in watchers.into_iter().enumerate() {
        let (told, watches) = watcher.await.expect("the watcher finishes");
        assert!(told.keys().copied().eq(2..=last), "watcher {n} has a gap");
        assert_eq!(watches, if n == leader { 2 } else { 1 });
        for (revision, value) in &acknowledged {
            assert_eq!(told.get(revision), Some(value), "watcher {n}");
        }
        whole = told;
    }
    tokio::task::block_in_place(|| {
        cluster.start_server(leader);
        eventually("the killed server is back", || {
            (cluster.run(&["kv", "get", "key/0", "--timeout", "5s"]).code == 0).then_some(())
        });
    });
    // What was killed has every write, at the revision that was acknowledged, and nothing else.
    let (_alone, endpoint) = watch::channel(cluster.endpoint(leader));
    let (told, _) = follow(endpoint).await;
    assert!(told == whole, "the restarted server tells another history");
    let read = Read::of(KeyRange::prefix("key/"));
    let found = client([cluster.endpoint(leader)]).kv().range(read).await;
    for kv in found.expect("the server serves it").kvs {
        let revision = kv.mod_revision.unsigned_abs();
        assert_eq!(whole.get(&revision).map(String::as_bytes), Some(&*kv.value));
    }
}
