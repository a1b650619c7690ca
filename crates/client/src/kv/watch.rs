//! Following changes of keys over reconnects, without a gap: each connection goes on at the revision after the last one told.

use std::time::Duration;

use bytes::Bytes;
use quorate_wire::etcd::etcdserverpb::watch_client::WatchClient;
use quorate_wire::etcd::etcdserverpb::watch_create_request::FilterType;
use quorate_wire::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_wire::etcd::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};
use quorate_wire::etcd::mvccpb::Event;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::error::{self, Attempt, KvFault, KvRefusal};
use super::{ANSWER_BYTES_MAX, KeyRange, Kv, revision_of, signed};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind};

/// Answers that wait for a slow watcher; beyond it the server is slowed down.
const ANSWERS_MAX: usize = 64;
/// How often a server is asked to say something.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// A server that says nothing for so long is given up. It answers at once, save while it catches up, and then it sends events.
const SILENCE_MAX: Duration = Duration::from_secs(35);
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// What to watch.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Which keys.
    pub range: KeyRange,
    /// The first revision whose changes are told; 0: those after now.
    pub start_revision: u64,
    /// Tell what was there before, too.
    pub prev_kv: bool,
    /// Leave puts out.
    pub no_puts: bool,
    /// Leave deletions out.
    pub no_deletes: bool,
}

impl WatchOptions {
    /// All changes of these keys, from now on.
    #[must_use]
    pub fn of(range: KeyRange) -> Self {
        Self {
            range,
            start_revision: 0,
            prev_kv: false,
            no_puts: false,
            no_deletes: false,
        }
    }
}

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum KvWatchEvent {
    /// Changes, in order; those of one revision are never split.
    Changes {
        /// Everything before this revision has been told.
        next_revision: u64,
        /// The changes.
        events: Vec<Event>,
    },
    /// Nothing changed before this revision that was not told.
    Progress {
        /// The revision.
        next_revision: u64,
    },
}

/// A watch. Dropping it ends it.
#[derive(Debug)]
pub struct KvWatch {
    events: mpsc::Receiver<Result<KvWatchEvent, Error>>,
    created: u64,
}

impl KvWatch {
    /// The next event. After an error, or when the runtime shuts down, none.
    ///
    /// # Errors
    /// `Invalid` with [`KvFault::Compacted`]: changes that were not told are forgotten; read the keys, then watch from that
    /// revision on. `Denied`: not to this user (any more).
    pub async fn next(&mut self) -> Option<Result<KvWatchEvent, Error>> {
        self.events.recv().await
    }

    /// The first revision whose changes are told.
    #[must_use]
    pub fn start_revision(&self) -> u64 {
        self.created
    }
}

impl Kv {
    /// Watches keys. Answers once a server watches: every later change will be told.
    ///
    /// ```no_run
    /// # use quorate_client::kv::{KeyRange, Kv, KvWatchEvent, WatchOptions};
    /// # async fn run(kv: Kv) -> Result<(), quorate_client::Error> {
    /// let mut watch = kv.watch(WatchOptions::of(KeyRange::prefix("jobs/"))).await?;
    /// while let Some(event) = watch.next().await {
    ///     if let KvWatchEvent::Changes { events, .. } = event? {
    ///         println!("{events:?}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Invalid`: the start revision was compacted, or the range is empty. `Retry`: no server could serve it in time.
    pub async fn watch(&self, options: WatchOptions) -> Result<KvWatch, Error> {
        let (key, range_end) = options.range.clone().into_parts();
        let (events_tx, events) = mpsc::channel(ANSWERS_MAX);
        let (created_tx, created) = oneshot::channel();
        let watcher = Watcher {
            kv: self.clone(),
            what: format!("watch {}", super::range::named(&key, &range_end)),
            key,
            range_end,
            next_revision: options.start_revision,
            options,
            events: events_tx,
            created: Some(created_tx),
            pending: Vec::new(),
        };
        tokio::spawn(watcher.run());
        let created = created.await.unwrap_or_else(|_| {
            let what = "watch keys: the runtime shuts down";
            Err(Error::new(ErrorKind::Internal, what))
        })?;
        Ok(KvWatch { events, created })
    }
}

