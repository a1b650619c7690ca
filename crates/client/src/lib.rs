//! The SDK: sessions, contending, leadership checks, watches.

pub mod lease;
