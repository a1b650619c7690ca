//! Every transition of a group is a row of the contract's table, follows on the one before, and no tenure begins before the one
//! before has ended (protocol, section 4). What only a holder, an operator or a leader may initiate is in an entry of theirs.

use std::collections::BTreeMap;

use quorate_coord::{
    Cause, Command, Envelope, Event, GroupKey, Phase, RequestKey, SessionKey, TRANSITIONS,
    TenureKey, TenureView,
};
use quorate_replica::AppliedEntry;
use quorate_types::DirectiveSeq;

use super::{Verdict, Violation};

/// Where each group stands, and which directive each session had last.
#[derive(Debug, Default)]
pub struct Lifecycle {
    phases: BTreeMap<GroupKey, (Phase, Option<TenureKey>)>,
    directives: BTreeMap<SessionKey, DirectiveSeq>,
    /// How often each row of the table was met.
    pub rows: BTreeMap<usize, u64>,
    /// How many transitions were looked at.
    pub checked: u64,
}

impl Lifecycle {
    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// A transition is not in the table, or does not follow.
    pub fn on_committed(&mut self, entry: &AppliedEntry, envelope: Option<&Envelope>) -> Verdict {
        for event in &entry.events {
            match event {
                Event::Transition {
                    from,
                    to,
                    cause,
                    tenure,
                    ..
                } => {
                    self.on_transition(event)?;
                    let envelope = envelope.ok_or_else(|| {
                        violation(format!(
                            "entry {} carries no command: {event:?}",
                            entry.index
                        ))
                    })?;
                    initiated(envelope, *from, *to, *cause, tenure)?;
                }
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
        let row = TRANSITIONS
            .iter()
            .position(|row| row.from == *from && row.to == *to && row.cause == *cause);
        let Some(row) = row else {
            return Err(violation(format!(
                "{group:?} went {from:?} -> {to:?} for {cause:?}: not in the table"
            )));
        };
        *self.rows.entry(row).or_default() += 1;
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

/// Whether the entry may initiate the transition. Causes that follow from others (an election after an end, say) are anybody's.
fn initiated(
    envelope: &Envelope,
    from: Phase,
    to: Phase,
    cause: Cause,
    tenure: &TenureView,
) -> Verdict {
    let own = envelope.request == RequestKey::Internal;
    let holds = |session: &SessionKey| tenure.holder == Some(session.id);
    let may = match (cause, &envelope.command) {
        (Cause::Released, Command::Report { session, .. })
        | (Cause::Closed, Command::CloseSession { session }) => holds(session),
        (Cause::Ready, Command::Report { session, .. }) => holds(session),
        (Cause::Withdrawn, Command::Withdraw { session, .. }) if to == Phase::Vacant => {
            holds(session)
        }
        // Asked for at any time, a withdrawal's handover begins when somebody can follow.
        (Cause::Withdrawn, _) => to == Phase::Draining,
        (Cause::Expired, Command::ExpireSessions { sessions, .. }) => {
            own && sessions.iter().any(holds)
        }
        (Cause::WaitedOut, Command::VacateTenures { tenures, .. }) => {
            own && tenures.contains(&tenure.key)
        }
        (Cause::SessionRevoked, Command::RevokeSession { session }) => {
            tenure.holder == Some(*session)
        }
        (Cause::SessionRevoked, Command::ExpireSessions { sessions, .. }) => {
            own && from == Phase::Revoking && sessions.iter().any(holds)
        }
        (Cause::Deposed, Command::ReportFaulty { session, .. }) => !holds(session),
        (Cause::Deleted, Command::DeleteGroup { group, .. }) => *group == tenure.key.group.name,
        (
            Cause::Released
            | Cause::Closed
            | Cause::Ready
            | Cause::Expired
            | Cause::WaitedOut
            | Cause::SessionRevoked
            | Cause::Deleted
            | Cause::Deposed,
            _,
        ) => false,
        // Deadlines fire in any entry; elections, polls and moves follow from what made room for them.
        _ => true,
    };
    if may {
        return Ok(());
    }
    Err(violation(format!(
        "{from:?} -> {to:?} for {cause:?} of {:?} (holder {:?}) was initiated by {:?} of {:?}",
        tenure.key, tenure.holder, envelope.command, envelope.request
    )))
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
    fn an_end_that_others_than_the_holder_or_leader_initiate_is_reported() {
        let Event::Transition { mut tenure, .. } =
            transition(Phase::Active, Phase::Vacant, Cause::Expired, 1)
        else {
            panic!("a transition")
        };
        tenure.holder = Some(quorate_types::SessionId(4));
        let session = SessionKey {
            id: quorate_types::SessionId(4),
            created: Revision(1),
        };
        let check = |request, command, cause| {
            let envelope = Envelope {
                principal: quorate_types::Principal::new("t").unwrap(),
                request,
                trace: quorate_types::TraceId(1),
                wall: quorate_types::WallTime(0),
                cluster_time: quorate_types::ClusterTime(0),
                contract: quorate_types::ContractVersion(1),
                command,
            };
            initiated(&envelope, Phase::Active, Phase::Vacant, cause, &tenure)
        };
        let expire = |sessions| Command::ExpireSessions {
            term: quorate_types::Term(1),
            sessions,
        };
        let caller = RequestKey::Caller(quorate_types::RequestId(1));
        let internal = RequestKey::Internal;
        assert!(check(internal, expire(vec![session]), Cause::Expired).is_ok());
        assert!(check(internal, expire(Vec::new()), Cause::Expired).is_err());
        assert!(check(caller, expire(vec![session]), Cause::Expired).is_err());
        assert!(check(caller, Command::Advance, Cause::Released).is_err());
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
