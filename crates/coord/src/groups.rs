//! Commands about groups and standing in them: create, update, delete, contend, withdraw.

use std::collections::BTreeSet;
use std::sync::Arc;

use quorate_types::{GroupName, Revision};

use crate::command::{GroupKey, SessionKey};
use crate::elect::missing_label;
use crate::event::{Cause, Event, Phase};
use crate::group::{Contender, Group, Pending, PendingKind};
use crate::handover::Retry;
use crate::lifecycle::Context;
use crate::reply::{Outcome, Rejection, Reply};
use crate::spec::{ContenderSpec, GroupSpec, ProposedConfiguration};
use crate::state::{GroupId, State};
use crate::validate;

impl State {
    /// The group of a name, if it is there to stay.
    pub(crate) fn find_group(&self, name: &GroupName) -> Result<GroupId, Rejection> {
        let id = self.derived.names.get(name).copied();
        let id = id.ok_or_else(|| Rejection::UnknownGroup {
            group: name.clone(),
        })?;
        if self.by_id(id).deleting {
            Err(Rejection::GroupDeleting {
                group: name.clone(),
            })
        } else {
            Ok(id)
        }
    }

    /// What a batch replies.
    pub(crate) fn batch_outcome(refused: Vec<(u32, Rejection)>) -> Outcome {
        if refused.is_empty() {
            Self::done()
        } else {
            Ok(Reply::Partly {
                revision: Revision::ZERO,
                refused,
            })
        }
    }

    pub(crate) fn create_groups(
        &mut self,
        cx: &mut Context<'_>,
        groups: &[(GroupName, GroupSpec)],
    ) -> Outcome {
        validate::batch("the number of groups", groups.len())?;
        let created = self.revision_next();
        let mut names = BTreeSet::new();
        for (name, spec) in groups {
            validate::group(spec)?;
            match self.find_group(name) {
                Ok(id) => {
                    let created = self.by_id(id).key.created;
                    return Err(Rejection::GroupExists {
                        group: name.clone(),
                        created,
                    });
                }
                Err(Rejection::UnknownGroup { .. }) => {}
                Err(deleting) => return Err(deleting),
            }
            if !names.insert(name) {
                return Err(Rejection::GroupExists {
                    group: name.clone(),
                    created,
                });
            }
        }
        for (name, spec) in groups {
            self.group_last = GroupId(self.group_last.0 + 1);
            let key = GroupKey {
                name: name.clone(),
                created,
            };
            self.file_group(Group::new(self.group_last, key.clone(), spec.clone()));
            cx.moved.push(self.group_last);
            cx.emit(Event::GroupCreated { group: key });
        }
        Self::done()
    }

    fn expect_revision(&self, id: GroupId, expected: Option<Revision>) -> Result<(), Rejection> {
        let group = self.by_id(id);
        match expected {
            Some(expected) if expected != group.spec_revision => Err(Rejection::RevisionMismatch {
                group: group.key.name.clone(),
                expected,
                found: group.spec_revision,
            }),
            _ => Ok(()),
        }
    }

    pub(crate) fn update_group(
        &mut self,
        cx: &mut Context<'_>,
        name: &GroupName,
        spec: &GroupSpec,
        expected: Option<Revision>,
    ) -> Outcome {
        let id = self.find_group(name)?;
        self.expect_revision(id, expected)?;
        validate::group(spec)?;
        if *self.by_id(id).spec == *spec {
            return Self::done();
        }
        let revision = self.revision_next();
        self.edit(id, |group| {
            group.spec = Arc::new(spec.clone());
            group.spec_revision = revision;
        });
        cx.emit(Event::GroupUpdated {
            group: self.by_id(id).key.clone(),
        });
        cx.dirty.insert(id);
        self.balance.trigger();
        Self::done()
    }

    pub(crate) fn delete_group(
        &mut self,
        cx: &mut Context<'_>,
        name: &GroupName,
        expected: Option<Revision>,
    ) -> Outcome {
        let id = self.find_group(name)?;
        self.expect_revision(id, expected)?;
        self.stop_tenure(cx, id, Cause::Deleted);
        if self.by_id(id).phase == Phase::Vacant {
            self.remove_group(cx, id);
        } else {
            self.edit(id, |group| {
                group.deleting = true;
                group.pending = None;
            });
            cx.changed = true;
        }
        Self::done()
    }

