//! Draws operations from a seed. The alphabet is small, so that they collide, and what etcd refuses is drawn as well.

use fastrand::Rng;
use quorate_wire::etcd::etcdserverpb as pb;

use super::auth::Episode;
use super::ops::{ALIASES, Answer, Op, Step, Who};
use super::side::{STREAMS, USERS_STREAM};

const KEYS: &[&[u8]] = &[
    b"a",
    b"b",
    b"c",
    b"d",
    b"aa",
    b"ab",
    b"a/1",
    b"a/2",
    b"a/3",
    b"b/",
    b"b/x",
    b"z",
    b"\xff",
    b"\xff\xff",
    b"a\0",
    b"\0",
];

/// Leases whose ids are chosen by the caller.
const LEASES: i64 = 8;

/// How many operations are drawn before their answers are looked at.
const BATCH: usize = 100;

/// Draws operations, and remembers what the answers to earlier ones said.
#[derive(Debug)]
pub(crate) struct Generator {
    rng: Rng,
    revision: i64,
    compacted: i64,
    chosen: i64,
    /// How many watches were opened on each stream.
    watches: [i64; STREAMS],
    episode: Option<Episode>,
    since_episode: u32,
    /// Whether users are distinguished now and then.
    auth: bool,
    expiring: i64,
    /// Whether ranges that hold nothing are left out.
    straight: bool,
    /// Whether the real etcd is of version 3.5 or later.
    is_newer: bool,
}

