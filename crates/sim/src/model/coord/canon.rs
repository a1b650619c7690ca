//! A state's fingerprint: its stored image with the numbers made canonical, so that what only counts up ends in finitely many states.
//!
//! It walks what is stored, field by field, and hashes **as it is** whatever no rule below names. So a new field can make the state
//! space larger, never the check unsound. The rules, and why two states that they identify have the same future:
//!
//! - *Ids of sessions and groups* become their rank among those that live. Apply compares ids and walks them in order, and ranks
//!   keep both; a new id is the greatest, and so is its rank. A cursor's id that is gone lies between two ranks.
//! - *Times* become what is left until them, and nothing once they have passed: every rule asks "is it over, and when". `activated_at` is the
//!   exception, of which apply asks whether the minimum tenure has passed since: it becomes the age, up to that.
//! - *Revisions, tokens, tenure numbers, directive numbers* are dropped. Apply makes each the one after the last, and compares them for
//!   equality with what a command names. The model's commands name current ones; that any other is refused without effect is an
//!   invariant of its own, looked at in every state. Tokens never exceed the revision, which is looked at too.
//! - *Failures in a row* stop at the number from which the doubled cool-down has reached its bound.
//! - *The record* (`history`, `granted_at`, `since`, `opened_at`, `won_by`, the applied index) is dropped: no rule reads it.

use std::fmt::Display;
use std::hash::Hasher as _;

use quorate_coord::State;
use serde::ser::{self, Serialize};

use crate::model::explorer::Hash128;

/// What the canonical form depends on besides the state.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The longest minimum tenure of the model's specs.
    pub minimum_tenure_ms: u64,
    /// The longest window in which reports of faulty holders count.
    pub depose_window_ms: u64,
    /// From how many failures in a row on the cool-down no longer grows.
    pub failures_max: u64,
}

/// What becomes of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    AsIs,
    Drop,
    Session,
    Group,
    /// A session and a group.
    Cursor,
    /// What is left until then.
    Left,
    /// How long ago, up to a bound.
    Ago(u64),
    AtMost(u64),
}

fn rule(of: &str, field: &str, scale: &Scale) -> Rule {
    match (of, field) {
        (
            "Image",
            "applied_index" | "applied_term" | "revision" | "cluster_time" | "session_last"
            | "group_last" | "kv",
        )
        | ("SessionKey" | "GroupKey", "created")
        | ("TenureKey" | "Predecessor", "number")
        | ("Session", "directive_seq" | "opened_at")
        | ("Group", "spec_revision" | "number_last" | "token_last" | "history")
        | ("Contender" | "Pending", "since")
        | ("Tenure", "number" | "token" | "won_by" | "granted_at") => Rule::Drop,
        ("Image", "sessions")
        | ("Group", "contenders")
        | ("Tenure", "holder" | "asked" | "reports")
        | ("Node" | "Successor" | "FaultReport", "session")
        | ("SessionKey", "id") => Rule::Session,
        ("Image", "groups") | ("Group", "id") | ("Sweep", "cursor") => Rule::Group,
        ("Balance", "cursor") => Rule::Cursor,
        ("Group", "calm_until" | "wake")
        | ("Tenure", "deadline")
        | ("Pending", "not_before")
        | ("Cooldown", "until")
        | ("Balance", "young" | "due") => Rule::Left,
        ("Tenure", "activated_at") => Rule::Ago(scale.minimum_tenure_ms),
        ("FaultReport", "at") => Rule::Ago(scale.depose_window_ms),
        ("Cooldown", "failures") => Rule::AtMost(scale.failures_max),
        _ => Rule::AsIs,
    }
}

/// Feeds a state's canonical form to a hash.
pub fn hash_state(state: &State, scale: &Scale, hash: &mut Hash128) {
    let mut canon = Canon {
        hash,
        scale,
        sessions: state.sessions().map(|session| session.key.id.0).collect(),
        groups: Vec::new(),
        now: state.cluster_time().0,
        rule: Rule::AsIs,
        is_in_groups: false,
    };
    state
        .serialize(&mut canon)
        .expect("hashing fails on nothing that the image holds");
}

/// A session's rank, as the fingerprint has it.
#[must_use]
pub fn session_rank(state: &State, id: u64) -> u64 {
    let below = state.sessions().take_while(|s| s.key.id.0 < id).count() as u64;
    let is_there = state.sessions().any(|s| s.key.id.0 == id);
    2 * below + u64::from(is_there)
}

