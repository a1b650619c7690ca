//! A few replicas, their disks and the network between them, all moved by hand. Nothing happens unless a test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use quorate_consensus::{
    Boot, Config, Configuration, Consensus, Entry, HardState, LogPosition, Message, Output,
    Payload, SnapshotMeta, Timing, VoterSet, Write, WriteSeq,
};
use quorate_types::{ConfigEpoch, LogIndex, ReplicaId, Time};

/// A command: a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) String);

impl Payload for Word {
    fn size_bytes(&self) -> usize {
        self.0.len()
    }
}

/// What is durable at one replica.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) base: LogPosition,
    pub(crate) entries: Vec<Entry<Word>>,
    pub(crate) snapshot: SnapshotMeta,
    pub(crate) image: Vec<Entry<Word>>,
}

impl Disk {
    pub(crate) fn carry_out(&mut self, write: &Write<Word>) {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(from) = write.truncate_from {
            assert!(from > self.base.index, "truncation of what was purged");
            self.entries.retain(|entry| entry.index < from);
        }
        if let Some(through) = write.purge_through
            && through.index > self.base.index
        {
            self.entries.retain(|entry| entry.index > through.index);
            self.base = through;
        }
        for entry in &write.entries {
            let last = self
                .entries
                .last()
                .map_or(self.base.index, |entry| entry.index);
            assert_eq!(entry.index, last.next(), "a log file with a gap");
            self.entries.push(entry.clone());
        }
    }
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) message: Message<Word>,
}

/// One replica with its shell.
pub(crate) struct Replica {
    /// None while crashed.
    pub(crate) core: Option<Consensus<Word>>,
    pub(crate) disk: Disk,
    /// Ordered, not yet durable.
    pub(crate) writes: VecDeque<Write<Word>>,
    /// Messages that wait for a write.
    pub(crate) held: Vec<(WriteSeq, Envelope)>,
    /// The committed entries from the first on, as this replica applied them.
    pub(crate) applied: Vec<Entry<Word>>,
    arriving: Vec<u8>,
}

/// Everything.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) config: Config,
    pub(crate) initial: Configuration,
    pub(crate) replicas: BTreeMap<ReplicaId, Replica>,
    pub(crate) network: Vec<Envelope>,
    pub(crate) cut: BTreeSet<ReplicaId>,
    /// What each step ordered, for who prints or checks it.
    pub(crate) trace: Vec<(ReplicaId, Output<Word>)>,
}

pub(crate) const CHUNK_BYTES: usize = 2;

pub(crate) fn voters(ids: &[u64]) -> VoterSet {
    VoterSet {
        voters: ids.iter().map(|id| ReplicaId(*id)).collect(),
    }
}

pub(crate) fn configuration(
    incoming: &[u64],
    outgoing: Option<&[u64]>,
    learners: &[u64],
) -> Configuration {
    Configuration {
        epoch: ConfigEpoch(1),
        incoming: voters(incoming),
        outgoing: outgoing.map(voters),
        learners: learners.iter().map(|id| ReplicaId(*id)).collect(),
        members: BTreeMap::new(),
    }
}

/// Small limits, so that a few commands reach them.
pub(crate) fn settings(seed: u64) -> Config {
    Config {
        id: ReplicaId(0),
        timing: Timing {
            heartbeat_interval: Duration::from_millis(20),
            detection_timeout: Duration::from_millis(100),
            election_jitter: Duration::from_millis(50),
        },
        append_bytes_max: 100,
        appends_in_flight_max: 4,
        uncommitted_bytes_max: 1_000,
        seed,
    }
}

impl Cluster {
    pub(crate) fn new(initial: Configuration, config: Config) -> Self {
        let ids = initial.replicas();
        let mut cluster = Self {
            now: Time(1_000_000_000),
            config,
            initial,
            replicas: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            trace: Vec::new(),
        };
        for id in ids {
            let snapshot = SnapshotMeta {
                last: LogPosition::default(),
                configuration: cluster.initial.clone(),
            };
            let disk = Disk {
                snapshot,
                ..Disk::default()
            };
            cluster.replicas.insert(
                id,
                Replica {
                    core: None,
                    disk,
                    writes: VecDeque::new(),
                    held: Vec::new(),
                    applied: Vec::new(),
                    arriving: Vec::new(),
                },
            );
            cluster.start(id);
        }
        cluster
    }

