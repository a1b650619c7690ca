//! The identity of a replica's state, for exhaustive exploration: two replicas of equal fingerprint do the same from here on.
//!
//! What is left out, and why nothing is lost by it:
//! - times: only what the code would conclude from them at `now` counts. Deadlines are left out altogether, since whoever explores
//!   lets any of them pass at any moment;
//! - the randomness of timeouts, which only moves deadlines, and the configuration handed in at start, which never changes;
//! - the absolute numbers of writes: only their distance from the newest one matters;
//! - the names of replicas, where the caller gives other ones, to tell states apart only up to symmetry. Member lists are told
//!   apart by their epoch.
//!
//! Each struct is taken apart without `..`, so that a new field does not compile until somebody decided on it.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use quorate_types::{ReplicaId, Time};

use crate::consensus::Repair;
use crate::history::History;
use crate::leader::Leading;
use crate::progress::{Progress, Sending};
use crate::seen::{Past, Promise, Seen, Told};
use crate::{Config, Consensus, HardState, Payload, SnapshotMeta, WriteSeq};

/// Another name for each replica.
pub type Rename<'a> = &'a dyn Fn(ReplicaId) -> ReplicaId;

impl<C: Payload + Hash> Consensus<C> {
    /// Hashes everything that its future depends on, but for [`hash_promises`](Self::hash_promises).
    pub fn hash_state(&self, now: Time, rename: Rename, to: &mut impl Hasher) {
        let Self {
            config: Config { id, timing, .. },
            rng: _,
            hard_state,
            hard_state_changed,
            hard_state_durable,
            hard_state_pending,
            write_last,
            repair,
            log,
            history,
            snapshot,
            incoming,
            commit,
            verified,
            role,
            leader,
            leader_heard_at,
            votes,
            election_from: _,
            election_deadline: _,
            leading,
            round_last,
            seen: _,
            past: _,
            stopped,
        } = self;
        let age = |seq: WriteSeq| write_last.0 - seq.0;
        rename(*id).hash(to);
        hash_hard_state(*hard_state, rename, to);
        hard_state_changed.hash(to);
        hash_hard_state(*hard_state_durable, rename, to);
        hard_state_pending.len().hash(to);
        for (seq, hard_state) in hard_state_pending {
            age(*seq).hash(to);
            hash_hard_state(*hard_state, rename, to);
        }
        repair.is_some().hash(to);
        if let Some(Repair {
            truncate_from,
            purge_through,
        }) = repair
        {
            (truncate_from, purge_through).hash(to);
        }
        log.hash_state(age, to);
        hash_history(history, to);
        hash_snapshot(snapshot, to);
        incoming.is_some().hash(to);
        if let Some(incoming) = incoming {
            incoming.hash_state(rename, to);
        }
        (commit, verified, role, stopped, round_last).hash(to);
        let hears_leader = leader.is_some_and(|leader| {
            leader == *id || now.since(*leader_heard_at) < timing.detection_timeout
        });
        (leader.map(rename), hears_leader).hash(to);
        renamed(votes, rename).hash(to);
        leading.is_some().hash(to);
        if let Some(leading) = leading {
            self.hash_leading(leading, now, rename, to);
        }
    }

    /// Hashes what this replica promised, and saw others promise: it decides nothing but the answer to
    /// [`Message::SeenOfYou`](crate::Message::SeenOfYou), which only a new connection brings about.
    pub fn hash_promises(&self, rename: Rename, to: &mut impl Hasher) {
        let Past {
            found,
            found_last,
            told,
        } = &self.past;
        hash_hard_state(*found, rename, to);
        (found_last, told.len()).hash(to);
        for (
            peer,
            Told {
                promises,
                forgotten,
            },
        ) in renamed(told, rename)
        {
            (peer, forgotten, promises.len()).hash(to);
            for Promise {
                term,
                vote,
                matched,
            } in promises
            {
                (term, vote.map(rename), matched).hash(to);
            }
        }
        for (
            peer,
            Seen {
                term,
                vote,
                matched,
            },
        ) in renamed(&self.seen, rename)
        {
            (peer, term, vote.map(rename), matched).hash(to);
        }
    }

