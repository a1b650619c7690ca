//! Carries the plan out: what each fault does when it strikes, as it goes on, and when it ends.

use std::time::Duration;

use quorate_coord::{Command, RequestKey, TransferMode};
use quorate_replica::Request;
use quorate_storage::{Disk, DiskFile, FileLog, LogOptions, SimDisk};
use quorate_types::RequestId;

use super::{Fault, SnapshotCut, Whose};
use crate::checkers::Violation;
use crate::clock::Clock;
use crate::machine::CrashAt;
use crate::node::{proposal, trace_of};
use crate::plant::Plant;
use crate::stream::{Origin, Sender, Up};
use crate::world::{Event, World};

/// What rotted at rest, and the disk as it was before.
#[derive(Debug)]
pub(crate) struct Rotten {
    pub(crate) clean: SimDisk,
    what: String,
}

impl World {
    /// A planned fault strikes.
    pub(crate) fn strike(&mut self, at: usize) {
        if self.is_calm() {
            return;
        }
        if let Some(until) = self.is_quiet_now() {
            self.at(until, Event::Fault(at));
            return;
        }
        if let Fault::OnLeader(fault) = &self.setup.plan[at].1 {
            let Some(leader) = self.leader() else { return };
            // Its end must find the same server.
            self.setup.plan[at].1 = Fault::clone(fault).on(leader);
        }
        let fault = self.setup.plan[at].1.clone();
        let now = self.now;
        self.trace.note(now, 1, [at as u64, 0, 0], || {
            format!("fault {at}: {fault:?}")
        });
        let lasting = self.begin(at, fault);
        if let Some(lasts) = lasting {
            self.at(now + lasts, Event::FaultEnds(at));
        }
    }

    /// Begins a fault; says how long it lasts, where its end must be seen to.
    fn begin(&mut self, at: usize, fault: Fault) -> Option<Duration> {
        let now = self.now;
        match fault {
            Fault::Crash {
                server,
                power,
                down,
            } => {
                let kind = if power { "power cut" } else { "process killed" };
                self.count_if(self.is_running(server), kind);
                self.crash(server, power, down);
            }
            Fault::CrashAtOutput {
                server,
                outputs,
                power,
            } => self.arm(server, super::CrashPoint::Order, outputs, power),
            Fault::CrashAt {
                server,
                point,
                passes,
                power,
            } => self.arm(server, point, passes, power),
            Fault::PowerCutInWrite { server, operations } => {
                if self.is_running(server) {
                    self.servers[server].disk.cut_power_after(operations);
                }
            }
            Fault::PowerLoss { down } => {
                let some = (0..self.servers.len()).any(|server| self.is_running(server));
                self.count_if(some, "power cut everywhere");
                (0..self.servers.len()).for_each(|server| self.crash(server, true, down));
            }
            Fault::FailedSync { server } => self.servers[server].disk.fail_syncs(1),
            Fault::FullDisk { server, lasts } => {
                self.servers[server].disk.set_capacity(Some(0));
                return Some(lasts);
            }
            Fault::SlowDisk {
                server,
                latency,
                lasts,
            } => {
                self.count_if(self.is_running(server), "slow disk");
                self.servers[server].disk.set_latency(latency);
                return Some(lasts);
            }
            Fault::MisdirectedWrite { server } => self.misdirect(server),
            Fault::Rot { server } => self.try_rot(server),
            Fault::RotAtRest { server, down } => self.rot_at_rest(server, down),
            Fault::OldDisk { server, age, sure } => self.copy_disk(at, server, age, sure),
            Fault::PauseServer { server, lasts } => {
                if self.pause_server(server, lasts) {
                    self.count_pause(lasts, "server paused", "server paused for a TTL or more");
                }
            }
            Fault::PauseNode { node, lasts } => {
                if self.pause_node(node, lasts) {
                    self.count_pause(lasts, "node paused", "node paused for a TTL or more");
                }
            }
            Fault::KillNode { node, down } => {
                self.count_if(self.nodes[node].up, "node killed");
                self.kill_node(node, down);
            }
            Fault::Partition {
                kind,
                cuts,
                breaks,
                lasts,
            } => {
                self.count_if(!cuts.is_empty(), kind);
                self.cut(at, cuts, breaks);
                return Some(lasts);
            }
            Fault::Shaped {
                shape,
                server,
                one_way,
                seed,
                breaks,
                lasts,
            } => {
                let random = &mut fastrand::Rng::with_seed(seed);
                let leader = self.leader();
                let cuts = shape.cuts(self.servers.len(), server, leader, one_way, random);
                self.count_if(!cuts.is_empty(), shape.kind(one_way));
                self.cut(at, cuts, breaks);
                return Some(lasts);
            }
            Fault::Flap { .. } => self.flap(at, 0),
            Fault::CutNode {
                node,
                servers,
                lasts,
            } => {
                self.count_if(self.nodes[node].up && !servers.is_empty(), "node cut off");
                for server in servers {
                    self.network.cut_node(node, server);
                }
                return Some(lasts);
            }
            Fault::Storm {
                loss_ppm,
                duplicate_ppm,
                reorder_ppm,
                slower,
                lasts,
            } => {
                self.stats.fault("network storm");
                let base = self.network.base;
                let quality = &mut self.network.quality;
                (quality.loss_ppm, quality.duplicate_ppm) = (loss_ppm, duplicate_ppm);
                quality.reorder_ppm = reorder_ppm;
                quality.delay_mean = base.delay_mean * slower;
                return Some(lasts);
            }
            Fault::Reset { a, b } => {
                self.count_if(
                    a != b && self.network.is_connected(a, b),
                    "connection reset",
                );
                self.break_connection(a, b);
            }
            Fault::MassReconnect => {
                let broken = self.break_streams();
                self.count_if(broken > 1, "mass reconnect");
            }
            Fault::LateDirectives { server, by, lasts } => {
                self.count_if(self.is_running(server), "late directives");
                self.servers[server].directives_late = by;
                return Some(lasts);
            }
            Fault::Burst { server, calls } => {
                self.count_if(self.is_running(server), "burst of calls");
                self.burst(server, calls);
            }
            Fault::Overload { calls } => self.overload(calls),
            Fault::HandOver => {
                if self.hand_over() {
                    self.stats.fault("leader told to hand over");
                }
            }
            Fault::CutSnapshot { server, down, cut } => {
                self.snapshot_cuts.push(cut);
                self.crash(server, true, down);
            }
            Fault::ForcePausedHolder { lasts } => self.force_paused_holder(lasts),
            Fault::OnLeader(_) => unreachable!("the leader's fault was made that of a server"),
            Fault::ClockJump { whose, by } => {
                self.stats.fault("clock jumped");
                self.clock_of(whose).jump(now, by);
                self.clock_changed(whose);
            }
            Fault::ClockRate { whose, rate_ppm } => {
                self.stats.fault("clock rate beyond the bound");
                self.clock_of(whose).set_rate(now, rate_ppm);
                self.clock_changed(whose);
            }
            Fault::ClockFrozen {
                whose,
                paused,
                lasts,
            } => {
                self.stats.fault("clock frozen");
                self.clock_of(whose).freeze(now);
                if paused {
                    match whose {
                        Whose::Server(server) => self.pause_server(server, lasts),
                        Whose::Node(node) => self.pause_node(node, lasts),
                    };
                }
                return Some(lasts);
            }
        }
        None
    }

