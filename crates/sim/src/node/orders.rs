//! A node's orders: what servers tell it, how it answers, and what it believes after each.

use super::*;

impl World {
    /// Answers an order.
    pub(super) fn react(&mut self, node: usize, tenure: &TenureId, reaction: Reaction) {
        let this = &mut self.nodes[node];
        let Some(session) = this.session.filter(|_| !this.closing) else {
            return;
        };
        if !this.lease.tenures().any(|(held, _)| held == tenure) {
            return;
        }
        if reaction == Reaction::Release && !self.work_is_settled(node, tenure) {
            // Nothing may be in flight when it lets go: look again once what was sent is answered.
            let wait = Duration::from_millis(self.random.u64(5..60));
            let (life, at) = (self.nodes[node].life, self.now + wait);
            let tenure = Box::new(tenure.clone());
            let timer = Timer::React { tenure, reaction };
            self.at(at, Event::Node { node, life, timer });
            return;
        }
        let group = self.group_index[&tenure.group];
        let whole = self.resources[group].position;
        let catches_up = self.random.u8(..4) > 0;
        let this = &mut self.nodes[node];
        let data = this.data.entry(group).or_default();
        let lies = self.plant == Some(Plant::LieAboutPosition)
            && matches!(reaction, Reaction::Polled | Reaction::Ready);
        if !lies && (reaction != Reaction::Polled || catches_up || self.calm.is_some()) {
            *data = whole.max(*data);
        }
        let reached = Position(*data);
        let key = convert::tenure_key(tenure);
        self.checkers
            .positions
            .on_reached(&key.group, session, reached);
        if reaction == Reaction::Polled {
            self.checkers.polls.on_answering(&key, session);
        }
        let position = if lies { Position(whole) } else { reached };
        let report = match reaction {
            Reaction::Polled => Report::Polled { position },
            Reaction::Ready => Report::Ready { position },
            Reaction::Failed => Report::Failed,
            Reaction::Decline => Report::Declined,
            Reaction::Release => {
                if self.plant == Some(Plant::ReleaseBeforeBeliefEnds) {
                    let life = this.life;
                    let at = self.now + Duration::from_millis(400);
                    let timer = Timer::LateRelease {
                        tenure: Box::new(tenure.clone()),
                    };
                    self.at(at, Event::Node { node, life, timer });
                } else {
                    // Belief ends before the release is sent (protocol, section 3).
                    this.lease.begin_release(tenure);
                }
                Report::Released {
                    position: Some(position),
                }
            }
        };
        self.nodes[node].wants.push_back(Command::Report {
            session,
            reports: vec![(key, report)],
        });
        self.on_lease_changed(node);
        self.next_request(node);
    }

    pub(crate) fn on_down(&mut self, node: usize, life: u32, stream: u64, message: Box<Down>) {
        let this = &mut self.nodes[node];
        if !this.up || this.life != life {
            return;
        }
        if let Some(waiting) = &mut this.paused {
            waiting.push_back(Event::Down {
                node,
                life,
                stream,
                message,
            });
            return;
        }
        if this.stream != stream {
            return;
        }
        let now = self.now;
        let reading = this.clock.reading(now);
        this.heard_at = reading;
        self.trace.note(now, 23, [node as u64, stream, 0], || {
            format!("n{node} hears {message:?}")
        });
        let this = &mut self.nodes[node];
        match *message {
            Down::KeptAlive {
                mut seq,
                ttl,
                directive_seq,
            } => {
                if self.plant == Some(Plant::TtlFromReply) {
                    seq = this.lease.keep_alive_sent(reading);
                }
                this.lease.keep_alive_answered(seq, ttl, directive_seq);
            }
            Down::Gone { session } => {
                if this.session == Some(session) {
                    this.lease.session_gone();
                    self.forget_session(node);
                }
            }
            Down::Directive { session, directive } => {
                if this.session == Some(session) {
                    let mut kind = convert::directive_kind(directive.kind);
                    if self.plant == Some(Plant::IgnoreRevoke) && kind == DirectiveKind::Revoke {
                        kind = DirectiveKind::Continue;
                    }
                    this.lease.on_directive(
                        directive.seq,
                        convert::tenure_id(&directive.tenure),
                        kind,
                    );
                }
            }
            Down::Standing {
                session,
                directive_seq,
                mut parts,
            } => {
                if this.session == Some(session) {
                    if self.plant == Some(Plant::IgnoreRevoke) {
                        for part in parts.iter_mut().filter(|part| part.part == Part::Revoking) {
                            part.part = Part::Active;
                        }
                    }
                    this.lease.on_standing(directive_seq, parts);
                }
            }
            Down::Answer { tag, response } => self.on_request_answered(node, tag, response),
            Down::HungUp => this.stream = 0,
        }
        self.on_lease_changed(node);
        self.next_request(node);
    }