    fn hash_leading(&self, leading: &Leading, now: Time, rename: Rename, to: &mut impl Hasher) {
        let Leading {
            own_term_index,
            progress,
            rounds,
            transfer,
            uncommitted_bytes,
            heartbeat_due: _,
            window_start,
            window_end: _,
            window_is_second_chance,
        } = leading;
        (
            own_term_index,
            rounds,
            uncommitted_bytes,
            window_is_second_chance,
        )
            .hash(to);
        transfer.is_some().hash(to);
        if let Some(transfer) = transfer {
            (rename(transfer.to), transfer.is_told).hash(to);
        }
        for (peer, progress) in renamed(progress, rename) {
            let Progress {
                matched,
                next,
                sending,
                round_acked,
                heard_at,
                waiting_since,
                commit_told,
            } = progress;
            (peer, matched, next, round_acked, commit_told).hash(to);
            let is_overdue = now.since(*waiting_since) >= self.config.timing.resend_after();
            (heard_at >= window_start, is_overdue).hash(to);
            std::mem::discriminant(sending).hash(to);
            match sending {
                Sending::Probe { awaiting } => awaiting.hash(to),
                Sending::Replicate(in_flight) => in_flight.hash(to),
                Sending::Snapshot { meta, offset } => {
                    hash_snapshot(meta, to);
                    offset.hash(to);
                }
            }
        }
    }
}

pub(crate) fn hash_snapshot(meta: &SnapshotMeta, to: &mut impl Hasher) {
    (meta.last, meta.configuration.epoch).hash(to);
}

fn hash_hard_state(hard_state: HardState, rename: Rename, to: &mut impl Hasher) {
    let HardState { term, voted_for } = hard_state;
    (term, voted_for.map(rename)).hash(to);
}

fn hash_history(history: &History, to: &mut impl Hasher) {
    history.all().len().hash(to);
    for (since, configuration) in history.all() {
        (since, configuration.epoch).hash(to);
    }
}

/// The map under other names, in their order.
fn renamed<'a, T>(map: &'a BTreeMap<ReplicaId, T>, rename: Rename) -> Vec<(ReplicaId, &'a T)> {
    let mut named: Vec<_> = map.iter().map(|(id, of)| (rename(*id), of)).collect();
    named.sort_unstable_by_key(|(id, _)| *id);
    named
}

#[cfg(test)]
mod tests {
    use std::hash::DefaultHasher;
    use std::time::Duration;

    use quorate_types::Term;

    use super::*;
    use crate::{Boot, Configuration, LogPosition, Message, Timing, VoterSet};

    #[derive(Clone, Debug, PartialEq, Hash)]
    struct Fixed;

    impl Payload for Fixed {
        fn size_bytes(&self) -> usize {
            8
        }
    }

    const NOW: Time = Time(1_000_000_000);

    fn replica(id: u64, seed: u64) -> Consensus<Fixed> {
        let configuration = Configuration {
            incoming: VoterSet {
                voters: [1, 2, 3].map(ReplicaId).into(),
            },
            ..Configuration::default()
        };
        let config = Config {
            id: ReplicaId(id),
            timing: Timing {
                heartbeat_interval: Duration::from_millis(20),
                detection_timeout: Duration::from_millis(100),
                election_jitter: Duration::from_millis(50),
            },
            append_bytes_max: 100,
            appends_in_flight_max: 4,
            uncommitted_bytes_max: 1_000,
            seed,
        };
        let boot = Boot {
            hard_state: HardState::default(),
            snapshot: SnapshotMeta {
                last: LogPosition::default(),
                configuration,
            },
            entries: Vec::new(),
        };
        Consensus::new(config, boot, NOW)
    }

    fn hash(core: &Consensus<Fixed>, rename: Rename) -> u64 {
        let mut hasher = DefaultHasher::new();
        core.hash_state(NOW, rename, &mut hasher);
        hasher.finish()
    }

    fn ask(core: &mut Consensus<Fixed>, from: u64) {
        let (term, last) = (Term(1), LogPosition::default());
        core.on_message(
            NOW,
            ReplicaId(from),
            Message::VoteRequest { term, last },
            &mut Vec::new(),
        );
    }

    #[test]
    fn deadlines_do_not_count_and_votes_do() {
        let same = |id: ReplicaId| id;
        let (mut one, other) = (replica(1, 7), replica(1, 8));
        assert_ne!(one.deadline(), other.deadline());
        assert_eq!(hash(&one, &same), hash(&other, &same));
        ask(&mut one, 2);
        assert_ne!(hash(&one, &same), hash(&other, &same));
    }

    #[test]
    fn replicas_that_differ_in_names_only_are_equal_under_other_names() {
        let same = |id: ReplicaId| id;
        // 1 becomes 2, 2 becomes 3, 3 becomes 1.
        let turned = |id: ReplicaId| ReplicaId(id.0 % 3 + 1);
        let (mut one, mut two) = (replica(1, 7), replica(2, 7));
        ask(&mut one, 2);
        ask(&mut two, 3);
        assert_eq!(hash(&one, &turned), hash(&two, &same));
        assert_ne!(hash(&one, &same), hash(&two, &same));
    }
}
