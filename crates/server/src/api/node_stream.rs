//! One session's stream: keep-alives and reports up, directives and answers down.
//!
//! Owns: that a node sees its directives in order and without a gap, or the full picture again. Deliberately absent: belief (the SDK's), and
//! keeping a session alive on the node's behalf, which a server never does (protocol, section 2).

use std::sync::Arc;
use std::time::Duration;

use quorate_coord::{CONTRACT_VERSIONS, Command, Reply, RequestKey, SessionKey};
use quorate_replica::{Request, Response};
use quorate_types::{ContractVersion, DirectiveSeq, RequestId, Revision};
use quorate_wire::api::{ApiError, ApiErrorKind, ApiStream, Caller, NodeDown, NodeUp};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::{ApiState, REACH_TIMEOUT, convert, refusal};

/// Messages that wait for a slow node; then its stream falls behind in the ring, which is bounded, too.
const QUEUE_ITEMS: usize = 256;
/// A stream that says nothing first is closed.
const FIRST_MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Keep-alives of one stream that may wait for their answers; more are dropped, and count for nothing.
const KEEP_ALIVES_MAX: usize = 64;
/// Requests of one stream that may wait; a node that follows the rules has one.
const REQUESTS_MAX: usize = 16;

type Down = mpsc::Sender<Result<NodeDown, ApiError>>;

/// The stream ends: the node is gone, or was told why.
struct End;

