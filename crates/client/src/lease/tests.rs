//! The rules of sections 2 and 3 of the protocol on the holder's side, each with the trace that would break it.

use quorate_types::{GroupName, Revision, TenureNumber};

use super::*;

const TTL: Duration = Duration::from_millis(1_000);

fn at(ms: u64) -> Time {
    Time(ms * 1_000_000)
}

fn tenure(number: u64) -> TenureId {
    let group = GroupName::new("orders/1").expect("a valid name");
    TenureId {
        group,
        incarnation: Revision(3),
        number: TenureNumber(number),
    }
}

fn activate(token: u64) -> DirectiveKind {
    DirectiveKind::Activate {
        token: FencingToken(token),
        predecessor: None,
    }
}

fn standing(number: u64, part: Part) -> StandingTenure {
    StandingTenure {
        tenure: tenure(number),
        part,
        token: FencingToken(7),
        predecessor: None,
        deadline_ms: None,
        successor: None,
    }
}

/// A core without drift, so that the arithmetic reads off.
fn core() -> LeaseCore {
    LeaseCore::new(DriftBound { ppm: 0 })
}

/// One that leads tenure 1 by directive 1, confirmed by a keep-alive sent at 0 and answered at 10 ms.
fn leading() -> LeaseCore {
    let mut core = core();
    let seq = core.keep_alive_sent(at(0));
    core.on_directive(DirectiveSeq(1), tenure(1), activate(7));
    core.keep_alive_answered(seq, TTL, DirectiveSeq(1));
    let events = core.poll(at(10));
    assert_eq!(
        events,
        vec![LeaseEvent::Activated {
            tenure: tenure(1),
            token: FencingToken(7),
            predecessor: None
        }]
    );
    core.check_invariants();
    core
}

/// Keeps alive at `now` with an answer that names `directive_seq`.
fn confirm(core: &mut LeaseCore, now: u64, directive_seq: u64) {
    let seq = core.keep_alive_sent(at(now));
    core.keep_alive_answered(seq, TTL, DirectiveSeq(directive_seq));
    core.check_invariants();
}

#[test]
fn opening_gives_no_belief_and_an_answered_keep_alive_does() {
    let mut core = core();
    core.on_directive(DirectiveSeq(1), tenure(1), activate(7));
    assert!(!core.check(at(0), &tenure(1)));
    assert_eq!(core.poll(at(0)), vec![]);
    confirm(&mut core, 5, 1);
    assert!(core.check(at(6), &tenure(1)));
}

#[test]
fn the_ttl_counts_from_the_send_less_the_drift() {
    let mut core = LeaseCore::new(DriftBound::default());
    let seq = core.keep_alive_sent(at(100));
    core.on_directive(DirectiveSeq(1), tenure(1), activate(7));
    // Answered late: the answer's time does not even come in.
    core.keep_alive_answered(seq, TTL, DirectiveSeq(1));
    assert_eq!(core.valid_until(), Some(at(100 + 990)));
    assert!(core.check(at(1_089), &tenure(1)));
    assert!(!core.check(at(1_090), &tenure(1)));
}

#[test]
fn an_older_answer_arriving_later_does_not_shorten() {
    let mut core = core();
    let first = core.keep_alive_sent(at(0));
    let second = core.keep_alive_sent(at(300));
    core.keep_alive_answered(second, TTL, DirectiveSeq::ZERO);
    core.keep_alive_answered(first, TTL, DirectiveSeq::ZERO);
    assert_eq!(core.valid_until(), Some(at(1_300)));
}

#[test]
fn a_repeated_or_unknown_answer_counts_nothing() {
    let mut core = core();
    let seq = core.keep_alive_sent(at(0));
    core.keep_alive_answered(seq, TTL, DirectiveSeq::ZERO);
    core.keep_alive_answered(seq, TTL * 10, DirectiveSeq::ZERO);
    core.keep_alive_answered(99, TTL * 10, DirectiveSeq::ZERO);
    assert_eq!(core.valid_until(), Some(at(1_000)));
}

