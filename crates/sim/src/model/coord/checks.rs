//! What must hold of every transition and in every state. Each invariant is counted, so that the report shows it was looked at.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use quorate_coord::{
    Cause, Command, DirectiveKind, Event, Group, GroupKey, Initiator, Part, Phase, Reply, Report,
    SessionKey, State, TRANSITIONS, TenureKey, TenureView,
};
use quorate_types::{ClusterTime, LogIndex, SessionId, TenureNumber, Term};

use super::{Action, Applied, Coord, Ghost, TERM, World, apply, directives};

/// The invariants, and how often each was looked at.
#[derive(Debug)]
pub struct Tally([AtomicU64; NAMES.len()]);

const NAMES: [&str; 13] = [
    "transitions are rows of the contract, in order, by an initiator it names",
    "tenure numbers rise by one, tokens over recreations too, once per revision",
    "no tenure becomes active while an earlier one is believed (guarantee 3)",
    "a believed tenure ends only by release, session end, or after the wait",
    "a release of the current tenure always applies, even after an abort",
    "nobody becomes active behind the released position",
    "positions filter before priority: the freshest answer of a poll wins",
    "a session's end ends all it takes part in, and elects none of its batch",
    "directives are gap-free and leave what the standing says",
    "the same entry on the same state gives the same state, reply and events",
    "the stored image gives the same state, and the same future",
    "stale stamps, terms, tenures and sessions have no effect",
    "nothing is missed: at rest no eligible contender of a vacant group waits",
];

impl Default for Tally {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Clone for Tally {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[derive(Clone, Copy)]
enum Checked {
    Contract,
    Numbers,
    Belief,
    EndOfBelief,
    Release,
    Released,
    Freshest,
    SessionEnd,
    Directives,
    Twin,
    Image,
    Stale,
    Missed,
}

impl Tally {
    fn count(&self, what: Checked) {
        self.0[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Names and counts.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let read = self.0.iter().map(|count| count.load(Ordering::Relaxed));
        NAMES.into_iter().zip(read).collect()
    }
}

type Checks = Result<(), String>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Checks {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// One transition of a group.
struct Step<'a> {
    from: Phase,
    to: Phase,
    cause: Cause,
    tenure: &'a TenureView,
}

impl Coord {
    /// Determinism: the entry once more on another copy. Every few, on a copy out of a snapshot instead.
    pub(crate) fn check_twin(
        &self,
        world: &World,
        index: LogIndex,
        now: ClusterTime,
        action: &Action,
        applied: &Applied,
    ) -> Checks {
        // One entry in four on a copy, one in sixteen on one out of a snapshot: by what tells neighbours apart.
        let after = &applied.state;
        let mix = (after.revision().0 ^ world.index.0 << 3 ^ applied.events.len() as u64)
            .wrapping_add(after.cluster_time().0)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 60;
        if !mix.is_multiple_of(4) {
            return Ok(());
        }
        let twin = if mix == 0 {
            self.tally.count(Checked::Image);
            apply(&stored(&world.state)?, index, now, &action.command)
        } else {
            apply(&world.state, index, now, &action.command)
        };
        self.tally.count(Checked::Twin);
        ensure(twin.outcome == applied.outcome, || {
            format!("replies differ: {:?}, {:?}", applied.outcome, twin.outcome)
        })?;
        ensure(twin.events == applied.events, || {
            format!("events differ: {:?}, {:?}", applied.events, twin.events)
        })?;
        ensure(twin.state.digest() == applied.state.digest(), || {
            "the same entry led to different states".to_owned()
        })
    }

