//! The task behind a session: finds a server, keeps the session alive, and carries messages both ways.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use quorate_types::{ClusterId, RequestId};
use quorate_wire::ApiClient;
use quorate_wire::api::{
    ApiError, ApiErrorKind, ApiStream, CONTRACT, NodeDown, NodeUp, SessionKey,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::pace::Pace;
use super::requests::{Requests, Work};
use super::{Opened, SessionEvent, SessionOptions, Shared, instant_of};
use crate::backoff::{Backoff, request_id};
use crate::client::Client;
use crate::clock;
use crate::error::{Error, ErrorKind};

/// Messages on their way to the server.
const UP_MAX: usize = 256;
/// Messages taken in before events are told, so that a burst costs one pass.
const BURST_MAX: usize = 512;
/// Events that the owner may leave lying before it counts as unhealthy.
const BACKLOG_MAX: usize = 100_000;
/// How long a dropped session tries to be closed.
const ABANDON_MAX: Duration = Duration::from_secs(2);

/// A stream on which the session is open.
struct Stream {
    up: mpsc::Sender<NodeUp>,
    down: ApiStream<NodeDown>,
}

type Connecting = Pin<Box<dyn Future<Output = Result<(Stream, Opened), ApiError>> + Send>>;

enum Link {
    Waiting { until: Instant },
    Connecting(Connecting),
    Up(Stream),
}

enum Step {
    Connected(Result<(Stream, Opened), ApiError>),
    Down(Option<Result<NodeDown, ApiError>>),
}

impl Link {
    /// What comes next; dropping the future loses nothing.
    async fn next(&mut self) -> Step {
        match self {
            Self::Waiting { .. } => std::future::pending().await,
            Self::Connecting(connecting) => Step::Connected(connecting.await),
            Self::Up(stream) => Step::Down(stream.down.next().await),
        }
    }
}

pub(super) struct Driver {
    client: Client,
    options: SessionOptions,
    shared: Arc<Shared>,
    work: mpsc::UnboundedReceiver<Work>,
    /// All handles are dropped.
    abandoned: bool,
    events: mpsc::UnboundedSender<SessionEvent>,
    /// Until the session is open: who waits for it, how long, and under which request.
    opening: Option<oneshot::Sender<Result<Opened, Error>>>,
    open_deadline: Instant,
    open_id: RequestId,
    session: Option<(SessionKey, ClusterId)>,
    ttl: Duration,
    /// The server in use, or to be tried next; counted around the list.
    at: usize,
    failures: usize,
    backoff: Backoff,
    link: Link,
    pace: Pace,
    keep_alive_at: Instant,
    healthy: bool,
    requests: Requests,
    /// Closing: who waits for it, and until when it is tried.
    closing: Option<(Vec<oneshot::Sender<()>>, Instant)>,
    over: bool,
}

impl Driver {
    pub(super) fn new(
        client: Client,
        options: SessionOptions,
        shared: Arc<Shared>,
        work: mpsc::UnboundedReceiver<Work>,
        events: mpsc::UnboundedSender<SessionEvent>,
        opening: oneshot::Sender<Result<Opened, Error>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            at: client.preferred(),
            client,
            shared,
            work,
            abandoned: false,
            events,
            opening: Some(opening),
            open_deadline: now + options.open_timeout,
            open_id: request_id(),
            session: None,
            ttl: options.ttl,
            failures: 0,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_millis(500)),
            link: Link::Waiting { until: now },
            pace: Pace::new(options.ttl),
            keep_alive_at: now,
            healthy: true,
            requests: Requests::new(),
            closing: None,
            over: false,
            options,
        }
    }

    pub(super) async fn run(mut self) {
        self.on_time();
        while !self.over {
            let timer = self.timer();
            tokio::select! {
                step = self.link.next() => self.on_step(step),
                work = self.work.recv(), if !self.abandoned => self.on_work(work),
                () = tokio::time::sleep_until(timer) => {}
            }
            self.on_time();
        }
        // Requests that still wait are dropped here, which tells their waiters that the session is over.
    }

    /// When something is due without any input.
    fn timer(&self) -> Instant {
        let now = Instant::now();
        let mut timer = now + Duration::from_secs(60);
        let mut due = |at: Option<Instant>| timer = at.map_or(timer, |at| timer.min(at));
        due(self.shared.next_deadline().map(instant_of));
        due(self.closing.as_ref().map(|(_, until)| *until));
        due(self.opening.as_ref().map(|_| self.open_deadline));
        match &self.link {
            Link::Waiting { until } => due(Some(*until)),
            Link::Connecting(_) => {}
            Link::Up(_) => {
                due(Some(self.keep_alive_at));
                due(self.pace.silent_at().map(instant_of));
                due(self.requests.retry_at());
            }
        }
        timer
    }

    /// Does whatever is due.
    fn on_time(&mut self) {
        let now = Instant::now();
        if self
            .closing
            .as_ref()
            .is_some_and(|(_, until)| now >= *until)
        {
            self.over = true;
        }
        if self.opening.is_some() && now >= self.open_deadline {
            let what = format!(
                "open a session: no server answered within {:?}",
                self.options.open_timeout
            );
            self.open_failed(Error::new(ErrorKind::Retry, what));
        }
        if self.over {
            return self.tell();
        }
        if let Link::Waiting { until } = &self.link
            && now >= *until
        {
            self.link = Link::Connecting(self.connect());
        }
        if matches!(self.link, Link::Up(_)) {
            if self.pace.silent_at().is_some_and(|at| clock::now() >= at) {
                self.broken(&ApiError::new(
                    ApiErrorKind::Unreachable,
                    "keep-alives are not answered",
                ));
            } else {
                if now >= self.keep_alive_at {
                    self.keep_alive(now);
                }
                while let Some(up) = self.requests.next(now) {
                    self.send(up);
                }
            }
        }
        self.tell();
    }

    /// Tells the owner what happened.
    fn tell(&mut self) {
        let (events, resync) = self.shared.events();
        for event in events {
            self.shared.backlog.fetch_add(1, Ordering::Relaxed);
            // An owner that dropped its events lives by `check` alone.
            if self.events.send(event).is_err() {
                self.shared.backlog.store(0, Ordering::Relaxed);
            }
        }
        if resync {
            self.broken(&ApiError::new(
                ApiErrorKind::Behind,
                "a directive is missing; asking for the full picture",
            ));
        }
    }

    fn on_step(&mut self, step: Step) {
        match step {
            Step::Connected(Ok((stream, opened))) => self.on_opened(stream, opened),
            Step::Connected(Err(error)) => self.on_refused(error),
            Step::Down(Some(Ok(down))) => {
                self.on_down(down);
                for _ in 0..BURST_MAX {
                    let Link::Up(stream) = &mut self.link else {
                        break;
                    };
                    match stream.down.next().now_or_never() {
                        None => break,
                        Some(Some(Ok(down))) => self.on_down(down),
                        Some(Some(Err(error))) => self.broken(&error),
                        Some(None) => self.ended(),
                    }
                }
            }
            Step::Down(Some(Err(error))) => self.broken(&error),
            Step::Down(None) => self.ended(),
        }
    }

    fn ended(&mut self) {
        self.broken(&ApiError::new(
            ApiErrorKind::ShuttingDown,
            "the server ended the stream",
        ));
    }

    fn on_work(&mut self, work: Option<Work>) {
        match work {
            Some(Work::Close { waiter }) => self.begin_close(waiter, self.client.options().timeout),
            Some(work) if self.closing.is_none() => self.requests.push(work),
            // Its waiter learns that the session is over.
            Some(_) => {}
            None => {
                self.abandoned = true;
                self.shared.close();
                if self.session.is_some() {
                    self.begin_close(None, ABANDON_MAX);
                } else {
                    self.over = true;
                }
            }
        }
    }

    fn begin_close(&mut self, waiter: Option<oneshot::Sender<()>>, timeout: Duration) {
        if self.closing.is_none() {
            self.requests.close();
        }
        let (waiters, _) = self
            .closing
            .get_or_insert((Vec::new(), Instant::now() + timeout));
        waiters.extend(waiter);
    }

    fn closed(&mut self) {
        for waiter in self
            .closing
            .take()
            .into_iter()
            .flat_map(|(waiters, _)| waiters)
        {
            // One that is gone does not care.
            let _ = waiter.send(());
        }
        self.over = true;
    }

    /// Finds the next server and opens or resumes there.
    fn connect(&self) -> Connecting {
        let (_, api) = self.client.server(self.at);
        let hello = match self.session {
            None => NodeUp::Open {
                request_id: self.open_id,
                ttl_ms: u64::try_from(self.options.ttl.as_millis()).unwrap_or(u64::MAX),
                node: self.options.node.clone(),
                contract_min: CONTRACT,
                contract_max: CONTRACT,
            },
            Some((session, _)) => NodeUp::Resume {
                session,
                processed: self.shared.processed(),
                contract_min: CONTRACT,
                contract_max: CONTRACT,
            },
        };
        // Long enough for an answer through the leader, short enough to try another server before the TTL is over.
        let timeout = match self.session {
            None => Duration::from_secs(3),
            Some(_) => (self.ttl / 3).clamp(Duration::from_millis(200), Duration::from_secs(2)),
        };
        let connect = connect(api.clone(), hello);
        Box::pin(async move {
            let answer = tokio::time::timeout(timeout, connect).await;
            let late = || {
                ApiError::new(
                    ApiErrorKind::Unreachable,
                    format!("no answer within {timeout:?}"),
                )
            };
            answer.unwrap_or_else(|_| Err(late()))
        })
    }

    fn on_opened(&mut self, stream: Stream, opened: Opened) {
        if let Some((session, cluster)) = self.session
            && (session, cluster) != (opened.session, opened.cluster)
        {
            let message = format!(
                "asked for {session:?} of {cluster}, got {:?} of {}",
                opened.session, opened.cluster
            );
            return self.on_refused(ApiError::new(ApiErrorKind::Internal, message));
        }
        let (address, _) = self.client.server(self.at);
        tracing::debug!(
            server = address,
            session = opened.session.id.0,
            "session attached"
        );
        self.client.prefer(self.at);
        self.failures = 0;
        self.backoff.reset();
        if let Some(opening) = self.opening.take() {
            self.session = Some((opened.session, opened.cluster));
            self.ttl = opened.ttl;
            self.pace = Pace::new(opened.ttl);
            if opened.ttl < opened.ttl_min_safe {
                let (ttl, safe) = (opened.ttl, opened.ttl_min_safe);
                tracing::warn!(
                    ?ttl,
                    ?safe,
                    "a change of the backbone's leader may end this session: its ttl is short"
                );
            }
            // Whoever stopped waiting dropped its handle too, which ends this task.
            let _ = opening.send(Ok(opened));
        }
        self.keep_alive_at = Instant::now();
        self.link = Link::Up(stream);
    }

    /// Opening or resuming failed.
    fn on_refused(&mut self, error: ApiError) {
        if self.session.is_some() {
            if matches!(
                error.kind,
                ApiErrorKind::UnknownSession | ApiErrorKind::SessionRevoked
            ) {
                return self.gone();
            }
        } else if error.kind == ApiErrorKind::NodeLive {
            // The refusal is remembered under its request id; a new attempt needs a new one.
            self.open_id = request_id();
            if Instant::now() + Duration::from_millis(200) >= self.open_deadline {
                return self.open_failed(Error::api("open a session", error));
            }
        } else if !error.kind.is_transient() && error.kind != ApiErrorKind::Internal {
            return self.open_failed(Error::api("open a session", error));
        }
        self.broken(&error);
    }

    fn open_failed(&mut self, error: Error) {
        if let Some(opening) = self.opening.take() {
            // Whoever stopped waiting does not care.
            let _ = opening.send(Err(error));
        }
        self.over = true;
    }

    /// The stream, or the attempt at one, is over: on to the next server, at once at first.
    fn broken(&mut self, error: &ApiError) {
        let (address, _) = self.client.server(self.at);
        tracing::debug!(server = address, kind = error.kind.code(), %error, "session detached");
        self.pace.broken();
        self.requests.stream_broken();
        self.at += 1;
        self.failures += 1;
        // Only when all servers failed in a row is there reason to wait. A refusal that names a time is obeyed.
        let mut wait = Duration::ZERO;
        if let Some(retry_after_ms) = error.retry_after_ms {
            wait = Duration::from_millis(retry_after_ms);
        } else if self.failures >= self.client.server_count() {
            wait = self.backoff.next();
        }
        if error.kind == ApiErrorKind::NodeLive {
            wait = wait.max(Duration::from_millis(100));
        }
        self.link = Link::Waiting {
            until: Instant::now() + wait,
        };
    }

    fn gone(&mut self) {
        self.shared.session_gone();
        self.closed();
    }

    fn on_down(&mut self, down: NodeDown) {
        if let NodeDown::KeptAlive { seq, .. } = &down {
            self.pace.answered(*seq, clock::now());
        }
        self.shared.on_down(&down);
        match down {
            NodeDown::SessionGone => self.gone(),
            NodeDown::RequestDone {
                request_seq,
                outcome,
            } => {
                let gone =
                    matches!(&outcome, Err(error) if error.kind == ApiErrorKind::UnknownSession);
                if self.requests.done(request_seq, outcome) {
                    self.closed();
                } else if gone {
                    self.gone();
                }
            }
            NodeDown::RequestUnknown { request_seq } => {
                self.requests.again(request_seq, None, Instant::now());
            }
            NodeDown::Refused {
                request_seq: Some(seq),
                error,
            } => {
                tracing::debug!(request = seq, kind = error.kind.code(), %error, "request not taken; trying again");
                self.requests
                    .again(seq, error.retry_after_ms, Instant::now());
            }
            NodeDown::Refused {
                request_seq: None,
                error,
            } => self.on_refused(error),
            NodeDown::Opened { .. }
            | NodeDown::KeptAlive { .. }
            | NodeDown::Directive(_)
            | NodeDown::Standing { .. } => {}
        }
    }

    fn keep_alive(&mut self, now: Instant) {
        self.keep_alive_at = now + self.pace.interval();
        // A session that closes still needs its stream, but no belief.
        let taken = self.shared.backlog.load(Ordering::Relaxed) < BACKLOG_MAX;
        let healthy = taken && (self.options.health)();
        if healthy != self.healthy {
            let session = self.session.map(|(session, _)| session.id.0);
            tracing::warn!(
                session,
                healthy,
                events_taken = taken,
                "the health of this session's owner changed"
            );
            self.healthy = healthy;
        }
        if !healthy {
            return;
        }
        // The clock is read before the message is on its way: belief may only end too early by that.
        let sent = clock::now();
        let seq = self.shared.keep_alive_sent(sent);
        self.pace.sent(seq, sent);
        self.send(NodeUp::KeepAlive {
            seq,
            clock_ms: sent.0 / 1_000_000,
            healthy: true,
        });
    }

    fn send(&mut self, up: NodeUp) {
        let Link::Up(stream) = &self.link else { return };
        if stream.up.try_send(up).is_err() {
            self.broken(&ApiError::new(
                ApiErrorKind::Unreachable,
                "the stream does not take messages",
            ));
        }
    }
}

