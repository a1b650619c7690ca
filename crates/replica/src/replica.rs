//! The replica: dispatch of inputs, calls and their answers, and the order in which one step does things.

use quorate_consensus::{Configuration, Consensus, Output as Order, Role};
use quorate_coord::{Envelope, State};
use quorate_types::{LogIndex, ReplicaId, Term, Time};

use crate::apply::Applied;
use crate::call::{CallId, Refusal, Request, Response};
use crate::config::{Boot, Config};
use crate::input::Input;
use crate::lead::Lead;
use crate::output::Output;
use crate::peer::PeerMessage;
use crate::pending::{Forwarded, Origin, Pending, Queued};
use crate::revocation::Revocations;
use crate::status::Status;
use crate::taken::Taken;

/// One server of the backbone, without its I/O.
///
/// # Invariants
/// - `state` is applied to the commit index at the end of every step.
/// - `lead` is present exactly while the role is `Leader`.
/// - Nothing is answered as kept alive, read or expired before an own-term entry is applied (protocol, section 1).
#[derive(Debug)]
pub struct Replica {
    pub(crate) config: Config,
    pub(crate) consensus: Consensus<Envelope>,
    pub(crate) state: State,
    pub(crate) pending: Pending,
    pub(crate) revocations: Revocations,
    pub(crate) lead: Option<Lead>,
    pub(crate) applied: Applied,
    taken: Taken,
    /// The leader last announced by consensus.
    known_leader: Option<ReplicaId>,
    /// When the step before this ran.
    pub(crate) last_step: Time,
    /// When the step after it was due.
    due: Time,
}

impl Replica {
    /// Starts from what was found durable. Entries after the snapshot are applied as they are known committed.
    ///
    /// # Panics
    /// When the state is not the one at the snapshot: the shell's bug.
    #[must_use]
    pub fn new(config: Config, boot: Boot, now: Time) -> Self {
        let snapshot = boot.consensus.snapshot.last;
        assert_eq!(
            boot.state.applied().0,
            snapshot.index,
            "the state given at start is not the one at its snapshot {snapshot:?}"
        );
        let consensus = Consensus::new(config.consensus.clone(), boot.consensus, now);
        let revocations = Revocations::from_state(config.drift, &boot.state, now);
        let due = consensus.deadline();
        Self {
            config,
            consensus,
            state: boot.state,
            pending: Pending::default(),
            revocations,
            lead: None,
            applied: Applied::from_snapshot(snapshot.index),
            taken: Taken::default(),
            known_leader: None,
            last_step: now,
            due,
        }
    }

    /// Takes one input and appends what it orders. The orders of one step belong together and are carried out in order.
    pub fn step(&mut self, now: Time, input: Input, out: &mut Vec<Output>) {
        // The simulator and the shell read a clock that never goes back; a step that seems earlier counts as simultaneous.
        let now = now.max(self.last_step);
        self.note_stall(now);
        let mut orders = Vec::new();
        match input {
            Input::Tick => self.consensus.on_tick(now, &mut orders),
            Input::PeerConnected { peer } => {
                self.consensus.on_peer_connected(now, peer, &mut orders);
            }
            Input::Peer { from, message } => self.on_peer(now, from, message, &mut orders, out),
            Input::Calls(calls) => {
                for (call, request) in calls {
                    self.take_call(now, Origin::Local(call), request, out);
                }
            }
            Input::Persisted { through } => self.consensus.on_persisted(now, through, &mut orders),
            Input::SnapshotChunkWritten { meta, next } => {
                self.consensus
                    .on_snapshot_chunk_written(now, &meta, next, &mut orders);
            }
            Input::SnapshotArrived { meta, state } => {
                self.on_snapshot_arrived(now, meta, *state, &mut orders, out);
            }
            Input::SnapshotBroken { meta } => {
                self.consensus.on_snapshot_failed(now, &meta, &mut orders);
            }
            Input::SnapshotSaved { meta } => self.on_snapshot_saved(now, meta, &mut orders),
            Input::HandOver => {
                // Not leading, or nobody to hand over to: then there is nothing to wait for either.
                let _ = self.consensus.transfer(now, None, &mut orders);
            }
        }
        self.settle(now, orders, out);
        self.time_out_calls(now, out);
        self.pending
            .flush(self.known_leader, self.config.incarnation, out);
        self.applied.publish(&self.state, out);
        self.maybe_snapshot(out);
        self.last_step = now;
        self.due = self.deadline();
    }

