//! `quorate contract`: the lifecycle's table, as the cluster follows it.

use crate::context::{Context, word};
use crate::output::{self, Format, Table};

/// Prints the contract.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ContractArgs {}

impl ContractArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let contract = context.client()?.contract().await?;
        if context.format() == Format::Json {
            output::json(&contract)?;
            return Ok(0);
        }
        output::line(format!(
            "contract versions {} to {}",
            contract.version_min, contract.version_max
        ))?;
        let mut table = Table::new(&["FROM", "TO", "CAUSE", "INITIATOR", "REQUIRES"]);
        for row in &contract.transitions {
            table.row([
                word(&row.from),
                word(&row.to),
                word(&row.cause),
                row.initiator.clone(),
                row.requires.clone(),
            ]);
        }
        output::table(&table)?;
        Ok(0)
    }
}
