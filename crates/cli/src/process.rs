//! Processes that must not outlive the one that started them.
//!
//! Deliberately absent: `unsafe` code between fork and exec. A child asks for its own death signal as the first thing
//! it does, and then checks that its parent still is who started it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

use anyhow::Context;
use rustix::process::{Pid, Signal};

use crate::exit::Failure;

/// This program once more, to die with this process: even when that is killed with -9, and even while stopped.
///
/// The kernel ties the death signal to the *thread* that starts the child, so start it from the main thread.
pub(crate) fn this_program() -> anyhow::Result<Command> {
    let mut command =
        Command::new(std::env::current_exe().context("find this program's own file")?);
    command
        .arg("--die-with")
        .arg(std::process::id().to_string());
    Ok(command)
}

/// Called first by a child that is to die with `parent`.
pub(crate) fn die_with(parent: u32) -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .context("ask to die with the parent")?;
    // The parent may have died before the line above: then no signal will come.
    let found =
        rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
    if found != parent {
        return Err(Failure::usage(format!(
            "--die-with {parent}: the parent of this process is {found}"
        ))
        .into());
    }
    Ok(())
}

/// Becomes `command`: same process id, so that the death signal asked for stays in force.
pub(crate) fn become_command(command: &[String]) -> anyhow::Error {
    let [program, arguments @ ..] = command else {
        return Failure::usage("no command to run").into();
    };
    let error = Command::new(program).args(arguments).exec();
    anyhow::Error::new(error).context(format!("run `{program}`"))
}

/// The process id of a child as the kernel calls take it.
pub(crate) fn pid(id: u32) -> Pid {
    let raw = i32::try_from(id).expect("process ids of Linux fit");
    Pid::from_raw(raw).expect("a child's process id is not zero")
}

/// The exit code that a shell would report.
pub(crate) fn shell_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code & 0xff).expect("masked to eight bits")
}

/// Processes whose parent is this one.
fn children() -> Vec<Pid> {
    let own = std::process::id();
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return found;
    };
    for entry in entries.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        // `pid (name) state ppid ...`; the name may hold anything, so count from its closing parenthesis.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        if rest
            .split_whitespace()
            .nth(1)
            .and_then(|ppid| ppid.parse().ok())
            == Some(own)
        {
            found.push(pid(id));
        }
    }
    found
}

/// Kills and reaps whatever is left below this process. With this process as their sub-reaper, grandchildren whose
/// parents died turn up here, so that nothing escapes by leaving the process group.
pub(crate) fn kill_descendants() {
    // Each round reaps at least one process; a fork bomb is not waited for.
    for _ in 0..1_000 {
        let left = children();
        if left.is_empty() {
            return;
        }
        for child in &left {
            // Gone meanwhile: what was wanted.
            let _ = rustix::process::kill_process(*child, Signal::KILL);
        }
        for child in left {
            let _ = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty());
        }
    }
}
