//! `quorate import etcd`: all keys arrive, also over kills of the importer, and it does not cut over while the source changes.

use std::process::Stdio;

use rustix::process::Signal;

use crate::etcd::Etcd;
use crate::harness::{Cluster, Process, Said, eventually};

/// Something that speaks etcd's API.
trait Keys {
    fn kv(&self, arguments: &[&str]) -> Said;
    fn endpoints(&self) -> String;

    /// Writes, again where a crowded machine left the outcome open: what is written here may be written twice.
    fn write(&self, arguments: &[&str]) {
        eventually("it is written", || {
            let said = self.kv(arguments);
            match said.code {
                5 | 6 => None,
                // Deleted by the attempt before.
                3 if arguments[1] == "del" => Some(()),
                _ => {
                    said.ok();
                    Some(())
                }
            }
        });
    }

    fn put(&self, key: &str, value: &str) {
        self.write(&["kv", "put", key, value]);
    }

    /// Keys and values in JSON, save what differs by nature: versions and revisions.
    fn all(&self, prefix: &str) -> Vec<(String, String)> {
        let text = self
            .kv(&["kv", "get", prefix, "--prefix", "-o", "json"])
            .ok();
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        let pairs = found["pairs"].as_array().unwrap().iter();
        let text = |pair: &serde_json::Value, name: &str| pair[name].as_str().unwrap().to_owned();
        pairs
            .map(|pair| (text(pair, "key"), text(pair, "value")))
            .filter(|(key, _)| !key.starts_with("/quorate/"))
            .collect()
    }

    /// Puts `count` keys below a prefix, a hundred in a transaction.
    fn fill(&self, prefix: &str, count: usize) {
        let keys: Vec<usize> = (0..count).collect();
        for chunk in keys.chunks(100) {
            let puts = chunk
                .iter()
                .map(|n| format!("put {prefix}{n:05} {prefix}{n}"));
            let mut arguments = vec!["kv".to_owned(), "txn".to_owned()];
            arguments.extend(puts.flat_map(|put| ["--then".to_owned(), put]));
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            self.write(&arguments);
        }
    }
}

impl Keys for Etcd {
    fn kv(&self, arguments: &[&str]) -> Said {
        self.run(arguments)
    }

    fn endpoints(&self) -> String {
        self.endpoint.clone()
    }
}

impl Keys for Cluster {
    fn kv(&self, arguments: &[&str]) -> Said {
        self.run(arguments)
    }

    fn endpoints(&self) -> String {
        Cluster::endpoints(self).join(",")
    }
}

