//! `quorate lock NAME [-- COMMAND]`: COMMAND runs only while the lock is held.
//!
//! The lock is a key bound to a session of this process, and is the same lock that etcd's own clients take by that name. COMMAND is
//! stopped in time before the session's lease ends, by a process of its own, as `contend` does (`guard`).

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use quorate_client::kv::{KeyRange, KvFault, KvWatchEvent, Read, WatchOptions, revision_of};
use quorate_client::{ErrorKind, Kv, Lock, Session, SessionEvent, SessionEvents, SessionOptions};
use serde::Serialize;

use super::kv::AsUser;
use crate::args::duration;
use crate::clock;
use crate::commands::guard::{self, MarginArgs, Margins};
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output;
use crate::process;
use crate::signals::StopSignals;

pub(crate) const EXAMPLES: &str = "\
COMMAND finds QUORATE_LOCK_NAME, QUORATE_LOCK_KEY and QUORATE_FENCING_TOKEN in its environment; its standard input is empty. The token
rises with each holder: have what COMMAND writes to refuse smaller ones. When COMMAND ends, the lock is let go, and COMMAND's exit code
becomes that of this command. When the lock is lost, COMMAND is stopped before another can have it, and the exit code is 7.

Examples:
  quorate lock backup -- ./backup.sh             waits for the lock, then runs ./backup.sh
  quorate lock backup --wait 0s -- ./backup.sh   not if another holds it: exit code 4
  quorate lock backup                            holds it until it is stopped (Ctrl-C)";

/// Holds a lock, and runs COMMAND while it is held.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LockArgs {
    /// Which lock.
    name: String,
    /// What to run; without it the lock is held until this command is stopped.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// Give up after waiting so long, with exit code 4; `0s` takes only a lock that is free.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    /// How long the lock outlives this process where nobody lets it go.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5s")]
    ttl: Duration,
    #[command(flatten)]
    margins: MarginArgs,
    #[command(flatten)]
    as_user: AsUser,
}

#[derive(Serialize)]
struct Held<'a> {
    lock: &'a str,
    key: String,
    fencing_token: u64,
    session: u64,
}

impl LockArgs {
    pub(crate) async fn run(&self, context: &Context) -> anyhow::Result<u8> {
        let margins = self.margins.of(self.ttl)?;
        let kv = self.as_user.kv(context)?;
        let options = SessionOptions {
            ttl: self.ttl,
            ..SessionOptions::default()
        };
        let (session, events) = kv.client().open_session(options).await?;
        let outcome = self
            .with_session(context, &kv, &session, events, margins)
            .await;
        // Lets the lock, or the place in line, go at once.
        if let Err(error) = session.close().await {
            eprintln!("note: {:#}", anyhow::Error::new(error));
        }
        outcome
    }

    async fn with_session(
        &self,
        context: &Context,
        kv: &Kv,
        session: &Session,
        mut events: SessionEvents,
        margins: Margins,
    ) -> anyhow::Result<u8> {
        let mut stop = StopSignals::listen()?;
        let lock = tokio::select! {
            lock = self.take(kv, session) => lock?,
            lost = session_end(&mut events) => return Err(lost.into()),
            code = stop.next() => return Ok(code),
        };
        let held = Held {
            lock: &self.name,
            key: lock.key().escape_ascii().to_string(),
            fencing_token: lock.fencing_token().0,
            session: session.key().id.0,
        };
        let lost = async {
            tokio::select! {
                lost = session_end(&mut events) => lost,
                lost = key_end(kv, &lock) => lost,
            }
        };
        if !self.command.is_empty() {
            let code = self
                .command_under(&lock, &held.key, lost, margins, &mut stop)
                .await?;
            if let Err(error) = lock.unlock().await {
                eprintln!("note: {:#}", anyhow::Error::new(error));
            }
            return Ok(code);
        }
        match context.format() {
            output::Format::Json => output::json_line(&held)?,
            output::Format::Table => output::line(format!(
                "holds `{}` with token {}; key {}",
                self.name, held.fencing_token, held.key
            ))?,
        }
        tokio::select! {
            lost = lost => Err(lost.into()),
            code = stop.next() => Ok(code),
        }
    }

    async fn take(&self, kv: &Kv, session: &Session) -> anyhow::Result<Lock> {
        let taken_by_another = |error: &quorate_client::Error| *error.kind() == ErrorKind::Conflict;
        let result = match self.wait {
            None => kv.lock(session, &self.name).await,
            Some(Duration::ZERO) => kv.try_lock(session, &self.name).await,
            Some(wait) => match tokio::time::timeout(wait, kv.lock(session, &self.name)).await {
                Ok(result) => result,
                Err(_) => {
                    let message = format!("lock `{}` was not free within {wait:?}", self.name);
                    return Err(Failure::new(Code::Conflict, message).into());
                }
            },
        };
        match result {
            Err(error) if taken_by_another(&error) => {
                let hint = "without --wait it is waited for";
                Err(Failure::new(Code::Conflict, error.to_string())
                    .with_hint(hint)
                    .into())
            }
            decided => Ok(decided?),
        }
    }

