//! What goes over the wire comes back the same, and what is wrong is refused.

use std::fmt::Debug;

use quorate_types::{
    ClusterId, ConfigEpoch, ContractVersion, DirectiveSeq, FeatureLevel, FencingToken, GroupName,
    LogIndex, NodeName, ReplicaId, RequestId, Revision, SessionId, TenureNumber, Term,
};

use super::*;
use crate::api::*;

fn name(name: &str) -> GroupName {
    GroupName::new(name).unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

/// Encodes to bytes, decodes, and expects the same.
fn check<T, P>(value: T)
where
    T: Clone + Debug + PartialEq + TryFrom<P, Error = ApiError>,
    P: From<T> + Message + Default,
{
    let bytes = P::from(value.clone()).encode_to_vec();
    let decoded = T::try_from(P::decode(bytes.as_slice()).unwrap());
    assert_eq!(decoded, Ok(value));
}

fn mutation() -> Mutation {
    Mutation {
        request_id: RequestId(7 << 100 | 9),
        contract: CONTRACT,
    }
}

fn spec() -> GroupSpec {
    GroupSpec {
        require: [("zone".to_owned(), "a".to_owned())].into(),
        prefer: vec![("region".to_owned(), "eu".to_owned())],
        policy: ElectionPolicy::Freshest {
            answers_min: Some(2),
        },
        readiness: true,
        handover_overdue: OverduePolicy::Revoke,
        depose_quorum: DeposeQuorum::Reports { min: 3 },
        depose_window_ms: 7_000,
        ..GroupSpec::default()
    }
}

fn fault_report() -> FaultReport {
    FaultReport {
        session: SessionId(4),
        node: node("n2"),
        reason: "probes time out".into(),
        at_ms: 70,
    }
}

fn configuration() -> ProposedConfiguration {
    ProposedConfiguration {
        endpoints: vec!["a:1".to_owned()],
        metadata: [("k".to_owned(), "v".to_owned())].into(),
    }
}

fn tenure() -> TenureId {
    TenureId {
        group: name("orders/1"),
        incarnation: Revision(4),
        number: TenureNumber(2),
    }
}

fn state() -> GroupState {
    GroupState {
        name: name("orders/1"),
        incarnation: Revision(4),
        phase: Phase::Draining,
        tenure: TenureNumber(2),
        token: FencingToken(9),
        node: Some(node("n1")),
        session: Some(SessionId(3)),
        configuration: configuration(),
        vacancy: Some(Cause::WaitedOut),
    }
}

#[test]
fn every_call_survives_the_wire() {
    let (mutation, group) = (mutation(), name("orders/1"));
    let freshness = Freshness {
        min_revision: Revision(5),
        stale_ok: true,
    };
    check::<_, proto::CreateGroupsRequest>(CreateGroups {
        mutation,
        groups: vec![(group.clone(), spec())],
    });
    let expected = Some(Revision(0));
    check::<_, proto::UpdateGroupRequest>(UpdateGroup {
        mutation,
        group: group.clone(),
        spec: spec(),
        expected,
    });
    check::<_, proto::DeleteGroupRequest>(DeleteGroup {
        mutation,
        group: group.clone(),
        expected: None,
    });
    check::<_, proto::GetGroupRequest>(GetGroup {
        freshness,
        group: group.clone(),
    });
    let after = Some(group.clone());
    check::<_, proto::ListGroupsRequest>(ListGroups {
        freshness,
        prefix: "o".into(),
        after,
        limit: 3,
    });
    check::<_, proto::ExplainGroupRequest>(ExplainGroup {
        freshness,
        group: group.clone(),
    });
    let to = Some(node("n2"));
    for mode in [TransferMode::Handover, TransferMode::Force] {
        let (group, to) = (group.clone(), to.clone());
        check::<_, proto::TransferGroupRequest>(TransferGroup {
            mutation,
            group,
            to,
            mode,
        });
    }
    check::<_, proto::AbortTransferRequest>(AbortTransfer { mutation, group });
    check::<_, proto::RebalanceRequest>(Rebalance {
        mutation,
        prefix: String::new(),
        moves_max: 4,
    });
    check::<_, proto::ListNodesRequest>(freshness);
    for admission in [
        NodeAdmission::Open,
        NodeAdmission::Cordoned,
        NodeAdmission::Draining,
    ] {
        check::<_, proto::AdmitNodeRequest>(AdmitNode {
            mutation,
            node: node("n1"),
            admission,
        });
    }
    check::<_, proto::RevokeSessionRequest>(RevokeSession {
        mutation,
        session: SessionId(8),
    });
    check::<_, proto::TransferLeaderRequest>(TransferLeader {
        to: Some(ReplicaId(2)),
    });
    let watch = WatchGroups {
        prefix: "orders/".to_owned(),
        min_revision: Revision(7),
    };
    check::<_, proto::WatchGroupsRequest>(watch);
}

#[test]
fn every_answer_survives_the_wire() {
    let view = GroupView {
        state: state(),
        spec: spec(),
        spec_revision: Revision(6),
        contenders: 2,
        successor: Some(node("n2")),
        transfer_pending: true,
        deleting: true,
        fault_reports: 1,
    };
    let contender = ContenderView {
        session: SessionId(3),
        node: node("n1"),
        spec: ContenderSpec {
            priority: -4,
            configuration: configuration(),
        },
    };
    let revision = Revision(11);
    check::<_, proto::MutationReply>(Done { revision });
    let contenders = vec![contender];
    check::<_, proto::GetGroupReply>(GroupDetail {
        revision,
        group: view.clone(),
        contenders,
    });
    check::<_, proto::ListGroupsReply>(GroupPage {
        revision,
        groups: vec![view],
        more: true,
    });
    check::<_, proto::RebalanceReply>(Moving { revision, moves: 3 });
    let node_spec = NodeSpec {
        labels: [("zone".into(), "a".into())].into(),
        ..NodeSpec::new(node("n1"))
    };
    let session = Some(SessionKey {
        id: SessionId(3),
        created: Revision(2),
    });
    let nodes = vec![NodeView {
        spec: node_spec,
        session,
        ttl_ms: 3_000,
        admission: NodeAdmission::Draining,
        tenures: 4,
        preparing: 1,
        load: 9,
        revoked: true,
    }];
    check::<_, proto::ListNodesReply>(NodeList { revision, nodes });
    check::<_, proto::ExplainGroupReply>(Explanation {
        revision,
        state: state(),
        reason: "highest priority".into(),
        contenders: vec![ContenderVerdict {
            session: SessionId(3),
            node: node("n1"),
            priority: 1,
            holder: true,
            eligible: true,
            verdict: "leads".into(),
            cooldown_left_ms: 5,
        }],
        pending: vec!["handover".into()],
        history: vec![PastTenure {
            number: TenureNumber(1),
            token: FencingToken(5),
            node: None,
            began_ms: 1,
            ended_ms: 2,
            cause: Cause::Expired,
            revoked_for: Some(Cause::Deposed),
            fault_reports: vec![fault_report()],
        }],
        cluster_time_ms: 77,
        fault_reports: vec![fault_report()],
        fault_reports_needed: Some(2),
    });
    check::<_, proto::ContractReply>(Contract {
        version_min: ContractVersion(1),
        version_max: ContractVersion(2),
        transitions: vec![Transition {
            from: Phase::Vacant,
            to: Phase::Active,
            cause: Cause::Elected,
            initiator: "contender".into(),
            requires: "nothing".into(),
        }],
    });
    check::<_, proto::StatusReply>(ServerStatus {
        cluster: ClusterId(1),
        id: ReplicaId(2),
        name: "s2".into(),
        version: "0.1.0".into(),
        role: Role::Leader,
        term: Term(3),
        leader: Some(ReplicaId(2)),
        commit: LogIndex(9),
        applied: LogIndex(8),
        last_index: LogIndex(10),
        revision,
        cluster_time_ms: 5,
        feature_level: FeatureLevel(1),
        config_epoch: ConfigEpoch(1),
        members: vec![ServerMember {
            id: ReplicaId(2),
            name: "s2".into(),
            peer_address: "h:2380".into(),
            client_address: "h:2379".into(),
            voter: true,
        }],
        peers: vec![PeerProgress {
            id: ReplicaId(1),
            matched: LogIndex(8),
            silent_ms: Some(4),
            snapshot: true,
        }],
        sessions: 1,
        nodes: 1,
        groups: vec![(Phase::Active, 4)],
        pending_transfers: vec![name("a")],
        pending_transfers_total: 1,
        drains: vec![PendingDrain {
            node: node("n1"),
            cordoned: true,
            tenures_left: 2,
        }],
        pending_specs: vec![name("b")],
        uptime_ms: 100,
    });
}

#[test]
fn every_stream_message_survives_the_wire() {
    let (contract_min, contract_max) = (ContractVersion(1), ContractVersion(2));
    let session = SessionKey {
        id: SessionId(3),
        created: Revision(2),
    };
    let node_spec = Some(NodeSpec::new(node("n1")));
    let request_id = RequestId(5);
    for node in [None, node_spec] {
        check::<_, proto::NodeUp>(NodeUp::Open {
            request_id,
            ttl_ms: 3_000,
            node,
            contract_min,
            contract_max,
        });
    }
    let processed = DirectiveSeq(4);
    check::<_, proto::NodeUp>(NodeUp::Resume {
        session,
        processed,
        contract_min,
        contract_max,
    });
    check::<_, proto::NodeUp>(NodeUp::KeepAlive {
        seq: 4,
        clock_ms: 99,
        healthy: true,
    });
    let entries = vec![(
        name("g"),
        ContenderSpec {
            priority: -1,
            configuration: configuration(),
        },
    )];
    check::<_, proto::NodeUp>(NodeUp::Contend {
        request_seq: 1,
        entries,
    });
    check::<_, proto::NodeUp>(NodeUp::Withdraw {
        request_seq: 2,
        groups: vec![name("g")],
    });
    check::<_, proto::NodeUp>(NodeUp::ReportFaulty {
        request_seq: 3,
        tenure: tenure(),
        reason: "x".repeat(REASON_BYTES_MAX),
    });
    check::<_, proto::NodeUp>(NodeUp::WithdrawReport {
        request_seq: 4,
        tenure: tenure(),
    });
    let position = Position(8);
    let reports = [
        Report::Polled { position },
        Report::Ready { position },
        Report::Failed,
        Report::Released {
            position: Some(position),
        },
        Report::Released { position: None },
        Report::Declined,
    ];
    let reports = reports
        .into_iter()
        .map(|report| (tenure(), report))
        .collect();
    check::<_, proto::NodeUp>(NodeUp::Report {
        request_seq: 3,
        reports,
    });
    check::<_, proto::NodeUp>(NodeUp::Close { request_seq: 4 });

    let contract = CONTRACT;
    let opened = NodeDown::Opened {
        session,
        ttl_ms: 3_000,
        ttl_ms_min_safe: 900,
        contract,
        cluster: ClusterId(6),
    };
    check::<_, proto::NodeDown>(opened);
    check::<_, proto::NodeDown>(NodeDown::KeptAlive {
        seq: 4,
        ttl_ms: 3_000,
        directive_seq: DirectiveSeq(2),
    });
    check::<_, proto::NodeDown>(NodeDown::SessionGone);
    let token = FencingToken(9);
    let predecessor = Some(Predecessor {
        number: TenureNumber(1),
        outcome: Cause::Released,
        position: Some(position),
    });
    let kinds = [
        DirectiveKind::Poll {
            token,
            deadline_ms: 5,
        },
        DirectiveKind::Prepare {
            token,
            deadline_ms: 5,
            predecessor,
        },
        DirectiveKind::Activate {
            token,
            predecessor: None,
        },
        DirectiveKind::CatchUp,
        DirectiveKind::StandBy,
        DirectiveKind::Drain {
            deadline_ms: 5,
            successor: Some(node("n2")),
        },
        DirectiveKind::Drain {
            deadline_ms: 5,
            successor: None,
        },
        DirectiveKind::Continue,
        DirectiveKind::Revoke,
        DirectiveKind::Ended {
            cause: Cause::SessionRevoked,
        },
    ];
    for (seq, kind) in (1..).map(DirectiveSeq).zip(kinds) {
        check::<_, proto::NodeDown>(NodeDown::Directive(Directive {
            seq,
            tenure: tenure(),
            kind,
        }));
    }
    for part in [
        Part::Polled,
        Part::Answered,
        Part::Preparing,
        Part::Active,
        Part::Draining,
        Part::Successor,
    ] {
        let deadline_ms = Some(0);
        let successor = None;
        let standing = StandingTenure {
            tenure: tenure(),
            part,
            token,
            predecessor,
            deadline_ms,
            successor,
        };
        check::<_, proto::NodeDown>(NodeDown::Standing {
            directive_seq: DirectiveSeq(2),
            tenures: vec![standing],
        });
    }
    let error = ApiError::new(ApiErrorKind::StaleTenure, "tenure 2 is not current");
    let done = RequestDone {
        revision: Revision(3),
        refused: vec![(1, error.clone())],
    };
    for outcome in [Ok(done), Err(error.clone())] {
        check::<_, proto::NodeDown>(NodeDown::RequestDone {
            request_seq: 1,
            outcome,
        });
    }
    check::<_, proto::NodeDown>(NodeDown::RequestUnknown { request_seq: 1 });
    for request_seq in [Some(2), None] {
        let error = ApiError::new(ApiErrorKind::Overloaded, "full").retry_after_ms(40);
        check::<_, proto::NodeDown>(NodeDown::Refused { request_seq, error });
    }
    check::<_, proto::WatchItem>(WatchItem::SnapshotChunk(vec![state()]));
    check::<_, proto::WatchItem>(WatchItem::SnapshotEnd {
        revision: Revision(1),
    });
    check::<_, proto::WatchItem>(WatchItem::Delta {
        revision: Revision(2),
        group: state(),
        deleted: true,
    });
    check::<_, proto::WatchItem>(WatchItem::Progress {
        revision: Revision(2),
    });
    check::<_, proto::WatchItem>(WatchItem::Resync {
        reason: "slow".into(),
    });
}

/// Expects a refusal as `Invalid`, with these words.
fn refused<T: Debug>(decoded: Result<T, ApiError>, words: &str) {
    let error = decoded.unwrap_err();
    assert_eq!(error.kind, ApiErrorKind::Invalid, "{error}");
    assert!(
        error.message.contains(words),
        "{error:?} does not say {words:?}"
    );
}

#[test]
fn bad_input_is_refused_and_says_why() {
    let good = || {
        proto::CreateGroupsRequest::from(CreateGroups {
            mutation: mutation(),
            groups: vec![(name("g"), spec())],
        })
    };
    let decode = |change: &dyn Fn(&mut proto::CreateGroupsRequest)| {
        let mut request = good();
        change(&mut request);
        CreateGroups::try_from(request)
    };
    assert!(decode(&|_| {}).is_ok());
    refused(decode(&|r| r.mutation = None), "`mutation` is missing");
    refused(
        decode(&|r| r.mutation.as_mut().unwrap().request_id.push(1)),
        "has 17 bytes",
    );
    refused(
        decode(&|r| r.mutation.as_mut().unwrap().request_id = vec![0; 16]),
        "all zero",
    );
    refused(
        decode(&|r| r.mutation.as_mut().unwrap().contract = 0),
        "contract version is 0",
    );
    refused(decode(&|r| r.groups[0].name.clear()), "the name is empty");
    refused(decode(&|r| r.groups[0].name = "x".repeat(513)), "513 bytes");
    refused(
        decode(&|r| r.groups[0].name = "a\u{7}".into()),
        "control character",
    );
    refused(decode(&|r| r.groups[0].spec = None), "`spec` is missing");
    refused(
        decode(&|r| r.groups[0].spec.as_mut().unwrap().policy = None),
        "`spec.policy` is missing",
    );
    refused(
        decode(&|r| r.groups[0].spec.as_mut().unwrap().handover_overdue = 9),
        "value 9",
    );
    let fat = |r: &mut proto::CreateGroupsRequest| {
        r.groups[0]
            .spec
            .as_mut()
            .unwrap()
            .require
            .insert("k".into(), "x".repeat(SPEC_BYTES_MAX));
    };
    refused(decode(&fat), "at most 65536");
    let many =
        |r: &mut proto::CreateGroupsRequest| r.groups = vec![r.groups[0].clone(); BATCH_MAX + 1];
    refused(decode(&many), "10001 groups");
}

#[test]
fn bad_stream_messages_are_refused_and_say_why() {
    use proto::node_up::Message;
    let decode = |message: Message| {
        NodeUp::try_from(proto::NodeUp {
            message: Some(message),
        })
    };
    refused(
        NodeUp::try_from(proto::NodeUp { message: None }),
        "`message` is missing",
    );
    refused(
        decode(Message::Withdraw(proto::Withdraw {
            request_seq: 0,
            groups: vec![],
        })),
        "`request_seq` is 0",
    );
    let faulty = |reason: String| {
        Message::ReportFaulty(proto::ReportFaulty {
            request_seq: 1,
            tenure: Some(proto::TenureId {
                group: "g".to_owned(),
                incarnation: 1,
                number: 1,
            }),
            reason,
        })
    };
    let long = "x".repeat(REASON_BYTES_MAX + 1);
    refused(decode(faulty(long)), "the reason has 257 bytes");
    refused(decode(faulty(String::new())), "the reason has 0 bytes");
    let session = Some(proto::SessionKey { id: 0, created: 1 });
    let resume = proto::Resume {
        session,
        processed: 0,
        contract_min: 1,
        contract_max: 1,
    };
    refused(decode(Message::Resume(resume)), "`session.id` is missing");
    refused(
        decode(Message::Resume(proto::Resume {
            contract_min: 2,
            ..resume
        })),
        "range 2 to 1 is empty",
    );
    let report = proto::Report {
        tenure: None,
        kind: Some(proto::report::Kind::Ready(1)),
    };
    let reports = proto::Reports {
        request_seq: 1,
        reports: vec![report],
    };
    refused(decode(Message::Report(reports)), "`tenure` is missing");
    let endpoints = vec!["x".repeat(SPEC_BYTES_MAX)];
    let configuration = Some(proto::ProposedConfiguration {
        endpoints,
        ..Default::default()
    });
    let entry = proto::ContendEntry {
        group: "g".into(),
        priority: 0,
        configuration,
    };
    refused(
        decode(Message::Contend(proto::Contend {
            request_seq: 1,
            entries: vec![entry],
        })),
        "at most 65536",
    );
}

#[test]
fn every_error_keeps_its_kind_and_retry_after() {
    for kind in ApiErrorKind::ALL {
        let error = ApiError::new(kind, "renew session 7").retry_after_ms(250);
        assert_eq!(error_of(&status_of(error.clone())), error);
    }
}

#[test]
fn only_what_was_certainly_not_applied_has_a_definite_status() {
    use tonic::Code;
    for kind in ApiErrorKind::ALL
        .into_iter()
        .filter(|kind| kind.may_be_applied())
    {
        let status = status_of(ApiError::new(kind, ""));
        assert!(
            matches!(status.code(), Code::Unavailable | Code::Internal),
            "{kind:?} is {:?}",
            status.code()
        );
    }
}

#[test]
fn a_status_without_our_code_may_have_been_applied_unless_it_is_a_definite_refusal() {
    use tonic::{Code, Status};
    for code in [
        Code::Unavailable,
        Code::DeadlineExceeded,
        Code::Cancelled,
        Code::Unknown,
        Code::Internal,
    ] {
        let error = error_of(&Status::new(code, "broken pipe"));
        assert_eq!(error.kind, ApiErrorKind::UnknownOutcome, "{code:?}");
        assert!(error.message.contains("may have been applied"));
    }
    assert_eq!(
        error_of(&Status::new(Code::InvalidArgument, "")).kind,
        ApiErrorKind::Invalid
    );
}
