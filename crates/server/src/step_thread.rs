//! The thread that owns the replica: takes inputs, steps, carries out the outputs in order.
//!
//! Owns: what waits for a write to be durable, and the numbers of calls. Deliberately absent: encoding, syncing, sending; other threads
//! and tasks do them, so that a step never waits for anything.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::{Role, WriteSeq};
use quorate_replica::{CallId, Input, Output, PeerMessage, Refusal, Replica, Request, Response};
use quorate_types::{ReplicaId, Term};
use tokio::sync::watch;

use crate::clock;
use crate::inbox::{Call, Inbox, Responder, Round, Waiting, size_bytes};
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::publish::Publisher;
use crate::snapshot_thread::{Job, JobSender};
use crate::stop::{Stop, StopReason};
use crate::writer_thread::WriteSender;

/// Appends and snapshot pieces taken in one round, before what is vital is looked at again.
const LOG_PER_ROUND: usize = 16;

/// Bytes of calls given to the replica together.
const CALL_BYTES_TOGETHER: usize = 4 * 1024 * 1024;

/// Role, term and leader, as last announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The role.
    pub role: Role,
    /// The term.
    pub term: Term,
    /// The leader of `term`, where known.
    pub leader: Option<ReplicaId>,
}

/// Everything the thread works with.
///
/// # Invariants
/// - `held` is in order of writes; none of them is durable yet.
/// - Each number in `responders` is known to the replica, which answers it in the end.
pub(crate) struct StepThread {
    pub(crate) replica: Replica,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) writer: WriteSender,
    pub(crate) snapshots: JobSender,
    pub(crate) peers: Arc<Peers>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Stop,
    held: VecDeque<(WriteSeq, ReplicaId, PeerMessage)>,
    responders: HashMap<CallId, Responder>,
    calls_taken: u64,
}

/// What [`StepThread::new`] needs.
pub(crate) struct StepParts {
    pub(crate) replica: Replica,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) writer: WriteSender,
    pub(crate) snapshots: JobSender,
    pub(crate) peers: Arc<Peers>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) standing: watch::Sender<Standing>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Stop,
}

impl StepThread {
    pub(crate) fn new(parts: StepParts) -> Self {
        let StepParts { replica, inbox, writer, snapshots, peers, publisher, standing, metrics, stop } = parts;
        Self {
            replica,
            inbox,
            writer,
            snapshots,
            peers,
            publisher,
            standing,
            metrics,
            stop,
            held: VecDeque::new(),
            responders: HashMap::new(),
            calls_taken: 0,
        }
    }

    /// Starts the thread. It ends when the inbox is closed, or the replica must not go on.
    pub(crate) fn spawn(self) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new().name("quorate-step".to_owned()).spawn(move || {
            let _guard = self.stop.guard("step");
            self.run();
        })
    }

    fn run(mut self) {
        let mut out = Vec::new();
        let mut log_left = 0;
        loop {
            let wait = if log_left > 0 { Duration::ZERO } else { self.replica.deadline().since(clock::now()) };
            let round = self.inbox.take(wait, LOG_PER_ROUND);
            if round.closed || self.stop.reason().is_some_and(|reason| !reason.is_asked()) {
                return;
            }
            let begun = Instant::now();
            log_left = round.log_left;
            self.metrics.queue_vital.set(round.vital.len() as f64);
            self.metrics.queue_log.set((round.log.len() + round.log_left) as f64);
            self.metrics.queue_calls.set(round.calls.len() as f64);
            if !self.round(round, &mut out) {
                return;
            }
            self.metrics.step_seconds.record(begun.elapsed());
        }
    }

    /// Steps through one round; false: the replica must not go on.
    fn round(&mut self, round: Round, out: &mut Vec<Output>) -> bool {
        // Calls first: a keep-alive that waited unread while this thread was held up must be seen before a tick expires anything.
        let mut calls = round.calls.into_iter().peekable();
        while calls.peek().is_some() {
            let mut together = Vec::new();
            let mut bytes = 0;
            // One input becomes one message to the leader, whose length is bounded.
            while bytes < CALL_BYTES_TOGETHER
                && let Some(call) = calls.next()
            {
                bytes += size_bytes(&call.request);
                together.push(self.number(call));
            }
            if !self.step(Input::Calls(together), out) {
                return false;
            }
        }
        for Waiting { input, .. } in round.vital.into_iter().chain(round.log) {
            if let Input::Persisted { through } = input {
                self.release_held(through);
            }
            if !self.step(input, out) {
                return false;
            }
        }
        if clock::now() >= self.replica.deadline() && !self.step(Input::Tick, out) {
            return false;
        }
        for answer in round.status {
            let _ = answer.send(self.replica.status()); // the asker may have given up
        }
        true
    }

    fn number(&mut self, Call { request, responder }: Call) -> (CallId, Request) {
        match request {
            Request::Propose(_) => self.metrics.proposals.increment(1),
            Request::KeepAlive { .. } => self.metrics.keep_alives.increment(1),
            Request::Read => self.metrics.reads.increment(1),
            Request::TransferLeader { .. } => {}
        }
        self.calls_taken += 1;
        let id = CallId(self.calls_taken);
        self.responders.insert(id, responder);
        (id, request)
    }

    fn step(&mut self, input: Input, out: &mut Vec<Output>) -> bool {
        self.replica.step(clock::now(), input, out);
        for output in out.drain(..) {
            let go_on = carry_out(
                output,
                &mut self.held,
                &mut self.responders,
                &Hands {
                    writer: &self.writer,
                    snapshots: &self.snapshots,
                    peers: &self.peers,
                    publisher: &self.publisher,
                    standing: &self.standing,
                    metrics: &self.metrics,
                    stop: &self.stop,
                    own: self.replica.id(),
                },
            );
            if !go_on {
                return false;
            }
        }
        true
    }

    /// Sends what waited for writes that are durable now. This is the only place where such messages leave (design, section 5).
    fn release_held(&mut self, through: WriteSeq) {
        while self.held.front().is_some_and(|(write, ..)| *write <= through) {
            let (_, to, message) = self.held.pop_front().expect("just seen");
            self.peers.send(to, message);
        }
    }
}

