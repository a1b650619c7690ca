//! Watches of the key space through the etcd API: what etcd answers, in its order, without a gap, whatever others do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use quorate_wire::etcd::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcd::etcdserverpb::watch_client::WatchClient;
use quorate_wire::etcd::etcdserverpb::watch_create_request::FilterType;
use quorate_wire::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_wire::etcd::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use quorate_wire::etcd::mvccpb::event::EventType;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};

use crate::support::*;

const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

async fn channel(cluster: &Cluster, at: usize) -> Channel {
    let address = cluster.configs[at].client_listen;
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Puts a key, again while no leader takes it; the outcome of such a put may be either. Returns its revision.
async fn put(kv: &mut KvClient<Channel>, key: &str, value: impl Into<Vec<u8>>) -> i64 {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.into().into(),
        ..PutRequest::default()
    };
    let begun = Instant::now();
    loop {
        match kv.put(request.clone()).await {
            Ok(response) => return response.into_inner().header.unwrap().revision,
            Err(status) => {
                let transient =
                    [Code::Unavailable, Code::DeadlineExceeded].contains(&status.code());
                assert!(transient && begun.elapsed() < PATIENCE, "{status:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// A stream of watches, with what it was told.
struct Watching {
    up: mpsc::Sender<WatchRequest>,
    down: Streaming<WatchResponse>,
}

impl Watching {
    async fn open(channel: &Channel) -> Self {
        let (up, receiver) = mpsc::channel(64);
        let mut client =
            WatchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let down = client.watch(ReceiverStream::new(receiver)).await.unwrap();
        Self {
            up,
            down: down.into_inner(),
        }
    }

    async fn ask(&self, union: RequestUnion) {
        let request = WatchRequest {
            request_union: Some(union),
        };
        self.up.send(request).await.unwrap();
    }

    async fn create(&self, create: WatchCreateRequest) {
        self.ask(RequestUnion::CreateRequest(create)).await;
    }

    async fn cancel(&self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
            .await;
    }

    async fn progress(&self) {
        self.ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))
            .await;
    }

    async fn next(&mut self) -> WatchResponse {
        tokio::time::timeout(PATIENCE, self.down.next())
            .await
            .expect("an answer in time")
            .expect("no end")
            .unwrap()
    }

    /// The next answer, in short.
    async fn told(&mut self) -> String {
        short(&self.next().await)
    }
}

/// Short forms: `+1@5` created, `1:a=x,-b(y)@7` events, `!1@9` cancelled, `~1@9` progress; a revision of the header comes last.
fn short(response: &WatchResponse) -> String {
    let revision = response.header.unwrap().revision;
    let id = response.watch_id;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let events: Vec<_> = response
        .events
        .iter()
        .map(|event| {
            let kv = event.kv.as_ref().unwrap();
            let change = match event.r#type() {
                EventType::Put => format!("{}={}", text(&kv.key), text(&kv.value)),
                EventType::Delete => format!("-{}", text(&kv.key)),
            };
            match &event.prev_kv {
                Some(prev) => format!("{change}({})", text(&prev.value)),
                None => change,
            }
        })
        .collect();
    match (response.created, response.canceled) {
        (true, false) => format!("+{id}@{revision}"),
        (true, true) => format!("+!{id} {}@{revision}", response.cancel_reason),
        (false, true) if response.compact_revision != 0 => {
            format!("!{id} compacted {}@{revision}", response.compact_revision)
        }
        (false, true) => format!("!{id} {}@{revision}", response.cancel_reason),
        (false, false) if events.is_empty() => format!("~{id}@{revision}"),
        (false, false) => format!("{id}:{}@{revision}", events.join(",")),
    }
}

fn create(key: &str, range_end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        ..WatchCreateRequest::default()
    }
}

fn with_id(watch_id: i64, key: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        watch_id,
        ..create(key, "")
    }
}

