//! The client API over the replica: calls become inputs, published versions become answers.
//!
//! Owns: what a caller is told, and above all whether something may have been applied. Deliberately absent: protobuf and gRPC (`wire`),
//! and any decision about groups or sessions (`coord`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::Configuration;
use quorate_coord::{CONTRACT_VERSIONS, Command, Outcome, Reply, RequestKey};
use quorate_replica::{Proposal, Request, Response};
use quorate_types::{ClusterId, ContractVersion, LogIndex, Principal, ReplicaId, Revision};
use quorate_wire::api::{
    self, Api, ApiError, ApiErrorKind, ApiStream, Caller, Done, Freshness, Moving, Mutation,
};

mod calls;
mod convert;
pub(crate) mod deltas;
mod explain;
mod node_stream;
mod refusal;
mod status;
mod watch;

pub(crate) use calls::Calls;
pub(crate) use convert::group_state;

use self::convert::unexpected;
use crate::config::{InitialMember, ServerConfig};
use crate::kv_hub::KvHub;
use crate::metrics::Metrics;
use crate::publish::{Publisher, Version};
use crate::step_thread::RoleView;

/// A page of groups is cut at about so many bytes of specs and configurations, well below the largest message.
const PAGE_BYTES: usize = 2 * 1024 * 1024;
/// How long a read may wait for this server to reach a revision or index.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);

/// Which ports speak TLS.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TlsPorts {
    pub(crate) client: bool,
    pub(crate) peer: bool,
}

/// What all calls share.
pub(crate) struct ApiState {
    pub(crate) cluster: ClusterId,
    pub(crate) own: ReplicaId,
    pub(crate) name: String,
    pub(crate) members: Vec<InitialMember>,
    /// The voters, for backups.
    pub(crate) configuration: Configuration,
    pub(crate) tls: TlsPorts,
    pub(crate) ttl_ms_min_safe: u64,
    pub(crate) calls: Calls,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) kv_hub: Arc<KvHub>,
    pub(crate) role: tokio::sync::watch::Receiver<RoleView>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) started: Instant,
}

/// The smallest TTL that a change of the backbone's leader is expected not to break: a holder's last answer may be a third of a TTL old
/// when the leader is lost, and the next one comes after detection, jitter and an election.
pub(crate) fn ttl_ms_min_safe(config: &ServerConfig) -> u64 {
    let election = config.timing.heartbeat_interval * 4;
    let failover = config.timing.detection_timeout + config.timing.election_jitter + election;
    let ttl = config.drift.stretch(failover * 3 / 2);
    u64::try_from(ttl.as_millis())
        .unwrap_or(u64::MAX)
        .max(quorate_coord::TTL_MS_MIN)
}

/// The API of one server.
#[derive(Clone)]
pub(crate) struct ServerApi {
    pub(crate) state: Arc<ApiState>,
}

/// Refuses a caller that speaks a contract version of the future, before anything is proposed.
fn check_contract(contract: ContractVersion) -> Result<(), ApiError> {
    if CONTRACT_VERSIONS.contains(&contract.0) {
        return Ok(());
    }
    Err(ApiError::new(
        ApiErrorKind::NewerContract,
        format!(
            "the caller speaks contract version {contract}, this cluster {} to {}; upgrade the older side",
            CONTRACT_VERSIONS.start(),
            CONTRACT_VERSIONS.end()
        ),
    ))
}

impl ApiState {
    /// Puts a command through the log.
    async fn propose(
        &self,
        caller: &Caller,
        request: RequestKey,
        contract: ContractVersion,
        command: Command,
    ) -> Result<(Outcome, LogIndex), ApiError> {
        check_contract(contract)?;
        match self
            .calls
            .call(self.proposal(
                caller.principal.clone(),
                caller.trace,
                request,
                contract,
                command,
            ))
            .await
        {
            Response::Applied { outcome, index } => Ok((outcome, index)),
            Response::Refused(refused) => Err(refusal::of(refused)),
            Response::Unknown => Err(ApiError::unknown_outcome(
                "the outcome was not learned in time",
            )),
            other => unreachable!("a proposal was answered with {other:?}"),
        }
    }

    pub(crate) fn proposal(
        &self,
        principal: Principal,
        trace: quorate_types::TraceId,
        request: RequestKey,
        contract: ContractVersion,
        command: Command,
    ) -> Request {
        let wall = crate::clock::wall();
        Request::Propose(Box::new(Proposal {
            principal,
            request,
            trace,
            wall,
            contract,
            command,
        }))
    }

