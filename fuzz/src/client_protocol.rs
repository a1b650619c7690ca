//! The client protocol: protobuf bytes to plain types, in both directions, and on to the state machine's types as the server does it.

use std::fmt::Debug;

use quorate_wire::WireMessage;
use quorate_wire::api;

use crate::input::Input;
use crate::server_conversions as server;

fn round<T: WireMessage + Clone + Debug + PartialEq>(bytes: &[u8]) -> Option<T> {
    let message = T::from_wire(bytes).ok()?;
    let again = T::from_wire(&message.clone().into_wire());
    assert_eq!(again.as_ref(), Ok(&message), "a message changed on its way");
    Some(message)
}

/// The first byte says which message; what decodes survives a round.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.u8();
    let bytes = input.rest();
    match which {
        0 => {
            if let Some(up) = round::<api::NodeUp>(bytes) {
                server::take_up(up);
            }
        }
        1 => drop(round::<api::NodeDown>(bytes)),
        2 => drop(round::<api::WatchGroups>(bytes)),
        3 => drop(round::<api::WatchItem>(bytes)),
        4 => {
            if let Some(create) = round::<api::CreateGroups>(bytes) {
                for (_, spec) in create.groups {
                    server::take_spec(spec);
                }
            }
        }
        5 => {
            if let Some(update) = round::<api::UpdateGroup>(bytes) {
                server::take_spec(update.spec);
            }
        }
        6 => drop(round::<api::DeleteGroup>(bytes)),
        7 => drop(round::<api::GetGroup>(bytes)),
        8 => drop(round::<api::GroupDetail>(bytes)),
        9 => drop(round::<api::ListGroups>(bytes)),
        10 => drop(round::<api::GroupPage>(bytes)),
        11 => drop(round::<api::ExplainGroup>(bytes)),
        12 => drop(round::<api::Explanation>(bytes)),
        13 => drop(round::<api::TransferGroup>(bytes)),
        14 => drop(round::<api::AbortTransfer>(bytes)),
        15 => drop(round::<api::Rebalance>(bytes)),
        16 => drop(round::<api::Moving>(bytes)),
        17 => drop(round::<api::Freshness>(bytes)),
        18 => drop(round::<api::NodeList>(bytes)),
        19 => drop(round::<api::AdmitNode>(bytes)),
        20 => drop(round::<api::RevokeSession>(bytes)),
        21 => drop(round::<api::Done>(bytes)),
        22 => drop(round::<api::TransferLeader>(bytes)),
        23 => drop(round::<api::ServerStatus>(bytes)),
        24 => drop(round::<api::Contract>(bytes)),
        _ => {}
    }
}
