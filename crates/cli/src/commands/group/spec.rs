//! A group's spec on the command line.

use quorate_client::api::{DeposeQuorum, ElectionPolicy, GroupSpec, OverduePolicy};

use crate::args::{duration, pair};
use crate::exit::Failure;

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Policy {
    /// By priority, locality, load, then a hash.
    Priority,
    /// Contenders are polled for their positions; only the freshest are considered.
    Freshest,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Overdue {
    /// The holder goes on leading.
    Abort,
    /// The tenure is revoked, and its lease waited out.
    Revoke,
}

/// How a group is led. What is not given keeps its value, or its default in a new group.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SpecArgs {
    /// A label that a contender's node must have; repeat for more.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, value_delimiter = ',', help_heading = "Spec")]
    require: Option<Vec<(String, String)>>,
    /// A label that is preferred among equal priorities, most important first; repeat for more.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair, value_delimiter = ',', help_heading = "Spec")]
    prefer: Option<Vec<(String, String)>>,
    /// How the leader is chosen among the eligible.
    #[arg(long, value_enum, help_heading = "Spec")]
    policy: Option<Policy>,
    /// How many contenders must answer the poll of the freshest policy; without it all that are alive.
    #[arg(long, value_name = "COUNT", help_heading = "Spec")]
    answers_min: Option<u32>,
    /// Whether the elected contender must report that it is ready before it leads.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Spec")]
    readiness: Option<bool>,
    /// How long a poll or a preparation may take.
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = "Spec")]
    prepare_deadline: Option<u64>,
    /// How long a handover may take.
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = "Spec")]
    handover_deadline: Option<u64>,
    /// What happens to a handover that is not finished by then.
    #[arg(long, value_enum, help_heading = "Spec")]
    handover_overdue: Option<Overdue>,
    /// No voluntary handover before a tenure is this old.
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = "Spec")]
    minimum_tenure: Option<u64>,
    /// For how long a contender whose tenure failed is not elected here; doubled with each failure in a row.
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = "Spec")]
    cooldown: Option<u64>,
    /// Bound of the doubling.
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = "Spec")]
    cooldown_max: Option<u64>,
    /// Whether leaderships move on their own to a node that joins with a lighter load.
    #[arg(long, value_name = "BOOL", help_heading = "Spec")]
    spread: Option<bool>,
    /// How much leading this group weighs on a node.
    #[arg(long, value_name = "WEIGHT", help_heading = "Spec")]
    weight: Option<u32>,
    /// How many contenders' reports depose a holder that is alive but faulty: `off`, `majority`, or a number.
    #[arg(long, value_name = "QUORUM", value_parser = depose_quorum, help_heading = "Spec")]
    depose_quorum: Option<DeposeQuorum>,
    /// How long such a report counts unless it is said again.
    #[arg(long, value_name = "TIME", value_parser = milliseconds, help_heading = "Spec")]
    depose_window: Option<u64>,
}

fn depose_quorum(text: &str) -> Result<DeposeQuorum, String> {
    match (text, text.parse()) {
        ("off", _) => Ok(DeposeQuorum::Off),
        ("majority", _) => Ok(DeposeQuorum::Majority),
        (_, Ok(min)) if min > 0 => Ok(DeposeQuorum::Reports { min }),
        _ => Err("expected `off`, `majority`, or a number of at least 1".to_owned()),
    }
}

fn milliseconds(text: &str) -> Result<u64, String> {
    u64::try_from(duration(text)?.as_millis()).map_err(|_| format!("`{text}` is too long"))
}

impl SpecArgs {
    /// `base` with what was given.
    pub(super) fn over(&self, base: GroupSpec) -> anyhow::Result<GroupSpec> {
        let policy = match (self.policy, self.answers_min, base.policy) {
            (Some(Policy::Priority), None, _) => ElectionPolicy::Priority,
            (Some(Policy::Freshest), answers_min, _) => ElectionPolicy::Freshest { answers_min },
            (None, Some(answers_min), ElectionPolicy::Freshest { .. }) => {
                ElectionPolicy::Freshest {
                    answers_min: Some(answers_min),
                }
            }
            (_, Some(_), _) => {
                let hint = "give --policy freshest with it";
                return Err(Failure::usage("--answers-min is about the freshest policy")
                    .with_hint(hint)
                    .into());
            }
            (None, None, policy) => policy,
        };
        Ok(GroupSpec {
            require: self
                .require
                .clone()
                .map_or(base.require, |given| given.into_iter().collect()),
            prefer: self.prefer.clone().unwrap_or(base.prefer),
            policy,
            readiness: self.readiness.unwrap_or(base.readiness),
            prepare_deadline_ms: self.prepare_deadline.unwrap_or(base.prepare_deadline_ms),
            handover_deadline_ms: self.handover_deadline.unwrap_or(base.handover_deadline_ms),
            handover_overdue: match self.handover_overdue {
                Some(Overdue::Abort) => OverduePolicy::Abort,
                Some(Overdue::Revoke) => OverduePolicy::Revoke,
                None => base.handover_overdue,
            },
            minimum_tenure_ms: self.minimum_tenure.unwrap_or(base.minimum_tenure_ms),
            cooldown_ms: self.cooldown.unwrap_or(base.cooldown_ms),
            cooldown_max_ms: self.cooldown_max.unwrap_or(base.cooldown_max_ms),
            spread: self.spread.unwrap_or(base.spread),
            weight: self.weight.unwrap_or(base.weight),
            depose_quorum: self.depose_quorum.unwrap_or(base.depose_quorum),
            depose_window_ms: self.depose_window.unwrap_or(base.depose_window_ms),
        })
    }
}
