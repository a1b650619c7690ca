//! One replica's backbone protocol among peers that say anything: it never panics, and its invariants hold after every call.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_consensus::{
    AppendOutcome, Body, Boot, Config, Configuration, Consensus, Entry, HardState, LogPosition,
    Member, Message, Output, RoundId, SnapshotMeta, Timing, VoterSet, WriteSeq,
};
use quorate_types::{ConfigEpoch, LogIndex, Payload, ReplicaId, Term, Time};
use serde::{Deserialize, Serialize};

use crate::input::Input;

const STEPS_MAX: usize = 200;

/// The smallest command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Word(u8);

impl Payload for Word {
    fn size_bytes(&self) -> usize {
        usize::from(self.0)
    }
}

/// Three voters, perhaps in a joint configuration, and a learner; this replica is one of the voters.
pub(crate) fn configuration(joint: bool) -> Configuration {
    let voters = |ids: &[u64]| VoterSet {
        voters: ids.iter().copied().map(ReplicaId).collect(),
    };
    Configuration {
        epoch: ConfigEpoch(1),
        incoming: voters(&[1, 2, 3]),
        outgoing: joint.then(|| voters(&[1, 3, 5])),
        learners: BTreeSet::from([ReplicaId(4)]),
        members: (1..=5)
            .map(|id| (ReplicaId(id), Member::default()))
            .collect(),
    }
}

/// The settings of the replica under test.
pub(crate) fn settings() -> Config {
    Config {
        id: ReplicaId(1),
        timing: Timing {
            heartbeat_interval: Duration::from_millis(50),
            detection_timeout: Duration::from_millis(500),
            election_jitter: Duration::from_millis(300),
        },
        append_bytes_max: 300,
        appends_in_flight_max: 3,
        uncommitted_bytes_max: 2_000,
        seed: 1,
    }
}

/// Feeds the core.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let configuration = configuration(input.flag());
    let snapshot = SnapshotMeta {
        last: LogPosition::default(),
        configuration,
    };
    let boot = Boot {
        hard_state: HardState::default(),
        snapshot,
        entries: Vec::new(),
    };
    let now = Time(1_000_000_000);
    let mut world = World {
        core: Consensus::new(settings(), boot, now),
        now,
        ordered: WriteSeq(0),
        incoming: None,
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() || !world.step(&mut input) {
            break;
        }
    }
}

struct World {
    core: Consensus<Word>,
    now: Time,
    /// The last write ordered and not yet reported.
    ordered: WriteSeq,
    /// The piece of a snapshot ordered last, and whether it is the last one of the file.
    incoming: Option<(SnapshotMeta, u64, bool)>,
}

impl World {
    /// False: the replica has stopped.
    fn step(&mut self, input: &mut Input<'_>) -> bool {
        let mut out = Vec::new();
        let (core, now) = (&mut self.core, self.now);
        let commit = core.commit();
        let (term, voted) = (core.hard_state().term, core.hard_state().voted_for);
        match input.below(24) {
            0 => {
                self.now = now.max(core.deadline().min(now + Duration::from_secs(1)));
                core.on_tick(self.now, &mut out);
            }
            1 => {
                self.now = now + Duration::from_millis(4 * input.below(256));
                core.on_tick(self.now, &mut out);
            }
            2 => {
                let words = (0..input.below(4)).map(|_| Word(input.u8())).collect();
                let _ = core.propose(now, words, &mut out);
            }
            3 => {
                let _ = core.confirm(now, &mut out);
            }
            4 => {
                let to = input.flag().then(|| ReplicaId(input.below(6)));
                let _ = core.transfer(now, to, &mut out);
            }
            5 => core.on_peer_connected(now, ReplicaId(input.below(6)), &mut out),
            6..=8 => core.on_persisted(now, self.ordered, &mut out),
            9 => self.save_snapshot(input, &mut out),
            10 => self.report_incoming(input, &mut out),
            kind => {
                let from = ReplicaId(input.below(6));
                let message = if kind == 11 {
                    input.decode::<Message<Word>>()
                } else {
                    Some(near_message(&self.core, input, |input| Word(input.u8())))
                };
                let Some(message) = message else {
                    return false;
                };
                self.core.on_message(now, from, message, &mut out);
            }
        }
        self.core.check_invariants();
        assert!(self.core.commit() >= commit, "the commit index went back");
        let vote = self.core.hard_state();
        assert!(vote.term >= term, "the term went back");
        assert!(
            vote.term > term || voted.is_none() || vote.voted_for == voted,
            "the vote of term {term} changed"
        );
        self.carry_out(&out)
    }

