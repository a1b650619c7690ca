//! Who may watch, elect and lock where users are distinguished, and who is named by a certificate or through the JSON gateway. What a
//! refusal says was compared with etcd 3.4.23.

use quorate_server::config::{KeySpaceConfig, TlsFiles};
use quorate_wire::ApiClient;
use quorate_wire::etcd::authpb::permission::Type;
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::auth_client::AuthClient;
use quorate_wire::etcd::etcdserverpb::watch_client::WatchClient;
use quorate_wire::etcd::etcdserverpb::watch_request::RequestUnion;
use quorate_wire::etcd::v3electionpb::election_client::ElectionClient;
use quorate_wire::etcd::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use quorate_wire::etcd::v3lockpb::lock_client::LockClient;
use quorate_wire::etcd::v3lockpb::{LockRequest, UnlockRequest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::auth::{BAD_TOKEN, DENIED, NOBODY, User, check, put, set_up, start};
use crate::gateway::{answer_of, field, request};
use crate::support::{Cluster, PATIENCE};
use crate::tls::{Authority, options};

/// A recipe loses the code of a caller who shows nothing, as in etcd.
const NOBODY_RECIPE: (Code, &str) = (Code::Unknown, NOBODY.1);

/// A stream of watches, with what it is told.
struct Watching {
    up: mpsc::Sender<pb::WatchRequest>,
    down: Streaming<pb::WatchResponse>,
}

impl Watching {
    async fn open(user: &User) -> Self {
        let (up, receiver) = mpsc::channel(8);
        let mut client = WatchClient::new(user.channel.clone());
        let requests = user.request(ReceiverStream::new(receiver));
        let down = client.watch(requests).await.unwrap().into_inner();
        Self { up, down }
    }

    async fn create(&mut self, key: &str, range_end: &str, watch_id: i64) -> pb::WatchResponse {
        let create = pb::WatchCreateRequest {
            key: key.to_owned().into(),
            range_end: range_end.to_owned().into(),
            watch_id,
            ..Default::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        self.up.send(request).await.unwrap();
        self.next().await
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.down.next()).await;
        next.expect("it is told").expect("it goes on").unwrap()
    }
}

#[track_caller]
fn check_refused(told: &pb::WatchResponse, reason: &str) {
    let is = (told.watch_id, told.created, told.canceled);
    assert_eq!(is, (-1, true, true), "{told:?}");
    assert_eq!(told.cancel_reason, reason);
}

const WATCH_DENIED: &str =
    "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_without_the_right_is_cancelled_as_it_is_created_and_others_of_its_stream_go_on() {
    let cluster = start(1).await;
    let nobody = User::nobody(&cluster, 0).await;
    let root = set_up(&nobody).await;
    let app = nobody.log_in("app", "apppw").await.unwrap();
    let mut watching = Watching::open(&nobody).await;
    let told = watching.create("b", "", 0).await;
    let reason = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    check_refused(&told, reason);
    let mut watching = Watching::open(&root.with_token("made.up")).await;
    let told = watching.create("b", "", 0).await;
    let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    check_refused(&told, reason);

    let mut watching = Watching::open(&app).await;
    // Write-only, half of it, all there is, under an id of its own; and the key space's first key.
    for (key, range_end, id) in [
        ("p", "", 0),
        ("a", "n", 0),
        ("a", "\0", 0),
        ("p", "", 9),
        ("", "", 0),
    ] {
        check_refused(&watching.create(key, range_end, id).await, WATCH_DENIED);
    }
    let created = watching.create("a", "m", 9).await;
    assert!(created.created && !created.canceled, "{created:?}");
    assert_eq!(created.watch_id, 9, "a refused one left its id free");
    for key in ["p", "b"] {
        root.put(put(key)).await.unwrap();
    }
    let told = watching.next().await;
    assert_eq!(
        (told.watch_id, &*told.events[0].kv.as_ref().unwrap().key),
        (9, b"b".as_slice())
    );

    // As in etcd it is judged once, when it is created.
    let take = pb::AuthRoleRevokePermissionRequest {
        role: "mixed".to_owned(),
        key: "a".into(),
        range_end: "m".into(),
    };
    root.auth()
        .role_revoke_permission(root.request(take))
        .await
        .unwrap();
    check(app.get("b").await, DENIED);
    root.put(put("c")).await.unwrap();
    assert_eq!(watching.next().await.events.len(), 1);
    check_refused(&watching.create("a", "m", 0).await, WATCH_DENIED);
}

