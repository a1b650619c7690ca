//! Replicas under random faults: messages lost, repeated and reordered, disks slow, crashes that lose what was not synced.
//! After each phase of faults a healed one must make progress. `SEED=n` runs one seed.

use std::collections::BTreeMap;

use crate::cluster::{Cluster, Word, configuration, settings};
use quorate_consensus::{Entry, Output, Role, RoundId};
use quorate_types::{LogIndex, ReplicaId, Term, Time};

const SEEDS: u64 = 400;
const STEPS: usize = 4_000;

#[test]
fn random_faults_break_no_guarantee() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => seed.parse().map(|seed: u64| seed..seed + 1).unwrap(),
        Err(_) => 0..SEEDS,
    };
    let mut total = Tally::default();
    for seed in seeds {
        // Printed by the harness only if an assertion fails.
        println!("seed {seed}: SEED={seed} cargo test -p quorate-consensus random_faults");
        let mut run = Run::new(seed);
        run.faults(STEPS);
        run.heal();
        total.add(&run.tally);
    }
    println!("{total:?}");
    if std::env::var_os("SEED").is_none() {
        // The faults must really have happened.
        let Tally {
            elections,
            committed,
            crashes,
            truncations,
            snapshots,
            confirmed,
        } = total;
        for (name, count) in [
            ("elections", elections),
            ("commits", committed),
            ("crashes", crashes),
            ("truncations", truncations),
            ("snapshots installed", snapshots),
            ("rounds", confirmed),
        ] {
            assert!(count > SEEDS / 4, "only {count} {name} in {SEEDS} seeds");
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    elections: u64,
    committed: u64,
    crashes: u64,
    truncations: u64,
    snapshots: u64,
    confirmed: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.elections += other.elections;
        self.committed += other.committed;
        self.crashes += other.crashes;
        self.truncations += other.truncations;
        self.snapshots += other.snapshots;
        self.confirmed += other.confirmed;
    }
}

