//! A server in this process whose every answer a test gives.

use std::sync::{Arc, Mutex};

use quorate_wire::api::*;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};

type Created = Box<dyn FnMut(CreateGroups) -> Result<Done, ApiError> + Send>;

/// A node's stream, seen from the server.
pub(crate) struct Conn {
    up: ApiStream<NodeUp>,
    down: mpsc::Sender<Result<NodeDown, ApiError>>,
}

impl Conn {
    pub(crate) async fn next(&mut self) -> Option<NodeUp> {
        self.up.next().await.and_then(Result::ok)
    }

    pub(crate) async fn send(&mut self, down: NodeDown) {
        self.down.send(Ok(down)).await.expect("the client listens");
    }
}

/// A watch, seen from the server.
pub(crate) struct Watching {
    pub(crate) request: WatchGroups,
    pub(crate) items: mpsc::Sender<Result<WatchItem, ApiError>>,
}

/// A running server. Dropped, it is gone with all its connections.
pub(crate) struct Fake {
    pub(crate) address: String,
    nodes: mpsc::UnboundedReceiver<Conn>,
    watches: mpsc::UnboundedReceiver<Watching>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        Self::creating(|_| {
            Err(ApiError::new(
                ApiErrorKind::PermissionDenied,
                "not scripted",
            ))
        })
        .await
    }

    /// One that answers `create_groups` so.
    pub(crate) async fn creating(
        created: impl FnMut(CreateGroups) -> Result<Done, ApiError> + Send + 'static,
    ) -> Self {
        let (nodes_tx, nodes) = mpsc::unbounded_channel();
        let (watches_tx, watches) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Script {
            nodes: nodes_tx,
            watches: watches_tx,
            created: Mutex::new(Box::new(created)),
        };
        let routes = quorate_wire::routes(Arc::new(script));
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_routes(routes)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
        Self {
            address,
            nodes,
            watches,
            server,
        }
    }

    /// The next node's stream.
    pub(crate) async fn node(&mut self) -> Conn {
        self.nodes.recv().await.expect("the server runs")
    }

    /// The next watch.
    pub(crate) async fn watch(&mut self) -> Watching {
        self.watches.recv().await.expect("the server runs")
    }
}

struct Script {
    nodes: mpsc::UnboundedSender<Conn>,
    watches: mpsc::UnboundedSender<Watching>,
    created: Mutex<Created>,
}

fn not_scripted<T>() -> Result<T, ApiError> {
    Err(ApiError::new(
        ApiErrorKind::PermissionDenied,
        "not scripted",
    ))
}

#[tonic::async_trait]
impl Api for Script {
    async fn node(
        &self,
        _: Caller,
        up: ApiStream<NodeUp>,
    ) -> Result<ApiStream<NodeDown>, ApiError> {
        let (down, down_rx) = mpsc::channel(64);
        let _ = self.nodes.send(Conn { up, down });
        Ok(Box::pin(ReceiverStream::new(down_rx)))
    }

    async fn watch_groups(
        &self,
        _: Caller,
        request: WatchGroups,
    ) -> Result<ApiStream<WatchItem>, ApiError> {
        let (items, items_rx) = mpsc::channel(64);
        let _ = self.watches.send(Watching { request, items });
        Ok(Box::pin(ReceiverStream::new(items_rx)))
    }

    async fn create_groups(&self, _: Caller, request: CreateGroups) -> Result<Done, ApiError> {
        (self.created.lock().unwrap())(request)
    }

    async fn update_group(&self, _: Caller, _: UpdateGroup) -> Result<Done, ApiError> {
        not_scripted()
    }

    async fn delete_group(&self, _: Caller, _: DeleteGroup) -> Result<Done, ApiError> {
        not_scripted()
    }

    async fn get_group(&self, _: Caller, _: GetGroup) -> Result<GroupDetail, ApiError> {
        not_scripted()
    }

    async fn list_groups(&self, _: Caller, _: ListGroups) -> Result<GroupPage, ApiError> {
        not_scripted()
    }

    async fn explain_group(&self, _: Caller, _: ExplainGroup) -> Result<Explanation, ApiError> {
        not_scripted()
    }

    async fn transfer_group(&self, _: Caller, _: TransferGroup) -> Result<Done, ApiError> {
        not_scripted()
    }

    async fn abort_transfer(&self, _: Caller, _: AbortTransfer) -> Result<Done, ApiError> {
        not_scripted()
    }

    async fn rebalance(&self, _: Caller, _: Rebalance) -> Result<Moving, ApiError> {
        not_scripted()
    }

    async fn list_nodes(&self, _: Caller, _: Freshness) -> Result<NodeList, ApiError> {
        not_scripted()
    }

    async fn admit_node(&self, _: Caller, _: AdmitNode) -> Result<Done, ApiError> {
        not_scripted()
    }

    async fn revoke_session(&self, _: Caller, _: RevokeSession) -> Result<Done, ApiError> {
        not_scripted()
    }

    async fn status(&self, _: Caller) -> Result<ServerStatus, ApiError> {
        not_scripted()
    }

    async fn transfer_leader(&self, _: Caller, _: TransferLeader) -> Result<(), ApiError> {
        not_scripted()
    }

    async fn contract(&self, _: Caller) -> Result<Contract, ApiError> {
        not_scripted()
    }
}
