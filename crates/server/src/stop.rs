//! Why a server stops, and how everyone hears of it.

use std::sync::Arc;

use quorate_storage::StorageError;
use tokio::sync::watch;

/// Why a running server stopped. All but `Asked` end the process with a failure.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StopReason {
    /// [`RunningServer::shutdown`](crate::RunningServer::shutdown) was called.
    #[error("the server was asked to stop")]
    Asked,
    /// The disk failed, is full, or holds what it should not. What was acknowledged is safe; start again once the cause is gone.
    #[error("the data directory failed")]
    Storage(#[source] Arc<StorageError>),
    /// The protocol found that this member must not go on.
    #[error("this member must not go on")]
    Replica(#[source] quorate_consensus::FatalError),
    /// A thread of the server panicked: a bug of ours. Please report it with the log.
    #[error("the {thread} thread panicked; its log line before this one says where")]
    Panicked {
        /// Which thread.
        thread: &'static str,
    },
}

impl StopReason {
    /// What the operator can do about it, on one line.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Storage(error) => error.hint(),
            Self::Replica(quorate_consensus::FatalError::RolledBack { .. }) => Some(
                "this disk was restored or rolled back: remove the member and add a new one with an empty data directory",
            ),
            Self::Replica(quorate_consensus::FatalError::CommittedConflict { .. }) => Some(
                "stop all members, keep their data directories, and compare them before any of them is started",
            ),
            Self::Asked | Self::Panicked { .. } => None,
        }
    }

    /// Whether the server stopped because it was asked to.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        matches!(self, Self::Asked)
    }
}

/// The one place where a reason to stop is left; the first one counts.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    reason: watch::Sender<Option<StopReason>>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Self {
            reason: watch::Sender::new(None),
        }
    }

    /// Leaves a reason; later ones are ignored.
    pub(crate) fn leave(&self, reason: StopReason) {
        self.reason.send_if_modified(|kept| {
            if kept.is_some() {
                return false;
            }
            if reason.is_asked() {
                tracing::info!("stopping: asked to");
            } else {
                tracing::error!(reason = %ErrorChain(&reason), hint = reason.hint(), "stopping");
            }
            *kept = Some(reason);
            true
        });
    }

    pub(crate) fn reason(&self) -> Option<StopReason> {
        self.reason.borrow().clone()
    }

    /// Waits for a reason.
    pub(crate) async fn wait(&self) -> StopReason {
        let mut receiver = self.reason.subscribe();
        let found = receiver
            .wait_for(Option::is_some)
            .await
            .expect("self holds the sender");
        found.clone().expect("waited for some")
    }

    /// Reports a panic of the thread that holds the guard.
    pub(crate) fn guard(&self, thread: &'static str) -> PanicGuard {
        PanicGuard {
            stop: self.clone(),
            thread,
        }
    }
}

/// Leaves [`StopReason::Panicked`] when dropped by a panic.
pub(crate) struct PanicGuard {
    stop: Stop,
    thread: &'static str,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.stop.leave(StopReason::Panicked {
                thread: self.thread,
            });
        }
    }
}

/// Shows an error with its causes on one line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
