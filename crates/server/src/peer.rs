//! The transport between servers: three connections to each peer, one for each lane, so that appends and snapshots never delay heartbeats.
//!
//! Owns: dialling, accepting, framing, the handshake and the bounds on what waits. A connection carries messages one way, from who dialled it:
//! a lost one takes nothing else with it. Deliberately absent: retrying a message. What is dropped, the protocol sends again.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_replica::{Lane, PeerMessage};
use quorate_types::ReplicaId;

mod dial;
mod frame;
mod handshake;
mod link;
mod listen;

pub(crate) use dial::{Dialler, dial_forever};
pub(crate) use handshake::Introduction;
pub(crate) use listen::{PeerListener, accept_forever, configure};

use link::Link;

use crate::metrics::Metrics;

/// All lanes, in the order of their bytes on the wire.
pub(crate) const LANES: [Lane; 3] = [Lane::Vital, Lane::Log, Lane::Bulk];

/// A lane's name in logs and metrics.
pub(crate) fn lane_name(lane: Lane) -> &'static str {
    match lane {
        Lane::Vital => "vital",
        Lane::Log => "log",
        Lane::Bulk => "bulk",
    }
}

/// The queues towards all peers.
pub(crate) struct Peers {
    links: BTreeMap<ReplicaId, BTreeMap<Lane, Arc<Link>>>,
}

impl Peers {
    pub(crate) fn new(peers: impl IntoIterator<Item = ReplicaId>, metrics: &Metrics) -> Self {
        let lanes = || {
            LANES
                .into_iter()
                .map(|lane| (lane, Arc::new(Link::new(lane, metrics))))
                .collect()
        };
        Self {
            links: peers.into_iter().map(|peer| (peer, lanes())).collect(),
        }
    }

    /// Queues a message. Never waits: a full lane drops its oldest message, a lane without a connection drops what it is given.
    pub(crate) fn send(&self, to: ReplicaId, message: PeerMessage) {
        // A peer that is not configured here (it was removed, say) cannot be reached.
        if let Some(lanes) = self.links.get(&to) {
            lanes[&message.lane()].push(message);
        }
    }

    /// Every queue, with its peer and lane.
    pub(crate) fn links(&self) -> impl Iterator<Item = (ReplicaId, Lane, &Arc<Link>)> {
        self.links
            .iter()
            .flat_map(|(peer, lanes)| lanes.iter().map(|(lane, link)| (*peer, *lane, link)))
    }
}