impl Generator {
    pub(crate) fn new(seed: u64, auth: bool, is_newer: bool) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            revision: 1,
            compacted: 0,
            chosen: 0,
            watches: [0; STREAMS],
            episode: None,
            since_episode: 0,
            auth,
            expiring: 100,
            straight: false,
            is_newer,
        }
    }

    /// Draws the next operations; `room` at most, if that is not little.
    pub(crate) fn batch(&mut self, room: usize) -> Vec<Step> {
        let mut steps = Vec::new();
        self.since_episode += 1;
        if self.auth && self.episode.is_none() && self.since_episode > 15 && self.rng.u8(..) < 16 {
            self.episode = Some(Episode::default());
            self.since_episode = 0;
        }
        if let Some(mut episode) = self.episode.take()
            && let Some(drawn) = episode.batch(&mut self.rng)
        {
            // The key space is asked for on behalf of users while there are any.
            for step in drawn {
                steps.push(step);
                let asked = if episode.is_guarded() {
                    self.rng.usize(0..5)
                } else {
                    0
                };
                for _ in 0..asked {
                    let who = episode.somebody(&mut self.rng);
                    self.straight = true;
                    let op = self.guarded(&who);
                    self.straight = false;
                    if matches!(op, Op::Watch(..)) {
                        // A stream has one token.
                        steps.push(plain(Op::CloseStream(USERS_STREAM)));
                    }
                    steps.push(Step { op, who });
                }
            }
            self.episode = Some(episode);
        }
        if self.episode.is_none() {
            while steps.len() < BATCH.min(room) {
                steps.extend(self.some());
            }
        }
        steps.push(plain(Op::Barrier));
        if self.rng.u8(..) < 24 {
            let stream = self.rng.usize(1..USERS_STREAM);
            self.watches[stream] = 0;
            steps.push(plain(Op::CloseStream(stream)));
        }
        steps
    }

    /// Learns from an answer.
    pub(crate) fn learn(&mut self, step: &Step, answer: &Answer) {
        self.revision = self.revision.max(answer.revision().unwrap_or(0));
        match (&step.op, answer) {
            (Op::Compact(compact), Answer::Compact(_)) => {
                self.compacted = self.compacted.max(compact.revision);
            }
            (Op::Grant(grant), Answer::Grant(_)) if grant.id == 0 => self.chosen += 1,
            (Op::Watch(stream, _), Answer::Watch(watch)) if !watch.canceled => {
                self.watches[*stream] = self.watches[*stream].max(watch.watch_id + 1);
            }
            _ => {}
        }
        if let Some(episode) = &mut self.episode {
            episode.learn(step, answer);
        }
    }

    /// One operation on the key space, or several that belong together.
    fn some(&mut self) -> Vec<Step> {
        let op = match self.rng.u32(0..10_000) {
            0..4_200 => Op::Range(self.range()),
            4_200..6_700 => Op::Put(self.put()),
            6_700..7_500 => Op::DeleteRange(self.delete_range()),
            7_500..8_900 => Op::Txn(self.whole_txn(2)),
            8_900..8_930 => Op::Compact(self.compaction()),
            8_930..9_190 => Op::Grant(self.grant()),
            9_190..9_330 => Op::Revoke(pb::LeaseRevokeRequest { id: self.lease() }),
            9_330..9_450 => Op::TimeToLive(pb::LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.rng.bool(),
            }),
            9_450..9_480 => Op::Leases(pb::LeaseLeasesRequest {}),
            9_480..9_580 => Op::KeepAlive(self.lease()),
            9_580..9_740 => {
                let stream = self.rng.usize(1..USERS_STREAM);
                Op::Watch(stream, self.watch())
            }
            9_740..9_800 => {
                let stream = self.rng.usize(1..USERS_STREAM);
                Op::CancelWatch(stream, self.rng.i64(0..=self.watches[stream]))
            }
            9_800..9_830 => Op::Progress(self.rng.usize(1..USERS_STREAM)),
            9_830..9_850 => Op::HashKv(pb::HashKvRequest {
                revision: self.revision(),
            }),
            9_850..9_860 => Op::Alarm(pb::AlarmRequest::default()),
            9_860..9_870 => return self.invalid_limits(),
            9_870..9_873 => return self.expiry(),
            9_873..9_960 => Op::Put(self.put()),
            _ => {
                // Who asks does not matter while authentication is off, but etcd 3.4 refuses a token that it does not know even then.
                return vec![Step {
                    op: Op::Range(self.range()),
                    who: Who::Forger,
                }];
            }
        };
        vec![plain(op)]
    }

    /// An operation that permissions guard, in the same way in etcd 3.4, 3.5 and ours: docs/etcd-compatibility.md says where they differ.
    fn guarded(&mut self, who: &Who) -> Op {
        match self.rng.u32(0..100) {
            0..40 => Op::Range(self.range()),
            40..60 => Op::Put(self.put()),
            60..70 => Op::DeleteRange(self.delete_range()),
            70..85 => {
                let mut txn = self.whole_txn(0);
                if !self.is_newer {
                    ask_little(&mut txn);
                }
                Op::Txn(txn)
            }
            85..87 => {
                let mut watch = self.watch();
                if watch.range_end[..] == [0] {
                    watch.range_end.clear();
                }
                Op::Watch(USERS_STREAM, watch)
            }
            // The others need more rights than in etcd; root has all.
            _ if *who != Who::User("root") => Op::Range(self.range()),
            87..90 => Op::Grant(self.grant()),
            90..92 => Op::Revoke(pb::LeaseRevokeRequest { id: self.lease() }),
            92..94 => Op::TimeToLive(pb::LeaseTimeToLiveRequest {
                id: self.lease(),
                keys: self.rng.bool(),
            }),
            94..95 => Op::Leases(pb::LeaseLeasesRequest {}),
            95..97 => Op::KeepAlive(self.lease()),
            97..99 => Op::Alarm(pb::AlarmRequest::default()),
            _ => Op::Compact(self.compaction()),
        }
    }

    /// A lease of a second that takes keys with it.
    fn expiry(&mut self) -> Vec<Step> {
        self.expiring += 1;
        let id = self.expiring;
        let mut steps = vec![plain(Op::Grant(pb::LeaseGrantRequest { ttl: 1, id }))];
        for _ in 0..self.rng.usize(0..5) {
            let put = pb::PutRequest {
                lease: id,
                ignore_lease: false,
                ..self.put()
            };
            steps.push(plain(Op::Put(put)));
        }
        steps.push(plain(Op::AwaitExpiry(id)));
        steps.push(plain(Op::TimeToLive(pb::LeaseTimeToLiveRequest {
            id,
            keys: true,
        })));
        steps.push(plain(Op::Range(everything())));
        steps
    }

    /// What is at, or over, a limit.
    fn invalid_limits(&mut self) -> Vec<Step> {
        let put = |size: usize, key: &[u8]| {
            Op::Put(pb::PutRequest {
                key: key.to_vec().into(),
                value: vec![b'x'; size].into(),
                ..Default::default()
            })
        };
        let ops = |count: usize| {
            let op = pb::RequestOp {
                request: Some(pb::request_op::Request::RequestRange(everything())),
            };
            Op::Txn(pb::TxnRequest {
                compare: vec![],
                success: vec![op; count],
                failure: vec![],
            })
        };
        let op = match self.rng.u32(0..8) {
            0 => put(1_572_864 - 64, b"big"),
            1 => put(1_572_864, b"big"),
            2 => put(1_700_000, b"big"),
            3 => ops(128),
            4 => ops(129),
            5 => Op::Txn(pb::TxnRequest {
                compare: (0..129).map(|_| self.compare()).collect(),
                success: vec![],
                failure: vec![],
            }),
            6 => Op::Grant(pb::LeaseGrantRequest {
                ttl: [9_000_000_000, 9_000_000_001, i64::MAX][self.rng.usize(0..3)],
                id: self.rng.i64(1..=LEASES),
            }),
            _ => put(100_000, b"big"),
        };
        let big = pb::DeleteRangeRequest {
            key: b"big".to_vec().into(),
            ..Default::default()
        };
        vec![plain(op), plain(Op::DeleteRange(big))]
    }

    fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[self.rng.usize(0..these.len())]
    }

    /// True once in so many.
    fn once_in(&mut self, many: u32) -> bool {
        self.rng.u32(0..many) == 0
    }

    fn key(&mut self) -> Vec<u8> {
        if self.once_in(250) {
            return Vec::new();
        }
        self.one_of(KEYS).to_vec()
    }

    /// A key and an end.
    fn keys(&mut self) -> (Vec<u8>, Vec<u8>) {
        let key = self.key();
        let end = match self.rng.u32(0..20) {
            0..9 => Vec::new(),
            9..12 => vec![0],
            12..15 => prefix_end(&key),
            15 => return (vec![0], vec![0]),
            16 => key.clone(),
            _ => self.key(),
        };
        // Permissions of ranges that hold nothing: etcd gives them by accident of how it compares, ours does not.
        let is_upside_down = !end.is_empty() && end != [0] && end <= key;
        let end = if self.straight && is_upside_down {
            Vec::new()
        } else {
            end
        };
        (key, end)
    }

    fn value(&mut self) -> Vec<u8> {
        match self.rng.u32(0..10) {
            0 => Vec::new(),
            1..4 => b"1".to_vec(),
            4..6 => b"10".to_vec(),
            6..8 => b"2".to_vec(),
            8 => vec![b'v'; self.rng.usize(0..300)],
            _ => vec![0xff, 0],
        }
    }

    fn lease(&mut self) -> i64 {
        match self.rng.u32(0..40) {
            0 => 0,
            1 => -1,
            2..6 if self.chosen > 0 => ALIASES + self.rng.i64(0..self.chosen),
            _ => self.rng.i64(1..=LEASES),
        }
    }

    /// A revision to ask for: mostly the newest, or a recent one.
    fn revision(&mut self) -> i64 {
        match self.rng.u32(0..100) {
            0..50 => 0,
            50..75 => self.revision - self.rng.i64(0..20),
            75..86 => self.revision - self.rng.i64(0..300),
            86..90 => self.compacted,
            90..92 => self.compacted + 1,
            92..94 => self.compacted - 1,
            94..97 => self.revision + self.rng.i64(0..100),
            97 => self.revision + 1_000_000,
            98 => 1,
            _ => -1,
        }
    }

    /// A bound on revisions: mostly none.
    fn bound(&mut self) -> i64 {
        match self.rng.u32(0..12) {
            0 => self.revision - self.rng.i64(0..60),
            1 => self.revision.min(self.rng.i64(0..50)),
            _ => 0,
        }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.keys();
        pb::RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            limit: self.one_of(&[0, 0, 0, 0, 1, 2, 3, 5, 100, -1]),
            revision: self.revision(),
            sort_order: self.one_of(&[0, 0, 1, 2]),
            sort_target: self.one_of(&[0, 0, 1, 2, 3, 4]),
            serializable: self.once_in(4),
            keys_only: self.once_in(8),
            count_only: self.once_in(8),
            min_mod_revision: self.bound(),
            max_mod_revision: self.bound(),
            min_create_revision: self.bound(),
            max_create_revision: self.bound(),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let ignore_value = self.once_in(12);
        let ignore_lease = self.once_in(12);
        let value = self.value();
        let lease = if self.once_in(3) { self.lease() } else { 0 };
        pb::PutRequest {
            key: self.key().into(),
            value: if ignore_value && !self.once_in(4) {
                Vec::new()
            } else {
                value
            }
            .into(),
            lease: if ignore_lease && !self.once_in(4) {
                0
            } else {
                lease
            },
            prev_kv: self.once_in(3),
            ignore_value,
            ignore_lease,
        }
    }

    fn delete_range(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.keys();
        pb::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            prev_kv: self.rng.bool(),
        }
    }

    fn compare(&mut self) -> pb::Compare {
        use pb::compare::TargetUnion;
        let (key, mut range_end) = self.keys();
        if self.once_in(2) {
            range_end = Vec::new();
        }
        let (target, target_union) = match self.rng.u32(0..5) {
            0 => (0, TargetUnion::Version(self.rng.i64(0..4))),
            1 => (1, TargetUnion::CreateRevision(self.bound())),
            2 => (2, TargetUnion::ModRevision(self.bound())),
            3 => (3, TargetUnion::Value(self.value().into())),
            _ => (4, TargetUnion::Lease(self.rng.i64(0..=LEASES))),
        };
        pb::Compare {
            result: self.rng.i32(0..4),
            target: if self.once_in(200) {
                self.rng.i32(0..5)
            } else {
                target
            },
            key: key.into(),
            range_end: range_end.into(),
            target_union: if self.once_in(200) {
                None
            } else {
                Some(target_union)
            },
        }
    }

    /// etcd 3.4 dies of a transaction that deletes a key and then puts it, keeping its value or lease: none does both.
    fn whole_txn(&mut self, depth: u32) -> pb::TxnRequest {
        let mut txn = self.txn(depth);
        if deletes(&txn) {
            keep_nothing(&mut txn);
        }
        txn
    }

    fn txn(&mut self, depth: u32) -> pb::TxnRequest {
        let compares = self.one_of(&[0, 1, 1, 1, 2, 3]);
        let success = self.one_of(&[0, 1, 1, 2, 2, 3, 4]);
        let failure = self.one_of(&[0, 0, 1, 1, 2, 3]);
        pb::TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: (0..success).map(|_| self.request_op(depth)).collect(),
            failure: (0..failure).map(|_| self.request_op(depth)).collect(),
        }
    }

    fn request_op(&mut self, depth: u32) -> pb::RequestOp {
        use pb::request_op::Request;
        let request = match self.rng.u32(0..20) {
            0..7 => Request::RequestRange(self.range()),
            7..14 => Request::RequestPut(self.put()),
            14..17 => Request::RequestDeleteRange(self.delete_range()),
            17.. if depth > 0 => Request::RequestTxn(self.txn(depth - 1)),
            _ => Request::RequestPut(self.put()),
        };
        pb::RequestOp {
            request: Some(request),
        }
    }

    fn compaction(&mut self) -> pb::CompactionRequest {
        let revision = match self.rng.u32(0..10) {
            0 => self.compacted,
            1 => self.compacted - 1,
            2 => self.revision + 1_000,
            3 => self.revision,
            4 => self.one_of(&[0, -1, 1]),
            _ => self.revision - self.rng.i64(0..100).min(self.revision),
        };
        pb::CompactionRequest {
            revision,
            physical: self.once_in(3),
        }
    }

    fn grant(&mut self) -> pb::LeaseGrantRequest {
        let id = match self.rng.u32(0..30) {
            0 => 0,
            _ => self.rng.i64(1..=LEASES),
        };
        pb::LeaseGrantRequest {
            // Long ones: what expires does so when `expiry` asks for it.
            ttl: self.one_of(&[600, 3_600, 100_000]),
            id,
        }
    }

    fn watch(&mut self) -> pb::WatchCreateRequest {
        let (key, range_end) = self.keys();
        let start_revision = match self.rng.u32(0..20) {
            0..9 => 0,
            9..14 => self.revision - self.rng.i64(0..40).min(self.revision - 1),
            14..16 => self.revision - self.rng.i64(0..300).min(self.revision - 1),
            16 => self.compacted.max(0),
            17 => (self.compacted - 1).max(0),
            _ => self.revision + self.rng.i64(1..150),
        };
        pb::WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision,
            progress_notify: self.once_in(6),
            filters: match self.rng.u32(0..8) {
                0 => vec![0],
                1 => vec![1],
                2 => vec![0, 1],
                _ => vec![],
            },
            prev_kv: self.rng.bool(),
            watch_id: if self.once_in(12) {
                self.rng.i64(100..106)
            } else {
                0
            },
            fragment: self.once_in(6),
        }
    }
}

