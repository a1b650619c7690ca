//! Elections, replication and reads of the shipping `consensus` code, explored exhaustively for small sizes.
//!
//! Every state holds real [`Consensus`] values; every transition is one call of theirs, with the real outputs carried out in
//! order. What the surroundings may do: deliver any message on its way, in any order, or never; make the oldest pending write
//! durable; crash a server at any moment, with any prefix of its pending writes on the disk; let any timeout pass; propose, read,
//! transfer, reconnect, save and install a snapshot. A message that may be lost is one that is never delivered, so loss needs
//! no action.
//!
//! # Bounds
//! A [`Limits`] bounds terms and the number of each thing that the surroundings may start; what the servers do in answer
//! is not bounded. A model that is exhausted has therefore been followed to where nothing is left to do.
//!
//! # Time
//! Each server has a clock that moves only by the actions that let a timeout pass, by at least all of it. In between every timeout
//! counts as running. Since those actions are possible at every moment, no order of timeouts and messages is left out; see
//! `Consensus::hash_state` for what of the time a fingerprint keeps.
//!
//! # Reductions
//! - States that differ only in the names of replicas count as one; only names that the configuration treats alike are exchanged.
//! - Responses that their receiver ignores, now and after any crash, are dropped at once (`is_dead`).
//! - Without [`Limits::pre_votes`] a timeout takes the pre-votes for granted. That allows more than the code does, and pre-votes
//!   have no part in safety.
//! - Equal messages under way count once; [`Limits::duplicates`] delivers some more often.
//!
//! Log adoption (protocol, section 5) does not exist yet. It will be one more message to deliver, and no action of its own unless it
//! is started by a timeout: then one more variant of [`Action`], with its limit.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use quorate_consensus::{
    Configuration, Consensus, LogPosition, Message, Role, RoundId, SnapshotMeta, VoterSet,
};
use quorate_types::{ConfigEpoch, ReplicaId};

use self::ghost::{Counts, Ghost, Guarantee};
use self::server::{DETECTION, Effect, Envelope, Read, Server, Word};
pub use self::start::Start;
use super::explorer::{Hash128, Model};

mod ghost;
mod server;
pub mod sizes;
mod start;

/// How much of each the surroundings may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// The highest term that anyone stands in.
    pub term_max: u64,
    /// Elections begun by a timeout.
    pub elections: u8,
    /// Commands proposed.
    pub proposals: u8,
    /// Crashes, each with a restart.
    pub crashes: u8,
    /// Reads.
    pub reads: u8,
    /// Leadership transfers begun.
    pub transfers: u8,
    /// Leaders that lose touch with their quorum, and transfers that are given up.
    pub step_downs: u8,
    /// Heartbeats sent to everyone because it is time.
    pub heartbeats: u8,
    /// New connections of one server to another.
    pub reconnects: u8,
    /// Snapshots saved.
    pub snapshots: u8,
    /// Messages delivered without being used up.
    pub duplicates: u8,
    /// Whether pre-votes are exchanged.
    pub pre_votes: bool,
    /// Planted, to show that the model bites: a crash forgets the durable vote.
    pub forgets_vote: bool,
    /// Whether a write takes time, in which anything else may happen. Otherwise it is durable before anything else does.
    pub slow_disks: bool,
}

/// A message on its way, with its hash under each renaming.
#[derive(Clone)]
pub struct Letter {
    envelope: Envelope,
    prints: Vec<u128>,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Envelope { from, to, message } = &self.envelope;
        write!(f, "{from} -> {to}: {message:?}")
    }
}