/// The task behind a watch.
///
/// # Invariants
/// - Everything before `next_revision` that matches was told, and nothing from it on; 0 until a server has said where it begins.
struct Watcher {
    kv: Kv,
    what: String,
    key: Bytes,
    range_end: Bytes,
    options: WatchOptions,
    next_revision: u64,
    events: mpsc::Sender<Result<KvWatchEvent, Error>>,
    /// Told where the watch begins; gone after that.
    created: Option<oneshot::Sender<Result<u64, Error>>>,
    /// Fragments of one answer.
    pending: Vec<Event>,
}

/// How a connection ended.
enum Ended {
    /// Another server may go on.
    Broken(Attempt),
    /// It cannot go on at all.
    Refused(Error),
    /// Nobody listens any more.
    Dropped,
}

impl Watcher {
    async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        let deadline = Instant::now() + self.kv.client.options().timeout;
        let mut at = self.kv.client.preferred();
        let mut failures = 0;
        loop {
            let before = self.next_revision;
            let events = self.events.clone();
            let ended = tokio::select! {
                ended = self.follow(at) => ended,
                () = events.closed() => return,
            };
            let attempt = match ended {
                Ended::Dropped => return,
                Ended::Refused(error) => return self.end(error).await,
                Ended::Broken(attempt) => attempt,
            };
            let (address, _) = self.kv.client.server(at);
            tracing::debug!(server = address, why = %attempt, "watch broke off");
            if self.next_revision > before {
                failures = 0;
                backoff.reset();
            }
            at += 1;
            failures += 1;
            let mut wait = attempt.retry_after().unwrap_or(Duration::ZERO);
            if failures >= self.kv.client.server_count() {
                wait = wait.max(backoff.next());
            }
            // Once it runs it never gives up; but who starts one wants to know.
            if self.created.is_some() && Instant::now() + wait >= deadline {
                let error = attempt.of_read(&self.what);
                return self.end(error).await;
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn end(mut self, error: Error) {
        match self.created.take() {
            Some(created) => drop(created.send(Err(error))),
            None => drop(self.events.send(Err(error)).await),
        }
    }

    /// Follows one stream to its end.
    async fn follow(&mut self, at: usize) -> Ended {
        self.pending.clear();
        let client = self.kv.client.clone();
        let (address, api) = client.server(at);
        let token = match self.kv.token(address, api.channel(), CONNECT_MAX).await {
            Ok(token) => token,
            Err(attempt) if attempt.is_refused_for_now() => return Ended::Broken(attempt),
            Err(attempt) => return Ended::Refused(attempt.of_read(&self.what)),
        };
        let (ask, asked) = mpsc::channel(2);
        ask.try_send(self.create_request())
            .expect("there is room for two");
        let mut request = tonic::Request::new(ReceiverStream::new(asked));
        // A server without a leader ends the watch, rather than leaving it silent.
        let yes = tonic::metadata::MetadataValue::from_static("true");
        request.metadata_mut().insert("hasleader", yes);
        if let Some(token) = token.and_then(|token| token.parse().ok()) {
            request.metadata_mut().insert("token", token);
        }
        let mut watching =
            WatchClient::new(api.channel()).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut answers = match tokio::time::timeout(CONNECT_MAX, watching.watch(request)).await {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) => return self.broken(address, &status),
            Err(_) => return Ended::Broken(Attempt::silent(address, CONNECT_MAX)),
        };
        let mut progress = tokio::time::interval(PROGRESS_EVERY);
        progress.reset();
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        heard = Instant::now();
                        if let Err(ended) = self.take(answer).await {
                            return ended;
                        }
                    }
                    Ok(None) => {
                        let status = tonic::Status::unavailable("the server ended the watch");
                        return Ended::Broken(Attempt::from_status(address, &status));
                    }
                    Err(status) => return self.broken(address, &status),
                },
                _ = progress.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Ended::Broken(Attempt::silent(address, SILENCE_MAX));
                    }
                    let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                    // Full: the last one has not even been sent.
                    drop(ask.try_send(WatchRequest { request_union: Some(request) }));
                }
            }
        }
    }

    fn create_request(&self) -> WatchRequest {
        let mut filters = Vec::new();
        if self.options.no_puts {
            filters.push(FilterType::Noput.into());
        }
        if self.options.no_deletes {
            filters.push(FilterType::Nodelete.into());
        }
        let create = WatchCreateRequest {
            key: self.key.clone(),
            range_end: self.range_end.clone(),
            start_revision: signed(self.next_revision),
            progress_notify: true,
            filters,
            prev_kv: self.options.prev_kv,
            watch_id: 0,
            fragment: true,
        };
        WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        }
    }

    fn broken(&self, address: &str, status: &tonic::Status) -> Ended {
        let attempt = Attempt::from_status(address, status);
        if attempt.fault() == KvFault::Unauthenticated && self.kv.forget_token() {
            return Ended::Broken(attempt);
        }
        if attempt.is_refused_for_now() || attempt.may_be_applied() {
            return Ended::Broken(attempt);
        }
        Ended::Refused(attempt.of_read(&self.what))
    }

    async fn take(&mut self, answer: WatchResponse) -> Result<(), Ended> {
        let revision = revision_of(answer.header.as_ref());
        if answer.canceled {
            return Err(self.cancelled(&answer));
        }
        if answer.created {
            if self.next_revision == 0 {
                self.next_revision = revision + 1;
            }
            if let Some(created) = self.created.take() {
                created
                    .send(Ok(self.next_revision))
                    .map_err(|_| Ended::Dropped)?;
            }
            return Ok(());
        }
        // An answer to a request for progress. Of some etcd servers it overtakes events, so that it proves only that they live.
        if answer.watch_id == -1 {
            return Ok(());
        }
        if answer.events.is_empty() && !answer.fragment && self.pending.is_empty() {
            self.next_revision = self.next_revision.max(revision + 1);
            let next_revision = self.next_revision;
            return self.tell(KvWatchEvent::Progress { next_revision }).await;
        }
        self.pending.extend(answer.events);
        if answer.fragment {
            return Ok(());
        }
        let events = std::mem::take(&mut self.pending);
        // Not the header's revision: an answer that catches up may end before it.
        let last = events.iter().filter_map(|event| event.kv.as_ref());
        let last = last.map(|kv| kv.mod_revision.unsigned_abs()).max();
        self.next_revision = self.next_revision.max(last.unwrap_or(0) + 1);
        let next_revision = self.next_revision;
        self.tell(KvWatchEvent::Changes {
            next_revision,
            events,
        })
        .await
    }

    fn cancelled(&self, answer: &WatchResponse) -> Ended {
        if answer.compact_revision > 0 {
            let message = format!(
                "history before revision {} is compacted; the watch was at {}",
                answer.compact_revision, self.next_revision
            );
            let fault = KvFault::Compacted;
            let refusal = KvRefusal { fault, message };
            return Ended::Refused(Error::kv(ErrorKind::Invalid, &self.what, refusal));
        }
        if let Some((kind, refusal)) = error::of_cancel(&answer.cancel_reason) {
            return Ended::Refused(Error::kv(kind, &self.what, refusal));
        }
        let message = format!("the server ended the watch: {}", answer.cancel_reason);
        let fault = KvFault::Other;
        Ended::Broken(Attempt::Kv(ErrorKind::Retry, KvRefusal { fault, message }))
    }

    async fn tell(&self, event: KvWatchEvent) -> Result<(), Ended> {
        self.events
            .send(Ok(event))
            .await
            .map_err(|_| Ended::Dropped)
    }
}
