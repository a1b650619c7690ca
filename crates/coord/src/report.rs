//! What contenders report about tenures: polled, ready, failed, released, declined.

use crate::command::{Report, SessionKey, TenureKey};
use crate::event::{Cause, Phase};
use crate::group::Group;
use crate::handover::Retry;
use crate::lifecycle::{Context, strike};
use crate::reply::{Outcome, Rejection};
use crate::spec::Position;
use crate::state::{GroupId, State};
use crate::validate;

fn wrong_phase(group: &Group, needed: &str) -> Rejection {
    Rejection::WrongPhase {
        group: group.key.name.clone(),
        phase: group.phase,
        needed: needed.into(),
    }
}

impl State {
    /// Takes reports. A revoked session's are taken too: its release is what ends the wait early.
    pub(crate) fn report(
        &mut self,
        cx: &mut Context<'_>,
        key: SessionKey,
        reports: &[(TenureKey, Report)],
    ) -> Outcome {
        if self.live(key).is_none() {
            return Err(Rejection::UnknownSession { session: key.id });
        }
        validate::batch("the number of reports", reports.len())?;
        let mut refused = Vec::new();
        for (at, (tenure, report)) in reports.iter().enumerate() {
            if let Err(rejection) = self.report_one(cx, key, tenure, *report) {
                refused.push((at as u32, rejection));
            }
        }
        Self::batch_outcome(refused)
    }

    fn report_one(
        &mut self,
        cx: &mut Context<'_>,
        key: SessionKey,
        tenure: &TenureKey,
        report: Report,
    ) -> Result<(), Rejection> {
        let name = &tenure.group.name;
        let id = self.derived.names.get(name).copied();
        let id = id.ok_or_else(|| Rejection::UnknownGroup {
            group: name.clone(),
        })?;
        let group = self.by_id(id);
        if group.tenure_key().as_ref() != Some(tenure) {
            let current = group.tenure.as_ref().map(|t| t.number);
            return Err(Rejection::StaleTenure {
                tenure: tenure.clone(),
                current,
            });
        }
        let is_holder = group.holder() == Some(key.id);
        let is_successor = group.successor().is_some_and(|s| s.session == key.id);
        match report {
            Report::Polled { position } => self.report_polled(cx, id, key, position),
            Report::Ready { position } if is_holder => self.report_ready(cx, id, position),
            Report::Ready { position } if is_successor => {
                self.edit(id, |group| {
                    let tenure = group
                        .tenure
                        .as_mut()
                        .expect("a successor has a tenure to succeed");
                    tenure
                        .successor
                        .as_mut()
                        .expect("the session is the successor")
                        .ready = Some(position);
                });
                Ok(())
            }
            Report::Ready { .. } => Err(wrong_phase(
                group,
                "only who prepares or is to succeed can be ready",
            )),
            Report::Failed => self.report_failed(cx, id, key, is_holder, is_successor),
            // Always applies, even after an abort: the holder has ended its belief (protocol, section 3).
            Report::Released { position } if is_holder => {
                self.end_tenure(cx, id, Cause::Released, position);
                Ok(())
            }
            Report::Released { .. } => Err(wrong_phase(group, "only the holder can release")),
            Report::Declined if is_holder && group.phase == Phase::Draining => {
                // The refusal answers a transfer: it is not asked again.
                self.stop_drain(cx, id, Cause::Aborted, Retry::Later);
                Ok(())
            }
            Report::Declined => Err(wrong_phase(
                group,
                "only a handover can be declined, by the holder",
            )),
        }
    }

    fn report_polled(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        key: SessionKey,
        position: Position,
    ) -> Result<(), Rejection> {
        let group = self.by_id(id);
        let is_asked = group
            .tenure
            .as_ref()
            .is_some_and(|t| t.asked.contains_key(&key.id));
        if !is_asked {
            return Err(wrong_phase(
                group,
                "only who is asked for its position, and while polling, can answer",
            ));
        }
        self.edit(id, |group| {
            let tenure = group.tenure.as_mut().expect("a polled group has a tenure");
            tenure.asked.insert(key.id, Some(position));
        });
        cx.dirty.insert(id);
        Ok(())
    }

    fn report_ready(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        position: Position,
    ) -> Result<(), Rejection> {
        let group = self.by_id(id);
        match group.phase {
            // A report repeated after a reconnect.
            Phase::Active => Ok(()),
            Phase::Preparing => {
                if let Some(required) = group.required.filter(|required| position < *required) {
                    let node = group
                        .tenure
                        .as_ref()
                        .and_then(|t| t.node.clone())
                        .expect("a preparing tenure has a node");
                    let why = format!(
                        "it is at {}, its predecessor released at {}",
                        position.0, required.0
                    );
                    return Err(Rejection::NotEligible {
                        group: group.key.name.clone(),
                        node,
                        why,
                    });
                }
                self.enter_active(cx, id, Cause::Ready);
                Ok(())
            }
            _ => Err(wrong_phase(
                group,
                "only who prepares or is to succeed can be ready",
            )),
        }
    }

    fn report_failed(
        &mut self,
        cx: &mut Context<'_>,
        id: GroupId,
        key: SessionKey,
        is_holder: bool,
        is_successor: bool,
    ) -> Result<(), Rejection> {
        let group = self.by_id(id);
        let is_asked = group
            .tenure
            .as_ref()
            .is_some_and(|t| t.asked.contains_key(&key.id));
        if is_holder && group.phase == Phase::Preparing {
            self.end_tenure(cx, id, Cause::Failed, None);
            return Ok(());
        }
        if !is_successor && !is_asked {
            return Err(wrong_phase(
                group,
                "only who prepares, is polled or is to succeed can fail; a holder releases",
            ));
        }
        let now = self.cluster_time;
        let node = self
            .live(key)
            .and_then(|s| s.node.clone())
            .expect("a contender is a node");
        self.edit(id, |group| strike(group, &node, now, true));
        self.leave_aside(cx, id, key.id, Cause::Failed);
        Ok(())
    }
}
