//! Writes the seeds of every target: golden files, encoded messages, and for the targets that read choices a few arbitrary ones.

use std::fs;
use std::path::{Path, PathBuf};

use quorate_codec::decode_entry;
use quorate_consensus::Body;
use quorate_types::{
    ContractVersion, DirectiveSeq, GroupName, NodeName, RequestId, Revision, SessionId,
};
use quorate_wire::WireMessage;
use quorate_wire::api::{
    AdmitNode, ContenderSpec, CreateGroups, Done, Freshness, GetGroup, GroupSpec, ListGroups,
    Mutation, NodeAdmission, NodeDown, NodeSpec, NodeUp, Rebalance, RevokeSession, SessionKey,
    TransferGroup, TransferMode, WatchGroups, WatchItem,
};

fn main() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = golden(&fuzz.join("../crates/codec/tests/golden"));
    let seeds = Seeds {
        corpus: fuzz.join("corpus"),
    };
    for (name, bytes) in &golden {
        let target = match name.split('_').next() {
            Some("entry") => "log_entry",
            Some("peer") => "peer_message",
            Some("handshake") => "peer_hello",
            Some("snapshot") => "snapshot_image",
            _ => panic!("no target reads `{name}`"),
        };
        seeds.write(target, name, bytes);
        if target == "peer_hello" {
            let length = u32::try_from(bytes.len()).expect("a handshake is short");
            let framed = [b"QUORATE\x01".as_slice(), &length.to_be_bytes(), bytes].concat();
            seeds.write(target, "framed", &framed);
        }
    }
    seeds.write("coord_apply", "golden_commands", &commands(&golden));
    client_protocol(&seeds);
    for target in [
        "coord_apply",
        "consensus_step",
        "replica_step",
        "lease_core",
        "log_files",
        "snapshot_files",
        "data_dir",
    ] {
        for at in 0..3 {
            let seed = 1 + at as u64;
            seeds.write(target, &format!("choices_{at}"), &choices(seed, 120 << at));
        }
    }
}

struct Seeds {
    corpus: PathBuf,
}

impl Seeds {
    fn write(&self, target: &str, name: &str, bytes: &[u8]) {
        let folder = self.corpus.join(target);
        fs::create_dir_all(&folder).expect("the corpus can be written");
        fs::write(folder.join(name), bytes).expect("the corpus can be written");
    }
}

/// The golden files, by name, in order.
fn golden(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(folder).expect("there are golden files");
    let mut golden: Vec<_> = files
        .map(|file| {
            let path = file.expect("the folder can be read").path();
            let text = fs::read_to_string(&path).expect("a golden file is text");
            let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
            let byte = |pair: &[u8]| {
                let pair = std::str::from_utf8(pair).expect("digits are text");
                u8::from_str_radix(pair, 16).expect("two digits")
            };
            let name = path.file_stem().expect("a file has a name");
            let bytes = digits.chunks(2).map(byte).collect();
            (name.to_string_lossy().into_owned(), bytes)
        })
        .collect();
    golden.sort();
    golden
}

/// The golden entries' commands as one input of `coord_apply`: each followed by its choices of request and time.
fn commands(golden: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![1];
    for (name, entry) in golden.iter().filter(|(name, _)| name.starts_with("entry")) {
        let entry = decode_entry(entry).unwrap_or_else(|why| panic!("{name}: {why}"));
        if let Body::Command(envelope) = entry.body {
            let command = postcard::to_allocvec(&envelope.command);
            bytes.extend(command.expect("encoding to memory cannot fail"));
            bytes.extend([0, 0]);
        }
    }
    bytes
}

/// Arbitrary choices, small numbers more often than large ones (constants: Knuth's MMIX).
fn choices(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as u8
    };
    (0..count)
        .map(|_| {
            let byte = next();
            if next() < 90 { byte % 8 } else { byte }
        })
        .collect()
}

fn client_protocol(seeds: &Seeds) {
    let group = || GroupName::new("orders/1").expect("it is a name");
    let node = || NodeName::new("n1").expect("it is a name");
    let mutation = Mutation {
        request_id: RequestId(7 << 100 | 9),
        contract: ContractVersion(1),
    };
    let contract = ContractVersion(1);
    let session = SessionKey {
        id: SessionId(3),
        created: Revision(300),
    };
    let ups = [
        NodeUp::Open {
            request_id: RequestId(5),
            ttl_ms: 3_000,
            node: Some(NodeSpec::new(node())),
            contract_min: contract,
            contract_max: contract,
        },
        NodeUp::Resume {
            session,
            processed: DirectiveSeq(4),
            contract_min: contract,
            contract_max: contract,
        },
        NodeUp::KeepAlive {
            seq: 1,
            clock_ms: 5,
            healthy: true,
        },
        NodeUp::Contend {
            request_seq: 1,
            entries: vec![(group(), ContenderSpec::default())],
        },
        NodeUp::Withdraw {
            request_seq: 2,
            groups: vec![group()],
        },
        NodeUp::Close { request_seq: 3 },
    ];
    for (at, up) in ups.into_iter().enumerate() {
        put(seeds, 0, &format!("up_{at}"), up);
    }
    let kept = NodeDown::KeptAlive {
        seq: 1,
        ttl_ms: 3_000,
        directive_seq: DirectiveSeq(4),
    };
    put(seeds, 1, "kept_alive", kept);
    put(seeds, 1, "session_gone", NodeDown::SessionGone);
    put(seeds, 2, "watch", WatchGroups::default());
    let end = WatchItem::SnapshotEnd {
        revision: Revision(9),
    };
    put(seeds, 3, "snapshot_end", end);
    let create = CreateGroups {
        mutation,
        groups: vec![(group(), GroupSpec::default())],
    };
    put(seeds, 4, "create", create);
    let freshness = Freshness::default();
    let get = GetGroup {
        freshness,
        group: group(),
    };
    put(seeds, 7, "get", get);
    let list = ListGroups {
        freshness,
        prefix: "orders/".to_owned(),
        after: Some(group()),
        limit: 10,
    };
    put(seeds, 9, "list", list);
    let transfer = TransferGroup {
        mutation,
        group: group(),
        to: Some(node()),
        mode: TransferMode::Force,
    };
    put(seeds, 13, "transfer", transfer);
    let rebalance = Rebalance {
        mutation,
        prefix: String::new(),
        moves_max: 3,
    };
    put(seeds, 15, "rebalance", rebalance);
    let admit = AdmitNode {
        mutation,
        node: node(),
        admission: NodeAdmission::Draining,
    };
    put(seeds, 19, "admit", admit);
    let revoke = RevokeSession {
        mutation,
        session: SessionId(3),
    };
    put(seeds, 20, "revoke", revoke);
    let done = Done {
        revision: Revision(9),
    };
    put(seeds, 21, "done", done);
}

fn put(seeds: &Seeds, which: u8, name: &str, message: impl WireMessage) {
    let bytes = [vec![which], message.into_wire()].concat();
    seeds.write("client_protocol", name, &bytes);
}
