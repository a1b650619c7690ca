//! Reads what earlier format versions wrote: types that have got fields since are read with the fields that they had then.
//!
//! Postcard is not self-describing, so a reader has to know how many fields were written. This deserializer wraps postcard's
//! and hands a type its first fields only, by the type's name; the rest take their defaults (`#[serde(default)]`). So a new
//! field goes to the end, with a default, and into the table of the version before it. Anything else needs another reader.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

/// How many fields types had in a format version, where they have more now: name and count.
pub(crate) type FieldCounts = &'static [(&'static str, usize)];

/// Format 1 did not know who may depose a holder, nor who did (ADR peers-may-depose), nor what format 2 did not.
const FORMAT_1: FieldCounts = &[
    ("GroupSpec", 12),
    ("Tenure", 12),
    ("PastTenure", 10),
    ("Image", 13),
];
/// Format 2 did not know the key space, its alarms and users, nor restored states.
const FORMAT_2: FieldCounts = &[("Image", 13)];

/// The table of an earlier format; none where that is no earlier one.
pub(crate) fn field_counts(format: u8) -> Option<FieldCounts> {
    match format {
        1 => Some(FORMAT_1),
        2 => Some(FORMAT_2),
        _ => None,
    }
}

/// A deserializer, or a part of the protocol between it and a type, seen through an earlier version's table.
pub(crate) struct Earlier<T> {
    pub(crate) inner: T,
    pub(crate) counts: FieldCounts,
}

impl<T> Earlier<T> {
    fn of<U>(&self, inner: U) -> Earlier<U> {
        Earlier {
            inner,
            counts: self.counts,
        }
    }
}

macro_rules! forwarded {
    ($($name:ident($($arg:ident: $type:ty),*)),* $(,)?) => {
        $(fn $name<V: Visitor<'de>>(self, $($arg: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            let visitor = self.of(visitor);
            self.inner.$name($($arg,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Earlier<D> {
    type Error = D::Error;

    forwarded!(
        deserialize_any(),
        deserialize_bool(),
        deserialize_i8(),
        deserialize_i16(),
        deserialize_i32(),
        deserialize_i64(),
        deserialize_i128(),
        deserialize_u8(),
        deserialize_u16(),
        deserialize_u32(),
        deserialize_u64(),
        deserialize_u128(),
        deserialize_f32(),
        deserialize_f64(),
        deserialize_char(),
        deserialize_str(),
        deserialize_string(),
        deserialize_bytes(),
        deserialize_byte_buf(),
        deserialize_option(),
        deserialize_unit(),
        deserialize_unit_struct(name: &'static str),
        deserialize_newtype_struct(name: &'static str),
        deserialize_seq(),
        deserialize_tuple(len: usize),
        deserialize_tuple_struct(name: &'static str, len: usize),
        deserialize_map(),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
        deserialize_identifier(),
        deserialize_ignored_any(),
    );

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let then = self.counts.iter().find(|(known, _)| *known == name);
        let count = then.map_or(fields.len(), |(_, count)| *count);
        assert!(
            count <= fields.len(),
            "`{name}` has lost fields: {count} then, {} now",
            fields.len()
        );
        let visitor = self.of(visitor);
        self.inner
            .deserialize_struct(name, &fields[..count], visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visited {
    ($($name:ident: $type:ty),* $(,)?) => {
        $(fn $name<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$name(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Earlier<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visited!(
        visit_bool: bool,
        visit_i8: i8,
        visit_i16: i16,
        visit_i32: i32,
        visit_i64: i64,
        visit_i128: i128,
        visit_u8: u8,
        visit_u16: u16,
        visit_u32: u32,
        visit_u64: u64,
        visit_u128: u128,
        visit_f32: f32,
        visit_f64: f64,
        visit_char: char,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
        visit_bytes: &[u8],
        visit_borrowed_bytes: &'de [u8],
        visit_byte_buf: Vec<u8>,
    );

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }
    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }
    fn visit_some<D: Deserializer<'de>>(self, found: D) -> Result<V::Value, D::Error> {
        let found = self.of(found);
        self.inner.visit_some(found)
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, found: D) -> Result<V::Value, D::Error> {
        let found = self.of(found);
        self.inner.visit_newtype_struct(found)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, found: A) -> Result<V::Value, A::Error> {
        let found = self.of(found);
        self.inner.visit_seq(found)
    }
    fn visit_map<A: MapAccess<'de>>(self, found: A) -> Result<V::Value, A::Error> {
        let found = self.of(found);
        self.inner.visit_map(found)
    }
    fn visit_enum<A: EnumAccess<'de>>(self, found: A) -> Result<V::Value, A::Error> {
        let found = self.of(found);
        self.inner.visit_enum(found)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Earlier<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, found: D) -> Result<S::Value, D::Error> {
        let found = self.of(found);
        self.inner.deserialize(found)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Earlier<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.of(seed);
        self.inner.next_element_seed(seed)
    }
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Earlier<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.of(seed);
        self.inner.next_key_seed(seed)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.of(seed);
        self.inner.next_value_seed(seed)
    }
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Earlier<A> {
    type Error = A::Error;
    type Variant = Earlier<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (seed, counts) = (self.of(seed), self.counts);
        let (value, inner) = self.inner.variant_seed(seed)?;
        Ok((value, Earlier { inner, counts }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Earlier<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.of(seed);
        self.inner.newtype_variant_seed(seed)
    }
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.of(visitor);
        self.inner.tuple_variant(len, visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.of(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
