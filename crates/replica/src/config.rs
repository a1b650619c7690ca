//! What a replica is started with.

use std::time::Duration;

use quorate_coord::{Envelope, State};
use quorate_types::DriftBound;

/// Settings of one replica.
#[derive(Clone, Debug)]
pub struct Config {
    /// Settings of the backbone protocol.
    pub consensus: quorate_consensus::Config,
    /// Bound on clock rates; the same on every server and in every SDK.
    pub drift: DriftBound,
    /// Differs between any two starts of this replica (random in the server): answers to an earlier process do not count.
    pub incarnation: u64,
    /// A snapshot is taken after this many entries were applied since the one before.
    pub snapshot_entries: u64,
    /// Entries before a snapshot that are kept for slow followers.
    pub snapshot_retain: u64,
    /// Most calls waiting at once; more are refused as overload. Keep-alives are refused only beyond twice as many.
    pub calls_max: usize,
    /// How long a call may wait for a leader, or for a leader's answer.
    pub call_timeout: Duration,
    /// A step that comes later than this after it was due is a stall: what was waiting unread is credited to every session
    /// (protocol, section 2).
    pub stall_min: Duration,
}

/// What was found durable.
#[derive(Debug)]
pub struct Boot {
    /// The log, the vote, and what the snapshot covers.
    pub consensus: quorate_consensus::Boot<Envelope>,
    /// The state at the snapshot; new where there is none.
    pub state: State,
}
