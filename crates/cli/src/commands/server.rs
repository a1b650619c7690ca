//! `quorate server`: one server of the backbone. Configuration: file < environment < flags.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context as _;
use quorate_server::config::{SnapshotFile, TimingFile, TlsFile};
use quorate_server::{ConfigFile, RunningServer, Server, ServerConfig, StopReason};
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;
use crate::output;
use crate::signals::StopSignals;

/// Runs a server. Each option can be set in the file, in the environment, or here; the latter counts.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// A TOML file with any of these options, `-` written as `_`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration, and print it with its defaults.
    #[arg(long)]
    check_config: bool,
    /// The member's name, as in --initial-cluster.
    #[arg(long)]
    name: Option<String>,
    /// The member's id; by default its place in --initial-cluster, in the order of names.
    #[arg(long)]
    id: Option<u64>,
    /// Where the server keeps its log and snapshots: a directory for it alone.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients connect [default: 127.0.0.1:2379].
    #[arg(long, value_name = "HOST:PORT")]
    client_listen: Option<String>,
    /// Where other servers connect [default: 127.0.0.1:2380].
    #[arg(long, value_name = "HOST:PORT")]
    peer_listen: Option<String>,
    /// Every founding member, this one included: `s1=host:2380,s2=...`; `name=peer/client` where clients reach it elsewhere than at port 2379 of that host.
    #[arg(long, value_name = "NAME=HOST:PORT,...")]
    initial_cluster: Option<String>,
    /// Tells clusters with the same addresses apart.
    #[arg(long, value_name = "TEXT")]
    cluster_token: Option<String>,
    /// Certificate shown to clients, PEM.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    client_tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    client_tls_key: Option<PathBuf>,
    /// Who must have signed the clients' certificates; without it clients need none.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    client_tls_ca: Option<PathBuf>,
    /// Certificate shown to other servers, PEM.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    peer_tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    peer_tls_key: Option<PathBuf>,
    /// Who must have signed the other servers' certificates.
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    peer_tls_ca: Option<PathBuf>,
    /// Allow plaintext on addresses that other machines can reach.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "TLS")]
    insecure: Option<bool>,
    /// How often a leader says that it lives.
    #[arg(long, value_name = "MS", help_heading = "Timing")]
    heartbeat_ms: Option<u64>,
    /// How long a silent leader is waited for.
    #[arg(long, value_name = "MS", help_heading = "Timing")]
    detection_timeout_ms: Option<u64>,
    /// At most this is added at random.
    #[arg(long, value_name = "MS", help_heading = "Timing")]
    election_jitter_ms: Option<u64>,
    /// Bound on the ratio of two clocks' rates, in parts per million; the same on all servers and clients.
    #[arg(long, value_name = "PPM", help_heading = "Timing")]
    clock_drift_ppm: Option<u32>,
    /// Save the state after this many entries.
    #[arg(long, value_name = "COUNT", help_heading = "Storage")]
    snapshot_entries: Option<u64>,
    /// Keep this many entries behind a snapshot.
    #[arg(long, value_name = "COUNT", help_heading = "Storage")]
    snapshot_retain: Option<u64>,
    /// Most bytes that the key space may hold with its history; 0 means 2 GiB, a negative number no limit.
    #[arg(
        long,
        value_name = "BYTES",
        allow_negative_numbers = true,
        help_heading = "Key space"
    )]
    quota_backend_bytes: Option<i64>,
    /// `periodic` or `revision`: how the retention is read.
    #[arg(long, value_name = "MODE", help_heading = "Key space")]
    auto_compaction_mode: Option<String>,
    /// How much of the key space's history is kept: a time such as `1h`, or a number of revisions; 0 keeps all.
    #[arg(long, value_name = "RETENTION", help_heading = "Key space")]
    auto_compaction_retention: Option<String>,
    /// How often a watch that was told nothing hears how far it is, if it asked for that: a time such as `10m`.
    #[arg(long, value_name = "INTERVAL", help_heading = "Key space")]
    watch_progress_notify_interval: Option<String>,
    /// How many seconds a token of a user is good for.
    #[arg(long, value_name = "SECONDS", help_heading = "Key space")]
    auth_token_ttl: Option<u64>,
    /// How much work hashing a password is: 4 to 31, each step doubles it.
    #[arg(long, value_name = "COST", help_heading = "Key space")]
    bcrypt_cost: Option<u32>,
    /// How long a stopping leader waits for its successor.
    #[arg(long, value_name = "MS")]
    shutdown_timeout_ms: Option<u64>,
    /// What is logged, such as `info` or `quorate_server=debug`.
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
}

