//! JSON of etcd's messages, both ways, as etcd's gateway writes and reads it.
//!
//! Owns: bytes as base64, 64-bit integers as strings, names as in the protos going out and both spellings coming in, nothing for a field
//! that has its default. Deliberately absent: any knowledge of a single message; the descriptors say all.
//!
//! The words of refusals are those of etcd's gateway, because people search for them.

use std::fmt::Write;

use bytes::Bytes;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};
use serde_json::Value as Json;

use super::base64;

/// The JSON does not say what the message needs.
pub(super) type Malformed = String;

/// Reads a message. Unknown fields are passed over, as etcd does.
///
/// # Errors
/// [`Malformed`]: a value has another type than its field.
pub(super) fn read(
    json: &Json,
    descriptor: &MessageDescriptor,
) -> Result<DynamicMessage, Malformed> {
    let mut message = DynamicMessage::new(descriptor.clone());
    let object = match json {
        Json::Object(object) => object,
        Json::Null => return Ok(message),
        other => return Err(mismatch(other, "map[string]json.RawMessage")),
    };
    for (name, value) in object {
        let field = descriptor
            .get_field_by_name(name)
            .or_else(|| descriptor.get_field_by_json_name(name));
        let Some(field) = field else { continue };
        if value.is_null() {
            continue;
        }
        message.set_field(&field, read_field(value, &field)?);
    }
    Ok(message)
}

fn read_field(json: &Json, field: &FieldDescriptor) -> Result<Value, Malformed> {
    if !field.is_list() {
        return read_value(json, &field.kind());
    }
    let Json::Array(items) = json else {
        return Err(mismatch(json, "[]json.RawMessage"));
    };
    let items: Result<_, _> = items
        .iter()
        .map(|item| read_value(item, &field.kind()))
        .collect();
    items.map(Value::List)
}

fn read_value(json: &Json, kind: &Kind) -> Result<Value, Malformed> {
    match kind {
        Kind::Message(descriptor) if !json.is_null() => read(json, descriptor).map(Value::Message),
        // etcd's gateway dies of it.
        Kind::Message(_) => Err(mismatch(json, "map[string]json.RawMessage")),
        Kind::Bytes => {
            let text = json.as_str().ok_or_else(|| mismatch(json, "[]uint8"))?;
            let bytes = base64::decode(text).map_err(|error| error.to_string())?;
            Ok(Value::Bytes(Bytes::from(bytes)))
        }
        Kind::String => {
            let text = json.as_str().ok_or_else(|| mismatch(json, "string"))?;
            Ok(Value::String(text.to_owned()))
        }
        Kind::Bool => {
            let bool = json.as_bool().ok_or_else(|| mismatch(json, "bool"))?;
            Ok(Value::Bool(bool))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            integer(json, "int64", Json::as_i64).map(Value::I64)
        }
        Kind::Uint64 | Kind::Fixed64 => integer(json, "uint64", Json::as_u64).map(Value::U64),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer(json, "int32", |json| {
            json.as_i64().and_then(|number| i32::try_from(number).ok())
        })
        .map(Value::I32),
        Kind::Uint32 | Kind::Fixed32 => integer(json, "uint32", |json| {
            json.as_u64().and_then(|number| u32::try_from(number).ok())
        })
        .map(Value::U32),
        Kind::Double => {
            let number = json.as_f64().ok_or_else(|| mismatch(json, "float64"))?;
            Ok(Value::F64(number))
        }
        Kind::Float => {
            let number = json.as_f64().ok_or_else(|| mismatch(json, "float32"))?;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the field holds no more than that"
            )]
            Ok(Value::F32(number as f32))
        }
        Kind::Enum(descriptor) => read_enum(json, descriptor),
    }
}

/// An integer, as a number or in quotes.
fn integer<T>(json: &Json, kind: &str, fits: impl Fn(&Json) -> Option<T>) -> Result<T, Malformed> {
    let quoted;
    let json = match json {
        Json::String(text) => {
            quoted = parse(text.as_bytes())?;
            &quoted
        }
        other => other,
    };
    fits(json).ok_or_else(|| match json {
        Json::Number(number) => {
            format!("json: cannot unmarshal number {number} into Go value of type {kind}")
        }
        other => mismatch(other, kind),
    })
}

