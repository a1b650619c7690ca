//! One watch stream of one side: sends its requests, and keeps what its watches told until it is compared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quorate_wire::etcd::{etcdserverpb as pb, mvccpb};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::ops::Seen;

/// A key's change, as far as it decides which watches must see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) revision: i64,
    pub(crate) key: Vec<u8>,
    pub(crate) is_delete: bool,
}

impl Change {
    pub(crate) fn of(event: &mvccpb::Event) -> Option<Self> {
        let kv = event.kv.as_ref()?;
        Some(Self {
            revision: kv.mod_revision,
            key: kv.key.to_vec(),
            is_delete: event.r#type == i32::from(mvccpb::event::EventType::Delete),
        })
    }

    /// Whether a watch that was asked for so must tell of this.
    pub(crate) fn concerns(&self, create: &pb::WatchCreateRequest) -> bool {
        let filtered = if self.is_delete {
            pb::watch_create_request::FilterType::Nodelete
        } else {
            pb::watch_create_request::FilterType::Noput
        };
        let (first, end) = (&create.key[..], &create.range_end[..]);
        let first = if first.is_empty() { b"\0" } else { first };
        let is_within = match end {
            [] => self.key == first,
            [0] => self.key[..] >= *first,
            end => self.key[..] >= *first && self.key[..] < *end,
        };
        is_within && !create.filters.contains(&i32::from(filtered))
    }
}

/// One watch.
#[derive(Debug)]
pub(crate) struct Watched {
    /// As it was asked for, but with the revision it begins at.
    pub(crate) create: pb::WatchCreateRequest,
    pub(crate) seen: Seen,
    /// The newest revision it told of.
    pub(crate) revision: i64,
    /// When it was opened, if at a revision of the past.
    pub(crate) catching_up_since: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct Told {
    creating: VecDeque<pb::WatchCreateRequest>,
    /// Answers to requests: created, and progress.
    answers: VecDeque<pb::WatchResponse>,
    pub(crate) watches: BTreeMap<i64, Watched>,
    pub(crate) ended: Option<Status>,
    /// Ids of watches that a compaction ended. etcd does not give them out again, and even answers when they are cancelled; ours forgets
    /// them. So no operation asks.
    pub(crate) spent: BTreeSet<i64>,
}

/// A stream.
#[derive(Debug)]
pub(crate) struct WatchStream {
    requests: mpsc::Sender<pb::WatchRequest>,
    told: Arc<Mutex<Told>>,
    changes: watch::Receiver<()>,
    reader: tokio::task::JoinHandle<()>,
}

impl WatchStream {
    /// Opens one; `dress` gives the request its token.
    pub(crate) fn open(
        mut client: pb::watch_client::WatchClient<tonic::transport::Channel>,
        dress: impl FnOnce(
            ReceiverStream<pb::WatchRequest>,
        ) -> Request<ReceiverStream<pb::WatchRequest>>,
    ) -> Self {
        let (requests, sent) = mpsc::channel(16);
        let (changed, changes) = watch::channel(());
        let told = Arc::new(Mutex::new(Told::default()));
        let request = dress(ReceiverStream::new(sent));
        let reader = {
            let told = Arc::clone(&told);
            tokio::spawn(async move {
                let ended = match client.watch(request).await {
                    Ok(answers) => read(answers.into_inner(), &told, &changed).await,
                    Err(refused) => refused,
                };
                lock(&told).ended = Some(ended);
                changed.send_replace(());
            })
        };
        Self {
            requests,
            told,
            changes,
            reader,
        }
    }

    /// What was told so far.
    pub(crate) fn told(&self) -> MutexGuard<'_, Told> {
        lock(&self.told)
    }

    /// Asks for something; whether it is granted is told later.
    pub(crate) async fn send(&self, union: pb::watch_request::RequestUnion) {
        if let pb::watch_request::RequestUnion::CreateRequest(create) = &union {
            self.told().creating.push_back(create.clone());
        }
        let request = pb::WatchRequest {
            request_union: Some(union),
        };
        // A stream that has ended says so in `told`.
        let _ = self.requests.send(request).await;
    }

    /// Waits until `look` finds what it looks for. Ends with the stream, too.
    pub(crate) async fn until<T>(
        &self,
        mut look: impl FnMut(&mut Told) -> Option<T>,
    ) -> Result<T, Status> {
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            {
                let mut told = self.told();
                if let Some(found) = look(&mut told) {
                    return Ok(found);
                }
                if let Some(ended) = &told.ended {
                    return Err(ended.clone());
                }
            }
            if changes.changed().await.is_err() {
                return Err(Status::cancelled("the stream's reader has ended"));
            }
        }
    }

    /// The next answer to a request.
    pub(crate) async fn answer(&self) -> Result<pb::WatchResponse, Status> {
        self.until(|told| told.answers.pop_front()).await
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(
    mut answers: Streaming<pb::WatchResponse>,
    told: &Mutex<Told>,
    changed: &watch::Sender<()>,
) -> Status {
    loop {
        match answers.message().await {
            Ok(Some(answer)) => lock(told).take(answer),
            Ok(None) => return Status::cancelled("the server ended the stream"),
            Err(ended) => return ended,
        }
        changed.send_replace(());
    }
}

impl Told {
    fn take(&mut self, answer: pb::WatchResponse) {
        if answer.created {
            let create = self.creating.pop_front().unwrap_or_default();
            if !answer.canceled {
                let began = answer
                    .header
                    .as_ref()
                    .map_or(0, |header| header.revision + 1);
                let start_revision = match create.start_revision {
                    0 => began,
                    given => given,
                };
                let watched = Watched {
                    create: pb::WatchCreateRequest {
                        start_revision,
                        ..create
                    },
                    seen: Seen::default(),
                    revision: 0,
                    catching_up_since: (start_revision < began).then(Instant::now),
                };
                self.watches.insert(answer.watch_id, watched);
            }
            self.answers.push_back(answer);
            return;
        }
        if answer.watch_id == -1 {
            self.answers.push_back(answer);
            return;
        }
        let Some(watched) = self.watches.get_mut(&answer.watch_id) else {
            return;
        };
        if answer.canceled && watched.seen.canceled.is_none() {
            if answer.compact_revision > 0 {
                self.spent.insert(answer.watch_id);
            }
            watched.seen.canceled = Some((answer.cancel_reason, answer.compact_revision));
        }
        for event in answer.events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            watched.revision = watched.revision.max(revision);
            watched.seen.events.push(event);
        }
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &str, end: &[u8], filters: &[i32], is_delete: bool, expected: bool) {
        let create = pb::WatchCreateRequest {
            key: key.as_bytes().to_vec().into(),
            range_end: end.to_vec().into(),
            filters: filters.to_vec(),
            ..Default::default()
        };
        let change = Change {
            revision: 5,
            key: b"b".to_vec(),
            is_delete,
        };
        assert_eq!(change.concerns(&create), expected);
    }

    #[test]
    fn watch_is_concerned_by_its_range_and_filters() {
        check("b", b"", &[], false, true);
        check("a", b"", &[], false, false);
        check("a", b"b", &[], false, false);
        check("a", b"c", &[], false, true);
        check("a", b"\0", &[], false, true);
        check("", b"\0", &[], false, true);
        check("b", b"", &[0], false, false);
        check("b", b"", &[0], true, true);
        check("b", b"", &[1], true, false);
    }
}
