//! The client port: gRPC and a little HTTP on one address, with or without TLS.
//!
//! Owns: accepting, limits, health, metrics and the look-up of leaders for proxies. Deliberately absent: the API's meaning.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use quorate_types::{GroupName, Principal};
use quorate_wire::api::Phase;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::api::{ApiState, ServerApi, group_state};
use crate::etcd::Etcd;
use crate::stop::Stop;

/// Connections that may be open at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
/// A connection that neither finishes its TLS handshake nor says anything is closed.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Most calls on one connection. A waiting call is one, and a client may well have thousands wait over its only connection; what they
/// wait for must still get through behind them. etcd has no bound; this one is only against a client that never ends its calls.
const STREAMS_MAX: u32 = 65_536;
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// What the handlers see.
#[derive(Clone)]
struct Web {
    api: Arc<ApiState>,
    stop: Stop,
}

/// What the accepting side works with.
pub(crate) struct ClientListener {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) api: Arc<ApiState>,
    pub(crate) etcd: Etcd,
    pub(crate) stop: Stop,
}

/// Accepts clients until the task is dropped.
pub(crate) async fn accept_forever(parts: ClientListener) {
    let ClientListener {
        listener,
        tls,
        api,
        etcd,
        stop,
    } = parts;
    let metrics = Arc::clone(&api.metrics);
    let router = router(api, &etcd, stop);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Most likely out of descriptors: others may be closed meanwhile.
                tracing::warn!(%error, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (router, tls, metrics) = (router.clone(), tls.clone(), Arc::clone(&metrics));
        connections.spawn(async move {
            metrics.http_connections.increment(1.0);
            if let Err(error) = serve(stream, tls, router).await {
                metrics.http_garbage.increment(1);
                tracing::debug!(%error, "a client's connection ended");
            }
            metrics.http_connections.decrement(1.0);
            drop(place);
        });
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
) -> Result<(), BoxError> {
    crate::peer::configure(&stream)?;
    match tls {
        Some(tls) => {
            let stream = timeout(FIRST_BYTE_TIMEOUT, tls.accept(stream)).await??;
            let certificates = stream.get_ref().1.peer_certificates();
            let principal = certificates
                .and_then(|chain| chain.first())
                .map_or_else(crate::tls::anonymous, crate::tls::principal);
            serve_http(stream, principal, router).await
        }
        None => {
            if timeout(FIRST_BYTE_TIMEOUT, stream.peek(&mut [0])).await?? == 0 {
                return Ok(());
            }
            serve_http(stream, crate::tls::anonymous(), router).await
        }
    }
}

async fn serve_http<S>(stream: S, principal: Principal, router: Router) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).expect("it is small"))
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10));
    let service = TowerToHyperService::new(router.layer(axum::Extension(principal)));
    builder
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn router(api: Arc<ApiState>, etcd: &Etcd, stop: Stop) -> Router {
    let grpc = quorate_wire::routes(Arc::new(ServerApi {
        state: Arc::clone(&api),
    }))
    .into_axum_router();
    let web = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/health", get(health))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/leader/{*group}", get(leader))
        .with_state(Web { api, stop });
    web.merge(grpc)
        .merge(crate::etcd::routes(etcd))
        .fallback(unknown_path)
}

/// What is neither ours nor gRPC is not found; gRPC has its own word for it.
async fn unknown_path(headers: HeaderMap) -> Response {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return tonic::Status::unimplemented("this server has no such method")
            .into_http::<axum::body::Body>();
    }
    (StatusCode::NOT_FOUND, "not found\n").into_response()
}

