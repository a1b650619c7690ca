//! What a session may believe, and until when. Sans-IO: time comes in, events go out; the simulator runs this code.
//!
//! Deliberately absent: clocks, streams, retries. The rules are sections 2 and 3 of the protocol (`docs/guarantees.md`):
//! guarantee 3 rests on this file on the holders' side.

mod event;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_types::{DirectiveSeq, DriftBound, FencingToken, NodeName, Time};

pub use event::{LeaseEvent, LostCause};
pub use quorate_wire::api::{Cause, DirectiveKind, Part, Predecessor, StandingTenure, TenureId};

/// Most unanswered keep-alives whose send times are remembered. An older one's answer would not extend anything that a
/// newer one's does not.
pub const SENT_MAX: usize = 64;

/// Most answers that wait for directives. Beyond it the oldest is forgotten, which only ends belief earlier.
pub const CANDIDATES_MAX: usize = 64;

/// What a session takes part in, seen from its node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    part: Part,
    token: FencingToken,
    predecessor: Option<Predecessor>,
    /// What to announce of a pending handover.
    drain: Option<(u64, Option<NodeName>)>,
    /// The holder was told that it leads. Never true while `part` was only ever polled, preparing or successor.
    announced: bool,
    /// The last of `Activated`, `Confirmed` and `Unconfirmed` was not `Unconfirmed`.
    confirmed: bool,
}

impl Held {
    fn new(part: Part, token: FencingToken, predecessor: Option<Predecessor>) -> Self {
        Self {
            part,
            token,
            predecessor,
            drain: None,
            announced: false,
            confirmed: false,
        }
    }
}

/// One session's belief.
///
/// Give it everything that happens, call [`poll`](Self::poll) after each input and at
/// [`next_deadline`](Self::next_deadline), and ask [`check`](Self::check) before acting as a leader.
///
/// # Invariants
/// - Nothing is believed at or after `valid_until`, and nothing at all before a keep-alive was answered.
/// - `valid_until` and `processed` never decrease.
/// - A tenure in `ended` is never believed again.
/// - Every candidate names a directive that is not processed yet.
#[derive(Clone, Debug)]
pub struct LeaseCore {
    drift: DriftBound,
    /// When which unanswered keep-alive was sent.
    sent: BTreeMap<u64, Time>,
    seq_last: u64,
    /// Every directive up to this one is processed.
    processed: DirectiveSeq,
    /// A directive is missing: nothing extends until the full picture or the missing one arrives.
    resync: bool,
    valid_until: Option<Time>,
    /// Answers that may extend `valid_until` once the directives they name are processed. Both sides rise together.
    candidates: BTreeMap<DirectiveSeq, Time>,
    held: BTreeMap<TenureId, Held>,
    /// Tenures that this side stopped believing for good: released, or revoked.
    ended: BTreeSet<TenureId>,
    /// Why everything is lost for good.
    gone: Option<LostCause>,
    events: VecDeque<LeaseEvent>,
}

impl LeaseCore {
    /// A session that was just opened. Opening gives no belief: only an answered keep-alive does.
    #[must_use]
    pub fn new(drift: DriftBound) -> Self {
        Self {
            drift,
            sent: BTreeMap::new(),
            seq_last: 0,
            processed: DirectiveSeq::ZERO,
            resync: false,
            valid_until: None,
            candidates: BTreeMap::new(),
            held: BTreeMap::new(),
            ended: BTreeSet::new(),
            gone: None,
            events: VecDeque::new(),
        }
    }

    /// Numbers a keep-alive, to be sent at `now` or later. The numbers go on over reconnects.
    pub fn keep_alive_sent(&mut self, now: Time) -> u64 {
        self.seq_last += 1;
        self.sent.insert(self.seq_last, now);
        while self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
        self.seq_last
    }

    /// A keep-alive was answered. Protocol, section 2: the TTL counts from the *send* of the very keep-alive that is
    /// answered, less the drift bound; section 3: it extends tenures only when every directive up to the answer's
    /// counter is processed, or a revoked tenure would be extended by the session it belongs to.
    pub fn keep_alive_answered(&mut self, seq: u64, ttl: Duration, directive_seq: DirectiveSeq) {
        // Unknown: answered before, forgotten, or never sent. None of them may count.
        let Some(sent) = self.sent.remove(&seq) else {
            return;
        };
        if self.gone.is_some() {
            return;
        }
        let until = sent + self.drift.shrink(ttl);
        // Of two candidates, one that needs no more directives and lasts no shorter makes the other useless.
        if self
            .candidates
            .range(..=directive_seq)
            .any(|(_, known)| *known >= until)
        {
            return;
        }
        self.candidates
            .retain(|needs, known| *needs < directive_seq || *known > until);
        self.candidates.insert(directive_seq, until);
        while self.candidates.len() > CANDIDATES_MAX {
            self.candidates.pop_first();
        }
        self.extend();
    }

