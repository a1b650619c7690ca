//! What a session's driver and its handles share: the belief, and what `check` reads of it without a lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use quorate_types::{DriftBound, FencingToken, Time};
use quorate_wire::api::{Directive, NodeDown, Report, TenureId};
use tokio::sync::{mpsc, oneshot};

use super::SessionEvent;
use super::requests::Work;
use crate::clock;
use crate::error::Error;
use crate::leadership::{Leadership, TenureCell};
use crate::lease::{LeaseCore, LeaseEvent};

/// # Invariants
/// - Whatever `cells` and `valid_until` say, `belief` says too: they are written while it is locked, and what ends
///   belief is written before what extends it.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The process that opened the session: a forked child believes nothing.
    pub(crate) pid: u32,
    /// The session's confirmation on the boot-time clock; 0: none.
    pub(crate) valid_until: AtomicU64,
    /// Events that the owner has not taken yet.
    pub(crate) backlog: AtomicUsize,
    belief: Mutex<Belief>,
    work: mpsc::WeakUnboundedSender<Work>,
}

#[derive(Debug)]
struct Belief {
    core: LeaseCore,
    cells: BTreeMap<TenureId, Arc<TenureCell>>,
}

impl Belief {
    fn cell(&mut self, tenure: &TenureId) -> &Arc<TenureCell> {
        self.cells.entry(tenure.clone()).or_insert_with(|| {
            let (token, leads) = (AtomicU64::new(0), AtomicBool::new(false));
            Arc::new(TenureCell {
                tenure: tenure.clone(),
                token,
                leads,
            })
        })
    }

    /// Writes what `check` reads of one tenure.
    fn publish(&mut self, tenure: &TenureId) {
        let (leads, token) = (self.core.leads(tenure), self.core.token(tenure));
        let cell = self.cell(tenure);
        if let Some(token) = token
            && token != FencingToken::ZERO
        {
            cell.token.store(token.0, Ordering::SeqCst);
        }
        cell.leads.store(leads, Ordering::SeqCst);
    }

    fn publish_all(&mut self) {
        let known = self
            .cells
            .keys()
            .chain(self.core.tenures().map(|(tenure, _)| tenure));
        let known: BTreeSet<TenureId> = known.cloned().collect();
        for tenure in known {
            self.publish(&tenure);
        }
    }
}

impl Shared {
    pub(crate) fn new(drift: DriftBound, work: mpsc::WeakUnboundedSender<Work>) -> Self {
        let belief = Belief {
            core: LeaseCore::new(drift),
            cells: BTreeMap::new(),
        };
        Self {
            pid: std::process::id(),
            valid_until: AtomicU64::new(0),
            backlog: AtomicUsize::new(0),
            belief: Mutex::new(belief),
            work,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Belief> {
        self.belief
            .lock()
            .expect("nothing panics while it holds this lock")
    }

    /// Changes the belief; ends what ended before it extends what goes on.
    fn change<T>(&self, tenure: Option<&TenureId>, change: impl FnOnce(&mut LeaseCore) -> T) -> T {
        let mut belief = self.lock();
        let result = change(&mut belief.core);
        match tenure {
            Some(tenure) => belief.publish(tenure),
            None => belief.publish_all(),
        }
        self.publish_confirmation(&belief);
        result
    }

    fn publish_confirmation(&self, belief: &Belief) {
        let until = belief.core.valid_until().map_or(0, |until| until.0);
        self.valid_until.store(until, Ordering::SeqCst);
    }

    pub(crate) fn keep_alive_sent(&self, now: Time) -> u64 {
        self.lock().core.keep_alive_sent(now)
    }

    /// Takes in what concerns belief.
    pub(crate) fn on_down(&self, down: &NodeDown) {
        match down {
            NodeDown::KeptAlive {
                seq,
                ttl_ms,
                directive_seq,
            } => {
                let mut belief = self.lock();
                let ttl = std::time::Duration::from_millis(*ttl_ms);
                belief.core.keep_alive_answered(*seq, ttl, *directive_seq);
                self.publish_confirmation(&belief);
            }
            NodeDown::Directive(Directive { seq, tenure, kind }) => {
                self.change(Some(tenure), |core| {
                    core.on_directive(*seq, tenure.clone(), kind.clone());
                });
            }
            NodeDown::Standing {
                directive_seq,
                tenures,
            } => {
                self.change(None, |core| {
                    core.on_standing(*directive_seq, tenures.clone());
                });
            }
            NodeDown::SessionGone => self.change(None, LeaseCore::session_gone),
            NodeDown::Opened { .. }
            | NodeDown::RequestDone { .. }
            | NodeDown::RequestUnknown { .. }
            | NodeDown::Refused { .. } => {}
        }
    }

    pub(crate) fn begin_release(&self, tenure: &TenureId) {
        self.change(Some(tenure), |core| core.begin_release(tenure));
    }

    pub(crate) fn session_gone(&self) {
        self.change(None, LeaseCore::session_gone);
    }

    pub(crate) fn close(&self) {
        self.change(None, LeaseCore::close);
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.lock().core.is_gone()
    }

    pub(crate) fn processed(&self) -> quorate_types::DirectiveSeq {
        self.lock().core.processed()
    }

    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.lock().core.next_deadline()
    }

    /// Queues a report; sent by the driver until it is decided.
    pub(crate) fn report(
        &self,
        tenure: TenureId,
        report: Report,
    ) -> oneshot::Receiver<Result<(), Error>> {
        let (waiter, decided) = oneshot::channel();
        if let Some(work) = self.work.upgrade() {
            // Where the driver is gone the waiter goes with it, which says that the session is over.
            let _ = work.send(Work::Report {
                tenure,
                report,
                waiter,
            });
        }
        decided
    }

    /// What happened, for the owner; and whether the full picture is needed.
    pub(crate) fn events(self: &Arc<Self>) -> (Vec<SessionEvent>, bool) {
        let mut belief = self.lock();
        let events = belief.core.poll(clock::now());
        let mut resync = false;
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            if matches!(event, LeaseEvent::NeedResync { .. }) {
                resync = true;
            } else {
                out.extend(self.told(&mut belief, event));
            }
        }
        (out, resync)
    }