#[test]
fn an_answer_naming_an_unprocessed_directive_extends_only_once_it_is_processed() {
    let mut core = leading();
    confirm(&mut core, 500, 2);
    assert_eq!(
        core.valid_until(),
        Some(at(1_000)),
        "directive 2 might revoke the tenure"
    );
    assert!(!core.check(at(1_200), &tenure(1)));
    core.on_directive(
        DirectiveSeq(2),
        tenure(1),
        DirectiveKind::Drain {
            deadline_ms: 10,
            successor: None,
        },
    );
    assert_eq!(core.valid_until(), Some(at(1_500)));
    assert!(
        core.check(at(1_200), &tenure(1)),
        "a draining holder still leads"
    );
}

#[test]
fn a_revoke_ends_belief_and_the_waiting_answer_does_not_revive_it() {
    let mut core = leading();
    confirm(&mut core, 500, 2);
    core.on_directive(DirectiveSeq(2), tenure(1), DirectiveKind::Revoke);
    assert_eq!(core.valid_until(), Some(at(1_500)));
    assert!(!core.check(at(20), &tenure(1)));
    assert_eq!(
        core.poll(at(20)),
        vec![LeaseEvent::Revoked { tenure: tenure(1) }]
    );
    assert_eq!(core.releasing().count(), 1);
}

#[test]
fn an_activation_delivered_after_the_answers_counter_went_past_it_is_not_believed_on_that_answer() {
    // The tenure was granted by 1 and revoked by 2 while the stream was stuck; answers already name 2.
    let mut core = core();
    confirm(&mut core, 0, 2);
    core.on_directive(DirectiveSeq(1), tenure(1), activate(7));
    assert!(!core.check(at(1), &tenure(1)));
    assert_eq!(core.poll(at(1)), vec![]);
    core.on_directive(DirectiveSeq(2), tenure(1), DirectiveKind::Revoke);
    assert!(!core.check(at(2), &tenure(1)));
}

#[test]
fn a_gap_asks_for_the_full_picture_once_and_extends_nothing_until_then() {
    let mut core = leading();
    core.on_directive(DirectiveSeq(3), tenure(2), activate(9));
    core.on_directive(DirectiveSeq(4), tenure(2), DirectiveKind::Continue);
    assert_eq!(
        core.poll(at(20)),
        vec![LeaseEvent::NeedResync {
            processed: DirectiveSeq(1)
        }]
    );
    confirm(&mut core, 500, 1);
    assert_eq!(core.valid_until(), Some(at(1_000)));
    assert!(
        core.check(at(999), &tenure(1)),
        "what was confirmed stays so until its time"
    );
    core.on_standing(DirectiveSeq(4), vec![standing(1, Part::Active)]);
    assert_eq!(core.valid_until(), Some(at(1_500)));
    assert_eq!(core.processed(), DirectiveSeq(4));
}

#[test]
fn a_revoke_beyond_a_gap_ends_belief_at_once_and_for_good() {
    let mut core = leading();
    core.on_directive(DirectiveSeq(3), tenure(1), DirectiveKind::Revoke);
    assert!(!core.check(at(20), &tenure(1)));
    core.on_standing(DirectiveSeq(2), vec![standing(1, Part::Active)]);
    assert!(!core.check(at(20), &tenure(1)));
}

#[test]
fn a_standing_older_than_what_was_processed_is_ignored() {
    let mut core = leading();
    core.on_directive(DirectiveSeq(2), tenure(1), DirectiveKind::Revoke);
    core.on_directive(
        DirectiveSeq(3),
        tenure(1),
        DirectiveKind::Ended {
            cause: Cause::WaitedOut,
        },
    );
    core.on_standing(DirectiveSeq(1), vec![standing(1, Part::Active)]);
    assert!(!core.check(at(20), &tenure(1)));
    assert_eq!(core.processed(), DirectiveSeq(3));
    assert_eq!(core.tenures().count(), 0);
}

