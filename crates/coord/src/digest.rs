//! A digest over everything that is stored, and so over everything that influences later applies.
//!
//! The stored image is fed through FNV-1a by a serializer of its own, so that nothing can be forgotten and
//! no encoding has to be agreed on. Stable across builds and platforms for one feature level.

use std::fmt::Display;

use serde::ser::{self, Serialize};

use crate::image::Image;
use crate::state::State;

impl State {
    /// The digest: equal on all replicas that applied the same entries. O(n).
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = Hasher(0xcbf2_9ce4_8422_2325);
        Image::from(self.clone())
            .serialize(&mut hasher)
            .expect("hashing fails on nothing that the image holds");
        hasher.0
    }
}

struct Hasher(u64);

impl Hasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn len(&mut self, len: Option<usize>) {
        self.write(&(len.unwrap_or(usize::MAX) as u64).to_le_bytes());
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

macro_rules! numbers {
    ($($name:ident: $int:ty),*) => {
        $(fn $name(self, v: $int) -> Hashed { self.write(&v.to_le_bytes()); Ok(()) })*
    };
}

impl ser::Serializer for &mut Hasher {
    type Ok = ();
    type Error = HashError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    numbers!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64);

    /// Ids are hashed as numbers, not as text: a digest is taken often.
    fn is_human_readable(&self) -> bool {
        false
    }
    fn serialize_bool(self, v: bool) -> Hashed {
        self.serialize_u8(u8::from(v))
    }
    fn serialize_char(self, v: char) -> Hashed {
        self.serialize_u32(u32::from(v))
    }
    fn serialize_str(self, v: &str) -> Hashed {
        self.serialize_bytes(v.as_bytes())
    }
    fn serialize_bytes(self, v: &[u8]) -> Hashed {
        self.len(Some(v.len()));
        self.write(v);
        Ok(())
    }
    fn serialize_none(self) -> Hashed {
        self.serialize_u8(0)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, v: &T) -> Hashed {
        self.write(&[1]);
        v.serialize(self)
    }
    fn serialize_unit(self) -> Hashed {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Hashed {
        Ok(())
    }
    fn serialize_unit_variant(self, _: &'static str, at: u32, _: &'static str) -> Hashed {
        self.serialize_u32(at)
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
        self.write(&at.to_le_bytes());
        v.serialize(self)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Self, HashError> {
        self.len(len);
        Ok(self)
    }
    fn serialize_tuple(self, _: usize) -> Result<Self, HashError> {
        Ok(self)
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, HashError> {
        Ok(self)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        at: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, HashError> {
        self.write(&at.to_le_bytes());
        Ok(self)
    }
    fn serialize_map(self, len: Option<usize>) -> Result<Self, HashError> {
        self.len(len);
        Ok(self)
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, HashError> {
        Ok(self)
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        at: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, HashError> {
        self.write(&at.to_le_bytes());
        Ok(self)
    }
}

macro_rules! parts {
    ($($kind:ident: $part:ident),*) => {
        $(impl ser::$kind for &mut Hasher {
            type Ok = ();
            type Error = HashError;
            fn $part<T: Serialize + ?Sized>(&mut self, v: &T) -> Hashed {
                v.serialize(&mut **self)
            }
            fn end(self) -> Hashed {
                Ok(())
            }
        })*
    };
}

parts!(SerializeSeq: serialize_element, SerializeTuple: serialize_element, SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field);

macro_rules! fields {
    ($($kind:ident),*) => {
        $(impl ser::$kind for &mut Hasher {
            type Ok = ();
            type Error = HashError;
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, v: &T) -> Hashed {
                v.serialize(&mut **self)
            }
            fn end(self) -> Hashed {
                Ok(())
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl ser::SerializeMap for &mut Hasher {
    type Ok = ();
    type Error = HashError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, v: &T) -> Hashed {
        v.serialize(&mut **self)
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, v: &T) -> Hashed {
        v.serialize(&mut **self)
    }
    fn end(self) -> Hashed {
        Ok(())
    }
}
