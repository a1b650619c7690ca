//! An explicit-state explorer: breadth first over every state that a model can reach, so a counterexample is a shortest one.
//!
//! Small on purpose. It keeps a 128-bit fingerprint and a link to the parent per state, never the states themselves; a trace is
//! made by taking the recorded actions again. Results do not depend on the number of threads: a level is expanded in parallel
//! and merged in order. Deliberately absent: any idea of what is explored, and liveness (see `liveness.rs`).

use std::any::Any;
use std::collections::HashMap;
use std::fmt::{self, Debug, Display};
use std::hash::{BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What is explored.
///
/// # Contract
/// Two states of equal fingerprint must have the same future: the same actions lead to states of equal fingerprints, and violate
/// or keep the same invariants. Whoever leaves something out of a fingerprint argues for that where it does.
pub trait Model: Sync {
    /// One state, with whatever its invariants have to remember.
    type State: Clone + Send + Sync;
    /// What may happen in it.
    type Action: Clone + Debug + Send;

    /// Where it starts.
    fn initial(&self) -> Self::State;

    /// Appends what may happen in this state, in an order that depends on nothing but the state.
    fn actions(&self, state: &Self::State, out: &mut Vec<Self::Action>);

    /// What comes of it; `None` where the action turns out not to be possible, or changes nothing worth a transition.
    ///
    /// # Errors
    /// The transition violates an invariant: which, and how. A panic counts as one too, so the assertions of shipping code are
    /// invariants as well.
    fn next(
        &self,
        state: &Self::State,
        action: &Self::Action,
    ) -> Result<Option<Self::State>, String>;

    /// The state's identity, names and numbers that do not matter left out.
    fn fingerprint(&self, state: &Self::State) -> u128;

    /// What must hold in every state.
    ///
    /// # Errors
    /// The state violates an invariant: which, and how.
    fn invariant(&self, state: &Self::State) -> Result<(), String>;

    /// The state as one line of a trace.
    fn describe(&self, _state: &Self::State) -> String {
        String::new()
    }

    /// Bits that a liveness check needs of a state; kept where `Bounds::graph` is set.
    fn label(&self, _state: &Self::State) -> u64 {
        0
    }

    /// The fairness class of an action, below 64; kept where `Bounds::graph` is set.
    fn class(&self, _state: &Self::State, _action: &Self::Action) -> u8 {
        0
    }

    /// How often each invariant was looked at; models count in atomics.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most states; reaching it means "not exhausted".
    pub states_max: usize,
    /// Most steps from the start; reaching it means "not exhausted".
    pub depth_max: usize,
    /// Threads that expand states.
    pub threads: usize,
    /// Whether to keep the graph, for liveness.
    pub graph: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            states_max: 50_000_000,
            depth_max: usize::MAX,
            threads: std::thread::available_parallelism().map_or(1, |n| n.get().min(2)),
            graph: false,
        }
    }
}

/// A shortest way to something that must not be.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What was violated.
    pub what: String,
    /// How it came about: each action, and the state after it.
    pub steps: Vec<String>,
}

impl Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        for (at, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {at:>3}. {step}")?;
        }
        Ok(())
    }
}

/// The reachable graph: states by number in order of discovery, the start being 0.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Each state's label.
    pub labels: Vec<u64>,
    /// Where each state's edges start in `edges`; one more than there are states.
    pub starts: Vec<u32>,
    /// All edges, by origin.
    pub edges: Vec<Edge>,
    /// For each state the classes of which an action leads somewhere, as bits.
    pub enabled: Vec<u64>,
}

/// One edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Where it leads.
    pub to: u32,
    /// Which of the origin's actions it is.
    pub ordinal: u16,
    /// The action's fairness class.
    pub class: u8,
}

impl Graph {
    /// The edges out of a state.
    #[must_use]
    pub fn out(&self, state: u32) -> &[Edge] {
        let (from, to) = (self.starts[state as usize], self.starts[state as usize + 1]);
        &self.edges[from as usize..to as usize]
    }
}