/// What may happen.
#[derive(Clone, Debug)]
pub enum Action {
    /// A message arrives.
    Deliver(Arc<Letter>),
    /// A message arrives, and will again.
    DeliverOneCopy(Arc<Letter>),
    /// A message arrives after its receiver has heard nothing of its leader for a detection timeout.
    DeliverLate(Arc<Letter>),
    /// The oldest pending write of a server is durable.
    Persist(usize),
    /// An election timeout passes.
    Timeout(usize),
    /// A leader takes a command.
    Propose(usize),
    /// A leader takes a read.
    Read(usize),
    /// A leader is asked to hand over to another.
    Transfer(usize, ReplicaId),
    /// A leader's transfer takes too long.
    TransferTimeout(usize),
    /// A heartbeat is due.
    Heartbeat(usize),
    /// A leader heard nothing of a quorum for long enough to step down.
    LoseQuorum(usize),
    /// A connection is made.
    Connect(usize, ReplicaId),
    /// A snapshot of all that is committed is durable.
    SaveSnapshot(usize),
    /// A snapshot that arrived is durable.
    InstallSnapshot(usize),
    /// A crash; so many pending writes reached the disk, and the snapshot that arrived too or not.
    Crash(usize, usize, bool),
}

/// One state of the whole cluster.
#[derive(Clone)]
pub struct State {
    servers: Vec<Arc<Server>>,
    /// The hash of each server under each renaming.
    prints: Vec<Arc<Vec<u128>>>,
    /// What is on its way, ordered by hash.
    network: Vec<Arc<Letter>>,
    left: Limits,
    ghost: Ghost,
}

/// The model of one configuration.
pub struct Elections {
    configuration: Configuration,
    start: Start,
    limits: Limits,
    /// Renamings that change nothing but names, the identity first: the new name of each server.
    renamings: Vec<Vec<ReplicaId>>,
    ids: Vec<ReplicaId>,
    counts: Counts,
}

impl Elections {
    /// A fresh cluster of `incoming`, joint with `outgoing` where there is one.
    #[must_use]
    pub fn new(incoming: &[u64], outgoing: Option<&[u64]>, start: Start, limits: Limits) -> Self {
        let set = |ids: &[u64]| VoterSet {
            voters: ids.iter().copied().map(ReplicaId).collect(),
        };
        let configuration = Configuration {
            epoch: ConfigEpoch(1),
            incoming: set(incoming),
            outgoing: outgoing.map(set),
            ..Configuration::default()
        };
        let ids: Vec<ReplicaId> = configuration.replicas().into_iter().collect();
        let renamings = permutations(&ids)
            .into_iter()
            .filter(|to| is_symmetry(&configuration, &ids, to))
            .collect();
        Self {
            configuration,
            start,
            limits,
            renamings,
            ids,
            counts: Counts::default(),
        }
    }

    fn at(&self, id: ReplicaId) -> usize {
        self.ids.binary_search(&id).expect("a server")
    }

    /// A hash under each renaming.
    fn prints(&self, hash: impl Fn(&dyn Fn(ReplicaId) -> ReplicaId, &mut Hash128)) -> Vec<u128> {
        let one = |to: &Vec<ReplicaId>| {
            let mut hasher = Hash128::default();
            hash(&|id| to[self.at(id)], &mut hasher);
            hasher.finish128()
        };
        self.renamings.iter().map(one).collect()
    }

    fn letter(&self, envelope: Envelope) -> Letter {
        let prints = self.prints(|rename, hasher| envelope.hash_as(rename, hasher));
        Letter { envelope, prints }
    }

    fn server_prints(&self, server: &Server) -> Vec<u128> {
        // What was promised matters only to what a new connection says.
        let with_promises = self.limits.reconnects > 0;
        self.prints(|rename, hasher| server.hash_as(rename, with_promises, hasher))
    }

