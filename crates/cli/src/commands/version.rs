//! `quorate version`.

use serde::Serialize;

use crate::output::{self, Format};

#[derive(Serialize)]
struct Version {
    version: &'static str,
    contract: u32,
}

/// Prints the version of this binary, and of the contract that it speaks as a client.
pub(crate) fn run(format: Format) -> anyhow::Result<u8> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        contract: quorate_client::api::CONTRACT.0,
    };
    match format {
        Format::Json => output::json(&version)?,
        Format::Table => output::line(format!(
            "quorate {} (contract {})",
            version.version, version.contract
        ))?,
    }
    Ok(0)
}
