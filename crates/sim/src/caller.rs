//! A caller without a session: an operator, or a service's own tooling. One operation at a time, retried under its request key
//! until its outcome is known.
//!
//! Each group has one caller that creates, changes and deletes it, so that caller knows what must be true of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use quorate_coord::{
    Command, DeposeQuorum, ElectionPolicy, GroupSpec, NodeAdmission, Outcome, OverduePolicy,
    Rejection, Reply, RequestKey, SessionKey, TransferMode,
};
use quorate_replica::{Request, Response};
use quorate_types::{LogIndex, RequestId, Revision, TraceId};

use crate::checkers::Violation;
use crate::checkers::acknowledged_writes_survive::Fate;
use crate::clock::Moment;
use crate::node::{proposal, trace_of};
use crate::plant::Plant;
use crate::stream::{Sender, Up};
use crate::world::{Event, World};

pub(crate) mod keys;
mod leases;

use keys::KeyCall;
use leases::LeaseCall;

/// An operation on its way.
#[derive(Debug)]
struct Operation {
    request: Request,
    trace: TraceId,
    floor: LogIndex,
    /// The group that this caller owns and writes.
    writes: Option<usize>,
    /// The call of a key that it is.
    key: Option<KeyCall>,
    /// What it does with the caller's lease.
    lease: Option<LeaseCall>,
    /// It was refused since it was last sent: nothing came of it, and it may be sent again.
    refused: bool,
}

impl Operation {
    fn plain(request: Request, floor: LogIndex) -> Self {
        Self {
            request,
            trace: TraceId::default(),
            floor,
            writes: None,
            key: None,
            lease: None,
            refused: false,
        }
    }

    /// Whether sending it again would be another request: the key space's API has no request ids.
    fn is_once(&self) -> bool {
        matches!(&self.request, Request::Propose(proposal) if proposal.request == RequestKey::Unkeyed)
    }
}

/// What a caller knows of a group that it owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Gone,
    /// `None`: it exists, and the revision of its last change is not known.
    Exists(Option<Revision>),
}

/// One caller.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Counts steps: what belongs to an earlier one is stale.
    operation: u64,
    current: Option<Operation>,
    known: BTreeMap<usize, Known>,
    specs: u64,
    /// The revisions at which it last saw the keys that all callers write.
    keys_seen: BTreeMap<usize, Revision>,
    /// The lease that it was granted.
    lease: Option<SessionKey>,
    /// When it last sent something.
    sent_at: Moment,
    /// To be done before anything else.
    pub(crate) tasks: VecDeque<Command>,
}

impl Caller {
    pub(crate) fn new() -> Self {
        Self {
            operation: 0,
            current: None,
            known: BTreeMap::new(),
            specs: 0,
            keys_seen: BTreeMap::new(),
            lease: None,
            sent_at: Moment::default(),
            tasks: VecDeque::new(),
        }
    }

    /// Whether nothing of it is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.current.is_none()
    }
}

impl World {
    /// A caller's timer: begin something, or send it again.
    pub(crate) fn on_caller(&mut self, caller: usize, operation: u64) {
        if self.callers[caller].operation != operation {
            return;
        }
        if self.callers[caller].current.is_none() {
            if self.is_quiet() {
                return;
            }
            let begun = self.choose(caller);
            self.callers[caller].current = Some(begun);
        } else if self.lets_go(caller) {
            let this = &mut self.callers[caller];
            this.operation += 1;
            let operation = this.operation;
            let at = self.now + self.think();
            self.at(at, Event::Caller { caller, operation });
            return;
        } else if self.is_planted(Plant::RetryWithNewKey) {
            self.rekey(caller);
        }
        self.key_sent_again(caller);
        let this = &mut self.callers[caller];
        this.operation += 1;
        let operation = this.operation;
        this.sent_at = self.now;
        let current = this.current.as_mut().expect("an operation is on its way");
        current.refused = false;
        let message = Up::Call {
            floor: current.floor,
            request: current.request.clone(),
        };
        let server = self.random.usize(..self.servers.len());
        self.send_up(Sender::Caller { caller, operation }, server, message);
        let patience = Duration::from_millis(self.random.u64(600..2_600));
        let at = self.now + patience;
        self.at(at, Event::Caller { caller, operation });
    }

    /// A planted mistake: the retry is another request.
    fn rekey(&mut self, caller: usize) {
        let id = RequestId(self.random.u128(..));
        if let Some(Operation {
            request: Request::Propose(proposal),
            ..
        }) = &mut self.callers[caller].current
            && proposal.request != RequestKey::Unkeyed
        {
            proposal.request = RequestKey::Caller(id);
        }
    }