    /// Something happened to a node's lease: its orders are answered, its beliefs are told to the checkers.
    pub(crate) fn on_lease_changed(&mut self, node: usize) {
        let now = self.now;
        let this = &mut self.nodes[node];
        let reading = this.clock.reading(now);
        let events = this.lease.poll(reading);
        this.lease.check_invariants();
        for event in events {
            self.on_lease_event(node, event);
        }
        let this = &self.nodes[node];
        let (process, clock) = (this.process(), this.clock);
        let mut verdict = Ok(());
        let mut believed = Vec::new();
        for (tenure, _) in this.lease.tenures() {
            let until = this
                .lease
                .believed_until(tenure)
                .filter(|until| reading < *until);
            if let Some(until) = until {
                let told =
                    self.checkers
                        .beliefs
                        .on_belief(now, process, tenure, clock.moment_of(until));
                verdict = verdict.and(told);
                believed.push(tenure.clone());
            }
        }
        for tenure in this
            .believed
            .iter()
            .filter(|tenure| !believed.contains(tenure))
        {
            verdict = verdict.and(self.checkers.beliefs.on_belief(now, process, tenure, now));
        }
        if let (Some(session), Some(until)) = (this.session, this.lease.valid_until()) {
            verdict = verdict.and(
                self.checkers
                    .sessions
                    .on_valid(session, clock.moment_of(until)),
            );
        } else if let Some(session) = this.session.filter(|_| this.closing) {
            self.checkers.sessions.on_abandoned(session);
        }
        self.nodes[node].believed = believed;
        self.judge(verdict);
    }

    pub(super) fn on_lease_event(&mut self, node: usize, event: LeaseEvent) {
        let now = self.now;
        self.trace.note(now, 24, [node as u64, 0, 0], || {
            format!("n{node} {event:?}")
        });
        let habits = self.setup.habits;
        let calm = self.is_calm();
        match &event {
            LeaseEvent::Activated {
                tenure,
                predecessor,
                ..
            } => self.work_begins(node, tenure, *predecessor),
            LeaseEvent::Draining { tenure, .. } => self.work_drains(node, tenure, true),
            LeaseEvent::Continue { tenure } => self.work_drains(node, tenure, false),
            LeaseEvent::Lost { tenure, .. } => {
                self.nodes[node].work.remove(tenure);
            }
            LeaseEvent::SessionLost { .. } => self.nodes[node].work.clear(),
            _ => {}
        }
        let mut rolls = |chance: u32| !calm && chance > 0 && self.random.u32(..100) < chance;
        let (tenure, reaction) = match event {
            LeaseEvent::Poll { tenure, .. } if !rolls(habits.ignore) => (tenure, Reaction::Polled),
            LeaseEvent::Elected { tenure, .. } if rolls(habits.fail) => (tenure, Reaction::Failed),
            LeaseEvent::Elected { tenure, .. } if rolls(habits.fail) => (tenure, Reaction::Release),
            LeaseEvent::Elected { tenure, .. } if !rolls(habits.ignore) => {
                (tenure, Reaction::Ready)
            }
            LeaseEvent::CatchUp { tenure } if !rolls(habits.ignore) => (tenure, Reaction::Ready),
            LeaseEvent::Draining { tenure, .. } if rolls(habits.decline) => {
                (tenure, Reaction::Decline)
            }
            LeaseEvent::Draining { tenure, .. } if !rolls(habits.ignore) => {
                (tenure, Reaction::Release)
            }
            LeaseEvent::Revoked { tenure } if !rolls(habits.ignore) => (tenure, Reaction::Release),
            LeaseEvent::NeedResync { .. } => {
                // The next beat takes a new stream, which begins with the whole picture.
                self.nodes[node].stream = 0;
                return;
            }
            _ => return,
        };
        // In the calm a service is well: it answers within what its groups' deadlines allow.
        let most = if calm {
            Duration::from_millis(20)
        } else {
            habits.reaction_max
        };
        let most = u64::try_from(most.as_micros()).expect("short").max(1);
        let wait = Duration::from_micros(self.random.u64(0..most));
        let (life, at): (u32, Moment) = (self.nodes[node].life, now + wait);
        self.at(
            at,
            Event::Node {
                node,
                life,
                timer: Timer::React {
                    tenure: Box::new(tenure),
                    reaction,
                },
            },
        );
    }
}
