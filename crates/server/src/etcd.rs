//! etcd's v3 API over the replica: the key space, leases, and what operators ask, with etcd's codes and texts.
//!
//! Owns: what a client of etcd is told, and above all whether something may have been applied. One file per service. Deliberately
//! absent: any rule of the key space (`coord`), and gRPC's details (`wire`).
//!
//! Status codes tell the truth: a definite refusal was not and will not be applied; an outcome that is not known is `UNAVAILABLE`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use quorate_coord::kv::{AuthError, AuthStore, KvError};
use quorate_coord::{Command, Outcome, Rejection, Reply, RequestKey};
use quorate_replica::{Request as Call, Response as Answer};
use quorate_types::{LogIndex, Revision, TraceId};
use quorate_wire::api;
use quorate_wire::etcd::{etcdserverpb as pb, v3electionpb, v3lockpb};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::service::Routes;

mod answers;
mod auth;
mod caller;
mod cluster;
mod compaction;
mod convert;
mod election;
mod errors;
mod gateway;
mod kv;
mod lease;
mod line;
mod lock;
mod maintenance;
mod observe;
mod passwords;
mod quota;
#[cfg(test)]
mod space;
mod token;
mod waiting;
mod watch;

use crate::api::ApiState;
use crate::config::KeySpaceConfig;
use crate::publish::Version;

pub(crate) use caller::Caller;
pub(crate) use compaction::compact_forever;

/// The version of etcd whose API this is: what clients are told who ask before they use a feature.
pub(crate) const COMPATIBLE_VERSION: &str = "3.5.17";
/// The same, as etcd counts it for a whole cluster.
pub(crate) const COMPATIBLE_CLUSTER_VERSION: &str = "3.5.0";
/// Largest request that is taken, as in etcd.
pub(crate) const REQUEST_BYTES_MAX: usize = 1536 * 1024;
/// Largest message that is read at all, as in etcd: room for what surrounds a request.
const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;
/// Most operations in one list of a transaction, as in etcd.
pub(crate) const TXN_OPS_MAX: usize = 128;
/// How long a read may wait for this server to reach a revision or index.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a command is proposed again whose rights were looked up before users or roles changed.
const OLD_REVISIONS_MAX: usize = 3;

/// The etcd API of one server. Every service is implemented on it.
#[derive(Clone)]
pub(crate) struct Etcd {
    pub(crate) api: Arc<ApiState>,
    /// Places for reads of many keys: they are done aside and take turns, so that they leave the processors to everybody else.
    heavy: Arc<Semaphore>,
    quota: Arc<quota::Quota>,
    passwords: passwords::Passwords,
    /// Who waits for keys to go.
    waiting: Arc<waiting::Waiting>,
}

