//! A group with an eligible contender is led within a bound once faults cease, and nothing moves a leadership on its own accord
//! before its minimum tenure (guarantee 9).

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_coord::{
    Cause, ElectionPolicy, Event, GroupKey, NodeAdmission, Phase, State, TenureKey,
};
use quorate_replica::AppliedEntry;
use quorate_types::ClusterTime;

use super::{Verdict, Violation};
use crate::clock::Moment;

/// A tenure that is active.
#[derive(Clone, Debug)]
struct Led {
    tenure: TenureKey,
    since: ClusterTime,
    /// The least minimum tenure that the group's spec had since.
    minimum_ms: u64,
}

/// Since when each group is led, or is not.
#[derive(Debug, Default)]
pub struct Changes {
    active: BTreeMap<GroupKey, Led>,
    /// The minimum tenure of each group's spec, in milliseconds.
    minimums: BTreeMap<GroupKey, u64>,
    unled: BTreeMap<GroupKey, Moment>,
    /// Since when in the calm somebody can lead each of them.
    wanted: BTreeMap<GroupKey, Moment>,
    /// How many voluntary handovers were looked at.
    pub checked: u64,
}

impl Changes {
    /// An entry was applied for the first time; `state` is the version published with it, or a later one.
    ///
    /// # Errors
    /// A leadership moved on its own accord before its minimum tenure.
    pub fn on_committed(&mut self, now: Moment, entry: &AppliedEntry, state: &State) -> Verdict {
        for event in &entry.events {
            match event {
                Event::GroupCreated { group } => {
                    self.unled.insert(group.clone(), now);
                    self.minimums
                        .insert(group.clone(), minimum_ms(entry, group, state));
                }
                Event::GroupDeleted { group } => {
                    self.unled.remove(group);
                    self.active.remove(group);
                    self.minimums.remove(group);
                }
                Event::GroupUpdated { group } => {
                    let minimum_ms = minimum_ms(entry, group, state);
                    self.minimums.insert(group.clone(), minimum_ms);
                    if let Some(led) = self.active.get_mut(group) {
                        led.minimum_ms = led.minimum_ms.min(minimum_ms);
                    }
                }
                Event::Transition {
                    group,
                    from,
                    to,
                    cause,
                    tenure,
                } => {
                    match to {
                        Phase::Active if *from != Phase::Draining => {
                            // Deadlines fire before the entry's own command, so under the spec before it.
                            let minimum_ms = self.minimums.get(group).copied().unwrap_or(0);
                            let led = Led {
                                tenure: tenure.key.clone(),
                                since: entry.cluster_time,
                                minimum_ms,
                            };
                            self.active.insert(group.clone(), led);
                        }
                        Phase::Draining if *cause == Cause::Rebalanced => {
                            self.on_voluntary(&tenure.key, entry.cluster_time)?;
                        }
                        _ => {}
                    }
                    if matches!(to, Phase::Active | Phase::Draining) {
                        self.unled.remove(group);
                    } else {
                        self.unled.entry(group.clone()).or_insert(now);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn on_voluntary(&mut self, tenure: &TenureKey, now: ClusterTime) -> Verdict {
        self.checked += 1;
        let Some(led) = self
            .active
            .get(&tenure.group)
            .filter(|led| led.tenure == *tenure)
        else {
            return Ok(());
        };
        let age_ms = now.ms_since(led.since);
        if age_ms >= led.minimum_ms {
            return Ok(());
        }
        let minimum_ms = led.minimum_ms;
        Err(violation(format!(
            "{tenure:?} was moved on its own accord {age_ms} ms after it became active; its minimum is {minimum_ms} ms"
        )))
    }

    /// Whether every group is led, those included that nobody can lead.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.unled.is_empty()
    }

    /// Faults have ceased for long enough: every group that somebody can lead must not have been without a leader for longer
    /// than `bound`.
    ///
    /// # Errors
    /// One was.
    pub fn on_calm(
        &mut self,
        now: Moment,
        calm_since: Moment,
        bound: Duration,
        state: &State,
    ) -> Verdict {
        self.wanted.retain(|key, _| self.unled.contains_key(key));
        for (key, since) in &self.unled {
            let Some(group) = state.group(&key.name).filter(|group| group.key == *key) else {
                continue;
            };
            let mut eligible = group.contenders.iter().filter(|(session, contender)| {
                !contender.withdrawing
                    && state
                        .session(**session)
                        .filter(|session| !session.revoked)
                        .is_some_and(|session| {
                            session
                                .node
                                .as_ref()
                                .and_then(|name| state.node(name))
                                .is_some_and(|node| {
                                    node.admission == NodeAdmission::Open
                                        && (node.spec.max_tenures == 0
                                            || node.load.tenures < node.spec.max_tenures)
                                        && group
                                            .spec
                                            .require
                                            .iter()
                                            .all(|(k, v)| node.spec.labels.get(k) == Some(v))
                                })
                        })
            });
            // Where the policy wants the answers of so many, so many must be there to answer.
            let needed = match group.spec.policy {
                ElectionPolicy::Freshest { answers_min } => answers_min.unwrap_or(1).max(1),
                ElectionPolicy::Priority => 1,
            };
            let nth = usize::try_from(needed - 1).expect("a small number");
            let Some((session, _)) = eligible.nth(nth) else {
                self.wanted.remove(key);
                continue;
            };
            let wanted = *self.wanted.entry(key.clone()).or_insert(now);
            // At its first look in the calm it may have been wanted all along.
            let since = if wanted.since(calm_since) < Duration::from_millis(1) {
                (*since).max(calm_since)
            } else {
                (*since).max(wanted)
            };
            if now.since(since) > bound {
                return Err(violation(format!(
                    "{key:?} is {:?} for {:?} of calm, though session {session} could lead it (cluster time {:?}, tenure {:?}, \
                     cool-downs {:?}, pending {:?})",
                    group.phase,
                    now.since(since),
                    state.cluster_time(),
                    group.tenure,
                    group.cooldowns,
                    group.pending,
                )));
            }
        }
        Ok(())
    }
}

/// The group's minimum tenure at an entry; zero where later entries of the same batch hide it.
fn minimum_ms(entry: &AppliedEntry, group: &GroupKey, state: &State) -> u64 {
    let found = state
        .group(&group.name)
        .filter(|found| found.key == *group && found.spec_revision <= entry.revision);
    found.map_or(0, |found| found.spec.minimum_tenure_ms)
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "changes_hands_bounded",
        guarantee: "9: a group with an eligible, ready contender is led within a stated bound, and leadership does not oscillate",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{GroupName, Revision, TenureNumber};

    #[test]
    fn a_move_before_the_minimum_tenure_is_reported() {
        let group = GroupKey {
            name: GroupName::new("g").unwrap(),
            created: Revision(1),
        };
        let tenure = TenureKey {
            group: group.clone(),
            number: TenureNumber(1),
        };
        let mut changes = Changes::default();
        changes.active.insert(
            group,
            Led {
                tenure: tenure.clone(),
                since: ClusterTime(1_000),
                minimum_ms: 500,
            },
        );
        assert!(changes.on_voluntary(&tenure, ClusterTime(1_499)).is_err());
        assert!(changes.on_voluntary(&tenure, ClusterTime(1_500)).is_ok());
    }
}
