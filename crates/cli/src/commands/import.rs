//! `quorate import etcd`: moves a key space between servers that speak etcd's API, into Quorate or out of it.
//!
//! Copies all keys and leases as of one revision, then follows by watch, and cuts over once nothing changes any more. How far it has
//! got is kept in the destination, in the same transactions that write there, so that it resumes exactly where it was.
//! Deliberately absent: users and roles; history, revisions and versions, which begin anew.

mod copy;
mod follow;
mod leases;
mod sink;

use std::path::PathBuf;
use std::time::Duration;

use quorate_client::Kv;
use quorate_client::kv::{KeyRange, Read};
use serde::Serialize;

use crate::args::duration;
use crate::commands::kv::encoding::to_hex;
use crate::context::{Certificates, Context};
use crate::exit::{Code, Failure};
use crate::output::{self, Format};
use sink::Sink;

/// Keys that the servers of Quorate write themselves: neither copied nor compared.
const RESERVED: &[u8] = b"/quorate/";

const STEPS: &str = "\
Steps, so that there are never two leaders (docs/operating/moving-from-etcd.md):
  1. quorate import etcd --from http://etcd:2379 --to http://quorate:2379      copies, then follows; leave it running
  2. stop what writes to the source, or fence it off: enable authentication with a user that only this command knows
     (--from-user), then
  3. kill -USR1 its process, or start it again with --cut-over                 waits until all is there, compares both sides
  4. once it says so, point the clients at the destination; never let them write to the source again

The way back is the same command with --from and --to exchanged.";

/// Moves keys and leases in from elsewhere.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    from: Source,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Source {
    /// Copy the keys and leases of an etcd cluster, follow it, and cut over; or the way back.
    #[command(after_help = STEPS)]
    Etcd(EtcdArgs),
}

impl ImportArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let Source::Etcd(args) = &self.from;
        args.run(context).await
    }
}

#[derive(Clone, Debug, clap::Args)]
struct EtcdArgs {
    /// Servers to copy from; by default those of --endpoints, where --to is given.
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    from: Vec<String>,
    /// Servers to copy to; by default those of --endpoints.
    #[arg(long, value_name = "URL,...", value_delimiter = ',')]
    to: Vec<String>,
    /// Cut over as soon as all is there: the writers of the source have been stopped.
    #[arg(long)]
    cut_over: bool,
    /// Cutting over, the source must not have changed for so long.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "3s")]
    quiet: Duration,
    /// Cutting over, how long to wait for that.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    patience: Duration,
    /// Who must have signed the source's certificates, where it is another than --cacert.
    #[arg(long, value_name = "FILE")]
    from_cacert: Option<PathBuf>,
    /// The certificate shown to the source, where it is another than --cert.
    #[arg(long, value_name = "FILE", requires = "from_key")]
    from_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "from_cert")]
    from_key: Option<PathBuf>,
    /// A user of the source that may read everything.
    #[arg(long, value_name = "NAME", requires = "from_password")]
    from_user: Option<String>,
    /// Its password; rather in the environment than here.
    #[arg(long, value_name = "PASSWORD")]
    from_password: Option<String>,
    /// Who must have signed the destination's certificates, where it is another than --cacert.
    #[arg(long, value_name = "FILE")]
    to_cacert: Option<PathBuf>,
    /// The certificate shown to the destination, where it is another than --cert.
    #[arg(long, value_name = "FILE", requires = "to_key")]
    to_cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "to_cert")]
    to_key: Option<PathBuf>,
    /// A user of the destination that may read and write everything.
    #[arg(long, value_name = "NAME", requires = "to_password")]
    to_user: Option<String>,
    /// Its password; rather in the environment than here.
    #[arg(long, value_name = "PASSWORD")]
    to_password: Option<String>,
}

/// One of both clusters.
#[derive(Clone)]
pub(super) struct Side {
    kv: Kv,
    cluster: u64,
}

