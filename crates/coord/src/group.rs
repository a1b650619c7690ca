//! A group and what belongs to it: tenure, contenders, pending transfer, cool-downs, history. Data and its own look-ups.
//!
//! Deliberately absent: commands about groups (`groups.rs`) and phase changes (`lifecycle.rs`).

use std::sync::Arc;

use imbl::OrdMap;
use quorate_types::{ClusterTime, FencingToken, NodeName, Revision, SessionId, TenureNumber};
use serde::{Deserialize, Serialize};

use crate::command::{GroupKey, TenureKey};
use crate::depose::FaultReport;
use crate::event::{Cause, Phase, Predecessor, TenureView};
use crate::spec::{ElectionPolicy, GroupSpec, Position, ProposedConfiguration};
use crate::state::GroupId;

/// Most past tenures remembered per group.
pub const HISTORY_MAX: usize = 8;
/// Most nodes whose failures are remembered per group.
pub(crate) const COOLDOWNS_MAX: usize = 16;

/// How a session stands in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contender {
    /// Higher is preferred.
    pub priority: i32,
    /// What becomes the tenure's configuration.
    pub configuration: Arc<ProposedConfiguration>,
    /// Whether it has withdrawn and only finishes the tenure that it holds.
    pub withdrawing: bool,
    /// Since when it stands.
    pub since: ClusterTime,
}

/// What decided an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Criterion {
    /// Nobody else was eligible.
    Only,
    /// An order named it.
    Ordered,
    /// It caught up as the chosen successor of a handover.
    Succession,
    /// Its data were the freshest.
    Position,
    /// Its priority was higher.
    Priority,
    /// Its labels matched the preferred ones better.
    Locality,
    /// Its node carried less for its weight.
    Load,
    /// All else equal, the rendezvous hash of group and node.
    Hash,
}

/// Who is to follow a draining holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Successor {
    /// The session.
    pub session: SessionId,
    /// Its node.
    pub node: NodeName,
    /// How far it reported to have caught up.
    pub ready: Option<Position>,
}

/// One contender's leadership, from its numbering to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// Its number.
    pub number: TenureNumber,
    /// Its token: the revision at which it was numbered.
    pub token: FencingToken,
    /// Who was elected; none while polling.
    pub holder: Option<SessionId>,
    /// The holder's node.
    pub node: Option<NodeName>,
    /// What the holder publishes.
    pub configuration: Arc<ProposedConfiguration>,
    /// What decided for the holder.
    pub won_by: Option<Criterion>,
    /// When it was numbered.
    pub granted_at: ClusterTime,
    /// When it became active.
    pub activated_at: Option<ClusterTime>,
    /// When its poll, preparation or handover is overdue.
    pub deadline: Option<ClusterTime>,
    /// While polling: who was asked, and the answers.
    #[serde(deserialize_with = "crate::bounded::map")]
    pub asked: OrdMap<SessionId, Option<Position>>,
    /// While draining: who is to follow, where one could be chosen.
    pub successor: Option<Successor>,
    /// While revoking: why.
    pub revoked_for: Option<Cause>,
    /// While led: the contenders that reported the holder as faulty, those that no longer count included until the next report.
    /// While revoking: those that deposed it; none where it is revoked for another reason.
    #[serde(default, deserialize_with = "crate::bounded::map")]
    pub reports: OrdMap<SessionId, FaultReport>,
}

/// What kind of handover is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PendingKind {
    /// An operator ordered this group's transfer.
    Transfer,
    /// An operator drains the holder's node.
    NodeDrain,
    /// The holder withdrew.
    Withdrawal,
    /// A lighter or higher-ranked node takes over.
    Spread,
}

impl PendingKind {
    /// The cause by which the transitions of such a handover are recorded.
    #[must_use]
    pub fn cause(self) -> Cause {
        match self {
            Self::Transfer | Self::NodeDrain => Cause::Ordered,
            Self::Withdrawal => Cause::Withdrawn,
            Self::Spread => Cause::Rebalanced,
        }
    }
}

/// A change of hands that is wanted, until another node has the leadership or it is called off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What kind.
    pub kind: PendingKind,
    /// To whom, where one was named.
    pub to: Option<NodeName>,
    /// From whom.
    pub from: Option<NodeName>,
    /// Since when.
    pub since: ClusterTime,
    /// Not tried again before.
    pub not_before: ClusterTime,
}

/// A node that failed in a group, and until when it is not elected there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cooldown {
    /// Which node: a new session does not wash it off.
    pub node: NodeName,
    /// Failures in a row.
    pub failures: u32,
    /// Until when it is not elected here.
    pub until: ClusterTime,
    /// Whether it failed to prepare: then it waits even where nobody else is eligible, lest it be elected and fail in a loop.
    pub strict: bool,
}

/// A tenure that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastTenure {
    /// Its number.
    pub number: TenureNumber,
    /// Its token.
    pub token: FencingToken,
    /// Who was elected.
    pub holder: Option<SessionId>,
    /// Its node.
    pub node: Option<NodeName>,
    /// When it was numbered.
    pub granted_at: ClusterTime,
    /// When it became active; `None` where it never did.
    pub activated_at: Option<ClusterTime>,
    /// When it ended.
    pub ended_at: ClusterTime,
    /// Why it ended.
    pub cause: Cause,
    /// Why it was revoked, where it was.
    pub revoked_for: Option<Cause>,
    /// The position it was released at.
    pub position: Option<Position>,
    /// Who deposed its holder, where it was deposed; at most [`REPORTS_KEPT_MAX`](crate::REPORTS_KEPT_MAX).
    #[serde(default)]
    pub reports: Arc<Vec<FaultReport>>,
}

