//! Protocol scripts: `scripts/*.txt` hold commands (`> ...`), the output expected of each, and comments that tell the story.
//! `UPDATE_EXPECT=1` writes the output found into them.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::cluster::{Cluster, Disk, Word, configuration, settings};
use crate::print;
use quorate_consensus::{Body, Output};
use quorate_types::{LogIndex, ReplicaId, Term};

/// Runs one script.
fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/scripts")
        .join(format!("{name}.txt"));
    let script = std::fs::read_to_string(&path).unwrap();
    let mut world = World {
        cluster: None,
        backup: None,
    };
    let mut found = String::new();
    let mut is_output = false;
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(found, "{line}").unwrap();
            found.push_str(&world.run(command));
            is_output = true;
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(found, "{line}").unwrap();
            is_output = false;
        } else {
            assert!(
                is_output,
                "{name}: neither command, comment nor output: {line}"
            );
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, found).unwrap();
    } else {
        for (number, (expected, found)) in script.lines().zip(found.lines()).enumerate() {
            assert_eq!(
                expected,
                found,
                "{name}.txt:{} (UPDATE_EXPECT=1 accepts)",
                number + 1
            );
        }
        assert_eq!(
            script.lines().count(),
            found.lines().count(),
            "{name}.txt: lines missing or left over"
        );
    }
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn every_script_is_run() {
            let run = [$(stringify!($name)),*];
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
            for file in std::fs::read_dir(folder).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                assert!(run.contains(&name.trim_end_matches(".txt")), "{name} is not listed in scripts.rs");
            }
        }
    };
}

scripts! {
    three_elect,
    vote_lost,
    prevote_sticky,
    leader_own_disk_slow,
    old_term_not_committed_by_counting,
    follower_truncates_conflict,
    read_round_after_arrival,
    check_quorum_steps_down,
    transfer,
    snapshot_catch_up,
    joint_needs_both,
    learner_does_not_vote,
    rolled_back_disk_stops,
    five,
}

struct World {
    cluster: Option<Cluster>,
    backup: Option<Disk>,
}

impl World {
    /// Runs one command:
    ///
    /// - `start 1 2 3 [outgoing 3 4 5] [learners 6] [append_bytes 1]`: fresh replicas
    /// - `timeout N`: the clock goes to what N waits for, and N acts; `advance MS`: only the clock
    /// - `persist N`: its pending writes become durable; `deliver [A->B]...`: what is on its way now, all or on these ways
    /// - `drop [A->B]...`: lost; `cut N`, `heal N`: everything from and to N is lost at delivery
    /// - `settle`: persists and delivers until nothing is left, printing only what came of it
    /// - `propose N word...`, `confirm N`, `transfer N [M]`, `snapshot N index retain`, `connect N M`
    /// - `crash N`: pending writes are lost; `restart N`; `backup N`, `restore N`: its disk
    /// - `forge A->B t7 grant`: a vote that B never asked A for
    /// - `status`, `log N`, `pending`
    fn run(&mut self, command: &str) -> String {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (verb, rest) = (words[0], &words[1..]);
        if verb == "start" {
            self.cluster = Some(start(rest));
        }
        let cluster = self.cluster.as_mut().expect("scripts begin with start");
        let first = rest
            .first()
            .and_then(|word| word.parse().ok())
            .map_or(ReplicaId(0), ReplicaId);
        let number = |at: usize| rest[at].parse::<u64>().unwrap();
        let mut text = String::new();
        let mut is_brief = false;
        match verb {
            "start" => {}
            "timeout" => cluster.timeout(first),
            "advance" => cluster.now = cluster.now + Duration::from_millis(number(0)),
            "persist" => cluster.persist(first, usize::MAX),
            "deliver" => deliver(cluster, &ways(rest)),
            "drop" => {
                let ways = ways(rest);
                cluster
                    .network
                    .retain(|sent| !is_on(&ways, sent.from, sent.to));
            }
            "cut" => drop(cluster.cut.insert(first)),
            "heal" => drop(cluster.cut.remove(&first)),
            "settle" => {
                is_brief = true;
                cluster.settle();
            }
            "propose" => {
                let commands = rest[1..]
                    .iter()
                    .map(|word| Word((*word).to_string()))
                    .collect();
                let answer = cluster.step(first, |core, now, out| core.propose(now, commands, out));
                match answer {
                    Ok(index) => writeln!(text, "proposed from {index}").unwrap(),
                    Err(error) => writeln!(text, "refused: {error}").unwrap(),
                }
            }
            "confirm" => match cluster.step(first, |core, now, out| core.confirm(now, out)) {
                Ok(round) => writeln!(text, "wait for round {}", round.0).unwrap(),
                Err(error) => writeln!(text, "refused: {error}").unwrap(),
            },
            "transfer" => {
                let to = rest.get(1).map(|_| ReplicaId(number(1)));
                if let Err(error) =
                    cluster.step(first, |core, now, out| core.transfer(now, to, out))
                {
                    writeln!(text, "refused: {error}").unwrap();
                }
            }
            "snapshot" => cluster.snapshot(first, LogIndex(number(1)), number(2)),
            "connect" => {
                let peer = ReplicaId(number(1));
                cluster.step(first, |core, now, out| {
                    core.on_peer_connected(now, peer, out);
                });
            }
            "crash" => cluster.crash(first, 0),
            "restart" => cluster.start(first),
            "backup" => self.backup = Some(cluster.replicas[&first].disk.clone()),
            "restore" => cluster.replica(first).disk = self.backup.clone().unwrap(),
            "forge" => {
                let (from, to) = ways(&rest[..1])[0];
                let term = Term(rest[1].trim_start_matches('t').parse().unwrap());
                let message = quorate_consensus::Message::VoteResponse {
                    term,
                    granted: true,
                };
                cluster.step(to, |core, now, out| {
                    core.on_message(now, from, message, out);
                });
            }
            "status" => text.push_str(&status(cluster)),
            "log" => text.push_str(&log(cluster, first)),
            "pending" => {
                for sent in &cluster.network {
                    writeln!(
                        text,
                        "{} -> {}: {}",
                        sent.from,
                        sent.to,
                        print::message(&sent.message)
                    )
                    .unwrap();
                }
            }
            _ => panic!("unknown command {command}"),
        }
        for (id, output) in std::mem::take(&mut cluster.trace) {
            let is_traffic = matches!(
                output,
                Output::Persist(_)
                    | Output::Send { .. }
                    | Output::SendAfterPersist { .. }
                    | Output::SendSnapshotChunk { .. }
                    | Output::WriteSnapshotChunk { .. }
            );
            if !is_brief || !is_traffic {
                writeln!(text, "{id}: {}", print::output(&output)).unwrap();
            }
        }
        text
    }
}

