//! Fair cycles: a run that goes on for ever, lets nobody wait who could always act, and never gets where it should.
//!
//! Over the graph of an exhausted exploration. States that want something (`Model::label`) and the edges between them make a
//! sub-graph; a run that stays in it for ever stays, in the end, in one of its strongly connected components. It is *weakly fair*
//! if each fairness class is taken again and again, or is again and again not possible. Going round a whole component
//! does all that any run in it can do, so a component violates exactly if for each class it holds an edge of it, or a state where
//! it is not possible. That is complete, unlike a depth-first `eventually` that forgets cycles which rejoin known states.
//! Waiting is always possible: a state in which no class can act violates alone.

use super::explorer::{Edge, Graph, Model, Report, Violation, take, way_to};

/// The class of an action that nobody has to take.
pub const FREE: u8 = 0;

/// What is asked of the graph.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// The states that want something: those whose label has this bit.
    pub wants: u64,
    /// Classes that are weakly fair, as bits.
    pub fair: u64,
    /// Classes that stop some day, as bits: no cycle takes them.
    pub stops: u64,
}

/// What the check came to.
#[derive(Clone, Debug)]
pub struct Lives {
    /// The states that want something.
    pub wanting: usize,
    /// The components among them that were judged.
    pub components: usize,
    /// A fair cycle, if there is one: how it is reached, and how it goes round.
    pub violation: Option<Violation>,
}

/// Looks for a fair cycle of wanting states.
///
/// # Panics
/// Where the report has no graph, or the graph is not whole: then nothing could be said.
pub fn check<M: Model>(model: &M, report: &Report, property: Property) -> Lives {
    let graph = report.graph.as_ref().expect("explored with a graph");
    assert!(
        report.is_exhausted,
        "{}: liveness needs the whole graph",
        report.name
    );
    let wants = |state: u32| graph.labels[state as usize] & property.wants != 0;
    let stays = |edge: &Edge| wants(edge.to) && property.stops >> edge.class & 1 == 0;
    let components = components(graph, &wants, &stays);
    let mut lives = Lives {
        wanting: components.iter().map(Vec::len).sum(),
        components: components.len(),
        violation: None,
    };
    // The earliest found state first: its prefix is among the shortest.
    let unfair = |component: &&Vec<u32>| is_fair(graph, component, property, &stays);
    let worst = components
        .iter()
        .filter(unfair)
        .min_by_key(|component| component.iter().min().copied());
    if let Some(component) = worst {
        lives.violation = Some(lasso(model, report, graph, component, property, &stays));
    }
    lives
}

fn is_fair(
    graph: &Graph,
    component: &[u32],
    property: Property,
    stays: &impl Fn(&Edge) -> bool,
) -> bool {
    let members = Members::new(graph, component);
    let (mut taken, mut always) = (0_u64, u64::MAX);
    for state in component {
        always &= graph.enabled[*state as usize];
        for edge in graph.out(*state) {
            if stays(edge) && members.has(edge.to) {
                taken |= 1 << edge.class;
            }
        }
    }
    property.fair & always & !taken == 0
}

/// The states of a component, as bits.
struct Members(std::collections::HashSet<u32>);

impl Members {
    fn new(_graph: &Graph, component: &[u32]) -> Self {
        Self(component.iter().copied().collect())
    }
    fn has(&self, state: u32) -> bool {
        self.0.contains(&state)
    }
}

/// Tarjan's strongly connected components, without recursion.
fn components(
    graph: &Graph,
    wants: &impl Fn(u32) -> bool,
    stays: &impl Fn(&Edge) -> bool,
) -> Vec<Vec<u32>> {
    const NONE: u32 = u32::MAX;
    let count = graph.labels.len();
    let (mut index, mut low) = (vec![NONE; count], vec![0_u32; count]);
    let mut is_open = vec![false; count];
    let (mut open, mut found, mut next) = (Vec::new(), Vec::new(), 0);
    for root in 0..count as u32 {
        if !wants(root) || index[root as usize] != NONE {
            continue;
        }
        let mut calls = vec![(root, 0)];
        while let Some((state, at)) = calls.pop() {
            let me = state as usize;
            if at == 0 {
                index[me] = next;
                low[me] = next;
                next += 1;
                open.push(state);
                is_open[me] = true;
            }
            let edges = graph.out(state);
            if let Some(edge) = edges.get(at) {
                calls.push((state, at + 1));
                let to = edge.to as usize;
                if stays(edge) && index[to] == NONE {
                    calls.push((edge.to, 0));
                } else if stays(edge) && is_open[to] {
                    low[me] = low[me].min(index[to]);
                }
                continue;
            }
            if low[me] == index[me] {
                let mut component = Vec::new();
                loop {
                    let member = open.pop().expect("the root of the component is open");
                    is_open[member as usize] = false;
                    component.push(member);
                    if member == state {
                        break;
                    }
                }
                found.push(component);
            }
            if let Some((parent, _)) = calls.last() {
                let parent = *parent as usize;
                low[parent] = low[parent].min(low[me]);
            }
        }
    }
    found
}