/// Opens a stream and says hello.
async fn connect(api: ApiClient, hello: NodeUp) -> Result<(Stream, Opened), ApiError> {
    let (up, up_rx) = mpsc::channel(UP_MAX);
    up.try_send(hello).expect("a new channel has room");
    let mut down = api.node(ReceiverStream::new(up_rx)).await?;
    match down.next().await {
        Some(Ok(NodeDown::Opened {
            session,
            ttl_ms,
            ttl_ms_min_safe,
            cluster,
            ..
        })) => {
            let (ttl, ttl_min_safe) = (
                Duration::from_millis(ttl_ms),
                Duration::from_millis(ttl_ms_min_safe),
            );
            Ok((
                Stream { up, down },
                Opened {
                    session,
                    ttl,
                    ttl_min_safe,
                    cluster,
                },
            ))
        }
        Some(Ok(NodeDown::SessionGone)) => Err(ApiError::new(
            ApiErrorKind::UnknownSession,
            "the session is over",
        )),
        Some(Ok(NodeDown::Refused { error, .. }) | Err(error)) => Err(error),
        Some(Ok(other)) => Err(ApiError::new(
            ApiErrorKind::Internal,
            format!("the server began with {other:?}"),
        )),
        None => Err(ApiError::new(
            ApiErrorKind::ShuttingDown,
            "the server ended the stream",
        )),
    }
}
