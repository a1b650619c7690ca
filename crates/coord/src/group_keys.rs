//! Who leads a group, as a key: `/quorate/groups/<name>`, readable and watchable like any key, written by the state machine only.
//!
//! The key is there as long as its group is. Its value is JSON, written by hand with a fixed order of fields, so that all replicas write the
//! same bytes:
//!
//! ```json
//! {"group":"orders/42","incarnation":7,"phase":"active","tenure":3,"token":41,"session":12,"node":"node-a",
//!  "endpoints":["10.0.0.1:6379"],"metadata":{"role":"primary"}}
//! ```
//!
//! without line breaks. `incarnation` is the revision that created the group. While it is vacant the value ends after `phase`, while it polls
//! after `token`: nobody is elected then. Only in the phases `active`, `draining` and `revoking` may the holder lead.

use std::fmt::Write as _;

use crate::event::Phase;
use crate::group::{Group, Tenure};
use crate::kv::{Blob, KeyRange, OWN_PREFIX, Range};
use crate::lifecycle::Context;
use crate::state::State;

/// Where groups' keys live.
pub const GROUP_KEYS_PREFIX: &str = "/quorate/groups/";

pub(crate) fn key_of(name: &str) -> Blob {
    let mut key = String::with_capacity(GROUP_KEYS_PREFIX.len() + name.len());
    key.push_str(GROUP_KEYS_PREFIX);
    key.push_str(name);
    Blob::from(key.into_bytes())
}

fn phase_text(phase: Phase) -> &'static str {
    match phase {
        Phase::Vacant => "vacant",
        Phase::Polling => "polling",
        Phase::Preparing => "preparing",
        Phase::Active => "active",
        Phase::Draining => "draining",
        Phase::Revoking => "revoking",
    }
}

fn push_text(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c < ' ' => {
                write!(json, "\\u{:04x}", u32::from(c)).expect("writing to a string cannot fail");
            }
            c => json.push(c),
        }
    }
    json.push('"');
}

fn push_number(json: &mut String, field: &str, number: u64) {
    write!(json, ",\"{field}\":{number}").expect("writing to a string cannot fail");
}

/// The value of a group's key.
fn value_of(group: &Group) -> Blob {
    let mut json = String::with_capacity(256);
    json.push_str("{\"group\":");
    push_text(&mut json, group.key.name.as_str());
    push_number(&mut json, "incarnation", group.key.created.0);
    json.push_str(",\"phase\":\"");
    json.push_str(phase_text(group.phase));
    json.push('"');
    if let Some(tenure) = &group.tenure {
        push_tenure(&mut json, tenure);
    }
    json.push('}');
    Blob::from(json.into_bytes())
}

fn push_tenure(json: &mut String, tenure: &Tenure) {
    push_number(json, "tenure", tenure.number.0);
    push_number(json, "token", tenure.token.0);
    let (Some(session), Some(node)) = (tenure.holder, &tenure.node) else {
        return;
    };
    push_number(json, "session", session.0);
    json.push_str(",\"node\":");
    push_text(json, node.as_str());
    json.push_str(",\"endpoints\":[");
    for (at, endpoint) in tenure.configuration.endpoints.iter().enumerate() {
        json.push_str(if at == 0 { "" } else { "," });
        push_text(json, endpoint);
    }
    json.push_str("],\"metadata\":{");
    for (at, (name, value)) in tenure.configuration.metadata.iter().enumerate() {
        json.push_str(if at == 0 { "" } else { "," });
        push_text(json, name);
        json.push(':');
        push_text(json, value);
    }
    json.push('}');
}

impl State {
    /// Writes the keys of all groups that changed, at one key-value revision.
    pub(crate) fn write_group_keys(&mut self, cx: &mut Context<'_>) {
        if cx.moved.is_empty() && cx.gone.is_empty() {
            return;
        }
        self.kv.begin_own();
        for name in cx.gone.drain(..) {
            self.kv.delete_own(&key_of(name.as_str()));
        }
        // Most move more than once within an apply: from one tenure's end to the next one's beginning.
        cx.moved.sort_unstable();
        cx.moved.dedup();
        for id in cx.moved.drain(..) {
            if let Some(group) = self.groups.get(&id) {
                self.kv
                    .put_own(key_of(group.key.name.as_str()), value_of(group));
            }
        }
        self.kv.end_own();
    }

    /// Writes all groups' keys anew: after a restore, or where an earlier version stored none.
    pub(crate) fn write_all_group_keys(&mut self) {
        self.kv.begin_own();
        for group in self.groups.values() {
            self.kv
                .put_own(key_of(group.key.name.as_str()), value_of(group));
        }
        self.kv.end_own();
    }

    /// Whether the keys below `/quorate/` are exactly what the groups say.
    pub(crate) fn check_group_keys(&self) -> Result<(), String> {
        for group in self.groups.values() {
            let name = &group.key.name;
            let kv = self.kv.get(&key_of(name.as_str()));
            let is_right = kv.is_some_and(|kv| kv.lease == 0 && kv.value == value_of(group));
            if !is_right {
                return Err(format!("the key of group {name:?} is {kv:?}"));
            }
        }
        let own = Range {
            range: KeyRange {
                key: OWN_PREFIX.into(),
                range_end: b"/quorate0".as_slice().into(),
            },
            count_only: true,
            ..Range::default()
        };
        let count = self
            .kv
            .range(&own)
            .map_err(|error| error.to_string())?
            .count;
        if count == self.groups.len() as u64 {
            Ok(())
        } else {
            let groups = self.groups.len();
            Err(format!("{count} own keys of {groups} groups"))
        }
    }
}
