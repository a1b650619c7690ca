//! What checkers see of a server beyond its outputs: inputs before a step, and counts after it. Looks cost little, or are rare.

use quorate_consensus::{Body, Payload, PeerState, Role};
use quorate_coord::HISTORY_MAX;
use quorate_replica::{AppliedEntry, Input, PeerMessage, Request};

use crate::checkers::Verdict;
use crate::checkers::bounded_queues::Look;
use crate::world::World;

/// Most calls that wait at a server.
pub(crate) const CALLS_MAX: usize = 1_000;
/// Most appends in flight to a peer.
pub(crate) const APPENDS_IN_FLIGHT_MAX: usize = 16;
/// Most bytes that a leader leaves uncommitted.
pub(crate) const UNCOMMITTED_BYTES_MAX: usize = 1 << 20;

/// How often a server's queues are counted, in its steps.
const LOOK_EVERY: u64 = 61;
/// How often its groups are counted through, in looks.
const LOOK_AT_GROUPS_EVERY: u64 = 16;
/// Most messages that wait for a sync: a leader's appends and heartbeats to six peers, and answers to as many.
const HELD_MAX: u64 = 4_096;
/// Cool-downs kept per group.
const COOLDOWNS_MAX: u64 = 16;

impl World {
    /// A server is about to take an input.
    pub(crate) fn observe_input(&mut self, server: usize, input: &Input) {
        let now = self.now;
        let Some(running) = &self.servers[server].running else {
            return;
        };
        let replica = &running.replica;
        let leads = (replica.role() == Role::Leader).then(|| replica.term());
        let ends = &mut self.checkers.ends;
        if leads.is_some() {
            ends.on_leader_step(now, server, self.setup.timing.heartbeat_interval);
        } else {
            ends.on_follower_step(now, server);
        }
        let (Input::Calls(calls)
        | Input::Peer {
            message: PeerMessage::Forward { calls, .. },
            ..
        }) = input
        else {
            return;
        };
        for (_, request) in calls {
            if let Request::KeepAlive { session, .. } = request {
                ends.on_heard(now, *session, leads);
            }
        }
    }

    /// A server has stepped.
    pub(crate) fn observe_step(&mut self, server: usize) {
        let Some(running) = &self.servers[server].running else {
            return;
        };
        if !running.steps.is_multiple_of(LOOK_EVERY) {
            return;
        }
        let replica = &running.replica;
        let consensus = replica.consensus();
        let setup = &self.setup;
        let status = replica.status();
        let mut look = Look::default();
        let mut count = |what, found: u64, bound: u64| look.counts.push((what, found, bound));
        count("calls", status.calls as u64, 2 * CALLS_MAX as u64);
        let in_flight = status.progress.iter().map(|peer| match peer.state {
            PeerState::Replicate { in_flight } => in_flight as u64,
            PeerState::Probe | PeerState::Snapshot { .. } => 1,
        });
        count(
            "appends in flight",
            in_flight.max().unwrap_or(0),
            APPENDS_IN_FLIGHT_MAX as u64,
        );
        count(
            "messages that wait for a sync",
            running.held.len() as u64,
            HELD_MAX,
        );
        let snapshot = consensus.snapshot().last.index;
        let applied = replica.applied();
        if !running.saving {
            count(
                "entries applied since a snapshot, none being saved",
                applied.0 - snapshot.0,
                setup.snapshot_entries.max(1) - 1,
            );
        }
        let uncommitted = consensus.entries(replica.commit().next(), replica.last_index());
        if replica.role() == Role::Leader {
            let sizes = uncommitted.iter().map(|entry| match &entry.body {
                Body::Command(envelope) => envelope.size_bytes() as u64,
                Body::OwnTerm | Body::Configuration(_) => 0,
            });
            let largest = sizes.clone().max().unwrap_or(0);
            count(
                "uncommitted bytes",
                sizes.sum(),
                UNCOMMITTED_BYTES_MAX as u64 + largest,
            );
        }
        running.feed.check_invariants();
        if running
            .steps
            .is_multiple_of(LOOK_EVERY * LOOK_AT_GROUPS_EVERY)
        {
            let groups = replica.state().groups();
            let (mut past, mut cooling) = (0, 0);
            for group in groups {
                past = past.max(group.history.len() as u64);
                cooling = cooling.max(group.cooldowns.len() as u64);
            }
            count("past tenures of a group", past, HISTORY_MAX as u64);
            count("cool-downs of a group", cooling, COOLDOWNS_MAX);
        }
        let verdict = self.checkers.queues.on_look(server, &look);
        self.judge(verdict);
    }

    /// A server saved a snapshot and took note of it: of the log before it, no more than agreed is kept in memory.
    pub(crate) fn observe_saved(&mut self, server: usize) {
        let Some(running) = &self.servers[server].running else {
            return;
        };
        let consensus = running.replica.consensus();
        let kept =
            (consensus.snapshot().last.index.0 + 1).saturating_sub(consensus.first_index().0);
        let look = Look {
            counts: vec![(
                "entries kept before a snapshot",
                kept,
                self.setup.snapshot_retain,
            )],
        };
        let verdict = self.checkers.queues.on_look(server, &look);
        self.judge(verdict);
    }

    /// A server has applied an entry: all checkers look at it.
    pub(crate) fn observe_applied(&mut self, server: usize, entry: &AppliedEntry) -> Verdict {
        let now = self.now;
        let running = self.servers[server].running.as_deref();
        let running = running.expect("who applies runs");
        let replica = &running.replica;
        if replica.role() == Role::Leader && replica.term() == entry.term {
            self.checkers.ends.on_serving(now, entry.term);
        }
        let consensus = replica.consensus();
        let body = (consensus.first_index() <= entry.index)
            .then(|| consensus.entries(entry.index, entry.index).first())
            .flatten();
        let logged = running.mirror.get(entry.index);
        self.checkers.on_applied(now, server, entry, logged, body)
    }
}
