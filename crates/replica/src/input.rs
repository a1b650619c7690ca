//! What can happen to a replica. Closed: one `match` lists everything.

use quorate_consensus::{SnapshotMeta, WriteSeq};
use quorate_coord::State;
use quorate_types::ReplicaId;

use crate::call::{CallId, Request};
use crate::peer::PeerMessage;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed: given at [`Replica::deadline`](crate::Replica::deadline), or earlier.
    Tick,
    /// A connection to a peer was made.
    PeerConnected {
        /// Which.
        peer: ReplicaId,
    },
    /// A peer said something.
    Peer {
        /// Who.
        from: ReplicaId,
        /// What.
        message: PeerMessage,
    },
    /// Clients of this server asked for something; what arrived together is given together.
    Calls(Vec<(CallId, Request)>),
    /// Every write up to this one is durable.
    Persisted {
        /// The last durable write.
        through: WriteSeq,
    },
    /// The piece asked for by [`Output::WriteSnapshotChunk`](crate::Output::WriteSnapshotChunk) is written, and is not the last.
    SnapshotChunkWritten {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// The offset after it.
        next: u64,
    },
    /// The last piece is written; the file verified, is durable, and decoded to this.
    SnapshotArrived {
        /// Which snapshot.
        meta: SnapshotMeta,
        /// What it holds.
        state: Box<State>,
    },
    /// The arrived file did not verify or decode.
    SnapshotBroken {
        /// Which snapshot.
        meta: SnapshotMeta,
    },
    /// The snapshot asked for by [`Output::SaveSnapshot`](crate::Output::SaveSnapshot) is durable.
    SnapshotSaved {
        /// Which.
        meta: SnapshotMeta,
    },
    /// The process is to stop: hand leadership over if this replica leads.
    HandOver,
}
