//! The state itself: what is replicated, what is derived from it, and the cheap look-ups.
//!
//! Deliberately absent: any rule. Those are in the file of each command family, and `apply` calls them.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use quorate_types::{
    ClusterTime, DirectiveSeq, FeatureLevel, GroupName, LogIndex, NodeName, Principal, Revision,
    SessionId, Term,
};
use serde::{Deserialize, Serialize};

use crate::command::{NodeAdmission, RequestKey, SessionKey};
use crate::dedup::Dedup;
use crate::group::Group;
use crate::image::Image;
use crate::keys::Alarms;
use crate::kv::{AuthStore, KvStore};
use crate::reply::Outcome;
use crate::spec::NodeSpec;
use crate::spread::{Balance, Sweep};

/// The behaviour that this code applies entries by.
pub const FEATURE_LEVEL: FeatureLevel = FeatureLevel(1);

/// A group's dense number: indexes hold it, since it is cheaper to copy and to compare than a name. Never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct GroupId(pub(crate) u64);

/// A node's liveness, and what is remembered of its requests.
///
/// # Invariants
/// - `key.id` is the id it is filed under. A lease may be granted under an id that another session had: `key.created` differs then.
/// - A session that names a node is that node's live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its identity.
    pub key: SessionKey,
    /// Its time to live.
    pub ttl_ms: u64,
    /// The node it stands for.
    pub node: Option<NodeName>,
    /// Whether it was revoked: it is refused keep-alives and waits for its end.
    pub revoked: bool,
    /// The number of the last directive to it.
    pub directive_seq: DirectiveSeq,
    /// The number of its last request.
    pub request_seq: u64,
    /// What came of that request.
    pub request_outcome: Option<Arc<Outcome>>,
    /// When it was opened.
    pub opened_at: ClusterTime,
    /// Who opened it.
    pub principal: Principal,
}

/// What a node carries, counted from the groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Tenures it holds, preparing ones included.
    pub tenures: u32,
    /// Their weights.
    pub weight: u64,
    /// Tenures it prepares.
    pub preparing: u32,
    /// Tenures it is to succeed.
    pub incoming: u32,
    /// Their weights.
    pub incoming_weight: u64,
    /// Those among them that it will have to prepare.
    pub incoming_preparing: u32,
    /// Weights of the tenures it hands over.
    pub outgoing_weight: u64,
}

/// A process of the service: present while its session lives, or while it is remembered as cordoned or draining.
///
/// # Invariants
/// - `session` is `None` only where `admission` is not `Open`.
/// - `load` equals what the groups say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What it said of itself when it last opened a session.
    pub spec: NodeSpec,
    /// Its live session.
    pub session: Option<SessionId>,
    /// What an operator wants of it.
    pub admission: NodeAdmission,
    /// What it carries.
    #[serde(skip)]
    pub load: Load,
}

impl Node {
    /// Whether it may take one tenure more.
    pub(crate) fn has_tenure_room(&self) -> bool {
        self.spec.max_tenures == 0 || self.load.tenures + self.load.incoming < self.spec.max_tenures
    }

    /// Whether it may prepare one tenure more.
    pub(crate) fn has_preparing_room(&self) -> bool {
        self.spec.max_preparing == 0
            || self.load.preparing + self.load.incoming_preparing < self.spec.max_preparing
    }
}

/// The groups that a session takes part in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Those it holds, preparing ones included.
    pub(crate) held: OrdSet<GroupId>,
    /// Those that poll it, or that it is to succeed in.
    pub(crate) aside: OrdSet<GroupId>,
    /// Those it stands in.
    pub(crate) contending: OrdSet<GroupId>,
}

/// Indexes: a pure function of the groups, never stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Derived {
    /// Groups by name.
    pub(crate) names: OrdMap<GroupName, GroupId>,
    /// What each session takes part in; absent where nothing.
    pub(crate) seats: OrdMap<SessionId, Seat>,
    /// Vacant groups with contenders, and active ones whose handover waits for a successor, or where a contender of higher priority
    /// than the holder's may become eligible.
    pub(crate) wanting: OrdSet<GroupId>,
    /// Groups to be handed to a contender of higher priority, once a slot is free.
    pub(crate) preempting: OrdSet<GroupId>,
    /// When groups are to be looked at.
    pub(crate) timers: OrdSet<(ClusterTime, GroupId)>,
    /// Handovers under way that nobody ordered.
    pub(crate) spreading: usize,
}

/// The replicated state machine. A clone shares structure and is cheap.
///
/// # Invariants
/// - A pure function of the entries applied: no clock, no randomness, no hash order.
/// - `revision`, `cluster_time` and the applied index never decrease.
/// - `derived`, every node's `load` and the keys below `/quorate/` equal what the groups say.
/// - A key's lease is a session that lives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Image", into = "Image")]
pub struct State {
    pub(crate) applied_index: LogIndex,
    pub(crate) applied_term: Term,
    pub(crate) revision: Revision,
    pub(crate) cluster_time: ClusterTime,
    pub(crate) feature_level: FeatureLevel,
    pub(crate) session_last: SessionId,
    pub(crate) group_last: GroupId,
    pub(crate) sessions: OrdMap<SessionId, Arc<Session>>,
    pub(crate) nodes: OrdMap<NodeName, Arc<Node>>,
    pub(crate) groups: OrdMap<GroupId, Arc<Group>>,
    pub(crate) dedup: Dedup,
    pub(crate) balance: Balance,
    pub(crate) sweep: Sweep,
    pub(crate) alarms: Alarms,
    pub(crate) auth: AuthStore,
    pub(crate) kv: KvStore,
    /// Nothing is granted before: set by a restore.
    pub(crate) granting_from: ClusterTime,
    pub(crate) derived: Derived,
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// The state before the first entry.
    #[must_use]
    pub fn new() -> Self {
        Self {
            applied_index: LogIndex::ZERO,
            applied_term: Term::ZERO,
            revision: Revision::ZERO,
            cluster_time: ClusterTime::ZERO,
            feature_level: FEATURE_LEVEL,
            session_last: SessionId::ZERO,
            group_last: GroupId(0),
            sessions: OrdMap::new(),
            nodes: OrdMap::new(),
            groups: OrdMap::new(),
            dedup: Dedup::default(),
            balance: Balance::default(),
            sweep: Sweep::default(),
            alarms: Alarms::new(),
            auth: AuthStore::new(),
            kv: KvStore::new(),
            granting_from: ClusterTime::ZERO,
            derived: Derived::default(),
        }
    }

