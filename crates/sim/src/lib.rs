//! A deterministic simulator around the shipping code: replicas, their log and snapshot files, the SDK's lease arithmetic.
//!
//! One seed decides everything: clocks, network, disks, faults, what clients do. The same seed gives the same trace.
//! Deliberately absent: any logic of the service; what is simulated is only what surrounds it.
//!
//! Reading order: [`World`](world::World) is the event loop; `machine.rs` is the server's shell, `node.rs` a process of a
//! service, `caller.rs` an operator; `faults.rs` says what goes wrong, and `checkers` what must never happen.

pub mod caller;
pub mod calm;
pub mod case;
pub mod checkers;
pub mod clock;
pub mod convert;
pub mod faults;
pub mod key_watch;
mod machine;
pub mod model;
pub mod network;
pub mod node;
pub mod observe;
pub mod options;
pub mod plant;
pub mod rebuild;
pub mod resource;
pub mod restart;
pub mod run;
pub mod scenarios;
pub mod setup;
pub mod shrink;
pub mod stats;
pub mod stream;
pub mod summary;
pub mod trace;
pub mod watch;
pub mod world;
pub mod writer;