    /// Whether `letter` can change nothing at its receiver any more, not even after a crash: an answer to what it did in a term that
    /// its disk is past, or in which it was leader or candidate and will not be again.
    fn is_dead(&self, letter: &Letter, servers: &[Arc<Server>]) -> bool {
        if self.limits.reconnects > 0 {
            return false; // Even a stale answer says something about its sender, which a new connection repeats.
        }
        if self.start.is_about(&letter.envelope) {
            return false;
        }
        let Envelope { from, to, message } = &letter.envelope;
        let server = &servers[self.at(*to)];
        let sender_disk = servers[self.at(*from)].disk.hard_state.term;
        let (disk, role) = (server.disk.hard_state.term, server.core.role());
        let is_settled = server.core.term() == disk;
        match message {
            Message::VoteResponse {
                term,
                granted: false,
            } if *term <= disk => true,
            // Round zero confirms nothing; and no answer is overdue here, whoever it came from.
            Message::HeartbeatResponse {
                term,
                round: RoundId(0),
                ..
            } if *term <= disk => true,
            Message::VoteResponse { term, .. } => {
                *term < disk || (*term == disk && is_settled && role != Role::Candidate)
            }
            Message::AppendResponse { term, .. }
            | Message::HeartbeatResponse { term, .. }
            | Message::SnapshotChunkResponse { term, .. } => {
                *term < disk || (*term == disk && is_settled && role != Role::Leader)
            }
            Message::TimeoutNow { term } | Message::SteppedDown { term } => *term < disk,
            // Only the answer would matter, for its term; and its sender cannot learn of a higher one than it knows.
            Message::VoteRequest { term, .. }
            | Message::Append { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::SnapshotChunk { term, .. } => {
                *term < disk && sender_disk.0 >= self.limits.term_max
            }
            _ => false,
        }
    }

    /// Takes note of what came of a call to the server at `at`.
    fn settle(&self, state: &mut State, at: usize, effects: Vec<Effect>) -> Result<(), String> {
        let State {
            servers,
            prints,
            network,
            ghost,
            ..
        } = state;
        let server = Arc::get_mut(&mut servers[at]).expect("it was just cloned");
        server.core.check_invariants();
        self.counts.note(Guarantee::Core);
        let (id, leads) = (server.id, server.core.role() == Role::Leader);
        let committed_before = ghost.committed.len();
        // Votes before the leaders that they elect, leaders before what they say.
        for effect in &effects {
            let Effect::Leaves(Envelope { to, message, .. }) = effect else {
                continue;
            };
            match message {
                Message::VoteRequest { term, .. } => ghost.on_vote(*term, id, id, &self.counts)?,
                Message::VoteResponse {
                    term,
                    granted: true,
                } => ghost.on_vote(*term, id, *to, &self.counts)?,
                _ => {}
            }
        }
        if leads {
            ghost.on_leads(&server.core, &self.configuration, &self.counts)?;
        }
        for effect in effects {
            match effect {
                Effect::Leaves(envelope) => {
                    if let Message::Append { term, .. }
                    | Message::Heartbeat { term, .. }
                    | Message::SnapshotChunk { term, .. }
                    | Message::TimeoutNow { term }
                    | Message::SteppedDown { term } = &envelope.message
                    {
                        ghost.on_leader_message(*term, id, &self.counts)?;
                    }
                    let letter = self.letter(envelope);
                    let place =
                        network.binary_search_by_key(&letter.prints[0], |known| known.prints[0]);
                    if let Err(place) = place {
                        network.insert(place, Arc::new(letter));
                    }
                }
                Effect::Committed(through) => {
                    ghost.on_committed(&server.core, through, &self.counts)?;
                }
                Effect::Confirmed(round) => {
                    for read in server.reads.extract_if(.., |read| read.round <= round) {
                        ghost.on_read(id, read, &self.counts)?;
                    }
                }
            }
        }
        if !leads {
            server.reads.clear();
        }
        prints[at] = Arc::new(self.server_prints(server));
        for (entry, _) in &ghost.committed[committed_before..] {
            ghost::is_durable(entry, servers, &self.configuration, &self.counts)?;
        }
        let terms = servers.iter().map(|server| server.disk.hard_state.term);
        ghost.forget_before(terms.min().unwrap_or_default());
        network.retain(|letter| !self.is_dead(letter, servers));
        Ok(())
    }

    /// Lets an election timeout pass.
    fn time_out(&self, server: &mut Server, effects: &mut Vec<Effect>) -> Result<(), String> {
        server.now = server.now.max(server.core.deadline());
        server.step(effects, |core, now, out| core.on_tick(now, out))?;
        if self.limits.pre_votes {
            return Ok(());
        }
        effects.retain(|effect| {
            !matches!(
                effect,
                Effect::Leaves(Envelope {
                    message: Message::PreVoteRequest { .. },
                    ..
                })
            )
        });
        let own = server.id;
        for peer in self.ids.iter().filter(|id| **id != own) {
            if server.core.role() != Role::PreCandidate {
                break;
            }
            let granted = Message::PreVoteResponse {
                term: server.core.term().next(),
                granted: true,
                last: LogPosition::default(),
            };
            server.step(effects, |core, now, out| {
                core.on_message(now, *peer, granted, out);
            })?;
        }
        assert_eq!(
            server.core.role(),
            Role::Candidate,
            "everyone's pre-vote does not suffice"
        );
        Ok(())
    }
}

/// Lets so much time pass at a leader that it gives up what it waited for: its quorum, or a transfer.
fn give_up(
    server: &mut Server,
    effects: &mut Vec<Effect>,
    is_done: impl Fn(&Consensus<Word>) -> bool,
) -> Result<(), String> {
    for _ in 0..4 {
        if is_done(&server.core) {
            break;
        }
        server.now = server.now + DETECTION;
        server.step(effects, |core, now, out| core.on_tick(now, out))?;
    }
    // The heartbeats that it sent meanwhile are lost.
    effects.retain(|effect| {
        !matches!(
            effect,
            Effect::Leaves(Envelope {
                message: Message::Heartbeat { .. },
                ..
            })
        )
    });
    Ok(())
}

impl Model for Elections {
    type State = State;
    type Action = Action;

