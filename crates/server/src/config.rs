//! What a server is told when it starts: where it lives, who its cluster is, how it is secured.
//!
//! Owns: the shape of the configuration file, its defaults and its checks. Deliberately absent: reading flags
//! and the environment, which the command line lays over the file with [`ConfigFile::overlaid_by`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use quorate_consensus::{Configuration, Member, VoterSet};
use quorate_types::{ClusterId, ConfigEpoch, DriftBound, ReplicaId};

mod file;
mod key_space;
mod members;

pub use file::{ConfigFile, SnapshotFile, TimingFile, TlsFile};
pub use key_space::{AutoCompaction, KeySpaceConfig};
pub(crate) use members::host_of;
pub use members::{InitialMember, parse_initial_cluster};

/// The port clients use where an address names none.
pub const CLIENT_PORT: u16 = 2379;
/// The port servers use among themselves where an address names none.
pub const PEER_PORT: u16 = 2380;

/// Certificate, key and authority of one port, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain shown to the other side.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Who must have signed the other side's certificate. On the client port `None` asks clients for none.
    pub ca: Option<PathBuf>,
}

/// The backbone's timing: inputs of the protocol, not constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimingConfig {
    /// How often a leader says that it lives.
    pub heartbeat_interval: Duration,
    /// How long a silent leader is waited for.
    pub detection_timeout: Duration,
    /// At most this is added at random, so that votes do not split.
    pub election_jitter: Duration,
}

/// When the state is saved and the log cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// Save after this many applied entries.
    pub entries: u64,
    /// Keep this many entries behind the snapshot, for followers that lag a little.
    pub retain: u64,
}

/// A server's whole configuration, with every default filled in.
///
/// # Invariants
/// - Made by [`ConfigFile::resolve`] or by hand; [`check`](Self::check) passes before anything is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// The member's name, as in `initial_cluster`.
    pub name: String,
    /// The member's id; `None`: its place in `initial_cluster`.
    pub id: Option<ReplicaId>,
    /// Where it keeps its log and snapshots; one directory per member.
    pub data_dir: PathBuf,
    /// Where clients connect.
    pub client_listen: SocketAddr,
    /// Where other servers connect.
    pub peer_listen: SocketAddr,
    /// Every founding member, this one included.
    pub initial_cluster: Vec<InitialMember>,
    /// Tells clusters with the same addresses apart; the same on all members.
    pub cluster_token: String,
    /// TLS of the client port.
    pub client_tls: Option<TlsFiles>,
    /// TLS of the peer port; always mutual.
    pub peer_tls: Option<TlsFiles>,
    /// Allows plaintext on addresses that others can reach.
    pub insecure: bool,
    /// The backbone's timing.
    pub timing: TimingConfig,
    /// When the state is saved.
    pub snapshot: SnapshotConfig,
    /// Bound on the ratio of two clocks' rates; the same on all servers and clients.
    pub drift: DriftBound,
    /// How much the key space may hold, and how long its history is kept.
    pub key_space: KeySpaceConfig,
    /// How long a stopping leader waits for its successor.
    pub shutdown_timeout: Duration,
    /// What is logged, in `tracing` filter syntax. Used by the binary.
    pub log_filter: String,
}

/// Why a configuration was refused. Every message names the field, the limit and a way out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A field that has no default is missing.
    #[error("`{field}` is not set; {way_out}")]
    Missing {
        /// The field.
        field: &'static str,
        /// What to do.
        way_out: &'static str,
    },
    /// A value cannot be used.
    #[error("`{field}` is `{found}`; {allowed}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What was given.
        found: String,
        /// What is allowed, and the way out.
        allowed: String,
    },
    /// Plaintext would be reachable from other machines.
    #[error(
        "`{field}` is `{address}`, which other machines can reach, and `{tls}` is not set: set cert and key there, listen on a loopback address, or set `insecure = true` to accept plaintext"
    )]
    Plaintext {
        /// The listening address' field.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// The TLS table.
        tls: &'static str,
    },
}

