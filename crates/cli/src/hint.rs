//! From an error to its exit code, and to what the user can do about it.

use quorate_client::kv::KvFault;
use quorate_client::{ApiErrorKind, Error as ClientError, ErrorKind};
use quorate_server::{ConfigError, StartError, StopReason};

use crate::exit::{Code, Failure};

/// The exit code of an error.
pub(crate) fn code_of(error: &anyhow::Error) -> Code {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return failure.code();
        }
        if let Some(error) = cause.downcast_ref::<ClientError>() {
            return code_of_client(error);
        }
        if cause.is::<ConfigError>() {
            return Code::Usage;
        }
    }
    Code::Failed
}

/// What the user can do, on one line.
pub(crate) fn of(error: &anyhow::Error) -> Option<String> {
    for cause in error.chain() {
        if let Some(failure) = cause.downcast_ref::<Failure>()
            && let Some(hint) = failure.hint()
        {
            return Some(hint.to_owned());
        }
        if let Some(error) = cause.downcast_ref::<ClientError>() {
            return hint_of_client(error).map(str::to_owned);
        }
        if let Some(error) = cause.downcast_ref::<StartError>() {
            return error.hint().map(str::to_owned);
        }
        if let Some(reason) = cause.downcast_ref::<StopReason>() {
            return reason.hint().map(str::to_owned);
        }
    }
    None
}

fn code_of_client(error: &ClientError) -> Code {
    use ApiErrorKind as Api;
    // What may have been applied stays so, whatever the last server said.
    if *error.kind() == ErrorKind::Unknown {
        return Code::Unknown;
    }
    match error.kv_fault() {
        Some(KvFault::Compacted | KvFault::LeaseNotFound | KvFault::KeyNotFound) => {
            return Code::NotFound;
        }
        Some(KvFault::ReadOnlyKey | KvFault::NoSpace) => return Code::Failed,
        _ => {}
    }
    match error.api_kind() {
        Some(Api::UnknownGroup | Api::UnknownNode | Api::UnknownSession) => return Code::NotFound,
        Some(Api::NotEligible | Api::BadTransfer | Api::StaleTenure | Api::SessionRevoked) => {
            return Code::Conflict;
        }
        Some(Api::NewerContract | Api::PermissionDenied) => return Code::Failed,
        Some(Api::Internal | Api::UnknownOutcome) => return Code::Unknown,
        _ => {}
    }
    match error.kind() {
        ErrorKind::Retry => Code::Unavailable,
        ErrorKind::Invalid => Code::Usage,
        ErrorKind::Conflict => Code::Conflict,
        ErrorKind::NotLeader { .. } | ErrorKind::Fenced | ErrorKind::SessionLost => Code::Lost,
        // `Unknown` is handled above; kinds to come are failures until this knows better.
        _ => Code::Failed,
    }
}

fn hint_of_client(error: &ClientError) -> Option<&'static str> {
    use ApiErrorKind as Api;
    if let Some(fault) = error.kv_fault() {
        return hint_of_fault(fault, error.kind());
    }
    if *error.kind() == ErrorKind::Unknown {
        return Some(
            "look whether it was done (`quorate group show`, `quorate node list`) before you try again",
        );
    }
    let hint = match error.api_kind()? {
        Api::UnknownGroup => {
            "`quorate group list` lists the groups; `quorate group create NAME` creates one"
        }
        Api::UnknownNode => {
            "`quorate node list` lists the nodes that have a session, or had one and are not open"
        }
        Api::UnknownSession => "`quorate node list` lists the sessions that live",
        Api::GroupExists => {
            "`quorate group show NAME` shows it; `quorate group apply` creates only what is missing"
        }
        Api::NodeLive => {
            "give this node another name, or wait until the session under that name has ended"
        }
        Api::RevisionMismatch => {
            "somebody changed it since: read it again (`quorate group show NAME`) and decide anew"
        }
        Api::WrongPhase => "`quorate why GROUP` says where the group stands",
        Api::GroupDeleting => "wait until its last tenure has ended, then create it again",
        Api::NotEligible => {
            "`quorate why GROUP` says which nodes could lead it, and why the others cannot"
        }
        Api::BadTransfer => "`quorate status` lists the members and how far each is",
        Api::NewerContract => "use a `quorate` of the servers' version, or upgrade the servers",
        Api::Overloaded => {
            "the servers refused it to stay responsive; nothing was done: try again a little later"
        }
        Api::PermissionDenied => "use a certificate that may do this (--cert, --key)",
        Api::NoLeader => {
            "a majority of the servers must run and reach each other: `quorate status` shows them"
        }
        Api::Unreachable => {
            "is a server running there? --endpoints or QUORATE_ENDPOINTS says where to look; `quorate dev` starts three"
        }
        Api::Behind | Api::ShuttingDown => "try again, or name more servers in --endpoints",
        _ => return None,
    };
    Some(hint)
}

fn hint_of_fault(fault: KvFault, kind: &ErrorKind) -> Option<&'static str> {
    if *kind == ErrorKind::Unknown {
        return Some("look whether it was done (`quorate kv get`) before you try again");
    }
    let hint = match fault {
        KvFault::Compacted => {
            "history before a compaction is gone: read the keys as they are now, and go on from that revision"
        }
        KvFault::FutureRevision => "`quorate kv get KEY -o json` tells the revision that there is",
        KvFault::LeaseNotFound => {
            "it has expired or was revoked: its keys went with it; `quorate node list` lists nodes' sessions"
        }
        KvFault::ReadOnlyKey => "keys below /quorate/ are written by the servers alone",
        KvFault::NoSpace => {
            "delete what is not needed, `quorate kv compact`, then clear the alarm; or raise quota_backend_bytes"
        }
        KvFault::TooLarge => "split the value, or the transaction: servers take 1.5 MiB at most",
        KvFault::Unauthenticated | KvFault::PermissionDenied => {
            "use a user that may do this (--user; QUORATE_PASSWORD in the environment)"
        }
        KvFault::Unreachable => {
            "is a server running there? --endpoints or QUORATE_ENDPOINTS says where to look; `quorate dev` starts three"
        }
        KvFault::Unsupported => "the servers do not serve this; are they of this version?",
        _ if *kind == ErrorKind::Retry => {
            "a majority of the servers must run and reach each other: `quorate status` shows them"
        }
        _ => return None,
    };
    Some(hint)
}