    fn initial(&self) -> State {
        let begun = self.start.begin(&self.configuration, &self.ids);
        let servers: Vec<Arc<Server>> = begun.servers.into_iter().map(Arc::new).collect();
        let letters = begun
            .under_way
            .into_iter()
            .map(|envelope| Arc::new(self.letter(envelope)));
        let prints = servers
            .iter()
            .map(|server| Arc::new(self.server_prints(server)));
        State {
            prints: prints.collect(),
            servers,
            network: letters.collect(),
            left: self.limits,
            ghost: begun.ghost,
        }
    }

    fn actions(&self, state: &State, out: &mut Vec<Action>) {
        let left = &state.left;
        for letter in &state.network {
            let Envelope { to, message, .. } = &letter.envelope;
            let core = &state.servers[self.at(*to)].core;
            if matches!(message, Message::TimeoutNow { term } if term.0 >= left.term_max) {
                continue; // It would stand beyond the bound: the message counts as lost.
            }
            out.push(Action::Deliver(letter.clone()));
            if left.duplicates > 0 {
                out.push(Action::DeliverOneCopy(letter.clone()));
            }
            if matches!(message, Message::PreVoteRequest { .. })
                && core.role() == Role::Follower
                && core.leader().is_some()
            {
                out.push(Action::DeliverLate(letter.clone()));
            }
        }
        for (at, server) in state.servers.iter().enumerate() {
            let core = &server.core;
            if !server.writes.is_empty() {
                out.push(Action::Persist(at));
            }
            if server.arrived.is_some() {
                out.push(Action::InstallSnapshot(at));
            }
            if left.snapshots > 0 && core.commit() > core.snapshot().last.index {
                out.push(Action::SaveSnapshot(at));
            }
            if left.crashes > 0 {
                for survive in 0..=server.writes.len() {
                    out.push(Action::Crash(at, survive, false));
                    if server.arrived.is_some() {
                        out.push(Action::Crash(at, survive, true));
                    }
                }
            }
            let others = self.ids.iter().filter(|id| **id != server.id);
            if left.reconnects > 0 {
                out.extend(others.clone().map(|peer| Action::Connect(at, *peer)));
            }
            if core.role() != Role::Leader {
                if left.elections > 0 && core.term().0 < left.term_max {
                    out.push(Action::Timeout(at));
                }
                continue;
            }
            if core.is_transferring() {
                if left.step_downs > 0 {
                    out.push(Action::TransferTimeout(at));
                }
            } else {
                if left.proposals > 0 {
                    out.push(Action::Propose(at));
                }
                if left.transfers > 0 {
                    out.extend(others.map(|peer| Action::Transfer(at, *peer)));
                }
            }
            // A read waits at the replica until an entry of the leader's own term is applied.
            if left.reads > 0
                && core
                    .own_term_index()
                    .is_some_and(|own| own <= core.commit())
            {
                out.push(Action::Read(at));
            }
            if left.heartbeats > 0 {
                out.push(Action::Heartbeat(at));
            }
            if left.step_downs > 0 {
                out.push(Action::LoseQuorum(at));
            }
        }
    }

