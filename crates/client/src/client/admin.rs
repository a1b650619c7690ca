//! Calls about groups, nodes and servers.

use std::time::Duration;

use quorate_types::{GroupName, NodeName, ReplicaId, Revision, SessionId};
use quorate_wire::api::{
    AbortTransfer, AdmitNode, Contract, CreateGroups, DeleteGroup, Done, ExplainGroup, Explanation,
    Freshness, GetGroup, GroupDetail, GroupPage, GroupSpec, ListGroups, Moving, NodeAdmission,
    NodeList, Rebalance, RevokeSession, ServerStatus, TransferGroup, TransferLeader, TransferMode,
    UpdateGroup,
};

use super::Client;
use crate::error::Error;

impl Client {
    /// Creates groups; all or none.
    ///
    /// # Errors
    /// `Conflict`: one exists already. `Invalid`: a spec is out of bounds. `Unknown`: it may have been applied.
    pub async fn create_groups(&self, groups: Vec<(GroupName, GroupSpec)>) -> Result<Done, Error> {
        let what = match groups.as_slice() {
            [(name, _)] => format!("create group {name:?}"),
            _ => format!("create {} groups", groups.len()),
        };
        self.change(&what, |api, mutation, timeout| {
            let request = CreateGroups {
                mutation,
                groups: groups.clone(),
            };
            async move { api.create_groups(request, timeout).await }
        })
        .await
    }

    /// Replaces a group's spec, where it was last changed at `expected`.
    ///
    /// # Errors
    /// `Conflict`: it was changed since; read it again. `Invalid`: no such group, or the spec is out of bounds.
    /// `Unknown`: it may have been applied.
    pub async fn update_group(
        &self,
        group: &GroupName,
        spec: GroupSpec,
        expected: Option<Revision>,
    ) -> Result<Done, Error> {
        self.change(
            &format!("update group {group:?}"),
            |api, mutation, timeout| {
                let request = UpdateGroup {
                    mutation,
                    group: group.clone(),
                    spec: spec.clone(),
                    expected,
                };
                async move { api.update_group(request, timeout).await }
            },
        )
        .await
    }

    /// Deletes a group; it goes once its tenure has ended.
    ///
    /// # Errors
    /// `Conflict`: it was changed since `expected`. `Invalid`: no such group. `Unknown`: it may have been applied.
    pub async fn delete_group(
        &self,
        group: &GroupName,
        expected: Option<Revision>,
    ) -> Result<Done, Error> {
        self.change(
            &format!("delete group {group:?}"),
            |api, mutation, timeout| async move {
                api.delete_group(
                    DeleteGroup {
                        mutation,
                        group: group.clone(),
                        expected,
                    },
                    timeout,
                )
                .await
            },
        )
        .await
    }

    /// Reads one group, linearizably.
    ///
    /// # Errors
    /// `Invalid`: no such group. `Retry`: nobody answered in time.
    pub async fn get_group(&self, group: &GroupName) -> Result<GroupDetail, Error> {
        self.get_group_at(group, Freshness::default()).await
    }

    /// Reads one group, as fresh as asked.
    ///
    /// # Errors
    /// `Invalid`: no such group. `Retry`: nobody answered in time.
    pub async fn get_group_at(
        &self,
        group: &GroupName,
        freshness: Freshness,
    ) -> Result<GroupDetail, Error> {
        self.read(
            &format!("read group {group:?}"),
            |api, timeout| async move {
                api.get_group(
                    GetGroup {
                        freshness,
                        group: group.clone(),
                    },
                    timeout,
                )
                .await
            },
        )
        .await
    }

    /// Reads one page of groups, in the order of their names.
    ///
    /// # Errors
    /// `Retry`: nobody answered in time.
    pub async fn list_groups(&self, request: ListGroups) -> Result<GroupPage, Error> {
        self.read("list groups", |api, timeout| {
            let request = request.clone();
            async move { api.list_groups(request, timeout).await }
        })
        .await
    }

    /// Reads all groups whose name starts with `prefix`, page by page; the revision is that of the first page.
    ///
    /// # Errors
    /// `Retry`: nobody answered in time.
    pub async fn list_all_groups(&self, prefix: &str) -> Result<GroupPage, Error> {
        let request = ListGroups {
            prefix: prefix.to_owned(),
            ..ListGroups::default()
        };
        let mut all = self.list_groups(request.clone()).await?;
        while all.more {
            // Later pages may come from a server that lags; they are never older than the first.
            let freshness = Freshness {
                min_revision: all.revision,
                stale_ok: false,
            };
            let after = all.groups.last().map(|group| group.state.name.clone());
            let page = self
                .list_groups(ListGroups {
                    freshness,
                    after,
                    ..request.clone()
                })
                .await?;
            all.more = page.more && !page.groups.is_empty();
            all.groups.extend(page.groups);
        }
        Ok(all)
    }

    /// Asks why a group is led as it is.
    ///
    /// # Errors
    /// `Invalid`: no such group. `Retry`: nobody answered in time.
    pub async fn explain_group(&self, group: &GroupName) -> Result<Explanation, Error> {
        let freshness = Freshness::default();
        self.read(
            &format!("explain group {group:?}"),
            |api, timeout| async move {
                api.explain_group(
                    ExplainGroup {
                        freshness,
                        group: group.clone(),
                    },
                    timeout,
                )
                .await
            },
        )
        .await
    }