    /// When [`Input::Tick`] is wanted at the latest.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let lead = self.lead.as_ref().and_then(|lead| self.lead_deadline(lead));
        [
            Some(self.consensus.deadline()),
            self.pending.next_deadline(),
            lead,
        ]
        .into_iter()
        .flatten()
        .min()
        .expect("consensus always has a deadline")
    }

    /// Carries out consensus's orders until nothing more follows: applying may make the leader serve, serving may propose.
    fn settle(&mut self, now: Time, mut orders: Vec<Order<Envelope>>, out: &mut Vec<Output>) {
        loop {
            for order in std::mem::take(&mut orders) {
                self.carry_out(now, order, out);
            }
            self.lead_duties(now, &mut orders, out);
            self.forward_queued(out);
            if orders.is_empty() {
                return;
            }
        }
    }

    fn carry_out(&mut self, now: Time, order: Order<Envelope>, out: &mut Vec<Output>) {
        match order {
            Order::Persist(write) => out.push(Output::Persist(write)),
            Order::Send { to, message } => out.push(Output::Send {
                to,
                message: PeerMessage::Consensus(message),
            }),
            Order::SendAfterPersist { write, to, message } => {
                out.push(Output::SendAfterPersist {
                    write,
                    to,
                    message: PeerMessage::Consensus(message),
                });
            }
            Order::Committed { through } => self.apply_through(now, through, out),
            Order::Confirmed { round } => self.on_confirmed(now, round, out),
            Order::RoleChanged { role, term, leader } => {
                self.on_role_changed(now, role, term, leader, out);
            }
            Order::SendSnapshotChunk {
                to,
                term,
                meta,
                offset,
            } => {
                out.push(Output::SendSnapshotChunk {
                    to,
                    term,
                    meta,
                    offset,
                });
            }
            Order::WriteSnapshotChunk {
                from,
                meta,
                offset,
                total,
                data,
            } => {
                out.push(Output::WriteSnapshotChunk {
                    from,
                    meta,
                    offset,
                    total,
                    data,
                });
            }
            Order::Fatal(error) => out.push(Output::Fatal(error)),
        }
    }

    fn on_peer(
        &mut self,
        now: Time,
        from: ReplicaId,
        message: PeerMessage,
        orders: &mut Vec<Order<Envelope>>,
        out: &mut Vec<Output>,
    ) {
        match message {
            PeerMessage::Consensus(message) => {
                self.consensus.on_message(now, from, message, orders);
            }
            PeerMessage::Forward { incarnation, calls } => {
                for (call, request) in calls {
                    if !self.taken.take(from, incarnation, call, &request) {
                        // Whoever took it in answers it.
                        continue;
                    }
                    self.take_call(
                        now,
                        Origin::Peer {
                            replica: from,
                            incarnation,
                            call,
                        },
                        request,
                        out,
                    );
                }
            }
            PeerMessage::Answers {
                incarnation,
                answers,
            } if incarnation == self.config.incarnation => {
                for (call, response) in answers {
                    self.on_forward_answered(now, from, call, response, out);
                }
            }
            // To an earlier process of this replica, whose call numbers meant other calls.
            PeerMessage::Answers { .. } => {}
        }
    }

    /// Takes a call in: it waits in the queue until this replica leads and serves, or until a leader is known.
    fn take_call(&mut self, now: Time, origin: Origin, request: Request, out: &mut Vec<Output>) {
        // Bulk must not keep sessions from being heard (guarantee 8): keep-alives have as much room again.
        let is_keep_alive = matches!(request, Request::KeepAlive { .. });
        let calls_max = self.config.calls_max * if is_keep_alive { 2 } else { 1 };
        if self.pending.len() >= calls_max {
            let refusal = Refusal::Overloaded {
                retry_after_ms: 100,
            };
            self.pending.answer(origin, Response::Refused(refusal), out);
        } else if matches!(origin, Origin::Peer { .. }) && self.lead.is_none() {
            let refusal = Refusal::NotLeader {
                leader: self.known_leader,
            };
            self.pending.answer(origin, Response::Refused(refusal), out);
        } else {
            let deadline = now + self.config.call_timeout;
            self.pending.queued.push_back(Queued {
                origin,
                request,
                deadline,
            });
        }
    }

    /// A follower that knows the leader sends it what its clients ask.
    fn forward_queued(&mut self, _out: &mut Vec<Output>) {
        let Some(leader) = self
            .known_leader
            .filter(|leader| *leader != self.config.consensus.id)
        else {
            return;
        };
        for Queued {
            origin,
            request,
            deadline,
        } in std::mem::take(&mut self.pending.queued)
        {
            let Origin::Local(call) = origin else {
                unreachable!(
                    "calls of peers wait only at a leader; {origin:?} waits at a follower of {leader}"
                )
            };
            self.pending.forwards.push((call, request.clone()));
            self.pending.forwarded.insert(
                call,
                Forwarded {
                    leader,
                    request,
                    deadline,
                },
            );
        }
    }

    fn on_forward_answered(
        &mut self,
        now: Time,
        from: ReplicaId,
        call: CallId,
        response: Response,
        out: &mut Vec<Output>,
    ) {
        // Already timed out, or asked again from another leader: the answer is late.
        let Some(forwarded) = self.pending.forwarded.get(&call) else {
            return;
        };
        if forwarded.leader != from {
            return;
        }
        self.pending.forwarded.remove(&call);
        match response {
            Response::ReadAt { index } => self.answer_read(now, call, index, out),
            Response::AppliedAt { index } => {
                let until = (self.applied.index, now + self.config.call_timeout);
                self.pending.own_replies.answered(call, index, until, out);
            }
            response => out.push(Output::Answer { call, response }),
        }
    }

    /// A read whose index is known is answered once the state here holds it.
    fn answer_read(&mut self, now: Time, call: CallId, index: LogIndex, out: &mut Vec<Output>) {
        if index <= self.applied.index {
            out.push(Output::Answer {
                call,
                response: Response::ReadAt { index },
            });
        } else {
            let deadline = now + self.config.call_timeout;
            self.pending
                .reading
                .entry(index)
                .or_default()
                .push((call, deadline));
        }
    }

    fn on_role_changed(
        &mut self,
        now: Time,
        role: Role,
        term: Term,
        leader: Option<ReplicaId>,
        out: &mut Vec<Output>,
    ) {
        if role == Role::Leader && self.lead.as_ref().is_none_or(|lead| lead.term != term) {
            self.step_down(out);
            self.lead = Some(Lead::new(term, now));
        } else if role != Role::Leader {
            self.step_down(out);
        }
        if leader != self.known_leader {
            self.known_leader = leader;
            self.take_back_forwarded(out);
        }
        out.push(Output::RoleChanged { role, term, leader });
    }

    /// Calls sent to a former leader: a command may have been appended there, so its outcome is unknown, and a server never proposes
    /// such a command again (protocol, section 7). Repeating the others has no effect but their own, so they are asked again of the
    /// next leader; save a transfer to anyone.
    fn take_back_forwarded(&mut self, out: &mut Vec<Output>) {
        assert!(
            self.pending.forwards.is_empty(),
            "calls were gathered for a leader before the change of leader was seen"
        );
        for (
            call,
            Forwarded {
                request, deadline, ..
            },
        ) in std::mem::take(&mut self.pending.forwarded)
        {
            match request {
                Request::Propose(_) => out.push(Output::Answer {
                    call,
                    response: Response::Unknown,
                }),
                // The leadership has left the leader that was asked, which is all that was wanted. Asked again, the next
                // leader would hand it on at once: its order to stand overtakes the answer.
                Request::TransferLeader { to: None } => out.push(Output::Answer {
                    call,
                    response: Response::Transferring,
                }),
                Request::KeepAlive { .. }
                | Request::Read
                | Request::SessionAge { .. }
                | Request::TransferLeader { to: Some(_) } => {
                    self.pending.queued.push_back(Queued {
                        origin: Origin::Local(call),
                        request,
                        deadline,
                    });
                }
            }
        }
    }

    /// Calls that have waited too long are answered with what is known of them.
    fn time_out_calls(&mut self, now: Time, out: &mut Vec<Output>) {
        while self
            .pending
            .queued
            .front()
            .is_some_and(|queued| queued.deadline <= now)
        {
            let queued = self
                .pending
                .queued
                .pop_front()
                .expect("the front was just seen");
            self.pending
                .answer(queued.origin, Response::Refused(Refusal::NoLeader), out);
        }
        while let Some(entry) = self
            .pending
            .forwarded
            .first_entry()
            .filter(|entry| entry.get().deadline <= now)
        {
            let (call, forwarded) = entry.remove_entry();
            let response = match forwarded.request {
                Request::Propose(_) | Request::TransferLeader { .. } => Response::Unknown,
                Request::KeepAlive { .. } | Request::Read | Request::SessionAge { .. } => {
                    Response::Refused(Refusal::NoLeader)
                }
            };
            out.push(Output::Answer { call, response });
        }
        for calls in self.pending.reading.values_mut() {
            for (call, _) in calls.extract_if(.., |(_, deadline)| *deadline <= now) {
                out.push(Output::Answer {
                    call,
                    response: Response::Refused(Refusal::NoLeader),
                });
            }
        }
        self.pending.reading.retain(|_, calls| !calls.is_empty());
        self.pending.own_replies.time_out(now, out);
        if self.pending.forwarded.is_empty() {
            self.pending.own_replies.forget_kept();
        }
    }

    /// A leader whose step loop stood still credits the stall to every session: their keep-alives may sit unread.
    fn note_stall(&mut self, now: Time) {
        let Some(lead) = &mut self.lead else { return };
        if now > self.due + self.config.stall_min {
            lead.note_stall(now.since(self.last_step));
        } else {
            lead.credit_stalls(now);
        }
    }

    /// The state as applied here.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// This replica's id.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.config.consensus.id
    }

    /// Its role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.consensus.role()
    }

    /// Its term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.consensus.term()
    }

    /// The leader it knows of.
    #[must_use]
    pub fn leader(&self) -> Option<ReplicaId> {
        self.known_leader
    }

    /// Its commit index.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.consensus.commit()
    }

    /// The last entry applied; the commit index at the end of each step.
    #[must_use]
    pub fn applied(&self) -> LogIndex {
        self.applied.index
    }

    /// The last entry of its log.
    #[must_use]
    pub fn last_index(&self) -> LogIndex {
        self.consensus.last().index
    }

    /// The newest configuration in its log.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        self.consensus.configuration()
    }

    /// The backbone protocol underneath, for checkers.
    #[must_use]
    pub fn consensus(&self) -> &Consensus<Envelope> {
        &self.consensus
    }

    /// What operators want to see.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::of(self)
    }

    /// Asserts what must hold between steps.
    ///
    /// # Panics
    /// When an invariant is broken.
    pub fn check_invariants(&self) {
        self.consensus.check_invariants();
        self.revocations.check_invariants();
        self.pending
            .own_replies
            .check_invariants(self.applied.index);
        assert_eq!(
            self.lead.is_some(),
            self.role() == Role::Leader,
            "the leader's memory and the role disagree"
        );
        assert_eq!(
            self.applied.index,
            self.consensus.commit(),
            "committed entries are not applied"
        );
        assert_eq!(
            self.state.applied().0,
            self.applied.index,
            "the state is applied to another entry"
        );
        if let Some(serving) = self.lead.as_ref().and_then(|lead| lead.serving.as_ref()) {
            serving.leases.check_invariants();
            let sessions = self
                .state
                .sessions()
                .filter(|session| !session.revoked)
                .count();
            assert_eq!(
                serving.leases.len(),
                sessions,
                "sessions and leases disagree"
            );
        }
    }
}
