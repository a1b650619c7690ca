//! The unit of the log on disk: one sync group as one checksummed, chained frame; and the operations in it.
//!
//! Owns: the bytes of frames and operations, format 1. Deliberately absent: where frames go (`segment.rs`)
//! and in which order they become durable (`log.rs`).
//!
//! ```text
//! frame      magic u32 | kind u32 | segment u64 | offset u64 | number u64 | len u32 | crc32c u32 | chain [32] | payload
//! operation  1 append  index u64, term u64, len u32, bytes      2 truncate  from u64
//!            3 purge   through u64, term u64                    4 vote      term u64, voted_for u64 (0: nobody)
//! ```
//! Little endian. The checksum covers everything but itself. `chain` is the blake3 hash of the chain before and
//! of this frame's header and payload. Naming its own place, a misdirected frame is not believed.

use std::sync::Arc;

use quorate_types::{LogIndex, ReplicaId, Term};

use crate::bytes::Reader;
use crate::log_store::{Record, Vote};

pub(super) type Chain = [u8; 32];

/// Bytes before the payload.
pub(super) const FRAME_HEADER: usize = 72;
const CRC_AT: usize = 36;
const CHAIN_AT: usize = 40;
const MAGIC: u32 = u32::from_le_bytes(*b"qlfr");

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameKind {
    /// The operations of one sync group.
    Batch,
    /// The proof that a batch too large to be mirrored was synced; the payload is the batch's chain.
    Marker,
}

impl FrameKind {
    fn code(self) -> u32 {
        match self {
            Self::Batch => 1,
            Self::Marker => 2,
        }
    }
}

/// Where a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    /// The offset of the batch, in its marker and in its mirror too.
    pub(super) offset: u64,
    /// Batches are numbered from 1 over the whole life of the log.
    pub(super) number: u64,
}

/// A frame whose own checksum holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: FrameKind,
    pub(super) place: Place,
    pub(super) chain: Chain,
    pub(super) payload: &'a [u8],
    header: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame from the start of `bytes`; `None` where there is no whole, undamaged one.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_at_checked(FRAME_HEADER)?;
        let mut reader = Reader::new(header);
        if reader.u32()? != MAGIC {
            return None;
        }
        let kind = match reader.u32()? {
            1 => FrameKind::Batch,
            2 => FrameKind::Marker,
            _ => return None,
        };
        let place = Place {
            segment: reader.u64()?,
            offset: reader.u64()?,
            number: reader.u64()?,
        };
        let payload = rest.get(..usize::try_from(reader.u32()?).ok()?)?;
        if reader.u32()? != checksum(header, payload) {
            return None;
        }
        Some(Self {
            kind,
            place,
            chain: reader.hash()?,
            payload,
            header,
        })
    }

    /// Whether this frame continues the chain.
    pub(super) fn follows(&self, before: &Chain) -> bool {
        self.chain == chain(before, self.header, self.payload)
    }

    /// Bytes of header and payload.
    pub(super) fn size(&self) -> u64 {
        (FRAME_HEADER + self.payload.len()) as u64
    }
}

/// Completes a frame whose payload is in `buffer` after [`FRAME_HEADER`] free bytes; answers its chain.
pub(super) fn seal(buffer: &mut [u8], kind: FrameKind, place: Place, before: &Chain) -> Chain {
    let (header, payload) = buffer.split_at_mut(FRAME_HEADER);
    let len = u32::try_from(payload.len())
        .expect("a sync group has less than 4 GiB: the replica bounds what it proposes");
    let mut fields = Vec::with_capacity(CRC_AT);
    fields.extend(MAGIC.to_le_bytes());
    fields.extend(kind.code().to_le_bytes());
    for field in [place.segment, place.offset, place.number] {
        fields.extend(field.to_le_bytes());
    }
    fields.extend(len.to_le_bytes());
    header[..CRC_AT].copy_from_slice(&fields);
    let own = chain(before, header, payload);
    header[CHAIN_AT..].copy_from_slice(&own);
    let crc = checksum(header, payload);
    header[CRC_AT..CHAIN_AT].copy_from_slice(&crc.to_le_bytes());
    own
}

fn chain(before: &Chain, header: &[u8], payload: &[u8]) -> Chain {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(before)
        .update(&header[..CRC_AT])
        .update(payload);
    *hasher.finalize().as_bytes()
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&header[..CRC_AT]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &header[CHAIN_AT..]), payload)
}

/// One change of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Append(Record),
    Truncate { from: LogIndex },
    Purge { through: LogIndex, term: Term },
    Vote(Vote),
}

pub(super) fn put_append(buffer: &mut Vec<u8>, record: &Record) {
    buffer.push(1);
    buffer.extend(record.index.0.to_le_bytes());
    buffer.extend(record.term.0.to_le_bytes());
    let len = u32::try_from(record.bytes.len())
        .expect("an entry has less than 4 GiB: the replica bounds what it proposes");
    buffer.extend(len.to_le_bytes());
    buffer.extend_from_slice(&record.bytes);
}

pub(super) fn put_truncate(buffer: &mut Vec<u8>, from: LogIndex) {
    buffer.push(2);
    buffer.extend(from.0.to_le_bytes());
}

pub(super) fn put_purge(buffer: &mut Vec<u8>, through: LogIndex, term: Term) {
    buffer.push(3);
    buffer.extend(through.0.to_le_bytes());
    buffer.extend(term.0.to_le_bytes());
}

pub(super) fn put_vote(buffer: &mut Vec<u8>, vote: Vote) {
    buffer.push(4);
    encode_vote(buffer, vote);
}

pub(super) fn encode_vote(buffer: &mut Vec<u8>, vote: Vote) {
    buffer.extend(vote.term.0.to_le_bytes());
    // Replica ids are 1 or more (types), so that 0 is free to say nobody.
    buffer.extend(vote.voted_for.map_or(0, |replica| replica.0).to_le_bytes());
}

pub(super) fn decode_vote(reader: &mut Reader<'_>) -> Option<Vote> {
    let term = Term(reader.u64()?);
    let voted_for = Some(ReplicaId(reader.u64()?)).filter(|replica| replica.0 != 0);
    Some(Vote { term, voted_for })
}

/// Reads the next operation of a batch.
pub(super) fn decode_operation(reader: &mut Reader<'_>) -> Option<Operation> {
    Some(match reader.u8()? {
        1 => {
            let (index, term) = (LogIndex(reader.u64()?), Term(reader.u64()?));
            let len = usize::try_from(reader.u32()?).ok()?;
            Operation::Append(Record {
                index,
                term,
                bytes: Arc::from(reader.take(len)?),
            })
        }
        2 => Operation::Truncate {
            from: LogIndex(reader.u64()?),
        },
        3 => Operation::Purge {
            through: LogIndex(reader.u64()?),
            term: Term(reader.u64()?),
        },
        4 => Operation::Vote(decode_vote(reader)?),
        _ => return None,
    })
}
