//! Conditional writes and reads of keys that all callers share, for the checker `keys_are_linearizable`.
//!
//! A key is a group that nobody stands in, or one of the key space. Some outcomes are never learnt: the caller loses patience for good,
//! and with the key space's writes it must, as nobody could tell their repetition from another write.

use quorate_coord::kv::{
    Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KvOp, KvOpReply, Put, Range, Txn,
};
use quorate_coord::{Command, GroupSpec, Outcome, Rejection, Reply};
use quorate_replica::{Request, Response};
use quorate_types::{GroupName, LogIndex, Revision};

use super::Operation;
use crate::checkers::keys_are_linearizable::{Ask, Place, Told};
use crate::plant::Plant;
use crate::world::World;

/// How many of the keys are groups. Later numbers are keys of the key space: one at a time, and the next when too many outcomes of one
/// stayed unknown.
pub(crate) const GROUPS: usize = 2;
/// Revisions of the key space that are left when its history is compacted.
const HISTORY: u64 = 30;
/// Most calls of a key whose outcome stays unknown: each doubles what has to be searched.
const UNKNOWN_MAX: usize = 3;

/// A call of a key on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyCall {
    key: usize,
    place: Place,
    creates: bool,
    deletes: bool,
    /// What a server read for it: the value's tag and revision. Filled in as the server answers.
    read: Option<(u64, Revision)>,
}

/// The condition that a key of the key space was last changed at this revision; none: that it is there.
fn condition(key: usize, expected: Option<Revision>) -> Compare {
    let (result, target) = match expected {
        Some(revision) => {
            let revision = i64::try_from(revision.0).expect("a short run");
            (CompareResult::Equal, CompareTarget::Mod(revision))
        }
        None => (CompareResult::Greater, CompareTarget::Version(0)),
    };
    Compare {
        result,
        target,
        range: range(key),
    }
}

fn range(key: usize) -> KeyRange {
    KeyRange {
        key: format!("k{key}").as_str().into(),
        ..KeyRange::default()
    }
}

/// A write on a condition; what it finds instead is read in the same step.
fn guarded(key: usize, compare: Compare, write: KvOp) -> Command {
    let read = Range {
        range: range(key),
        ..Range::default()
    };
    let txn = Txn {
        compare: vec![compare],
        success: vec![write],
        failure: vec![KvOp::Range(read)],
    };
    Command::Kv {
        caller: None,
        op: KvOp::Txn(txn),
    }
}

fn put(key: usize, tag: u64) -> KvOp {
    KvOp::Put(Put {
        key: range(key).key,
        value: tag.to_string().as_str().into(),
        ..Put::default()
    })
}

/// What a call of a key of the key space asks for; none for a read.
fn key_command(key: usize, ask: &Ask, dropped: bool) -> Option<Command> {
    let kept = |expected: &Option<Revision>| expected.filter(|_| !dropped);
    match ask {
        Ask::Read => None,
        Ask::Create(tag) => {
            let absent = Compare {
                result: CompareResult::Equal,
                target: CompareTarget::Version(0),
                range: range(key),
            };
            Some(guarded(key, absent, put(key, *tag)))
        }
        Ask::Update(tag, expected) => {
            Some(guarded(key, condition(key, kept(expected)), put(key, *tag)))
        }
        Ask::Delete(expected) => {
            let delete = DeleteRange {
                range: range(key),
                prev_kv: false,
            };
            Some(guarded(
                key,
                condition(key, kept(expected)),
                KvOp::DeleteRange(delete),
            ))
        }
    }
}

/// The name of a key that is a group.
pub(crate) fn name(key: usize) -> GroupName {
    GroupName::new(&format!("r{key}")).expect("a short name")
}

/// A spec that holds a tag, where a group's spec has room for any number.
fn spec(tag: u64) -> GroupSpec {
    GroupSpec {
        handover_deadline_ms: tag,
        ..GroupSpec::default()
    }
}

impl World {
    /// Draws the next call of a key.
    pub(super) fn key_operation(&mut self, caller: usize) -> Operation {
        let floor = self.checkers.acknowledged.newest();
        let key = self.draw_key();
        if key >= GROUPS && self.random.u8(..12) == 0 {
            return self.compact(floor);
        }
        self.key_tag += 1;
        let tag = self.key_tag;
        let seen = self.callers[caller].keys_seen.get(&key).copied();
        let ask = match (self.random.u8(..8), seen) {
            (0..3, _) => Ask::Read,
            (_, None) => Ask::Create(tag),
            (3..6, revision) => Ask::Update(tag, revision),
            (6, _) => Ask::Update(tag, None),
            (_, revision) => Ask::Delete(revision),
        };
        let dropped = self.is_planted(Plant::DropConditions);
        let place = self.checkers.keys.begin(self.now, key, ask.clone());
        let command = match &ask {
            Ask::Read => None,
            _ if key >= GROUPS => key_command(key, &ask, dropped),
            Ask::Create(tag) => Some(Command::CreateGroups {
                groups: vec![(name(key), spec(*tag))],
            }),
            Ask::Update(tag, expected) => Some(Command::UpdateGroup {
                group: name(key),
                spec: spec(*tag),
                expected: expected.filter(|_| !dropped),
            }),
            Ask::Delete(expected) => Some(Command::DeleteGroup {
                group: name(key),
                expected: expected.filter(|_| !dropped),
            }),
        };
        let mut operation = match command {
            Some(command) if key >= GROUPS => self.propose_once(command, floor),
            Some(command) => self.propose(command, floor, None),
            None => Operation::plain(Request::Read, floor),
        };
        let read = None;
        let creates = matches!(ask, Ask::Create(_));
        let deletes = matches!(ask, Ask::Delete(_));
        operation.key = Some(KeyCall {
            key,
            place,
            creates,
            deletes,
            read,
        });
        operation
    }

