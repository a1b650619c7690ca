//! A server: everything wired together, started and stopped.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use quorate_consensus::{Role, Timing};
use quorate_replica::{Boot, Input, Replica};
use quorate_types::{LogIndex, ReplicaId};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::api::{ApiState, Calls, TlsPorts, ttl_ms_min_safe};
use crate::boot::{self, BootError, Booted, SharedDataDir};
use crate::config::{ConfigError, ServerConfig};
use crate::etcd::{self, Etcd};
use crate::http::{self, ClientListener};
use crate::inbox::Inbox;
use crate::kv_hub::KvHub;
use crate::metrics::Metrics;
use crate::peer::{self, Dialler, Introduction, PeerListener, Peers};
use crate::publish::Publisher;
use crate::snapshot_thread::{self, SnapshotWorker};
use crate::step_thread::{Reach, RoleView, StepThread};
use crate::stop::{Stop, StopReason};
use crate::tls::{self, TlsError};
use crate::{clock, writer_thread};

/// How long a call may wait for a leader, or for its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Most calls waiting in the replica.
const CALLS_MAX: usize = 65_536;
/// A step that comes this much late is a stall (protocol, section 2).
const STALL_MIN: Duration = Duration::from_millis(20);
/// One append carries about so many bytes of entries.
const APPEND_BYTES_MAX: usize = 1024 * 1024;
const APPENDS_IN_FLIGHT_MAX: usize = 64;
const UNCOMMITTED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a server did not start. Every message says what was tried, and on what.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("the data directory cannot be used")]
    Boot(#[from] BootError),
    /// TLS cannot be set up.
    #[error("TLS of the {port} port cannot be set up")]
    Tls {
        /// Which port.
        port: &'static str,
        /// What is wrong.
        #[source]
        source: TlsError,
    },
    /// A port cannot be listened on.
    #[error(
        "listen for {whom} on {address}: check `{field}`, and whether another process has that port"
    )]
    Listen {
        /// Clients or peers.
        whom: &'static str,
        /// The address.
        address: SocketAddr,
        /// The configuration field.
        field: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The system gave no thread, runtime or random number.
    #[error("start the server's threads")]
    System(#[source] std::io::Error),
}

impl StartError {
    /// What the operator can do about it, on one line.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Boot(BootError::Storage(error)) => error.hint(),
            Self::Boot(BootError::Undecodable { .. }) => {
                Some("start the release that wrote it, or a newer one; else replace this member")
            }
            _ => None,
        }
    }
}

/// The two ports, bound before anything else is done, so that addresses are known early.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub client: TcpListener,
    /// For other servers.
    pub peer: TcpListener,
}

impl Listeners {
    /// Binds the configured addresses; port 0 takes a free one.
    ///
    /// # Errors
    /// [`StartError::Listen`]: choose another address, or stop who has it.
    pub fn bind(config: &ServerConfig) -> Result<Self, StartError> {
        let bind = |whom, field, address: SocketAddr| {
            TcpListener::bind(address).map_err(|source| StartError::Listen {
                whom,
                address,
                field,
                source,
            })
        };
        Ok(Self {
            client: bind("clients", "client_listen", config.client_listen)?,
            peer: bind("peers", "peer_listen", config.peer_listen)?,
        })
    }
}

/// Starts servers.
pub struct Server;

impl Server {
    /// Binds the configured addresses and starts a server, with its own threads and runtime, so that several may run in one process.
    ///
    /// # Errors
    /// [`StartError`]: nothing was started. Correct what it names.
    pub fn start(config: &ServerConfig) -> Result<RunningServer, StartError> {
        config.check()?;
        let listeners = Listeners::bind(config)?;
        Self::start_on(config, listeners)
    }

    /// Starts a server on ports that are bound already.
    ///
    /// # Errors
    /// [`StartError`]: nothing was started. Correct what it names.
    pub fn start_on(
        config: &ServerConfig,
        listeners: Listeners,
    ) -> Result<RunningServer, StartError> {
        config.check()?;
        let tls = TlsSetup::load(config)?;
        let booted = boot::boot(config)?;
        start(config, listeners, tls, booted)
    }
}

struct TlsSetup {
    client: Option<TlsAcceptor>,
    peer: Option<(TlsAcceptor, TlsConnector)>,
}

impl TlsSetup {
    fn load(config: &ServerConfig) -> Result<Self, StartError> {
        let client = |source| StartError::Tls {
            port: "client",
            source,
        };
        let peer = |source| StartError::Tls {
            port: "peer",
            source,
        };
        Ok(Self {
            client: match &config.client_tls {
                Some(files) => Some(
                    tls::server_config(files, &[b"h2", b"http/1.1"])
                        .map_err(client)?
                        .into(),
                ),
                None => None,
            },
            peer: match &config.peer_tls {
                Some(files) => Some((
                    tls::server_config(files, &[]).map_err(peer)?.into(),
                    tls::peer_client_config(files).map_err(peer)?.into(),
                )),
                None => None,
            },
        })
    }
}