/// What needs exactly one leader.
///
/// # Invariants
/// - `tenure` is `None` exactly while `Vacant`; its number and token are `number_last` and `token_last`.
/// - From `Preparing` on the tenure has a holder, which is a contender with a live session.
/// - `deleting` only while `Revoking`: any other phase lets the group go at once.
/// - `heir` only within an apply.
/// - Reports of a faulty holder are by other contenders, and only from `Active` on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub(crate) id: GroupId,
    /// Its identity.
    pub key: GroupKey,
    /// How it is led.
    pub spec: Arc<GroupSpec>,
    /// When the spec last changed.
    pub spec_revision: Revision,
    /// Where it stands.
    pub phase: Phase,
    /// The current tenure.
    pub tenure: Option<Tenure>,
    /// Who stands.
    #[serde(deserialize_with = "crate::bounded::map")]
    pub contenders: OrdMap<SessionId, Contender>,
    /// A change of hands that is wanted.
    pub pending: Option<Pending>,
    /// Whether it goes when its tenure has ended.
    pub deleting: bool,
    /// How the last tenure that was active ended.
    pub predecessor: Option<Predecessor>,
    /// The position last released at: who cannot reach it does not lead, where positions count.
    pub required: Option<Position>,
    /// Who held the last tenure that was active, until the next one is: elected only where nobody else is eligible.
    pub holder_last: Option<NodeName>,
    /// The number of the last tenure.
    pub number_last: TenureNumber,
    /// The token of the last tenure.
    pub token_last: FencingToken,
    /// No voluntary handover before.
    pub calm_until: ClusterTime,
    /// Nodes that failed here.
    pub cooldowns: Arc<Vec<Cooldown>>,
    /// Past tenures, oldest first, at most [`HISTORY_MAX`].
    pub history: Arc<Vec<PastTenure>>,
    /// When to look again while vacant or active.
    pub(crate) wake: Option<ClusterTime>,
    /// Whether a contender of higher priority is to take over once a slot is free.
    pub(crate) preempting: bool,
    /// The successor of the handover that just ended, to be granted in this apply.
    pub(crate) heir: Option<Successor>,
}

impl Group {
    pub(crate) fn new(id: GroupId, key: GroupKey, spec: GroupSpec) -> Self {
        Self {
            id,
            spec_revision: key.created,
            key,
            spec: Arc::new(spec),
            phase: Phase::Vacant,
            tenure: None,
            contenders: OrdMap::new(),
            pending: None,
            deleting: false,
            predecessor: None,
            required: None,
            holder_last: None,
            number_last: TenureNumber::ZERO,
            token_last: FencingToken::ZERO,
            calm_until: ClusterTime::ZERO,
            cooldowns: Arc::default(),
            history: Arc::default(),
            wake: None,
            preempting: false,
            heir: None,
        }
    }

    /// Who holds it: prepares, leads, or is being revoked.
    #[must_use]
    pub fn holder(&self) -> Option<SessionId> {
        self.tenure.as_ref().and_then(|t| t.holder)
    }

    /// Who is to follow the draining holder.
    #[must_use]
    pub fn successor(&self) -> Option<&Successor> {
        self.tenure.as_ref().and_then(|t| t.successor.as_ref())
    }

    /// The current tenure's identity.
    #[must_use]
    pub fn tenure_key(&self) -> Option<TenureKey> {
        self.tenure.as_ref().map(|t| TenureKey {
            group: self.key.clone(),
            number: t.number,
        })
    }

    /// The current tenure as watchers see it.
    #[must_use]
    pub fn tenure_view(&self) -> Option<TenureView> {
        let tenure = self.tenure.as_ref()?;
        Some(TenureView {
            key: TenureKey {
                group: self.key.clone(),
                number: tenure.number,
            },
            token: tenure.token,
            holder: tenure.holder,
            node: tenure.node.clone(),
            configuration: (*tenure.configuration).clone(),
        })
    }

    /// Whether the freshest policy applies.
    #[must_use]
    pub fn is_freshest(&self) -> bool {
        matches!(self.spec.policy, ElectionPolicy::Freshest { .. })
    }

    /// The cool-down of a node here, past ones included while they are remembered.
    #[must_use]
    pub fn cooldown(&self, node: &NodeName) -> Option<&Cooldown> {
        self.cooldowns.iter().find(|c| c.node == *node)
    }

    /// Whether the holder has withdrawn and only finishes its tenure.
    pub(crate) fn holder_withdraws(&self) -> bool {
        self.holder()
            .and_then(|h| self.contenders.get(&h))
            .is_some_and(|c| c.withdrawing)
    }

    /// Whether somebody of higher priority than the holder's stands, eligible or not.
    pub(crate) fn is_outranked(&self) -> bool {
        let holder = self.holder().and_then(|h| self.contenders.get(&h));
        holder.is_some_and(|holder| {
            self.contenders
                .values()
                .any(|contender| contender.priority > holder.priority)
        })
    }

    /// Whether the last tenure that was active released at a known position: what was acknowledged under it goes no further.
    pub(crate) fn has_complete_release(&self) -> bool {
        self.predecessor
            .is_some_and(|p| p.outcome == Cause::Released && p.position.is_some())
    }

    /// Whether who succeeds a holder has to report `Ready` first.
    pub(crate) fn is_prepared_for(&self) -> bool {
        self.spec.readiness || self.is_freshest()
    }
}
