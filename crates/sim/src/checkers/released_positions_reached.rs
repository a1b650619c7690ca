//! Under the freshest policy, and wherever the elected contender has to prepare, no holder is activated behind the position at which
//! the tenure before was released (protocol, section 4).

use std::collections::BTreeMap;

use quorate_coord::{
    Cause, DirectiveKind, ElectionPolicy, Event, GroupKey, Phase, Position, SessionKey, State,
    TenureKey,
};
use quorate_replica::AppliedEntry;

use super::{Verdict, Violation};

/// What contenders truly have.
#[derive(Debug, Default)]
pub struct Positions {
    /// How far each session's data has truly got, for each group.
    reached: BTreeMap<(GroupKey, SessionKey), Position>,
    /// How many activations were looked at.
    pub checked: u64,
    /// How many of them had to prepare first.
    pub prepared: u64,
}

impl Positions {
    /// A session's data for a group has got so far.
    pub fn on_reached(&mut self, group: &GroupKey, session: SessionKey, position: Position) {
        let reached = self.reached.entry((group.clone(), session)).or_default();
        *reached = position.max(*reached);
    }

    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// A holder was activated behind the released position.
    pub fn on_committed(&mut self, entry: &AppliedEntry, state: &State) -> Verdict {
        let mut readied = None;
        for (at, event) in entry.events.iter().enumerate() {
            if let Event::Transition {
                to: Phase::Active,
                cause: Cause::Ready,
                tenure,
                ..
            } = event
            {
                readied = Some(tenure.key.clone());
            }
            let Event::Directive { session, directive } = event else {
                continue;
            };
            let DirectiveKind::Activate {
                predecessor: Some(predecessor),
                ..
            } = &directive.kind
            else {
                continue;
            };
            let Some(released) = predecessor.position else {
                continue;
            };
            // Whoever had to prepare was refused until it got so far, whatever the policy.
            if readied.as_ref() == Some(&directive.tenure) {
                self.prepared += 1;
                self.on_activated(&directive.tenure, *session, released)?;
                continue;
            }
            // Deadlines fire before the entry's own command: the policy that it sets did not hold yet.
            let sets_policy = |event: &Event| matches!(event, Event::GroupUpdated { group } if *group == directive.tenure.group);
            if entry.events[at..].iter().any(sets_policy) {
                continue;
            }
            let group = state
                .group(&directive.tenure.group.name)
                .filter(|group| group.key == directive.tenure.group);
            if !group
                .is_some_and(|group| matches!(group.spec.policy, ElectionPolicy::Freshest { .. }))
            {
                continue;
            }
            self.on_activated(&directive.tenure, *session, released)?;
        }
        Ok(())
    }

    fn on_activated(
        &mut self,
        tenure: &TenureKey,
        session: SessionKey,
        released: Position,
    ) -> Verdict {
        self.checked += 1;
        let reached = self
            .reached
            .get(&(tenure.group.clone(), session))
            .copied()
            .unwrap_or_default();
        if reached >= released {
            return Ok(());
        }
        Err(Violation {
            checker: "released_positions_reached",
            guarantee: "3: the new holder completes what the one before acknowledged (protocol, section 4, freshest policy)",
            what: format!(
                "{tenure:?} was activated at {session:?}, which has {reached:?} of the released {released:?}"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{GroupName, Revision, SessionId, TenureNumber};

    #[test]
    fn a_holder_behind_the_released_position_is_reported() {
        let group = GroupKey {
            name: GroupName::new("g").unwrap(),
            created: Revision(1),
        };
        let session = SessionKey {
            id: SessionId(1),
            created: Revision(1),
        };
        let tenure = TenureKey {
            group: group.clone(),
            number: TenureNumber(2),
        };
        let mut positions = Positions::default();
        assert!(
            positions
                .on_activated(&tenure, session, Position(1))
                .is_err()
        );
        positions.on_reached(&group, session, Position(4));
        assert!(
            positions
                .on_activated(&tenure, session, Position(4))
                .is_ok()
        );
        assert!(
            positions
                .on_activated(&tenure, session, Position(5))
                .is_err()
        );
    }
}
