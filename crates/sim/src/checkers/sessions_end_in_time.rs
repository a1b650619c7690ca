//! A session whose owner fell silent ends in time (guarantee 9 rests on it): a leader that serves appends its end at the latest
//!
//! `TTL * (1 + rho)` after the last keep-alive that it took in, or after its own election where none came since,
//! plus the stalls of its own step loop since then (at most `4 * TTL`), and not before `min(TTL / 4, 250 ms)` after the last of them,
//!
//! so that no entry that it appends later is committed before that end. In time, the end is late by the time that a commit takes,
//! and by one TTL for each change of leader. A revoked session ends `TTL * (1 + rho)` after the leader applied its revocation, or
//! began to serve.
//!
//! Judged by the order of the log, not by waiting: where nothing commits, nothing is late. That the end is not early is
//! `sessions_never_expire_early`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_coord::{Event, SessionKey};
use quorate_replica::AppliedEntry;
use quorate_types::{DriftBound, LogIndex, Term};

use super::{Verdict, Violation};
use crate::clock::Moment;

/// A leader's own commands come with the same step, or with one right after it.
const STEP_SLACK: Duration = Duration::from_millis(30);
/// An end is missed where the leader goes on appending for so long.
const CONFIRM: Duration = Duration::from_millis(100);
/// How long a call may wait at a server that does not serve yet; more than the replicas' call timeout.
const QUEUED_MAX: Duration = Duration::from_secs(3);

/// Terms of which leaders are remembered: of older ones nothing is judged.
const LEADERS_MAX: usize = 8;

#[derive(Debug)]
struct Life {
    ttl: Duration,
    opened: Moment,
    /// The newest keep-alive that the leader of each of the last terms took in, and the stalls before it.
    heard: BTreeMap<Term, (Moment, Duration)>,
    /// The newest that any server took in.
    queued: Moment,
    /// The leaders that may have found one waiting when they began to serve.
    waited: BTreeSet<Term>,
    revoked: Option<Moment>,
    /// Since when it is late under a leader.
    late: Option<(Term, Moment)>,
}

#[derive(Clone, Copy, Debug)]
struct Leader {
    elected: Moment,
    stalls: Duration,
    serving: Option<Moment>,
}

/// Sessions, and what leaders do.
#[derive(Debug, Default)]
pub struct Ends {
    drift: DriftBound,
    lives: BTreeMap<SessionKey, Life>,
    leaders: BTreeMap<Term, Leader>,
    appended: BTreeMap<LogIndex, (Term, Moment)>,
    /// When each server last stepped.
    stepped: BTreeMap<usize, Moment>,
    stalls: Duration,
    /// When the last of them ended.
    stalled_at: Moment,
    /// How many ends were looked at.
    pub checked: u64,
}

impl Ends {
    /// A replica was elected.
    pub fn on_elected(&mut self, now: Moment, term: Term) {
        let leader = Leader {
            elected: now,
            stalls: self.stalls,
            serving: None,
        };
        self.leaders.entry(term).or_insert(leader);
        // Only the newest few can still commit.
        while self.leaders.len() > LEADERS_MAX {
            self.leaders.pop_first();
        }
    }

    /// A leader applied an entry of its own term: from the first on, it serves.
    pub fn on_serving(&mut self, now: Moment, term: Term) {
        let Some(leader) = self.leaders.get_mut(&term) else {
            return;
        };
        if leader.serving.is_some() {
            return;
        }
        leader.serving = Some(now);
        let waits_at_most = QUEUED_MAX + now.since(leader.elected);
        for life in self.lives.values_mut() {
            if now.since(life.queued) <= waits_at_most {
                life.waited.insert(term);
                if life.waited.len() > LEADERS_MAX {
                    life.waited.pop_first();
                }
            }
        }
    }

    /// A leader steps, which it should do at least once every `interval`: longer is a stall.
    pub fn on_leader_step(&mut self, now: Moment, server: usize, interval: Duration) {
        let before = self.stepped.insert(server, now).unwrap_or(now);
        let gap = now.since(before);
        if gap * 10 >= interval * 9 {
            self.stalls += gap;
            self.stalled_at = now;
        }
    }

    /// A server that does not lead steps.
    pub fn on_follower_step(&mut self, now: Moment, server: usize) {
        self.stepped.insert(server, now);
    }

    /// A server takes in a keep-alive; `leads` is its term where it leads.
    pub fn on_heard(&mut self, now: Moment, session: SessionKey, leads: Option<Term>) {
        let Some(life) = self.lives.get_mut(&session) else {
            return;
        };
        life.queued = now;
        if let Some(term) = leads {
            life.heard.insert(term, (now, self.stalls));
            if life.heard.len() > LEADERS_MAX {
                life.heard.pop_first();
            }
        }
    }