    async fn command_under(
        &self,
        lock: &Lock,
        key: &str,
        lost_by: impl Future<Output = Failure>,
        margins: Margins,
        stop: &mut StopSignals,
    ) -> anyhow::Result<u8> {
        let Some(until) = lock.valid_until() else {
            return Err(lost("it was lost before COMMAND was started").into());
        };
        let (mut term_at, kill_at) = margins.deadlines(until);
        let environment = [
            ("QUORATE_LOCK_NAME", self.name.clone()),
            ("QUORATE_LOCK_KEY", key.to_owned()),
            ("QUORATE_FENCING_TOKEN", lock.fencing_token().to_string()),
        ];
        let mut child = guard::start(&self.command, term_at, kill_at, environment)?;
        let mut input = child.stdin.take().context("tell the guard of COMMAND")?;
        // Deadlines move on with each confirmation; the guard hears of it well before it would act.
        let period = (self.ttl / 40).clamp(Duration::from_millis(5), Duration::from_millis(250));
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut lost_by = std::pin::pin!(lost_by);
        let mut why_lost: Option<Failure> = None;
        let mut stopped_by: Option<u8> = None;
        loop {
            tokio::select! {
                status = child.wait() => {
                    let code = process::shell_code(status.context("wait for the guard of COMMAND")?);
                    if let Some(failure) = why_lost {
                        return Err(failure.into());
                    }
                    if stopped_by.is_none() && clock::now() >= term_at {
                        return Err(lost("its session was not confirmed in time").into());
                    }
                    return Ok(stopped_by.unwrap_or(code));
                }
                failure = &mut lost_by, if why_lost.is_none() => {
                    why_lost = Some(failure);
                    guard::tell(&mut input, "stop\n");
                }
                code = stop.next(), if stopped_by.is_none() => {
                    stopped_by = Some(code);
                    guard::tell(&mut input, "stop\n");
                }
                _ = tick.tick() => {
                    if why_lost.is_none() && let Some(until) = lock.valid_until() {
                        let (term, kill) = margins.deadlines(until);
                        if term > term_at {
                            term_at = term;
                            guard::tell(&mut input, &guard::lease_line(term, kill));
                        }
                    }
                }
            }
        }
    }
}

fn lost(why: &str) -> Failure {
    Failure::new(Code::Lost, format!("the lock is lost: {why}"))
}

/// Waits until the session is over.
async fn session_end(events: &mut SessionEvents) -> Failure {
    loop {
        match events.next().await {
            Some(SessionEvent::SessionLost { cause }) => {
                return lost(&format!("its session is over ({cause:?})"));
            }
            None => return lost("its session is over"),
            Some(_) => {}
        }
    }
}

/// Waits until somebody has deleted the key while the session lives: then another may have the lock at once.
async fn key_end(kv: &Kv, lock: &Lock) -> Failure {
    let mut from = lock.fencing_token().0 + 1;
    loop {
        let mut options = WatchOptions::of(KeyRange::key(lock.key().clone()));
        options.no_puts = true;
        options.start_revision = from;
        let ended = match kv.watch(options).await {
            Ok(mut watch) => loop {
                match watch.next().await {
                    Some(Ok(KvWatchEvent::Changes { .. })) | None => break None,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Some(error),
                }
            },
            Err(error) => Some(error),
        };
        let passing = match &ended {
            Some(error) if error.kv_fault() == Some(KvFault::Compacted) => true,
            Some(error) => *error.kind() == ErrorKind::Retry,
            None => return lost("its key was deleted"),
        };
        if let Some(error) = ended.filter(|_| !passing) {
            return lost(&format!("its key cannot be watched: {error}"));
        }
        // History was compacted, or no server could watch: is the key still there?
        match kv.range(Read::of(KeyRange::key(lock.key().clone()))).await {
            Ok(answer) => {
                let token = lock.fencing_token().0;
                let created = answer
                    .kvs
                    .first()
                    .map(|pair| pair.create_revision.unsigned_abs());
                if created != Some(token) {
                    return lost("its key was deleted");
                }
                from = revision_of(answer.header.as_ref()) + 1;
            }
            // The session tells whether the lock may still be believed in.
            Err(error) => tracing::debug!(%error, "the lock's key could not be read"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
