//! The list of founding members: `name=host:2380,...`.

use quorate_types::ReplicaId;

use super::{CLIENT_PORT, ConfigError, PEER_PORT};

const FIELD: &str = "initial_cluster";
const SHAPE: &str = "write name=host:port for each member, separated by commas; name=host:port/host:port adds where clients reach it, name#7=... sets its id";

/// One founding member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its id.
    pub id: ReplicaId,
    /// Its name.
    pub name: String,
    /// `host:port` where other servers reach it.
    pub peer_address: String,
    /// `host:port` where clients reach it.
    pub client_address: String,
}

/// Reads `s1=host:2380,s2=host:2380/host:2379,...`.
///
/// Ids follow the names' sorted order from 1, unless every member gives its own: `s1#7=host:2380`. Where clients
/// are not told another address after `/`, they use the same host and port 2379.
///
/// # Errors
/// [`ConfigError::Invalid`]: correct the list.
pub fn parse_initial_cluster(text: &str) -> Result<Vec<InitialMember>, ConfigError> {
    let mut parsed = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        parsed.push(parse_member(item)?);
    }
    parsed.sort_by(|a, b| a.1.name.cmp(&b.1.name));
    let explicit = parsed.iter().filter(|(explicit, _)| *explicit).count();
    if explicit != 0 && explicit != parsed.len() {
        return Err(ConfigError::invalid(
            FIELD,
            text,
            "give an id (#1) to every member or to none",
        ));
    }
    let members = parsed
        .into_iter()
        .zip(1..)
        .map(|((explicit, mut member), place)| {
            if !explicit {
                member.id = ReplicaId(place);
            }
            member
        });
    Ok(members.collect())
}

fn parse_member(item: &str) -> Result<(bool, InitialMember), ConfigError> {
    let bad = || ConfigError::invalid(FIELD, item, SHAPE);
    let (name, addresses) = item.split_once('=').ok_or_else(bad)?;
    let (name, id) = match name.split_once('#') {
        Some((name, id)) => (name, Some(ReplicaId(id.parse().map_err(|_| bad())?))),
        None => (name, None),
    };
    let (peer, client) = match addresses.split_once('/') {
        Some((peer, client)) => (peer, Some(client)),
        None => (addresses, None),
    };
    let peer_address = with_port(peer, PEER_PORT).ok_or_else(bad)?;
    let client_address = match client {
        Some(client) => with_port(client, CLIENT_PORT).ok_or_else(bad)?,
        None => format!("{}:{CLIENT_PORT}", host_of(&peer_address)),
    };
    if name.is_empty() {
        return Err(bad());
    }
    let member = InitialMember {
        id: id.unwrap_or_default(),
        name: name.to_owned(),
        peer_address,
        client_address,
    };
    Ok((id.is_some(), member))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`, with the port filled in.
fn with_port(address: &str, port: u16) -> Option<String> {
    let has_space = address.chars().any(|c| c.is_whitespace() || c.is_control());
    let (host, given) = match address.rsplit_once(':') {
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => return None, // a bare v6 address is ambiguous
        Some((host, given)) if !address.ends_with(']') => {
            (host, given.parse().ok().filter(|port| *port != 0)?)
        }
        _ => (address, port),
    };
    (!host.is_empty() && !has_space).then(|| format!("{host}:{given}"))
}

/// The host of `host:port`, brackets included.
pub(crate) fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// The list in one order and one spelling: what the cluster id is made from.
pub(super) fn canonical(members: &[InitialMember]) -> String {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|m| m.id);
    members
        .iter()
        .map(|m| format!("{}#{}={}", m.name, m.id, m.peer_address))
        .collect::<Vec<_>>()
        .join(",")
}
