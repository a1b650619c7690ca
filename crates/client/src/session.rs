//! A session: one node's liveness, and what it stands for and holds.

mod driver;
mod event;
mod pace;
mod requests;
mod shared;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate_types::{ClusterId, GroupName, Time};
use quorate_wire::api::{
    ApiError, BATCH_MAX, ContenderSpec, NodeSpec, REASON_BYTES_MAX, SessionKey, TenureId,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::client::Client;
use crate::error::{Error, ErrorKind};

use driver::Driver;
pub use event::SessionEvent;
use requests::{Refused, Work};
pub(crate) use shared::Shared;

/// Most groups, and about how many bytes, in one request to stand; more go in several.
const CONTEND_MAX: usize = 1_000;
const CONTEND_BYTES_MAX: usize = 1024 * 1024;
const _: () = assert!(CONTEND_MAX <= BATCH_MAX);

/// How to open a session.
#[derive(Clone)]
pub struct SessionOptions {
    /// How long the session outlives its last keep-alive: the time after which a dead node's groups are led by others.
    /// Below what [`Session::ttl_min_safe`] says, a change of the backbone's leader may end it.
    pub ttl: Duration,
    /// The node it stands for; none: it does not contend.
    pub node: Option<NodeSpec>,
    /// Asked before each keep-alive; while it says no, none is sent, and the session ends after its TTL. It must not
    /// block: whatever holds it up holds the keep-alives up.
    pub health: Arc<dyn Fn() -> bool + Send + Sync>,
    /// How long opening may take. While a former session of the same node lives, opening waits for its end.
    pub open_timeout: Duration,
}

impl SessionOptions {
    /// A session for a node, with a TTL of five seconds, always healthy.
    #[must_use]
    pub fn for_node(node: NodeSpec) -> Self {
        Self {
            node: Some(node),
            ..Self::default()
        }
    }
}

impl Default for SessionOptions {
    /// A session without a node, with a TTL of five seconds.
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(5),
            node: None,
            health: Arc::new(|| true),
            open_timeout: Duration::from_secs(15),
        }
    }
}

/// What was agreed on opening.
#[derive(Clone, Copy, Debug)]
struct Opened {
    session: SessionKey,
    ttl: Duration,
    ttl_min_safe: Duration,
    cluster: ClusterId,
}

/// A session. Cheap to clone. When the last clone is dropped, belief ends and the session is closed in the background;
/// [`close`](Self::close) does so and waits.
#[derive(Clone, Debug)]
pub struct Session {
    opened: Opened,
    shared: Arc<Shared>,
    work: mpsc::UnboundedSender<Work>,
    close_timeout: Duration,
}

/// The events of one session, in order. They must be taken: a session whose events pile up counts as unhealthy.
#[derive(Debug)]
pub struct SessionEvents {
    events: mpsc::UnboundedReceiver<SessionEvent>,
    shared: Arc<Shared>,
}

impl SessionEvents {
    /// The next event; none after the session is over.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        let event = self.events.recv().await?;
        self.shared.backlog.fetch_sub(1, Ordering::Relaxed);
        Some(event)
    }
}

/// Groups that a session stands in.
#[derive(Clone, Debug)]
pub struct Contention {
    session: Session,
    groups: Vec<GroupName>,
    refused: Vec<(GroupName, ApiError)>,
}

impl Contention {
    /// The groups that it stands in.
    #[must_use]
    pub fn groups(&self) -> &[GroupName] {
        &self.groups
    }

    /// The groups that it could not stand in, each with the reason.
    #[must_use]
    pub fn refused(&self) -> &[(GroupName, ApiError)] {
        &self.refused
    }

    /// Stands no longer. Tenures that it holds there are handed over first, by the usual events.
    ///
    /// # Errors
    /// `SessionLost`: it is over anyway.
    pub async fn withdraw(self) -> Result<(), Error> {
        self.session.withdraw(self.groups).await
    }
}

