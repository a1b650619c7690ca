//! One format version byte, then postcard.

use quorate_consensus::{Entry, SnapshotMeta};
use quorate_coord::{Envelope, State};
use quorate_replica::PeerMessage;
use serde::{Serialize, de::DeserializeOwned};

use crate::CodecError;
use crate::earlier::{self, Earlier, FieldCounts};

/// The version of entries, snapshots and peer messages; it keeps decoding the ones before it.
const FORMAT: u8 = 3;
/// The version of handshakes, which stays: an older server must be able to read one to refuse it.
const HANDSHAKE_FORMAT: u8 = 1;

fn encode_as<T: Serialize>(format: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![format]).expect("encoding to memory of plain data cannot fail")
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(FORMAT, value)
}

pub(crate) fn encode_handshake<T: Serialize>(value: &T) -> Vec<u8> {
    encode_as(HANDSHAKE_FORMAT, value)
}

fn decode_as<T: DeserializeOwned>(
    format: u8,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let (&found, body) = bytes.split_first().ok_or(CodecError::Empty { what })?;
    let decoded = if found == format {
        postcard::take_from_bytes(body)
    } else if let Some(counts) = earlier::field_counts(found).filter(|_| found < format) {
        take_earlier(counts, body)
    } else {
        return Err(CodecError::Version {
            what,
            found,
            supported: format,
        });
    };
    let (value, rest) = decoded.map_err(|source| CodecError::Malformed { what, source })?;
    match rest.len() {
        0 => Ok(value),
        count => Err(CodecError::Trailing { what, count }),
    }
}

fn take_earlier<T: DeserializeOwned>(
    counts: FieldCounts,
    body: &[u8],
) -> Result<(T, &[u8]), postcard::Error> {
    let mut inner = postcard::Deserializer::from_bytes(body);
    let value = T::deserialize(Earlier {
        inner: &mut inner,
        counts,
    })?;
    Ok((value, inner.finalize()?))
}

fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    decode_as(FORMAT, what, bytes)
}

pub(crate) fn decode_handshake<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_as(HANDSHAKE_FORMAT, "handshake", bytes)
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
