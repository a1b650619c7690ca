//! The JSON gateway: etcd's RPCs as `POST /v3/...`, for callers without gRPC.
//!
//! Owns: paths, HTTP status codes, and the form of answers, streams and errors. Each call goes to the same service as gRPC's, inside the
//! process; its messages are translated by their descriptors, so that no RPC needs code of its own. Deliberately absent: what an RPC means.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use prost::Message;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use quorate_types::Principal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status, Streaming};

mod base64;
mod body;
mod codec;
mod json;

use body::{Trouble, Values};
use codec::Raw;

/// Below each prefix, everything is served: the current one, and that which etcd 3.4 still knows.
const PREFIXES: [&str; 2] = ["/v3", "/v3beta"];

/// Where each RPC is found: etcd 3.5's paths.
const PATHS: [(&str, &str, &str); 51] = [
    ("/kv/range", KV, "Range"),
    ("/kv/put", KV, "Put"),
    ("/kv/deleterange", KV, "DeleteRange"),
    ("/kv/txn", KV, "Txn"),
    ("/kv/compaction", KV, "Compact"),
    ("/watch", "etcdserverpb.Watch", "Watch"),
    ("/lease/grant", LEASE, "LeaseGrant"),
    ("/lease/revoke", LEASE, "LeaseRevoke"),
    ("/kv/lease/revoke", LEASE, "LeaseRevoke"),
    ("/lease/keepalive", LEASE, "LeaseKeepAlive"),
    ("/lease/timetolive", LEASE, "LeaseTimeToLive"),
    ("/kv/lease/timetolive", LEASE, "LeaseTimeToLive"),
    ("/lease/leases", LEASE, "LeaseLeases"),
    ("/kv/lease/leases", LEASE, "LeaseLeases"),
    ("/cluster/member/add", CLUSTER, "MemberAdd"),
    ("/cluster/member/remove", CLUSTER, "MemberRemove"),
    ("/cluster/member/update", CLUSTER, "MemberUpdate"),
    ("/cluster/member/list", CLUSTER, "MemberList"),
    ("/cluster/member/promote", CLUSTER, "MemberPromote"),
    ("/maintenance/alarm", MAINTENANCE, "Alarm"),
    ("/maintenance/status", MAINTENANCE, "Status"),
    ("/maintenance/defragment", MAINTENANCE, "Defragment"),
    ("/maintenance/hash", MAINTENANCE, "Hash"),
    ("/maintenance/hashkv", MAINTENANCE, "HashKV"),
    ("/maintenance/snapshot", MAINTENANCE, "Snapshot"),
    (
        "/maintenance/transfer-leadership",
        MAINTENANCE,
        "MoveLeader",
    ),
    ("/maintenance/downgrade", MAINTENANCE, "Downgrade"),
    ("/auth/enable", AUTH, "AuthEnable"),
    ("/auth/disable", AUTH, "AuthDisable"),
    ("/auth/status", AUTH, "AuthStatus"),
    ("/auth/authenticate", AUTH, "Authenticate"),
    ("/auth/user/add", AUTH, "UserAdd"),
    ("/auth/user/get", AUTH, "UserGet"),
    ("/auth/user/list", AUTH, "UserList"),
    ("/auth/user/delete", AUTH, "UserDelete"),
    ("/auth/user/changepw", AUTH, "UserChangePassword"),
    ("/auth/user/grant", AUTH, "UserGrantRole"),
    ("/auth/user/revoke", AUTH, "UserRevokeRole"),
    ("/auth/role/add", AUTH, "RoleAdd"),
    ("/auth/role/get", AUTH, "RoleGet"),
    ("/auth/role/list", AUTH, "RoleList"),
    ("/auth/role/delete", AUTH, "RoleDelete"),
    ("/auth/role/grant", AUTH, "RoleGrantPermission"),
    ("/auth/role/revoke", AUTH, "RoleRevokePermission"),
    ("/election/campaign", ELECTION, "Campaign"),
    ("/election/proclaim", ELECTION, "Proclaim"),
    ("/election/leader", ELECTION, "Leader"),
    ("/election/observe", ELECTION, "Observe"),
    ("/election/resign", ELECTION, "Resign"),
    ("/lock/lock", LOCK, "Lock"),
    ("/lock/unlock", LOCK, "Unlock"),
];

const KV: &str = "etcdserverpb.KV";
const LEASE: &str = "etcdserverpb.Lease";
const CLUSTER: &str = "etcdserverpb.Cluster";
const MAINTENANCE: &str = "etcdserverpb.Maintenance";
const AUTH: &str = "etcdserverpb.Auth";
const ELECTION: &str = "v3electionpb.Election";
const LOCK: &str = "v3lockpb.Lock";