    pub(crate) fn on_answer(
        &mut self,
        caller: usize,
        operation: u64,
        server: usize,
        response: Response,
    ) {
        let now = self.now;
        let this = &mut self.callers[caller];
        if this.operation != operation || this.current.is_none() {
            return;
        }
        self.trace.note(now, 30, [caller as u64, operation, 0], || {
            format!("c{caller} hears from s{}: {response:?}", server + 1)
        });
        let gives_up = self.key_gives_up(caller, &response);
        let this = &mut self.callers[caller];
        this.operation += 1;
        let operation = this.operation;
        if gives_up {
            this.current = None;
        }
        let retries = !gives_up
            && matches!(response, Response::Unknown | Response::Refused(_))
            && !matches!(
                this.current.as_ref().map(|c| &c.request),
                Some(Request::TransferLeader { .. })
            );
        if let Some(current) = this.current.as_mut() {
            current.refused = matches!(response, Response::Refused(_));
        }
        let wait = if retries {
            Duration::from_millis(self.random.u64(20..300))
        } else if let Some(done) = this.current.take() {
            self.stats.operations += 1;
            self.key_answered(caller, &done, &response);
            self.lease_answered(caller, &done, &response);
            if let Response::Applied { outcome, index } = response {
                let verdict = self.checkers.acknowledged.on_acknowledged(
                    index,
                    done.trace,
                    &self.checkers.log,
                );
                self.judge(verdict);
                self.learn(caller, &done, &outcome);
            }
            self.think()
        } else {
            self.think()
        };
        let at = self.now + wait;
        self.at(at, Event::Caller { caller, operation });
    }

    /// How long a caller thinks before its next operation.
    fn think(&mut self) -> Duration {
        let most = u64::try_from(self.setup.think_max.as_micros()).expect("short");
        Duration::from_micros(self.random.u64(0..most))
    }

    /// Draws the next operation.
    fn choose(&mut self, caller: usize) -> Operation {
        let floor = self.checkers.acknowledged.newest();
        let plain = |request| Operation::plain(request, floor);
        if let Some(command) = self.callers[caller].tasks.pop_front() {
            return self.propose(command, floor, None);
        }
        if self.random.u8(..5) == 0 {
            return self.key_operation(caller);
        }
        if self.random.u8(..8) == 0 {
            return self.lease_operation(caller);
        }
        let owned: Vec<usize> = (0..self.groups.len())
            .filter(|group| group % self.callers.len() == caller)
            .collect();
        if !owned.is_empty() && self.random.u8(..10) < 6 {
            let group = owned[self.random.usize(..owned.len())];
            let command = self.write_group(caller, group);
            if !matches!(command, Command::Advance) {
                return self.propose(command, floor, Some(group));
            }
        }
        let calm = self.is_calm();
        let violent = !calm && self.random.u32(..100) < self.setup.habits.violence;
        let group = self.groups[self.random.usize(..self.groups.len())].clone();
        let node = self.nodes[self.random.usize(..self.nodes.len())]
            .spec
            .name
            .clone();
        let to = self.random.bool().then(|| node.clone());
        let command = match self.random.u8(..20) {
            _ if calm => return plain(Request::Read),
            0..=1 if violent => Command::Transfer {
                group,
                to,
                mode: TransferMode::Force,
            },
            2 if violent => match self.random_session() {
                Some(session) => Command::RevokeSession {
                    session: session.id,
                },
                None => return plain(Request::Read),
            },
            3..=5 => Command::Transfer {
                group,
                to,
                mode: TransferMode::Handover,
            },
            6 => Command::AbortTransfer { group },
            7 => {
                let admission = [
                    NodeAdmission::Open,
                    NodeAdmission::Open,
                    NodeAdmission::Cordoned,
                    NodeAdmission::Draining,
                ][self.random.usize(..4)];
                Command::AdmitNode { node, admission }
            }
            8 => Command::Rebalance {
                prefix: String::new(),
                moves_max: self.random.u32(1..20),
            },
            9..=10 => Command::OpenSession {
                ttl_ms: self.random.u64(200..2_000),
                node: None,
            },
            11 if self.random.u8(..4) == 0 => return plain(Request::TransferLeader { to: None }),
            _ => return plain(Request::Read),
        };
        self.propose(command, floor, None)
    }

    fn propose(&mut self, command: Command, floor: LogIndex, writes: Option<usize>) -> Operation {
        let key = RequestKey::Caller(RequestId(self.random.u128(..)));
        let trace = trace_of(&key);
        let request = Request::Propose(Box::new(proposal(key, trace, command)));
        if let Some(group) = writes {
            self.checkers
                .acknowledged
                .on_fate(&self.groups[group], Fate::Unknown);
        }
        Operation {
            trace,
            writes,
            ..Operation::plain(request, floor)
        }
    }

    /// A command that nobody tells from its repetition.
    fn propose_once(&mut self, command: Command, floor: LogIndex) -> Operation {
        let trace = TraceId(self.random.u128(..) | 1);
        let request = proposal(RequestKey::Unkeyed, trace, command);
        Operation {
            trace,
            ..Operation::plain(Request::Propose(Box::new(request)), floor)
        }
    }

