//! Users, roles and tokens of etcd's API on real servers, through generated clients.

use quorate_server::config::KeySpaceConfig;
use quorate_wire::etcd::authpb;
use quorate_wire::etcd::authpb::permission::Type;
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::auth_client::AuthClient;
use quorate_wire::etcd::etcdserverpb::kv_client::KvClient;
use quorate_wire::etcd::etcdserverpb::lease_client::LeaseClient;
use quorate_wire::etcd::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::support::Cluster;

pub(crate) const NOBODY: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
pub(crate) const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
pub(crate) const BAD_TOKEN: (Code, &str) =
    (Code::Unauthenticated, "etcdserver: invalid auth token");
const FAILED: (Code, &str) = (
    Code::InvalidArgument,
    "etcdserver: authentication failed, invalid user ID or password",
);

/// The clients of one server, on behalf of whoever the token names.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) channel: Channel,
    pub(crate) token: Option<String>,
}

impl User {
    pub(crate) async fn nobody(cluster: &Cluster, at: usize) -> Self {
        let address = format!("http://{}", cluster.configs[at].client_listen);
        let channel = Channel::from_shared(address).unwrap();
        Self {
            channel: channel.connect().await.unwrap(),
            token: None,
        }
    }

    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self {
            channel: self.channel.clone(),
            token: Some(token.to_owned()),
        }
    }

    pub(crate) async fn log_in(&self, name: &str, password: &str) -> Result<Self, Status> {
        let request = pb::AuthenticateRequest {
            name: name.to_owned(),
            password: password.to_owned(),
        };
        let answer = self.auth().authenticate(request).await?.into_inner();
        Ok(self.with_token(&answer.token))
    }

    pub(crate) fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            let token = token.parse().unwrap();
            request.metadata_mut().insert("token", token);
        }
        request
    }

    pub(crate) async fn put(
        &self,
        put: pb::PutRequest,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let mut kv = KvClient::new(self.channel.clone());
        kv.put(self.request(put)).await
    }

    pub(crate) async fn range(
        &self,
        key: &'static str,
        range_end: &'static str,
        serializable: bool,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let range = pb::RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            serializable,
            ..Default::default()
        };
        let mut kv = KvClient::new(self.channel.clone());
        kv.range(self.request(range)).await
    }

    pub(crate) async fn get(
        &self,
        key: &'static str,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        self.range(key, "", false).await
    }

    pub(crate) async fn delete(
        &self,
        key: &'static str,
        range_end: &'static str,
        prev_kv: bool,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let delete = pb::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            prev_kv,
        };
        let mut kv = KvClient::new(self.channel.clone());
        kv.delete_range(self.request(delete)).await
    }

    pub(crate) async fn txn(
        &self,
        txn: pb::TxnRequest,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let mut kv = KvClient::new(self.channel.clone());
        kv.txn(self.request(txn)).await
    }

    pub(crate) async fn add_user(&self, name: &str, password: &str) -> Result<(), Status> {
        let request = pb::AuthUserAddRequest {
            name: name.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        self.auth().user_add(self.request(request)).await?;
        Ok(())
    }

    pub(crate) async fn change_password(&self, name: &str, password: &str) -> Result<(), Status> {
        let request = pb::AuthUserChangePasswordRequest {
            name: name.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        };
        self.auth()
            .user_change_password(self.request(request))
            .await?;
        Ok(())
    }

    pub(crate) async fn add_role(&self, name: &str) -> Result<(), Status> {
        let name = name.to_owned();
        let request = self.request(pb::AuthRoleAddRequest { name });
        self.auth().role_add(request).await?;
        Ok(())
    }

    pub(crate) async fn grant(
        &self,
        role: &str,
        access: Type,
        key: &'static str,
        range_end: &'static str,
    ) -> Result<(), Status> {
        let request = pb::AuthRoleGrantPermissionRequest {
            name: role.to_owned(),
            perm: Some(authpb::Permission {
                perm_type: access.into(),
                key: key.into(),
                range_end: range_end.into(),
            }),
        };
        self.auth()
            .role_grant_permission(self.request(request))
            .await?;
        Ok(())
    }

    pub(crate) async fn grant_role(&self, user: &str, role: &str) -> Result<(), Status> {
        let request = pb::AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        };
        self.auth().user_grant_role(self.request(request)).await?;
        Ok(())
    }

    pub(crate) async fn enable(&self) -> Result<(), Status> {
        let request = self.request(pb::AuthEnableRequest {});
        self.auth().auth_enable(request).await?;
        Ok(())
    }

    pub(crate) async fn disable(&self) -> Result<(), Status> {
        let request = self.request(pb::AuthDisableRequest {});
        self.auth().auth_disable(request).await?;
        Ok(())
    }

    pub(crate) async fn status(&self) -> Result<pb::AuthStatusResponse, Status> {
        let request = self.request(pb::AuthStatusRequest {});
        Ok(self.auth().auth_status(request).await?.into_inner())
    }

    pub(crate) async fn grant_lease(
        &self,
        id: i64,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let mut lease = LeaseClient::new(self.channel.clone());
        let request = self.request(pb::LeaseGrantRequest { ttl: 600, id });
        lease.lease_grant(request).await
    }

    pub(crate) async fn revoke_lease(
        &self,
        id: i64,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let mut lease = LeaseClient::new(self.channel.clone());
        let request = self.request(pb::LeaseRevokeRequest { id });
        lease.lease_revoke(request).await
    }
}