fn read_enum(json: &Json, descriptor: &EnumDescriptor) -> Result<Value, Malformed> {
    let Json::String(name) = json else {
        return integer(json, "int32", |json| {
            json.as_i64().and_then(|number| i32::try_from(number).ok())
        })
        .map(Value::EnumNumber);
    };
    match descriptor.get_value_by_name(name) {
        Some(value) => Ok(Value::EnumNumber(value.number())),
        None => {
            let package = descriptor.package_name();
            let inner = descriptor.full_name()[package.len()..].trim_start_matches('.');
            let inner = inner.replace('.', "_");
            Err(format!("unknown value {name:?} for enum {package}.{inner}"))
        }
    }
}

fn mismatch(found: &Json, wanted: &str) -> Malformed {
    let found = match found {
        Json::Null => "null",
        Json::Bool(_) => "bool",
        Json::Number(_) => "number",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    format!("json: cannot unmarshal {found} into Go value of type {wanted}")
}

/// Parses one whole text.
///
/// # Errors
/// [`Malformed`]: it is no JSON.
pub(super) fn parse(text: &[u8]) -> Result<Json, Malformed> {
    serde_json::from_slice(text).map_err(|error| explain(&error, text))
}

/// A parser's complaint in the words of etcd's gateway.
pub(super) fn explain(error: &serde_json::Error, text: &[u8]) -> Malformed {
    if error.is_eof() {
        return "unexpected EOF".to_owned();
    }
    let said = error.to_string();
    let looking = [
        ("expected value", "looking for beginning of value"),
        (
            "key must be a string",
            "looking for beginning of object key string",
        ),
        (
            "trailing comma",
            "looking for beginning of object key string",
        ),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("invalid escape", "in string escape code"),
        ("control character", "in string literal"),
        ("invalid number", "in numeric literal"),
        ("trailing characters", "after top-level value"),
    ];
    let found = looking.iter().find(|(ours, _)| said.starts_with(ours));
    let line = text
        .split(|byte| *byte == b'\n')
        .nth(error.line().saturating_sub(1));
    let byte = line.and_then(|line| line.get(error.column().saturating_sub(1)));
    match (found, byte) {
        (Some((_, looking)), Some(byte)) => {
            format!("invalid character '{}' {looking}", byte.escape_ascii())
        }
        _ => said,
    }
}

/// Writes a message.
pub(super) fn write(message: &DynamicMessage, to: &mut String) {
    to.push('{');
    let mut first = true;
    // In the order of their numbers; what is not set is not there.
    for (field, value) in message.fields() {
        if !first {
            to.push(',');
        }
        first = false;
        write_string(field.name(), to);
        to.push(':');
        write_value(value, &field.kind(), to);
    }
    to.push('}');
}

fn write_value(value: &Value, kind: &Kind, to: &mut String) {
    match value {
        Value::Bool(value) => to.push_str(if *value { "true" } else { "false" }),
        Value::I32(value) => display(value, to),
        Value::U32(value) => display(value, to),
        Value::I64(value) => quoted(value, to),
        Value::U64(value) => quoted(value, to),
        Value::F32(value) => display(value, to),
        Value::F64(value) => display(value, to),
        Value::String(value) => write_string(value, to),
        Value::Bytes(value) => {
            to.push('"');
            base64::encode(value, to);
            to.push('"');
        }
        Value::EnumNumber(number) => {
            let known = match kind {
                Kind::Enum(descriptor) => descriptor.get_value(*number),
                _ => None,
            };
            match known {
                Some(value) => write_string(value.name(), to),
                None => display(number, to),
            }
        }
        Value::Message(message) => write(message, to),
        Value::List(items) => {
            to.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    to.push(',');
                }
                write_value(item, kind, to);
            }
            to.push(']');
        }
        Value::Map(_) => unreachable!("no message of etcd has a map"),
    }
}

fn display(value: &impl std::fmt::Display, to: &mut String) {
    write!(to, "{value}").expect("a string takes all");
}

fn quoted(value: &impl std::fmt::Display, to: &mut String) {
    write!(to, "\"{value}\"").expect("a string takes all");
}

/// A JSON string.
pub(super) fn write_string(text: &str, to: &mut String) {
    to.push_str(&Json::from(text).to_string());
}

