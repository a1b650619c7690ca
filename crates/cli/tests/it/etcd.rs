//! A real etcd beside the servers under test, where one is installed.

use std::process::{Command, Stdio};

use crate::harness::{Process, Said, eventually, free_ports, quorate, run};

/// A running etcd, of one member.
pub(crate) struct Etcd {
    _process: Process,
    _directory: tempfile::TempDir,
    pub(crate) endpoint: String,
}

impl Etcd {
    /// Starts one; none where no etcd is installed, which continuous integration does not let pass.
    pub(crate) fn start() -> Option<Self> {
        let is_there = Command::new("etcd")
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok();
        if !is_there {
            assert!(std::env::var_os("CI").is_none(), "etcd is not installed");
            eprintln!("skipped: no etcd is installed");
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let ports = free_ports(2);
        let client = format!("http://127.0.0.1:{}", ports[0]);
        let peer = format!("http://127.0.0.1:{}", ports[1]);
        // Clusters of the same name, addresses and token would have the same id.
        let name = format!("e{}", ports[0]);
        let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name, "--initial-cluster-token", &name])
            .args(["--initial-cluster", &format!("{name}={peer}")])
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let etcd = Self {
            _process: Process::spawn(&mut command),
            _directory: directory,
            endpoint: client,
        };
        eventually("etcd answers", || {
            let said = etcd.run(&["kv", "get", "", "--prefix", "--timeout", "1s"]);
            (said.code == 0).then_some(())
        });
        Some(etcd)
    }

    /// A command against it.
    pub(crate) fn quorate(&self, arguments: &[&str]) -> Command {
        let mut command = quorate();
        command
            .args(["--endpoints", &self.endpoint])
            .args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        run(&mut self.quorate(arguments))
    }
}