    /// The next directive of the session's stream. Repeated ones are ignored; a gap asks for the full picture.
    pub fn on_directive(&mut self, seq: DirectiveSeq, tenure: TenureId, kind: DirectiveKind) {
        if self.gone.is_some() || seq <= self.processed {
            return;
        }
        if seq != self.processed.next() {
            // Ending belief early is always safe; everything else waits for its turn.
            if matches!(kind, DirectiveKind::Revoke) {
                self.end_belief(tenure);
            }
            if !self.resync {
                self.resync = true;
                self.events.push_back(LeaseEvent::NeedResync {
                    processed: self.processed,
                });
            }
            return;
        }
        self.process(tenure, kind);
        self.processed = seq;
        self.resync = false;
        self.extend();
    }

    /// The full picture at `directive_seq`: exactly these tenures. An older one than what is processed says nothing
    /// new and is ignored: it may come from a server that lags, and would revive what ended since.
    pub fn on_standing(&mut self, directive_seq: DirectiveSeq, tenures: Vec<StandingTenure>) {
        if self.gone.is_some() || directive_seq < self.processed {
            return;
        }
        let mut before = std::mem::take(&mut self.held);
        for standing in tenures {
            let known = before.remove(&standing.tenure);
            self.adopt(standing, known);
        }
        for (tenure, _) in before {
            self.events.push_back(LeaseEvent::Lost {
                tenure,
                cause: LostCause::Superseded,
            });
        }
        // Not in the picture: the tenure is over everywhere, and numbers are never reused.
        self.ended.retain(|tenure| self.held.contains_key(tenure));
        self.processed = directive_seq;
        self.resync = false;
        self.extend();
    }

    /// Ends belief in a tenure before its `Released` report is sent (protocol, section 3). For good: a release of the
    /// current tenure always applies, even where the handover that asked for it was called off meanwhile.
    pub fn begin_release(&mut self, tenure: &TenureId) {
        if self.held.contains_key(tenure) {
            self.ended.insert(tenure.clone());
        }
    }

    /// The session is over, or about to be: everything is lost for good.
    pub fn session_gone(&mut self) {
        self.end_all(LostCause::SessionGone);
    }

    /// The owner closes the session: ends every belief before `Close` is sent.
    pub fn close(&mut self) {
        self.end_all(LostCause::Closed);
    }

    /// Whether this session may act as the leader of `tenure` at the instant `now` was read.
    #[must_use]
    pub fn check(&self, now: Time, tenure: &TenureId) -> bool {
        self.believed_until(tenure).is_some_and(|until| now < until)
    }

    /// Until when the tenure is believed unless something ends it earlier; none where it is not this session's to lead.
    #[must_use]
    pub fn believed_until(&self, tenure: &TenureId) -> Option<Time> {
        if self.leads(tenure) {
            self.valid_until
        } else {
            None
        }
    }

    /// Whether the tenure's last directive lets this session lead, and nothing ended its belief. It may be acted on
    /// only while the session is confirmed too: [`check`](Self::check).
    #[must_use]
    pub fn leads(&self, tenure: &TenureId) -> bool {
        let part = self.held.get(tenure).map(|held| held.part);
        matches!(part, Some(Part::Active | Part::Draining))
            && self.gone.is_none()
            && !self.ended.contains(tenure)
    }

    /// Whether this session takes part in the tenure.
    #[must_use]
    pub fn takes_part(&self, tenure: &TenureId) -> bool {
        self.held.contains_key(tenure)
    }

    /// Until when the session is confirmed; none before the first answer, and when it is gone.
    #[must_use]
    pub fn valid_until(&self) -> Option<Time> {
        if self.gone.is_some() {
            None
        } else {
            self.valid_until
        }
    }

    /// The fencing token of a tenure that this session takes part in.
    #[must_use]
    pub fn token(&self, tenure: &TenureId) -> Option<FencingToken> {
        self.held.get(tenure).map(|held| held.token)
    }

    /// What this session takes part in, with its part.
    pub fn tenures(&self) -> impl Iterator<Item = (&TenureId, Part)> {
        self.held.iter().map(|(tenure, held)| (tenure, held.part))
    }

