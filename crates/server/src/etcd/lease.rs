//! The Lease service: an etcd lease is a session without a node; a node's session is a lease that this API shows and lets keys be
//! attached to, but neither revokes nor keeps alive: that is its node's.

use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use quorate_coord::kv::{AuthStore, KvError};
use quorate_coord::{Command, Rejection, Reply, Session, SessionKey};
use quorate_replica::{Refusal, Request as Call, Response as Answer};
use quorate_types::SessionId;
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::lease_server::Lease;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{Caller, Etcd, convert, errors};

/// etcd's own bound on TTLs, in seconds: over it the refusal is etcd's.
const TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Keep-alives of one stream that are under way at once; answers keep their order.
const KEEP_ALIVES_TOGETHER: usize = 256;
/// How long the outcome of a session's end is waited for, in steps of [`ENDING_STEP`].
const ENDING_STEPS_MAX: usize = 100;
const ENDING_STEP: Duration = Duration::from_millis(50);
/// How often an id is drawn, should those drawn before be taken.
const DRAWS_MAX: usize = 8;

/// Whole seconds of a TTL: never more than there is, and at least one.
fn seconds(ttl_ms: u64) -> i64 {
    convert::signed((ttl_ms / 1_000).max(1))
}

impl Etcd {
    async fn grant(&self, caller: &Caller, id: u64, ttl: i64) -> Result<(SessionKey, u64), Status> {
        let ttl_ms = u64::try_from(ttl).unwrap_or(0) * 1_000;
        let command = Command::GrantLease {
            caller: caller.user.clone(),
            id,
            ttl_ms,
        };
        match self.apply(caller, command).await? {
            Reply::LeaseGranted { session, ttl_ms } => Ok((session, ttl_ms)),
            other => Err(errors::unexpected(&other)),
        }
    }

    /// A lease's session: as this server knows it, or, where it knows of none, as everybody does.
    async fn session(&self, id: i64) -> Result<Option<Session>, Status> {
        let Ok(id) = u64::try_from(id) else {
            return Ok(None);
        };
        let here = |state: &quorate_coord::State| state.session(SessionId(id)).cloned();
        if let Some(found) = here(&self.api.publisher.version().state) {
            return Ok(Some(found));
        }
        self.read_index().await?;
        Ok(here(&self.api.publisher.version().state))
    }

    /// Keeps a lease alive and tells its TTL; 0: it is not there.
    async fn keep_alive(&self, caller: &Caller, id: i64) -> Result<i64, Status> {
        for _ in 0..ENDING_STEPS_MAX {
            let Some(session) = self.session(id).await? else {
                return Ok(0);
            };
            self.check_lease(caller, session.key.id)?;
            if let Some(node) = &session.node {
                return Err(errors::of_kv(&KvError::LeaseIsNode {
                    lease: session.key.id.0,
                    node: node.to_string(),
                }));
            }
            let call = Call::KeepAlive {
                session: session.key,
                seq: 0,
            };
            match self.api.calls.call(call).await {
                Answer::KeptAlive { ttl_ms, .. } => return Ok(seconds(ttl_ms)),
                // This server may show a lease that is over, and that was granted anew under its id.
                Answer::SessionGone { .. } => {
                    self.read_index().await?;
                    let now = self.api.publisher.version();
                    let found = now.state.session(session.key.id);
                    if found.is_none_or(|found| found.key == session.key) {
                        return Ok(0);
                    }
                }
                Answer::Refused(Refusal::SessionEnding) => tokio::time::sleep(ENDING_STEP).await,
                Answer::Refused(refusal) => return Err(errors::of_refusal(refusal)),
                Answer::Unknown => return Err(errors::timed_out()),
                other => unreachable!("a keep-alive was answered with {other:?}"),
            }
        }
        Err(errors::timed_out())
    }

    /// Who keeps a lease alive may write all its keys.
    fn check_lease(&self, caller: &Caller, id: SessionId) -> Result<(), Status> {
        let version = self.api.publisher.version();
        let mut keys = version.state.kv().lease_keys(id.0).cloned();
        caller.check(version.state.auth(), |auth, user| {
            auth.check_lease(user, &mut keys)
        })
    }

    /// Milliseconds that a session has left, from the leader's memory.
    async fn remaining_ms(&self, session: SessionKey) -> Result<Option<u64>, Status> {
        match self.api.calls.call(Call::SessionAge { session }).await {
            Answer::SessionAge { remaining_ms, .. } => Ok(remaining_ms),
            Answer::Refused(refusal) => Err(errors::of_refusal(refusal)),
            Answer::Unknown => Err(errors::timed_out()),
            other => unreachable!("a question was answered with {other:?}"),
        }
    }
}

