//! The client's side: one server's API over one channel, in plain types. No retries: that is the SDK's part.

use std::time::Duration;

use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::api::{
    AbortTransfer, AdmitNode, ApiError, ApiErrorKind, ApiStream, Contract, CreateGroups,
    DeleteGroup, Done, ExplainGroup, Explanation, Freshness, GetGroup, GroupDetail, GroupPage,
    ListGroups, MESSAGE_BYTES_MAX, Moving, NodeDown, NodeList, NodeUp, Rebalance, RevokeSession,
    ServerStatus, TransferGroup, TransferLeader, UpdateGroup, WatchGroups, WatchItem,
};
use crate::convert::{bad_answer, error_of};
use crate::proto;
use crate::proto::quorate_client::QuorateClient;

/// Files' contents for TLS, as PEM.
#[derive(Clone, Default)]
pub struct ClientTls {
    /// Who signs the servers' certificates.
    pub ca_pem: Vec<u8>,
    /// The client's own certificate and key, where the servers ask for one.
    pub identity: Option<ClientIdentity>,
    /// The name in the servers' certificates, where it is not the host of the endpoint.
    pub server_name: Option<String>,
}

/// A client's certificate with its key, as PEM.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate with its chain.
    pub cert_pem: Vec<u8>,
    /// The key.
    pub key_pem: Vec<u8>,
}

/// How to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    /// TLS; none: plaintext.
    pub tls: Option<ClientTls>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            tls: None,
            connect_timeout: Duration::from_secs(2),
        }
    }
}

/// One server's API.
#[derive(Clone, Debug)]
pub struct ApiClient {
    inner: QuorateClient<Channel>,
    channel: Channel,
}

fn unreachable(address: &str, why: &dyn std::error::Error) -> ApiError {
    let mut message = format!("connect to {address}: {why}");
    let mut cause = why.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    ApiError::new(ApiErrorKind::Unreachable, message)
}