    /// Tenures whose belief ended here and which are still open: their `Released` reports are to be sent again until
    /// they are applied.
    pub fn releasing(&self) -> impl Iterator<Item = &TenureId> {
        self.ended
            .iter()
            .filter(|tenure| self.held.contains_key(*tenure))
    }

    /// The newest directive of which, with all before, nothing is missing.
    #[must_use]
    pub fn processed(&self) -> DirectiveSeq {
        self.processed
    }

    /// Whether the full picture is needed.
    #[must_use]
    pub fn needs_resync(&self) -> bool {
        self.resync
    }

    /// Whether the session is over for this side.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    /// When [`poll`](Self::poll) has something to say without any input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let until = self.valid_until()?;
        self.held
            .iter()
            .any(|(tenure, held)| held.confirmed && self.believed_until(tenure).is_some())
            .then_some(until)
    }

    /// What happened, in order. A tenure is announced as `Activated` when it can first be believed; `Unconfirmed` and
    /// `Confirmed` then follow the session's confirmation.
    pub fn poll(&mut self, now: Time) -> Vec<LeaseEvent> {
        let mut out: Vec<LeaseEvent> = self.events.drain(..).collect();
        if self.gone.is_some() {
            return out;
        }
        let believed = self.valid_until.is_some_and(|until| now < until);
        for (tenure, held) in &mut self.held {
            if !matches!(held.part, Part::Active | Part::Draining) || self.ended.contains(tenure) {
                continue;
            }
            match (held.announced, held.confirmed, believed) {
                (false, _, true) => {
                    held.announced = true;
                    held.confirmed = true;
                    out.push(LeaseEvent::Activated {
                        tenure: tenure.clone(),
                        token: held.token,
                        predecessor: held.predecessor,
                    });
                    if let Some((deadline_ms, successor)) = held.drain.take() {
                        out.push(LeaseEvent::Draining {
                            tenure: tenure.clone(),
                            deadline_ms,
                            successor,
                        });
                    }
                }
                (true, true, false) => {
                    held.confirmed = false;
                    out.push(LeaseEvent::Unconfirmed {
                        tenure: tenure.clone(),
                    });
                }
                (true, false, true) => {
                    held.confirmed = true;
                    out.push(LeaseEvent::Confirmed {
                        tenure: tenure.clone(),
                    });
                }
                _ => {}
            }
        }
        out
    }

    /// Checks what must always hold; the simulator calls it after every input.
    ///
    /// # Panics
    /// When an invariant is broken: our own bug.
    pub fn check_invariants(&self) {
        assert!(
            self.sent.len() <= SENT_MAX,
            "{} send times are remembered",
            self.sent.len()
        );
        assert!(
            self.candidates.len() <= CANDIDATES_MAX,
            "{} candidates are held",
            self.candidates.len()
        );
        let rising = self
            .candidates
            .values()
            .zip(self.candidates.values().skip(1))
            .all(|(a, b)| a < b);
        assert!(
            rising,
            "candidates do not rise with their directives: {:?}",
            self.candidates
        );
        if !self.resync
            && let Some((needs, _)) = self.candidates.first_key_value()
        {
            assert!(
                *needs > self.processed,
                "candidate {needs:?} waits, though {:?} is processed",
                self.processed
            );
        }
        for (tenure, held) in &self.held {
            assert!(
                !held.confirmed || held.announced,
                "{tenure:?} is confirmed before it was announced"
            );
        }
        assert!(
            self.gone.is_none() || self.held.is_empty(),
            "a session that is gone still takes part in tenures"
        );
    }

    /// Extends as far as what is processed allows.
    fn extend(&mut self) {
        if self.resync || self.gone.is_some() {
            return;
        }
        while let Some(entry) = self.candidates.first_entry() {
            if *entry.key() > self.processed {
                break;
            }
            let until = entry.remove();
            // An older keep-alive's answer never shortens what a newer one gave.
            self.valid_until = self.valid_until.max(Some(until));
        }
    }

    fn process(&mut self, tenure: TenureId, kind: DirectiveKind) {
        match kind {
            DirectiveKind::Poll { token, deadline_ms } => {
                self.held
                    .insert(tenure.clone(), Held::new(Part::Polled, token, None));
                self.events.push_back(LeaseEvent::Poll {
                    tenure,
                    token,
                    deadline_ms,
                });
            }
            DirectiveKind::Prepare {
                token,
                deadline_ms,
                predecessor,
            } => {
                self.held.insert(
                    tenure.clone(),
                    Held::new(Part::Preparing, token, predecessor),
                );
                self.events.push_back(LeaseEvent::Elected {
                    tenure,
                    token,
                    deadline_ms,
                    predecessor,
                });
            }
            DirectiveKind::Activate { token, predecessor } => {
                self.held
                    .insert(tenure, Held::new(Part::Active, token, predecessor));
            }
            DirectiveKind::CatchUp => {
                self.held.insert(
                    tenure.clone(),
                    Held::new(Part::Successor, FencingToken::ZERO, None),
                );
                self.events.push_back(LeaseEvent::CatchUp { tenure });
            }
            DirectiveKind::StandBy => {
                self.held.remove(&tenure);
                self.events.push_back(LeaseEvent::StandBy { tenure });
            }
            DirectiveKind::Drain {
                deadline_ms,
                successor,
            } => self.drain(tenure, deadline_ms, successor),
            DirectiveKind::Continue => self.go_on(tenure),
            DirectiveKind::Revoke => {
                self.end_belief(tenure.clone());
                if let Some(held) = self.held.get_mut(&tenure) {
                    held.part = Part::Revoking;
                }
            }
            DirectiveKind::Ended { cause } => {
                self.held.remove(&tenure);
                self.ended.remove(&tenure);
                self.events.push_back(LeaseEvent::Lost {
                    tenure,
                    cause: LostCause::Ended(cause),
                });
            }
        }
    }

    fn drain(&mut self, tenure: TenureId, deadline_ms: u64, successor: Option<NodeName>) {
        let Some(held) = self.held.get_mut(&tenure) else {
            return;
        };
        held.part = Part::Draining;
        if held.announced {
            self.events.push_back(LeaseEvent::Draining {
                tenure,
                deadline_ms,
                successor,
            });
        } else {
            held.drain = Some((deadline_ms, successor));
        }
    }

    fn go_on(&mut self, tenure: TenureId) {
        let Some(held) = self.held.get_mut(&tenure) else {
            return;
        };
        held.part = Part::Active;
        held.drain = None;
        if held.announced {
            self.events.push_back(LeaseEvent::Continue { tenure });
        }
    }

    /// Stops believing for good, and says so once.
    fn end_belief(&mut self, tenure: TenureId) {
        if self.held.contains_key(&tenure) && self.ended.insert(tenure.clone()) {
            self.events.push_back(LeaseEvent::Revoked { tenure });
        }
    }

    /// Takes one tenure of the full picture over, and tells what is new about it.
    fn adopt(&mut self, standing: StandingTenure, known: Option<Held>) {
        let StandingTenure {
            tenure,
            part,
            token,
            predecessor,
            deadline_ms,
            successor,
        } = standing;
        let deadline_ms = deadline_ms.unwrap_or(0);
        let part_before = known.as_ref().map(|held| held.part);
        let led_before = matches!(
            part_before,
            Some(Part::Active | Part::Draining | Part::Revoking)
        );
        let mut held = Held::new(part, token, predecessor);
        if let (true, Some(known)) = (led_before, known) {
            (held.announced, held.confirmed, held.drain) =
                (known.announced, known.confirmed, known.drain);
        }
        let announced = held.announced;
        if part == Part::Draining && !announced {
            held.drain = Some((deadline_ms, successor.clone()));
        } else if part != Part::Draining {
            held.drain = None;
        }
        self.held.insert(tenure.clone(), held);
        if part_before == Some(part) {
            return;
        }
        match part {
            Part::Polled => self.events.push_back(LeaseEvent::Poll {
                tenure,
                token,
                deadline_ms,
            }),
            Part::Preparing => self.events.push_back(LeaseEvent::Elected {
                tenure,
                token,
                deadline_ms,
                predecessor,
            }),
            Part::Active if announced && part_before == Some(Part::Draining) => {
                self.events.push_back(LeaseEvent::Continue { tenure });
            }
            Part::Draining if announced => {
                self.events.push_back(LeaseEvent::Draining {
                    tenure,
                    deadline_ms,
                    successor,
                });
            }
            // `Answered` asks for nothing; the others are announced by `poll`, when they can be believed.
            Part::Answered | Part::Active | Part::Draining => {}
            Part::Revoking => self.end_belief(tenure),
            Part::Successor => self.events.push_back(LeaseEvent::CatchUp { tenure }),
        }
    }

    fn end_all(&mut self, cause: LostCause) {
        if self.gone.is_some() {
            return;
        }
        self.gone = Some(cause);
        self.sent.clear();
        self.candidates.clear();
        self.ended.clear();
        for (tenure, _) in std::mem::take(&mut self.held) {
            self.events.push_back(LeaseEvent::Lost { tenure, cause });
        }
        self.events.push_back(LeaseEvent::SessionLost { cause });
    }
}

#[cfg(test)]
mod tests;
