//! What only a leader does: serve calls once an own-term entry is applied, confirm rounds, expire sessions, end revocations, move
//! cluster time (protocol, sections 1 to 4).

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_consensus::{Output as Order, RoundId, TransferError};
use quorate_coord::{Command, Envelope, Event, RequestKey, SessionKey};
use quorate_types::{
    ClusterTime, ContractVersion, LogIndex, Principal, SessionId, Term, Time, TraceId, WallTime,
};

use crate::call::{Proposal, Refusal, Request, Response};
use crate::lease::Leases;
use crate::output::Output;
use crate::pending::{Confirming, Origin, Queued};
use crate::replica::Replica;
use crate::revocation::Revoked;

/// Most sessions or tenures that one of the leader's own commands ends.
const END_BATCH_MAX: usize = 10_000;
/// After the log refused one of the leader's own commands, how long until it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// A leader's memory, dropped with leadership.
#[derive(Debug)]
pub(crate) struct Lead {
    pub(crate) term: Term,
    /// When the election was won: takeover, for every TTL.
    elected_at: Time,
    /// What the step loop has stood still, not yet added to all deadlines (protocol, section 2).
    stalled: Duration,
    /// Present once an own-term entry is applied.
    pub(crate) serving: Option<Serving>,
}

impl Lead {
    pub(crate) fn new(term: Term, elected_at: Time) -> Self {
        Self {
            term,
            elected_at,
            stalled: Duration::ZERO,
            serving: None,
        }
    }

    /// The step loop stood still for this long.
    pub(crate) fn note_stall(&mut self, stall: Duration) {
        self.stalled += stall;
    }

    /// Adds stalls to all deadlines: when the step loop is on time again, or something would be due. Not for each of the many
    /// inputs that are read late after one stall, since it goes through all sessions.
    pub(crate) fn credit_stalls(&mut self, now: Time) {
        if !self.stalled.is_zero()
            && let Some(serving) = &mut self.serving
        {
            serving
                .leases
                .stalled(std::mem::take(&mut self.stalled), now);
        }
    }
}

/// The memory of a leader that serves.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) leases: Leases,
    /// Cluster time at takeover, and when that was here.
    stamp: (ClusterTime, Time),
    /// An `Advance` that is appended and not yet applied.
    advance: Option<LogIndex>,
    /// Appended commands that end sessions, not yet applied.
    ending: BTreeMap<LogIndex, Vec<SessionKey>>,
    /// The log refused one of our own commands: not before this.
    retry_at: Time,
}

impl Serving {
    /// The stamp of an entry proposed at `now`: it goes on from the last one at takeover by this leader's elapsed time.
    fn stamp_at(&self, now: Time) -> ClusterTime {
        let (base, since) = self.stamp;
        base.plus_ms(u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX))
    }

    /// When the stamp will have reached `at`.
    fn time_of(&self, at: ClusterTime) -> Time {
        let (base, since) = self.stamp;
        since + Duration::from_millis(at.ms_since(base))
    }

    /// Follows one event that was applied at `now`.
    pub(crate) fn on_event(&mut self, event: &Event, now: Time) {
        match event {
            Event::SessionOpened { session, ttl_ms } => {
                self.leases
                    .opened(*session, Duration::from_millis(*ttl_ms), now);
            }
            Event::SessionRevoked { session } | Event::SessionEnded { session, .. } => {
                self.leases.ended(*session);
            }
            _ => {}
        }
    }

    /// An entry was applied: ends that it was to bring and did not are off.
    pub(crate) fn applied(&mut self, index: LogIndex) {
        if self.advance == Some(index) {
            self.advance = None;
        }
        for session in self.ending.remove(&index).unwrap_or_default() {
            // Most ends took effect, and need no search. Another end of the same session may still be in the log behind this one.
            if self.leases.is_ending(session)
                && !self
                    .ending
                    .values()
                    .flatten()
                    .any(|other| *other == session)
            {
                self.leases.end_refused(session);
            }
        }
    }
}

impl Replica {
    pub(crate) fn serving_mut(&mut self) -> Option<&mut Serving> {
        self.lead.as_mut().and_then(|lead| lead.serving.as_mut())
    }

    /// When a leader's own duties are next due.
    pub(crate) fn lead_deadline(&self, lead: &Lead) -> Option<Time> {
        let serving = lead.serving.as_ref()?;
        let advance = match serving.advance {
            None => self.state.next_deadline().map(|at| serving.time_of(at)),
            Some(_) => None,
        };
        let due = [
            serving.leases.next_deadline(),
            self.revocations.next_due(),
            advance,
        ]
        .into_iter()
        .flatten()
        .min()?;
        Some(due.max(serving.retry_at))
    }