    fn told(self: &Arc<Self>, belief: &mut Belief, event: LeaseEvent) -> Option<SessionEvent> {
        let mut leadership =
            |tenure: &TenureId| Leadership::new(belief.cell(tenure).clone(), self.clone());
        Some(match event {
            LeaseEvent::Poll {
                tenure,
                deadline_ms,
                ..
            } => SessionEvent::Poll {
                leadership: leadership(&tenure),
                deadline_ms,
            },
            LeaseEvent::Elected {
                tenure,
                deadline_ms,
                predecessor,
                ..
            } => SessionEvent::Elected {
                leadership: leadership(&tenure),
                deadline_ms,
                predecessor,
            },
            LeaseEvent::Activated {
                tenure,
                predecessor,
                ..
            } => SessionEvent::Active {
                leadership: leadership(&tenure),
                predecessor,
            },
            LeaseEvent::CatchUp { tenure } => SessionEvent::CatchUp {
                leadership: leadership(&tenure),
            },
            LeaseEvent::Draining {
                tenure,
                deadline_ms,
                successor,
            } => SessionEvent::HandoverRequested {
                leadership: leadership(&tenure),
                deadline_ms,
                successor,
            },
            LeaseEvent::Continue { tenure } => SessionEvent::Continue {
                leadership: leadership(&tenure),
            },
            LeaseEvent::Unconfirmed { tenure } => SessionEvent::Unconfirmed {
                leadership: leadership(&tenure),
            },
            LeaseEvent::Confirmed { tenure } => SessionEvent::Confirmed {
                leadership: leadership(&tenure),
            },
            LeaseEvent::Revoked { tenure } => SessionEvent::Revoked {
                leadership: leadership(&tenure),
            },
            LeaseEvent::StandBy { tenure } => {
                Self::forget(belief, &tenure);
                SessionEvent::StandBy { tenure }
            }
            LeaseEvent::Lost { tenure, cause } => {
                Self::forget(belief, &tenure);
                SessionEvent::Lost { tenure, cause }
            }
            LeaseEvent::SessionLost { cause } => SessionEvent::SessionLost { cause },
            LeaseEvent::NeedResync { .. } => return None,
        })
    }

    /// A tenure that is over needs no cell; handles keep theirs, which says so. A successor's part may have ended and the
    /// same tenure not: then it is still taken part in.
    fn forget(belief: &mut Belief, tenure: &TenureId) {
        if !belief.core.takes_part(tenure)
            && let Some(cell) = belief.cells.remove(tenure)
        {
            cell.leads.store(false, Ordering::SeqCst);
        }
    }
}
