//! `quorate kv watch`.

use clap::ValueEnum;
use quorate_client::Kv;
use quorate_client::kv::{KvWatchEvent, WatchOptions, pb};
use serde::Serialize;

use super::encoding::{Encoding, Field};
use super::{Pair, RangeArgs};
use crate::context::Context;
use crate::output::{self, Format};
use crate::signals::StopSignals;

pub(super) const EXAMPLES: &str = "\
Examples:
  quorate kv watch config/ --prefix              until it is stopped
  quorate kv watch config/a --rev 17 --prev      from revision 17 on, with what was there before
  quorate kv watch jobs/1 --only deletes --changes 1    wait until it goes

From which revision on changes are told is said first, in JSON as {\"watching_from\": ...}.";

/// Changes of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Leave deletions out.
    Puts,
    /// Leave puts out.
    Deletes,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// From this revision on; otherwise from now on.
    #[arg(long, value_name = "REVISION", default_value_t = 0)]
    rev: u64,
    /// Print what was there before, too.
    #[arg(long)]
    prev: bool,
    /// Only changes of this kind.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// End after so many changes.
    #[arg(long, value_name = "COUNT")]
    changes: Option<u64>,
}

#[derive(Serialize)]
struct Change {
    change: &'static str,
    #[serde(flatten)]
    key: Field,
    #[serde(flatten)]
    value: Option<Field>,
    revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Pair>,
}

#[derive(Serialize)]
struct Begun {
    watching_from: u64,
}

impl WatchArgs {
    /// Ends only when stopped, or after the changes asked for.
    pub(super) async fn run(
        &self,
        context: &Context,
        kv: &Kv,
        encoding: Encoding,
    ) -> anyhow::Result<u8> {
        let options = WatchOptions {
            start_revision: self.rev,
            prev_kv: self.prev,
            no_puts: self.only == Some(Only::Deletes),
            no_deletes: self.only == Some(Only::Puts),
            ..WatchOptions::of(self.range.range(encoding)?)
        };
        let json = context.format() == Format::Json;
        let mut stop = StopSignals::listen()?;
        let mut left = self.changes.unwrap_or(u64::MAX);
        let mut watch = kv.watch(options).await?;
        let watching_from = watch.start_revision();
        if json {
            output::json_line(&Begun { watching_from })?;
        } else {
            output::line(format!("-- changes from revision {watching_from} on"))?;
        }
        while left > 0 {
            let event = tokio::select! {
                event = watch.next() => event,
                code = stop.next() => return Ok(code),
            };
            let Some(event) = event else { return Ok(0) };
            let KvWatchEvent::Changes { events, .. } = event? else {
                continue;
            };
            for event in events
                .iter()
                .take(usize::try_from(left).unwrap_or(usize::MAX))
            {
                let change = Change::of(event, encoding);
                if json {
                    output::json_line(&change)?;
                } else {
                    output::line(change.sentence())?;
                }
                left -= 1;
            }
        }
        Ok(0)
    }
}

impl Change {
    fn of(event: &pb::Event, encoding: Encoding) -> Self {
        let pair = event.kv.clone().unwrap_or_default();
        let is_put = event.r#type() == pb::EventType::Put;
        Self {
            change: if is_put { "put" } else { "delete" },
            key: Field::new("key", &pair.key, encoding),
            value: is_put.then(|| Field::new("value", &pair.value, encoding)),
            revision: pair.mod_revision,
            version: is_put.then_some(pair.version),
            create_revision: is_put.then_some(pair.create_revision),
            lease: (pair.lease != 0).then(|| format!("{:x}", pair.lease)),
            previous: event.prev_kv.as_ref().map(|pair| Pair::of(pair, encoding)),
        }
    }

    fn sentence(&self) -> String {
        let plain = |text: &str| -> String {
            let shown = text.chars();
            shown
                .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                .collect()
        };
        let key = plain(&self.key.text);
        let mut text = match &self.value {
            Some(value) => format!("{} put {key} = {}", self.revision, plain(&value.text)),
            None => format!("{} delete {key}", self.revision),
        };
        if let Some(lease) = &self.lease {
            text.push_str(&format!(" (lease {lease})"));
        }
        if let Some(value) = self.previous.as_ref().and_then(|pair| pair.value.as_ref()) {
            text.push_str(&format!(" (was {})", plain(&value.text)));
        }
        text
    }
}
