//! Bounds of what users give: checked before anything changes, so that a refusal has no partial effect.

use crate::contract::CONTRACT_VERSIONS;
use crate::depose::REASON_BYTES_MAX;
use crate::keys::ALARMS_MAX;
use crate::reply::Rejection;
use crate::spec::{
    BATCH_MAX, ContenderSpec, DeposeQuorum, ElectionPolicy, GroupSpec, NodeSpec, SPEC_BYTES_MAX,
    TTL_MS_MAX, TTL_MS_MIN,
};

/// Longest deadline, minimum tenure or cool-down in milliseconds: one day.
pub const DEADLINE_MS_MAX: u64 = 86_400_000;
/// Most preferred labels of a group.
pub const PREFER_MAX: usize = 32;

fn within<T: Copy + PartialOrd + std::fmt::Display>(
    what: &str,
    found: T,
    min: T,
    max: T,
) -> Result<(), Rejection> {
    if found >= min && found <= max {
        return Ok(());
    }
    Err(Rejection::OutOfBounds {
        what: what.into(),
        found: found.to_string(),
        allowed: format!("{min} to {max}"),
    })
}

fn spec_bytes(what: &str, bytes: usize) -> Result<(), Rejection> {
    within(what, bytes, 0, SPEC_BYTES_MAX)
}

pub(crate) fn ttl(ttl_ms: u64) -> Result<(), Rejection> {
    within(
        "the session's TTL in milliseconds",
        ttl_ms,
        TTL_MS_MIN,
        TTL_MS_MAX,
    )
}

pub(crate) fn alarms(count: usize) -> Result<(), Rejection> {
    within("the number of alarms", count, 0, ALARMS_MAX)
}

pub(crate) fn batch(what: &str, count: usize) -> Result<(), Rejection> {
    within(what, count, 0, BATCH_MAX)
}

pub(crate) fn node(spec: &NodeSpec) -> Result<(), Rejection> {
    within("the node's weight", spec.weight, 1, u32::MAX)?;
    spec_bytes("the size of the node's spec in bytes", spec.size_bytes())?;
    let (min, max) = (spec.contract_min.0, spec.contract_max.0);
    if min > max || min > *CONTRACT_VERSIONS.end() || max < *CONTRACT_VERSIONS.start() {
        return Err(Rejection::ContractMismatch {
            found: format!("{min} to {max}"),
            allowed: format!(
                "{} to {}",
                CONTRACT_VERSIONS.start(),
                CONTRACT_VERSIONS.end()
            ),
        });
    }
    Ok(())
}

pub(crate) fn group(spec: &GroupSpec) -> Result<(), Rejection> {
    within(
        "the prepare deadline in milliseconds",
        spec.prepare_deadline_ms,
        1,
        DEADLINE_MS_MAX,
    )?;
    within(
        "the handover deadline in milliseconds",
        spec.handover_deadline_ms,
        1,
        DEADLINE_MS_MAX,
    )?;
    within(
        "the minimum tenure in milliseconds",
        spec.minimum_tenure_ms,
        0,
        DEADLINE_MS_MAX,
    )?;
    within(
        "the cool-down in milliseconds",
        spec.cooldown_ms,
        0,
        DEADLINE_MS_MAX,
    )?;
    within(
        "the longest cool-down in milliseconds",
        spec.cooldown_max_ms,
        spec.cooldown_ms,
        DEADLINE_MS_MAX,
    )?;
    within("the group's weight", spec.weight, 1, u32::MAX)?;
    if let DeposeQuorum::Reports { min } = spec.depose_quorum {
        within(
            "the number of reports that depose a holder",
            min,
            1,
            u32::MAX,
        )?;
    }
    within(
        "how long a report of a faulty holder counts in milliseconds",
        spec.depose_window_ms,
        1,
        DEADLINE_MS_MAX,
    )?;
    within(
        "the number of preferred labels",
        spec.prefer.len(),
        0,
        PREFER_MAX,
    )?;
    if let ElectionPolicy::Freshest {
        answers_min: Some(answers_min),
    } = spec.policy
    {
        within(
            "the least number of answers to a poll",
            answers_min,
            1,
            u32::MAX,
        )?;
    }
    spec_bytes("the size of the group's spec in bytes", spec.size_bytes())
}

/// A report's reason: it is shown on terminals, so that control characters are refused.
pub(crate) fn reason(reason: &str) -> Result<(), Rejection> {
    within(
        "the size of the reason in bytes",
        reason.len(),
        1,
        REASON_BYTES_MAX,
    )?;
    match reason.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some(found) => Err(Rejection::OutOfBounds {
            what: "a character of the reason".into(),
            found: format!("{found:?}"),
            allowed: "all but control characters".into(),
        }),
    }
}

pub(crate) fn contender(spec: &ContenderSpec) -> Result<(), Rejection> {
    let bytes = spec.size_bytes();
    spec_bytes("the size of the proposed configuration in bytes", bytes)
}