    fn random_session(&mut self) -> Option<SessionKey> {
        let node = self.random.usize(..self.nodes.len());
        if self.random.bool() {
            return self.nodes[node].session;
        }
        let loose = &mut self.loose_sessions;
        (!loose.is_empty()).then(|| loose.swap_remove(self.random.usize(..loose.len())))
    }

    /// The next write of a group that this caller owns; `Advance` stands for none.
    fn write_group(&mut self, caller: usize, group: usize) -> Command {
        let name = self.groups[group].clone();
        let known = self.callers[caller]
            .known
            .get(&group)
            .copied()
            .unwrap_or(Known::Gone);
        let spec = self.draw_spec(caller);
        match known {
            Known::Gone => Command::CreateGroups {
                groups: vec![(name, spec)],
            },
            Known::Exists(revision) => {
                let expected = revision.filter(|_| self.random.u8(..4) > 0);
                let deletes =
                    !self.is_calm() && self.random.u32(..300) < self.setup.habits.violence;
                match self.random.u8(..4) {
                    _ if deletes => Command::DeleteGroup {
                        group: name,
                        expected,
                    },
                    0 => Command::UpdateGroup {
                        group: name,
                        spec,
                        expected,
                    },
                    _ => Command::Advance,
                }
            }
        }
    }

    fn draw_spec(&mut self, caller: usize) -> GroupSpec {
        let this = &mut self.callers[caller];
        this.specs += 1;
        let specs = this.specs;
        let random = &mut self.random;
        let policy = match random.u8(..4) {
            0 => ElectionPolicy::Freshest {
                answers_min: random.bool().then(|| random.u32(1..3)),
            },
            _ => ElectionPolicy::Priority,
        };
        let zoned = |random: &mut fastrand::Rng| {
            ("zone".to_owned(), ["a", "b"][random.usize(..2)].to_owned())
        };
        let cooldown_ms = random.u64(0..800);
        GroupSpec {
            require: if random.u8(..6) == 0 {
                [zoned(random)].into()
            } else {
                Default::default()
            },
            prefer: if random.u8(..3) == 0 {
                vec![zoned(random)]
            } else {
                Vec::new()
            },
            policy,
            readiness: random.bool(),
            prepare_deadline_ms: random.u64(400..2_000),
            handover_deadline_ms: random.u64(200..3_000) + specs,
            handover_overdue: if random.bool() {
                OverduePolicy::Abort
            } else {
                OverduePolicy::Revoke
            },
            minimum_tenure_ms: random.u64(0..3_000),
            cooldown_ms,
            cooldown_max_ms: cooldown_ms + random.u64(0..2_500),
            spread: random.bool(),
            weight: random.u32(1..4),
            depose_quorum: match random.u8(..4) {
                0 => DeposeQuorum::Off,
                1 => DeposeQuorum::Reports {
                    min: random.u32(1..4),
                },
                _ => DeposeQuorum::Majority,
            },
            depose_window_ms: random.u64(1_000..10_000),
        }
    }

    /// The only writer of a group learns what became of its write.
    fn learn(&mut self, caller: usize, done: &Operation, outcome: &Outcome) {
        let Request::Propose(proposal) = &done.request else {
            return;
        };
        if let Ok(Reply::SessionOpened { session, .. }) = outcome {
            self.loose_sessions.push(*session);
        }
        let Some(group) = done.writes else { return };
        let before = self.callers[caller]
            .known
            .get(&group)
            .copied()
            .unwrap_or(Known::Gone);
        let surprise = |what: String| {
            Err(Violation {
                checker: "acknowledged_writes_survive",
                guarantee: "5: what was acknowledged survives; conditional writes are linearizable (2)",
                what,
            })
        };
        let after = match (&proposal.command, outcome) {
            (
                Command::CreateGroups { .. } | Command::UpdateGroup { .. },
                Ok(Reply::Done { revision }),
            ) => Known::Exists(Some(*revision)),
            (Command::DeleteGroup { .. }, Ok(_)) => Known::Gone,
            (Command::CreateGroups { .. }, Err(Rejection::GroupExists { .. }))
                if before == Known::Gone =>
            {
                let what = format!(
                    "group {:?} exists, though its only writer deleted or never created it",
                    self.groups[group]
                );
                self.judge(surprise(what));
                before
            }
            // Its last tenure is being waited out.
            (_, Err(Rejection::GroupDeleting { .. })) => before,
            (
                Command::UpdateGroup { .. } | Command::DeleteGroup { .. },
                Err(
                    rejection @ (Rejection::UnknownGroup { .. }
                    | Rejection::RevisionMismatch { .. }),
                ),
            ) => {
                self.judge(surprise(format!(
                    "its only writer knows {before:?} and was told: {rejection}"
                )));
                before
            }
            (_, _) => before,
        };
        self.callers[caller].known.insert(group, after);
        let fate = match after {
            Known::Gone => Fate::Gone,
            Known::Exists(Some(revision)) => Fate::Exists { revision },
            Known::Exists(None) => Fate::Unknown,
        };
        self.checkers
            .acknowledged
            .on_fate(&self.groups[group], fate);
    }
}
