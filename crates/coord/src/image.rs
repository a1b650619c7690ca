//! The state as stored in snapshots: everything primary, nothing derived. Loading checks it and never panics.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;
use quorate_types::{ClusterTime, FeatureLevel, LogIndex, NodeName, Revision, SessionId, Term};
use serde::{Deserialize, Serialize};

use crate::command::NodeAdmission;
use crate::dedup::Dedup;
use crate::depose::{FaultReport, REASON_BYTES_MAX, REPORTS_KEPT_MAX};
use crate::event::{Cause, Phase};
use crate::group::{COOLDOWNS_MAX, Group, HISTORY_MAX, Tenure};
use crate::keys::{ALARMS_MAX, Alarms};
use crate::kv::{AuthStore, KvStore};
use crate::spec::LEASE_ID_MAX;
use crate::spread::{Balance, Sweep};
use crate::state::{Derived, GroupId, Node, Session, State};

/// A stored state contradicts itself. The snapshot is corrupt: fetch another one from a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored state is inconsistent: {0}")]
pub struct ImageError(String);

/// What is stored.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Image {
    applied_index: LogIndex,
    applied_term: Term,
    revision: Revision,
    cluster_time: ClusterTime,
    feature_level: FeatureLevel,
    session_last: SessionId,
    group_last: GroupId,
    #[serde(deserialize_with = "crate::bounded::map")]
    sessions: OrdMap<SessionId, Arc<Session>>,
    #[serde(deserialize_with = "crate::bounded::map")]
    nodes: OrdMap<NodeName, Arc<Node>>,
    #[serde(deserialize_with = "crate::bounded::map")]
    groups: OrdMap<GroupId, Arc<Group>>,
    dedup: Dedup,
    balance: Balance,
    sweep: Sweep,
    #[serde(default, deserialize_with = "crate::bounded::map")]
    alarms: Alarms,
    #[serde(default)]
    auth: AuthStore,
    #[serde(default)]
    kv: KvStore,
    #[serde(default)]
    granting_from: ClusterTime,
}

impl From<State> for Image {
    fn from(state: State) -> Self {
        Self {
            applied_index: state.applied_index,
            applied_term: state.applied_term,
            revision: state.revision,
            cluster_time: state.cluster_time,
            feature_level: state.feature_level,
            session_last: state.session_last,
            group_last: state.group_last,
            sessions: state.sessions,
            nodes: state.nodes,
            groups: state.groups,
            dedup: state.dedup,
            balance: state.balance,
            sweep: state.sweep,
            alarms: state.alarms,
            auth: state.auth,
            kv: state.kv,
            granting_from: state.granting_from,
        }
    }
}

impl TryFrom<Image> for State {
    type Error = ImageError;

    fn try_from(image: Image) -> Result<Self, ImageError> {
        let mut state = Self {
            applied_index: image.applied_index,
            applied_term: image.applied_term,
            revision: image.revision,
            cluster_time: image.cluster_time,
            feature_level: image.feature_level,
            session_last: image.session_last,
            group_last: image.group_last,
            sessions: image.sessions,
            nodes: image.nodes,
            groups: image.groups,
            dedup: image.dedup,
            balance: image.balance,
            sweep: image.sweep,
            alarms: image.alarms,
            auth: image.auth,
            kv: image.kv,
            granting_from: image.granting_from,
            derived: Derived::default(),
        };
        // Only a version before the key space stored groups and no key.
        if state.kv.revision() == 1 && !state.groups.is_empty() {
            state.write_all_group_keys();
        }
        state.check_primary().map_err(ImageError)?;
        state.rebuild();
        state.dedup.check().map_err(ImageError)?;
        Ok(state)
    }
}

