//! The demo's servers: three processes of this very program.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::Context as _;
use quorate_types::ReplicaId;

use crate::commands::ports::free_ports;
use crate::process;

/// How many.
pub(super) const SERVERS: u64 = 3;

struct ServerProcess {
    child: Option<Child>,
    client_port: u16,
    peer_port: u16,
}

/// The three servers. Those that run are killed when this is dropped.
pub(super) struct Cluster {
    directory: PathBuf,
    initial_cluster: String,
    servers: Vec<ServerProcess>,
}

impl Cluster {
    /// Starts them.
    pub(super) fn start(directory: &Path) -> anyhow::Result<Self> {
        let ports = free_ports(usize::try_from(SERVERS * 2).expect("a small number"))?;
        let servers: Vec<ServerProcess> = ports
            .chunks(2)
            .map(|pair| ServerProcess {
                child: None,
                client_port: pair[0],
                peer_port: pair[1],
            })
            .collect();
        let initial_cluster: Vec<String> = (1..=SERVERS)
            .zip(&servers)
            .map(|(n, server)| {
                format!(
                    "s{n}=127.0.0.1:{}/127.0.0.1:{}",
                    server.peer_port, server.client_port
                )
            })
            .collect();
        let mut cluster = Self {
            directory: directory.to_owned(),
            initial_cluster: initial_cluster.join(","),
            servers,
        };
        for id in 1..=SERVERS {
            cluster.start_one(ReplicaId(id))?;
        }
        Ok(cluster)
    }

    /// Starts a server that does not run.
    pub(super) fn start_one(&mut self, id: ReplicaId) -> anyhow::Result<()> {
        let name = format!("s{id}");
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.directory.join(format!("{name}.log")))
            .context("open a log file")?;
        let data_dir = self.directory.join(&name);
        let initial_cluster = self.initial_cluster.clone();
        let server = self.server(id);
        assert!(server.child.is_none(), "server {id} runs already");
        let child = process::this_program()?
            .arg("server")
            .args([
                "--name",
                &name,
                "--initial-cluster",
                &initial_cluster,
                "--cluster-token",
                "demo",
            ])
            .args([
                "--client-listen",
                &format!("127.0.0.1:{}", server.client_port),
            ])
            .args(["--peer-listen", &format!("127.0.0.1:{}", server.peer_port)])
            .args(["--log-filter", "info"])
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start server {name}"))?;
        server.child = Some(child);
        Ok(())
    }

    /// Kills a server as `kill -9` does.
    pub(super) fn kill(&mut self, id: ReplicaId) -> anyhow::Result<()> {
        if let Some(mut child) = self.server(id).child.take() {
            child.kill().context("kill a server")?;
            child.wait().context("wait for a killed server")?;
        }
        Ok(())
    }

    fn server(&mut self, id: ReplicaId) -> &mut ServerProcess {
        let place = usize::try_from(id.0 - 1).expect("a small number");
        &mut self.servers[place]
    }

    /// A server that ended on its own, which none may.
    pub(super) fn ended(&mut self) -> Option<String> {
        (1..).zip(&mut self.servers).find_map(|(n, server)| {
            let status = server.child.as_mut()?.try_wait().ok()??;
            Some(format!("server s{n} ended on its own ({status})"))
        })
    }

    pub(super) fn endpoint(&self, id: ReplicaId) -> String {
        let place = usize::try_from(id.0 - 1).expect("a small number");
        format!("http://127.0.0.1:{}", self.servers[place].client_port)
    }

    pub(super) fn endpoints(&self) -> Vec<String> {
        (1..=SERVERS)
            .map(|id| self.endpoint(ReplicaId(id)))
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self
            .servers
            .iter_mut()
            .filter_map(|server| server.child.as_mut())
        {
            // Gone already: what was wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