    /// Moves a group's leadership; returns once the move is begun, not when it is done.
    ///
    /// # Errors
    /// `Invalid`: no such group, or the node cannot lead it. `Conflict`: nobody leads. `Unknown`: it may have begun.
    pub async fn transfer_group(
        &self,
        group: &GroupName,
        to: Option<&NodeName>,
        mode: TransferMode,
    ) -> Result<Done, Error> {
        self.change(
            &format!("transfer group {group:?}"),
            |api, mutation, timeout| {
                let request = TransferGroup {
                    mutation,
                    group: group.clone(),
                    to: to.cloned(),
                    mode,
                };
                async move { api.transfer_group(request, timeout).await }
            },
        )
        .await
    }

    /// Calls off a pending handover.
    ///
    /// # Errors
    /// `Conflict`: there is none. `Invalid`: no such group. `Unknown`: it may have been applied.
    pub async fn abort_transfer(&self, group: &GroupName) -> Result<Done, Error> {
        self.change(
            &format!("abort the transfer of group {group:?}"),
            |api, mutation, timeout| async move {
                api.abort_transfer(
                    AbortTransfer {
                        mutation,
                        group: group.clone(),
                    },
                    timeout,
                )
                .await
            },
        )
        .await
    }

    /// Starts at most `moves_max` handovers towards an even spread of the groups whose name starts with `prefix`.
    ///
    /// # Errors
    /// `Unknown`: it may have begun. `Retry`: nobody answered in time.
    pub async fn rebalance(&self, prefix: &str, moves_max: u32) -> Result<Moving, Error> {
        self.change("rebalance", |api, mutation, timeout| async move {
            api.rebalance(
                Rebalance {
                    mutation,
                    prefix: prefix.to_owned(),
                    moves_max,
                },
                timeout,
            )
            .await
        })
        .await
    }

    /// Reads all nodes.
    ///
    /// # Errors
    /// `Retry`: nobody answered in time.
    pub async fn list_nodes(&self) -> Result<NodeList, Error> {
        self.read("list nodes", |api, timeout| {
            let request = Freshness::default();
            async move { api.list_nodes(request, timeout).await }
        })
        .await
    }

    /// Opens, cordons or drains a node.
    ///
    /// # Errors
    /// `Invalid`: no such node. `Unknown`: it may have been applied.
    pub async fn admit_node(
        &self,
        node: &NodeName,
        admission: NodeAdmission,
    ) -> Result<Done, Error> {
        self.change(
            &format!("admit node {node:?}"),
            |api, mutation, timeout| async move {
                api.admit_node(
                    AdmitNode {
                        mutation,
                        node: node.clone(),
                        admission,
                    },
                    timeout,
                )
                .await
            },
        )
        .await
    }

    /// Ends another's session; its tenures are waited out.
    ///
    /// # Errors
    /// `SessionLost`: it is over already. `Unknown`: it may have been applied.
    pub async fn revoke_session(&self, session: SessionId) -> Result<Done, Error> {
        self.change(
            &format!("revoke session {session}"),
            |api, mutation, timeout| {
                let request = RevokeSession { mutation, session };
                async move { api.revoke_session(request, timeout).await }
            },
        )
        .await
    }

    /// Asks any one server what it is and sees.
    ///
    /// # Errors
    /// `Retry`: nobody answered in time.
    pub async fn status(&self) -> Result<ServerStatus, Error> {
        self.read("read the status", |api, timeout| async move {
            api.status(timeout).await
        })
        .await
    }

    /// Asks every server what it is and sees, in the order of the endpoints. Each has `timeout` to answer.
    pub async fn status_of_all(
        &self,
        timeout: Duration,
    ) -> Vec<(String, Result<ServerStatus, Error>)> {
        let ask = |at| async move {
            let (address, api) = self.server(at);
            let what = format!("read the status of {address}");
            let status = match tokio::time::timeout(timeout, api.status(timeout)).await {
                Ok(status) => status.map_err(|error| Error::api(what, error)),
                Err(_) => Err(Error::new(
                    crate::ErrorKind::Retry,
                    format!("{what}: no answer in {timeout:?}"),
                )),
            };
            (address.to_owned(), status)
        };
        futures_util::future::join_all((0..self.server_count()).map(ask)).await
    }

    /// Hands the backbone's leadership to another server. Not deduplicated: while its outcome is unknown it is asked
    /// again, which changes nothing where `to` is named and leads by then.
    ///
    /// # Errors
    /// `Invalid`: that server cannot lead. `Unknown`: it may have begun.
    pub async fn transfer_leader(&self, to: Option<ReplicaId>) -> Result<(), Error> {
        self.change("transfer the backbone's leadership", |api, _, timeout| {
            let request = TransferLeader { to };
            async move { api.transfer_leader(request, timeout).await }
        })
        .await
    }

    /// Reads the lifecycle's table.
    ///
    /// # Errors
    /// `Retry`: nobody answered in time.
    pub async fn contract(&self) -> Result<Contract, Error> {
        self.read("read the contract", |api, timeout| async move {
            api.contract(timeout).await
        })
        .await
    }
}