    /// A change by a caller without a session, answered with its revision.
    async fn change(
        &self,
        caller: &Caller,
        mutation: Mutation,
        command: Command,
    ) -> Result<Reply, ApiError> {
        let key = RequestKey::Caller(mutation.request_id);
        let (outcome, index) = self
            .propose(caller, key, mutation.contract, command)
            .await?;
        let reply = outcome.map_err(|rejection| refusal::of_rejection(&rejection))?;
        // Read-your-writes at this server without asking for it. A laggard here delays nobody for long: the change is applied anyway.
        let _ = tokio::time::timeout(
            Duration::from_secs(1),
            self.publisher.reached(index, Revision::ZERO),
        )
        .await;
        Ok(reply)
    }

    async fn done(
        &self,
        caller: &Caller,
        mutation: Mutation,
        command: Command,
    ) -> Result<Done, ApiError> {
        match self.change(caller, mutation, command).await? {
            Reply::Done { revision } | Reply::Moving { revision, .. } => Ok(Done { revision }),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A version as fresh as asked for.
    async fn read(&self, freshness: Freshness) -> Result<Arc<Version>, ApiError> {
        let index = if freshness.stale_ok {
            LogIndex::ZERO
        } else {
            self.read_index().await?
        };
        match tokio::time::timeout(
            REACH_TIMEOUT,
            self.publisher.reached(index, freshness.min_revision),
        )
        .await
        {
            Ok(version) => Ok(version),
            Err(_) => {
                let at = self.publisher.version().state.revision();
                let message = format!(
                    "this server is at revision {at}, asked for {}",
                    freshness.min_revision
                );
                Err(ApiError::new(ApiErrorKind::Behind, message).retry_after_ms(100))
            }
        }
    }

    /// What was committed anywhere when the call arrived.
    pub(crate) async fn read_index(&self) -> Result<LogIndex, ApiError> {
        match self.calls.call(Request::Read).await {
            Response::ReadAt { index } => Ok(index),
            Response::Refused(refused) => Err(refusal::of(refused)),
            // A read has no outcome to be unsure of.
            Response::Unknown => Err(ApiError::new(
                ApiErrorKind::NoLeader,
                "no leader confirmed the read in time",
            )
            .retry_after_ms(100)),
            other => unreachable!("a read was answered with {other:?}"),
        }
    }
}

fn no_group(group: &quorate_types::GroupName) -> ApiError {
    ApiError::new(
        ApiErrorKind::UnknownGroup,
        format!("group {group:?} does not exist"),
    )
}

#[tonic::async_trait]
impl Api for ServerApi {
    async fn node(
        &self,
        caller: Caller,
        up: ApiStream<api::NodeUp>,
    ) -> Result<ApiStream<api::NodeDown>, ApiError> {
        Ok(node_stream::start(Arc::clone(&self.state), caller, up))
    }

    async fn create_groups(
        &self,
        caller: Caller,
        request: api::CreateGroups,
    ) -> Result<Done, ApiError> {
        let groups = request
            .groups
            .into_iter()
            .map(|(name, spec)| (name, convert::group_spec(spec)))
            .collect();
        self.state
            .done(&caller, request.mutation, Command::CreateGroups { groups })
            .await
    }

    async fn update_group(
        &self,
        caller: Caller,
        request: api::UpdateGroup,
    ) -> Result<Done, ApiError> {
        let api::UpdateGroup {
            mutation,
            group,
            spec,
            expected,
        } = request;
        self.state
            .done(
                &caller,
                mutation,
                Command::UpdateGroup {
                    group,
                    spec: convert::group_spec(spec),
                    expected,
                },
            )
            .await
    }

    async fn delete_group(
        &self,
        caller: Caller,
        request: api::DeleteGroup,
    ) -> Result<Done, ApiError> {
        let api::DeleteGroup {
            mutation,
            group,
            expected,
        } = request;
        self.state
            .done(&caller, mutation, Command::DeleteGroup { group, expected })
            .await
    }

    async fn get_group(
        &self,
        _caller: Caller,
        request: api::GetGroup,
    ) -> Result<api::GroupDetail, ApiError> {
        let version = self.state.read(request.freshness).await?;
        let group = version
            .state
            .group(&request.group)
            .ok_or_else(|| no_group(&request.group))?;
        Ok(api::GroupDetail {
            revision: version.state.revision(),
            group: convert::group_view(&version.state, group),
            contenders: convert::contenders(&version.state, group),
        })
    }

    async fn list_groups(
        &self,
        _caller: Caller,
        request: api::ListGroups,
    ) -> Result<api::GroupPage, ApiError> {
        let version = self.state.read(request.freshness).await?;
        let limit =
            usize::try_from(request.limit.clamp(1, api::PAGE_MAX)).expect("a page is short");
        let mut groups = Vec::new();
        let (mut bytes, mut more) = (0, false);
        for group in version
            .state
            .groups_after(&request.prefix, request.after.as_ref())
        {
            let configuration = group.tenure.as_ref().map(|tenure| &tenure.configuration);
            bytes += group.spec.size_bytes() + configuration.map_or(0, |c| c.size_bytes()) + 1024;
            if groups.len() == limit || (bytes > PAGE_BYTES && !groups.is_empty()) {
                more = true;
                break;
            }
            groups.push(convert::group_view(&version.state, group));
        }
        Ok(api::GroupPage {
            revision: version.state.revision(),
            groups,
            more,
        })
    }

    async fn watch_groups(
        &self,
        _caller: Caller,
        request: api::WatchGroups,
    ) -> Result<ApiStream<api::WatchItem>, ApiError> {
        watch::start(Arc::clone(&self.state), request).await
    }

    async fn explain_group(
        &self,
        _caller: Caller,
        request: api::ExplainGroup,
    ) -> Result<api::Explanation, ApiError> {
        let version = self.state.read(request.freshness).await?;
        explain::explain(&version.state, &request.group).ok_or_else(|| no_group(&request.group))
    }

    async fn transfer_group(
        &self,
        caller: Caller,
        request: api::TransferGroup,
    ) -> Result<Done, ApiError> {
        let api::TransferGroup {
            mutation,
            group,
            to,
            mode,
        } = request;
        self.state
            .done(
                &caller,
                mutation,
                Command::Transfer {
                    group,
                    to,
                    mode: convert::transfer_mode(mode),
                },
            )
            .await
    }

    async fn abort_transfer(
        &self,
        caller: Caller,
        request: api::AbortTransfer,
    ) -> Result<Done, ApiError> {
        let api::AbortTransfer { mutation, group } = request;
        self.state
            .done(&caller, mutation, Command::AbortTransfer { group })
            .await
    }

    async fn rebalance(&self, caller: Caller, request: api::Rebalance) -> Result<Moving, ApiError> {
        let api::Rebalance {
            mutation,
            prefix,
            moves_max,
        } = request;
        match self
            .state
            .change(&caller, mutation, Command::Rebalance { prefix, moves_max })
            .await?
        {
            Reply::Moving { revision, moves } => Ok(Moving { revision, moves }),
            Reply::Done { revision } => Ok(Moving { revision, moves: 0 }),
            reply => Err(unexpected(&reply)),
        }
    }

    async fn list_nodes(
        &self,
        _caller: Caller,
        freshness: Freshness,
    ) -> Result<api::NodeList, ApiError> {
        let version = self.state.read(freshness).await?;
        let nodes = version
            .state
            .nodes()
            .map(|node| convert::node_view(&version.state, node))
            .collect();
        Ok(api::NodeList {
            revision: version.state.revision(),
            nodes,
        })
    }

    async fn admit_node(&self, caller: Caller, request: api::AdmitNode) -> Result<Done, ApiError> {
        let api::AdmitNode {
            mutation,
            node,
            admission,
        } = request;
        self.state
            .done(
                &caller,
                mutation,
                Command::AdmitNode {
                    node,
                    admission: convert::admission(admission),
                },
            )
            .await
    }

    async fn revoke_session(
        &self,
        caller: Caller,
        request: api::RevokeSession,
    ) -> Result<Done, ApiError> {
        let api::RevokeSession { mutation, session } = request;
        self.state
            .done(&caller, mutation, Command::RevokeSession { session })
            .await
    }

    async fn status(&self, _caller: Caller) -> Result<api::ServerStatus, ApiError> {
        self.state.status().await
    }

    async fn transfer_leader(
        &self,
        _caller: Caller,
        request: api::TransferLeader,
    ) -> Result<(), ApiError> {
        let members: BTreeSet<_> = self.state.members.iter().map(|member| member.id).collect();
        if let Some(to) = request.to
            && !members.contains(&to)
        {
            return Err(ApiError::new(
                ApiErrorKind::BadTransfer,
                format!("server {to} is not a member; the members are {members:?}"),
            ));
        }
        match self
            .state
            .calls
            .call(Request::TransferLeader { to: request.to })
            .await
        {
            Response::Transferring => Ok(()),
            Response::Refused(refused) => Err(refusal::of(refused)),
            Response::Unknown => Err(ApiError::unknown_outcome(
                "the leader did not answer in time",
            )),
            other => unreachable!("a transfer was answered with {other:?}"),
        }
    }

    async fn contract(&self, _caller: Caller) -> Result<api::Contract, ApiError> {
        Ok(explain::contract())
    }
}
