//! The durable log: segment files of chained batches, written by group commit, read back at start.
//!
//! Owns: the order of writes and syncs. Deliberately absent: what an entry means; scrubbing and repair from peers;
//! reading entries (the core holds the live suffix in memory).
//!
//! # One batch per sync, kept twice
//!
//! Everything between two syncs becomes one batch, so it is durable whole or not at all (adoption relies on that:
//! protocol, section 5). [`sync`](LogStore::sync) writes the batch at the end of the segment and the same bytes
//! again into the slot of its parity (even or odd batch number) near the segment's start, and then syncs the file
//! *once*. That tells a torn tail from a rotten one (protocol, section 7):
//!
//! - Acknowledged means durable in both places. Damage to one place, of any extent, is read from the other; only
//!   when both copies of one batch are damaged would the newest one be lost, as with any marker beside the data.
//! - A crash during the write of batch n can damage its two copies only: batches share no sector, and the slot of
//!   batch n - 1 is the other one. Both unreadable: n was not acknowledged, and it is cut.
//! - Damage further back has no mirror any more, and refuses to open: later batches chain from it.
//!
//! The price is that small batches are written twice, which costs bytes but no second flush. A batch too large
//! for its slot is synced first and then proven by a marker in the slot, synced again: two flushes, once per
//! [`LogOptions::mirror_bytes`] or more. Alternatives and measurements: ADR 2026-11-23-own-log.
//!
//! # Segments
//!
//! A segment is written aside, synced, renamed and its name synced before its first batch. Its header repeats the
//! vote, the purged point and the chain, so that older segments are removed whole. Every opening of the log starts a
//! new segment and never writes to an old one: nothing that was read back is put at risk again.

mod frame;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use quorate_types::{LogIndex, Term};

use self::frame::{Chain, FRAME_HEADER, FrameKind, Place};
use self::segment::{HEADER, Header, PAGE, Summary};
use crate::StorageError;
use crate::disk::{Disk, DiskFile};
use crate::log_store::{LogStore, Record, Recovered, Vote};

/// How a log lays out its files. Each segment remembers its own, so that they may differ from run to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment that has reached this size is followed by a new one.
    pub segment_bytes: u64,
    /// Batches up to this size are mirrored (one sync), larger ones marked (two). A multiple of 4,096.
    pub mirror_bytes: u32,
    /// How far ahead of the data zeros are written, so that most syncs need not change the file's size
    /// or block map. Zero: not at all.
    pub preallocate_bytes: u64,
    /// Whether an empty directory becomes an empty log. A replica that had a log must not start with an empty one.
    pub create_if_missing: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            mirror_bytes: 256 << 10,
            preallocate_bytes: 4 << 20,
            create_if_missing: true,
        }
    }
}

impl LogOptions {
    /// Small files, for tests and simulation: every path is met within a few batches.
    #[must_use]
    pub fn small() -> Self {
        Self {
            segment_bytes: 24 << 10,
            mirror_bytes: 4 << 10,
            preallocate_bytes: 0,
            create_if_missing: true,
        }
    }
}

/// A [`LogStore`] on a [`Disk`].
///
/// # Invariants
/// - `durable` is what reopening would find; `given` is `durable` with the buffered operations applied.
/// - `buffer` starts with room for a frame's header; nothing else in it means that `given == durable`.
/// - `closed` is in order, and all numbers lie below `current`'s.
pub struct FileLog<D: Disk> {
    disk: D,
    options: LogOptions,
    closed: VecDeque<Closed>,
    current: Current<D::File>,
    number: u64,
    chain: Chain,
    durable: Summary,
    given: Summary,
    /// The highest index of the buffered records.
    given_index_max: LogIndex,
    buffer: Vec<u8>,
    is_poisoned: bool,
}

#[derive(Clone, Copy, Debug)]
struct Closed {
    segment: u64,
    index_max: LogIndex,
}

struct Current<F> {
    file: F,
    name: String,
    header: Header,
    /// Where the next batch goes.
    end: u64,
    /// The size of the file, zeros included.
    allocated: u64,
    index_max: LogIndex,
}

/// The buffer's capacity is given back above this.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

