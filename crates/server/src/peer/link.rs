//! One lane to one peer: a bounded queue between the step thread and the connection.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use metrics::Counter;
use quorate_replica::{Lane, PeerMessage};
use tokio::sync::Notify;

use super::lane_name;
use crate::metrics::Metrics;

/// A bounded queue of messages.
///
/// # Invariants
/// - Empty while no connection is open: what was queued for an earlier connection is stale.
/// - Never longer than `limit`.
pub(crate) struct Link {
    queue: Mutex<Queue>,
    arrived: Notify,
    limit: usize,
    dropped: Counter,
    pub(super) sent_bytes: Counter,
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<PeerMessage>,
    open: bool,
}

impl Link {
    pub(super) fn new(lane: Lane, metrics: &Metrics) -> Self {
        let limit = match lane {
            Lane::Vital => 8_192,
            Lane::Log => 512,
            Lane::Bulk => 16,
        };
        Self {
            queue: Mutex::default(),
            arrived: Notify::new(),
            limit,
            dropped: metrics.peer_dropped(lane_name(lane)),
            sent_bytes: metrics.peer_sent_bytes(lane_name(lane)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("no holder of this lock panics")
    }

    /// Queues a message.
    pub(super) fn push(&self, message: PeerMessage) {
        let mut queue = self.lock();
        if !queue.open {
            return;
        }
        if queue.messages.len() == self.limit {
            // The oldest: what it says has most likely been said again since.
            queue.messages.pop_front();
            self.dropped.increment(1);
        }
        queue.messages.push_back(message);
        drop(queue);
        self.arrived.notify_one();
    }

    /// Takes messages from now on.
    pub(super) fn open(&self) {
        let mut queue = self.lock();
        queue.messages.clear();
        queue.open = true;
    }

    /// Takes none, and forgets what waits.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.messages.clear();
        queue.open = false;
    }

    /// Waits for messages and takes up to `count`.
    pub(super) async fn take(&self, count: usize) -> Vec<PeerMessage> {
        loop {
            {
                let mut queue = self.lock();
                if !queue.messages.is_empty() {
                    let count = queue.messages.len().min(count);
                    return queue.messages.drain(..count).collect();
                }
            }
            self.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(incarnation: u64) -> PeerMessage {
        PeerMessage::Answers {
            incarnation,
            answers: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_full_lane_drops_its_oldest_and_a_closed_one_keeps_nothing() {
        let link = Link::new(Lane::Bulk, &Metrics::new("test"));
        link.push(answers(0));
        link.open();
        for n in 1..=17 {
            link.push(answers(n));
        }
        let taken = link.take(100).await;
        assert_eq!(taken.len(), 16);
        assert_eq!(taken[0], answers(2));
        link.push(answers(18));
        link.close();
        link.open();
        link.push(answers(19));
        assert_eq!(link.take(100).await, vec![answers(19)]);
    }
}
