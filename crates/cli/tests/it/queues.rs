//! More than a thousand who wait for elections and locks through etcd's API while the leader is killed with -9 and leases end: each is
//! answered, with the truth, and nobody leads beside another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use quorate_client::kv::pb::EventType;
use quorate_client::kv::{Kv, KvWatchEvent, WatchOptions};
use quorate_client::{KeyRange, Read};
use quorate_wire::etcd::etcdserverpb::LeaseRevokeRequest;
use quorate_wire::etcd::etcdserverpb::lease_client::LeaseClient;
use quorate_wire::etcd::v3electionpb::election_client::ElectionClient;
use quorate_wire::etcd::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ResignRequest};
use quorate_wire::etcd::v3lockpb::lock_client::LockClient;
use quorate_wire::etcd::v3lockpb::{LockRequest, UnlockRequest};
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::Cluster;
use crate::servers::Servers;

/// Elections in which the same few leases stand, and those leases.
const SHARED: usize = 100;
const SHARED_LEASES: usize = 5;
/// Elections, and how many stand in each with a lease of their own.
const OWN: usize = 10;
const OWN_DEEP: usize = 50;
/// Of each of those: leases that nobody keeps alive once the leader is dead, and leases that are revoked all at once.
const SHORT_DEEP: usize = 5;
const REVOKED_DEEP: usize = 20;
/// Locks, and how many stand in line for each.
const LOCKS: usize = 15;
const LOCK_DEEP: usize = 20;

const WAITERS: usize = SHARED * SHARED_LEASES + OWN * OWN_DEEP + LOCKS * LOCK_DEEP;
/// Far beyond what all of it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a waiter does when it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Stay,
    LetGo,
    Revoke,
}

#[derive(Clone, Debug)]
struct Waiter {
    /// Begins with `lock/` or not.
    name: String,
    lease: i64,
    then: Then,
}

/// How a waiter was answered.
#[derive(Clone, Debug)]
enum Answer {
    /// First with this key, as of a revision. A lock's answer does not say which one created it.
    Led {
        key: Vec<u8>,
        created: Option<i64>,
        at: i64,
    },
    LeaseGone,
}

type Answers = Mutex<Vec<(Waiter, Answer)>>;

impl Waiter {
    /// Waits until it is answered: by any server, asked again where an answer leaves open what is so.
    async fn wait(&self, servers: &Servers, at: usize) -> Answer {
        let name = self.name.clone();
        let answered = if self.name.starts_with("lock/") {
            let request = LockRequest {
                name: name.into(),
                lease: self.lease,
            };
            let call = |channel| {
                let request = request.clone();
                async move { LockClient::new(channel).lock(request).await }
            };
            let answered = servers.ask(at, call).await;
            answered.map(|answered| (answered.header, answered.key, None))
        } else {
            let request = CampaignRequest {
                name: name.into(),
                lease: self.lease,
                value: self.lease.to_string().into(),
            };
            let call = |channel| {
                let request = request.clone();
                async move { ElectionClient::new(channel).campaign(request).await }
            };
            let answered = servers.ask(at, call).await;
            answered.map(|answered| {
                let leader = answered.leader.expect("a campaign is answered with a key");
                assert_eq!(leader.lease, self.lease);
                (answered.header, leader.key, Some(leader.rev))
            })
        };
        match answered {
            Ok((header, key, created)) => Answer::Led {
                key: key.to_vec(),
                created,
                at: header.expect("every answer has a header").revision,
            },
            Err(status) => {
                let told = (status.code(), status.message());
                let gone = (Code::Unknown, "etcdserver: requested lease not found");
                assert_eq!(told, gone, "{self:?}");
                Answer::LeaseGone
            }
        }
    }

