//! The log under every fault: what was acknowledged is found again, or the log refuses to open.

use std::collections::BTreeMap;

use quorate_types::ReplicaId;

use super::*;
use crate::contract::{ModelLog, Reopen, check_contract, random_operation, sample_record};
use crate::disk::OsDisk;
use crate::sim_disk::SimDisk;

struct Place<D: Disk> {
    disk: D,
    options: LogOptions,
    _dir: Option<tempfile::TempDir>,
}

impl<D: Disk> Reopen for Place<D> {
    type Store = FileLog<D>;

    fn reopen(&mut self) -> Result<(FileLog<D>, Recovered), StorageError> {
        FileLog::open(self.disk.clone(), self.options)
    }
}

#[test]
fn a_log_on_a_simulated_disk_keeps_the_contract() {
    check_contract(|| Place {
        disk: SimDisk::new(1),
        options: LogOptions::small(),
        _dir: None,
    });
}

#[test]
fn a_log_on_a_real_disk_keeps_the_contract() {
    check_contract(|| {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions {
            preallocate_bytes: 8192,
            ..LogOptions::small()
        };
        Place {
            disk: OsDisk::open(dir.path()).unwrap(),
            options,
            _dir: Some(dir),
        }
    });
}

type SimLog = FileLog<SimDisk>;

fn open(disk: &SimDisk) -> Result<(SimLog, Recovered), StorageError> {
    FileLog::open(disk.clone(), LogOptions::small())
}

/// Appends one record and syncs.
fn put(log: &mut SimLog, size: usize) -> Result<(), StorageError> {
    log.append(&[sample_record(log.next_index(), Term(1), size)])?;
    log.sync()
}

/// Writes `batches` small batches, with a vote, a truncation and large batches among them.
fn sample(disk: &SimDisk, batches: u64) -> ModelLog {
    let mut model = ModelLog::default();
    let (mut log, _) = open(disk).unwrap();
    for at in 0..batches {
        let size = if at % 7 == 5 { 6_000 } else { 40 };
        let record = sample_record(model.next_index(), Term(1), size);
        model.append(std::slice::from_ref(&record));
        log.append(&[record]).unwrap();
        if at % 5 == 3 {
            let vote = Vote {
                term: Term(at),
                voted_for: Some(ReplicaId(2)),
            };
            model.save_vote(vote);
            log.save_vote(vote).unwrap();
        }
        if at % 11 == 8 {
            let from = LogIndex(model.next_index().0 - 2);
            model.truncate_suffix(from);
            log.truncate_suffix(from).unwrap();
        }
        log.sync().unwrap();
    }
    model
}

/// Opens a damaged disk: either everything acknowledged is there, or it refuses and says how to go on.
/// Answers whether it refused.
fn check_harmless_or_refused(
    disk: &SimDisk,
    model: &ModelLog,
    what: impl FnOnce() -> String,
) -> bool {
    match open(disk) {
        Ok((_, found)) => {
            assert!(
                model.agrees(&found),
                "{}: silently changed to {found:?}",
                what()
            );
            false
        }
        Err(error @ StorageError::Rotten { .. }) => {
            assert!(
                error.to_string().contains("a new member with a new id"),
                "{}: {error}",
                what()
            );
            true
        }
        Err(error) => panic!("{}: unexpected error {error}", what()),
    }
}

#[test]
fn any_single_byte_corrupted_is_harmless_or_refused() {
    // The newest batch is mirrored in the first log, too large and so marked in the second, alone in the third.
    for batches in [16, 13, 1] {
        let disk = SimDisk::new(1);
        let model = sample(&disk, batches);
        disk.kill();
        let (mut refused, mut harmless) = (0, 0);
        assert!(batches < 10 || disk.files().len() > 1, "{:?}", disk.files());
        for (name, size) in disk.files() {
            for byte in 0..size {
                let copy = disk.fork();
                copy.rot(&name, byte, 1 << (byte % 8));
                match check_harmless_or_refused(&copy, &model, || {
                    format!("{batches}: {name} byte {byte}")
                }) {
                    true => refused += 1,
                    false => harmless += 1,
                }
            }
        }
        assert!(
            refused > 100 && harmless > 1000,
            "refused {refused}, harmless {harmless}"
        );
    }
}

