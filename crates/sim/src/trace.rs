//! The ordered record of what happened: a running hash always, text where it was asked for.
//!
//! Two runs of one seed must have the same hash; a difference means that something undetermined got in.

use crate::clock::Moment;

/// A run's record.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    print: bool,
}

impl Trace {
    /// A new record, printed to the standard output where `print` is set.
    #[must_use]
    pub fn new(print: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            print,
        }
    }

    /// Records one thing that happened. `numbers` go into the hash, the text is made only when printed.
    pub fn note(
        &mut self,
        now: Moment,
        tag: u64,
        numbers: [u64; 3],
        text: impl FnOnce() -> String,
    ) {
        for number in [now.0, tag, numbers[0], numbers[1], numbers[2]] {
            self.hash = mix(self.hash ^ number);
        }
        self.lines += 1;
        if self.print {
            println!("{now:?} {}", text());
        }
    }

    /// Whether text is printed.
    #[must_use]
    pub fn is_printing(&self) -> bool {
        self.print
    }

    /// The hash of everything recorded.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many things were recorded.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }
}

/// A bijective mix of 64 bits (the finalizer of splitmix64).
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash of bytes that is the same in every process.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = 0x243f_6a88_85a3_08d3 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(hash ^ u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
    }
    let mut tail = [0; 8];
    let rest = chunks.remainder();
    tail[..rest.len()].copy_from_slice(rest);
    mix(hash ^ u64::from_le_bytes(tail))
}
