//! What the world remembers of a modelled cluster and no server does: who won which term by whose votes, what was committed.
//! And the guarantees, judged by it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_consensus::{Configuration, Consensus, Entry, Rename, Role};
use quorate_types::{LogIndex, ReplicaId, Term};

use super::server::{Read, Server, Word};
use crate::model::explorer::Hash128;

/// How often each guarantee was looked at.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; GUARANTEES.len()]);

/// What is checked beside the assertions of the core and its `check_invariants`, which run after every step.
const GUARANTEES: [&str; 10] = [
    "consensus: at most one leader per term, elected by a quorum of durable votes",
    "consensus: a vote once per term, across crashes",
    "consensus: only who won a term acts as its leader",
    "consensus: log matching",
    "consensus: a leader holds what was committed up to its term",
    "consensus: what is committed never changes",
    "consensus: what is committed is durable at a quorum",
    "consensus: a read sees every commit before its arrival",
    "consensus: a round confirms only what arrived before it was sent",
    "consensus: assertions and check_invariants of the core",
];

#[derive(Clone, Copy, Debug)]
pub(super) enum Guarantee {
    Elected,
    VoteOnce,
    ActsAsLeader,
    LogMatching,
    Complete,
    Committed,
    Durable,
    Read,
    Round,
    Core,
}

