//! The commands: one noun per file. Each parses its arguments, calls the SDK and prints.

pub(crate) mod completion;
pub(crate) mod contend;
pub(crate) mod contract;
pub(crate) mod dev;
pub(crate) mod group;
pub(crate) mod guard;
pub(crate) mod import;
pub(crate) mod kv;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod moves;
pub(crate) mod node;
pub(crate) mod ports;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod version;
pub(crate) mod why;