fn start(words: &[&str]) -> Cluster {
    let mut lists: [Vec<u64>; 3] = Default::default();
    let (mut list, mut is_joint) = (0, false);
    let mut append_bytes_max = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "append_bytes" => append_bytes_max = words.next().map(|word| word.parse().unwrap()),
            "outgoing" => (list, is_joint) = (1, true),
            "learners" => list = 2,
            id => lists[list].push(id.parse().unwrap()),
        }
    }
    let initial = configuration(&lists[0], is_joint.then_some(&lists[1]), &lists[2]);
    let mut settings = settings(1);
    settings.append_bytes_max = append_bytes_max.unwrap_or(settings.append_bytes_max);
    Cluster::new(initial, settings)
}

fn ways(words: &[&str]) -> Vec<(ReplicaId, ReplicaId)> {
    let way = |word: &&str| {
        let (from, to) = word.split_once("->").unwrap();
        (
            ReplicaId(from.parse().unwrap()),
            ReplicaId(to.parse().unwrap()),
        )
    };
    words.iter().map(way).collect()
}

fn is_on(ways: &[(ReplicaId, ReplicaId)], from: ReplicaId, to: ReplicaId) -> bool {
    ways.is_empty() || ways.contains(&(from, to))
}

/// Delivers what is on its way now, not what that gives rise to.
fn deliver(cluster: &mut Cluster, ways: &[(ReplicaId, ReplicaId)]) {
    let mut left = cluster.network.len();
    let mut at = 0;
    while left > 0 {
        left -= 1;
        if is_on(ways, cluster.network[at].from, cluster.network[at].to) {
            cluster.deliver(at);
        } else {
            at += 1;
        }
    }
}

fn status(cluster: &Cluster) -> String {
    let mut text = String::new();
    for id in cluster.replicas.keys() {
        if !cluster.is_up(*id) {
            writeln!(text, "{id}: down").unwrap();
            continue;
        }
        let core = cluster.core(*id);
        let leader = core
            .leader()
            .map_or("none".to_string(), |leader| leader.to_string());
        let last = print::position(core.last());
        let (role, term, commit) = (core.role(), core.term(), core.commit());
        writeln!(
            text,
            "{id}: {role:?} of {term:?}, leader {leader}, commit {commit}, last {last}"
        )
        .unwrap();
    }
    text
}

fn log(cluster: &Cluster, id: ReplicaId) -> String {
    let core = cluster.core(id);
    let mut text = String::new();
    for entry in core.entries(core.first_index(), core.last().index) {
        let body = match &entry.body {
            Body::OwnTerm => "own term".to_string(),
            Body::Configuration(configuration) => {
                format!("configuration {:?}", configuration.epoch)
            }
            Body::Command(word) => word.0.clone(),
        };
        let durable = if entry.index <= core.last_durable() {
            ""
        } else {
            ", not durable"
        };
        let committed = if entry.index <= core.commit() {
            ", committed"
        } else {
            ""
        };
        writeln!(
            text,
            "{}: {body}{committed}{durable}",
            print::position(entry.position())
        )
        .unwrap();
    }
    text
}