impl Side {
    async fn reach(kv: Kv, what: &str) -> anyhow::Result<Self> {
        use anyhow::Context as _;
        let read = Read::of(KeyRange::all()).limit(1).keys_only();
        let answer = kv
            .range(read)
            .await
            .with_context(|| format!("reach the {what}"))?;
        let cluster = answer.header.map_or(0, |header| header.cluster_id);
        Ok(Self { kv, cluster })
    }

    /// The newest revision, as a majority of its servers knows it.
    async fn head(&self) -> Result<u64, quorate_client::Error> {
        let read = Read::of(KeyRange::all()).limit(1).keys_only();
        let answer = self.kv.range(read).await?;
        Ok(quorate_client::kv::revision_of(answer.header.as_ref()))
    }
}

/// What has been done.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Progress {
    phase: &'static str,
    /// Keys looked at by the copy.
    keys: u64,
    puts: u64,
    deletes: u64,
    leases: u64,
    /// Changes that one revision of the source made, and more than one transaction of the destination.
    split_revisions: u64,
    /// Keys below /quorate/ that were left out.
    reserved: u64,
    /// Everything through it is in the destination.
    source_revision: u64,
    /// How many revisions the source is ahead.
    lag: u64,
}

impl Progress {
    /// Tells where it stands: to people on standard error, to scripts as a line.
    pub(super) fn show(&self, format: Format) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            progress: &'a Progress,
        }
        if format == Format::Json {
            return output::json_line(&Line { progress: self });
        }
        eprintln!(
            "{}: {} keys, {} puts, {} deletes, {} leases; at revision {} of the source, which is {} ahead",
            self.phase,
            self.keys,
            self.puts,
            self.deletes,
            self.leases,
            self.source_revision,
            self.lag
        );
        Ok(())
    }
}

impl EtcdArgs {
    async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        if self.from.is_empty() && self.to.is_empty() {
            let failure = Failure::usage("neither --from nor --to is given");
            let hint = "--from names the servers to copy from, --to those to copy to; --endpoints stands for the other";
            return Err(failure.with_hint(hint).into());
        }
        let from = self.side(context, true)?;
        let to = self.side(context, false)?;
        let source = Side::reach(from, "source").await?;
        let destination = Side::reach(to, "destination").await?;
        if source.cluster == destination.cluster {
            let what = format!(
                "source and destination are the same cluster, {:x}",
                source.cluster
            );
            return Err(Failure::usage(what).into());
        }
        let sink = Sink::open(destination.clone(), source.cluster).await?;
        let run = follow::Run::new(context.format(), source, destination, sink);
        run.run(self.cut_over, self.quiet, self.patience).await
    }

    fn side(&self, context: &Context, is_source: bool) -> anyhow::Result<Kv> {
        let (endpoints, cacert, cert, key, user, password) = if is_source {
            (
                &self.from,
                &self.from_cacert,
                &self.from_cert,
                &self.from_key,
                &self.from_user,
                &self.from_password,
            )
        } else {
            (
                &self.to,
                &self.to_cacert,
                &self.to_cert,
                &self.to_key,
                &self.to_user,
                &self.to_password,
            )
        };
        let endpoints = if endpoints.is_empty() {
            context.endpoints()
        } else {
            endpoints
        };
        let certificates = Certificates {
            cacert: cacert.clone(),
            cert: cert.clone(),
            key: key.clone(),
        };
        let kv = context.client_with(endpoints, certificates)?.kv();
        Ok(match (user, password) {
            (Some(user), Some(password)) => kv.with_user(user, password),
            _ => kv,
        })
    }
}

fn is_reserved(key: &[u8]) -> bool {
    key.starts_with(RESERVED)
}

/// The key right after this one.
fn after(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

/// A conflict that an operator has to resolve.
fn conflict(message: impl Into<String>, hint: &str) -> anyhow::Error {
    Failure::new(Code::Conflict, message).with_hint(hint).into()
}

fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) => format!("`{}`", text.escape_debug()),
        Err(_) => format!("0x{}", to_hex(key)),
    }
}
