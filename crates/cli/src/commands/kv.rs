//! `quorate kv`: the key space, of Quorate or of any server that speaks etcd's API.

pub(crate) mod encoding;
mod read;
mod script;
mod txn;
mod watch;
mod write;

use quorate_client::Kv;
use quorate_client::kv::{KeyRange, pb};
use serde::Serialize;

use crate::context::Context;
use crate::exit::Failure;
use crate::output::Table;
use encoding::{Encoding, Field};

/// The key space: keys with values, their history, conditions and changes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct KvArgs {
    #[command(flatten)]
    as_user: AsUser,
    /// How keys and values are written in arguments, and printed.
    #[arg(long, global = true, value_enum, default_value_t)]
    encoding: Encoding,
    #[command(subcommand)]
    verb: Verb,
}

/// On whose behalf, where the key space has users.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct AsUser {
    /// A user of the key space, where it has users.
    #[arg(long, global = true, value_name = "NAME", requires = "password")]
    user: Option<String>,
    /// Its password; rather in the environment than here, where others see it.
    #[arg(long, global = true, value_name = "PASSWORD")]
    password: Option<String>,
}

impl AsUser {
    /// The key space as this user sees it.
    pub(crate) fn kv(&self, context: &Context) -> anyhow::Result<Kv> {
        Ok(self.over(context.client()?.kv()))
    }

    pub(crate) fn over(&self, kv: Kv) -> Kv {
        match (&self.user, &self.password) {
            (Some(user), Some(password)) => kv.with_user(user, password),
            _ => kv,
        }
    }
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Read keys.
    #[command(after_help = read::EXAMPLES)]
    Get(read::GetArgs),
    /// Put a value.
    #[command(after_help = write::PUT_EXAMPLES)]
    Put(write::PutArgs),
    /// Delete keys.
    #[command(after_help = write::DEL_EXAMPLES)]
    Del {
        #[command(flatten)]
        del: write::DelArgs,
        #[command(flatten)]
        careful: crate::args::Careful,
    },
    /// Read and write in one revision, on conditions.
    #[command(after_help = script::HELP)]
    Txn(txn::TxnArgs),
    /// Print changes of keys as they happen, over reconnects, without a gap.
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// Forget the history below a revision: what keys were then can no longer be read or watched.
    Compact(write::CompactArgs),
}

impl KvArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let kv = self.as_user.kv(context)?;
        let encoding = self.encoding;
        match &self.verb {
            Verb::Get(args) => args.run(context, &kv, encoding).await,
            Verb::Put(args) => args.run(context, &kv, encoding).await,
            Verb::Del { del, careful } => del.run(context, &kv, encoding, *careful).await,
            Verb::Txn(args) => args.run(context, &kv, encoding).await,
            Verb::Watch(args) => args.run(context, &kv, encoding).await,
            Verb::Compact(args) => args.run(context, &kv).await,
        }
    }
}

/// Which keys a command is about.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RangeArgs {
    /// The key, or the first one.
    #[arg(value_name = "KEY")]
    first: String,
    /// The first key that is not meant any more.
    #[arg(value_name = "END", conflicts_with_all = ["prefix", "from_key"])]
    end: Option<String>,
    /// All keys that start with KEY; with an empty one, all.
    #[arg(long, conflicts_with = "from_key")]
    prefix: bool,
    /// All keys from KEY on.
    #[arg(long)]
    from_key: bool,
}

impl RangeArgs {
    pub(crate) fn range(&self, encoding: Encoding) -> anyhow::Result<KeyRange> {
        let first = encoding.read(&self.first)?;
        let range = match &self.end {
            _ if self.prefix => KeyRange::prefix(first),
            _ if self.from_key => KeyRange::from(first),
            _ if first.is_empty() => {
                let failure = Failure::usage("the key is empty");
                return Err(failure
                    .with_hint("--prefix with an empty key means all keys")
                    .into());
            }
            Some(end) => KeyRange::between(first, encoding.read(end)?),
            None => KeyRange::key(first),
        };
        Ok(range)
    }
}

/// Reads a lease's id: hexadecimal, as etcd's tools write it, or `s` and the decimal number of a session.
pub(crate) fn lease_id(text: &str) -> Result<i64, String> {
    let parsed = match text.strip_prefix('s') {
        Some(session) => session.parse().ok(),
        None => i64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok(),
    };
    parsed.filter(|id| *id > 0).ok_or_else(|| {
        format!(
            "`{text}` is no lease: write its id in hexadecimal, or `s` and the number of a session"
        )
    })
}

/// A key with what is known of it, as it is printed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Pair {
    #[serde(flatten)]
    key: Field,
    #[serde(flatten)]
    value: Option<Field>,
    version: i64,
    create_revision: i64,
    mod_revision: i64,
    /// Hexadecimal; none where it is attached to none.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
}

impl Pair {
    pub(crate) fn of(pair: &pb::KeyValue, encoding: Encoding) -> Self {
        Self {
            key: Field::new("key", &pair.key, encoding),
            value: Some(Field::new("value", &pair.value, encoding)),
            version: pair.version,
            create_revision: pair.create_revision,
            mod_revision: pair.mod_revision,
            lease: (pair.lease != 0).then(|| format!("{:x}", pair.lease)),
        }
    }

    pub(crate) fn without_value(self) -> Self {
        Self {
            value: None,
            ..self
        }
    }

    pub(crate) fn table<'a>(pairs: impl IntoIterator<Item = &'a Self>) -> Table {
        let headings = ["KEY", "VALUE", "VERSION", "CREATED", "CHANGED", "LEASE"];
        let mut table = Table::new(&headings);
        for pair in pairs {
            table.row([
                pair.key.text.clone(),
                crate::output::or_dash(pair.value.as_ref().map(|value| value.text.clone())),
                pair.version.to_string(),
                pair.create_revision.to_string(),
                pair.mod_revision.to_string(),
                crate::output::or_dash(pair.lease.as_ref()),
            ]);
        }
        table
    }
}

pub(crate) fn count_of(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_hexadecimal_and_sessions_decimal() {
        assert_eq!(lease_id("694d71f"), Ok(0x694_d71f));
        assert_eq!(lease_id("0x10"), Ok(16));
        assert_eq!(lease_id("s77"), Ok(77));
        for bad in ["", "0", "-1", "xyz", "s", "ffffffffffffffff"] {
            assert!(lease_id(bad).is_err(), "{bad}");
        }
    }
}