#[test]
fn either_copy_of_the_newest_batch_may_be_lost_whole() {
    for batches in [3, 4, 21] {
        let disk = SimDisk::new(1);
        let model = sample(&disk, batches);
        let (name, size) = disk.files().pop().unwrap();
        let slots = PAGE..PAGE + 2 * 4096;
        let data = disk
            .open(&name)
            .unwrap()
            .read_at(slots.end, size as usize)
            .unwrap();
        let last = data.windows(4).rposition(|magic| magic == b"qlfr").unwrap() as u64 + slots.end;
        for range in [slots, last..size] {
            let copy = disk.fork();
            let mut file = copy.open(&name).unwrap();
            file.write_at(range.start, &vec![0xEE; (range.end - range.start) as usize])
                .unwrap();
            check_harmless_or_refused(&copy, &model, || format!("{batches}: {range:?}"));
        }
    }
}

#[test]
fn a_newest_batch_lost_with_every_proof_of_it_is_refused_where_no_crash_could_do_that() {
    for (batches, filler) in [(1, 0xEE), (5, 0xEE), (5, 0)] {
        let disk = SimDisk::new(1);
        let (mut log, _) = open(&disk).unwrap();
        let mut last = 0;
        for _ in 0..batches {
            last = log.current.end;
            put(&mut log, 40).unwrap();
        }
        let name = segment::file_name(1);
        let mut file = disk.open(&name).unwrap();
        file.write_at(PAGE, &[filler; 2 * 4096]).unwrap();
        let size = file.size().unwrap();
        file.write_at(last, &vec![filler; (size - last) as usize])
            .unwrap();
        let error = open(&disk).err().expect("not silently truncated");
        assert!(
            matches!(&error, StorageError::Rotten { file, .. } if *file == name),
            "{error}"
        );
        assert_eq!(file.size().unwrap(), size, "nothing was changed");
    }
}

#[test]
fn a_missing_segment_refuses_to_open() {
    let disk = SimDisk::new(1);
    sample(&disk, 60);
    let files = disk.files();
    assert!(files.len() > 3, "{files:?}");
    for (name, _) in &files[..files.len() - 1] {
        let copy = disk.fork();
        copy.remove(name).unwrap();
        assert!(
            matches!(open(&copy), Err(StorageError::Rotten { .. })),
            "{name}"
        );
    }
    for (name, _) in &files {
        disk.remove(name).unwrap();
    }
    let options = LogOptions {
        create_if_missing: false,
        ..LogOptions::small()
    };
    assert!(matches!(
        FileLog::open(disk, options),
        Err(StorageError::LogMissing)
    ));
}

/// Runs random operations with power cuts at random moments, and compares with the model after each.
fn crash_run(seed: u64, rot: bool) -> BTreeMap<&'static str, u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let disk = SimDisk::new(seed);
    let mut durable = ModelLog::default();
    let mut seen = BTreeMap::new();
    for round in 0..6 {
        let at = || format!("seed {seed}, round {round}");
        // The power may also fail while the log is being opened.
        if random.u8(..4) == 0 {
            disk.cut_power_after(random.u64(..8));
            if let Ok((_, found)) = open(&disk) {
                assert!(
                    durable.agrees(&found),
                    "{}: {found:?} is not {durable:?}",
                    at()
                );
            }
            disk.crash(&mut random);
        }
        let (mut log, found) = open(&disk).unwrap_or_else(|e| panic!("{}: {e}", at()));
        assert!(
            durable.agrees(&found),
            "{}: {found:?} is not {durable:?}",
            at()
        );
        disk.cut_power_after(random.u64(..60));
        let mut pending = durable.clone();
        let result = loop {
            let size_max = if random.u8(..10) == 0 { 12_000 } else { 800 };
            for _ in 0..random.usize(1..4) {
                random_operation(&mut log, &mut pending, &mut random, size_max).unwrap();
            }
            match log.sync() {
                Ok(()) => durable = pending.clone(),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(
                result,
                StorageError::Io { .. } | StorageError::SyncFailed { .. }
            ),
            "{}: {result}",
            at()
        );
        assert!(
            matches!(log.sync(), Err(StorageError::Poisoned)),
            "{}",
            at()
        );
        disk.crash(&mut random);
        if rot {
            let files: Vec<_> = disk
                .files()
                .into_iter()
                .filter(|(_, size)| *size > 0)
                .collect();
            let (name, size) = &files[random.usize(..files.len())];
            disk.rot(name, random.u64(..*size), 1 << random.u8(..8));
        }
        // The batch in flight survived whole, or not at all.
        match open(&disk) {
            Ok((_, found)) if durable.agrees(&found) => {
                *seen
                    .entry(if found.torn_bytes > 0 { "torn" } else { "lost" })
                    .or_default() += 1;
            }
            Ok((_, found)) => {
                assert!(
                    pending.agrees(&found),
                    "{}: {found:?} is neither {durable:?} nor {pending:?}",
                    at()
                );
                durable = pending;
                *seen.entry("kept").or_default() += 1;
            }
            Err(StorageError::Rotten { .. }) if rot => {
                *seen.entry("refused").or_default() += 1;
                return seen;
            }
            Err(error) => panic!("{}: a crash alone needs no operator: {error}", at()),
        }
    }
    seen
}

