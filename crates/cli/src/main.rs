//! `quorate`: servers, commands for operators and scripts, and the demonstration, in one binary.
//!
//! Owns: the edge. Errors become `error: ...`, `hint: ...` and an exit code here and nowhere else.

mod args;
mod clock;
mod commands;
mod context;
mod demo;
mod exit;
mod hint;
mod output;
mod process;
mod signals;
mod watching;

use std::process::ExitCode;

use args::{Cli, Command};
use context::Context;

fn main() -> ExitCode {
    let cli = args::parse();
    match run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(hint) = hint::of(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(hint::code_of(&error) as u8)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<u8> {
    if let Some(parent) = cli.die_with {
        process::die_with(parent)?;
    }
    // Those that must not have threads yet, or need no runtime.
    match cli.command {
        Command::Exec(exec) => {
            // As a shell says it: the command could not be run.
            eprintln!("error: {:#}", process::become_command(&exec.command));
            Ok(127)
        }
        Command::Guard(guard) => commands::guard::run(&guard),
        Command::Completion(completion) => completion.run(),
        Command::Version => commands::version::run(cli.global.output),
        Command::DemoCheck(check) => check.run(),
        command => start(Context::new(cli.global), command),
    }
}

fn start(context: Context, command: Command) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async move {
        match command {
            Command::Server(server) => server.run().await,
            Command::Dev(dev) => dev.run(&context).await,
            Command::Demo(demo) => demo.run().await,
            Command::DemoNode(node) => node.run(&context).await,
            Command::Status(status) => status.run(&context).await,
            Command::Group(group) => group.run(&context).await,
            Command::Node(node) => node.run(&context).await,
            Command::Session(session) => session.run(&context).await,
            Command::Kv(kv) => kv.run(&context).await,
            Command::Lease(lease) => lease.run(&context).await,
            Command::Import(import) => import.run(&context).await,
            Command::Snapshot(snapshot) => snapshot.run(&context).await,
            Command::Lock(lock) => lock.run(&context).await,
            Command::TransferLeader(transfer) => transfer.run(&context).await,
            Command::Why(why) => why.run(&context).await,
            Command::Contract(contract) => contract.run(&context).await,
            Command::Contend(contend) => contend.run(&context).await,
            Command::Exec(_)
            | Command::Guard(_)
            | Command::Completion(_)
            | Command::Version
            | Command::DemoCheck(_) => {
                unreachable!("run() has handled those that need no runtime")
            }
        }
    });
    // Blocking reads of standard input are not waited for.
    runtime.shutdown_background();
    outcome
}
