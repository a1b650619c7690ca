//! `cargo xtask etcd-diff`: plays the same random operations against a real etcd and against Quorate, and compares every answer field
//! by field.
//!
//! Owns: how long, from which seeds, how many at once, and what is printed. What is asked is drawn in [`generate`] and [`auth`], what of
//! an answer counts is said in [`ops`], and the differences that are meant are listed in [`known`].

mod auth;
mod generate;
mod known;
mod ops;
mod options;
mod report;
mod round;
mod servers;
mod shrink;
mod side;
mod stream;

use std::time::Instant;

use anyhow::{Context, bail};
use tokio::task::JoinSet;

pub(crate) use options::{Options, USAGE};
use report::Report;
use round::{Plan, Round};
use servers::Program;

/// Operations of one pair of servers; then both are thrown away, so that a difference is played again in seconds.
const ROUND: usize = 20_000;

/// Runs it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let left = options.etcd()?;
    if options.self_check {
        return runtime.block_on(self_check(&left, options.seed));
    }
    let right = if options.against_etcd {
        left.clone()
    } else {
        Program::Quorate(options.quorate()?, options.servers)
    };
    runtime.block_on(compare(options, &left, &right))
}

/// Plays all rounds, several at once.
async fn compare(options: &Options, left: &Program, right: &Program) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut report = Report::default();
    let mut waiting: Vec<Plan> = (0..)
        .zip((0..options.ops).step_by(ROUND))
        .map(|(at, from)| Plan {
            seed: options.seed.wrapping_add(at),
            ops: ROUND.min(options.ops - from),
            auth: !options.no_auth,
            planted: options.plant.filter(|_| at == 0),
        })
        .collect();
    waiting.reverse();
    let mut running = JoinSet::new();
    loop {
        while running.len() < options.jobs && report.differences.is_empty() {
            let Some(plan) = waiting.pop() else { break };
            let (left, right) = (left.clone(), right.clone());
            running.spawn(async move { round::play(&left, &right, &plan).await });
        }
        let Some(played) = running.join_next().await else {
            break;
        };
        let Round { counts, difference } = played.context("a round was stopped")??;
        report.add(&counts);
        if let Some(difference) = difference {
            if !options.json {
                println!("{difference}");
            }
            let small = if options.shrinks() {
                shrink::shrink(left, right, &difference).await?
            } else {
                None
            };
            if let (Some(small), false) = (&small, options.json) {
                println!("{small}");
            }
            report.differences.push(small.unwrap_or(difference));
        } else if !options.json && options.ops > ROUND {
            println!(
                "{:>9} of {} operations, {:.0} s",
                report.operations(),
                options.ops,
                began.elapsed().as_secs_f64()
            );
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{report}");
    }
    match report.differences.len() {
        0 => Ok(()),
        many => bail!("{many} difference(s) that nobody meant"),
    }
}

/// Shows that the comparison finds a difference where there is one, and none where there is none: etcd against etcd.
async fn self_check(etcd: &Program, seed: u64) -> anyhow::Result<()> {
    let mut plan = Plan {
        seed,
        ops: 3_000,
        auth: true,
        planted: None,
    };
    if let Some(difference) = round::play(etcd, etcd, &plan).await?.difference {
        bail!("etcd differs from itself: the comparison is wrong\n{difference}");
    }
    plan.planted = Some(1_000);
    match round::play(etcd, etcd, &plan).await?.difference {
        Some(difference) => println!("the planted difference was found:\n{difference}"),
        None => bail!(
            "the planted difference was not found in {} operations",
            plan.ops
        ),
    }
    Ok(())
}
