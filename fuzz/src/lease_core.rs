//! A session's belief under any messages of a server: it is never longer than what a keep-alive's send time allows, and never comes
//! back once the session is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::lease::{LeaseCore, LeaseEvent, StandingTenure, TenureId};
use quorate_types::{
    DirectiveSeq, DriftBound, FencingToken, GroupName, NodeName, Revision, TenureNumber, Time,
};
use quorate_wire::WireMessage;
use quorate_wire::api::{Cause, DirectiveKind, NodeDown, Part, Position, Predecessor};

use crate::input::Input;

const STEPS_MAX: usize = 200;

/// Feeds the lease.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World {
        lease: LeaseCore::new(DriftBound::default()),
        now: Time(1_000_000_000),
        sent: BTreeMap::new(),
        until_max: Time::ZERO,
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
}

struct World {
    lease: LeaseCore,
    now: Time,
    /// When which keep-alive was sent, for as long as it is not answered.
    sent: BTreeMap<u64, Time>,
    /// No answer so far allows belief beyond this.
    until_max: Time,
}

impl World {
    fn step(&mut self, input: &mut Input<'_>) {
        let before = (self.lease.valid_until(), self.lease.processed());
        let was_gone = self.lease.is_gone();
        match input.below(16) {
            0 => self.now = self.now + Duration::from_millis(input.below(256)),
            1 => self.now = self.now + Duration::from_secs(input.below(256)),
            2..=4 => {
                let seq = self.lease.keep_alive_sent(self.now);
                assert_eq!(self.sent.insert(seq, self.now), None, "a number twice");
            }
            5 => {
                let tenure = tenure(input);
                self.lease.begin_release(&tenure);
                assert!(!self.lease.leads(&tenure), "released and still led");
            }
            6 if input.below(16) == 1 => self.lease.close(),
            7 => {
                let count = usize::from(input.u8());
                if let Ok(message) = NodeDown::from_wire(input.take(count)) {
                    self.hear(message);
                }
            }
            _ => {
                let message = self.message(input);
                self.hear(message);
            }
        }
        self.lease.check_invariants();
        let after = (self.lease.valid_until(), self.lease.processed());
        assert!(after.1 >= before.1, "a processed directive is forgotten");
        if was_gone || self.lease.is_gone() {
            assert!(self.lease.is_gone(), "a session came back");
            assert_eq!(after.0, None, "a session that is gone is believed in");
            assert_eq!(self.lease.tenures().count(), 0);
        } else {
            assert!(after.0 >= before.0, "belief was shortened");
        }
        if let Some(until) = after.0 {
            assert!(until <= self.until_max, "belief that no answer gave");
        }
        let events = self.lease.poll(self.now);
        self.check_events(&events);
    }

    fn check_events(&self, events: &[LeaseEvent]) {
        for event in events {
            if let LeaseEvent::Activated { tenure, .. } | LeaseEvent::Confirmed { tenure } = event {
                assert!(
                    self.lease.check(self.now, tenure),
                    "announced and not believed"
                );
            }
        }
        for (tenure, part) in self.lease.tenures() {
            if self.lease.check(self.now, tenure) {
                assert!(matches!(part, Part::Active | Part::Draining));
                assert!(self.lease.next_deadline().is_some_and(|at| at > self.now));
            }
        }
    }

    /// Does with a message what a session does.
    fn hear(&mut self, message: NodeDown) {
        match message {
            NodeDown::KeptAlive {
                seq,
                ttl_ms,
                directive_seq,
            } => {
                let ttl = Duration::from_millis(ttl_ms);
                if let Some(sent) = self.sent.remove(&seq) {
                    self.until_max = self.until_max.max(sent + DriftBound::default().shrink(ttl));
                }
                self.lease.keep_alive_answered(seq, ttl, directive_seq);
            }
            NodeDown::SessionGone => self.lease.session_gone(),
            NodeDown::Directive(directive) => {
                let revoked = matches!(directive.kind, DirectiveKind::Revoke)
                    && directive.seq > self.lease.processed();
                let tenure = directive.tenure.clone();
                self.lease
                    .on_directive(directive.seq, directive.tenure, directive.kind);
                assert!(
                    !revoked || !self.lease.leads(&tenure),
                    "revoked and still led"
                );
            }
            NodeDown::Standing {
                directive_seq,
                tenures,
            } => self.lease.on_standing(directive_seq, tenures),
            _ => {}
        }
    }

    fn message(&self, input: &mut Input<'_>) -> NodeDown {
        let next = self.lease.processed().0.wrapping_add(1);
        match input.below(8) {
            0 | 1 => NodeDown::KeptAlive {
                seq: input.number(self.sent.keys().next().copied().unwrap_or(1)),
                ttl_ms: input.number(1_000),
                directive_seq: DirectiveSeq(input.number(self.lease.processed().0)),
            },
            2 if input.below(16) == 1 => NodeDown::SessionGone,
            3 => NodeDown::Standing {
                directive_seq: DirectiveSeq(input.number(next)),
                tenures: (0..input.below(4)).map(|_| standing(input)).collect(),
            },
            _ => NodeDown::Directive(quorate_wire::api::Directive {
                seq: DirectiveSeq(input.number(next)),
                tenure: tenure(input),
                kind: kind(input),
            }),
        }
    }
}

fn tenure(input: &mut Input<'_>) -> TenureId {
    TenureId {
        group: GroupName::new(&format!("g{}", input.below(3))).expect("it is a name"),
        incarnation: Revision(1 + input.below(2)),
        number: TenureNumber(1 + input.below(3)),
    }
}

fn predecessor(input: &mut Input<'_>) -> Option<Predecessor> {
    input.flag().then(|| Predecessor {
        number: TenureNumber(input.below(3)),
        outcome: Cause::Released,
        position: input.flag().then(|| Position(input.below(9))),
    })
}

fn kind(input: &mut Input<'_>) -> DirectiveKind {
    let (token, deadline_ms) = (FencingToken(input.below(9)), input.below(256));
    match input.below(12) {
        0 => DirectiveKind::Poll { token, deadline_ms },
        1 => DirectiveKind::Prepare {
            token,
            deadline_ms,
            predecessor: predecessor(input),
        },
        2..=4 => DirectiveKind::Activate {
            token,
            predecessor: predecessor(input),
        },
        5 => DirectiveKind::CatchUp,
        6 => DirectiveKind::StandBy,
        7 => DirectiveKind::Drain {
            deadline_ms,
            successor: NodeName::new("n").ok().filter(|_| input.flag()),
        },
        8 => DirectiveKind::Continue,
        9 | 10 => DirectiveKind::Revoke,
        _ => DirectiveKind::Ended {
            cause: Cause::WaitedOut,
        },
    }
}

fn standing(input: &mut Input<'_>) -> StandingTenure {
    StandingTenure {
        tenure: tenure(input),
        part: match input.below(7) {
            0 => Part::Polled,
            1 => Part::Answered,
            2 => Part::Preparing,
            3 => Part::Active,
            4 => Part::Draining,
            5 => Part::Revoking,
            _ => Part::Successor,
        },
        token: FencingToken(input.below(9)),
        predecessor: predecessor(input),
        deadline_ms: input.flag().then(|| input.below(256)),
        successor: None,
    }
}
