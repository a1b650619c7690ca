//! Watches against the plain list of everything that ever happened.

use std::collections::BTreeMap;

use quorate_coord::kv::{Blob, KeyRange, KeyValue, KvChange};

use super::*;

/// Everything that happened, and what of it is kept.
#[derive(Clone, Debug)]
struct Log {
    revision: u64,
    compacted: u64,
    changes: Vec<KvChange>,
}

impl Log {
    fn new() -> Self {
        Self {
            revision: 1,
            compacted: 0,
            changes: Vec::new(),
        }
    }

    /// Changes some keys in one revision: puts where there is a value, else deletions.
    fn write(&mut self, changes: &[(&str, Option<&str>)]) {
        self.revision += 1;
        for (key, value) in changes {
            let key = Blob::from(*key);
            let now = self.whole_history_at(&key, self.revision);
            let change = match value {
                Some(value) => KvChange::Put(KeyValue {
                    key,
                    value: Blob::from(*value),
                    create_revision: now.as_ref().map_or(self.revision, |n| n.create_revision),
                    mod_revision: self.revision,
                    version: now.map_or(1, |n| n.version + 1),
                    lease: 0,
                }),
                None => KvChange::Delete {
                    key,
                    mod_revision: self.revision,
                },
            };
            self.changes.push(change);
        }
    }

    fn whole_history_at(&self, key: &[u8], revision: u64) -> Option<KeyValue> {
        let mut of_key = self.changes.iter().rev();
        match of_key.find(|c| c.key().as_bytes() == key && c.mod_revision() <= revision)? {
            KvChange::Put(now) => Some(now.clone()),
            KvChange::Delete { .. } => None,
        }
    }
}

impl KvLog for Log {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn compacted(&self) -> u64 {
        self.compacted
    }

    fn changes(&self, from: u64) -> impl Iterator<Item = &KvChange> {
        assert!(from >= self.compacted, "{from} was compacted");
        let start = self.changes.partition_point(|c| c.mod_revision() < from);
        self.changes[start..].iter()
    }

    fn at(&self, key: &[u8], revision: u64) -> Option<KeyValue> {
        (revision >= self.compacted)
            .then(|| self.whole_history_at(key, revision))
            .flatten()
    }
}

type Hub = KvWatches<u32>;

fn range(key: &str, end: &str) -> KeyRange {
    KeyRange {
        key: Blob::from(key),
        range_end: Blob::from(end),
    }
}

fn spec(key: &str, end: &str) -> KvWatchSpec {
    KvWatchSpec {
        range: range(key, end),
        ..KvWatchSpec::default()
    }
}

fn hub(log: &Log) -> (Hub, KvStreamId) {
    let mut hub = Hub::new(log.revision, KvWatchLimits::default());
    let stream = hub.open(1);
    (hub, stream)
}

/// Everything that is for a stream now, in the order in which it is sent.
fn drain(hub: &mut Hub, stream: KvStreamId, log: &Log) -> Vec<KvNotice> {
    let mut told = Vec::new();
    loop {
        let taken = hub.take(stream);
        if taken.notices.is_empty() && taken.catch_up.is_none() {
            return told;
        }
        told.extend(taken.notices);
        if let Some(catch_up) = taken.catch_up {
            told.extend(hub.settle(catch_up.scan(log)));
        }
        hub.check_invariants();
    }
}

fn dispatch(hub: &mut Hub, log: &Log) -> Vec<u32> {
    let mut woken = Vec::new();
    while hub.dispatch(log, &mut woken) {}
    hub.check_invariants();
    woken
}