struct Import {
    process: Process,
    out: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Import {
    fn start(from: &impl Keys, to: &impl Keys, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("out");
        let mut command = crate::harness::quorate();
        command
            .args(["import", "etcd", "-o", "json", "--quiet", "500ms"])
            .args(["--from", &from.endpoints(), "--to", &to.endpoints()])
            .args(more)
            .stdout(std::fs::File::create(&out).unwrap())
            .stderr(Stdio::inherit());
        Self {
            process: Process::spawn(&mut command),
            out,
            _directory: directory,
        }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap()
    }

    fn wait_following(&self) {
        eventually("it follows", || {
            self.text()
                .contains("\"phase\":\"following\"")
                .then_some(())
        });
    }

    /// Its report, after it has cut over.
    fn cut_over(mut self) -> serde_json::Value {
        self.process.signal(Signal::USR1);
        assert_eq!(self.process.wait(), 0, "{}", self.text());
        serde_json::from_str(self.text().lines().last().unwrap()).unwrap()
    }
}

fn moves_there_and_back(from: &impl Keys, to: &impl Keys) {
    from.fill("bulk/", 1_500);
    from.put("config/a", "1");
    let mut import = Import::start(from, to, &[]);
    import.wait_following();
    // Changed while it follows, over a kill of the importer, too.
    from.put("config/a", "2");
    from.write(&["kv", "del", "bulk/000", "--prefix", "--yes"]);
    import.process.kill();
    from.put("config/b", "while nobody followed");
    from.write(&["kv", "del", "bulk/00100"]);
    let import = Import::start(from, to, &[]);
    import.wait_following();
    assert!(
        !import.text().contains("\"phase\":\"copying\""),
        "{}",
        import.text()
    );
    from.fill("late/", 250);
    let report = import.cut_over();
    assert_eq!(report["keys"], 1_500 - 100 - 1 + 2 + 250, "{report}");
    assert_eq!(to.all(""), from.all(""));

    // The destination is not empty now, and nothing there says that it came from the source.
    let mut import = Import::start(from, to, &[]);
    assert_eq!(import.process.wait(), 4);
}

#[test]
fn keys_move_between_etcd_clusters() {
    let (Some(from), Some(to)) = (Etcd::start(), Etcd::start()) else {
        return;
    };
    moves_there_and_back(&from, &to);
}

#[test]
fn keys_move_from_etcd_to_quorate() {
    let Some(from) = Etcd::start() else { return };
    moves_there_and_back(&from, &Cluster::start());
}

#[test]
fn keys_move_from_quorate_to_etcd() {
    let Some(to) = Etcd::start() else { return };
    moves_there_and_back(&Cluster::start(), &to);
}

#[test]
fn a_copy_that_was_killed_goes_on_where_it_was() {
    let (Some(from), Some(to)) = (Etcd::start(), Etcd::start()) else {
        return;
    };
    from.fill("k/", 3_000);
    let mut import = Import::start(&from, &to, &[]);
    eventually("a part is there", || {
        let count = to.kv(&["kv", "get", "k/", "--prefix", "--count-only"]).ok();
        (count.trim().parse::<u64>().unwrap() > 200).then_some(())
    });
    import.process.kill();
    let import = Import::start(&from, &to, &[]);
    import.wait_following();
    let report = import.cut_over();
    assert_eq!(
        (&report["keys"], to.all("").len()),
        (&3_000.into(), 3_000),
        "{report}"
    );
}

#[test]
fn it_does_not_cut_over_while_the_source_changes() {
    let (Some(from), Some(to)) = (Etcd::start(), Etcd::start()) else {
        return;
    };
    from.put("a", "0");
    let mut import = Import::start(&from, &to, &["--cut-over", "--patience", "3s"]);
    let mut n = 0;
    let code = eventually("it gives up", || {
        n += 1;
        from.put("a", &n.to_string());
        import.process.0.try_wait().unwrap()
    });
    assert_eq!(code.code(), Some(4), "{}", import.text());
    // Writers have stopped: now it does.
    let mut import = Import::start(&from, &to, &["--cut-over"]);
    assert_eq!(import.process.wait(), 0, "{}", import.text());
    assert_eq!(to.all(""), from.all(""));
}

#[test]
fn leases_live_on_in_the_destination_and_end_with_those_of_the_source() {
    let (Some(from), Some(to)) = (Etcd::start(), Etcd::start()) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let options = quorate_client::ClientOptions::default;
    let source = quorate_client::Client::lazy([&from.endpoint], options())
        .unwrap()
        .kv();
    let target = quorate_client::Client::lazy([&to.endpoint], options())
        .unwrap()
        .kv();
    let kept = 0x5eed_u64;
    let ending = 0x5eee_u64;
    let leased = |key: &'static str, lease: u64| quorate_client::kv::pb::PutRequest {
        key: key.into(),
        value: "x".into(),
        lease: i64::try_from(lease).unwrap(),
        ..quorate_client::kv::pb::PutRequest::default()
    };
    runtime.block_on(async {
        source.grant_lease(0x5eed, 300).await.unwrap();
        source.grant_lease(0x5eee, 300).await.unwrap();
        source.put_with(leased("kept", kept)).await.unwrap();
        source.put_with(leased("ending", ending)).await.unwrap();
    });
    let import = Import::start(&from, &to, &[]);
    import.wait_following();
    runtime.block_on(async {
        let left = target.lease_time_to_live(0x5eed, true).await.unwrap();
        assert_eq!((left.granted_ttl, left.keys.len()), (300, 1), "{left:?}");
        source.revoke_lease(0x5eee).await.unwrap();
    });
    eventually("the lease has ended there, too", || {
        let leases = runtime.block_on(target.leases()).unwrap();
        (leases == [0x5eed]).then_some(())
    });
    let report = import.cut_over();
    assert_eq!(
        (&report["keys"], &report["leases"]),
        (&1.into(), &1.into()),
        "{report}"
    );
    assert_eq!(to.all(""), [("kept".to_owned(), "x".to_owned())]);
}
