//! The key space changes only as its rules say (guarantee 2, ADR key-space-revisions): revisions have no gap; a session's end deletes the
//! keys attached to it at one revision of its own, and one that had none moves nothing; keys of groups change together with what
//! they tell of; nothing else but a user's write moves the revision.
//!
//! Owns: the record of all changes, in order, which `key_watches_unbroken` reads, too; and an account of its own of each key's numbers and of
//! what is attached to which lease, kept from that record alone.

use std::collections::{BTreeMap, BTreeSet};

use quorate_coord::kv::{Blob, KeyRange, KvChange};
use quorate_coord::{Command, Envelope, Event, GROUP_KEYS_PREFIX, State};
use quorate_replica::AppliedEntry;
use quorate_types::SessionId;

use super::{Verdict, Violation};

/// What a key is now, as far as its numbers go.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    created: u64,
    version: u64,
    lease: u64,
}

/// All changes of the key space.
#[derive(Debug, Default)]
pub struct KeySpace {
    record: Vec<KvChange>,
    /// Where in the record each key's changes are.
    of_key: BTreeMap<Blob, Vec<usize>>,
    keys: BTreeMap<Blob, Numbers>,
    attached: BTreeMap<u64, BTreeSet<Blob>>,
    revision: u64,
    compacted: u64,
    /// How many changes were looked at.
    pub checked: u64,
    /// How many sessions ended with keys attached.
    pub ended: u64,
}

/// Whether a key is in `[key, range_end)`.
#[must_use]
pub fn holds(range: &KeyRange, key: &Blob) -> bool {
    match range.range_end.as_bytes() {
        [] => *key == range.key,
        end => range.key.as_bytes() <= key.as_bytes() && key.as_bytes() < end,
    }
}

fn key_of(change: &KvChange) -> &Blob {
    match change {
        KvChange::Put(kv) => &kv.key,
        KvChange::Delete { key, .. } => key,
    }
}

fn is_own(change: &KvChange) -> bool {
    key_of(change).starts_with(GROUP_KEYS_PREFIX.as_bytes())
}

