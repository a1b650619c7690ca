//! What servers and their clients say to each other: nodes over streams, callers one request at a time.
//!
//! Owns: the server's side of it, as small as it can be: calls go to the replica, answers and directives go back. A stream's
//! messages arrive in order unless a fault says otherwise; nothing arrives over a stream that broke.

use std::time::Duration;

use quorate_coord::{Directive, Event as CoordEvent, SessionKey};
use quorate_replica::{AppliedEntry, CallId, Refusal, Request, Response};
use quorate_types::{DirectiveSeq, LogIndex};
use quorate_wire::api::{Part, StandingTenure};

use crate::clock::Moment;
use crate::convert;
use crate::plant::Plant;
use crate::world::{Event, World};

/// Who sent something to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A node's process, over a stream.
    Node { node: usize, life: u32, stream: u64 },
    /// A caller's operation.
    Caller { caller: usize, operation: u64 },
}

/// What clients say.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    /// A stream begins, for a session where there is one already.
    Attach { session: Option<SessionKey> },
    /// A keep-alive; a stray one goes to another server than the one that the stream is at.
    KeepAlive {
        session: SessionKey,
        seq: u64,
        stray: bool,
    },
    /// A node's request; `tag` tells its answers apart.
    Ask { tag: u64, request: Request },
    /// A caller's request; `floor` is what was acknowledged to anybody before it began.
    Call { floor: LogIndex, request: Request },
}

/// What servers say to nodes.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    /// A keep-alive is answered.
    KeptAlive {
        seq: u64,
        ttl: Duration,
        directive_seq: DirectiveSeq,
    },
    /// The session is over.
    Gone { session: SessionKey },
    /// The next directive.
    Directive {
        session: SessionKey,
        directive: Directive,
    },
    /// The whole picture.
    Standing {
        session: SessionKey,
        directive_seq: DirectiveSeq,
        parts: Vec<StandingTenure>,
    },
    /// A request is answered.
    Answer { tag: u64, response: Response },
    /// The stream is broken.
    HungUp,
}

/// Whom an answer goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody waits.
    Nobody,
    /// A node waits for its keep-alive.
    KeepAlive { node: usize, life: u32, stream: u64 },
    /// A node waits for its request.
    Ask {
        node: usize,
        life: u32,
        stream: u64,
        tag: u64,
    },
    /// A caller waits.
    Caller {
        caller: usize,
        operation: u64,
        floor: LogIndex,
    },
}

/// A node's stream at a server.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) node: usize,
    pub(crate) life: u32,
    pub(crate) id: u64,
    session: Option<SessionKey>,
    answers_last: Moment,
    directives_last: Moment,
}

impl World {
    /// A client sends something to a server.
    pub(crate) fn send_up(&mut self, from: Sender, server: usize, message: Up) {
        if let Sender::Node { node, .. } = from
            && self.network.is_node_cut(node, server)
        {
            self.network.cut_off += 1;
            return;
        }
        if self.network.loses() {
            return;
        }
        let at = self.now + self.network.delay();
        self.at(
            at,
            Event::Up {
                server,
                from,
                message: Box::new(message),
            },
        );
    }

    pub(crate) fn on_up(&mut self, server: usize, from: Sender, message: Box<Up>) {
        if self.servers[server].running.is_none() {
            // Connection refused: certainly nothing was done.
            match from {
                Sender::Node { node, life, stream } => self.hang_up(server, node, life, stream),
                Sender::Caller { caller, operation } => {
                    let response = Response::Refused(Refusal::NoLeader);
                    self.answer_caller(server, caller, operation, response);
                }
            }
            return;
        }
        if let Some(waiting) = &mut self.servers[server].paused {
            waiting.push_back(Event::Up {
                server,
                from,
                message,
            });
            return;
        }
        if let Sender::Node { node, life, stream } = from
            && !matches!(
                *message,
                Up::Attach { .. } | Up::KeepAlive { stray: true, .. }
            )
            && !self
                .running(server)
                .expect("it is running")
                .streams
                .iter()
                .any(|known| known.id == stream)
        {
            // Its beginning never came, or it broke: streams are connections, of which no part goes missing alone.
            self.hang_up(server, node, life, stream);
            return;
        }
        match (from, *message) {
            (Sender::Node { node, life, stream }, Up::Attach { session }) => {
                self.attach(server, node, life, stream, session);
            }
            (Sender::Node { node, life, stream }, Up::KeepAlive { session, seq, .. }) => {
                let origin = Origin::KeepAlive { node, life, stream };
                self.call(server, origin, Request::KeepAlive { session, seq });
            }
            (Sender::Node { node, life, stream }, Up::Ask { tag, request }) => {
                self.call(
                    server,
                    Origin::Ask {
                        node,
                        life,
                        stream,
                        tag,
                    },
                    request,
                );
            }
            (Sender::Caller { caller, operation }, Up::Call { floor, request }) => {
                if self.is_planted(Plant::ReadWithoutRound) && request == Request::Read {
                    let index = self
                        .running(server)
                        .expect("it is running")
                        .replica
                        .applied();
                    let verdict = self.checkers.reads.on_answer(server, floor, index, index);
                    self.judge(verdict);
                    self.read_key(server, caller, operation);
                    self.answer_caller(server, caller, operation, Response::ReadAt { index });
                    return;
                }
                self.call(
                    server,
                    Origin::Caller {
                        caller,
                        operation,
                        floor,
                    },
                    request,
                );
            }
            (from, message) => unreachable!("{from:?} says {message:?}"),
        }
    }

