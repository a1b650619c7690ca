//! TLS on the client port, mutual TLS between servers, and who a certificate names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_server::config::TlsFiles;
use quorate_server::{Server, StartError};
use quorate_wire::api::{ApiErrorKind, Freshness};
use quorate_wire::{ApiClient, ClientIdentity, ClientTls, ConnectOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::*;

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for a common name, valid at every address a test may use.
    pub(crate) fn issue(&self, name: &str, hosts: &[String]) -> TlsFiles {
        let mut params = CertificateParams::new(hosts.to_vec()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.dir.path().join(format!("{name}.{ending}"));
        std::fs::write(path("crt"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        TlsFiles {
            cert: path("crt"),
            key: path("key"),
            ca: Some(self.ca()),
        }
    }
}

pub(crate) fn options(ca: &Path, identity: Option<&TlsFiles>) -> ConnectOptions {
    let read = |path: &Path| std::fs::read(path).unwrap();
    let identity = identity.map(|files| ClientIdentity {
        cert_pem: read(&files.cert),
        key_pem: read(&files.key),
    });
    ConnectOptions {
        tls: Some(ClientTls {
            ca_pem: read(ca),
            identity,
            server_name: None,
        }),
        ..ConnectOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_mutual_tls_only_known_servers_and_clients_take_part() {
    let authority = Authority::new("Test CA");
    let cluster = Cluster::start_with(3, |config| {
        let hosts = [config.client_listen.ip().to_string()];
        let files = authority.issue(&config.name, &hosts);
        config.client_tls = Some(files.clone());
        config.peer_tls = Some(files);
    })
    .await;
    let leader = cluster.leader().await;
    let address = cluster.configs[leader].client_listen.to_string();

    let known = authority.issue("node-7", &["client".to_owned()]);
    let client = ApiClient::connect(&address, &options(&authority.ca(), Some(&known)))
        .await
        .unwrap();
    create_names(&client, &names("a", 2)).await;
    let mut node = Node::open(&client, "n1", 3_000).await;
    node.contend(&names("a", 2)).await.unwrap();
    let told = node.until("both led", |told| told.leads() == 2).await;

    // Another client may not go on with this one's session.
    let other = authority.issue("node-8", &["client".to_owned()]);
    let thief = ApiClient::connect(&address, &options(&authority.ca(), Some(&other)))
        .await
        .unwrap();
    let stolen = Node::stream(&thief, resume(&told), Duration::from_secs(1))
        .await
        .unwrap();
    let refused = stolen
        .until("the refusal", |told| told.refused.is_some())
        .await
        .refused
        .unwrap();
    assert_eq!(refused.kind, ApiErrorKind::PermissionDenied);
    assert!(
        refused.message.contains("node-7") && refused.message.contains("node-8"),
        "{refused}"
    );

    // Without a certificate, with a stranger's, and without TLS at all.
    let strangers = Authority::new("Other CA");
    let strange = strangers.issue("node-7", &["client".to_owned()]);
    let plain = ConnectOptions::default();
    for bad in [
        options(&authority.ca(), None),
        options(&authority.ca(), Some(&strange)),
        plain,
    ] {
        let tried = match ApiClient::connect(&address, &bad).await {
            Ok(client) => client
                .list_nodes(Freshness::default(), Duration::from_secs(3))
                .await
                .map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(tried.is_err());
    }
    // A client that does not trust the server's authority.
    let distrusts = ApiClient::connect(&address, &options(&strangers.ca(), Some(&known))).await;
    assert!(distrusts.is_err());
    let peers = cluster.server(leader).metrics_text();
    assert_eq!(metric(&peers, "quorate_peer_connections"), 6.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_strange_certificate_is_not_let_in() {
    let (authority, strangers) = (Authority::new("Test CA"), Authority::new("Other CA"));
    let cluster = Cluster::start_with(3, |config| {
        let hosts = [config.client_listen.ip().to_string()];
        let issuer = if config.name == "s3" {
            &strangers
        } else {
            &authority
        };
        config.peer_tls = Some(issuer.issue(&config.name, &hosts));
    })
    .await;
    let outcast = cluster.server(2);
    eventually("a leader of the other two", || {
        let leader = cluster.server(0).role_view().leader?;
        (cluster.server(1).role_view().leader == Some(leader)).then_some(())
    })
    .await;
    create_names(&cluster.client(0).await, &names("a", 1)).await;
    eventually("the refusal", || {
        cluster
            .server(0)
            .metrics_text()
            .contains("quorate_peer_refused_total{reason=\"tls\"}")
            .then_some(())
    })
    .await;
    assert_eq!(outcast.role_view().leader, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_broken_certificate_is_named() {
    let cluster = Cluster::start(1).await;
    let mut config = cluster.configs[0].clone();
    config.client_listen.set_port(0);
    config.peer_listen.set_port(0);
    let broken = cluster.dir.path().join("broken.pem");
    std::fs::write(&broken, "no certificate").unwrap();
    config.client_tls = Some(TlsFiles {
        cert: broken.clone(),
        key: broken,
        ca: None,
    });
    let error = Server::start(&config).unwrap_err();
    assert!(
        matches!(error, StartError::Tls { port: "client", .. }),
        "{error:?}"
    );
    config.client_tls = Some(TlsFiles {
        cert: "/none".into(),
        key: "/none".into(),
        ca: None,
    });
    let error = Server::start(&config).unwrap_err();
    assert!(matches!(error, StartError::Tls { .. }), "{error:?}");
}
