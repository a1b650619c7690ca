//! Golden bytes: what an earlier version wrote stays readable, and this version writes the same.
//!
//! A format change makes a new file beside the old one; the old one keeps decoding. `UPDATE_EXPECT=1` writes missing files only.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use quorate_codec::{
    CodecError, Handshake, decode_entry, decode_handshake, decode_peer, decode_snapshot,
    encode_entry, encode_handshake, encode_peer, encode_snapshot,
};
use quorate_consensus::{
    AppendOutcome, Body, Configuration, Entry, LogPosition, Member, Message, RoundId, SnapshotMeta,
    VoterSet,
};
use quorate_coord::kv::{
    AuthChange, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KeyValue, KvCaller,
    KvError, KvOp, KvOpReply, Put, Range, RangeReply, Secret, SortOrder, SortTarget, Txn, TxnReply,
};
use quorate_coord::{
    AlarmAction, AlarmKind, Command, ContenderSpec, DeposeQuorum, ElectionPolicy, Envelope,
    GroupKey, GroupSpec, NodeAdmission, NodeSpec, Position, ProposedConfiguration, Rejection,
    Reply, Report, RequestKey, SessionKey, State, TenureKey, TransferMode,
};
use quorate_replica::{CallId, PeerMessage, Proposal, Refusal, Request, Response};
use quorate_types::{
    ClusterEpoch, ClusterId, ClusterTime, ConfigEpoch, ContractVersion, DirectiveSeq, FeatureLevel,
    GroupName, LogIndex, NodeName, Principal, ReplicaId, RequestId, Revision, SessionId,
    TenureNumber, Term, TraceId, WallTime,
};

fn session() -> SessionKey {
    SessionKey {
        id: SessionId(3),
        created: Revision(300),
    }
}

fn group() -> GroupName {
    GroupName::new("orders/0042").unwrap()
}

fn tenure() -> TenureKey {
    TenureKey {
        group: GroupKey {
            name: group(),
            created: Revision(7),
        },
        number: TenureNumber(2),
    }
}

fn node() -> NodeSpec {
    NodeSpec {
        name: NodeName::new("node-a").unwrap(),
        labels: BTreeMap::from([("zone".to_owned(), "eu-1".to_owned())]),
        weight: 2,
        max_tenures: 100,
        max_preparing: 8,
        contract_min: ContractVersion(1),
        contract_max: ContractVersion(1),
    }
}

fn spec() -> GroupSpec {
    GroupSpec {
        require: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
        prefer: vec![("zone".to_owned(), "eu-1".to_owned())],
        policy: ElectionPolicy::Freshest {
            answers_min: Some(2),
        },
        readiness: true,
        ..GroupSpec::default()
    }
}

fn contender() -> ContenderSpec {
    ContenderSpec {
        priority: -5,
        configuration: ProposedConfiguration {
            endpoints: vec!["10.0.0.1:6379".to_owned()],
            metadata: BTreeMap::from([("role".to_owned(), "primary".to_owned())]),
        },
    }
}

/// Every command of format 1 once.
fn commands_v1() -> Vec<Command> {
    vec![
        Command::OpenSession {
            ttl_ms: 3_000,
            node: Some(node()),
        },
        Command::CloseSession { session: session() },
        Command::RevokeSession {
            session: SessionId(3),
        },
        Command::ExpireSessions {
            term: Term(4),
            sessions: vec![session()],
        },
        Command::VacateTenures {
            term: Term(4),
            tenures: vec![tenure()],
        },
        Command::Advance,
        Command::CreateGroups {
            groups: vec![(group(), spec())],
        },
        Command::UpdateGroup {
            group: group(),
            spec: GroupSpec::default(),
            expected: Some(Revision(9)),
        },
        Command::DeleteGroup {
            group: group(),
            expected: None,
        },
        Command::Contend {
            session: session(),
            groups: vec![(group(), contender())],
        },
        Command::Withdraw {
            session: session(),
            groups: vec![group()],
        },
        Command::Report {
            session: session(),
            reports: vec![
                (
                    tenure(),
                    Report::Polled {
                        position: Position(77),
                    },
                ),
                (
                    tenure(),
                    Report::Ready {
                        position: Position(78),
                    },
                ),
                (tenure(), Report::Failed),
                (
                    tenure(),
                    Report::Released {
                        position: Some(Position(79)),
                    },
                ),
                (tenure(), Report::Declined),
            ],
        },
        Command::Transfer {
            group: group(),
            to: Some(NodeName::new("node-b").unwrap()),
            mode: TransferMode::Force,
        },
        Command::AbortTransfer { group: group() },
        Command::AdmitNode {
            node: NodeName::new("node-b").unwrap(),
            admission: NodeAdmission::Draining,
        },
        Command::Rebalance {
            prefix: "orders/".to_owned(),
            moves_max: 10,
        },
    ]
}