#[tonic::async_trait]
impl Lease for Etcd {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let caller = self.caller(&request)?;
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        self.check_quota(&caller, super::quota::OF_LEASE)?;
        if ttl > TTL_SECONDS_MAX {
            return Err(errors::of_kv(&KvError::TtlTooLarge));
        }
        let granted = if id == 0 {
            self.grant_any(&caller, ttl).await?
        } else {
            // Reinterpreted: a negative id is refused by the state machine, which numbers leases from 1.
            self.grant(&caller, id.cast_unsigned(), ttl).await?
        };
        let (session, ttl_ms) = granted;
        Ok(Response::new(pb::LeaseGrantResponse {
            header: Some(self.header(self.revision_now())),
            id: session.id.0.cast_signed(),
            ttl: seconds(ttl_ms),
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let caller = self.caller(&request)?;
        let command = Command::RevokeLease {
            caller: caller.user.clone(),
            id: request.get_ref().id.cast_unsigned(),
        };
        let revision = match self.apply(&caller, command).await? {
            Reply::LeaseRevoked { revision } => revision,
            other => return Err(errors::unexpected(&other)),
        };
        Ok(Response::new(pb::LeaseRevokeResponse {
            header: Some(self.header(revision)),
        }))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let caller = self.caller(&request)?;
        let etcd = self.clone();
        let answers = request.into_inner().map(move |request| {
            let (etcd, caller) = (etcd.clone(), caller.clone());
            async move {
                let id = request?.id;
                let ttl = etcd.keep_alive(&caller, id).await?;
                Ok(pb::LeaseKeepAliveResponse {
                    header: Some(etcd.header(etcd.revision_now())),
                    id,
                    ttl,
                })
            }
        });
        // The first error ends the stream, as in etcd.
        let mut failed = false;
        let answers = answers
            .buffered(KEEP_ALIVES_TOGETHER)
            .take_while(move |answer| {
                let go_on = !failed;
                failed |= answer.is_err();
                std::future::ready(go_on)
            });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let caller = self.caller(&request)?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let version = self.read(&caller, false).await?;
        caller.check(version.state.auth(), AuthStore::check_known)?;
        let session = u64::try_from(id)
            .ok()
            .and_then(|id| version.state.session(SessionId(id)));
        let remaining_ms = match session {
            Some(session) => self.remaining_ms(session.key).await?,
            None => None,
        };
        let header = Some(self.header(version.state.kv().revision()));
        let (Some(session), Some(remaining_ms)) = (session, remaining_ms) else {
            return Ok(Response::new(pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..Default::default()
            }));
        };
        let store = version.state.kv();
        let attached = if keys {
            let mut keys = store.lease_keys(session.key.id.0).cloned();
            caller.check(version.state.auth(), |auth, user| {
                auth.check_lease_read(user, &mut keys)
            })?;
            store
                .lease_keys(session.key.id.0)
                .map(convert::bytes)
                .collect()
        } else {
            Vec::new()
        };
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header,
            id,
            ttl: convert::signed(remaining_ms / 1_000),
            granted_ttl: seconds(session.ttl_ms),
            keys: attached,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let caller = self.caller(&request)?;
        let version = self.read(&caller, false).await?;
        caller.check(version.state.auth(), AuthStore::check_known)?;
        let header = self.header(version.state.kv().revision());
        self.aside(move || {
            let leases: Vec<_> = version
                .state
                .sessions()
                .filter(|session| !session.revoked)
                .map(|session| pb::LeaseStatus {
                    id: session.key.id.0.cast_signed(),
                })
                .collect();
            let bytes = leases.len() * size_of::<pb::LeaseStatus>();
            let header = Some(header);
            Ok((pb::LeaseLeasesResponse { header, leases }, bytes))
        })
        .await
    }
}

impl Etcd {
    /// Grants a lease under an id drawn at random, as clients of etcd expect that two servers never give the same.
    pub(super) async fn grant_any(
        &self,
        caller: &Caller,
        ttl: i64,
    ) -> Result<(SessionKey, u64), Status> {
        let exists = errors::of_rejection(&Rejection::Kv(KvError::LeaseExists { lease: 0 }));
        for _ in 0..DRAWS_MAX {
            let drawn = crate::clock::random_u64()
                .map_err(|error| Status::unavailable(format!("quorate: draw an id: {error}")))?;
            let id = drawn >> 1;
            if id == 0 {
                continue;
            }
            match self.grant(caller, id, ttl).await {
                Err(error) if error.message() == exists.message() => {}
                result => return result,
            }
        }
        Err(exists)
    }
}
