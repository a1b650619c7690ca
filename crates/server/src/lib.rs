//! The shell: event loop, timers, peer transport, gRPC, metrics. One process of the backbone, also in another process for tests.
//!
//! Owns: threads, sockets, files' placement and what waits for what. Deliberately absent: any rule of the protocol or the state machine;
//! those are in the cores, which the simulator runs, too.
//!
//! Reading order: [`Server`] wires everything, the step thread is the heart, [`ServerConfig`] what it is told.

pub mod config;

mod inbox;
mod kv_hub;
mod publish;
mod server;
mod snapshot_thread;
mod step_thread;
mod writer_thread;

mod api;
mod boot;
mod etcd;
mod http;
mod peer;
mod saved;
mod tls;

mod clock;
mod metrics;
mod stop;

pub use boot::BootError;
pub use config::{ConfigError, ConfigFile, ServerConfig};
pub use quorate_storage::BackupCheck;
pub use saved::{Restored, Saved, SavedError, SavedSummary};
pub use server::{Listeners, RunningServer, Server, StartError};
pub use step_thread::RoleView;
pub use stop::StopReason;
pub use tls::TlsError;

/// The version of this software.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
