//! A whole replica among peers and callers that say anything: it never panics, its invariants hold after each step, and no call is
//! answered twice.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_codec::{decode_peer, encode_peer};
use quorate_consensus::{LogPosition, SnapshotMeta, WriteSeq};
use quorate_coord::{
    Command, ContenderSpec, Envelope, GroupSpec, NodeSpec, RequestKey, SessionKey, State,
};
use quorate_replica::{
    Boot, CallId, Config, Input as Happening, Output, PeerMessage, Proposal, Replica, Request,
    Response,
};
use quorate_types::{
    ClusterTime, ContractVersion, DriftBound, GroupName, NodeName, Principal, ReplicaId, RequestId,
    Revision, SessionId, Time, TraceId, WallTime,
};

use crate::consensus_step::{configuration, near_message, settings};
use crate::input::Input;

const STEPS_MAX: usize = 160;

/// Feeds the replica.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let config = Config {
        consensus: settings(),
        drift: DriftBound::default(),
        incarnation: 7,
        snapshot_entries: 6,
        snapshot_retain: input.below(4),
        calls_max: 8,
        call_timeout: Duration::from_secs(2),
        stall_min: Duration::from_secs(1),
    };
    let boot = Boot {
        consensus: quorate_consensus::Boot {
            hard_state: quorate_consensus::HardState::default(),
            snapshot: SnapshotMeta {
                last: LogPosition::default(),
                configuration: configuration(input.flag()),
            },
            entries: Vec::new(),
        },
        state: State::new(),
    };
    let now = Time(1_000_000_000);
    let mut world = World {
        replica: Replica::new(config, boot, now),
        now,
        ordered: WriteSeq(0),
        incoming: None,
        saving: Vec::new(),
        calls: 0,
        answered: BTreeSet::new(),
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() || !world.step(&mut input) {
            break;
        }
    }
}

struct World {
    replica: Replica,
    now: Time,
    /// The last write ordered.
    ordered: WriteSeq,
    /// The piece of a snapshot ordered last, and whether it is the last one of the file.
    incoming: Option<(SnapshotMeta, u64, bool)>,
    /// Snapshots being saved.
    saving: Vec<SnapshotMeta>,
    calls: u64,
    answered: BTreeSet<CallId>,
}

impl World {
    /// False: the replica has stopped, or the input makes no sense any more.
    fn step(&mut self, input: &mut Input<'_>) -> bool {
        let Some(happening) = self.happening(input) else {
            return false;
        };
        let mut out = Vec::new();
        self.replica.step(self.now, happening, &mut out);
        self.replica.check_invariants();
        let _ = (self.replica.status(), self.replica.deadline());
        self.carry_out(out)
    }

    fn happening(&mut self, input: &mut Input<'_>) -> Option<Happening> {
        Some(match input.below(20) {
            0 => {
                let due = self.replica.deadline();
                self.now = self.now.max(due.min(self.now + Duration::from_secs(2)));
                Happening::Tick
            }
            1 => {
                self.now = self.now + Duration::from_millis(8 * input.below(256));
                Happening::Tick
            }
            2 => Happening::PeerConnected {
                peer: ReplicaId(input.below(6)),
            },
            3..=5 => Happening::Persisted {
                through: self.ordered,
            },
            6..=8 => Happening::Calls(
                (0..=input.below(2))
                    .map(|_| {
                        self.calls += 1;
                        (CallId(self.calls), self.request(input))
                    })
                    .collect(),
            ),
            9 => match self.incoming.take() {
                Some((meta, _, true)) if input.flag() => {
                    let mut state = State::new();
                    if meta.last.index.0 > 0 {
                        state.note_applied(meta.last.index, meta.last.term);
                    }
                    Happening::SnapshotArrived {
                        meta,
                        state: Box::new(state),
                    }
                }
                Some((meta, next, false)) if input.flag() => {
                    Happening::SnapshotChunkWritten { meta, next }
                }
                Some((meta, ..)) => Happening::SnapshotBroken { meta },
                None => Happening::Tick,
            },
            10 => match self.saving.pop() {
                Some(meta) => Happening::SnapshotSaved { meta },
                None => Happening::Tick,
            },
            11 if input.below(16) == 1 => Happening::HandOver,
            _ => Happening::Peer {
                from: ReplicaId(input.below(6)),
                message: self.message(input)?,
            },
        })
    }

