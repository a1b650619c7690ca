//! Groups and nodes: what is specified of them, and what is seen of them.

use std::collections::BTreeMap;

use quorate_types::{FencingToken, GroupName, NodeName, Revision, SessionId, TenureNumber};
use serde::{Deserialize, Serialize};

use super::{Cause, Phase, ProposedConfiguration, SessionKey, TenureId};

/// How a leader is chosen among the eligible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ElectionPolicy {
    /// By priority, locality, load, then rendezvous hash.
    #[default]
    Priority,
    /// Contenders are polled for their positions; only the freshest are considered, then as above.
    Freshest {
        /// How many contenders must answer the poll; none: all that are alive.
        answers_min: Option<u32>,
    },
}

/// What happens to a handover that is not finished by its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverduePolicy {
    /// The holder goes on leading under the same tenure.
    #[default]
    Abort,
    /// The tenure is revoked; the old holder's lease is waited out.
    Revoke,
}

/// How many reports of its contenders depose a holder that is alive but faulty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DeposeQuorum {
    /// Contenders may not depose.
    Off,
    /// More than half of the live contenders, the holder counted among them, and at least 2.
    #[default]
    Majority,
    /// This many; at least 1.
    Reports {
        /// How many.
        min: u32,
    },
}

/// How a group is led.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupSpec {
    /// Labels that a contender's node must have; empty: any may contend.
    pub require: BTreeMap<String, String>,
    /// Labels that are preferred among equal priorities, most important first.
    pub prefer: Vec<(String, String)>,
    /// How the leader is chosen.
    pub policy: ElectionPolicy,
    /// Whether the elected contender must report `Ready` before it leads.
    pub readiness: bool,
    /// How long a poll or a preparation may take, in milliseconds.
    pub prepare_deadline_ms: u64,
    /// How long a handover may take, in milliseconds.
    pub handover_deadline_ms: u64,
    /// What happens at that deadline.
    pub handover_overdue: OverduePolicy,
    /// No voluntary handover before a tenure is this old, in milliseconds.
    pub minimum_tenure_ms: u64,
    /// A contender whose tenure failed is not elected here for this long; doubled with each failure in a row.
    pub cooldown_ms: u64,
    /// Bound of the doubling.
    pub cooldown_max_ms: u64,
    /// Whether leaderships move on their own to a node that joins with a lighter load.
    pub spread: bool,
    /// How much leading this group weighs on a node; at least 1.
    pub weight: u32,
    /// How many reports of contenders depose a holder that is alive but faulty.
    pub depose_quorum: DeposeQuorum,
    /// How long such a report counts, in milliseconds, unless it is said again.
    pub depose_window_ms: u64,
}

impl Default for GroupSpec {
    /// The same as the backbone's own defaults.
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
            depose_quorum: DeposeQuorum::Majority,
            depose_window_ms: 10_000,
        }
    }
}

/// A process of the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Unique among live sessions.
    pub name: NodeName,
    /// Such as `region`, `zone`.
    pub labels: BTreeMap<String, String>,
    /// Its capacity relative to others; at least 1.
    pub weight: u32,
    /// Most tenures it may hold; 0: no limit.
    pub max_tenures: u32,
    /// Most tenures it may prepare at once; 0: no limit.
    pub max_preparing: u32,
}

impl NodeSpec {
    /// A node without labels or limits, of weight 1.
    #[must_use]
    pub fn new(name: NodeName) -> Self {
        Self {
            name,
            labels: BTreeMap::new(),
            weight: 1,
            max_tenures: 0,
            max_preparing: 0,
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

/// What an operator wants of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeAdmission {
    /// It may be elected.
    #[default]
    Open,
    /// It is not elected anew; what it holds stays.
    Cordoned,
    /// It is not elected anew, and hands over what it holds.
    Draining,
}

/// How a leadership is to change hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferMode {
    /// The holder drains first.
    Handover,
    /// The tenure is revoked: it ends on release, or when the holder's lease is waited out.
    Force,
}

/// Who leads a group, as clients of the service need it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Its name.
    pub name: GroupName,
    /// The revision at which it was created.
    pub incarnation: Revision,
    /// Where it stands.
    pub phase: Phase,
    /// The newest tenure's number; 0 where there was none yet. While vacant, the one that ended.
    pub tenure: TenureNumber,
    /// The token of that tenure.
    pub token: FencingToken,
    /// The elected node; none while nobody is elected.
    pub node: Option<NodeName>,
    /// Its session.
    pub session: Option<SessionId>,
    /// What the holder publishes; empty while nobody is elected.
    pub configuration: ProposedConfiguration,
    /// While vacant: why the last tenure ended.
    pub vacancy: Option<Cause>,
}

impl GroupState {
    /// The newest tenure.
    #[must_use]
    pub fn tenure_id(&self) -> TenureId {
        TenureId {
            group: self.name.clone(),
            incarnation: self.incarnation,
            number: self.tenure,
        }
    }

    /// The node that may lead now, by this state; only the node itself can tell whether it still does.
    #[must_use]
    pub fn leader(&self) -> Option<&NodeName> {
        match self.phase {
            Phase::Active | Phase::Draining => self.node.as_ref(),
            Phase::Vacant | Phase::Polling | Phase::Preparing | Phase::Revoking => None,
        }
    }
}

/// A group in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Who leads it.
    pub state: GroupState,
    /// How it is led.
    pub spec: GroupSpec,
    /// The revision at which the spec was last changed, for conditional updates.
    pub spec_revision: Revision,
    /// How many stand in it.
    pub contenders: u32,
    /// The node that is to follow, while a handover is under way.
    pub successor: Option<NodeName>,
    /// A transfer was asked for and is not finished.
    pub transfer_pending: bool,
    /// It is to be deleted once its tenure has ended.
    pub deleting: bool,
    /// How many contenders' reports that the holder is faulty count now.
    pub fault_reports: u32,
}

/// Who stands in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContenderView {
    /// Its session.
    pub session: SessionId,
    /// Its node.
    pub node: NodeName,
    /// How it stands.
    pub spec: ContenderSpec,
}

/// A node as the backbone sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// What it said of itself.
    pub spec: NodeSpec,
    /// Its live session; none: it is gone, and only its admission is remembered.
    pub session: Option<SessionKey>,
    /// The session's TTL in milliseconds; 0 without one.
    pub ttl_ms: u64,
    /// What is wanted of it.
    pub admission: NodeAdmission,
    /// Tenures it holds.
    pub tenures: u32,
    /// Tenures it prepares.
    pub preparing: u32,
    /// Weight of the groups it holds.
    pub load: u64,
    /// Its session was revoked and waits for its end.
    pub revoked: bool,
}
