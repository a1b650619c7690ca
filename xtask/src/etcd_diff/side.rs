//! One side of the comparison: asks its servers, and keeps what later operations refer to: tokens, leases, watches.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::future::join_all;
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::watch_request::RequestUnion;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::ops::{ALIASES, Answer, Op, Step, Who};
use super::servers::{Program, Servers};
use super::stream::{Change, WatchStream};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a watch from the past may need to be one of the present, where it has nothing to tell.
const CATCH_UP: Duration = Duration::from_millis(500);

/// How often starting both sides is tried.
const STARTS_MAX: usize = 3;

/// How many reads are asked at once.
const AT_ONCE: usize = 8;

/// Streams of watches; the first one holds a watch over everything, from the beginning, that the others are judged by.
pub(crate) const STREAMS: usize = 5;

/// The stream of watches on behalf of users.
pub(crate) const USERS_STREAM: usize = STREAMS - 1;

/// The password of `root`, which no operation changes.
pub(crate) const ROOT_PASSWORD: &str = "toor";

/// One side.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) name: &'static str,
    servers: Servers,
    channels: Vec<Channel>,
    tokens: HashMap<&'static str, String>,
    /// The leases whose id the server chose: the first one is called [`ALIASES`], and so on.
    chosen: Vec<i64>,
    streams: Vec<Option<WatchStream>>,
    /// All changes, as the watch over everything told them.
    changes: Vec<Change>,
    /// The newest revision that an answer named.
    revision: i64,
    compacted: i64,
    asked: usize,
    /// Whether one side is an etcd 3.5, which tells progress only of streams whose watches are all in the present.
    is_progress_rare: bool,
}

