//! The configuration file: every field optional, unknown fields refused.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use quorate_types::{DriftBound, ReplicaId};
use serde::{Deserialize, Serialize};

use super::{
    CLIENT_PORT, ConfigError, KeySpaceConfig, PEER_PORT, ServerConfig, SnapshotConfig,
    TimingConfig, TlsFiles, key_space, parse_initial_cluster,
};

/// A configuration file, or what flags and the environment say in its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigFile {
    /// The member's name, as in `initial_cluster`.
    pub name: Option<String>,
    /// The member's id; by default its place in `initial_cluster`.
    pub id: Option<u64>,
    /// Where it keeps its log and snapshots.
    pub data_dir: Option<PathBuf>,
    /// `host:port` where clients connect. Default: `127.0.0.1:2379`.
    pub client_listen: Option<String>,
    /// `host:port` where other servers connect. Default: `127.0.0.1:2380`.
    pub peer_listen: Option<String>,
    /// `name=host:2380,...`: every founding member, this one included.
    pub initial_cluster: Option<String>,
    /// Tells clusters with the same addresses apart. Default: `quorate`.
    pub cluster_token: Option<String>,
    /// TLS of the client port.
    pub client_tls: TlsFile,
    /// TLS of the peer port.
    pub peer_tls: TlsFile,
    /// Allows plaintext on addresses that others can reach. Default: false.
    pub insecure: Option<bool>,
    /// The backbone's timing.
    pub timing: TimingFile,
    /// When the state is saved and the log cut.
    pub snapshot: SnapshotFile,
    /// Bound on the ratio of two clocks' rates in parts per million. Default: 10000, one per cent.
    pub clock_drift_ppm: Option<u32>,
    /// Most bytes that the key space may hold with its history; 0 means the default, a negative number no limit. Default: 2 GiB.
    pub quota_backend_bytes: Option<i64>,
    /// `periodic` or `revision`: how `auto_compaction_retention` is read. Default: `periodic`.
    pub auto_compaction_mode: Option<String>,
    /// How much history is kept: a time (`30m`, `1h`; a bare number means hours) or a number of revisions. Default: `0`, all of it.
    pub auto_compaction_retention: Option<String>,
    /// How often a watch of the key space that was told nothing hears how far it is, if it asked for that. Default: `10m`.
    pub watch_progress_notify_interval: Option<String>,
    /// How many seconds a token of the etcd API is good for. Default: 2592000, 30 days.
    pub auth_token_ttl: Option<u64>,
    /// How much work hashing a password is: 4 to 31, each step doubles it. Default: 10.
    pub bcrypt_cost: Option<u32>,
    /// How long a stopping leader waits for its successor, in milliseconds. Default: 5000.
    pub shutdown_timeout_ms: Option<u64>,
    /// What is logged, in `tracing` filter syntax. Default: `info`.
    pub log_filter: Option<String>,
}

/// TLS files of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsFile {
    /// The certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// Who must have signed the other side's certificate, PEM.
    pub ca: Option<PathBuf>,
}

/// The backbone's timing, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimingFile {
    /// How often a leader says that it lives. Default: 50.
    pub heartbeat_ms: Option<u64>,
    /// How long a silent leader is waited for. Default: 500.
    pub detection_timeout_ms: Option<u64>,
    /// At most this is added at random. Default: 250.
    pub election_jitter_ms: Option<u64>,
}

/// When the state is saved and the log cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotFile {
    /// Save after this many applied entries. Default: 50000.
    pub entries: Option<u64>,
    /// Keep this many entries behind the snapshot. Default: 10000.
    pub retain: Option<u64>,
}

impl TlsFile {
    fn overlaid_by(self, over: Self) -> Self {
        Self {
            cert: over.cert.or(self.cert),
            key: over.key.or(self.key),
            ca: over.ca.or(self.ca),
        }
    }

    fn resolve(self, field: &'static str) -> Result<Option<TlsFiles>, ConfigError> {
        match self {
            Self {
                cert: None,
                key: None,
                ca: None,
            } => Ok(None),
            Self {
                cert: Some(cert),
                key: Some(key),
                ca,
            } => Ok(Some(TlsFiles { cert, key, ca })),
            _ => Err(ConfigError::Missing {
                field,
                way_out: "set both `cert` and `key` (and `ca` to check the other side), or none",
            }),
        }
    }
}