    pub(crate) fn contend(
        &mut self,
        cx: &mut Context<'_>,
        key: SessionKey,
        groups: &[(GroupName, ContenderSpec)],
    ) -> Outcome {
        if self.unrevoked(key)?.node.is_none() {
            return Err(Rejection::NotANode { session: key.id });
        }
        validate::batch("the number of groups", groups.len())?;
        let mut refused = Vec::new();
        // Most nodes publish the same in all their groups: share it.
        let mut shared: Arc<ProposedConfiguration> = Arc::default();
        for (at, (name, spec)) in groups.iter().enumerate() {
            if *shared != spec.configuration {
                shared = Arc::new(spec.configuration.clone());
            }
            if let Err(rejection) = self.contend_one(cx, key, name, spec, &shared) {
                refused.push((at as u32, rejection));
            }
        }
        Self::batch_outcome(refused)
    }

    fn contend_one(
        &mut self,
        cx: &mut Context<'_>,
        key: SessionKey,
        name: &GroupName,
        spec: &ContenderSpec,
        configuration: &Arc<ProposedConfiguration>,
    ) -> Result<(), Rejection> {
        validate::contender(spec)?;
        let id = self.find_group(name)?;
        let group = self.by_id(id);
        let node = self
            .live(key)
            .and_then(|s| s.node.clone())
            .expect("the caller checked the session");
        let filed = self.node(&node).expect("a live session's node is filed");
        if let Some((key, value)) = missing_label(group, filed) {
            let why = format!("it lacks the label {key}={value}");
            return Err(Rejection::NotEligible {
                group: name.clone(),
                node,
                why,
            });
        }
        let before = group.contenders.get(&key.id).cloned();
        let since = before.as_ref().map_or(self.cluster_time, |c| c.since);
        let (priority, configuration) = (spec.priority, Arc::clone(configuration));
        let contender = Contender {
            priority,
            configuration,
            withdrawing: false,
            since,
        };
        if before.as_ref() == Some(&contender) {
            return Ok(());
        }
        let is_new = before.is_none();
        let returns = before.is_some_and(|c| c.withdrawing);
        let (phase, spread) = (group.phase, group.spec.spread);
        self.edit(id, |group| group.contenders.insert(key.id, contender));
        if is_new {
            self.note_contending(key.id, id, true);
        }
        cx.changed = true;
        cx.dirty.insert(id);
        if returns
            && self
                .by_id(id)
                .pending
                .as_ref()
                .is_some_and(|p| p.kind == PendingKind::Withdrawal)
        {
            self.call_off(cx, id);
        }
        match phase {
            Phase::Polling => self.join_poll(cx, id, key.id),
            Phase::Active | Phase::Draining if is_new && spread => self.balance.trigger(),
            _ => {}
        }
        Ok(())
    }

    /// Drops a pending handover, draining or not.
    pub(crate) fn call_off(&mut self, cx: &mut Context<'_>, id: GroupId) {
        if self.by_id(id).phase == Phase::Draining {
            self.stop_drain(cx, id, Cause::Aborted, Retry::Never);
        } else {
            self.edit(id, |group| group.pending = None);
            cx.changed = true;
            cx.dirty.insert(id);
        }
    }

    pub(crate) fn withdraw(
        &mut self,
        cx: &mut Context<'_>,
        key: SessionKey,
        groups: &[GroupName],
    ) -> Outcome {
        if self.live(key).is_none() {
            return Err(Rejection::UnknownSession { session: key.id });
        }
        validate::batch("the number of groups", groups.len())?;
        let mut refused = Vec::new();
        for (at, name) in groups.iter().enumerate() {
            match self.derived.names.get(name).copied() {
                Some(id) => self.withdraw_one(cx, key, id),
                None => refused.push((
                    at as u32,
                    Rejection::UnknownGroup {
                        group: name.clone(),
                    },
                )),
            }
        }
        Self::batch_outcome(refused)
    }

    fn withdraw_one(&mut self, cx: &mut Context<'_>, key: SessionKey, id: GroupId) {
        let now = self.cluster_time;
        let group = self.by_id(id);
        let Some(contender) = group.contenders.get(&key.id) else {
            return;
        };
        let is_holder = group.holder() == Some(key.id);
        if is_holder && contender.withdrawing {
            return;
        }
        cx.changed = true;
        if is_holder && group.phase != Phase::Preparing {
            self.edit(id, |group| {
                let from = group.tenure.as_ref().and_then(|t| t.node.clone());
                group
                    .contenders
                    .get_mut(&key.id)
                    .expect("the holder stands")
                    .withdrawing = true;
                if matches!(group.phase, Phase::Active | Phase::Draining) {
                    let to = group.pending.take().and_then(|p| p.to);
                    let kind = PendingKind::Withdrawal;
                    group.pending = Some(Pending {
                        kind,
                        to,
                        from,
                        since: now,
                        not_before: now,
                    });
                }
            });
            cx.dirty.insert(id);
            return;
        }
        if is_holder {
            self.end_tenure(cx, id, Cause::Withdrawn, None);
        } else {
            self.leave_aside(cx, id, key.id, Cause::Withdrawn);
        }
        self.drop_contender(id, key.id);
    }
}