/// An answer larger than this is turned into JSON where that delays no other call.
const LARGE_BYTES: usize = 256 * 1024;
/// Messages of a caller's stream that wait for the service.
const QUEUE_MESSAGES: usize = 16;

/// One RPC.
struct Method {
    path: PathAndQuery,
    input: MessageDescriptor,
    output: MessageDescriptor,
    takes_stream: bool,
    gives_stream: bool,
    /// The service goes on answering when the caller has said all it has to say: true for watches only.
    outlives_input: bool,
}

/// The gateway's routes, in front of the gRPC services of `grpc`.
pub(super) fn routes(grpc: &Router) -> Router {
    let pool = DescriptorPool::decode(quorate_wire::etcd::FILE_DESCRIPTOR_SET)
        .expect("it was compiled into this program");
    let mut router = Router::new();
    for (path, service, name) in PATHS {
        let method = Arc::new(method(&pool, service, name));
        for prefix in PREFIXES {
            let (grpc, method) = (grpc.clone(), Arc::clone(&method));
            let answer = move |request: Request| answer(grpc.clone(), Arc::clone(&method), request);
            router = router.route(&format!("{prefix}{path}"), post(answer));
        }
    }
    router
}

fn method(pool: &DescriptorPool, service: &str, name: &str) -> Method {
    let found = pool
        .get_service_by_name(service)
        .and_then(|service| service.methods().find(|method| method.name() == name))
        .unwrap_or_else(|| panic!("{service}/{name} is in the protos"));
    Method {
        path: PathAndQuery::try_from(format!("/{service}/{name}")).expect("names are plain"),
        input: found.input(),
        output: found.output(),
        takes_stream: found.is_client_streaming(),
        gives_stream: found.is_server_streaming(),
        outlives_input: name == "Watch",
    }
}

type Client = tonic::client::Grpc<Router>;

async fn answer(grpc: Router, method: Arc<Method>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let principal = parts.extensions.get::<Principal>().cloned();
    let wrap = Wrap {
        metadata: metadata(&parts.headers),
        principal,
    };
    // What this process says to itself needs no limit that the service does not set.
    let mut client = Client::new(grpc).max_decoding_message_size(usize::MAX);
    let Ok(()) = client.ready().await;
    let answered = if method.takes_stream {
        exchange(client, &method, wrap, body).await
    } else {
        ask(client, &method, wrap, body).await
    };
    answered.unwrap_or_else(|refused| refused)
}

/// What goes with each call.
struct Wrap {
    metadata: MetadataMap,
    principal: Option<Principal>,
}

impl Wrap {
    fn request<T>(self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = self.metadata;
        if let Some(principal) = self.principal {
            request.extensions_mut().insert(principal);
        }
        request
    }
}

/// HTTP headers that a service may want to see: the token, and whatever the caller marked for it.
fn metadata(headers: &HeaderMap) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let mut add = |name: &str, value: &header::HeaderValue| {
        let name = AsciiMetadataKey::from_bytes(name.as_bytes());
        let value = AsciiMetadataValue::try_from(value.as_bytes());
        if let (Ok(name), Ok(value)) = (name, value) {
            metadata.append(name, value);
        }
    };
    for (name, value) in headers {
        let name = name.as_str();
        if name == "authorization" {
            add("token", value);
        } else if name == "traceparent" {
            add(name, value);
        } else if let Some(name) = name.strip_prefix("grpc-metadata-") {
            add(name, value);
        }
    }
    metadata
}

/// One message there; one back, or a stream of them.
async fn ask(
    mut client: Client,
    method: &Arc<Method>,
    wrap: Wrap,
    body: Body,
) -> Result<Response, Response> {
    let json = Values::new(body).only().await;
    let message =
        encode(method, json.map(Option::unwrap_or_default)).map_err(|status| error(&status))?;
    let request = wrap.request(message);
    if method.gives_stream {
        let answered = client
            .server_streaming(request, method.path.clone(), Raw)
            .await;
        let stream = answered.map_err(|status| stream_error(&status))?;
        let stream = results(stream.into_inner(), Arc::clone(method), ());
        return Ok(streamed(stream));
    }
    let answered = client.unary(request, method.path.clone(), Raw).await;
    let message = answered.map_err(|status| error(&status))?.into_inner();
    let text = transcode(message, method)
        .await
        .map_err(|status| error(&status))?;
    Ok(with_json(StatusCode::OK, text.into()))
}