    /// A leader appends an entry.
    pub fn on_appended(&mut self, now: Moment, index: LogIndex, term: Term) {
        self.appended.insert(index, (term, now));
    }

    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// A session's end is overdue.
    pub fn on_committed(&mut self, now: Moment, entry: &AppliedEntry) -> Verdict {
        for event in &entry.events {
            match event {
                Event::SessionOpened { session, ttl_ms } => {
                    let life = Life {
                        ttl: Duration::from_millis(*ttl_ms),
                        opened: now,
                        heard: BTreeMap::new(),
                        queued: Moment::default(),
                        waited: BTreeSet::new(),
                        revoked: None,
                        late: None,
                    };
                    self.lives.insert(*session, life);
                }
                Event::SessionRevoked { session } => {
                    if let Some(life) = self.lives.get_mut(session) {
                        life.revoked = Some(now);
                        life.late = None;
                    }
                }
                Event::SessionEnded { session, .. } => {
                    self.lives.remove(session);
                    self.checked += 1;
                }
                _ => {}
            }
        }
        let appended = self.appended.remove(&entry.index);
        let Some((term, at)) = appended.filter(|(term, _)| *term == entry.term) else {
            return Ok(());
        };
        let Some((leader, serving)) = self
            .leaders
            .get(&term)
            .and_then(|leader| Some((*leader, leader.serving?)))
        else {
            return Ok(());
        };
        for (session, life) in &mut self.lives {
            let stalls = (self.stalls, self.stalled_at);
            let due = due(life, term, leader, serving, stalls, self.drift);
            if at <= due + STEP_SLACK {
                life.late = None;
                continue;
            }
            match life.late {
                Some((late_in, since)) if late_in == term => {
                    if at.since(since) >= CONFIRM {
                        return Err(violation(format!(
                            "the leader of {term:?} went on appending until {at:?}, but the end of {session:?}, due at {due:?}, is \
                             not among what it appended ({life:?})"
                        )));
                    }
                }
                _ => life.late = Some((term, at)),
            }
        }
        Ok(())
    }
}

fn due(
    life: &Life,
    term: Term,
    leader: Leader,
    serving: Moment,
    (stalls, stalled_at): (Duration, Moment),
    drift: DriftBound,
) -> Moment {
    // Once as the leader counts, and once for its clock's own rate.
    let ttl = drift.stretch(drift.stretch(life.ttl));
    if let Some(revoked) = life.revoked {
        return revoked.max(serving) + ttl;
    }
    // What waited until the leader served was taken in then.
    let since = if life.waited.contains(&term) {
        serving
    } else {
        leader.elected
    };
    let (mut since, mut before) = (since.max(life.opened), leader.stalls);
    if let Some((at, stalls)) = life.heard.get(&term).filter(|(at, _)| *at >= since) {
        (since, before) = (*at, *stalls);
    }
    let stalled = stalls.saturating_sub(before);
    let due = since + ttl + stalled.min(life.ttl * 4);
    if stalled.is_zero() {
        return due;
    }
    let grace = (life.ttl / 4).min(Duration::from_millis(250));
    due.max(stalled_at + drift.stretch(grace))
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "sessions_end_in_time",
        guarantee: "9: a group is led within a stated bound: a silent session ends at most TTL and the stated bound late",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::Cause;
    use quorate_types::{ClusterTime, Revision, SessionId, TraceId};

    const SESSION: SessionKey = SessionKey {
        id: SessionId(1),
        created: Revision(1),
    };

    fn ms(count: u64) -> Moment {
        Moment(count * 1_000_000)
    }

    fn entry(index: u64, events: Vec<Event>) -> AppliedEntry {
        AppliedEntry {
            index: LogIndex(index),
            term: Term(1),
            revision: Revision(index),
            cluster_time: ClusterTime(0),
            trace: TraceId(0),
            events,
        }
    }

    struct World {
        ends: Ends,
        index: u64,
    }

    impl World {
        fn new() -> Self {
            let mut ends = Ends::default();
            ends.on_elected(ms(0), Term(1));
            ends.on_serving(ms(1), Term(1));
            let mut world = Self { ends, index: 0 };
            let session = SESSION;
            world
                .commit(
                    10,
                    vec![Event::SessionOpened {
                        session,
                        ttl_ms: 1_000,
                    }],
                )
                .unwrap();
            world
        }

        fn commit(&mut self, at: u64, events: Vec<Event>) -> Verdict {
            self.index += 1;
            self.ends.on_appended(ms(at), LogIndex(self.index), Term(1));
            self.ends.on_committed(ms(at), &entry(self.index, events))
        }
    }

    #[test]
    fn a_leader_that_goes_on_without_ending_a_silent_session_is_reported() {
        let mut world = World::new();
        assert!(world.commit(1_000, Vec::new()).is_ok());
        assert!(world.commit(1_100, Vec::new()).is_ok(), "noticed");
        assert!(world.commit(1_250, Vec::new()).is_err(), "and confirmed");
    }

    #[test]
    fn keep_alives_stalls_and_takeovers_put_the_end_off() {
        let mut world = World::new();
        world.ends.on_heard(ms(900), SESSION, Some(Term(1)));
        assert!(world.commit(1_800, Vec::new()).is_ok());
        world
            .ends
            .on_leader_step(ms(1_800), 0, Duration::from_millis(50));
        world
            .ends
            .on_leader_step(ms(3_800), 0, Duration::from_millis(50));
        assert!(world.commit(3_900, Vec::new()).is_ok());
        assert!(world.commit(4_060, Vec::new()).is_ok());
        world.ends.on_elected(ms(4_600), Term(2));
        assert!(world.commit(5_500, Vec::new()).is_ok(), "noticed");
        assert!(world.commit(5_700, Vec::new()).is_err());
    }

    #[test]
    fn an_end_in_time_is_fine() {
        let mut world = World::new();
        let (session, cause) = (SESSION, Cause::Expired);
        assert!(
            world
                .commit(1_012, vec![Event::SessionEnded { session, cause }])
                .is_ok()
        );
        assert!(world.commit(9_000, Vec::new()).is_ok());
        assert!(world.commit(9_900, Vec::new()).is_ok());
        assert_eq!(world.ends.checked, 1);
    }
}