#[test]
fn a_begun_release_ends_belief_and_no_later_picture_or_continue_revives_it() {
    let mut core = leading();
    core.begin_release(&tenure(1));
    assert!(!core.check(at(20), &tenure(1)));
    core.on_standing(DirectiveSeq(1), vec![standing(1, Part::Active)]);
    assert!(!core.check(at(20), &tenure(1)));
    core.on_directive(DirectiveSeq(2), tenure(1), DirectiveKind::Continue);
    confirm(&mut core, 30, 2);
    assert!(!core.check(at(40), &tenure(1)));
    assert_eq!(core.releasing().collect::<Vec<_>>(), vec![&tenure(1)]);
    core.on_directive(
        DirectiveSeq(3),
        tenure(1),
        DirectiveKind::Ended {
            cause: Cause::Released,
        },
    );
    assert_eq!(core.releasing().count(), 0);
    core.on_directive(DirectiveSeq(4), tenure(2), activate(9));
    assert!(
        core.check(at(50), &tenure(2)),
        "the next tenure is another one"
    );
}

#[test]
fn past_the_confirmation_the_check_is_false_and_the_same_tenure_can_be_confirmed_again() {
    let mut core = leading();
    assert_eq!(core.next_deadline(), Some(at(1_000)));
    assert!(!core.check(at(1_000), &tenure(1)));
    assert_eq!(
        core.poll(at(1_000)),
        vec![LeaseEvent::Unconfirmed { tenure: tenure(1) }]
    );
    assert_eq!(core.next_deadline(), None);
    confirm(&mut core, 1_200, 1);
    assert!(core.check(at(1_300), &tenure(1)));
    assert_eq!(
        core.poll(at(1_300)),
        vec![LeaseEvent::Confirmed { tenure: tenure(1) }]
    );
    assert_eq!(core.token(&tenure(1)), Some(FencingToken(7)));
}

#[test]
fn a_picture_without_a_tenure_loses_it_and_one_with_a_new_one_announces_it() {
    let mut core = leading();
    core.on_standing(
        DirectiveSeq(9),
        vec![standing(2, Part::Draining), standing(3, Part::Successor)],
    );
    let events = core.poll(at(20));
    assert_eq!(
        events,
        vec![
            LeaseEvent::CatchUp { tenure: tenure(3) },
            LeaseEvent::Lost {
                tenure: tenure(1),
                cause: LostCause::Superseded
            },
            LeaseEvent::Activated {
                tenure: tenure(2),
                token: FencingToken(7),
                predecessor: None
            },
            LeaseEvent::Draining {
                tenure: tenure(2),
                deadline_ms: 0,
                successor: None
            },
        ]
    );
    assert!(!core.check(at(20), &tenure(3)));
}

#[test]
fn a_session_that_is_gone_loses_everything_for_good() {
    let mut core = leading();
    let seq = core.keep_alive_sent(at(50));
    core.session_gone();
    core.keep_alive_answered(seq, TTL, DirectiveSeq(1));
    core.on_directive(DirectiveSeq(2), tenure(2), activate(9));
    core.on_standing(DirectiveSeq(5), vec![standing(1, Part::Active)]);
    core.check_invariants();
    assert!(!core.check(at(60), &tenure(1)) && !core.check(at(60), &tenure(2)));
    assert_eq!(core.valid_until(), None);
    let cause = LostCause::SessionGone;
    assert_eq!(
        core.poll(at(60)),
        vec![
            LeaseEvent::Lost {
                tenure: tenure(1),
                cause
            },
            LeaseEvent::SessionLost { cause }
        ]
    );
}

#[test]
fn memory_is_bounded_however_many_answers_wait() {
    let mut core = core();
    for n in 1..10_000 {
        confirm(&mut core, n, n + 1);
    }
    for _ in 0..10_000 {
        core.keep_alive_sent(at(20_000));
    }
    core.check_invariants();
}