    /// A lasting fault ends.
    pub(crate) fn relent(&mut self, at: usize) {
        if self.is_calm() || self.is_planted(Plant::NeverHeals) {
            // The calm lifted everything at once.
            return;
        }
        match self.setup.plan[at].1.clone() {
            Fault::FullDisk { server, .. } => self.servers[server].disk.set_capacity(None),
            Fault::SlowDisk { server, .. } => self.servers[server].disk.set_latency(Duration::ZERO),
            Fault::Partition { .. } | Fault::Shaped { .. } => self.mend(at),
            Fault::CutNode { node, servers, .. } => {
                servers
                    .iter()
                    .for_each(|server| self.network.mend_node(node, *server));
            }
            Fault::Storm { .. } => self.network.quality = self.network.base,
            Fault::LateDirectives { server, .. } => {
                self.servers[server].directives_late = Duration::ZERO;
            }
            Fault::ClockFrozen { whose, .. } => {
                let now = self.now;
                self.clock_of(whose).thaw(now);
                self.clock_changed(whose);
            }
            _ => {}
        }
    }

    /// A fault of several steps goes on.
    pub(crate) fn fault_goes_on(&mut self, at: usize, step: u32) {
        if self.is_calm() {
            return;
        }
        match self.setup.plan[at].1 {
            Fault::Flap { .. } => self.flap(at, step),
            Fault::OldDisk { .. } => self.restore_old_disk(at, step),
            _ => unreachable!("no other fault has steps"),
        }
    }

    fn count_if(&mut self, struck: bool, kind: &'static str) {
        if struck {
            self.stats.fault(kind);
        }
    }

    fn count_pause(&mut self, lasts: Duration, short: &'static str, long: &'static str) {
        let is_long = lasts >= Duration::from_millis(self.setup.ttl_ms.0);
        self.stats.fault(if is_long { long } else { short });
    }