/// Reads the encoded message and writes it as JSON.
///
/// # Errors
/// The bytes are not of that message: a service of ours is broken.
pub(super) fn transcode(
    encoded: Bytes,
    descriptor: &MessageDescriptor,
) -> Result<String, prost::DecodeError> {
    let message = DynamicMessage::decode(descriptor.clone(), encoded)?;
    debug_assert_eq!(message.descriptor(), *descriptor);
    let mut text = String::new();
    write(&message, &mut text);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_reflect::DescriptorPool;

    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        DescriptorPool::decode(quorate_wire::etcd::FILE_DESCRIPTOR_SET)
            .unwrap()
            .get_message_by_name(name)
            .unwrap()
    }

    /// What is read, and written again.
    fn round(name: &str, text: &str) -> Result<String, Malformed> {
        let message = read(&parse(text.as_bytes())?, &descriptor(name))?;
        let written =
            transcode(message.encode_to_vec().into(), &message.descriptor()).expect("just encoded");
        Ok(written)
    }

    fn range(text: &str) -> Result<String, Malformed> {
        round("etcdserverpb.RangeRequest", text)
    }

    #[test]
    fn names_come_in_both_spellings_and_go_out_as_in_the_protos() {
        let text = r#"{"key":"Zm9v","rangeEnd":"Zm9w","sort_order":"DESCEND","sortTarget":3,"limit":"7","countOnly":false,"nope":[1]}"#;
        assert_eq!(
            range(text).unwrap(),
            r#"{"key":"Zm9v","range_end":"Zm9w","limit":"7","sort_order":"DESCEND","sort_target":"MOD"}"#
        );
        assert_eq!(range(r#"{"key":null,"limit":null}"#).unwrap(), "{}");
        assert_eq!(range("null").unwrap(), "{}");
        assert_eq!(
            range(r#"{"sort_order":9}"#).unwrap(),
            r#"{"sort_order":9}"#,
            "an unknown number is kept"
        );
    }

    #[test]
    fn transactions_nest() {
        let text = r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":""}],"success":[{"requestTxn":{"failure":[{"request_put":{"key":"YQ==","lease":"-1"}}]}}]}"#;
        assert_eq!(
            round("etcdserverpb.TxnRequest", text).unwrap(),
            r#"{"compare":[{"target":"VALUE","key":"Zm9v","value":""}],"success":[{"request_txn":{"failure":[{"request_put":{"key":"YQ==","lease":"-1"}}]}}]}"#
        );
    }

    #[test]
    fn refusals_use_the_words_of_etcd() {
        // Each was recorded from a real one.
        for (text, said) in [
            (r#"{"key":"Zm9v"#, "unexpected EOF"),
            (r#"{"key":"***"}"#, "illegal base64 data at input byte 0"),
            (r#"{"key":"Zm9"}"#, "illegal base64 data at input byte 0"),
            (
                r#"{"sort_order":"BAD"}"#,
                "unknown value \"BAD\" for enum etcdserverpb.RangeRequest_SortOrder",
            ),
            (
                r#"{"sort_order":"1"}"#,
                "unknown value \"1\" for enum etcdserverpb.RangeRequest_SortOrder",
            ),
            (
                "[]",
                "json: cannot unmarshal array into Go value of type map[string]json.RawMessage",
            ),
            (
                r#""x""#,
                "json: cannot unmarshal string into Go value of type map[string]json.RawMessage",
            ),
            (
                r#"{"key":1}"#,
                "json: cannot unmarshal number into Go value of type []uint8",
            ),
            (
                r#"{"limit":1.5}"#,
                "json: cannot unmarshal number 1.5 into Go value of type int64",
            ),
            (
                r#"{"limit":"1.5"}"#,
                "json: cannot unmarshal number 1.5 into Go value of type int64",
            ),
            (
                r#"{"limit":"x"}"#,
                "invalid character 'x' looking for beginning of value",
            ),
            (
                r#"{"serializable":"true"}"#,
                "json: cannot unmarshal string into Go value of type bool",
            ),
            (
                r#"{"serializable":1}"#,
                "json: cannot unmarshal number into Go value of type bool",
            ),
            ("x", "invalid character 'x' looking for beginning of value"),
            (
                "{a:1}",
                "invalid character 'a' looking for beginning of object key string",
            ),
        ] {
            assert_eq!(range(text), Err(said.to_owned()), "{text}");
        }
        let txn = |text| round("etcdserverpb.TxnRequest", text).unwrap_err();
        assert_eq!(
            txn(r#"{"success":{}}"#),
            "json: cannot unmarshal object into Go value of type []json.RawMessage"
        );
        assert_eq!(
            txn(r#"{"success":[1]}"#),
            "json: cannot unmarshal number into Go value of type map[string]json.RawMessage"
        );
        assert!(txn(r#"{"success":[null]}"#).contains("null"));
    }

    #[test]
    fn text_is_escaped() {
        let text = r#"{"name":"a\"b\\\u0007ü"}"#;
        let written = round("etcdserverpb.AuthUserAddRequest", text).unwrap();
        assert_eq!(parse(written.as_bytes()), parse(text.as_bytes()));
    }
}
