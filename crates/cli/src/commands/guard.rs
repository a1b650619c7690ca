//! `__guard`: stands between `contend` and one COMMAND, and sees to it that COMMAND is dead before its lease can have
//! passed on, whatever happens to the wrapper: killed, stopped or stuck.
//!
//! It is told deadlines on its standard input, and needs no further word to act on them:
//! - `lease TERM_AT KILL_AT`: new deadlines, `CLOCK_BOOTTIME` in nanoseconds. Ignored once COMMAND was asked to stop.
//! - `stop`: asks COMMAND to stop (SIGTERM to its process group) now.
//! - end of input: the wrapper is gone; the same as `stop`.
//!
//! COMMAND runs in a process group of its own and dies with the guard. What it leaves behind is killed, even where it
//! left the process group: the guard is its sub-reaper.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::Context;
use quorate_types::Time;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{PidfdFlags, Signal, kill_process_group, pidfd_open};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::args::duration;
use crate::exit::Failure;
use crate::{clock, process};

/// Runs COMMAND under deadlines.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct GuardArgs {
    /// When COMMAND is asked to stop (`CLOCK_BOOTTIME`, nanoseconds).
    #[arg(long)]
    term_at: u64,
    /// When COMMAND is killed.
    #[arg(long)]
    kill_at: u64,
    /// What to run.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// When COMMAND is stopped, as flags.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct MarginArgs {
    /// COMMAND is asked to stop this long before the lease ends; by default a quarter of the TTL.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    term_before: Option<Duration>,
    /// COMMAND is killed this long before the lease ends; by default a twentieth of the TTL.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    kill_before: Option<Duration>,
}

impl MarginArgs {
    /// The margins for a TTL.
    pub(crate) fn of(&self, ttl: Duration) -> anyhow::Result<Margins> {
        let margins = Margins {
            term_before: self.term_before.unwrap_or(ttl / 4),
            kill_before: self
                .kill_before
                .unwrap_or((ttl / 20).max(Duration::from_millis(10))),
        };
        if margins.kill_before > margins.term_before || margins.term_before >= ttl / 2 {
            let message = format!(
                "--kill-before {:?} and --term-before {:?} do not suit --ttl {ttl:?}",
                margins.kill_before, margins.term_before
            );
            let hint = "keep kill-before <= term-before < ttl / 2: a lease is confirmed every third of the TTL";
            return Err(Failure::usage(message).with_hint(hint).into());
        }
        Ok(margins)
    }
}

/// How long before the end of the lease COMMAND is asked to stop, and killed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Margins {
    term_before: Duration,
    kill_before: Duration,
}

impl Margins {
    /// When COMMAND is asked to stop, and killed, where the lease ends at `until`.
    pub(crate) fn deadlines(&self, until: Time) -> (Time, Time) {
        (until - self.term_before, until - self.kill_before)
    }
}

/// Starts COMMAND behind a guard, which listens on its standard input.
pub(crate) fn start(
    command: &[String],
    term_at: Time,
    kill_at: Time,
    environment: impl IntoIterator<Item = (&'static str, String)>,
) -> anyhow::Result<tokio::process::Child> {
    let own = std::env::current_exe().context("find this program's own file")?;
    tokio::process::Command::new(own)
        .arg("__guard")
        .args(["--term-at", &term_at.0.to_string()])
        .args(["--kill-at", &kill_at.0.to_string(), "--"])
        .args(command)
        .envs(environment)
        .stdin(Stdio::piped())
        // Ctrl-C is for this process, which then stops COMMAND in good order.
        .process_group(0)
        .spawn()
        .context("start the guard of COMMAND")
}

/// What tells a guard until when the lease is confirmed.
pub(crate) fn lease_line(term_at: Time, kill_at: Time) -> String {
    format!("lease {} {}\n", term_at.0, kill_at.0)
}

/// A short line into an almost empty pipe: it fits, or the guard is gone or stuck and needs no word to act.
pub(crate) fn tell(input: &mut tokio::process::ChildStdin, line: &str) {
    use std::future::Future;
    use tokio::io::AsyncWriteExt;
    let mut write = std::pin::pin!(input.write_all(line.as_bytes()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let _ = write.as_mut().poll(&mut context);
}

/// Both deadlines, and how far the end has got.
#[derive(Debug)]
struct Deadlines {
    term_at: Time,
    kill_at: Time,
    asked_to_stop: bool,
}

/// What is due now.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Stop,
    Kill,
}

impl Deadlines {
    fn on_line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("lease") => {
                let mut time = || words.next().and_then(|word| word.parse().ok()).map(Time);
                if let (Some(term_at), Some(kill_at)) = (time(), time()) {
                    // Later confirmation gives COMMAND more time to stop in, but never calls off the stopping.
                    self.kill_at = self.kill_at.max(kill_at);
                    self.term_at = self.term_at.max(term_at);
                }
            }
            Some("stop") => self.term_at = Time::ZERO,
            _ => {}
        }
    }

    fn due(&mut self, now: Time) -> Due {
        if now >= self.kill_at {
            return Due::Kill;
        }
        if now >= self.term_at && !self.asked_to_stop {
            self.asked_to_stop = true;
            return Due::Stop;
        }
        Due::Nothing
    }

    fn next(&self) -> Time {
        if self.asked_to_stop {
            self.kill_at
        } else {
            self.term_at.min(self.kill_at)
        }
    }
}

