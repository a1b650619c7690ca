//! The first thing two servers say on a connection.

use quorate_types::{ClusterEpoch, ClusterId, FeatureLevel, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::CodecError;
use crate::versioned;

/// Who connects, to whom, and what it speaks. Checked by both sides before anything else is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handshake {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender's cluster epoch.
    pub epoch: ClusterEpoch,
    /// The sender.
    pub from: ReplicaId,
    /// Whom it means to talk to.
    pub to: ReplicaId,
    /// Random, made with the sender's data directory: a replaced disk shows.
    pub disk_id: u64,
    /// The newest peer format it speaks.
    pub format: u16,
    /// The lowest and highest feature level it supports.
    pub features: (FeatureLevel, FeatureLevel),
}

/// Encodes a handshake.
#[must_use]
pub fn encode_handshake(handshake: &Handshake) -> Vec<u8> {
    versioned::encode_handshake(handshake)
}

/// Decodes a handshake.
///
/// # Errors
/// [`CodecError`]: close the connection.
pub fn decode_handshake(bytes: &[u8]) -> Result<Handshake, CodecError> {
    versioned::decode_handshake(bytes)
}