impl Client {
    /// Opens a session and keeps it alive, over reconnects, until it is closed, dropped or lost.
    ///
    /// # Errors
    /// `Conflict`: another live process bears the node's name. `Invalid`: the TTL or the node's spec is out of bounds.
    /// `Retry`: nobody answered in time.
    pub async fn open_session(
        &self,
        options: SessionOptions,
    ) -> Result<(Session, SessionEvents), Error> {
        let (work, work_rx) = mpsc::unbounded_channel();
        let (events_tx, events) = mpsc::unbounded_channel();
        let (opened_tx, opened) = oneshot::channel();
        let shared = Arc::new(Shared::new(self.options().drift, work.downgrade()));
        let driver = Driver::new(
            self.clone(),
            options,
            shared.clone(),
            work_rx,
            events_tx,
            opened_tx,
        );
        tokio::spawn(driver.run());
        // When this future is dropped, so is `work`, and the driver ends.
        let opened = opened
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "open a session: it ended")))?;
        let session = Session {
            opened,
            shared: shared.clone(),
            work,
            close_timeout: self.options().timeout,
        };
        Ok((session, SessionEvents { events, shared }))
    }
}

impl Session {
    /// Its identity.
    #[must_use]
    pub fn key(&self) -> SessionKey {
        self.opened.session
    }

