//! Handing calls to the step thread.

use std::sync::Arc;

use quorate_replica::{Refusal, Request, Response, Status};
use tokio::sync::oneshot;

use crate::inbox::{Call, Inbox, Responder};
use crate::metrics::Metrics;

/// When a refused caller should try again.
const RETRY_AFTER_MS: u64 = 100;

/// The way to the step thread.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Calls {
    /// Hands a call over; refuses it as overload where too much waits.
    pub(crate) fn submit(&self, request: Request, responder: Responder) {
        if let Err(refused) = self.inbox.push_call(Call { request, responder }) {
            self.metrics.refused_overloaded.increment(1);
            (refused.responder)(Response::Refused(Refusal::Overloaded {
                retry_after_ms: RETRY_AFTER_MS,
            }));
        }
    }

    /// Hands a call over and waits for its answer. A server that stops meanwhile leaves the outcome unknown.
    pub(crate) async fn call(&self, request: Request) -> Response {
        let (sender, receiver) = oneshot::channel();
        self.submit(
            request,
            Box::new(move |response| drop(sender.send(response))),
        );
        receiver.await.unwrap_or(Response::Unknown)
    }

    /// The replica's own view.
    pub(crate) async fn status(&self) -> Option<Status> {
        let (sender, receiver) = oneshot::channel();
        self.inbox.push_status(sender);
        receiver.await.ok()
    }
}
