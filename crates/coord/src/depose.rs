//! Peers may depose: contenders report a holder that is alive but faulty, and a quorum of reports revokes its tenure.
//!
//! A report is a vote about one tenure; the one that completes the quorum deposes. How the tenure then ends is no business
//! of this file: it is revoked like any other (protocol, section 3). Why the quorum is what it is: ADR peers-may-depose.

use std::sync::Arc;

use quorate_types::{ClusterTime, NodeName, SessionId, TenureNumber};
use serde::{Deserialize, Serialize};

use crate::command::{SessionKey, TenureKey};
use crate::event::{Cause, Event, Phase};
use crate::group::Group;
use crate::lifecycle::Context;
use crate::reply::{Outcome, Rejection};
use crate::spec::DeposeQuorum;
use crate::state::{GroupId, State};
use crate::validate;

/// Longest reason of a report, in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// Most reports remembered with a tenure that was deposed.
pub const REPORTS_KEPT_MAX: usize = 16;

/// A contender's claim that the holder is alive but faulty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// Who claims it.
    pub session: SessionId,
    /// Its node.
    pub node: NodeName,
    /// What it says is wrong; at most [`REASON_BYTES_MAX`] bytes, without control characters.
    pub reason: String,
    /// When it was last said: it counts for the spec's `depose_window_ms` from here.
    pub at: ClusterTime,
}

impl DeposeQuorum {
    /// How many reports depose the holder of a group with so many live contenders, it included; `None`: none ever do.
    #[must_use]
    pub fn reports_needed(self, contenders: usize) -> Option<u32> {
        match self {
            Self::Off => None,
            // At least 2, so that of two contenders neither can unseat the other alone.
            Self::Majority => Some((contenders / 2 + 1).max(2) as u32),
            Self::Reports { min } => Some(min.max(1)),
        }
    }
}

impl Group {
    /// Takes a contender out, and with it what it said of the holder. What already deposed the holder is record, and stays.
    pub(crate) fn remove_contender(&mut self, session: SessionId) {
        self.contenders.remove(&session);
        let is_believed = self.phase.is_believed();
        if let Some(tenure) = self.tenure.as_mut().filter(|_| is_believed) {
            tenure.reports.remove(&session);
        }
    }
}

impl State {
    /// The reports about the group's holder that count now: fresh, and by who still stands under a session that is not revoked.
    /// Once the holder is deposed, those that deposed it.
    pub fn fault_reports<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a FaultReport> {
        let window_ms = group.spec.depose_window_ms;
        let reports = group.tenure.iter().flat_map(|t| t.reports.values());
        reports.filter(move |report| {
            group.phase == Phase::Revoking
                || self.cluster_time < report.at.plus_ms(window_ms)
                    && self.is_live_contender(group, report.session)
        })
    }

    /// How many reports would depose the group's holder now; `None`: none would.
    #[must_use]
    pub fn fault_reports_needed(&self, group: &Group) -> Option<u32> {
        let live = group.contenders.keys();
        let live = live.filter(|session| self.is_live_contender(group, **session));
        group.spec.depose_quorum.reports_needed(live.count())
    }

    fn is_live_contender(&self, group: &Group, session: SessionId) -> bool {
        group.contenders.contains_key(&session)
            && self.session(session).is_some_and(|found| !found.revoked)
    }

    /// The group of a tenure that a report is about, where the tenure is its current one.
    fn reported(&self, tenure: &TenureKey) -> Result<GroupId, Rejection> {
        let name = &tenure.group.name;
        let id = self.derived.names.get(name).copied();
        let id = id.ok_or_else(|| Rejection::UnknownGroup {
            group: name.clone(),
        })?;
        let group = self.by_id(id);
        if group.tenure_key().as_ref() == Some(tenure) {
            return Ok(id);
        }
        let current: Option<TenureNumber> = group.tenure.as_ref().map(|t| t.number);
        Err(Rejection::StaleTenure {
            tenure: tenure.clone(),
            current,
        })
    }

