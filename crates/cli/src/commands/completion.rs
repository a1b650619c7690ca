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
        clap_complete::generate(
            self.shell,
            &mut visible(&args::command()),
            "quorate",
            &mut script,
        );
        output::print(&String::from_utf8(script)?)?;
        Ok(0)
    }
}

/// The command line without what only this program calls: the generator would offer that too.
fn visible(command: &clap::Command) -> clap::Command {
    let shown: Vec<clap::Command> = command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set())
        .cloned()
        .collect();
    let flags: Vec<clap::Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .cloned()
        .collect();
    clap::Command::new("quorate")
        .version(env!("CARGO_PKG_VERSION"))
        .args(flags)
        .subcommands(shown)
}
