//! Starting from what a crash left, and the limits of a leader.

use std::time::Duration;

use quorate_consensus::{
    Body, Boot, Consensus, Entry, HardState, LogPosition, Output, ProposeError, Role, SnapshotMeta,
    Write,
};
use quorate_types::{LogIndex, ReplicaId, Term, Time};

use crate::cluster::{Word, configuration, settings};

const START: Time = Time(1_000_000_000);

fn entry(index: u64, term: u64) -> Entry<Word> {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        body: Body::Command(Word(format!("w{index}"))),
    }
}

fn at(index: u64, term: u64) -> LogPosition {
    LogPosition {
        index: LogIndex(index),
        term: Term(term),
    }
}

/// A single voter booted from the term, snapshot and entries given.
fn boot(term: u64, snapshot: LogPosition, entries: Vec<Entry<Word>>) -> Consensus<Word> {
    let mut config = settings(1);
    config.id = ReplicaId(1);
    let snapshot = SnapshotMeta {
        last: snapshot,
        configuration: configuration(&[1], None, &[]),
    };
    let hard_state = HardState {
        term: Term(term),
        voted_for: None,
    };
    Consensus::new(
        config,
        Boot {
            hard_state,
            snapshot,
            entries,
        },
        START,
    )
}

/// Lets a single voter win, and returns all it wrote until then.
fn lead(core: &mut Consensus<Word>) -> Vec<Write<Word>> {
    let mut out = Vec::new();
    let now = core.deadline();
    core.on_tick(now, &mut out);
    core.check_invariants();
    let mut writes = Vec::new();
    while !out.is_empty() {
        let mut next = Vec::new();
        for output in out {
            if let Output::Persist(write) = output {
                core.on_persisted(now, write.seq, &mut next);
                core.check_invariants();
                writes.push(write);
            }
        }
        out = next;
    }
    assert_eq!(core.role(), Role::Leader);
    writes
}

#[test]
fn a_single_voter_leads_and_commits_alone() {
    let mut core = boot(0, at(0, 0), Vec::new());
    lead(&mut core);
    assert_eq!(core.commit(), LogIndex(1));
    let mut out = Vec::new();
    let round = core.confirm(START, &mut out).unwrap();
    assert_eq!(out, [Output::Confirmed { round }]);
}

#[test]
fn entries_before_the_snapshot_are_kept_for_slow_followers() {
    let core = boot(
        2,
        at(4, 1),
        vec![entry(2, 1), entry(3, 1), entry(4, 1), entry(5, 2)],
    );
    assert_eq!(
        (core.first_index(), core.commit(), core.last()),
        (LogIndex(3), LogIndex(4), at(5, 2))
    );
}

#[test]
fn a_log_that_ends_before_the_snapshot_is_purged_before_anything_is_appended() {
    for entries in [Vec::new(), vec![entry(1, 1), entry(2, 1)]] {
        let mut core = boot(1, at(4, 1), entries);
        assert_eq!(core.last(), at(4, 1));
        let writes = lead(&mut core);
        let of_log: Vec<&Write<Word>> = writes
            .iter()
            .filter(|write| write.purge_through.is_some() || !write.entries.is_empty())
            .collect();
        assert_eq!(
            (of_log[0].truncate_from, of_log[0].purge_through),
            (None, Some(at(4, 1)))
        );
        assert_eq!(of_log[1].entries[0].index, LogIndex(5));
    }
}

#[test]
fn a_log_that_contradicts_the_snapshot_is_dropped_from_there_on() {
    let mut core = boot(3, at(2, 2), vec![entry(1, 1), entry(2, 1), entry(3, 1)]);
    assert_eq!(core.last(), at(2, 2));
    let writes = lead(&mut core);
    let repair = writes
        .iter()
        .find(|write| write.purge_through.is_some())
        .unwrap();
    assert_eq!(
        (repair.truncate_from, repair.purge_through),
        (Some(LogIndex(2)), Some(at(2, 2)))
    );
}

#[test]
fn a_snapshot_of_a_later_term_raises_the_term() {
    let mut core = boot(1, at(4, 3), Vec::new());
    assert_eq!((core.term(), core.term_durable()), (Term(3), Term(1)));
    lead(&mut core);
    assert_eq!(core.term(), Term(4));
}

#[test]
fn a_leader_refuses_more_than_its_limit_uncommitted() {
    let mut core = boot(0, at(0, 0), Vec::new());
    lead(&mut core);
    let (mut out, word) = (Vec::new(), Word("x".repeat(900)));
    core.propose(START, vec![word.clone()], &mut out).unwrap();
    let refused = core.propose(START, vec![word.clone()], &mut out);
    assert!(
        matches!(
            refused,
            Err(ProposeError::Overloaded {
                limit_bytes: 1_000,
                ..
            })
        ),
        "{refused:?}"
    );
    let Some(Output::Persist(write)) = out.pop() else {
        panic!("nothing written: {out:?}")
    };
    core.on_persisted(START, write.seq, &mut out);
    core.propose(START, vec![word], &mut out).unwrap();
}

#[test]
fn new_timing_counts_from_when_the_running_timeout_began() {
    let mut core = boot(0, at(0, 0), Vec::new());
    let mut timing = settings(1).timing;
    timing.detection_timeout = Duration::from_secs(2);
    timing.election_jitter = Duration::ZERO;
    core.set_timing(START + Duration::from_millis(50), timing, &mut Vec::new());
    assert_eq!(core.deadline(), START + Duration::from_secs(2));
}
