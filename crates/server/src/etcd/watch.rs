//! The Watch service: requests of a stream become watches, what those are told becomes answers, as etcd gives them.
//!
//! Owns: the messages, their fragments, periodic progress, and that a client that requires a leader hears when there is none.
//! Deliberately absent: which watch is told what, which is the replica crate's, and queues, which are the hub's.

use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use prost::Message;
use quorate_coord::kv::{Blob, KeyRange, KvChange};
use quorate_replica::{KvEvent, KvNotice, KvWatchRefusal, KvWatchSpec, NO_WATCH_ID, Refusal};
use quorate_wire::etcd::{etcdserverpb as pb, mvccpb};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Etcd, MESSAGE_BYTES_MAX, convert, errors};
use crate::kv_hub::{KvReader, KvStream};

/// Answers that wait for the transport; what is behind them waits in the hub, by bytes.
const ANSWERS_AHEAD: usize = 2;
/// How long a client that requires a leader waits without one: three of etcd's default election timeouts.
const NO_LEADER_TIME: Duration = Duration::from_secs(3);

type Answer = Result<pb::WatchResponse, Status>;
type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;

#[tonic::async_trait]
impl pb::watch_server::Watch for Etcd {
    type WatchStream = Answers;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (metadata, extensions, requests) = request.into_parts();
        let context = Request::from_parts(metadata, extensions, ());
        let requires_leader = context
            .metadata()
            .get("hasleader")
            .is_some_and(|value| value == "true");
        if requires_leader && self.api.role.borrow().leader.is_none() {
            return Err(no_leader());
        }
        let (sender, receiver) = mpsc::channel(ANSWERS_AHEAD);
        let etcd = self.clone();
        tokio::spawn(async move {
            let (stream, reader) = etcd.api.kv_hub.open();
            let ended = tokio::select! {
                Gone = etcd.tell(reader, &sender) => None,
                () = sender.closed() => None,
                status = etcd.hear(&context, &stream, requests) => Some(status),
                status = etcd.leader_lost(), if requires_leader => Some(status),
                () = etcd.tick_watches(&stream) => None,
            };
            if let Some(status) = ended {
                let _ = sender.send(Err(status)).await; // the client may have gone
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn no_leader() -> Status {
    errors::of_refusal(Refusal::NoLeader)
}

/// The client is gone.
struct Gone;

impl Etcd {
    /// Carries out what the client asks for. Ends with what broke the stream; a client that has nothing more to ask is still told.
    async fn hear(
        &self,
        context: &Request<()>,
        stream: &KvStream,
        mut requests: Streaming<pb::WatchRequest>,
    ) -> Status {
        while let Some(request) = requests.next().await {
            let union = match request {
                Ok(request) => request.request_union,
                Err(status) => return status,
            };
            match union {
                Some(pb::watch_request::RequestUnion::CreateRequest(create)) => {
                    let spec = spec(&create);
                    match self.may_watch(context, &spec.range) {
                        Ok(()) => stream.create(&spec),
                        Err(status) => stream.refuse(KvWatchRefusal::Denied(in_words(&status))),
                    }
                }
                Some(pb::watch_request::RequestUnion::CancelRequest(cancel)) => {
                    stream.cancel(cancel.watch_id);
                }
                Some(pb::watch_request::RequestUnion::ProgressRequest(_)) => stream.ask_progress(),
                None => {}
            }
            stream.room().await;
        }
        std::future::pending().await
    }

    /// Whether the caller may read the range.
    fn may_watch(&self, context: &Request<()>, range: &KeyRange) -> Result<(), Status> {
        let caller = self.caller(context)?;
        let version = self.api.publisher.version();
        caller.check(version.state.auth(), |auth, user| {
            auth.check_range(user, range)
        })
    }

    /// Sends what the watches are told, until the client is gone.
    async fn tell(&self, mut reader: KvReader, sender: &mpsc::Sender<Answer>) -> Gone {
        loop {
            for notice in reader.next().await {
                let fragment = matches!(notice, KvNotice::Events { fragment: true, .. });
                let response = self.watch_response(notice);
                let parts = if fragment {
                    fragments(response)
                } else {
                    vec![response]
                };
                for part in parts {
                    self.api
                        .metrics
                        .kv_watch_events
                        .increment(part.events.len() as u64);
                    if sender.send(Ok(part)).await.is_err() {
                        return Gone;
                    }
                }
            }
        }
    }

    /// Lets progress be told now and then.
    async fn tick_watches(&self, stream: &KvStream) {
        let interval = self.api.kv_hub.progress_interval();
        loop {
            // Spread, so that not all streams of a restarted server are told at once.
            let tenth = u64::try_from(interval.as_millis() / 10).unwrap_or(0);
            let drawn = crate::clock::random_u64().unwrap_or(0);
            let more = Duration::from_millis(drawn % (tenth + 1));
            tokio::time::sleep(interval + more).await;
            stream.tick_progress();
        }
    }

    /// Ends when no leader was known for a while.
    async fn leader_lost(&self) -> Status {
        let mut role = self.api.role.clone();
        loop {
            if role.wait_for(|role| role.leader.is_none()).await.is_err() {
                return no_leader(); // the server stops
            }
            let found = role.wait_for(|role| role.leader.is_some());
            if tokio::time::timeout(NO_LEADER_TIME, found).await.is_err() {
                return no_leader();
            }
        }
    }

    fn watch_response(&self, notice: KvNotice) -> pb::WatchResponse {
        let response = |watch_id, revision| pb::WatchResponse {
            header: Some(self.header(revision)),
            watch_id,
            ..pb::WatchResponse::default()
        };
        match notice {
            KvNotice::Created { id, revision } => pb::WatchResponse {
                created: true,
                ..response(id, revision)
            },
            KvNotice::Refused { why, revision } => pb::WatchResponse {
                created: true,
                canceled: true,
                cancel_reason: match why {
                    KvWatchRefusal::DuplicateId => {
                        "mvcc: duplicate watch ID provided on the WatchStream".to_owned()
                    }
                    KvWatchRefusal::EmptyRange => "mvcc: watcher range is empty".to_owned(),
                    KvWatchRefusal::Denied(reason) => reason,
                },
                ..response(NO_WATCH_ID, revision)
            },
            KvNotice::Canceled { id, revision } => pb::WatchResponse {
                canceled: true,
                ..response(id, revision)
            },
            // etcd names no revision in this header, and gives no reason but the number.
            KvNotice::Compacted { id, compacted } => pb::WatchResponse {
                canceled: true,
                compact_revision: convert::signed(compacted),
                ..response(id, 0)
            },
            KvNotice::Events {
                id,
                events,
                revision,
                fragment: _,
            } => pb::WatchResponse {
                events: events.iter().map(event).collect(),
                ..response(id, revision)
            },
            KvNotice::Progress { id, revision } => response(id, revision),
        }
    }
}

fn spec(create: &pb::WatchCreateRequest) -> KvWatchSpec {
    use pb::watch_create_request::FilterType;
    let filters = |filter: FilterType| create.filters.contains(&i32::from(filter));
    let smallest = [0_u8].as_slice();
    KvWatchSpec {
        id: create.watch_id,
        range: KeyRange {
            key: Blob::from(if create.key.is_empty() {
                smallest
            } else {
                &create.key
            }),
            range_end: Blob::from(&create.range_end[..]),
        },
        start_revision: create.start_revision,
        prev_kv: create.prev_kv,
        no_put: filters(FilterType::Noput),
        no_delete: filters(FilterType::Nodelete),
        progress: create.progress_notify,
        fragment: create.fragment,
    }
}

fn event(event: &KvEvent) -> mvccpb::Event {
    let (kind, kv) = match &event.change {
        KvChange::Put(now) => (mvccpb::event::EventType::Put, convert::key_value(now)),
        KvChange::Delete { key, mod_revision } => {
            let gone = mvccpb::KeyValue {
                key: convert::bytes(key),
                mod_revision: convert::signed(*mod_revision),
                ..mvccpb::KeyValue::default()
            };
            (mvccpb::event::EventType::Delete, gone)
        }
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(kv),
        prev_kv: event.prev.as_ref().map(convert::key_value),
    }
}

/// A status as etcd writes it into the reason of a cancelled watch; the names of codes are those of Go's gRPC.
fn in_words(status: &Status) -> String {
    let code = match status.code() {
        Code::PermissionDenied => "PermissionDenied",
        Code::Unauthenticated => "Unauthenticated",
        Code::InvalidArgument => "InvalidArgument",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Unavailable => "Unavailable",
        _ => "Unknown",
    };
    format!("rpc error: code = {code} desc = {}", status.message())
}

/// Cuts an answer into parts below the size limit, as far as single events are; all but the last say that more follows.
fn fragments(mut response: pb::WatchResponse) -> Vec<pb::WatchResponse> {
    if response.encoded_len() < MESSAGE_BYTES_MAX || response.events.len() < 2 {
        return vec![response];
    }
    let events = std::mem::take(&mut response.events);
    response.fragment = true;
    let empty = response.encoded_len();
    let mut parts = Vec::new();
    let mut part = response.clone();
    let mut bytes = empty;
    for event in events {
        let len = event.encoded_len();
        let more = 1 + prost::length_delimiter_len(len) + len;
        if !part.events.is_empty() && bytes + more >= MESSAGE_BYTES_MAX {
            parts.push(std::mem::replace(&mut part, response.clone()));
            bytes = empty;
        }
        bytes += more;
        part.events.push(event);
    }
    part.fragment = false;
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(key: &str, bytes: usize) -> mvccpb::Event {
        mvccpb::Event {
            kv: Some(mvccpb::KeyValue {
                key: key.to_owned().into(),
                value: vec![b'x'; bytes].into(),
                ..mvccpb::KeyValue::default()
            }),
            ..mvccpb::Event::default()
        }
    }

    #[test]
    fn a_large_answer_is_cut_between_events_below_the_limit() {
        let check = |sizes: &[usize], expected: &[usize]| {
            let keys = sizes.iter().enumerate();
            let response = pb::WatchResponse {
                watch_id: 7,
                events: keys.map(|(n, size)| large(&n.to_string(), *size)).collect(),
                ..pb::WatchResponse::default()
            };
            let parts = fragments(response.clone());
            let lens: Vec<_> = parts.iter().map(|part| part.events.len()).collect();
            assert_eq!(lens, expected);
            let last = parts.len() - 1;
            for (n, part) in parts.iter().enumerate() {
                assert_eq!((part.watch_id, part.fragment), (7, n < last));
                assert!(part.encoded_len() < MESSAGE_BYTES_MAX || part.events.len() == 1);
            }
            let all: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
            assert_eq!(all, response.events);
        };
        const MIB: usize = 1024 * 1024;
        check(&[10, 10], &[2]);
        check(&[3 * MIB], &[1]);
        check(&[MIB, MIB, MIB], &[1, 1, 1]);
        check(&[MIB, MIB / 2, MIB / 4, MIB, 10, 3 * MIB, 5], &[3, 2, 1, 1]);
    }
}