    /// Ends its lead, if it does so itself.
    async fn let_go(&self, servers: &Servers, at: usize, key: &[u8], created: Option<i64>) {
        match (self.then, created) {
            (Then::Stay, _) => {}
            (Then::Revoke, _) => revoke(servers, at, self.lease).await,
            (Then::LetGo, None) => {
                let key = key.to_vec();
                let call = |channel| {
                    let key = key.clone().into();
                    async move { LockClient::new(channel).unlock(UnlockRequest { key }).await }
                };
                servers.ask(at, call).await.expect("it is unlocked");
            }
            (Then::LetGo, Some(rev)) => {
                let leader = LeaderKey {
                    name: self.name.clone().into(),
                    key: key.to_vec().into(),
                    rev,
                    lease: self.lease,
                };
                let call = |channel| {
                    let leader = Some(leader.clone());
                    async move {
                        let request = ResignRequest { leader };
                        ElectionClient::new(channel).resign(request).await
                    }
                };
                servers.ask(at, call).await.expect("it resigns");
            }
        }
    }
}

/// Ends a lease; that it had ended already is as good.
async fn revoke(servers: &Servers, at: usize, id: i64) {
    let call = |channel| async move {
        let request = LeaseRevokeRequest { id };
        LeaseClient::new(channel).lease_revoke(request).await
    };
    if let Err(status) = servers.ask(at, call).await {
        assert_eq!(status.code(), Code::NotFound, "{status:?}");
    }
}

async fn grant(kv: &Kv, count: usize, ttl_seconds: i64) -> Vec<i64> {
    let grants = (0..count).map(|_| kv.grant_lease(0, ttl_seconds));
    let granted = join_all(grants).await.into_iter();
    granted.map(|granted| granted.unwrap().0).collect()
}