/// Every command of format 2 once, and a spec with the fields that came with it.
fn commands_v2() -> Vec<Command> {
    let reported = GroupSpec {
        depose_quorum: DeposeQuorum::Reports { min: 3 },
        depose_window_ms: 7_000,
        ..spec()
    };
    let later = [
        Command::CreateGroups {
            groups: vec![(group(), reported), (group(), spec())],
        },
        Command::ReportFaulty {
            session: session(),
            tenure: tenure(),
            reason: "probes time out".to_owned(),
        },
        Command::WithdrawReport {
            session: session(),
            tenure: tenure(),
        },
    ];
    commands_v1().into_iter().chain(later).collect()
}

fn range(key: &str, range_end: &str) -> KeyRange {
    KeyRange {
        key: key.into(),
        range_end: range_end.into(),
    }
}

/// A transaction with every operation, and with every target of a comparison.
fn txn() -> Txn {
    let targets = [
        (CompareResult::Equal, CompareTarget::Version(1)),
        (CompareResult::Greater, CompareTarget::Create(-2)),
        (CompareResult::Less, CompareTarget::Mod(3)),
        (CompareResult::NotEqual, CompareTarget::Value("old".into())),
        (CompareResult::Equal, CompareTarget::Lease(0)),
    ];
    let compare = targets.map(|(result, target)| Compare {
        result,
        target,
        range: range("a", ""),
    });
    let read = Range {
        range: range("a", "b"),
        revision: 7,
        limit: 10,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        keys_only: true,
        count_only: false,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
    };
    let put = Put {
        key: "a".into(),
        value: vec![0, 255].into(),
        lease: 77,
        prev_kv: true,
        ignore_value: false,
        ignore_lease: false,
    };
    let delete = DeleteRange {
        range: range("c", "\0"),
        prev_kv: true,
    };
    Txn {
        compare: compare.into(),
        success: vec![KvOp::Put(put), KvOp::Range(read)],
        failure: vec![KvOp::DeleteRange(delete), KvOp::Txn(Txn::default())],
    }
}

/// Every command once.
fn commands() -> Vec<Command> {
    let caller = Some(KvCaller {
        user: "root".to_owned(),
        auth_revision: 5,
    });
    let later = [
        Command::Kv {
            caller: caller.clone(),
            op: KvOp::Txn(txn()),
        },
        Command::CompactKv {
            caller: None,
            revision: -1,
        },
        Command::GrantLease {
            caller: None,
            id: 77,
            ttl_ms: 60_000,
        },
        Command::RevokeLease {
            caller: caller.clone(),
            id: 77,
        },
        Command::Alarm {
            action: AlarmAction::Raise,
            member: ReplicaId(2),
            kind: AlarmKind::Corrupt,
        },
        Command::Auth {
            caller,
            change: AuthChange::AddUser {
                name: "app".to_owned(),
                password: Some(Secret::from(b"hash".as_slice())),
            },
        },
    ];
    commands_v2().into_iter().chain(later).collect()
}

fn envelope(command: Command) -> Envelope {
    Envelope {
        principal: Principal::new("ops@example").unwrap(),
        request: RequestKey::Session {
            session: session(),
            seq: 12,
        },
        trace: TraceId(0xfeed),
        wall: WallTime(1_790_000_000_000),
        cluster_time: ClusterTime(123_456),
        contract: ContractVersion(1),
        command,
    }
}