    fn next(&self, state: &State, action: &Action) -> Result<Option<State>, String> {
        let mut next = state.clone();
        let at = match action {
            Action::Deliver(letter)
            | Action::DeliverOneCopy(letter)
            | Action::DeliverLate(letter) => self.at(letter.envelope.to),
            Action::Persist(at)
            | Action::Timeout(at)
            | Action::Propose(at)
            | Action::Read(at)
            | Action::Transfer(at, _)
            | Action::TransferTimeout(at)
            | Action::Heartbeat(at)
            | Action::LoseQuorum(at)
            | Action::Connect(at, _)
            | Action::SaveSnapshot(at)
            | Action::InstallSnapshot(at)
            | Action::Crash(at, ..) => *at,
        };
        let due = next.ghost.committed_last();
        let left = &mut next.left;
        let server = Arc::make_mut(&mut next.servers[at]);
        let mut effects = Vec::new();
        match action {
            Action::Deliver(letter)
            | Action::DeliverOneCopy(letter)
            | Action::DeliverLate(letter) => {
                let Envelope { from, message, .. } = &letter.envelope;
                match action {
                    Action::DeliverOneCopy(_) => left.duplicates -= 1,
                    _ => next
                        .network
                        .retain(|known| known.prints[0] != letter.prints[0]),
                }
                if matches!(action, Action::DeliverLate(_)) {
                    server.now = server.now + DETECTION;
                }
                server.step(&mut effects, |core, now, out| {
                    core.on_message(now, *from, message.clone(), out);
                })?;
            }
            Action::Persist(_) => server.persist(&mut effects)?,
            Action::Timeout(_) => {
                left.elections -= 1;
                self.time_out(server, &mut effects)?;
            }
            Action::Propose(_) => {
                left.proposals -= 1;
                let word = Word(left.proposals);
                server
                    .step(&mut effects, |core, now, out| {
                        core.propose(now, vec![word], out)
                    })?
                    .map_err(|error| format!("a leader refuses a command: {error}"))?;
            }
            Action::Read(_) => {
                left.reads -= 1;
                self.counts.note(Guarantee::Round);
                let (captured, sent) = (server.core.commit(), server.round_sent);
                let round = server
                    .step(&mut effects, |core, now, out| core.confirm(now, out))?
                    .map_err(|error| format!("a leader refuses a read: {error}"))?;
                if round <= sent {
                    return Err(format!(
                        "a round confirms only what arrived before it was sent: {} promises {round:?}, but {sent:?} is under way",
                        server.id
                    ));
                }
                server.reads.push(Read {
                    round,
                    captured,
                    due,
                });
            }
            Action::Transfer(_, to) => {
                left.transfers -= 1;
                server
                    .step(&mut effects, |core, now, out| {
                        core.transfer(now, Some(*to), out)
                    })?
                    .map_err(|error| format!("a leader refuses a transfer: {error}"))?;
            }
            Action::TransferTimeout(_) => {
                left.step_downs -= 1;
                give_up(server, &mut effects, |core| !core.is_transferring())?;
            }
            Action::LoseQuorum(_) => {
                left.step_downs -= 1;
                give_up(server, &mut effects, |core| core.role() != Role::Leader)?;
                assert_ne!(server.core.role(), Role::Leader, "check-quorum never fails");
            }
            Action::Heartbeat(_) => {
                left.heartbeats -= 1;
                server.now = server.now.max(server.core.deadline());
                server.step(&mut effects, |core, now, out| core.on_tick(now, out))?;
            }
            Action::Connect(_, peer) => {
                left.reconnects -= 1;
                server.step(&mut effects, |core, now, out| {
                    core.on_peer_connected(now, *peer, out);
                })?;
            }
            Action::SaveSnapshot(_) => {
                left.snapshots -= 1;
                let meta = snapshot_of(&server.core);
                server.save(meta.clone());
                server.step(&mut effects, |core, now, out| {
                    core.on_snapshot_saved(now, meta, 0, out);
                })?;
            }
            Action::InstallSnapshot(_) => {
                let meta = server.arrived.take().expect("one has arrived");
                server.save(meta.clone());
                let leads = server.core.role() == Role::Leader;
                let is_news = server.step(&mut effects, |core, now, out| {
                    core.on_snapshot_installed(now, meta, out)
                })?;
                if leads && is_news {
                    // Its state would be replaced under it (the replica asserts the same).
                    return Err(format!("a leader never installs a snapshot: {}", server.id));
                }
                next.ghost.on_installed(server, &self.counts)?;
            }
            Action::Crash(_, survive, keeps_arrived) => {
                left.crashes -= 1;
                if left.forgets_vote {
                    server.disk.hard_state.voted_for = None;
                }
                server.crash(*survive, *keeps_arrived);
            }
        }
        if !self.limits.slow_disks {
            while !server.writes.is_empty() {
                server.persist(&mut effects)?;
            }
        }
        self.settle(&mut next, at, effects)?;
        Ok(Some(next))
    }

