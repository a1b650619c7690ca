//! The binary from the outside: real processes on free ports, killed and stopped as the world does it.

mod commands;
mod configuration;
mod contend;
mod demo;
mod disk;
mod faults;
mod harness;
mod nodes;
mod snapshot;
