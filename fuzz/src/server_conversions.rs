//! The server's own conversions between the API's types and the state machine's, without the server around them.

#![allow(
    dead_code,
    reason = "what answers and views need is not reached from here"
)]

#[path = "../../crates/server/src/api/convert.rs"]
mod convert;
#[path = "../../crates/server/src/api/refusal.rs"]
mod refusal;

use quorate_coord as coord;
use quorate_wire::api;

/// What an up-message asks of the state machine.
pub(crate) fn take_up(up: api::NodeUp) {
    match up {
        api::NodeUp::Open {
            node: Some(spec),
            contract_min,
            contract_max,
            ..
        } => {
            convert::node_in(spec, contract_min, contract_max);
        }
        api::NodeUp::Contend { entries, .. } => {
            for (_, spec) in entries {
                convert::contender_in(spec);
            }
        }
        api::NodeUp::Report { reports, .. } => {
            for (tenure, report) in reports {
                convert::tenure_key_in(tenure);
                convert::report_in(report);
            }
        }
        _ => {}
    }
}

pub(crate) fn take_spec(spec: api::GroupSpec) -> coord::GroupSpec {
    convert::group_spec(spec)
}
