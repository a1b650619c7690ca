//! The ordered record of what happened: a running hash always, text where it was asked for.
//!
//! Two runs of one seed must have the same hash; a difference means that something undetermined got in.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::clock::Moment;

/// A run's record.
pub struct Trace {
    hash: u64,
    lines: u64,
    print: Option<BufWriter<Box<dyn Write>>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace")
            .field("hash", &self.hash)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}

/// A new record, printed to the standard output if so wished.
impl From<bool> for Trace {
    fn from(print: bool) -> Self {
        Self::new(print.then(|| Box::new(io::stdout()) as Box<dyn Write>))
    }
}

impl Trace {
    fn new(print: Option<Box<dyn Write>>) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            print: print.map(BufWriter::new),
        }
    }

    /// A new record, printed to a file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        Ok(Self::new(Some(Box::new(File::create(path)?))))
    }

    /// Records one thing that happened. `numbers` go into the hash, the text is made only when printed.
    #[inline]
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
        if let Some(print) = &mut self.print {
            // Whoever reads it may have had enough, as `head` does.
            let _ = writeln!(print, "{now:?} {}", text());
        }
    }

    /// Whether text is printed.
    #[must_use]
    pub fn is_printing(&self) -> bool {
        self.print.is_some()
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
