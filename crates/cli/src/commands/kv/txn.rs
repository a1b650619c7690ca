//! `quorate kv txn`.

use anyhow::Context as _;
use quorate_client::Kv;
use quorate_client::kv::pb::response_op::Response;
use quorate_client::kv::{pb, revision_of};
use serde::Serialize;

use super::encoding::Encoding;
use super::script::Script;
use super::{Pair, count_of};
use crate::context::Context;
use crate::exit::Code;
use crate::output::{self, Format};

#[derive(Clone, Debug, clap::Args)]
pub(super) struct TxnArgs {
    /// A condition, such as `version(a) = 0`; all must hold.
    #[arg(long = "if", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// What is done where they hold, such as `put a 1`.
    #[arg(long, value_name = "COMMAND")]
    then: Vec<String>,
    /// What is done otherwise, such as `get a`.
    #[arg(long = "else", value_name = "COMMAND")]
    otherwise: Vec<String>,
}

#[derive(Serialize)]
struct Outcome {
    revision: u64,
    succeeded: bool,
    results: Vec<Done>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Done {
    Get {
        count: i64,
        more: bool,
        pairs: Vec<Pair>,
    },
    Put {
        previous: Option<Pair>,
    },
    Del {
        deleted: i64,
        previous: Vec<Pair>,
    },
    Txn(Outcome),
}

impl TxnArgs {
    pub(super) async fn run(
        &self,
        context: &Context,
        kv: &Kv,
        encoding: Encoding,
    ) -> anyhow::Result<u8> {
        let mut script = Script {
            conditions: self.conditions.clone(),
            then: self.then.clone(),
            otherwise: self.otherwise.clone(),
        };
        if script == Script::default() {
            let text = std::io::read_to_string(std::io::stdin())
                .context("read the transaction from standard input")?;
            script = Script::from_lines(&text)?;
        }
        let request = script.request(encoding)?;
        let has_else = !request.failure.is_empty();
        let outcome = outcome(kv.txn(request).await?, encoding);
        match context.format() {
            Format::Json => output::json(&outcome)?,
            Format::Table => print(&outcome)?,
        }
        if outcome.succeeded || has_else {
            return Ok(0);
        }
        Ok(Code::Conflict as u8)
    }
}

fn outcome(answer: pb::TxnResponse, encoding: Encoding) -> Outcome {
    let pairs = |pairs: &[pb::KeyValue]| -> Vec<Pair> {
        pairs.iter().map(|pair| Pair::of(pair, encoding)).collect()
    };
    let results = answer.responses.into_iter().filter_map(|response| {
        Some(match response.response? {
            Response::ResponseRange(range) => Done::Get {
                count: range.count,
                more: range.more,
                pairs: pairs(&range.kvs),
            },
            Response::ResponsePut(put) => Done::Put {
                previous: put.prev_kv.map(|pair| Pair::of(&pair, encoding)),
            },
            Response::ResponseDeleteRange(del) => Done::Del {
                deleted: del.deleted,
                previous: pairs(&del.prev_kvs),
            },
            Response::ResponseTxn(txn) => Done::Txn(outcome(txn, encoding)),
        })
    });
    Outcome {
        revision: revision_of(answer.header.as_ref()),
        succeeded: answer.succeeded,
        results: results.collect(),
    }
}

fn print(outcome: &Outcome) -> anyhow::Result<()> {
    let part = if outcome.succeeded {
        "the conditions held"
    } else {
        "the conditions did not hold"
    };
    output::line(format!("{part}; revision {}", outcome.revision))?;
    for done in &outcome.results {
        match done {
            Done::Get { pairs, count, .. } if pairs.is_empty() => {
                output::line(format!("get: {}", count_of(*count, "key")))?;
            }
            Done::Get { pairs, .. } => output::table(&Pair::table(pairs))?,
            Done::Put { previous } => {
                output::line("put")?;
                if let Some(previous) = previous {
                    output::table(&Pair::table([previous]))?;
                }
            }
            Done::Del { deleted, previous } => {
                output::line(format!("deleted {}", count_of(*deleted, "key")))?;
                if !previous.is_empty() {
                    output::table(&Pair::table(previous))?;
                }
            }
            Done::Txn(inner) => print(inner)?,
        }
    }
    Ok(())
}
