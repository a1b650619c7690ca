//! A session's requests: one outstanding, each with its effect once, sent until it is decided.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_types::GroupName;
use quorate_wire::api::{ApiError, ContenderSpec, NodeUp, Report, RequestDone, TenureId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::error::Error;

/// Most reports in one request, so that it stays well below the message limit.
const REPORTS_MAX: usize = 2_000;

/// What was refused of a batch, by position.
pub(crate) type Refused = Vec<(u32, ApiError)>;

/// What is to be asked for a session.
#[derive(Debug)]
pub(crate) enum Work {
    Contend {
        entries: Vec<(GroupName, ContenderSpec)>,
        waiter: oneshot::Sender<Result<Refused, Error>>,
    },
    Withdraw {
        groups: Vec<GroupName>,
        waiter: oneshot::Sender<Result<Refused, Error>>,
    },
    Report {
        tenure: TenureId,
        report: Report,
        waiter: oneshot::Sender<Result<(), Error>>,
    },
    ReportFaulty {
        tenure: TenureId,
        reason: String,
        waiter: oneshot::Sender<Result<Refused, Error>>,
    },
    WithdrawReport {
        tenure: TenureId,
        waiter: oneshot::Sender<Result<Refused, Error>>,
    },
    Close {
        waiter: Option<oneshot::Sender<()>>,
    },
}

#[derive(Debug)]
enum Waiters {
    Batch(oneshot::Sender<Result<Refused, Error>>),
    Reports(Vec<oneshot::Sender<Result<(), Error>>>),
    Close,
}

#[derive(Debug)]
struct Outstanding {
    seq: u64,
    up: NodeUp,
    waiters: Waiters,
    /// On the present stream.
    sent: bool,
}

/// # Invariants
/// - `outstanding` keeps its number and its contents until it is decided: only then is the next number used.
#[derive(Debug)]
pub(crate) struct Requests {
    queue: VecDeque<Work>,
    outstanding: Option<Outstanding>,
    seq_last: u64,
    /// Not before this.
    retry_at: Option<Instant>,
    backoff: Backoff,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            queue: VecDeque::new(),
            outstanding: None,
            seq_last: 0,
            retry_at: None,
            backoff: Backoff::new(Duration::from_millis(20), Duration::from_secs(1)),
        }
    }

    pub(crate) fn push(&mut self, work: Work) {
        self.queue.push_back(work);
    }

    /// The session closes: what was not sent yet needs no answer any more.
    pub(crate) fn close(&mut self) {
        self.queue.clear();
        self.queue.push_back(Work::Close { waiter: None });
    }

    /// What to send now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<NodeUp> {
        if self.retry_at.is_some_and(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        if self.outstanding.is_none() {
            self.outstanding = self.take();
        }
        let outstanding = self
            .outstanding
            .as_mut()
            .filter(|outstanding| !outstanding.sent)?;
        outstanding.sent = true;
        Some(outstanding.up.clone())
    }

    /// When [`next`](Self::next) has something without any input.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    fn take(&mut self) -> Option<Outstanding> {
        let work = self.queue.pop_front()?;
        self.seq_last += 1;
        let request_seq = self.seq_last;
        let (up, waiters) = match work {
            Work::Contend { entries, waiter } => (
                NodeUp::Contend {
                    request_seq,
                    entries,
                },
                Waiters::Batch(waiter),
            ),
            Work::Withdraw { groups, waiter } => (
                NodeUp::Withdraw {
                    request_seq,
                    groups,
                },
                Waiters::Batch(waiter),
            ),
            Work::Report {
                tenure,
                report,
                waiter,
            } => {
                let (mut reports, mut waiters) = (vec![(tenure, report)], vec![waiter]);
                // A node that hands over a thousand groups reports in a few requests, not in a thousand.
                while reports.len() < REPORTS_MAX
                    && let Some(Work::Report { .. }) = self.queue.front()
                    && let Some(Work::Report {
                        tenure,
                        report,
                        waiter,
                    }) = self.queue.pop_front()
                {
                    reports.push((tenure, report));
                    waiters.push(waiter);
                }
                (
                    NodeUp::Report {
                        request_seq,
                        reports,
                    },
                    Waiters::Reports(waiters),
                )
            }
            Work::ReportFaulty {
                tenure,
                reason,
                waiter,
            } => (
                NodeUp::ReportFaulty {
                    request_seq,
                    tenure,
                    reason,
                },
                Waiters::Batch(waiter),
            ),
            Work::WithdrawReport { tenure, waiter } => (
                NodeUp::WithdrawReport {
                    request_seq,
                    tenure,
                },
                Waiters::Batch(waiter),
            ),
            Work::Close { .. } => (NodeUp::Close { request_seq }, Waiters::Close),
        };
        Some(Outstanding {
            seq: request_seq,
            up,
            waiters,
            sent: false,
        })
    }

    /// The request was decided. Returns whether it was the close.
    pub(crate) fn done(&mut self, seq: u64, outcome: Result<RequestDone, ApiError>) -> bool {
        let Some(outstanding) = self
            .outstanding
            .take_if(|outstanding| outstanding.seq == seq)
        else {
            return false;
        };
        self.backoff.reset();
        self.retry_at = None;
        // A waiter that is gone does not care.
        match outstanding.waiters {
            Waiters::Batch(waiter) => {
                let result = outcome.map(|done| done.refused);
                let _ =
                    waiter.send(result.map_err(|error| Error::api("ask for the session", error)));
                false
            }
            Waiters::Reports(waiters) => {
                Self::tell(waiters, &outcome);
                false
            }
            Waiters::Close => true,
        }
    }

    fn tell(
        waiters: Vec<oneshot::Sender<Result<(), Error>>>,
        outcome: &Result<RequestDone, ApiError>,
    ) {
        for (position, waiter) in (0_u32..).zip(waiters) {
            let error = match outcome {
                Ok(done) => done
                    .refused
                    .iter()
                    .find(|(at, _)| *at == position)
                    .map(|(_, error)| error),
                Err(error) => Some(error),
            };
            let result = error.map_or(Ok(()), |error| {
                Err(Error::api("report about a tenure", error.clone()))
            });
            let _ = waiter.send(result);
        }
    }

    /// The request's outcome is not known, or it was not taken: the very same is sent again.
    pub(crate) fn again(&mut self, seq: u64, retry_after_ms: Option<u64>, now: Instant) {
        if let Some(outstanding) = self
            .outstanding
            .as_mut()
            .filter(|outstanding| outstanding.seq == seq)
        {
            outstanding.sent = false;
            let wait = self.backoff.next();
            self.retry_at = Some(now + retry_after_ms.map_or(wait, Duration::from_millis));
        }
    }

    /// The stream is gone: what was outstanding on it is sent again on the next.
    pub(crate) fn stream_broken(&mut self) {
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.sent = false;
        }
        self.retry_at = None;
    }
}

