//! A key space that tests write to, published as a server's is.

use std::sync::Arc;

use quorate_coord::kv::{Blob, DeleteRange, KeyRange, KvOp, Put};
use quorate_coord::{Command, Envelope, RequestKey, State};
use quorate_replica::Published;
use quorate_types::{ClusterTime, LogIndex, Term, TraceId, WallTime};
use quorate_wire::api;

use crate::publish::{Publisher, Version};

/// The key space, and where it is published.
pub(super) struct Space {
    state: State,
    pub(super) publisher: Arc<Publisher>,
}

impl Default for Space {
    fn default() -> Self {
        let state = State::new();
        Self {
            publisher: Arc::new(Publisher::new(state.clone())),
            state,
        }
    }
}

impl Space {
    /// The newest version that was published.
    pub(super) fn version(&self) -> Arc<Version> {
        self.publisher.version()
    }

    /// Applies a command, and publishes nothing.
    pub(super) fn apply(&mut self, command: Command) {
        let envelope = Envelope {
            principal: crate::tls::anonymous(),
            request: RequestKey::Unkeyed,
            trace: TraceId(0),
            wall: WallTime(0),
            cluster_time: ClusterTime::ZERO,
            contract: api::CONTRACT,
            command,
        };
        let index = LogIndex(self.state.applied().0.0 + 1);
        let outcome = self.state.apply(index, Term(1), &envelope, &mut Vec::new());
        outcome.expect("the key space takes it");
    }

    /// Publishes what was applied; with `reset` as a snapshot that was installed.
    pub(super) fn publish(&self, reset: bool) {
        self.publisher.publish(Published {
            state: self.state.clone(),
            applied: Vec::new(),
            reset,
        });
    }

    pub(super) fn put(&mut self, key: &str, value: &str) {
        self.apply(put(key, value));
        self.publish(false);
    }

    pub(super) fn delete(&mut self, key: &str) {
        self.apply(delete(key));
        self.publish(false);
    }

    pub(super) fn compact(&mut self, revision: i64) {
        self.apply(Command::CompactKv {
            caller: None,
            revision,
        });
        self.publish(false);
    }
}

pub(super) fn put(key: &str, value: &str) -> Command {
    let op = KvOp::Put(Put {
        key: key.into(),
        value: value.into(),
        ..Put::default()
    });
    Command::Kv { caller: None, op }
}

pub(super) fn delete(key: &str) -> Command {
    let range = KeyRange {
        key: key.into(),
        range_end: Blob::default(),
    };
    let op = KvOp::DeleteRange(DeleteRange {
        range,
        prev_kv: false,
    });
    Command::Kv { caller: None, op }
}