    fn draw_key(&mut self) -> usize {
        let at = self.random.usize(..GROUPS + 2);
        if at < GROUPS {
            return at;
        }
        if self.checkers.keys.unknown_of(self.kv_key) >= UNKNOWN_MAX {
            self.kv_key += 1;
        }
        self.kv_key
    }

    /// Forgets the key space's history but for the newest part, as some server knows it.
    fn compact(&mut self, floor: LogIndex) -> Operation {
        let newest = self
            .servers
            .iter()
            .filter_map(|server| server.running.as_ref())
            .map(|running| running.replica.state().kv().revision())
            .max();
        let through = newest.unwrap_or(0).saturating_sub(HISTORY);
        let revision = i64::try_from(through).expect("a short run");
        let caller = None;
        self.propose_once(Command::CompactKv { caller, revision }, floor)
    }

    /// Whether what is on its way may not be sent again: its outcome stays unknown.
    pub(super) fn lets_go(&mut self, caller: usize) -> bool {
        let current = &mut self.callers[caller].current;
        let Some(gone) = current.take_if(|current| current.is_once() && !current.refused) else {
            return false;
        };
        if let Some(call) = gone.key {
            let verdict = self.checkers.keys.abandon(call.place);
            self.judge(verdict);
        }
        true
    }

    /// The call is sent once more.
    pub(super) fn key_sent_again(&mut self, caller: usize) {
        if let Some(Operation {
            request: Request::Read,
            key: Some(call),
            ..
        }) = &self.callers[caller].current
        {
            self.checkers.keys.begin_again(self.now, call.place);
        }
    }

    /// A server answers a read: it reads the version that it has published by now.
    pub(crate) fn read_key(&mut self, server: usize, caller: usize, operation: u64) {
        let this = &self.callers[caller];
        let Some(key) = this
            .current
            .as_ref()
            .filter(|_| this.operation == operation)
            .and_then(|current| current.key.as_ref())
            .map(|call| call.key)
        else {
            return;
        };
        let Some(running) = &self.servers[server].running else {
            return;
        };
        let state = running.replica.state();
        let found = if key < GROUPS {
            let group = state.group(&name(key));
            group.map(|group| (group.spec.handover_deadline_ms, group.spec_revision))
        } else {
            let kv = state.kv().get(&range(key).key);
            kv.map(|kv| (tag_of(&kv.value), Revision(kv.mod_revision)))
        };
        if let Some(call) = self.callers[caller]
            .current
            .as_mut()
            .and_then(|current| current.key.as_mut())
        {
            call.read = found;
        }
    }

    /// Whether a caller is content not to know what became of its call.
    pub(super) fn key_gives_up(&mut self, caller: usize, response: &Response) -> bool {
        if *response != Response::Unknown {
            return false;
        }
        if self.lets_go(caller) {
            return true;
        }
        if self.is_quiet() {
            return false;
        }
        let current = self.callers[caller].current.as_ref();
        let Some(call) = current.and_then(|current| current.key) else {
            return false;
        };
        if self.checkers.keys.unknown_of(call.key) >= UNKNOWN_MAX || self.random.u8(..3) > 0 {
            return false;
        }
        let verdict = self.checkers.keys.abandon(call.place);
        self.judge(verdict);
        true
    }

    /// A call of a key is answered for good.
    pub(super) fn key_answered(&mut self, caller: usize, done: &Operation, response: &Response) {
        let Some(call) = done.key else { return };
        let told = match response {
            Response::ReadAt { .. } => Told::Read(call.read),
            Response::Applied { outcome, .. } => match told(outcome) {
                Told::Mismatch(_) if call.creates => Told::Exists,
                told => told,
            },
            other => unreachable!("a call of a key is answered: {other:?}"),
        };
        let seen = match &told {
            Told::Done(revision) | Told::Mismatch(revision) => Some(Some(*revision)),
            Told::Read(found) => Some(found.map(|(_, revision)| revision)),
            Told::Missing => Some(None),
            Told::Exists => Some(Some(Revision(1))),
            Told::Refused => None,
        };
        let deleted = call.deletes && matches!(told, Told::Done(_));
        let keys_seen = &mut self.callers[caller].keys_seen;
        match seen {
            Some(Some(revision)) if !deleted => {
                keys_seen.insert(call.key, revision);
            }
            Some(_) => {
                keys_seen.remove(&call.key);
            }
            None => {}
        }
        let verdict = self.checkers.keys.end(self.now, call.place, told);
        self.judge(verdict);
    }
}

/// The tag that a value of the key space is.
fn tag_of(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).expect("a number was put");
    text.parse().expect("a number was put")
}

fn told(outcome: &Outcome) -> Told {
    match outcome {
        Ok(Reply::Done { revision }) => Told::Done(*revision),
        Ok(Reply::Kv { revision, reply }) => match &**reply {
            KvOpReply::Txn(txn) if txn.succeeded => Told::Done(Revision(*revision)),
            KvOpReply::Txn(txn) => match txn.responses.as_slice() {
                [KvOpReply::Range(found)] => match found.kvs.as_slice() {
                    [] => Told::Missing,
                    [kv, ..] => Told::Mismatch(Revision(kv.mod_revision)),
                },
                other => panic!("a read was answered with {other:?}"),
            },
            other => panic!("a transaction was answered with {other:?}"),
        },
        Err(Rejection::GroupExists { .. }) => Told::Exists,
        Err(Rejection::UnknownGroup { .. }) => Told::Missing,
        Err(Rejection::RevisionMismatch { found, .. }) => Told::Mismatch(*found),
        _ => Told::Refused,
    }
}