impl Etcd {
    pub(crate) fn new(api: Arc<ApiState>, config: &KeySpaceConfig) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            waiting: waiting::Waiting::new(Arc::clone(&api.publisher)),
            api,
            heavy: Arc::new(Semaphore::new(processors.div_ceil(2))),
            quota: Arc::new(quota::Quota::new(config.quota_bytes)),
            passwords: passwords::Passwords::new(config.bcrypt_cost, config.auth_token_ttl),
        }
    }

    /// What every answer begins with.
    pub(crate) fn header(&self, revision: u64) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.api.cluster.0,
            member_id: self.api.own.0,
            revision: convert::signed(revision),
            raft_term: self.api.role.borrow().term.0,
        }
    }

    /// Refuses whoever is not an administrator, where users are distinguished.
    pub(crate) fn check_admin(&self, caller: &Caller) -> Result<(), Status> {
        let version = self.api.publisher.version();
        caller.check(version.state.auth(), AuthStore::check_admin)
    }

    /// Puts a command through the log and answers once this server has applied it, so that its own reads show it.
    pub(crate) async fn apply(&self, caller: &Caller, command: Command) -> Result<Reply, Status> {
        // Users or roles may change between the call and its apply: then nothing was done, and rights are looked up again.
        let mut again = caller.user.is_some().then(|| command.clone());
        let mut outcome = self.apply_once(caller, command).await?;
        for _ in 0..OLD_REVISIONS_MAX {
            let is_old = matches!(
                outcome,
                Err(Rejection::Kv(KvError::Auth(AuthError::OldRevision)))
            );
            let Some(command) = again.as_mut().filter(|_| is_old) else {
                break;
            };
            let version = self.api.publisher.version();
            let user = caller.user_at(version.state.auth());
            caller::replace(command, user.map_err(|error| errors::of_auth(&error))?);
            outcome = self.apply_once(caller, command.clone()).await?;
        }
        outcome.map_err(|rejection| errors::of_rejection(&rejection))
    }

    async fn apply_once(&self, caller: &Caller, command: Command) -> Result<Outcome, Status> {
        let proposal = self.api.proposal(
            caller.principal.clone(),
            TraceId::default(),
            RequestKey::Unkeyed,
            api::CONTRACT,
            command,
        );
        let (outcome, index) = match self.api.calls.call(proposal).await {
            Answer::Applied { outcome, index } => (outcome, index),
            Answer::Refused(refusal) => return Err(errors::of_refusal(refusal)),
            Answer::Unknown => return Err(errors::timed_out()),
            other => unreachable!("a proposal was answered with {other:?}"),
        };
        // A laggard here delays nobody for long: the change is applied anyway.
        let _ = tokio::time::timeout(
            Duration::from_secs(1),
            self.api.publisher.reached(index, Revision::ZERO),
        )
        .await;
        Ok(outcome)
    }

    /// A version as fresh as asked for: serializable takes what is here, otherwise it holds all that was acknowledged anywhere before.
    pub(crate) async fn read(
        &self,
        caller: &Caller,
        serializable: bool,
    ) -> Result<Arc<Version>, Status> {
        let index = if serializable {
            LogIndex::ZERO
        } else {
            self.read_index().await?
        };
        let publisher = &self.api.publisher;
        let mut changes = publisher.changes();
        let reached = async {
            let seen = changes.wait_for(|(applied, _)| *applied >= index).await;
            drop(seen.expect("the publisher holds the sender"));
            loop {
                let version = publisher.version();
                if version.state.kv().revision() >= caller.min_revision {
                    return version;
                }
                changes
                    .changed()
                    .await
                    .expect("the publisher holds the sender");
            }
        };
        tokio::time::timeout(REACH_TIMEOUT, reached)
            .await
            .map_err(|_| errors::behind())
    }

    /// What was committed anywhere when the call arrived.
    pub(crate) async fn read_index(&self) -> Result<LogIndex, Status> {
        match self.api.calls.call(Call::Read).await {
            Answer::ReadAt { index } => Ok(index),
            Answer::Refused(refusal) => Err(errors::of_refusal(refusal)),
            Answer::Unknown => Err(errors::timed_out()),
            other => unreachable!("a read was answered with {other:?}"),
        }
    }

    /// The revision of the newest version, for answers that are about no version in particular.
    pub(crate) fn revision_now(&self) -> u64 {
        self.api.publisher.version().state.kv().revision()
    }
}

/// A request that could not be carried by the log is refused before anything is done.
fn check_size(request: &impl prost::Message) -> Result<(), Status> {
    if request.encoded_len() > REQUEST_BYTES_MAX {
        return Err(errors::too_large());
    }
    Ok(())
}

/// Refuses what the key space's own check refuses.
fn checked(result: Result<(), KvError>) -> Result<(), Status> {
    result.map_err(|error| errors::of_kv(&error))
}

/// The services, and the JSON gateway in front of them, to be served beside the native API.
pub(crate) fn routes(etcd: &Etcd) -> Router {
    macro_rules! limited {
        ($server:path) => {
            <$server>::new(etcd.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
        };
    }
    let routes = Routes::new(limited!(pb::kv_server::KvServer<Etcd>))
        .add_service(limited!(pb::lease_server::LeaseServer<Etcd>))
        .add_service(limited!(pb::watch_server::WatchServer<Etcd>))
        .add_service(limited!(pb::cluster_server::ClusterServer<Etcd>))
        .add_service(limited!(pb::maintenance_server::MaintenanceServer<Etcd>))
        .add_service(limited!(pb::auth_server::AuthServer<Etcd>))
        .add_service(limited!(
            v3electionpb::election_server::ElectionServer<Etcd>
        ))
        .add_service(limited!(v3lockpb::lock_server::LockServer<Etcd>));
    let grpc = routes
        .into_axum_router()
        .reset_fallback()
        .layer(axum::middleware::map_response(answers::finish))
        .layer(axum::middleware::from_fn_with_state(
            etcd.clone(),
            caller::catch_up,
        ));
    let json = gateway::routes(&grpc);
    grpc.merge(json)
}
