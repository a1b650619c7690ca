//! The SDK of Quorate: sessions, contending, leadership checks, watches, administration.
//!
//! A node of a service opens one [`Session`], stands in any number of groups, and follows one stream of
//! [`SessionEvent`]s. Before each act as a leader it asks [`Leadership::check`] and sends
//! [`Leadership::fencing_token`] along:
//!
//! ```no_run
//! use quorate_client::{Client, ClientOptions, ContenderSpec, GroupName, NodeName, NodeSpec, SessionEvent, SessionOptions};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(["127.0.0.1:2379"], ClientOptions::default()).await?;
//! let node = NodeSpec::new(NodeName::new("store-1")?);
//! let (session, mut events) = client.open_session(SessionOptions::for_node(node)).await?;
//! session.contend([(GroupName::new("orders/1")?, ContenderSpec::default())]).await?;
//! while let Some(event) = events.next().await {
//!     match event {
//!         SessionEvent::Active { leadership, .. } => {
//!             tokio::spawn(async move {
//!                 while leadership.check() {
//!                     // One guarded write, with leadership.fencing_token().
//!                     tokio::task::yield_now().await;
//!                 }
//!             });
//!         }
//!         SessionEvent::HandoverRequested { leadership, .. } => {
//!             // Finish what is in flight, then let go; belief ends before the report is sent.
//!             leadership.release(None).await?;
//!         }
//!         _ => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately absent: any decision about who leads. The backbone decides; [`lease`] counts how long it holds.

mod backoff;
mod client;
mod clock;
mod error;
#[cfg(test)]
mod fake;
mod fence;
pub mod kv;
mod leadership;
pub mod lease;
mod session;
mod watch;

pub use client::{Client, ClientOptions};
pub use clock::now as boot_time;
pub use error::{Error, ErrorKind};
pub use fence::{Fence, FenceError};
pub use kv::{KeyRange, Kv, Lock, Read};
pub use leadership::{Leadership, Reported};
pub use lease::LostCause;
pub use quorate_types::{
    DriftBound, FencingToken, GroupName, NameError, NodeName, ReplicaId, Revision, SessionId,
    TenureNumber, Time,
};
pub use quorate_wire::api;
pub use quorate_wire::api::{
    ApiError, ApiErrorKind, Cause, ContenderSpec, DeposeQuorum, ElectionPolicy, FaultReport,
    GroupSpec, GroupState, GroupView, NodeAdmission, NodeSpec, OverduePolicy, Phase, Position,
    Predecessor, ProposedConfiguration, SessionKey, TenureId, TransferMode,
};
pub use quorate_wire::{ClientIdentity, ClientTls};
pub use session::{Contention, Session, SessionEvent, SessionEvents, SessionOptions};
pub use watch::{GroupWatch, WatchEvent};
