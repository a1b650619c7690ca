//! The list of mutants: what is read from `xtask/mutants/*.toml`, and what must hold of it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::workspace;

/// Fewer than this caught by the simulator proper would say too little about it.
const SIMULATOR_MIN: usize = 25;

/// Who is to notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Detector {
    /// `quorate-sim` over seeds.
    #[default]
    Simulator,
    /// `quorate-model`, the exhaustive explorer.
    Model,
    /// The tests of `quorate-storage`.
    Storage,
}

/// One change of the shipping code.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Change {
    /// The file, from the root.
    pub(crate) file: String,
    /// What to look for; occurs exactly once.
    pub(crate) find: String,
    /// What to put there.
    pub(crate) replace: String,
}

/// One mistake.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// States the mistake, in few words.
    pub(crate) name: String,
    /// The rule it breaks, or where it was made.
    pub(crate) source: String,
    /// The file, from the root.
    file: String,
    /// What to look for; occurs exactly once.
    find: String,
    /// What to put there.
    replace: String,
    /// Further changes that belong to the same mistake.
    #[serde(default)]
    also: Vec<Change>,
    /// Which checkers are expected to notice; informative.
    #[serde(default)]
    pub(crate) expect: Vec<String>,
    /// Who is to notice.
    #[serde(default)]
    pub(crate) detector: Detector,
    /// Further arguments of the detector: for a rare situation, or to ask for less.
    #[serde(default)]
    pub(crate) args: Vec<String>,
    /// Whether it belongs to the quick subset.
    #[serde(default)]
    pub(crate) smoke: bool,
}

impl Mutant {
    /// Everything it changes.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let first = Change {
            file: self.file.clone(),
            find: self.find.clone(),
            replace: self.replace.clone(),
        };
        std::iter::once(first).chain(self.also.clone()).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFile {
    mutant: Vec<Mutant>,
}

/// Reads all lists, in order of their names: one per crate, so that little is built between two mutants.
pub(crate) fn read(root: &Path) -> anyhow::Result<Vec<Mutant>> {
    let mut mutants = Vec::new();
    for path in workspace::files(&root.join("xtask/mutants"), ".toml")? {
        let file: ListFile = toml::from_str(&workspace::read(&path)?)
            .with_context(|| format!("read `{}`", workspace::shown(&path, root)))?;
        mutants.extend(file.mutant);
    }
    Ok(mutants)
}

/// What is wrong with the list as such.
pub(crate) fn problems(mutants: &[Mutant]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for mutant in mutants {
        if !names.insert(&mutant.name) {
            problems.push(format!("two mutants are named `{}`", mutant.name));
        }
        if mutant.source.is_empty() {
            problems.push(format!("mutant `{}` names no source", mutant.name));
        }
    }
    let simulated = mutants
        .iter()
        .filter(|mutant| mutant.detector == Detector::Simulator)
        .count();
    if simulated < SIMULATOR_MIN {
        problems.push(format!(
            "the simulator is shown {simulated} mutants, fewer than {SIMULATOR_MIN}"
        ));
    }
    problems
}
