//! One segment file: its header, its two mirror slots, and how its batches are read back.
//!
//! Owns: the layout, and the decision between a torn and a rotten tail. Deliberately absent: writing order.
//!
//! ```text
//! 0      header: everything that recovery needs from the segments before it
//! 4096   mirror slot 0, then slot 1: the newest even and the newest odd batch (or its marker) again
//! data   batches, each at a multiple of 512, until zeros or the end of the file
//! ```

use std::collections::VecDeque;

use quorate_types::{LogIndex, Term};

use super::frame::{self, Chain, Frame, FrameKind, Operation, Place};
use crate::StorageError;
use crate::bytes::Reader;
use crate::log_store::{Record, Vote};

/// The header and the slots are whole pages.
pub(super) const PAGE: u64 = 4096;
/// Batches start at multiples of this, so that writing one never tears the one before. (A device that tears
/// larger sectors, older bytes in them included, is caught by the chain: it refuses to open.)
const SECTOR: u64 = 512;
/// Bytes of a segment's header; its checksum is in the last four, in every format to come.
pub(super) const HEADER: usize = 128;
const FORMAT: u32 = 1;
const MAGIC: &[u8; 8] = b"quorlog\n";
/// Segments, batches and records are counted one by one from 1: what claims to be beyond this was never written by us.
const COUNTER_MAX: u64 = u64::MAX / 2;

/// What the log says, without its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) vote: Vote,
    pub(super) purged: (LogIndex, Term),
    /// The index of the next record.
    pub(super) next: LogIndex,
}

impl Summary {
    pub(super) const EMPTY: Self = Self {
        vote: Vote {
            term: Term::ZERO,
            voted_for: None,
        },
        purged: (LogIndex::ZERO, Term::ZERO),
        next: LogIndex(1),
    };
}

/// A segment's header: all that precedes it, so that whole segments before it can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) segment: u64,
    pub(super) slot_bytes: u32,
    /// The number and chain of the last batch before this segment. The header is durable before the
    /// segment's first batch is written, so it proves that batch as acknowledged.
    pub(super) number: u64,
    pub(super) chain: Chain,
    pub(super) summary: Summary,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.slot_bytes.to_le_bytes());
        bytes.extend(self.segment.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.chain);
        frame::encode_vote(&mut bytes, self.summary.vote);
        for field in [
            self.summary.purged.0.0,
            self.summary.purged.1.0,
            self.summary.next.0,
        ] {
            bytes.extend(field.to_le_bytes());
        }
        assert!(
            bytes.len() <= HEADER - 4,
            "the header holds its {} bytes",
            bytes.len()
        );
        bytes.resize(HEADER - 4, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }

    fn decode(file: &str, bytes: &[u8]) -> Result<Self, StorageError> {
        let damaged = || StorageError::rotten(file, 0, "the segment's header fails its checksum");
        let (fields, crc) = bytes
            .get(..HEADER)
            .ok_or_else(damaged)?
            .split_at(HEADER - 4);
        if crc32c::crc32c(fields).to_le_bytes() != *crc || !fields.starts_with(MAGIC) {
            return Err(damaged());
        }
        let mut reader = Reader::new(&fields[MAGIC.len()..]);
        let found = reader.u32().ok_or_else(damaged)?;
        if found > FORMAT {
            return Err(StorageError::NewerFormat {
                file: file.to_owned(),
                found,
                supported: FORMAT,
            });
        }
        let mut read = || {
            Some(Self {
                slot_bytes: reader.u32()?,
                segment: reader.u64()?,
                number: reader.u64()?,
                chain: reader.hash()?,
                summary: Summary {
                    vote: frame::decode_vote(&mut reader)?,
                    purged: (LogIndex(reader.u64()?), Term(reader.u64()?)),
                    next: LogIndex(reader.u64()?),
                },
            })
        };
        let header: Self = read().ok_or_else(damaged)?;
        header
            .check()
            .map_err(|what| StorageError::rotten(file, 0, what))?;
        Ok(header)
    }

    /// What no header of ours says, whatever its checksum: the arithmetic below relies on it.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let summary = &self.summary;
        if self.segment > COUNTER_MAX || self.number > COUNTER_MAX || summary.next.0 > COUNTER_MAX {
            return Err("the segment's header counts further than any log gets");
        }
        if summary.next <= summary.purged.0 {
            return Err("the segment's header says that the log ends before it starts");
        }
        Ok(())
    }

    pub(super) fn slot_at(&self, number: u64) -> u64 {
        PAGE + number % 2 * u64::from(self.slot_bytes)
    }

    pub(super) fn data_at(&self) -> u64 {
        PAGE + 2 * u64::from(self.slot_bytes)
    }

    /// Whether a frame of that size is mirrored; larger ones get a marker after a sync of their own.
    pub(super) fn is_mirrored(&self, frame_bytes: u64) -> bool {
        frame_bytes <= u64::from(self.slot_bytes)
    }

    /// Where the frame after one goes.
    pub(super) fn after(offset: u64, frame_bytes: u64) -> u64 {
        (offset + frame_bytes).next_multiple_of(SECTOR)
    }
}