    fn is_running(&self, server: usize) -> bool {
        self.servers[server].running.is_some()
    }

    fn arm(&mut self, server: usize, point: super::CrashPoint, passes: u32, power: bool) {
        if self.is_running(server) {
            self.servers[server].crash_at = Some(CrashAt {
                point,
                passes,
                power,
            });
        }
    }

    fn cut(&mut self, at: usize, cuts: Vec<(usize, usize)>, breaks: bool) {
        for (from, to) in &cuts {
            self.network.cut(*from, *to);
            if breaks {
                self.break_connection(*from, *to);
            }
        }
        self.cuts.push((at, cuts));
    }

    fn mend(&mut self, at: usize) {
        for (_, cuts) in self.cuts.extract_if(.., |(of, _)| *of == at) {
            for (from, to) in cuts {
                self.network.mend(from, to);
            }
        }
    }

    /// One step of a link that comes and goes: even ones cut it, odd ones mend it.
    fn flap(&mut self, at: usize, step: u32) {
        let Fault::Flap {
            a,
            b,
            times,
            period,
            one_way,
        } = self.setup.plan[at].1
        else {
            unreachable!("only a flapping link flaps");
        };
        if a == b {
            return;
        }
        if step.is_multiple_of(2) {
            self.count_if(self.network.is_connected(a, b), "link flapped");
            let mut cuts = vec![(a, b)];
            if !one_way {
                cuts.push((b, a));
            }
            self.cut(at, cuts, !one_way);
        } else {
            self.mend(at);
        }
        if step + 1 < times * 2 {
            let when = self.now + period;
            self.at(when, Event::FaultStep { at, step: step + 1 });
        }
    }

    /// The next write of a server's disk lands elsewhere. What it says at its next start is known only then: where it refuses, it
    /// stays away, so it may be done to a minority only.
    fn misdirect(&mut self, server: usize) {
        let lost = self
            .servers
            .iter()
            .filter(|server| server.gone || server.restored.is_some() || server.misdirected)
            .count();
        let this = &mut self.servers[server];
        if lost < (self.setup.replicas - 1) / 2 && this.running.is_some() && !this.misdirected {
            this.disk.misdirect_next_write();
            this.misdirected = true;
        }
    }

    /// Many calls at all servers: half of them straight into their queues, half from clients.
    fn overload(&mut self, calls: usize) {
        let mut reached = false;
        for server in 0..self.servers.len() {
            if !self.is_running(server) || self.servers[server].paused.is_some() {
                continue;
            }
            reached = true;
            for call in 0..calls {
                let request = if self.random.u8(..4) > 0 {
                    Request::Read
                } else {
                    let key = RequestKey::Caller(RequestId(self.random.u128(..)));
                    let trace = trace_of(&key);
                    Request::Propose(Box::new(proposal(key, trace, Command::Advance)))
                };
                if call % 8 > 0 {
                    self.call(server, Origin::Nobody, request);
                } else {
                    // No caller has an operation of this number any more: nobody waits for the answer.
                    let from = Sender::Caller {
                        caller: call % self.callers.len(),
                        operation: 0,
                    };
                    let floor = self.checkers.acknowledged.newest();
                    self.send_up(from, server, Up::Call { floor, request });
                }
            }
        }
        self.count_if(reached, "overload burst");
    }

    /// A piece of a snapshot was sent; more are to come.
    pub(crate) fn snapshot_is_midway(&mut self, from: usize, to: usize) {
        // Whoever needs one first: mostly the server that the fault kept away for it.
        let Some(cut) = self.snapshot_cuts.pop() else {
            return;
        };
        let down = Duration::from_millis(self.random.u64(10..1_500));
        match cut {
            SnapshotCut::Connection => {
                self.stats.fault("snapshot cut midway: connection");
                self.break_connection(from, to);
            }
            SnapshotCut::Sender => {
                self.stats.fault("snapshot cut midway: sender");
                self.crash(from, false, down);
            }
            SnapshotCut::Receiver => {
                self.stats.fault("snapshot cut midway: receiver");
                self.crash(to, true, down);
            }
        }
    }

    fn force_paused_holder(&mut self, lasts: Duration) {
        let first = self.random.usize(..self.nodes.len());
        let mut nodes = (0..self.nodes.len()).map(|at| (first + at) % self.nodes.len());
        let held = |node: usize| self.nodes[node].held_group().map(|group| (node, group));
        let Some((node, group)) = nodes.find_map(held) else {
            return;
        };
        if self.pause_node(node, lasts) {
            self.stats.fault("holder paused under a forced transfer");
            self.callers[0].tasks.push_front(Command::Transfer {
                group,
                to: None,
                mode: TransferMode::Force,
            });
        }
    }

