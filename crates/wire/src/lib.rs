//! The client API `quorate.v1`: plain types, a service trait and a client, over protobuf and gRPC.
//!
//! Owns: the protos' generated code and its conversions. Nothing else sees generated code. Servers implement
//! [`api::Api`] and serve [`routes`]; clients call [`ApiClient`].

pub mod api;
mod bytes;
mod client;
mod convert;
mod service;

pub use bytes::WireMessage;
pub use client::{ApiClient, ClientIdentity, ClientTls, ConnectOptions};
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