/// What an exploration came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The model's name.
    pub name: String,
    /// Different states, by fingerprint.
    pub states: usize,
    /// Transitions taken, those to known states included.
    pub transitions: u64,
    /// Transitions that led to a known state.
    pub known: u64,
    /// Steps from the start to the farthest state.
    pub depth: usize,
    /// Whether every reachable state was expanded.
    pub is_exhausted: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// The first violation, if any.
    pub violation: Option<Violation>,
    /// How often each invariant was looked at.
    pub counts: Vec<(&'static str, u64)>,
    /// The graph, where it was asked for.
    pub graph: Option<Graph>,
    /// How each state was first reached: its parent, and which of the parent's actions.
    pub links: Vec<Link>,
}

/// How a state was first reached.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// From which state.
    pub parent: u32,
    /// By which of its actions.
    pub ordinal: u16,
}

/// A 128-bit hash of whatever is written to it: two multiply-fold lanes. Stable from run to run.
#[derive(Clone, Copy, Debug)]
pub struct Hash128 {
    low: u64,
    high: u64,
}

impl Default for Hash128 {
    fn default() -> Self {
        Self {
            low: 0x243f_6a88_85a3_08d3,
            high: 0x1319_8a2e_0370_7344,
        }
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Hash128 {
    /// Both lanes.
    #[must_use]
    pub fn finish128(&self) -> u128 {
        let low = fold(self.low ^ 0xa409_3822_299f_31d0, 0x9e37_79b9_7f4a_7c15);
        let high = fold(
            self.high ^ 0x082e_fa98_ec4e_6c89,
            0xd6e8_feb8_6659_fd93 ^ self.low,
        );
        u128::from(low) | (u128::from(high) << 64)
    }
}

impl Hasher for Hash128 {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 56));
        }
    }
    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_u64(&mut self, word: u64) {
        self.low = fold(self.low ^ word, 0x9e37_79b9_7f4a_7c15).rotate_left(23) ^ word;
        self.high = fold(
            self.high.wrapping_add(word) ^ 0x4528_21e6_38d0_1377,
            0xe703_7ed1_a0b4_28db,
        )
        .rotate_left(41)
        .wrapping_add(word);
    }
    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
    fn finish(&self) -> u64 {
        self.finish128() as u64
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only u128 keys are hashed");
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = (key >> 64) as u64 ^ key as u64;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

type Seen = HashMap<u128, u32, BuildHasherDefault<AsIs>>;

/// A transition found by a worker, to be merged.
struct Found<S> {
    fingerprint: u128,
    ordinal: u16,
    class: u8,
    /// Absent where the state was known when the worker looked.
    state: Option<(S, u64)>,
}

struct Expanded<S> {
    parent: u32,
    found: Vec<Found<S>>,
    /// An action that violates, and what it says; later actions of the state were not tried.
    wrong: Option<(u16, String)>,
}

/// How many states are expanded between two merges: bounds what is held twice.
const BATCH: usize = 8_192;

/// Explores everything that is reachable within the bounds, up to the first violation.
pub fn explore<M: Model>(name: &str, model: &M, bounds: Bounds) -> Report {
    let started = Instant::now();
    let mut report = Report {
        name: name.to_owned(),
        states: 0,
        transitions: 0,
        known: 0,
        depth: 0,
        is_exhausted: true,
        elapsed: Duration::ZERO,
        violation: None,
        counts: Vec::new(),
        graph: bounds.graph.then(Graph::default),
        links: Vec::new(),
    };
    let mut seen = Seen::default();
    let first = model.initial();
    seen.insert(model.fingerprint(&first), 0);
    report.links.push(Link {
        parent: 0,
        ordinal: 0,
    });
    if let Some(graph) = &mut report.graph {
        graph.labels.push(model.label(&first));
        graph.starts.push(0);
    }
    if let Err(what) = guarded(|| model.invariant(&first)) {
        report.violation = Some(trace(model, &report.links, 0, None, what));
    }
    let mut frontier = vec![(0, first)];
    'levels: while !frontier.is_empty() && report.violation.is_none() {
        if report.depth >= bounds.depth_max {
            report.is_exhausted = false;
            break;
        }
        let mut next = Vec::new();
        for batch in frontier.chunks(BATCH) {
            for mut expanded in expand(model, &seen, batch, bounds.threads) {
                let (parent, wrong) = (expanded.parent, expanded.wrong.take());
                merge(&mut report, &mut seen, &mut next, expanded);
                if let Some((ordinal, what)) = wrong {
                    report.violation =
                        Some(trace(model, &report.links, parent, Some(ordinal), what));
                    report.depth += 1;
                    break 'levels;
                }
            }
            if seen.len() >= bounds.states_max {
                report.is_exhausted = false;
                break 'levels;
            }
        }
        frontier = next;
        if !frontier.is_empty() {
            report.depth += 1;
        }
    }
    report.is_exhausted &= report.violation.is_none();
    report.states = seen.len();
    if let Some(graph) = &mut report.graph {
        // States that were not expanded have no edges.
        let end = graph.edges.len() as u32;
        graph.starts.resize(report.states + 1, end);
        graph.enabled.resize(report.states, 0);
    }
    report.counts = model.counts();
    report.elapsed = started.elapsed();
    report
}

