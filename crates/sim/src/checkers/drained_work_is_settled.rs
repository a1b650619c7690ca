//! What a holder has begun is completed or rolled back exactly once: by itself before it releases, else by a successor that was told
//! so (design, section 7: the directive that elects carries how the tenure before ended; `Released` means that nothing is in flight).
//!
//! Seen from the resource: when a tenure begins work, no earlier tenure of the group has any open. A successor looks for open work
//! only where it was not told `Released`, so a wrong word about its predecessor shows here.

use quorate_wire::api::TenureId;

use super::{Verdict, Violation};

/// Pieces of work, counted; what is open is at the resource.
#[derive(Debug, Default)]
pub struct Work {
    /// How many beginnings were looked at.
    pub begun: u64,
    /// How many pieces their own tenures settled.
    pub settled: u64,
    /// How many pieces successors settled.
    pub inherited: u64,
}

impl Work {
    /// A tenure begins a piece while these tenures have some open.
    ///
    /// # Errors
    /// An earlier one of the same group has.
    pub fn on_begun<'a>(
        &mut self,
        tenure: &TenureId,
        open: impl IntoIterator<Item = &'a TenureId>,
    ) -> Verdict {
        self.begun += 1;
        // A recreated group is another group, and knows nothing of what was before.
        let left = open
            .into_iter()
            .find(|of| *of != tenure && of.incarnation == tenure.incarnation);
        match left {
            None => Ok(()),
            Some(left) => Err(violation(format!(
                "{tenure:?} began work while some of {left:?} is open"
            ))),
        }
    }

    /// A tenure settles a piece that `of` had open.
    ///
    /// # Errors
    /// It is settled already, or another's.
    pub fn on_settled(&mut self, tenure: &TenureId, of: Option<TenureId>) -> Verdict {
        self.settled += 1;
        match of {
            Some(of) if of == *tenure => Ok(()),
            Some(of) => Err(violation(format!("{tenure:?} settled a piece of {of:?}"))),
            None => Err(violation(format!(
                "a piece of {tenure:?} was settled twice"
            ))),
        }
    }

    /// A tenure settled so many pieces of earlier ones.
    pub fn on_inherited_settled(&mut self, pieces: usize) {
        self.inherited += pieces as u64;
    }
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "drained_work_is_settled",
        guarantee: "3, 4: drained work is completed or rolled back, exactly once (design, section 7: the predecessor's outcome)",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{GroupName, Revision, TenureNumber};

    fn tenure(incarnation: u64, number: u64) -> TenureId {
        TenureId {
            group: GroupName::new("g").unwrap(),
            incarnation: Revision(incarnation),
            number: TenureNumber(number),
        }
    }

    #[test]
    fn work_begun_over_open_work_of_an_earlier_tenure_is_reported() {
        let mut work = Work::default();
        let (old, new) = (tenure(1, 1), tenure(1, 2));
        assert!(work.on_begun(&old, []).is_ok());
        assert!(work.on_begun(&old, [&old]).is_ok());
        assert!(work.on_begun(&new, [&old]).is_err());
        assert!(
            work.on_begun(&tenure(7, 1), [&old]).is_ok(),
            "another incarnation is another group"
        );
    }

    #[test]
    fn a_piece_settled_twice_is_reported() {
        let mut work = Work::default();
        let tenure = tenure(1, 1);
        assert!(work.on_settled(&tenure, Some(tenure.clone())).is_ok());
        assert!(work.on_settled(&tenure, None).is_err());
    }
}
