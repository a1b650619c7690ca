//! Real servers in one process, on loopback addresses of their own, with real clients.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic, too")]

mod support;

mod auth;
mod auth_recipes;
mod elect;
mod election;
mod etcd;
mod full_disk;
mod gateway;
mod idle;
mod kv_watch;
mod large;
mod refuse;
mod restart;
mod shutdown;
mod snapshot;
mod tls;
mod watch;
