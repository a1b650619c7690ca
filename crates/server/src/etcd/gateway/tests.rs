//! The gateway in front of services made up for it: no server runs.

use std::collections::BTreeSet;
use std::pin::Pin;

use axum::http::Method as Verb;
use quorate_wire::etcd::etcdserverpb::kv_server::{Kv, KvServer};
use quorate_wire::etcd::etcdserverpb::watch_server::{Watch, WatchServer};
use quorate_wire::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, ResponseHeader, TxnRequest, TxnResponse,
    WatchRequest, WatchResponse, watch_request,
};
use quorate_wire::etcd::mvccpb::KeyValue;
use tower::ServiceExt;

use super::*;

/// Answers with what it was asked.
struct Echo;

fn said(request: &tonic::Request<impl Sized>) -> Bytes {
    let token = request.metadata().get("token");
    let token = token.map_or("none", |token| token.to_str().unwrap());
    let principal = request.extensions().get::<Principal>();
    let principal = principal.map_or("nobody", Principal::as_str);
    format!("{token} {principal}").into()
}

#[tonic::async_trait]
impl Kv for Echo {
    async fn range(
        &self,
        request: tonic::Request<RangeRequest>,
    ) -> Result<tonic::Response<RangeResponse>, Status> {
        let value = said(&request);
        let request = request.into_inner();
        if request.key.is_empty() {
            return Err(Status::invalid_argument("etcdserver: key is not provided"));
        }
        let kv = KeyValue {
            key: request.key,
            value,
            lease: request.limit,
            ..Default::default()
        };
        Ok(tonic::Response::new(RangeResponse {
            header: Some(ResponseHeader {
                revision: i64::MAX,
                ..Default::default()
            }),
            kvs: vec![kv; usize::try_from(request.limit.max(1)).unwrap()],
            ..Default::default()
        }))
    }

    async fn put(
        &self,
        _: tonic::Request<PutRequest>,
    ) -> Result<tonic::Response<PutResponse>, Status> {
        Err(Status::failed_precondition("refused"))
    }

    async fn delete_range(
        &self,
        _: tonic::Request<DeleteRangeRequest>,
    ) -> Result<tonic::Response<DeleteRangeResponse>, Status> {
        Ok(tonic::Response::new(DeleteRangeResponse::default()))
    }

    async fn txn(
        &self,
        _: tonic::Request<TxnRequest>,
    ) -> Result<tonic::Response<TxnResponse>, Status> {
        Err(Status::unavailable("a \"quoted\" reason"))
    }

    async fn compact(
        &self,
        _: tonic::Request<CompactionRequest>,
    ) -> Result<tonic::Response<CompactionResponse>, Status> {
        Ok(tonic::Response::new(CompactionResponse::default()))
    }
}

/// Says what it heard, and fails at a progress request.
#[tonic::async_trait]
impl Watch for Echo {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<Streaming<WatchRequest>>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        if request.metadata().get("refuse").is_some() {
            return Err(Status::unauthenticated("who is it?"));
        }
        let stream = request.into_inner().map(|request| {
            match request?.request_union.expect("one was sent") {
                watch_request::RequestUnion::CreateRequest(create) => Ok(WatchResponse {
                    watch_id: create.watch_id,
                    created: true,
                    ..Default::default()
                }),
                _ => Err(Status::out_of_range("that was it")),
            }
        });
        Ok(tonic::Response::new(Box::pin(stream)))
    }
}

fn gateway() -> Router {
    let grpc = tonic::service::Routes::new(KvServer::new(Echo))
        .add_service(WatchServer::new(Echo))
        .into_axum_router();
    routes(&grpc)
}

async fn post(path: &str, body: impl Into<Body>, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(Verb::POST).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(body.into()).unwrap();
    let principal = Principal::new("somebody").unwrap();
    request.extensions_mut().insert(principal);
    gateway().oneshot(request).await.unwrap()
}

async fn check(path: &str, body: &'static str, status: u16, expected: &str) {
    let response = post(path, body, &[]).await;
    assert_eq!(response.status(), status, "{path} {body}");
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/json",
        "{path} {body}"
    );
    let text = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    assert_eq!(text, expected, "{path} {body}");
}

#[test]
fn every_rpc_has_a_path() {
    let pool = DescriptorPool::decode(quorate_wire::etcd::FILE_DESCRIPTOR_SET).unwrap();
    let all: BTreeSet<_> = pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| method.full_name().to_owned())
        .collect();
    let served: BTreeSet<_> = PATHS
        .iter()
        .map(|(_, service, name)| format!("{service}.{name}"))
        .collect();
    assert_eq!(served, all);
    assert_eq!(all.len(), 48);
}