    /// Checks one entry, and what the model remembers after it.
    pub(crate) fn check_step(
        &self,
        world: &World,
        action: &Action,
        applied: &Applied,
    ) -> Result<Vec<Ghost>, String> {
        let mut ghosts = world.ghosts.clone();
        self.before_the_entry(world, action, applied, &mut ghosts);
        let mut phases: Vec<(GroupKey, Phase, TenureNumber)> = world
            .state
            .groups()
            .map(|group| (group.key.clone(), group.phase, group.number_last))
            .collect();
        let mut ended: BTreeSet<SessionId> = BTreeSet::new();
        for event in &applied.events {
            match event {
                Event::GroupCreated { group } => {
                    phases.push((group.clone(), Phase::Vacant, TenureNumber::ZERO));
                }
                Event::GroupDeleted { group } => {
                    let at = phases.iter().position(|(key, ..)| key == group);
                    let (_, phase, _) = phases.remove(at.ok_or("an unknown group was deleted")?);
                    let ghost = &mut ghosts[self.number_of(&group.name)];
                    ensure(phase == Phase::Vacant && ghost.believes.is_none(), || {
                        format!("{group:?} is deleted while {phase:?}, {ghost:?}")
                    })?;
                    *ghost = Ghost {
                        token: ghost.token,
                        ..Ghost::default()
                    };
                }
                Event::SessionEnded { session, .. } => {
                    ended.insert(session.id);
                    for ghost in &mut ghosts {
                        ghost.reported.remove(&session.id.0);
                    }
                    ensure(
                        ghosts.iter().all(|ghost| ghost.believes != Some(*session)),
                        || format!("{session:?} ended, and may still believe to lead"),
                    )?;
                }
                Event::Transition {
                    group,
                    from,
                    to,
                    cause,
                    tenure,
                } => {
                    let found = phases.iter_mut().find(|(key, ..)| key == group);
                    let (_, phase, number) = found.ok_or("a transition of an unknown group")?;
                    ensure(phase == from, || {
                        format!("{group:?} went from {from:?}, but was {phase:?}")
                    })?;
                    *phase = *to;
                    let step = Step {
                        from: *from,
                        to: *to,
                        cause: *cause,
                        tenure,
                    };
                    self.check_contract(world, action, group, &step)?;
                    let ghost = &mut ghosts[self.number_of(&group.name)];
                    self.check_numbers(number, ghost, &step)?;
                    let is_elected = matches!(cause, Cause::Elected | Cause::Polled);
                    if let Some(holder) = tenure.holder.filter(|_| is_elected) {
                        ensure(!ended.contains(&holder), || {
                            format!("{holder} was elected after it ended")
                        })?;
                    }
                    self.check_positions(applied, group, ghost, &step)?;
                    self.check_belief(applied, ghost, &step)?;
                    follow_release(action, ghost, &step);
                }
                Event::Directive { session, directive } => {
                    let group = &directive.tenure.group;
                    let is_polling = phases
                        .iter()
                        .any(|(key, phase, _)| key == group && *phase == Phase::Polling);
                    let has_left = match directive.kind {
                        DirectiveKind::StandBy => true,
                        // Out of a poll that goes on.
                        DirectiveKind::Ended { .. } => is_polling,
                        _ => false,
                    };
                    if has_left {
                        let ghost = &mut ghosts[self.number_of(&group.name)];
                        ghost.reported.remove(&session.id.0);
                    }
                }
                _ => {}
            }
        }
        self.check_end(world, action, applied, &phases)?;
        self.check_directives(&world.state, applied)?;
        Ok(ghosts)
    }

