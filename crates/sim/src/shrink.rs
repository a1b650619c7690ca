//! Makes a failing world smaller while the same checker still fails: fewer faults first (delta debugging: Zeller and Hildebrandt,
//! Simplifying and Isolating Failure-Inducing Input, TSE 2002), then less time, fewer nodes, fewer callers.

use std::time::Duration;

use crate::case::Case;
use crate::checkers::Violation;
use crate::setup::Setup;

/// Most runs that shrinking may cost.
const RUNS_MAX: usize = 500;

/// What is left.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest case found.
    pub case: Case,
    /// What does not hold in it.
    pub violation: Violation,
    /// How many runs it took.
    pub runs: usize,
}

impl Shrunk {
    /// Its plan, for people: each fault's place in the seed's whole plan, when it strikes, and what it is.
    #[must_use]
    pub fn plan(&self) -> String {
        let Setup { plan, .. } = self.case.setup();
        let places = self.case.keep.clone().unwrap_or_default();
        plan.iter()
            .zip(places)
            .map(|((at, fault), place)| {
                format!("  {place:>3}  {:>9.3} s  {fault:?}\n", at.as_secs_f64())
            })
            .collect()
    }
}

struct Shrinker<R> {
    run: R,
    best: Case,
    violation: Violation,
    runs: usize,
}

/// Shrinks a case that fails with `violation`; `run` says what fails in another one.
pub fn shrink(
    case: &Case,
    violation: Violation,
    run: impl FnMut(&Case) -> Option<Violation>,
) -> Shrunk {
    let mut shrinker = Shrinker {
        run,
        best: case.clone(),
        violation,
        runs: 0,
    };
    shrinker.faults();
    shrinker.time();
    shrinker.nodes();
    shrinker.callers();
    // With less around them, fewer faults may do.
    shrinker.faults();
    Shrunk {
        case: shrinker.best,
        violation: shrinker.violation,
        runs: shrinker.runs,
    }
}

impl<R: FnMut(&Case) -> Option<Violation>> Shrinker<R> {
    /// Keeps a smaller case if the same checker fails in it.
    fn try_case(&mut self, case: Case) -> bool {
        if self.runs >= RUNS_MAX {
            return false;
        }
        self.runs += 1;
        match (self.run)(&case) {
            Some(violation) if violation.checker == self.violation.checker => {
                self.best = case;
                self.violation = violation;
                true
            }
            _ => false,
        }
    }

    fn try_keep(&mut self, keep: Vec<usize>) -> bool {
        self.try_case(Case {
            keep: Some(keep),
            ..self.best.clone()
        })
    }

    /// Delta debugging over the plan: drop ever smaller parts of it.
    fn faults(&mut self) {
        let mut keep = self.places();
        self.best.keep = Some(keep.clone());
        if !keep.is_empty() && self.try_keep(Vec::new()) {
            return;
        }
        let mut parts = 2;
        while keep.len() > 1 && parts <= keep.len() {
            let size = keep.len().div_ceil(parts);
            let without = |at: usize| -> Vec<usize> {
                let (from, to) = (at * size, (at + 1) * size);
                let is_left = |place: &usize| !(from..to).contains(place);
                (0..keep.len())
                    .filter(is_left)
                    .map(|place| keep[place])
                    .collect()
            };
            let smaller = (0..keep.len().div_ceil(size))
                .map(without)
                .find(|less| self.try_keep(less.clone()));
            match smaller {
                Some(less) => {
                    keep = less;
                    parts = (parts - 1).max(2);
                }
                None if size == 1 => break,
                None => parts = (parts * 2).min(keep.len()),
            }
        }
    }

    /// The places of the faults that are left, in the seed's whole plan.
    fn places(&self) -> Vec<usize> {
        let whole = Case {
            keep: None,
            nodes: None,
            faulty_for: None,
            ..self.best.clone()
        }
        .setup();
        let (nodes, end) = (self.best.setup().nodes, self.best.setup().faulty_for);
        let is_left = |place: &usize| {
            let (at, fault) = &whole.plan[*place];
            *at < end && fault.node().is_none_or(|node| node < nodes)
        };
        match &self.best.keep {
            Some(keep) => keep.iter().copied().filter(is_left).collect(),
            None => (0..whole.plan.len()).filter(is_left).collect(),
        }
    }

    fn time(&mut self) {
        loop {
            let now = self.best.setup().faulty_for;
            let less = now * 3 / 4;
            let shorter = Case {
                faulty_for: Some(Duration::from_millis(
                    u64::try_from(less.as_millis()).expect("short"),
                )),
                ..self.best.clone()
            };
            if less < Duration::from_millis(500) || !self.try_case(shorter) {
                break;
            }
        }
        self.best.keep = Some(self.places());
    }

    fn nodes(&mut self) {
        for nodes in 1..self.best.setup().nodes {
            if self.try_case(Case {
                nodes: Some(nodes),
                ..self.best.clone()
            }) {
                break;
            }
        }
        self.best.keep = Some(self.places());
    }

    fn callers(&mut self) {
        for callers in 1..self.best.setup().callers {
            if self.try_case(Case {
                callers: Some(callers),
                ..self.best.clone()
            }) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(checker: &'static str) -> Violation {
        Violation {
            checker,
            guarantee: "",
            what: String::new(),
        }
    }

    #[test]
    fn only_what_the_failure_needs_is_left() {
        // A seed with a plan long enough to hide two faults in.
        let seed = (0..)
            .find(|seed| Case::whole(*seed, None).setup().plan.len() > 12)
            .expect("some seed has many faults");
        let case = Case::whole(seed, None);
        let needed = [3, 8];
        let whole = case.setup().plan;
        let fails = |case: &Case| {
            let plan = case.setup().plan;
            if needed.iter().all(|place| plan.contains(&whole[*place])) {
                Some(violation("a"))
            } else {
                // Another failure does not count.
                Some(violation("b"))
            }
        };
        let shrunk = shrink(&case, violation("a"), fails);
        let keep = shrunk.case.keep.clone().expect("a plan was chosen");
        assert!(needed.iter().all(|place| keep.contains(place)));
        assert_eq!(keep.len(), needed.len(), "{keep:?}");
        assert_eq!(shrunk.case.callers, Some(1));
        assert_eq!(shrunk.violation.checker, "a");
        assert!(shrunk.runs < 200, "{} runs", shrunk.runs);
    }
}