#[tokio::test]
async fn a_call_reaches_its_service_with_token_and_principal() {
    let token = [("authorization", "secret")];
    let response = post("/v3/kv/range", r#"{"key":"Zm9v"}"#, &token).await;
    let text = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    let value = {
        let mut value = String::new();
        base64::encode(b"secret somebody", &mut value);
        value
    };
    assert_eq!(
        String::from_utf8_lossy(&text),
        format!(
            "{{\"header\":{{\"revision\":\"{}\"}},\"kvs\":[{{\"key\":\"Zm9v\",\"value\":\"{value}\"}}]}}",
            i64::MAX
        )
    );
    let marked = [("Grpc-Metadata-Token", "other")];
    let response = post("/v3beta/kv/range", r#"{"key":"Zm9v"}"#, &marked).await;
    let text = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    let parsed = json::parse(&text).unwrap();
    assert_ne!(parsed["kvs"][0]["value"], value.as_str());
}

#[tokio::test]
async fn refusals_have_the_form_and_the_status_of_etcd() {
    let range = "/v3/kv/range";
    let key = r#"{"error":"etcdserver: key is not provided","message":"etcdserver: key is not provided","code":3}"#;
    check(range, "", 400, key).await;
    check(range, "{}", 400, key).await;
    check(range, "null", 400, key).await;
    let base64 = r#"{"error":"illegal base64 data at input byte 0","message":"illegal base64 data at input byte 0","code":3}"#;
    check(range, r#"{"key":"***"}"#, 400, base64).await;
    let cut = r#"{"error":"unexpected EOF","message":"unexpected EOF","code":3}"#;
    check(range, r#"{"key":"Zm9v"#, 400, cut).await;
    let put = r#"{"error":"refused","message":"refused","code":9}"#;
    check("/v3/kv/put", "{}", 400, put).await;
    let txn = r#"{"error":"a \"quoted\" reason","message":"a \"quoted\" reason","code":14}"#;
    check("/v3/kv/txn", "{}", 503, txn).await;
    check("/v3/kv/deleterange", "{} trailing", 200, "{}").await;
    // A service that is not there.
    let response = post("/v3/lease/grant", "{}", &[]).await;
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    let get = Request::get(range).body(Body::empty()).unwrap();
    let response = gateway().oneshot(get).await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let body = "x".repeat(8 * 1024 * 1024);
    let response = post("/v3/kv/put", body, &[]).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let text = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&text).contains("etcdserver: request is too large"));
}

#[tokio::test]
async fn a_large_answer_comes_whole() {
    let response = post("/v3/kv/range", r#"{"key":"Zm9v","limit":"20000"}"#, &[]).await;
    let text = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    assert!(text.len() > LARGE_BYTES * 2);
    let parsed = json::parse(&text).unwrap();
    assert_eq!(parsed["kvs"].as_array().unwrap().len(), 20_000);
}

/// The lines of a stream, one at a time.
struct Lines(axum::body::BodyDataStream);

impl Lines {
    async fn next(&mut self) -> Option<String> {
        let bytes = self.0.next().await?.unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn streams_go_both_ways_and_stay_open_after_the_last_request() {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, Infallible>>(1);
    let body = Body::from_stream(ReceiverStream::new(receiver));
    let say = async |text: &'static str| sender.send(Ok(text.into())).await.unwrap();
    say(r#"{"create_request":{"watch_id":"3"}}"#).await;
    let response = post("/v3/watch", body, &[]).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut lines = Lines(response.into_body().into_data_stream());
    assert_eq!(
        lines.next().await.unwrap(),
        "{\"result\":{\"watch_id\":\"3\",\"created\":true}}\n"
    );
    say(r#" {"createRequest":{"wat"#).await;
    say(r#"chId":4}}"#).await;
    assert_eq!(
        lines.next().await.unwrap(),
        "{\"result\":{\"watch_id\":\"4\",\"created\":true}}\n"
    );
    say(r#"{"progress_request":{}}"#).await;
    assert_eq!(
        lines.next().await.unwrap(),
        "{\"error\":{\"grpc_code\":11,\"http_code\":400,\"message\":\"that was it\",\"http_status\":\"Bad Request\"}}\n"
    );
    assert_eq!(lines.next().await, None);

    let only = post("/v3/watch", r#"{"create_request":{}}"#, &[]).await;
    let mut lines = Lines(only.into_body().into_data_stream());
    assert_eq!(
        lines.next().await.unwrap(),
        "{\"result\":{\"created\":true}}\n"
    );
    // The service ends when its input does: that it has not shows the input to be open.
    let more = tokio::time::timeout(std::time::Duration::from_millis(50), lines.next());
    assert!(more.await.is_err(), "the stream goes on");
}

#[tokio::test]
async fn a_stream_that_does_not_begin_has_a_status() {
    let what = r#"{"error":"invalid character 'x' looking for beginning of value","message":"invalid character 'x' looking for beginning of value","code":2}"#;
    check("/v3/watch", "x", 500, what).await;
    let response = post("/v3/watch", "{}", &[("grpc-metadata-refuse", "1")]).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let text = axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap();
    assert_eq!(
        text,
        "{\"error\":{\"grpc_code\":16,\"http_code\":401,\"message\":\"who is it?\",\"http_status\":\"Unauthorized\"}}\n"
    );
}
