//! `quorate snapshot`: a state to keep elsewhere, and a new cluster from it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use quorate_client::kv::revision_of;
use quorate_server::{BackupCheck, Saved, SavedSummary};
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

/// What was saved, as it is printed.
#[derive(Serialize)]
struct Kept<'a> {
    file: &'a Path,
    file_bytes: u64,
    kv_revision: u64,
}

/// A file under another name, until it is whole. Dropped before that, it is taken away.
struct Aside {
    path: Option<PathBuf>,
    out: std::fs::File,
}

impl Aside {
    fn create(file: &Path) -> std::io::Result<Self> {
        let mut path = file.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let out = std::fs::File::create(&path)?;
        Ok(Self {
            path: Some(path),
            out,
        })
    }

    /// Gives it its name, once it is on disk.
    fn keep(mut self, file: &Path) -> std::io::Result<()> {
        self.out.sync_all()?;
        if let Some(path) = &self.path {
            std::fs::rename(path, file)?;
        }
        self.path = None;
        // The name is on disk when its directory is.
        let directory = match file.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        std::fs::File::open(directory)?.sync_all()
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Who finds it left over can take it away as well.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Writes what comes as it comes: the state may be larger than the memory here. It gets its name when it is whole.
async fn save(context: &Context, file: &Path, as_user: &AsUser) -> anyhow::Result<u8> {
    let shown = file.display();
    let mut stream = as_user.kv(context)?.snapshot().await?;
    let mut aside =
        Aside::create(file).map_err(|error| Failure::usage(format!("write `{shown}`: {error}")))?;
    let mut check = BackupCheck::default();
    let (mut bytes, mut kv_revision) = (0_u64, 0);
    let mut told = Instant::now();
    loop {
        let next = tokio::time::timeout(SILENCE_MAX, stream.message()).await;
        let broken = |why: String| {
            let message = format!("save a snapshot: {why} after {bytes} bytes");
            Failure::new(Code::Unavailable, message).with_hint("try again; nothing was kept")
        };
        let part = match next {
            Ok(Ok(Some(part))) => part,
            Ok(Ok(None)) => break,
            Ok(Err(status)) => return Err(broken(status.message().to_owned()).into()),
            Err(_) => return Err(broken(format!("nothing came for {SILENCE_MAX:?}")).into()),
        };
        let checked = check.take(&part.blob);
        checked.with_context(|| format!("check what was received for `{shown}`"))?;
        let written = aside.out.write_all(&part.blob);
        written.with_context(|| format!("write `{shown}`"))?;
        bytes += part.blob.len() as u64;
        kv_revision = revision_of(part.header.as_ref());
        if told.elapsed() >= SHOW_EVERY && context.format() == Format::Table {
            told = Instant::now();
            eprintln!("{bytes} bytes, {} to come", part.remaining_bytes);
        }
    }
    let checked = check.finish();
    checked.with_context(|| format!("check what was received for `{shown}`"))?;
    let kept = aside.keep(file);
    kept.with_context(|| format!("write `{shown}`"))?;
    let kept = Kept {
        file,
        file_bytes: bytes,
        kv_revision,
    };
    let sentence = format!(
        "saved `{shown}`: {bytes} bytes, the key space at revision {kv_revision}; its checksum is right"
    );
    context.done(&kept, &sentence)
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
