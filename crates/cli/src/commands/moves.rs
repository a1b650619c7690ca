//! Follows leaderships through a watch: who led, who leads, and how long nobody did in between.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_client::api::{GroupState, Phase};
use quorate_types::{GroupName, NodeName, Revision, TenureNumber, Time};
use serde::Serialize;

use crate::context::word;

/// One leadership that changed hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Move {
    /// Which group.
    pub(crate) group: GroupName,
    /// From whom; none where nobody was known to lead before.
    pub(crate) from: Option<NodeName>,
    /// To whom.
    pub(crate) to: NodeName,
    /// The new tenure.
    pub(crate) tenure: TenureNumber,
    /// For how long the backbone showed no holder.
    #[serde(rename = "gap_ms", serialize_with = "milliseconds")]
    pub(crate) gap: Duration,
}

fn milliseconds<S: serde::Serializer>(gap: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64((gap.as_secs_f64() * 1e6).round() / 1e3)
}

#[derive(Clone, Debug)]
struct Followed {
    state: GroupState,
    /// The last one that led, by incarnation and tenure.
    led: Option<(NodeName, Revision, TenureNumber)>,
    /// Since when nobody leads.
    vacant_since: Option<Time>,
}

/// Every group of a watch, as last seen.
///
/// # Invariants
/// - `vacant_since` is set exactly while the state shows no leader.
#[derive(Clone, Debug, Default)]
pub(crate) struct Follower {
    groups: BTreeMap<GroupName, Followed>,
}

impl Follower {
    /// Takes a group's new state, seen at `now`; tells where its leadership has arrived anew.
    pub(crate) fn on_state(&mut self, now: Time, state: GroupState) -> Option<Move> {
        let before = self.groups.remove(&state.name);
        let (mut led, mut vacant_since) =
            before.map_or((None, None), |before| (before.led, before.vacant_since));
        let mut moved = None;
        if let Some(leader) = state.leader() {
            let current = (leader.clone(), state.incarnation, state.tenure);
            if led.as_ref() != Some(&current) {
                moved = Some(Move {
                    group: state.name.clone(),
                    from: led.map(|(node, ..)| node),
                    to: leader.clone(),
                    tenure: state.tenure,
                    // Released and granted in one apply: no moment between them was shown.
                    gap: vacant_since.map_or(Duration::ZERO, |since| now.since(since)),
                });
            }
            led = Some(current);
            vacant_since = None;
        } else {
            vacant_since = vacant_since.or(Some(now));
        }
        self.groups.insert(
            state.name.clone(),
            Followed {
                state,
                led,
                vacant_since,
            },
        );
        moved
    }

    /// The group is gone. One of the same name that was created in the same revision is another, and stays.
    pub(crate) fn on_deleted(&mut self, group: &GroupState) {
        if self
            .get(&group.name)
            .is_some_and(|known| known.incarnation == group.incarnation)
        {
            self.groups.remove(&group.name);
        }
    }

    /// Takes a whole snapshot: groups that it does not name are gone.
    pub(crate) fn on_snapshot(&mut self, now: Time, states: Vec<GroupState>) -> Vec<Move> {
        let mut before = std::mem::take(&mut self.groups);
        for state in &states {
            if let Some(known) = before.remove(&state.name) {
                self.groups.insert(state.name.clone(), known);
            }
        }
        states
            .into_iter()
            .filter_map(|state| self.on_state(now, state))
            .collect()
    }