async fn delete(kv: &mut KvClient<Channel>, key: &str, range_end: &str) -> i64 {
    let request = DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        prev_kv: false,
    };
    let response = kv.delete_range(request).await.unwrap().into_inner();
    response.header.unwrap().revision
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_as_etcd_does() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let channel = channel(&cluster, 0).await;
    let mut kv = KvClient::new(channel.clone());
    for value in ["1", "2", "3", "4", "5"] {
        put(&mut kv, "a", value).await;
    }
    assert_eq!(delete(&mut kv, "a", "").await, 7);
    let mut watching = Watching::open(&channel).await;
    for asked in [
        with_id(7, "a"),
        with_id(7, "a"),
        create("b", "a"),
        create("b", "b"),
        create("", ""),
        create("", ""),
        with_id(-1, "x"),
        with_id(2, "a"),
        create("a", ""),
    ] {
        watching.create(asked).await;
    }
    watching.cancel(99).await;
    watching.cancel(7).await;
    watching.progress().await;
    for expected in [
        "+7@7",
        "+!-1 mvcc: duplicate watch ID provided on the WatchStream@7",
        "+!-1 mvcc: watcher range is empty@7",
        "+!-1 mvcc: watcher range is empty@7",
        "+0@7",
        "+1@7",
        "+-1@7",
        "+2@7",
        "+3@7",
        "!7 @7",
        "~-1@7",
    ] {
        assert_eq!(watching.told().await, expected);
    }

    let from = |watch_id, start_revision| WatchCreateRequest {
        start_revision,
        prev_kv: true,
        ..with_id(watch_id, "a")
    };
    watching.create(from(20, 2)).await;
    assert_eq!(watching.told().await, "+20@7");
    assert_eq!(
        watching.told().await,
        "20:a=1,a=2(1),a=3(2),a=4(3),a=5(4),-a(5)@7"
    );
    let compaction = CompactionRequest {
        revision: 4,
        physical: true,
    };
    kv.compact(compaction).await.unwrap();
    watching.create(from(21, 3)).await;
    assert_eq!(watching.told().await, "+21@7");
    assert_eq!(watching.told().await, "!21 compacted 4@0");
    watching.create(from(22, 4)).await;
    assert_eq!(watching.told().await, "+22@7");
    assert_eq!(
        watching.told().await,
        "22:a=3,a=4(3),a=5(4),-a(5)@7",
        "the compacted revision is still told, what was before it is not"
    );

    watching.create(from(23, 9)).await;
    let deletions = WatchCreateRequest {
        watch_id: 24,
        filters: vec![FilterType::Noput.into()],
        ..create("a", "b")
    };
    watching.create(deletions).await;
    assert_eq!(watching.told().await, "+23@7");
    assert_eq!(watching.told().await, "+24@7");
    for id in [2, 3, 20] {
        watching.cancel(id).await;
        assert_eq!(watching.told().await, format!("!{id} @7"));
    }
    put(&mut kv, "a", "6").await;
    assert_eq!(watching.told().await, "22:a=6@8");
    delete(&mut kv, "a", "").await;
    let mut told = vec![
        watching.told().await,
        watching.told().await,
        watching.told().await,
    ];
    told.sort();
    assert_eq!(told, ["22:-a(6)@9", "23:-a(6)@9", "24:-a@9"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_nothing_more_to_ask_is_still_told() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let channel = channel(&cluster, 0).await;
    let mut kv = KvClient::new(channel.clone());
    let request = WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create("a", ""))),
    };
    let mut client = WatchClient::new(channel.clone());
    let down = client.watch(tokio_stream::once(request)).await.unwrap();
    let mut down = down.into_inner();
    assert!(down.next().await.unwrap().unwrap().created);
    put(&mut kv, "a", "1").await;
    assert_eq!(short(&down.next().await.unwrap().unwrap()), "0:a=1@2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_come_whole_or_in_fragments_as_asked() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let channel = channel(&cluster, 0).await;
    let mut kv = KvClient::new(channel.clone());
    for key in ["a1", "a2", "a3"] {
        put(&mut kv, key, vec![b'x'; 1024 * 1024]).await;
    }
    let mut watching = Watching::open(&channel).await;
    for fragment in [false, true] {
        let asked = WatchCreateRequest {
            fragment,
            prev_kv: true,
            ..create("a", "b")
        };
        watching.create(asked).await;
        watching.next().await;
    }
    delete(&mut kv, "a", "b").await;
    let mut lens = BTreeMap::<i64, Vec<(usize, bool)>>::new();
    for _ in 0..4 {
        let response = watching.next().await;
        assert_eq!(response.header.unwrap().revision, 5);
        let part = (response.events.len(), response.fragment);
        lens.entry(response.watch_id).or_default().push(part);
    }
    assert_eq!(lens[&0], [(3, false)]);
    assert_eq!(lens[&1], [(1, true), (1, true), (1, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asked_for_progress_hears_how_far_it_is_when_nothing_happens() {
    let cluster = Cluster::start_with(1, |config| {
        config.key_space.watch_progress_notify_interval = Duration::from_millis(100);
    })
    .await;
    cluster.leader().await;
    let channel = channel(&cluster, 0).await;
    let mut kv = KvClient::new(channel.clone());
    let mut watching = Watching::open(&channel).await;
    let asked = WatchCreateRequest {
        progress_notify: true,
        ..create("a", "")
    };
    watching.create(asked).await;
    watching.create(create("b", "")).await;
    assert_eq!(watching.told().await, "+0@1");
    assert_eq!(watching.told().await, "+1@1");
    assert_eq!(put(&mut kv, "other", "1").await, 2);
    let begun = Instant::now();
    while watching.told().await != "~0@2" {
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_watcher_delays_nobody_and_misses_nothing() {
    const VALUE_BYTES: usize = 200_000;
    const PUTS: usize = 120;
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let channel = channel(&cluster, 0).await;
    let mut kv = KvClient::new(channel.clone());
    // On a connection of its own: what it does not read may not fill the others'.
    let mut slow = Watching::open(&self::channel(&cluster, 0).await).await;
    let mut fast = Watching::open(&channel).await;
    for watching in [&mut slow, &mut fast] {
        watching.create(create("key", "kez")).await;
        assert_eq!(watching.told().await, "+0@1");
    }
    let mut fast_told = 0;
    for n in 0..PUTS {
        let revision = put(&mut kv, &format!("key/{n}"), vec![b'x'; VALUE_BYTES]).await;
        let response = fast.next().await;
        assert_eq!(
            response.events[0].kv.as_ref().unwrap().mod_revision,
            revision
        );
        fast_told += response.events.len();
    }
    assert_eq!(fast_told, PUTS);
    let text = cluster.server(0).metrics_text();
    assert_eq!(metric(&text, "quorate_kv_watches"), 2.0);
    assert_eq!(metric(&text, "quorate_kv_watches_behind"), 1.0);
    assert!(metric(&text, "quorate_kv_watch_queued_bytes") <= 2.0 * 1024.0 * 1024.0);
    let mut keys = Vec::new();
    while keys.len() < PUTS {
        let response = slow.next().await;
        let events = response.events.iter();
        keys.extend(events.map(|event| event.kv.as_ref().unwrap().key.clone()));
    }
    let expected: Vec<_> = (0..PUTS).map(|n| format!("key/{n}")).collect();
    assert_eq!(keys, expected, "in order, each once");
    slow.progress().await;
    assert_eq!(slow.told().await, format!("~-1@{}", PUTS + 1));
    let text = cluster.server(0).metrics_text();
    assert_eq!(metric(&text, "quorate_kv_watches_behind"), 0.0);
    assert_eq!(metric(&text, "quorate_kv_watch_queued_events"), 0.0);
    drop((slow, fast));
    eventually("the watches are gone", || {
        let text = cluster.server(0).metrics_text();
        (metric(&text, "quorate_kv_watches") == 0.0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_watches_are_told_each_its_own() {
    const STREAMS: usize = 100;
    const EACH: usize = 100;
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let channel = channel(&cluster, 0).await;
    let mut kv = KvClient::new(channel.clone());
    let mut streams = Vec::new();
    for s in 0..STREAMS {
        let mut watching = Watching::open(&channel).await;
        let asking = async {
            for w in 0..EACH {
                watching.create(create(&format!("key/{s}/{w}"), "")).await;
            }
        };
        asking.await;
        for _ in 0..EACH {
            assert!(watching.next().await.created);
        }
        streams.push(watching);
    }
    let text = cluster.server(0).metrics_text();
    assert_eq!(metric(&text, "quorate_kv_watches"), 10_000.0);
    let mut longest = Duration::ZERO;
    for n in 0..200 {
        let (s, w) = (n * 7 % STREAMS, n * 31 % EACH);
        let begun = Instant::now();
        let revision = put(&mut kv, &format!("key/{s}/{w}"), "x").await;
        let response = streams[s].next().await;
        longest = longest.max(begun.elapsed());
        assert_eq!(response.watch_id, i64::try_from(w).unwrap());
        assert_eq!(response.header.unwrap().revision, revision);
    }
    println!("a put and its event took at most {longest:?}");
}

/// Follows all keys from one server after the other, always from the revision after the last event.
async fn follow(mut watching: Watching, next: &mut i64, seen: &mut Vec<(i64, String)>, until: i64) {
    let asked = WatchCreateRequest {
        start_revision: *next,
        ..create("key", "kez")
    };
    watching.create(asked).await;
    while *next <= until {
        let response = watching.next().await;
        assert!(!response.canceled, "{response:?}");
        for event in response.events {
            let kv = event.kv.unwrap();
            seen.push((
                kv.mod_revision,
                String::from_utf8(kv.value.to_vec()).unwrap(),
            ));
            *next = kv.mod_revision + 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_at_another_server_without_a_gap() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let mut acknowledged = Vec::new();
    let (mut next, mut seen) = (2, Vec::new());
    let mut kv = KvClient::new(channel(&cluster, (leader + 1) % 3).await);
    for n in 0..40 {
        let value = n.to_string();
        if n == 20 {
            let last = acknowledged.last().map_or(0, |(revision, _)| *revision);
            let watching = Watching::open(&channel(&cluster, leader).await).await;
            follow(watching, &mut next, &mut seen, last).await;
            cluster.kill(leader);
        }
        let revision = put(&mut kv, "key", value.as_str()).await;
        acknowledged.push((revision, value));
    }
    let last = acknowledged.last().unwrap().0;
    for at in [1, 2] {
        let watching = Watching::open(&channel(&cluster, (leader + at) % 3).await).await;
        let (mut next, mut seen) = (next, seen.clone());
        follow(watching, &mut next, &mut seen, last).await;
        let revisions: Vec<_> = seen.iter().map(|(revision, _)| *revision).collect();
        assert_eq!(revisions, Vec::from_iter(2..=last), "each revision once");
        for told in &acknowledged {
            assert!(seen.contains(told), "{told:?} is missing");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_requires_a_leader_hears_that_there_is_none() {
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let channel = channel(&cluster, 0).await;
    let watch = async |require: bool| {
        let (up, receiver) = mpsc::channel(1);
        let request = WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create("a", ""))),
        };
        up.send(request).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(receiver));
        if require {
            request
                .metadata_mut()
                .insert("hasleader", "true".parse().unwrap());
        }
        let answers = WatchClient::new(channel.clone()).watch(request).await;
        answers.map(|answers| (up, answers.into_inner()))
    };
    let (_up, mut requiring) = watch(true).await.unwrap();
    let (_up, mut other) = watch(false).await.unwrap();
    assert!(requiring.next().await.unwrap().unwrap().created);
    assert!(other.next().await.unwrap().unwrap().created);
    cluster.kill(1);
    cluster.kill(2);
    let ended = tokio::time::timeout(PATIENCE, requiring.next()).await;
    let status = ended.expect("it ends").unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.message(), "etcdserver: no leader");
    let status = watch(true).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: no leader");
    let more = tokio::time::timeout(Duration::from_millis(10), other.next()).await;
    assert!(more.is_err(), "who does not require one waits");
    let range = RangeRequest {
        key: "a".into(),
        serializable: true,
        ..RangeRequest::default()
    };
    KvClient::new(channel.clone()).range(range).await.unwrap();
}
