//! The client APIs. `quorate.v1`: plain types, a service trait and a client, over protobuf and gRPC; and etcd's v3 API.
//!
//! Owns: the protos' generated code and its conversions. Nothing else sees the generated code of `quorate.v1`: servers implement
//! [`api::Api`] and serve [`routes`]; clients call [`ApiClient`]. etcd's messages are used as they are ([`etcd`]).

pub mod api;
mod bytes;
mod client;
mod convert;
pub mod etcd;
mod service;

pub use bytes::WireMessage;
pub use client::{ApiClient, ClientIdentity, ClientTls, ConnectOptions};
pub use convert::{error_of, never_sent};
pub use service::{refusal, routes};

mod proto {
    #![expect(
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes,
        reason = "generated from proto/"
    )]
    tonic::include_proto!("quorate.v1");
}
