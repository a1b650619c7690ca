//! Starts and stops the servers that are compared: processes of our own, on free ports, with their data in memory where there is
//! a file system for that.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use tempfile::TempDir;

/// Which program a side runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Etcd {
        path: PathBuf,
        /// Whether it is of version 3.5 or later: then more is asked of users, and less of the progress of watches.
        is_newer: bool,
    },
    /// Ours, and how many servers of it.
    Quorate(PathBuf, usize),
}

impl Program {
    /// Its name in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Etcd { .. } => "etcd",
            Self::Quorate(..) => "quorate",
        }
    }

    /// Whether it is an etcd of version 3.5 or later.
    pub(crate) fn is_newer(&self) -> bool {
        matches!(self, Self::Etcd { is_newer: true, .. })
    }
}

/// Servers that run until this is dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    processes: Vec<Child>,
    pub(crate) endpoints: Vec<String>,
    directory: TempDir,
}

impl Servers {
    /// Starts them. They may need a moment before they answer.
    pub(crate) fn start(program: &Program) -> anyhow::Result<Self> {
        let directory = scratch()?;
        let mut servers = Self {
            processes: Vec::new(),
            endpoints: Vec::new(),
            directory,
        };
        match program {
            Program::Etcd { path, .. } => {
                let [client, peer] = ports(2)?[..] else {
                    bail!("two ports were asked for");
                };
                servers.spawn(etcd(path, servers.directory.path(), client, peer), client)?;
            }
            Program::Quorate(path, count) => {
                let ports = ports(2 * count)?;
                for at in 0..*count {
                    let command = quorate(path, servers.directory.path(), &ports, at);
                    servers.spawn(command, ports[2 * at])?;
                }
            }
        }
        Ok(servers)
    }

    fn spawn(&mut self, mut command: Command, port: u16) -> anyhow::Result<()> {
        let log = self.log(self.processes.len());
        let log = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        self.processes.push(child);
        self.endpoints.push(format!("http://127.0.0.1:{port}"));
        Ok(())
    }

    fn log(&self, at: usize) -> PathBuf {
        self.directory.path().join(format!("{at}.log"))
    }

    /// The end of what a server that is gone had to say; `None` while all run.
    pub(crate) fn last_words(&mut self) -> Option<String> {
        for at in 0..self.processes.len() {
            if let Ok(Some(status)) = self.processes[at].try_wait() {
                let log = std::fs::read_to_string(self.log(at)).unwrap_or_default();
                let panic = log.find("panic").unwrap_or(log.len());
                let from = panic.min(log.len().saturating_sub(2_000));
                let from = (0..=from).rev().find(|at| log.is_char_boundary(*at));
                let said: String = log[from.unwrap_or(0)..].chars().take(3_000).collect();
                return Some(format!("server {at} ended ({status}): {said}"));
            }
        }
        None
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Gone already is as good.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A folder in memory where the system has one: waiting for disks would only make the comparison slow.
fn scratch() -> anyhow::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("etcd-diff-");
    if memory.is_dir() {
        builder.tempdir_in(memory)
    } else {
        builder.tempdir()
    }
    .context("make a folder for the servers' data")
}

/// Free ports: held all at once, so that they differ, and then let go.
fn ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()
        .context("find free ports")?;
    let ports = held.iter().map(|held| Ok(held.local_addr()?.port()));
    ports.collect()
}

fn etcd(path: &Path, directory: &Path, client: u16, peer: u16) -> Command {
    let client = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    let mut command = Command::new(path);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")) {
        command.env_remove(name);
    }
    command
        .arg("--data-dir")
        .arg(directory.join("etcd"))
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        // Leases of one second: the shortest is one and a half election timeouts, rounded up.
        .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
        .args(["--bcrypt-cost", "4"])
        .args(["--quota-backend-bytes", "8589934592"])
        .args(["--logger", "zap", "--log-level", "error"]);
    command
}

fn quorate(path: &Path, directory: &Path, ports: &[u16], at: usize) -> Command {
    let members: Vec<String> = (1..)
        .zip(ports.chunks(2))
        .map(|(n, pair)| format!("s{n}=127.0.0.1:{}/127.0.0.1:{}", pair[1], pair[0]))
        .collect();
    let mut command = Command::new(path);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUORATE_")) {
        command.env_remove(name);
    }
    command
        .args(["--die-with", &std::process::id().to_string(), "server"])
        .args(["--name", &format!("s{}", at + 1)])
        .args(["--initial-cluster", &members.join(",")])
        .args(["--client-listen", &format!("127.0.0.1:{}", ports[2 * at])])
        .args(["--peer-listen", &format!("127.0.0.1:{}", ports[2 * at + 1])])
        // As cheap as the other side's: hashing would take most of the time.
        .args(["--bcrypt-cost", "4"])
        .arg("--data-dir")
        .arg(directory.join(format!("s{}", at + 1)));
    command
}