    /// Does what a leader has to do by now.
    pub(crate) fn lead_duties(
        &mut self,
        now: Time,
        orders: &mut Vec<Order<Envelope>>,
        out: &mut Vec<Output>,
    ) {
        let Some(lead) = &self.lead else { return };
        if lead.serving.is_none() {
            let own_term = self
                .consensus
                .own_term_index()
                .expect("a leader has appended an entry of its term");
            if self.applied.index < own_term {
                return;
            }
            self.take_over(now);
        }
        self.serve_queued(now, orders, out);
        self.expire(now, orders);
        self.end_revoked(now, orders);
        self.advance(now, orders);
    }

    fn take_over(&mut self, now: Time) {
        let lead = self.lead.as_mut().expect("only a leader takes over");
        lead.serving = Some(Serving {
            leases: Leases::take_over(self.config.drift, &self.state, lead.elected_at),
            stamp: (self.state.cluster_time(), now),
            advance: None,
            ending: BTreeMap::new(),
            retry_at: Time::ZERO,
        });
    }

    /// Serves what has waited. All keep-alives and reads that arrived together share one confirmation round.
    fn serve_queued(
        &mut self,
        now: Time,
        orders: &mut Vec<Order<Envelope>>,
        out: &mut Vec<Output>,
    ) {
        if self.pending.queued.is_empty() {
            return;
        }
        // A deadline counted from a keep-alive that was read after a stall needs nothing added for it.
        if let Some(lead) = &mut self.lead {
            lead.credit_stalls(now);
        }
        let mut proposals = Vec::new();
        let mut confirming = Vec::new();
        for Queued {
            origin, request, ..
        } in std::mem::take(&mut self.pending.queued)
        {
            match request {
                Request::Propose(proposal) => proposals.push((origin, *proposal)),
                Request::KeepAlive { session, seq } => {
                    let serving = self
                        .serving_mut()
                        .expect("calls are served by a serving leader");
                    if serving.leases.is_answerable(session) {
                        serving.leases.heard(session, now);
                    }
                    confirming.push(Confirming::KeepAlive {
                        origin,
                        session,
                        seq,
                    });
                }
                Request::Read => {
                    // Captured at arrival, after an own-term entry was applied: at least everything acknowledged before.
                    confirming.push(Confirming::Read {
                        origin,
                        index: self.consensus.commit(),
                    });
                }
                Request::SessionAge { session } => {
                    confirming.push(Confirming::SessionAge { origin, session });
                }
                Request::TransferLeader { to } => {
                    let response = match self.consensus.transfer(now, to, orders) {
                        Ok(()) => Response::Transferring,
                        // An attempt before this one, whose answer was lost with the old leader, has done it.
                        Err(TransferError::NotAnotherVoter { to }) if to == self.id() => {
                            Response::Transferring
                        }
                        Err(TransferError::InProgress { to: under_way })
                            if to.is_none_or(|to| to == under_way) =>
                        {
                            Response::Transferring
                        }
                        Err(_) => Response::Refused(Refusal::BadTransfer),
                    };
                    self.pending.answer(origin, response, out);
                }
            }
        }
        self.confirm(now, confirming, orders, out);
        self.propose(now, proposals, orders, out);
    }

    fn confirm(
        &mut self,
        now: Time,
        confirming: Vec<Confirming>,
        orders: &mut Vec<Order<Envelope>>,
        out: &mut Vec<Output>,
    ) {
        if confirming.is_empty() {
            return;
        }
        match self.consensus.confirm(now, orders) {
            Ok(round) => self
                .pending
                .confirming
                .extend(confirming.into_iter().map(|waiting| (round, waiting))),
            Err(_) => {
                for waiting in confirming {
                    let refusal = Response::Refused(Refusal::NotLeader { leader: None });
                    self.pending.answer(waiting.origin(), refusal, out);
                }
            }
        }
    }