/// How the component is reached, and a way round it that takes each fair class or passes where it is not possible.
fn lasso<M: Model>(
    model: &M,
    report: &Report,
    graph: &Graph,
    component: &[u32],
    property: Property,
    stays: &impl Fn(&Edge) -> bool,
) -> Violation {
    let members = Members::new(graph, component);
    let inner = |edge: &Edge| stays(edge) && members.has(edge.to);
    let entry = *component.iter().min().expect("a component has states");
    let mut at = entry;
    let mut round: Vec<u16> = Vec::new();
    for class in (0..64).filter(|class| property.fair >> class & 1 == 1) {
        let is_idle = |state: u32| graph.enabled[state as usize] >> class & 1 == 0;
        if component.iter().any(|state| is_idle(*state)) {
            at = walk(graph, at, &inner, &mut round, is_idle);
        } else {
            let takes = |state: u32| {
                graph
                    .out(state)
                    .iter()
                    .any(|edge| inner(edge) && edge.class == class)
            };
            at = walk(graph, at, &inner, &mut round, takes);
            let edges = graph.out(at).iter();
            let edge = edges
                .copied()
                .find(|edge| inner(edge) && edge.class == class)
                .expect("a fair component takes each class that is always possible");
            round.push(edge.ordinal);
            at = edge.to;
        }
    }
    walk(graph, at, &inner, &mut round, |state| state == entry);
    let mut steps = vec!["start".to_owned()];
    let way = way_to(&report.links, entry);
    let state = take(
        model,
        model.initial(),
        way.iter().map(|link| link.ordinal),
        &mut steps,
    );
    steps.push(if round.is_empty() {
        "-- and there it stays: nobody can act".to_owned()
    } else {
        "-- from here on for ever:".to_owned()
    });
    take(model, state, round.into_iter(), &mut steps);
    Violation {
        what: format!(
            "{}: a fair cycle of {} states",
            property.name,
            component.len()
        ),
        steps,
    }
}

/// A shortest way inside to a state; the ordinals taken are appended.
fn walk(
    graph: &Graph,
    from: u32,
    inner: &impl Fn(&Edge) -> bool,
    round: &mut Vec<u16>,
    is_there: impl Fn(u32) -> bool,
) -> u32 {
    let mut came = std::collections::HashMap::from([(from, None)]);
    let mut queue = std::collections::VecDeque::from([from]);
    while let Some(state) = queue.pop_front() {
        if is_there(state) {
            let (mut back, mut at) = (Vec::new(), state);
            while let Some(Some((before, ordinal))) = came.get(&at) {
                back.push(*ordinal);
                at = *before;
            }
            round.extend(back.into_iter().rev());
            return state;
        }
        for edge in graph.out(state).iter().filter(|edge| inner(edge)) {
            came.entry(edge.to).or_insert_with(|| {
                queue.push_back(edge.to);
                Some((state, edge.ordinal))
            });
        }
    }
    unreachable!("a component is strongly connected");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::explorer::{Bounds, explore};

    /// A graph by its edges: (from, to, class).
    struct Edges(&'static [(u8, u8, u8)], u64);

    impl Model for Edges {
        type State = u8;
        type Action = (u8, u8);
        fn initial(&self) -> u8 {
            0
        }
        fn actions(&self, state: &u8, out: &mut Vec<(u8, u8)>) {
            let from = self.0.iter().filter(|(from, ..)| from == state);
            out.extend(from.map(|(_, to, class)| (*to, *class)));
        }
        fn next(&self, _: &u8, action: &(u8, u8)) -> Result<Option<u8>, String> {
            Ok(Some(action.0))
        }
        fn fingerprint(&self, state: &u8) -> u128 {
            u128::from(*state)
        }
        fn invariant(&self, _: &u8) -> Result<(), String> {
            Ok(())
        }
        fn label(&self, state: &u8) -> u64 {
            self.1 >> state & 1
        }
        fn class(&self, _: &u8, action: &(u8, u8)) -> u8 {
            action.1
        }
    }

    fn lives(edges: &'static [(u8, u8, u8)], wants: u64, stops: u64) -> Lives {
        let model = Edges(edges, wants);
        let bounds = Bounds {
            graph: true,
            ..Bounds::default()
        };
        let property = Property {
            name: "toy",
            wants: 1,
            fair: 0b1110,
            stops,
        };
        check(&model, &explore("toy", &model, bounds), property)
    }

    #[test]
    fn a_cycle_that_rejoins_a_state_seen_on_another_path_is_found() {
        // 0 goes to 1 and to 2; 2 and 1 make a cycle, and 1 alone can get out to 3 by an action that nobody has to take. A search that
        // follows paths and stops at known states finishes 1 by way of 3 and then takes 2 -> 1 for fine.
        let edges = &[
            (0, 1, 0),
            (0, 2, 0),
            (1, 3, 0),
            (1, 2, 1),
            (2, 1, 1),
            (3, 3, 1),
        ];
        let violation = lives(edges, 0b0111, 0).violation.expect("1 and 2 for ever");
        assert_eq!(
            violation
                .steps
                .iter()
                .filter(|s| s.starts_with("--"))
                .count(),
            1
        );
    }

    #[test]
    fn a_cycle_that_withholds_what_is_always_possible_is_not_fair() {
        // In both states class 2 leads out, and is never taken inside.
        let edges = &[(0, 1, 1), (1, 0, 1), (0, 2, 2), (1, 2, 2), (2, 2, 1)];
        assert!(lives(edges, 0b011, 0).violation.is_none());
        // Where it is possible only now and then, weak fairness does not demand it.
        let edges = &[(0, 1, 1), (1, 0, 1), (1, 2, 2), (2, 2, 1)];
        assert!(lives(edges, 0b011, 0).violation.is_some());
    }

    #[test]
    fn a_state_in_which_nobody_can_act_violates_alone() {
        let edges = &[(0, 1, 0), (0, 2, 1), (2, 2, 1)];
        let violation = lives(edges, 0b011, 0).violation.expect("stuck in 1");
        assert!(violation.steps.last().is_some_and(|s| s.contains("stays")));
    }

    #[test]
    fn what_stops_some_day_makes_no_cycle() {
        let edges = &[(0, 1, 4), (1, 0, 4), (0, 2, 1), (1, 2, 1), (2, 2, 1)];
        assert!(lives(edges, 0b011, 1 << 4).violation.is_none());
    }
}
