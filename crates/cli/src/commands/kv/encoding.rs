//! Keys and values are bytes: how they are written and read where text is needed.

use clap::ValueEnum;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::exit::Failure;

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// As they are, where they are UTF-8; otherwise they are printed escaped (`\xff`), in JSON as base64.
    #[default]
    Text,
    /// Two digits for each byte.
    Hex,
    /// The usual alphabet, padded.
    Base64,
}

impl Encoding {
    /// Reads an argument.
    pub(crate) fn read(self, text: &str) -> anyhow::Result<Vec<u8>> {
        let bytes = match self {
            Self::Text => Some(text.as_bytes().to_vec()),
            Self::Hex => from_hex(text),
            Self::Base64 => from_base64(text),
        };
        bytes.ok_or_else(|| {
            let name = if self == Self::Hex { "hex" } else { "base64" };
            Failure::usage(format!("`{text}` is not {name}, as --encoding says")).into()
        })
    }
}

/// A named field that holds bytes. In JSON its name tells how: `key`, `key_hex` or `key_base64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    name: String,
    /// In JSON.
    json: String,
    /// In tables.
    pub(crate) text: String,
}

impl Field {
    pub(crate) fn new(name: &str, bytes: &[u8], encoding: Encoding) -> Self {
        let same = |name: String, text: String| Self {
            name,
            json: text.clone(),
            text,
        };
        match (encoding, std::str::from_utf8(bytes)) {
            (Encoding::Text, Ok(text)) => same(name.to_owned(), text.to_owned()),
            (Encoding::Text, Err(_)) => Self {
                name: format!("{name}_base64"),
                json: to_base64(bytes),
                text: bytes.escape_ascii().to_string(),
            },
            (Encoding::Hex, _) => same(format!("{name}_hex"), to_hex(bytes)),
            (Encoding::Base64, _) => same(format!("{name}_base64"), to_base64(bytes)),
        }
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        map.serialize_entry(&self.name, &self.json)?;
        map.end()
    }
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    });
    bytes.collect()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * at) & 0x3f) as usize];
            // One byte fills two digits, two fill three.
            text.push(if at <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    let padding = text.len() - bare.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(bare.len() / 4 * 3 + 2);
    for chunk in bare.as_bytes().chunks(4) {
        let mut bits = 0_u32;
        for at in 0..4 {
            let digit = match chunk.get(at) {
                Some(byte) => ALPHABET.iter().position(|known| known == byte)?,
                None => 0,
            };
            bits = bits << 6 | u32::try_from(digit).expect("there are 64");
        }
        // Two digits hold one byte, three hold two, four hold three.
        bytes.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_from_every_encoding() {
        for len in 0..20_u8 {
            let bytes: Vec<u8> = (0..len)
                .map(|n| n.wrapping_mul(83).wrapping_add(190))
                .collect();
            assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes.clone()));
            assert_eq!(from_base64(&to_base64(&bytes)), Some(bytes));
        }
        assert_eq!(to_base64(b"Quorate"), "UXVvcmF0ZQ==");
        assert_eq!(to_hex(b"\x00\xff"), "00ff");
    }

    #[test]
    fn what_is_not_so_encoded_is_refused() {
        for bad in ["f", "0g", "+1"] {
            assert_eq!(from_hex(bad), None, "{bad}");
        }
        for bad in ["a", "YQ", "YQ=", "====", "Y?==", "YQ==YQ=="] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_name_of_a_field_tells_how_it_is_written() {
        let check = |bytes: &[u8], encoding, json: &str| {
            let field = Field::new("key", bytes, encoding);
            assert_eq!(serde_json::to_string(&field).unwrap(), json);
        };
        check(b"a", Encoding::Text, r#"{"key":"a"}"#);
        check(b"\xff", Encoding::Text, r#"{"key_base64":"/w=="}"#);
        check(b"a", Encoding::Hex, r#"{"key_hex":"61"}"#);
        check(b"a", Encoding::Base64, r#"{"key_base64":"YQ=="}"#);
    }
}
