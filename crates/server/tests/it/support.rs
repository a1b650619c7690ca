//! A cluster of real servers, a node, and a plain HTTP client.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quorate_server::config::{InitialMember, KeySpaceConfig, SnapshotConfig, TimingConfig};
use quorate_server::{Listeners, RunningServer, Server, ServerConfig};
use quorate_types::{
    ContractVersion, DirectiveSeq, DriftBound, GroupName, NodeName, ReplicaId, RequestId,
};
use quorate_wire::ApiClient;
use quorate_wire::api::{
    self, ApiError, ContenderSpec, CreateGroups, DirectiveKind, GroupSpec, Mutation, NodeDown,
    NodeSpec, NodeUp, Part, Report, SessionKey, TenureId,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Waits in tests end here: far beyond what any of them takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback address that no other test uses, so that ports of stopped servers stay free for their restart.
fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let n = u8::try_from(NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 2).unwrap();
    IpAddr::V4(Ipv4Addr::new(127, high.max(1), low, n))
}

/// Servers, some of them stopped.
pub(crate) struct Cluster {
    pub configs: Vec<ServerConfig>,
    pub servers: Vec<Option<RunningServer>>,
    pub dir: TempDir,
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Self {
        Self::start_with(count, |_| ()).await
    }

    /// Starts servers whose configurations were changed first.
    pub(crate) async fn start_with(count: usize, change: impl Fn(&mut ServerConfig)) -> Self {
        let dir = TempDir::new().unwrap();
        let address = own_address();
        let any = SocketAddr::new(address, 0);
        let bind = || std::net::TcpListener::bind(any).unwrap();
        let bound: Vec<_> = (0..count)
            .map(|_| Listeners {
                client: bind(),
                peer: bind(),
            })
            .collect();
        let members: Vec<_> = (1..)
            .zip(&bound)
            .map(|(id, listeners)| InitialMember {
                id: ReplicaId(id),
                name: format!("s{id}"),
                peer_address: listeners.peer.local_addr().unwrap().to_string(),
                client_address: listeners.client.local_addr().unwrap().to_string(),
            })
            .collect();
        let mut cluster = Self {
            configs: Vec::new(),
            servers: Vec::new(),
            dir,
        };
        for (member, listeners) in members.iter().zip(bound) {
            let mut config = ServerConfig {
                name: member.name.clone(),
                id: None,
                data_dir: cluster.dir.path().join(&member.name),
                client_listen: listeners.client.local_addr().unwrap(),
                peer_listen: listeners.peer.local_addr().unwrap(),
                initial_cluster: members.clone(),
                cluster_token: "test".to_owned(),
                client_tls: None,
                peer_tls: None,
                insecure: false,
                timing: TimingConfig {
                    heartbeat_interval: Duration::from_millis(50),
                    detection_timeout: Duration::from_millis(500),
                    election_jitter: Duration::from_millis(250),
                },
                snapshot: SnapshotConfig {
                    entries: 50_000,
                    retain: 10_000,
                },
                drift: DriftBound::default(),
                key_space: KeySpaceConfig::default(),
                shutdown_timeout: Duration::from_secs(5),
                log_filter: String::new(),
            };
            change(&mut config);
            cluster
                .servers
                .push(Some(Server::start_on(&config, listeners).unwrap()));
            cluster.configs.push(config);
        }
        cluster
    }

    pub(crate) fn server(&self, at: usize) -> &RunningServer {
        self.servers[at].as_ref().expect("the server runs")
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &RunningServer)> {
        self.servers
            .iter()
            .enumerate()
            .filter_map(|(at, server)| Some((at, server.as_ref()?)))
    }

    /// Stops a server at once, as a crash would.
    pub(crate) fn kill(&mut self, at: usize) {
        self.servers[at].take().expect("the server runs");
    }

    pub(crate) fn restart(&mut self, at: usize) {
        assert!(self.servers[at].is_none());
        self.servers[at] = Some(Server::start(&self.configs[at]).unwrap());
    }

    /// Waits until all running servers know the same leader, one of them.
    pub(crate) async fn leader(&self) -> usize {
        eventually("a leader", || {
            let standings: Vec<_> = self
                .running()
                .map(|(_, server)| server.role_view())
                .collect();
            let first = standings.first()?;
            let agreed = standings
                .iter()
                .all(|s| s.leader == first.leader && s.term == first.term);
            let leader = first.leader.filter(|_| agreed)?;
            self.running()
                .find(|(_, server)| server.id() == leader)
                .map(|(at, _)| at)
        })
        .await
    }

