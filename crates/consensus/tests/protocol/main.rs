//! The protocol as a whole: told as scripts, under random faults, and fed with garbage.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod print;

mod boot;
mod garbage;
mod random;
mod scripts;
