//! Joins consensus and coordination behind the one seam, [`Replica::step`]. Sans-IO: the simulator runs what the server ships.
//!
//! Deliberately absent: encoding, clocks, threads, sockets, files. The shell carries out [`Output`]s in order.

mod apply;
mod call;
mod config;
mod feed;
mod input;
mod kv_watch;
mod lead;
mod lease;
mod output;
mod own_reply;
mod peer;
mod pending;
mod replica;
mod revocation;
mod status;
mod taken;
#[cfg(test)]
mod tests;

pub use call::{CallId, Proposal, Refusal, Request, Response};
pub use config::{Boot, Config};
pub use feed::{Feed, FeedLimits, Next, Place};
pub use input::Input;
pub use kv_watch::{
    KvCatchUp, KvCaught, KvEvent, KvLog, KvNotice, KvStreamId, KvTaken, KvWatchLimits,
    KvWatchRefusal, KvWatchSpec, KvWatchStats, KvWatches, NO_WATCH_ID,
};
pub use output::{AppliedEntry, Output, Published};
pub use peer::{Lane, PeerMessage};
pub use replica::Replica;
pub use status::Status;
