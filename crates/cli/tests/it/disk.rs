//! A full disk, on a file system small enough to fill. Needs root to mount one.

use std::path::Path;
use std::process::Command;

use crate::harness::{Cluster, eventually};

/// A mounted tmpfs, unmounted when dropped.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|mounted| mounted.status.success())
            .then_some(Self(at))
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_stops_that_server_with_a_hint_and_loses_nothing() {
    let mut cluster = Cluster::prepare();
    let place = cluster.directory().join("small");
    let Some(_mounted) = Small::mount(&place, "256m") else {
        eprintln!("SKIPPED: mounting a tmpfs needs root; the full disk was not tested");
        return;
    };
    cluster.place(0, &place.join("s1"));
    for n in 0..3 {
        cluster.start_server(n);
    }
    cluster.wait_ready();
    cluster.run(&["group", "create", "before"]).ok();

    // Leaves no room at all for what comes next.
    let filler = place.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    let block = vec![0; 64 * 1024];
    while std::io::Write::write_all(&mut file, &block).is_ok() {}
    drop(file);

    // The others take changes on, large ones, until the full server has had to write more than it had set aside.
    let label = format!("k={}", "v".repeat(60_000));
    let mut full = cluster.take_server(0);
    let mut n = 0;
    let status = eventually("the full server stops", || {
        n += 1;
        cluster
            .run(&[
                "group",
                "create",
                &format!("big/{n:04}"),
                "--require",
                &label,
            ])
            .ok();
        full.0.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(1), "{status}");
    let log = std::fs::read_to_string(cluster.log_path(0)).unwrap();
    assert!(
        log.contains("no space left") && log.contains("hint: free space"),
        "{log}"
    );

    // With space again it comes back, and has everything that was acknowledged.
    std::fs::remove_file(&filler).unwrap();
    cluster.start_server(0);
    let endpoint = cluster.endpoint(0);
    let list = || {
        crate::harness::run(crate::harness::quorate().args([
            "--endpoints",
            &endpoint,
            "--timeout",
            "20s",
            "group",
            "list",
            "-o",
            "json",
        ]))
    };
    let groups: serde_json::Value = serde_json::from_str(&list().ok()).unwrap();
    assert_eq!(
        groups.as_array().unwrap().len(),
        n + 1,
        "everything acknowledged, on the server that was full"
    );
}
