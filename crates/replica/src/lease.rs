//! The leader's memory of sessions: when each was last heard, and when each may be expired. Volatile: it is made afresh at
//! takeover and dropped with leadership (protocol, section 2).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_coord::{SessionKey, State};
use quorate_types::{DriftBound, Time};

/// The least time that every session gets after a stall of this leader, to have its unread keep-alives read: `min(TTL/4, 250 ms)`.
fn grace(ttl: Duration) -> Duration {
    (ttl / 4).min(Duration::from_millis(250))
}

/// Most graces of one session between two keep-alives. Without a bound, a leader that stalls more often than once per grace
/// would never expire anybody, and no group of a dead node would find a new holder (guarantee 9).
const GRACES_MAX: u32 = 4;

/// One session's deadline.
#[derive(Debug)]
struct Lease {
    ttl: Duration,
    /// When the session may be expired.
    deadline: Time,
    /// Stalls credited since it was last heard; at most `credit_max`.
    credited: Duration,
    /// How often a grace was given after a stall since it was last heard; at most `GRACES_MAX`.
    graces: u32,
}

impl Lease {
    /// Bounds how far stalls in a row may push one session's deadline.
    fn credit_max(&self) -> Duration {
        self.ttl * 4
    }
}

/// Deadlines of all sessions at the leader.
///
/// # Invariants
/// - `by_deadline` holds exactly the sessions of `leases` that are not `ending`, at their deadlines.
/// - A session in `ending` is in `leases`: its end is appended and not yet applied.
#[derive(Debug)]
pub(crate) struct Leases {
    drift: DriftBound,
    leases: BTreeMap<SessionKey, Lease>,
    by_deadline: BTreeSet<(Time, SessionKey)>,
    ending: BTreeSet<SessionKey>,
}

impl Leases {
    /// A new leader's memory: each session has one full stretched TTL from the moment the election was won.
    pub(crate) fn take_over(drift: DriftBound, state: &State, elected_at: Time) -> Self {
        let mut leases = Self {
            drift,
            leases: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            ending: BTreeSet::new(),
        };
        for session in state.sessions().filter(|session| !session.revoked) {
            leases.opened(
                session.key,
                Duration::from_millis(session.ttl_ms),
                elected_at,
            );
        }
        leases
    }

    /// A session was opened (or found at takeover) at `since`.
    pub(crate) fn opened(&mut self, session: SessionKey, ttl: Duration, since: Time) {
        let deadline = since + self.drift.stretch(ttl);
        let before = self.leases.insert(
            session,
            Lease {
                ttl,
                deadline,
                credited: Duration::ZERO,
                graces: 0,
            },
        );
        assert!(before.is_none(), "session {session:?} was opened twice");
        self.by_deadline.insert((deadline, session));
    }

    /// A session ended, or was revoked: no keep-alive is answered, and expiry is no longer this memory's business.
    pub(crate) fn ended(&mut self, session: SessionKey) {
        if let Some(lease) = self.leases.remove(&session) {
            self.by_deadline.remove(&(lease.deadline, session));
            self.ending.remove(&session);
        }
    }

    /// A command that ends this session is appended: from here on no keep-alive of it is answered (rule iii).
    pub(crate) fn end_appended(&mut self, session: SessionKey) {
        if let Some(lease) = self.leases.get(&session) {
            self.by_deadline.remove(&(lease.deadline, session));
            self.ending.insert(session);
        }
    }

    /// The appended end was applied without effect (refused, or a retry of another): the session goes on.
    pub(crate) fn end_refused(&mut self, session: SessionKey) {
        if self.ending.remove(&session) {
            let lease = self
                .leases
                .get(&session)
                .expect("a session that is ending has a lease");
            self.by_deadline.insert((lease.deadline, session));
        }
    }

    /// Whether the end of this session is appended, and the session still there.
    pub(crate) fn is_ending(&self, session: SessionKey) -> bool {
        self.ending.contains(&session)
    }

    /// How long the most overdue session is past its deadline: its end is appended, or about to be.
    pub(crate) fn overdue(&self, now: Time) -> Duration {
        let waiting = self.by_deadline.first().map(|(deadline, _)| *deadline);
        let ending = self
            .ending
            .iter()
            .filter_map(|session| self.leases.get(session))
            .map(|lease| lease.deadline);
        let oldest = waiting.into_iter().chain(ending).min();
        oldest.map_or(Duration::ZERO, |deadline| now.since(deadline))
    }

    /// How long the session has left unless it is heard: at most its TTL, as a deadline also holds what drift and stalls add. 0 where
    /// its end is appended, or is no business of this memory.
    pub(crate) fn remaining_ms(&self, session: SessionKey, now: Time) -> u64 {
        match self.leases.get(&session) {
            Some(lease) if !self.ending.contains(&session) => {
                let left = lease.deadline.since(now).min(lease.ttl);
                u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
            }
            _ => 0,
        }
    }

    /// Whether keep-alives of this session may be answered.
    pub(crate) fn is_answerable(&self, session: SessionKey) -> bool {
        self.leases.contains_key(&session) && !self.ending.contains(&session)
    }

    /// A keep-alive arrived: the deadline is extended at arrival, so that it holds expiry back while its round is out.
    pub(crate) fn heard(&mut self, session: SessionKey, now: Time) {
        let Some(lease) = self.leases.get_mut(&session) else {
            return;
        };
        let deadline = now + self.drift.stretch(lease.ttl);
        lease.credited = Duration::ZERO;
        lease.graces = 0;
        if deadline > lease.deadline {
            if self.by_deadline.remove(&(lease.deadline, session)) {
                self.by_deadline.insert((deadline, session));
            }
            lease.deadline = deadline;
        }
    }

    /// The step loop stood still for `stall` until `now`: keep-alives may have waited unread all that time.
    pub(crate) fn stalled(&mut self, stall: Duration, now: Time) {
        self.by_deadline.clear();
        for (session, lease) in &mut self.leases {
            let credit = stall.min(lease.credit_max() - lease.credited);
            lease.credited += credit;
            lease.deadline = lease.deadline + credit;
            let graced = now + grace(lease.ttl);
            if lease.deadline < graced && lease.graces < GRACES_MAX {
                lease.graces += 1;
                lease.deadline = graced;
            }
            if !self.ending.contains(session) {
                self.by_deadline.insert((lease.deadline, *session));
            }
        }
    }

    /// The sessions whose deadline has passed, at most `max`, oldest first.
    pub(crate) fn due(&self, now: Time, max: usize) -> Vec<SessionKey> {
        self.by_deadline
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .map(|(_, session)| *session)
            .take(max)
            .collect()
    }

    /// When the next session is due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// How many sessions are remembered.
    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(
            self.by_deadline.len() + self.ending.len(),
            self.leases.len(),
            "leases and deadlines disagree"
        );
        for (deadline, session) in &self.by_deadline {
            let lease = self
                .leases
                .get(session)
                .expect("a deadline belongs to a lease");
            assert_eq!(
                lease.deadline, *deadline,
                "session {session:?} is filed under another deadline"
            );
            assert!(
                !self.ending.contains(session),
                "session {session:?} is ending and still has a deadline"
            );
        }
    }
}
