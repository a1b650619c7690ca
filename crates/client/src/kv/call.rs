//! Which server is asked, and when the next one is.

use std::future::Future;
use std::time::Duration;

use quorate_wire::etcd::etcdserverpb::AuthenticateRequest;
use quorate_wire::etcd::etcdserverpb::auth_client::AuthClient;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::error::{Attempt, KvFault};
use super::{Kv, Login};
use crate::backoff::Backoff;
use crate::error::Error;

/// A read is given this long at one server before the next one is tried, or half of what the call has, if that is longer.
const READ_ATTEMPT_MIN: Duration = Duration::from_secs(2);

/// The metadata by which a read says what it must not be older than. Other servers than ours ignore it.
const MIN_REVISION_KEY: &str = "quorate-min-revision";

/// What each request of a call carries beside its message.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    timeout: Duration,
    min_revision: u64,
    token: Option<String>,
}

impl Meta {
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        if self.min_revision > 0 {
            let value = MetadataValue::from(self.min_revision);
            request.metadata_mut().insert(MIN_REVISION_KEY, value);
        }
        if let Some(token) = self.token.as_ref().and_then(|token| token.parse().ok()) {
            request.metadata_mut().insert("token", token);
        }
        request
    }
}

impl Kv {
    /// A read: tried at each server until one answers.
    pub(super) async fn read<T, Fut>(
        &self,
        what: &str,
        min_revision: u64,
        call: impl Fn(Channel, Meta) -> Fut,
    ) -> Result<T, Error>
    where
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let patience = READ_ATTEMPT_MIN.max(self.client.options().timeout / 2);
        self.attempts(patience, min_revision, true, call)
            .await
            .map_err(|attempt| attempt.of_read(what))
    }

    /// A write: tried on only where it was definitely refused, or never sent.
    pub(super) async fn write<T, Fut>(
        &self,
        what: &str,
        call: impl Fn(Channel, Meta) -> Fut,
    ) -> Result<T, Error>
    where
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.attempts(self.client.options().timeout, 0, false, call)
            .await
            .map_err(|attempt| attempt.of_write(what))
    }

    async fn attempts<T, Fut>(
        &self,
        patience: Duration,
        min_revision: u64,
        is_read: bool,
        call: impl Fn(Channel, Meta) -> Fut,
    ) -> Result<T, Attempt>
    where
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.client.options().timeout;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let mut at = self.client.preferred();
        let mut tried = 0;
        let mut token_renewed = false;
        loop {
            let (address, api) = self.client.server(at);
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = left.min(patience);
            let attempt = async {
                let token = self.token(address, api.channel(), timeout).await?;
                let meta = Meta {
                    timeout,
                    min_revision,
                    token,
                };
                let answer = tokio::time::timeout(timeout, call(api.channel(), meta)).await;
                match answer {
                    Ok(Ok(answer)) => Ok(answer.into_inner()),
                    Ok(Err(status)) => Err(Attempt::from_status(address, &status)),
                    Err(_) => Err(Attempt::silent(address, timeout)),
                }
            };
            let failed = match attempt.await {
                Ok(answer) => {
                    self.client.prefer(at);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            // Users changed, or the token is too old: it was refused before anything was done.
            if failed.fault() == KvFault::Unauthenticated && !token_renewed && self.login.is_some()
            {
                self.forget_token();
                token_renewed = true;
                continue;
            }
            let may_go_on = failed.is_refused_for_now() || (is_read && failed.may_be_applied());
            if !may_go_on {
                return Err(failed);
            }
            tracing::debug!(server = address, why = %failed, "call failed; trying on");
            tried += 1;
            at += 1;
            // The others are tried at once; only a round in which nobody answered is followed by a wait.
            let mut wait = failed.retry_after().unwrap_or(Duration::ZERO);
            if wait.is_zero() && tried % self.client.server_count() == 0 {
                wait = backoff.next();
            }
            if Instant::now() + wait >= deadline {
                return Err(failed);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The token of this user: the one that is known, or a new one from this server.
    pub(super) async fn token(
        &self,
        address: &str,
        channel: Channel,
        timeout: Duration,
    ) -> Result<Option<String>, Attempt> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        if let Some(token) = login.known() {
            return Ok(Some(token));
        }
        let request = AuthenticateRequest {
            name: login.name.clone(),
            password: login.password.clone(),
        };
        let mut client = AuthClient::new(channel);
        match tokio::time::timeout(timeout, client.authenticate(request)).await {
            Ok(Ok(answer)) => {
                let token = answer.into_inner().token;
                *login.token.lock().expect("nothing panics under it") = Some(token.clone());
                Ok(Some(token))
            }
            // Where users are not in force, anybody may do anything.
            Ok(Err(status)) if status.message().contains("authentication is not enabled") => {
                Ok(None)
            }
            Ok(Err(status)) => match Attempt::from_status(address, &status) {
                // Asking for a token changes nothing: the write that it was for was not sent.
                Attempt::Kv(_, refusal)
                    if Attempt::from_status(address, &status).may_be_applied() =>
                {
                    Err(Attempt::Kv(crate::error::ErrorKind::Retry, refusal))
                }
                attempt => Err(attempt),
            },
            Err(_) => match Attempt::silent(address, timeout) {
                Attempt::Kv(_, refusal) => {
                    Err(Attempt::Kv(crate::error::ErrorKind::Retry, refusal))
                }
                attempt @ Attempt::Api(_) => Err(attempt),
            },
        }
    }

    /// Whether there was one.
    pub(super) fn forget_token(&self) -> bool {
        let forget = |login: &std::sync::Arc<Login>| {
            let mut token = login.token.lock().expect("nothing panics under it");
            token.take().is_some()
        };
        self.login.as_ref().is_some_and(forget)
    }
}

impl Login {
    fn known(&self) -> Option<String> {
        self.token.lock().expect("nothing panics under it").clone()
    }
}