/// The process works: it steps, and its disk has not failed.
async fn livez(State(web): State<Web>) -> Response {
    match web.stop.reason() {
        None if timeout(READY_TIMEOUT, web.api.calls.status()).await.is_ok() => {
            "ok\n".into_response()
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the step thread does not answer\n",
        )
            .into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[derive(Deserialize)]
struct Verbose {
    verbose: Option<String>,
}

/// One condition of being ready.
struct Check {
    name: &'static str,
    failure: Option<String>,
}

async fn checks(web: &Web) -> Vec<Check> {
    let disk = web.stop.reason().map(|reason| reason.to_string());
    let leader = web
        .api
        .role
        .borrow()
        .leader
        .is_none()
        .then(|| "no leader is known".to_owned());
    // A linearizable read proves that a leader is reached, that it applied an entry of its own term, and that this server keeps up.
    let read = match timeout(READY_TIMEOUT, web.api.read_index()).await {
        Ok(Ok(_)) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("no answer in time".to_owned()),
    };
    vec![
        Check {
            name: "disk",
            failure: disk,
        },
        Check {
            name: "leader",
            failure: leader,
        },
        Check {
            name: "read",
            failure: read,
        },
    ]
}

/// The server can take calls now.
async fn readyz(State(web): State<Web>, Query(query): Query<Verbose>) -> Response {
    let checks = checks(&web).await;
    let ready = checks.iter().all(|check| check.failure.is_none());
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if query.verbose.is_none() && ready {
        return "ok\n".into_response();
    }
    let mut text = String::new();
    for check in checks {
        match check.failure {
            None => text.push_str(&format!("[+] {} ok\n", check.name)),
            Some(why) => text.push_str(&format!("[-] {} failed: {why}\n", check.name)),
        }
    }
    text.push_str(if ready { "ready\n" } else { "not ready\n" });
    (status, text).into_response()
}

#[derive(Serialize)]
struct Health {
    health: &'static str,
    reason: String,
}

/// The same as `/readyz`, in the words of etcd's `/health`.
async fn health(State(web): State<Web>) -> Response {
    let failed: Vec<_> = checks(&web)
        .await
        .into_iter()
        .filter_map(|check| check.failure)
        .collect();
    let (status, health) = if failed.is_empty() {
        (StatusCode::OK, "true")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "false")
    };
    (
        status,
        Json(Health {
            health,
            reason: failed.join("; "),
        }),
    )
        .into_response()
}

#[derive(Serialize)]
struct Version {
    // What etcd says here, for clients that look before they use a feature.
    etcdserver: &'static str,
    etcdcluster: &'static str,
    version: &'static str,
    contract_min: u32,
    contract_max: u32,
    feature_level: u32,
}

async fn version(State(web): State<Web>) -> Json<Version> {
    Json(Version {
        etcdserver: crate::etcd::COMPATIBLE_VERSION,
        etcdcluster: crate::etcd::COMPATIBLE_CLUSTER_VERSION,
        version: crate::VERSION,
        contract_min: *quorate_coord::CONTRACT_VERSIONS.start(),
        contract_max: *quorate_coord::CONTRACT_VERSIONS.end(),
        feature_level: web.api.publisher.version().state.feature_level().0,
    })
}

async fn metrics(State(web): State<Web>) -> Response {
    let version = web.api.publisher.version();
    let mut phases = [0_usize; 6];
    for group in version.state.groups() {
        phases[group.phase as usize] += 1;
    }
    let names = [
        "vacant",
        "polling",
        "preparing",
        "active",
        "draining",
        "revoking",
    ];
    for (name, count) in names.into_iter().zip(phases) {
        web.api.metrics.set_groups(name, count);
    }
    web.api.metrics.set_sessions(version.state.session_count());
    if let Ok(Some(status)) = timeout(READY_TIMEOUT, web.api.calls.status()).await {
        web.api
            .metrics
            .expiry_lag_seconds
            .set(status.expiry_lag.unwrap_or_default().as_secs_f64());
        web.api.metrics.waiting_calls.set(status.calls as f64);
    }
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (kind, web.api.metrics.render()).into_response()
}

/// What `/leader/{group}` says where there is no leader.
#[derive(Serialize)]
struct NoLeader {
    error: String,
    phase: Option<Phase>,
}

/// Who leads a group, for proxies: 200 with the holder's endpoints, 404 for an unknown group, 503 while nobody leads.
async fn leader(State(web): State<Web>, Path(group): Path<String>) -> Response {
    let name = match GroupName::new(&group) {
        Ok(name) => name,
        Err(error) => {
            let body = NoLeader {
                error: error.to_string(),
                phase: None,
            };
            return (StatusCode::BAD_REQUEST, Json(body)).into_response();
        }
    };
    let version = web.api.publisher.version();
    let revision = header_value(&version.state.revision().to_string());
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers
        .extend(revision.map(|revision| (HeaderName::from_static("quorate-revision"), revision)));
    let Some(group) = version.state.group(&name) else {
        let body = NoLeader {
            error: format!("group {name:?} does not exist"),
            phase: None,
        };
        return (StatusCode::NOT_FOUND, headers, Json(body)).into_response();
    };
    let state = group_state(group);
    let Some(node) = state.leader() else {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        let body = NoLeader {
            error: format!("nobody leads group {name:?}"),
            phase: Some(state.phase),
        };
        return (StatusCode::SERVICE_UNAVAILABLE, headers, Json(body)).into_response();
    };
    let fields = [
        ("quorate-leader", node.to_string()),
        ("quorate-endpoints", state.configuration.endpoints.join(",")),
        ("quorate-tenure", state.tenure.to_string()),
        ("quorate-fencing-token", state.token.to_string()),
    ];
    for (field, value) in fields {
        // A name that no header can carry is in the body all the same.
        headers.extend(header_value(&value).map(|value| (HeaderName::from_static(field), value)));
    }
    (StatusCode::OK, headers, Json(state)).into_response()
}

fn header_value(text: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(text)
        .ok()
        .filter(|value| value.len() <= 8 * 1024)
}