fn configuration() -> Configuration {
    let member = Member {
        name: "s1".to_owned(),
        peer_address: "10.0.0.1:2380".to_owned(),
        client_address: "10.0.0.1:2379".to_owned(),
    };
    Configuration {
        epoch: ConfigEpoch(1),
        incoming: VoterSet {
            voters: BTreeSet::from([ReplicaId(1), ReplicaId(2), ReplicaId(3)]),
        },
        outgoing: Some(VoterSet {
            voters: BTreeSet::from([ReplicaId(1)]),
        }),
        learners: BTreeSet::from([ReplicaId(9)]),
        members: BTreeMap::from([(ReplicaId(1), member)]),
    }
}

fn entries() -> Vec<Entry<Envelope>> {
    entries_of(commands())
}

fn entries_of(commands: Vec<Command>) -> Vec<Entry<Envelope>> {
    let bodies = [Body::OwnTerm, Body::Configuration(configuration())];
    let bodies = bodies.into_iter().chain(
        commands
            .into_iter()
            .map(|command| Body::Command(envelope(command))),
    );
    (1..)
        .zip(bodies)
        .map(|(index, body)| Entry {
            index: LogIndex(index),
            term: Term(4),
            body,
        })
        .collect()
}

fn position() -> LogPosition {
    LogPosition {
        term: Term(4),
        index: LogIndex(40),
    }
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        last: position(),
        configuration: configuration(),
    }
}

/// Every peer message once.
fn messages() -> Vec<PeerMessage> {
    let replies = [
        Reply::Kv {
            revision: 9,
            reply: Box::new(KvOpReply::Txn(TxnReply {
                succeeded: true,
                responses: vec![
                    KvOpReply::Range(RangeReply {
                        kvs: vec![key_value()],
                        more: true,
                        count: 2,
                    }),
                    KvOpReply::Put {
                        prev_kv: Some(key_value()),
                    },
                    KvOpReply::DeleteRange {
                        deleted: 1,
                        prev_kvs: vec![key_value()],
                    },
                ],
            })),
        },
        Reply::Compacted { revision: 9 },
        Reply::LeaseGranted {
            session: session(),
            ttl_ms: 60_000,
        },
        Reply::LeaseRevoked { revision: 10 },
        Reply::Alarmed { was_on: true },
        Reply::AuthChanged { auth_revision: 6 },
    ];
    let refused = Rejection::Kv(KvError::LeaseNotFound { lease: 78 });
    let outcomes = replies.into_iter().map(Ok).chain([Err(refused)]);
    let answers = PeerMessage::Answers {
        incarnation: 11,
        answers: (1..)
            .zip(outcomes)
            .map(|(call, outcome)| {
                let index = LogIndex(41);
                (CallId(call), Response::Applied { outcome, index })
            })
            .collect(),
    };
    let mut proposal = proposal();
    proposal.request = RequestKey::Unkeyed;
    let forward = PeerMessage::Forward {
        incarnation: 11,
        calls: vec![(CallId(1), Request::Propose(Box::new(proposal)))],
    };
    let later = PeerMessage::Answers {
        incarnation: 11,
        answers: vec![
            (
                CallId(1),
                Response::SessionAge {
                    session: session(),
                    remaining_ms: Some(7),
                },
            ),
            (
                CallId(2),
                Response::AppliedAt {
                    index: LogIndex(41),
                },
            ),
        ],
    };
    let mut messages = messages_with(entries());
    messages.extend([answers, forward, later]);
    messages
}

fn key_value() -> KeyValue {
    KeyValue {
        key: "a".into(),
        value: "1".into(),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        lease: 77,
    }
}

fn proposal() -> Proposal {
    Proposal {
        principal: Principal::new("ops@example").unwrap(),
        request: RequestKey::Caller(RequestId(0xabcd)),
        trace: TraceId(0xfeed),
        wall: WallTime(1_790_000_000_000),
        contract: ContractVersion(1),
        command: Command::Advance,
    }
}

