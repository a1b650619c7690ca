//! One format version byte, then postcard.

use quorate_consensus::{Entry, SnapshotMeta};
use quorate_coord::{Envelope, State};
use quorate_replica::PeerMessage;
use serde::{Serialize, de::DeserializeOwned};

use crate::CodecError;

/// The version of all formats here; each keeps decoding the ones before it.
const FORMAT: u8 = 1;

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).expect("encoding to memory of plain data cannot fail")
}

pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let (&found, body) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    if found != FORMAT {
        return Err(CodecError::Version {
            what,
            found,
            supported: FORMAT,
        });
    }
    let (value, rest) =
        postcard::take_from_bytes(body).map_err(|source| CodecError::Malformed { what, source })?;
    match rest.len() {
        0 => Ok(value),
        count => Err(CodecError::Trailing { what, count }),
    }
}

/// Encodes a log entry.
#[must_use]
pub fn encode_entry(entry: &Entry<Envelope>) -> Vec<u8> {
    encode(entry)
}

/// Decodes a log entry.
///
/// # Errors
/// [`CodecError`]: the log is rotten or newer; do not start.
pub fn decode_entry(bytes: &[u8]) -> Result<Entry<Envelope>, CodecError> {
    decode("log entry", bytes)
}

/// Encodes a message to a peer.
#[must_use]
pub fn encode_peer(message: &PeerMessage) -> Vec<u8> {
    encode(message)
}

/// Decodes a peer's message.
///
/// # Errors
/// [`CodecError`]: close the connection.
pub fn decode_peer(bytes: &[u8]) -> Result<PeerMessage, CodecError> {
    decode("peer message", bytes)
}

/// Encodes a snapshot.
#[must_use]
pub fn encode_snapshot(meta: &SnapshotMeta, state: &State) -> Vec<u8> {
    encode(&(meta, state))
}

/// Decodes a snapshot; its state is checked as a whole.
///
/// # Errors
/// [`CodecError`]: the snapshot is rotten or newer; fetch another, or do not start.
pub fn decode_snapshot(bytes: &[u8]) -> Result<(SnapshotMeta, State), CodecError> {
    decode("snapshot", bytes)
}