    pub(crate) fn replica(&mut self, id: ReplicaId) -> &mut Replica {
        self.replicas
            .get_mut(&id)
            .unwrap_or_else(|| panic!("no replica {id}"))
    }

    pub(crate) fn core(&self, id: ReplicaId) -> &Consensus<Word> {
        self.replicas[&id]
            .core
            .as_ref()
            .unwrap_or_else(|| panic!("replica {id} is down"))
    }

    pub(crate) fn is_up(&self, id: ReplicaId) -> bool {
        self.replicas[&id].core.is_some()
    }

    pub(crate) fn up(&self) -> Vec<ReplicaId> {
        self.replicas
            .keys()
            .copied()
            .filter(|id| self.is_up(*id))
            .collect()
    }

    /// Starts a replica from its disk.
    pub(crate) fn start(&mut self, id: ReplicaId) {
        let mut config = self.config.clone();
        config.id = id;
        config.seed = config.seed.wrapping_mul(31).wrapping_add(id.0);
        let now = self.now;
        let replica = self.replica(id);
        let disk = &replica.disk;
        let boot = Boot {
            hard_state: disk.hard_state,
            snapshot: disk.snapshot.clone(),
            entries: disk.entries.clone(),
        };
        replica.applied = disk.image.clone();
        replica.core = Some(Consensus::new(config, boot, now));
    }

    /// Stops a replica at once; `survive` of its pending writes reach the disk all the same, unreported.
    pub(crate) fn crash(&mut self, id: ReplicaId, survive: usize) {
        let replica = self.replica(id);
        replica.core = None;
        for write in replica.writes.drain(..).take(survive) {
            replica.disk.carry_out(&write);
        }
        replica.held.clear();
    }

    /// Calls the core of `id`, and carries out what it orders.
    pub(crate) fn step<R>(
        &mut self,
        id: ReplicaId,
        call: impl FnOnce(&mut Consensus<Word>, Time, &mut Vec<Output<Word>>) -> R,
    ) -> R {
        let (now, mut out) = (self.now, Vec::new());
        let core = self
            .replica(id)
            .core
            .as_mut()
            .unwrap_or_else(|| panic!("replica {id} is down"));
        let answer = call(core, now, &mut out);
        core.check_invariants();
        let mut pieces = Vec::new();
        for output in out {
            self.trace.push((id, output.clone()));
            if matches!(output, Output::WriteSnapshotChunk { .. }) {
                pieces.push(output);
            } else {
                self.carry_out(id, output);
            }
        }
        // Their completion calls the core again, so the rest of the orders comes first.
        for piece in pieces {
            self.carry_out(id, piece);
        }
        answer
    }

    fn carry_out(&mut self, id: ReplicaId, output: Output<Word>) {
        let replica = self.replicas.get_mut(&id).expect("known");
        match output {
            Output::Persist(write) => replica.writes.push_back(write),
            Output::Send { to, message } => self.network.push(Envelope {
                from: id,
                to,
                message,
            }),
            Output::SendAfterPersist { write, to, message } => {
                replica.held.push((
                    write,
                    Envelope {
                        from: id,
                        to,
                        message,
                    },
                ));
            }
            Output::Committed { through } => replica.apply_through(through),
            Output::SendSnapshotChunk {
                to,
                term,
                meta,
                offset,
            } => {
                // A file that is gone is not sent; the core asks again, for a newer one.
                if meta.last == replica.disk.snapshot.last {
                    let image: Vec<u8> = vec![b'x'; replica.disk.image.len()];
                    let start = usize::try_from(offset).unwrap().min(image.len());
                    let end = (start + CHUNK_BYTES).min(image.len());
                    let (total, data) = (image.len() as u64, image[start..end].into());
                    let message = Message::SnapshotChunk {
                        term,
                        meta,
                        offset,
                        total,
                        data,
                    };
                    self.network.push(Envelope {
                        from: id,
                        to,
                        message,
                    });
                }
            }
            Output::WriteSnapshotChunk {
                from,
                meta,
                offset,
                total,
                data,
            } => {
                if offset == 0 {
                    replica.arriving.clear();
                }
                assert_eq!(
                    replica.arriving.len() as u64,
                    offset,
                    "a snapshot file with a gap"
                );
                replica.arriving.extend_from_slice(&data);
                let next = replica.arriving.len() as u64;
                if next < total {
                    self.step(id, |core, now, out| {
                        core.on_snapshot_chunk_written(now, &meta, next, out);
                    });
                } else {
                    self.install(id, from, &meta);
                }
            }
            Output::Fatal(_) => replica.core = None,
            Output::Confirmed { .. } | Output::RoleChanged { .. } => {}
        }
    }

