//! The demo's steps, one function each.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use quorate_client::api::{BATCH_MAX, GroupSpec, NodeAdmission, Role};
use quorate_types::{GroupName, NodeName, ReplicaId};

use super::cluster::SERVERS;
use super::report::Reporter;
use super::stage::{Stage, connect};
use crate::clock;
use crate::commands::moves::{human, median_and_max};

/// Which node is killed, drained, stopped.
const KILLED: usize = 0;
const DRAINED: usize = 1;
const STOPPED: usize = 2;

/// Groups on which the stopped node acts after it was continued.
const STALE_ACTS: usize = 20;

/// Plays every step; a violation or a step that does not come about is an error.
pub(super) async fn play(stage: &mut Stage, reporter: &mut Reporter) -> anyhow::Result<()> {
    servers(stage, reporter).await?;
    spread(stage, reporter).await?;
    kill_node(stage, reporter).await?;
    kill_leader(stage, reporter).await?;
    drain(stage, reporter).await?;
    stop(stage, reporter).await
}

async fn servers(stage: &mut Stage, reporter: &mut Reporter) -> anyhow::Result<()> {
    reporter.begin(&format!(
        "three servers start: {}",
        stage.endpoints().join(" ")
    ));
    let begin = clock::now();
    // A linearizable read needs a leader that has applied an entry of its own term.
    stage.client.list_nodes().await?;
    let status = stage.client.status().await?;
    let leader = status
        .leader
        .map_or_else(|| "?".to_owned(), |id| format!("s{id}"));
    reporter.done(
        "servers elect a leader",
        Duration::ZERO,
        clock::now().since(begin),
        &format!("{leader} leads the backbone"),
    );
    Ok(())
}

async fn spread(stage: &mut Stage, reporter: &mut Reporter) -> anyhow::Result<()> {
    let groups = stage.group_names()?;
    let total = groups.len();
    let spec = GroupSpec {
        minimum_tenure_ms: 1_000,
        cooldown_ms: 500,
        handover_deadline_ms: 5_000,
        ..GroupSpec::default()
    };
    let begin = clock::now();
    for batch in groups.chunks(BATCH_MAX) {
        let batch = batch
            .iter()
            .map(|group| (group.clone(), spec.clone()))
            .collect();
        stage.client.create_groups(batch).await?;
    }
    stage.start_nodes()?;
    let nodes = stage.nodes.len();
    reporter.begin(&format!("{nodes} nodes start and stand in {total} groups"));
    let even = total as f64 / nodes as f64;
    // Within ten per cent of even; a group is indivisible, so one more or less is even too.
    let tolerance = (even * 0.1).max(1.0);
    let first_led = stage
        .follow("all groups led", |follower, _| {
            (follower.led_by_node().values().sum::<usize>() == total).then(clock::now)
        })
        .await?;
    reporter.say(&format!(
        "    all {total} groups are led after {}; spreading",
        human(first_led.since(begin))
    ));
    let counts = stage
        .follow("groups spread within 10 % of even", |follower, _| {
            let counts: Vec<usize> = follower.led_by_node().into_values().collect();
            let even_enough = counts.len() == nodes
                && counts
                    .iter()
                    .all(|count| (*count as f64 - even).abs() <= tolerance);
            (even_enough && counts.iter().sum::<usize>() == total).then_some(counts)
        })
        .await?;
    let (least, most) = (
        counts.iter().min().copied().unwrap_or(0),
        counts.iter().max().copied().unwrap_or(0),
    );
    let remark = format!("all led, {least} to {most} groups per node");
    reporter.done(
        "groups led and spread",
        Duration::ZERO,
        clock::now().since(begin),
        &remark,
    );
    stage.settle().await
}

async fn kill_node(stage: &mut Stage, reporter: &mut Reporter) -> anyhow::Result<()> {
    let victim = stage.nodes[KILLED].name.clone();
    let held = stage.led_by(&victim);
    reporter.begin(&format!(
        "{victim}, which leads {} groups, is killed with -9",
        held.len()
    ));
    let fault = clock::now();
    stage.nodes[KILLED].kill().await?;
    let relocation = stage.relocation(&victim, &held).await?;
    let remark = format!(
        "its session expired, its {} groups are led again",
        held.len()
    );
    reporter.done(
        "node killed",
        relocation.noticed.since(fault),
        relocation.led.since(relocation.noticed),
        &remark,
    );
    stage.settle().await
}