fn replica_config(config: &ServerConfig, seed: u64, incarnation: u64) -> quorate_replica::Config {
    quorate_replica::Config {
        consensus: quorate_consensus::Config {
            id: config.own_id(),
            timing: Timing {
                heartbeat_interval: config.timing.heartbeat_interval,
                detection_timeout: config.timing.detection_timeout,
                election_jitter: config.timing.election_jitter,
            },
            append_bytes_max: APPEND_BYTES_MAX,
            appends_in_flight_max: APPENDS_IN_FLIGHT_MAX,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_MAX,
            seed,
        },
        drift: config.drift,
        incarnation,
        snapshot_entries: config.snapshot.entries,
        snapshot_retain: config.snapshot.retain,
        calls_max: CALLS_MAX,
        call_timeout: CALL_TIMEOUT,
        stall_min: STALL_MIN,
    }
}

fn start(
    config: &ServerConfig,
    listeners: Listeners,
    tls: TlsSetup,
    booted: Booted,
) -> Result<RunningServer, StartError> {
    let Booted {
        data_dir,
        disk_id,
        epoch,
        log,
        snapshots,
        consensus,
        state,
    } = booted;
    let own = config.own_id();
    let client_address = listeners.client.local_addr().map_err(StartError::System)?;
    let peer_address = listeners.peer.local_addr().map_err(StartError::System)?;
    let seed = clock::random_u64().map_err(StartError::System)?;
    let incarnation = clock::random_u64().map_err(StartError::System)?;

    let metrics = Arc::new(Metrics::new(crate::VERSION));
    let stop = Stop::new();
    let inbox = Arc::new(Inbox::new());
    let others = || {
        config
            .initial_cluster
            .iter()
            .filter(move |member| member.id != own)
    };
    let peers = Arc::new(Peers::new(others().map(|member| member.id), &metrics));
    let publisher = Arc::new(Publisher::new(state.clone()));
    let (role_sender, role) = watch::channel(RoleView {
        role: Role::Follower,
        term: consensus.hard_state.term,
        leader: None,
    });

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8)))
        .thread_name("quorate-net")
        .enable_all()
        .build()
        .map_err(StartError::System)?;

    let (writer, writer_thread) =
        writer_thread::spawn(log, Arc::clone(&inbox), Arc::clone(&metrics), stop.clone())
            .map_err(StartError::System)?;
    let worker = SnapshotWorker {
        store: snapshots,
        inbox: Arc::clone(&inbox),
        peers: Arc::clone(&peers),
        metrics: Arc::clone(&metrics),
        stop: stop.clone(),
    };
    let (snapshot_jobs, snapshot_thread) =
        snapshot_thread::spawn(worker).map_err(StartError::System)?;
    let replica = Replica::new(
        replica_config(config, seed, incarnation),
        Boot { consensus, state },
        clock::now(),
    );
    let reach = Reach {
        writer,
        snapshots: snapshot_jobs,
        peers: Arc::clone(&peers),
        publisher: Arc::clone(&publisher),
        role: role_sender,
        metrics: Arc::clone(&metrics),
        stop: stop.clone(),
    };
    let step_thread = StepThread::new(replica, Arc::clone(&inbox), reach)
        .spawn()
        .map_err(StartError::System)?;

    let level = publisher.version().state.feature_level();
    let introduction = Arc::new(Introduction {
        cluster: config.cluster_id(),
        epoch,
        own,
        disk_id,
        features: (level, quorate_coord::FEATURE_LEVEL),
        members: config
            .initial_cluster
            .iter()
            .map(|member| member.id)
            .collect(),
        data_dir: data_dir.clone(),
        disks: std::sync::Mutex::default(),
    });
    let kv_hub = KvHub::new(
        Arc::clone(&publisher),
        Arc::clone(&metrics),
        config.key_space.watch_progress_notify_interval,
    );
    let api = Arc::new(ApiState {
        cluster: config.cluster_id(),
        own,
        name: config.name.clone(),
        members: config.initial_cluster.clone(),
        configuration: config.initial_configuration(),
        tls: TlsPorts {
            client: config.client_tls.is_some(),
            peer: config.peer_tls.is_some(),
        },
        ttl_ms_min_safe: ttl_ms_min_safe(config),
        calls: Calls {
            inbox: Arc::clone(&inbox),
            metrics: Arc::clone(&metrics),
        },
        publisher: Arc::clone(&publisher),
        kv_hub: Arc::clone(&kv_hub),
        role: role.clone(),
        metrics: Arc::clone(&metrics),
        started: Instant::now(),
    });
    // From here on `running` stops everything when it is dropped, also by an early return.
    let running = RunningServer {
        client_address,
        peer_address,
        own,
        shutdown_timeout: config.shutdown_timeout,
        stop: stop.clone(),
        inbox: Arc::clone(&inbox),
        role,
        publisher,
        metrics: Arc::clone(&metrics),
        data_dir,
        runtime: Some(runtime),
        threads: vec![step_thread, writer_thread, snapshot_thread],
    };
    let runtime = running.runtime.as_ref().expect("just put there");
    let _inside = runtime.enter();
    let into_tokio = |listener: TcpListener| {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener)
    };
    let (peer_acceptor, peer_connector) = tls.peer.unzip();
    runtime.spawn(peer::accept_forever(PeerListener {
        listener: into_tokio(listeners.peer).map_err(StartError::System)?,
        introduction: Arc::clone(&introduction),
        tls: peer_acceptor,
        inbox: Arc::clone(&inbox),
        metrics: Arc::clone(&metrics),
    }));
    for (peer, lane, link) in peers.links() {
        let member = others()
            .find(|member| member.id == peer)
            .expect("links were made for these");
        runtime.spawn(peer::dial_forever(Dialler {
            peer,
            lane,
            address: member.peer_address.clone(),
            link: Arc::clone(link),
            introduction: Arc::clone(&introduction),
            tls: peer_connector.clone(),
            inbox: Arc::clone(&inbox),
            metrics: Arc::clone(&metrics),
        }));
    }
    let client = into_tokio(listeners.client).map_err(StartError::System)?;
    runtime.spawn(kv_hub.dispatch_forever());
    let etcd = Etcd::new(Arc::clone(&api), &config.key_space);
    runtime.spawn(etcd::compact_forever(
        etcd.clone(),
        config.key_space.auto_compaction,
    ));
    runtime.spawn(http::accept_forever(ClientListener {
        listener: client,
        tls: tls.client,
        api,
        etcd,
        stop,
    }));
    tracing::info!(name = config.name, member = own.0, clients = %client_address, peers = %peer_address, "started");
    Ok(running)
}

