//! Servers as processes of the binary under test, and what runs commands against them.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use quorate_client::api::ServerStatus;
use quorate_client::{Client, ClientOptions};
use rustix::process::{Pid, Signal, kill_process};

/// The binary under test, to die with the test.
pub(crate) fn quorate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("QUORATE_")) {
        command.env_remove(name);
    }
    command
        .arg("--die-with")
        .arg(std::process::id().to_string())
        .stdin(Stdio::null());
    command
}

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("output is UTF-8");
    Said {
        code: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

pub(crate) fn run(command: &mut Command) -> Said {
    said(&command.output().expect("the binary runs"))
}

impl Said {
    /// The output of a command that must have worked.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// A failure's code, that its message says `needle`, and that its hint is on a line of its own.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, needle: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(needle), "{needle:?} is not in {self:?}");
        assert_eq!(self.out, "", "{self:?}");
    }

    #[track_caller]
    pub(crate) fn hints(&self, needle: &str) {
        let hint = self.err.lines().find(|line| line.starts_with("hint: "));
        assert!(
            hint.is_some_and(|hint| hint.contains(needle)),
            "{needle:?} is not hinted at in {self:?}"
        );
    }
}

/// Waits for something to come about; polls, for what cannot be awaited.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{what}: not so after 30 s"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn signal(id: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(id).expect("process ids fit")).expect("not zero");
    kill_process(pid, signal).expect("the process is there");
}

/// Whether a process is there and not only waits to be reaped.
pub(crate) fn is_alive(id: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else {
        return false;
    };
    let state = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().next().map(str::to_owned));
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// A process that is killed when the test ends.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().expect("the binary starts"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, what: Signal) {
        signal(self.id(), what);
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = eventually("the process ends", || {
            self.0.try_wait().expect("it is ours")
        });
        status
            .code()
            .unwrap_or_else(|| -status.signal().unwrap_or(0))
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it is ours");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports below those that the kernel gives to outgoing connections, so that a restarted server finds its own free.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let random = RandomState::new();
    let mut found = BTreeSet::new();
    for attempt in 0..10_000_u64 {
        let port = 12_000 + u16::try_from(random.hash_one(attempt) % 8_000).expect("small");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            found.insert(port);
        }
        if found.len() == count {
            return found.into_iter().collect();
        }
    }
    panic!("no {count} free ports");
}

/// Three servers.
pub(crate) struct Cluster {
    directory: tempfile::TempDir,
    ports: Vec<(u16, u16)>,
    data: Vec<PathBuf>,
    servers: Vec<Option<Process>>,
    /// What every server is started with beside its addresses.
    flags: Vec<String>,
}

impl Cluster {
    /// Starts three servers and waits until they have a leader.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same, each with these flags.
    pub(crate) fn start_with(flags: &[&str]) -> Self {
        let mut cluster = Self::prepare();
        cluster.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        for n in 0..3 {
            cluster.start_server(n);
        }
        cluster.wait_ready();
        cluster
    }

    /// Three servers that do not run yet.
    pub(crate) fn prepare() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ports: Vec<(u16, u16)> = free_ports(6)
            .chunks(2)
            .map(|pair| (pair[0], pair[1]))
            .collect();
        let data = (1..=3)
            .map(|n| directory.path().join(format!("s{n}")))
            .collect();
        Self {
            directory,
            ports,
            data,
            servers: vec![None, None, None],
            flags: Vec::new(),
        }
    }

    /// Servers at the same addresses, with other data, that do not run yet.
    pub(crate) fn moved(&self) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let data = (1..=3).map(|n| directory.path().join(format!("s{n}")));
        Self {
            data: data.collect(),
            directory,
            ports: self.ports.clone(),
            servers: vec![None, None, None],
            flags: Vec::new(),
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Has a server keep its data elsewhere.
    pub(crate) fn place(&mut self, n: usize, data_dir: &Path) {
        self.data[n] = data_dir.to_owned();
    }

    pub(crate) fn data_dir(&self, n: usize) -> &Path {
        &self.data[n]
    }

    /// The command that runs a server.
    pub(crate) fn server_command(&self, n: usize) -> Command {
        let (client, peer) = self.ports[n];
        self.server_command_on(
            n,
            &format!("127.0.0.1:{client}"),
            &format!("127.0.0.1:{peer}"),
        )
    }

    /// The same, on other addresses than its cluster knows.
    pub(crate) fn server_command_on(&self, n: usize, client: &str, peer: &str) -> Command {
        let members: Vec<String> = (1..)
            .zip(&self.ports)
            .map(|(n, (client, peer))| format!("s{n}=127.0.0.1:{peer}/127.0.0.1:{client}"))
            .collect();
        let mut command = quorate();
        command
            .arg("server")
            .args([
                "--name",
                &format!("s{}", n + 1),
                "--initial-cluster",
                &members.join(","),
            ])
            .args(["--client-listen", client, "--peer-listen", peer])
            .arg("--data-dir")
            .arg(&self.data[n])
            .args(&self.flags);
        command
    }

    pub(crate) fn start_server(&mut self, n: usize) {
        let log = self.log_path(n);
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(log)
            .expect("a log file");
        let process = Process::spawn(self.server_command(n).stdout(Stdio::null()).stderr(log));
        self.servers[n] = Some(process);
    }

    pub(crate) fn log_path(&self, n: usize) -> PathBuf {
        self.directory.path().join(format!("s{}.log", n + 1))
    }

    pub(crate) fn server(&mut self, n: usize) -> &mut Process {
        self.servers[n].as_mut().expect("the server runs")
    }

    /// `kill -9`.
    pub(crate) fn kill_server(&mut self, n: usize) {
        self.servers[n].take().expect("the server runs").kill();
    }

    /// Takes a server out, to be waited for.
    pub(crate) fn take_server(&mut self, n: usize) -> Process {
        self.servers[n].take().expect("the server runs")
    }

    pub(crate) fn endpoint(&self, n: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[n].0)
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        (0..3).map(|n| self.endpoint(n)).collect()
    }

    /// A command against all servers.
    pub(crate) fn quorate(&self, arguments: &[&str]) -> Command {
        let mut command = quorate();
        command
            .args(["--endpoints", &self.endpoints().join(",")])
            .args(arguments);
        command
    }

    /// Runs a command against all servers.
    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        run(&mut self.quorate(arguments))
    }

    pub(crate) fn wait_ready(&self) {
        eventually("the servers have a leader", || {
            (self.run(&["node", "list", "--timeout", "5s"]).code == 0).then_some(())
        });
    }

    pub(crate) fn client(&self) -> Client {
        Client::lazy(self.endpoints(), ClientOptions::default())
            .expect("the endpoints are well-formed")
    }

    pub(crate) async fn status(&self) -> ServerStatus {
        let client = self.client();
        loop {
            let status = client.status().await.expect("a server answers");
            if status.leader.is_some() {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The position of the leader.
    pub(crate) async fn leader(&self) -> usize {
        let leader = self.status().await.leader.expect("waited for one");
        usize::try_from(leader.0 - 1).expect("small")
    }
}