impl ConfigFile {
    /// This configuration, with every field that `over` sets taken from `over`.
    #[must_use]
    pub fn overlaid_by(self, over: Self) -> Self {
        Self {
            name: over.name.or(self.name),
            id: over.id.or(self.id),
            data_dir: over.data_dir.or(self.data_dir),
            client_listen: over.client_listen.or(self.client_listen),
            peer_listen: over.peer_listen.or(self.peer_listen),
            initial_cluster: over.initial_cluster.or(self.initial_cluster),
            cluster_token: over.cluster_token.or(self.cluster_token),
            client_tls: self.client_tls.overlaid_by(over.client_tls),
            peer_tls: self.peer_tls.overlaid_by(over.peer_tls),
            insecure: over.insecure.or(self.insecure),
            timing: TimingFile {
                heartbeat_ms: over.timing.heartbeat_ms.or(self.timing.heartbeat_ms),
                detection_timeout_ms: over
                    .timing
                    .detection_timeout_ms
                    .or(self.timing.detection_timeout_ms),
                election_jitter_ms: over
                    .timing
                    .election_jitter_ms
                    .or(self.timing.election_jitter_ms),
            },
            snapshot: SnapshotFile {
                entries: over.snapshot.entries.or(self.snapshot.entries),
                retain: over.snapshot.retain.or(self.snapshot.retain),
            },
            clock_drift_ppm: over.clock_drift_ppm.or(self.clock_drift_ppm),
            quota_backend_bytes: over.quota_backend_bytes.or(self.quota_backend_bytes),
            auto_compaction_mode: over.auto_compaction_mode.or(self.auto_compaction_mode),
            auto_compaction_retention: over
                .auto_compaction_retention
                .or(self.auto_compaction_retention),
            watch_progress_notify_interval: over
                .watch_progress_notify_interval
                .or(self.watch_progress_notify_interval),
            auth_token_ttl: over.auth_token_ttl.or(self.auth_token_ttl),
            bcrypt_cost: over.bcrypt_cost.or(self.bcrypt_cost),
            shutdown_timeout_ms: over.shutdown_timeout_ms.or(self.shutdown_timeout_ms),
            log_filter: over.log_filter.or(self.log_filter),
        }
    }

    /// Fills in the defaults and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`]: correct the named field.
    pub fn resolve(self) -> Result<ServerConfig, ConfigError> {
        let name = self.name.ok_or(ConfigError::Missing {
            field: "name",
            way_out: "give the member's name as in `initial_cluster`",
        })?;
        let data_dir = self.data_dir.ok_or(ConfigError::Missing {
            field: "data_dir",
            way_out: "name a directory for this member alone",
        })?;
        let ms = |given: Option<u64>, default| Duration::from_millis(given.unwrap_or(default));
        let config = ServerConfig {
            name,
            id: self.id.map(ReplicaId),
            data_dir,
            client_listen: listen("client_listen", self.client_listen, CLIENT_PORT)?,
            peer_listen: listen("peer_listen", self.peer_listen, PEER_PORT)?,
            initial_cluster: parse_initial_cluster(
                self.initial_cluster.as_deref().unwrap_or_default(),
            )?,
            cluster_token: self.cluster_token.unwrap_or_else(|| "quorate".to_owned()),
            client_tls: self.client_tls.resolve("client_tls")?,
            peer_tls: self.peer_tls.resolve("peer_tls")?,
            insecure: self.insecure.unwrap_or(false),
            timing: TimingConfig {
                heartbeat_interval: ms(self.timing.heartbeat_ms, 50),
                detection_timeout: ms(self.timing.detection_timeout_ms, 500),
                election_jitter: ms(self.timing.election_jitter_ms, 250),
            },
            snapshot: SnapshotConfig {
                entries: self.snapshot.entries.unwrap_or(50_000),
                retain: self.snapshot.retain.unwrap_or(10_000),
            },
            drift: self
                .clock_drift_ppm
                .map_or_else(DriftBound::default, |ppm| DriftBound { ppm }),
            key_space: KeySpaceConfig {
                quota_bytes: key_space::quota(self.quota_backend_bytes.unwrap_or(0)),
                auto_compaction: key_space::auto_compaction(
                    self.auto_compaction_mode.as_deref(),
                    self.auto_compaction_retention.as_deref(),
                )?,
                watch_progress_notify_interval: key_space::watch_progress_interval(
                    self.watch_progress_notify_interval.as_deref(),
                )?,
                auth_token_ttl: key_space::auth_token_ttl(self.auth_token_ttl)?,
                bcrypt_cost: key_space::bcrypt_cost(self.bcrypt_cost)?,
            },
            shutdown_timeout: ms(self.shutdown_timeout_ms, 5_000),
            log_filter: self.log_filter.unwrap_or_else(|| "info".to_owned()),
        };
        config.check()?;
        Ok(config)
    }
}

fn listen(
    field: &'static str,
    given: Option<String>,
    port: u16,
) -> Result<SocketAddr, ConfigError> {
    let Some(text) = given else {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    };
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let resolved = text
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next());
    resolved.ok_or_else(|| {
        ConfigError::invalid(
            field,
            text,
            "write an address and port of this machine, such as 0.0.0.0:2379",
        )
    })
}
