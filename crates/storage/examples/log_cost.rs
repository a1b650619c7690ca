//! Measures what one acknowledged batch costs on a real directory (the first argument, default: a temporary one).
//!
//! `cargo run --release -p quorate-storage --example log_cost -- /var/lib/somewhere`

use std::path::PathBuf;
use std::time::Instant;

use quorate_storage::contract::sample_record;
use quorate_storage::{Disk, DiskFile, FileLog, LogOptions, LogStore, OsDisk};
use quorate_types::Term;

fn main() {
    let parent = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let path = parent.join(format!("quorate-log-cost-{}", std::process::id()));
    let disk = OsDisk::open(&path).expect("the directory can be created");
    let mirrored = LogOptions::default();
    let marked = LogOptions {
        mirror_bytes: 4096,
        ..mirrored
    };
    let bare = LogOptions {
        preallocate_bytes: 0,
        ..mirrored
    };
    for size in [200, 5_000, 50_000, 200_000] {
        println!(
            "{size} bytes a batch, microseconds (median, 99th percentile) over 1,000 batches:"
        );
        report("bare append and sync", size, |bytes, count| {
            append_and_sync(&disk, bytes, count)
        });
        report("mirrored, one sync", size, |bytes, count| {
            write_log(&disk, mirrored, bytes, count)
        });
        report("same, not preallocated", size, |bytes, count| {
            write_log(&disk, bare, bytes, count)
        });
        if size > 4096 {
            report("marked, two syncs", size, |bytes, count| {
                write_log(&disk, marked, bytes, count)
            });
        }
    }
    std::fs::remove_dir_all(&path).expect("it is ours");
}

fn report(what: &str, size: usize, run: impl Fn(usize, usize) -> Vec<u128>) {
    let mut micros = run(size, 1_000);
    micros.sort_unstable();
    println!(
        "  {what:24} {:6} {:6}",
        micros[micros.len() / 2],
        micros[micros.len() * 99 / 100]
    );
}

fn clear(disk: &OsDisk) {
    for name in disk.list().expect("the directory is readable") {
        disk.remove(&name).expect("it is ours");
    }
}

fn append_and_sync(disk: &OsDisk, size: usize, count: usize) -> Vec<u128> {
    clear(disk);
    let mut file = disk.create("bare").expect("the disk has room");
    let bytes = vec![7; size];
    let write = |at: usize| {
        let start = Instant::now();
        file.write_at((at * size) as u64, &bytes)
            .expect("the disk has room");
        file.sync().expect("the disk works");
        start.elapsed().as_micros()
    };
    (0..count).map(write).collect()
}

fn write_log(disk: &OsDisk, options: LogOptions, size: usize, count: usize) -> Vec<u128> {
    clear(disk);
    let (mut log, _) = FileLog::open(disk.clone(), options).expect("the directory is empty");
    let write = |_| {
        let start = Instant::now();
        log.append(&[sample_record(log.next_index(), Term(1), size)])
            .expect("the disk works");
        log.sync().expect("the disk works");
        start.elapsed().as_micros()
    };
    (0..count).map(write).collect()
}
