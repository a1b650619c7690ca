//! Whatever a peer sends, a replica neither panics nor breaks its invariants.

use crate::cluster::{Word, configuration, settings};
use quorate_consensus::{
    AppendOutcome, Body, Boot, Consensus, Entry, HardState, LogPosition, Message, Output, RoundId,
    SnapshotMeta,
};
use quorate_types::{LogIndex, ReplicaId, Term, Time};

#[test]
fn garbage_never_panics() {
    for seed in 0..300 {
        println!("seed {seed}");
        let mut garbage = Garbage {
            rng: fastrand::Rng::with_seed(seed),
        };
        let mut config = settings(seed);
        config.id = ReplicaId(1);
        let snapshot = SnapshotMeta {
            last: LogPosition::default(),
            configuration: configuration(&[1, 2, 3], None, &[4]),
        };
        let boot = Boot {
            hard_state: HardState::default(),
            snapshot,
            entries: Vec::new(),
        };
        let mut now = Time(1_000_000_000);
        let mut core: Consensus<Word> = Consensus::new(config, boot, now);
        for _ in 0..400 {
            let mut out = Vec::new();
            match garbage.rng.u8(0..12) {
                0 => {
                    now = now.max(core.deadline().min(now + std::time::Duration::from_secs(1)));
                    core.on_tick(now, &mut out);
                }
                1 => drop(core.propose(now, vec![Word("w".into())], &mut out)),
                2 => drop(core.confirm(now, &mut out)),
                3 => drop(core.transfer(now, None, &mut out)),
                _ => {
                    // What fits the replica's own term and log gets further than what does not.
                    let near = (core.term(), core.last());
                    let from = ReplicaId(garbage.rng.u64(0..6));
                    let message = garbage.message(near);
                    core.on_message(now, from, message, &mut out);
                }
            }
            core.check_invariants();
            let through = out.iter().filter_map(|output| match output {
                Output::Persist(write) => Some(write.seq),
                _ => None,
            });
            let through = through.max();
            let is_fatal = out.iter().any(|output| matches!(output, Output::Fatal(_)));
            if let Some(through) = through
                && garbage.rng.bool()
            {
                core.on_persisted(now, through, &mut out);
                core.check_invariants();
            }
            if is_fatal {
                break;
            }
        }
    }
}

struct Garbage {
    rng: fastrand::Rng,
}

impl Garbage {
    fn number(&mut self, near: u64) -> u64 {
        match self.rng.u8(0..16) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX / 2,
            3 => self.rng.u64(..),
            4..8 => near.saturating_add(self.rng.u64(0..4)).saturating_sub(2),
            _ => near,
        }
    }

    fn position(&mut self, near: LogPosition) -> LogPosition {
        LogPosition {
            term: Term(self.number(near.term.0)),
            index: LogIndex(self.number(near.index.0)),
        }
    }

    fn message(&mut self, (term, near): (Term, LogPosition)) -> Message<Word> {
        let at = self.position(near);
        let mut term = Term(self.number(term.0));
        if self.rng.u8(0..8) > 0 {
            // Most huge terms would only end the story early.
            term = term.min(Term(near.term.0 + 10));
        }
        let round = RoundId(self.number(1));
        let granted = self.rng.bool();
        match self.rng.u8(0..13) {
            0 => Message::PreVoteRequest { term, last: at },
            1 => Message::PreVoteResponse {
                term,
                granted,
                last: at,
            },
            2 => Message::VoteRequest { term, last: at },
            3 => Message::VoteResponse { term, granted },
            4 | 5 => {
                let count = self.rng.u64(0..4);
                let entry = |offset: u64| Entry {
                    index: LogIndex(at.index.0.saturating_add(offset + 1)),
                    term: at.term.max(Term(1)),
                    body: Body::Command(Word("g".into())),
                };
                let mut entries: Vec<Entry<Word>> = (0..count).map(entry).collect();
                if self.rng.u8(0..6) == 0 {
                    self.rng.shuffle(&mut entries);
                }
                let commit = LogIndex(self.number(near.index.0));
                Message::Append {
                    term,
                    previous: at,
                    entries,
                    commit,
                    round,
                }
            }
            6 => Message::AppendResponse {
                term,
                outcome: AppendOutcome::Matched { through: at.index },
                round,
            },
            7 => {
                let outcome = AppendOutcome::Conflict {
                    refused: LogIndex(self.number(near.index.0)),
                    hint: at,
                };
                Message::AppendResponse {
                    term,
                    outcome,
                    round,
                }
            }
            8 => Message::Heartbeat {
                term,
                commit: at.index,
                round,
            },
            9 => Message::HeartbeatResponse {
                term,
                round,
                last: at.index,
            },
            10 if granted => Message::TimeoutNow { term },
            10 => Message::SteppedDown { term },
            11 => {
                let meta = SnapshotMeta {
                    last: at,
                    configuration: configuration(&[1, 2, 3], None, &[]),
                };
                let (offset, total) = (self.number(0), self.number(4));
                Message::SnapshotChunk {
                    term,
                    meta,
                    offset,
                    total,
                    data: [1, 2].as_slice().into(),
                }
            }
            _ => Message::SnapshotChunkResponse {
                term,
                last: at,
                next: self.number(2),
            },
        }
    }
}