async fn kill_leader(stage: &mut Stage, reporter: &mut Reporter) -> anyhow::Result<()> {
    let status = stage.client.status().await?;
    let Some(leader) = status.leader else {
        bail!("the backbone has no leader")
    };
    reporter.begin(&format!(
        "s{leader}, which leads the backbone, is killed with -9"
    ));
    let before = stage.tenures();
    let mut survivors = Vec::new();
    for id in (1..=SERVERS).map(ReplicaId).filter(|id| *id != leader) {
        survivors.push(connect(&[stage.cluster.endpoint(id)]).await?);
    }
    let fault = clock::now();
    stage.cluster.kill(leader)?;
    let mut noticed = None;
    loop {
        for survivor in &survivors {
            let status = survivor.status().await?;
            if status.leader != Some(leader) || status.role == Role::Candidate {
                noticed.get_or_insert_with(clock::now);
            }
        }
        if noticed.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let noticed = noticed.unwrap_or(fault);
    // An acknowledged change shows that the backbone works again.
    let probe = GroupName::new("probe")?;
    stage
        .client
        .create_groups(vec![(probe.clone(), GroupSpec::default())])
        .await
        .context("change something under the new leader")?;
    let elected = clock::now();
    // Each session had a keep-alive in flight: none may have expired over the election.
    let moved = stage.follow_for(stage.ttl() * 3 / 2).await?;
    let after = stage.tenures();
    if !moved.is_empty() || after != before {
        bail!(
            "{} groups changed hands although only a server was killed",
            moved.len().max(1)
        );
    }
    let remark = format!(
        "another leads, all {} groups kept their holders",
        before.len()
    );
    reporter.done(
        "backbone leader killed",
        noticed.since(fault),
        elected.since(noticed),
        &remark,
    );
    stage.client.delete_group(&probe, None).await?;
    stage.cluster.start_one(leader)?;
    let restarted = connect(&[stage.cluster.endpoint(leader)]).await?;
    // A read through the restarted server is answered from its own state once that has caught up.
    restarted.list_nodes().await?;
    Ok(())
}

async fn drain(stage: &mut Stage, reporter: &mut Reporter) -> anyhow::Result<()> {
    let victim = stage.nodes[DRAINED].name.clone();
    let held = stage.led_by(&victim);
    reporter.begin(&format!(
        "{victim}, which leads {} groups, is drained by handovers",
        held.len()
    ));
    let ordered = clock::now();
    stage
        .client
        .admit_node(&victim, NodeAdmission::Draining)
        .await?;
    let relocation = stage.relocation(&victim, &held).await?;
    let (median, max) = median_and_max(relocation.moves.iter().map(|moved| moved.gap).collect());
    let remark = format!(
        "handed over, without a holder for {} (median), {} (maximum)",
        human(median),
        human(max)
    );
    reporter.done(
        "node drained",
        Duration::ZERO,
        relocation.led.since(ordered),
        &remark,
    );
    stage
        .client
        .admit_node(&victim, NodeAdmission::Open)
        .await?;
    stage.settle().await
}

async fn stop(stage: &mut Stage, reporter: &mut Reporter) -> anyhow::Result<()> {
    let victim = stage.nodes[STOPPED].name.clone();
    reporter.begin(&format!(
        "{victim} is stopped past its TTL, continued, and acts on checks that it took before"
    ));
    let checked = stage.nodes[STOPPED].take_checks(STALE_ACTS).await?;
    if checked.is_empty() {
        bail!("{victim} leads nothing that it could act on");
    }
    let fault = clock::now();
    stage.nodes[STOPPED].stop()?;
    let held = stage.led_by(&victim);
    let relocation = stage.relocation(&victim, &held).await?;
    wait_for_writes(stage, &victim, &checked).await?;
    let acted = stage.nodes[STOPPED].go_on_and_act().await?;
    if acted.checks_true > 0 {
        bail!(
            "{victim} answered `I lead` {} times after its lease had passed on",
            acted.checks_true
        );
    }
    if acted.admitted > 0 || acted.stale != checked.len() {
        bail!("{victim} wrote {} times with an old token", acted.admitted);
    }
    let remark = format!(
        "its {} groups are led by others, its {} stale writes were fenced",
        held.len(),
        acted.stale
    );
    reporter.done(
        "node stopped and continued",
        relocation.noticed.since(fault),
        relocation.led.since(relocation.noticed),
        &remark,
    );
    // Back under a new session: its beliefs from here on are checked too.
    stage
        .follow(&format!("{victim} back"), |follower, _| {
            let back = follower
                .states()
                .any(|state| state.leader() == Some(&victim));
            (back || follower.led_by_node().len() >= 2).then_some(())
        })
        .await?;
    stage.follow_for(Duration::from_millis(500)).await.map(drop)
}

/// Waits until the new holders of these groups have written with their tokens.
async fn wait_for_writes(
    stage: &mut Stage,
    old: &NodeName,
    groups: &[String],
) -> anyhow::Result<()> {
    let groups: BTreeSet<GroupName> = groups
        .iter()
        .map(|group| GroupName::new(group))
        .collect::<Result<_, _>>()?;
    let resource = stage.resource.clone();
    stage
        .follow("the new holders write", |follower, _| {
            let written = groups.iter().all(|group| {
                follower.get(group).is_some_and(|state| {
                    state.leader().is_some_and(|leader| leader != old)
                        && resource.highest(group) >= state.token
                })
            });
            written.then_some(())
        })
        .await
}
