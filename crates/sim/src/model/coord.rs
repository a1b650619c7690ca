//! The model of `coord`: real commands applied to the real state machine, by an environment that may do anything at any time.
//!
//! A state is the shipping [`State`] and a few ghosts: who believes to lead, what was reported and released. An action is a
//! [`Command`] as the log would carry it, at the state's cluster time or some ticks later; so deadlines fire alone, together, or
//! within the entry of another command. Nothing bounds the environment but the size (nodes, groups, priorities, positions) and
//! the kinds of commands that a size allows: the fingerprint (`canon.rs`) makes that finitely many states, and a size is done
//! when all are expanded.
//!
//! What is abstract: leases. A holder believes from its activation on, without a break, until it released or closed, or until the leader,
//! which waits for leases to lapse (guarantee 3, checked by the simulator), expired its session or vacated its revoked tenure.
//!
//! Reading order: `actions.rs` is the environment, `checks.rs` what must hold, `sizes.rs` what is run; `canon.rs` the fingerprint.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::Hasher as _;

use quorate_coord::{
    Command, Directive, Envelope, Event, GroupSpec, NodeSpec, Outcome, RequestKey, SessionKey,
    State,
};
use quorate_types::{
    ClusterTime, ContractVersion, GroupName, LogIndex, NodeName, Principal, Term, TraceId, WallTime,
};

use self::canon::Scale;
use self::checks::Tally;
use super::explorer::{Hash128, Model};

pub mod actions;
pub mod canon;
pub mod checks;
pub mod sizes;

/// One tick of cluster time: all durations of the models' specs are multiples, so that ticks reach every order of deadlines.
/// As long as the pause after a failed handover, which is a constant of the state machine.
pub const TICK_MS: u64 = 1_000;

/// The term of every entry: the state machine only compares stamps with it.
pub const TERM: Term = Term(5);

/// Which commands the environment may give.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Sessions are revoked by others.
    pub revoke_session: bool,
    /// Sessions are closed by their owners; two expire at once.
    pub close: bool,
    /// Contenders withdraw.
    pub withdraw: bool,
    /// Orderly transfers, and their abort.
    pub transfer: bool,
    /// Forced transfers.
    pub force: bool,
    /// Groups are deleted and recreated.
    pub delete: bool,
    /// Nodes are cordoned and opened.
    pub cordon: bool,
    /// Nodes are drained and opened.
    pub drain: bool,
    /// Contenders report the holder as faulty, and take it back.
    pub depose: bool,
    /// Preparations fail, handovers are declined.
    pub fail: bool,
    /// Any command may come a tick after the last entry, and two ticks may pass at once.
    pub late: bool,
}

/// What is assumed of some contender, for liveness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Promise {
    /// The node that stands, stays, and answers before time passes.
    pub good: usize,
    /// Whether all others do too, once they stand.
    pub others_answer: bool,
    /// Whether only groups count whose last tenure that led was released at a known position.
    pub after_release: bool,
}

/// A size to explore.
#[derive(Clone, Debug)]
pub struct Coord {
    /// The groups and their specs.
    pub groups: Vec<(GroupName, GroupSpec)>,
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// Priorities to stand with.
    pub priorities: Vec<i32>,
    /// Positions to report.
    pub positions: Vec<u64>,
    /// What the environment may do.
    pub allowed: Allowed,
    /// What the environment promises.
    pub promise: Option<Promise>,
    /// A mistake planted in the environment: time never passes.
    pub is_time_frozen: bool,
    pub(crate) scale: Scale,
    pub(crate) tally: Tally,
}

/// What the model remembers of a group besides its state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ghost {
    /// Who believes to lead it.
    pub believes: Option<SessionKey>,
    /// Positions reported in the poll or preparation under way, or by the successor of a handover, by session id.
    pub reported: BTreeMap<u64, u64>,
    /// The position last released at.
    pub released: Option<u64>,
    /// Whether the last tenure that led ended with that release, so that all that was acknowledged is up to it.
    pub is_complete: bool,
    /// The token last granted under this name. Not in the fingerprint: see `canon.rs`.
    pub token: u64,
}

/// One state of the model.
#[derive(Clone, Debug)]
pub struct World {
    /// The shipping state machine.
    pub state: State,
    /// The last entry.
    pub index: LogIndex,
    /// One for each group of the size.
    pub ghosts: Vec<Ghost>,
}

/// One entry of the log.
#[derive(Clone)]
pub struct Action {
    /// What it carries.
    pub command: Command,
    /// How long after the last entry, in ticks.
    pub ticks: u64,
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ticks > 0 {
            write!(f, "{} tick(s) later ", self.ticks)?;
        }
        write!(f, "{:?}", self.command)
    }
}

/// What one entry did.
pub struct Applied {
    /// The state after it.
    pub state: State,
    /// What it told the world.
    pub events: Vec<Event>,
    /// What its caller was told.
    pub outcome: Outcome,
}

/// Applies an entry of the given term's log to a copy.
#[must_use]
pub fn apply(before: &State, index: LogIndex, now: ClusterTime, command: &Command) -> Applied {
    let envelope = Envelope {
        principal: Principal::new("model").expect("a short name without control characters"),
        request: RequestKey::Internal,
        trace: TraceId::default(),
        wall: WallTime(0),
        cluster_time: now,
        contract: ContractVersion(1),
        command: command.clone(),
    };
    let mut state = before.clone();
    let mut events = Vec::new();
    let outcome = state.apply(index, TERM, &envelope, &mut events);
    Applied {
        state,
        events,
        outcome,
    }
}

