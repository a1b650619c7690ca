//! The binary from the outside: real processes on free ports, killed and stopped as the world does it.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests are tests, too, but clippy exempts only the functions themselves"
)]

mod commands;
mod configuration;
mod contend;
mod demo;
mod deposing;
mod disk;
mod etcd;
mod faults;
mod harness;
mod import;
mod kv;
mod kv_leases;
mod kv_truth;
mod kv_watch;
mod lock;
mod nodes;
mod queues;
mod servers;
mod snapshot;
mod snapshots;
