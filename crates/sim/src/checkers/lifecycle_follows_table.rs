//! Every transition of a group is a row of the contract's table, follows on the one before, and no tenure begins before the one
//! before has ended (protocol, section 4).

use std::collections::BTreeMap;

use quorate_coord::{Event, GroupKey, Phase, SessionKey, TRANSITIONS, TenureKey};
use quorate_replica::AppliedEntry;
use quorate_types::DirectiveSeq;

use super::{Verdict, Violation};

/// Where each group stands, and which directive each session had last.
#[derive(Debug, Default)]
pub struct Lifecycle {
    phases: BTreeMap<GroupKey, (Phase, Option<TenureKey>)>,
    directives: BTreeMap<SessionKey, DirectiveSeq>,
    /// How many transitions were looked at.
    pub checked: u64,
}

impl Lifecycle {
    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// A transition is not in the table, or does not follow.
    pub fn on_committed(&mut self, entry: &AppliedEntry) -> Verdict {
        for event in &entry.events {
            match event {
                Event::Transition { .. } => self.on_transition(event)?,
                Event::GroupDeleted { group } => {
                    if let Some((phase, _)) = self.phases.remove(group)
                        && phase != Phase::Vacant
                    {
                        return Err(violation(format!("{group:?} was deleted while {phase:?}")));
                    }
                }
                Event::Directive { session, directive } => {
                    let last = self.directives.entry(*session).or_default();
                    if directive.seq != last.next() {
                        return Err(violation(format!(
                            "{session:?} got directive {} after {last}",
                            directive.seq
                        )));
                    }
                    *last = directive.seq;
                }
                Event::SessionEnded { session, .. } => {
                    self.directives.remove(session);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn on_transition(&mut self, event: &Event) -> Verdict {
        let Event::Transition {
            group,
            from,
            to,
            cause,
            tenure,
        } = event
        else {
            return Ok(());
        };
        self.checked += 1;
        if !TRANSITIONS
            .iter()
            .any(|row| row.from == *from && row.to == *to && row.cause == *cause)
        {
            return Err(violation(format!(
                "{group:?} went {from:?} -> {to:?} for {cause:?}: not in the table"
            )));
        }
        let (phase, current) = self
            .phases
            .get(group)
            .cloned()
            .unwrap_or((Phase::Vacant, None));
        if phase != *from {
            return Err(violation(format!(
                "{group:?} went {from:?} -> {to:?}, but was {phase:?}"
            )));
        }
        if let Some(current) = &current
            && *current != tenure.key
        {
            return Err(violation(format!(
                "{:?} of {from:?} -> {to:?} began before {current:?} ended",
                tenure.key
            )));
        }
        let next = (*to != Phase::Vacant).then(|| tenure.key.clone());
        self.phases.insert(group.clone(), (*to, next));
        Ok(())
    }
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "lifecycle_follows_table",
        guarantee: "the contract: which transitions a tenure may make (protocol, section 4)",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::{Cause, TenureView};
    use quorate_types::{FencingToken, GroupName, Revision, TenureNumber};

    fn transition(from: Phase, to: Phase, cause: Cause, number: u64) -> Event {
        let group = GroupKey {
            name: GroupName::new("g").unwrap(),
            created: Revision(1),
        };
        let key = TenureKey {
            group: group.clone(),
            number: TenureNumber(number),
        };
        let tenure = TenureView {
            key,
            token: FencingToken(1),
            holder: None,
            node: None,
            configuration: Default::default(),
        };
        Event::Transition {
            group,
            from,
            to,
            cause,
            tenure,
        }
    }

    #[test]
    fn a_transition_out_of_the_table_or_out_of_order_is_reported() {
        let mut lifecycle = Lifecycle::default();
        assert!(
            lifecycle
                .on_transition(&transition(Phase::Vacant, Phase::Active, Cause::Elected, 1))
                .is_ok()
        );
        assert!(
            lifecycle
                .on_transition(&transition(
                    Phase::Preparing,
                    Phase::Active,
                    Cause::Ready,
                    1
                ))
                .is_err()
        );
        assert!(
            lifecycle
                .on_transition(&transition(Phase::Active, Phase::Vacant, Cause::Elected, 1))
                .is_err()
        );
        assert!(
            lifecycle
                .on_transition(&transition(
                    Phase::Active,
                    Phase::Vacant,
                    Cause::Released,
                    2
                ))
                .is_err()
        );
        assert!(
            lifecycle
                .on_transition(&transition(
                    Phase::Active,
                    Phase::Vacant,
                    Cause::Released,
                    1
                ))
                .is_ok()
        );
    }
}