/// The name of a segment's file.
pub(super) fn file_name(segment: u64) -> String {
    format!("log-{segment:016x}.seg")
}

/// The number in a segment file's name.
pub(super) fn parse_name(name: &str) -> Option<u64> {
    let hex = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    u64::from_str_radix(hex, 16)
        .ok()
        .filter(|segment| file_name(*segment) == name)
}

/// The log as far as it was read back.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) number: u64,
    pub(super) chain: Chain,
    pub(super) summary: Summary,
    /// The records before `summary.next` that are still in a file; older ones may be gone with theirs.
    pub(super) records: VecDeque<Record>,
}

/// What was found in one segment.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) header: Header,
    pub(super) batches: u64,
    /// The highest index of a record in it.
    pub(super) index_max: LogIndex,
    /// Where its last batch ends.
    end: u64,
    slots: [SlotState; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Blank,
    Damaged,
    Holds(u64),
}

/// Reads one segment on top of what precedes it (nothing before the oldest).
pub(super) fn scan(
    segment: u64,
    bytes: &[u8],
    replay: &mut Option<Replay>,
) -> Result<Scanned, StorageError> {
    let file = file_name(segment);
    let header = Header::decode(&file, bytes)?;
    if header.segment != segment {
        return Err(StorageError::rotten(
            &file,
            0,
            format!("it says that it is segment {}", header.segment),
        ));
    }
    let replay = replay.get_or_insert_with(|| Replay {
        number: header.number,
        chain: header.chain,
        summary: header.summary,
        records: VecDeque::new(),
    });
    if header.number != replay.number
        || header.chain != replay.chain
        || header.summary != replay.summary
    {
        let what = format!(
            "it follows batch {} but the segment before it ends with batch {}: an acknowledged batch there is damaged",
            header.number, replay.number
        );
        return Err(StorageError::rotten(&file, 0, what));
    }
    let slots = [0, 1].map(|parity| Slot::read(&header, bytes, parity));
    let mut scanned = Scanned {
        header,
        batches: 0,
        index_max: LogIndex::ZERO,
        end: header.data_at(),
        slots: slots.each_ref().map(Slot::state),
    };
    loop {
        let place = Place {
            segment,
            offset: scanned.end,
            number: replay.number + 1,
        };
        let rest = usize::try_from(scanned.end)
            .ok()
            .and_then(|end| bytes.get(end..))
            .unwrap_or_default();
        let is_next = |frame: &Frame<'_>| {
            frame.kind == FrameKind::Batch && frame.place == place && frame.follows(&replay.chain)
        };
        // Of the two copies of a mirrored batch one may be damaged; the other is what was acknowledged.
        let copies = [
            Frame::decode(rest),
            slots[usize::from(place.number % 2 == 1)].frame,
        ];
        let Some(batch) = copies.into_iter().flatten().find(is_next) else {
            break;
        };
        scanned.index_max = scanned.index_max.max(replay.apply(&batch, &file)?);
        scanned.end = Header::after(scanned.end, batch.size());
        scanned.batches += 1;
    }
    Ok(scanned)
}

