//! What a session takes part in: the whole truth at one directive number, for the SDK to start from after a reconnect.

use quorate_types::{DirectiveSeq, FencingToken, NodeName, SessionId};
use serde::{Deserialize, Serialize};

use crate::command::TenureKey;
use crate::event::{Phase, Predecessor};
use crate::state::State;

/// A session's part in a tenure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// Asked for its position, and has not answered.
    Polled,
    /// Asked for its position, and has answered.
    Answered,
    /// Elected, and gets ready.
    Preparing,
    /// Leads.
    Active,
    /// Leads, and hands over.
    Draining,
    /// Must stop leading.
    Revoking,
    /// Is to follow the holder.
    Successor,
}

/// One tenure that a session takes part in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingPart {
    /// Which tenure.
    pub tenure: TenureKey,
    /// What the session is in it.
    pub part: Part,
    /// The tenure's token.
    pub token: FencingToken,
    /// How the tenure before ended.
    pub predecessor: Option<Predecessor>,
    /// Milliseconds of cluster time left, where there is a deadline.
    pub deadline_left_ms: Option<u64>,
    /// While draining: who is to follow.
    pub successor: Option<NodeName>,
}

/// At this directive number, exactly these parts hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The number of the last directive to the session.
    pub directive_seq: DirectiveSeq,
    /// Its parts, in order of the groups' creation.
    pub parts: Vec<StandingPart>,
}

impl State {
    /// What a session takes part in.
    #[must_use]
    pub fn standing(&self, session: SessionId) -> Option<Standing> {
        let directive_seq = self.session(session)?.directive_seq;
        let Some(seat) = self.derived.seats.get(&session) else {
            return Some(Standing {
                directive_seq,
                parts: Vec::new(),
            });
        };
        let mut parts: Vec<_> = seat
            .held
            .iter()
            .chain(seat.aside.iter())
            .map(|id| {
                let group = self.by_id(*id);
                let tenure = group
                    .tenure
                    .as_ref()
                    .expect("a session takes part in tenures only");
                let part = match group.phase {
                    Phase::Polling if tenure.asked.get(&session).is_some_and(Option::is_some) => {
                        Part::Answered
                    }
                    Phase::Polling => Part::Polled,
                    Phase::Draining if tenure.holder != Some(session) => Part::Successor,
                    Phase::Preparing => Part::Preparing,
                    Phase::Active => Part::Active,
                    Phase::Draining => Part::Draining,
                    Phase::Revoking => Part::Revoking,
                    Phase::Vacant => unreachable!("a vacant group has no tenure"),
                };
                let view = StandingPart {
                    tenure: TenureKey {
                        group: group.key.clone(),
                        number: tenure.number,
                    },
                    part,
                    token: tenure.token,
                    predecessor: group.predecessor,
                    deadline_left_ms: tenure.deadline.map(|at| at.ms_since(self.cluster_time)),
                    successor: tenure.successor.as_ref().map(|s| s.node.clone()),
                };
                (*id, view)
            })
            .collect();
        parts.sort_by_key(|(id, _)| *id);
        Some(Standing {
            directive_seq,
            parts: parts.into_iter().map(|(_, part)| part).collect(),
        })
    }
}
