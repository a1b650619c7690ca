//! Under the freshest policy a poll elects only when all that were asked have answered, or as many as the policy names (protocol,
//! section 4): who was not heard may hold what nobody else does. After a release at a known position nobody does.

use std::collections::{BTreeMap, BTreeSet};

use quorate_coord::{
    Cause, DirectiveKind, ElectionPolicy, Event, Phase, Predecessor, SessionKey, State, TenureKey,
};
use quorate_replica::AppliedEntry;

use super::{Verdict, Violation};

/// Who was asked, and who answered.
#[derive(Debug, Default)]
pub struct Polls {
    /// Who was asked and not let out again, while the poll lasts.
    asked: BTreeMap<TenureKey, BTreeSet<SessionKey>>,
    /// Who sent an answer.
    answered: BTreeMap<TenureKey, BTreeSet<SessionKey>>,
    /// How many elections were looked at.
    pub checked: u64,
}

impl Polls {
    /// A contender sends its answer.
    pub fn on_answering(&mut self, tenure: &TenureKey, session: SessionKey) {
        // One that is late is about a poll that is over.
        if self.asked.contains_key(tenure) {
            let answered = self.answered.entry(tenure.clone()).or_default();
            answered.insert(session);
        }
    }

    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// A poll elected without the answers that it needs.
    pub fn on_committed(&mut self, entry: &AppliedEntry, state: &State) -> Verdict {
        for event in &entry.events {
            match event {
                Event::Directive { session, directive } => match directive.kind {
                    DirectiveKind::Poll { .. } => {
                        let asked = self.asked.entry(directive.tenure.clone()).or_default();
                        asked.insert(*session);
                    }
                    DirectiveKind::Ended { .. } => {
                        if let Some(asked) = self.asked.get_mut(&directive.tenure) {
                            asked.remove(session);
                        }
                    }
                    _ => {}
                },
                Event::SessionEnded { session, .. } => {
                    for asked in self.asked.values_mut() {
                        asked.remove(session);
                    }
                }
                Event::Transition {
                    from: Phase::Polling,
                    cause,
                    tenure,
                    ..
                } => {
                    let asked = self.asked.remove(&tenure.key).unwrap_or_default();
                    let answered = self.answered.remove(&tenure.key).unwrap_or_default();
                    if *cause == Cause::Polled
                        && let Some(needed) = needed(entry, &tenure.key, state, asked.len())
                    {
                        self.on_elected(&tenure.key, &asked, &answered, needed)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn on_elected(
        &mut self,
        tenure: &TenureKey,
        asked: &BTreeSet<SessionKey>,
        answered: &BTreeSet<SessionKey>,
        needed: usize,
    ) -> Verdict {
        self.checked += 1;
        let heard = asked.intersection(answered).count();
        if heard >= needed {
            return Ok(());
        }
        Err(Violation {
            checker: "polls_are_answered",
            guarantee: "3: the new holder completes what the one before acknowledged (protocol, section 4, freshest policy)",
            what: format!(
                "{tenure:?} was given away after {heard} answers of {needed}; asked: {asked:?}, answered: {answered:?}"
            ),
        })
    }
}

/// How many answers an election needs; `None` where it needs none, or where a change of the spec hides it.
fn needed(entry: &AppliedEntry, tenure: &TenureKey, state: &State, asked: usize) -> Option<usize> {
    let changes_spec =
        |event: &Event| matches!(event, Event::GroupUpdated { group } if *group == tenure.group);
    if entry.events.iter().any(changes_spec) || has_complete_release(entry, tenure) {
        return None;
    }
    let group = state.group(&tenure.group.name)?;
    if group.key != tenure.group || group.spec_revision > entry.revision {
        return None;
    }
    Some(match group.spec.policy {
        ElectionPolicy::Freshest {
            answers_min: Some(answers_min),
        } => answers_min as usize,
        ElectionPolicy::Freshest { answers_min: None } | ElectionPolicy::Priority => asked,
    })
}

/// Whether the elected is told that its predecessor let go at a known position.
fn has_complete_release(entry: &AppliedEntry, tenure: &TenureKey) -> bool {
    entry.events.iter().any(|event| {
        matches!(event, Event::Directive { directive, .. } if directive.tenure == *tenure
        && matches!(
            directive.kind,
            DirectiveKind::Activate { predecessor: Some(predecessor), .. }
                | DirectiveKind::Prepare { predecessor: Some(predecessor), .. }
                if is_complete(predecessor)
        ))
    })
}

fn is_complete(predecessor: Predecessor) -> bool {
    predecessor.outcome == Cause::Released && predecessor.position.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::GroupKey;
    use quorate_types::{GroupName, Revision, SessionId, TenureNumber};

    #[test]
    fn an_election_that_did_not_wait_for_an_answer_is_reported() {
        let tenure = TenureKey {
            group: GroupKey {
                name: GroupName::new("g").unwrap(),
                created: Revision(1),
            },
            number: TenureNumber(2),
        };
        let [a, b] = [1, 2].map(|id| SessionKey {
            id: SessionId(id),
            created: Revision(id),
        });
        let mut polls = Polls::default();
        polls.asked.insert(tenure.clone(), [a, b].into());
        polls.on_answering(&tenure, a);
        let answered = polls.answered[&tenure].clone();
        let asked = [a, b].into();
        assert!(polls.on_elected(&tenure, &asked, &answered, 2).is_err());
        assert!(polls.on_elected(&tenure, &asked, &answered, 1).is_ok());
        polls.on_answering(&tenure, b);
        let answered = polls.answered[&tenure].clone();
        assert!(polls.on_elected(&tenure, &asked, &answered, 2).is_ok());
    }
}
