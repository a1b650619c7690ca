//! A read that asks for it sees everything acknowledged to anybody before it began (guarantee 2; Raft thesis, section 6.4).

use quorate_types::LogIndex;

use super::{Verdict, Violation};

/// How many reads were looked at.
#[derive(Debug, Default)]
pub struct Reads {
    /// The count.
    pub checked: u64,
}

impl Reads {
    /// A read that began when `floor` was the newest acknowledged index was answered with `index`, by a server that had
    /// applied up to `applied`.
    ///
    /// # Errors
    /// It missed something.
    pub fn on_answer(
        &mut self,
        server: usize,
        floor: LogIndex,
        index: LogIndex,
        applied: LogIndex,
    ) -> Verdict {
        self.checked += 1;
        if index >= floor && applied >= index {
            return Ok(());
        }
        Err(Violation {
            checker: "reads_are_linearizable",
            guarantee: "2: governance reads and writes are linearizable",
            what: format!(
                "server {} answered a read at index {index}, applied to {applied}, though {floor} was acknowledged before \
                 the read began",
                server + 1
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_misses_an_acknowledged_write_is_reported() {
        let mut reads = Reads::default();
        assert!(
            reads
                .on_answer(0, LogIndex(4), LogIndex(4), LogIndex(5))
                .is_ok()
        );
        assert!(
            reads
                .on_answer(0, LogIndex(4), LogIndex(3), LogIndex(5))
                .is_err()
        );
        assert!(
            reads
                .on_answer(0, LogIndex(4), LogIndex(4), LogIndex(3))
                .is_err()
        );
    }
}