fn messages_with(entries: Vec<Entry<Envelope>>) -> Vec<PeerMessage> {
    let (term, last, round) = (Term(5), position(), RoundId(6));
    let consensus = vec![
        Message::PreVoteRequest { term, last },
        Message::PreVoteResponse {
            term,
            granted: true,
            last,
        },
        Message::VoteRequest { term, last },
        Message::VoteResponse {
            term,
            granted: false,
        },
        Message::Append {
            term,
            previous: last,
            entries,
            commit: LogIndex(39),
            round,
        },
        Message::AppendResponse {
            term,
            outcome: AppendOutcome::Matched {
                through: LogIndex(41),
            },
            round,
        },
        Message::AppendResponse {
            term,
            outcome: AppendOutcome::Conflict {
                refused: LogIndex(40),
                hint: last,
            },
            round,
        },
        Message::Heartbeat {
            term,
            commit: LogIndex(39),
            round,
        },
        Message::HeartbeatResponse {
            term,
            round,
            last: LogIndex(41),
        },
        Message::TimeoutNow { term },
        Message::SteppedDown { term },
        Message::SnapshotChunk {
            term,
            meta: meta(),
            offset: 4,
            total: 8,
            data: [1, 2, 3, 4].into(),
        },
        Message::SnapshotChunkResponse {
            term,
            last,
            next: 8,
        },
        Message::SeenOfYou {
            term,
            seen_term: term,
            seen_vote: Some(ReplicaId(2)),
            seen_match: last,
        },
    ];
    let calls = vec![
        (CallId(1), Request::Propose(Box::new(proposal()))),
        (
            CallId(2),
            Request::KeepAlive {
                session: session(),
                seq: 4,
            },
        ),
        (CallId(3), Request::Read),
        (
            CallId(4),
            Request::TransferLeader {
                to: Some(ReplicaId(2)),
            },
        ),
    ];
    let rejection = Rejection::UnknownGroup { group: group() };
    let answers = vec![
        (
            CallId(1),
            Response::Applied {
                outcome: Err(rejection),
                index: LogIndex(41),
            },
        ),
        (
            CallId(2),
            Response::KeptAlive {
                session: session(),
                seq: 4,
                ttl_ms: 3_000,
                directive_seq: DirectiveSeq(8),
            },
        ),
        (
            CallId(3),
            Response::SessionGone {
                session: session(),
                seq: 4,
            },
        ),
        (
            CallId(4),
            Response::ReadAt {
                index: LogIndex(40),
            },
        ),
        (CallId(5), Response::Transferring),
        (
            CallId(6),
            Response::Refused(Refusal::Overloaded {
                retry_after_ms: 100,
            }),
        ),
        (CallId(7), Response::Unknown),
    ];
    consensus
        .into_iter()
        .map(PeerMessage::Consensus)
        .chain([
            PeerMessage::Forward {
                incarnation: 11,
                calls,
            },
            PeerMessage::Answers {
                incarnation: 11,
                answers,
            },
        ])
        .collect()
}

fn handshake() -> Handshake {
    Handshake {
        cluster: ClusterId(0x1234_5678_9abc_def0),
        epoch: ClusterEpoch(0),
        from: ReplicaId(1),
        to: ReplicaId(2),
        disk_id: 0xd15c,
        format: 1,
        features: (FeatureLevel(1), FeatureLevel(1)),
    }
}

/// The same, after peers deposed the holder of the plain group and one of them reported the next.
fn reported_state() -> State {
    let mut state = state();
    let mut events = Vec::new();
    let mut index = 3;
    let mut apply = |state: &mut State, command| {
        index += 1;
        let envelope = Envelope {
            request: RequestKey::Internal,
            ..envelope(command)
        };
        state
            .apply(LogIndex(index), Term(4), &envelope, &mut events)
            .unwrap()
    };
    let plain = GroupName::new("plain").unwrap();
    let holder = state.sessions().next().unwrap().key;
    let peers = ["node-b", "node-c"].map(|name| {
        let command = Command::OpenSession {
            ttl_ms: 3_000,
            node: Some(NodeSpec {
                name: NodeName::new(name).unwrap(),
                ..node()
            }),
        };
        let Reply::SessionOpened { session, .. } = apply(&mut state, command) else {
            panic!("{name} did not open a session")
        };
        let groups = vec![(plain.clone(), contender())];
        apply(&mut state, Command::Contend { session, groups });
        session
    });
    let current = |state: &State| state.group(&plain).unwrap().tenure_key().unwrap();
    let report = |session, tenure| Command::ReportFaulty {
        session,
        tenure,
        reason: "probes time out".to_owned(),
    };
    let tenure = current(&state);
    for session in peers {
        apply(&mut state, report(session, tenure.clone()));
    }
    let reports = vec![(tenure, Report::Released { position: None })];
    apply(
        &mut state,
        Command::Report {
            session: holder,
            reports,
        },
    );
    let next = current(&state);
    apply(&mut state, report(holder, next));
    let found = state.group(&plain).unwrap();
    assert_eq!(found.history.last().unwrap().reports.len(), 2);
    assert_eq!(found.tenure.as_ref().unwrap().reports.len(), 1);
    state
}

