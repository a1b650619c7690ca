//! Leases of etcd's API while the leader is killed with -9: none ends before its time, none lives much longer, and what was revoked stays so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use quorate_client::kv::pb::{EventType, PutRequest};
use quorate_client::kv::{Kv, KvWatchEvent, WatchOptions};
use quorate_client::{Client, ClientOptions, KeyRange, Read};

use crate::harness::Cluster;

/// How much longer than its TTL a lease may live whose leader was killed: the next one counts the TTL anew from its election, clocks
/// may drift apart, and the rest is for a busy machine. The servers detect a death and elect within one second.
const LONGER_MAX: Duration = Duration::from_secs(5);

/// What the test knows of a lease.
#[derive(Clone, Copy, Debug)]
struct Known {
    id: i64,
    ttl: Duration,
    /// When the newest keep-alive that was answered was sent, or the grant.
    kept: Instant,
}

impl Known {
    fn key(&self) -> String {
        format!("of/{}", self.id)
    }
}

/// A lease with a key.
async fn grant(kv: &Kv, ttl_seconds: i64) -> Known {
    let kept = Instant::now();
    let (id, ttl) = kv.grant_lease(0, ttl_seconds).await.unwrap();
    assert_eq!(ttl, ttl_seconds);
    let known = Known {
        id,
        ttl: Duration::from_secs(ttl.unsigned_abs()),
        kept,
    };
    let put = PutRequest {
        key: known.key().into(),
        lease: id,
        ..PutRequest::default()
    };
    kv.put_with(put).await.unwrap();
    known
}

async fn keep(kv: &Kv, known: &mut Known) {
    let sent = Instant::now();
    let kept = kv.keep_lease(known.id).await.unwrap();
    let ttl = kept.unwrap_or_else(|| panic!("{known:?} ended though it was kept alive"));
    assert_eq!(ttl.unsigned_abs(), known.ttl.as_secs());
    known.kept = sent;
}

/// Notes when each key below `of/` was told to be gone.
async fn note_ends(kv: Kv, ends: tokio::sync::watch::Sender<BTreeMap<String, Instant>>) {
    let mut watch = kv.watch(WatchOptions::of(KeyRange::prefix("of/"))).await;
    let watch = watch.as_mut().expect("the server serves");
    loop {
        let event = watch.next().await.expect("a watch goes on");
        let KvWatchEvent::Changes { events, .. } = event.expect("nothing is compacted") else {
            continue;
        };
        for event in events {
            if event.r#type() == EventType::Delete {
                let key = event.kv.expect("an event has its key").key;
                let key = String::from_utf8(key.to_vec()).expect("keys are text");
                ends.send_modify(|ends| {
                    ends.insert(key, Instant::now());
                });
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_keep_their_time_when_the_leader_is_killed() {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let leader = cluster.leader().await;
    let options = ClientOptions {
        timeout: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    // Tries all servers, the one that is killed first.
    let endpoints = (leader..leader + 3).map(|n| cluster.endpoint(n % 3));
    let kv = Client::lazy(endpoints, options).unwrap().kv();
    let (ends, mut ended) = tokio::sync::watch::channel(BTreeMap::new());
    let noting = tokio::spawn(note_ends(kv.clone(), ends));

    let kept: Vec<Known> = join_all((0..10).map(|_| grant(&kv, 3))).await;
    let revoked = grant(&kv, 600).await;
    // From 2 to 6 seconds, with all kinds of ages when the leader dies.
    let mut silent: Vec<Known> = join_all((0..40).map(|n| grant(&kv, 2 + n % 5))).await;
    kv.revoke_lease(revoked.id).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let keeping = {
        let (kv, stop, mut kept) = (kv.clone(), Arc::clone(&stop), kept.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                join_all(kept.iter_mut().map(|known| keep(&kv, known))).await;
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
        })
    };
    // Not all at once: a group of them every now and then, the last one right before the leader dies.
    for group in silent.chunks_mut(10) {
        tokio::time::sleep(Duration::from_millis(250)).await;
        join_all(group.iter_mut().map(|known| keep(&kv, known))).await;
    }
    let killed = Instant::now();
    tokio::task::block_in_place(|| cluster.kill_server(leader));

    // What the next leader says of them: never more than was granted, never less than what is left.
    let told = join_all(silent.iter().map(|known| async {
        let told = kv.lease_time_to_live(known.id, true).await.unwrap();
        (*known, told, Instant::now())
    }));
    let mut lived = 0;
    for (known, told, at) in told.await {
        let left = known.ttl.saturating_sub(at - known.kept);
        if told.ttl == -1 {
            assert!(left.is_zero(), "{known:?} is over, with {left:?} left");
            continue;
        }
        lived += 1;
        let granted = i64::try_from(known.ttl.as_secs()).unwrap();
        assert_eq!(told.granted_ttl, granted, "{known:?}");
        assert!(told.ttl <= granted, "{known:?} was given {} s", told.ttl);
        let told_secs = Duration::from_secs(told.ttl.unsigned_abs());
        let whole = Duration::from_secs(1);
        assert!(
            told_secs + whole > left,
            "{known:?}: {told_secs:?} of {left:?}"
        );
        assert_eq!(told.keys, [known.key()]);
    }
    assert!(
        lived > 0,
        "the next leader was found too late to say anything"
    );

    let all_ended =
        ended.wait_for(|ended| silent.iter().all(|known| ended.contains_key(&known.key())));
    let all_ended = tokio::time::timeout(Duration::from_secs(30), all_ended).await;
    drop(
        all_ended
            .expect("every lease that nobody keeps alive ends")
            .unwrap(),
    );
    let ended = ended.borrow().clone();
    let (mut soonest, mut latest) = (Duration::MAX, Duration::ZERO);
    for known in &silent {
        let end = ended[&known.key()];
        let due = known.kept + known.ttl;
        assert!(end >= due, "{known:?} ended {:?} too early", due - end);
        soonest = soonest.min(end - due);
        let due = killed + known.ttl;
        latest = latest.max(end.saturating_duration_since(due));
    }
    assert!(
        latest <= LONGER_MAX,
        "one lived {latest:?} longer than its TTL after the kill"
    );
    println!(
        "ended {soonest:?} after their time at the soonest, and {latest:?} after the kill and their TTL at the latest"
    );

    // Who was kept alive all the time lives, with its key; who was revoked does not.
    stop.store(true, Ordering::Relaxed);
    keeping
        .await
        .expect("none of those that were kept alive ended");
    for known in &kept {
        assert!(!ended.contains_key(&known.key()), "{known:?} ended");
        let found = kv.get(known.key()).await.unwrap().expect("it is there");
        assert_eq!(found.lease, known.id);
    }
    assert!(ended.contains_key(&revoked.key()));
    assert_eq!(
        kv.lease_time_to_live(revoked.id, false).await.unwrap().ttl,
        -1
    );
    let left = kv.range(Read::of(KeyRange::prefix("of/"))).await.unwrap();
    assert_eq!(left.kvs.len(), kept.len(), "{left:?}");
    noting.abort();
}
