//! A lock in the key space: one key for each who wants it, bound to a session, and the oldest one has it.
//!
//! The keys are those of etcd's own clients and of the lock service (`NAME/LEASE`, the lease in hexadecimal), so that all of them
//! exclude each other. Unlike there, the session is one of ours: its holder knows until when it is confirmed ([`Lock::check`]),
//! and the servers end it only after that.

use std::time::Duration;

use bytes::Bytes;
use quorate_types::{FencingToken, Time};
use quorate_wire::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_wire::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_wire::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RequestOp, ResponseOp, TxnRequest, request_op,
    response_op,
};
use quorate_wire::etcd::mvccpb::KeyValue;

use super::{KeyRange, Kv, KvFault, KvWatchEvent, Read, WatchOptions, signed};
use crate::error::{Error, ErrorKind};
use crate::session::Session;

/// How often a waiting session is looked at, as a part of its TTL.
const LOOKS_PER_TTL: u32 = 8;

/// A lock that is held. [`unlock`](Self::unlock) lets it go; dropped, it goes with its session.
#[derive(Clone, Debug)]
pub struct Lock {
    kv: Kv,
    session: Session,
    key: Bytes,
    token: FencingToken,
}

impl std::fmt::Debug for Kv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the password.
        let endpoints: Vec<&str> = self.client.endpoints().collect();
        f.debug_struct("Kv")
            .field("endpoints", &endpoints)
            .finish_non_exhaustive()
    }
}

impl Kv {
    /// Waits for a lock. Where the same session holds it already, it is that very lock.
    ///
    /// ```no_run
    /// use quorate_client::{Client, ClientOptions, SessionOptions};
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::connect(["127.0.0.1:2379"], ClientOptions::default()).await?;
    /// let (session, _events) = client.open_session(SessionOptions::default()).await?;
    /// let lock = client.kv().lock(&session, "jobs/nightly").await?;
    /// while lock.check() {
    ///     // One write to what is protected, with lock.fencing_token().
    ///     # break;
    /// }
    /// lock.unlock().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `SessionLost`: open a new one. `Denied`: not to this user.
    pub async fn lock(&self, session: &Session, name: &str) -> Result<Lock, Error> {
        let (standing, first) = self.stand(session, name).await?;
        if first != standing.lock.token {
            standing.wait(name).await?;
        }
        standing.taken(name)
    }

    /// Takes a lock that is free.
    ///
    /// # Errors
    /// `Conflict`: another holds it. Otherwise as [`lock`](Self::lock).
    pub async fn try_lock(&self, session: &Session, name: &str) -> Result<Lock, Error> {
        let (standing, first) = self.stand(session, name).await?;
        if first == standing.lock.token {
            return standing.taken(name);
        }
        // Here, not in the background: who is told that it is taken should not stand in line for it.
        standing.leave().unlock().await?;
        let what = format!("lock `{name}`: another holds it, with token {first}");
        Err(Error::new(ErrorKind::Conflict, what))
    }

    /// Stands in line; says which token is first in it.
    async fn stand(
        &self,
        session: &Session,
        name: &str,
    ) -> Result<(Standing, FencingToken), Error> {
        let lease = signed(session.key().id.0);
        let prefix = format!("{name}/");
        let key = Bytes::from(format!("{prefix}{lease:x}"));
        let mine = Read::of(KeyRange::key(key.clone())).into_request();
        let first = Read::of(KeyRange::prefix(prefix))
            .sorted(SortTarget::Create, SortOrder::Ascend)
            .limit(1)
            .into_request();
        let put = PutRequest {
            key: key.clone(),
            lease,
            ..PutRequest::default()
        };
        let read = |request| op(request_op::Request::RequestRange(request));
        let request = TxnRequest {
            compare: vec![created(&key, 0)],
            success: vec![
                op(request_op::Request::RequestPut(put)),
                read(mine.clone()),
                read(first.clone()),
            ],
            failure: vec![read(mine), read(first)],
        };
        let what = format!("lock `{name}`");
        let answer = settle(session, &what, || self.txn(request.clone())).await?;
        let mut found = answer.responses.into_iter().filter_map(first_pair);
        let (Some(mine), Some(first)) = (found.next(), found.next()) else {
            let what = format!("{what}: the server's answer lacks the key that it has put");
            return Err(Error::new(ErrorKind::Internal, what));
        };
        let token = |pair: &KeyValue| FencingToken(pair.create_revision.unsigned_abs());
        let lock = Lock {
            kv: self.clone(),
            session: session.clone(),
            key,
            token: token(&mine),
        };
        Ok((Standing { lock, left: false }, token(&first)))
    }
}

/// A place in the line; given up when it is dropped without having come to the lock.
struct Standing {
    lock: Lock,
    left: bool,
}

impl Drop for Standing {
    fn drop(&mut self) {
        if !self.left
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let lock = self.lock.clone();
            runtime.spawn(async move {
                if let Err(error) = lock.unlock().await {
                    tracing::debug!(%error, "a place in line goes with its session only");
                }
            });
        }
    }
}

