//! A client of the whole cluster: any server will do, and it finds one that answers.

mod admin;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_types::DriftBound;
use quorate_wire::api::{ApiError, ApiErrorKind, CONTRACT, Mutation};
use quorate_wire::{ApiClient, ClientTls, ConnectOptions};
use tokio::time::Instant;

use crate::backoff::{Backoff, request_id};
use crate::error::{Error, ErrorKind};

/// Longest wait for one server before the next one is tried.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// How to reach the cluster.
#[derive(Clone)]
pub struct ClientOptions {
    /// TLS; none: plaintext, for servers on loopback or run with an explicit insecure flag.
    pub tls: Option<ClientTls>,
    /// How long a call may take, retries included.
    pub timeout: Duration,
    /// How long connecting to one server may take.
    pub connect_timeout: Duration,
    /// The bound on clock rates. The servers must be configured with one no smaller.
    pub drift: DriftBound,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            tls: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            drift: DriftBound::default(),
        }
    }
}

/// A client of the cluster. Cheap to clone; clones share connections.
///
/// ```no_run
/// use quorate_client::{Client, ClientOptions, GroupName, GroupSpec};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let endpoints = ["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"];
/// let client = Client::connect(endpoints, ClientOptions::default()).await?;
/// client.create_groups(vec![(GroupName::new("orders/1")?, GroupSpec::default())]).await?;
/// let group = client.get_group(&GroupName::new("orders/1")?).await?;
/// println!("led by {:?}", group.group.state.leader());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    servers: Vec<Server>,
    /// The server that answered last: the next call starts there.
    preferred: AtomicUsize,
    options: ClientOptions,
}

struct Server {
    address: String,
    api: ApiClient,
}