/// One unary call: encode, send, decode.
macro_rules! unary {
    ($(#[$doc:meta])* $method:ident($request:ty) -> $answer:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// [`ApiError`]: its kind says what to do, and whether the call may have been applied.
        pub async fn $method(&self, request: $request, timeout: Duration) -> Result<$answer, ApiError> {
            let mut request = Request::new(request.into());
            request.set_timeout(timeout);
            let answer = self.inner.clone().$method(request).await.map_err(|status| error_of(&status))?;
            <$answer>::try_from(answer.into_inner()).map_err(|why| bad_answer(&why))
        }
    };
}

impl ApiClient {
    /// Prepares a channel to `address` (`host:port`, or with `http://` or `https://`). It connects when first used, and
    /// again whenever the connection was lost.
    ///
    /// # Errors
    /// `Invalid`: the address or the certificates cannot be used.
    pub fn lazy(address: &str, options: &ConnectOptions) -> Result<Self, ApiError> {
        Ok(Self::over(Self::endpoint(address, options)?.connect_lazy()))
    }

    /// Connects to `address` now.
    ///
    /// # Errors
    /// `Unreachable`: try another server. `Invalid`: the address or the certificates cannot be used.
    pub async fn connect(address: &str, options: &ConnectOptions) -> Result<Self, ApiError> {
        let channel = Self::endpoint(address, options)?.connect().await;
        Ok(Self::over(
            channel.map_err(|why| unreachable(address, &why))?,
        ))
    }

    fn over(channel: Channel) -> Self {
        let inner = QuorateClient::new(channel.clone());
        Self {
            channel,
            inner: inner
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    /// The channel below it, for the other services of the same port: etcd's.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    fn endpoint(address: &str, options: &ConnectOptions) -> Result<Endpoint, ApiError> {
        let bad =
            |why: &dyn std::fmt::Display| ApiError::invalid(format!("endpoint `{address}`: {why}"));
        let uri = match (address.contains("://"), &options.tls) {
            (true, _) => address.to_owned(),
            (false, Some(_)) => format!("https://{address}"),
            (false, None) => format!("http://{address}"),
        };
        let mut endpoint = Endpoint::from_shared(uri)
            .map_err(|why| bad(&why))?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(10)))
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5));
        if let Some(tls) = &options.tls {
            let mut config =
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca_pem));
            if let Some(identity) = &tls.identity {
                config = config.identity(Identity::from_pem(&identity.cert_pem, &identity.key_pem));
            }
            if let Some(name) = &tls.server_name {
                config = config.domain_name(name.clone());
            }
            endpoint = endpoint.tls_config(config).map_err(|why| bad(&why))?;
        }
        Ok(endpoint)
    }

    /// Opens a session's stream. The first message of `up` must be `Open` or `Resume`.
    ///
    /// # Errors
    /// [`ApiError`]: try another server.
    pub async fn node(
        &self,
        up: impl Stream<Item = NodeUp> + Send + 'static,
    ) -> Result<ApiStream<NodeDown>, ApiError> {
        let answer = self.inner.clone().node(up.map(proto::NodeUp::from)).await;
        let down = answer.map_err(|status| error_of(&status))?.into_inner();
        Ok(Box::pin(down.map(decode)))
    }

    /// Watches groups.
    ///
    /// # Errors
    /// [`ApiError`]: try another server.
    pub async fn watch_groups(
        &self,
        request: WatchGroups,
    ) -> Result<ApiStream<WatchItem>, ApiError> {
        let answer = self
            .inner
            .clone()
            .watch_groups(proto::WatchGroupsRequest::from(request))
            .await;
        let items = answer.map_err(|status| error_of(&status))?.into_inner();
        Ok(Box::pin(items.map(decode)))
    }

    unary! {
        /// Creates groups; all or none.
        create_groups(CreateGroups) -> Done
    }
    unary! {
        /// Replaces a group's spec.
        update_group(UpdateGroup) -> Done
    }
    unary! {
        /// Deletes a group.
        delete_group(DeleteGroup) -> Done
    }
    unary! {
        /// Reads one group.
        get_group(GetGroup) -> GroupDetail
    }
    unary! {
        /// Reads a page of groups.
        list_groups(ListGroups) -> GroupPage
    }
    unary! {
        /// Asks why a group is led as it is.
        explain_group(ExplainGroup) -> Explanation
    }
    unary! {
        /// Moves a group's leadership.
        transfer_group(TransferGroup) -> Done
    }
    unary! {
        /// Calls off a pending handover.
        abort_transfer(AbortTransfer) -> Done
    }
    unary! {
        /// Starts handovers towards an even spread.
        rebalance(Rebalance) -> Moving
    }
    unary! {
        /// Reads all nodes.
        list_nodes(Freshness) -> NodeList
    }
    unary! {
        /// Opens, cordons or drains a node.
        admit_node(AdmitNode) -> Done
    }
    unary! {
        /// Ends another's session.
        revoke_session(RevokeSession) -> Done
    }

    /// Asks what this server is and sees.
    ///
    /// # Errors
    /// [`ApiError`]: the server cannot tell.
    pub async fn status(&self, timeout: Duration) -> Result<ServerStatus, ApiError> {
        let mut request = Request::new(proto::StatusRequest {});
        request.set_timeout(timeout);
        let answer = self
            .inner
            .clone()
            .status(request)
            .await
            .map_err(|status| error_of(&status))?;
        ServerStatus::try_from(answer.into_inner()).map_err(|why| bad_answer(&why))
    }

    /// Hands the backbone's leadership over.
    ///
    /// # Errors
    /// [`ApiError`]: its kind says what to do.
    pub async fn transfer_leader(
        &self,
        request: TransferLeader,
        timeout: Duration,
    ) -> Result<(), ApiError> {
        let mut request = Request::new(proto::TransferLeaderRequest::from(request));
        request.set_timeout(timeout);
        self.inner
            .clone()
            .transfer_leader(request)
            .await
            .map_err(|status| error_of(&status))?;
        Ok(())
    }

    /// Reads the lifecycle's table.
    ///
    /// # Errors
    /// [`ApiError`]: try another server.
    pub async fn contract(&self, timeout: Duration) -> Result<Contract, ApiError> {
        let mut request = Request::new(proto::ContractRequest {});
        request.set_timeout(timeout);
        let answer = self
            .inner
            .clone()
            .contract(request)
            .await
            .map_err(|status| error_of(&status))?;
        Contract::try_from(answer.into_inner()).map_err(|why| bad_answer(&why))
    }
}

fn decode<P, T: TryFrom<P, Error = ApiError>>(item: Result<P, Status>) -> Result<T, ApiError> {
    match item {
        Ok(item) => T::try_from(item).map_err(|why| bad_answer(&why)),
        Err(status) => Err(error_of(&status)),
    }
}
