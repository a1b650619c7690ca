//! What a replica orders. Carried out in the order given.

use std::sync::Arc;

use quorate_consensus::{FatalError, Role, SnapshotMeta, Write, WriteSeq};
use quorate_coord::{Envelope, Event, State};
use quorate_types::{ClusterTime, LogIndex, ReplicaId, Revision, Term, TraceId};

use crate::call::{CallId, Response};
use crate::peer::PeerMessage;

/// An order to the shell.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a step gives few outputs, each is moved once, and boxing would allocate for most"
)]
pub enum Output {
    /// Make this durable, then give [`Input::Persisted`](crate::Input::Persisted).
    Persist(Write<Envelope>),
    /// Send now.
    Send {
        /// The receiver.
        to: ReplicaId,
        /// What.
        message: PeerMessage,
    },
    /// Send only after `write` is durable: the message promises it.
    SendAfterPersist {
        /// The write it waits for.
        write: WriteSeq,
        /// The receiver.
        to: ReplicaId,
        /// What.
        message: PeerMessage,
    },
    /// Answer a call of this server's client.
    Answer {
        /// Which.
        call: CallId,
        /// How.
        response: Response,
    },
    /// Publish a new version: reads and watches use it and never block apply.
    Publish(Published),
    /// Encode this, save it durably, then give [`Input::SnapshotSaved`](crate::Input::SnapshotSaved). Off the step thread.
    SaveSnapshot {
        /// What it covers.
        meta: SnapshotMeta,
        /// The version to save.
        state: Box<State>,
    },
    /// Read a piece of the newest snapshot file and send it as a [`Message::SnapshotChunk`](quorate_consensus::Message::SnapshotChunk).
    SendSnapshotChunk {
        /// The receiver.
        to: ReplicaId,
        /// The leader's term, for the message.
        term: Term,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// From where.
        offset: u64,
    },
    /// Write a piece of an incoming snapshot (offset 0 starts afresh), then give `SnapshotChunkWritten`; after the last piece, verify,
    /// make durable and decode, then give `SnapshotArrived` or `SnapshotBroken`.
    WriteSnapshotChunk {
        /// Who sent it.
        from: ReplicaId,
        /// Which snapshot.
        meta: SnapshotMeta,
        /// Where the piece starts.
        offset: u64,
        /// The file's length.
        total: u64,
        /// The bytes.
        data: Arc<[u8]>,
    },
    /// Role, term or known leader changed.
    RoleChanged {
        /// The role now.
        role: Role,
        /// The term now.
        term: Term,
        /// The leader of `term`, where known.
        leader: Option<ReplicaId>,
    },
    /// Stop the process; nothing after this counts.
    Fatal(FatalError),
}

/// A version of the state, and what led to it since the one before.
#[derive(Clone, Debug)]
pub struct Published {
    /// The state: immutable, shares structure with the one before.
    pub state: State,
    /// One for each entry applied since the version before, in order. Empty with `reset`.
    pub applied: Vec<AppliedEntry>,
    /// The state was replaced by a snapshot: what led to it is not known, watchers start over.
    pub reset: bool,
}

/// What applying one entry did.
#[derive(Clone, Debug)]
pub struct AppliedEntry {
    /// Its index.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// The revision after it.
    pub revision: Revision,
    /// Cluster time after it.
    pub cluster_time: ClusterTime,
    /// The trace of its request.
    pub trace: TraceId,
    /// What changed, in order.
    pub events: Vec<Event>,
}