impl<D: Disk> FileLog<D> {
    /// Opens the log in a directory, and makes everything it answers durable.
    ///
    /// # Errors
    /// [`StorageError`]: stop, and show its hint. Nothing that was acknowledged has been changed.
    ///
    /// # Panics
    /// When `options.mirror_bytes` is not a multiple of 4,096, or is zero.
    pub fn open(disk: D, options: LogOptions) -> Result<(Self, Recovered), StorageError> {
        let mirror = u64::from(options.mirror_bytes);
        assert!(
            mirror > 0 && mirror.is_multiple_of(PAGE),
            "mirror slots are whole pages, not {mirror} bytes"
        );
        let mut numbers = Vec::new();
        for name in disk
            .list()
            .map_err(|e| StorageError::io("list", "log directory", e))?
        {
            if let Some(segment) = segment::parse_name(&name) {
                numbers.push(segment);
            } else if name
                .strip_suffix(".tmp")
                .and_then(segment::parse_name)
                .is_some()
            {
                // A segment that was being prepared: nothing in it was ever acknowledged.
                disk.remove(&name)
                    .map_err(|e| StorageError::io("remove", &name, e))?;
            }
        }
        numbers.sort_unstable();
        if numbers.is_empty() {
            return Self::create(disk, options);
        }
        Self::recover(disk, options, &numbers)
    }

    fn create(disk: D, options: LogOptions) -> Result<(Self, Recovered), StorageError> {
        if !options.create_if_missing {
            return Err(StorageError::LogMissing);
        }
        let header = Header {
            segment: 1,
            slot_bytes: options.mirror_bytes,
            number: 0,
            chain: [0; 32],
            summary: Summary::EMPTY,
        };
        let log = Self::start(disk, options, VecDeque::new(), header)?;
        Ok((log, Recovered::default()))
    }

    fn recover(
        disk: D,
        options: LogOptions,
        numbers: &[u64],
    ) -> Result<(Self, Recovered), StorageError> {
        let mut replay = None;
        let mut closed = VecDeque::new();
        let mut torn_bytes = 0;
        let mut next_segment = 0;
        let last = numbers.last().copied();
        for (at, segment) in numbers.iter().copied().enumerate() {
            let name = segment::file_name(segment);
            if at > 0 && segment != numbers[at - 1] + 1 {
                let missing = segment::file_name(numbers[at - 1] + 1);
                return Err(StorageError::rotten(
                    &missing,
                    0,
                    "this segment is missing between two others",
                ));
            }
            let mut file = disk
                .open(&name)
                .map_err(|e| StorageError::io("open", &name, e))?;
            let size = file
                .size()
                .map_err(|e| StorageError::io("read", &name, e))?;
            let size = usize::try_from(size).expect("a segment fits the address space");
            let bytes = file
                .read_at(0, size)
                .map_err(|e| StorageError::io("read", &name, e))?;
            let scanned = segment::scan(segment, &bytes, &mut replay)?;
            if Some(segment) == last {
                let number = replay.as_ref().map_or(0, |replay| replay.number);
                torn_bytes = scanned.check_tail(&bytes, number)?;
                // What was read may have been only in the cache, if the process died but not the machine.
                file.sync().map_err(|e| StorageError::sync(&name, e))?;
                // An empty last segment is replaced under its own number; so restarts leave no empty files.
                next_segment = if scanned.batches == 0 {
                    segment
                } else {
                    segment + 1
                };
            }
            if scanned.batches > 0 {
                closed.push_back(Closed {
                    segment,
                    index_max: scanned.index_max,
                });
            } else if Some(segment) != last {
                return Err(StorageError::rotten(
                    &name,
                    scanned.header.data_at(),
                    "a segment before the last holds no batch",
                ));
            }
        }
        let replay = replay.expect("there is at least one segment");
        if !replay.is_contiguous() {
            let what = format!(
                "the oldest segment does not reach back to entry {}: an older one is missing",
                replay.summary.purged.0.next()
            );
            return Err(StorageError::rotten(
                &segment::file_name(numbers[0]),
                0,
                what,
            ));
        }
        let header = Header {
            segment: next_segment,
            slot_bytes: options.mirror_bytes,
            number: replay.number,
            chain: replay.chain,
            summary: replay.summary,
        };
        // Else the segment that is about to be started would be refused at the next opening.
        header.check().map_err(|what| {
            let newest = segment::file_name(last.expect("there is at least one segment"));
            StorageError::rotten(&newest, 0, what)
        })?;
        let mut log = Self::start(disk, options, closed, header)?;
        log.remove_obsolete()?;
        let recovered = Recovered {
            vote: replay.summary.vote,
            purged: replay.summary.purged,
            records: replay.records.into(),
            torn_bytes,
        };
        Ok((log, recovered))
    }

