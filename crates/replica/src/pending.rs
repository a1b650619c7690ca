//! Calls on their way: waiting for a leader, forwarded, in the log, or waiting for a confirmation round.

use std::collections::{BTreeMap, VecDeque};

use quorate_consensus::RoundId;
use quorate_coord::SessionKey;
use quorate_types::{LogIndex, ReplicaId, Time};

use crate::call::{CallId, Request, Response};
use crate::output::Output;
use crate::own_reply::OwnReplies;
use crate::peer::PeerMessage;

/// Who asked, and so where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client of this server.
    Local(CallId),
    /// A client of another server, which forwarded the call.
    Peer {
        /// The server.
        replica: ReplicaId,
        /// Its process.
        incarnation: u64,
        /// Its number for the call.
        call: CallId,
    },
}

/// A call that waits until a leader is known, or until this leader may serve.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) origin: Origin,
    pub(crate) request: Request,
    pub(crate) deadline: Time,
}

/// A local call that the leader was asked to answer.
#[derive(Debug)]
pub(crate) struct Forwarded {
    pub(crate) leader: ReplicaId,
    pub(crate) request: Request,
    pub(crate) deadline: Time,
}

/// A call that waits for a confirmation round.
#[derive(Debug)]
pub(crate) enum Confirming {
    KeepAlive {
        origin: Origin,
        session: SessionKey,
        seq: u64,
    },
    Read {
        origin: Origin,
        index: LogIndex,
    },
    SessionAge {
        origin: Origin,
        session: SessionKey,
    },
}

impl Confirming {
    /// Who asked.
    pub(crate) fn origin(&self) -> Origin {
        match self {
            Self::KeepAlive { origin, .. }
            | Self::Read { origin, .. }
            | Self::SessionAge { origin, .. } => *origin,
        }
    }
}

/// All waiting calls of one replica.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) queued: VecDeque<Queued>,
    pub(crate) forwarded: BTreeMap<CallId, Forwarded>,
    /// At the leader: proposed in this term, not yet applied.
    pub(crate) proposed: BTreeMap<LogIndex, Origin>,
    /// At the leader: in order of rounds.
    pub(crate) confirming: VecDeque<(RoundId, Confirming)>,
    /// Local reads whose read index is not applied here yet.
    pub(crate) reading: BTreeMap<LogIndex, Vec<(CallId, Time)>>,
    /// Answers to peers, sent together at the end of the step.
    answers: BTreeMap<(ReplicaId, u64), Vec<(CallId, Response)>>,
    /// Calls for the leader, sent together at the end of the step.
    pub(crate) forwards: Vec<(CallId, Request)>,
    /// Replies that are taken from this replica's own apply.
    pub(crate) own_replies: OwnReplies,
}

/// Most bytes of calls or answers in one message, save that one is always sent: a frame is bounded, and a lane is shared.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Splits what is sent together into messages of bounded size, in order.
fn split<T>(all: Vec<T>, size_bytes: impl Fn(&T) -> usize, mut send: impl FnMut(Vec<T>)) {
    let mut together = Vec::new();
    let mut bytes = 0;
    for one in all {
        let more = size_bytes(&one);
        if !together.is_empty() && bytes + more > MESSAGE_BYTES_MAX {
            send(std::mem::take(&mut together));
            bytes = 0;
        }
        bytes += more;
        together.push(one);
    }
    if !together.is_empty() {
        send(together);
    }
}

impl Pending {
    /// How many calls wait.
    pub(crate) fn len(&self) -> usize {
        self.queued.len()
            + self.forwarded.len()
            + self.proposed.len()
            + self.confirming.len()
            + self.reading.values().map(Vec::len).sum::<usize>()
            + self.own_replies.len()
    }

    /// Answers a call, here or over the server that forwarded it.
    pub(crate) fn answer(&mut self, origin: Origin, response: Response, out: &mut Vec<Output>) {
        match origin {
            Origin::Local(call) => out.push(Output::Answer { call, response }),
            Origin::Peer {
                replica,
                incarnation,
                call,
            } => {
                self.answers
                    .entry((replica, incarnation))
                    .or_default()
                    .push((call, response));
            }
        }
    }

    /// Sends what was gathered for peers.
    pub(crate) fn flush(
        &mut self,
        leader: Option<ReplicaId>,
        incarnation: u64,
        out: &mut Vec<Output>,
    ) {
        for ((to, incarnation), answers) in std::mem::take(&mut self.answers) {
            split(
                answers,
                |(_, response)| response.size_bytes(),
                |answers| {
                    out.push(Output::Send {
                        to,
                        message: PeerMessage::Answers {
                            incarnation,
                            answers,
                        },
                    });
                },
            );
        }
        if !self.forwards.is_empty() {
            let calls = std::mem::take(&mut self.forwards);
            // Calls are gathered only while a leader is known, and a change of leader inside the step takes them back.
            let to = leader.expect("calls are forwarded to a known leader");
            split(
                calls,
                |(_, request)| request.size_bytes(),
                |calls| {
                    out.push(Output::Send {
                        to,
                        message: PeerMessage::Forward { incarnation, calls },
                    });
                },
            );
        }
    }

    /// The earliest time at which a waiting call times out.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        // Queued calls and forwarded calls wait equally long, so the oldest is first; forwarded ones are scanned: they are few
        // or the leader is slow, and either way the scan is short beside the work of answering them.
        let queued = self.queued.front().map(|queued| queued.deadline);
        let forwarded = self
            .forwarded
            .first_key_value()
            .map(|(_, forwarded)| forwarded.deadline);
        let reading = self
            .reading
            .values()
            .filter_map(|calls| calls.first())
            .map(|(_, deadline)| *deadline)
            .min();
        let own = self.own_replies.next_deadline();
        [queued, forwarded, reading, own]
            .into_iter()
            .flatten()
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_together_is_split_by_size_and_keeps_its_order() {
        let sizes = vec![600_000, 400_000, 500_000, 3_000_000, 1, 2];
        let mut sent = Vec::new();
        split(sizes, |bytes| *bytes, |together| sent.push(together));
        let meant = [
            vec![600_000, 400_000],
            vec![500_000],
            vec![3_000_000],
            vec![1, 2],
        ];
        assert_eq!(sent, meant);
    }
}
