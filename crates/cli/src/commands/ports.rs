//! Ports for servers that are started in passing: `dev --port 0` and the demo.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

use anyhow::bail;

/// Below what the kernel gives to outgoing connections, so that a server that is killed finds its port free again.
const RANGE: std::ops::Range<u64> = 20_000..32_000;

/// Ports that were free a moment ago.
pub(crate) fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut found = BTreeSet::new();
    let random = RandomState::new();
    for attempt in 0..10_000_u64 {
        let port = RANGE.start + random.hash_one(attempt) % (RANGE.end - RANGE.start);
        let port = u16::try_from(port).expect("the range is one of ports");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            found.insert(port);
        }
        if found.len() == count {
            return Ok(found.into_iter().collect());
        }
    }
    bail!(
        "find {count} free ports between {} and {}: found {}",
        RANGE.start,
        RANGE.end,
        found.len()
    )
}
