//! `quorate kv get`.

use std::io::Write;

use clap::ValueEnum;
use quorate_client::Kv;
use quorate_client::kv::pb::range_request::{SortOrder, SortTarget};
use quorate_client::kv::{Read, pb, revision_of};
use serde::Serialize;

use super::encoding::Encoding;
use super::{Pair, RangeArgs, count_of};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, Format};

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate kv get config/a                        one key; exit code 3 where it is not there
  quorate kv get config/a --value-only           only the value, byte for byte
  quorate kv get config/ --prefix --keys-only    what there is below config/
  quorate kv get a m --sort mod --descending     keys from a up to, without, m: the last changed first
  quorate kv get config/a --rev 17               as it was at revision 17
  quorate kv get ff00 --encoding hex             a key that is no text";

/// What the answer is sorted by.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Sort {
    Key,
    Version,
    Create,
    Mod,
    Value,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// As it was at this revision; otherwise as it is now.
    #[arg(long, value_name = "REVISION")]
    rev: Option<u64>,
    /// At most so many.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
    /// Sorted by this instead of the key.
    #[arg(long, value_enum)]
    sort: Option<Sort>,
    /// The largest first.
    #[arg(long)]
    descending: bool,
    /// Leave the values out.
    #[arg(long)]
    keys_only: bool,
    /// Only how many there are.
    #[arg(long, conflicts_with = "keys_only")]
    count_only: bool,
    /// Print only values, byte for byte; a line break between several.
    #[arg(long, conflicts_with_all = ["keys_only", "count_only"])]
    value_only: bool,
    /// Answer from the asked server's own state, which may lag.
    #[arg(long)]
    stale_ok: bool,
    /// Wait for the server to reach this revision (Quorate's servers only).
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    min_revision: u64,
}

#[derive(Serialize)]
struct Found {
    revision: u64,
    /// How many there are, also beyond the limit.
    count: i64,
    more: bool,
    pairs: Vec<Pair>,
}

impl GetArgs {
    pub(super) fn read(&self, encoding: Encoding) -> anyhow::Result<Read> {
        let mut read = Read::of(self.range.range(encoding)?).min_revision(self.min_revision);
        if let Some(revision) = self.rev {
            read = read.at(revision);
        }
        if let Some(limit) = self.limit {
            read = read.limit(limit);
        }
        if self.sort.is_some() || self.descending {
            let target = match self.sort.unwrap_or(Sort::Key) {
                Sort::Key => SortTarget::Key,
                Sort::Version => SortTarget::Version,
                Sort::Create => SortTarget::Create,
                Sort::Mod => SortTarget::Mod,
                Sort::Value => SortTarget::Value,
            };
            let order = if self.descending {
                SortOrder::Descend
            } else {
                SortOrder::Ascend
            };
            read = read.sorted(target, order);
        }
        if self.keys_only {
            read = read.keys_only();
        }
        if self.count_only {
            read = read.count_only();
        }
        if self.stale_ok {
            read = read.serializable();
        }
        Ok(read)
    }

    pub(super) async fn run(
        &self,
        context: &Context,
        kv: &Kv,
        encoding: Encoding,
    ) -> anyhow::Result<u8> {
        let is_single = self.range.range(encoding)?.is_single();
        let answer = kv.range(self.read(encoding)?).await?;
        if is_single && answer.kvs.is_empty() && !self.count_only {
            let message = format!("key `{}` is not there", self.range.first);
            let hint = "`quorate kv get KEY --prefix` shows what there is below KEY";
            return Err(Failure::new(Code::NotFound, message).with_hint(hint).into());
        }
        if self.value_only {
            print_values(&answer.kvs)?;
            return Ok(0);
        }
        let found = self.found(&answer, encoding);
        match (context.format(), self.count_only) {
            (Format::Json, _) => output::json(&found)?,
            (Format::Table, true) => output::line(found.count.to_string())?,
            (Format::Table, false) => output::table(&Pair::table(&found.pairs))?,
        }
        if found.more && context.format() == Format::Table {
            let all = count_of(found.count, "key");
            eprintln!(
                "note: {} of {all}; --limit left the others out",
                found.pairs.len()
            );
        }
        Ok(0)
    }

    fn found(&self, answer: &pb::RangeResponse, encoding: Encoding) -> Found {
        let pairs = answer.kvs.iter().map(|pair| Pair::of(pair, encoding));
        let pairs = if self.keys_only {
            pairs.map(Pair::without_value).collect()
        } else {
            pairs.collect()
        };
        Found {
            revision: revision_of(answer.header.as_ref()),
            count: answer.count,
            more: answer.more,
            pairs,
        }
    }
}

fn print_values(pairs: &[pb::KeyValue]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for (at, pair) in pairs.iter().enumerate() {
        if at > 0 {
            out.write_all(b"\n")?;
        }
        out.write_all(&pair.value)?;
    }
    Ok(out.flush()?)
}
