//! Roughly how large commands are once encoded, for flow control and for the limit on specs.

use quorate_types::Payload;

use crate::command::{Command, Envelope};
use crate::spec::{ContenderSpec, GroupSpec, NodeSpec, ProposedConfiguration};

/// Encoded size of a record's fixed parts: an upper bound of its numbers and tags.
const FIXED_BYTES: usize = 64;

fn pairs_bytes<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> usize {
    pairs.map(|(key, value)| key.len() + value.len() + 4).sum()
}

impl ProposedConfiguration {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.endpoints
            .iter()
            .map(|endpoint| endpoint.len() + 2)
            .sum::<usize>()
            + pairs_bytes(self.metadata.iter())
    }
}

impl GroupSpec {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        FIXED_BYTES
            + pairs_bytes(self.require.iter())
            + pairs_bytes(self.prefer.iter().map(|(key, value)| (key, value)))
    }
}

impl ContenderSpec {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        FIXED_BYTES + self.configuration.size_bytes()
    }
}

impl NodeSpec {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        FIXED_BYTES + self.name.as_str().len() + pairs_bytes(self.labels.iter())
    }
}

impl Command {
    /// Roughly its encoded size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        match self {
            Command::OpenSession { node, .. } => node.as_ref().map_or(0, NodeSpec::size_bytes),
            Command::CreateGroups { groups } => groups
                .iter()
                .map(|(name, spec)| name.as_str().len() + spec.size_bytes())
                .sum(),
            Command::UpdateGroup { group, spec, .. } => group.as_str().len() + spec.size_bytes(),
            Command::Contend { groups, .. } => groups
                .iter()
                .map(|(name, spec)| name.as_str().len() + spec.size_bytes())
                .sum(),
            Command::Withdraw { groups, .. } => {
                groups.iter().map(|name| name.as_str().len() + 2).sum()
            }
            Command::Report { reports, .. } => reports
                .iter()
                .map(|(tenure, _)| tenure.group.name.as_str().len() + FIXED_BYTES)
                .sum(),
            Command::VacateTenures { tenures, .. } => tenures
                .iter()
                .map(|tenure| tenure.group.name.as_str().len() + FIXED_BYTES)
                .sum(),
            Command::ExpireSessions { sessions, .. } => sessions.len() * 20,
            Command::DeleteGroup { group, .. } | Command::AbortTransfer { group } => {
                group.as_str().len()
            }
            Command::Transfer { group, to, .. } => {
                group.as_str().len() + to.as_ref().map_or(0, |node| node.as_str().len())
            }
            Command::AdmitNode { node, .. } => node.as_str().len(),
            Command::Rebalance { prefix, .. } => prefix.len(),
            Command::ReportFaulty { tenure, reason, .. } => {
                tenure.group.name.as_str().len() + reason.len() + FIXED_BYTES
            }
            Command::WithdrawReport { tenure, .. } => {
                tenure.group.name.as_str().len() + FIXED_BYTES
            }
            Command::CloseSession { .. } | Command::RevokeSession { .. } | Command::Advance => 0,
        }
    }
}

impl Payload for Envelope {
    fn size_bytes(&self) -> usize {
        2 * FIXED_BYTES + self.principal.as_str().len() + self.command.size_bytes()
    }
}