/// One seed, and what was ever true in it.
struct Run {
    cluster: Cluster,
    rng: fastrand::Rng,
    leaders: BTreeMap<Term, ReplicaId>,
    /// Every entry any replica ever applied, in order.
    committed: Vec<Entry<Word>>,
    applied: BTreeMap<ReplicaId, usize>,
    /// For each round asked for, the highest term that had committed an entry when it was.
    rounds: BTreeMap<(ReplicaId, Term, RoundId), Term>,
    words: u64,
    tally: Tally,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let initial = match rng.u8(0..6) {
            0 => configuration(&[1], None, &[2]),
            1 => configuration(&[1, 2, 3, 4, 5], None, &[]),
            2 => configuration(&[1, 2, 3], Some(&[2, 3, 4]), &[5]),
            3 => configuration(&[1, 2, 3], None, &[4]),
            _ => configuration(&[1, 2, 3], None, &[]),
        };
        let mut settings = settings(seed);
        settings.append_bytes_max = [1, 40, 100][rng.usize(0..3)];
        Self {
            cluster: Cluster::new(initial, settings),
            rng,
            leaders: BTreeMap::new(),
            committed: Vec::new(),
            applied: BTreeMap::new(),
            rounds: BTreeMap::new(),
            words: 0,
            tally: Tally::default(),
        }
    }

    fn faults(&mut self, steps: usize) {
        for step in 0..steps {
            let ids: Vec<ReplicaId> = self.cluster.replicas.keys().copied().collect();
            let id = ids[self.rng.usize(0..ids.len())];
            if !self.cluster.is_up(id) {
                if self.rng.u8(0..8) == 0 {
                    self.cluster.start(id);
                    self.applied.insert(id, 0);
                }
            } else {
                self.act(id);
            }
            self.check();
            if step % 50 == 0 {
                self.check_logs_match();
            }
        }
    }

    fn act(&mut self, id: ReplicaId) {
        let sent = self.cluster.network.len();
        match self.rng.u32(0..1_000) {
            0..680 if sent > 0 => self.move_message(sent),
            680..860 => {
                let count = self.rng.usize(1..3);
                self.cluster.persist(id, count);
            }
            860..895 => self.tick_next(),
            895..940 => self.propose(id),
            940..955 => self.confirm(id),
            955..965 => self.snapshot(id),
            965..968 => drop(
                self.cluster
                    .step(id, |core, now, out| core.transfer(now, None, out)),
            ),
            968..977 => {
                let peer = ReplicaId(self.rng.u64(1..6));
                self.cluster
                    .step(id, |core, now, out| core.on_peer_connected(now, peer, out));
            }
            977..982 => {
                let pending = self.cluster.replicas[&id].writes.len();
                let survive = self.rng.usize(0..=pending);
                self.cluster.crash(id, survive);
                self.tally.crashes += 1;
            }
            982..987 => drop(self.cluster.cut.insert(id)),
            987..1_000 => self.cluster.cut.clear(),
            _ => {}
        }
    }

    fn move_message(&mut self, sent: usize) {
        // Mostly the oldest, sometimes any.
        let at = if self.rng.u8(0..10) < 7 {
            0
        } else {
            self.rng.usize(0..sent)
        };
        match self.rng.u8(0..20) {
            0 => drop(self.cluster.network.remove(at)),
            1 => {
                let again = self.cluster.network[at].clone();
                self.cluster.network.push(again);
                self.cluster.deliver(at);
            }
            _ => drop(self.cluster.deliver(at)),
        }
    }

    /// Lets the replica act that waits for the earliest time, or any.
    fn tick_next(&mut self) {
        let up = self.cluster.up();
        let waiting = up
            .into_iter()
            .filter(|id| self.cluster.core(*id).deadline() < Time::MAX);
        let mut waiting: Vec<ReplicaId> = waiting.collect();
        waiting.sort_by_key(|id| self.cluster.core(*id).deadline());
        if waiting.is_empty() {
            return;
        }
        let any = self.rng.u8(0..15) == 0;
        let id = if any {
            waiting[self.rng.usize(0..waiting.len())]
        } else {
            waiting[0]
        };
        self.cluster.timeout(id);
    }

    fn propose(&mut self, id: ReplicaId) {
        self.words += 1;
        let commands = vec![Word(format!("w{}", self.words)); self.rng.usize(1..4)];
        // Refused by followers, of course.
        let _ = self
            .cluster
            .step(id, |core, now, out| core.propose(now, commands, out));
    }

    fn confirm(&mut self, id: ReplicaId) {
        let highest = self.committed.last().map_or(Term::ZERO, |entry| entry.term);
        let term = self.cluster.core(id).term();
        let before = self.cluster.trace.len();
        if let Ok(round) = self
            .cluster
            .step(id, |core, now, out| core.confirm(now, out))
        {
            self.rounds.insert((id, term, round), highest);
            // A single voter confirms within the call: nothing else can have happened, and nothing is to be checked.
            assert!(self.cluster.trace.len() > before || self.rounds.len() > 1);
        }
    }

    fn snapshot(&mut self, id: ReplicaId) {
        let core = self.cluster.core(id);
        let (from, through) = (core.snapshot().last.index.0, core.commit().0);
        if through > from {
            let index = LogIndex(self.rng.u64(from + 1..=through));
            let retain = self.rng.u64(0..3);
            self.cluster.snapshot(id, index, retain);
        }
    }

    /// Checks everything that the last step ordered.
    fn check(&mut self) {
        for (id, output) in std::mem::take(&mut self.cluster.trace) {
            match output {
                Output::Fatal(error) => panic!("replica {id} with a healthy disk stops: {error}"),
                Output::RoleChanged {
                    role: Role::Leader,
                    term,
                    ..
                } => {
                    let first = *self.leaders.entry(term).or_insert(id);
                    assert_eq!(first, id, "two leaders in {term:?}");
                    self.tally.elections += 1;
                    self.check_leader_is_complete(id);
                }
                Output::Confirmed { round } => {
                    self.tally.confirmed += 1;
                    let term = *self
                        .leaders
                        .iter()
                        .rfind(|(_, leader)| **leader == id)
                        .unwrap()
                        .0;
                    for ((asker, asked_in, asked), highest) in &self.rounds {
                        if *asker == id && *asked_in == term && *asked <= round {
                            assert!(
                                *highest <= term,
                                "{id} confirmed {term:?}, though {highest:?} had committed"
                            );
                        }
                    }
                }
                Output::Persist(write) => {
                    self.tally.truncations += u64::from(write.truncate_from.is_some());
                }
                Output::WriteSnapshotChunk { .. } => self.tally.snapshots += 1,
                _ => {}
            }
        }
        self.check_applied();
    }

    /// What was applied anywhere is applied everywhere, in the same order, and never taken back.
    fn check_applied(&mut self) {
        for (id, replica) in &self.cluster.replicas {
            if replica.core.is_none() {
                continue;
            }
            let checked = self.applied.entry(*id).or_default();
            for at in *checked..replica.applied.len() {
                match self.committed.get(at) {
                    Some(entry) => assert_eq!(
                        *entry, replica.applied[at],
                        "replica {id} applied another entry"
                    ),
                    None => {
                        self.committed.push(replica.applied[at].clone());
                        self.tally.committed += 1;
                    }
                }
            }
            *checked = replica.applied.len();
        }
    }

    /// A new leader's log holds every committed entry (thesis, section 3.6.1, leader completeness).
    fn check_leader_is_complete(&self, id: ReplicaId) {
        if !self.cluster.is_up(id) {
            return;
        }
        let core = self.cluster.core(id);
        assert!(
            core.last().index.0 >= self.committed.len() as u64,
            "leader {id} lacks committed entries"
        );
        for entry in core.entries(core.first_index(), core.last().index) {
            if let Some(committed) = self
                .committed
                .get(usize::try_from(entry.index.0).unwrap() - 1)
            {
                assert_eq!(entry, committed, "leader {id} holds another entry");
            }
        }
    }

    /// Two logs that agree on an entry's term agree on everything before it (thesis, section 3.5, log matching).
    fn check_logs_match(&self) {
        let up = self.cluster.up();
        for (a, b) in up
            .iter()
            .flat_map(|a| up.iter().map(move |b| (a, b)))
            .filter(|(a, b)| a < b)
        {
            let (a, b) = (self.cluster.core(*a), self.cluster.core(*b));
            let from = a.first_index().max(b.first_index());
            let through = a.last().index.min(b.last().index);
            let (left, right) = (a.entries(from, through), b.entries(from, through));
            let agreed = left
                .iter()
                .zip(right)
                .rposition(|(left, right)| left.term == right.term);
            let count = agreed.map_or(0, |at| at + 1);
            assert_eq!(
                left[..count],
                right[..count],
                "logs of {} and {} do not match",
                a.id(),
                b.id()
            );
        }
    }

    /// Without further faults, everyone gets everything within bounded time.
    fn heal(&mut self) {
        self.cluster.cut.clear();
        for id in self.cluster.replicas.keys().copied().collect::<Vec<_>>() {
            if !self.cluster.is_up(id) {
                self.cluster.start(id);
                self.applied.insert(id, 0);
            }
        }
        let goal = self.committed.len() + 3;
        let end = self.cluster.now + 50 * self.cluster.config.timing.detection_timeout;
        while self.cluster.now < end {
            self.cluster.settle();
            self.check();
            let done =
                |replica: &crate::cluster::Replica| replica.applied.len() == self.committed.len();
            if self.committed.len() >= goal && self.cluster.replicas.values().all(done) {
                self.check_logs_match();
                return;
            }
            if let Some(leader) = self
                .cluster
                .up()
                .into_iter()
                .find(|id| self.cluster.core(*id).role() == Role::Leader)
                && self.committed.len() < goal
            {
                self.propose(leader);
            }
            self.earliest();
            self.check();
        }
        for id in self.cluster.up() {
            let core = self.cluster.core(id);
            eprintln!(
                "{id}: {:?} {:?} commit {:?} last {:?}",
                core.role(),
                core.term(),
                core.commit(),
                core.last()
            );
            eprintln!("    {:?}", core.progress());
        }
        panic!("no progress after the faults ended");
    }

    fn earliest(&mut self) {
        let up = self.cluster.up();
        let id = up
            .into_iter()
            .min_by_key(|id| self.cluster.core(*id).deadline())
            .unwrap();
        self.cluster.timeout(id);
    }
}
