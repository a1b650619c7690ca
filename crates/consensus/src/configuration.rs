//! The backbone's membership, as entries carry it: who votes, in which shape, where each is found.
//!
//! Joint configurations and learners are representable from the start; changing members comes later.

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{ConfigEpoch, ReplicaId};
use serde::{Deserialize, Serialize};

/// How a replica is reached. Consensus never reads it; the shell does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// A name for people, such as `s1`.
    pub name: String,
    /// `host:port` of its peer port.
    pub peer_address: String,
    /// `host:port` of its client port.
    pub client_address: String,
}

/// A set of replicas whose quorums decide.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VoterSet {
    /// Its voters.
    pub voters: BTreeSet<ReplicaId>,
}

/// One version of the membership. A replica uses the newest in its log, committed or not (thesis, section 4.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Its version.
    pub epoch: ConfigEpoch,
    /// The voters, or in a joint configuration the incoming ones.
    pub incoming: VoterSet,
    /// In a joint configuration, the voters being replaced: every quorum needs both halves (thesis, section 4.3).
    pub outgoing: Option<VoterSet>,
    /// Replicas that receive the log and do not vote.
    pub learners: BTreeSet<ReplicaId>,
    /// How to reach each of them.
    pub members: BTreeMap<ReplicaId, Member>,
}
