//! Snapshots' files: those in the directory, and one that a peer sends in pieces.

use quorate_storage::{Disk, DiskFile, SimDisk, SnapshotMeta, SnapshotStore};
use quorate_types::{LogIndex, Term};

use crate::forge;
use crate::input::Input;

/// Bounds what a snapshot may unpack to, far below a real server's bound.
const PLAIN_BYTES_MAX: u64 = 1 << 20;

/// Puts files into the directory, loads what there is, then receives one more.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let disk = SimDisk::new(1);
    for (name, bytes) in files(&mut input) {
        let mut file = disk.create(&name).expect("the disk is healthy");
        file.write_at(0, &bytes).expect("the disk is healthy");
        file.sync().expect("the disk is healthy");
    }
    disk.sync_dir().expect("the disk is healthy");
    let mut store = SnapshotStore::open(disk)
        .expect("any directory opens")
        .with_limit(PLAIN_BYTES_MAX);
    for meta in store.metas().expect("the disk is healthy") {
        if let Ok(bytes) = store.load(meta) {
            assert!(bytes.len() as u64 <= PLAIN_BYTES_MAX);
            let _ = quorate_codec::decode_snapshot(&bytes);
        }
    }
    let _ = store.load_newest();
    let _ = store.load_covering(LogIndex(input.number(1)));
    receive(&mut store, &mut input);
}

fn receive(store: &mut SnapshotStore<SimDisk>, input: &mut Input<'_>) {
    let meta = SnapshotMeta {
        index: LogIndex(input.number(5)),
        term: Term(input.number(2)),
    };
    if input.flag() {
        store.begin_incoming(meta).expect("the disk is healthy");
    }
    let mut file = if input.flag() {
        forge::snapshot(meta.index.0, meta.term.0, input)
    } else {
        let count = usize::from(input.u16());
        input.take(count).to_vec()
    };
    forge::damage(&mut file, input);
    let mut offset = 0;
    while !input.is_empty() {
        let piece = usize::from(input.u16());
        let at = input.number(offset);
        let start = usize::try_from(offset)
            .expect("it is short")
            .min(file.len());
        let end = (start + piece).min(file.len());
        if let Ok(next) = store.write_incoming(meta, at, &file[start..end]) {
            offset = next;
        }
    }
    let start = usize::try_from(offset)
        .expect("it is short")
        .min(file.len());
    let _ = store.write_incoming(meta, offset, &file[start..]);
    if let Ok(bytes) = store.finish_incoming(meta) {
        assert!(bytes.len() as u64 <= PLAIN_BYTES_MAX);
        let metas = store.metas().expect("the disk is healthy");
        if metas.contains(&meta) {
            let loaded = store.load(meta).expect("it was whole when it arrived");
            assert_eq!(loaded, bytes, "the snapshot changed on its way");
        }
        let _ = quorate_codec::decode_snapshot(&bytes);
    }
}

/// The files of a snapshots' directory, from an input.
pub(crate) fn files(input: &mut Input<'_>) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for _ in 0..input.below(4) {
        let (index, term) = (input.number(4), input.number(2));
        let name = match input.below(8) {
            0 => format!("snap-{index:x}-{term:x}.zst"),
            1 => format!("incoming-{index:016x}-{term:016x}.tmp"),
            2 => format!("snap-{index:016x}-{term:016x}.zst.tmp"),
            _ => format!("snap-{index:016x}-{term:016x}.zst"),
        };
        let mut bytes = if input.below(4) > 0 {
            forge::snapshot(index, term, input)
        } else {
            let count = usize::from(input.u16());
            input.take(count).to_vec()
        };
        forge::damage(&mut bytes, input);
        files.push((name, bytes));
    }
    files
}
