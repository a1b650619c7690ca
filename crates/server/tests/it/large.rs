//! Requests and answers near the limits of etcd's API, through servers that do not lead, and calls beyond number on one connection.

use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcd::etcdserverpb::lease_client::LeaseClient;
use quorate_wire::etcd::v3electionpb::CampaignRequest;
use quorate_wire::etcd::v3electionpb::election_client::ElectionClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::support::*;

/// The largest request.
const LIMIT: usize = 1536 * 1024;
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

async fn channel(cluster: &Cluster, at: usize) -> Channel {
    let address = format!("http://{}", cluster.configs[at].client_listen);
    let channel = Channel::from_shared(address).unwrap();
    channel.connect().await.unwrap()
}

async fn put(channel: &Channel, key: &str, value: &[u8]) -> Result<i64, Status> {
    let request = pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    let answer = KvClient::new(channel.clone()).put(request).await?;
    Ok(answer.into_inner().header.unwrap().revision)
}

async fn range(
    channel: &Channel,
    key: &str,
    range_end: &str,
    serializable: bool,
    min_revision: i64,
) -> Vec<Vec<u8>> {
    let mut request = Request::new(pb::RangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        serializable,
        ..Default::default()
    });
    let min_revision = min_revision.to_string().parse().unwrap();
    request
        .metadata_mut()
        .insert("quorate-min-revision", min_revision);
    let mut client = KvClient::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX);
    let found = client.range(request).await.unwrap().into_inner();
    assert_eq!(found.count, i64::try_from(found.kvs.len()).unwrap());
    found.kvs.into_iter().map(|kv| kv.value.to_vec()).collect()
}

/// Bytes that no compression and no mix-up would leave as they are.
fn value(bytes: usize, seed: u8) -> Vec<u8> {
    let mut state = u32::from(seed) + 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_up_to_the_limit_pass_a_cluster_and_larger_ones_are_refused() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut channels = Vec::new();
    for at in 0..3 {
        channels.push(channel(&cluster, at).await);
    }
    let follower = &channels[(leader + 1) % 3];
    let largest = value(LIMIT - 8, 0);
    let at = put(follower, "k", &largest).await.unwrap();
    for channel in &channels {
        for serializable in [false, true] {
            let found = range(channel, "k", "", serializable, at).await;
            assert!(found == [&largest[..]], "it was put otherwise");
        }
    }
    for channel in &channels {
        let refused = put(channel, "k", &value(LIMIT, 1)).await.unwrap_err();
        let told = (refused.code(), refused.message());
        let text = "etcdserver: request is too large";
        assert_eq!(told, (Code::InvalidArgument, text));
        let far_larger = value(LIMIT + 600 * 1024, 1);
        let refused = put(channel, "k", &far_larger).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let text = refused.message();
        let begins = "grpc: received message larger than max (2";
        assert!(text.starts_with(begins), "{text}");
        assert!(text.ends_with(" vs. 2097152)"), "{text}");
    }
    // Many of them in one answer, and in a transaction's.
    let all: Vec<Vec<u8>> = (0..20).map(|n| value(LIMIT - 64, n)).collect();
    let mut newest = 0;
    for (n, value) in all.iter().enumerate() {
        newest = put(follower, &format!("many/{n:02}"), value).await.unwrap();
    }
    assert_eq!(newest, at + 20, "nothing that was refused was applied");
    for channel in &channels {
        let found = range(channel, "many/", "many0", false, 0).await;
        assert!(found == all, "they were put otherwise");
    }
    // What was large is there after the leader's death, too, and on a server that was restarted.
    cluster.kill(leader);
    cluster.leader().await;
    cluster.restart(leader);
    cluster.leader().await;
    let restarted = channel(&cluster, leader).await;
    let found = range(&restarted, "k", "n", true, newest).await;
    assert!(found[0] == largest && found[1..] == all[..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_thousand_wait_on_one_connection_and_what_they_wait_for_gets_through() {
    const COUNT: usize = 1_500;
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let channel = channel(&cluster, 0).await;
    let lease = || LeaseClient::new(channel.clone());
    for id in [1, 2] {
        let request = pb::LeaseGrantRequest { ttl: 600, id };
        lease().lease_grant(request).await.unwrap();
    }
    let campaign = |lease| {
        let mut election = ElectionClient::new(channel.clone());
        async move {
            let request = CampaignRequest {
                name: "e".into(),
                lease,
                ..Default::default()
            };
            election.campaign(request).await
        }
    };
    campaign(1).await.unwrap();
    let waiting: Vec<_> = (0..COUNT).map(|_| tokio::spawn(campaign(2))).collect();
    let entered = async {
        while range(&channel, "e/", "e0", true, 0).await.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    let entered = tokio::time::timeout(PATIENCE, entered);
    entered.await.expect("a read gets through");
    // Behind all of them on the connection, and what they wait for.
    let request = pb::LeaseRevokeRequest { id: 1 };
    let mut lease = lease();
    let revoked = tokio::time::timeout(PATIENCE, lease.lease_revoke(request));
    revoked.await.expect("it is answered").unwrap();
    for waiting in waiting {
        let answered = tokio::time::timeout(PATIENCE, waiting).await;
        let answered = answered.expect("it is answered").unwrap().unwrap();
        assert_eq!(answered.into_inner().leader.unwrap().lease, 2);
    }
}