impl Standing {
    fn leave(mut self) -> Lock {
        self.left = true;
        self.lock.clone()
    }

    /// Waits until nobody is before this one.
    async fn wait(&self, name: &str) -> Result<(), Error> {
        let Lock {
            kv, session, token, ..
        } = &self.lock;
        loop {
            // The youngest of those before: woken by it alone, a thousand who wait do not wake each other.
            let read = Read::of(KeyRange::prefix(format!("{name}/")))
                .created_through(token.0 - 1)
                .sorted(SortTarget::Create, SortOrder::Descend)
                .limit(1);
            let what = format!("lock `{name}`");
            let answer = settle(session, &what, || kv.range(read.clone())).await?;
            let Some(before) = answer.kvs.into_iter().next() else {
                return Ok(());
            };
            let mut options = WatchOptions::of(KeyRange::key(before.key));
            options.no_puts = true;
            options.start_revision = super::revision_of(answer.header.as_ref()) + 1;
            let mut watch = match kv.watch(options).await {
                Ok(watch) => watch,
                // History was compacted meanwhile, or nobody could watch: look again.
                Err(error) if is_passing(&error) => {
                    alive(session, &what)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut look = tokio::time::interval(session.ttl() / LOOKS_PER_TTL);
            loop {
                tokio::select! {
                    event = watch.next() => match event {
                        Some(Ok(KvWatchEvent::Changes { .. })) | None => break,
                        Some(Ok(_)) => {}
                        Some(Err(error)) if is_passing(&error) => break,
                        Some(Err(error)) => return Err(error),
                    },
                    _ = look.tick() => alive(session, &what)?,
                }
            }
        }
    }

    /// First in line. A session that ended while it stood there has lost its key, and with it the place.
    fn taken(self, name: &str) -> Result<Lock, Error> {
        if !self.lock.check() {
            let session = self.lock.session.key().id;
            let what = format!("lock `{name}`: session {session} is over, or not confirmed");
            return Err(Error::new(ErrorKind::SessionLost, what));
        }
        Ok(self.leave())
    }
}

impl Lock {
    /// Whether it is certainly held now: nobody else has it before the session's confirmed time is over. Ask before each act.
    #[must_use]
    pub fn check(&self) -> bool {
        self.valid_until()
            .is_some_and(|until| crate::clock::now() < until)
    }

    /// Until when it is certainly held, on [`boot_time`](crate::boot_time). Each keep-alive of the session puts it off.
    #[must_use]
    pub fn valid_until(&self) -> Option<Time> {
        if self.session.is_over() {
            return None;
        }
        self.session.valid_until()
    }

    /// Rises with each holder of this lock: send it with every guarded write. It is the revision that created the key.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        self.token
    }

    /// The key that stands for it, by which others see who holds the lock.
    #[must_use]
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Lets it go.
    ///
    /// # Errors
    /// `Unknown` or `Retry`: no server confirmed it in time; it goes with its session. `Denied`: not to this user.
    pub async fn unlock(self) -> Result<(), Error> {
        // Only this holding: the same session may hold a later one by the time that this arrives.
        let delete = DeleteRangeRequest {
            key: self.key.clone(),
            ..DeleteRangeRequest::default()
        };
        let request = TxnRequest {
            compare: vec![created(&self.key, self.token.0)],
            success: vec![op(request_op::Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        let deadline = tokio::time::Instant::now() + self.kv.client.options().timeout;
        loop {
            match self.kv.txn(request.clone()).await {
                Ok(_) => return Ok(()),
                // Deleting it again does no harm.
                Err(error) if is_passing(&error) && tokio::time::Instant::now() < deadline => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn created(key: &Bytes, revision: u64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(signed(revision))),
        ..Compare::default()
    }
}

fn first_pair(op: ResponseOp) -> Option<KeyValue> {
    match op.response {
        Some(response_op::Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    }
}

fn alive(session: &Session, what: &str) -> Result<(), Error> {
    if session.is_over() {
        let what = format!("{what}: session {} is over", session.key().id);
        return Err(Error::new(ErrorKind::SessionLost, what));
    }
    Ok(())
}

fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Retry | ErrorKind::Unknown)
        || error.kv_fault() == Some(KvFault::Compacted)
}

/// Repeats what may be repeated, for as long as the session lives. Its key is the session's own: to put it twice is to put it once.
async fn settle<T, Fut>(session: &Session, what: &str, call: impl Fn() -> Fut) -> Result<T, Error>
where
    Fut: Future<Output = Result<T, Error>>,
{
    loop {
        alive(session, what)?;
        match call().await {
            Err(error) if is_passing(&error) => {
                tracing::debug!(%error, "not settled; trying on");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) if error.kv_fault() == Some(KvFault::LeaseNotFound) => {
                let what = format!("{what}: session {} is over", session.key().id);
                return Err(Error::new(ErrorKind::SessionLost, what));
            }
            decided => return decided,
        }
    }
}