impl Scanned {
    /// Decides whether what follows the newest segment's last batch is the torn rest of a batch that was never
    /// acknowledged (`Ok`: how many bytes of it there are), or a damaged batch that was.
    ///
    /// A batch is acknowledged only when it is durable in two places: in the data and, mirrored or marked, in the
    /// slot of its parity. A crash damages only the batch being written and the slot of its parity.
    pub(super) fn check_tail(&self, bytes: &[u8], number: u64) -> Result<u64, StorageError> {
        let file = file_name(self.header.segment);
        let rotten = |what: String| Err(StorageError::rotten(&file, self.end, what));
        let newest = self.slots.iter().filter_map(|slot| match slot {
            SlotState::Holds(number) => Some(*number),
            SlotState::Blank | SlotState::Damaged => None,
        });
        let newest = newest.max().unwrap_or(0).max(self.header.number);
        if newest > number {
            return rotten(format!(
                "batch {} is damaged, yet batch {newest} was acknowledged",
                number + 1
            ));
        }
        if newest + 1 < number {
            return rotten(format!(
                "batch {number} is here, yet its mirror slots end with batch {newest}"
            ));
        }
        if self.slots == [SlotState::Damaged; 2] {
            return rotten(format!(
                "both mirror slots are damaged, so that batch {number} is not proven the last"
            ));
        }
        let tail = usize::try_from(self.end)
            .ok()
            .and_then(|end| bytes.get(end..))
            .unwrap_or_default();
        Ok(tail
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last as u64 + 1))
    }
}

struct Slot<'a> {
    frame: Option<Frame<'a>>,
    is_blank: bool,
}

impl<'a> Slot<'a> {
    fn read(header: &Header, bytes: &'a [u8], parity: u64) -> Self {
        let start = usize::try_from(header.slot_at(parity))
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let end = start
            .saturating_add(header.slot_bytes as usize)
            .min(bytes.len());
        let slot = &bytes[start..end];
        let is_own = |frame: &Frame<'_>| {
            frame.place.number % 2 == parity && frame.place.segment == header.segment
        };
        let frame = Frame::decode(slot).filter(is_own);
        Self {
            frame,
            is_blank: frame.is_none() && slot.iter().all(|byte| *byte == 0),
        }
    }

    fn state(&self) -> SlotState {
        match (&self.frame, self.is_blank) {
            (Some(frame), _) => SlotState::Holds(frame.place.number),
            (None, true) => SlotState::Blank,
            (None, false) => SlotState::Damaged,
        }
    }
}

impl Replay {
    /// Applies one batch; answers the highest index appended.
    fn apply(&mut self, batch: &Frame<'_>, file: &str) -> Result<LogIndex, StorageError> {
        let nonsense = |what: &str| StorageError::rotten(file, batch.place.offset, what.to_owned());
        let mut index_max = LogIndex::ZERO;
        let mut reader = Reader::new(batch.payload);
        while !reader.is_empty() {
            match frame::decode_operation(&mut reader)
                .ok_or_else(|| nonsense("a batch holds an unknown operation"))?
            {
                Operation::Append(record) => {
                    if record.index != self.summary.next {
                        return Err(nonsense("a record's index does not follow the last one"));
                    }
                    index_max = record.index;
                    self.summary.next = record.index.next();
                    self.records.push_back(record);
                }
                Operation::Truncate { from } => {
                    if from <= self.summary.purged.0 || from > self.summary.next {
                        return Err(nonsense("a truncation reaches outside of the log"));
                    }
                    self.summary.next = from;
                    while self
                        .records
                        .back()
                        .is_some_and(|record| record.index >= from)
                    {
                        self.records.pop_back();
                    }
                }
                Operation::Purge { through, term } => {
                    if through <= self.summary.purged.0 || through.0 > COUNTER_MAX {
                        return Err(nonsense("a purge goes back, or beyond every log"));
                    }
                    self.summary.purged = (through, term);
                    self.summary.next = self.summary.next.max(through.next());
                    while self
                        .records
                        .front()
                        .is_some_and(|record| record.index <= through)
                    {
                        self.records.pop_front();
                    }
                }
                Operation::Vote(vote) => self.summary.vote = vote,
            }
        }
        self.number = batch.place.number;
        self.chain = batch.chain;
        Ok(index_max)
    }

    /// Whether the records found are all those between the purged point and the end.
    pub(super) fn is_contiguous(&self) -> bool {
        let found = self.records.len() as u64;
        let wanted = self.summary.next.0 - self.summary.purged.0.next().0;
        found == wanted
            && self
                .records
                .front()
                .is_none_or(|record| record.index == self.summary.purged.0.next())
    }
}
