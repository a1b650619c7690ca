//! Status codes tell the truth: what each write through etcd's API was answered with, against the history of the key space, while
//! leaders are killed with -9, leases are revoked, and rights and passwords change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate_client::kv::pb::EventType;
use quorate_client::kv::{Kv, KvWatchEvent, WatchOptions};
use quorate_client::{Client, ClientOptions, KeyRange};
use quorate_wire::etcd::authpb;
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::auth_client::AuthClient;
use quorate_wire::etcd::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcd::etcdserverpb::lease_client::LeaseClient;
use quorate_wire::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::harness::Cluster;
use crate::servers::{Servers, is_broken};

/// Writers at each server.
const WRITERS: usize = 6;
/// How long they write before a leader is killed, and after.
const PHASE: Duration = Duration::from_millis(1_500);
/// The lease that is granted and revoked all the time.
const LEASE: i64 = 77;

/// What must have been met.
const KINDS: [&str; 9] = [
    "Applied",
    "Not",
    "Refused(InvalidArgument)",
    "Refused(NotFound)",
    "Refused(OutOfRange)",
    "Refused(PermissionDenied)",
    "Refused(ResourceExhausted)",
    "Refused(Unauthenticated)",
    "Unknown",
];

/// What a write was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// Applied, at this revision.
    Applied(i64),
    /// The conditions did not hold.
    Not(i64),
    /// Refused, for certain.
    Refused(Code),
    /// It may have been applied, or may yet be.
    Unknown,
}

impl Told {
    fn kind(self) -> String {
        match self {
            Self::Applied(_) => "Applied".to_owned(),
            Self::Not(_) => "Not".to_owned(),
            told => format!("{told:?}"),
        }
    }

    fn refused(status: &Status) -> Self {
        match status.code() {
            // No server said anything, so nothing is known.
            _ if is_broken(status) => Self::Unknown,
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Self::Unknown,
            code @ (Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented) => Self::Refused(code),
            other => panic!("a write is never answered with {other:?}: {status:?}"),
        }
    }
}

fn revision(header: &Option<pb::ResponseHeader>) -> i64 {
    header.as_ref().expect("every answer has a header").revision
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let token = token.parse().expect("tokens are text");
    request.metadata_mut().insert("token", token);
    request
}

fn put(key: impl Into<String>, value: &str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

fn put_op(put: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put)),
    }
}

/// A write that puts `value`, which nobody else puts, if it puts anything. Each kind meets a refusal of its own.
fn operation(n: usize, value: &str) -> pb::TxnRequest {
    let plain = |key: &str| put_op(put(key, value));
    let success = match n % 8 {
        // Refused when it is applied: there may be no such lease.
        0 | 1 => vec![put_op(pb::PutRequest {
            lease: LEASE,
            ..put("leased", value)
        })],
        // Refused when it is applied, after another put of the same transaction that alone would not be.
        2 => vec![
            plain("first"),
            put_op(pb::PutRequest {
                ignore_value: true,
                ..put("never there", "")
            }),
        ],
        // The same, after one that was.
        7 => vec![
            plain("second"),
            pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
                    key: "second".into(),
                    revision: i64::MAX,
                    ..Default::default()
                })),
            },
        ],
        // Refused before the log.
        3 => vec![plain("twice"), plain("twice")],
        4 => vec![plain("/quorate/mine")],
        _ => vec![plain("key"), put_op(put(format!("key/{}", n % 5), value))],
    };
    // A key that two writers want: one of them is told that it came too late.
    let compare = match n % 8 {
        6 => vec![pb::Compare {
            result: pb::compare::CompareResult::Equal.into(),
            target: pb::compare::CompareTarget::Version.into(),
            key: format!("race/{n}").into(),
            target_union: Some(pb::compare::TargetUnion::Version(0)),
            ..Default::default()
        }],
        _ => Vec::new(),
    };
    let mut success = success;
    if n % 8 == 6 {
        success.push(plain(&format!("race/{n}")));
    }
    pb::TxnRequest {
        compare,
        success,
        failure: Vec::new(),
    }
}

/// When to stop, and what kinds of answers were met.
#[derive(Default)]
struct Run {
    stop: AtomicBool,
    met: Mutex<BTreeSet<String>>,
}

impl Run {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, told: Told) {
        self.met.lock().unwrap().insert(told.kind());
    }

    fn missing(&self) -> Vec<&'static str> {
        let met = self.met.lock().unwrap();
        let missing = KINDS.into_iter().filter(|kind| !met.contains(*kind));
        missing.collect()
    }
}

