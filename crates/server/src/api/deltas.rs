//! What watchers are told of a batch: computed once, when the first of them asks, and shared.

use std::collections::HashMap;

use quorate_coord::{Event, GroupKey, State};
use quorate_replica::AppliedEntry;
use quorate_types::Revision;
use quorate_wire::api::GroupState;

use super::convert;

/// A group after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delta {
    pub(crate) revision: Revision,
    pub(crate) group: GroupState,
    pub(crate) deleted: bool,
}

/// What the groups that a batch deletes were before it.
pub(crate) fn before_deletion(
    applied: &[AppliedEntry],
    before: &State,
) -> HashMap<GroupKey, GroupState> {
    let deleted = applied
        .iter()
        .flat_map(|entry| &entry.events)
        .filter_map(|event| match event {
            Event::GroupDeleted { group } => Some(group),
            _ => None,
        });
    deleted
        .filter_map(|key| {
            let group = before.group(&key.name).filter(|group| group.key == *key)?;
            Some((key.clone(), convert::group_state(group)))
        })
        .collect()
}

/// The deltas of a batch, in order.
pub(crate) fn of(applied: &[AppliedEntry], mut last: HashMap<GroupKey, GroupState>) -> Vec<Delta> {
    let mut deltas = Vec::new();
    for entry in applied {
        for event in &entry.events {
            let (key, group, deleted) = match event {
                Event::GroupCreated { group } => (group, convert::group_state_new(group), false),
                Event::Transition {
                    group,
                    to,
                    cause,
                    tenure,
                    ..
                } => (
                    group,
                    convert::group_state_after(*to, *cause, tenure),
                    false,
                ),
                Event::GroupDeleted { group } => {
                    let was = last
                        .remove(group)
                        .unwrap_or_else(|| convert::group_state_new(group));
                    (group, was, true)
                }
                _ => continue,
            };
            if !deleted && last.contains_key(key) {
                last.insert(key.clone(), group.clone());
            }
            deltas.push(Delta {
                revision: entry.revision,
                group,
                deleted,
            });
        }
    }
    deltas
}
