//! What is told: how much was compared, the differences that are meant, and those that are not.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

use super::known::Known;
use super::ops::{Answer, Seen, Short, Step};

/// How many steps of a shrunk difference are printed.
const STEPS_SHOWN: usize = 60;

/// What was compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// By name: how many, and how many of them etcd refused.
    operations: BTreeMap<&'static str, (usize, usize)>,
    known: BTreeMap<&'static str, (usize, &'static str)>,
    refusals: BTreeMap<String, usize>,
}

impl Counts {
    pub(crate) fn operation(&mut self, step: &Step, answer: &Answer) {
        let (count, refused) = self.operations.entry(step.op.name()).or_default();
        *count += 1;
        if let Answer::Refused(_, text) = answer {
            *refused += 1;
            *self.refusals.entry(text.clone()).or_default() += 1;
        }
    }

    pub(crate) fn known(&mut self, known: &Known) {
        self.known.entry(known.name).or_insert((0, known.reason)).0 += 1;
    }
}

/// The whole.
#[derive(Debug, Default)]
pub(crate) struct Report {
    counts: Counts,
    pub(crate) differences: Vec<Difference>,
    pub(crate) seconds: f64,
}

impl Report {
    pub(crate) fn add(&mut self, counts: &Counts) {
        for (name, (count, refused)) in &counts.operations {
            let sum = self.counts.operations.entry(name).or_default();
            sum.0 += count;
            sum.1 += refused;
        }
        for (name, (count, reason)) in &counts.known {
            self.counts.known.entry(name).or_insert((0, reason)).0 += count;
        }
        for (text, count) in &counts.refusals {
            *self.counts.refusals.entry(text.clone()).or_default() += count;
        }
    }

    pub(crate) fn operations(&self) -> usize {
        self.counts
            .operations
            .values()
            .map(|(count, _)| count)
            .sum()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json!({
            "operations": self.operations(),
            "seconds": self.seconds,
            "by_name": self.counts.operations.iter().map(|(name, (count, refused))| {
                ((*name).to_owned(), json!({"count": count, "refused": refused}))
            }).collect::<serde_json::Map<_, _>>(),
            "refusals": self.counts.refusals,
            "known": self.counts.known.iter().map(|(name, (count, reason))| {
                json!({"name": name, "count": count, "reason": reason})
            }).collect::<Vec<_>>(),
            "differences": self.differences.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, (count, refused)) in &self.counts.operations {
            writeln!(f, "{count:>9}  {name}, {refused} refused")?;
        }
        writeln!(f, "refusals compared, code and text:")?;
        for (text, count) in &self.counts.refusals {
            writeln!(f, "{count:>9}  {text}")?;
        }
        writeln!(f, "differences that are meant:")?;
        for (name, (count, reason)) in &self.counts.known {
            writeln!(f, "{count:>9}  {name}: {reason}")?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = self.operations() as f64 / self.seconds.max(0.001);
        writeln!(
            f,
            "etcd-diff: {} operations in {:.0} s ({rate:.0}/s), {} that differ without being meant to",
            self.operations(),
            self.seconds,
            self.differences.len()
        )
    }
}

/// A difference that nobody meant.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) seed: u64,
    /// All steps up to the one answered differently.
    pub(crate) steps: Vec<Step>,
    pub(crate) left: (&'static str, Answer),
    pub(crate) right: (&'static str, Answer),
    /// What servers that died said.
    pub(crate) deaths: Vec<String>,
    /// Whether the steps are fewer than those that were drawn.
    pub(crate) is_shrunk: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.steps.len();
        if self.is_shrunk {
            writeln!(f, "seed {}: {count} operations show it:", self.seed)?;
            for step in self.steps.iter().rev().take(STEPS_SHOWN).rev() {
                writeln!(f, "    {:?} {}", step.who, Short(&step.op))?;
            }
        } else {
            writeln!(
                f,
                "seed {}, step {}: the answers differ",
                self.seed,
                count - 1
            )?;
            if let Some(step) = self.steps.last() {
                writeln!(f, "  asked   {:?} {}", step.who, Short(&step.op))?;
            }
        }
        match (&self.left.1, &self.right.1) {
            (Answer::Watched(left), Answer::Watched(right)) => {
                let ids = left
                    .keys()
                    .chain(right.keys())
                    .collect::<std::collections::BTreeSet<_>>();
                for id in ids.into_iter().filter(|id| left.get(*id) != right.get(*id)) {
                    writeln!(f, "  watch {id:?} (stream, id)")?;
                    let (left, right) = (left.get(id), right.get(id));
                    watch(f, (self.left.0, left), (self.right.0, right))?;
                }
            }
            (left, right) => {
                writeln!(f, "  {:<8}{}", self.left.0, Short(left))?;
                writeln!(f, "  {:<8}{}", self.right.0, Short(right))?;
            }
        }
        for death in &self.deaths {
            writeln!(f, "  {death}")?;
        }
        if !self.is_shrunk {
            write!(
                f,
                "  again   cargo xtask etcd-diff --seed {} --ops {count}",
                self.seed
            )?;
        }
        Ok(())
    }
}

/// The first event in which two watches differ, or all that they told besides.
fn watch(
    f: &mut fmt::Formatter<'_>,
    (left_name, left): (&str, Option<&Seen>),
    (right_name, right): (&str, Option<&Seen>),
) -> fmt::Result {
    let events = |seen: Option<&Seen>| seen.map_or(Vec::new(), |seen| seen.events.clone());
    let (lefts, rights) = (events(left), events(right));
    let equal = lefts
        .iter()
        .zip(&rights)
        .take_while(|(a, b)| a == b)
        .count();
    for (name, seen, events) in [(left_name, left, lefts), (right_name, right, rights)] {
        let canceled = seen.map(|seen| &seen.canceled);
        write!(f, "  {name:<8}{} events", events.len())?;
        write!(f, ", event {equal}: {}", Short(&events.get(equal)))?;
        writeln!(f, ", canceled: {canceled:?}")?;
    }
    Ok(())
}