impl Side {
    /// Starts servers and waits until they answer.
    pub(crate) async fn start(program: &Program, name: &'static str) -> anyhow::Result<Self> {
        let servers = Servers::start(program)?;
        let channels = servers
            .endpoints
            .iter()
            .map(|endpoint| {
                Ok(Endpoint::from_shared(endpoint.clone())?
                    .tcp_nodelay(true)
                    .connect_lazy())
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut side = Self {
            name,
            servers,
            channels,
            tokens: HashMap::new(),
            chosen: Vec::new(),
            streams: (0..STREAMS).map(|_| None).collect(),
            changes: Vec::new(),
            revision: 1,
            compacted: 0,
            asked: 0,
            is_progress_rare: false,
        };
        side.wait_ready().await?;
        let everything = pb::WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: 1,
            prev_kv: true,
            ..Default::default()
        };
        match side.watch(0, &Who::Nobody, everything).await {
            Ok(_) => Ok(side),
            Err(refused) => bail!("{name}: the watch over everything was refused: {refused}"),
        }
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let began = std::time::Instant::now();
        for at in 0..self.channels.len() {
            loop {
                let read = pb::RangeRequest {
                    key: b"a".to_vec().into(),
                    ..Default::default()
                };
                let mut client = pb::kv_client::KvClient::new(self.channels[at].clone());
                let refused = match timeout(Duration::from_secs(2), client.range(read)).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(refused)) => refused.to_string(),
                    Err(_) => "no answer".to_owned(),
                };
                if let Some(words) = self.servers.last_words() {
                    bail!("{}: {words}", self.name);
                }
                if began.elapsed() > Duration::from_secs(30) {
                    bail!(
                        "{}: server {at} does not answer after 30 s: {refused}",
                        self.name
                    );
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// What a server that has died said; `None` while all live.
    pub(crate) fn last_words(&mut self) -> Option<String> {
        let words = self.servers.last_words();
        words.map(|words| format!("{}: {words}", self.name))
    }

    /// Runs operations one after the other, but neighbouring reads at once.
    pub(crate) async fn run(&mut self, steps: &[Step]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(steps.len());
        while answers.len() < steps.len() {
            let rest = &steps[answers.len()..];
            let reads = rest
                .iter()
                .take(AT_ONCE)
                .take_while(|step| step.op.only_reads());
            let reads = reads.count();
            if reads > 1 {
                let this = &*self;
                let first = self.asked;
                let calls = rest[..reads].iter().enumerate();
                let calls =
                    calls.map(|(at, step)| this.call(step.op.clone(), &step.who, first + at));
                let found = join_all(calls).await;
                self.asked += reads;
                answers.extend(found.into_iter().map(|answer| self.note(answer)));
            } else {
                answers.push(self.step(&rest[0]).await);
            }
        }
        answers
    }

    async fn step(&mut self, step: &Step) -> Answer {
        self.asked += 1;
        let Step { op, who } = step.clone();
        let actual = |id: i64| match usize::try_from(id - ALIASES) {
            Ok(at) if at < self.chosen.len() => self.chosen[at],
            _ => id,
        };
        let op = op.with_leases(&actual);
        let answer = match op {
            Op::Watch(stream, create) => or_refused(self.watch(stream, &who, create).await),
            Op::CancelWatch(stream, id) => or_refused(self.cancel_watch(stream, id).await),
            Op::Progress(stream) => or_refused(self.progress(stream).await),
            Op::CloseStream(stream) => {
                self.streams[stream] = None;
                Answer::Done
            }
            Op::KeepAlive(id) => or_refused(self.keep_alive(id, &who).await),
            Op::AwaitExpiry(id) => or_refused(self.await_expiry(id).await),
            Op::Barrier => or_refused(self.barrier().await),
            Op::Compact(compact) => {
                // A watch that lags would be overtaken on one side and not on the other.
                let synced = self.sync().await;
                self.let_catch_up().await;
                match synced {
                    Ok(()) => self.call(Op::Compact(compact), &who, 0).await,
                    Err(refused) => Answer::refused(&refused),
                }
            }
            op => self.call(op, &who, self.asked).await,
        };
        let name = step.op.name();
        if ["Auth", "User", "Role"]
            .iter()
            .any(|of| name.starts_with(of))
        {
            self.spread().await;
        }
        match (&step.op, &answer) {
            (Op::Compact(compact), Answer::Compact(_)) => {
                self.compacted = self.compacted.max(compact.revision);
            }
            (Op::Grant(grant), Answer::Grant(granted)) if grant.id == 0 => {
                self.chosen.push(granted.id);
            }
            (Op::Authenticate(_), Answer::Authenticate(answer)) => {
                if let Who::User(name) = &step.who {
                    self.tokens.insert(name, answer.token.clone());
                }
            }
            _ => {}
        }
        self.note(answer)
    }

    /// Waits until all servers know what has changed of users and roles, which have no revision that a read could wait for: a serializable
    /// one may go to any of them.
    async fn spread(&self) {
        for at in 1..self.channels.len() {
            let read = pb::RangeRequest {
                key: b"a".to_vec().into(),
                ..Default::default()
            };
            // Who may not read waits all the same.
            self.call(Op::Range(read), &Who::Nobody, at).await;
        }
    }

    /// Remembers an answer's revision, and makes it comparable.
    fn note(&mut self, answer: Answer) -> Answer {
        self.revision = self.revision.max(answer.revision().unwrap_or(0));
        let alias = |id: i64| {
            let at = self.chosen.iter().position(|chosen| *chosen == id);
            at.map_or(id, |at| ALIASES + i64::try_from(at).expect("few leases"))
        };
        answer.comparable(&alias)
    }

    fn request<T>(&self, message: T, who: &Who) -> Request<T> {
        let mut request = Request::new(message);
        let token = match who {
            Who::Nobody => None,
            Who::User(name) => self.tokens.get(name).map(String::as_str),
            Who::Forger => Some("forged.1"),
        };
        if let Some(token) = token.and_then(|token| token.parse().ok()) {
            request.metadata_mut().insert("token", token);
        }
        request
    }

    async fn call(&self, op: Op, who: &Who, asked: usize) -> Answer {
        // Without its own token, as the name alone would carry an older one.
        let nobody = Who::Nobody;
        macro_rules! call {
            ($service:ident :: $client:ident, $method:ident, $kind:ident, $message:expr) => {{ call!($service::$client, $method, $kind, $message, 0, who, false) }};
            ($service:ident :: $client:ident, $method:ident, $kind:ident, $message:expr, $at:expr, $who:expr, $newest:expr) => {{
                let channel = self.channels[$at % self.channels.len()].clone();
                let mut client = pb::$service::$client::new(channel)
                    .max_decoding_message_size(usize::MAX)
                    .max_encoding_message_size(usize::MAX);
                let mut request = self.request($message, $who);
                if $newest && self.channels.len() > 1 {
                    let revision = self.revision.to_string().parse().expect("digits are ASCII");
                    request
                        .metadata_mut()
                        .insert("quorate-min-revision", revision);
                }
                match timeout(PATIENCE, client.$method(request)).await {
                    Ok(Ok(answer)) => Answer::$kind(answer.into_inner()),
                    Ok(Err(refused)) => Answer::refused(&refused),
                    Err(_) => Answer::refused(&Status::deadline_exceeded("no answer in time")),
                }
            }};
        }
        match op {
            Op::Range(m) => {
                // Reads may go to any server; one that does not ask the leader must then be told what it has to have seen.
                let newest = m.serializable;
                call!(kv_client::KvClient, range, Range, m, asked, who, newest)
            }
            Op::Put(m) => call!(kv_client::KvClient, put, Put, m),
            Op::DeleteRange(m) => call!(kv_client::KvClient, delete_range, DeleteRange, m),
            Op::Txn(m) => call!(kv_client::KvClient, txn, Txn, m),
            Op::Compact(m) => call!(kv_client::KvClient, compact, Compact, m),
            Op::Grant(m) => call!(lease_client::LeaseClient, lease_grant, Grant, m),
            Op::Revoke(m) => call!(lease_client::LeaseClient, lease_revoke, Revoke, m),
            Op::TimeToLive(m) => {
                call!(lease_client::LeaseClient, lease_time_to_live, TimeToLive, m)
            }
            Op::Leases(m) => call!(lease_client::LeaseClient, lease_leases, Leases, m),
            Op::HashKv(m) => call!(maintenance_client::MaintenanceClient, hash_kv, HashKv, m),
            Op::Alarm(m) => call!(maintenance_client::MaintenanceClient, alarm, Alarm, m),
            Op::AuthEnable(m) => call!(auth_client::AuthClient, auth_enable, AuthEnable, m),
            Op::AuthDisable(m) => call!(auth_client::AuthClient, auth_disable, AuthDisable, m),
            Op::Authenticate(m) => {
                call!(
                    auth_client::AuthClient,
                    authenticate,
                    Authenticate,
                    m,
                    0,
                    &nobody,
                    false
                )
            }
            Op::UserAdd(m) => call!(auth_client::AuthClient, user_add, UserAdd, m),
            Op::UserGet(m) => call!(auth_client::AuthClient, user_get, UserGet, m),
            Op::UserList(m) => call!(auth_client::AuthClient, user_list, UserList, m),
            Op::UserDelete(m) => call!(auth_client::AuthClient, user_delete, UserDelete, m),
            Op::UserPassword(m) => {
                call!(
                    auth_client::AuthClient,
                    user_change_password,
                    UserPassword,
                    m
                )
            }
            Op::UserGrant(m) => call!(auth_client::AuthClient, user_grant_role, UserGrant, m),
            Op::UserRevoke(m) => call!(auth_client::AuthClient, user_revoke_role, UserRevoke, m),
            Op::RoleAdd(m) => call!(auth_client::AuthClient, role_add, RoleAdd, m),
            Op::RoleGet(m) => call!(auth_client::AuthClient, role_get, RoleGet, m),
            Op::RoleList(m) => call!(auth_client::AuthClient, role_list, RoleList, m),
            Op::RoleDelete(m) => call!(auth_client::AuthClient, role_delete, RoleDelete, m),
            Op::RoleGrant(m) => {
                call!(auth_client::AuthClient, role_grant_permission, RoleGrant, m)
            }
            Op::RoleRevoke(m) => {
                call!(
                    auth_client::AuthClient,
                    role_revoke_permission,
                    RoleRevoke,
                    m
                )
            }
            Op::Watch(..)
            | Op::CancelWatch(..)
            | Op::Progress(..)
            | Op::CloseStream(..)
            | Op::KeepAlive(..)
            | Op::AwaitExpiry(..)
            | Op::Barrier => unreachable!("these are more than one call, see `step`"),
        }
    }

    fn stream(&mut self, at: usize, who: &Who) -> &WatchStream {
        if self.streams[at].is_none() {
            let client = pb::watch_client::WatchClient::new(self.channels[0].clone())
                .max_decoding_message_size(usize::MAX);
            let dressed = self.request((), who);
            let opened = WatchStream::open(client, |requests| dressed.map(|()| requests));
            self.streams[at] = Some(opened);
        }
        self.streams[at].as_ref().expect("just opened")
    }

    async fn watch(
        &mut self,
        at: usize,
        who: &Who,
        create: pb::WatchCreateRequest,
    ) -> Result<Answer, Status> {
        let compacted = self.compacted;
        let start = create.start_revision;
        let stream = self.stream(at, who);
        if stream.told().spent.contains(&create.watch_id) {
            return Ok(Answer::Done);
        }
        stream.send(RequestUnion::CreateRequest(create)).await;
        let created = in_time(stream.answer()).await?;
        if start > 0 && start <= compacted && !created.canceled {
            // Told soon, but not at once: what comes next must find it told.
            let id = created.watch_id;
            let ended = stream.until(|told| {
                let watched = told.watches.get(&id)?;
                (watched.seen.canceled.is_some() || start == compacted && watched.revision > 0)
                    .then_some(())
            });
            // At the compacted revision itself both is right, and compared later.
            let patience = if start == compacted {
                Duration::from_millis(300)
            } else {
                PATIENCE
            };
            let _ = timeout(patience, ended).await;
        }
        Ok(Answer::Watch(created))
    }

    async fn cancel_watch(&mut self, at: usize, id: i64) -> Result<Answer, Status> {
        // A watch has told all that it must before it is cancelled.
        self.sync().await?;
        let Some(stream) = &self.streams[at] else {
            return Ok(Answer::Done);
        };
        let lives = |told: &super::stream::Told| {
            let watched = told.watches.get(&id);
            watched.is_some_and(|watched| watched.seen.canceled.is_none())
        };
        let lives = lives(&stream.told());
        let cancel = pb::WatchCancelRequest { watch_id: id };
        stream.send(RequestUnion::CancelRequest(cancel)).await;
        if lives {
            // One that is not there is not answered.
            in_time(stream.until(|told| {
                let watched = told.watches.get(&id)?;
                watched.seen.canceled.is_some().then_some(())
            }))
            .await?;
        }
        Ok(Answer::Done)
    }

    async fn progress(&mut self, at: usize) -> Result<Answer, Status> {
        self.sync().await?;
        let Some(stream) = &self.streams[at] else {
            return Ok(Answer::Done);
        };
        if self.is_progress_rare {
            self.let_catch_up().await;
            let told = stream.told();
            let lives = told.watches.values();
            let mut lives = lives
                .filter(|watch| watch.seen.canceled.is_none())
                .peekable();
            if lives.peek().is_none()
                || !told.spent.is_empty()
                || lives.any(|watch| watch.create.start_revision > self.revision)
            {
                return Ok(Answer::Done);
            }
        }
        let ask = pb::WatchProgressRequest {};
        stream.send(RequestUnion::ProgressRequest(ask)).await;
        Ok(Answer::Watch(in_time(stream.answer()).await?))
    }

    async fn keep_alive(&mut self, id: i64, who: &Who) -> Result<Answer, Status> {
        let mut client = pb::lease_client::LeaseClient::new(self.channels[0].clone());
        let ask = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let request = self.request(ask, who);
        let answer = async {
            let mut answers = client.lease_keep_alive(request).await?.into_inner();
            let answer = answers.message().await?;
            answer.ok_or_else(|| Status::cancelled("the server ended the stream"))
        };
        Ok(Answer::KeepAlive(in_time(answer).await?))
    }

    async fn await_expiry(&mut self, id: i64) -> Result<Answer, Status> {
        let gone = async {
            let mut client = pb::lease_client::LeaseClient::new(self.channels[0].clone());
            loop {
                let leases = client
                    .lease_leases(pb::LeaseLeasesRequest {})
                    .await?
                    .into_inner();
                if leases.leases.iter().all(|lease| lease.id != id) {
                    return Ok(Answer::Done);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        in_time(gone).await
    }

    /// Waits until every watch has told what it must.
    async fn sync(&mut self) -> Result<(), Status> {
        let newest = self.revision;
        let everything = self.streams[0].as_ref().expect("opened at the start");
        let fresh = in_time(everything.until(|told| {
            let watched = told.watches.get(&0)?;
            if watched.revision < newest && newest > 1 && watched.seen.canceled.is_none() {
                return None;
            }
            Some(
                watched
                    .seen
                    .events
                    .iter()
                    .filter_map(Change::of)
                    .collect::<Vec<_>>(),
            )
        }))
        .await
        .map_err(|status| {
            Status::new(
                status.code(),
                format!(
                    "the watch over everything has not told revision {newest}: {}",
                    status.message()
                ),
            )
        })?;
        let known = self.changes.last().map_or(0, |change| change.revision);
        self.changes
            .extend(fresh.into_iter().filter(|change| change.revision > known));
        for (at, stream) in self.streams.iter().enumerate() {
            let Some(stream) = stream else { continue };
            let changes = &self.changes;
            let compacted = self.compacted;
            let mut lagging = HashSet::new();
            let caught_up = stream.until(|told| {
                let lags = told.watches.iter().filter(|(_, watched)| {
                    let must = changes.iter().rev().find(|change| {
                        change.revision < watched.create.start_revision
                            || change.concerns(&watched.create)
                    });
                    let must = must.map_or(0, |change| change.revision);
                    // Of a compacted revision itself, only what is still there is told.
                    must >= watched.create.start_revision.max(compacted + 1)
                        && must > watched.revision
                        && watched.seen.canceled.is_none()
                });
                lagging = lags.map(|(id, _)| *id).collect();
                lagging.is_empty().then_some(())
            });
            if let Err(status) = in_time(caught_up).await {
                let text = format!(
                    "stream {at}: watches {lagging:?} have not told all through revision {newest}: {}",
                    status.message()
                );
                return Err(Status::new(status.code(), text));
            }
        }
        Ok(())
    }

    /// Waits until watches from the past surely are with the present ones. etcd moves them ten times a second, and until then ends them
    /// with a compaction, also those that have nothing left to tell.
    async fn let_catch_up(&self) {
        let streams = self.streams.iter().flatten();
        let youngest = streams.filter_map(|stream| {
            let told = stream.told();
            told.watches
                .values()
                .filter_map(|watch| watch.catching_up_since)
                .max()
        });
        if let Some(since) = youngest.max() {
            tokio::time::sleep(CATCH_UP.saturating_sub(since.elapsed())).await;
        }
    }

    async fn barrier(&mut self) -> Result<Answer, Status> {
        self.sync().await?;
        let mut watched = BTreeMap::new();
        for (at, stream) in self.streams.iter().enumerate() {
            let Some(stream) = stream else { continue };
            let mut told = stream.told();
            for (id, watch) in &mut told.watches {
                let mut seen = std::mem::take(&mut watch.seen);
                watch.seen.canceled.clone_from(&seen.canceled);
                // Of the compacted revision itself, it is open whether what was not kept is still told: compaction takes time.
                let open = watch.create.start_revision.min(self.compacted);
                seen.events
                    .retain(|event| event.kv.as_ref().is_none_or(|kv| kv.mod_revision != open));
                watched.insert((at, *id), seen);
            }
            told.watches
                .retain(|_, watch| watch.seen.canceled.is_none());
        }
        Ok(Answer::Watched(watched))
    }
}

fn or_refused(answer: Result<Answer, Status>) -> Answer {
    answer.unwrap_or_else(|refused| Answer::refused(&refused))
}

async fn in_time<T>(wanted: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let waited = timeout(PATIENCE, wanted).await;
    waited.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// Starts both sides at once. Ports that were free when they were looked for may be taken a moment later: then others are looked for.
pub(crate) async fn start_both(left: &Program, right: &Program) -> anyhow::Result<(Side, Side)> {
    let mut tries = 1;
    loop {
        match start_once(left, right).await {
            Err(_) if tries < STARTS_MAX => tries += 1,
            started_or_not => return started_or_not,
        }
    }
}

async fn start_once(left: &Program, right: &Program) -> anyhow::Result<(Side, Side)> {
    let is_progress_rare = left.is_newer() || right.is_newer();
    let names = if left.name() == right.name() {
        ("left", "right")
    } else {
        (left.name(), right.name())
    };
    let (left, right) = tokio::join!(Side::start(left, names.0), Side::start(right, names.1));
    let mut left = left.context("start one side")?;
    let mut right = right.context("start the other side")?;
    left.is_progress_rare = is_progress_rare;
    right.is_progress_rare = is_progress_rare;
    Ok((left, right))
}
