//! etcd's Election and Lock services.

use std::time::Duration;

use quorate_wire::etcd::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcd::etcdserverpb::lease_client::LeaseClient;
use quorate_wire::etcd::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
};
use quorate_wire::etcd::v3electionpb::election_client::ElectionClient;
use quorate_wire::etcd::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ResignRequest,
};
use quorate_wire::etcd::v3lockpb::lock_client::LockClient;
use quorate_wire::etcd::v3lockpb::{LockRequest, UnlockRequest};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::support::*;

/// Clients of one server.
#[derive(Clone)]
struct Etcd {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    election: ElectionClient<Channel>,
    lock: LockClient<Channel>,
}

impl Etcd {
    fn of(cluster: &Cluster, at: usize) -> Self {
        let address = cluster.configs[at].client_listen;
        let channel = Endpoint::try_from(format!("http://{address}"))
            .unwrap()
            .connect_lazy();
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            election: ElectionClient::new(channel.clone()),
            lock: LockClient::new(channel),
        }
    }

    async fn grant(&mut self, id: i64, ttl: i64) {
        let begun = std::time::Instant::now();
        loop {
            let request = LeaseGrantRequest { id, ttl };
            match self.lease.lease_grant(request).await {
                Ok(_) => return,
                Err(status) if status.code() == Code::Unavailable => {}
                Err(status) => panic!("{status}"),
            }
            assert!(begun.elapsed() < PATIENCE, "no lease was granted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn revoke(&mut self, id: i64) {
        let request = LeaseRevokeRequest { id };
        self.lease.lease_revoke(request).await.unwrap();
    }

    async fn campaign(
        &self,
        name: &'static str,
        lease: i64,
        value: &'static str,
    ) -> Result<CampaignResponse, Status> {
        let request = CampaignRequest {
            name: name.into(),
            lease,
            value: value.into(),
        };
        let answered = self.election.clone().campaign(request).await;
        answered.map(tonic::Response::into_inner)
    }

    /// A campaign that goes on beside the test.
    fn campaigning(
        &self,
        name: &'static str,
        lease: i64,
        value: &'static str,
    ) -> JoinHandle<Result<CampaignResponse, Status>> {
        let etcd = self.clone();
        tokio::spawn(async move { etcd.campaign(name, lease, value).await })
    }

    async fn leader(&self, name: &'static str) -> Result<LeaderResponse, Status> {
        let request = LeaderRequest { name: name.into() };
        let answered = self.election.clone().leader(request).await;
        answered.map(tonic::Response::into_inner)
    }

    async fn keys(&self, below: &'static str) -> usize {
        let mut range_end = below.as_bytes().to_vec();
        *range_end.last_mut().unwrap() += 1;
        let request = RangeRequest {
            key: below.into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        let found = self.kv.clone().range(request).await.unwrap().into_inner();
        found.kvs.len()
    }

    /// Waits until so many keys are below a prefix.
    async fn until_keys(&self, below: &'static str, count: usize) {
        let begun = std::time::Instant::now();
        while self.keys(below).await != count {
            assert!(begun.elapsed() < PATIENCE, "never saw {count} keys");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[track_caller]
fn says<T: std::fmt::Debug>(answered: Result<T, Status>, code: Code, text: &str) {
    let status = answered.unwrap_err();
    assert_eq!((status.code(), status.message()), (code, text));
}

async fn finished<T>(task: JoinHandle<T>) -> T {
    let task = tokio::time::timeout(PATIENCE, task);
    task.await.expect("it ends").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn campaigns_are_answered_in_order_and_each_call_errs_in_the_words_of_etcd() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let mut etcd = Etcd::of(&cluster, 0);
    for id in 1..=3 {
        etcd.grant(id, 600).await;
    }
    says(etcd.leader("e").await, Code::Unknown, "election: no leader");
    let first = etcd.campaign("e", 1, "one").await.unwrap();
    let first = first.leader.unwrap();
    assert_eq!((&first.key[..], first.lease), (b"e/1".as_slice(), 1));
    // Its own place is found again, with what it says now.
    let again = etcd.campaign("e", 1, "eins").await.unwrap().leader.unwrap();
    assert_eq!(again, first);
    let kv = etcd.leader("e").await.unwrap().kv.unwrap();
    assert_eq!((&kv.value[..], kv.version), (b"eins".as_slice(), 2));

    let second = etcd.campaigning("e", 2, "two");
    etcd.until_keys("e/", 2).await;
    let third = etcd.campaigning("e", 3, "three");
    etcd.until_keys("e/", 3).await;
    let proclaim = |leader: Option<LeaderKey>, value: &'static str| {
        let mut election = etcd.election.clone();
        async move {
            let value = value.into();
            election.proclaim(ProclaimRequest { leader, value }).await
        }
    };
    proclaim(Some(first.clone()), "uno").await.unwrap();
    let kv = etcd.leader("e").await.unwrap().kv.unwrap();
    assert_eq!((&kv.value[..], kv.lease), (b"uno".as_slice(), 1));
    let stale = LeaderKey {
        rev: first.rev - 1,
        ..first.clone()
    };
    says(
        proclaim(Some(stale.clone()), "x").await,
        Code::Unknown,
        "election: not leader",
    );
    let missing = "\"leader\" field must be provided";
    says(proclaim(None, "x").await, Code::Unknown, missing);
    let wrong = LeaderKey {
        lease: 77,
        ..first.clone()
    };
    says(
        proclaim(Some(wrong), "x").await,
        Code::Unknown,
        "etcdserver: requested lease not found",
    );
    let resign = |leader: Option<LeaderKey>| {
        let mut election = etcd.election.clone();
        async move { election.resign(ResignRequest { leader }).await }
    };
    says(resign(None).await, Code::Unknown, missing);
    resign(Some(stale)).await.unwrap();
    assert_eq!(etcd.keys("e/").await, 3, "nobody resigned");
    resign(Some(first)).await.unwrap();
    let second = finished(second).await.unwrap().leader.unwrap();
    assert_eq!(second.lease, 2);
    assert!(!third.is_finished());
    etcd.revoke(2).await;
    assert_eq!(finished(third).await.unwrap().leader.unwrap().lease, 3);

    says(
        etcd.campaign("e", 77, "x").await,
        Code::Unknown,
        "etcdserver: requested lease not found",
    );
    // Who brings no lease gets one.
    let own = etcd.campaign("other", 0, "x").await.unwrap();
    assert_ne!(own.leader.unwrap().lease, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_campaign_is_told_when_its_lease_ends_and_never_answered_with_a_dead_one() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let mut etcd = Etcd::of(&cluster, 0);
    for id in 1..=4 {
        etcd.grant(id, 600).await;
    }
    etcd.campaign("e", 1, "").await.unwrap();
    let second = etcd.campaigning("e", 2, "");
    etcd.until_keys("e/", 2).await;
    let third = etcd.campaigning("e", 3, "");
    etcd.until_keys("e/", 3).await;
    etcd.revoke(2).await;
    says(
        finished(second).await,
        Code::Unknown,
        "etcdserver: requested lease not found",
    );
    assert!(!third.is_finished(), "it is still behind the first");
    // Its key is taken away, its lease lives.
    let mut lock = etcd.lock.clone();
    let key = || UnlockRequest { key: "e/3".into() };
    lock.unlock(key()).await.unwrap();
    says(finished(third).await, Code::Unknown, "election: not leader");
    // A call that is given up takes its key back.
    let fourth = etcd.campaigning("e", 4, "");
    etcd.until_keys("e/", 2).await;
    fourth.abort();
    etcd.until_keys("e/", 1).await;
    // And a lease that runs out is told, too.
    etcd.grant(5, 1).await;
    let fifth = etcd.campaigning("e", 5, "");
    says(
        finished(fifth).await,
        Code::Unknown,
        "etcdserver: requested lease not found",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_held_one_at_a_time() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let mut etcd = Etcd::of(&cluster, 0);
    for id in [0x3e9, 0x3ea, 0x3eb] {
        etcd.grant(id, 600).await;
    }
    let lock = |lease: i64| {
        let mut lock = etcd.lock.clone();
        tokio::spawn(async move {
            let name = "l".into();
            let answered = lock.lock(LockRequest { name, lease }).await;
            answered.map(|answered| answered.into_inner().key)
        })
    };
    assert_eq!(finished(lock(0x3e9)).await.unwrap(), "l/3e9");
    assert_eq!(finished(lock(0x3e9)).await.unwrap(), "l/3e9", "again");
    let second = lock(0x3ea);
    etcd.until_keys("l/", 2).await;
    let third = lock(0x3eb);
    etcd.until_keys("l/", 3).await;
    let mut unlock = etcd.lock.clone();
    let mut unlock =
        async |key: &'static str| unlock.unlock(UnlockRequest { key: key.into() }).await;
    // One in the middle goes: whoever was behind it still waits.
    unlock("l/3ea").await.unwrap();
    says(
        finished(second).await,
        Code::Unknown,
        "mutex: session is expired",
    );
    assert!(!third.is_finished());
    unlock("l/3e9").await.unwrap();
    assert_eq!(finished(third).await.unwrap(), "l/3eb");
    unlock("nobody").await.unwrap();
    says(
        unlock("").await,
        Code::Unknown,
        "etcdserver: key is not provided",
    );
    let lost = finished(lock(0x7777)).await;
    says(lost, Code::Unknown, "etcdserver: requested lease not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_is_told_every_leader_and_every_proclamation() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut etcd = Etcd::of(&cluster, leader);
    let observing = Etcd::of(&cluster, (leader + 1) % 3);
    for id in 1..=2 {
        etcd.grant(id, 600).await;
    }
    let observe = async |etcd: &Etcd| {
        let request = LeaderRequest { name: "e".into() };
        let mut election = etcd.election.clone();
        election.observe(request).await.unwrap().into_inner()
    };
    let mut early = observe(&observing).await;
    let first = etcd.campaign("e", 1, "0").await.unwrap().leader.unwrap();
    let mut late = observe(&observing).await;
    let second = etcd.campaigning("e", 2, "second");
    etcd.until_keys("e/", 2).await;
    // Keys of another name with the same beginning, and noise.
    for n in 1..=20_u8 {
        let value = n.to_string().into();
        let leader = Some(first.clone());
        let request = ProclaimRequest { leader, value };
        etcd.election.proclaim(request).await.unwrap();
        let noise = PutRequest {
            key: format!("elsewhere/{n}").into(),
            ..Default::default()
        };
        etcd.kv.put(noise).await.unwrap();
    }
    let leader = Some(first);
    etcd.election
        .resign(ResignRequest { leader })
        .await
        .unwrap();
    finished(second).await.unwrap();
    let expected: Vec<String> = (0..=20)
        .map(|n| n.to_string())
        .chain(["second".to_owned()])
        .collect();
    for stream in [&mut early, &mut late] {
        let mut told = Vec::new();
        while told.last().is_none_or(|last| last != "second") {
            let next = tokio::time::timeout(PATIENCE, stream.next()).await;
            let kv = next.expect("told").unwrap().unwrap().kv.unwrap();
            told.push(String::from_utf8(kv.value.to_vec()).unwrap());
        }
        assert_eq!(told, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_wait_and_are_answered_in_order_through_a_change_of_leaders() {
    const COUNT: i64 = 200;
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut etcd = Etcd::of(&cluster, (leader + 1) % 3);
    let mut waiting = Vec::new();
    for id in 1..=COUNT {
        etcd.grant(id, 600).await;
        waiting.push(etcd.campaigning("e", id, ""));
    }
    etcd.until_keys("e/", usize::try_from(COUNT).unwrap()).await;
    cluster.kill(leader);
    cluster.leader().await;
    let mut answered = Vec::new();
    while !waiting.is_empty() {
        let begun = std::time::Instant::now();
        let at = loop {
            if let Some(at) = waiting.iter().position(JoinHandle::is_finished) {
                break at;
            }
            assert!(begun.elapsed() < PATIENCE, "{} wait", waiting.len());
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let leader = finished(waiting.swap_remove(at)).await.unwrap();
        let leader = leader.leader.unwrap();
        answered.push(leader.rev);
        // The rest is behind it: nobody else was answered.
        assert!(!waiting.iter().any(JoinHandle::is_finished));
        let request = ResignRequest {
            leader: Some(leader),
        };
        etcd.election.resign(request).await.unwrap();
    }
    assert!(answered.is_sorted(), "{answered:?}");
}