    /// A commit quorum confirmed the term: what waited for it is true now.
    pub(crate) fn on_confirmed(&mut self, now: Time, round: RoundId, out: &mut Vec<Output>) {
        while self
            .pending
            .confirming
            .front()
            .is_some_and(|(waiting, _)| *waiting <= round)
        {
            let (_, waiting) = self
                .pending
                .confirming
                .pop_front()
                .expect("the front was just seen");
            match waiting {
                Confirming::Read { origin, index } => {
                    assert!(
                        index <= self.applied.index,
                        "a leader has applied what it has committed"
                    );
                    self.pending.answer(origin, Response::ReadAt { index }, out);
                }
                Confirming::KeepAlive {
                    origin,
                    session,
                    seq,
                } => {
                    let response = self.keep_alive_response(session, seq);
                    self.pending.answer(origin, response, out);
                }
                Confirming::SessionAge { origin, session } => {
                    let response = self.session_age_response(session, now);
                    self.pending.answer(origin, response, out);
                }
            }
        }
    }

    fn keep_alive_response(&self, session: SessionKey, seq: u64) -> Response {
        let serving = self
            .lead
            .as_ref()
            .and_then(|lead| lead.serving.as_ref())
            .expect("rounds confirm a serving leader");
        match self
            .state
            .session(session.id)
            .filter(|found| found.key == session && !found.revoked)
        {
            None => Response::SessionGone { session, seq },
            // An end of the session is appended (rule iii): whether it takes effect is not known yet.
            Some(_) if !serving.leases.is_answerable(session) => {
                Response::Refused(Refusal::SessionEnding)
            }
            Some(found) => Response::KeptAlive {
                session,
                seq,
                ttl_ms: found.ttl_ms,
                directive_seq: found.directive_seq,
            },
        }
    }

    fn session_age_response(&self, session: SessionKey, now: Time) -> Response {
        let serving = self
            .lead
            .as_ref()
            .and_then(|lead| lead.serving.as_ref())
            .expect("rounds confirm a serving leader");
        let remaining_ms = self
            .state
            .session(session.id)
            .filter(|found| found.key == session && !found.revoked)
            .map(|_| serving.leases.remaining_ms(session, now));
        Response::SessionAge {
            session,
            remaining_ms,
        }
    }

    /// Puts clients' commands in the log.
    fn propose(
        &mut self,
        now: Time,
        proposals: Vec<(Origin, Proposal)>,
        orders: &mut Vec<Order<Envelope>>,
        out: &mut Vec<Output>,
    ) {
        if proposals.is_empty() {
            return;
        }
        let serving = self
            .serving_mut()
            .expect("calls are served by a serving leader");
        let stamp = serving.stamp_at(now);
        let (origins, envelopes): (Vec<_>, Vec<_>) = proposals
            .into_iter()
            .map(|(origin, proposal)| (origin, proposal.into_envelope(stamp)))
            .unzip();
        let ends: Vec<_> = envelopes
            .iter()
            .map(|envelope| self.ends_appended_by(&envelope.command))
            .collect();
        match self.consensus.propose(now, envelopes, orders) {
            Ok(first) => {
                let indexes = (first.0..).map(LogIndex);
                for ((origin, sessions), index) in origins.into_iter().zip(ends).zip(indexes) {
                    self.pending.proposed.insert(index, origin);
                    self.note_ending(index, sessions);
                }
            }
            Err(error) => {
                let refusal = match error {
                    quorate_consensus::ProposeError::NotLeader { leader } => {
                        Refusal::NotLeader { leader }
                    }
                    quorate_consensus::ProposeError::Transferring { .. } => {
                        Refusal::NotLeader { leader: None }
                    }
                    quorate_consensus::ProposeError::Overloaded { .. } => Refusal::Overloaded {
                        retry_after_ms: 100,
                    },
                };
                for origin in origins {
                    self.pending.answer(origin, Response::Refused(refusal), out);
                }
            }
        }
    }

    /// The live sessions whose end a command would bring.
    fn ends_appended_by(&self, command: &Command) -> Vec<SessionKey> {
        match command {
            Command::CloseSession { session } => vec![*session],
            Command::RevokeSession { session } => self
                .state
                .session(*session)
                .map(|session| session.key)
                .into_iter()
                .collect(),
            Command::RevokeLease { id, .. } => self
                .state
                .session(SessionId(*id))
                .filter(|session| session.node.is_none())
                .map(|session| session.key)
                .into_iter()
                .collect(),
            _ => Vec::new(),
        }
    }

    fn note_ending(&mut self, index: LogIndex, sessions: Vec<SessionKey>) {
        if sessions.is_empty() {
            return;
        }
        let serving = self.serving_mut().expect("only a serving leader appends");
        for session in &sessions {
            serving.leases.end_appended(*session);
        }
        serving.ending.insert(index, sessions);
    }