#[cfg(test)]
mod tests {
    use quorate_types::{Revision, TenureNumber};
    use quorate_wire::api::ApiErrorKind;

    use super::*;

    fn report(requests: &mut Requests, number: u64) -> oneshot::Receiver<Result<(), Error>> {
        let group = GroupName::new("g").unwrap();
        let tenure = TenureId {
            group,
            incarnation: Revision(1),
            number: TenureNumber(number),
        };
        let (waiter, decided) = oneshot::channel();
        requests.push(Work::Report {
            tenure,
            report: Report::Failed,
            waiter,
        });
        decided
    }

    fn done(refused: Refused) -> Result<RequestDone, ApiError> {
        Ok(RequestDone {
            revision: Revision(5),
            refused,
        })
    }

    #[test]
    fn reports_that_wait_go_together_and_each_learns_its_own_outcome() {
        let (mut requests, now) = (Requests::new(), Instant::now());
        let mut decided: Vec<_> = (1..=3)
            .map(|number| report(&mut requests, number))
            .collect();
        let Some(NodeUp::Report {
            request_seq: 1,
            reports,
        }) = requests.next(now)
        else {
            panic!("no report")
        };
        assert_eq!(reports.len(), 3);
        assert_eq!(requests.next(now), None, "one is outstanding");
        requests.done(
            1,
            done(vec![(1, ApiError::new(ApiErrorKind::StaleTenure, "over"))]),
        );
        assert!(decided[0].try_recv().unwrap().is_ok());
        let error = decided[1].try_recv().unwrap().unwrap_err();
        assert_eq!(error.api_kind(), Some(ApiErrorKind::StaleTenure));
        assert!(decided[2].try_recv().unwrap().is_ok());
    }

    #[test]
    fn an_undecided_request_is_sent_again_unchanged_and_nothing_overtakes_it() {
        let (mut requests, now) = (Requests::new(), Instant::now());
        let _first = report(&mut requests, 1);
        let sent = requests.next(now).unwrap();
        let _second = report(&mut requests, 2);
        requests.again(1, Some(50), now);
        assert_eq!(requests.next(now), None);
        assert_eq!(
            requests.next(now + Duration::from_millis(50)).as_ref(),
            Some(&sent)
        );
        requests.stream_broken();
        assert_eq!(requests.next(now).as_ref(), Some(&sent));
        requests.done(1, done(vec![]));
        assert!(matches!(
            requests.next(now),
            Some(NodeUp::Report { request_seq: 2, .. })
        ));
        requests.done(1, done(vec![]));
        assert_eq!(
            requests.next(now),
            None,
            "an answer repeated decides nothing else"
        );
    }
}
