//! What users specify of groups, contenders and nodes, with defaults and limits.

use std::collections::BTreeMap;

use quorate_types::{ContractVersion, NodeName};
use serde::{Deserialize, Serialize};

/// Shortest session TTL in milliseconds.
pub const TTL_MS_MIN: u64 = 100;
/// Longest session TTL in milliseconds: one day.
pub const TTL_MS_MAX: u64 = 86_400_000;
/// Shortest TTL of a lease in milliseconds: shorter ones are raised to it.
pub const LEASE_TTL_MS_MIN: u64 = 1_000;
/// Longest TTL of a lease in milliseconds: etcd's 9,000,000,000 seconds.
pub const LEASE_TTL_MS_MAX: u64 = 9_000_000_000_000;
/// Greatest id of a lease: etcd's are signed.
pub const LEASE_ID_MAX: u64 = i64::MAX as u64;
/// Largest encoded spec of a group, contender or node, in bytes.
pub const SPEC_BYTES_MAX: usize = 64 * 1024;
/// Most groups, contenders or reports in one command.
pub const BATCH_MAX: usize = 10_000;

/// How far a contender's data has got; larger is fresher. Its unit is the service's (a log offset, say).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

/// How a leader is chosen among the eligible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElectionPolicy {
    /// By priority, locality, load, then rendezvous hash.
    #[default]
    Priority,
    /// Contenders are polled for their positions under the new tenure; only the freshest are considered, then as above.
    Freshest {
        /// How many contenders must answer the poll before one is chosen; `None`: all that are alive.
        answers_min: Option<u32>,
    },
}

/// What happens to a handover that is not finished by its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OverduePolicy {
    /// The holder goes on leading under the same tenure.
    #[default]
    Abort,
    /// The tenure is revoked; the old holder's lease is waited out.
    Revoke,
}

/// How many contenders' reports depose a holder that is alive but faulty (ADR peers-may-depose).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeposeQuorum {
    /// Contenders may not depose.
    Off,
    /// More than half of the live contenders, the holder counted among them, and at least 2.
    #[default]
    Majority,
    /// This many.
    Reports {
        /// How many; at least 1.
        min: u32,
    },
}

/// How long a report of a faulty holder counts by default, in milliseconds.
pub(crate) const DEPOSE_WINDOW_MS: u64 = 10_000;

const fn depose_window_ms() -> u64 {
    DEPOSE_WINDOW_MS
}

/// How a group is led.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Labels that a contender's node must have; empty: any may contend.
    pub require: BTreeMap<String, String>,
    /// Labels that are preferred among equal priorities, most important first.
    pub prefer: Vec<(String, String)>,
    /// How the leader is chosen.
    pub policy: ElectionPolicy,
    /// Whether the elected contender must report `Ready` before it leads.
    pub readiness: bool,
    /// How long a poll or a preparation may take, in milliseconds, before the next contender is chosen.
    pub prepare_deadline_ms: u64,
    /// How long a handover may take, in milliseconds.
    pub handover_deadline_ms: u64,
    /// What happens at that deadline.
    pub handover_overdue: OverduePolicy,
    /// No voluntary handover (rebalancing, spreading, preemption by priority) before a tenure is this old, in milliseconds.
    pub minimum_tenure_ms: u64,
    /// A contender whose tenure failed (expired, revoked, or not prepared in time) is not elected here for this long; doubled with each
    /// failure in a row. The old holder is taken all the same where nobody else is eligible after it.
    pub cooldown_ms: u64,
    /// Bound of the doubling.
    pub cooldown_max_ms: u64,
    /// Whether leaderships move on their own to a node that joins with a lighter load.
    pub spread: bool,
    /// How much leading this group weighs on a node.
    pub weight: u32,
    /// How many reports of contenders depose a holder that is alive but faulty.
    #[serde(default)]
    pub depose_quorum: DeposeQuorum,
    /// How long such a report counts, in milliseconds, unless it is said again.
    #[serde(default = "depose_window_ms")]
    pub depose_window_ms: u64,
}

impl Default for GroupSpec {
    fn default() -> Self {
        Self {
            require: BTreeMap::new(),
            prefer: Vec::new(),
            policy: ElectionPolicy::Priority,
            readiness: false,
            prepare_deadline_ms: 10_000,
            handover_deadline_ms: 30_000,
            handover_overdue: OverduePolicy::Abort,
            minimum_tenure_ms: 5_000,
            cooldown_ms: 1_000,
            cooldown_max_ms: 60_000,
            spread: true,
            weight: 1,
            depose_quorum: DeposeQuorum::default(),
            depose_window_ms: DEPOSE_WINDOW_MS,
        }
    }
}

/// How a session stands in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContenderSpec {
    /// Higher is preferred.
    pub priority: i32,
    /// What becomes the tenure's configuration when it is granted.
    pub configuration: ProposedConfiguration,
}

/// What clients look up to find and use the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposedConfiguration {
    /// Where the holder is reached.
    pub endpoints: Vec<String>,
    /// What else the service wants to publish.
    pub metadata: BTreeMap<String, String>,
}

/// A process of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Unique among live sessions; a second live session of the same name is refused.
    pub name: NodeName,
    /// Such as `region`, `zone`.
    pub labels: BTreeMap<String, String>,
    /// Its capacity relative to others; load is compared after dividing by it. At least 1.
    pub weight: u32,
    /// Most tenures it may hold; 0: no limit.
    pub max_tenures: u32,
    /// Most tenures it may prepare at once; 0: no limit.
    pub max_preparing: u32,
    /// Lowest contract version it speaks.
    pub contract_min: ContractVersion,
    /// Highest contract version it speaks.
    pub contract_max: ContractVersion,
}
