//! Against servers in this process whose every answer a test gives.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use quorate_wire::etcd::etcdserverpb::kv_server::{Kv as KvService, KvServer};
use quorate_wire::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_wire::etcd::etcdserverpb::watch_server::{Watch as WatchService, WatchServer};
use quorate_wire::etcd::etcdserverpb::*;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::client::ClientOptions;
use crate::error::ErrorKind;

type Answers<T> = Mutex<VecDeque<Result<T, Status>>>;

/// What a server was asked, and what it will answer.
#[derive(Default)]
struct Script {
    puts: Answers<PutResponse>,
    ranges: Answers<RangeResponse>,
    /// Each put and range that arrived, with the metadata by which it says what it must not be older than.
    seen: Mutex<Vec<(&'static str, Option<String>)>>,
    watches: Mutex<Option<mpsc::UnboundedSender<Watching>>>,
}

/// A watch, seen from the server.
struct Watching {
    create: WatchCreateRequest,
    answers: mpsc::Sender<Result<WatchResponse, Status>>,
}

#[derive(Clone)]
struct Service(Arc<Script>);

impl Service {
    fn next<T, Q>(
        &self,
        what: &'static str,
        answers: &Answers<T>,
        request: &Request<Q>,
    ) -> Result<Response<T>, Status> {
        let min = request.metadata().get("quorate-min-revision");
        let min = min.map(|value| value.to_str().unwrap().to_owned());
        self.0.seen.lock().unwrap().push((what, min));
        let next = answers.lock().unwrap().pop_front();
        next.unwrap_or_else(|| Err(Status::unimplemented("not scripted")))
            .map(Response::new)
    }
}

#[tonic::async_trait]
impl KvService for Service {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        self.next("range", &self.0.ranges, &request)
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.next("put", &self.0.puts, &request)
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl WatchService for Service {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut asked = request.into_inner();
        let first = asked.next().await.unwrap().unwrap();
        let Some(RequestUnion::CreateRequest(create)) = first.request_union else {
            panic!("{first:?}")
        };
        let (answers, rest) = mpsc::channel(8);
        let watches = self.0.watches.lock().unwrap();
        watches
            .as_ref()
            .unwrap()
            .send(Watching { create, answers })
            .unwrap();
        // What else is asked is read and left unanswered.
        tokio::spawn(async move { while let Some(Ok(_)) = asked.next().await {} });
        Ok(Response::new(ReceiverStream::new(rest)))
    }
}

/// A running server. Dropped, it is gone.
struct Fake {
    address: String,
    script: Arc<Script>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(Script::default());
        let service = Service(script.clone());
        let serving = tonic::transport::Server::builder()
            .add_service(KvServer::new(service.clone()))
            .add_service(WatchServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { drop(serving.await) });
        Self {
            address,
            script,
            server,
        }
    }

    fn puts(&self, answers: impl IntoIterator<Item = Result<PutResponse, Status>>) {
        self.script.puts.lock().unwrap().extend(answers);
    }

    fn ranges(&self, answers: impl IntoIterator<Item = Result<RangeResponse, Status>>) {
        self.script.ranges.lock().unwrap().extend(answers);
    }

    fn seen(&self) -> usize {
        self.script.seen.lock().unwrap().len()
    }

    fn watches(&self) -> mpsc::UnboundedReceiver<Watching> {
        let (sender, watches) = mpsc::unbounded_channel();
        *self.script.watches.lock().unwrap() = Some(sender);
        watches
    }
}

fn kv(fakes: &[&Fake], timeout_ms: u64) -> Kv {
    let options = ClientOptions {
        timeout: Duration::from_millis(timeout_ms),
        ..ClientOptions::default()
    };
    let client = Client::lazy(fakes.iter().map(|fake| fake.address.clone()), options).unwrap();
    client.prefer(0);
    client.kv()
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..ResponseHeader::default()
    })
}

fn put_at(revision: i64) -> Result<PutResponse, Status> {
    Ok(PutResponse {
        header: header(revision),
        prev_kv: None,
    })
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_not_repeated_and_says_so() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    first.puts([
        Err(Status::unavailable("etcdserver: request timed out")),
        put_at(2),
    ]);
    second.puts([put_at(2)]);
    let error = kv(&[&first, &second], 5_000)
        .put("a", "1")
        .await
        .unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unknown);
    assert!(
        error.to_string().contains("may have been applied"),
        "{error}"
    );
    assert_eq!((first.seen(), second.seen()), (1, 0));
}

#[tokio::test]
async fn a_write_that_was_refused_for_now_or_never_sent_is_tried_on() {
    let (gone, busy, free) = (
        Fake::start().await,
        Fake::start().await,
        Fake::start().await,
    );
    busy.puts([Err(Status::resource_exhausted(
        "etcdserver: too many requests",
    ))]);
    free.puts([put_at(7)]);
    let kv = kv(&[&gone, &busy, &free], 5_000);
    drop(gone);
    assert_eq!(kv.put("a", "1").await.unwrap(), 7);
    assert_eq!((busy.seen(), free.seen()), (1, 1));
}