fn check_reports(group: &Group, tenure: &Tenure) -> Result<(), String> {
    ensure(
        tenure.reports.is_empty() || tenure.activated_at.is_some(),
        || "who does not lead is reported".into(),
    )?;
    let is_deposed = tenure.revoked_for == Some(Cause::Deposed);
    ensure(!is_deposed || !tenure.reports.is_empty(), || {
        "its holder was deposed by nobody".into()
    })?;
    for (session, report) in &tenure.reports {
        let is_by_another = report.session == *session && tenure.holder != Some(*session);
        ensure(is_by_another, || format!("report of {session} is misfiled"))?;
        // While revoking the reports are record: who made them may have left.
        let stands = group.contenders.contains_key(session);
        ensure(stands || group.phase == Phase::Revoking, || {
            format!("session {session} reports and does not stand")
        })?;
        ensure(report.reason.len() <= REASON_BYTES_MAX, || {
            format!("the reason of {session} is too long")
        })?;
    }
    Ok(())
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

impl State {
    /// Asserts that the state is sound and that everything derived equals what it is derived from. O(n).
    ///
    /// # Panics
    /// When it is not: our own bug.
    pub fn check_invariants(&self) {
        if let Err(broken) = self.check_primary().and_then(|()| self.dedup.check()) {
            panic!("invariant broken at {:?}: {broken}", self.applied_index);
        }
        let mut twin = self.clone();
        twin.rebuild();
        assert!(
            twin.derived == self.derived,
            "an index differs: {:?} rebuilt, {:?} kept",
            twin.derived,
            self.derived
        );
        assert!(
            twin.nodes == self.nodes,
            "a load differs: {:?} rebuilt, {:?} kept",
            twin.nodes,
            self.nodes
        );
        assert!(
            twin.dedup == self.dedup,
            "the index of remembered requests differs from the requests"
        );
        self.kv.check_invariants();
    }

    fn check_primary(&self) -> Result<(), String> {
        ensure(self.alarms.len() <= ALARMS_MAX, || {
            "too many alarms are on".into()
        })?;
        for (id, session) in &self.sessions {
            // Native sessions are numbered up to `session_last`; a lease without a node may have any id.
            let is_numbered = *id <= self.session_last;
            let may_choose = session.node.is_none() && (1..=LEASE_ID_MAX).contains(&id.0);
            ensure(session.key.id == *id && (is_numbered || may_choose), || {
                format!("session {id} is misfiled")
            })?;
            ensure(session.key.created <= self.revision, || {
                format!("session {id} was opened in the future")
            })?;
            if let Some(name) = &session.node {
                let node = self
                    .nodes
                    .get(name)
                    .ok_or_else(|| format!("session {id} names no node {name:?}"))?;
                ensure(node.session == Some(*id), || {
                    format!("node {name:?} is not session {id}'s")
                })?;
            }
        }
        for (name, node) in &self.nodes {
            ensure(node.spec.name == *name && node.spec.weight >= 1, || {
                format!("node {name:?} is misfiled")
            })?;
            match node.session {
                None => ensure(node.admission != NodeAdmission::Open, || {
                    format!("node {name:?} is kept for nothing")
                })?,
                Some(id) => {
                    let session = self.sessions.get(&id);
                    ensure(
                        session.is_some_and(|s| s.node.as_ref() == Some(name)),
                        || format!("node {name:?} is not live under {id}"),
                    )?;
                }
            }
        }
        let mut names = BTreeSet::new();
        for (id, group) in &self.groups {
            ensure(group.id == *id && *id <= self.group_last, || {
                format!("group {id:?} is misfiled")
            })?;
            ensure(names.insert(&group.key.name), || {
                format!("group {:?} is there twice", group.key.name)
            })?;
            self.check_group(group)
                .map_err(|why| format!("group {:?}: {why}", group.key.name))?;
        }
        self.kv.check_primary()?;
        if let Some(lease) = self.kv.leases().find(|lease| {
            let session = self.sessions.get(&SessionId(*lease));
            session.is_none()
        }) {
            return Err(format!("keys of session {lease} outlived it"));
        }
        self.check_group_keys()
    }

    fn check_group(&self, group: &Group) -> Result<(), String> {
        ensure(
            group.key.created <= group.spec_revision && group.spec_revision <= self.revision,
            || "created or changed in the future".into(),
        )?;
        ensure(group.history.len() <= HISTORY_MAX, || {
            "its history is too long".into()
        })?;
        ensure(group.cooldowns.len() <= COOLDOWNS_MAX, || {
            "it remembers too many failures".into()
        })?;
        ensure(
            group.history.iter().all(|past| {
                let is_short = |report: &FaultReport| report.reason.len() <= REASON_BYTES_MAX;
                past.reports.len() <= REPORTS_KEPT_MAX && past.reports.iter().all(is_short)
            }),
            || "it remembers too much of reports".into(),
        )?;
        ensure(group.heir.is_none(), || "an heir outlived its apply".into())?;
        ensure(!group.deleting || group.phase == Phase::Revoking, || {
            "it should be gone".into()
        })?;
        ensure(!group.preempting || group.phase == Phase::Active, || {
            "preempted while not active".into()
        })?;
        ensure(group.token_last.0 <= self.revision.0, || {
            "its token is of the future".into()
        })?;
        for session in group.contenders.keys() {
            let found = self
                .sessions
                .get(session)
                .ok_or_else(|| format!("contender {session} is gone"))?;
            ensure(found.node.is_some(), || {
                format!("contender {session} is no node")
            })?;
        }
        let Some(tenure) = &group.tenure else {
            return ensure(group.phase == Phase::Vacant, || {
                format!("{:?} without a tenure", group.phase)
            });
        };
        ensure(group.phase != Phase::Vacant, || {
            "vacant with a tenure".into()
        })?;
        ensure(
            tenure.number == group.number_last && tenure.token == group.token_last,
            || "its tenure is old".into(),
        )?;
        ensure(
            tenure.successor.is_none() || group.phase == Phase::Draining,
            || "a successor while not draining".into(),
        )?;
        ensure(
            tenure.asked.is_empty() == (group.phase != Phase::Polling),
            || "asked while not polling, or not".into(),
        )?;
        let is_deadlined = matches!(
            group.phase,
            Phase::Polling | Phase::Preparing | Phase::Draining
        );
        ensure(tenure.deadline.is_some() == is_deadlined, || {
            format!("{:?} with a wrong deadline", group.phase)
        })?;
        let was_active = matches!(
            group.phase,
            Phase::Active | Phase::Draining | Phase::Revoking
        );
        ensure(tenure.activated_at.is_some() == was_active, || {
            format!("{:?} but wrongly activated", group.phase)
        })?;
        for session in tenure.asked.keys() {
            self.check_part(group, *session)?;
        }
        check_reports(group, tenure)?;
        if let Some(successor) = &tenure.successor {
            self.check_part(group, successor.session)?;
            let found = self
                .sessions
                .get(&successor.session)
                .and_then(|s| s.node.as_ref());
            ensure(found == Some(&successor.node), || {
                "its successor is of another node".into()
            })?;
        }
        match (group.phase, tenure.holder) {
            (Phase::Polling, None) => Ok(()),
            (Phase::Polling, Some(_)) | (_, None) => {
                Err(format!("{:?} with a wrong holder", group.phase))
            }
            (phase, Some(holder)) => {
                let found = self
                    .sessions
                    .get(&holder)
                    .ok_or_else(|| format!("its holder {holder} is gone"))?;
                ensure(found.node.is_some() && found.node == tenure.node, || {
                    "its holder is of another node".into()
                })?;
                ensure(group.contenders.contains_key(&holder), || {
                    "its holder does not stand".into()
                })?;
                ensure(!found.revoked || phase == Phase::Revoking, || {
                    "its holder's session is revoked".into()
                })
            }
        }
    }

    fn check_part(&self, group: &Group, session: SessionId) -> Result<(), String> {
        let found = self
            .sessions
            .get(&session)
            .ok_or_else(|| format!("session {session} takes part and is gone"))?;
        ensure(!found.revoked, || {
            format!("session {session} takes part and is revoked")
        })?;
        ensure(group.contenders.contains_key(&session), || {
            format!("session {session} takes part and does not stand")
        })
    }
}
