//! `quorate dev`: three servers in one process, for development.

use std::path::PathBuf;

use anyhow::Context as _;
use quorate_server::{ConfigFile, Server};
use serde::Serialize;

use super::ports::free_ports;
use super::server::{serve, start_logging};
use crate::context::Context;
use crate::output::{self, Format};

/// Runs three voters on this machine's loopback address.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DevArgs {
    /// Where the servers keep their state; by default a directory that goes with the process.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The first server's port for clients; the others take the next ones. 0: any free ports.
    #[arg(long, default_value_t = quorate_server::config::CLIENT_PORT)]
    port: u16,
    /// What is logged.
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log_filter: String,
}

#[derive(Serialize)]
struct Started<'a> {
    endpoints: &'a [String],
    data_dir: &'a std::path::Path,
}

const SERVERS: u16 = 3;

impl DevArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        start_logging(&self.log_filter)?;
        // Removed when this function ends.
        let temporary = if self.data_dir.is_none() {
            Some(
                tempfile::Builder::new()
                    .prefix("quorate-dev-")
                    .tempdir()
                    .context("make a temporary directory")?,
            )
        } else {
            None
        };
        let directory = match (&self.data_dir, &temporary) {
            (Some(directory), _) => directory.as_path(),
            (None, Some(temporary)) => temporary.path(),
            (None, None) => unreachable!("made above where none was given"),
        };
        let ports = self.ports()?;
        let cluster: Vec<String> = ports
            .iter()
            .zip(1..)
            .map(|((client, peer), n)| format!("dev{n}=127.0.0.1:{peer}/127.0.0.1:{client}"))
            .collect();
        let cluster = cluster.join(",");
        let mut servers = Vec::new();
        for ((client, peer), n) in ports.iter().zip(1..) {
            let file = ConfigFile {
                name: Some(format!("dev{n}")),
                data_dir: Some(directory.join(format!("dev{n}"))),
                client_listen: Some(format!("127.0.0.1:{client}")),
                peer_listen: Some(format!("127.0.0.1:{peer}")),
                initial_cluster: Some(cluster.clone()),
                cluster_token: Some("dev".to_owned()),
                // All three stop together: there is nobody to hand over to.
                shutdown_timeout_ms: Some(100),
                ..ConfigFile::default()
            };
            let config = file.resolve().context("check the configuration")?;
            servers.push(
                Server::start(&config)
                    .with_context(|| format!("start server dev{n} on port {client}"))?,
            );
        }
        let endpoints: Vec<String> = ports
            .iter()
            .map(|(client, _)| format!("http://127.0.0.1:{client}"))
            .collect();
        match context.format() {
            Format::Json => output::json_line(&Started {
                endpoints: &endpoints,
                data_dir: directory,
            })?,
            Format::Table => {
                output::line(format!(
                    "three servers run; their data: {}",
                    directory.display()
                ))?;
                output::line(format!("export QUORATE_ENDPOINTS={}", endpoints.join(",")))?;
                output::line("quorate status   # in another terminal; Ctrl-C here stops them")?;
            }
        }
        serve(servers).await
    }

    /// Each server's ports for clients and for peers. A data directory remembers its cluster by the peers' addresses, so
    /// given ports stay the same from run to run.
    fn ports(&self) -> anyhow::Result<Vec<(u16, u16)>> {
        if self.port == 0 {
            let free = free_ports(usize::from(SERVERS) * 2)?;
            return Ok(free.chunks(2).map(|pair| (pair[0], pair[1])).collect());
        }
        let port = |offset: u16| {
            self.port
                .checked_add(offset)
                .with_context(|| format!("--port {}: no room for {offset} more ports", self.port))
        };
        // 2379 and 2380 are the usual pair of one server; three of them keep that shape.
        (0..SERVERS)
            .map(|n| Ok((port(n * 10)?, port(n * 10 + 1)?)))
            .collect()
    }
}
