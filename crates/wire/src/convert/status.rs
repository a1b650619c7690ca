//! A server's status.

use quorate_types::{
    ClusterId, ConfigEpoch, FeatureLevel, GroupName, LogIndex, ReplicaId, Revision, Term,
};

use super::{Decoded, all, group_name, node_name, same_variants};
use crate::api::{ApiError, PeerProgress, PendingDrain, Phase, Role, ServerMember, ServerStatus};
use crate::proto;

same_variants!(Role, "role", [Follower, Candidate, Leader, Learner]);

fn names(names: Vec<String>) -> Decoded<Vec<GroupName>> {
    all(names, |name| group_name(&name))
}

fn names_to(names: Vec<GroupName>) -> Vec<String> {
    names.into_iter().map(String::from).collect()
}

impl TryFrom<proto::StatusReply> for ServerStatus {
    type Error = ApiError;
    fn try_from(status: proto::StatusReply) -> Decoded<Self> {
        let member = |member: proto::ServerMember| ServerMember {
            id: ReplicaId(member.id),
            name: member.name,
            peer_address: member.peer_address,
            client_address: member.client_address,
            voter: member.voter,
        };
        let peer = |peer: proto::PeerProgress| PeerProgress {
            id: ReplicaId(peer.id),
            matched: LogIndex(peer.matched),
            silent_ms: peer.silent_ms,
            snapshot: peer.snapshot,
        };
        Ok(Self {
            cluster: ClusterId(status.cluster_id),
            id: ReplicaId(status.id),
            name: status.name,
            version: status.version,
            role: Role::decode(status.role)?,
            term: Term(status.term),
            leader: status.leader.map(ReplicaId),
            commit: LogIndex(status.commit),
            applied: LogIndex(status.applied),
            last_index: LogIndex(status.last_index),
            revision: Revision(status.revision),
            cluster_time_ms: status.cluster_time_ms,
            feature_level: FeatureLevel(status.feature_level),
            config_epoch: ConfigEpoch(status.config_epoch),
            members: status.members.into_iter().map(member).collect(),
            peers: status.peers.into_iter().map(peer).collect(),
            sessions: status.sessions,
            nodes: status.nodes,
            groups: all(status.groups, |count| {
                Ok((Phase::decode(count.phase)?, count.groups))
            })?,
            pending_transfers: names(status.pending_transfers)?,
            pending_transfers_total: status.pending_transfers_total,
            drains: all(status.drains, |drain| {
                let (cordoned, tenures_left) = (drain.cordoned, drain.tenures_left);
                Ok(PendingDrain {
                    node: node_name(&drain.node)?,
                    cordoned,
                    tenures_left,
                })
            })?,
            pending_specs: names(status.pending_specs)?,
            uptime_ms: status.uptime_ms,
        })
    }
}

impl From<ServerStatus> for proto::StatusReply {
    fn from(status: ServerStatus) -> Self {
        let member = |member: ServerMember| proto::ServerMember {
            id: member.id.0,
            name: member.name,
            peer_address: member.peer_address,
            client_address: member.client_address,
            voter: member.voter,
        };
        let peer = |peer: PeerProgress| proto::PeerProgress {
            id: peer.id.0,
            matched: peer.matched.0,
            silent_ms: peer.silent_ms,
            snapshot: peer.snapshot,
        };
        let count = |(phase, groups): (Phase, u64)| proto::PhaseCount {
            phase: phase.encode(),
            groups,
        };
        let drain = |drain: PendingDrain| proto::PendingDrain {
            node: drain.node.into(),
            cordoned: drain.cordoned,
            tenures_left: drain.tenures_left,
        };
        Self {
            cluster_id: status.cluster.0,
            id: status.id.0,
            name: status.name,
            version: status.version,
            role: status.role.encode(),
            term: status.term.0,
            leader: status.leader.map(|leader| leader.0),
            commit: status.commit.0,
            applied: status.applied.0,
            last_index: status.last_index.0,
            revision: status.revision.0,
            cluster_time_ms: status.cluster_time_ms,
            feature_level: status.feature_level.0,
            config_epoch: status.config_epoch.0,
            members: status.members.into_iter().map(member).collect(),
            peers: status.peers.into_iter().map(peer).collect(),
            sessions: status.sessions,
            nodes: status.nodes,
            groups: status.groups.into_iter().map(count).collect(),
            pending_transfers: names_to(status.pending_transfers),
            pending_transfers_total: status.pending_transfers_total,
            drains: status.drains.into_iter().map(drain).collect(),
            pending_specs: names_to(status.pending_specs),
            uptime_ms: status.uptime_ms,
        }
    }
}
