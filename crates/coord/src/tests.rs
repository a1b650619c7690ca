//! Tests of the rules, all through one harness that checks every apply.

mod deposing;
mod elections;
mod handovers;
mod keys;
mod leases;
mod polls;
mod random;
mod restoring;
mod sessions;
mod spreading;
mod timing;
mod world;