/// Short forms: `+1@5` created, `1:a=x,-b@7` events, `!1` cancelled, `!1 compacted 4`, `~1@9` progress, `no ...`.
fn short(notices: &[KvNotice]) -> Vec<String> {
    let one = |event: &KvEvent| {
        let text = |blob: &Blob| String::from_utf8_lossy(blob).into_owned();
        let change = match &event.change {
            KvChange::Put(now) => format!("{}={}", text(&now.key), text(&now.value)),
            KvChange::Delete { key, .. } => format!("-{}", text(key)),
        };
        match &event.prev {
            Some(prev) => format!("{change}({})", text(&prev.value)),
            None => change,
        }
    };
    let notice = |notice: &KvNotice| match notice {
        KvNotice::Created { id, revision } => format!("+{id}@{revision}"),
        KvNotice::Refused { why, revision } => format!("no {why:?}@{revision}"),
        KvNotice::Canceled { id, revision } => format!("!{id}@{revision}"),
        KvNotice::Compacted { id, compacted } => format!("!{id} compacted {compacted}"),
        KvNotice::Events {
            id,
            events,
            revision,
            ..
        } => {
            let events: Vec<_> = events.iter().map(one).collect();
            format!("{id}:{}@{revision}", events.join(","))
        }
        KvNotice::Progress { id, revision } => format!("~{id}@{revision}"),
    };
    notices.iter().map(notice).collect()
}