    /// Of which cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.opened.cluster
    }

    /// Its time to live.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.opened.ttl
    }

    /// The smallest TTL that a change of the backbone's leader is expected not to break, as the server said.
    #[must_use]
    pub fn ttl_min_safe(&self) -> Duration {
        self.opened.ttl_min_safe
    }

    /// Until when the session is confirmed, on [`boot_time`](crate::boot_time).
    #[must_use]
    pub fn valid_until(&self) -> Option<Time> {
        let until = self.shared.valid_until.load(Ordering::SeqCst);
        (until > 0 && self.shared.pid == std::process::id()).then_some(Time(until))
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared.is_gone()
    }

    /// Stands in groups, or changes how it stands in them. Waits until that is decided, over reconnects.
    ///
    /// # Errors
    /// `SessionLost`: open a new one. `Invalid`: the session has no node. What concerns single groups, such as one that
    /// does not exist, is in [`Contention::refused`].
    pub async fn contend(
        &self,
        entries: impl IntoIterator<Item = (GroupName, ContenderSpec)>,
    ) -> Result<Contention, Error> {
        let mut batches: Vec<Vec<(GroupName, ContenderSpec)>> = Vec::new();
        let mut bytes = usize::MAX;
        for (group, spec) in entries {
            let configuration = &spec.configuration;
            let endpoints = configuration.endpoints.iter().map(String::len);
            let metadata = configuration
                .metadata
                .iter()
                .map(|(key, value)| key.len() + value.len());
            let size = group.as_str().len()
                + endpoints.chain(metadata).map(|len| len + 8).sum::<usize>()
                + 32;
            bytes = bytes.saturating_add(size);
            match batches.last_mut() {
                Some(batch) if bytes <= CONTEND_BYTES_MAX && batch.len() < CONTEND_MAX => {
                    batch.push((group, spec));
                }
                _ => {
                    bytes = size;
                    batches.push(vec![(group, spec)]);
                }
            }
        }
        let mut waiting = Vec::new();
        for entries in batches {
            let (waiter, decided) = oneshot::channel();
            let names: Vec<GroupName> = entries.iter().map(|(group, _)| group.clone()).collect();
            self.push(Work::Contend { entries, waiter })?;
            waiting.push((names, decided));
        }
        let mut contention = Contention {
            session: self.clone(),
            groups: Vec::new(),
            refused: Vec::new(),
        };
        for (names, decided) in waiting {
            let mut refused = self.decided("stand in groups", decided).await?;
            for (at, name) in (0_u32..).zip(names) {
                match refused.iter().position(|(position, _)| *position == at) {
                    Some(found) => contention
                        .refused
                        .push((name, refused.swap_remove(found).1)),
                    None => contention.groups.push(name),
                }
            }
        }
        Ok(contention)
    }

    /// Stands in these groups no longer. Tenures that it holds there are handed over first, by the usual events.
    ///
    /// # Errors
    /// `SessionLost`: it is over anyway.
    pub async fn withdraw(&self, groups: impl IntoIterator<Item = GroupName>) -> Result<(), Error> {
        let groups: Vec<GroupName> = groups.into_iter().collect();
        for groups in groups.chunks(CONTEND_MAX) {
            let (waiter, decided) = oneshot::channel();
            self.push(Work::Withdraw {
                groups: groups.to_vec(),
                waiter,
            })?;
            // A group that is gone is one it does not stand in.
            self.decided("withdraw", decided).await?;
        }
        Ok(())
    }

    /// Reports the holder of a group that this session stands in as alive but faulty: it keeps its session, and does not do its
    /// work. A quorum of such reports, by the group's spec, revokes the tenure; one alone does nothing.
    ///
    /// It is a vote, not a request: report what this process saw itself, say by probing the holder. It counts for the spec's
    /// `depose_window_ms` (10 s by default), so say it again for as long as it is true; each time counts as one. It goes with
    /// this session or its standing, or by [`withdraw_report`](Self::withdraw_report). `reason` is for people: at most 256
    /// bytes without control characters; it is shown by `quorate why` and kept with the tenure's history.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use quorate_client::{Client, Error, GroupName, Session};
    /// # async fn probe(_: &str) -> bool { true }
    /// # async fn watch(client: Client, session: Session, group: GroupName) -> Result<(), Error> {
    /// loop {
    ///     tokio::time::sleep(Duration::from_secs(2)).await;
    ///     let state = client.get_group(&group).await?.group.state;
    ///     let holder_is_me = state.session == Some(session.key().id);
    ///     if state.leader().is_none() || holder_is_me {
    ///         continue;
    ///     }
    ///     for endpoint in &state.configuration.endpoints {
    ///         if !probe(endpoint).await {
    ///             // Names the tenure: by the time it arrives another may hold the group.
    ///             let reported = session.report_faulty(&state.tenure_id(), "probe failed").await;
    ///             if let Err(error) = reported {
    ///                 eprintln!("{error}");
    ///             }
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// `NotLeader`: the tenure is over anyway. `Conflict`: who is elected does not lead yet. `Denied`: this session does not
    /// stand in the group, holds it itself, or the spec does not let contenders depose. `Invalid`: the reason is empty or too
    /// long. `SessionLost`: open a new one.
    pub async fn report_faulty(&self, tenure: &TenureId, reason: &str) -> Result<(), Error> {
        if !(1..=REASON_BYTES_MAX).contains(&reason.len()) {
            let len = reason.len();
            let what = format!("the reason has {len} bytes; allowed: 1 to {REASON_BYTES_MAX}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let (waiter, decided) = oneshot::channel();
        self.push(Work::ReportFaulty {
            tenure: tenure.clone(),
            reason: reason.to_owned(),
            waiter,
        })?;
        self.decided("report a holder", decided).await.map(drop)
    }

    /// Takes this session's report of a holder back; nothing happens where there is none. A revocation is never taken back.
    ///
    /// # Errors
    /// `NotLeader`: the tenure is over anyway. `Conflict`: the holder is being revoked already. `SessionLost`: open a new one.
    pub async fn withdraw_report(&self, tenure: &TenureId) -> Result<(), Error> {
        let (waiter, decided) = oneshot::channel();
        self.push(Work::WithdrawReport {
            tenure: tenure.clone(),
            waiter,
        })?;
        self.decided("withdraw a report", decided).await.map(drop)
    }

    /// Ends every belief, then the session, and waits until the servers know, so that others may lead at once.
    ///
    /// # Errors
    /// `Unknown`: no server confirmed it in time; the session ends after its TTL at the latest.
    pub async fn close(self) -> Result<(), Error> {
        self.shared.close();
        let (waiter, closed) = oneshot::channel();
        if self
            .push(Work::Close {
                waiter: Some(waiter),
            })
            .is_err()
        {
            return Ok(());
        }
        match tokio::time::timeout(self.close_timeout, closed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                let what = format!(
                    "close session {}: no server confirmed it",
                    self.opened.session.id
                );
                Err(Error::new(
                    ErrorKind::Unknown,
                    format!("{what}; it ends after {:?} at the latest", self.opened.ttl),
                ))
            }
        }
    }

    fn push(&self, work: Work) -> Result<(), Error> {
        let over = |_| {
            Error::new(
                ErrorKind::SessionLost,
                format!("session {} is over", self.opened.session.id),
            )
        };
        self.work.send(work).map_err(over)
    }

    async fn decided(
        &self,
        what: &str,
        decided: oneshot::Receiver<Result<Refused, Error>>,
    ) -> Result<Refused, Error> {
        let over = || {
            let session = self.opened.session.id;
            Err(Error::new(
                ErrorKind::SessionLost,
                format!("{what}: session {session} is over"),
            ))
        };
        decided.await.unwrap_or_else(|_| over())
    }
}

/// When to wake for a reading of the boot-time clock.
fn instant_of(at: Time) -> Instant {
    // Timers run on another clock than belief: a millisecond more makes up for rounding, and a wake too early is
    // followed by another.
    Instant::now() + at.since(crate::clock::now()) + Duration::from_millis(1)
}

#[cfg(test)]
mod tests;