impl Coord {
    /// The number of a group of this name in the size.
    pub(crate) fn number_of(&self, name: &GroupName) -> usize {
        self.groups
            .iter()
            .position(|(known, _)| known == name)
            .expect("only the size's groups are created")
    }

    /// The live session of a node.
    pub(crate) fn session_of(state: &State, name: &NodeName) -> Option<SessionKey> {
        let id = state.node(name)?.session?;
        state.session(id).map(|session| session.key)
    }

    fn then(&self, world: &World, action: &Action) -> Result<Option<World>, String> {
        let now = world.state.cluster_time().plus_ms(action.ticks * TICK_MS);
        let index = world.index.next();
        let applied = apply(&world.state, index, now, &action.command);
        self.check_twin(world, index, now, action, &applied)?;
        let ghosts = self.check_step(world, action, &applied)?;
        if applied.outcome.is_err() && applied.events.is_empty() {
            return Ok(None);
        }
        Ok(Some(World {
            state: applied.state,
            index,
            ghosts,
        }))
    }
}

impl Model for Coord {
    type State = World;
    type Action = Action;

    fn initial(&self) -> World {
        let mut world = World {
            state: State::new(),
            index: LogIndex::ZERO,
            ghosts: vec![Ghost::default(); self.groups.len()],
        };
        let mut commands = vec![Command::CreateGroups {
            groups: self.groups.clone(),
        }];
        if let Some(promise) = self.promise {
            commands.push(self.open(promise.good));
        }
        let mut step = |command: Command| {
            let action = Action { command, ticks: 0 };
            // Time starts above zero, so that "long ago" is not "never".
            world = match self.then(&world, &action) {
                Ok(Some(next)) => next,
                other => panic!("{action:?} at the start: {other:?}"),
            };
            world.state.clone()
        };
        let mut state = step(Command::Advance);
        for command in commands {
            state = step(command);
        }
        if let Some(promise) = self.promise {
            let key = Self::session_of(&state, &self.nodes[promise.good].name);
            let key = key.expect("it was opened just above");
            for (name, _) in &self.groups {
                step(self.contend(key, name, self.priorities[0]));
            }
        }
        world
    }

    fn actions(&self, world: &World, out: &mut Vec<Action>) {
        self.list(world, out);
    }

    fn next(&self, world: &World, action: &Action) -> Result<Option<World>, String> {
        self.then(world, action)
    }

    fn fingerprint(&self, world: &World) -> u128 {
        let mut hash = Hash128::default();
        canon::hash_state(&world.state, &self.scale, &mut hash);
        let rank = |id| canon::session_rank(&world.state, id);
        for ghost in &world.ghosts {
            hash.write_u64(ghost.believes.map_or(u64::MAX, |key| rank(key.id.0)));
            hash.write_u64(ghost.released.map_or(u64::MAX, |at| at));
            hash.write_u64(u64::from(ghost.is_complete));
            hash.write_u64(ghost.reported.len() as u64);
            for (session, position) in &ghost.reported {
                hash.write_u64(rank(*session));
                hash.write_u64(*position);
            }
        }
        hash.finish128()
    }

    fn invariant(&self, world: &World) -> Result<(), String> {
        self.check_state(world)
    }

    fn describe(&self, world: &World) -> String {
        let state = &world.state;
        let mut text = format!("at {:?}:", state.cluster_time());
        for group in state.groups() {
            let tenure = group.tenure.as_ref();
            let node = tenure.and_then(|t| t.node.as_ref());
            text.push_str(&format!(
                " {:?} {:?} tenure {} of {node:?}",
                group.key.name, group.phase, group.number_last
            ));
            for (session, contender) in &group.contenders {
                let asked = tenure.and_then(|t| t.asked.get(session));
                text.push_str(&format!(
                    ", s{session} (priority {}{}{})",
                    contender.priority,
                    if contender.withdrawing {
                        ", withdrawing"
                    } else {
                        ""
                    },
                    match asked {
                        Some(Some(position)) => format!(", answered {}", position.0),
                        Some(None) => ", asked".to_owned(),
                        None => String::new(),
                    }
                ));
            }
            for cooldown in group.cooldowns.iter() {
                text.push_str(&format!(
                    ", {:?} cools down until {:?}",
                    cooldown.node, cooldown.until
                ));
            }
            if let Some(pending) = &group.pending {
                text.push_str(&format!(", pending {:?}", pending.kind));
            }
        }
        text
    }

    fn label(&self, world: &World) -> u64 {
        self.hungry(world)
    }

    fn class(&self, world: &World, action: &Action) -> u8 {
        self.class_of(world, action)
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.tally.counts()
    }
}

/// The directives among events, with the session that each is for.
pub(crate) fn directives(events: &[Event]) -> impl Iterator<Item = (SessionKey, &Directive)> {
    events.iter().filter_map(|event| match event {
        Event::Directive { session, directive } => Some((*session, directive)),
        _ => None,
    })
}
