//! One case: a seed, and what is taken away from the world that it draws. What a replay command names, and what shrinking reduces.

use std::fmt;
use std::time::Duration;

use crate::faults::Fault;
use crate::setup::Setup;

/// A seed, and what is left of its world.
///
/// # Invariants
/// - The same case is the same run: what is taken away is taken after everything was drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// How many replicas; by the seed where none is given.
    pub replicas: Option<usize>,
    /// Which faults of the plan strike, by their place in it; all where none is given.
    pub keep: Option<Vec<usize>>,
    /// At most so many nodes.
    pub nodes: Option<usize>,
    /// At most so many callers.
    pub callers: Option<usize>,
    /// Faults strike for at most so long.
    pub faulty_for: Option<Duration>,
}

impl Case {
    /// A seed's whole world.
    #[must_use]
    pub fn whole(seed: u64, replicas: Option<usize>) -> Self {
        Self {
            seed,
            replicas,
            ..Self::default()
        }
    }

    /// Draws the world and takes away what this case does without.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let mut setup = Setup::from_seed(self.seed, self.replicas);
        if let Some(keep) = &self.keep {
            let kept = |(at, fault)| keep.contains(&at).then_some(fault);
            setup.plan = setup
                .plan
                .into_iter()
                .enumerate()
                .filter_map(kept)
                .collect();
        }
        if let Some(nodes) = self.nodes {
            setup.nodes = setup.nodes.min(nodes.max(1));
        }
        if let Some(callers) = self.callers {
            setup.callers = setup.callers.min(callers.max(1));
        }
        if let Some(faulty_for) = self.faulty_for {
            setup.faulty_for = setup.faulty_for.min(faulty_for);
        }
        let (nodes, end) = (setup.nodes, setup.faulty_for);
        let is_left = |(at, fault): &(Duration, Fault)| {
            *at < end && fault.node().is_none_or(|node| node < nodes)
        };
        setup.plan.retain(is_left);
        setup
    }
}

/// The arguments that run it.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        if let Some(replicas) = self.replicas {
            write!(f, " --replicas {replicas}")?;
        }
        if let Some(keep) = &self.keep {
            let places: Vec<String> = keep.iter().map(usize::to_string).collect();
            // An empty list would be read as a missing value.
            let places = if places.is_empty() {
                "none".to_owned()
            } else {
                places.join(",")
            };
            write!(f, " --keep {places}")?;
        }
        if let Some(nodes) = self.nodes {
            write!(f, " --nodes {nodes}")?;
        }
        if let Some(callers) = self.callers {
            write!(f, " --callers {callers}")?;
        }
        if let Some(faulty_for) = self.faulty_for {
            write!(f, " --faulty-ms {}", faulty_for.as_millis())?;
        }
        Ok(())
    }
}