#[test]
fn ids_are_chosen_or_drawn_and_a_second_of_an_id_is_refused() {
    let log = Log::new();
    let (mut hub, stream) = hub(&log);
    let with_id = |id| KvWatchSpec {
        id,
        ..spec("a", "")
    };
    for id in [7, 7, 0, 0, -1, 2, 0, 0] {
        hub.create(stream, &with_id(id), 1);
    }
    hub.create(stream, &spec("b", "a"), 1);
    hub.create(stream, &spec("b", "b"), 1);
    hub.cancel(stream, 99, 1);
    hub.cancel(stream, 7, 1);
    hub.create(stream, &with_id(7), 1);
    let told = short(&drain(&mut hub, stream, &log));
    let expected = [
        "+7@1",
        "no DuplicateId@1",
        "+0@1",
        "+1@1",
        "+-1@1",
        "+2@1",
        "+3@1",
        "+4@1",
        "no EmptyRange@1",
        "no EmptyRange@1",
        "!7@1",
        "+7@1",
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_watch_starts_in_the_past_now_or_in_the_future() {
    let mut log = Log::new();
    for value in ["1", "2", "3"] {
        log.write(&[("a", Some(value))]);
    }
    let (mut hub, stream) = hub(&log);
    for (id, start_revision) in [(1, 3), (2, 0), (3, 6), (4, -5), (5, 4)] {
        let spec = KvWatchSpec {
            id,
            start_revision,
            prev_kv: id == 1,
            ..spec("a", "")
        };
        hub.create(stream, &spec, log.revision);
    }
    let told = short(&drain(&mut hub, stream, &log));
    assert_eq!(told[..5], ["+1@4", "+2@4", "+3@4", "+4@4", "+5@4"]);
    assert_eq!(
        told[5..],
        ["1:a=2(1),a=3(2)@4", "4:a=1,a=2,a=3@4", "5:a=3@4"]
    );
    log.write(&[("a", Some("4"))]);
    log.write(&[("a", None)]);
    assert_eq!(dispatch(&mut hub, &log), [1], "woken once");
    let told = short(&drain(&mut hub, stream, &log));
    assert_eq!(
        told,
        [
            "1:a=4(3),-a(4)@6",
            "2:a=4,-a@6",
            "3:-a@6",
            "4:a=4,-a@6",
            "5:a=4,-a@6"
        ]
    );
}

#[test]
fn filters_and_ranges_leave_out_what_they_say() {
    let mut log = Log::new();
    let (mut hub, stream) = hub(&log);
    let filtered = |id, no_put, no_delete| KvWatchSpec {
        id,
        no_put,
        no_delete,
        ..spec("a", "c")
    };
    hub.create(stream, &filtered(1, true, false), 1);
    hub.create(stream, &filtered(2, false, true), 1);
    hub.create(stream, &filtered(3, true, true), 1);
    hub.create(
        stream,
        &KvWatchSpec {
            id: 4,
            ..spec("b", "\0")
        },
        1,
    );
    hub.create(
        stream,
        &KvWatchSpec {
            id: 5,
            ..spec("", "\0")
        },
        1,
    );
    hub.create(
        stream,
        &KvWatchSpec {
            id: 6,
            ..spec("", "")
        },
        1,
    );
    drain(&mut hub, stream, &log);
    log.write(&[("c", Some("1")), ("a", Some("1"))]);
    log.write(&[("a", None)]);
    log.write(&[("b", Some("2")), ("\0", Some("0"))]);
    dispatch(&mut hub, &log);
    let told = short(&drain(&mut hub, stream, &log));
    assert_eq!(
        told,
        [
            "1:-a@3",
            "2:a=1,b=2@4",
            "4:c=1,b=2@4",
            "5:c=1,a=1,-a,b=2,\0=0@4",
            "6:\0=0@4"
        ]
    );
}

#[test]
fn who_needs_what_was_compacted_is_told_through_where() {
    let mut log = Log::new();
    for value in ["1", "2", "3", "4"] {
        log.write(&[("a", Some(value))]);
    }
    log.compacted = 3;
    let (mut hub, stream) = hub(&log);
    for (id, start_revision) in [(1, 2), (2, 3), (3, -1), (4, 0)] {
        let spec = KvWatchSpec {
            id,
            start_revision,
            prev_kv: true,
            ..spec("a", "")
        };
        hub.create(stream, &spec, log.revision);
    }
    let told = short(&drain(&mut hub, stream, &log));
    assert_eq!(
        told[4..],
        ["!1 compacted 3", "2:a=2,a=3(2),a=4(3)@5", "!3 compacted 3"],
        "the revision itself is still there, what was before it is not"
    );
    assert_eq!(hub.stats().watches, 2);
}

#[test]
fn key_that_one_transaction_deletes_and_puts_has_nothing_before_it() {
    let mut log = Log::new();
    log.write(&[("a", Some("1"))]);
    log.write(&[("a", None), ("a", Some("2"))]);
    log.write(&[("a", Some("3"))]);
    let (mut hub, stream) = hub(&log);
    let spec = KvWatchSpec {
        id: 1,
        start_revision: 3,
        prev_kv: true,
        ..spec("a", "")
    };
    hub.create(stream, &spec, log.revision);
    let told = short(&drain(&mut hub, stream, &log));
    assert_eq!(told[1..], ["1:-a(1),a=2,a=3(2)@4"]);
}

#[test]
fn after_a_snapshot_watches_go_on_or_are_told_that_it_was_compacted() {
    let mut log = Log::new();
    let (mut hub, stream) = hub(&log);
    hub.create(
        stream,
        &KvWatchSpec {
            id: 1,
            ..spec("a", "")
        },
        1,
    );
    let future = KvWatchSpec {
        id: 2,
        start_revision: 7,
        ..spec("a", "")
    };
    hub.create(stream, &future, 1);
    drain(&mut hub, stream, &log);
    for value in ["2", "3", "4", "5", "6", "7", "8"] {
        log.write(&[("a", Some(value))]);
    }
    let mut compacted = log.clone();
    compacted.compacted = 4;
    dispatch(&mut hub, &compacted);
    let told = short(&drain(&mut hub, stream, &compacted));
    assert_eq!(told, ["2:a=7,a=8@8", "!1 compacted 4"]);
    let (mut hub, stream) = self::hub(&Log::new());
    hub.create(
        stream,
        &KvWatchSpec {
            id: 1,
            ..spec("a", "")
        },
        1,
    );
    dispatch(&mut hub, &log);
    let told = short(&drain(&mut hub, stream, &log));
    assert_eq!(told, ["+1@1", "1:a=2,a=3,a=4,a=5,a=6,a=7,a=8@8"]);
}

#[test]
fn a_full_queue_makes_a_watch_fall_behind_and_no_other() {
    let mut log = Log::new();
    let limits = KvWatchLimits {
        stream_bytes_max: 1_000,
        piece_changes_max: 3,
        ..KvWatchLimits::default()
    };
    let mut hub = Hub::new(log.revision, limits);
    let (slow, fast) = (hub.open(1), hub.open(2));
    for stream in [slow, fast] {
        hub.create(
            stream,
            &KvWatchSpec {
                id: 1,
                ..spec("a", "")
            },
            1,
        );
        hub.create(
            stream,
            &KvWatchSpec {
                id: 2,
                ..spec("b", "")
            },
            1,
        );
    }
    drain(&mut hub, fast, &log);
    let mut told_fast = Vec::new();
    for number in 0..50 {
        let value = number.to_string();
        log.write(&[("a", Some(&value))]);
        dispatch(&mut hub, &log);
        told_fast.extend(drain(&mut hub, fast, &log));
    }
    assert_eq!(told_fast.len(), 50, "each at once");
    assert_eq!(hub.stats().behind, 1);
    assert!(hub.stats().queued_bytes <= 1_000);
    hub.ask_progress(slow, log.revision);
    hub.ask_progress(fast, log.revision);
    assert_eq!(short(&drain(&mut hub, fast, &log)), ["~-1@51"]);
    let told = drain(&mut hub, slow, &log);
    let events: usize = told
        .iter()
        .map(|notice| match notice {
            KvNotice::Events { events, .. } => events.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(events, 50);
    assert_eq!(
        short(&told).last().unwrap(),
        "~-1@51",
        "answered once none is behind"
    );
    assert_eq!(hub.stats().behind, 0);
    hub.close(slow);
    hub.close(fast);
    hub.check_invariants();
    assert_eq!(hub.stats(), KvWatchStats::default());
}

#[test]
fn periodic_progress_is_for_those_that_were_told_nothing() {
    let mut log = Log::new();
    let (mut hub, stream) = hub(&log);
    for (id, key, progress) in [(1, "a", true), (2, "b", true), (3, "c", false)] {
        let spec = KvWatchSpec {
            id,
            progress,
            ..spec(key, "")
        };
        hub.create(stream, &spec, 1);
    }
    drain(&mut hub, stream, &log);
    log.write(&[("a", Some("1"))]);
    dispatch(&mut hub, &log);
    drain(&mut hub, stream, &log);
    hub.tick_progress(stream);
    assert_eq!(short(&drain(&mut hub, stream, &log)), ["~2@2"]);
    hub.tick_progress(stream);
    assert_eq!(short(&drain(&mut hub, stream, &log)), ["~1@2", "~2@2"]);
}

#[test]
fn progress_is_answered_only_when_what_was_published_was_dispatched() {
    let mut log = Log::new();
    let (mut hub, stream) = hub(&log);
    hub.create(stream, &spec("a", ""), 1);
    log.write(&[("a", Some("1"))]);
    hub.ask_progress(stream, log.revision);
    assert_eq!(short(&drain(&mut hub, stream, &log)), ["+0@1"]);
    assert_eq!(dispatch(&mut hub, &log), [1]);
    assert_eq!(short(&drain(&mut hub, stream, &log)), ["0:a=1@2", "~-1@2"]);
}

/// What one client of the random test knows.
#[derive(Default)]
struct Client {
    stream: Option<KvStreamId>,
    /// What each live watch must be told next, as an index into all changes.
    watches: BTreeMap<i64, (KvWatchSpec, usize)>,
    /// Created, in this order, but not told so yet.
    coming: Vec<KvWatchSpec>,
    events: usize,
    compacted: usize,
}

fn in_range(range: &KeyRange, key: &[u8]) -> bool {
    match range.range_end.as_bytes() {
        [] => range.key.as_bytes() == key,
        [0] => range.key.as_bytes() <= key,
        end => range.key.as_bytes() <= key && key < end,
    }
}

impl Client {
    fn wants(spec: &KvWatchSpec, change: &KvChange) -> bool {
        let kind = match change {
            KvChange::Put(_) => spec.no_put,
            KvChange::Delete { .. } => spec.no_delete,
        };
        let start = u64::try_from(spec.start_revision).unwrap();
        change.mod_revision() >= start && !kind && in_range(&spec.range, change.key())
    }

    /// The next change that a watch must be told of.
    fn due<'a>(spec: &KvWatchSpec, next: usize, log: &'a Log) -> Option<(usize, &'a KvChange)> {
        let mut rest = log.changes.iter().enumerate().skip(next);
        rest.find(|(_, change)| Self::wants(spec, change))
    }

    fn hear(&mut self, notice: &KvNotice, log: &Log) {
        let nothing_due_through = |spec: &KvWatchSpec, next, revision| {
            if let Some((_, change)) = Self::due(spec, next, log) {
                assert!(
                    change.mod_revision() > revision,
                    "{change:?} was skipped: said to be complete through {revision}"
                );
            }
        };
        match notice {
            KvNotice::Created { id, revision } => {
                let mut spec = self.coming.remove(0);
                if spec.start_revision == 0 {
                    spec.start_revision = i64::try_from(revision + 1).unwrap();
                }
                assert!(self.watches.insert(*id, (spec, 0)).is_none());
            }
            KvNotice::Canceled { id, .. } => {
                self.watches.remove(id).expect("cancelled once");
            }
            KvNotice::Compacted { id, compacted } => {
                let (spec, next) = self.watches.remove(id).expect("cancelled once");
                assert!(*compacted <= log.compacted);
                let told = next
                    .checked_sub(1)
                    .map(|last| log.changes[last].mod_revision());
                assert!(told.is_none_or(|told| told < *compacted), "{spec:?}");
                self.compacted += 1;
            }
            KvNotice::Events {
                id,
                events,
                revision,
                ..
            } => {
                let (spec, next) = self.watches.get_mut(id).expect("a live watch");
                for event in events {
                    let (at, due) = Self::due(spec, *next, log).expect("something is due");
                    assert_eq!(event.change, *due, "a gap, a repetition or a wrong order");
                    let at_revision = due.mod_revision();
                    let before = log.whole_history_at(due.key(), at_revision - 1);
                    if event.prev.is_some() {
                        assert!(spec.prev_kv);
                        assert_eq!(event.prev, before);
                    } else if spec.prev_kv && before.is_some() {
                        assert!(at_revision - 1 < log.compacted, "the previous is missing");
                    }
                    *next = at + 1;
                    self.events += 1;
                }
                nothing_due_through(spec, *next, *revision);
            }
            KvNotice::Progress { id, revision } => {
                for (of, (spec, next)) in &self.watches {
                    if *id == NO_WATCH_ID || of == id {
                        nothing_due_through(spec, *next, *revision);
                    }
                }
            }
            KvNotice::Refused { why, .. } => panic!("{why:?}"),
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

fn random_spec(random: &mut Random, log: &Log) -> KvWatchSpec {
    let key = format!("k{}", random.below(12));
    let end = match random.below(4) {
        0 => String::new(),
        1 => "\0".to_owned(),
        _ => format!("{key}{}", random.below(3)),
    };
    let start_revision = match random.below(4) {
        0 => 0,
        1 => log.revision + random.below(20),
        _ => 1 + random.below(log.revision),
    };
    KvWatchSpec {
        id: 0,
        range: range(&key, &end),
        start_revision: i64::try_from(start_revision).unwrap(),
        prev_kv: random.one_in(3),
        no_put: random.one_in(8),
        no_delete: random.one_in(8),
        progress: random.one_in(2),
        fragment: false,
    }
}

/// One run: writers, compactions, jumps over many versions, and clients of any speed. Returns how many events and compactions were told.
fn run(seed: u64) -> (usize, usize) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let random = &mut random;
    let mut log = Log::new();
    let limits = KvWatchLimits {
        stream_bytes_max: 1_500,
        total_bytes_max: 3_000,
        piece_changes_max: 1 + usize::try_from(random.below(12)).unwrap(),
        piece_bytes_max: 2_000,
        piece_watches_max: 3,
    };
    let mut hub = Hub::new(log.revision, limits);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::default()).collect();
    let mut woken = Vec::new();
    let dispatch_often = random.below(6) + 1;
    for step in 0..1_200_u32 {
        match random.below(10) {
            0..=3 => {
                let mut keys: Vec<u64> =
                    (0..1 + random.below(4)).map(|_| random.below(15)).collect();
                keys.sort_unstable();
                keys.dedup();
                let named: Vec<(String, Option<String>)> = keys
                    .into_iter()
                    .map(|key| {
                        (
                            format!("k{key}"),
                            (!random.one_in(4)).then(|| step.to_string()),
                        )
                    })
                    .collect();
                let changes: Vec<(&str, Option<&str>)> = named
                    .iter()
                    .map(|(key, value)| (key.as_str(), value.as_deref()))
                    .collect();
                log.write(&changes);
            }
            4 if random.one_in(12) => {
                log.compacted += random.below(log.revision - log.compacted + 1);
            }
            5 => {
                let at = usize::try_from(random.below(4)).unwrap();
                let client = &mut clients[at];
                let stream = *client.stream.get_or_insert_with(|| hub.open(7));
                match random.below(8) {
                    0 => {
                        hub.close(stream);
                        let (events, compacted) = (client.events, client.compacted);
                        *client = Client {
                            events,
                            compacted,
                            ..Client::default()
                        };
                    }
                    1 => {
                        let ids: Vec<i64> = client.watches.keys().copied().collect();
                        if let Some(id) = ids.first() {
                            hub.cancel(stream, *id, log.revision);
                        }
                    }
                    2 => hub.ask_progress(stream, log.revision),
                    3 => hub.tick_progress(stream),
                    _ => {
                        let spec = random_spec(random, &log);
                        hub.create(stream, &spec, log.revision);
                        client.coming.push(spec);
                    }
                }
            }
            6 | 7 if random.one_in(dispatch_often) => {
                hub.dispatch(&log, &mut woken);
            }
            _ => {
                // Client 0 is slow.
                let at = usize::try_from(random.below(4)).unwrap();
                if at > 0 || random.one_in(10) {
                    serve(&mut hub, &mut clients[at], &mut log, &mut woken, random);
                }
            }
        }
        hub.check_invariants();
    }
    while hub.dispatch(&log, &mut woken) {}
    for client in &mut clients {
        let Some(stream) = client.stream else {
            continue;
        };
        for notice in drain(&mut hub, stream, &log) {
            client.hear(&notice, &log);
        }
        for (spec, next) in client.watches.values() {
            assert_eq!(
                Client::due(spec, *next, &log),
                None,
                "seed {seed}: {spec:?}"
            );
        }
        assert!(client.coming.is_empty());
    }
    assert_eq!(hub.stats().behind, 0);
    let events = clients.iter().map(|client| client.events).sum();
    (events, clients.iter().map(|client| client.compacted).sum())
}

/// One round of a stream's task, with others at work between its steps.
fn serve(
    hub: &mut Hub,
    client: &mut Client,
    log: &mut Log,
    woken: &mut Vec<u32>,
    random: &mut Random,
) {
    let Some(stream) = client.stream else { return };
    let taken = hub.take(stream);
    for notice in taken.notices {
        client.hear(&notice, log);
    }
    let Some(catch_up) = taken.catch_up else {
        return;
    };
    let caught = catch_up.scan(log);
    if random.one_in(3) {
        log.write(&[("k1", Some("between"))]);
        hub.dispatch(log, woken);
    }
    if random.one_in(6)
        && let Some(id) = client.watches.keys().next()
    {
        hub.cancel(stream, *id, log.revision);
    }
    for notice in hub.settle(caught) {
        client.hear(&notice, log);
    }
}

#[test]
fn no_watch_ever_misses_repeats_or_reorders_a_change() {
    let (mut events, mut compacted) = (0, 0);
    for seed in 1..=100 {
        let (more_events, more_compacted) = run(seed);
        events += more_events;
        compacted += more_compacted;
    }
    assert!(events > 10_000, "{events} events");
    assert!(compacted > 50, "{compacted} compactions told");
}

#[test]
fn dispatching_to_one_of_100_000_watches_costs_what_one_costs() {
    let mut log = Log::new();
    let (mut hub, stream) = hub(&log);
    for number in 0..100_000 {
        hub.create(stream, &spec(&format!("key/{number}"), ""), 1);
    }
    hub.take(stream);
    for number in 0..100 {
        log.write(&[(&format!("key/{}", number * 997), Some("1"))]);
        assert_eq!(dispatch(&mut hub, &log).len(), 1);
        assert_eq!(hub.take(stream).notices.len(), 1);
    }
}