    fn message(&self, input: &mut Input<'_>) -> Option<PeerMessage> {
        let message = match input.below(12) {
            0 => return input.decode(),
            1 | 2 => PeerMessage::Forward {
                incarnation: input.below(3),
                calls: (0..input.below(3))
                    .map(|call| (CallId(call), self.request(input)))
                    .collect(),
            },
            3 => PeerMessage::Answers {
                incarnation: if input.below(8) == 1 { 8 } else { 7 },
                answers: (0..input.below(3))
                    .map(|_| {
                        let call = CallId(input.number(self.calls));
                        (call, self.response(input))
                    })
                    .collect(),
            },
            _ => PeerMessage::Consensus(near_message(self.replica.consensus(), input, |input| {
                Envelope {
                    principal: Principal::new("fuzz").expect("it is a name"),
                    request: key(input),
                    trace: TraceId(0),
                    wall: WallTime(0),
                    cluster_time: ClusterTime(input.number(1_000)),
                    contract: ContractVersion(1),
                    command: command(input),
                }
            })),
        };
        // Only what passes the codec comes from a peer.
        decode_peer(&encode_peer(&message)).ok()
    }

    fn request(&self, input: &mut Input<'_>) -> Request {
        match input.below(8) {
            0 => Request::Read,
            1 => Request::TransferLeader {
                to: input.flag().then(|| ReplicaId(input.below(6))),
            },
            2 | 3 => Request::KeepAlive {
                session: self.session(input),
                seq: input.number(1),
            },
            _ => Request::Propose(Box::new(Proposal {
                principal: Principal::new("fuzz").expect("it is a name"),
                request: key(input),
                trace: TraceId(0),
                wall: WallTime(0),
                contract: ContractVersion(1),
                command: command(input),
            })),
        }
    }

    fn response(&self, input: &mut Input<'_>) -> Response {
        let session = self.session(input);
        let seq = input.number(1);
        match input.below(6) {
            0 => Response::KeptAlive {
                session,
                seq,
                ttl_ms: input.number(1_000),
                directive_seq: quorate_types::DirectiveSeq(input.number(0)),
            },
            1 => Response::SessionGone { session, seq },
            2 => Response::ReadAt {
                index: quorate_types::LogIndex(input.number(self.replica.commit().0)),
            },
            3 => Response::Transferring,
            4 => input.decode().unwrap_or(Response::Unknown),
            _ => Response::Unknown,
        }
    }

    fn session(&self, input: &mut Input<'_>) -> SessionKey {
        let known = self.replica.state().sessions().next();
        match known {
            Some(session) if input.below(8) > 0 => session.key,
            _ => SessionKey {
                id: SessionId(input.number(1)),
                created: Revision(input.number(1)),
            },
        }
    }

    fn carry_out(&mut self, out: Vec<Output>) -> bool {
        for output in out {
            match output {
                Output::Persist(write) => {
                    assert!(write.seq > self.ordered, "writes are numbered in order");
                    self.ordered = write.seq;
                }
                Output::Answer { call, .. } => {
                    assert!(call.0 <= self.calls, "an answer to no call");
                    assert!(
                        self.answered.insert(call),
                        "call {call:?} is answered twice"
                    );
                }
                Output::Publish(published) => published.state.check_invariants(),
                Output::SaveSnapshot { meta, state } => {
                    assert_eq!(meta.last.index, state.applied().0, "it says what it holds");
                    self.saving.push(meta);
                }
                Output::WriteSnapshotChunk {
                    meta,
                    offset,
                    total,
                    data,
                    ..
                } => {
                    let next = offset + data.len() as u64;
                    assert!(next <= total, "a piece reaches beyond its file");
                    self.incoming = Some((meta, next, next == total));
                }
                Output::Fatal(_) => return false,
                _ => {}
            }
        }
        true
    }
}

fn key(input: &mut Input<'_>) -> RequestKey {
    match input.below(4) {
        0 => RequestKey::Caller(RequestId(u128::from(input.u8()))),
        1 => RequestKey::Session {
            session: SessionKey {
                id: SessionId(input.number(1)),
                created: Revision(input.number(1)),
            },
            seq: input.number(1),
        },
        _ => RequestKey::Internal,
    }
}

fn command(input: &mut Input<'_>) -> Command {
    let group = || GroupName::new("g").expect("it is a name");
    match input.below(8) {
        0 | 1 => Command::OpenSession {
            ttl_ms: 1_000,
            node: Some(NodeSpec {
                name: NodeName::new(&format!("n{}", input.below(3))).expect("it is a name"),
                labels: [].into(),
                weight: 1,
                max_tenures: 0,
                max_preparing: 0,
                contract_min: ContractVersion(1),
                contract_max: ContractVersion(1),
            }),
        },
        2 => Command::CreateGroups {
            groups: vec![(group(), GroupSpec::default())],
        },
        3 => Command::Contend {
            session: SessionKey {
                id: SessionId(1 + input.below(3)),
                created: Revision(1 + input.below(4)),
            },
            groups: vec![(group(), ContenderSpec::default())],
        },
        4 => Command::RevokeSession {
            session: SessionId(1 + input.below(3)),
        },
        _ => input.decode().unwrap_or(Command::Advance),
    }
}
