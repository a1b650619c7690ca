//! Applying committed entries, publishing versions, and snapshots of them.

use quorate_consensus::{Body, Entry, LogPosition, Output as Order, SnapshotMeta};
use quorate_coord::{Envelope, Event, RequestKey, State};
use quorate_types::{LogIndex, Time, TraceId};

use crate::call::Response;
use crate::output::{AppliedEntry, Output, Published};
use crate::own_reply;
use crate::pending::Origin;
use crate::replica::Replica;
use crate::revocation::Revocations;

/// How far this replica has applied, published and saved.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The last entry applied.
    pub(crate) index: LogIndex,
    /// Applied since the last publication.
    unpublished: Vec<AppliedEntry>,
    /// The state was replaced since the last publication.
    reset: bool,
    /// The last entry that a saved snapshot covers.
    snapshot: LogIndex,
    /// The snapshot being saved.
    saving: Option<SnapshotMeta>,
}

impl Applied {
    pub(crate) fn from_snapshot(index: LogIndex) -> Self {
        Self {
            index,
            unpublished: Vec::new(),
            reset: false,
            snapshot: index,
            saving: None,
        }
    }

    /// Publishes one version for everything that one step applied.
    pub(crate) fn publish(&mut self, state: &State, out: &mut Vec<Output>) {
        if self.unpublished.is_empty() && !self.reset {
            return;
        }
        let applied = std::mem::take(&mut self.unpublished);
        out.push(Output::Publish(Published {
            state: state.clone(),
            applied,
            reset: self.reset,
        }));
        self.reset = false;
    }
}

impl Replica {
    /// Applies everything committed, and answers those who wait for it.
    pub(crate) fn apply_through(&mut self, now: Time, through: LogIndex, out: &mut Vec<Output>) {
        let entries: Vec<Entry<Envelope>> = self
            .consensus
            .entries(self.applied.index.next(), through)
            .to_vec();
        for entry in entries {
            assert_eq!(
                entry.index,
                self.applied.index.next(),
                "committed entries are applied in order, each once"
            );
            self.apply_entry(now, &entry, out);
            self.applied.index = entry.index;
        }
        assert_eq!(
            self.applied.index, through,
            "everything committed can be applied"
        );
        self.answer_reads(out);
    }

    fn apply_entry(&mut self, now: Time, entry: &Entry<Envelope>, out: &mut Vec<Output>) {
        let mut events = Vec::new();
        let mut trace = TraceId::default();
        match &entry.body {
            Body::OwnTerm | Body::Configuration(_) => {
                self.state.note_applied(entry.index, entry.term);
            }
            Body::Command(envelope) => {
                trace = envelope.trace;
                let outcome = self
                    .state
                    .apply(entry.index, entry.term, envelope, &mut events);
                self.follow_events(now, &events);
                if let Some(serving) = self.serving_mut() {
                    serving.applied(entry.index);
                }
                if let Some(origin) = self.pending.proposed.remove(&entry.index) {
                    assert_ne!(
                        envelope.request,
                        RequestKey::Internal,
                        "nobody waits for the leader's own commands"
                    );
                    let index = entry.index;
                    // Another server's own apply gives it the outcome where it is too large for a message.
                    let response = match origin {
                        Origin::Peer { .. } if own_reply::is_large(&outcome) => {
                            Response::AppliedAt { index }
                        }
                        _ => Response::Applied { outcome, index },
                    };
                    self.pending.answer(origin, response, out);
                } else {
                    let may_be_asked = !self.pending.forwarded.is_empty();
                    self.pending
                        .own_replies
                        .applied(entry.index, outcome, may_be_asked, out);
                }
            }
        }
        self.applied.unpublished.push(AppliedEntry {
            index: entry.index,
            term: entry.term,
            revision: self.state.revision(),
            cluster_time: self.state.cluster_time(),
            trace,
            events,
        });
    }

    fn follow_events(&mut self, now: Time, events: &[Event]) {
        for event in events {
            self.revocations.on_event(event, &self.state, now);
            if let Some(serving) = self.serving_mut() {
                serving.on_event(event, now);
            }
        }
    }

    fn answer_reads(&mut self, out: &mut Vec<Output>) {
        while let Some(entry) = self
            .pending
            .reading
            .first_entry()
            .filter(|entry| *entry.key() <= self.applied.index)
        {
            let (index, calls) = entry.remove_entry();
            for (call, _) in calls {
                out.push(Output::Answer {
                    call,
                    response: Response::ReadAt { index },
                });
            }
        }
    }

    /// Asks for a snapshot when enough was applied since the last, one at a time.
    pub(crate) fn maybe_snapshot(&mut self, out: &mut Vec<Output>) {
        let since = self.applied.index.0 - self.applied.snapshot.0;
        if since < self.config.snapshot_entries || self.applied.saving.is_some() {
            return;
        }
        let (index, term) = self.state.applied();
        let meta = SnapshotMeta {
            last: LogPosition { term, index },
            configuration: self.consensus.configuration_at(index),
        };
        self.applied.saving = Some(meta.clone());
        out.push(Output::SaveSnapshot {
            meta,
            state: Box::new(self.state.clone()),
        });
    }

    pub(crate) fn on_snapshot_saved(
        &mut self,
        now: Time,
        meta: SnapshotMeta,
        orders: &mut Vec<Order<Envelope>>,
    ) {
        if self.applied.saving.as_ref() == Some(&meta) {
            self.applied.saving = None;
        }
        self.applied.snapshot = self.applied.snapshot.max(meta.last.index);
        self.consensus
            .on_snapshot_saved(now, meta, self.config.snapshot_retain, orders);
    }

    /// The leader's snapshot replaces a state that is behind it.
    pub(crate) fn on_snapshot_arrived(
        &mut self,
        now: Time,
        meta: SnapshotMeta,
        state: State,
        orders: &mut Vec<Order<Envelope>>,
        out: &mut Vec<Output>,
    ) {
        assert_eq!(
            state.applied().0,
            meta.last.index,
            "a snapshot's state is the one at its last entry"
        );
        let index = meta.last.index;
        if !self.consensus.on_snapshot_installed(now, meta, orders) {
            return;
        }
        assert!(self.lead.is_none(), "a leader never installs a snapshot");
        self.state = state;
        self.applied.index = index;
        self.applied.snapshot = index;
        // What was applied and not published is part of the state that replaces it.
        self.applied.unpublished.clear();
        self.applied.reset = true;
        self.revocations = Revocations::from_state(self.config.drift, &self.state, now);
        self.pending.own_replies.skipped_to(index, out);
        self.answer_reads(out);
    }
}