    /// What the environment does before its command reaches the log: beliefs end, positions are reported.
    fn before_the_entry(
        &self,
        world: &World,
        action: &Action,
        applied: &Applied,
        ghosts: &mut [Ghost],
    ) {
        let mut lapse = |lapses: &dyn Fn(SessionKey) -> bool| {
            for ghost in ghosts.iter_mut() {
                if ghost.believes.is_some_and(lapses) {
                    ghost.believes = None;
                }
            }
        };
        match &action.command {
            Command::CloseSession { session } => lapse(&|key| key == *session),
            Command::ExpireSessions { sessions, .. } => lapse(&|key| sessions.contains(&key)),
            // The leader waited: the lease of the revoked tenure has lapsed.
            Command::VacateTenures { tenures, .. } => {
                for tenure in tenures {
                    let group = world.state.group(&tenure.group.name);
                    if group.is_some_and(|group| {
                        group.phase == Phase::Revoking
                            && group.tenure_key().as_ref() == Some(tenure)
                    }) {
                        ghosts[self.number_of(&tenure.group.name)].believes = None;
                    }
                }
            }
            Command::Report { session, reports } => {
                for (tenure, report) in reports {
                    let group = world.state.group(&tenure.group.name);
                    let is_current =
                        group.is_some_and(|group| group.tenure_key().as_ref() == Some(tenure));
                    let ghost = &mut ghosts[self.number_of(&tenure.group.name)];
                    match report {
                        Report::Released { .. }
                            if is_current && ghost.believes == Some(*session) =>
                        {
                            ghost.believes = None;
                        }
                        Report::Polled { position } | Report::Ready { position }
                            if matches!(applied.outcome, Ok(Reply::Done { .. }))
                                && group.is_some_and(counts_positions) =>
                        {
                            ghost.reported.insert(session.id.0, position.0);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn check_contract(
        &self,
        world: &World,
        action: &Action,
        group: &GroupKey,
        step: &Step<'_>,
    ) -> Checks {
        self.tally.count(Checked::Contract);
        let row = TRANSITIONS
            .iter()
            .find(|row| row.from == step.from && row.to == step.to && row.cause == step.cause);
        let Some(row) = row else {
            return Err(format!(
                "{:?} -> {:?} by {:?} is not in the contract",
                step.from, step.to, step.cause
            ));
        };
        // An election is begun by whoever stands, whatever made room for it; so is a voluntary handover.
        if matches!(step.cause, Cause::Elected | Cause::Rebalanced) {
            return Ok(());
        }
        // A wish to change hands waits for a successor or for a pause to pass: who wished initiated it then.
        let before = world.state.group(&group.name).filter(|g| g.key == *group);
        let wished = before
            .and_then(|group| group.pending.as_ref())
            .is_some_and(|pending| pending.kind.cause() == step.cause);
        if wished && matches!(step.from, Phase::Active | Phase::Preparing) {
            return Ok(());
        }
        let initiators = initiators(world, action, group, step);
        ensure(
            row.initiators.iter().any(|who| initiators.contains(who)),
            || {
                format!(
                    "{:?} -> {:?} by {:?} was initiated by {initiators:?}; the contract says {:?}",
                    step.from, step.to, step.cause, row.initiators
                )
            },
        )
    }

    fn check_numbers(&self, last: &mut TenureNumber, ghost: &mut Ghost, step: &Step<'_>) -> Checks {
        self.tally.count(Checked::Numbers);
        let number = step.tenure.key.number;
        if step.from == Phase::Vacant {
            ensure(number == last.next(), || {
                format!("tenure {number} follows tenure {last}")
            })?;
            // A token is the revision of its grant: rising means as well that no group is granted twice at one revision.
            let token = step.tenure.token.0;
            ensure(token > ghost.token, || {
                format!("token {token} of tenure {number} follows {}", ghost.token)
            })?;
            *last = number;
            ghost.token = token;
            return Ok(());
        }
        ensure(
            number == *last && step.tenure.token.0 == ghost.token,
            || {
                format!(
                    "a transition of tenure {number}, while {last} is current: at most one is not ended"
                )
            },
        )
    }

    /// Positions, as they are known at this transition.
    fn check_positions(
        &self,
        applied: &Applied,
        group: &GroupKey,
        ghost: &mut Ghost,
        step: &Step<'_>,
    ) -> Checks {
        let spec = &self.groups[self.number_of(&group.name)].1;
        let is_freshest = matches!(spec.policy, quorate_coord::ElectionPolicy::Freshest { .. });
        if !is_freshest && !spec.readiness {
            return Ok(());
        }
        let position = |holder: Option<SessionId>| {
            holder.and_then(|holder| ghost.reported.get(&holder.0).copied())
        };
        let enters = step.to == Phase::Active && step.from != Phase::Draining;
        if enters {
            self.tally.count(Checked::Released);
            let at = position(step.tenure.holder);
            ensure(at.is_some() && at >= ghost.released, || {
                format!(
                    "{:?} becomes active at {at:?}; released at {:?}, reported {:?}",
                    step.tenure.holder, ghost.released, ghost.reported
                )
            })?;
        }
        if step.cause == Cause::Polled && !ghost.is_complete {
            self.tally.count(Checked::Freshest);
            let at = position(step.tenure.holder);
            for (session, other) in &ghost.reported {
                if Some(*other) > at && may_lead(&applied.state, group, SessionId(*session)) {
                    let holder = step.tenure.holder;
                    return Err(format!(
                        "{holder:?} at {at:?} is elected, while s{session} is at {other}"
                    ));
                }
            }
        }
        let begins = step.cause == Cause::Elected && step.to != Phase::Active;
        if begins || enters || step.cause == Cause::Polled {
            ghost.reported.clear();
        }
        Ok(())
    }

    fn check_belief(&self, applied: &Applied, ghost: &mut Ghost, step: &Step<'_>) -> Checks {
        if step.to == Phase::Active && step.from != Phase::Draining {
            self.tally.count(Checked::Belief);
            if let Some(other) = ghost.believes {
                return Err(format!(
                    "{:?} becomes active while {other:?} may believe to lead",
                    step.tenure
                ));
            }
            let holder = step
                .tenure
                .holder
                .ok_or("an active tenure without holder")?;
            // Gone again within the same entry: then the holder never hears of it.
            ghost.believes = applied.state.session(holder).map(|session| session.key);
        }
        if step.to == Phase::Vacant
            && matches!(step.from, Phase::Active | Phase::Draining | Phase::Revoking)
        {
            self.tally.count(Checked::EndOfBelief);
            ensure(ghost.believes.is_none(), || {
                format!(
                    "{:?} ended by {:?} while {:?} may believe to lead",
                    step.tenure.key, step.cause, ghost.believes
                )
            })?;
        }
        Ok(())
    }

    /// What must hold after the entry as a whole.
    fn check_end(
        &self,
        world: &World,
        action: &Action,
        applied: &Applied,
        phases: &[(GroupKey, Phase, TenureNumber)],
    ) -> Checks {
        for (key, phase, _) in phases {
            let group = applied.state.group(&key.name).filter(|g| g.key == *key);
            let found = group.map(|group| group.phase);
            ensure(found == Some(*phase), || {
                format!("{key:?} is {found:?}; its transitions end in {phase:?}")
            })?;
        }
        match &action.command {
            Command::CloseSession { .. } | Command::ExpireSessions { .. }
                if applied.outcome.is_ok() =>
            {
                self.tally.count(Checked::SessionEnd);
                let gone: Vec<SessionId> = match &action.command {
                    Command::CloseSession { session } => vec![session.id],
                    Command::ExpireSessions { sessions, .. } => {
                        sessions.iter().map(|key| key.id).collect()
                    }
                    _ => Vec::new(),
                };
                for id in gone {
                    let takes_part = applied.state.groups().any(|group| is_part(group, id));
                    ensure(!takes_part && applied.state.session(id).is_none(), || {
                        format!("{id} ended and takes part")
                    })?;
                }
            }
            Command::Report { session, reports } => {
                for (tenure, report) in reports {
                    let holds = world.state.group(&tenure.group.name).is_some_and(|group| {
                        group.tenure_key().as_ref() == Some(tenure)
                            && group.holder() == Some(session.id)
                    });
                    // A deadline that fires in the same entry may have ended a preparation first.
                    if !matches!(report, Report::Released { .. }) || !holds {
                        continue;
                    }
                    self.tally.count(Checked::Release);
                    let is_over = applied
                        .state
                        .group(&tenure.group.name)
                        .is_none_or(|group| group.tenure_key().as_ref() != Some(tenure));
                    ensure(is_over, || {
                        format!("a release of {tenure:?} came to {:?}", applied.outcome)
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Who follows its directives knows exactly what its standing says.
    fn check_directives(&self, before: &State, applied: &Applied) -> Checks {
        for session in applied.state.sessions() {
            self.tally.count(Checked::Directives);
            let id = session.key.id;
            let mut parts = parts_of(before, id);
            let mut seq = before.session(id).map_or(0, |s| s.directive_seq.0);
            for (to, directive) in directives(&applied.events) {
                if to.id != id {
                    continue;
                }
                seq += 1;
                ensure(directive.seq.0 == seq, || {
                    format!("{id} misses directive {seq}: {directive:?}")
                })?;
                follow(&mut parts, &directive.tenure, &directive.kind)?;
            }
            parts.sort_by(|a, b| a.0.cmp(&b.0));
            let stands = parts_of(&applied.state, id);
            ensure(parts == stands && seq == session.directive_seq.0, || {
                format!("{id} follows its directives to {parts:?}; its standing is {stands:?}")
            })?;
        }
        Ok(())
    }

    /// What must hold in a state by itself.
    pub(crate) fn check_state(&self, world: &World) -> Checks {
        let state = &world.state;
        state.check_invariants();
        self.tally.count(Checked::Image);
        let copy = stored(state)?;
        copy.check_invariants();
        ensure(copy.digest() == state.digest(), || {
            "the stored image gives another state".to_owned()
        })?;
        for (group, ghost) in state.groups().map(|g| (g, self.number_of(&g.key.name))) {
            let ghost = &world.ghosts[ghost];
            ensure(ghost.token <= state.revision().0, || {
                format!("token {} is of the future", ghost.token)
            })?;
            // The holder of a tenure that was activated may believe; nobody else may.
            let led = group.phase.is_believed() || group.phase == Phase::Revoking;
            let holder = group.holder().filter(|_| led);
            ensure(ghost.believes.map(|key| key.id) == holder, || {
                format!(
                    "{:?} may believe to lead {:?}, held by {holder:?}",
                    ghost.believes, group.key
                )
            })?;
            ensure(
                !group.is_freshest() && !group.spec.readiness
                    || group.required.map(|at| at.0) == ghost.released,
                || {
                    format!(
                        "required {:?}, released {:?}",
                        group.required, ghost.released
                    )
                },
            )?;
            self.check_missed(state, group)?;
        }
        self.check_stale(world)
    }

    /// At rest, a vacant group waits for nobody that could have it: whatever made somebody eligible had it looked at.
    fn check_missed(&self, state: &State, group: &Group) -> Checks {
        let is_due = state
            .next_deadline()
            .is_some_and(|at| at <= state.cluster_time());
        if group.phase != Phase::Vacant || is_due {
            return Ok(());
        }
        self.tally.count(Checked::Missed);
        let why = state
            .explain(&group.key.name)
            .ok_or("a group without explanation")?;
        let missed = why.others.iter().find(|other| match &other.excluded {
            None => true,
            Some(quorate_coord::Exclusion::HeldLast) => true,
            Some(_) => false,
        });
        ensure(missed.is_none(), || {
            format!(
                "{:?} is vacant, and nothing keeps {missed:?} from it",
                group.key
            )
        })
    }

    /// Commands about what is not current, or by a leader of another term, change nothing.
    fn check_stale(&self, world: &World) -> Checks {
        let state = &world.state;
        // Deadlines that are due fire with any entry: then it is not the stale command's effect.
        if state
            .next_deadline()
            .is_some_and(|at| at <= state.cluster_time())
        {
            return Ok(());
        }
        let others: Vec<_> = state
            .sessions()
            .map(|session| SessionKey {
                created: session.key.created.next(),
                ..session.key
            })
            .collect();
        let expire = |term, sessions| Command::ExpireSessions { term, sessions };
        let keys: Vec<_> = state.sessions().map(|session| session.key).collect();
        let mut commands = vec![
            expire(Term(TERM.0 - 1), keys.clone()),
            expire(Term(TERM.0 + 1), keys),
            expire(TERM, others.clone()),
        ];
        if let Some(session) = others.first().copied() {
            commands.push(Command::CloseSession { session });
        }
        for group in state.groups() {
            let Some(current) = group.tenure_key() else {
                continue;
            };
            let mut tenures = vec![current.clone(); 3];
            tenures[0].number = TenureNumber(current.number.0 - 1);
            tenures[1].number = current.number.next();
            tenures[2].group.created = current.group.created.next();
            if let Some(session) = group.holder().and_then(|id| state.session(id)) {
                let released = Report::Released { position: None };
                commands.push(Command::Report {
                    session: session.key,
                    reports: tenures.iter().map(|t| (t.clone(), released)).collect(),
                });
            }
            let vacate = |term, tenures| Command::VacateTenures { term, tenures };
            commands.push(vacate(TERM, tenures));
            commands.push(vacate(Term(TERM.0 - 1), vec![current]));
        }
        for command in commands {
            self.tally.count(Checked::Stale);
            let now = state.cluster_time();
            let applied = apply(state, world.index.next(), now, &command);
            ensure(
                applied.events.is_empty() && applied.state.revision() == state.revision(),
                || format!("stale {command:?} had an effect: {:?}", applied.events),
            )?;
        }
        Ok(())
    }
}

fn stored(state: &State) -> Result<State, String> {
    let bytes = postcard::to_allocvec(state).map_err(|error| error.to_string())?;
    postcard::from_bytes(&bytes).map_err(|error| format!("a state cannot be loaded: {error}"))
}

/// Whether positions decide anything in the group.
fn counts_positions(group: &Group) -> bool {
    group.is_freshest() || group.spec.readiness
}

/// Whether a session takes part in a group in any way.
fn is_part(group: &Group, id: SessionId) -> bool {
    let is_asked = group
        .tenure
        .as_ref()
        .is_some_and(|tenure| tenure.asked.contains_key(&id));
    group.contenders.contains_key(&id)
        || group.holder() == Some(id)
        || group.successor().is_some_and(|s| s.session == id)
        || is_asked
}

/// Whether a contender that answered the poll may lead: nothing but limits and ordinary cool-downs keeps it from it, which
/// give way to fresher data.
fn may_lead(state: &State, group: &GroupKey, id: SessionId) -> bool {
    let Some(group) = state.group(&group.name).filter(|g| g.key == *group) else {
        return false;
    };
    let Some(session) = state.session(id).filter(|session| !session.revoked) else {
        return false;
    };
    let stands = group.contenders.get(&id).is_some_and(|c| !c.withdrawing);
    let Some(node) = session.node.as_ref().and_then(|name| state.node(name)) else {
        return false;
    };
    let failed = group
        .cooldown(&node.spec.name)
        .is_some_and(|c| c.strict && c.until > state.cluster_time());
    stands && node.admission == quorate_coord::NodeAdmission::Open && !failed
}

/// What the model remembers of how a tenure that led has ended.
fn follow_release(action: &Action, ghost: &mut Ghost, step: &Step<'_>) {
    let led = matches!(step.from, Phase::Active | Phase::Draining | Phase::Revoking);
    if step.to != Phase::Vacant || !led {
        return;
    }
    ghost.is_complete = false;
    let Command::Report { reports, .. } = &action.command else {
        return;
    };
    for (tenure, report) in reports {
        if *tenure == step.tenure.key
            && step.cause == Cause::Released
            && let Report::Released {
                position: Some(position),
            } = report
        {
            ghost.released = Some(position.0);
            ghost.is_complete = true;
        }
    }
}

/// In which roles this command may cause a transition of the group.
fn initiators(world: &World, action: &Action, group: &GroupKey, step: &Step<'_>) -> Vec<Initiator> {
    let state = &world.state;
    let now = state.cluster_time().plus_ms(action.ticks * super::TICK_MS);
    let holder = state
        .group(&group.name)
        .filter(|found| found.key == *group)
        .and_then(Group::holder);
    let role = |id: SessionId| {
        // Who wins a poll is its holder only after it, and acted as a contender. A holder before the step may have been elected by
        // a deadline that fired in this very entry.
        let is_holder = holder == Some(id) || step.tenure.holder == Some(id);
        if is_holder && step.from != Phase::Polling {
            Initiator::Holder
        } else {
            Initiator::Contender
        }
    };
    let mut who = Vec::new();
    if state.next_deadline().is_some_and(|at| at <= now) {
        who.push(Initiator::ClusterTime);
    }
    match &action.command {
        Command::CloseSession { session }
        | Command::Contend { session, .. }
        | Command::Withdraw { session, .. }
        | Command::Report { session, .. }
        | Command::WithdrawReport { session, .. } => who.push(role(session.id)),
        // The end of a session is its own doing, too: a contender's leaves the poll, or the succession.
        Command::RevokeSession { session } => who.extend([Initiator::Operator, role(*session)]),
        Command::ExpireSessions { sessions, .. } => {
            who.push(Initiator::Leader);
            who.extend(sessions.iter().map(|key| role(key.id)));
        }
        Command::VacateTenures { .. } => who.push(Initiator::Leader),
        Command::ReportFaulty { .. } => who.push(Initiator::Peers),
        Command::Advance => who.push(Initiator::ClusterTime),
        Command::OpenSession { .. } => who.push(Initiator::Contender),
        _ => who.push(Initiator::Operator),
    }
    who
}

fn parts_of(state: &State, id: SessionId) -> Vec<(TenureKey, Part)> {
    let standing = state.standing(id);
    let parts = standing.into_iter().flat_map(|standing| standing.parts);
    let mut parts: Vec<_> = parts
        .map(|part| match part.part {
            Part::Answered => (part.tenure, Part::Polled),
            kind => (part.tenure, kind),
        })
        .collect();
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    parts
}

fn follow(parts: &mut Vec<(TenureKey, Part)>, tenure: &TenureKey, kind: &DirectiveKind) -> Checks {
    let part = match kind {
        DirectiveKind::Poll { .. } => Part::Polled,
        DirectiveKind::Prepare { .. } => Part::Preparing,
        DirectiveKind::Activate { .. } | DirectiveKind::Continue => Part::Active,
        DirectiveKind::CatchUp => Part::Successor,
        DirectiveKind::Drain { .. } => Part::Draining,
        DirectiveKind::Revoke => Part::Revoking,
        DirectiveKind::StandBy | DirectiveKind::Ended { .. } => {
            let count = parts.len();
            parts.retain(|(key, _)| key != tenure);
            return ensure(parts.len() < count, || {
                format!("told the end of what it has no part in: {tenure:?}")
            });
        }
    };
    parts.retain(|(key, _)| key != tenure);
    parts.push((tenure.clone(), part));
    Ok(())
}
