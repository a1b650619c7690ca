//! What replicas say to each other: the protocol's messages, and calls forwarded to the leader.

use quorate_consensus::Message;
use quorate_coord::Envelope;
use serde::{Deserialize, Serialize};

use crate::call::{CallId, Request, Response};

/// A message between replicas.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// The backbone protocol.
    Consensus(Message<Envelope>),
    /// Calls of the sender's clients, for the leader. A receiver that does not lead refuses them: nothing is forwarded twice, so
    /// forwarding never loops. A command that comes again is not taken in again, nor answered (ADR forwarded-calls-are-taken-once).
    Forward {
        /// The sender's process: call numbers start over with each, so an answer to an earlier process must not count.
        incarnation: u64,
        /// The sender's numbers for them, and what is asked.
        calls: Vec<(CallId, Request)>,
    },
    /// Answers to forwarded calls.
    Answers {
        /// The process that asked.
        incarnation: u64,
        /// The receiver's numbers, and the answers.
        answers: Vec<(CallId, Response)>,
    },
}

/// The lane a message travels in. Lanes do not wait for each other, so that appends and snapshots never delay heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Votes, heartbeats and their answers, forwarded calls and answers that are small.
    Vital,
    /// Appends and their answers, forwarded calls and answers that are large.
    Log,
    /// Snapshot chunks.
    Bulk,
}

/// Calls or answers of more bytes than this would hold up heartbeats, and travel with appends.
const VITAL_BYTES_MAX: usize = 64 * 1024;

fn is_large(sizes: impl Iterator<Item = usize>) -> bool {
    sizes.sum::<usize>() > VITAL_BYTES_MAX
}

impl PeerMessage {
    /// The lane that this message travels in.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Consensus(Message::Append { entries, .. }) if !entries.is_empty() => Lane::Log,
            Self::Consensus(Message::SnapshotChunk { .. }) => Lane::Bulk,
            Self::Forward { calls, .. }
                if is_large(calls.iter().map(|(_, request)| request.size_bytes())) =>
            {
                Lane::Log
            }
            Self::Answers { answers, .. }
                if is_large(answers.iter().map(|(_, response)| response.size_bytes())) =>
            {
                Lane::Log
            }
            Self::Consensus(_) | Self::Forward { .. } | Self::Answers { .. } => Lane::Vital,
        }
    }
}
