//! A full disk stops the server with a clear error, and loses nothing that was acknowledged.

use std::process::Command;

use quorate_server::StopReason;
use quorate_storage::StorageError;
use quorate_wire::api::{Freshness, GetGroup, GroupSpec};

use crate::support::*;

/// A tiny file system of its own, where we may mount one.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(Self(dir))
    }

    fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let done = Command::new("mount")
            .args(["-o", &options])
            .arg(self.0.path())
            .status()
            .unwrap();
        assert!(done.success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_server_and_acknowledged_groups_survive() {
    let Some(disk) = Tmpfs::mount("16m") else {
        eprintln!("SKIPPED: this test mounts a tmpfs, which needs root");
        return;
    };
    let path = disk.0.path().join("s1");
    let mut cluster = Cluster::start_with(1, |config| config.data_dir = path.clone()).await;
    cluster.leader().await;
    let client = cluster.client(0).await;
    let mut acknowledged = Vec::new();
    let large = |n: usize| GroupSpec {
        require: [("k".to_owned(), "v".repeat(50_000 + n))].into(),
        ..GroupSpec::default()
    };
    for n in 0..5_000 {
        let name = group(&format!("g{n}"));
        let request = quorate_wire::api::CreateGroups {
            mutation: mutation(),
            groups: vec![(name.clone(), large(n % 7))],
        };
        match client.create_groups(request, TIMEOUT).await {
            Ok(_) => acknowledged.push(name),
            Err(_) => break,
        }
    }
    assert!(
        acknowledged.len() > 10,
        "only {} fitted",
        acknowledged.len()
    );
    let reason = tokio::time::timeout(PATIENCE, cluster.server(0).wait())
        .await
        .expect("the server stops by itself");
    let StopReason::Storage(error) = &reason else {
        panic!("{reason:?}")
    };
    assert!(matches!(**error, StorageError::Full { .. }), "{error:?}");
    assert!(
        reason.hint().unwrap().contains("free space"),
        "{:?}",
        reason.hint()
    );
    cluster.kill(0);

    disk.resize("64m");
    cluster.restart(0);
    cluster.leader().await;
    let client = cluster.client(0).await;
    for name in acknowledged {
        client
            .get_group(
                GetGroup {
                    freshness: Freshness::default(),
                    group: name,
                },
                TIMEOUT,
            )
            .await
            .unwrap();
    }
}