/// Streams both ways. The first message is looked at before anything is answered, so that a bad one has a status of its own.
async fn exchange(
    mut client: Client,
    method: &Arc<Method>,
    wrap: Wrap,
    body: Body,
) -> Result<Response, Response> {
    let mut values = Values::new(body);
    let (sender, receiver) = mpsc::channel(QUEUE_MESSAGES);
    // etcd's gateway calls it an unknown error here, and an invalid argument where there is no stream.
    let unknown = |status: Status| error(&Status::unknown(status.message()));
    let first = values.next().await;
    let ended = first == Ok(None);
    if !ended {
        let message = encode(method, first.map(Option::unwrap_or_default)).map_err(unknown)?;
        let queued = sender.try_send(message);
        assert!(queued.is_ok(), "the queue is new");
    }
    let kept = method.outlives_input.then(|| sender.clone());
    let feeding = {
        let method = Arc::clone(method);
        tokio::spawn(async move {
            if !ended {
                feed(&method, &mut values, &sender).await;
            }
        })
    };
    // Dropped with the answer: then the service sees the end of what it reads, and nobody reads the body any more.
    let guard = (AbortOnDropHandle::new(feeding), kept);
    let request = wrap.request(ReceiverStream::new(receiver));
    let answered = client.streaming(request, method.path.clone(), Raw).await;
    let stream = answered.map_err(|status| stream_error(&status))?;
    Ok(streamed(results(
        stream.into_inner(),
        Arc::clone(method),
        guard,
    )))
}

/// Passes on what the caller goes on to say. What is malformed ends it, as in etcd; there is no way to tell it then.
async fn feed(method: &Method, values: &mut Values, to: &mpsc::Sender<Bytes>) {
    while let Ok(Some(json)) = values.next().await {
        let Ok(message) = encode(method, Ok(json)) else {
            return;
        };
        if to.send(message).await.is_err() {
            return;
        }
    }
}

fn encode(method: &Method, json: Result<serde_json::Value, Trouble>) -> Result<Bytes, Status> {
    let malformed = match json {
        Ok(json) => match json::read(&json, &method.input) {
            Ok(message) => return Ok(message.encode_to_vec().into()),
            Err(malformed) => malformed,
        },
        Err(Trouble::Malformed(malformed)) => malformed,
        Err(Trouble::TooLarge) => "etcdserver: request is too large".to_owned(),
        // Nobody is there to read it.
        Err(Trouble::Gone) => "the request's body broke off".to_owned(),
    };
    Err(Status::invalid_argument(malformed))
}

async fn transcode(message: Bytes, method: &Arc<Method>) -> Result<String, Status> {
    let transcoded = if message.len() > LARGE_BYTES {
        let method = Arc::clone(method);
        tokio::task::spawn_blocking(move || json::transcode(message, &method.output))
            .await
            .expect("writing JSON does not panic, and is not cancelled")
    } else {
        json::transcode(message, &method.output)
    };
    transcoded.map_err(|error| Status::internal(error.to_string()))
}

/// The lines of a streamed answer. `guard` lives as long as they are read.
fn results<G: Send + 'static>(
    stream: Streaming<Bytes>,
    method: Arc<Method>,
    guard: G,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
    let begin = Some((stream, method, guard));
    futures_util::stream::unfold(begin, |going| async {
        let (mut stream, method, guard) = going?;
        let line = match stream.next().await? {
            Ok(message) => transcode(message, &method).await,
            Err(status) => Err(status),
        };
        Some(match line {
            Ok(text) => {
                let line = Bytes::from(format!("{{\"result\":{text}}}\n"));
                (Ok(line), Some((stream, method, guard)))
            }
            // The last line.
            Err(status) => (Ok(stream_error_line(&status).into()), None),
        })
    })
}

fn streamed(lines: impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static) -> Response {
    with_json(StatusCode::OK, Body::from_stream(lines))
}

fn with_json(status: StatusCode, body: Body) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A call's failure, as etcd's gateway tells it.
fn error(status: &Status) -> Response {
    let mut said = String::new();
    json::write_string(status.message(), &mut said);
    let code = status.code() as i32;
    let text = format!("{{\"error\":{said},\"message\":{said},\"code\":{code}}}");
    with_json(http_status(status.code()), text.into())
}

/// A stream's failure before it said anything.
fn stream_error(status: &Status) -> Response {
    let line = stream_error_line(status);
    with_json(http_status(status.code()), line.into())
}

fn stream_error_line(status: &Status) -> String {
    let mut said = String::new();
    json::write_string(status.message(), &mut said);
    let http = http_status(status.code());
    format!(
        "{{\"error\":{{\"grpc_code\":{},\"http_code\":{},\"message\":{said},\"http_status\":\"{}\"}}}}\n",
        status.code() as i32,
        http.as_u16(),
        http.canonical_reason().unwrap_or_default(),
    )
}

/// The HTTP status of a gRPC code, as in the gateway of etcd 3.5 (3.4 gives 412 for a failed precondition).
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests;