/// Writes at one server until told to stop.
async fn write(
    channel: Channel,
    name: String,
    token: String,
    run: Arc<Run>,
) -> Vec<(String, Told)> {
    let mut kv = KvClient::new(channel);
    let mut told = Vec::new();
    for n in 0.. {
        if run.is_over() {
            break;
        }
        let value = format!("{name}/{n}");
        let answered = kv.txn(with_token(operation(n, &value), &token)).await;
        let answer = match answered.map(tonic::Response::into_inner) {
            Ok(answer) if answer.succeeded => Told::Applied(revision(&answer.header)),
            Ok(answer) => Told::Not(revision(&answer.header)),
            Err(status) => Told::refused(&status),
        };
        if answer == Told::Unknown {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        run.note(answer);
        told.push((value, answer));
    }
    told
}

/// The same as a user whose rights come and go, and whose password changes.
async fn write_as_user(
    servers: Servers,
    at: usize,
    name: String,
    run: Arc<Run>,
) -> Vec<(String, Told)> {
    let mut kv = KvClient::new(servers.channel(at));
    let mut told = Vec::new();
    let mut token = log_in(&servers, at, "user").await;
    for n in 0.. {
        if run.is_over() {
            break;
        }
        let value = format!("{name}/{n}");
        let answered = kv.put(with_token(put("user/key", &value), &token)).await;
        let answer = match answered {
            Ok(answer) => Told::Applied(revision(&answer.into_inner().header)),
            Err(status) => Told::refused(&status),
        };
        match answer {
            Told::Refused(Code::Unauthenticated) => token = log_in(&servers, at, "user").await,
            Told::Unknown => tokio::time::sleep(Duration::from_millis(20)).await,
            _ => {}
        }
        run.note(answer);
        told.push((value, answer));
    }
    told
}

/// A token; the password is one of two.
async fn log_in(servers: &Servers, at: usize, name: &str) -> String {
    let begun = Instant::now();
    for password in ["one", "two"].into_iter().cycle() {
        let call = |channel| async move {
            let request = pb::AuthenticateRequest {
                name: name.to_owned(),
                password: password.to_owned(),
            };
            AuthClient::new(channel).authenticate(request).await
        };
        match servers.ask(at, call).await {
            Ok(answer) => return answer.token,
            Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{status:?}"),
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{name} never got a token"
        );
    }
    unreachable!("the passwords go round")
}

/// Sets up `root`, and `user` with a role that so far may do nothing.
async fn set_up_users(servers: &Servers) {
    // Once somebody who is asked has served, that server knows the leader.
    let at = servers.serving().await;
    let auth = || AuthClient::new(servers.channel(at));
    for name in ["root", "user"] {
        let request = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: "one".to_owned(),
            ..Default::default()
        };
        auth().user_add(request).await.unwrap();
    }
    for (user, role) in [("root", "root"), ("user", "comes and goes")] {
        let name = role.to_owned();
        // The role `root` may be there already.
        let _ = auth().role_add(pb::AuthRoleAddRequest { name }).await;
        let request = pb::AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        };
        auth().user_grant_role(request).await.unwrap();
    }
    auth().auth_enable(pb::AuthEnableRequest {}).await.unwrap();
}

