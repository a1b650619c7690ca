//! `quorate lease`: leases of the key space, of Quorate or of any server that speaks etcd's API.

use std::time::Duration;

use quorate_client::kv::{KvFault, pb};
use quorate_client::{ErrorKind, Kv};
use serde::Serialize;
use tokio::time::Instant;

use super::kv::encoding::{Encoding, Field};
use super::kv::{AsUser, count_of, lease_id};
use crate::args::{Careful, duration};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, Format, Table};
use crate::signals::StopSignals;

const GRANT_EXAMPLES: &str = "\
Examples:
  quorate lease grant 60s                        prints the id that the server chose
  quorate kv put members/n1 up --lease ID        goes when the lease ends
  quorate lease keep-alive ID                    until it is interrupted, or the lease is gone";

/// Leases: what keys can be attached to, to go when it ends.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LeaseArgs {
    #[command(flatten)]
    as_user: AsUser,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Grant a lease. It ends after TTL, unless it is kept alive.
    #[command(after_help = GRANT_EXAMPLES)]
    Grant {
        /// How long it lives, in whole seconds: `60s`, `5m`.
        #[arg(value_parser = duration)]
        ttl: Duration,
        /// Under this id, in hexadecimal; by default the server chooses one.
        #[arg(long, value_parser = lease_id)]
        id: Option<i64>,
    },
    /// End a lease at once; its keys go with it. A node's session is ended by `quorate session revoke`.
    Revoke {
        /// Its id in hexadecimal.
        #[arg(value_parser = lease_id)]
        lease: i64,
        #[command(flatten)]
        careful: Careful,
    },
    /// Keep a lease alive: until this is interrupted, or the lease is gone (exit code 3).
    KeepAlive {
        /// Its id in hexadecimal.
        #[arg(value_parser = lease_id)]
        lease: i64,
        /// Only once.
        #[arg(long)]
        once: bool,
    },
    /// Show how long a lease still lives.
    Ttl {
        /// Its id in hexadecimal, or `s` and the number of a session.
        #[arg(value_parser = lease_id)]
        lease: i64,
        /// Show its keys, too.
        #[arg(long)]
        keys: bool,
        /// How keys are printed.
        #[arg(long, value_enum, default_value_t)]
        encoding: Encoding,
    },
    /// List leases, those of nodes' sessions included.
    List,
}

/// A lease and its TTL.
#[derive(Serialize)]
struct Granted {
    lease: String,
    ttl_seconds: i64,
}

#[derive(Serialize)]
struct Revoked {
    lease: String,
    revision: u64,
}

#[derive(Serialize)]
struct Left {
    lease: String,
    left_seconds: i64,
    ttl_seconds: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Field>>,
}

#[derive(Serialize)]
struct Listed {
    leases: Vec<String>,
}

fn hex(lease: i64) -> String {
    format!("{lease:x}")
}

fn gone(lease: i64) -> anyhow::Error {
    let message = format!("there is no lease {lease:x}");
    Failure::new(Code::NotFound, message)
        .with_hint("it has expired or was revoked; `quorate lease list` lists those that live")
        .into()
}

impl LeaseArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let kv = self.as_user.kv(context)?;
        match &self.verb {
            Verb::Grant { ttl, id } => grant(context, &kv, *ttl, id.unwrap_or(0)).await,
            Verb::Revoke { lease, careful } => revoke(context, &kv, *lease, *careful).await,
            Verb::KeepAlive { lease, once } => keep_alive(context, &kv, *lease, *once).await,
            Verb::Ttl {
                lease,
                keys,
                encoding,
            } => ttl(context, &kv, *lease, keys.then_some(*encoding)).await,
            Verb::List => {
                let mut leases = kv.leases().await?;
                leases.sort_unstable();
                let listed = Listed {
                    leases: leases.into_iter().map(hex).collect(),
                };
                output::show(context.format(), &listed, || {
                    let mut table = Table::new(&["LEASE"]);
                    let rows = listed.leases.iter().cloned();
                    rows.for_each(|lease| table.row([lease]));
                    table
                })?;
                Ok(0)
            }
        }
    }
}

