//! The course of an import: copy, follow, cut over.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::kv::pb::{self, Bytes};
use quorate_client::kv::{KeyRange, KvFault, KvWatchEvent, WatchOptions};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::copy::{self, Compared, Copied, batches, count};
use super::leases::Leases;
use super::sink::{Sink, SinkError, delete, may_pass, put};
use super::{Progress, Side, conflict, is_reserved};
use crate::commands::kv::encoding::{from_hex, to_hex};
use crate::output::{self, Format};
use crate::signals::StopSignals;

/// How often progress is told.
const SHOW_EVERY: Duration = Duration::from_secs(2);
/// How often the source is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One run of the command.
pub(super) struct Run {
    format: Format,
    source: Side,
    destination: Side,
    sink: Sink,
    leases: Leases,
    progress: Progress,
    shown: Option<Instant>,
    /// When the destination was last changed, and how often it was.
    changed: Instant,
    changes: u64,
}

/// What a stretch of following ended with.
enum Followed {
    /// Both are equal.
    CutOver(Box<CutOver>),
    /// Changes or keys were lost: copy again.
    Again,
    /// A signal; the exit code.
    Stopped(u8),
}

/// What is said at the end.
#[derive(Debug, Serialize)]
struct CutOver {
    source_cluster: String,
    destination_cluster: String,
    source_revision: u64,
    destination_revision: u64,
    keys: u64,
    leases: u64,
    hash: String,
    split_revisions: u64,
    reserved: u64,
}

/// How cutting over stands.
struct Cutting {
    wanted_since: Option<Instant>,
    quiet: Duration,
    patience: Duration,
    /// Compared at this revision of the source, when the destination had been changed so often.
    compared: Option<(u64, u64, Compared)>,
}

impl Run {
    pub(super) fn new(format: Format, source: Side, destination: Side, sink: Sink) -> Self {
        let leases = Leases::new(source.kv.clone(), destination.kv.clone());
        Self {
            format,
            source,
            destination,
            sink,
            leases,
            progress: Progress::default(),
            shown: None,
            changed: Instant::now(),
            changes: 0,
        }
    }

    pub(super) async fn run(
        mut self,
        cut_over: bool,
        quiet: Duration,
        patience: Duration,
    ) -> anyhow::Result<u8> {
        let mut stop = StopSignals::listen()?;
        let keeper = tokio::spawn(self.leases.clone().run());
        let mut cutting = Cutting {
            wanted_since: cut_over.then(Instant::now),
            quiet,
            patience,
            compared: None,
        };
        // A place without a cursor was reached: it is gone on from, unless leases went meanwhile and took keys along.
        let mut copied = self.sink.place().revision > 0 && self.sink.place().cursor.is_none();
        self.progress.source_revision = self.sink.place().revision;
        self.progress.leases = self.leases.copy().await.context("copy the leases")?;
        self.leases.keep_all().await;
        let was_granted = self.leases.take_granted();
        copied &= !self.leases.take_lost() && !was_granted;
        let mut is_first = true;
        let code = loop {
            if !copied || !is_first {
                let copying = tokio::select! {
                    copying = self.copy(is_first) => copying?,
                    code = stop.next() => break code,
                };
                is_first = false;
                if matches!(copying, Copied::Again) {
                    self.leases.forget().await;
                    self.leases.copy().await.context("copy the leases")?;
                    continue;
                }
                cutting.wanted_since = cutting.wanted_since.map(|_| Instant::now());
            }
            is_first = false;
            match self.follow(&mut cutting, &mut stop).await? {
                Followed::Again => {
                    self.leases.forget().await;
                    self.leases.copy().await.context("copy the leases")?;
                }
                Followed::Stopped(code) => break code,
                Followed::CutOver(report) => {
                    self.say(&report)?;
                    break 0;
                }
            }
        };
        keeper.abort();
        if code != 0 && self.format == Format::Table {
            eprintln!("note: stopped; started again it goes on from here");
        }
        Ok(code)
    }

    async fn copy(&mut self, may_resume: bool) -> anyhow::Result<Copied> {
        let place = self.sink.place();
        let cursor = place.cursor.as_deref().and_then(from_hex);
        let from = match cursor {
            Some(cursor) if may_resume => (place.revision, cursor),
            _ => (self.source.head().await?, Vec::new()),
        };
        self.progress.phase = "copying";
        self.progress.keys = 0;
        self.progress.reserved = 0;
        self.progress.source_revision = from.0;
        let (format, shown) = (self.format, &mut self.shown);
        let copied = copy::copy(
            &self.source,
            &self.destination,
            from,
            &mut self.sink,
            &self.leases,
            &mut self.progress,
            |progress| {
                if shown.is_none_or(|shown| shown.elapsed() >= SHOW_EVERY) {
                    *shown = Some(Instant::now());
                    progress.show(format)?;
                }
                Ok(())
            },
        )
        .await?;
        self.changed = Instant::now();
        self.changes += 1;
        Ok(copied)
    }

