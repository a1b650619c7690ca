//! The thread that owns the replica: takes inputs, steps, carries out the outputs in order.
//!
//! Owns: what waits for a write to be durable, and the numbers of calls. Deliberately absent: encoding, syncing, sending; other threads
//! and tasks do them, so that a step never waits for anything.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_consensus::{Role, WriteSeq};
use quorate_coord::Event;
use quorate_replica::{
    CallId, Input, Output, PeerMessage, Published, Refusal, Replica, Request, Response,
};
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
pub struct RoleView {
    /// The role.
    pub role: Role,
    /// The term.
    pub term: Term,
    /// The leader of `term`, where known.
    pub leader: Option<ReplicaId>,
}

/// The thread's replica and what drives it.
pub(crate) struct StepThread {
    replica: Replica,
    inbox: Arc<Inbox>,
    hands: Hands,
    calls_taken: u64,
}

impl StepThread {
    pub(crate) fn new(replica: Replica, inbox: Arc<Inbox>, reach: Reach) -> Self {
        let hands = Hands {
            own: replica.id(),
            reach,
            held: VecDeque::new(),
            responders: HashMap::new(),
            leaderless_since: Some(Instant::now()),
        };
        Self {
            replica,
            inbox,
            hands,
            calls_taken: 0,
        }
    }

    /// Starts the thread. It ends when the inbox is closed, or the replica must not go on.
    pub(crate) fn spawn(self) -> std::io::Result<std::thread::JoinHandle<()>> {
        std::thread::Builder::new()
            .name("quorate-step".to_owned())
            .spawn(move || {
                let _guard = self.hands.reach.stop.guard("step");
                self.run();
            })
    }

    fn run(mut self) {
        let metrics = Arc::clone(&self.hands.reach.metrics);
        let mut out = Vec::new();
        let mut log_left = 0;
        loop {
            let wait = if log_left > 0 {
                Duration::ZERO
            } else {
                self.replica.deadline().since(clock::now())
            };
            let round = self.inbox.take(wait, LOG_PER_ROUND);
            if round.closed
                || self
                    .hands
                    .reach
                    .stop
                    .reason()
                    .is_some_and(|reason| !reason.is_asked())
            {
                return;
            }
            let begun = Instant::now();
            log_left = round.log_left;
            metrics.queue_vital.set(round.vital.len() as f64);
            metrics
                .queue_log
                .set((round.log.len() + round.log_left) as f64);
            metrics.queue_calls.set(round.calls.len() as f64);
            if self.round(round, &mut out).is_break() {
                return;
            }
            metrics.step_seconds.record(begun.elapsed());
        }
    }

    /// Steps through one round. Breaks off where the replica must not go on.
    fn round(&mut self, round: Round, out: &mut Vec<Output>) -> ControlFlow<()> {
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
            self.step(Input::Calls(together), out)?;
        }
        for Waiting { input, .. } in round.vital.into_iter().chain(round.log) {
            if let Input::Persisted { through } = input {
                self.hands.release_held(through);
            }
            self.step(input, out)?;
        }
        if clock::now() >= self.replica.deadline() {
            self.step(Input::Tick, out)?;
        }
        for answer in round.status {
            let _ = answer.send(self.replica.status()); // the asker may have given up
        }
        ControlFlow::Continue(())
    }

    fn number(&mut self, Call { request, responder }: Call) -> (CallId, Request) {
        let metrics = &self.hands.reach.metrics;
        match request {
            Request::Propose(_) => metrics.proposals.increment(1),
            Request::KeepAlive { .. } => metrics.keep_alives.increment(1),
            Request::Read => metrics.reads.increment(1),
            Request::TransferLeader { .. } | Request::SessionAge { .. } => {}
        }
        self.calls_taken += 1;
        let id = CallId(self.calls_taken);
        self.hands.responders.insert(id, responder);
        (id, request)
    }

    fn step(&mut self, input: Input, out: &mut Vec<Output>) -> ControlFlow<()> {
        self.replica.step(clock::now(), input, out);
        for output in out.drain(..) {
            self.hands.carry_out(output)?;
        }
        ControlFlow::Continue(())
    }
}

/// Where outputs go.
pub(crate) struct Reach {
    pub(crate) writer: WriteSender,
    pub(crate) snapshots: JobSender,
    pub(crate) peers: Arc<Peers>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) role: watch::Sender<RoleView>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Stop,
}

/// Carries out outputs.
///
/// # Invariants
/// - `held` is in order of writes; none of them is known to be durable yet.
/// - Each number in `responders` is known to the replica, which answers it in the end.
struct Hands {
    own: ReplicaId,
    reach: Reach,
    held: VecDeque<(WriteSeq, ReplicaId, PeerMessage)>,
    responders: HashMap<CallId, Responder>,
    leaderless_since: Option<Instant>,
}

