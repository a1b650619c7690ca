//! One input, read as a sequence of small choices. An exhausted input goes on as zeros, so that every prefix of an input is one too.

use quorate_consensus::LogPosition;
use quorate_types::{LogIndex, Term};

/// A cursor over an input.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Starts at the beginning.
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// A choice below `bound`, which is at most 256.
    pub fn below(&mut self, bound: u64) -> u64 {
        u64::from(self.u8()) % bound
    }

    /// One of two.
    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// The next eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    /// Up to that many bytes.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Decodes a value and goes on after it.
    pub fn decode<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        let (value, rest) = postcard::take_from_bytes(self.rest).ok()?;
        self.rest = rest;
        Some(value)
    }

    /// A number: mostly close to one that would fit, at times an extreme.
    pub fn number(&mut self, near: u64) -> u64 {
        match self.u8() {
            at @ 0..=11 => near.wrapping_add(u64::from(at)).wrapping_sub(4),
            12 => 0,
            13 => u64::MAX,
            14 => u64::MAX / 2,
            15 => self.u64(),
            _ => near,
        }
    }

    /// A position close to one that would fit.
    pub fn position(&mut self, near: LogPosition) -> LogPosition {
        LogPosition {
            term: Term(self.number(near.term.0)),
            index: LogIndex(self.number(near.index.0)),
        }
    }
}
