//! The parent's side of a child: starting it, hearing it, killing it.
//!
//! Owns: the child's life (none outlives its handle). Deliberately absent: what its reports mean for the promises (`judge.rs`).

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use quorate_storage::SnapshotMeta;
use quorate_types::{LogIndex, Term};

use crate::child::{ENV, Role, Task};

/// The name of the test that is the child's body.
const BODY: &str = "body_of_the_process_that_is_killed";

/// What the parent waits for.
#[derive(Debug)]
pub(crate) enum Event {
    /// A line of the child.
    Line(String),
    /// The child's end of the socket is closed.
    End,
    /// The block store has lost power.
    PowerCut,
}

/// A running child.
pub(crate) struct Running {
    child: Child,
    events: Receiver<Event>,
    /// For others who want to wake the parent.
    sender: Sender<Event>,
    /// Whether all that it ever said has been heard.
    is_ended: bool,
}

/// What a child has said until it ended.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) is_opened: bool,
    /// Steps acknowledged.
    pub(crate) acked: u64,
    pub(crate) is_done: bool,
    pub(crate) error: Option<String>,
    /// Of a child that looks.
    pub(crate) is_new: bool,
    pub(crate) disk: u64,
    pub(crate) snapshots: BTreeSet<SnapshotMeta>,
    pub(crate) found: Option<Found>,
}

/// What a child that looked has found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) fingerprint: String,
    pub(crate) torn_bytes: u64,
    pub(crate) shown: String,
}

impl Report {
    pub(crate) fn take(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "opened" => self.is_opened = true,
            "done" => self.is_done = true,
            "identity" => {
                let (is_new, disk) = rest.split_once(' ').expect("two numbers");
                self.is_new = is_new == "1";
                self.disk = disk.parse().expect("a number");
            }
            "error" => self.error = Some(rest.to_owned()),
            "ack" => {
                let number: u64 = rest.parse().expect("a step has a number");
                assert_eq!(number, self.acked + 1, "steps are acknowledged in order");
                self.acked = number;
            }
            "snapshot" => {
                let (index, term) = rest.split_once(' ').expect("two numbers");
                let number = |text: &str| text.parse().expect("a number");
                self.snapshots.insert(SnapshotMeta {
                    index: LogIndex(number(index)),
                    term: Term(number(term)),
                });
            }
            "found" => {
                let mut fields = rest.splitn(3, ' ');
                let mut field = || fields.next().expect("three fields").to_owned();
                self.found = Some(Found {
                    fingerprint: field(),
                    torn_bytes: field().parse().expect("a number"),
                    shown: field(),
                });
            }
            // The killed process may have written half a line.
            _ => assert!(
                ["ack", "opened", "found", "snapshot"]
                    .iter()
                    .any(|known| known.starts_with(word)),
                "a child said {line:?}"
            ),
        }
    }
}

impl Running {
    pub(crate) fn start(task: &Task) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets are to be had");
        let child = Command::new(std::env::current_exe().expect("a test has a path"))
            .args([BODY, "--exact", "--ignored", "--nocapture", "--quiet"])
            .env(ENV, task.encode())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()
            .expect("this test can be started again");
        let (sender, events) = channel();
        let lines = sender.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(ours).lines() {
                let Ok(line) = line else { break };
                // The parent has given up: nobody listens.
                if lines.send(Event::Line(line)).is_err() {
                    return;
                }
            }
            lines.send(Event::End).ok();
        });
        Self {
            child,
            events,
            sender,
            is_ended: false,
        }
    }

    /// Where others may announce a power cut.
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// The next event.
    pub(crate) fn next(&mut self) -> Event {
        let event = self
            .events
            .recv_timeout(Duration::from_secs(120))
            .expect("a child says something within two minutes");
        self.is_ended |= matches!(event, Event::End);
        event
    }

    /// Kills the child with SIGKILL, and hears all that it has said.
    pub(crate) fn kill(mut self, report: &mut Report) -> Option<i32> {
        self.child.kill().expect("it is our child");
        let status = self.child.wait().expect("it is our child");
        while !self.is_ended {
            match self.next() {
                Event::Line(line) => report.take(&line),
                Event::PowerCut | Event::End => {}
            }
        }
        std::os::unix::process::ExitStatusExt::signal(&status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone where all went well.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Lets a child look at a data directory until it ends by itself.
pub(crate) fn look(path: &std::path::Path) -> Report {
    let mut running = Running::start(&Task {
        path: path.to_owned(),
        role: Role::Look,
    });
    let mut report = Report::default();
    loop {
        match running.next() {
            Event::Line(line) => report.take(&line),
            Event::PowerCut => {}
            Event::End => return report,
        }
    }
}

/// Keeps the processor busy for a moment, so that a kill hits any instruction.
pub(crate) fn spin(moment: Duration) {
    let start = Instant::now();
    while start.elapsed() < moment {
        std::hint::spin_loop();
    }
}