/// The same with keys, history, a lease and an alarm.
fn kept_state() -> State {
    let mut state = reported_state();
    let mut events = Vec::new();
    let put = |key: &str, lease| Command::Kv {
        caller: None,
        op: KvOp::Put(Put {
            key: key.into(),
            value: "1".into(),
            lease,
            ..Put::default()
        }),
    };
    let commands = [
        Command::GrantLease {
            caller: None,
            id: 77,
            ttl_ms: 60_000,
        },
        put("a", 0),
        put("b", 77),
        put("a", 77),
        Command::Kv {
            caller: None,
            op: KvOp::DeleteRange(DeleteRange {
                range: range("b", ""),
                prev_kv: false,
            }),
        },
        Command::CompactKv {
            caller: None,
            revision: 3,
        },
        Command::Alarm {
            action: AlarmAction::Raise,
            member: ReplicaId(2),
            kind: AlarmKind::NoSpace,
        },
    ];
    let (last, _) = state.applied();
    for (index, command) in (last.0 + 1..).zip(commands) {
        let envelope = Envelope {
            request: RequestKey::Unkeyed,
            ..envelope(command)
        };
        state
            .apply(LogIndex(index), Term(4), &envelope, &mut events)
            .unwrap();
    }
    state
}

/// A state with a session that leads one group and stands in a poll.
fn state() -> State {
    let mut state = State::new();
    let mut events = Vec::new();
    let plain = GroupName::new("plain").unwrap();
    let caller = |id, command| Envelope {
        request: RequestKey::Caller(RequestId(id)),
        ..envelope(command)
    };
    let opened = state.apply(
        LogIndex(1),
        Term(4),
        &caller(
            1,
            Command::OpenSession {
                ttl_ms: 3_000,
                node: Some(node()),
            },
        ),
        &mut events,
    );
    let Ok(Reply::SessionOpened { session, .. }) = opened else {
        panic!("not opened: {opened:?}")
    };
    let groups = vec![
        (plain.clone(), GroupSpec::default()),
        (
            group(),
            GroupSpec {
                require: BTreeMap::new(),
                ..spec()
            },
        ),
    ];
    state
        .apply(
            LogIndex(2),
            Term(4),
            &caller(2, Command::CreateGroups { groups }),
            &mut events,
        )
        .unwrap();
    let groups = vec![(plain, contender()), (group(), contender())];
    state
        .apply(
            LogIndex(3),
            Term(4),
            &caller(3, Command::Contend { session, groups }),
            &mut events,
        )
        .unwrap();
    state
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        for byte in line {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        }
        text.push('\n');
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).expect("two digits are a byte"))
        .collect()
}

/// The golden bytes of that name; written first where they are missing and that is asked for.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.hex"));
    if !path.exists() && std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, hex(written)).unwrap();
    }
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
    unhex(&text)
}

#[test]
fn entries_are_written_and_read_as_ever() {
    let entries = entries();
    let bytes: Vec<Vec<u8>> = entries.iter().map(encode_entry).collect();
    for (entry, bytes) in entries.iter().zip(&bytes) {
        let name = format!("entry_v3_{:02}", entry.index.0);
        let golden = golden(&name, bytes);
        assert_eq!(
            decode_entry(&golden).as_ref(),
            Ok(entry),
            "{name} no longer reads as it was meant"
        );
        assert_eq!(
            hex(bytes),
            hex(&golden),
            "{name} is written differently: give it a new format version"
        );
    }
}

#[test]
fn peer_messages_are_written_and_read_as_ever() {
    for (number, message) in messages().iter().enumerate() {
        let name = format!("peer_v3_{number:02}");
        let bytes = encode_peer(message);
        let golden = golden(&name, &bytes);
        assert_eq!(
            decode_peer(&golden).as_ref(),
            Ok(message),
            "{name} no longer reads as it was meant"
        );
        assert_eq!(
            hex(&bytes),
            hex(&golden),
            "{name} is written differently: give it a new format version"
        );
    }
}