/// Runs until COMMAND has ended; gives its exit code.
pub(crate) fn run(args: &GuardArgs) -> anyhow::Result<u8> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .context("become the sub-reaper of COMMAND")?;
    let mut child = process::this_program()?
        .arg("__exec")
        .arg("--")
        .args(&args.command)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .context("start COMMAND")?;
    let watched = watch(&mut child, args);
    if watched.is_err() {
        // Without a watch there must be no COMMAND.
        let _ = kill_process_group(process::pid(child.id()), Signal::KILL);
    }
    let status = child.wait().context("wait for COMMAND");
    process::kill_descendants();
    watched?;
    Ok(process::shell_code(status?))
}

fn watch(child: &mut Child, args: &GuardArgs) -> anyhow::Result<()> {
    let group = process::pid(child.id());
    let ended = pidfd_open(group, PidfdFlags::empty()).context("watch COMMAND")?;
    let timer =
        timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC).context("set a timer")?;
    let mut input = std::io::stdin();
    fcntl_setfl(&input, fcntl_getfl(&input)? | OFlags::NONBLOCK).context("read the deadlines")?;
    let mut input_open = true;
    let mut pending = Vec::new();
    let mut deadlines = Deadlines {
        term_at: Time(args.term_at),
        kill_at: Time(args.kill_at),
        asked_to_stop: false,
    };
    loop {
        match deadlines.due(clock::now()) {
            // Whoever is gone already needs no signal.
            Due::Stop => drop(kill_process_group(group, Signal::TERM)),
            Due::Kill => {
                let _ = kill_process_group(group, Signal::KILL);
                return Ok(());
            }
            Due::Nothing => {}
        }
        arm(&timer, deadlines.next())?;
        let mut fds = vec![
            PollFd::new(&ended, PollFlags::IN),
            PollFd::new(&timer, PollFlags::IN),
        ];
        let stdin = input.as_fd();
        if input_open {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for COMMAND or a deadline"),
        }
        if !fds[0].revents().is_empty() {
            return Ok(());
        }
        drop(fds);
        if input_open && !read_lines(&mut input, &mut pending, &mut deadlines) {
            input_open = false;
            deadlines.term_at = Time::ZERO;
        }
    }
}

/// Takes what has arrived; false at the end of input.
fn read_lines(input: &mut impl Read, pending: &mut Vec<u8>, deadlines: &mut Deadlines) -> bool {
    let mut chunk = [0; 4096];
    loop {
        match input.read(&mut chunk) {
            Ok(0) => return false,
            Ok(read) => pending.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = pending.drain(..=end).collect();
        deadlines.on_line(&String::from_utf8_lossy(&line));
    }
    true
}

/// Sets the timer to an absolute reading; a past one fires at once.
fn arm(timer: &impl AsFd, at: Time) -> anyhow::Result<()> {
    // Zero would disarm it.
    let at = at.0.max(1);
    let value = Timespec {
        tv_sec: i64::try_from(at / 1_000_000_000)
            .expect("nanoseconds in 64 bits are fewer seconds than i64 holds"),
        tv_nsec: i64::try_from(at % 1_000_000_000).expect("less than a second"),
    };
    let never = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    timerfd_settime(
        timer,
        TimerfdTimerFlags::ABSTIME,
        &Itimerspec {
            it_interval: never,
            it_value: value,
        },
    )
    .context("set the timer")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmed_lease_puts_both_deadlines_off_and_an_old_one_does_not_shorten_them() {
        let mut deadlines = Deadlines {
            term_at: Time(10),
            kill_at: Time(20),
            asked_to_stop: false,
        };
        deadlines.on_line("lease 30 40\n");
        deadlines.on_line("lease 25 35\n");
        assert_eq!((deadlines.term_at, deadlines.kill_at), (Time(30), Time(40)));
        assert_eq!(deadlines.due(Time(29)), Due::Nothing);
        assert_eq!(deadlines.due(Time(30)), Due::Stop);
        assert_eq!(deadlines.due(Time(31)), Due::Nothing);
        assert_eq!(deadlines.next(), Time(40));
        assert_eq!(deadlines.due(Time(40)), Due::Kill);
    }

    #[test]
    fn once_asked_to_stop_a_confirmation_only_gives_time_to_finish() {
        let mut deadlines = Deadlines {
            term_at: Time(10),
            kill_at: Time(20),
            asked_to_stop: false,
        };
        deadlines.on_line("stop\n");
        assert_eq!(deadlines.due(Time(5)), Due::Stop);
        deadlines.on_line("lease 30 40\n");
        assert_eq!(deadlines.due(Time(30)), Due::Nothing);
        assert_eq!(deadlines.due(Time(40)), Due::Kill);
    }

    #[test]
    fn both_deadlines_past_means_kill_and_garbage_is_ignored() {
        let mut deadlines = Deadlines {
            term_at: Time(10),
            kill_at: Time(20),
            asked_to_stop: false,
        };
        deadlines.on_line("lease 99\n");
        deadlines.on_line("lease x y\n");
        deadlines.on_line("\u{fffd}\n");
        assert_eq!(deadlines.due(Time(50)), Due::Kill);
    }
}
