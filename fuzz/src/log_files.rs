//! The log's directory: whatever is in it, the log opens or refuses; what it opens, it keeps.

use std::sync::Arc;

use quorate_storage::{
    Disk, DiskFile, FileLog, LogOptions, LogStore, Record, Recovered, SimDisk, StorageError,
};
use quorate_types::Term;

use crate::forge;
use crate::input::Input;

/// Forged logs that are numbered up to here are written to.
const NUMBERS_END: u64 = u64::MAX / 4;

/// Makes up to three segments, forged or raw, damages some bytes, and opens the log.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let disk = SimDisk::new(1);
    for (name, bytes) in files(&mut input) {
        put(&disk, &name, &bytes);
    }
    disk.sync_dir().expect("the disk is healthy");
    let options = LogOptions {
        create_if_missing: input.flag(),
        ..LogOptions::small()
    };
    let Ok((mut log, found)) = open(&disk, options) else {
        return;
    };
    // What was found is kept, however often it is opened; and the log goes on where it ended.
    let next = log.next_index();
    assert!(next > found.purged.0, "the log goes on before its start");
    drop(log);
    let (reopened, again) = open(&disk, options).expect("what opened once opens again");
    log = reopened;
    assert_eq!(log.next_index(), next, "the log ends elsewhere");
    check_same(&found, &again);
    // Right at the end of the numbers nothing more can be written that opens: no log gets there.
    if next.0 < NUMBERS_END {
        let record = Record {
            index: next,
            term: Term(7),
            bytes: Arc::from(input.take(64)),
        };
        log.append(std::slice::from_ref(&record))
            .and_then(|()| log.sync())
            .expect("the disk is healthy");
        drop(log);
        let last = match open(&disk, options) {
            Ok((_, last)) => last,
            // The numbers of batches and segments are not to be seen here; they end likewise.
            Err(refused) if refused.to_string().contains("counts further") => return,
            Err(refused) => panic!("what was written does not open: {refused}"),
        };
        assert_eq!(last.records.last(), Some(&record), "the record is lost");
        assert_eq!(last.records.len(), found.records.len() + 1);
    }
}

fn check_same(found: &Recovered, again: &Recovered) {
    assert_eq!(
        (&found.vote, &found.purged, &found.records),
        (&again.vote, &again.purged, &again.records),
        "opening changed the log"
    );
    assert_eq!(again.torn_bytes, 0, "the torn rest is found twice");
}

type Opened = (FileLog<SimDisk>, Recovered);

fn open(disk: &SimDisk, options: LogOptions) -> Result<Opened, StorageError> {
    FileLog::open(disk.clone(), options)
}

fn put(disk: &SimDisk, name: &str, bytes: &[u8]) {
    let mut file = disk.create(name).expect("the disk is healthy");
    file.write_at(0, bytes).expect("the disk is healthy");
    file.sync().expect("the disk is healthy");
}

/// The files of a log's directory, from an input.
pub(crate) fn files(input: &mut Input<'_>) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut forger = forge::Log::new(input);
    for _ in 0..=input.below(3) {
        match input.below(8) {
            0 => {
                let count = usize::from(input.u16());
                let name = forger.name(input);
                files.push((name, input.take(count).to_vec()));
            }
            1 => {
                let text = String::from_utf8_lossy(input.take(24)).into_owned();
                // What no file system would hold is no input.
                if !text.is_empty() && !text.contains(['/', '\0']) && !text.starts_with('.') {
                    files.push((text, input.take(64).to_vec()));
                }
            }
            _ => files.push(forger.segment(input)),
        }
    }
    if let Some((_, bytes)) = files.last_mut() {
        forge::damage(bytes, input);
    }
    files
}