async fn grant(context: &Context, kv: &Kv, ttl: Duration, id: i64) -> anyhow::Result<u8> {
    if ttl.subsec_nanos() > 0 || ttl.is_zero() {
        return Err(Failure::usage("TTLs of leases are whole seconds, at least one").into());
    }
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let (id, ttl_seconds) = kv.grant_lease(id, seconds).await?;
    let granted = Granted {
        lease: hex(id),
        ttl_seconds,
    };
    let sentence = format!("granted lease {} for {ttl_seconds} s", granted.lease);
    context.done(&granted, &sentence)
}

async fn revoke(context: &Context, kv: &Kv, lease: i64, careful: Careful) -> anyhow::Result<u8> {
    let found = kv.lease_time_to_live(lease, true).await?;
    if found.ttl < 0 {
        return Err(gone(lease));
    }
    let many = i64::try_from(found.keys.len()).unwrap_or(i64::MAX);
    let keys = count_of(many, "key");
    if careful.dry_run {
        return context.say(&format!(
            "would revoke lease {lease:x} and delete its {keys}"
        ));
    }
    if many > 0 {
        let question = format!("Revoke lease {lease:x} and delete its {keys}?");
        context.confirm(careful, &question).await?;
    }
    let revision = kv.revoke_lease(lease).await?;
    let revoked = Revoked {
        lease: hex(lease),
        revision,
    };
    // How many keys it had at its end is not told: some may have come or gone since they were counted.
    let sentence = format!("revoked lease {lease:x}, now at revision {revision}");
    context.done(&revoked, &sentence)
}

async fn keep_alive(context: &Context, kv: &Kv, lease: i64, once: bool) -> anyhow::Result<u8> {
    let mut stop = StopSignals::listen()?;
    // Until when it surely lives, as far as was answered.
    let mut until = None;
    loop {
        let asked = Instant::now();
        let answer = tokio::select! {
            answer = kv.keep_lease(lease) => answer,
            code = stop.next() => return Ok(code),
        };
        let pause = match answer {
            Ok(Some(ttl_seconds)) => {
                let ttl = Duration::from_secs(ttl_seconds.unsigned_abs());
                until = Some(asked + ttl);
                let kept = Granted {
                    lease: hex(lease),
                    ttl_seconds,
                };
                match context.format() {
                    Format::Json => output::json_line(&kept)?,
                    Format::Table => {
                        output::line(format!("lease {lease:x} lives for {ttl_seconds} s"))?;
                    }
                }
                ttl / 3
            }
            Ok(None) => return Err(gone(lease)),
            // A change of leaders is sat out for as long as the lease may live.
            Err(error) if !once && may_be_tried(&error) && until.is_some_and(|t| asked < t) => {
                eprintln!("{error}; trying again");
                Duration::from_millis(500)
            }
            Err(error) => return Err(error.into()),
        };
        if once {
            return Ok(0);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            code = stop.next() => return Ok(code),
        }
    }
}

fn may_be_tried(error: &quorate_client::Error) -> bool {
    *error.kind() == ErrorKind::Retry && error.kv_fault() != Some(KvFault::Unsupported)
}

async fn ttl(context: &Context, kv: &Kv, lease: i64, keys: Option<Encoding>) -> anyhow::Result<u8> {
    let found = kv.lease_time_to_live(lease, keys.is_some()).await?;
    if found.ttl < 0 {
        return Err(gone(lease));
    }
    let pb::LeaseTimeToLiveResponse {
        ttl,
        granted_ttl,
        keys: mut attached,
        ..
    } = found;
    // An etcd gives them in no order.
    attached.sort();
    let named = |encoding: Encoding| {
        let key = |key: &pb::Bytes| Field::new("key", key, encoding);
        attached.iter().map(key).collect::<Vec<_>>()
    };
    let left = Left {
        lease: hex(lease),
        left_seconds: ttl,
        ttl_seconds: granted_ttl,
        keys: keys.map(named),
    };
    if context.format() == Format::Json {
        output::json(&left)?;
        return Ok(0);
    }
    output::line(format!("lease {lease:x}: {ttl} s left of {granted_ttl} s"))?;
    if let Some(keys) = left.keys.filter(|keys| !keys.is_empty()) {
        let mut table = Table::new(&["KEY"]);
        keys.into_iter().for_each(|key| table.row([key.text]));
        output::table(&table)?;
    }
    Ok(0)
}
