//! One line for each order and message.

use quorate_consensus::{AppendOutcome, Entry, LogPosition, Message, Output, Payload, Write};
use quorate_types::ReplicaId;

pub(crate) fn position(position: LogPosition) -> String {
    format!("{}@{:?}", position.index, position.term)
}

pub(crate) fn output<C: Payload>(output: &Output<C>) -> String {
    match output {
        Output::Persist(write) => format!("write {}", self::write(write)),
        Output::Send { to, message } => format!("to {to}: {}", self::message(message)),
        Output::SendAfterPersist { write, to, message } => {
            format!("after w{} to {to}: {}", write.0, self::message(message))
        }
        Output::Confirmed { round } => format!("CONFIRMED round {}", round.0),
        Output::Committed { through } => format!("COMMITTED through {through}"),
        Output::RoleChanged { role, term, leader } => {
            format!("IS {role:?} of {term:?}, leader {}", replica(*leader))
        }
        Output::SendSnapshotChunk {
            to, meta, offset, ..
        } => {
            format!(
                "to {to}: snapshot {} from byte {offset}",
                position(meta.last)
            )
        }
        Output::WriteSnapshotChunk {
            meta,
            offset,
            total,
            data,
            ..
        } => {
            format!(
                "write snapshot {}: bytes {offset}+{} of {total}",
                position(meta.last),
                data.len()
            )
        }
        Output::Fatal(error) => format!("FATAL {error}"),
    }
}

pub(crate) fn message<C>(message: &Message<C>) -> String {
    match message {
        Message::PreVoteRequest { term, last } => {
            format!("pre-vote for {term:?}? last {}", position(*last))
        }
        Message::PreVoteResponse {
            term,
            granted,
            last,
        } => {
            format!(
                "pre-vote {} in {term:?}, last {}",
                yes(*granted),
                position(*last)
            )
        }
        Message::VoteRequest { term, last } => {
            format!("vote for {term:?}? last {}", position(*last))
        }
        Message::VoteResponse { term, granted } => format!("vote {} in {term:?}", yes(*granted)),
        Message::Append {
            term,
            previous,
            entries,
            commit,
            round,
        } => {
            let (previous, entries) = (position(*previous), self::entries(entries));
            format!(
                "append {term:?} after {previous}: {entries}, commit {commit}, round {}",
                round.0
            )
        }
        Message::AppendResponse {
            term,
            outcome: AppendOutcome::Matched { through },
            round,
        } => {
            format!("matched {term:?} through {through}, round {}", round.0)
        }
        Message::AppendResponse {
            term,
            outcome: AppendOutcome::Conflict { refused, hint },
            round,
        } => {
            format!(
                "conflict {term:?} at {refused}, hint {}, round {}",
                position(*hint),
                round.0
            )
        }
        Message::Heartbeat {
            term,
            commit,
            round,
        } => {
            format!("heartbeat {term:?}, commit {commit}, round {}", round.0)
        }
        Message::HeartbeatResponse { term, round, last } => {
            format!("heartbeat answer {term:?}, round {}, last {last}", round.0)
        }
        Message::TimeoutNow { term } => format!("stand now, says the leader of {term:?}"),
        Message::SteppedDown { term } => format!("stepped down from {term:?}"),
        Message::SnapshotChunk {
            term,
            meta,
            offset,
            total,
            data,
        } => {
            format!(
                "snapshot {term:?} {}: bytes {offset}+{} of {total}",
                position(meta.last),
                data.len()
            )
        }
        Message::SnapshotChunkResponse { term, last, next } => {
            format!("snapshot {term:?} {}: go on from {next}", position(*last))
        }
        Message::SeenOfYou {
            term,
            seen_term,
            seen_vote,
            seen_match,
        } => {
            let (vote, matched) = (replica(*seen_vote), position(*seen_match));
            format!("seen of you, says {term:?}: {seen_term:?}, vote {vote}, matched {matched}")
        }
    }
}

fn write<C>(write: &Write<C>) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = write.hard_state {
        parts.push(format!(
            "{:?} vote {}",
            hard_state.term,
            replica(hard_state.voted_for)
        ));
    }
    if let Some(from) = write.truncate_from {
        parts.push(format!("truncate from {from}"));
    }
    if let Some(through) = write.purge_through {
        parts.push(format!("purge through {}", position(through)));
    }
    if !write.entries.is_empty() {
        parts.push(entries(&write.entries));
    }
    format!("w{}: {}", write.seq.0, parts.join(", "))
}

fn entries<C>(entries: &[Entry<C>]) -> String {
    let list: Vec<String> = entries
        .iter()
        .map(|entry| position(entry.position()))
        .collect();
    format!("[{}]", list.join(" "))
}

fn replica(id: Option<ReplicaId>) -> String {
    id.map_or("none".to_string(), |id| id.to_string())
}

fn yes(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}