fn plain(op: Op) -> Step {
    Step {
        op,
        who: Who::Nobody,
    }
}

fn everything() -> pb::RangeRequest {
    pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..Default::default()
    }
}

fn deletes(txn: &pb::TxnRequest) -> bool {
    let ops = txn.success.iter().chain(&txn.failure);
    ops.filter_map(|op| op.request.as_ref())
        .any(|request| match request {
            pb::request_op::Request::RequestDeleteRange(_) => true,
            pb::request_op::Request::RequestTxn(txn) => deletes(txn),
            _ => false,
        })
}

/// Leaves out of a transaction's puts what needs further rights in etcd 3.5, and not in 3.4.
fn ask_little(txn: &mut pb::TxnRequest) {
    let ops = txn.success.iter_mut().chain(&mut txn.failure);
    for request in ops.filter_map(|op| op.request.as_mut()) {
        if let pb::request_op::Request::RequestPut(put) = request {
            (put.prev_kv, put.lease) = (false, 0);
        }
    }
}

fn keep_nothing(txn: &mut pb::TxnRequest) {
    let ops = txn.success.iter_mut().chain(&mut txn.failure);
    for request in ops.filter_map(|op| op.request.as_mut()) {
        match request {
            pb::request_op::Request::RequestPut(put) => {
                (put.ignore_value, put.ignore_lease) = (false, false);
            }
            pb::request_op::Request::RequestTxn(txn) => keep_nothing(txn),
            _ => {}
        }
    }
}

/// The end of all keys that begin with this one.
pub(crate) fn prefix_end(key: &[u8]) -> Vec<u8> {
    let mut end = key.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_operations_again() {
        let draw = |seed| {
            let mut generator = Generator::new(seed, true, false);
            (0..50)
                .flat_map(|_| generator.batch(BATCH))
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn prefix_ends_behind_its_keys() {
        assert_eq!(prefix_end(b"a"), b"b");
        assert_eq!(prefix_end(b"a\xff"), b"b");
        assert_eq!(prefix_end(b"\xff\xff"), b"\0");
    }
}
