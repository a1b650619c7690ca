//! A handle on one tenure: whether it may be acted on, and what its contender has to say.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use quorate_types::{FencingToken, GroupName, Time};
use quorate_wire::api::{ApiErrorKind, Position, Report, TenureId};
use tokio::sync::oneshot;

use crate::clock;
use crate::error::{Error, ErrorKind};
use crate::session::Shared;

/// What `check` reads of one tenure.
#[derive(Debug)]
pub(crate) struct TenureCell {
    pub(crate) tenure: TenureId,
    pub(crate) token: AtomicU64,
    /// The tenure's last directive lets this session lead, and nothing ended its belief. Once it went back to false it
    /// stays so.
    pub(crate) leads: AtomicBool,
}

/// One tenure of one group, seen by a session that takes part in it. Cheap to clone.
///
/// It comes with the events of the tenure, from the poll on; [`check`](Self::check) is true only while this session
/// leads and can know it.
#[derive(Clone)]
pub struct Leadership {
    cell: Arc<TenureCell>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Leadership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leadership")
            .field("tenure", &self.cell.tenure)
            .field("leads", &self.check())
            .finish()
    }
}

impl Leadership {
    pub(crate) fn new(cell: Arc<TenureCell>, shared: Arc<Shared>) -> Self {
        Self { cell, shared }
    }

    /// Whether this process may act as the leader, at the instant at which this reads the clock. Takes no lock.
    ///
    /// What happens after that instant, a pause say, it cannot know: a resource that matters checks
    /// [`fencing_token`](Self::fencing_token) too (see [`Fence`](crate::Fence)). False in a forked child.
    ///
    /// ```no_run
    /// # fn write(leadership: &quorate_client::Leadership) {
    /// if leadership.check() {
    ///     // act, sending leadership.fencing_token() along
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn check(&self) -> bool {
        // The order makes it true *at* the reading: an activation after it, or a release before it, is not missed.
        if !self.cell.leads.load(Ordering::SeqCst) {
            return false;
        }
        let until = self.shared.valid_until.load(Ordering::SeqCst);
        let now = clock::now();
        now.0 < until
            && self.cell.leads.load(Ordering::SeqCst)
            && std::process::id() == self.shared.pid
    }

    /// The fencing token, if this process may act as the leader.
    ///
    /// # Errors
    /// `NotLeader`: stop acting.
    pub fn guard(&self) -> Result<FencingToken, Error> {
        if self.check() {
            Ok(self.fencing_token())
        } else {
            Err(Error::not_leader(&self.cell.tenure))
        }
    }

    /// Until when this tenure may be acted on, on [`boot_time`](crate::boot_time), unless something ends it earlier;
    /// moves on with each keep-alive. None where this session does not lead.
    #[must_use]
    pub fn valid_until(&self) -> Option<Time> {
        let leads = self.cell.leads.load(Ordering::SeqCst) && std::process::id() == self.shared.pid;
        let until = self.shared.valid_until.load(Ordering::SeqCst);
        (leads && until > 0).then_some(Time(until))
    }

    /// The token to send with every guarded write: strictly higher than any of the group's earlier tenures.
    #[must_use]
    pub fn fencing_token(&self) -> FencingToken {
        FencingToken(self.cell.token.load(Ordering::SeqCst))
    }

    /// Which tenure.
    #[must_use]
    pub fn tenure(&self) -> &TenureId {
        &self.cell.tenure
    }

    /// Of which group.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.cell.tenure.group
    }

    /// Answers a poll: older tokens are fenced out here, and the data has got this far.
    pub fn polled(&self, position: Position) -> Reported {
        self.report(Report::Polled { position })
    }

    /// Elected or chosen as successor, and caught up to this position.
    pub fn ready(&self, position: Position) -> Reported {
        self.report(Report::Ready { position })
    }

    /// Elected, but cannot prepare: the next contender is elected.
    pub fn failed(&self) -> Reported {
        self.report(Report::Failed)
    }

    /// Refuses a handover and goes on leading.
    pub fn decline(&self) -> Reported {
        self.report(Report::Declined)
    }

    /// Lets go. Belief ends before this returns, for good, whether or not the result is awaited: `check` is false from
    /// here on, also where a handover is called off meanwhile. `position`: what the successor must reach.
    pub fn release(&self, position: Option<Position>) -> Reported {
        self.shared.begin_release(&self.cell.tenure);
        self.report(Report::Released { position })
    }

    fn report(&self, report: Report) -> Reported {
        let released = matches!(report, Report::Released { .. });
        let decided = self.shared.report(self.cell.tenure.clone(), report);
        Reported {
            tenure: self.cell.tenure.clone(),
            released,
            decided,
        }
    }
}

/// A report on its way. It is sent whether or not this is awaited, over reconnects, until it is decided or the session
/// is over; awaiting tells how it ended.
///
/// # Errors
/// `NotLeader`: the tenure is not current any more. `SessionLost`: the session is over. (Of a release neither is an
/// error: the tenure is over.)
#[derive(Debug)]
#[must_use = "await it to know how it ended, or drop it explicitly"]
pub struct Reported {
    tenure: TenureId,
    released: bool,
    decided: oneshot::Receiver<Result<(), Error>>,
}

impl Future for Reported {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let decided = std::task::ready!(Pin::new(&mut self.decided).poll(context));
        let over = || {
            let what = format!(
                "report about tenure {} of group {:?}",
                self.tenure.number, self.tenure.group
            );
            Error::new(
                ErrorKind::SessionLost,
                format!("{what}: the session is over"),
            )
        };
        let result = decided.unwrap_or_else(|_| Err(over()));
        Poll::Ready(match result {
            // The aim of a release is that the tenure is over.
            Err(error)
                if self.released
                    && (error.api_kind() == Some(ApiErrorKind::StaleTenure)
                        || *error.kind() == ErrorKind::SessionLost) =>
            {
                Ok(())
            }
            result => result,
        })
    }
}
