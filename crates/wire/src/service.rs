//! The server's side: an [`Api`] behind gRPC.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{Principal, TraceId};
use tokio_stream::StreamExt;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use crate::api::{self, Api, ApiError, ApiStream, Caller, MESSAGE_BYTES_MAX};
use crate::convert::{error_of, status_of};
use crate::proto;
use crate::proto::quorate_server::{Quorate, QuorateServer};

/// The routes of the API, to be served as they are or turned into an axum router with
/// [`into_axum_router`](Routes::into_axum_router).
///
/// A layer below may put a [`Principal`] into a request's extensions; without one the caller is `anonymous`.
pub fn routes(api: Arc<dyn Api>) -> Routes {
    let server = QuorateServer::new(Service { api });
    Routes::new(
        server
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX),
    )
}

struct Service {
    api: Arc<dyn Api>,
}

fn caller<T>(request: &Request<T>) -> Caller {
    let text = |key: &str| {
        request
            .metadata()
            .get(key)
            .and_then(|value| value.to_str().ok())
    };
    let principal = request.extensions().get::<Principal>().cloned();
    Caller {
        principal: principal
            .unwrap_or_else(|| Principal::new("anonymous").expect("it is a valid name")),
        trace: text("traceparent").and_then(trace).unwrap_or_default(),
        timeout: text("grpc-timeout").and_then(timeout),
    }
}

/// The trace id of a W3C `traceparent`: `version-trace-parent-flags`.
fn trace(traceparent: &str) -> Option<TraceId> {
    let id = traceparent.split('-').nth(1)?;
    if id.len() != 32 {
        return None;
    }
    u128::from_str_radix(id, 16).ok().map(TraceId)
}

/// A gRPC timeout: up to eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Down<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

fn down<T: 'static, P: From<T> + 'static>(items: ApiStream<T>) -> Answer<Down<P>> {
    let items = items.map(|item| item.map(P::from).map_err(status_of));
    Ok(Response::new(Box::pin(items)))
}

/// One unary call: decode, ask, encode.
macro_rules! unary {
    ($self:ident, $request:ident, $method:ident) => {{
        let caller = caller(&$request);
        let request = $request.into_inner().try_into().map_err(status_of)?;
        let answer = $self
            .api
            .$method(caller, request)
            .await
            .map_err(status_of)?;
        Ok(Response::new(answer.into()))
    }};
}

#[tonic::async_trait]
impl Quorate for Service {
    type NodeStream = Down<proto::NodeDown>;
    type WatchGroupsStream = Down<proto::WatchItem>;

    async fn node(&self, request: Request<Streaming<proto::NodeUp>>) -> Answer<Self::NodeStream> {
        let caller = caller(&request);
        let up = request.into_inner().map(|message| match message {
            Ok(message) => api::NodeUp::try_from(message),
            Err(status) => Err(error_of(&status)),
        });
        down(
            self.api
                .node(caller, Box::pin(up))
                .await
                .map_err(status_of)?,
        )
    }

    async fn watch_groups(
        &self,
        request: Request<proto::WatchGroupsRequest>,
    ) -> Answer<Self::WatchGroupsStream> {
        let caller = caller(&request);
        let request = request.into_inner().try_into().map_err(status_of)?;
        down(
            self.api
                .watch_groups(caller, request)
                .await
                .map_err(status_of)?,
        )
    }

    async fn create_groups(
        &self,
        request: Request<proto::CreateGroupsRequest>,
    ) -> Answer<proto::MutationReply> {
        unary!(self, request, create_groups)
    }

    async fn update_group(
        &self,
        request: Request<proto::UpdateGroupRequest>,
    ) -> Answer<proto::MutationReply> {
        unary!(self, request, update_group)
    }

    async fn delete_group(
        &self,
        request: Request<proto::DeleteGroupRequest>,
    ) -> Answer<proto::MutationReply> {
        unary!(self, request, delete_group)
    }

    async fn get_group(
        &self,
        request: Request<proto::GetGroupRequest>,
    ) -> Answer<proto::GetGroupReply> {
        unary!(self, request, get_group)
    }

    async fn list_groups(
        &self,
        request: Request<proto::ListGroupsRequest>,
    ) -> Answer<proto::ListGroupsReply> {
        unary!(self, request, list_groups)
    }

    async fn explain_group(
        &self,
        request: Request<proto::ExplainGroupRequest>,
    ) -> Answer<proto::ExplainGroupReply> {
        unary!(self, request, explain_group)
    }

    async fn transfer_group(
        &self,
        request: Request<proto::TransferGroupRequest>,
    ) -> Answer<proto::MutationReply> {
        unary!(self, request, transfer_group)
    }

    async fn abort_transfer(
        &self,
        request: Request<proto::AbortTransferRequest>,
    ) -> Answer<proto::MutationReply> {
        unary!(self, request, abort_transfer)
    }

    async fn rebalance(
        &self,
        request: Request<proto::RebalanceRequest>,
    ) -> Answer<proto::RebalanceReply> {
        unary!(self, request, rebalance)
    }

    async fn list_nodes(
        &self,
        request: Request<proto::ListNodesRequest>,
    ) -> Answer<proto::ListNodesReply> {
        unary!(self, request, list_nodes)
    }

    async fn admit_node(
        &self,
        request: Request<proto::AdmitNodeRequest>,
    ) -> Answer<proto::MutationReply> {
        unary!(self, request, admit_node)
    }

    async fn revoke_session(
        &self,
        request: Request<proto::RevokeSessionRequest>,
    ) -> Answer<proto::MutationReply> {
        unary!(self, request, revoke_session)
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Answer<proto::TransferLeaderReply> {
        let caller = caller(&request);
        let request = request.into_inner().try_into().map_err(status_of)?;
        self.api
            .transfer_leader(caller, request)
            .await
            .map_err(status_of)?;
        Ok(Response::new(proto::TransferLeaderReply {}))
    }

    async fn status(&self, request: Request<proto::StatusRequest>) -> Answer<proto::StatusReply> {
        let status = self.api.status(caller(&request)).await.map_err(status_of)?;
        Ok(Response::new(status.into()))
    }

    async fn contract(
        &self,
        request: Request<proto::ContractRequest>,
    ) -> Answer<proto::ContractReply> {
        let contract = self
            .api
            .contract(caller(&request))
            .await
            .map_err(status_of)?;
        Ok(Response::new(contract.into()))
    }
}

/// A status for what was refused before it reached the API, such as a path that does not exist.
pub fn refusal(error: ApiError) -> Status {
    status_of(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_and_traces_are_read_as_their_formats_say() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("3S"), Some(Duration::from_secs(3)));
        assert_eq!(timeout("S"), None);
        assert_eq!(timeout(""), None);
        assert_eq!(timeout("999999999S"), None);
        assert_eq!(timeout("1é"), None);
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            trace(&format!("00-{id}-00f067aa0ba902b7-01")).map(|id| id.to_string()),
            Some(id.to_owned())
        );
        assert_eq!(trace("garbage"), None);
    }
}
