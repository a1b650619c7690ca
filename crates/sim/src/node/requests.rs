//! A node's requests: opening, standing, sending again under the same key, closing, and what their answers mean.

use super::*;

impl World {
    /// Stands in all groups, those that are not there yet included: they are refused one by one.
    pub(super) fn stand(&mut self, node: usize) {
        let Some(session) = self.nodes[node].session else {
            return;
        };
        let names = self.groups.clone();
        let groups = names
            .into_iter()
            .enumerate()
            .map(|(at, name)| {
                let priority = *self.nodes[node].priorities.entry(at).or_insert(0);
                (
                    name,
                    ContenderSpec {
                        priority,
                        ..ContenderSpec::default()
                    },
                )
            })
            .collect();
        self.nodes[node]
            .wants
            .push_back(Command::Contend { session, groups });
    }

    pub(super) fn open(&mut self, node: usize) {
        let id = RequestId(self.random.u128(..));
        let this = &mut self.nodes[node];
        let key = RequestKey::Caller(id);
        let command = Command::OpenSession {
            ttl_ms: this.ttl_ms,
            node: Some(this.spec.clone()),
        };
        this.tag += 1;
        this.outstanding = Some(Outstanding {
            tag: this.tag,
            proposal: proposal(key, trace_of(&key), command),
            sent_at: Time::ZERO,
        });
        self.connect(node);
        self.send_outstanding(node);
    }

    /// Takes a new stream, mostly to another server.
    pub(super) fn connect(&mut self, node: usize) {
        self.stream_next += 1;
        let server = self.random.usize(..self.servers.len());
        let reading = self.nodes[node].clock.reading(self.now);
        let this = &mut self.nodes[node];
        this.server = server;
        this.stream = self.stream_next;
        this.heard_at = reading;
        let (sender, session) = (this.sender(), this.session);
        self.send_up(sender, server, Up::Attach { session });
    }

    pub(super) fn send_outstanding(&mut self, node: usize) {
        let reading = self.nodes[node].clock.reading(self.now);
        if self.nodes[node].stream == 0 {
            self.connect(node);
        }
        let this = &mut self.nodes[node];
        let Some(outstanding) = &mut this.outstanding else {
            return;
        };
        outstanding.sent_at = reading;
        let message = Up::Ask {
            tag: outstanding.tag,
            request: Request::Propose(Box::new(outstanding.proposal.clone())),
        };
        let (sender, server) = (this.sender(), this.server);
        self.send_up(sender, server, message);
    }

    /// Sends the next request, if none is out: a session has one at a time. Reports that wait go together.
    pub(super) fn next_request(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let Some(session) = this.session else { return };
        if this.outstanding.is_some() {
            return;
        }
        let Some(mut command) = this.wants.pop_front() else {
            return;
        };
        if let Command::Report { reports, .. } = &mut command {
            while let Some(Command::Report { reports: more, .. }) = this.wants.front_mut() {
                reports.append(more);
                this.wants.pop_front();
            }
        }
        this.request_seq += 1;
        this.tag += 1;
        let key = RequestKey::Session {
            session,
            seq: this.request_seq,
        };
        this.outstanding = Some(Outstanding {
            tag: this.tag,
            proposal: proposal(key, trace_of(&key), command),
            sent_at: Time::ZERO,
        });
        self.send_outstanding(node);
    }

    pub(super) fn close(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        let Some(session) = this.session else { return };
        this.closing = true;
        this.lease.close();
        this.wants.clear();
        this.wants.push_back(Command::CloseSession { session });
        self.on_lease_changed(node);
    }

    /// Everything that belonged to the session is over on this side.
    pub(super) fn forget_session(&mut self, node: usize) {
        let this = &mut self.nodes[node];
        if let Some(session) = this.session.take() {
            self.checkers.sessions.on_abandoned(session);
        }
        this.lease.session_gone();
        this.lease.poll(Time::ZERO);
        this.work.clear();
        this.closing = false;
        this.wants.clear();
        this.outstanding = None;
        this.stream = 0;
        let (now, process) = (self.now, this.process());
        for tenure in std::mem::take(&mut this.believed) {
            // Belief only ends here, which no other belief contradicts.
            let verdict = self.checkers.beliefs.on_belief(now, process, &tenure, now);
            self.judge(verdict);
        }
    }

    pub(super) fn on_request_answered(&mut self, node: usize, tag: u64, response: Response) {
        let this = &mut self.nodes[node];
        let Some(outstanding) = this
            .outstanding
            .take_if(|outstanding| outstanding.tag == tag)
        else {
            return;
        };
        match response {
            Response::Applied { outcome, index } => {
                self.stats.operations += 1;
                let trace = outstanding.proposal.trace;
                let verdict =
                    self.checkers
                        .acknowledged
                        .on_acknowledged(index, trace, &self.checkers.log);
                self.judge(verdict);
                self.on_outcome(node, &outstanding.proposal, outcome);
            }
            // Certainly not applied, or unknown: ask again under the same key.
            _ => {
                this.outstanding = Some(outstanding);
                let (life, wait) = (this.life, Duration::from_millis(self.random.u64(20..300)));
                let at = self.now + wait;
                self.at(
                    at,
                    Event::Node {
                        node,
                        life,
                        timer: Timer::Resend { tag },
                    },
                );
            }
        }
    }

    pub(super) fn on_outcome(&mut self, node: usize, asked: &Proposal, outcome: Outcome) {
        let drift = self.setup.drift;
        let this = &mut self.nodes[node];
        match (&asked.command, outcome) {
            (Command::OpenSession { .. }, Ok(Reply::SessionOpened { session, .. })) => {
                this.session = Some(session);
                this.lease = LeaseCore::new(drift);
                this.request_seq = 0;
                self.connect(node);
                self.stand(node);
                let reading = self.nodes[node].clock.reading(self.now);
                self.keep_alive(node, session, reading);
            }
            // The old session must end first: the next beat asks anew.
            (Command::OpenSession { .. }, _) => {}
            (Command::CloseSession { .. }, _) => self.forget_session(node),
            (_, Err(Rejection::UnknownSession { .. })) => self.forget_session(node),
            (_, Err(rejection @ Rejection::RequestOutOfOrder { .. })) => {
                self.judge(Err(Violation {
                    checker: "exactly_once",
                    guarantee: "retries: deduplicated by (session, sequence) (protocol, section 7)",
                    what: format!(
                        "n{node} asked {:?} in order and was told: {rejection}",
                        asked.request
                    ),
                }));
            }
            _ => {}
        }
    }
}
