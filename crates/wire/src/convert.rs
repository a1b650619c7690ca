//! Conversions between generated messages and plain types. What comes in is checked here: names, sizes, missing fields.

mod call;
mod error;
mod group;
mod status;
mod stream;
mod tenure;

use prost::Message;
use quorate_types::{ContractVersion, GroupName, NAME_BYTES_MAX, NodeName, RequestId};

use crate::api::{ApiError, ApiErrorKind, BATCH_MAX, Freshness, Mutation, SPEC_BYTES_MAX};
use crate::proto;

pub(crate) use error::status_of;
pub use error::{error_of, never_sent};

/// What is encoded and what is decoded have the same shape in both directions.
type Decoded<T> = Result<T, ApiError>;

fn missing(what: &str) -> ApiError {
    ApiError::invalid(format!("field `{what}` is missing"))
}

fn required<T>(field: Option<T>, what: &str) -> Decoded<T> {
    field.ok_or_else(|| missing(what))
}

fn not_known(what: &str, value: i32) -> ApiError {
    match value {
        0 => missing(what),
        _ => ApiError::invalid(format!(
            "field `{what}` has the value {value}, which is not known here; upgrade this side"
        )),
    }
}

fn group_name(name: &str) -> Decoded<GroupName> {
    GroupName::new(name).map_err(|why| ApiError::invalid(format!("group name: {why}")))
}

fn node_name(name: &str) -> Decoded<NodeName> {
    NodeName::new(name).map_err(|why| ApiError::invalid(format!("node name: {why}")))
}

/// Empty: none.
fn node_name_or_none(name: &str) -> Decoded<Option<NodeName>> {
    if name.is_empty() {
        Ok(None)
    } else {
        node_name(name).map(Some)
    }
}

fn prefix(prefix: String) -> Decoded<String> {
    if prefix.len() > NAME_BYTES_MAX {
        let bytes = prefix.len();
        return Err(ApiError::invalid(format!(
            "the prefix has {bytes} bytes; at most {NAME_BYTES_MAX} are allowed"
        )));
    }
    Ok(prefix)
}

fn batch_size(what: &str, len: usize) -> Decoded<()> {
    if len > BATCH_MAX {
        return Err(ApiError::invalid(format!(
            "{len} {what} in one request; at most {BATCH_MAX} are allowed"
        )));
    }
    Ok(())
}

fn spec_size(what: &str, spec: &impl Message) -> Decoded<()> {
    let bytes = spec.encoded_len();
    if bytes > SPEC_BYTES_MAX {
        return Err(ApiError::invalid(format!(
            "{what} has {bytes} bytes; at most {SPEC_BYTES_MAX} are allowed"
        )));
    }
    Ok(())
}

fn request_id(bytes: &[u8]) -> Decoded<RequestId> {
    let found = bytes.len();
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| {
        ApiError::invalid(format!(
            "`request_id` has {found} bytes; it is exactly 16 random bytes"
        ))
    })?;
    let id = u128::from_be_bytes(bytes);
    if id == 0 {
        return Err(ApiError::invalid(
            "`request_id` is all zero; it is 16 random bytes",
        ));
    }
    Ok(RequestId(id))
}

fn contract(version: u32) -> Decoded<ContractVersion> {
    if version == 0 {
        return Err(ApiError::invalid(
            "the contract version is 0; the first is 1",
        ));
    }
    Ok(ContractVersion(version))
}

fn mutation(mutation: Option<proto::Mutation>) -> Decoded<Mutation> {
    let mutation = required(mutation, "mutation")?;
    Ok(Mutation {
        request_id: request_id(&mutation.request_id)?,
        contract: contract(mutation.contract)?,
    })
}

fn mutation_to(mutation: Mutation) -> Option<proto::Mutation> {
    let request_id = mutation.request_id.0.to_be_bytes().to_vec();
    Some(proto::Mutation {
        request_id,
        contract: mutation.contract.0,
    })
}

/// Absent: linearizable.
fn freshness(freshness: Option<proto::Freshness>) -> Freshness {
    let proto::Freshness {
        min_revision,
        stale_ok,
    } = freshness.unwrap_or_default();
    Freshness {
        min_revision: quorate_types::Revision(min_revision),
        stale_ok,
    }
}

fn freshness_to(freshness: Freshness) -> Option<proto::Freshness> {
    Some(proto::Freshness {
        min_revision: freshness.min_revision.0,
        stale_ok: freshness.stale_ok,
    })
}

fn all<T, U>(items: Vec<T>, convert: impl FnMut(T) -> Decoded<U>) -> Decoded<Vec<U>> {
    items.into_iter().map(convert).collect()
}

/// An answer of the server that does not decode. A change may have been applied all the same.
pub(crate) fn bad_answer(why: &ApiError) -> ApiError {
    let message = format!("the server's answer does not decode ({why}); it may have been applied");
    ApiError {
        kind: ApiErrorKind::Internal,
        message,
        retry_after_ms: None,
    }
}

/// Maps an enum onto its generated twin, both ways.
macro_rules! same_variants {
    ($name:ident, $what:literal, [$($variant:ident),+ $(,)?]) => {
        impl From<crate::api::$name> for crate::proto::$name {
            fn from(value: crate::api::$name) -> Self {
                match value { $(crate::api::$name::$variant => Self::$variant,)+ }
            }
        }

        impl crate::api::$name {
            /// The value of a field that must be set.
            pub(crate) fn decode(value: i32) -> Result<Self, crate::api::ApiError> {
                match crate::proto::$name::try_from(value) {
                    $(Ok(crate::proto::$name::$variant) => Ok(Self::$variant),)+
                    Ok(crate::proto::$name::Unspecified) | Err(_) => Err(crate::convert::not_known($what, value)),
                }
            }

            /// The value for a field.
            pub(crate) fn encode(self) -> i32 {
                crate::proto::$name::from(self).into()
            }
        }
    };
}
use same_variants;

#[cfg(test)]
mod tests;