impl Hands {
    /// Sends what waited for writes that are durable now. This is the only place where such messages leave (ADR own-consensus-core).
    fn release_held(&mut self, through: WriteSeq) {
        while self
            .held
            .front()
            .is_some_and(|(write, ..)| *write <= through)
        {
            let (_, to, message) = self.held.pop_front().expect("just seen");
            self.reach.peers.send(to, message);
        }
    }

    /// Carries out one output. Breaks off where the replica must not go on.
    fn carry_out(&mut self, output: Output) -> ControlFlow<()> {
        match output {
            Output::Persist(write) => return go_on(&self.reach.writer.send(write)),
            Output::Send { to, message } => self.reach.peers.send(to, message),
            Output::SendAfterPersist { write, to, message } => {
                self.held.push_back((write, to, message));
            }
            Output::Answer { call, response } => self.answer(call, response),
            Output::Publish(published) => self.publish(published),
            Output::SaveSnapshot { meta, state } => {
                return self.snapshot_job(Job::Save { meta, state });
            }
            Output::SendSnapshotChunk {
                to,
                term,
                meta,
                offset,
            } => {
                return self.snapshot_job(Job::SendChunk {
                    to,
                    term,
                    meta,
                    offset,
                });
            }
            Output::WriteSnapshotChunk {
                from: _,
                meta,
                offset,
                total,
                data,
            } => {
                return self.snapshot_job(Job::WriteChunk {
                    meta,
                    offset,
                    total,
                    data,
                });
            }
            Output::RoleChanged { role, term, leader } => {
                self.role_changed(RoleView { role, term, leader });
            }
            Output::Fatal(error) => {
                self.reach.stop.leave(StopReason::Replica(error));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn snapshot_job(&self, job: Job) -> ControlFlow<()> {
        go_on(&self.reach.snapshots.send(job))
    }

    fn publish(&self, published: Published) {
        let metrics = &self.reach.metrics;
        metrics
            .applied_index
            .set(published.state.applied().0.0 as f64);
        metrics.revision.set(published.state.revision().0 as f64);
        metrics
            .applied_entries
            .increment(published.applied.len() as u64);
        for event in published.applied.iter().flat_map(|entry| &entry.events) {
            match event {
                Event::HolderReported { .. } => metrics.fault_reports.increment(1),
                Event::HolderDeposed { .. } => metrics.deposed.increment(1),
                _ => {}
            }
        }
        self.reach.publisher.publish(published);
    }

    fn answer(&mut self, call: CallId, response: Response) {
        let metrics = &self.reach.metrics;
        match response {
            Response::Refused(Refusal::Overloaded { .. }) => {
                metrics.refused_overloaded.increment(1);
            }
            Response::Refused(Refusal::NoLeader | Refusal::NotLeader { .. }) => {
                metrics.refused_no_leader.increment(1);
            }
            Response::Unknown => metrics.unknown_outcomes.increment(1),
            _ => {}
        }
        // The replica answers each call once; a second answer would find nobody and change nothing.
        if let Some(responder) = self.responders.remove(&call) {
            responder(response);
        }
    }

    fn role_changed(&mut self, now: RoleView) {
        let RoleView { role, term, leader } = now;
        let metrics = &self.reach.metrics;
        let before = self.reach.role.send_replace(now);
        metrics
            .has_leader
            .set(f64::from(u8::from(leader.is_some())));
        metrics
            .is_leader
            .set(f64::from(u8::from(role == Role::Leader)));
        metrics.term.set(term.0 as f64);
        if role == Role::Candidate && before.role != Role::Candidate {
            metrics.elections.increment(1);
            tracing::info!(term = term.0, "standing for election");
        }
        if leader == before.leader {
            return;
        }
        match leader {
            Some(leader) if leader == self.own => {
                tracing::info!(term = term.0, "leading the backbone");
            }
            Some(leader) => tracing::info!(
                term = term.0,
                leader = leader.0,
                "following the backbone's leader"
            ),
            None => tracing::warn!(
                term = term.0,
                "the backbone has no leader that this server knows of"
            ),
        }
        if leader.is_some() {
            metrics.leader_changes.increment(1);
            if let Some(since) = self.leaderless_since.take() {
                metrics.leaderless_seconds.record(since.elapsed());
            }
        } else {
            self.leaderless_since = Some(Instant::now());
        }
    }
}

/// The writer and the snapshot thread end early only by a failure, which they have left as the reason to stop.
fn go_on<T>(sent: &Result<(), T>) -> ControlFlow<()> {
    if sent.is_ok() {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}
