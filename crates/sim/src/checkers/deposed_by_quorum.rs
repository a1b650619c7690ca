//! A holder is deposed only on the word of enough others: contenders that stand, live, and said so within the group's window
//! (ADR peers-may-depose).

use std::collections::BTreeMap;

use quorate_coord::{Cause, DeposeQuorum, Event, State, TenureKey};
use quorate_replica::AppliedEntry;
use quorate_types::{ClusterTime, SessionId};

use super::{Verdict, Violation};

/// Who reported which holder.
#[derive(Debug, Default)]
pub struct Deposals {
    reports: BTreeMap<TenureKey, BTreeMap<SessionId, ClusterTime>>,
    /// How many reports were made.
    pub reported: u64,
    /// How many depositions were looked at.
    pub checked: u64,
}

impl Deposals {
    /// An entry was applied for the first time; `state` is the whole log's after it.
    ///
    /// # Errors
    /// A holder was deposed by too few.
    pub fn on_committed(&mut self, entry: &AppliedEntry, state: &State) -> Verdict {
        for event in &entry.events {
            match event {
                Event::HolderReported { tenure, report } => {
                    self.reported += 1;
                    let reports = self.reports.entry(tenure.clone()).or_default();
                    reports.insert(report.session, entry.cluster_time);
                }
                Event::ReportWithdrawn { tenure, session } => {
                    if let Some(reports) = self.reports.get_mut(tenure) {
                        reports.remove(&session.id);
                    }
                }
                Event::Transition {
                    cause: Cause::Deposed,
                    tenure,
                    ..
                } => {
                    let Some(group) = state
                        .group(&tenure.key.group.name)
                        .filter(|group| group.key == tenure.key.group)
                    else {
                        continue;
                    };
                    let stands = |session: &SessionId| {
                        group.contenders.contains_key(session)
                            && state.session(*session).is_some_and(|found| !found.revoked)
                    };
                    let reports = self.reports.remove(&tenure.key).unwrap_or_default();
                    let window_ms = group.spec.depose_window_ms;
                    let counting = reports.iter().filter(|(session, at)| {
                        tenure.holder != Some(**session)
                            && stands(session)
                            && entry.cluster_time.ms_since(**at) < window_ms
                    });
                    let standing = group.contenders.keys().filter(|session| stands(session));
                    self.on_deposed(
                        &tenure.key,
                        counting.count(),
                        standing.count(),
                        group.spec.depose_quorum,
                    )?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn on_deposed(
        &mut self,
        tenure: &TenureKey,
        reports: usize,
        standing: usize,
        quorum: DeposeQuorum,
    ) -> Verdict {
        self.checked += 1;
        let needed = match quorum {
            DeposeQuorum::Off => usize::MAX,
            DeposeQuorum::Majority => (standing / 2 + 1).max(2),
            DeposeQuorum::Reports { min } => usize::try_from(min).expect("a small number").max(1),
        };
        if reports >= needed {
            return Ok(());
        }
        Err(Violation {
            checker: "deposed_by_quorum",
            guarantee: "the contract: peers may depose a holder by a quorum of fresh reports (design, section 7)",
            what: format!(
                "{tenure:?} was deposed by {reports} reports that count, of {standing} that stand; the quorum is {quorum:?}"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::GroupKey;
    use quorate_types::{GroupName, Revision, TenureNumber};

    #[test]
    fn a_holder_deposed_by_too_few_is_reported() {
        let tenure = TenureKey {
            group: GroupKey {
                name: GroupName::new("g").unwrap(),
                created: Revision(1),
            },
            number: TenureNumber(1),
        };
        let mut deposals = Deposals::default();
        let mut check = |reports, standing, quorum| {
            deposals
                .on_deposed(&tenure, reports, standing, quorum)
                .is_ok()
        };
        assert!(check(2, 3, DeposeQuorum::Majority));
        assert!(!check(1, 2, DeposeQuorum::Majority), "one of two alone");
        assert!(!check(2, 5, DeposeQuorum::Majority));
        assert!(check(1, 5, DeposeQuorum::Reports { min: 1 }));
        assert!(!check(5, 5, DeposeQuorum::Off));
    }
}
