//! What the demo prints: progress, a table of steps, and the verdict.

use std::time::Duration;

use serde::Serialize;

use super::record::Findings;
use crate::commands::moves::human;
use crate::output::{self, Table};

/// One step's times.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    name: &'static str,
    detect_ms: f64,
    elect_ms: f64,
    total_ms: f64,
}

/// The demo's result: what `--json` prints.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    pub(super) ok: bool,
    groups: u32,
    tenures_checked: u64,
    overlaps: u64,
    stale_writes_fenced: u64,
    steps: Vec<Step>,
    #[serde(skip)]
    remarks: Vec<String>,
}

/// Collects steps and prints as they come.
#[derive(Debug)]
pub(super) struct Reporter {
    json: bool,
    steps: Vec<Step>,
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e4).round() / 10.0
}

impl Reporter {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            steps: Vec::new(),
        }
    }

    /// A line for people.
    pub(super) fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    /// A step begins.
    pub(super) fn begin(&self, what: &str) {
        self.say(&format!("==> {what}"));
    }

    /// A step is done: until the fault was noticed, from then until all groups were led again, and what else to say.
    pub(super) fn done(
        &mut self,
        name: &'static str,
        detect: Duration,
        elect: Duration,
        remark: &str,
    ) {
        self.say(&format!("    {remark} ({})", human(detect + elect)));
        self.steps.push(Step {
            name,
            detect_ms: ms(detect),
            elect_ms: ms(elect),
            total_ms: ms(detect + elect),
        });
    }

    pub(super) fn summary(
        &self,
        groups: u32,
        findings: Findings,
        stale_writes_fenced: u64,
        failure: Option<&anyhow::Error>,
    ) -> Summary {
        let mut remarks = findings.examples;
        if findings.order_violations > 0 {
            remarks.push(format!(
                "{} tokens or tenure numbers did not rise",
                findings.order_violations
            ));
        }
        if stale_writes_fenced == 0 && failure.is_none() {
            remarks.push("no stale write was attempted".to_owned());
        }
        let clean = findings.overlaps == 0
            && findings.order_violations == 0
            && findings.tenures_checked >= u64::from(groups);
        Summary {
            ok: failure.is_none() && clean && stale_writes_fenced > 0,
            groups,
            tenures_checked: findings.tenures_checked,
            overlaps: findings.overlaps,
            stale_writes_fenced,
            steps: self.steps.clone(),
            remarks,
        }
    }

    pub(super) fn print(&self, summary: &Summary) -> anyhow::Result<()> {
        for remark in &summary.remarks {
            eprintln!("violation: {remark}");
        }
        if self.json {
            return output::json_line(summary);
        }
        let mut table = Table::new(&["STEP", "DETECT ms", "ELECT ms", "TOTAL ms"]);
        for step in &summary.steps {
            let cell = |value: f64| format!("{value:>8.1}");
            table.row([
                step.name.to_owned(),
                cell(step.detect_ms),
                cell(step.elect_ms),
                cell(step.total_ms),
            ]);
        }
        output::line("")?;
        output::table(&table)?;
        output::line(format!(
            "\n{} groups, {} tenures checked, {} overlaps, {} stale writes fenced: {}",
            summary.groups,
            summary.tenures_checked,
            summary.overlaps,
            summary.stale_writes_fenced,
            if summary.ok {
                "never two leaders at once"
            } else {
                "FAILED"
            }
        ))
    }
}
