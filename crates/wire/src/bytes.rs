//! The API's messages as protobuf bytes, without gRPC around them: what a connection carries, for who brings its own.
//!
//! Both directions go through the same conversions as the service and the client; what is refused there is refused here.

use prost::Message;

use crate::api::{
    AbortTransfer, AdmitNode, ApiError, Contract, CreateGroups, DeleteGroup, Done, ExplainGroup,
    Explanation, Freshness, GetGroup, GroupDetail, GroupPage, ListGroups, Moving, NodeDown,
    NodeList, NodeUp, Rebalance, RevokeSession, ServerStatus, TransferGroup, TransferLeader,
    UpdateGroup, WatchGroups, WatchItem,
};
use crate::proto;

/// A message of the API that travels as protobuf.
pub trait WireMessage: Sized {
    /// Decodes and checks.
    ///
    /// # Errors
    /// [`ApiError`], `Invalid`: refuse the message; nothing of it counts.
    fn from_wire(bytes: &[u8]) -> Result<Self, ApiError>;

    /// Encodes.
    fn into_wire(self) -> Vec<u8>;
}

macro_rules! as_protobuf {
    ($($plain:ident: $generated:ident),+ $(,)?) => {
        $(impl WireMessage for $plain {
            fn from_wire(bytes: &[u8]) -> Result<Self, ApiError> {
                let message = proto::$generated::decode(bytes).map_err(|why| {
                    ApiError::invalid(format!(concat!("no ", stringify!($generated), ": {}"), why))
                })?;
                Self::try_from(message)
            }

            fn into_wire(self) -> Vec<u8> {
                proto::$generated::from(self).encode_to_vec()
            }
        })+
    };
}

as_protobuf! {
    NodeUp: NodeUp,
    NodeDown: NodeDown,
    WatchGroups: WatchGroupsRequest,
    WatchItem: WatchItem,
    CreateGroups: CreateGroupsRequest,
    UpdateGroup: UpdateGroupRequest,
    DeleteGroup: DeleteGroupRequest,
    GetGroup: GetGroupRequest,
    GroupDetail: GetGroupReply,
    ListGroups: ListGroupsRequest,
    GroupPage: ListGroupsReply,
    ExplainGroup: ExplainGroupRequest,
    Explanation: ExplainGroupReply,
    TransferGroup: TransferGroupRequest,
    AbortTransfer: AbortTransferRequest,
    Rebalance: RebalanceRequest,
    Moving: RebalanceReply,
    Freshness: ListNodesRequest,
    NodeList: ListNodesReply,
    AdmitNode: AdmitNodeRequest,
    RevokeSession: RevokeSessionRequest,
    Done: MutationReply,
    TransferLeader: TransferLeaderRequest,
    ServerStatus: StatusReply,
    Contract: ContractReply,
}

#[cfg(test)]
mod tests {
    use quorate_types::{ContractVersion, RequestId};

    use super::*;
    use crate::api::{ApiErrorKind, Mutation};

    #[test]
    fn bytes_come_back_as_the_same_message() {
        let mutation = Mutation {
            request_id: RequestId(5),
            contract: ContractVersion(1),
        };
        let rebalance = Rebalance {
            mutation,
            prefix: "a/".to_owned(),
            moves_max: 3,
        };
        let bytes = rebalance.clone().into_wire();
        assert_eq!(Rebalance::from_wire(&bytes), Ok(rebalance));
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let refused = Rebalance::from_wire(&[0xff]).unwrap_err();
        assert_eq!(refused.kind, ApiErrorKind::Invalid);
    }
}
