//! The command line: global flags, and an environment variable for every flag.

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::{
    completion, contend, contract, dev, group, guard, import, kv, lease, lock, node, server,
    session, snapshot, status, why,
};
use crate::exit::HELP;
use crate::output::Format;

/// Elects leaders and coordinates governance work for distributed services.
#[derive(Debug, Parser)]
#[command(name = "quorate", version, after_help = HELP, max_term_width = 120, propagate_version = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// Set by the process that started this one: die with it.
    #[arg(long, hide = true, global = true, value_name = "PID")]
    pub(crate) die_with: Option<u32>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command that talks to servers. Each flag of each command can also be given in the environment:
/// `--min-safe` as `QUORATE_MIN_SAFE`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// Servers to talk to; any of them serves everything.
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379",
        value_name = "URL,...",
        help_heading = "Connection"
    )]
    pub(crate) endpoints: Vec<String>,
    /// How results are printed.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        help_heading = "Connection"
    )]
    pub(crate) output: Format,
    /// Who must have signed the servers' certificates, PEM.
    #[arg(long, global = true, value_name = "FILE", help_heading = "Connection")]
    pub(crate) cacert: Option<PathBuf>,
    /// The certificate shown to servers, PEM.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "key",
        help_heading = "Connection"
    )]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "cert",
        help_heading = "Connection"
    )]
    pub(crate) key: Option<PathBuf>,
    /// How long a command may take, such as `500ms` or `10s`.
    #[arg(long, global = true, default_value = "10s", value_parser = duration, value_name = "TIME", help_heading = "Connection")]
    pub(crate) timeout: Duration,
}

/// Flags of what changes things.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Careful {
    /// Only say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask. Nobody is asked where standard input is not a terminal.
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a server of the backbone.
    Server(server::ServerArgs),
    /// Run three servers in this terminal, for development.
    Dev(dev::DevArgs),
    /// Watch real processes elect, fail over and hand over, and check that no two ever led at once.
    Demo(crate::demo::DemoArgs),
    /// Show servers, groups by phase, and what is under way.
    Status(status::StatusArgs),
    /// Groups: what needs exactly one leader.
    Group(group::GroupArgs),
    /// Nodes: the processes of the service that is coordinated.
    Node(node::NodeArgs),
    /// Sessions: the nodes' liveness.
    Session(session::SessionArgs),
    /// The key space: keys with values, their history, conditions and changes.
    Kv(kv::KvArgs),
    /// Leases: what keys can be attached to, to go when it ends.
    Lease(lease::LeaseArgs),
    /// Hold a lock, and run COMMAND while it is held, and only then.
    #[command(after_help = lock::EXAMPLES)]
    Lock(lock::LockArgs),
    /// Save the whole state in a file, look into one, and make a new cluster from it.
    Snapshot(snapshot::SnapshotArgs),
    /// Move keys and leases in from an etcd cluster, or back.
    Import(import::ImportArgs),
    /// Hand the backbone's leadership to another server.
    TransferLeader(status::TransferLeaderArgs),
    /// Why a group's holder holds it, and why the others do not.
    Why(why::WhyArgs),
    /// Print the contract: every transition a tenure may make, who may initiate it, and what must hold before.
    Contract(contract::ContractArgs),
    /// Run COMMAND while leading: one for each group that is led, and only then.
    #[command(visible_alias = "elect")]
    Contend(contend::ContendArgs),
    /// Print a completion script for a shell.
    Completion(completion::CompletionArgs),
    /// Print the version.
    Version,
    #[command(name = "__guard", hide = true)]
    Guard(guard::GuardArgs),
    #[command(name = "__exec", hide = true)]
    Exec(ExecArgs),
    #[command(name = "__demo-node", hide = true)]
    DemoNode(crate::demo::node::NodeProcessArgs),
    #[command(name = "__demo-check", hide = true)]
    DemoCheck(crate::demo::DemoCheckArgs),
}

/// Becomes COMMAND.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ExecArgs {
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

/// The whole command line, with an environment variable for each flag.
pub(crate) fn command() -> clap::Command {
    with_environment(Cli::command())
}

fn with_environment(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_long() {
        // What only we set, what ends at once, and what an inherited environment must not switch on.
        None | Some("help" | "version" | "die-with" | "yes" | "force" | "prefix" | "from-key") => {
            arg
        }
        Some(_) if arg.is_hide_set() || arg.get_env().is_some() => arg,
        Some(long) => {
            // Lives as long as the process, once per flag: clap asks for a static name.
            let name: &'static str =
                format!("QUORATE_{}", long.to_uppercase().replace('-', "_")).leak();
            arg.env(name).hide_env_values(true)
        }
    });
    let names: Vec<String> = command
        .get_subcommands()
        .filter(|c| !c.get_name().starts_with("__"))
        .map(|c| c.get_name().to_owned())
        .collect();
    names.iter().fold(command, |command, name| {
        command.mut_subcommand(name, with_environment)
    })
}

/// Reads the command line; ends the process with code 2 where it is wrong.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Reads `250ms`, `10s`, `2m`, `1h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| format!("`{text}` is no time: write 500ms, 10s, 2m or 1h"))?;
    let milliseconds = match &text[digits..] {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        other => return Err(format!("`{other}` is no unit of time: write ms, s, m or h")),
    };
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

/// Reads `key=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("`{text}` has no `=`: write key=value"))?;
    if key.is_empty() {
        return Err(format!("`{text}` has no key: write key=value"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable_but_those_that_must_be_meant() {
        fn check(command: &clap::Command) {
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let Some(long) = arg.get_long() else { continue };
                let must_be_meant =
                    ["help", "version", "yes", "force", "prefix", "from-key"].contains(&long);
                assert_eq!(
                    arg.get_env().is_none(),
                    must_be_meant,
                    "--{long} of `{}`",
                    command.get_name()
                );
            }
            command
                .get_subcommands()
                .filter(|c| !c.is_hide_set())
                .for_each(check);
        }
        check(&command());
    }

    #[test]
    fn times_are_read_with_their_units() {
        let check = |text, ms| assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        check("250ms", 250);
        check("10", 10_000);
        check("10s", 10_000);
        check("2m", 120_000);
        check("1h", 3_600_000);
        for bad in [
            "",
            "s",
            "1.5s",
            "10 s",
            "-1s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pairs_need_a_key_and_keep_further_equal_signs() {
        assert_eq!(pair("zone=a=b"), Ok(("zone".into(), "a=b".into())));
        assert!(pair("=x").is_err() && pair("zone").is_err());
    }
}
