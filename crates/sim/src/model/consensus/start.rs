//! What the servers find on their disks, and what is under way, when the exploration begins: histories that would take too many
//! steps to explore, told instead. Each tells how it came about, and could have.

use std::sync::Arc;

use quorate_consensus::{
    AppendOutcome, Body, Configuration, Entry, HardState, LogPosition, Message, RoundId,
    SnapshotMeta,
};
use quorate_types::{LogIndex, ReplicaId, Term};

use super::ghost::Ghost;
use super::server::{Disk, Envelope, Server, Word};

/// Where the exploration begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    #[default]
    Fresh,
    /// The logs differ: the first server led term 1, the second term 2, each by the vote of the third, and neither replicated its
    /// entry before all of them crashed; the first has heard of term 2 since. An append carries one entry, so that an old one can be acknowledged without its successor
    /// (thesis, figure 3.7).
    Diverged,
    /// The longer log is the older: the first server led term 1 and replicated none of its three entries. The second led term 2
    /// by the vote of the third, and committed its only one. All crashed (thesis, section 3.6.1).
    Longer,
    /// The answer to a leader of long ago is still under way: the first server led term 1, and the second acknowledged two entries
    /// to it that the first lost in a crash, being slower. The third led term 2 by the vote of the first, which took over its
    /// entry; the second did not hear of that. All crashed.
    Answered,
    /// A snapshot has arrived, and is not installed yet: the first server led term 1, committed with the second, compacted its
    /// log, led term 2, sent the third its snapshot, and crashed. Then the second led term 3 by the vote of the third, sent it its
    /// log, and crashed before it heard that it arrived.
    Arrived,
}

/// How it begins.
pub(super) struct Begun {
    pub(super) servers: Vec<Server>,
    pub(super) under_way: Vec<Envelope>,
    pub(super) ghost: Ghost,
}

fn own_term(index: u64, term: u64) -> Entry<Word> {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        body: Body::OwnTerm,
    }
}

fn command(index: u64, term: u64) -> Entry<Word> {
    Entry {
        body: Body::Command(Word(u8::MAX)),
        ..own_term(index, term)
    }
}

impl Start {
    /// Whether `letter` is what this start is about: then it stays under way however old it is.
    pub(super) fn is_about(self, letter: &Envelope) -> bool {
        self == Self::Answered
            && matches!(letter.message, Message::AppendResponse { term, .. } if term == Term(1))
    }

    /// Sets the servers up; all starts but the fresh one are of three.
    pub(super) fn begin(self, configuration: &Configuration, ids: &[ReplicaId]) -> Begun {
        let append_bytes_max = if self == Self::Diverged { 1 } else { 1_000 };
        let mut ghost = Ghost::default();
        let mut under_way = Vec::new();
        let disk = |term: u64, voted_for: Option<usize>, entries: Vec<Entry<Word>>| {
            let hard_state = HardState {
                term: Term(term),
                voted_for: voted_for.map(|at| ids[at]),
            };
            Disk::new(configuration, hard_state, entries)
        };
        let disks = match self {
            Self::Fresh => ids.iter().map(|_| disk(0, None, Vec::new())).collect(),
            Self::Diverged => {
                ghost.won_before(Term(1), ids[0]);
                ghost.won_before(Term(2), ids[1]);
                vec![
                    disk(2, None, vec![own_term(1, 1)]),
                    disk(2, Some(1), vec![own_term(1, 2)]),
                    disk(2, Some(1), Vec::new()),
                ]
            }
            Self::Longer => {
                ghost.won_before(Term(1), ids[0]);
                ghost.won_before(Term(2), ids[1]);
                ghost.committed_before(own_term(1, 2));
                let longer = vec![own_term(1, 1), command(2, 1), command(3, 1)];
                vec![
                    disk(2, None, longer),
                    disk(2, Some(1), vec![own_term(1, 2)]),
                    disk(2, Some(1), vec![own_term(1, 2)]),
                ]
            }
            Self::Answered => {
                ghost.won_before(Term(1), ids[0]);
                ghost.won_before(Term(2), ids[2]);
                let outcome = AppendOutcome::Matched {
                    through: LogIndex(2),
                };
                under_way.push(Envelope {
                    from: ids[1],
                    to: ids[0],
                    message: Message::AppendResponse {
                        term: Term(1),
                        outcome,
                        round: RoundId::default(),
                    },
                });
                vec![
                    disk(2, Some(2), vec![own_term(1, 2)]),
                    disk(1, Some(0), vec![own_term(1, 1), command(2, 1)]),
                    disk(2, Some(2), vec![own_term(1, 2)]),
                ]
            }
            Self::Arrived => {
                for (term, leader) in [(1, 0), (2, 0), (3, 1)] {
                    ghost.won_before(Term(term), ids[leader]);
                }
                ghost.committed_before(own_term(1, 1));
                let mut compacted = disk(2, Some(0), Vec::new());
                compacted.compact(own_term(1, 1).position());
                vec![
                    compacted,
                    disk(3, Some(1), vec![own_term(1, 1), own_term(2, 3)]),
                    disk(2, None, Vec::new()),
                ]
            }
        };
        let mut servers: Vec<Server> = ids
            .iter()
            .zip(disks)
            .map(|(id, disk)| Server::new(*id, disk, append_bytes_max))
            .collect();
        if self == Self::Arrived {
            let snapshot = servers[0].disk.snapshot.clone();
            take_snapshot_and_log(&mut servers[2], ids, snapshot);
        }
        Begun {
            servers,
            under_way,
            ghost,
        }
    }
}

/// The third server of [`Start::Arrived`] hears the first, and then the second. Its answers are lost.
fn take_snapshot_and_log(third: &mut Server, ids: &[ReplicaId], meta: SnapshotMeta) {
    let snapshot = Message::SnapshotChunk {
        term: Term(2),
        meta,
        offset: 0,
        total: 1,
        data: Arc::from([0_u8]),
    };
    let vote = Message::VoteRequest {
        term: Term(3),
        last: own_term(1, 1).position(),
    };
    let append = Message::Append {
        term: Term(3),
        previous: LogPosition::default(),
        entries: vec![own_term(1, 1), own_term(2, 3)],
        commit: LogIndex::ZERO,
        round: RoundId::default(),
    };
    let mut lost = Vec::new();
    for (from, message) in [(ids[0], snapshot), (ids[1], vote), (ids[1], append)] {
        third
            .step(&mut lost, |core, now, out| {
                core.on_message(now, from, message, out);
            })
            .expect("a history that can have happened");
        while !third.writes.is_empty() {
            third
                .persist(&mut lost)
                .expect("a history that can have happened");
        }
    }
}
