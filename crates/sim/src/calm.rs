//! The end of every run: faults cease, clients behave, and the service must get back to work within stated bounds (guarantee 7's
//! and 9's liveness).

use std::time::Duration;

use quorate_coord::{Command, NodeAdmission};
use quorate_types::LogIndex;

use crate::checkers::Violation;
use crate::clock::Moment;
use crate::machine::Server;
use crate::plant::Plant;
use crate::setup::Clocks;
use crate::world::{Event, World};

/// A write is acknowledged this long after faults ceased, at the latest: restarts, four election timeouts, clients' patience.
pub const WRITE_BOUND: Duration = Duration::from_secs(12);
/// A group that somebody can lead is without a leader for at most this long: a takeover's TTL and a revocation's, a preparation's
/// deadline or two, the longest cool-down.
pub const LED_BOUND: Duration = Duration::from_secs(14);
/// All replicas have applied what one has within this long, once callers are quiet. The slowest way there is a snapshot of 200 KB in
/// pieces of 300 bytes, each of which waits for the one before: three seconds; and it may be needed twice.
pub const CONVERGE_BOUND: Duration = Duration::from_secs(8);
/// The calm is made longer until clients had their operations, but not longer than this.
const CALM_MAX: Duration = Duration::from_secs(120);

/// Since when it is calm.
#[derive(Debug)]
pub(crate) struct Calm {
    since: Moment,
    acknowledged: LogIndex,
    /// Callers begin nothing new, and all replicas shall get to this index.
    quiet: Option<(Moment, LogIndex)>,
}

impl World {
    /// Whether faults have ceased.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.is_some()
    }

    /// Whether callers begin nothing new.
    pub(crate) fn is_quiet(&self) -> bool {
        self.calm.as_ref().is_some_and(|calm| calm.quiet.is_some())
    }

    /// Faults cease.
    pub(crate) fn heal(&mut self) {
        let now = self.now;
        self.trace
            .note(now, 40, [0; 3], || "faults cease".to_owned());
        self.calm = Some(Calm {
            since: now,
            acknowledged: self.checkers.acknowledged.newest(),
            quiet: None,
        });
        if !self.is_planted(Plant::NeverHeals) {
            self.network.heal();
        }
        for server in 0..self.servers.len() {
            let this = &mut self.servers[server];
            this.disk.heal();
            this.directives_late = Duration::ZERO;
            this.crash_at = None;
            self.resume_server(server);
        }
        self.resume_nodes();
        self.snapshot_cuts.clear();
        if self.setup.clocks == Clocks::BeyondBound {
            self.set_clocks_right();
        }
        for node in 0..self.nodes.len() {
            let node = self.nodes[node].spec.name.clone();
            self.callers[0].tasks.push_back(Command::AdmitNode {
                node,
                admission: NodeAdmission::Open,
            });
        }
        self.at(now, Event::Calm);
    }

    /// Looks whether the service is back.
    pub(crate) fn look_at_calm(&mut self) {
        let now = self.now;
        let calm = self.calm.as_ref().expect("it is calm");
        let (since, acknowledged, quiet) = (calm.since, calm.acknowledged, calm.quiet);
        let lasted = now.since(since);
        if lasted > WRITE_BOUND && self.checkers.acknowledged.newest() <= acknowledged {
            let what = format!(
                "no write was acknowledged within {lasted:?} of calm: {}",
                self.picture()
            );
            self.judge(not_live(what));
            return;
        }
        if let Some(state) = self.newest_state() {
            let verdict = self.checkers.changes.on_calm(now, since, LED_BOUND, &state);
            self.judge(verdict);
        }
        match quiet {
            None if lasted >= self.setup.calm_for
                && self.stats.operations >= self.setup.operations_min
                && self.checkers.acknowledged.newest() > acknowledged
                && (self.checkers.changes.is_settled() || lasted > LED_BOUND) =>
            {
                let target = self.checkers.log.last();
                self.calm.as_mut().expect("it is calm").quiet = Some((now, target));
            }
            None if lasted > CALM_MAX => {
                let what = format!(
                    "only {} operations within {lasted:?} of calm",
                    self.stats.operations
                );
                self.judge(not_live(what));
                return;
            }
            None => {}
            Some((quiet_since, target)) => {
                let idle = self.callers.iter().all(crate::caller::Caller::is_idle);
                if idle && self.has_converged(target) {
                    self.end();
                    return;
                }
                if now.since(quiet_since) > CONVERGE_BOUND {
                    let what = format!(
                        "{CONVERGE_BOUND:?} after callers fell quiet (idle: {idle}) not all replicas have applied {target}: {}",
                        self.picture()
                    );
                    self.judge(not_live(what));
                    return;
                }
            }
        }
        self.at(now + Duration::from_millis(500), Event::Calm);
    }

    /// The servers that did not stop for good.
    fn staying(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| !server.gone)
    }

    fn has_converged(&self, target: LogIndex) -> bool {
        self.staying().all(|server| {
            server
                .running
                .as_ref()
                .is_some_and(|r| r.replica.applied() >= target)
        })
    }

    fn newest_state(&self) -> Option<quorate_coord::State> {
        let replicas = self
            .servers
            .iter()
            .filter_map(|server| server.running.as_ref())
            .map(|r| &r.replica);
        replicas
            .max_by_key(|replica| replica.applied())
            .map(|replica| replica.state().clone())
    }

    /// Everything has settled: the last look.
    fn end(&mut self) {
        self.over = true;
        let staying: Vec<usize> = self.staying().map(|server| server.index).collect();
        for server in staying {
            let running = self.servers[server]
                .running
                .as_ref()
                .expect("all have converged");
            running.replica.check_invariants();
            running.replica.state().check_invariants();
            let verdict = self
                .checkers
                .digests
                .on_state(server, running.replica.state());
            self.judge(verdict);
        }
        for server in 0..self.servers.len() {
            self.rebuild(server);
        }
        let verdict = self.checkers.on_end();
        self.judge(verdict);
    }

    /// Where all replicas stand, for people.
    fn picture(&self) -> String {
        let each = self.servers.iter().map(|server| match &server.running {
            None if server.gone => format!("s{}: gone", server.index + 1),
            None => format!("s{}: down", server.index + 1),
            Some(running) => {
                let replica = &running.replica;
                format!(
                    "s{}: {:?} {:?} leader {:?} applied {} last {}",
                    server.index + 1,
                    replica.role(),
                    replica.term(),
                    replica.leader(),
                    replica.applied(),
                    replica.last_index()
                )
            }
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

fn not_live(what: String) -> Result<(), Violation> {
    Err(Violation {
        checker: "progress",
        guarantee: "7: if a commit quorum can be reached, the backbone leads, and the service goes on",
        what,
    })
}