async fn campaign(user: &User, name: &str, lease: i64) -> Result<CampaignResponse, Status> {
    let request = user.request(CampaignRequest {
        name: name.to_owned().into(),
        lease,
        ..Default::default()
    });
    let mut election = ElectionClient::new(user.channel.clone());
    Ok(election.campaign(request).await?.into_inner())
}

async fn lock(user: &User, name: &str, lease: i64) -> Result<Vec<u8>, Status> {
    let name = name.to_owned().into();
    let request = user.request(LockRequest { name, lease });
    let locked = LockClient::new(user.channel.clone()).lock(request).await?;
    Ok(locked.into_inner().key.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn elections_and_locks_are_for_those_who_may_read_and_write_their_line() {
    let cluster = start(1).await;
    let nobody = User::nobody(&cluster, 0).await;
    let root = set_up(&nobody).await;
    let app = nobody.log_in("app", "apppw").await.unwrap();
    for id in [1, 2] {
        app.grant_lease(id).await.unwrap();
    }
    let election = || ElectionClient::new(app.channel.clone());
    let locks = || LockClient::new(app.channel.clone());

    // `l` may be read and written, `b` only read, `p` only written, `zz` neither.
    let leader = campaign(&app, "l", 1).await.unwrap().leader.unwrap();
    let waiting = {
        let app = app.clone();
        tokio::spawn(async move { campaign(&app, "l", 2).await })
    };
    let observe = |name: &'static str| app.request(LeaderRequest { name: name.into() });
    let mut observed = election().observe(observe("l")).await.unwrap().into_inner();
    let told = tokio::time::timeout(PATIENCE, observed.next()).await;
    assert_eq!(told.unwrap().unwrap().unwrap().kv.unwrap().lease, 1);
    let proclaim = |leader: &LeaderKey| {
        app.request(ProclaimRequest {
            leader: Some(leader.clone()),
            value: "v".into(),
        })
    };
    let resign = |leader: &LeaderKey| {
        let leader = Some(leader.clone());
        app.request(ResignRequest { leader })
    };
    election().proclaim(proclaim(&leader)).await.unwrap();
    election().resign(resign(&leader)).await.unwrap();
    let waited = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert_eq!(waited.unwrap().unwrap().leader.unwrap().lease, 2);
    let key = lock(&app, "m", 1).await;
    check(key, DENIED);
    let key = lock(&app, "k", 1).await.unwrap();
    let unlock = |key: &[u8]| {
        app.request(UnlockRequest {
            key: key.to_vec().into(),
        })
    };
    locks().unlock(unlock(&key)).await.unwrap();

    for name in ["b", "p", "zz"] {
        check(campaign(&app, name, 1).await, DENIED);
        check(lock(&app, name, 1).await, DENIED);
        let leader = LeaderKey {
            name: name.into(),
            key: format!("{name}/1").into(),
            rev: 2,
            lease: 1,
        };
        check(election().proclaim(proclaim(&leader)).await, DENIED);
        check(election().resign(resign(&leader)).await, DENIED);
        let unlocked = locks().unlock(unlock(&leader.key)).await;
        let observed = election().observe(observe(name)).await.map(|_| ());
        let asked = election().leader(observe(name)).await.map(|_| ());
        if name == "b" {
            observed.unwrap();
            check(asked, (Code::Unknown, "election: no leader"));
        } else {
            check(observed, DENIED);
            check(asked, DENIED);
        }
        if name == "p" {
            unlocked.unwrap();
        } else {
            check(unlocked, DENIED);
        }
    }
    // Nothing came of all that, and nobody may do any of it.
    let found = root.range("a", "\0", false).await.unwrap().into_inner();
    let keys: Vec<_> = found.kvs.iter().map(|kv| &*kv.key).collect();
    assert_eq!(keys, [b"l/2"]);
    check(campaign(&nobody, "l", 1).await, NOBODY_RECIPE);
    check(lock(&nobody, "l", 1).await, NOBODY_RECIPE);
    let mut election = ElectionClient::new(nobody.channel.clone());
    let name = || LeaderRequest { name: "l".into() };
    check(election.leader(name()).await, NOBODY_RECIPE);
    check(election.observe(name()).await.map(|_| ()), NOBODY_RECIPE);
    let stranger = app.with_token("made.up");
    check(campaign(&stranger, "l", 1).await, BAD_TOKEN);
    check(lock(&stranger, "l", 1).await, BAD_TOKEN);
}

/// One answer of the gateway over plain HTTP.
async fn post(cluster: &Cluster, fields: &str, path: &str, body: &str) -> (u16, String) {
    let address = cluster.configs[0].client_listen;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = request(path, fields, body);
    stream.write_all(request.as_bytes()).await.unwrap();
    answer_of(stream).await
}

const READ_B: (&str, &str) = ("/v3/kv/range", r#"{"key":"Yg=="}"#);
const READ_P: (&str, &str) = ("/v3/kv/range", r#"{"key":"cA=="}"#);

fn refusal((code, text): (Code, &str)) -> String {
    let code = i32::from(code);
    format!(r#"{{"error":"{text}","message":"{text}","code":{code}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_gateway_names_its_user_there_and_over_grpc() {
    let cluster = start(1).await;
    let nobody = User::nobody(&cluster, 0).await;
    set_up(&nobody).await;
    let ask =
        async |fields: &str, (path, body): (&str, &str)| post(&cluster, fields, path, body).await;
    let wrong = r#"{"name":"app","password":"wrong"}"#;
    let (status, said) = ask("", ("/v3/auth/authenticate", wrong)).await;
    assert_eq!(status, 400, "{said}");
    assert!(
        said.contains("authentication failed, invalid user ID or password"),
        "{said}"
    );
    let right = r#"{"name":"app","password":"apppw"}"#;
    let (status, said) = ask("", ("/v3/auth/authenticate", right)).await;
    assert_eq!(status, 200, "{said}");
    let token = field(&said, "token");
    for fields in [
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\n"),
    ] {
        let (status, said) = ask(&fields, READ_B).await;
        assert_eq!(status, 200, "{said}");
        assert_eq!(ask(&fields, READ_P).await, (403, refusal(DENIED)));
        // A stream, and a recipe: `l` is `bA==`.
        let (status, said) = ask(&fields, ("/v3/lease/grant", r#"{"TTL":600}"#)).await;
        assert_eq!(status, 200, "{said}");
        let campaign = format!(r#"{{"name":"bA==","lease":"{}"}}"#, field(&said, "ID"));
        let (status, said) = ask(&fields, ("/v3/election/campaign", &campaign)).await;
        assert_eq!(status, 200, "{said}");
        let (_, leader) = said.split_once("\"leader\":").unwrap();
        let resign = format!("{{\"leader\":{leader}");
        let (status, said) = ask(&fields, ("/v3/election/resign", &resign)).await;
        assert_eq!(status, 200, "{said}");
        let (status, said) = ask(&fields, ("/v3/lock/lock", r#"{"name":"cA=="}"#)).await;
        assert_eq!((status, said), (403, refusal(DENIED)));
    }
    assert_eq!(ask("", READ_B).await, (400, refusal(NOBODY)));
    let garbage = "Authorization: made.up\r\n";
    assert_eq!(ask(garbage, READ_B).await, (401, refusal(BAD_TOKEN)));
    let app = nobody.with_token(token);
    app.get("b").await.unwrap();
    check(app.get("p").await, DENIED);
}

/// The gateway's answer to a client with a certificate.
async fn post_tls(
    cluster: &Cluster,
    ca: &std::path::Path,
    files: &TlsFiles,
    fields: &str,
    (path, body): (&str, &str),
) -> (u16, String) {
    let mut roots = rustls::RootCertStore::empty();
    for ca in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(ca.unwrap()).unwrap();
    }
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let address = cluster.configs[0].client_listen;
    let name = ServerName::from(address.ip());
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = TcpStream::connect(address).await.unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    let request = request(path, fields, body);
    stream.write_all(request.as_bytes()).await.unwrap();
    answer_of(stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_common_name_of_a_certificate_is_the_user_unless_a_token_says_otherwise() {
    let authority = Authority::new("Test CA");
    let cluster = Cluster::start_with(1, |config| {
        let hosts = [config.client_listen.ip().to_string()];
        config.client_tls = Some(authority.issue(&config.name, &hosts));
        config.key_space = KeySpaceConfig {
            bcrypt_cost: 4,
            ..KeySpaceConfig::default()
        };
    })
    .await;
    cluster.leader().await;
    let address = cluster.configs[0].client_listen.to_string();
    let files = |name: &str| authority.issue(name, &["client".to_owned()]);
    let user = async |name: &str| {
        let options = options(&authority.ca(), Some(&files(name)));
        let client = ApiClient::connect(&address, &options).await.unwrap();
        User {
            channel: client.channel(),
            token: None,
        }
    };
    let root = user("root").await;
    set_up(&root).await;
    let app = user("app").await;
    let stranger = user("stranger").await;

    for key in ["b", "p"] {
        root.put(put(key)).await.unwrap();
    }
    let names = AuthClient::new(root.channel.clone())
        .user_list(pb::AuthUserListRequest {})
        .await;
    assert_eq!(names.unwrap().into_inner().users, ["app", "root"]);
    app.get("b").await.unwrap();
    app.put(put("p")).await.unwrap();
    check(app.get("p").await, DENIED);
    check(app.put(put("b")).await, DENIED);
    check(app.add_user("new", "pw").await, DENIED);
    check(stranger.get("b").await, DENIED);
    check(stranger.put(put("p")).await, DENIED);
    let created = Watching::open(&app).await.create("b", "", 0).await;
    assert!(!created.canceled, "{created:?}");
    check_refused(
        &Watching::open(&stranger).await.create("b", "", 0).await,
        WATCH_DENIED,
    );
    app.grant_lease(1).await.unwrap();
    campaign(&app, "l", 1).await.unwrap();
    check(campaign(&app, "p", 1).await, DENIED);

    // A token says more than a certificate, the right one and the wrong one.
    let as_root = stranger.log_in("root", "rootpw").await.unwrap();
    as_root.get("p").await.unwrap();
    check(root.with_token("made.up").get("p").await, BAD_TOKEN);

    // And all of that through the gateway.
    let ask = async |name: &str, fields: &str, what: (&str, &str)| {
        post_tls(&cluster, &authority.ca(), &files(name), fields, what).await
    };
    let (status, said) = ask("app", "", READ_B).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(ask("app", "", READ_P).await, (403, refusal(DENIED)));
    assert_eq!(ask("stranger", "", READ_B).await, (403, refusal(DENIED)));
    let token = format!("Authorization: {}\r\n", as_root.token.unwrap());
    let (status, said) = ask("stranger", &token, READ_P).await;
    assert_eq!(status, 200, "{said}");
    // The right is looked up with each call.
    root.grant("mixed", Type::Read, "p", "").await.unwrap();
    app.get("p").await.unwrap();
}