/// A server that runs. Dropping it stops it at once, as a crash would, but leaves nothing behind.
pub struct RunningServer {
    client_address: SocketAddr,
    peer_address: SocketAddr,
    own: ReplicaId,
    shutdown_timeout: Duration,
    stop: Stop,
    inbox: Arc<Inbox>,
    role: watch::Receiver<RoleView>,
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
    data_dir: SharedDataDir,
    runtime: Option<Runtime>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningServer")
            .field("own", &self.own)
            .field("client_address", &self.client_address)
            .finish_non_exhaustive()
    }
}

impl RunningServer {
    /// Where clients connect.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Where other servers connect.
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.own
    }

    /// Role, term and leader, as it knows them.
    #[must_use]
    pub fn role_view(&self) -> RoleView {
        *self.role.borrow()
    }

    /// Tells of every change of role, term or leader.
    #[must_use]
    pub fn role_changes(&self) -> watch::Receiver<RoleView> {
        self.role.clone()
    }

    /// The last log index applied here.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.publisher.version().applied
    }

    /// The digest of the state applied here, to be compared between servers at the same index.
    #[must_use]
    pub fn digest(&self) -> (LogIndex, u64) {
        let version = self.publisher.version();
        (version.applied, version.state.digest())
    }

    /// Waits until this server has applied an index.
    pub async fn wait_applied(&self, index: LogIndex) {
        drop(
            self.publisher
                .reached(index, quorate_types::Revision::ZERO)
                .await,
        );
    }

    /// The metrics as Prometheus reads them.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        self.metrics.render()
    }

    /// Waits until the server stops by itself, or was asked to; says why. A failure means that the process should exit with one.
    pub async fn wait(&self) -> StopReason {
        self.stop.wait().await
    }

    /// Stops in good order: a leader hands over first, so that nobody waits for a timeout.
    pub async fn shutdown(self) -> StopReason {
        if self.role_view().role == Role::Leader {
            tracing::info!("handing the backbone's leadership over");
            self.inbox.push(Input::HandOver);
            let mut role = self.role.clone();
            let handed_over = role.wait_for(|now| now.role != Role::Leader && now.leader.is_some());
            tokio::select! {
                _ = handed_over => {}
                // A single server, or peers that are gone: there is nobody to hand over to.
                () = tokio::time::sleep(self.shutdown_timeout) => tracing::warn!("nobody took the leadership over in time"),
                _ = self.stop.wait() => {}
            }
        }
        self.stop.leave(StopReason::Asked);
        let reason = self.stop.reason().expect("just left");
        // Joins threads, which must not be done on a task's thread.
        let joined = tokio::task::spawn_blocking(move || drop(self)).await;
        joined.expect("stopping does not panic");
        reason
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.inbox.close();
        self.stop.leave(StopReason::Asked);
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be dropped inside another one's task; its own thread may.
            let stopping =
                std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(2)));
            let _ = stopping.join(); // it cannot panic; were it to, nothing more could be done
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic was reported when it happened
        }
        self.data_dir.close();
    }
}