fn crash_runs(seeds: std::ops::Range<u64>, rot: bool) -> BTreeMap<&'static str, u64> {
    let mut seen = BTreeMap::new();
    for seed in seeds {
        for (outcome, count) in crash_run(seed, rot) {
            *seen.entry(outcome).or_default() += count;
        }
    }
    seen
}

#[test]
fn a_crash_at_any_moment_recovers_alone_and_loses_nothing_acknowledged() {
    let seen = crash_runs(0..2_000, false);
    assert!(
        ["torn", "lost", "kept"]
            .iter()
            .all(|outcome| seen[outcome] > 500),
        "{seen:?}"
    );
}

#[test]
fn what_was_recovered_after_a_killed_process_survives_a_power_cut() {
    let mut unacknowledged = 0;
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::new(seed);
        let (mut log, _) = open(&disk).unwrap();
        let mut model = ModelLog::default();
        let mut acknowledged = model.clone();
        disk.cut_power_after(random.u64(1..40));
        while log.sync().is_ok() {
            acknowledged = model.clone();
            random_operation(&mut log, &mut model, &mut random, 5_000).unwrap();
        }
        disk.kill();
        let found = open(&disk).unwrap().1;
        unacknowledged += u32::from(!acknowledged.agrees(&found));
        disk.crash(&mut random);
        let again = open(&disk).unwrap().1;
        assert_eq!(
            again, found,
            "seed {seed}: what was answered once is durable"
        );
    }
    assert!(
        unacknowledged > 50,
        "{unacknowledged} batches in flight were found"
    );
}

#[test]
fn a_byte_that_rots_after_a_crash_is_harmless_or_refused() {
    let seen = crash_runs(0..1_500, true);
    assert!(seen["refused"] > 50 && seen["kept"] > 100, "{seen:?}");
}

#[test]
fn a_full_disk_is_named_poisons_the_log_and_loses_nothing_acknowledged() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    disk.set_capacity(Some(60_000));
    let error = loop {
        if let Err(error) = put(&mut log, 500) {
            break error;
        }
    };
    assert!(matches!(error, StorageError::Full { .. }), "{error}");
    let acknowledged = log.next_index().0 - 2;
    assert!(acknowledged > 20);
    assert!(matches!(log.append(&[]), Err(StorageError::Poisoned)));
    disk.kill();
    assert!(
        matches!(open(&disk), Err(StorageError::Full { .. })),
        "it does not start half"
    );
    disk.set_capacity(None);
    let found = open(&disk).unwrap().1;
    assert!(
        found.records.len() as u64 >= acknowledged,
        "{} of {acknowledged}",
        found.records.len()
    );
}