pub(crate) fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest {
        key: key.into(),
        value: "v".into(),
        ..Default::default()
    }
}

fn put_op(put: pb::PutRequest) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(pb::request_op::Request::RequestPut(put)),
    }
}

#[track_caller]
pub(crate) fn check<T: std::fmt::Debug>(result: Result<T, Status>, (code, text): (Code, &str)) {
    let status = result.expect_err("it was not refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

/// Cheap hashes: the tests are not about their strength.
pub(crate) async fn start(count: usize) -> Cluster {
    let cheap = KeySpaceConfig {
        bcrypt_cost: 4,
        ..KeySpaceConfig::default()
    };
    let cluster = Cluster::start_with(count, |config| config.key_space = cheap).await;
    cluster.leader().await;
    cluster
}

/// `root`, and `app`, which may read a..m and write k..z; users are distinguished from here on.
pub(crate) async fn set_up(nobody: &User) -> User {
    nobody.add_user("root", "rootpw").await.unwrap();
    nobody.grant_role("root", "root").await.unwrap();
    nobody.add_user("app", "apppw").await.unwrap();
    nobody.add_role("mixed").await.unwrap();
    nobody.grant("mixed", Type::Read, "a", "m").await.unwrap();
    nobody.grant("mixed", Type::Write, "k", "z").await.unwrap();
    nobody.grant_role("app", "mixed").await.unwrap();
    nobody.enable().await.unwrap();
    nobody.log_in("root", "rootpw").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn users_may_what_their_roles_say_and_nobody_may_anything() {
    let cluster = start(1).await;
    let nobody = User::nobody(&cluster, 0).await;
    check(
        nobody.log_in("root", "rootpw").await.map(|_| ()),
        (
            Code::FailedPrecondition,
            "etcdserver: authentication is not enabled",
        ),
    );
    check(
        nobody.enable().await,
        (
            Code::FailedPrecondition,
            "etcdserver: root user does not exist",
        ),
    );
    assert!(!nobody.status().await.unwrap().enabled);
    let root = set_up(&nobody).await;
    let app = nobody.log_in("app", "apppw").await.unwrap();
    assert!(root.status().await.unwrap().enabled);
    for wrong in [("app", "rootpw"), ("app", ""), ("ghost", "apppw"), ("", "")] {
        check(nobody.log_in(wrong.0, wrong.1).await.map(|_| ()), FAILED);
    }

    for key in ["b", "l", "p", "zz"] {
        root.put(put(key)).await.unwrap();
        check(nobody.put(put(key)).await, NOBODY);
        check(nobody.get(key).await, NOBODY);
    }
    check(app.status().await.map(|_| ()), DENIED);
    check(app.add_user("new", "pw").await, DENIED);
    check(nobody.add_user("new", "pw").await, NOBODY);
    check(root.with_token("made.up").get("b").await, BAD_TOKEN);

    app.get("b").await.unwrap();
    app.range("a", "m", true).await.unwrap();
    check(app.range("a", "n", true).await, DENIED);
    check(app.range("a", "\0", false).await, DENIED);
    check(app.get("p").await, DENIED);
    app.put(put("p")).await.unwrap();
    check(app.put(put("b")).await, DENIED);
    let with_prev = |key| pb::PutRequest {
        prev_kv: true,
        ..put(key)
    };
    check(app.put(with_prev("p")).await, DENIED);
    app.put(with_prev("l")).await.unwrap();
    check(app.delete("k", "z", true).await, DENIED);
    app.delete("x", "z", false).await.unwrap();
    check(app.delete("b", "", false).await, DENIED);

    let txn = |key, compared: &'static str| pb::TxnRequest {
        compare: vec![pb::Compare {
            key: compared.into(),
            ..Default::default()
        }],
        failure: vec![put_op(put(key))],
        ..Default::default()
    };
    app.txn(txn("p", "b")).await.unwrap();
    check(app.txn(txn("p", "p")).await, DENIED);
    check(app.txn(txn("b", "b")).await, DENIED);
    let nested = pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(pb::request_op::Request::RequestTxn(txn("b", "b"))),
        }],
        ..Default::default()
    };
    check(app.txn(nested).await, DENIED);
    let reads = |key: &'static str| {
        let range = pb::RangeRequest {
            key: key.into(),
            ..Default::default()
        };
        pb::TxnRequest {
            success: vec![pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(range)),
            }],
            ..Default::default()
        }
    };
    app.txn(reads("b")).await.unwrap();
    check(app.txn(reads("p")).await, DENIED);

    let mut maintenance = MaintenanceClient::new(app.channel.clone());
    let request = app.request(pb::SnapshotRequest {});
    check(maintenance.snapshot(request).await.map(|_| ()), DENIED);
    let request = app.request(pb::HashRequest {});
    check(maintenance.hash(request).await, DENIED);

    check(app.disable().await, DENIED);
    root.disable().await.unwrap();
    nobody.get("p").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_for_those_who_may_write_its_keys() {
    let cluster = start(1).await;
    let nobody = User::nobody(&cluster, 0).await;
    let root = set_up(&nobody).await;
    let app = nobody.log_in("app", "apppw").await.unwrap();
    check(nobody.grant_lease(7).await, NOBODY);
    app.grant_lease(7).await.unwrap();
    app.grant_lease(8).await.unwrap();
    let on = |key, lease| pb::PutRequest { lease, ..put(key) };
    root.put(on("b", 7)).await.unwrap();
    check(app.put(on("p", 7)).await, DENIED);
    check(app.revoke_lease(7).await, DENIED);
    check(nobody.revoke_lease(8).await, NOBODY);
    app.put(on("p", 8)).await.unwrap();
    app.revoke_lease(8).await.unwrap();
    root.revoke_lease(7).await.unwrap();
    let left = root.range("a", "z", false).await.unwrap().into_inner();
    assert_eq!(left.count, 0, "the keys went with their leases");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_on_every_server_and_until_the_password_changes() {
    let mut cluster = start(3).await;
    let first = User::nobody(&cluster, 0).await;
    let root = set_up(&first).await;
    let app = first.log_in("app", "apppw").await.unwrap();
    for at in [1, 2] {
        let there = User::nobody(&cluster, at).await;
        let there = there.with_token(app.token.as_ref().unwrap());
        there.get("b").await.unwrap();
        there.put(put("p")).await.unwrap();
    }
    // Rights are looked up with each call: a change of them voids no token, and nobody has to authenticate again.
    root.add_role("other").await.unwrap();
    app.put(put("p")).await.unwrap();
    root.grant("mixed", Type::Read, "p", "").await.unwrap();
    app.get("p").await.unwrap();

    cluster.kill(0);
    cluster.leader().await;
    cluster.restart(0);
    cluster.leader().await;
    let restarted = User::nobody(&cluster, 0).await;
    let app = restarted.with_token(app.token.as_ref().unwrap());
    let root = restarted.with_token(root.token.as_ref().unwrap());
    app.get("b").await.unwrap();

    root.change_password("app", "other").await.unwrap();
    check(app.get("b").await, BAD_TOKEN);
    check(app.put(put("p")).await, BAD_TOKEN);
    check(restarted.log_in("app", "apppw").await.map(|_| ()), FAILED);
    let app = restarted.log_in("app", "other").await.unwrap();
    app.get("b").await.unwrap();

    root.disable().await.unwrap();
    restarted.enable().await.unwrap();
    check(app.get("b").await, BAD_TOKEN);
}
