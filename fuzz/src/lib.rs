//! What each target does with an input. The binaries in `fuzz_targets/` only connect these to libFuzzer.
//!
//! Everything a target reaches is the shipping code. A target fails by a panic, a hang, one huge allocation, or when what was decoded
//! does not survive being encoded and decoded again.

pub mod input;
mod memory;
#[cfg(feature = "api")]
mod server_conversions;
#[cfg(feature = "api")]
mod server_frames;

#[cfg(feature = "api")]
pub mod client_protocol;
pub mod log_entry;
#[cfg(feature = "api")]
pub mod peer_hello;
pub mod peer_message;
pub mod snapshot_image;

pub mod data_dir;
pub mod forge;
pub mod log_files;
pub mod snapshot_files;

pub mod consensus_step;
pub mod coord_apply;
#[cfg(feature = "api")]
pub mod lease_core;
pub mod replica_step;