    pub(crate) fn get(&self, group: &GroupName) -> Option<&GroupState> {
        self.groups.get(group).map(|followed| &followed.state)
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = &GroupState> {
        self.groups.values().map(|followed| &followed.state)
    }

    /// How many groups each node leads.
    pub(crate) fn led_by_node(&self) -> BTreeMap<NodeName, usize> {
        let mut counts = BTreeMap::new();
        for leader in self.states().filter_map(GroupState::leader) {
            *counts.entry(leader.clone()).or_default() += 1;
        }
        counts
    }

    /// Groups whose current tenure this node holds, leading or not.
    pub(crate) fn held_by(&self, node: &NodeName) -> Vec<GroupName> {
        let held = self
            .states()
            .filter(|state| state.phase != Phase::Vacant && state.node.as_ref() == Some(node));
        held.map(|state| state.name.clone()).collect()
    }
}

/// Median and maximum of gaps; zero where there are none.
pub(crate) fn median_and_max(mut gaps: Vec<Duration>) -> (Duration, Duration) {
    gaps.sort_unstable();
    let median = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    (median, gaps.last().copied().unwrap_or_default())
}

/// A duration for people.
pub(crate) fn human(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros == 0 {
        "0 ms".to_owned()
    } else if micros < 1_000 {
        format!("{:.2} ms", duration.as_secs_f64() * 1e3)
    } else if micros < 10_000 {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{} ms", duration.as_millis())
    }
}

/// One line about a group's state.
pub(crate) fn describe(state: &GroupState) -> String {
    let holder = state
        .node
        .as_ref()
        .map_or_else(|| "-".to_owned(), ToString::to_string);
    let why = state
        .vacancy
        .as_ref()
        .map(|cause| format!(" (last tenure: {})", word(cause)))
        .unwrap_or_default();
    format!(
        "{} {} {holder} tenure {} token {}{why}",
        state.name,
        word(&state.phase),
        state.tenure,
        state.token
    )
}

#[cfg(test)]
mod tests {
    use quorate_types::FencingToken;

    use super::*;

    fn state(phase: Phase, node: &str, tenure: u64) -> GroupState {
        GroupState {
            name: GroupName::new("g").unwrap(),
            incarnation: Revision(1),
            phase,
            tenure: TenureNumber(tenure),
            token: FencingToken(tenure),
            node: (phase != Phase::Vacant).then(|| NodeName::new(node).unwrap()),
            session: None,
            configuration: quorate_client::api::ProposedConfiguration::default(),
            vacancy: None,
        }
    }

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    #[test]
    fn the_gap_is_from_the_last_sight_of_a_holder_to_the_next() {
        let mut follower = Follower::default();
        let first = follower
            .on_state(at(0), state(Phase::Active, "a", 1))
            .unwrap();
        assert_eq!((first.from, first.gap), (None, Duration::ZERO));
        assert_eq!(
            follower.on_state(at(5), state(Phase::Draining, "a", 1)),
            None
        );
        assert_eq!(follower.on_state(at(10), state(Phase::Vacant, "", 1)), None);
        assert_eq!(
            follower.on_state(at(12), state(Phase::Preparing, "b", 2)),
            None
        );
        let moved = follower
            .on_state(at(17), state(Phase::Active, "b", 2))
            .unwrap();
        assert_eq!(moved.from.unwrap().as_str(), "a");
        assert_eq!(
            (moved.to.as_str(), moved.gap),
            ("b", Duration::from_millis(7))
        );
    }

    #[test]
    fn a_release_and_grant_in_one_apply_has_no_gap_and_the_same_tenure_is_no_move() {
        let mut follower = Follower::default();
        follower.on_state(at(0), state(Phase::Active, "a", 1));
        assert_eq!(follower.on_state(at(1), state(Phase::Active, "a", 1)), None);
        let moved = follower
            .on_state(at(2), state(Phase::Active, "b", 2))
            .unwrap();
        assert_eq!(moved.gap, Duration::ZERO);
        let again = follower
            .on_state(at(3), state(Phase::Active, "b", 3))
            .unwrap();
        assert_eq!(
            again.tenure,
            TenureNumber(3),
            "the same node under a new tenure is a move"
        );
    }

    #[test]
    fn a_snapshot_after_a_resync_drops_what_it_does_not_name() {
        let mut follower = Follower::default();
        follower.on_state(at(0), state(Phase::Active, "a", 1));
        assert!(
            follower
                .on_snapshot(at(1), vec![state(Phase::Active, "a", 1)])
                .is_empty()
        );
        assert_eq!(follower.states().count(), 1);
        assert!(follower.on_snapshot(at(2), Vec::new()).is_empty());
        assert_eq!(follower.states().count(), 0);
    }

    #[test]
    fn the_middle_and_the_worst_gap_are_found() {
        let ms = Duration::from_millis;
        assert_eq!(median_and_max(vec![ms(9), ms(1), ms(3)]), (ms(3), ms(9)));
        assert_eq!(median_and_max(Vec::new()), (ms(0), ms(0)));
    }
}