    /// A stream begins: the node is told where it stands, as far as this server knows.
    fn attach(
        &mut self,
        server: usize,
        node: usize,
        life: u32,
        id: u64,
        session: Option<SessionKey>,
    ) {
        let running = self.running(server).expect("it is running");
        running.streams.retain(|stream| stream.node != node);
        running.streams.push(Stream {
            node,
            life,
            id,
            session,
            answers_last: Moment::default(),
            directives_last: Moment::default(),
        });
        if let Some(session) = session {
            self.send_standing(server, node, life, id, session);
        }
    }

    fn send_standing(
        &mut self,
        server: usize,
        node: usize,
        life: u32,
        id: u64,
        session: SessionKey,
    ) {
        let state = self.running(server).expect("it is running").replica.state();
        // A server that lags may not know the session yet: its directives will come with it.
        if state
            .session(session.id)
            .is_none_or(|found| found.key != session)
        {
            return;
        }
        let Some(standing) = state.standing(session.id) else {
            return;
        };
        let parts = standing
            .parts
            .into_iter()
            .map(|part| StandingTenure {
                tenure: convert::tenure_id(&part.tenure),
                part: match part.part {
                    // Asked and answered: the SDK takes part all the same.
                    quorate_coord::Part::Polled | quorate_coord::Part::Answered => Part::Polled,
                    quorate_coord::Part::Preparing => Part::Preparing,
                    quorate_coord::Part::Active => Part::Active,
                    quorate_coord::Part::Draining => Part::Draining,
                    quorate_coord::Part::Revoking => Part::Revoking,
                    quorate_coord::Part::Successor => Part::Successor,
                },
                token: part.token,
                predecessor: part.predecessor.map(convert::predecessor),
                deadline_ms: part.deadline_left_ms,
                successor: part.successor,
            })
            .collect();
        let message = Down::Standing {
            session,
            directive_seq: standing.directive_seq,
            parts,
        };
        self.send_down(server, node, life, id, message);
    }

    /// Sends something to a node.
    fn send_down(&mut self, server: usize, node: usize, life: u32, id: u64, message: Down) {
        let cut = self.network.is_node_cut(node, server);
        if cut || self.network.loses() {
            self.network.cut_off += u64::from(cut);
            if matches!(message, Down::Directive { .. } | Down::Standing { .. }) {
                // A gap breaks the connection.
                let running = self.running(server).expect("it is running");
                running.streams.retain(|stream| stream.id != id);
                self.hang_up(server, node, life, id);
            }
            return;
        }
        let mut at = self.now + self.network.delay();
        let late = self.servers[server].directives_late;
        let ordered = !late.is_zero() && matches!(message, Down::Directive { .. });
        if ordered {
            let by = self
                .random
                .u64(0..=u64::try_from(late.as_nanos()).expect("short"));
            at = at + Duration::from_nanos(by);
        }
        if let Some(running) = self.running(server)
            && let Some(stream) = running.streams.iter_mut().find(|stream| stream.id == id)
        {
            let last = if matches!(message, Down::Directive { .. }) {
                &mut stream.directives_last
            } else {
                &mut stream.answers_last
            };
            at = at.max(*last + Duration::from_nanos(1));
            *last = at;
            if !matches!(message, Down::Directive { .. }) && late.is_zero() {
                // One stream: what follows a directive does not overtake it.
                at = at.max(stream.directives_last + Duration::from_nanos(1));
                stream.answers_last = at;
            }
        }
        self.at(
            at,
            Event::Down {
                node,
                life,
                stream: id,
                message: Box::new(message),
            },
        );
    }

