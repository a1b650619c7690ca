//! What waits for the step thread, by class, so that calls and appends never delay what is vital.
//!
//! Owns: the bounds. Vital inputs of this process (writes done, ticks) are never refused; what peers send is bounded by
//! permits that their connections wait for; calls beyond their bound are refused at once as overload.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use quorate_replica::{Input, Lane, PeerMessage, Request, Response, Status};
use quorate_types::ReplicaId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Most calls waiting for the step thread; keep-alives have as much again.
const CALLS_MAX: usize = 16_384;
/// Most bytes of commands among them.
const CALLS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What peers may have waiting in each class, in units of [`PERMIT_BYTES`].
const PEER_PERMITS: usize = 16_384;
/// One permit covers so many bytes of a message.
const PERMIT_BYTES: usize = 4_096;

/// Takes the answer of one call; called once, on the step thread, and so must not block.
pub(crate) type Responder = Box<dyn FnOnce(Response) + Send>;

/// A call that has no number yet.
pub(crate) struct Call {
    pub(crate) request: Request,
    pub(crate) responder: Responder,
}

/// Roughly the encoded size of what a call asks.
pub(crate) fn size_bytes(request: &Request) -> usize {
    match request {
        Request::Propose(proposal) => {
            proposal.command.size_bytes() + proposal.principal.as_str().len() + 128
        }
        Request::KeepAlive { .. }
        | Request::Read
        | Request::TransferLeader { .. }
        | Request::SessionAge { .. } => 32,
    }
}

/// One input and the permits that it holds until it is taken.
pub(crate) struct Waiting {
    pub(crate) input: Input,
    _permits: Option<OwnedSemaphorePermit>,
}

/// Everything taken in one round.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) vital: VecDeque<Waiting>,
    pub(crate) log: VecDeque<Waiting>,
    pub(crate) calls: Vec<Call>,
    pub(crate) status: Vec<oneshot::Sender<Status>>,
    pub(crate) closed: bool,
    /// Appends that still wait.
    pub(crate) log_left: usize,
}

#[derive(Default)]
struct Queues {
    vital: VecDeque<Waiting>,
    log: VecDeque<Waiting>,
    calls: Vec<Call>,
    keep_alives: usize,
    call_bytes: usize,
    status: Vec<oneshot::Sender<Status>>,
    closed: bool,
}

/// The step thread's one place to wait.
///
/// # Invariants
/// - At most `CALLS_MAX` calls other than keep-alives wait, and as many keep-alives.
pub(crate) struct Inbox {
    queues: Mutex<Queues>,
    arrived: Condvar,
    vital_permits: Arc<Semaphore>,
    log_permits: Arc<Semaphore>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            queues: Mutex::default(),
            arrived: Condvar::new(),
            vital_permits: Arc::new(Semaphore::new(PEER_PERMITS)),
            log_permits: Arc::new(Semaphore::new(PEER_PERMITS)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("no holder of this lock panics")
    }

    /// An input of this process: never refused.
    pub(crate) fn push(&self, input: Input) {
        self.lock().vital.push_back(Waiting {
            input,
            _permits: None,
        });
        self.arrived.notify_one();
    }

    /// A message of a peer; waits while its class is full, and so stops reading from that connection.
    pub(crate) async fn push_peer(
        &self,
        from: ReplicaId,
        message: PeerMessage,
        frame_bytes: usize,
    ) {
        let lane = message.lane();
        let permits = match lane {
            Lane::Vital => &self.vital_permits,
            Lane::Log | Lane::Bulk => &self.log_permits,
        };
        let wanted = u32::try_from((frame_bytes / PERMIT_BYTES + 1).min(PEER_PERMITS))
            .expect("bounded above");
        let permit = Arc::clone(permits)
            .acquire_many_owned(wanted)
            .await
            .expect("the semaphore is never closed");
        let waiting = Waiting {
            input: Input::Peer { from, message },
            _permits: Some(permit),
        };
        {
            let mut queues = self.lock();
            match lane {
                Lane::Vital => queues.vital.push_back(waiting),
                Lane::Log | Lane::Bulk => queues.log.push_back(waiting),
            }
        }
        self.arrived.notify_one();
    }

    /// A call of a client. Gives it back where too many wait.
    pub(crate) fn push_call(&self, call: Call) -> Result<(), Call> {
        let mut queues = self.lock();
        let is_keep_alive = matches!(call.request, Request::KeepAlive { .. });
        let others = queues.calls.len() - queues.keep_alives;
        let bytes = size_bytes(&call.request);
        let room = if is_keep_alive {
            queues.keep_alives < CALLS_MAX
        } else {
            others < CALLS_MAX && queues.call_bytes + bytes <= CALLS_BYTES_MAX
        };
        if !room || queues.closed {
            return Err(call);
        }
        queues.keep_alives += usize::from(is_keep_alive);
        queues.call_bytes += bytes;
        queues.calls.push(call);
        drop(queues);
        self.arrived.notify_one();
        Ok(())
    }

    /// Asks for the replica's status.
    pub(crate) fn push_status(&self, answer: oneshot::Sender<Status>) {
        self.lock().status.push(answer);
        self.arrived.notify_one();
    }

    /// Ends the step thread.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_one();
    }

    /// Waits at most `timeout` for anything, then takes all that is vital, all calls, and up to `log_max` appends.
    pub(crate) fn take(&self, timeout: Duration, log_max: usize) -> Round {
        let queues = self.lock();
        let empty = |q: &mut Queues| {
            q.vital.is_empty()
                && q.log.is_empty()
                && q.calls.is_empty()
                && q.status.is_empty()
                && !q.closed
        };
        let (mut queues, _) = self
            .arrived
            .wait_timeout_while(queues, timeout, empty)
            .expect("no holder of this lock panics");
        let count = queues.log.len().min(log_max);
        let log: VecDeque<Waiting> = queues.log.drain(..count).collect();
        queues.keep_alives = 0;
        queues.call_bytes = 0;
        Round {
            vital: std::mem::take(&mut queues.vital),
            log,
            calls: std::mem::take(&mut queues.calls),
            status: std::mem::take(&mut queues.status),
            closed: queues.closed,
            log_left: queues.log.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(request: Request) -> Call {
        Call {
            request,
            responder: Box::new(|_| ()),
        }
    }

    #[test]
    fn a_full_queue_refuses_calls_and_still_takes_what_is_vital() {
        let inbox = Inbox::new();
        for _ in 0..CALLS_MAX {
            assert!(inbox.push_call(call(Request::Read)).is_ok());
        }
        assert!(inbox.push_call(call(Request::Read)).is_err());
        let session = quorate_coord::SessionKey {
            id: quorate_types::SessionId(1),
            created: quorate_types::Revision(1),
        };
        assert!(
            inbox
                .push_call(call(Request::KeepAlive { session, seq: 1 }))
                .is_ok()
        );
        inbox.push(Input::Tick);
        let round = inbox.take(Duration::ZERO, 1);
        assert_eq!((round.vital.len(), round.calls.len()), (1, CALLS_MAX + 1));
        assert!(inbox.push_call(call(Request::Read)).is_ok());
    }

    #[test]
    fn waiting_ends_at_the_timeout() {
        let inbox = Inbox::new();
        let round = inbox.take(Duration::from_millis(5), 1);
        assert!(round.vital.is_empty() && !round.closed);
        inbox.close();
        assert!(inbox.take(Duration::from_secs(60), 1).closed);
    }
}