    fn install(&mut self, id: ReplicaId, from: ReplicaId, meta: &SnapshotMeta) {
        // The bytes stand for the sender's applied entries, which whoever still has the sender's prefix can supply.
        let count = usize::try_from(meta.last.index.0).unwrap();
        let image = self.replicas[&from].applied[..count].to_vec();
        let replica = self.replica(id);
        if meta.last.index > replica.disk.snapshot.last.index {
            replica.disk.snapshot = meta.clone();
            replica.disk.image.clone_from(&image);
        }
        if self.step(id, |core, now, out| {
            core.on_snapshot_installed(now, meta.clone(), out)
        }) {
            self.replica(id).applied = image;
        }
    }

    /// Makes the next `count` pending writes of a replica durable, and reports them together.
    pub(crate) fn persist(&mut self, id: ReplicaId, count: usize) {
        let replica = self.replica(id);
        let mut through = None;
        for _ in 0..count {
            let Some(write) = replica.writes.pop_front() else {
                break;
            };
            replica.disk.carry_out(&write);
            through = Some(write.seq);
        }
        let Some(through) = through else { return };
        let (ready, held) = std::mem::take(&mut replica.held)
            .into_iter()
            .partition(|(write, _)| *write <= through);
        replica.held = held;
        let ready: Vec<(WriteSeq, Envelope)> = ready;
        self.network
            .extend(ready.into_iter().map(|(_, envelope)| envelope));
        self.step(id, |core, now, out| core.on_persisted(now, through, out));
    }

    /// Hands over the message at `at` of the network; false if it is lost.
    pub(crate) fn deliver(&mut self, at: usize) -> bool {
        let Envelope { from, to, message } = self.network.remove(at);
        if self.cut.contains(&from)
            || self.cut.contains(&to)
            || !self.replicas.contains_key(&to)
            || !self.is_up(to)
        {
            return false;
        }
        self.step(to, |core, now, out| {
            core.on_message(now, from, message, out);
        });
        true
    }

    /// Saves a snapshot of what a replica has applied through `index`.
    pub(crate) fn snapshot(&mut self, id: ReplicaId, index: LogIndex, retain: u64) {
        let core = self.core(id);
        let Some(term) = core.term_at(index) else {
            return;
        };
        let meta = SnapshotMeta {
            last: LogPosition { term, index },
            configuration: core.configuration_at(index),
        };
        let replica = self.replica(id);
        replica.disk.image = replica.applied[..usize::try_from(index.0).unwrap()].to_vec();
        replica.disk.snapshot = meta.clone();
        self.step(id, |core, now, out| {
            core.on_snapshot_saved(now, meta, retain, out);
        });
    }

    /// Advances the clock to what `id` waits for, and lets it act.
    pub(crate) fn timeout(&mut self, id: ReplicaId) {
        let deadline = self.core(id).deadline();
        assert!(deadline < Time::MAX, "replica {id} waits for nothing");
        self.now = self.now.max(deadline);
        self.step(id, |core, now, out| core.on_tick(now, out));
    }

    /// Persists and delivers everything until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            for id in self.up() {
                if self.is_up(id) {
                    self.persist(id, usize::MAX);
                }
            }
            if self.network.is_empty() {
                return;
            }
            self.deliver(0);
        }
        panic!("the replicas never come to rest");
    }
}

impl Replica {
    fn apply_through(&mut self, through: LogIndex) {
        let core = self.core.as_ref().expect("it ordered this");
        let from = LogIndex(self.applied.len() as u64 + 1);
        self.applied.extend_from_slice(core.entries(from, through));
    }
}