    fn fingerprint(&self, state: &State) -> u128 {
        let canonical = (0..self.renamings.len()).map(|name| {
            // In no order: each hash holds the name of its server, or of sender and receiver.
            let servers = state.prints.iter().map(|prints| prints[name]);
            let letters = state.network.iter().map(|letter| letter.prints[name]);
            let mut hasher = Hash128::default();
            servers.fold(0, u128::wrapping_add).hash(&mut hasher);
            letters.fold(0, u128::wrapping_add).hash(&mut hasher);
            state.left.hash(&mut hasher);
            let to = &self.renamings[name];
            state.ghost.hash_as(&|id| to[self.at(id)], &mut hasher);
            hasher.finish128()
        });
        canonical.min().expect("the identity is a renaming")
    }

    fn invariant(&self, state: &State) -> Result<(), String> {
        ghost::logs_match(&state.servers, &self.counts)?;
        ghost::leaders_are_complete(&state.servers, &state.ghost, &self.counts)
    }

    fn describe(&self, state: &State) -> String {
        let line = |server: &Arc<Server>| {
            let (core, disk) = (&server.core, server.disk.hard_state);
            let last = core.last();
            format!(
                "{}: {:?} {:?} commit {} last {}@{:?} (disk {:?} vote {:?}, {} writes)",
                server.id,
                core.role(),
                core.term(),
                core.commit(),
                last.index,
                last.term,
                disk.term,
                disk.voted_for,
                server.writes.len()
            )
        };
        let servers: Vec<String> = state.servers.iter().map(line).collect();
        format!(
            "{}; {} messages under way",
            servers.join("; "),
            state.network.len()
        )
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        self.counts.list()
    }
}

fn snapshot_of(core: &Consensus<Word>) -> SnapshotMeta {
    let index = core.commit();
    SnapshotMeta {
        last: LogPosition {
            term: core.term_at(index).expect("the log holds its commit"),
            index,
        },
        configuration: core.configuration_at(index),
    }
}

/// Every order of `ids`, the given one first.
fn permutations(ids: &[ReplicaId]) -> Vec<Vec<ReplicaId>> {
    if ids.len() <= 1 {
        return vec![ids.to_vec()];
    }
    let mut all = Vec::new();
    for (at, first) in ids.iter().enumerate() {
        let mut rest = ids.to_vec();
        rest.remove(at);
        for mut order in permutations(&rest) {
            order.insert(0, *first);
            all.push(order);
        }
    }
    all
}

/// Whether naming `ids` `to` leaves the configuration as it is. Both halves of a joint one count alike, so they may change places.
fn is_symmetry(configuration: &Configuration, ids: &[ReplicaId], to: &[ReplicaId]) -> bool {
    let renamed = |half: &VoterSet| VoterSet {
        voters: half
            .voters
            .iter()
            .map(|id| to[ids.binary_search(id).expect("a voter")])
            .collect(),
    };
    let incoming = renamed(&configuration.incoming);
    let Some(outgoing) = &configuration.outgoing else {
        return incoming == configuration.incoming;
    };
    let (renamed_outgoing, own) = (renamed(outgoing), &configuration.incoming);
    (incoming == *own && renamed_outgoing == *outgoing)
        || (incoming == *outgoing && renamed_outgoing == *own)
}
