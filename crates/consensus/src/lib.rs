//! The backbone protocol: elections, the replicated log, snapshots and read rounds. Raft after Ongaro's thesis, sans-IO.
//!
//! Deliberately absent: clocks, threads, files, sockets, OS randomness. Time and messages come in as parameters, orders go out as
//! [`Output`]s.

mod configuration;
mod entry;
mod message;
mod output;

mod config;
mod consensus;

mod election;
mod follower;
mod leader;
mod replication;
mod round;
mod snapshot;
mod transfer;

mod check;
mod fingerprint;
mod history;
mod log;
mod progress;
mod quorum;
mod seen;

pub use config::{Boot, Config, NotLeader, ProposeError, Timing, TransferError};
pub use configuration::{Configuration, Member, VoterSet};
pub use consensus::Consensus;
pub use entry::{Body, Entry, HardState, LogPosition, SnapshotMeta};
pub use fingerprint::Rename;
pub use message::{AppendOutcome, Message, RoundId};
pub use output::{FatalError, Output, Role, Write, WriteSeq};
pub use progress::{PeerProgress, PeerState};
pub use quorate_types::Payload;
