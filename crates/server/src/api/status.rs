//! What this server is and sees, without asking another.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_consensus::{PeerState, Role};
use quorate_coord::{NodeAdmission, PendingKind};
use quorate_wire::api::{self, ApiError, ApiErrorKind};

use super::{ApiState, convert};

/// Names listed of what is pending.
const NAMES_MAX: usize = 100;

impl ApiState {
    /// This server's own view.
    pub(crate) async fn status(&self) -> Result<api::ServerStatus, ApiError> {
        let status = tokio::time::timeout(Duration::from_secs(2), self.calls.status())
            .await
            .ok()
            .flatten();
        let Some(status) = status else {
            return Err(ApiError::new(
                ApiErrorKind::Overloaded,
                "the server's step thread did not answer in time",
            )
            .retry_after_ms(500));
        };
        let version = self.publisher.version();
        let state = &version.state;
        let now = crate::clock::now();
        let mut phases: BTreeMap<api::Phase, u64> = BTreeMap::new();
        let mut pending_transfers = Vec::new();
        let mut pending_transfers_total = 0;
        let mut pending_specs = Vec::new();
        for group in state.groups() {
            *phases.entry(convert::phase(group.phase)).or_default() += 1;
            if group
                .pending
                .as_ref()
                .is_some_and(|pending| pending.kind == PendingKind::Transfer)
            {
                pending_transfers_total += 1;
                if pending_transfers.len() < NAMES_MAX {
                    pending_transfers.push(group.key.name.clone());
                }
            }
            // A spec changed after the current tenure was granted rules the next election only.
            let waits = group
                .tenure
                .as_ref()
                .is_some_and(|tenure| group.spec_revision.0 > tenure.token.0);
            if waits && pending_specs.len() < NAMES_MAX {
                pending_specs.push(group.key.name.clone());
            }
        }
        let closed = state
            .nodes()
            .filter(|node| node.admission != NodeAdmission::Open);
        let drains = closed.map(|node| api::PendingDrain {
            node: node.spec.name.clone(),
            cordoned: node.admission == NodeAdmission::Cordoned,
            tenures_left: node.load.tenures,
        });
        let peers = status.progress.iter().map(|peer| api::PeerProgress {
            id: peer.id,
            matched: peer.matched,
            silent_ms: Some(
                u64::try_from(now.since(peer.heard_at).as_millis()).unwrap_or(u64::MAX),
            ),
            snapshot: matches!(peer.state, PeerState::Snapshot { .. }),
        });
        let members = self.members.iter().map(|member| api::ServerMember {
            id: member.id,
            name: member.name.clone(),
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            voter: true,
        });
        Ok(api::ServerStatus {
            cluster: self.cluster,
            id: self.own,
            name: self.name.clone(),
            version: crate::VERSION.to_owned(),
            role: match status.role {
                Role::Follower => api::Role::Follower,
                Role::PreCandidate | Role::Candidate => api::Role::Candidate,
                Role::Leader => api::Role::Leader,
            },
            term: status.term,
            leader: status.leader,
            commit: status.commit,
            applied: version.applied,
            last_index: status.last,
            revision: state.revision(),
            cluster_time_ms: state.cluster_time().0,
            feature_level: state.feature_level(),
            config_epoch: quorate_types::ConfigEpoch(1),
            members: members.collect(),
            peers: peers.collect(),
            sessions: state.session_count() as u64,
            nodes: state.nodes().count() as u64,
            groups: phases.into_iter().collect(),
            pending_transfers,
            pending_transfers_total,
            drains: drains.collect(),
            pending_specs,
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}
