//! `quorate kv put | del | compact`.

use std::io::Read as _;

use anyhow::Context as _;
use quorate_client::Kv;
use quorate_client::kv::{Read, pb, revision_of};
use serde::Serialize;

use super::encoding::Encoding;
use super::{Pair, RangeArgs, count_of, lease_id};
use crate::args::Careful;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, Format};

pub(super) const PUT_EXAMPLES: &str = "\
Examples:
  quorate kv put config/a 1
  quorate kv put certs/a < a.pem                 the value from standard input, byte for byte
  quorate kv put members/n1 up --lease s12       goes when session 12 ends (`quorate node list`)
  quorate kv put config/a 2 --prev               prints what was there";

pub(super) const DEL_EXAMPLES: &str = "\
Examples:
  quorate kv del config/a                        exit code 3 where it is not there
  quorate kv del config/ --prefix --dry-run      how many keys that would be
  quorate kv del config/ --prefix --prev         prints what was there";

#[derive(Clone, Debug, clap::Args)]
pub(super) struct PutArgs {
    /// The key.
    #[arg(value_name = "KEY")]
    at: String,
    /// The value; without it, standard input.
    #[arg(
        value_name = "VALUE",
        conflicts_with = "ignore_value",
        allow_hyphen_values = true
    )]
    value: Option<String>,
    /// The key goes with this lease: its id in hexadecimal, or `s` and the number of a session.
    #[arg(long, value_name = "LEASE", value_parser = lease_id, conflicts_with = "ignore_lease")]
    lease: Option<i64>,
    /// Print what was there before.
    #[arg(long)]
    prev: bool,
    /// Keep the value that is there; only the lease is set.
    #[arg(long)]
    ignore_value: bool,
    /// Keep the lease that is there; without this flag a put detaches the key.
    #[arg(long)]
    ignore_lease: bool,
}

#[derive(Serialize)]
struct Written {
    revision: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Pair>,
}

impl PutArgs {
    /// The message; `stdin` gives the value where none is written.
    pub(super) fn request(
        &self,
        encoding: Encoding,
        stdin: impl FnOnce() -> anyhow::Result<Vec<u8>>,
    ) -> anyhow::Result<pb::PutRequest> {
        let value = match &self.value {
            Some(value) => encoding.read(value)?,
            None if self.ignore_value => Vec::new(),
            None => stdin()?,
        };
        Ok(pb::PutRequest {
            key: encoding.read(&self.at)?.into(),
            value: value.into(),
            lease: self.lease.unwrap_or(0),
            prev_kv: self.prev,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }

    pub(super) async fn run(
        &self,
        context: &Context,
        kv: &Kv,
        encoding: Encoding,
    ) -> anyhow::Result<u8> {
        let answer = kv.put_with(self.request(encoding, read_stdin)?).await?;
        let written = Written {
            revision: revision_of(answer.header.as_ref()),
            previous: answer.prev_kv.map(|pair| Pair::of(&pair, encoding)),
        };
        if context.format() == Format::Json {
            output::json(&written)?;
            return Ok(0);
        }
        output::line(format!(
            "put `{}` at revision {}",
            self.at, written.revision
        ))?;
        if let Some(previous) = &written.previous {
            output::table(&Pair::table([previous]))?;
        }
        Ok(0)
    }
}

fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    let mut stdin = std::io::stdin().lock();
    stdin
        .read_to_end(&mut value)
        .context("read the value from standard input")?;
    Ok(value)
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct DelArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// Print what was there.
    #[arg(long)]
    prev: bool,
}

#[derive(Serialize)]
struct Deleted {
    revision: u64,
    deleted: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    previous: Vec<Pair>,
}

impl DelArgs {
    pub(super) fn request(&self, encoding: Encoding) -> anyhow::Result<pb::DeleteRangeRequest> {
        let (key, range_end) = self.range.range(encoding)?.into_parts();
        Ok(pb::DeleteRangeRequest {
            key,
            range_end,
            prev_kv: self.prev,
        })
    }

    pub(super) async fn run(
        &self,
        context: &Context,
        kv: &Kv,
        encoding: Encoding,
        careful: Careful,
    ) -> anyhow::Result<u8> {
        let range = self.range.range(encoding)?;
        let is_single = range.is_single();
        if careful.dry_run || !is_single {
            let found = kv.range(Read::of(range.clone()).count_only()).await?;
            let count = count_of(found.count, "key");
            if careful.dry_run {
                return context.say(&format!("would delete {count}"));
            }
            context
                .confirm(careful, &format!("Delete {count}?"))
                .await?;
        }
        let answer = kv.delete(range, self.prev).await?;
        if is_single && answer.deleted == 0 {
            let message = format!("key `{}` is not there", self.range.first);
            return Err(Failure::new(Code::NotFound, message).into());
        }
        let previous = answer.prev_kvs.iter();
        let deleted = Deleted {
            revision: revision_of(answer.header.as_ref()),
            deleted: answer.deleted,
            previous: previous.map(|pair| Pair::of(pair, encoding)).collect(),
        };
        if context.format() == Format::Json {
            output::json(&deleted)?;
            return Ok(0);
        }
        let count = count_of(deleted.deleted, "key");
        output::line(format!("deleted {count} at revision {}", deleted.revision))?;
        if !deleted.previous.is_empty() {
            output::table(&Pair::table(&deleted.previous))?;
        }
        Ok(0)
    }
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct CompactArgs {
    /// What keys were at this revision stays readable, and what they became after it.
    revision: u64,
    /// Wait until the space of what is forgotten is free.
    #[arg(long)]
    physical: bool,
    #[command(flatten)]
    careful: Careful,
}

impl CompactArgs {
    pub(super) async fn run(&self, context: &Context, kv: &Kv) -> anyhow::Result<u8> {
        let revision = self.revision;
        if self.careful.dry_run {
            return context.say(&format!("would compact to revision {revision}"));
        }
        let question = format!("Forget what keys were before revision {revision}?");
        context.confirm(self.careful, &question).await?;
        let now = kv.compact(revision, self.physical).await?;
        let written = Written {
            revision: now,
            previous: None,
        };
        let sentence = format!("compacted to revision {revision}; now at {now}");
        context.done(&written, &sentence)
    }
}