impl Counts {
    pub(super) fn note(&self, guarantee: Guarantee) {
        self.0[guarantee as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn list(&self) -> Vec<(&'static str, u64)> {
        let counts = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        GUARANTEES.into_iter().zip(counts).collect()
    }
}

/// The memory of the world.
///
/// # Invariants
/// - Terms before the lowest durable one are forgotten: nobody can vote or win in them any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Ghost {
    leaders: BTreeMap<Term, ReplicaId>,
    /// By term and voter.
    votes: BTreeMap<(Term, ReplicaId), ReplicaId>,
    /// What was ever committed, from index 1, each with the term of the leader that committed it.
    pub(super) committed: Vec<(Entry<Word>, Term)>,
    term_forgotten: Term,
}

impl Ghost {
    /// The end of what is committed.
    pub(super) fn committed_last(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// `leader` won `term` before the exploration begins.
    pub(super) fn won_before(&mut self, term: Term, leader: ReplicaId) {
        self.leaders.insert(term, leader);
    }

    /// `entry` was committed by the leader of its term before the exploration begins.
    pub(super) fn committed_before(&mut self, entry: Entry<Word>) {
        let term = entry.term;
        self.committed.push((entry, term));
    }

    /// A durable vote was told to somebody.
    pub(super) fn on_vote(
        &mut self,
        term: Term,
        voter: ReplicaId,
        candidate: ReplicaId,
        counts: &Counts,
    ) -> Result<(), String> {
        counts.note(Guarantee::VoteOnce);
        let before = *self.votes.entry((term, voter)).or_insert(candidate);
        if before != candidate {
            return Err(format!(
                "a vote once per term: {voter} voted for {before} and for {candidate} in {term:?}"
            ));
        }
        Ok(())
    }

    /// Something that only a leader of `term` says leaves `from`.
    pub(super) fn on_leader_message(
        &self,
        term: Term,
        from: ReplicaId,
        counts: &Counts,
    ) -> Result<(), String> {
        counts.note(Guarantee::ActsAsLeader);
        match self.leaders.get(&term) {
            Some(leader) if *leader == from => Ok(()),
            None if term <= self.term_forgotten => Ok(()),
            leader => Err(format!(
                "only who won a term acts as its leader: {from} does in {term:?}, won by {leader:?}"
            )),
        }
    }

    /// A server was called and now leads.
    pub(super) fn on_leads(
        &mut self,
        core: &Consensus<Word>,
        configuration: &Configuration,
        counts: &Counts,
    ) -> Result<(), String> {
        let (id, term) = (core.id(), core.term());
        counts.note(Guarantee::Elected);
        match self.leaders.insert(term, id) {
            Some(before) if before != id => Err(format!(
                "at most one leader per term: {before} and {id} in {term:?}"
            )),
            Some(_) => Ok(()),
            None => {
                let voters: BTreeSet<ReplicaId> = self
                    .votes
                    .iter()
                    .filter(|((at, _), candidate)| *at == term && **candidate == id)
                    .map(|((_, voter), _)| *voter)
                    .collect();
                if !has_quorum(configuration, &voters) {
                    return Err(format!(
                        "elected by a quorum: {id} leads {term:?} by the votes of {voters:?}"
                    ));
                }
                Ok(())
            }
        }
    }

    /// A server's commit index rose to `through`.
    pub(super) fn on_committed(
        &mut self,
        core: &Consensus<Word>,
        through: LogIndex,
        counts: &Counts,
    ) -> Result<(), String> {
        counts.note(Guarantee::Committed);
        for entry in core.entries(core.first_index(), through) {
            let at = usize::try_from(entry.index.0 - 1).expect("small");
            match self.committed.get(at) {
                Some((before, _)) if before == entry => {}
                Some((before, _)) => {
                    return Err(format!(
                        "what is committed never changes: {before:?} was, now {} has {entry:?}",
                        core.id()
                    ));
                }
                None if at == self.committed.len() => {
                    self.committed.push((entry.clone(), core.term()));
                }
                None => return Err(format!("{entry:?} committed after a gap")),
            }
        }
        Ok(())
    }

    /// A snapshot arrived: it ends with what was committed.
    pub(super) fn on_installed(&self, server: &Server, counts: &Counts) -> Result<(), String> {
        counts.note(Guarantee::Committed);
        let last = server.disk.snapshot.last;
        let at = usize::try_from(last.index.0).expect("small");
        match at.checked_sub(1).and_then(|at| self.committed.get(at)) {
            Some((entry, _)) if entry.term == last.term => Ok(()),
            _ if at == 0 => Ok(()),
            other => Err(format!(
                "{} has a snapshot at {last:?}, where {other:?} is committed",
                server.id
            )),
        }
    }

    /// A read is about to be answered.
    pub(super) fn on_read(&self, id: ReplicaId, read: Read, counts: &Counts) -> Result<(), String> {
        counts.note(Guarantee::Read);
        if read.captured < read.due {
            return Err(format!(
                "a read sees every commit before its arrival: {id} answers as of {}, but {} was committed when it arrived",
                read.captured, read.due
            ));
        }
        Ok(())
    }

    /// Forgets terms in which nobody can vote or win any more.
    pub(super) fn forget_before(&mut self, term: Term) {
        self.leaders.retain(|at, _| *at >= term);
        self.votes.retain(|(at, _), _| *at >= term);
        self.term_forgotten = Term(term.0.saturating_sub(1));
    }

    pub(super) fn hash_as(&self, rename: Rename, to: &mut Hash128) {
        for (term, leader) in &self.leaders {
            (term, rename(*leader)).hash(to);
        }
        let votes = self.votes.iter().map(|((term, voter), candidate)| {
            let mut one = Hash128::default();
            (term, rename(*voter), rename(*candidate)).hash(&mut one);
            one.finish128()
        });
        votes.fold(0_u128, u128::wrapping_add).hash(to);
        (&self.committed, self.term_forgotten).hash(to);
    }
}

/// What was just committed is on the disks of a quorum (of both halves of a joint configuration).
pub(super) fn is_durable(
    entry: &Entry<Word>,
    servers: &[Arc<Server>],
    configuration: &Configuration,
    counts: &Counts,
) -> Result<(), String> {
    counts.note(Guarantee::Durable);
    let holders: BTreeSet<ReplicaId> = servers
        .iter()
        .filter(|server| server.disk.holds(entry))
        .map(|server| server.id)
        .collect();
    if has_quorum(configuration, &holders) {
        return Ok(());
    }
    Err(format!(
        "what is committed is durable at a quorum: {entry:?} is at {holders:?} only"
    ))
}

/// A majority of each half. Counted here anew: the code's own counting is what is judged.
fn has_quorum(configuration: &Configuration, of: &BTreeSet<ReplicaId>) -> bool {
    std::iter::once(&configuration.incoming)
        .chain(&configuration.outgoing)
        .all(|half| half.voters.intersection(of).count() * 2 > half.voters.len())
}

/// A leader's log holds every entry that was committed in its own term or before (thesis, section 3.6.1).
pub(super) fn leaders_are_complete(
    servers: &[Arc<Server>],
    ghost: &Ghost,
    counts: &Counts,
) -> Result<(), String> {
    for leader in servers
        .iter()
        .filter(|server| server.core.role() == Role::Leader)
    {
        counts.note(Guarantee::Complete);
        let core = &leader.core;
        let due = ghost
            .committed
            .iter()
            .filter(|(_, term)| *term <= core.term());
        for (entry, _) in due.filter(|(entry, _)| entry.index >= core.first_index()) {
            let held = core
                .entries(core.first_index(), core.last().index)
                .iter()
                .find(|held| held.index == entry.index);
            if held != Some(entry) {
                return Err(format!(
                    "a leader holds what was committed: {} of {:?} has {held:?} instead of {entry:?}",
                    leader.id,
                    core.term()
                ));
            }
        }
    }
    Ok(())
}

/// Two logs that agree on an entry's term agree on everything before it (thesis, section 3.5).
pub(super) fn logs_match(servers: &[Arc<Server>], counts: &Counts) -> Result<(), String> {
    for (at, left) in servers.iter().enumerate() {
        for right in &servers[at + 1..] {
            counts.note(Guarantee::LogMatching);
            let (a, b) = (&left.core, &right.core);
            let from = a.first_index().max(b.first_index());
            let through = a.last().index.min(b.last().index);
            let (mine, theirs) = (a.entries(from, through), b.entries(from, through));
            let agreed = mine
                .iter()
                .zip(theirs)
                .rposition(|(mine, theirs)| mine.term == theirs.term);
            let count = agreed.map_or(0, |at| at + 1);
            if mine[..count] != theirs[..count] {
                return Err(format!(
                    "log matching: {} has {mine:?}, {} has {theirs:?}",
                    left.id, right.id
                ));
            }
        }
    }
    Ok(())
}