/// Waits until something is so.
async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !look().await {
        assert!(begun.elapsed() < PATIENCE, "never so: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One key that stood in a line: from which revision on, and to which.
#[derive(Clone, Debug)]
struct Stood {
    key: Vec<u8>,
    created: u64,
    deleted: u64,
}

/// Who stood in which line when, out of the history of the key space.
async fn history(kv: &Kv) -> BTreeMap<String, Vec<Stood>> {
    let end = kv.put("end", "").await.expect("the servers serve");
    let options = WatchOptions {
        start_revision: 2,
        ..WatchOptions::of(KeyRange::from("a"))
    };
    let mut watch = kv.watch(options).await.expect("the servers serve");
    let mut lines: BTreeMap<String, Vec<Stood>> = BTreeMap::new();
    loop {
        let event = watch.next().await.expect("a watch goes on");
        let KvWatchEvent::Changes { events, .. } = event.expect("nothing is compacted") else {
            continue;
        };
        for event in events {
            let is_put = event.r#type() == EventType::Put;
            let kv = event.kv.expect("an event has its key");
            let revision = u64::try_from(kv.mod_revision).expect("revisions are positive");
            if revision >= end {
                return lines;
            }
            let key = kv.key.to_vec();
            let (name, _) = std::str::from_utf8(&key).unwrap().rsplit_once('/').unwrap();
            let line = lines.entry(name.to_owned()).or_default();
            if !is_put {
                let stood = line.iter_mut().rfind(|stood| stood.key == key);
                stood.expect("it was there").deleted = revision;
            } else if kv.version == 1 {
                line.push(Stood {
                    key,
                    created: revision,
                    deleted: u64::MAX,
                });
            }
        }
    }
}

/// That a key was the first of its line at the revision of an answer; which one created it.
#[track_caller]
fn check_first(line: &[Stood], waiter: &Waiter, key: &[u8], at: u64) -> u64 {
    let stands = |stood: &&Stood| stood.created <= at && at < stood.deleted;
    let first = line
        .iter()
        .filter(stands)
        .min_by_key(|stood| stood.created)
        .unwrap_or_else(|| panic!("nobody stood at {at}: {waiter:?}"));
    assert_eq!(
        first.key, key,
        "{waiter:?} was told that it leads at {at}, where {first:?} led"
    );
    first.created
}

/// Follows who leads an election, at any server, until told to stop: creations of the leaders' keys, in the order told.
async fn observe(
    servers: Servers,
    at: usize,
    name: String,
    stop: tokio::sync::watch::Receiver<bool>,
) -> Vec<i64> {
    let mut told = Vec::new();
    let mut stopped = stop.clone();
    loop {
        let call = |channel| {
            let name = name.clone().into();
            async move {
                let request = LeaderRequest { name };
                ElectionClient::new(channel).observe(request).await
            }
        };
        let mut leaders = servers.ask(at, call).await.expect("it may be observed");
        loop {
            let next = tokio::select! {
                next = leaders.next() => next,
                _ = stopped.wait_for(|stop| *stop) => return told,
            };
            match next {
                Some(Ok(leader)) => told.push(leader.kv.expect("there is one").create_revision),
                Some(Err(_)) | None => break,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_a_thousand_who_wait_are_all_answered_when_the_leader_is_killed_and_leases_end() {
    let mut cluster = tokio::task::block_in_place(Cluster::start);
    let leader = cluster.leader().await;
    let survivor = (leader + 1) % 3;
    let servers = Servers::of(&cluster);
    let kv = cluster.client().kv();
    let begun = Instant::now();

    let shared = grant(&kv, SHARED_LEASES, 600).await;
    let short = grant(&kv, OWN * SHORT_DEEP, 5).await;
    let revoked = grant(&kv, OWN * REVOKED_DEEP, 600).await;
    let self_ending = OWN * (OWN_DEEP - SHORT_DEEP - REVOKED_DEEP);
    let own = grant(&kv, self_ending, 600).await;
    let locking = grant(&kv, LOCKS * LOCK_DEEP, 600).await;

    // Until the leader is dead, somebody keeps the short ones alive.
    let keeping = {
        let (kv, short) = (kv.clone(), short.clone());
        tokio::spawn(async move {
            loop {
                let kept = short.iter().map(|lease| kv.keep_lease(*lease));
                join_all(kept).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
    };
    let waiter = |name: String, lease: i64, then| Waiter { name, lease, then };
    let own_name = |n: usize| format!("own/{}", n % OWN);
    let lock_name = |n: usize| format!("lock/{}", n % LOCKS);
    // Whoever leads while the others come: a lease that will expire, and one that will be revoked.
    let first: Vec<Waiter> = (0..OWN)
        .map(|n| waiter(own_name(n), short[n], Then::Stay))
        .chain((0..LOCKS).map(|n| waiter(lock_name(n), locking[n], Then::Stay)))
        .collect();
    let mut rest: Vec<Waiter> = Vec::new();
    for n in 0..SHARED {
        let names = shared.iter().map(|lease| (format!("shared/{n}"), *lease));
        rest.extend(names.map(|(name, lease)| waiter(name, lease, Then::Stay)));
    }
    let then = |n: usize| [Then::LetGo, Then::Revoke][n % 2];
    let numbered = |leases: &[i64]| leases.iter().copied().enumerate().collect::<Vec<_>>();
    for (n, lease) in numbered(&short[OWN..]) {
        rest.push(waiter(own_name(n), lease, Then::Stay));
    }
    for (n, lease) in numbered(&revoked) {
        rest.push(waiter(own_name(n), lease, Then::Stay));
    }
    for (n, lease) in numbered(&own) {
        rest.push(waiter(own_name(n), lease, then(n / OWN)));
    }
    for (n, lease) in numbered(&locking[LOCKS..]) {
        rest.push(waiter(lock_name(n), lease, then(n / LOCKS)));
    }
    assert_eq!(first.len() + rest.len(), WAITERS);

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let observers: Vec<_> = (0..3)
        .map(|n| tokio::spawn(observe(servers.clone(), n, own_name(n), stopped.clone())))
        .collect();
    let answers: Arc<Answers> = Arc::default();
    let mut waiting = JoinSet::new();
    let mut spawn = |at: usize, waiter: Waiter| {
        let (servers, answers) = (servers.clone(), Arc::clone(&answers));
        waiting.spawn(async move {
            let answer = waiter.wait(&servers, at).await;
            answers
                .lock()
                .unwrap()
                .push((waiter.clone(), answer.clone()));
            if let Answer::Led { key, created, .. } = answer {
                waiter.let_go(&servers, at, &key, created).await;
            }
        });
    };
    let led = || -> HashMap<String, BTreeSet<i64>> {
        let mut led: HashMap<String, BTreeSet<i64>> = HashMap::new();
        for (waiter, answer) in answers.lock().unwrap().iter() {
            if matches!(answer, Answer::Led { .. }) {
                let leases = led.entry(waiter.name.clone()).or_default();
                leases.insert(waiter.lease);
            }
        }
        led
    };
    for (n, waiter) in first.into_iter().enumerate() {
        spawn(n, waiter);
    }
    until("the first lead", async || led().len() == OWN + LOCKS).await;
    for (n, waiter) in rest.into_iter().enumerate() {
        spawn(n, waiter);
    }
    // Whoever entered made a revision; the last of them are still entering when the leader dies.
    let entered = u64::try_from(WAITERS * 9 / 10).unwrap();
    until("nine of ten entered", async || {
        let read = Read::of(KeyRange::key("none")).serializable();
        let read = kv.range(read).await.expect("the servers serve");
        read.header.expect("it has one").revision.unsigned_abs() > entered
    })
    .await;
    let entered_after = begun.elapsed();
    keeping.abort();
    tokio::task::block_in_place(|| cluster.kill_server(leader));

    // Many at once, and at once.
    let mass = revoked
        .iter()
        .map(|lease| revoke(&servers, survivor, *lease));
    join_all(mass).await;
    // Those that lead a hundred elections, one after another, then two together.
    for ended in [&shared[..1], &shared[1..3], &shared[3..4]] {
        let ends = ended.iter().map(|lease| revoke(&servers, survivor, *lease));
        join_all(ends).await;
        let last = shared
            .iter()
            .position(|lease| *lease == ended[ended.len() - 1]);
        let alive = &shared[last.unwrap() + 1..];
        until("somebody leads each election", async || {
            let led = led();
            (0..SHARED).all(|n| {
                let led = led.get(&format!("shared/{n}"));
                led.is_some_and(|led| alive.iter().any(|lease| led.contains(lease)))
            })
        })
        .await;
        // A lease that is over gets nobody a lead any more, wherever it is asked for.
        for at in [survivor, (leader + 2) % 3] {
            let late = waiter("shared/0".to_owned(), ended[0], Then::Stay);
            let answer = late.wait(&servers, at).await;
            assert!(matches!(answer, Answer::LeaseGone), "{answer:?}");
        }
    }
    let ends = locking[..LOCKS].iter();
    join_all(ends.map(|lease| revoke(&servers, survivor, *lease))).await;

    let all = async { while waiting.join_next().await.transpose().unwrap().is_some() {} };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        let answered = answers.lock().unwrap().len();
        panic!("{} of {WAITERS} were never answered", WAITERS - answered);
    }
    let answered_after = begun.elapsed();
    stop.send_replace(true);

    let lines = history(&kv).await;
    let left: BTreeSet<i64> = kv.leases().await.unwrap().into_iter().collect();
    let answers = answers.lock().unwrap().clone();
    assert_eq!(answers.len(), WAITERS);
    let mut gone = 0;
    for (waiter, answer) in &answers {
        match answer {
            Answer::Led { key, created, at } => {
                let first = check_first(&lines[&waiter.name], waiter, key, at.unsigned_abs());
                assert!(
                    created.is_none_or(|told| told.unsigned_abs() == first),
                    "{waiter:?}"
                );
            }
            Answer::LeaseGone => {
                assert!(!left.contains(&waiter.lease), "{waiter:?}: its lease lives");
                gone += 1;
            }
        }
    }
    // Whose lease nobody ended led, in every line.
    let led = led_of(&answers);
    let must_lead = own.iter().chain(&locking).chain(&shared[4..]);
    let missing: Vec<_> = must_lead.filter(|lease| !led.contains(lease)).collect();
    assert!(missing.is_empty(), "never led: {missing:?}");
    assert!(
        gone >= 100,
        "only {gone} lost their leases while they waited"
    );
    for observer in observers {
        let told = observer.await.unwrap();
        assert!(told.len() > 5, "{told:?}");
        assert!(told.is_sorted(), "a leader came back: {told:?}");
    }
    println!(
        "{WAITERS} waiters entered in {entered_after:?}, all were answered after {answered_after:?}; {gone} lost their leases; asked again: {}",
        servers.asked_again()
    );
}

fn led_of(answers: &[(Waiter, Answer)]) -> BTreeSet<i64> {
    let led = answers.iter();
    led.filter(|(_, answer)| matches!(answer, Answer::Led { .. }))
        .map(|(waiter, _)| waiter.lease)
        .collect()
}
