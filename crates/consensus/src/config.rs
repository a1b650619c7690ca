//! What a replica's consensus core is given at start, and why its orders may be refused. Timeouts are inputs, so that
//! adaptive timing can change them at run time.

use std::time::Duration;

use quorate_types::ReplicaId;

use crate::{Entry, HardState, SnapshotMeta};

/// The settings of one replica's core.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica.
    pub id: ReplicaId,
    /// The timeouts to begin with; see [`Consensus::set_timing`](crate::Consensus::set_timing).
    pub timing: Timing,
    /// How many bytes of entries one append carries, save that it always carries at least one entry.
    pub append_bytes_max: usize,
    /// How many appends may be unanswered per peer.
    pub appends_in_flight_max: usize,
    /// A leader refuses proposals beyond this many uncommitted bytes.
    pub uncommitted_bytes_max: usize,
    /// Seeds the jitter of election timeouts.
    pub seed: u64,
}

/// Timeouts. No safety rule reads them (protocol, section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader shows that it lives.
    pub heartbeat_interval: Duration,
    /// How long a silent leader is believed alive; also the check-quorum window and the bound on a transfer.
    pub detection_timeout: Duration,
    /// An election timeout is the detection timeout plus a random part below this.
    pub election_jitter: Duration,
}

impl Timing {
    /// How long an unanswered append or snapshot piece waits before it is sent again: long enough for an answer to
    /// have come back, since a detection timeout exceeds the round trip.
    pub(crate) fn resend_after(self) -> Duration {
        (self.heartbeat_interval * 2).max(self.detection_timeout / 2)
    }

    pub(crate) fn check(self) {
        assert!(
            !self.heartbeat_interval.is_zero(),
            "a heartbeat interval of zero would never sleep"
        );
        assert!(
            self.heartbeat_interval < self.detection_timeout,
            "heartbeats every {:?} cannot keep a detection timeout of {:?} from expiring",
            self.heartbeat_interval,
            self.detection_timeout
        );
    }
}

/// What was found durable at start.
#[derive(Clone, Debug)]
pub struct Boot<C> {
    /// The vote last saved.
    pub hard_state: HardState,
    /// The newest snapshot: index 0 and the initial configuration on a fresh start.
    pub snapshot: SnapshotMeta,
    /// The log's entries, consecutive. Those up to the snapshot may be passed or left out; passed, they let slow
    /// followers catch up without the snapshot, and a log that contradicts it (a crash between a snapshot's
    /// installation and the purge of the log) is noticed and repaired.
    pub entries: Vec<Entry<C>>,
}

/// Only a leader can do this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead; the leader is {leader:?}")]
pub struct NotLeader {
    /// The leader of the current term, where known.
    pub leader: Option<ReplicaId>,
}

/// Why a proposal was refused. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Propose at the leader.
    #[error("propose: this replica does not lead; the leader is {leader:?}")]
    NotLeader {
        /// The leader of the current term, where known.
        leader: Option<ReplicaId>,
    },
    /// Leadership is being handed over: wait for the outcome.
    #[error("propose: leadership is being transferred to {to}")]
    Transferring {
        /// To whom.
        to: ReplicaId,
    },
    /// Wait until more is committed.
    #[error("propose: {uncommitted_bytes} bytes are uncommitted, the limit is {limit_bytes}")]
    Overloaded {
        /// How much is uncommitted.
        uncommitted_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
}

/// Why a transfer of leadership was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Ask the leader.
    #[error("transfer: this replica does not lead; the leader is {leader:?}")]
    NotLeader {
        /// The leader of the current term, where known.
        leader: Option<ReplicaId>,
    },
    /// Wait for the transfer under way.
    #[error("transfer: one to {to} is under way")]
    InProgress {
        /// To whom.
        to: ReplicaId,
    },
    /// Name another replica.
    #[error("transfer to {to}: it is not another voter")]
    NotAnotherVoter {
        /// The replica named.
        to: ReplicaId,
    },
    /// Try again once another voter answers.
    #[error("transfer: no other voter has answered within the detection timeout")]
    NoTarget,
}
