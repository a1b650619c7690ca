//! `quorate snapshot`: a state to keep elsewhere, and a new cluster from it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_server::{Saved, SavedSummary};
use quorate_types::ClusterEpoch;
use serde::Serialize;

use super::kv::AsUser;
use super::server::ServerArgs;
use crate::args::duration;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::Format;

const RESTORE_HELP: &str = "\
Run it once for each server of the new cluster, on its machine, with the same FILE, --epoch and --ttl-longest, and with the options that the
server will be run with (or --config). Then start the servers. Stop those of the old cluster first: their epoch keeps them apart, but
clients that still reach them would be led by two clusters.

Examples:
  quorate snapshot restore saved --config /etc/quorate/s1.toml
  quorate snapshot restore saved --name s1 --initial-cluster s1=a:2380,s2=b:2380,s3=c:2380 --data-dir /var/lib/quorate";

/// How long the saving of a large state may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// After how long progress is told, and how often.
const SHOW_EVERY: Duration = Duration::from_secs(2);

/// Snapshots: the whole state in a file.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, once")]
enum Verb {
    /// Save the state of the cluster, as one of its servers has it.
    Save {
        /// Where to.
        file: PathBuf,
        #[command(flatten)]
        as_user: AsUser,
    },
    /// Check a saved snapshot, and say what it holds.
    Status {
        /// Which.
        file: PathBuf,
    },
    /// Make the data directory of one server of a new cluster from a saved snapshot.
    #[command(after_help = RESTORE_HELP)]
    Restore(RestoreArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct RestoreArgs {
    /// Which.
    file: PathBuf,
    /// The epoch of the new cluster; by default the one after the snapshot's. Restoring the same snapshot once more needs a higher one.
    #[arg(long, value_name = "NUMBER")]
    epoch: Option<u64>,
    /// The longest TTL of any node's session that may have been opened after the snapshot. Nobody leads before it has passed.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    ttl_longest: Duration,
    #[command(flatten)]
    server: ServerArgs,
}

/// What a snapshot holds, as it is printed.
#[derive(Serialize)]
struct Summary {
    epoch: u64,
    members: Vec<String>,
    index: u64,
    term: u64,
    revision: u64,
    kv_revision: u64,
    keys: u64,
    kv_bytes: u64,
    sessions: u64,
    groups: u64,
    file_bytes: u64,
}

impl Summary {
    fn of(summary: &SavedSummary, file_bytes: u64) -> Self {
        Self {
            epoch: summary.epoch.0,
            members: summary.members.clone(),
            index: summary.index,
            term: summary.term,
            revision: summary.revision,
            kv_revision: summary.kv_revision,
            keys: summary.keys,
            kv_bytes: summary.kv_bytes,
            sessions: summary.sessions,
            groups: summary.groups,
            file_bytes,
        }
    }

    fn lines(&self) -> String {
        [
            format!(
                "cluster      {}; epoch {}",
                self.members.join(", "),
                self.epoch
            ),
            format!("entry        {} of term {}", self.index, self.term),
            format!("revision     {}", self.revision),
            format!(
                "key space    {} keys at revision {}, {} bytes with its history",
                self.keys, self.kv_revision, self.kv_bytes
            ),
            format!("groups       {}", self.groups),
            format!("sessions     {}, leases included", self.sessions),
            format!(
                "file         {} bytes; its checksum is right",
                self.file_bytes
            ),
        ]
        .join("\n")
    }
}

impl SnapshotArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        match &self.verb {
            Verb::Save { file, as_user } => save(context, file, as_user).await,
            Verb::Status { file } => {
                let (saved, bytes) = read(file)?;
                let summary = Summary::of(&saved.summary(), bytes);
                context.done(&summary, &summary.lines())
            }
            Verb::Restore(args) => args.run(context),
        }
    }
}

async fn save(context: &Context, file: &Path, as_user: &AsUser) -> anyhow::Result<u8> {
    let shown = file.display();
    let mut stream = as_user.kv(context)?.snapshot().await?;
    let mut bytes = Vec::new();
    let begun = Instant::now();
    let mut told = begun;
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, stream.message()).await;
        let broken = |why: String| {
            let message = format!("save a snapshot: {why} after {} bytes", bytes.len());
            Failure::new(Code::Unavailable, message).with_hint("try again; nothing was written")
        };
        let part = match next {
            Ok(Ok(Some(part))) => part,
            Ok(Ok(None)) => break,
            Ok(Err(status)) => return Err(broken(status.message().to_owned()).into()),
            Err(_) => return Err(broken(format!("nothing came for {SILENCE_MAX:?}")).into()),
        };
        bytes.extend_from_slice(&part.blob);
        if told.elapsed() >= SHOW_EVERY && context.format() == Format::Table {
            told = Instant::now();
            eprintln!("{} bytes, {} to come", bytes.len(), part.remaining_bytes);
        }
    }
    // Nothing is called saved that could not be restored.
    let saved = Saved::read(&format!("{shown}"), &bytes)
        .with_context(|| format!("check what was received for `{shown}`"))?;
    let mut aside = file.as_os_str().to_owned();
    aside.push(".part");
    let aside = PathBuf::from(aside);
    let write = || -> std::io::Result<()> {
        let mut out = std::fs::File::create(&aside)?;
        out.write_all(&bytes)?;
        out.sync_all()?;
        std::fs::rename(&aside, file)
    };
    write().with_context(|| format!("write `{shown}`"))?;
    let summary = Summary::of(&saved.summary(), bytes.len() as u64);
    let sentence = format!("saved `{shown}`\n{}", summary.lines());
    context.done(&summary, &sentence)
}

fn read(file: &Path) -> anyhow::Result<(Saved, u64)> {
    let shown = file.display().to_string();
    let bytes =
        std::fs::read(file).map_err(|error| Failure::usage(format!("read `{shown}`: {error}")))?;
    let begun = Instant::now();
    let saved = Saved::read(&shown, &bytes)
        .map_err(|error| Failure::usage(format!("{:#}", anyhow::Error::new(error))))?;
    if begun.elapsed() >= SHOW_EVERY {
        eprintln!("checked `{shown}` in {:?}", begun.elapsed());
    }
    Ok((saved, bytes.len() as u64))
}

#[derive(Serialize)]
struct Done {
    data_dir: PathBuf,
    cluster: String,
    epoch: u64,
    kv_revision: u64,
    nothing_granted_for_ms: u128,
}

impl RestoreArgs {
    fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let config = self.server.clone().resolve()?;
        let (saved, _) = read(&self.file)?;
        if context.format() == Format::Table {
            eprintln!("restoring into `{}` ...", config.data_dir.display());
        }
        let restored = saved
            .restore(&config, self.epoch.map(ClusterEpoch), self.ttl_longest)
            .map_err(|error| {
                let failure = Failure::new(
                    Code::Conflict,
                    format!("restore: {:#}", anyhow::Error::new(error)),
                );
                failure.with_hint("give --data-dir a directory that is empty or not there, and --epoch a number above the snapshot's")
            })?;
        let done = Done {
            data_dir: config.data_dir.clone(),
            cluster: restored.cluster.to_string(),
            epoch: restored.epoch.0,
            kv_revision: restored.kv_revision,
            nothing_granted_for_ms: restored.waits.as_millis(),
        };
        let sentence = format!(
            "restored `{}`: cluster {}, epoch {}; the key space goes on at revision {}, and nobody leads for {:?} after the start",
            done.data_dir.display(),
            done.cluster,
            done.epoch,
            done.kv_revision,
            restored.waits
        );
        context.done(&done, &sentence)
    }
}