/// Files what a state's expansion found: new states, links, edges.
fn merge<S>(report: &mut Report, seen: &mut Seen, next: &mut Vec<(u32, S)>, expanded: Expanded<S>) {
    let mut enabled = 0;
    for found in expanded.found {
        report.transitions += 1;
        let id = seen.len() as u32;
        let to = *seen.entry(found.fingerprint).or_insert(id);
        if to == id {
            report.links.push(Link {
                parent: expanded.parent,
                ordinal: found.ordinal,
            });
            let (state, label) = found
                .state
                .expect("a new state was not known to the worker");
            next.push((id, state));
            if let Some(graph) = &mut report.graph {
                graph.labels.push(label);
            }
        } else {
            report.known += 1;
        }
        enabled |= 1 << found.class;
        if let Some(graph) = &mut report.graph {
            graph.edges.push(Edge {
                to,
                ordinal: found.ordinal,
                class: found.class,
            });
        }
    }
    if let Some(graph) = &mut report.graph {
        // States are expanded in order of their numbers.
        assert_eq!(graph.enabled.len(), expanded.parent as usize);
        graph.enabled.push(enabled);
        graph.starts.push(graph.edges.len() as u32);
    }
}

fn expand<M: Model>(
    model: &M,
    seen: &Seen,
    batch: &[(u32, M::State)],
    threads: usize,
) -> Vec<Expanded<M::State>> {
    let one = |part: &[(u32, M::State)]| -> Vec<Expanded<M::State>> {
        let mut actions = Vec::new();
        part.iter()
            .map(|(parent, state)| expand_one(model, seen, *parent, state, &mut actions))
            .collect()
    };
    if threads <= 1 || batch.len() < 64 {
        return one(batch);
    }
    // Smaller parts than threads need, since states differ in cost.
    let parts: Vec<_> = batch.chunks(batch.len().div_ceil(threads * 8)).collect();
    let taken = std::sync::atomic::AtomicUsize::new(0);
    let mut done: Vec<(usize, Vec<Expanded<M::State>>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut mine = Vec::new();
                    loop {
                        let at = taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        let Some(part) = parts.get(at) else {
                            return mine;
                        };
                        mine.push((at, one(part)));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("panics of the model are caught"))
            .collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().flat_map(|(_, part)| part).collect()
}

fn expand_one<M: Model>(
    model: &M,
    seen: &Seen,
    parent: u32,
    state: &M::State,
    actions: &mut Vec<M::Action>,
) -> Expanded<M::State> {
    actions.clear();
    model.actions(state, actions);
    let mut expanded = Expanded {
        parent,
        found: Vec::with_capacity(actions.len()),
        wrong: None,
    };
    for (ordinal, action) in actions.iter().enumerate() {
        let ordinal = u16::try_from(ordinal).expect("a state has fewer than 65,536 actions");
        let stepped = guarded(|| {
            let Some(next) = model.next(state, action)? else {
                return Ok(None);
            };
            let fingerprint = model.fingerprint(&next);
            let class = model.class(state, action);
            if seen.contains_key(&fingerprint) {
                return Ok(Some((fingerprint, class, None)));
            }
            model.invariant(&next)?;
            let label = model.label(&next);
            Ok(Some((fingerprint, class, Some((next, label)))))
        });
        match stepped {
            Ok(None) => {}
            Ok(Some((fingerprint, class, state))) => expanded.found.push(Found {
                fingerprint,
                ordinal,
                class,
                state,
            }),
            Err(what) => {
                expanded.wrong = Some((ordinal, what));
                break;
            }
        }
    }
    expanded
}

/// Takes a panic for a violation: the shipping code asserts its own invariants.
fn guarded<T>(run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(text_of(panic.as_ref())))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    format!("panic: {}", text.unwrap_or_default())
}