    /// Tells a node that its stream is broken.
    pub(crate) fn hang_up(&mut self, server: usize, node: usize, life: u32, stream: u64) {
        if self.network.is_node_cut(node, server) {
            return;
        }
        let at = self.now + self.network.delay();
        self.at(
            at,
            Event::Down {
                node,
                life,
                stream,
                message: Box::new(Down::HungUp),
            },
        );
    }

    /// All nodes' streams break at once.
    pub(crate) fn break_streams(&mut self) -> usize {
        let mut broken = 0;
        for server in 0..self.servers.len() {
            let Some(running) = self.running(server) else {
                continue;
            };
            for stream in std::mem::take(&mut running.streams) {
                broken += 1;
                self.hang_up(server, stream.node, stream.life, stream.id);
            }
        }
        broken
    }

    /// Directives of what was just applied go to the nodes that listen here.
    pub(crate) fn tell_nodes(&mut self, server: usize, applied: &[AppliedEntry], reset: bool) {
        let running = self.running(server).expect("it is running");
        if running.streams.is_empty() {
            return;
        }
        if reset {
            for stream in running.streams.clone() {
                if let Some(session) = stream.session {
                    self.send_standing(server, stream.node, stream.life, stream.id, session);
                }
            }
            return;
        }
        for entry in applied {
            for event in &entry.events {
                let CoordEvent::Directive { session, directive } = event else {
                    continue;
                };
                let running = self.running(server).expect("it is running");
                let stream = running
                    .streams
                    .iter()
                    .find(|stream| stream.session == Some(*session));
                let Some((node, life, id)) =
                    stream.map(|stream| (stream.node, stream.life, stream.id))
                else {
                    continue;
                };
                let message = Down::Directive {
                    session: *session,
                    directive: directive.clone(),
                };
                self.send_down(server, node, life, id, message);
            }
        }
    }

    /// An answer of the replica goes to whom it is for.
    pub(crate) fn answer(&mut self, server: usize, call: CallId, mut response: Response) {
        let now = self.now;
        self.trace.note(now, 5, [server as u64, call.0, 0], || {
            format!("s{} answers {call:?}: {response:?}", server + 1)
        });
        let running = self.running(server).expect("it is running");
        let applied = running.replica.applied();
        let Some(origin) = running.origins.remove(&call) else {
            return;
        };
        if self.is_planted(Plant::UnknownAsApplied) && response == Response::Unknown {
            let outcome = Ok(quorate_coord::Reply::Done {
                revision: quorate_types::Revision(0),
            });
            response = Response::Applied {
                outcome,
                index: applied.next(),
            };
        }
        match origin {
            Origin::Nobody => {}
            Origin::KeepAlive { node, life, stream } => {
                let message = match response {
                    Response::KeptAlive {
                        seq,
                        ttl_ms,
                        directive_seq,
                        ..
                    } => {
                        let directive_seq = if self.is_planted(Plant::NoDirectiveCounter) {
                            DirectiveSeq::ZERO
                        } else {
                            directive_seq
                        };
                        self.stats.keep_alives += 1;
                        Down::KeptAlive {
                            seq,
                            ttl: Duration::from_millis(ttl_ms),
                            directive_seq,
                        }
                    }
                    Response::SessionGone { session, .. } => Down::Gone { session },
                    // No leader: the node asks again by itself.
                    _ => return,
                };
                self.send_down(server, node, life, stream, message);
            }
            Origin::Ask {
                node,
                life,
                stream,
                tag,
            } => {
                self.send_down(server, node, life, stream, Down::Answer { tag, response });
            }
            Origin::Caller {
                caller,
                operation,
                floor,
            } => {
                if let Response::ReadAt { index } = response {
                    let verdict = self.checkers.reads.on_answer(server, floor, index, applied);
                    self.judge(verdict);
                    self.read_key(server, caller, operation);
                }
                self.answer_caller(server, caller, operation, response);
            }
        }
    }

    fn answer_caller(&mut self, server: usize, caller: usize, operation: u64, response: Response) {
        if self.network.loses() {
            return;
        }
        let at = self.now + self.network.delay();
        self.at(
            at,
            Event::Answer {
                caller,
                operation,
                server,
                response: Box::new(response),
            },
        );
    }
}
