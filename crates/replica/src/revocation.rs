//! Waits behind revocations: a revoked tenure or session may be ended by the leader a stretched TTL after *this* replica applied the
//! revocation (protocol, section 3).
//!
//! Every replica notes its own apply time, so that a new leader need not start the wait over. That is safe: any answer to a
//! keep-alive that does not carry the revocation was given before this replica applied it, as it is applied first by a leader
//! whose later answers carry it, and a deposed leader's rounds fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_coord::{Cause, Event, Phase, SessionKey, State, TenureKey, TenureView};
use quorate_types::{DriftBound, SessionId, TenureNumber, Time};

/// What is waited out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Revoked {
    /// A tenure in phase `Revoking`.
    Tenure(TenureKey),
    /// A session that is refused keep-alives.
    Session(SessionKey),
}

/// All waits of one replica.
///
/// # Invariants
/// - `by_due` holds exactly the entries of `due_of` that are not `proposed`.
#[derive(Debug)]
pub(crate) struct Revocations {
    drift: DriftBound,
    due_of: BTreeMap<Revoked, Time>,
    by_due: BTreeSet<(Time, Revoked)>,
    /// Ends that this leader has appended in its term and not yet applied.
    proposed: BTreeSet<Revoked>,
}

impl Revocations {
    /// Finds what is revoked in a state that was loaded at `now`: the wait starts over, since when it began is not known.
    pub(crate) fn from_state(drift: DriftBound, state: &State, now: Time) -> Self {
        let mut revocations = Self {
            drift,
            due_of: BTreeMap::new(),
            by_due: BTreeSet::new(),
            proposed: BTreeSet::new(),
        };
        for session in state.sessions().filter(|session| session.revoked) {
            revocations.begin(Revoked::Session(session.key), session.ttl_ms, now);
        }
        for group in state
            .groups()
            .filter(|group| group.phase == Phase::Revoking)
        {
            let tenure = group
                .tenure
                .as_ref()
                .expect("a group that is being revoked has a tenure");
            let key = TenureKey {
                group: group.key.clone(),
                number: tenure.number,
            };
            revocations.begin(Revoked::Tenure(key), ttl_ms_of(state, tenure.holder), now);
        }
        revocations
    }

    fn begin(&mut self, what: Revoked, ttl_ms: u64, now: Time) {
        let due = now + self.drift.stretch(Duration::from_millis(ttl_ms));
        if let Some(before) = self.due_of.insert(what.clone(), due) {
            self.by_due.remove(&(before, what.clone()));
        }
        self.by_due.insert((due, what));
    }

    fn end(&mut self, what: &Revoked) {
        if let Some(due) = self.due_of.remove(what) {
            self.by_due.remove(&(due, what.clone()));
            self.proposed.remove(what);
        }
    }

    /// Follows one event that was applied at `now`; `state` is the state after it.
    pub(crate) fn on_event(&mut self, event: &Event, state: &State, now: Time) {
        match event {
            Event::SessionRevoked { session } => {
                let ttl_ms = state
                    .session(session.id)
                    .map_or(0, |session| session.ttl_ms);
                self.begin(Revoked::Session(*session), ttl_ms, now);
            }
            Event::SessionEnded { session, .. } => self.end(&Revoked::Session(*session)),
            Event::Transition {
                from,
                to,
                tenure,
                cause,
                ..
            } => {
                if *to == Phase::Revoking {
                    self.begin(
                        Revoked::Tenure(tenure.key.clone()),
                        ttl_ms_of(state, tenure.holder),
                        now,
                    );
                } else if *from == Phase::Revoking {
                    assert_ne!(*cause, Cause::Aborted, "a revocation is never called off");
                    self.end_revoking(tenure);
                }
            }
            _ => {}
        }
    }

    /// The tenure named by a transition out of `Revoking` is the one that ended, or already the next of the same group.
    fn end_revoking(&mut self, tenure: &TenureView) {
        // A range, since a node's end may end a hundred thousand waits in one apply.
        let first = Revoked::Tenure(TenureKey {
            group: tenure.key.group.clone(),
            number: TenureNumber::ZERO,
        });
        let last = Revoked::Tenure(tenure.key.clone());
        let ended: Vec<Revoked> = self
            .due_of
            .range(first..=last)
            .map(|(what, _)| what.clone())
            .collect();
        for what in ended {
            self.end(&what);
        }
    }

    /// What has been waited out, at most `max` of each kind.
    pub(crate) fn due(&self, now: Time, max: usize) -> (Vec<SessionKey>, Vec<TenureKey>) {
        let mut sessions = Vec::new();
        let mut tenures = Vec::new();
        for (_, what) in self.by_due.iter().take_while(|(due, _)| *due <= now) {
            match what {
                Revoked::Session(session) if sessions.len() < max => sessions.push(*session),
                Revoked::Tenure(tenure) if tenures.len() < max => tenures.push(tenure.clone()),
                Revoked::Session(_) | Revoked::Tenure(_) => {}
            }
        }
        (sessions, tenures)
    }

    /// The end of this wait is appended in the leader's term.
    pub(crate) fn end_appended(&mut self, what: Revoked) {
        if let Some(due) = self.due_of.get(&what) {
            self.by_due.remove(&(*due, what.clone()));
            self.proposed.insert(what);
        }
    }

    /// Leadership was lost: what was appended may never commit, so a later term must be able to append it again.
    pub(crate) fn forget_appended(&mut self) {
        for what in std::mem::take(&mut self.proposed) {
            let due = *self
                .due_of
                .get(&what)
                .expect("what is proposed is waited for");
            self.by_due.insert((due, what));
        }
    }

    /// When the next wait is over.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.by_due.first().map(|(due, _)| *due)
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(
            self.by_due.len() + self.proposed.len(),
            self.due_of.len(),
            "waits and their order disagree"
        );
    }
}

fn ttl_ms_of(state: &State, holder: Option<SessionId>) -> u64 {
    // A revoked tenure whose session is gone has ended already; zero would only matter for one that cannot exist.
    holder
        .and_then(|holder| state.session(holder))
        .map_or(0, |session| session.ttl_ms)
}