/// Gives the right to write and takes it back, changes the password now and then.
async fn change_rights(servers: Servers, at: usize, root: String, run: Arc<Run>) {
    for n in 0_usize.. {
        if run.is_over() {
            return;
        }
        let root = &root;
        let give = |channel| async move {
            let request = pb::AuthRoleGrantPermissionRequest {
                name: "comes and goes".to_owned(),
                perm: Some(authpb::Permission {
                    perm_type: authpb::permission::Type::Write.into(),
                    key: "user/key".into(),
                    ..Default::default()
                }),
            };
            AuthClient::new(channel)
                .role_grant_permission(with_token(request, root))
                .await
        };
        let take = |channel| async move {
            let request = pb::AuthRoleRevokePermissionRequest {
                role: "comes and goes".to_owned(),
                key: "user/key".into(),
                ..Default::default()
            };
            AuthClient::new(channel)
                .role_revoke_permission(with_token(request, root))
                .await
        };
        let change = |channel| async move {
            let request = pb::AuthUserChangePasswordRequest {
                name: "user".to_owned(),
                password: ["two", "one"][n / 10 % 2].to_owned(),
                ..Default::default()
            };
            AuthClient::new(channel)
                .user_change_password(with_token(request, root))
                .await
        };
        // That it was taken by an earlier attempt is as good.
        let _ = servers.ask(at, give).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        let _ = servers.ask(at, take).await;
        if n % 10 == 0 {
            let _ = servers.ask(at, change).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Grants the lease and revokes it; says that there is no space, and that there is again.
async fn change_lease(servers: Servers, at: usize, root: String, run: Arc<Run>) {
    for n in 0_usize.. {
        if run.is_over() {
            return;
        }
        let root = &root;
        let grant = |channel| async move {
            let request = pb::LeaseGrantRequest {
                ttl: 600,
                id: LEASE,
            };
            LeaseClient::new(channel)
                .lease_grant(with_token(request, root))
                .await
        };
        let revoke = |channel| async move {
            let request = pb::LeaseRevokeRequest { id: LEASE };
            LeaseClient::new(channel)
                .lease_revoke(with_token(request, root))
                .await
        };
        let alarm = async |action: pb::alarm_request::AlarmAction| {
            let call = |channel| async move {
                let request = pb::AlarmRequest {
                    action: action.into(),
                    member_id: 0,
                    alarm: pb::AlarmType::Nospace.into(),
                };
                let request = with_token(request, root);
                MaintenanceClient::new(channel).alarm(request).await
            };
            servers.ask(at, call).await.expect("root may do that");
        };
        let _ = servers.ask(at, grant).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let _ = servers.ask(at, revoke).await;
        if n % 10 == 9 {
            alarm(pb::alarm_request::AlarmAction::Activate).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            alarm(pb::alarm_request::AlarmAction::Deactivate).await;
        }
    }
}

/// Every put since the beginning: by value, at which revisions.
async fn history(kv: &Kv) -> HashMap<String, Vec<i64>> {
    let end = kv.put("end", "end").await.expect("the servers serve");
    let options = WatchOptions {
        start_revision: 2,
        ..WatchOptions::of(KeyRange::all())
    };
    let mut watch = kv.watch(options).await.expect("the servers serve");
    let mut puts: HashMap<String, Vec<i64>> = HashMap::new();
    loop {
        let event = watch.next().await.expect("a watch goes on");
        let KvWatchEvent::Changes {
            events,
            next_revision,
        } = event.expect("nothing is compacted")
        else {
            continue;
        };
        for event in events {
            if event.r#type() == EventType::Put {
                let kv = event.kv.expect("an event has its key");
                let value = String::from_utf8(kv.value.to_vec()).expect("values are text");
                let revisions = puts.entry(value).or_default();
                // A transaction puts a value at several keys.
                if revisions.last() != Some(&kv.mod_revision) {
                    revisions.push(kv.mod_revision);
                }
            }
        }
        if next_revision > end {
            return puts;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_to_a_write_is_true_while_leaders_are_killed() {
    let flags = ["--bcrypt-cost", "4"];
    let mut cluster = tokio::task::block_in_place(|| Cluster::start_with(&flags));
    let servers = Servers::of(&cluster);
    set_up_users(&servers).await;
    let root = log_in(&servers, 0, "root").await;
    let run = Arc::<Run>::default();
    let mut writers = Vec::new();
    for at in 0..3 {
        for n in 0..WRITERS {
            let (channel, name) = (servers.channel(at), format!("root/{at}/{n}"));
            let writing = write(channel, name, root.clone(), Arc::clone(&run));
            writers.push(tokio::spawn(writing));
        }
        let name = format!("user/{at}");
        let writing = write_as_user(servers.clone(), at, name, Arc::clone(&run));
        writers.push(tokio::spawn(writing));
    }
    let changing = [
        tokio::spawn(change_rights(
            servers.clone(),
            1,
            root.clone(),
            Arc::clone(&run),
        )),
        tokio::spawn(change_lease(
            servers.clone(),
            2,
            root.clone(),
            Arc::clone(&run),
        )),
    ];
    // Two leaders, one after the other; each comes back.
    for _ in 0..2 {
        tokio::time::sleep(PHASE).await;
        let leader = cluster.leader().await;
        tokio::task::block_in_place(|| cluster.kill_server(leader));
        tokio::time::sleep(PHASE).await;
        tokio::task::block_in_place(|| cluster.start_server(leader));
    }
    tokio::time::sleep(PHASE).await;
    let begun = Instant::now();
    while !run.missing().is_empty() {
        let missing = run.missing();
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "never met: {missing:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run.stop.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for writer in writers {
        told.extend(writer.await.expect("no writer was told something untrue"));
    }
    for changing in changing {
        changing.await.unwrap();
    }

    let options = ClientOptions {
        timeout: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    let client = Client::lazy(cluster.endpoints(), options).unwrap();
    let puts = history(&client.kv().with_user("root", "one")).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut applied_unknown = 0;
    for (value, told) in &told {
        let found = puts.get(value).map_or(&[][..], Vec::as_slice);
        match told {
            Told::Applied(revision) => assert_eq!(found, [*revision], "{value}: {told:?}"),
            Told::Not(_) | Told::Refused(_) => assert!(
                found.is_empty(),
                "{value}: {told:?}, but it is at {found:?}"
            ),
            Told::Unknown => {
                assert!(found.len() <= 1, "{value} was applied twice: {found:?}");
                applied_unknown += found.len();
            }
        }
        *counts.entry(told.kind()).or_default() += 1;
    }
    println!(
        "{} writes: {counts:?}; of the unknown ones {applied_unknown} were applied",
        told.len()
    );
}
