//! A state that a new cluster goes on from: what a restored snapshot becomes before its first entry (protocol, section 7).
//!
//! What happened after the snapshot is lost, and some of it may still be believed outside: tokens were given, revisions were told, holders
//! lead. So numbers go on far above, tenures are void, and nothing is granted before every lost belief has ended.

use std::sync::Arc;
use std::time::Duration;

use quorate_types::{ClusterTime, DriftBound, Revision, SessionId};

use crate::command::NodeAdmission;
use crate::event::{Cause, Phase, Predecessor};
use crate::group::Group;
use crate::keys::Alarms;
use crate::spread::{Balance, Sweep};
use crate::state::{GroupId, State};

/// By how much a restore raises both revisions: more than a lost history can have used.
pub const RESTORE_RAISE: u64 = 1 << 40;

/// What a restore has to know beside the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The longest TTL of any node's session of the old cluster, as far as the operator knows of sessions opened after the snapshot; those in
    /// the snapshot are found there.
    pub ttl_ms_longest: u64,
    /// The bound on clock rates, as the servers have it.
    pub drift: DriftBound,
}

impl State {
    /// The state of a new cluster that goes on from this one.
    ///
    /// Sessions without a node live on, with their keys; their TTL begins again when a leader is elected. Sessions of nodes are over. No
    /// group is led, and none will be before the longest TTL, stretched, has passed in the new cluster's time.
    #[must_use]
    pub fn restored(mut self, restore: &Restore) -> Self {
        let nodes = self.sessions().filter(|session| session.node.is_some());
        let longest = nodes.map(|session| session.ttl_ms).max().unwrap_or(0);
        let longest = Duration::from_millis(longest.max(restore.ttl_ms_longest));
        let wait = restore
            .drift
            .stretch(longest)
            .as_nanos()
            .div_ceil(1_000_000);
        let wait_ms = u64::try_from(wait).unwrap_or(u64::MAX);
        self.granting_from = self.cluster_time.plus_ms(wait_ms);
        self.revision = Revision(self.revision.0 + RESTORE_RAISE);
        // Before anything is written: what is written belongs to the new history.
        self.kv.raise(RESTORE_RAISE);
        self.void_groups();
        self.end_bound_sessions();
        // They were about servers and an order of things that are no more.
        self.alarms = Alarms::new();
        self.balance = Balance::default();
        self.sweep = Sweep::default();
        self.rebuild();
        self.write_all_group_keys();
        self
    }

    /// Before which cluster time nothing is granted.
    #[must_use]
    pub fn granting_from(&self) -> ClusterTime {
        self.granting_from
    }

    /// Ends sessions whose owners may believe in tenures, and those that were to end.
    fn end_bound_sessions(&mut self) {
        let is_bound = |id: &SessionId| {
            let session = self.session(*id).expect("a listed session exists");
            session.node.is_some() || session.revoked
        };
        let over: Vec<SessionId> = self.sessions.keys().copied().filter(is_bound).collect();
        for id in over {
            self.sessions.remove(&id);
            self.kv.end_lease(id.0);
        }
        for (name, mut node) in std::mem::take(&mut self.nodes) {
            if node.admission != NodeAdmission::Open {
                Arc::make_mut(&mut node).session = None;
                self.nodes.insert(name, node);
            }
        }
    }

    fn void_groups(&mut self) {
        let created = self.revision;
        let all: Vec<(GroupId, Arc<Group>)> = self
            .groups
            .iter()
            .map(|(id, group)| (*id, Arc::clone(group)))
            .collect();
        for (id, group) in all {
            if group.deleting {
                self.kv
                    .delete_own(&crate::group_keys::key_of(group.key.name.as_str()));
                self.groups.remove(&id);
            } else {
                let mut group = group.as_ref().clone();
                void(&mut group, created);
                self.groups.insert(id, Arc::new(group));
            }
        }
    }
}

fn void(group: &mut Group, created: Revision) {
    // Another incarnation: what names a tenure of the lost history names none of this one.
    group.key.created = created;
    group.spec_revision = created;
    group.phase = Phase::Vacant;
    let holder_last = group.tenure.take().filter(|t| t.activated_at.is_some());
    if let Some(node) = holder_last.and_then(|tenure| tenure.node) {
        group.holder_last = Some(node);
    }
    group.contenders = imbl::OrdMap::new();
    group.pending = None;
    group.wake = None;
    group.preempting = false;
    group.heir = None;
    // Even where the last tenure known was released: a later one may have acknowledged more, and nobody knows how far.
    group.predecessor = Some(Predecessor {
        number: group.number_last,
        outcome: Cause::Expired,
        position: group.required,
    });
}