impl Client {
    /// Prepares connections to all endpoints (`host:port`), and waits until one answers.
    ///
    /// # Errors
    /// `Invalid`: an endpoint or certificate cannot be used. `Retry`: no server answered in time.
    pub async fn connect<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let client = Self::lazy(endpoints, options)?;
        client
            .read("connect", |api, timeout| async move {
                api.status(timeout).await
            })
            .await?;
        Ok(client)
    }

    /// Prepares connections to all endpoints without trying any.
    ///
    /// # Errors
    /// `Invalid`: an endpoint or certificate cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn lazy<E: Into<String>>(
        endpoints: impl IntoIterator<Item = E>,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let connect = ConnectOptions {
            tls: options.tls.clone(),
            connect_timeout: options.connect_timeout,
        };
        let server = |address: String| match ApiClient::lazy(&address, &connect) {
            Ok(api) => Ok(Server { address, api }),
            Err(error) => Err(Error::api("connect", error)),
        };
        let servers: Vec<Server> = endpoints
            .into_iter()
            .map(|address| server(address.into()))
            .collect::<Result<_, _>>()?;
        if servers.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "connect: no endpoint was given",
            ));
        }
        // Clients that were given the same list do not all start at its head.
        let preferred = AtomicUsize::new(crate::backoff::random().usize(..servers.len()));
        Ok(Self {
            inner: Arc::new(Inner {
                servers,
                preferred,
                options,
            }),
        })
    }

    /// The endpoints, in the order given.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.inner
            .servers
            .iter()
            .map(|server| server.address.as_str())
    }

    /// How it was set up.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.inner.options
    }

    pub(crate) fn server_count(&self) -> usize {
        self.inner.servers.len()
    }

    pub(crate) fn preferred(&self) -> usize {
        self.inner.preferred.load(Ordering::Relaxed)
    }

    pub(crate) fn prefer(&self, at: usize) {
        self.inner
            .preferred
            .store(at % self.server_count(), Ordering::Relaxed);
    }

    /// The server at a position, counted around the list.
    pub(crate) fn server(&self, at: usize) -> (&str, &ApiClient) {
        let server = &self.inner.servers[at % self.server_count()];
        (&server.address, &server.api)
    }

    /// A read: tried at each server until one answers.
    async fn read<T, Fut>(
        &self,
        what: &str,
        call: impl Fn(ApiClient, Duration) -> Fut,
    ) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, ApiError>>,
    {
        // A read has no effect: what may have been "applied" is simply asked again.
        self.attempts(call)
            .await
            .map_err(|(error, _)| Error::api(what, error.of_read()))
    }

    /// A change: tried at each server, under one request id, until it is decided. Only the deadline leaves it unknown.
    async fn change<T, Fut>(
        &self,
        what: &str,
        call: impl Fn(ApiClient, Mutation, Duration) -> Fut,
    ) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, ApiError>>,
    {
        let mutation = Mutation {
            request_id: request_id(),
            contract: CONTRACT,
        };
        let result = self
            .attempts(|api, timeout| call(api, mutation, timeout))
            .await;
        result.map_err(|(error, maybe_applied)| {
            // A later definite refusal decides the request, since it had the same id; a refusal to try does not.
            if maybe_applied && (error.kind.is_transient() || error.kind == ApiErrorKind::Internal)
            {
                Error::maybe_applied(what, error)
            } else {
                Error::api(what, error)
            }
        })
    }

    /// The last error, and whether any attempt may have been applied.
    async fn attempts<T, Fut>(
        &self,
        call: impl Fn(ApiClient, Duration) -> Fut,
    ) -> Result<T, (ApiError, bool)>
    where
        Fut: Future<Output = Result<T, ApiError>>,
    {
        let deadline = Instant::now() + self.inner.options.timeout;
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let mut maybe_applied = false;
        let mut at = self.preferred();
        let mut tried = 0;
        loop {
            let (address, api) = self.server(at);
            let timeout = deadline
                .saturating_duration_since(Instant::now())
                .min(ATTEMPT_MAX);
            let answer = tokio::time::timeout(timeout, call(api.clone(), timeout)).await;
            let error = match answer {
                Ok(Ok(answer)) => {
                    self.prefer(at);
                    return Ok(answer);
                }
                Ok(Err(error)) if error.kind == ApiErrorKind::Unreachable => ApiError {
                    message: format!("{address}: {}", error.message),
                    ..error
                },
                Ok(Err(error)) => error,
                Err(_) => ApiError::unknown_outcome(format!(
                    "{address} did not answer within {timeout:?}"
                )),
            };
            maybe_applied |= error.kind.may_be_applied();
            if !error.kind.is_transient() {
                return Err((error, maybe_applied));
            }
            tracing::debug!(server = address, kind = error.kind.code(), %error, "call failed; trying on");
            tried += 1;
            at += 1;
            // The others are tried at once; only a round in which nobody answered is followed by a wait.
            let mut wait = Duration::ZERO;
            if let Some(retry_after_ms) = error.retry_after_ms {
                wait = Duration::from_millis(retry_after_ms);
            } else if tried % self.server_count() == 0 {
                wait = backoff.next();
            }
            if Instant::now() + wait >= deadline {
                return Err((error, maybe_applied));
            }
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use quorate_types::{GroupName, RequestId, Revision};
    use quorate_wire::api::{CreateGroups, Done, GroupSpec};

    use super::*;
    use crate::fake::Fake;

    fn groups() -> Vec<(GroupName, GroupSpec)> {
        vec![(GroupName::new("a").unwrap(), GroupSpec::default())]
    }

    /// A server that answers by script, and the request ids that it saw.
    async fn scripted(
        mut answers: Vec<Result<Done, ApiError>>,
        last: Result<Done, ApiError>,
    ) -> (Fake, Arc<Mutex<Vec<RequestId>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let fake = Fake::creating({
            let seen = seen.clone();
            move |request: CreateGroups| {
                seen.lock().unwrap().push(request.mutation.request_id);
                if answers.is_empty() {
                    last.clone()
                } else {
                    answers.remove(0)
                }
            }
        })
        .await;
        (fake, seen)
    }

    fn client(fakes: &[&Fake], timeout_ms: u64) -> Client {
        let timeout = Duration::from_millis(timeout_ms);
        let options = ClientOptions {
            timeout,
            ..ClientOptions::default()
        };
        let client = Client::lazy(fakes.iter().map(|fake| fake.address.clone()), options).unwrap();
        client.prefer(0);
        client
    }

    #[tokio::test]
    async fn an_unknown_outcome_is_settled_under_the_same_request_id() {
        let done = Done {
            revision: Revision(4),
        };
        let unknown = || Err(ApiError::unknown_outcome("the leader was lost"));
        let (fake, seen) = scripted(vec![unknown(), unknown()], Ok(done)).await;
        assert_eq!(
            client(&[&fake], 5_000)
                .create_groups(groups())
                .await
                .unwrap(),
            done
        );
        let seen = seen.lock().unwrap().clone();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|id| *id == seen[0]), "{seen:?}");
    }

    #[tokio::test]
    async fn an_outcome_that_stays_unknown_says_so_whatever_came_last() {
        let unknown = Err(ApiError::unknown_outcome("the leader was lost"));
        let no_leader = Err(ApiError::new(ApiErrorKind::NoLeader, "no leader"));
        let (fake, _) = scripted(vec![unknown], no_leader).await;
        let error = client(&[&fake], 300)
            .create_groups(groups())
            .await
            .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unknown);
        assert!(
            error.to_string().contains("may have been applied"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_was_certainly_not_applied_is_to_be_retried() {
        let no_leader = Err(ApiError::new(ApiErrorKind::NoLeader, "no leader"));
        let (fake, seen) = scripted(vec![], no_leader).await;
        let error = client(&[&fake], 300)
            .create_groups(groups())
            .await
            .unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Retry);
        assert!(seen.lock().unwrap().len() > 1);
    }

    #[tokio::test]
    async fn a_server_that_is_gone_is_passed_over_and_the_one_that_answered_is_remembered() {
        let (gone, _) = scripted(vec![], Err(ApiError::invalid("unused"))).await;
        let (lives, _) = scripted(
            vec![],
            Ok(Done {
                revision: Revision(4),
            }),
        )
        .await;
        let client = client(&[&gone, &lives], 5_000);
        drop(gone);
        client.create_groups(groups()).await.unwrap();
        assert_eq!(client.preferred(), 1);
    }

    #[tokio::test]
    async fn a_definite_refusal_is_not_retried_and_decides_an_unknown_outcome() {
        let unknown = Err(ApiError::unknown_outcome("the leader was lost"));
        let exists = Err(ApiError::new(ApiErrorKind::GroupExists, "group a exists"));
        let (fake, seen) = scripted(vec![unknown], exists).await;
        let error = client(&[&fake], 5_000)
            .create_groups(groups())
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.api_kind()),
            (&ErrorKind::Conflict, Some(ApiErrorKind::GroupExists))
        );
        assert_eq!(seen.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_exist_is_reported_in_time() {
        let options = ClientOptions {
            timeout: Duration::from_millis(200),
            ..ClientOptions::default()
        };
        let error = Client::connect(["127.0.0.1:1"], options)
            .await
            .err()
            .unwrap();
        assert_eq!(
            (error.kind(), error.api_kind()),
            (&ErrorKind::Retry, Some(ApiErrorKind::Unreachable))
        );
        let error = Client::connect(Vec::<String>::new(), ClientOptions::default())
            .await
            .err()
            .unwrap();
        assert_eq!(*error.kind(), ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn futures_of_the_client_may_move_between_threads() {
        fn check<T: Send>(_: T) {}
        let client = Client::lazy(["127.0.0.1:1"], ClientOptions::default()).unwrap();
        check(client.create_groups(Vec::new()));
        check(client.list_all_groups(""));
        check(client.status_of_all(Duration::ZERO));
        check(client.open_session(crate::SessionOptions::default()));
    }
}
