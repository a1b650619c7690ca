//! Calls that a peer forwarded are taken in once, however often the message comes (ADR forwarded-calls-are-taken-once).

use std::collections::BTreeMap;

use quorate_types::ReplicaId;

use crate::call::{CallId, Request};

/// How far back a peer's calls are told apart, in its call numbers: older ones are not taken in. 8 KiB for each peer.
const WINDOW: u64 = 1 << 16;
const WORDS: usize = (WINDOW / 64) as usize;

/// The calls of one process of a peer.
#[derive(Debug)]
struct Window {
    incarnation: u64,
    newest: u64,
    /// A bit for each of the last [`WINDOW`] numbers, at its remainder.
    seen: Box<[u64; WORDS]>,
}

impl Window {
    fn new(incarnation: u64, newest: u64) -> Self {
        Self {
            incarnation,
            newest,
            seen: Box::new([0; WORDS]),
        }
    }

    fn take(&mut self, call: u64) -> bool {
        if self.newest >= WINDOW && call <= self.newest - WINDOW {
            return false;
        }
        if call > self.newest {
            if call - self.newest >= WINDOW {
                self.seen.fill(0);
            } else {
                for passed in self.newest + 1..=call {
                    let (word, bit) = place(passed);
                    self.seen[word] &= !bit;
                }
            }
            self.newest = call;
        }
        let (word, bit) = place(call);
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }
}

fn place(call: u64) -> (usize, u64) {
    let at = call % WINDOW;
    let word = usize::try_from(at / 64).expect("within the window");
    (word, 1 << (at % 64))
}

/// What was taken in from each peer, whatever this replica's role was then.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    peers: BTreeMap<ReplicaId, Window>,
}

impl Taken {
    /// Whether a call is to be taken in: it is the first that comes, or repeating it has no effect but its own.
    pub(crate) fn take(
        &mut self,
        from: ReplicaId,
        incarnation: u64,
        call: CallId,
        request: &Request,
    ) -> bool {
        match request {
            // Asked again of the same leader, under the same number, when its sender lost it from sight in between.
            Request::KeepAlive { .. }
            | Request::Read
            | Request::SessionAge { .. }
            | Request::TransferLeader { to: Some(_) } => true,
            Request::Propose(_) | Request::TransferLeader { to: None } => {
                let window = self
                    .peers
                    .entry(from)
                    .or_insert_with(|| Window::new(incarnation, call.0));
                if window.incarnation != incarnation {
                    *window = Window::new(incarnation, call.0);
                }
                window.take(call.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(taken: &mut Taken, incarnation: u64, call: u64) -> bool {
        let request = Request::TransferLeader { to: None };
        taken.take(ReplicaId(2), incarnation, CallId(call), &request)
    }

    #[test]
    fn every_call_is_taken_once_in_any_order() {
        let mut calls = Taken::default();
        for call in [5, 7, 6, 3, 5 + WINDOW / 2] {
            assert!(taken(&mut calls, 1, call), "{call} is new");
            assert!(!taken(&mut calls, 1, call), "{call} came again");
        }
        assert!(!taken(&mut calls, 1, 6));
        assert!(taken(&mut calls, 1, 4));
    }

    #[test]
    fn what_may_have_been_forgotten_is_not_taken() {
        let mut calls = Taken::default();
        let newest = 10 + 3 * WINDOW;
        assert!(taken(&mut calls, 1, 10));
        assert!(taken(&mut calls, 1, newest));
        assert!(!taken(&mut calls, 1, 10));
        assert!(!taken(&mut calls, 1, newest - WINDOW));
        assert!(taken(&mut calls, 1, newest - WINDOW + 1));
        assert!(taken(&mut calls, 1, newest + WINDOW - 1));
        assert!(!taken(&mut calls, 1, newest));
        assert!(taken(&mut calls, 1, newest + 1));
    }

    #[test]
    fn a_new_process_counts_anew() {
        let mut calls = Taken::default();
        assert!(taken(&mut calls, 1, 10));
        assert!(taken(&mut calls, 2, 10));
        assert!(!taken(&mut calls, 2, 10));
    }

    #[test]
    fn what_may_be_repeated_is_always_taken() {
        let mut calls = Taken::default();
        for _ in 0..2 {
            assert!(calls.take(ReplicaId(2), 1, CallId(1), &Request::Read));
        }
    }
}