impl ServerArgs {
    pub(crate) async fn run(self) -> anyhow::Result<u8> {
        let check_only = self.check_config;
        let config = self.resolve()?;
        if check_only {
            output::line(format!("{config:#?}"))?;
            return Ok(0);
        }
        start_logging(&config.log_filter)?;
        let server = Server::start(&config).context("start the server")?;
        serve(vec![server]).await
    }

    pub(crate) fn resolve(self) -> anyhow::Result<ServerConfig> {
        let file = match &self.config {
            None => ConfigFile::default(),
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| Failure::usage(format!("read `{shown}`: {error}")))?;
                toml::from_str(&text).map_err(|error| {
                    Failure::usage(format!("read `{shown}`: {}", error.to_string().trim_end()))
                        .with_hint("`quorate server --help` lists the options; in the file `-` is written as `_`")
                })?
            }
        };
        file.overlaid_by(self.flags())
            .resolve()
            .context("check the configuration")
    }

    fn flags(self) -> ConfigFile {
        ConfigFile {
            name: self.name,
            id: self.id,
            data_dir: self.data_dir,
            client_listen: self.client_listen,
            peer_listen: self.peer_listen,
            initial_cluster: self.initial_cluster,
            cluster_token: self.cluster_token,
            client_tls: TlsFile {
                cert: self.client_tls_cert,
                key: self.client_tls_key,
                ca: self.client_tls_ca,
            },
            peer_tls: TlsFile {
                cert: self.peer_tls_cert,
                key: self.peer_tls_key,
                ca: self.peer_tls_ca,
            },
            insecure: self.insecure,
            timing: TimingFile {
                heartbeat_ms: self.heartbeat_ms,
                detection_timeout_ms: self.detection_timeout_ms,
                election_jitter_ms: self.election_jitter_ms,
            },
            snapshot: SnapshotFile {
                entries: self.snapshot_entries,
                retain: self.snapshot_retain,
            },
            clock_drift_ppm: self.clock_drift_ppm,
            quota_backend_bytes: self.quota_backend_bytes,
            auto_compaction_mode: self.auto_compaction_mode,
            auto_compaction_retention: self.auto_compaction_retention,
            watch_progress_notify_interval: self.watch_progress_notify_interval,
            auth_token_ttl: self.auth_token_ttl,
            bcrypt_cost: self.bcrypt_cost,
            shutdown_timeout_ms: self.shutdown_timeout_ms,
            log_filter: self.log_filter,
        }
    }
}

/// Logs to standard error.
pub(crate) fn start_logging(filter: &str) -> anyhow::Result<()> {
    let filter: EnvFilter = filter.parse().map_err(|error| {
        Failure::usage(format!("`log_filter` is `{filter}`: {error}"))
            .with_hint("write a level (error, warn, info, debug) or module=level pairs")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// Serves until asked to stop, or until a server stops on its own.
pub(crate) async fn serve(servers: Vec<RunningServer>) -> anyhow::Result<u8> {
    let mut signals = StopSignals::listen()?;
    let stopped = tokio::select! {
        _ = signals.next() => None,
        reason = first_stop(&servers) => Some(reason),
    };
    for server in servers {
        // A leader hands over before it goes.
        server.shutdown().await;
    }
    match stopped {
        Some(reason) if !reason.is_asked() => {
            Err(anyhow::Error::new(reason).context("the server stopped"))
        }
        _ => Ok(0),
    }
}

async fn first_stop(servers: &[RunningServer]) -> StopReason {
    let mut waits: Vec<_> = servers
        .iter()
        .map(|server| Box::pin(server.wait()))
        .collect();
    std::future::poll_fn(|task| {
        for wait in &mut waits {
            if let std::task::Poll::Ready(reason) = wait.as_mut().poll(task) {
                return std::task::Poll::Ready(reason);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