fn rank(ids: &[u64], id: u64) -> u64 {
    match ids.binary_search(&id) {
        Ok(at) => 2 * at as u64 + 1,
        Err(at) => 2 * at as u64,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct HashError(String);

impl ser::Error for HashError {
    fn custom<T: Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Hashed = Result<(), HashError>;

struct Canon<'a> {
    hash: &'a mut Hash128,
    scale: &'a Scale,
    sessions: Vec<u64>,
    /// Filled while the image's groups are walked, which is before anything else names one.
    groups: Vec<u64>,
    now: u64,
    /// What applies to numbers here.
    rule: Rule,
    /// Whether the image's groups are being walked.
    is_in_groups: bool,
}

impl Canon<'_> {
    fn number(&mut self, number: u64) -> Hashed {
        let canonical = match self.rule {
            Rule::AsIs => number,
            Rule::Drop => return Ok(()),
            Rule::Session => rank(&self.sessions, number),
            Rule::Group => {
                // Keys come in order, so each new one is the greatest so far.
                if self.groups.last().is_none_or(|last| *last < number) && self.is_in_groups {
                    self.groups.push(number);
                }
                rank(&self.groups, number)
            }
            Rule::Left => number.saturating_sub(self.now),
            Rule::Ago(bound) => self.now.saturating_sub(number).min(bound),
            Rule::AtMost(bound) => number.min(bound),
            Rule::Cursor => unreachable!("a cursor is a pair"),
        };
        self.hash.write_u64(canonical);
        Ok(())
    }

    fn under<T: Serialize + ?Sized>(&mut self, rule: Rule, value: &T) -> Hashed {
        let before = std::mem::replace(&mut self.rule, rule);
        let hashed = value.serialize(&mut *self);
        self.rule = before;
        hashed
    }

    fn tag(&mut self, tag: u64) {
        self.hash.write_u64(tag);
    }
}

macro_rules! numbers {
    ($($name:ident: $int:ty),*) => {
        $(fn $name(self, v: $int) -> Hashed { self.number(v as u64) })*
    };
}

/// Parts of a compound value.
struct Parts<'b, 'a> {
    canon: &'b mut Canon<'a>,
    /// The struct's name; empty for anything else.
    of: &'static str,
    at: u64,
}

impl<'b, 'a> ser::Serializer for &'b mut Canon<'a> {
    type Ok = ();
    type Error = HashError;
    type SerializeSeq = Parts<'b, 'a>;
    type SerializeTuple = Parts<'b, 'a>;
    type SerializeTupleStruct = Parts<'b, 'a>;
    type SerializeTupleVariant = Parts<'b, 'a>;
    type SerializeMap = Parts<'b, 'a>;
    type SerializeStruct = Parts<'b, 'a>;
    type SerializeStructVariant = Parts<'b, 'a>;

    numbers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_f32(self, _: f32) -> Hashed {
        unreachable!("the state holds no floating point");
    }
    fn serialize_f64(self, _: f64) -> Hashed {
        unreachable!("the state holds no floating point");
    }
    fn serialize_bool(self, v: bool) -> Hashed {
        self.tag(u64::from(v));
        Ok(())
    }
    fn serialize_char(self, v: char) -> Hashed {
        self.tag(u64::from(v));
        Ok(())
    }
    fn serialize_str(self, v: &str) -> Hashed {
        self.serialize_bytes(v.as_bytes())
    }
    fn serialize_bytes(self, v: &[u8]) -> Hashed {
        self.tag(v.len() as u64);
        self.hash.write(v);
        Ok(())
    }
    fn serialize_none(self) -> Hashed {
        if self.rule != Rule::Drop {
            self.tag(0);
        }
        Ok(())
    }
    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Hashed {
        if self.rule == Rule::Drop {
            return Ok(());
        }
        self.tag(1);
        v.serialize(self)
    }
    fn serialize_unit(self) -> Hashed {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Hashed {
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, at: u32, _: &'static str) -> Hashed {
        self.tag(u64::from(at));
        Ok(())
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, v: &T) -> Hashed {
        v.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        at: u32,
        _: &'static str,
        v: &T,
    ) -> Hashed {
        self.tag(u64::from(at));
        v.serialize(self)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, HashError> {
        self.tag(len.unwrap_or(usize::MAX) as u64);
        Ok(Parts::new(self, ""))
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, HashError> {
        Ok(Parts::new(self, ""))
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, HashError> {
        Ok(Parts::new(self, ""))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        at: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, HashError> {
        self.tag(u64::from(at));
        Ok(Parts::new(self, ""))
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, HashError> {
        self.tag(len.unwrap_or(usize::MAX) as u64);
        Ok(Parts::new(self, ""))
    }
    fn serialize_struct(
        self,
        name: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, HashError> {
        Ok(Parts::new(self, name))
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        at: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, HashError> {
        self.tag(u64::from(at));
        Ok(Parts::new(self, name))
    }
}

impl<'b, 'a> Parts<'b, 'a> {
    fn new(canon: &'b mut Canon<'a>, of: &'static str) -> Self {
        Self { canon, of, at: 0 }
    }

    fn element<T: Serialize + ?Sized>(&mut self, v: &T) -> Hashed {
        let rule = match self.canon.rule {
            Rule::Cursor if self.at == 0 => Rule::Session,
            Rule::Cursor => Rule::Group,
            other => other,
        };
        self.at += 1;
        self.canon.under(rule, v)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Hashed {
        if self.of == "Image" {
            self.canon.is_in_groups = name == "groups";
        }
        match rule(self.of, name, self.canon.scale) {
            Rule::Drop => Ok(()),
            rule => self.canon.under(rule, v),
        }
    }
}

macro_rules! elements {
    ($($kind:ident: $part:ident),*) => {
        $(impl ser::$kind for Parts<'_, '_> {
            type Ok = ();
            type Error = HashError;
            fn $part<T: Serialize + ?Sized>(&mut self, v: &T) -> Hashed {
                self.element(v)
            }
            fn end(self) -> Hashed {
                Ok(())
            }
        })*
    };
}

elements!(SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field);

macro_rules! fields {
    ($($kind:ident),*) => {
        $(impl ser::$kind for Parts<'_, '_> {
            type Ok = ();
            type Error = HashError;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, v: &T) -> Hashed {
                self.field(name, v)
            }
            fn end(self) -> Hashed {
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for Parts<'_, '_> {
    type Ok = ();
    type Error = HashError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, v: &T) -> Hashed {
        v.serialize(&mut *self.canon)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Hashed {
        // The rule was about the keys.
        self.canon.under(Rule::AsIs, v)
    }
    fn end(self) -> Hashed {
        Ok(())
    }
}