    /// Appends one of the leader's own commands. Never retried: a later leader judges for itself.
    fn propose_own(
        &mut self,
        now: Time,
        command: Command,
        orders: &mut Vec<Order<Envelope>>,
    ) -> Option<LogIndex> {
        let serving = self.serving_mut().expect("only a serving leader proposes");
        let envelope = Envelope {
            principal: Principal::new("quorate").expect("a constant, valid name"),
            request: RequestKey::Internal,
            trace: TraceId::default(),
            wall: WallTime::default(),
            cluster_time: serving.stamp_at(now),
            contract: ContractVersion(*quorate_coord::CONTRACT_VERSIONS.end()),
            command,
        };
        match self.consensus.propose(now, vec![envelope], orders) {
            Ok(index) => Some(index),
            Err(_) => {
                self.serving_mut().expect("it still serves").retry_at = now + RETRY_AFTER;
                None
            }
        }
    }

    fn may_propose(&self, now: Time) -> bool {
        self.lead
            .as_ref()
            .and_then(|lead| lead.serving.as_ref())
            .is_some_and(|serving| serving.retry_at <= now)
    }

    /// Ends sessions a stretched TTL after they were last heard.
    fn expire(&mut self, now: Time, orders: &mut Vec<Order<Envelope>>) {
        if !self.may_propose(now) {
            return;
        }
        let is_due = |serving: &Serving| serving.leases.next_deadline().is_some_and(|at| at <= now);
        let lead = self.lead.as_mut().expect("only a leader expires");
        if !lead.serving.as_ref().is_some_and(is_due) {
            return;
        }
        lead.credit_stalls(now);
        let serving = lead.serving.as_ref().expect("it serves");
        let sessions = serving.leases.due(now, END_BATCH_MAX);
        if sessions.is_empty() {
            return;
        }
        let term = self.consensus.term();
        let command = Command::ExpireSessions {
            term,
            sessions: sessions.clone(),
        };
        if let Some(index) = self.propose_own(now, command, orders) {
            self.note_ending(index, sessions);
        }
    }

    /// Ends revoked tenures and sessions that have been waited out.
    fn end_revoked(&mut self, now: Time, orders: &mut Vec<Order<Envelope>>) {
        if !self.may_propose(now) {
            return;
        }
        let (sessions, tenures) = self.revocations.due(now, END_BATCH_MAX);
        let term = self.consensus.term();
        if !tenures.is_empty() {
            let command = Command::VacateTenures {
                term,
                tenures: tenures.clone(),
            };
            if self.propose_own(now, command, orders).is_some() {
                tenures
                    .into_iter()
                    .for_each(|tenure| self.revocations.end_appended(Revoked::Tenure(tenure)));
            }
        }
        if !sessions.is_empty() {
            let command = Command::ExpireSessions {
                term,
                sessions: sessions.clone(),
            };
            if self.propose_own(now, command, orders).is_some() {
                sessions
                    .into_iter()
                    .for_each(|session| self.revocations.end_appended(Revoked::Session(session)));
            }
        }
    }

    /// Moves cluster time on when a deadline has passed and no other entry did it.
    fn advance(&mut self, now: Time, orders: &mut Vec<Order<Envelope>>) {
        let serving = self
            .lead
            .as_ref()
            .and_then(|lead| lead.serving.as_ref())
            .expect("it serves");
        let due = self
            .state
            .next_deadline()
            .is_some_and(|at| at <= serving.stamp_at(now));
        if !due || serving.advance.is_some() || !self.may_propose(now) {
            return;
        }
        let index = self.propose_own(now, Command::Advance, orders);
        self.serving_mut().expect("it serves").advance = index;
    }

    /// Leadership is lost: all lease memory goes, what was proposed has an unknown outcome, reads and keep-alives are asked elsewhere.
    pub(crate) fn step_down(&mut self, out: &mut Vec<Output>) {
        if self.lead.take().is_none() {
            return;
        }
        self.revocations.forget_appended();
        for origin in std::mem::take(&mut self.pending.proposed).into_values() {
            self.pending.answer(origin, Response::Unknown, out);
        }
        let not_leader = Response::Refused(Refusal::NotLeader { leader: None });
        for (_, waiting) in std::mem::take(&mut self.pending.confirming) {
            self.pending
                .answer(waiting.origin(), not_leader.clone(), out);
        }
        for queued in std::mem::take(&mut self.pending.queued) {
            match queued.origin {
                Origin::Local(_) => self.pending.queued.push_back(queued),
                Origin::Peer { .. } => self.pending.answer(queued.origin, not_leader.clone(), out),
            }
        }
    }
}
