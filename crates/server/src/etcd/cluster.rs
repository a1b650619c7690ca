//! The Cluster service: who the members are. Changing them is refused truthfully: this version cannot.

use quorate_types::ReplicaId;
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::Etcd;

fn cannot() -> Status {
    Status::unimplemented("quorate: this version cannot change the members of a running cluster")
}

impl Etcd {
    /// As in etcd, the header of these answers tells no revision: members have nothing to do with the key space.
    fn cluster_header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader {
            cluster_id: self.api.cluster.0,
            member_id: self.api.own.0,
            revision: 0,
            raft_term: self.api.role.borrow().term.0,
        }
    }

    fn check_member(&self, id: u64) -> Result<(), Status> {
        let known = self
            .api
            .members
            .iter()
            .any(|member| member.id == ReplicaId(id));
        if known {
            Ok(())
        } else {
            Err(Status::not_found("etcdserver: member not found"))
        }
    }

    /// A member's address as a URL.
    fn url(&self, scheme_tls: bool, address: &str) -> String {
        let scheme = if scheme_tls { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    fn check_urls(&self, urls: &[String]) -> Result<(), Status> {
        let is_url = |url: &String| {
            url.strip_prefix("http://")
                .or_else(|| url.strip_prefix("https://"))
                .is_some_and(|rest| {
                    rest.rsplit_once(':')
                        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
                })
        };
        if urls.is_empty() || !urls.iter().all(is_url) {
            return Err(Status::invalid_argument(
                "etcdserver: given member URLs are invalid",
            ));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Cluster for Etcd {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let urls = &request.get_ref().peer_ur_ls;
        self.check_urls(urls)?;
        let is_taken = |url: &String| {
            let members = self.api.members.iter();
            members
                .map(|member| self.url(self.api.tls.peer, &member.peer_address))
                .any(|taken| taken == *url)
        };
        self.check_admin(&self.caller(&request)?)?;
        if urls.iter().any(is_taken) {
            return Err(Status::failed_precondition(
                "etcdserver: Peer URLs already exists",
            ));
        }
        Err(cannot())
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        self.check_admin(&self.caller(&request)?)?;
        self.check_member(request.get_ref().id)?;
        Err(cannot())
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        // As in etcd, its URLs are not looked at.
        self.check_admin(&self.caller(&request)?)?;
        self.check_member(request.get_ref().id)?;
        Err(cannot())
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        if request.get_ref().linearizable {
            self.read_index().await?;
        }
        let members = self.api.members.iter().map(|member| pb::Member {
            id: member.id.0,
            name: member.name.clone(),
            peer_ur_ls: vec![self.url(self.api.tls.peer, &member.peer_address)],
            client_ur_ls: vec![self.url(self.api.tls.client, &member.client_address)],
            is_learner: false,
        });
        Ok(Response::new(pb::MemberListResponse {
            header: Some(self.cluster_header()),
            members: members.collect(),
        }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        self.check_admin(&self.caller(&request)?)?;
        self.check_member(request.get_ref().id)?;
        Err(Status::failed_precondition(
            "etcdserver: can only promote a learner member",
        ))
    }
}
