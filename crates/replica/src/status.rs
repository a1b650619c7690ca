//! What operators want to see of one replica.

use std::time::Duration;

use quorate_consensus::{PeerProgress, Role};
use quorate_types::{LogIndex, ReplicaId, Revision, Term};

use crate::replica::Replica;

/// One replica at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its id.
    pub id: ReplicaId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The leader it knows of.
    pub leader: Option<ReplicaId>,
    /// Its commit index, which is also applied.
    pub commit: LogIndex,
    /// The last entry of its log.
    pub last: LogIndex,
    /// The first entry it holds in memory.
    pub first: LogIndex,
    /// Its revision.
    pub revision: Revision,
    /// At a serving leader: how many sessions it remembers.
    pub sessions: Option<usize>,
    /// At a serving leader: how long the most overdue session is past its deadline.
    pub expiry_lag: Option<Duration>,
    /// Calls that wait here.
    pub calls: usize,
    /// At a leader: how far each peer is.
    pub progress: Vec<PeerProgress>,
}

impl Status {
    pub(crate) fn of(replica: &Replica) -> Self {
        Self {
            id: replica.id(),
            role: replica.role(),
            term: replica.term(),
            leader: replica.leader(),
            commit: replica.commit(),
            last: replica.last_index(),
            first: replica.consensus.first_index(),
            revision: replica.state.revision(),
            sessions: replica
                .lead
                .as_ref()
                .and_then(|lead| lead.serving.as_ref())
                .map(|serving| serving.leases.len()),
            expiry_lag: replica
                .lead
                .as_ref()
                .and_then(|lead| lead.serving.as_ref())
                .map(|serving| serving.leases.overdue(replica.last_step)),
            calls: replica.pending.len(),
            progress: replica.consensus.progress(),
        }
    }
}