impl ConfigError {
    pub(crate) fn invalid(
        field: &'static str,
        found: impl std::fmt::Display,
        allowed: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            field,
            found: format!("{found}"),
            allowed: allowed.into(),
        }
    }
}

const NAME_BYTES_MAX: usize = 64;
const VOTERS_MAX: usize = 7;
const DRIFT_PPM_MAX: u32 = 100_000;

impl ServerConfig {
    /// Checks everything that can be checked without opening files or ports.
    ///
    /// # Errors
    /// [`ConfigError`]: correct the named field.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.name.is_empty()
            || self.name.len() > NAME_BYTES_MAX
            || self.name.chars().any(char::is_control)
        {
            return Err(ConfigError::invalid(
                "name",
                self.name.escape_debug(),
                format!("give 1 to {NAME_BYTES_MAX} bytes without control characters"),
            ));
        }
        if self.data_dir.as_os_str().is_empty() {
            return Err(ConfigError::Missing {
                field: "data_dir",
                way_out: "name a directory for this member alone",
            });
        }
        self.check_members()?;
        self.check_timing()?;
        self.check_plaintext()?;
        if self.snapshot.entries == 0 {
            return Err(ConfigError::invalid(
                "snapshot.entries",
                0,
                "give at least 1",
            ));
        }
        Ok(())
    }

    fn check_members(&self) -> Result<(), ConfigError> {
        const FIELD: &str = "initial_cluster";
        let members = &self.initial_cluster;
        if members.is_empty() {
            return Err(ConfigError::Missing {
                field: FIELD,
                way_out: "list every founding member, this one included: name=host:2380,...",
            });
        }
        if members.len() > VOTERS_MAX {
            return Err(ConfigError::invalid(
                FIELD,
                format!("{} members", members.len()),
                format!("list at most {VOTERS_MAX}"),
            ));
        }
        let ids: BTreeSet<_> = members.iter().map(|m| m.id).collect();
        let names: BTreeSet<_> = members.iter().map(|m| m.name.as_str()).collect();
        let addresses: BTreeSet<_> = members.iter().map(|m| m.peer_address.as_str()).collect();
        for (what, distinct) in [
            ("ids", ids.len()),
            ("names", names.len()),
            ("addresses", addresses.len()),
        ] {
            if distinct != members.len() {
                return Err(ConfigError::invalid(
                    FIELD,
                    members::canonical(members),
                    format!("the members' {what} must differ"),
                ));
            }
        }
        if ids.contains(&ReplicaId::ZERO) {
            return Err(ConfigError::invalid(
                FIELD,
                members::canonical(members),
                "ids start at 1",
            ));
        }
        let Some(own) = members.iter().find(|m| m.name == self.name) else {
            return Err(ConfigError::invalid(
                "name",
                &self.name,
                format!(
                    "it must be one of `initial_cluster`: {}",
                    members::canonical(members)
                ),
            ));
        };
        let port_is = |address: &str, listen: SocketAddr| {
            let port = address.rsplit_once(':').map(|(_, port)| port);
            port.is_some_and(|port| port == listen.port().to_string())
        };
        if port_is(&own.peer_address, self.client_listen)
            && port_is(&own.client_address, self.peer_listen)
        {
            return Err(ConfigError::invalid(
                FIELD,
                members::canonical(members),
                format!(
                    "a member is NAME=PEER/CLIENT, in this order: the other way round is how `{}` listens",
                    self.name
                ),
            ));
        }
        match self.id {
            Some(id) if id != own.id => Err(ConfigError::invalid(
                "id",
                id,
                format!(
                    "`initial_cluster` gives member `{}` the id {}; leave `id` out or make them agree",
                    self.name, own.id
                ),
            )),
            _ => Ok(()),
        }
    }

    fn check_timing(&self) -> Result<(), ConfigError> {
        let TimingConfig {
            heartbeat_interval,
            detection_timeout,
            election_jitter,
        } = self.timing;
        if heartbeat_interval < Duration::from_millis(1) {
            return Err(ConfigError::invalid(
                "timing.heartbeat_ms",
                heartbeat_interval.as_millis(),
                "give at least 1",
            ));
        }
        // Three missed heartbeats must not depose a leader: one lost packet is ordinary.
        if detection_timeout < heartbeat_interval * 3 {
            return Err(ConfigError::invalid(
                "timing.detection_timeout_ms",
                detection_timeout.as_millis(),
                format!(
                    "give at least three times `timing.heartbeat_ms`: {}",
                    (heartbeat_interval * 3).as_millis()
                ),
            ));
        }
        if detection_timeout > Duration::from_secs(60) {
            return Err(ConfigError::invalid(
                "timing.detection_timeout_ms",
                detection_timeout.as_millis(),
                "give at most 60000",
            ));
        }
        if election_jitter.is_zero() || election_jitter > detection_timeout {
            return Err(ConfigError::invalid(
                "timing.election_jitter_ms",
                election_jitter.as_millis(),
                format!(
                    "give 1 to `timing.detection_timeout_ms` ({}), or votes split",
                    detection_timeout.as_millis()
                ),
            ));
        }
        if self.drift.ppm == 0 || self.drift.ppm > DRIFT_PPM_MAX {
            return Err(ConfigError::invalid(
                "clock_drift_ppm",
                self.drift.ppm,
                format!("give 1 to {DRIFT_PPM_MAX}; 10000 is one per cent"),
            ));
        }
        Ok(())
    }

    fn check_plaintext(&self) -> Result<(), ConfigError> {
        if let Some(tls) = &self.peer_tls
            && tls.ca.is_none()
        {
            return Err(ConfigError::Missing {
                field: "peer_tls.ca",
                way_out: "servers always check each other: name the authority that signs the members' certificates",
            });
        }
        if self.insecure {
            return Ok(());
        }
        for (field, address, tls_field, tls) in [
            (
                "client_listen",
                self.client_listen,
                "client_tls",
                &self.client_tls,
            ),
            ("peer_listen", self.peer_listen, "peer_tls", &self.peer_tls),
        ] {
            if tls.is_none() && !is_loopback(address.ip()) {
                return Err(ConfigError::Plaintext {
                    field,
                    address,
                    tls: tls_field,
                });
            }
        }
        Ok(())
    }

    /// This member's id.
    ///
    /// # Panics
    /// When [`check`](Self::check) would fail.
    #[must_use]
    pub fn own_id(&self) -> ReplicaId {
        self.own().id
    }

    /// This member as `initial_cluster` lists it.
    ///
    /// # Panics
    /// When [`check`](Self::check) would fail.
    #[must_use]
    pub fn own(&self) -> &InitialMember {
        self.initial_cluster
            .iter()
            .find(|m| m.name == self.name)
            .expect("check() found this member in the initial cluster")
    }

    /// The cluster's identity: a stable hash of its founding members and its token. Two bootstraps of different
    /// configurations never talk to each other, and a data directory never changes its cluster.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        let mut hasher = blake3::Hasher::new_derive_key("quorate cluster id v1");
        hasher.update(&(self.cluster_token.len() as u64).to_le_bytes());
        hasher.update(self.cluster_token.as_bytes());
        hasher.update(members::canonical(&self.initial_cluster).as_bytes());
        let bytes: [u8; 8] = hasher.finalize().as_bytes()[..8]
            .try_into()
            .expect("a hash has 32 bytes");
        // Zero is kept free: it means "none" in places where ids are optional.
        ClusterId(u64::from_le_bytes(bytes).max(1))
    }

    /// The configuration that a fresh cluster starts with.
    #[must_use]
    pub fn initial_configuration(&self) -> Configuration {
        let members: BTreeMap<ReplicaId, Member> = self
            .initial_cluster
            .iter()
            .map(|m| {
                let member = Member {
                    name: m.name.clone(),
                    peer_address: m.peer_address.clone(),
                    client_address: m.client_address.clone(),
                };
                (m.id, member)
            })
            .collect();
        Configuration {
            epoch: ConfigEpoch(1),
            incoming: VoterSet {
                voters: members.keys().copied().collect(),
            },
            outgoing: None,
            learners: BTreeSet::new(),
            members,
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
        }
    }
}

#[cfg(test)]
mod tests;
