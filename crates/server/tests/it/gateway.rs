//! etcd's API as JSON over plain HTTP/1.1.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::*;

/// What is sent for one request; `fields` are lines of the header.
pub(crate) fn request(path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: quorate\r\nConnection: close\r\n{fields}Content-Length: {length}\r\n\r\n{body}"
    )
}

async fn begin(address: SocketAddr, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = request(path, "", body);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Status and body.
async fn post(address: SocketAddr, path: &str, body: &str) -> (u16, String) {
    answer_of(begin(address, path, body).await).await
}

/// Status and body of the answer, through the end of the stream.
pub(crate) async fn answer_of(mut stream: impl AsyncRead + Unpin) -> (u16, String) {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

/// A value by its name, wherever it is.
pub(crate) fn field<'a>(json: &'a str, name: &str) -> &'a str {
    let (_, rest) = json
        .split_once(&format!("\"{name}\":\""))
        .unwrap_or_else(|| panic!("no {name} in {json}"));
    rest.split('"').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_leases_and_transactions_work_without_grpc() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let at = cluster.server(0).client_address();
    let (status, put) = post(at, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
    assert_eq!(status, 200, "{put}");
    let revision: u64 = field(&put, "revision").parse().unwrap();
    let (status, found) = post(at, "/v3/kv/range", r#"{"key":"Zm9v"}"#).await;
    assert_eq!(status, 200, "{found}");
    let expected = format!(
        "\"kvs\":[{{\"key\":\"Zm9v\",\"create_revision\":\"{revision}\",\"mod_revision\":\"{revision}\",\"version\":\"1\",\"value\":\"YmFy\"}}],\"count\":\"1\"}}"
    );
    assert!(found.ends_with(&expected), "{found}");
    let txn = r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":"YmFy"}],"success":[{"requestPut":{"key":"Zm9v","value":"YmF6"}},{"request_range":{"key":"Zm9v"}}]}"#;
    let (status, txn) = post(at, "/v3/kv/txn", txn).await;
    assert_eq!(status, 200, "{txn}");
    assert!(
        txn.contains(r#""succeeded":true,"responses":[{"response_put":{"header":{"revision":"#),
        "{txn}"
    );
    let (status, granted) = post(at, "/v3/lease/grant", r#"{"TTL":"10","ID":"77"}"#).await;
    assert_eq!((status, field(&granted, "ID")), (200, "77"), "{granted}");
    let (_, kept) = post(at, "/v3/lease/keepalive", r#"{"ID":"77"}{"ID":78}"#).await;
    assert!(kept.contains(r#""ID":"77","TTL":"10"}}"#), "{kept}");
    assert!(kept.contains(r#""ID":"78"}}"#), "{kept}");

    for (path, body, status, said, code) in [
        (
            "/v3/kv/range",
            "{}",
            400,
            "etcdserver: key is not provided",
            3,
        ),
        ("/v3/kv/range", r#"{"key":"Zm"#, 400, "unexpected EOF", 3),
        (
            "/v3/kv/range",
            r#"{"key":"***"}"#,
            400,
            "illegal base64 data at input byte 0",
            3,
        ),
        (
            "/v3/kv/compaction",
            r#"{"revision":"100000"}"#,
            400,
            "etcdserver: mvcc: required revision is a future revision",
            11,
        ),
        (
            "/v3/lease/grant",
            r#"{"TTL":"10","ID":"77"}"#,
            400,
            "etcdserver: lease already exists",
            9,
        ),
        (
            "/v3/lease/revoke",
            r#"{"ID":"79"}"#,
            404,
            "etcdserver: requested lease not found",
            5,
        ),
        (
            "/v3/election/leader",
            r#"{"name":"bm8="}"#,
            500,
            "election: no leader",
            2,
        ),
    ] {
        let answered = post(at, path, body).await;
        let expected = format!(r#"{{"error":"{said}","message":"{said}","code":{code}}}"#);
        assert_eq!(answered, (status, expected), "{path} {body}");
    }
    let (status, found) = post(at, "/v3/kv/range", r#"{"key":"Zm9v","nope":1}"#).await;
    assert_eq!(status, 200, "{found}");
    assert_eq!(post(at, "/v3/nothing", "{}").await.0, 404);
    let (_, version) = get(at, "/version").await;
    assert!(version.contains(r#""etcdcluster":"3.5.0""#), "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_a_stream_of_lines() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let at = cluster.server(0).client_address();
    let (_, put) = post(at, "/v3/kv/put", r#"{"key":"Zm9v","value":"MQ=="}"#).await;
    let revision = field(&put, "revision");
    let create = format!(r#"{{"create_request":{{"key":"Zm9v","start_revision":"{revision}"}}}}"#);
    let stream = begin(at, "/v3/watch", &create).await;
    let mut lines = BufReader::new(stream).lines();
    let mut next = async |needle: &str| loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line());
        let line = line.await.expect("told").unwrap().expect("it goes on");
        if line.contains(needle) {
            return line;
        }
    };
    next(r#""created":true"#).await;
    let line = next(r#""events""#).await;
    assert!(
        line.starts_with("{\"result\":{\"header\":") && line.contains(r#""value":"MQ==""#),
        "{line}"
    );
    post(at, "/v3/kv/put", r#"{"key":"Zm9v","value":"Mg=="}"#).await;
    next(r#""value":"Mg==""#).await;
    post(at, "/v3/kv/deleterange", r#"{"key":"Zm9v"}"#).await;
    next(r#""type":"DELETE""#).await;
}
