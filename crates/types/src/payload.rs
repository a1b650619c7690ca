//! What the log carries, as seen by who only moves it.

use std::fmt;

/// What the replicated state machine puts in log entries. Opaque to consensus but for its size, which flow control counts.
pub trait Payload: Clone + fmt::Debug + PartialEq {
    /// Roughly its encoded size.
    fn size_bytes(&self) -> usize;
}
