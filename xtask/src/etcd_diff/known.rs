//! The differences that are meant, each with its reason. `docs/etcd-compatibility.md` tells a user of each.

use super::ops::{Answer, Step};

/// A difference that is meant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Its name in reports, and in the page.
    pub(crate) name: &'static str,
    /// Why it is.
    pub(crate) reason: &'static str,
    /// Whether it is this one: the step, etcd's answer, ours.
    explains: fn(&Step, &Answer, &Answer) -> bool,
}

/// All of them.
pub(crate) const KNOWN: &[Known] = &[];

/// The meant difference that explains these answers.
pub(crate) fn explanation(step: &Step, etcd: &Answer, ours: &Answer) -> Option<&'static Known> {
    KNOWN
        .iter()
        .find(|known| (known.explains)(step, etcd, ours))
}