    fn start(
        disk: D,
        options: LogOptions,
        closed: VecDeque<Closed>,
        header: Header,
    ) -> Result<Self, StorageError> {
        let current = create_segment(&disk, options, header)?;
        Ok(Self {
            disk,
            options,
            closed,
            current,
            number: header.number,
            chain: header.chain,
            durable: header.summary,
            given: header.summary,
            given_index_max: LogIndex::ZERO,
            buffer: vec![0; FRAME_HEADER],
            is_poisoned: false,
        })
    }

    /// The index and term after which the log starts.
    #[must_use]
    pub fn purged(&self) -> (LogIndex, Term) {
        self.given.purged
    }

    /// The index that the next record must have.
    #[must_use]
    pub fn next_index(&self) -> LogIndex {
        self.given.next
    }

    /// Whether nothing was ever written to it.
    pub(crate) fn is_untouched(&self) -> bool {
        self.number == 0 && self.buffer.len() == FRAME_HEADER
    }

    fn check_usable(&self) -> Result<(), StorageError> {
        if self.is_poisoned {
            Err(StorageError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Writes the buffered operations as one batch and makes it durable.
    fn commit(&mut self) -> Result<(), StorageError> {
        let bytes = self.buffer.len() as u64;
        if self.current.end > self.current.header.data_at()
            && self.current.end + bytes > self.options.segment_bytes
        {
            self.roll()?;
        }
        let current = &mut self.current;
        let place = Place {
            segment: current.header.segment,
            offset: current.end,
            number: self.number + 1,
        };
        let chain = frame::seal(&mut self.buffer, FrameKind::Batch, place, &self.chain);
        let end = Header::after(current.end, bytes);
        current.preallocate(end, self.options.preallocate_bytes)?;
        current.write(place.offset, &self.buffer)?;
        let slot = current.header.slot_at(place.number);
        if current.header.is_mirrored(bytes) {
            current.write(slot, &self.buffer)?;
        } else {
            current.sync()?;
            let mut marker = vec![0; FRAME_HEADER];
            marker.extend(chain);
            frame::seal(&mut marker, FrameKind::Marker, place, &chain);
            current.write(slot, &marker)?;
        }
        current.sync()?;
        current.end = end;
        current.index_max = current.index_max.max(self.given_index_max);
        self.number = place.number;
        self.chain = chain;
        self.given_index_max = LogIndex::ZERO;
        self.buffer.truncate(FRAME_HEADER);
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        let has_purged = self.durable.purged != self.given.purged;
        self.durable = self.given;
        if has_purged {
            self.remove_obsolete()?;
        }
        Ok(())
    }

    /// Starts a new segment with what is durable.
    fn roll(&mut self) -> Result<(), StorageError> {
        let header = Header {
            segment: self.current.header.segment + 1,
            slot_bytes: self.options.mirror_bytes,
            number: self.number,
            chain: self.chain,
            summary: self.durable,
        };
        let next = create_segment(&self.disk, self.options, header)?;
        let full = std::mem::replace(&mut self.current, next);
        self.closed.push_back(Closed {
            segment: full.header.segment,
            index_max: full.index_max,
        });
        Ok(())
    }

    /// Removes the oldest segments, as long as no record in them is needed any more. Votes, purges and
    /// truncations in them are not needed either: the next segment's header has their sum.
    fn remove_obsolete(&mut self) -> Result<(), StorageError> {
        while self
            .closed
            .front()
            .is_some_and(|closed| closed.index_max <= self.durable.purged.0)
        {
            let closed = self.closed.pop_front().expect("just seen");
            let name = segment::file_name(closed.segment);
            self.disk
                .remove(&name)
                .map_err(|e| StorageError::io("remove", &name, e))?;
            // One by one, so that a crash never leaves a gap.
            self.disk
                .sync_dir()
                .map_err(|e| StorageError::sync("log directory", e))?;
        }
        Ok(())
    }
}

fn create_segment<D: Disk>(
    disk: &D,
    options: LogOptions,
    header: Header,
) -> Result<Current<D::File>, StorageError> {
    let name = segment::file_name(header.segment);
    let aside = format!("{name}.tmp");
    let mut file = disk
        .create(&aside)
        .map_err(|e| StorageError::io("create", &aside, e))?;
    let mut first = header.encode();
    assert_eq!(first.len(), HEADER, "a header has a fixed size");
    let data_at = header.data_at();
    let allocated = if options.preallocate_bytes == 0 {
        first.len() as u64
    } else {
        // Slots and the first data too: a hole would cost a change of the block map at the first write into it.
        (data_at + options.preallocate_bytes).next_multiple_of(PAGE)
    };
    first.resize(
        usize::try_from(allocated).expect("preallocation is bounded by options"),
        0,
    );
    file.write_at(0, &first)
        .map_err(|e| StorageError::io("write", &aside, e))?;
    file.sync().map_err(|e| StorageError::sync(&aside, e))?;
    disk.rename(&aside, &name)
        .map_err(|e| StorageError::io("rename", &aside, e))?;
    disk.sync_dir()
        .map_err(|e| StorageError::sync("log directory", e))?;
    Ok(Current {
        file,
        name,
        header,
        end: data_at,
        allocated,
        index_max: LogIndex::ZERO,
    })
}

impl<F: DiskFile> Current<F> {
    fn preallocate(&mut self, end: u64, ahead: u64) -> Result<(), StorageError> {
        if ahead == 0 || end <= self.allocated {
            return Ok(());
        }
        let target = (end + ahead).next_multiple_of(PAGE);
        let zeros = vec![
            0;
            usize::try_from(target - self.allocated)
                .expect("a batch fits the address space")
        ];
        self.write(self.allocated, &zeros)?;
        self.allocated = target;
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.file
            .write_at(offset, bytes)
            .map_err(|e| StorageError::io("write", &self.name, e))
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.file
            .sync()
            .map_err(|e| StorageError::sync(&self.name, e))
    }
}

impl<D: Disk> LogStore for FileLog<D> {
    fn append(&mut self, records: &[Record]) -> Result<(), StorageError> {
        self.check_usable()?;
        for record in records {
            assert_eq!(
                record.index, self.given.next,
                "append record: its index follows the last one"
            );
            frame::put_append(&mut self.buffer, record);
            self.given_index_max = self.given_index_max.max(record.index);
            self.given.next = record.index.next();
        }
        Ok(())
    }

    fn truncate_suffix(&mut self, from: LogIndex) -> Result<(), StorageError> {
        self.check_usable()?;
        let purged = self.given.purged.0;
        assert!(
            from > purged,
            "truncate from {from}: entries up to {purged} are in a snapshot, hence committed"
        );
        if from < self.given.next {
            frame::put_truncate(&mut self.buffer, from);
            self.given.next = from;
        }
        Ok(())
    }

    fn purge_prefix(&mut self, through: LogIndex, term: Term) -> Result<(), StorageError> {
        self.check_usable()?;
        if through > self.given.purged.0 {
            frame::put_purge(&mut self.buffer, through, term);
            self.given.purged = (through, term);
            self.given.next = self.given.next.max(through.next());
        }
        Ok(())
    }

    fn save_vote(&mut self, vote: Vote) -> Result<(), StorageError> {
        self.check_usable()?;
        if vote != self.given.vote {
            frame::put_vote(&mut self.buffer, vote);
            self.given.vote = vote;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.check_usable()?;
        if self.buffer.len() == FRAME_HEADER {
            assert_eq!(
                self.given, self.durable,
                "nothing buffered means nothing to make durable"
            );
            return Ok(());
        }
        let result = self.commit();
        self.is_poisoned = result.is_err();
        result
    }
}