#[test]
fn a_failed_sync_poisons_the_log_and_is_never_retried() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    put(&mut log, 100).unwrap();
    disk.fail_syncs(1);
    assert!(matches!(
        put(&mut log, 100),
        Err(StorageError::SyncFailed { .. })
    ));
    let syncs = disk.syncs();
    assert!(matches!(log.sync(), Err(StorageError::Poisoned)));
    assert!(matches!(
        log.save_vote(Vote::default()),
        Err(StorageError::Poisoned)
    ));
    assert!(matches!(
        log.purge_prefix(LogIndex(1), Term(1)),
        Err(StorageError::Poisoned)
    ));
    assert!(matches!(
        log.truncate_suffix(LogIndex(1)),
        Err(StorageError::Poisoned)
    ));
    assert_eq!(disk.syncs(), syncs);
    drop(log);
    disk.crash(&mut fastrand::Rng::with_seed(1));
    assert_eq!(
        open(&disk).unwrap().1.records.len(),
        1,
        "what was acknowledged before"
    );
}

#[test]
fn a_misdirected_or_dropped_write_is_harmless_or_refused() {
    let (mut refused, mut harmless) = (0, 0);
    for seed in 0..600 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = SimDisk::new(seed);
        let (mut log, _) = open(&disk).unwrap();
        let mut model = ModelLog::default();
        let (total, wrong) = (random.usize(5..40), random.usize(..40));
        for at in 0..total {
            if at == wrong {
                if random.bool() {
                    disk.misdirect_next_write();
                } else {
                    disk.drop_next_write();
                }
            }
            random_operation(&mut log, &mut model, &mut random, 2_000).unwrap();
            log.sync().unwrap();
        }
        match check_harmless_or_refused(&disk, &model, || format!("seed {seed}")) {
            true => refused += 1,
            false => harmless += 1,
        }
    }
    assert!(
        refused > 50 && harmless > 50,
        "refused {refused}, harmless {harmless}"
    );
}

/// A disk may answer with a file's earlier life: every batch then has a right checksum and the right number in the right place.
#[test]
fn a_log_does_not_go_on_with_another_history() {
    let life = |term: u64| {
        let disk = SimDisk::new(1);
        let mut model = ModelLog::default();
        let (mut log, _) = open(&disk).unwrap();
        for _ in 0..8 {
            let record = sample_record(model.next_index(), Term(term), 40);
            model.append(std::slice::from_ref(&record));
            log.append(&[record]).unwrap();
            log.sync().unwrap();
        }
        (disk, model)
    };
    let ((disk, model), (other, _)) = (life(1), life(2));
    assert_eq!(disk.files(), other.files(), "they are laid out alike");
    let (name, size) = disk.files()[0].clone();
    let whole = usize::try_from(size).unwrap();
    let (mine, others) = (
        disk.open(&name).unwrap().read_at(0, whole).unwrap(),
        other.open(&name).unwrap().read_at(0, whole).unwrap(),
    );
    let data = usize::try_from(PAGE).unwrap() + 2 * 4_096;
    let mut refused = 0;
    // From the very first batch on it would be the other log.
    for from in (data..whole).step_by(512).skip(1) {
        // The header, and what came first, of one; the newest batches and their mirrors of the other.
        let mut spliced = mine.clone();
        spliced[PAGE as usize..data].copy_from_slice(&others[PAGE as usize..data]);
        spliced[from..].copy_from_slice(&others[from..]);
        let copy = disk.fork();
        let mut file = copy.open(&name).unwrap();
        file.write_at(0, &spliced).unwrap();
        file.sync().unwrap();
        drop(file);
        refused += u32::from(check_harmless_or_refused(&copy, &model, || {
            format!("from byte {from}")
        }));
    }
    assert!(refused >= 7, "refused {refused}");
}

#[test]
fn a_small_batch_costs_one_sync_and_a_large_one_two() {
    let disk = SimDisk::new(1);
    let options = LogOptions {
        segment_bytes: 1 << 20,
        ..LogOptions::small()
    };
    let (mut log, _) = FileLog::open(disk.clone(), options).unwrap();
    let before = disk.syncs();
    for _ in 0..10 {
        put(&mut log, 100).unwrap();
    }
    assert_eq!(disk.syncs(), before + 10);
    put(&mut log, 5_000).unwrap();
    assert_eq!(disk.syncs(), before + 12);
}