#[tokio::test]
async fn a_definite_refusal_is_final() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    let refusal = "etcdserver: mvcc: database space exceeded";
    first.puts([Err(Status::resource_exhausted(refusal))]);
    let error = kv(&[&first, &second], 5_000)
        .put("a", "1")
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.kv_fault()),
        (&ErrorKind::Denied, Some(KvFault::NoSpace))
    );
    assert_eq!(second.seen(), 0);
}

#[tokio::test]
async fn a_read_is_tried_at_every_server_with_its_least_revision() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    first.ranges([Err(Status::unavailable("etcdserver: request timed out"))]);
    second.ranges([Ok(RangeResponse::default())]);
    let read = Read::of(KeyRange::all()).min_revision(9);
    kv(&[&first, &second], 5_000).range(read).await.unwrap();
    for fake in [&first, &second] {
        let seen = fake.script.seen.lock().unwrap().clone();
        assert_eq!(seen, [("range", Some("9".to_owned()))]);
    }
}

fn created(revision: i64) -> WatchResponse {
    WatchResponse {
        header: header(revision),
        created: true,
        ..WatchResponse::default()
    }
}

fn changed(revisions: &[i64], at: i64, fragment: bool) -> WatchResponse {
    let event = |revision: &i64| mvccpb::Event {
        kv: Some(mvccpb::KeyValue {
            mod_revision: *revision,
            ..mvccpb::KeyValue::default()
        }),
        ..mvccpb::Event::default()
    };
    WatchResponse {
        header: header(at),
        events: revisions.iter().map(event).collect(),
        fragment,
        ..WatchResponse::default()
    }
}

/// Starts a watch at the first server, which says that it begins after revision 5.
async fn watching(kv: &Kv, watches: &mut mpsc::UnboundedReceiver<Watching>) -> (KvWatch, Watching) {
    let options = WatchOptions::of(KeyRange::prefix("a"));
    let serve = async {
        let watching = watches.recv().await.unwrap();
        watching.answers.send(Ok(created(5))).await.unwrap();
        watching
    };
    let (watch, watching) = tokio::join!(kv.watch(options), serve);
    let watch = watch.unwrap();
    assert_eq!(
        (watch.start_revision(), watching.create.start_revision),
        (6, 0)
    );
    (watch, watching)
}

#[tokio::test]
async fn a_watch_goes_on_elsewhere_at_the_revision_after_the_last_one_told() {
    let (first, second) = (Fake::start().await, Fake::start().await);
    let kv = kv(&[&first, &second], 5_000);
    let (mut at_first, mut at_second) = (first.watches(), second.watches());
    let (mut watch, watching) = watching(&kv, &mut at_first).await;
    // It catches up: what is told ends before the header's revision.
    watching
        .answers
        .send(Ok(changed(&[6, 8], 20, false)))
        .await
        .unwrap();
    let Some(Ok(KvWatchEvent::Changes { next_revision, .. })) = watch.next().await else {
        panic!("changes were told")
    };
    assert_eq!(next_revision, 9);
    // Half of an answer is not told, and not counted.
    watching
        .answers
        .send(Ok(changed(&[9], 20, true)))
        .await
        .unwrap();
    drop((watching, first));
    let second_watching = at_second.recv().await.unwrap();
    assert_eq!(second_watching.create.start_revision, 9);
    second_watching.answers.send(Ok(created(21))).await.unwrap();
    second_watching
        .answers
        .send(Ok(changed(&[9], 21, true)))
        .await
        .unwrap();
    second_watching
        .answers
        .send(Ok(changed(&[9, 10], 21, false)))
        .await
        .unwrap();
    let Some(Ok(KvWatchEvent::Changes {
        next_revision,
        events,
    })) = watch.next().await
    else {
        panic!("changes were told")
    };
    assert_eq!((next_revision, events.len()), (11, 3));
}

#[tokio::test]
async fn a_watch_that_was_overtaken_by_a_compaction_says_so_and_ends() {
    let fake = Fake::start().await;
    let kv = kv(&[&fake], 5_000);
    let mut watches = fake.watches();
    let (mut watch, first) = watching(&kv, &mut watches).await;
    let compacted = WatchResponse {
        canceled: true,
        compact_revision: 30,
        ..WatchResponse::default()
    };
    first.answers.send(Ok(compacted)).await.unwrap();
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(error.kv_fault(), Some(KvFault::Compacted));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_that_is_not_permitted_is_not_tried_elsewhere() {
    let fake = Fake::start().await;
    let kv = kv(&[&fake], 5_000);
    let mut watches = fake.watches();
    let serve = async {
        let watching = watches.recv().await.unwrap();
        let refused = WatchResponse {
            created: true,
            canceled: true,
            cancel_reason: "etcdserver: permission denied".to_owned(),
            ..WatchResponse::default()
        };
        watching.answers.send(Ok(refused)).await.unwrap();
        watching
    };
    let options = WatchOptions::of(KeyRange::all());
    let (watch, _watching) = tokio::join!(kv.watch(options), serve);
    assert_eq!(*watch.unwrap_err().kind(), ErrorKind::Denied);
}