    pub(crate) async fn client(&self, at: usize) -> ApiClient {
        let address = self.configs[at].client_listen.to_string();
        ApiClient::connect(&address, &Default::default())
            .await
            .unwrap()
    }

    /// Waits until all running servers have applied the same and hold the same.
    pub(crate) async fn converge(&self) {
        eventually("the same state everywhere", || {
            let digests: Vec<_> = self.running().map(|(_, server)| server.digest()).collect();
            digests
                .iter()
                .all(|digest| *digest == digests[0])
                .then_some(())
        })
        .await;
    }
}

/// Looks again and again until there is something.
pub(crate) async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never saw {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn mutation() -> Mutation {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id =
        u128::from(std::process::id()) << 64 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    Mutation {
        request_id: RequestId(id),
        contract: api::CONTRACT,
    }
}

pub(crate) fn group(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

pub(crate) fn names(prefix: &str, count: usize) -> Vec<GroupName> {
    (0..count)
        .map(|n| group(&format!("{prefix}/{n:04}")))
        .collect()
}

/// Creates groups, again with the same request id while no leader is found.
pub(crate) async fn create(
    client: &ApiClient,
    groups: Vec<(GroupName, GroupSpec)>,
) -> Result<api::Done, ApiError> {
    let request = CreateGroups {
        mutation: mutation(),
        groups,
    };
    let begun = std::time::Instant::now();
    loop {
        match client.create_groups(request.clone(), TIMEOUT).await {
            Err(error) if error.kind.is_transient() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
}

pub(crate) async fn create_names(client: &ApiClient, names: &[GroupName]) -> api::Done {
    create(
        client,
        names
            .iter()
            .map(|name| (name.clone(), GroupSpec::default()))
            .collect(),
    )
    .await
    .unwrap()
}

/// What a node has been told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub session: Option<SessionKey>,
    pub kept_alive: u64,
    pub gone: bool,
    pub directive_seq: DirectiveSeq,
    pub parts: BTreeMap<TenureId, Part>,
    pub done: BTreeMap<u64, Result<api::RequestDone, ApiError>>,
    pub refused: Option<ApiError>,
    pub ended: bool,
}

/// A node: one stream, kept alive until it is dropped.
pub(crate) struct Node {
    up: mpsc::Sender<NodeUp>,
    pub told: watch::Receiver<Told>,
    request_seq: u64,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

pub(crate) fn open(name: &str, ttl_ms: u64) -> NodeUp {
    NodeUp::Open {
        request_id: mutation().request_id,
        ttl_ms,
        node: Some(NodeSpec::new(NodeName::new(name).unwrap())),
        contract_min: ContractVersion(1),
        contract_max: ContractVersion(1),
    }
}

pub(crate) fn resume(told: &Told) -> NodeUp {
    NodeUp::Resume {
        session: told.session.unwrap(),
        processed: told.directive_seq,
        contract_min: ContractVersion(1),
        contract_max: ContractVersion(1),
    }
}

impl Node {
    /// Starts a stream with its first message, and keeps the session alive every `interval`.
    pub(crate) async fn stream(
        client: &ApiClient,
        first: NodeUp,
        interval: Duration,
    ) -> Result<Self, ApiError> {
        let (up, receiver) = mpsc::channel(64);
        up.send(first).await.unwrap();
        let mut down = client.node(ReceiverStream::new(receiver)).await?;
        let (sender, told) = watch::channel(Told::default());
        let reader = tokio::spawn(async move {
            while let Some(message) = down.next().await {
                sender.send_modify(|told| hear(told, message));
            }
            sender.send_modify(|told| told.ended = true);
        });
        let beats = up.clone();
        let pulse = tokio::spawn(async move {
            static SEQ: Mutex<u64> = Mutex::new(0);
            loop {
                let seq = {
                    let mut seq = SEQ.lock().unwrap();
                    *seq += 1;
                    *seq
                };
                if beats
                    .send(NodeUp::KeepAlive {
                        seq,
                        clock_ms: 0,
                        healthy: true,
                    })
                    .await
                    .is_err()
                {
                    return;
                }
                tokio::time::sleep(interval).await;
            }
        });
        Ok(Self {
            up,
            told,
            request_seq: 0,
            tasks: vec![reader, pulse],
        })
    }

    pub(crate) async fn open(client: &ApiClient, name: &str, ttl_ms: u64) -> Self {
        let node = Self::stream(
            client,
            open(name, ttl_ms),
            Duration::from_millis(ttl_ms / 4),
        )
        .await
        .unwrap();
        node.until("a session", |told| told.session.is_some()).await;
        node
    }

    /// Waits until what was told fulfils a condition.
    pub(crate) async fn until(&self, what: &str, condition: impl FnMut(&Told) -> bool) -> Told {
        let mut told = self.told.clone();
        let waited = tokio::time::timeout(PATIENCE, told.wait_for(condition)).await;
        match waited {
            Ok(Ok(told)) => told.clone(),
            _ => panic!("never told of {what}: {:?}", self.told.borrow()),
        }
    }

    /// Sends one request and waits for its outcome.
    pub(crate) async fn request(
        &mut self,
        make: impl FnOnce(u64) -> NodeUp,
    ) -> Result<api::RequestDone, ApiError> {
        self.request_seq += 1;
        let seq = self.request_seq;
        self.up.send(make(seq)).await.unwrap();
        let told = self
            .until("the outcome", |told| told.done.contains_key(&seq))
            .await;
        told.done[&seq].clone()
    }

    pub(crate) async fn contend(
        &mut self,
        groups: &[GroupName],
    ) -> Result<api::RequestDone, ApiError> {
        let mut spec = ContenderSpec::default();
        spec.configuration.endpoints.push("127.0.0.1:9".to_owned());
        let entries = groups
            .iter()
            .map(|name| (name.clone(), spec.clone()))
            .collect();
        self.request(|request_seq| NodeUp::Contend {
            request_seq,
            entries,
        })
        .await
    }

    pub(crate) async fn report(
        &mut self,
        tenure: TenureId,
        report: Report,
    ) -> Result<api::RequestDone, ApiError> {
        self.request(|request_seq| NodeUp::Report {
            request_seq,
            reports: vec![(tenure, report)],
        })
        .await
    }

    pub(crate) async fn close(&mut self) {
        self.request_seq += 1;
        let request_seq = self.request_seq;
        self.up.send(NodeUp::Close { request_seq }).await.unwrap();
    }

    pub(crate) fn set_request_seq(&mut self, seq: u64) {
        self.request_seq = seq;
    }

    pub(crate) fn request_seq(&self) -> u64 {
        self.request_seq
    }
}

fn hear(told: &mut Told, message: Result<NodeDown, ApiError>) {
    match message {
        Ok(NodeDown::Opened { session, .. }) => told.session = Some(session),
        Ok(NodeDown::KeptAlive { .. }) => told.kept_alive += 1,
        Ok(NodeDown::SessionGone) => told.gone = true,
        Ok(NodeDown::Standing {
            directive_seq,
            tenures,
        }) => {
            told.directive_seq = directive_seq;
            told.parts = tenures
                .into_iter()
                .map(|found| (found.tenure, found.part))
                .collect();
        }
        Ok(NodeDown::Directive(directive)) => {
            assert_eq!(
                directive.seq,
                told.directive_seq.next(),
                "directives come without a gap"
            );
            told.directive_seq = directive.seq;
            let part = match directive.kind {
                DirectiveKind::Poll { .. } => Some(Part::Polled),
                DirectiveKind::Prepare { .. } => Some(Part::Preparing),
                DirectiveKind::Activate { .. } | DirectiveKind::Continue => Some(Part::Active),
                DirectiveKind::CatchUp => Some(Part::Successor),
                DirectiveKind::Drain { .. } => Some(Part::Draining),
                DirectiveKind::Revoke => Some(Part::Revoking),
                DirectiveKind::StandBy | DirectiveKind::Ended { .. } => None,
            };
            match part {
                Some(part) => told.parts.insert(directive.tenure, part),
                None => told.parts.remove(&directive.tenure),
            };
        }
        Ok(NodeDown::RequestDone {
            request_seq,
            outcome,
        }) => drop(told.done.insert(request_seq, outcome)),
        Ok(NodeDown::RequestUnknown { .. }) => {}
        Ok(NodeDown::Refused {
            request_seq: Some(seq),
            error,
        }) => drop(told.done.insert(seq, Err(error))),
        Ok(NodeDown::Refused {
            request_seq: None,
            error,
        })
        | Err(error) => told.refused = Some(error),
    }
}

impl Told {
    /// How many groups it leads.
    pub(crate) fn leads(&self) -> usize {
        self.parts
            .values()
            .filter(|part| **part == Part::Active)
            .count()
    }
}

/// One plain HTTP request: status and everything after the status line.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: quorate\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{text:?}"));
    (status, text)
}

/// The value of one metric line.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    let line = line.unwrap_or_else(|| panic!("no metric {name} in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The sum of all lines of one metric.
pub(crate) fn metric_sum(text: &str, name: &str) -> f64 {
    let lines = text
        .lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name));
    lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}
