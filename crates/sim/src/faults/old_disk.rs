//! A member that is started from an old copy of its own disk (protocol, section 7).
//!
//! What it then does not know any more, it may have promised: a vote, an entry that counted. Its peers remember what it told them and
//! say so when they connect, and it stops for good. What no peer remembers cannot be detected by anybody, so it is not drawn:
//! - all other servers have been up, in one process each, since the copy was made; so each remembers all that it was told;
//! - at the restore all of them are connected, to each other and soon to it, and a leader is known: nobody asks for a vote before
//!   they have spoken. For the same reason no other fault strikes until they have, not one that was drawn before and waits for its
//!   moment either, and what they say is not lost (in reality it goes over a connection that resends);
//! - fewer than half of the servers stop that way in one run, since a stopped member can only come back under a new id, and
//!   membership does not change yet. A stopped member stays away: it has answered peers from its old disk, so its true disk is by
//!   now an old one, too.

use std::time::Duration;

use quorate_storage::SimDisk;

use crate::clock::Moment;
use crate::world::{Event, World};

/// How long a restored member gets to be told.
const WINDOW: Duration = Duration::from_millis(600);
/// How long after an attempt the next one follows, and how many there are.
const RETRY: (Duration, u32) = (Duration::from_millis(250), 12);

/// A copy that waits for its use.
#[derive(Debug)]
pub(crate) struct OldDisk {
    at: usize,
    server: usize,
    copy: SimDisk,
    /// Which process each server ran when the copy was made.
    boots: Vec<u32>,
    sure: bool,
}

impl World {
    /// The copy is made; it is used when it has got old.
    pub(super) fn copy_disk(&mut self, at: usize, server: usize, age: Duration, sure: bool) {
        if self.servers[server].running.is_none() || self.setup.replicas < 3 {
            return;
        }
        let copy = self.servers[server].disk.fork();
        copy.kill();
        let boots = self.servers.iter().map(|server| server.boot).collect();
        self.old_disks.push(OldDisk {
            at,
            server,
            copy,
            boots,
            sure,
        });
        let when = self.now + age;
        self.at(when, Event::FaultStep { at, step: 0 });
    }

    /// Starts the member from its copy, if everybody who could tell is there to tell.
    pub(super) fn restore_old_disk(&mut self, at: usize, step: u32) {
        let Some(place) = self.old_disks.iter().position(|old| old.at == at) else {
            return;
        };
        let old = &self.old_disks[place];
        let server = old.server;
        let lost = self
            .servers
            .iter()
            .filter(|server| server.gone || server.restored.is_some() || server.misdirected)
            .count();
        let minority = (self.setup.replicas - 1) / 2;
        let same_process = |other: usize| {
            let this = &self.servers[other];
            this.boot == old.boots[other] && this.running.is_some() && this.paused.is_none()
        };
        let others = (0..self.servers.len()).filter(|other| *other != server);
        let all_there = others.clone().all(same_process)
            && others.clone().all(|a| {
                others
                    .clone()
                    .all(|b| a == b || self.network.is_connected(a, b))
            });
        let this = &self.servers[server];
        let can_be_told = || {
            all_there
                && self.network.is_whole()
                && self
                    .leader()
                    .is_some_and(|leader| leader != server && self.agree_on(leader, server))
        };
        let no_disk_fails = self
            .servers
            .iter()
            .all(|server| !server.disk.is_fault_pending());
        let fits = lost < minority
            && no_disk_fails
            && this.running.is_some()
            && this.restored.is_none()
            && !this.gone
            && (!old.sure || can_be_told());
        if !fits {
            if step < RETRY.1 {
                let when = self.now + RETRY.0;
                self.at(when, Event::FaultStep { at, step: step + 1 });
            } else {
                self.old_disks.remove(place);
            }
            return;
        }
        let old = self.old_disks.remove(place);
        let now = self.now;
        self.trace.note(now, 10, [server as u64, at as u64, 0], || {
            format!("s{} is started from an old copy of its disk", server + 1)
        });
        self.stats.fault("started from an old disk");
        self.crash(server, false, Duration::from_millis(1));
        let this = &mut self.servers[server];
        this.disk = old.copy;
        this.restored = Some(now);
        this.crash_at = None;
        self.quiet_until = now + WINDOW;
    }

    /// Whether all others know this leader.
    fn agree_on(&self, leader: usize, server: usize) -> bool {
        let id = crate::machine::replica_id(leader);
        (0..self.servers.len())
            .filter(|other| *other != server)
            .all(|other| {
                self.servers[other]
                    .running
                    .as_ref()
                    .is_some_and(|running| running.replica.leader() == Some(id))
            })
    }

    /// A member learned that its disk is an old one: it stops, for good.
    pub(crate) fn stop_for_good(&mut self, server: usize, why: &'static str) {
        self.stats.fault(why);
        self.crash(server, false, Duration::ZERO);
        let now = self.now;
        self.trace.note(now, 11, [server as u64, 0, 0], || {
            format!("s{} stops for good: {why}", server + 1)
        });
        let this = &mut self.servers[server];
        this.gone = true;
        this.restored = None;
        this.misdirected = false;
    }

    /// Whether a fault must wait, since a restored member has not been told yet.
    pub(crate) fn is_quiet_now(&self) -> Option<Moment> {
        (self.now < self.quiet_until).then_some(self.quiet_until)
    }
}