/// Starts the stream.
pub(super) fn start(
    api: Arc<ApiState>,
    caller: Caller,
    up: ApiStream<NodeUp>,
) -> ApiStream<NodeDown> {
    let (down, receiver) = mpsc::channel(QUEUE_ITEMS);
    tokio::spawn(async move {
        api.metrics.node_streams.increment(1.0);
        tokio::select! {
            End = run(&api, caller, up, &down) => {}
            () = down.closed() => {}
        }
        api.metrics.node_streams.decrement(1.0);
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn send(down: &Down, message: NodeDown) -> Result<(), End> {
    down.send(Ok(message)).await.map_err(|_| End)
}

async fn run(api: &ApiState, caller: Caller, mut up: ApiStream<NodeUp>, down: &Down) -> End {
    let first = match tokio::time::timeout(FIRST_MESSAGE_TIMEOUT, up.next()).await {
        Ok(Some(Ok(first))) => first,
        Ok(Some(Err(error))) => return refuse(down, error).await,
        Ok(None) => return End,
        Err(_) => {
            return refuse(
                down,
                ApiError::invalid("no `Open` or `Resume` came in time"),
            )
            .await;
        }
    };
    let opened = match first {
        NodeUp::Open {
            request_id,
            ttl_ms,
            node,
            contract_min,
            contract_max,
        } => match common_contract(contract_min, contract_max) {
            Ok(contract) => {
                let node = node.map(|spec| convert::node_in(spec, contract_min, contract_max));
                open(
                    api,
                    &caller,
                    request_id,
                    contract,
                    Command::OpenSession { ttl_ms, node },
                )
                .await
            }
            Err(error) => Err(error),
        },
        NodeUp::Resume {
            session,
            processed: _,
            contract_min,
            contract_max,
        } => match common_contract(contract_min, contract_max) {
            Ok(contract) => resume(api, &caller, convert::session_key_in(session))
                .await
                .map(|found| found.map(|key| (key, contract))),
            Err(error) => Err(error),
        },
        _ => Err(ApiError::invalid(
            "the first message of a stream is `Open` or `Resume`",
        )),
    };
    match opened {
        Ok(Some((session, contract))) => {
            let mut stream = NodeStream::new(api, &caller, down, session, contract);
            let Err(End) = stream.serve(up).await;
            End
        }
        Ok(None) => {
            let _ = send(down, NodeDown::SessionGone).await; // the stream ends either way
            End
        }
        // An unknown outcome is no refusal: the stream breaks, and the node opens again with the same id.
        Err(error) if error.kind.may_be_applied() => {
            let _ = down.send(Err(error)).await;
            End
        }
        Err(error) => refuse(down, error).await,
    }
}

async fn refuse(down: &Down, error: ApiError) -> End {
    let _ = send(
        down,
        NodeDown::Refused {
            request_seq: None,
            error,
        },
    )
    .await; // the stream ends either way
    End
}

/// The highest contract version that both sides speak.
fn common_contract(
    min: ContractVersion,
    max: ContractVersion,
) -> Result<ContractVersion, ApiError> {
    let (ours_min, ours_max) = (*CONTRACT_VERSIONS.start(), *CONTRACT_VERSIONS.end());
    let highest = max.0.min(ours_max);
    if min <= max && highest >= min.0.max(ours_min) {
        return Ok(ContractVersion(highest));
    }
    let message = format!(
        "the node speaks contract versions {min} to {max}, this cluster {ours_min} to {ours_max}; upgrade the older side"
    );
    Err(ApiError::new(ApiErrorKind::NewerContract, message))
}

type Opened = Option<(SessionKey, ContractVersion)>;

async fn open(
    api: &ApiState,
    caller: &Caller,
    request_id: RequestId,
    contract: ContractVersion,
    command: Command,
) -> Result<Opened, ApiError> {
    let (outcome, index) = api
        .propose(caller, RequestKey::Caller(request_id), contract, command)
        .await?;
    match outcome {
        Ok(Reply::SessionOpened { session, .. }) => {
            // The stream starts from a version that knows the session. It is open whatever happens here, so a laggard's answer is
            // "unknown": the node opens again elsewhere with the same id.
            let reached = api.publisher.reached(index, Revision::ZERO);
            match tokio::time::timeout(REACH_TIMEOUT, reached).await {
                Ok(_) => Ok(Some((session, contract))),
                Err(_) => Err(ApiError::unknown_outcome(
                    "this server did not catch up with the opened session in time",
                )),
            }
        }
        Ok(reply) => Err(super::unexpected(&reply)),
        Err(rejection) => Err(refusal::of_rejection(&rejection)),
    }
}

/// Finds a session to go on with: here, or after catching up with everything committed. `None`: it is gone.
async fn resume(
    api: &ApiState,
    caller: &Caller,
    session: SessionKey,
) -> Result<Option<SessionKey>, ApiError> {
    let mut version = api.publisher.version();
    if version
        .state
        .session(session.id)
        .is_none_or(|found| found.key != session)
    {
        let index = api.read_index().await?;
        let reached = api.publisher.reached(index, Revision::ZERO);
        let late = |_| {
            ApiError::new(ApiErrorKind::Behind, "this server did not catch up in time")
                .retry_after_ms(100)
        };
        version = tokio::time::timeout(REACH_TIMEOUT, reached)
            .await
            .map_err(late)?;
    }
    match version.state.session(session.id) {
        Some(found) if found.key == session && found.principal == caller.principal => {
            Ok(Some(session))
        }
        Some(found) if found.key == session => Err(ApiError::new(
            ApiErrorKind::PermissionDenied,
            format!(
                "session {} was opened by {:?}, not by {:?}",
                session.id, found.principal, caller.principal
            ),
        )),
        _ => Ok(None),
    }
}

/// What came back from the step thread.
enum Answer {
    KeepAlive(Response),
    Request {
        seq: u64,
        closes: bool,
        response: Response,
    },
}

/// An open stream.
///
/// # Invariants
/// - Every directive up to `told` was sent, or is contained in a `Standing` that was.
struct NodeStream<'a> {
    api: &'a ApiState,
    caller: &'a Caller,
    down: &'a Down,
    session: SessionKey,
    contract: ContractVersion,
    told: DirectiveSeq,
    answers: mpsc::UnboundedSender<Answer>,
    answered: mpsc::UnboundedReceiver<Answer>,
    keep_alives: usize,
    requests: usize,
}

impl<'a> NodeStream<'a> {
    fn new(
        api: &'a ApiState,
        caller: &'a Caller,
        down: &'a Down,
        session: SessionKey,
        contract: ContractVersion,
    ) -> Self {
        // Bounded by what may be outstanding: `KEEP_ALIVES_MAX + REQUESTS_MAX`.
        let (answers, answered) = mpsc::unbounded_channel();
        let told = DirectiveSeq::ZERO;
        Self {
            api,
            caller,
            down,
            session,
            contract,
            told,
            answers,
            answered,
            keep_alives: 0,
            requests: 0,
        }
    }

    async fn serve(&mut self, mut up: ApiStream<NodeUp>) -> Result<std::convert::Infallible, End> {
        let mut changes = self.api.publisher.changes();
        let mut is_first = true;
        loop {
            let (version, mut place) = self.api.publisher.subscribe();
            self.tell_standing(&version.state, is_first).await?;
            drop(version);
            is_first = false;
            loop {
                tokio::select! {
                    // Answers first: a keep-alive's answer must not wait behind a flood of directives.
                    biased;
                    answer = self.answered.recv() => {
                        self.on_answer(answer.expect("self holds a sender")).await?;
                    }
                    message = up.next() => match message {
                        Some(Ok(message)) => self.on_up(message).await?,
                        Some(Err(error)) => return Err(refuse(self.down, error).await),
                        None => return Err(End),
                    },
                    next = self.api.publisher.next(&mut place, &mut changes) => {
                        let Some(batch) = next else { break };
                        if !self.tell_batch(&batch).await? {
                            break;
                        }
                    }
                }
            }
            self.api.metrics.watch_resyncs.increment(1);
        }
    }

    async fn gone(&self) -> End {
        let _ = send(self.down, NodeDown::SessionGone).await; // the stream ends either way
        End
    }

    async fn tell_standing(
        &mut self,
        state: &quorate_coord::State,
        is_first: bool,
    ) -> Result<(), End> {
        let session = state
            .session(self.session.id)
            .filter(|found| found.key == self.session);
        let (Some(session), Some(standing)) = (session, state.standing(self.session.id)) else {
            return Err(self.gone().await);
        };
        if is_first {
            let opened = NodeDown::Opened {
                session: convert::session_key(self.session),
                ttl_ms: session.ttl_ms,
                ttl_ms_min_safe: self.api.ttl_ms_min_safe,
                contract: self.contract,
                cluster: self.api.cluster,
            };
            send(self.down, opened).await?;
        }
        let (directive_seq, tenures) = convert::standing(standing);
        self.told = directive_seq;
        send(
            self.down,
            NodeDown::Standing {
                directive_seq,
                tenures,
            },
        )
        .await
    }

    /// Passes a batch's directives on; false: one is missing, start over.
    async fn tell_batch(&mut self, batch: &crate::publish::Batch) -> Result<bool, End> {
        for directive in batch.directives.get(&self.session).into_iter().flatten() {
            if directive.seq <= self.told {
                continue;
            }
            if directive.seq != self.told.next() {
                return Ok(false);
            }
            self.told = directive.seq;
            send(
                self.down,
                NodeDown::Directive(convert::directive(directive.clone())),
            )
            .await?;
        }
        if batch.ended.contains_key(&self.session) {
            return Err(self.gone().await);
        }
        Ok(true)
    }

    async fn on_up(&mut self, message: NodeUp) -> Result<(), End> {
        let session = self.session;
        match message {
            NodeUp::Open { .. } | NodeUp::Resume { .. } => {
                let error = ApiError::invalid("`Open` and `Resume` come first, and once");
                Err(refuse(self.down, error).await)
            }
            NodeUp::KeepAlive {
                seq,
                healthy,
                clock_ms: _,
            } => {
                // A process that finds itself unhealthy is not kept alive (tikv/pd#11106 is what happens otherwise).
                if healthy {
                    self.keep_alive(seq);
                }
                Ok(())
            }
            NodeUp::Contend {
                request_seq,
                entries,
            } => {
                let groups = entries
                    .into_iter()
                    .map(|(group, spec)| (group, convert::contender_in(spec)))
                    .collect();
                self.request(request_seq, Command::Contend { session, groups })
                    .await
            }
            NodeUp::Withdraw {
                request_seq,
                groups,
            } => {
                self.request(request_seq, Command::Withdraw { session, groups })
                    .await
            }
            NodeUp::Report {
                request_seq,
                reports,
            } => {
                let reports = reports.into_iter();
                let reports = reports
                    .map(|(id, what)| (convert::tenure_key_in(id), convert::report_in(what)))
                    .collect();
                self.request(request_seq, Command::Report { session, reports })
                    .await
            }
            NodeUp::ReportFaulty {
                request_seq,
                tenure,
                reason,
            } => {
                let tenure = convert::tenure_key_in(tenure);
                let command = Command::ReportFaulty {
                    session,
                    tenure,
                    reason,
                };
                self.request(request_seq, command).await
            }
            NodeUp::WithdrawReport {
                request_seq,
                tenure,
            } => {
                let tenure = convert::tenure_key_in(tenure);
                self.request(request_seq, Command::WithdrawReport { session, tenure })
                    .await
            }
            NodeUp::Close { request_seq } => {
                self.request(request_seq, Command::CloseSession { session })
                    .await
            }
        }
    }

    fn keep_alive(&mut self, seq: u64) {
        if self.keep_alives == KEEP_ALIVES_MAX {
            return;
        }
        self.keep_alives += 1;
        let answers = self.answers.clone();
        let request = Request::KeepAlive {
            session: self.session,
            seq,
        };
        // The stream may have ended meanwhile.
        self.api.calls.submit(
            request,
            Box::new(move |response| drop(answers.send(Answer::KeepAlive(response)))),
        );
    }

    async fn request(&mut self, seq: u64, command: Command) -> Result<(), End> {
        if self.requests == REQUESTS_MAX {
            let error = ApiError::new(
                ApiErrorKind::Overloaded,
                format!("{REQUESTS_MAX} requests of this session are waiting"),
            );
            let error = error.retry_after_ms(100);
            return send(
                self.down,
                NodeDown::Refused {
                    request_seq: Some(seq),
                    error,
                },
            )
            .await;
        }
        self.requests += 1;
        let closes = matches!(command, Command::CloseSession { .. });
        let key = RequestKey::Session {
            session: self.session,
            seq,
        };
        let request = self.api.proposal(
            self.caller.principal.clone(),
            self.caller.trace,
            key,
            self.contract,
            command,
        );
        let answers = self.answers.clone();
        let responder = move |response| {
            drop(answers.send(Answer::Request {
                seq,
                closes,
                response,
            }));
        };
        self.api.calls.submit(request, Box::new(responder));
        Ok(())
    }

    async fn on_answer(&mut self, answer: Answer) -> Result<(), End> {
        match answer {
            Answer::KeepAlive(response) => {
                self.keep_alives -= 1;
                match response {
                    Response::KeptAlive {
                        seq,
                        ttl_ms,
                        directive_seq,
                        ..
                    } => {
                        send(
                            self.down,
                            NodeDown::KeptAlive {
                                seq,
                                ttl_ms,
                                directive_seq,
                            },
                        )
                        .await
                    }
                    Response::SessionGone { .. } => Err(self.gone().await),
                    // Not answered in time: it counts for nothing, and the next one is on its way.
                    _ => Ok(()),
                }
            }
            Answer::Request {
                seq,
                closes,
                response,
            } => {
                self.requests -= 1;
                let message = match response {
                    Response::Applied { outcome, .. } => {
                        if closes && (outcome.is_ok() || is_unknown_session(&outcome)) {
                            return Err(self.gone().await);
                        }
                        NodeDown::RequestDone {
                            request_seq: seq,
                            outcome: convert::request_done(outcome),
                        }
                    }
                    Response::Refused(why) => NodeDown::Refused {
                        request_seq: Some(seq),
                        error: refusal::of(why),
                    },
                    Response::Unknown => NodeDown::RequestUnknown { request_seq: seq },
                    other => unreachable!("a proposal was answered with {other:?}"),
                };
                send(self.down, message).await
            }
        }
    }
}

fn is_unknown_session(outcome: &quorate_coord::Outcome) -> bool {
    matches!(
        outcome,
        Err(quorate_coord::Rejection::UnknownSession { .. })
    )
}