impl KeySpace {
    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        // Where nobody wrote to it yet, it is at 1, as etcd's.
        self.revision.max(1)
    }

    /// Through where history was given up.
    #[must_use]
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// The changes of these revisions, in order.
    #[must_use]
    pub fn changes(&self, from: u64, through: u64) -> &[KvChange] {
        let at = |revision| {
            self.record
                .partition_point(|change| change.mod_revision() < revision)
        };
        let (start, end) = (at(from), at(through + 1));
        &self.record[start..end.max(start)]
    }

    /// What changed a key last before a revision.
    #[must_use]
    pub fn before(&self, key: &Blob, revision: u64) -> Option<&KvChange> {
        let places = self.of_key.get(key)?;
        let after = places.partition_point(|at| self.record[*at].mod_revision() < revision);
        Some(&self.record[places[after.checked_sub(1)?]])
    }

    /// An entry was applied for the first time; `state` is the state of the whole log.
    ///
    /// # Errors
    /// The key space changed otherwise than by its rules.
    pub fn on_committed(
        &mut self,
        entry: &AppliedEntry,
        envelope: Option<&Envelope>,
        state: &State,
    ) -> Verdict {
        let kv = state.kv();
        self.compacted = kv.compacted();
        self.revision = self.revision();
        let changes: Vec<_> = kv.changes(self.revision + 1).cloned().collect();
        let mut revisions = changes
            .chunk_by(|one, next| one.mod_revision() == next.mod_revision())
            .peekable();
        let fail = |what: String| Err(violation(format!("entry {}: {what}", entry.index)));

        let moves_groups = entry.events.iter().any(|event| {
            matches!(
                event,
                Event::GroupCreated { .. } | Event::GroupDeleted { .. } | Event::Transition { .. }
            )
        });
        // What is due by the time of the entry comes before its command.
        if let Some(told) = revisions.next_if(|changes| moves_groups && changes.iter().all(is_own))
        {
            self.take(told, state, entry)?;
        }
        let writes =
            matches!(envelope, Some(envelope) if matches!(envelope.command, Command::Kv { .. }));
        if let Some(written) = revisions.next_if(|changes| writes && !changes.iter().any(is_own)) {
            self.take(written, state, entry)?;
        }
        for event in &entry.events {
            let Event::SessionEnded { session, .. } = event else {
                continue;
            };
            let lease = session.id.0;
            let Some(expected) = self.attached.get(&lease).cloned() else {
                continue;
            };
            let deleted = revisions.next().unwrap_or_default();
            let is_right = deleted.len() == expected.len()
                && deleted.iter().zip(&expected).all(
                    |(change, key)| matches!(change, KvChange::Delete { key: gone, .. } if gone == key),
                );
            if !is_right {
                return fail(format!(
                    "lease {lease} ended with {expected:?} attached, and the next revision is {deleted:?}"
                ));
            }
            self.ended += 1;
            self.take(deleted, state, entry)?;
        }
        if let Some(told) = revisions.next_if(|changes| moves_groups && changes.iter().all(is_own))
        {
            self.take(told, state, entry)?;
        }
        if let Some(more) = revisions.next() {
            return fail(format!(
                "{:?} with {:?} is no reason for {more:?}",
                envelope.map(|envelope| &envelope.command),
                entry.events
            ));
        }
        if self.revision != kv.revision() {
            return fail(format!(
                "its changes end at revision {}, and the key space is at {}",
                self.revision,
                kv.revision()
            ));
        }
        Ok(())
    }

    /// Takes in one revision.
    fn take(&mut self, changes: &[KvChange], state: &State, entry: &AppliedEntry) -> Verdict {
        let fail = |what: String| Err(violation(format!("entry {}: {what}", entry.index)));
        self.revision += 1;
        let mut touched = BTreeSet::new();
        for change in changes {
            self.checked += 1;
            if change.mod_revision() != self.revision {
                return fail(format!("revision {} is {change:?}", self.revision));
            }
            let key = key_of(change);
            let before = self.keys.remove(key);
            if let Some(lease) = before.map(|numbers| numbers.lease).filter(|id| *id != 0) {
                touched.insert(lease);
                let of_lease = self.attached.entry(lease).or_default();
                of_lease.remove(key);
                if of_lease.is_empty() {
                    self.attached.remove(&lease);
                }
            }
            match change {
                KvChange::Delete { .. } if before.is_none() => {
                    return fail(format!("{change:?} deletes what is not there"));
                }
                KvChange::Delete { .. } => {}
                KvChange::Put(kv) => {
                    let created = before.map_or(self.revision, |numbers| numbers.created);
                    let version = before.map_or(0, |numbers| numbers.version) + 1;
                    if (kv.create_revision, kv.version) != (created, version) {
                        return fail(format!(
                            "{change:?} is version {version} of a key created at {created}"
                        ));
                    }
                    let lease = kv.lease;
                    self.keys.insert(
                        key.clone(),
                        Numbers {
                            created,
                            version,
                            lease,
                        },
                    );
                    if lease != 0 {
                        if state.session(SessionId(lease)).is_none() {
                            return fail(format!("{change:?} is attached to no live session"));
                        }
                        touched.insert(lease);
                        self.attached.entry(lease).or_default().insert(key.clone());
                    }
                }
            }
            let at = self.record.len();
            self.of_key.entry(key.clone()).or_default().push(at);
            self.record.push(change.clone());
        }
        for lease in touched {
            let found: BTreeSet<_> = state.kv().lease_keys(lease).cloned().collect();
            let expected = self.attached.get(&lease).cloned().unwrap_or_default();
            if found != expected {
                return fail(format!(
                    "lease {lease} has {found:?} attached, not {expected:?}"
                ));
            }
        }
        Ok(())
    }
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "key_space_follows_rules",
        guarantee: "2: the key space changes at gapless revisions, and only by writes, by the end of sessions with keys, and by groups that change",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::kv::{KvOp, Put};
    use quorate_coord::{Cause, RequestKey};
    use quorate_types::{
        ClusterTime, ContractVersion, LogIndex, Principal, Revision, Term, TraceId, WallTime,
    };

    fn envelope(command: Command) -> Envelope {
        Envelope {
            principal: Principal::new("t").unwrap(),
            request: RequestKey::Unkeyed,
            trace: TraceId(1),
            wall: WallTime(0),
            cluster_time: ClusterTime(0),
            contract: ContractVersion(1),
            command,
        }
    }

    fn put(key: &str, lease: u64) -> Command {
        Command::Kv {
            caller: None,
            op: KvOp::Put(Put {
                key: key.into(),
                value: "v".into(),
                lease: i64::try_from(lease).unwrap(),
                ..Put::default()
            }),
        }
    }

    /// Applies commands, and lets `bend` change what the checker is told of each.
    fn run(
        commands: Vec<Command>,
        bend: impl Fn(usize, &mut AppliedEntry, &mut Envelope),
    ) -> Verdict {
        let (mut state, mut space) = (State::new(), KeySpace::default());
        for (at, command) in commands.into_iter().enumerate() {
            let index = LogIndex(at as u64 + 1);
            let mut envelope = envelope(command);
            let mut events = Vec::new();
            state
                .apply(index, Term(1), &envelope, &mut events)
                .expect("it is right");
            let mut entry = AppliedEntry {
                index,
                term: Term(1),
                revision: Revision(index.0),
                cluster_time: ClusterTime(0),
                trace: TraceId(1),
                events,
            };
            bend(at, &mut entry, &mut envelope);
            space.on_committed(&entry, Some(&envelope), &state)?;
        }
        Ok(())
    }

    fn lease_with_keys() -> Vec<Command> {
        let (caller, ttl_ms) = (None, 5_000);
        vec![
            Command::GrantLease {
                caller: caller.clone(),
                id: 7,
                ttl_ms,
            },
            put("a", 7),
            put("b", 7),
            put("b", 0),
            put("c", 7),
            Command::RevokeLease { caller, id: 7 },
            put("a", 0),
        ]
    }

    #[test]
    fn what_the_rules_say_is_accepted() {
        run(lease_with_keys(), |_, _, _| {}).unwrap();
    }

    #[test]
    fn an_end_that_left_keys_and_a_change_without_a_reason_are_reported() {
        let unsaid = run(lease_with_keys(), |at, entry, _| {
            if at == 5 {
                entry
                    .events
                    .retain(|event| !matches!(event, Event::SessionEnded { .. }));
            }
        });
        assert!(unsaid.unwrap_err().what.contains("no reason"));
        let early = run(lease_with_keys(), |at, entry, _| {
            if at == 4 {
                let session = quorate_coord::SessionKey {
                    id: SessionId(7),
                    created: Revision(1),
                };
                let cause = Cause::Expired;
                entry.events.push(Event::SessionEnded { session, cause });
            }
        });
        assert!(early.unwrap_err().what.contains("the next revision is"));
        let reads = run(lease_with_keys(), |at, _, envelope| {
            if at == 1 {
                envelope.command = Command::Advance;
            }
        });
        assert!(reads.unwrap_err().what.contains("no reason"));
    }
}
