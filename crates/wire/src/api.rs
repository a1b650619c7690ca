//! The API in plain types, as servers implement it and clients call it.

mod call;
mod error;
mod group;
mod status;
mod stream;
mod tenure;

use std::pin::Pin;

use tokio_stream::Stream;

pub use call::{
    AbortTransfer, AdmitNode, Caller, ContenderVerdict, Contract, CreateGroups, DeleteGroup, Done,
    ExplainGroup, Explanation, Freshness, GetGroup, GroupDetail, GroupPage, ListGroups, Moving,
    Mutation, NodeList, PastTenure, Rebalance, RevokeSession, TransferGroup, TransferLeader,
    Transition, UpdateGroup,
};
pub use error::{ApiError, ApiErrorKind};
pub use group::{
    ContenderSpec, ContenderView, DeposeQuorum, ElectionPolicy, GroupSpec, GroupState, GroupView,
    NodeAdmission, NodeSpec, NodeView, OverduePolicy, TransferMode,
};
pub use status::{PeerProgress, PendingDrain, Role, ServerMember, ServerStatus};
pub use stream::{NodeDown, NodeUp, RequestDone, WatchGroups, WatchItem};
pub use tenure::{
    Cause, Directive, DirectiveKind, FaultReport, Part, Phase, Position, Predecessor,
    ProposedConfiguration, Report, SessionKey, StandingTenure, TenureId,
};

/// The contract version that this build speaks as a client.
pub const CONTRACT: quorate_types::ContractVersion = quorate_types::ContractVersion(1);
/// Largest message either way, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest encoded spec of a group, contender or node, in bytes.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;
/// Most items in one batch.
pub const BATCH_MAX: usize = 10_000;
/// Longest reason of a report that a holder is faulty, in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// Most groups in one page.
pub const PAGE_MAX: u32 = 1_000;

/// A stream that may break off with an error.
pub type ApiStream<T> = Pin<Box<dyn Stream<Item = Result<T, ApiError>> + Send + 'static>>;

/// What a server offers. Requests arrive checked: names are names, sizes are within bounds.
#[tonic::async_trait]
pub trait Api: Send + Sync + 'static {
    /// One session's stream. The up stream ends when the node goes; an error in it was a message that did not decode.
    async fn node(
        &self,
        caller: Caller,
        up: ApiStream<NodeUp>,
    ) -> Result<ApiStream<NodeDown>, ApiError>;
    /// Creates groups; all or none.
    async fn create_groups(&self, caller: Caller, request: CreateGroups) -> Result<Done, ApiError>;
    /// Replaces a group's spec.
    async fn update_group(&self, caller: Caller, request: UpdateGroup) -> Result<Done, ApiError>;
    /// Deletes a group.
    async fn delete_group(&self, caller: Caller, request: DeleteGroup) -> Result<Done, ApiError>;
    /// Reads one group.
    async fn get_group(&self, caller: Caller, request: GetGroup) -> Result<GroupDetail, ApiError>;
    /// Reads groups in the order of their names.
    async fn list_groups(&self, caller: Caller, request: ListGroups)
    -> Result<GroupPage, ApiError>;
    /// Watches groups.
    async fn watch_groups(
        &self,
        caller: Caller,
        request: WatchGroups,
    ) -> Result<ApiStream<WatchItem>, ApiError>;
    /// Tells why a group is led as it is.
    async fn explain_group(
        &self,
        caller: Caller,
        request: ExplainGroup,
    ) -> Result<Explanation, ApiError>;
    /// Moves a group's leadership.
    async fn transfer_group(
        &self,
        caller: Caller,
        request: TransferGroup,
    ) -> Result<Done, ApiError>;
    /// Calls off a pending handover.
    async fn abort_transfer(
        &self,
        caller: Caller,
        request: AbortTransfer,
    ) -> Result<Done, ApiError>;
    /// Starts handovers towards an even spread.
    async fn rebalance(&self, caller: Caller, request: Rebalance) -> Result<Moving, ApiError>;
    /// Reads all nodes.
    async fn list_nodes(&self, caller: Caller, freshness: Freshness) -> Result<NodeList, ApiError>;
    /// Opens, cordons or drains a node.
    async fn admit_node(&self, caller: Caller, request: AdmitNode) -> Result<Done, ApiError>;
    /// Ends another's session.
    async fn revoke_session(
        &self,
        caller: Caller,
        request: RevokeSession,
    ) -> Result<Done, ApiError>;
    /// Tells what this server is and sees.
    async fn status(&self, caller: Caller) -> Result<ServerStatus, ApiError>;
    /// Hands the backbone's leadership over.
    async fn transfer_leader(
        &self,
        caller: Caller,
        request: TransferLeader,
    ) -> Result<(), ApiError>;
    /// The lifecycle's table.
    async fn contract(&self, caller: Caller) -> Result<Contract, ApiError>;
}