#[test]
fn purged_segments_are_removed_and_restarts_leave_no_files_behind() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    let mut files_max = 0;
    for round in 0..400_u64 {
        put(&mut log, 900).unwrap();
        if round % 10 == 9 {
            log.purge_prefix(LogIndex(log.next_index().0 - 3), Term(1))
                .unwrap();
            log.sync().unwrap();
            drop(log);
            for _ in 0..3 {
                drop(open(&disk).unwrap());
            }
            log = open(&disk).unwrap().0;
        }
        files_max = files_max.max(disk.files().len());
    }
    assert!(files_max <= 5, "{files_max} files at once");
    let found = open(&disk).unwrap().1;
    assert_eq!(found.records.len(), 2);
    assert_eq!(found.purged.0, LogIndex(398));
}

#[test]
fn a_log_of_a_newer_format_says_so() {
    let disk = SimDisk::new(1);
    sample(&disk, 1);
    let (name, _) = disk.files().remove(0);
    let mut file = disk.open(&name).unwrap();
    let mut header = file.read_at(0, HEADER - 4).unwrap();
    header[8] = 2;
    header.extend(crc32c::crc32c(&header).to_le_bytes());
    file.write_at(0, &header).unwrap();
    let error = open(&disk).err().unwrap();
    assert!(
        matches!(
            error,
            StorageError::NewerFormat {
                found: 2,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("newer"));
}

/// Golden bytes: a log written by format 1 stays readable. The hash covers the whole file.
#[test]
fn format_1_is_written_as_ever() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk).unwrap();
    log.append(&[sample_record(LogIndex(1), Term(1), 10)])
        .unwrap();
    log.save_vote(Vote {
        term: Term(2),
        voted_for: Some(ReplicaId(3)),
    })
    .unwrap();
    log.sync().unwrap();
    log.purge_prefix(LogIndex(1), Term(1)).unwrap();
    log.sync().unwrap();
    let (name, size) = disk.files().pop().unwrap();
    let bytes = disk.open(&name).unwrap().read_at(0, size as usize).unwrap();
    assert_eq!(name, "log-0000000000000001.seg");
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "aaabaa80f8252265db77a5fc72989eb84ea50f64d89e7a9063c51e2e1bab7ee6"
    );
}

/// A segment with right checksums around one batch, which fuzzing found to stop the process.
fn forged(header: Header, put: impl Fn(&mut Vec<u8>)) -> Result<(), StorageError> {
    let mut bytes = header.encode();
    bytes.resize(usize::try_from(header.data_at()).unwrap(), 0);
    let mut batch = vec![0; FRAME_HEADER];
    put(&mut batch);
    let place = frame::Place {
        segment: header.segment,
        offset: header.data_at(),
        number: header.number.wrapping_add(1),
    };
    frame::seal(&mut batch, FrameKind::Batch, place, &header.chain);
    bytes.extend(batch);
    let mut replay = None;
    segment::scan(header.segment, &bytes, &mut replay)?;
    let replay = replay.unwrap();
    assert!(replay.summary.next > replay.summary.purged.0);
    Ok(())
}

#[test]
fn operation_that_no_log_writes_is_refused() {
    let header = Header {
        segment: 1,
        slot_bytes: 4096,
        number: 0,
        chain: [0; 32],
        summary: Summary {
            purged: (LogIndex(4), Term(1)),
            next: LogIndex(5),
            ..Summary::EMPTY
        },
    };
    let refused = |result| matches!(result, Err(StorageError::Rotten { .. }));
    assert!(
        forged(header, |batch| frame::put_purge(
            batch,
            LogIndex(5),
            Term(1)
        ))
        .is_ok()
    );
    for from in [0, 4, 6, u64::MAX] {
        let put = |batch: &mut Vec<u8>| frame::put_truncate(batch, LogIndex(from));
        assert!(refused(forged(header, put)), "truncation from {from}");
    }
    for through in [0, 4, u64::MAX] {
        let put = |batch: &mut Vec<u8>| frame::put_purge(batch, LogIndex(through), Term(1));
        assert!(refused(forged(header, put)), "purge through {through}");
    }
    let next = |next: u64| Summary {
        next: LogIndex(next),
        ..header.summary
    };
    for bad in [
        Header {
            summary: next(4),
            ..header
        },
        Header {
            summary: next(u64::MAX),
            ..header
        },
        Header {
            segment: u64::MAX,
            ..header
        },
        Header {
            number: u64::MAX,
            ..header
        },
    ] {
        assert!(refused(forged(bad, |_| {})), "{bad:?}");
    }
}