    pub(crate) fn report_faulty(
        &mut self,
        cx: &mut Context<'_>,
        key: SessionKey,
        tenure: &TenureKey,
        reason: &str,
    ) -> Outcome {
        let node = self.unrevoked(key)?.node.clone();
        validate::reason(reason)?;
        let id = self.reported(tenure)?;
        let group = self.by_id(id);
        let refused = |why: &str| Rejection::MayNotReport {
            group: group.key.name.clone(),
            session: key.id,
            why: why.into(),
        };
        let Some(node) = node.filter(|_| group.contenders.contains_key(&key.id)) else {
            return Err(refused("it does not stand in the group"));
        };
        if group.holder() == Some(key.id) {
            return Err(refused(
                "it is the holder; a holder that cannot lead releases",
            ));
        }
        if group.spec.depose_quorum == DeposeQuorum::Off {
            return Err(refused(
                "the group's spec does not let its contenders depose",
            ));
        }
        match group.phase {
            Phase::Active | Phase::Draining => {}
            // The wish holds already.
            Phase::Revoking => return Self::done(),
            Phase::Vacant | Phase::Polling | Phase::Preparing => {
                return Err(Rejection::WrongPhase {
                    group: group.key.name.clone(),
                    phase: group.phase,
                    needed: "only who leads can be reported; who prepares has its deadline".into(),
                });
            }
        }
        let report = FaultReport {
            session: key.id,
            node,
            reason: reason.into(),
            at: self.cluster_time,
        };
        // What no longer counts goes now, so that only reporters of the last window are kept.
        let mut kept: imbl::OrdMap<_, _> = self
            .fault_reports(group)
            .map(|report| (report.session, report.clone()))
            .collect();
        kept.insert(key.id, report.clone());
        let count = kept.len() as u64;
        self.edit(id, |group| {
            let tenure = group.tenure.as_mut().expect("a led group has a tenure");
            tenure.reports = kept;
        });
        cx.emit(Event::HolderReported {
            tenure: tenure.clone(),
            report,
        });
        let needed = self.fault_reports_needed(self.by_id(id));
        if needed.is_some_and(|needed| count >= u64::from(needed)) {
            self.depose(cx, id);
        }
        Self::done()
    }

    /// Revokes the tenure, and says on whose word. Minimum tenure protects from moves that nobody needs, not from this.
    fn depose(&mut self, cx: &mut Context<'_>, id: GroupId) {
        self.revoke_tenure(cx, id, Cause::Deposed);
        let (tenure, key) = self.tenure_of(id);
        let reports = tenure.reports.values().cloned().collect();
        cx.emit(Event::HolderDeposed {
            tenure: key,
            reports,
        });
    }

    pub(crate) fn withdraw_report(
        &mut self,
        cx: &mut Context<'_>,
        key: SessionKey,
        tenure: &TenureKey,
    ) -> Outcome {
        if self.live(key).is_none() {
            return Err(Rejection::UnknownSession { session: key.id });
        }
        let id = self.reported(tenure)?;
        let group = self.by_id(id);
        if group.phase == Phase::Revoking {
            return Err(Rejection::WrongPhase {
                group: group.key.name.clone(),
                phase: group.phase,
                needed: "a revocation is never taken back".into(),
            });
        }
        let found = group.tenure.as_ref();
        if found.is_some_and(|t| t.reports.contains_key(&key.id)) {
            self.edit(id, |group| {
                let tenure = group.tenure.as_mut().expect("the report is about a tenure");
                tenure.reports.remove(&key.id);
            });
            cx.emit(Event::ReportWithdrawn {
                tenure: tenure.clone(),
                session: key,
            });
        }
        Self::done()
    }
}

/// What the record of a tenure that is over keeps: who deposed it, the first in order of sessions where they are many.
pub(crate) fn reports_to_keep(tenure: &crate::group::Tenure) -> Arc<Vec<FaultReport>> {
    if tenure.revoked_for != Some(Cause::Deposed) {
        return Arc::default();
    }
    let reports = tenure.reports.values().take(REPORTS_KEPT_MAX);
    Arc::new(reports.cloned().collect())
}