/// The states on the way to one, by number, the start first.
#[must_use]
pub fn way_to(links: &[Link], state: u32) -> Vec<Link> {
    let mut way = Vec::new();
    let mut at = state;
    while at != 0 {
        let link = links[at as usize];
        way.push(link);
        at = link.parent;
    }
    way.reverse();
    way
}

/// Takes a list of actions by their ordinals from a state, and says each step. Ends with the state reached.
pub fn take<M: Model>(
    model: &M,
    mut state: M::State,
    ordinals: impl Iterator<Item = u16>,
    steps: &mut Vec<String>,
) -> M::State {
    let mut actions = Vec::new();
    for ordinal in ordinals {
        actions.clear();
        model.actions(&state, &mut actions);
        let action = &actions[ordinal as usize];
        match guarded(|| model.next(&state, action)) {
            Ok(Some(next)) => {
                steps.push(format!("{action:?}\n         {}", model.describe(&next)));
                state = next;
            }
            // The last step of a counterexample has no state after it.
            Ok(None) | Err(_) => steps.push(format!("{action:?}")),
        }
    }
    state
}

fn trace<M: Model>(
    model: &M,
    links: &[Link],
    state: u32,
    last: Option<u16>,
    what: String,
) -> Violation {
    let start = model.initial();
    let mut steps = vec![format!("start\n         {}", model.describe(&start))];
    let way = way_to(links, state);
    let ordinals = way.iter().map(|link| link.ordinal).chain(last);
    take(model, start, ordinals, &mut steps);
    Violation { what, steps }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processes add one to a shared number: read, then write. With `is_atomic` nothing is lost.
    struct Counter {
        is_atomic: bool,
        rounds: u8,
    }

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Shared {
        number: u8,
        read: [Option<u8>; 2],
        done: [u8; 2],
    }

    impl Model for Counter {
        type State = Shared;
        type Action = (usize, &'static str);

        fn initial(&self) -> Shared {
            Shared {
                number: 0,
                read: [None; 2],
                done: [0; 2],
            }
        }

        fn actions(&self, state: &Shared, out: &mut Vec<Self::Action>) {
            for process in 0..2 {
                if state.read[process].is_some() {
                    out.push((process, "write"));
                } else if state.done[process] < self.rounds {
                    out.push((process, "read"));
                }
            }
        }

        fn next(&self, state: &Shared, action: &Self::Action) -> Result<Option<Shared>, String> {
            let (process, what) = *action;
            let mut next = state.clone();
            if what == "read" && !self.is_atomic {
                next.read[process] = Some(state.number);
            } else {
                next.number = state.read[process].unwrap_or(state.number) + 1;
                next.read[process] = None;
                next.done[process] += 1;
            }
            Ok(Some(next))
        }

        fn fingerprint(&self, state: &Shared) -> u128 {
            use std::hash::Hash;
            let mut hash = Hash128::default();
            state.hash(&mut hash);
            hash.finish128()
        }

        fn invariant(&self, state: &Shared) -> Result<(), String> {
            let done: u8 = state.done.iter().sum();
            assert!(state.number <= done, "more than was added");
            if state.read == [None; 2] && state.number != done {
                return Err(format!("{done} additions make {}", state.number));
            }
            Ok(())
        }
    }

    fn bounds() -> Bounds {
        Bounds::default()
    }

    #[test]
    fn a_correct_model_is_exhausted_and_its_states_are_counted() {
        let model = Counter {
            is_atomic: true,
            rounds: 100,
        };
        let report = explore("counter", &model, bounds());
        assert!(report.violation.is_none(), "{:?}", report.violation);
        assert!(report.is_exhausted);
        // Each process is at one of 101 places; both ways around a square lead to one state.
        assert_eq!(report.states, 101 * 101);
        assert_eq!(report.transitions, 2 * 100 * 101);
        assert_eq!(report.depth, 200);
    }

    #[test]
    fn a_planted_bug_is_found_by_a_shortest_trace() {
        let model = Counter {
            is_atomic: false,
            rounds: 5,
        };
        let report = explore("counter", &model, bounds());
        let violation = report.violation.expect("the lost addition");
        assert_eq!(violation.what, "2 additions make 1");
        // The start, two reads, two writes: nothing shorter loses an addition.
        assert_eq!(violation.steps.len(), 5, "{violation}");
        assert!(!report.is_exhausted);
    }

    #[test]
    fn a_bound_that_is_reached_is_said() {
        let model = Counter {
            is_atomic: true,
            rounds: 100,
        };
        let few = Bounds {
            states_max: 500,
            ..bounds()
        };
        assert!(!explore("counter", &model, few).is_exhausted);
        let shallow = Bounds {
            depth_max: 10,
            ..bounds()
        };
        let report = explore("counter", &model, shallow);
        assert!(!report.is_exhausted);
        assert_eq!(report.depth, 10);
    }

    #[test]
    fn threads_change_nothing() {
        let model = Counter {
            is_atomic: true,
            rounds: 150,
        };
        let explored = [1, 2, 3].map(|threads| {
            let bounds = Bounds {
                threads,
                graph: true,
                ..bounds()
            };
            explore("counter", &model, bounds)
        });
        let graphs = explored.map(|report| report.graph.expect("asked for"));
        assert_eq!(graphs[0].edges, graphs[1].edges);
        assert_eq!(graphs[0].starts, graphs[2].starts);
        assert_eq!(graphs[0].out(0).len(), 2);
    }

    #[test]
    fn a_panic_is_a_violation_with_a_trace() {
        struct Panics;
        impl Model for Panics {
            type State = u8;
            type Action = u8;
            fn initial(&self) -> u8 {
                0
            }
            fn actions(&self, _: &u8, out: &mut Vec<u8>) {
                out.extend([1, 2]);
            }
            fn next(&self, state: &u8, action: &u8) -> Result<Option<u8>, String> {
                Ok(Some(state.saturating_add(*action)))
            }
            fn fingerprint(&self, state: &u8) -> u128 {
                u128::from(*state)
            }
            fn invariant(&self, state: &u8) -> Result<(), String> {
                assert!(*state < 7, "seven");
                Ok(())
            }
        }
        let violation = explore("panics", &Panics, bounds()).violation;
        let violation = violation.expect("the assertion");
        assert_eq!(violation.what, "panic: seven");
        assert_eq!(violation.steps.len(), 5, "{violation}");
    }
}