    fn clock_of(&mut self, whose: Whose) -> &mut Clock {
        match whose {
            Whose::Server(server) => &mut self.servers[server].clock,
            Whose::Node(node) => &mut self.nodes[node].clock,
        }
    }

    fn clock_changed(&mut self, whose: Whose) {
        if let Whose::Server(server) = whose {
            self.schedule_tick(server);
        }
    }

    /// All clocks are good from now on.
    pub(crate) fn set_clocks_right(&mut self) {
        let now = self.now;
        for server in 0..self.servers.len() {
            self.servers[server].clock.thaw(now);
            self.servers[server].clock.set_rate(now, 0);
            self.schedule_tick(server);
        }
        for node in &mut self.nodes {
            node.clock.thaw(now);
            node.clock.set_rate(now, 0);
        }
    }

    /// A server stops, and a byte of one of its files rots.
    fn rot_at_rest(&mut self, server: usize, down: Duration) {
        if !self.is_running(server) || self.servers[server].misdirected {
            return;
        }
        self.crash(server, false, down);
        let disk = &self.servers[server].disk;
        let clean = disk.fork();
        let files: Vec<(String, u64)> = disk
            .files()
            .into_iter()
            .filter(|(_, size)| *size > 0)
            .collect();
        if files.is_empty() {
            return;
        }
        let (name, size) = &files[self.random.usize(..files.len())];
        let byte = self.random.u64(..size);
        disk.rot(name, byte, self.random.u8(1..));
        let what = format!("byte {byte} of `{name}` rotted");
        self.servers[server].rotten = Some(Rotten { clean, what });
    }

    /// A server with a rotten disk starts: what it finds must be all that was there.
    ///
    /// Looked at on a copy, since opening a log begins a new segment.
    pub(crate) fn look_at_rot(&mut self, server: usize) {
        let Some(rotten) = &self.servers[server].rotten else {
            return;
        };
        let (clean, copy) = (rotten.clean.fork(), self.servers[server].disk.fork());
        clean.kill();
        copy.kill();
        let options = LogOptions {
            create_if_missing: false,
            ..LogOptions::small()
        };
        let (Ok((_, whole)), Ok((_, found))) =
            (FileLog::open(clean, options), FileLog::open(copy, options))
        else {
            return;
        };
        if found.vote != whole.vote || found.records != whole.records {
            let what = format!(
                "server {}: {}, and it started with {} of {} records, vote {:?} of {:?}",
                server + 1,
                rotten.what,
                found.records.len(),
                whole.records.len(),
                found.vote,
                whole.vote,
            );
            self.judge(Err(rot_went_unnoticed(what)));
        }
    }

    /// A byte rots on a copy of a server's disk: opening the copy refuses, or finds everything.
    fn try_rot(&mut self, server: usize) {
        let idle = self
            .running(server)
            .is_some_and(|running| running.writer.is_idle());
        if !idle {
            return;
        }
        let (clean, rotten) = (
            self.servers[server].disk.fork(),
            self.servers[server].disk.fork(),
        );
        clean.kill();
        rotten.kill();
        // Opening may begin a new segment: what rots was there before.
        let names = clean.list().expect("a healthy disk lists its files");
        let options = LogOptions {
            create_if_missing: false,
            ..LogOptions::small()
        };
        let Ok((_, whole)) = FileLog::open(clean.clone(), options) else {
            return;
        };
        let logs: Vec<&String> = names
            .iter()
            .filter(|name| name.starts_with("log"))
            .collect();
        if logs.is_empty() {
            return;
        }
        let name = logs[self.random.usize(..logs.len())].as_str();
        let mut file = rotten.open(name).expect("the file was listed");
        let size = file.size().expect("a healthy disk knows its files");
        if size == 0 {
            return;
        }
        let byte = self.random.u64(..size);
        rotten.rot(name, byte, self.random.u8(1..));
        match FileLog::open(rotten, options) {
            Ok((_, found)) if found.vote == whole.vote && found.records == whole.records => {
                self.stats.fault("rot on a copy was harmless");
            }
            Err(_) => self.stats.fault("rot on a copy was refused"),
            Ok((_, found)) => {
                let what = format!(
                    "server {}: byte {byte} of `{name}` rotted, and opening it found {} of {} records, vote {:?} of {:?}",
                    server + 1,
                    found.records.len(),
                    whole.records.len(),
                    found.vote,
                    whole.vote,
                );
                self.judge(Err(rot_went_unnoticed(what)));
            }
        }
    }
}

fn rot_went_unnoticed(what: String) -> Violation {
    Violation {
        checker: "storage",
        guarantee: "5: corrupting any byte of what was acknowledged is detected and never truncated",
        what,
    }
}