    fn save_snapshot(&mut self, input: &mut Input<'_>, out: &mut Vec<Output<Word>>) {
        let index = self.core.commit();
        if let Some(term) = self.core.term_at(index)
            && index > self.core.snapshot().last.index
        {
            let meta = SnapshotMeta {
                last: LogPosition { term, index },
                configuration: self.core.configuration_at(index),
            };
            let retain = input.below(4);
            self.core.on_snapshot_saved(self.now, meta, retain, out);
        }
    }

    fn report_incoming(&mut self, input: &mut Input<'_>, out: &mut Vec<Output<Word>>) {
        let Some((meta, next, is_last)) = self.incoming.take() else {
            return;
        };
        if input.below(4) == 1 {
            self.core.on_snapshot_failed(self.now, &meta, out);
        } else if is_last {
            self.core.on_snapshot_installed(self.now, meta, out);
        } else {
            let core = &mut self.core;
            core.on_snapshot_chunk_written(self.now, &meta, next, out);
        }
    }

    fn carry_out(&mut self, out: &[Output<Word>]) -> bool {
        for output in out {
            match output {
                Output::Persist(write) => {
                    assert!(write.seq > self.ordered, "writes are numbered in order");
                    self.ordered = write.seq;
                }
                Output::SendAfterPersist { write, .. } => {
                    assert!(*write <= self.ordered, "it waits for a write never ordered");
                }
                Output::WriteSnapshotChunk {
                    meta,
                    offset,
                    total,
                    data,
                    ..
                } => {
                    let next = offset + data.len() as u64;
                    assert!(next <= *total, "a piece reaches beyond its file");
                    self.incoming = Some((meta.clone(), next, next == *total));
                }
                Output::Fatal(_) => return false,
                _ => {}
            }
        }
        true
    }
}

/// A message that fits the replica's own term and log more often than not: such get furthest.
pub(crate) fn near_message<C: Payload>(
    core: &Consensus<C>,
    input: &mut Input<'_>,
    command: impl Fn(&mut Input<'_>) -> C,
) -> Message<C> {
    let near = core.last();
    let at = input.position(near);
    let term = Term(input.number(core.term().0));
    let granted = input.flag();
    match input.below(15) {
        0 => Message::PreVoteRequest { term, last: at },
        1 => Message::PreVoteResponse {
            term,
            granted,
            last: at,
        },
        2 => Message::VoteRequest { term, last: at },
        3 => Message::VoteResponse { term, granted },
        4..=6 => {
            let count = input.below(4);
            let entry = |offset: u64, input: &mut Input<'_>| Entry {
                index: LogIndex(input.number(at.index.0.wrapping_add(offset + 1))),
                term: Term(input.number(at.term.0.max(1))),
                body: match input.below(8) {
                    1 => Body::OwnTerm,
                    2 => Body::Configuration(configuration(input.flag())),
                    _ => Body::Command(command(input)),
                },
            };
            Message::Append {
                term,
                previous: at,
                entries: (0..count).map(|offset| entry(offset, input)).collect(),
                commit: LogIndex(input.number(near.index.0)),
                round: RoundId(input.number(1)),
            }
        }
        7 => Message::AppendResponse {
            term,
            outcome: AppendOutcome::Matched { through: at.index },
            round: RoundId(input.number(1)),
        },
        8 => Message::AppendResponse {
            term,
            outcome: AppendOutcome::Conflict {
                refused: LogIndex(input.number(near.index.0)),
                hint: at,
            },
            round: RoundId(input.number(1)),
        },
        9 => Message::Heartbeat {
            term,
            commit: at.index,
            round: RoundId(input.number(1)),
        },
        10 => Message::HeartbeatResponse {
            term,
            round: RoundId(input.number(1)),
            last: at.index,
        },
        11 if granted => Message::TimeoutNow { term },
        11 => Message::SteppedDown { term },
        12 => Message::SnapshotChunk {
            term,
            meta: SnapshotMeta {
                last: at,
                configuration: configuration(granted),
            },
            offset: input.number(0),
            total: input.number(4),
            data: input.take(2).into(),
        },
        13 => Message::SnapshotChunkResponse {
            term,
            last: at,
            next: input.number(2),
        },
        _ => Message::SeenOfYou {
            term,
            seen_term: Term(input.number(core.term().0)),
            seen_vote: granted.then(|| ReplicaId(input.below(4))),
            seen_match: at,
        },
    }
}
