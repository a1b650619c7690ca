//! `quorate completion SHELL`.

use clap_complete::Shell;

use crate::{args, output};

/// Prints a completion script.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CompletionArgs {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl CompletionArgs {
    pub(crate) fn run(&self) -> anyhow::Result<u8> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut args::command(), "quorate", &mut script);
        output::print(&String::from_utf8(script)?)?;
        Ok(0)
    }
}