#[test]
fn handshakes_are_written_and_read_as_ever() {
    let bytes = encode_handshake(&handshake());
    let golden = golden("handshake_v1", &bytes);
    assert_eq!(decode_handshake(&golden), Ok(handshake()));
    assert_eq!(hex(&bytes), hex(&golden));
}

#[test]
fn snapshots_are_written_and_read_as_ever() {
    let state = kept_state();
    let meta = meta();
    let bytes = encode_snapshot(&meta, &state);
    let golden = golden("snapshot_v3", &bytes);
    let (meta_read, state_read) = decode_snapshot(&golden).unwrap();
    assert_eq!(meta_read, meta);
    assert_eq!(state_read.digest(), state.digest());
    state_read.check_invariants();
    assert_eq!(hex(&bytes), hex(&golden));
}

/// The golden bytes of an earlier version: never written again.
fn golden_earlier(name: &str) -> Vec<u8> {
    golden(name, &[])
}

/// What a state of an earlier format held, save what came later.
fn check_earlier(read: &State, meant: &State) {
    read.check_invariants();
    assert_eq!(read.applied(), meant.applied());
    assert_eq!(read.revision(), meant.revision());
    assert!(read.sessions().eq(meant.sessions()));
    assert!(read.nodes().eq(meant.nodes()));
    assert!(read.groups().eq(meant.groups()));
}

fn check_format(version: u8, commands: Vec<Command>, meant: &State) {
    let entries = entries_of(commands);
    for entry in &entries {
        let name = format!("entry_v{version}_{:02}", entry.index.0);
        assert_eq!(
            decode_entry(&golden_earlier(&name)).as_ref(),
            Ok(entry),
            "{name}"
        );
    }
    for (number, message) in messages_with(entries).iter().enumerate() {
        let name = format!("peer_v{version}_{number:02}");
        assert_eq!(
            decode_peer(&golden_earlier(&name)).as_ref(),
            Ok(message),
            "{name}"
        );
    }
    let snapshot = golden_earlier(&format!("snapshot_v{version}"));
    let (meta_read, state_read) = decode_snapshot(&snapshot).unwrap();
    assert_eq!(meta_read, meta());
    check_earlier(&state_read, meant);
}

#[test]
fn what_earlier_formats_wrote_reads_as_it_was_meant_with_defaults_for_later_fields() {
    check_format(1, commands_v1(), &state());
    check_format(2, commands_v2(), &reported_state());
}

#[test]
fn what_is_cut_off_or_followed_by_more_is_refused() {
    for entry in entries() {
        let mut bytes = encode_entry(&entry);
        for length in 0..bytes.len() {
            assert!(
                decode_entry(&bytes[..length]).is_err(),
                "{length} bytes of {entry:?}"
            );
        }
        bytes.push(0);
        assert_eq!(
            decode_entry(&bytes),
            Err(CodecError::Trailing {
                what: "log entry",
                count: 1
            })
        );
    }
}

#[test]
fn a_newer_format_says_so() {
    let mut bytes = encode_handshake(&handshake());
    bytes[0] = 2;
    let error = decode_handshake(&bytes).unwrap_err();
    assert_eq!(
        error,
        CodecError::Version {
            what: "handshake",
            found: 2,
            supported: 1
        }
    );
    let mut bytes = encode_entry(&entries()[0]);
    bytes[0] = 4;
    assert_eq!(
        decode_entry(&bytes).unwrap_err(),
        CodecError::Version {
            what: "log entry",
            found: 4,
            supported: 3
        }
    );
}

#[test]
fn no_single_changed_byte_makes_a_decoder_panic() {
    let snapshot = encode_snapshot(&meta(), &kept_state());
    let others = messages();
    let all = others
        .iter()
        .map(encode_peer)
        .chain(entries().into_iter().map(|entry| encode_entry(&entry)))
        .chain([
            snapshot,
            golden_earlier("snapshot_v1"),
            golden_earlier("snapshot_v2"),
        ]);
    for bytes in all {
        for at in 0..bytes.len() {
            for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                // Whatever comes out is fine; that it comes out is the fact.
                let _ = decode_peer(&changed);
                let _ = decode_entry(&changed);
                if let Ok((_, state)) = decode_snapshot(&changed) {
                    state.check_invariants();
                }
            }
        }
    }
}