/// Where outputs go.
struct Hands<'a> {
    writer: &'a WriteSender,
    snapshots: &'a JobSender,
    peers: &'a Peers,
    publisher: &'a Publisher,
    standing: &'a watch::Sender<Standing>,
    metrics: &'a Metrics,
    stop: &'a Stop,
    own: ReplicaId,
}

/// Carries out one output; false: stop.
fn carry_out(
    output: Output,
    held: &mut VecDeque<(WriteSeq, ReplicaId, PeerMessage)>,
    responders: &mut HashMap<CallId, Responder>,
    hands: &Hands<'_>,
) -> bool {
    match output {
        // The writer and the snapshot thread end only by a failure, which they have left as the reason to stop.
        Output::Persist(write) => return hands.writer.send(write).is_ok(),
        Output::Send { to, message } => hands.peers.send(to, message),
        Output::SendAfterPersist { write, to, message } => held.push_back((write, to, message)),
        Output::Answer { call, response } => answer(responders, call, response, hands.metrics),
        Output::Publish(published) => {
            hands.metrics.applied_index.set(published.state.applied().0.0 as f64);
            hands.metrics.revision.set(published.state.revision().0 as f64);
            hands.metrics.applied_entries.increment(published.applied.len() as u64);
            hands.publisher.publish(published);
        }
        Output::SaveSnapshot { meta, state } => return hands.snapshots.send(Job::Save { meta, state }).is_ok(),
        Output::SendSnapshotChunk { to, term, meta, offset } => {
            return hands.snapshots.send(Job::SendChunk { to, term, meta, offset }).is_ok();
        }
        Output::WriteSnapshotChunk { from: _, meta, offset, total, data } => {
            return hands.snapshots.send(Job::WriteChunk { meta, offset, total, data }).is_ok();
        }
        Output::RoleChanged { role, term, leader } => role_changed(Standing { role, term, leader }, hands),
        Output::Fatal(error) => {
            hands.stop.leave(StopReason::Replica(error));
            return false;
        }
    }
    true
}

fn answer(responders: &mut HashMap<CallId, Responder>, call: CallId, response: Response, metrics: &Metrics) {
    match response {
        Response::Refused(Refusal::Overloaded { .. }) => metrics.refused_overloaded.increment(1),
        Response::Refused(Refusal::NoLeader | Refusal::NotLeader { .. }) => metrics.refused_no_leader.increment(1),
        Response::Unknown => metrics.unknown_outcomes.increment(1),
        _ => {}
    }
    // The replica answers each call once; a second answer would find nobody and change nothing.
    if let Some(responder) = responders.remove(&call) {
        responder(response);
    }
}

fn role_changed(now: Standing, hands: &Hands<'_>) {
    let Standing { role, term, leader } = now;
    let before = hands.standing.send_replace(now);
    hands.metrics.has_leader.set(f64::from(u8::from(leader.is_some())));
    hands.metrics.is_leader.set(f64::from(u8::from(role == Role::Leader)));
    hands.metrics.term.set(term.0 as f64);
    if role == Role::Candidate && before.role != Role::Candidate {
        hands.metrics.elections.increment(1);
        tracing::info!(term = term.0, "standing for election");
    }
    if leader != before.leader {
        match leader {
            Some(leader) if leader == hands.own => tracing::info!(term = term.0, "leading the backbone"),
            Some(leader) => tracing::info!(term = term.0, leader = leader.0, "following the backbone's leader"),
            None => tracing::warn!(term = term.0, "the backbone has no leader that this server knows of"),
        }
        if leader.is_some() {
            hands.metrics.leader_changes.increment(1);
        }
    }
}
