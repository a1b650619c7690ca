//! Joins consensus and coordination behind the one seam, [`Replica::step`]. Sans-IO: the simulator runs what the server ships.
//!
//! Deliberately absent: encoding, clocks, threads, sockets, files. The shell carries out [`Output`]s in order.

mod call;
mod input;
mod output;
mod peer;

pub use call::{CallId, Proposal, Refusal, Request, Response};
pub use input::Input;
pub use output::{AppliedEntry, Output, Published};
pub use peer::{Lane, PeerMessage};