    async fn follow(
        &mut self,
        cutting: &mut Cutting,
        stop: &mut StopSignals,
    ) -> anyhow::Result<Followed> {
        self.progress.phase = "following";
        let mut options = WatchOptions::of(KeyRange::all());
        options.start_revision = self.progress.source_revision + 1;
        let mut watch = match self.source.kv.watch(options).await {
            Ok(watch) => watch,
            Err(error) if error.kv_fault() == Some(KvFault::Compacted) => {
                return Ok(Followed::Again);
            }
            Err(error) => return Err(error.into()),
        };
        let mut cut_over = signal(SignalKind::user_defined1()).context("listen for SIGUSR1")?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(event)) => {
                        if !self.take(event).await? {
                            return Ok(Followed::Again);
                        }
                    }
                    Some(Err(error)) if error.kv_fault() == Some(KvFault::Compacted) => {
                        return Ok(Followed::Again);
                    }
                    Some(Err(error)) => return Err(error.into()),
                    None => anyhow::bail!("the watch of the source ended"),
                },
                _ = cut_over.recv() => {
                    cutting.wanted_since.get_or_insert_with(Instant::now);
                    if self.format == Format::Table {
                        eprintln!("cutting over: waiting until the source is quiet");
                    }
                }
                code = stop.next() => return Ok(Followed::Stopped(code)),
                _ = look.tick() => {
                    if self.leases.take_lost() {
                        return Ok(Followed::Again);
                    }
                    if let Some(report) = self.look(cutting).await? {
                        return Ok(Followed::CutOver(Box::new(report)));
                    }
                }
            }
        }
    }

    /// Applies changes; false where a lease that they need has gone.
    async fn take(&mut self, event: KvWatchEvent) -> anyhow::Result<bool> {
        let (next_revision, events) = match event {
            KvWatchEvent::Changes {
                next_revision,
                events,
            } => (next_revision, events),
            KvWatchEvent::Progress { next_revision } => {
                self.reached(next_revision - 1);
                return Ok(true);
            }
            _ => return Ok(true),
        };
        for (revision, operations) in self.merged(events).await? {
            let batches = batches(operations);
            if batches.len() > 1 {
                self.progress.split_revisions += 1;
            }
            let last = batches.len().saturating_sub(1);
            for (at, batch) in batches.into_iter().enumerate() {
                let (puts, deletes) = count(batch.iter().map(|(_, op)| op));
                let operations = batch.into_iter().map(|(_, op)| op).collect();
                // Interrupted between two parts of a revision, it is applied again as a whole: that does no harm.
                let place = if at == last {
                    revision
                } else {
                    self.sink.place().revision
                };
                match self.sink.apply(operations, place, None).await {
                    Ok(()) => {}
                    Err(SinkError::LeaseGone) => return Ok(false),
                    Err(SinkError::Failed(error)) => return Err(error),
                }
                self.progress.puts += puts;
                self.progress.deletes += deletes;
                self.changes += 1;
                self.changed = Instant::now();
            }
            self.reached(revision);
        }
        self.reached(next_revision - 1);
        Ok(true)
    }

    fn reached(&mut self, revision: u64) {
        self.progress.source_revision = self.progress.source_revision.max(revision);
    }

    /// The changes, whole revisions together as long as they fit one transaction; of several changes of a key only the last.
    async fn merged(
        &mut self,
        events: Vec<pb::Event>,
    ) -> anyhow::Result<Vec<(u64, Vec<(Bytes, pb::RequestOp)>)>> {
        let mut groups: Vec<(u64, BTreeMap<Bytes, pb::RequestOp>)> = Vec::new();
        let mut revision: Vec<(Bytes, pb::RequestOp)> = Vec::new();
        let mut current = 0;
        let mut events = events.into_iter().peekable();
        while let Some(event) = events.next() {
            let is_put = event.r#type() == pb::EventType::Put;
            let Some(pair) = event.kv else { continue };
            current = pair.mod_revision.unsigned_abs();
            if is_reserved(&pair.key) {
                self.progress.reserved += 1;
            } else {
                let op = if is_put {
                    let lease = self.leases.ensure(pair.lease).await?;
                    put(pair.key.clone(), pair.value, lease)
                } else {
                    delete(pair.key.clone())
                };
                revision.push((pair.key, op));
            }
            let next = events.peek().and_then(|event| event.kv.as_ref());
            if next.is_some_and(|next| next.mod_revision.unsigned_abs() == current) {
                continue;
            }
            // The revision is whole.
            let fits = groups.last().is_some_and(|(_, group)| {
                let together = group.clone().into_iter().chain(revision.iter().cloned());
                batches(together.collect()).len() <= 1
            });
            if !fits {
                groups.push((current, BTreeMap::new()));
            }
            let (through, group) = groups.last_mut().expect("there is one");
            *through = current;
            group.extend(revision.drain(..));
        }
        assert!(
            revision.is_empty(),
            "revision {current} of the source was left half read"
        );
        let groups = groups.into_iter();
        Ok(groups
            .map(|(through, group)| (through, group.into_iter().collect()))
            .collect())
    }

    /// Tells how far it is; cuts over where that is wanted and possible.
    async fn look(&mut self, cutting: &mut Cutting) -> anyhow::Result<Option<CutOver>> {
        let head = match self.source.head().await {
            Ok(head) => head,
            Err(error) if may_pass(&error) => {
                tracing::debug!(%error, "the source does not answer");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        self.progress.lag = head.saturating_sub(self.progress.source_revision);
        self.progress.leases = self.leases.count().await;
        if self.shown.is_none_or(|shown| shown.elapsed() >= SHOW_EVERY) {
            self.shown = Some(Instant::now());
            self.progress.show(self.format)?;
        }
        let Some(wanted_since) = cutting.wanted_since else {
            return Ok(None);
        };
        let is_equal = self.progress.lag == 0;
        if let Some((revision, changes, compared)) = &cutting.compared
            && is_equal
            && *changes == self.changes
        {
            let (revision, compared) = (*revision, compared.clone());
            return self.finish(revision, &compared).await.map(Some);
        }
        cutting.compared = None;
        if is_equal && self.changed.elapsed() >= cutting.quiet {
            let changes = self.changes;
            let compared = copy::compare(&self.source, &self.destination, head, &self.sink).await?;
            if compared.differences > 0 {
                let message = format!(
                    "{} keys differ between the source at revision {head} and the destination, such as {}",
                    compared.differences,
                    compared.examples.join(", ")
                );
                let hint = "nothing else may write to the destination; start this again to copy what differs";
                return Err(conflict(message, hint));
            }
            // Finished with the next look, if nothing has changed while this was compared.
            cutting.compared = Some((head, changes, compared));
        } else if wanted_since.elapsed() > cutting.patience {
            let message = format!(
                "the source still changes: now at revision {head}, {} ahead",
                self.progress.lag
            );
            let hint = "stop all that writes to it, or fence it off, before cutting over";
            return Err(conflict(message, hint));
        }
        Ok(None)
    }

    async fn finish(&mut self, revision: u64, compared: &Compared) -> anyhow::Result<CutOver> {
        // Whoever holds a lease has its whole TTL to come over.
        self.leases.keep_all().await;
        match self.sink.close().await {
            Ok(()) => {}
            Err(SinkError::Failed(error)) => return Err(error),
            Err(SinkError::LeaseGone) => anyhow::bail!("a deletion was refused for a lease"),
        }
        Ok(CutOver {
            source_cluster: format!("{:x}", self.source.cluster),
            destination_cluster: format!("{:x}", self.destination.cluster),
            source_revision: revision,
            destination_revision: self.destination.head().await?,
            keys: compared.keys,
            leases: self.leases.count().await,
            hash: to_hex(&compared.hash.to_be_bytes()),
            split_revisions: self.progress.split_revisions,
            reserved: self.progress.reserved,
        })
    }

    fn say(&self, report: &CutOver) -> anyhow::Result<()> {
        if self.format == Format::Json {
            return output::json_line(report);
        }
        output::line(format!(
            "cut over: {} keys and {} leases are equal (hash {}); source at revision {}, destination at revision {}",
            report.keys,
            report.leases,
            report.hash,
            report.source_revision,
            report.destination_revision
        ))?;
        if report.reserved > 0 {
            let count = report.reserved;
            output::line(format!("left out: {count} keys or changes below /quorate/"))?;
        }
        output::line("Point the clients at the destination now, and never at the source again.")
    }
}
