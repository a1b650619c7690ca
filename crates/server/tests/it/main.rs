//! Real servers in one process, on loopback addresses of their own, with real clients.

mod support;

mod elect;
mod full_disk;
mod idle;
mod refuse;
mod restart;
mod shutdown;
mod snapshot;
mod tls;
mod watch;
