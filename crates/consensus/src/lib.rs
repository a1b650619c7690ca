//! The backbone protocol: elections, the replicated log, snapshots and read rounds. Raft after Ongaro's thesis, sans-IO.
//!
//! Deliberately absent: clocks, threads, files, sockets, OS randomness. Time and messages come in as parameters, orders go out as
//! [`Output`]s.

mod configuration;
mod entry;
mod message;
mod output;

pub use configuration::{Configuration, Member, VoterSet};
pub use entry::{Body, Entry, HardState, LogPosition, Payload, SnapshotMeta};
pub use message::{AppendOutcome, Message, RoundId};
pub use output::{FatalError, Output, Role, Write, WriteSeq};
