//! At most one leader per term (guarantee 1; Raft thesis, section 3.4).

use std::collections::BTreeMap;

use quorate_types::Term;

use super::{Verdict, Violation};

/// Who led which term.
#[derive(Debug, Default)]
pub struct Leaders {
    seen: BTreeMap<Term, (usize, u32)>,
}

impl Leaders {
    /// A server, in its `boot`th life, became leader of `term`.
    ///
    /// # Errors
    /// Somebody else led that term, or an earlier life of the same server did.
    pub fn on_leader(&mut self, term: Term, server: usize, boot: u32) -> Verdict {
        match self.seen.insert(term, (server, boot)) {
            Some(before) if before != (server, boot) => Err(Violation {
                checker: "at_most_one_leader_per_term",
                guarantee: "1: at most one leader per term",
                what: format!(
                    "term {term} is led by server {} (life {boot}) and was by server {} (life {})",
                    server + 1,
                    before.0 + 1,
                    before.1
                ),
            }),
            _ => Ok(()),
        }
    }

    /// How many terms had a leader.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.seen.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_leader_of_a_term_is_reported() {
        let mut leaders = Leaders::default();
        assert!(leaders.on_leader(Term(1), 0, 1).is_ok());
        assert!(leaders.on_leader(Term(1), 0, 1).is_ok());
        assert!(leaders.on_leader(Term(2), 1, 1).is_ok());
        assert!(leaders.on_leader(Term(2), 2, 1).is_err());
        assert!(
            leaders.on_leader(Term(1), 0, 2).is_err(),
            "a restarted leader must not resume its term"
        );
    }
}
