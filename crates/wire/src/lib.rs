//! The client API `quorate.v1`: plain types, a service trait and a client, over protobuf and gRPC.
//!
//! Owns: the protos' generated code and its conversions. Nothing else sees generated code.

pub mod api;
