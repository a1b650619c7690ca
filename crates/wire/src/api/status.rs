//! What a server is and sees.

use quorate_types::{
    ClusterId, ConfigEpoch, FeatureLevel, GroupName, LogIndex, NodeName, ReplicaId, Revision, Term,
};
use serde::Serialize;

use super::Phase;

/// What a replica is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It follows.
    Follower,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// It receives the log without a vote.
    Learner,
}

/// One server's own view; no other was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// The server.
    pub id: ReplicaId,
    /// Its name.
    pub name: String,
    /// The software's version.
    pub version: String,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The term's leader, where known.
    pub leader: Option<ReplicaId>,
    /// Known to be committed.
    pub commit: LogIndex,
    /// Applied here.
    pub applied: LogIndex,
    /// The log's end here.
    pub last_index: LogIndex,
    /// The state's revision here.
    pub revision: Revision,
    /// The cluster's clock here.
    pub cluster_time_ms: u64,
    /// The behaviour that entries are applied by.
    pub feature_level: FeatureLevel,
    /// The membership's version.
    pub config_epoch: ConfigEpoch,
    /// The membership.
    pub members: Vec<ServerMember>,
    /// The leader's view of the others; empty elsewhere.
    pub peers: Vec<PeerProgress>,
    /// Live sessions.
    pub sessions: u64,
    /// Known nodes.
    pub nodes: u64,
    /// Groups in each phase.
    pub groups: Vec<(Phase, u64)>,
    /// Handovers asked for and not finished: the first 100.
    pub pending_transfers: Vec<GroupName>,
    /// How many in all.
    pub pending_transfers_total: u64,
    /// Nodes that are cordoned or draining.
    pub drains: Vec<PendingDrain>,
    /// Groups whose last spec change waits for their tenure to end: the first 100.
    pub pending_specs: Vec<GroupName>,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
}

/// A member of the backbone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerMember {
    /// Its id.
    pub id: ReplicaId,
    /// Its name; empty where this server does not know it.
    pub name: String,
    /// Where peers reach it.
    pub peer_address: String,
    /// Where clients reach it; empty where this server does not know it.
    pub client_address: String,
    /// It votes.
    pub voter: bool,
}

/// How far another server is, as the leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PeerProgress {
    /// Which.
    pub id: ReplicaId,
    /// Durable there up to here.
    pub matched: LogIndex,
    /// Milliseconds since it last answered; none: not in this term.
    pub silent_ms: Option<u64>,
    /// It is being sent a snapshot.
    pub snapshot: bool,
}

/// A node that is not open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PendingDrain {
    /// Which.
    pub node: NodeName,
    /// Cordoned only: it keeps what it holds.
    pub cordoned: bool,
    /// What it still holds.
    pub tenures_left: u32,
}
