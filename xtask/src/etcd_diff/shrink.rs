//! Looks for fewer operations that show a difference: first the shortest of a few suffixes, then without one piece after the other.
//!
//! Revisions in the operations stay what they were, so not every difference survives; then the whole round is what shows it.

use super::ops::Step;
use super::report::Difference;
use super::round::replay;
use super::servers::Program;

/// How often it may be played again: each time takes fresh servers, about a second.
const TRIES: usize = 80;

/// Fewer operations that still show a difference, if some were found.
pub(crate) async fn shrink(
    left: &Program,
    right: &Program,
    found: &Difference,
) -> anyhow::Result<Option<Difference>> {
    let mut best: Option<Difference> = None;
    for suffix in [10, 40, 150, 600] {
        let steps = &found.steps[found.steps.len().saturating_sub(suffix)..];
        if let Some(smaller) = replay(left, right, found.seed, steps).await? {
            best = Some(smaller);
            break;
        }
    }
    let Some(mut best) = best else {
        return Ok(None);
    };
    let mut piece = best.steps.len().div_ceil(2);
    let mut tries = 0;
    while piece > 0 && best.steps.len() > 1 {
        let mut from = 0;
        while from < best.steps.len() && tries < TRIES {
            tries += 1;
            let until = (from + piece).min(best.steps.len());
            let without: Vec<Step> = [&best.steps[..from], &best.steps[until..]].concat();
            match replay(left, right, found.seed, &without).await? {
                Some(smaller) => best = smaller,
                None => from = until,
            }
        }
        piece /= 2;
    }
    best.is_shrunk = true;
    Ok(Some(best))
}