    /// The last applied entry's index and term.
    #[must_use]
    pub fn applied(&self) -> (LogIndex, Term) {
        (self.applied_index, self.applied_term)
    }

    /// The version of the client-visible state.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The cluster's time.
    #[must_use]
    pub fn cluster_time(&self) -> ClusterTime {
        self.cluster_time
    }

    /// The behaviour that entries are applied by.
    #[must_use]
    pub fn feature_level(&self) -> FeatureLevel {
        self.feature_level
    }

    /// When the leader should propose `Advance`: a time already reached means at once (work was left over).
    #[must_use]
    pub fn next_deadline(&self) -> Option<ClusterTime> {
        let timer = self.derived.timers.get_min().map(|(at, _)| *at);
        let balance = self.balance_deadline();
        let sweep = self.has_kv_to_sweep().then_some(self.cluster_time);
        timer.into_iter().chain(balance).chain(sweep).min()
    }

    /// A session.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id).map(Arc::as_ref)
    }

    /// All sessions, by id.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values().map(Arc::as_ref)
    }

    /// How many sessions there are.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// A group.
    #[must_use]
    pub fn group(&self, name: &GroupName) -> Option<&Group> {
        let id = self.derived.names.get(name)?;
        self.groups.get(id).map(Arc::as_ref)
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.derived.names.values().map(|id| self.by_id(*id))
    }

    /// The groups whose names start so, by name.
    pub fn groups_with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Group> {
        // A prefix that is no possible name is the empty one, or one that no name can start with; both need no seek.
        let from = GroupName::new(prefix).ok();
        let all = from
            .is_none()
            .then(|| self.derived.names.iter())
            .into_iter()
            .flatten();
        let ranged = from
            .map(|from| self.derived.names.range(from..))
            .into_iter()
            .flatten();
        all.chain(ranged)
            .take_while(move |(name, _)| name.as_str().starts_with(prefix))
            .map(|(_, id)| self.by_id(*id))
    }

    /// The groups whose names start so and that come after a name, by name: a page without reading those before it.
    pub fn groups_after<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a GroupName>,
    ) -> impl Iterator<Item = &'a Group> {
        use std::ops::Bound;
        let start = GroupName::new(prefix).ok();
        let bound = match (after, start.as_ref()) {
            (Some(after), Some(start)) if after < start => Bound::Included(start.clone()),
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(start)) => Bound::Included(start.clone()),
            (None, None) => Bound::Unbounded,
        };
        self.derived
            .names
            .range((bound, Bound::Unbounded))
            .take_while(move |(name, _)| name.as_str().starts_with(prefix))
            .map(|(_, id)| self.by_id(*id))
    }

    /// How many groups there are.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// The groups that a session holds (preparing, leading, or being revoked), in order of creation.
    pub fn groups_held(&self, session: SessionId) -> impl Iterator<Item = &Group> {
        self.derived
            .seats
            .get(&session)
            .into_iter()
            .flat_map(|seat| seat.held.iter())
            .map(|id| self.by_id(*id))
    }

    /// The groups that a session stands in, in order of creation.
    pub fn groups_contended(&self, session: SessionId) -> impl Iterator<Item = &Group> {
        self.derived
            .seats
            .get(&session)
            .into_iter()
            .flat_map(|seat| seat.contending.iter())
            .map(|id| self.by_id(*id))
    }

    /// A node: live, or remembered as cordoned or draining.
    #[must_use]
    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name).map(Arc::as_ref)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(Arc::as_ref)
    }

    /// What a request that was already applied came to.
    #[must_use]
    pub fn dedup_lookup(&self, key: &RequestKey) -> Option<&Outcome> {
        match key {
            RequestKey::Internal | RequestKey::Unkeyed => None,
            RequestKey::Session { session, seq } => {
                let found = self
                    .session(session.id)
                    .filter(|s| s.key == *session && s.request_seq == *seq)?;
                found.request_outcome.as_deref()
            }
            RequestKey::Caller(id) => self.dedup.outcome(*id),
        }
    }

    /// The group of an id that an index holds.
    pub(crate) fn by_id(&self, id: GroupId) -> &Group {
        self.groups.get(&id).expect("an indexed group exists")
    }

    /// The revision that this apply's changes get.
    pub(crate) fn revision_next(&self) -> Revision {
        self.revision.next()
    }

    /// The session, where it is the one meant and lives.
    pub(crate) fn live(&self, key: SessionKey) -> Option<&Session> {
        self.session(key.id).filter(|s| s.key == key)
    }
}
