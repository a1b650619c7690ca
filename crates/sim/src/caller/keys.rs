//! Conditional writes and reads of keys that all callers share, for the checker `keys_are_linearizable`.
//!
//! A key is a group that nobody stands in. Some outcomes are never learnt: the caller loses patience for good.

use quorate_coord::{Command, GroupSpec, Outcome, Rejection, Reply};
use quorate_replica::{Request, Response};
use quorate_types::{GroupName, Revision};

use super::Operation;
use crate::checkers::keys_are_linearizable::{Ask, Place, Told};
use crate::plant::Plant;
use crate::world::World;

/// How many keys there are.
pub(crate) const KEYS: usize = 2;
/// Most calls of a key whose outcome stays unknown: each doubles what has to be searched.
const UNKNOWN_MAX: usize = 3;

/// A call of a key on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyCall {
    key: usize,
    place: Place,
    /// What a server read for it: the value's tag and revision. Filled in as the server answers.
    read: Option<(u64, Revision)>,
}

/// The name of a key.
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
        let key = self.random.usize(..KEYS);
        self.key_tag += 1;
        let tag = self.key_tag;
        let seen = self.callers[caller].keys_seen[key];
        let ask = match (self.random.u8(..8), seen) {
            (0..3, _) => Ask::Read,
            (_, None) => Ask::Create(tag),
            (3..6, revision) => Ask::Update(tag, revision),
            (6, _) => Ask::Update(tag, None),
            (_, revision) => Ask::Delete(revision),
        };
        let group = name(key);
        let dropped = self.is_planted(Plant::DropConditions);
        let command = match &ask {
            Ask::Read => None,
            Ask::Create(tag) => Some(Command::CreateGroups {
                groups: vec![(group, spec(*tag))],
            }),
            Ask::Update(tag, expected) => Some(Command::UpdateGroup {
                group,
                spec: spec(*tag),
                expected: expected.filter(|_| !dropped),
            }),
            Ask::Delete(expected) => Some(Command::DeleteGroup {
                group,
                expected: expected.filter(|_| !dropped),
            }),
        };
        let mut operation = match command {
            Some(command) => self.propose(command, floor, None),
            None => Operation::plain(Request::Read, floor),
        };
        let place = self.checkers.keys.begin(self.now, key, ask);
        let read = None;
        operation.key = Some(KeyCall { key, place, read });
        operation
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
        let found = running.replica.state().group(&name(key));
        let found = found.map(|group| (group.spec.handover_deadline_ms, group.spec_revision));
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
        if *response != Response::Unknown || self.is_quiet() {
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
            Response::Applied { outcome, .. } => told(outcome),
            other => unreachable!("a call of a key is answered: {other:?}"),
        };
        let seen = &mut self.callers[caller].keys_seen[call.key];
        match &told {
            Told::Done(revision) | Told::Mismatch(revision) => *seen = Some(*revision),
            Told::Read(found) => *seen = found.map(|(_, revision)| revision),
            Told::Missing => *seen = None,
            Told::Exists => *seen = Some(Revision(1)),
            Told::Refused => {}
        }
        if let Request::Propose(proposal) = &done.request
            && matches!(proposal.command, Command::DeleteGroup { .. })
            && matches!(told, Told::Done(_))
        {
            self.callers[caller].keys_seen[call.key] = None;
        }
        let verdict = self.checkers.keys.end(self.now, call.place, told);
        self.judge(verdict);
    }
}

fn told(outcome: &Outcome) -> Told {
    match outcome {
        Ok(Reply::Done { revision }) => Told::Done(*revision),
        Err(Rejection::GroupExists { .. }) => Told::Exists,
        Err(Rejection::UnknownGroup { .. }) => Told::Missing,
        Err(Rejection::RevisionMismatch { found, .. }) => Told::Mismatch(*found),
        _ => Told::Refused,
    }
}
