//! The API in plain types, as servers implement it and clients call it.

mod tenure;

pub use tenure::{
    Cause, Directive, DirectiveKind, Part, Phase, Position, Predecessor, ProposedConfiguration,
    Report, SessionKey, StandingTenure, TenureId,
};
