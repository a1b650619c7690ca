//! Who calls: the connection's principal, the user that a token or a certificate names, and what the caller has seen.
//!
//! As in etcd, a token is read from the metadata `token`, or else `authorization`; without one, the common name of a verified client
//! certificate is the user. Unlike in etcd, a call that shows a token waits until this server can judge it: a token is good on every
//! server from the moment it was given.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, Request as HttpRequest};
use axum::middleware::Next;
use axum::response::Response;
use quorate_coord::Command;
use quorate_coord::kv::{AuthError, AuthStore, KvCaller, ROOT};
use quorate_types::{Principal, Revision};
use tonic::{Request, Status};

use super::token::Shown;
use super::{Etcd, errors};

/// A read waits for the key-value revision in this field of its metadata.
const MIN_REVISION: &str = "quorate-min-revision";
/// How long a call waits for this server to get to where its token was made.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(2);

/// What a caller shows of itself.
#[derive(Clone)]
enum Credential {
    /// Nothing.
    Nothing,
    /// A verified certificate of this common name.
    Certificate(String),
    /// A token.
    Token(Box<Shown>),
    /// Something that is no token.
    Garbage,
    /// None is needed: this server itself.
    Own,
}

impl Credential {
    fn of(headers: &HeaderMap, principal: &Principal) -> Self {
        let shown = headers
            .get("token")
            .or_else(|| headers.get("authorization"));
        match shown {
            Some(text) => {
                let text = text.to_str().unwrap_or_default();
                let text = text.strip_prefix("Bearer ").unwrap_or(text);
                Shown::parse(text).map_or(Self::Garbage, |shown| Self::Token(Box::new(shown)))
            }
            None if *principal == crate::tls::anonymous() => Self::Nothing,
            None => Self::Certificate(principal.to_string()),
        }
    }

    /// The user, as of this version of users and roles.
    fn user(&self, auth: &AuthStore) -> Result<Option<KvCaller>, AuthError> {
        let Some(key) = auth.token_key() else {
            return Ok(None);
        };
        let user = match self {
            Self::Nothing => return Ok(None),
            Self::Own => ROOT.to_owned(),
            Self::Certificate(name) => name.clone(),
            Self::Garbage => return Err(AuthError::InvalidToken),
            Self::Token(shown) => shown
                .verify(key.as_bytes(), crate::clock::wall())
                .filter(|token| auth.accepts_token_of(&token.user, token.revision))
                .map(|token| token.user.clone())
                .ok_or(AuthError::InvalidToken)?,
        };
        // Rights are looked up with each call, never remembered: so they are as new as the version.
        Ok(Some(KvCaller {
            user,
            auth_revision: auth.revision(),
        }))
    }
}

/// Who calls, and what it has seen.
#[derive(Clone)]
pub(crate) struct Caller {
    /// The connection's principal.
    pub(crate) principal: Principal,
    /// The user of the key space when the call came in, where users are distinguished.
    pub(crate) user: Option<KvCaller>,
    /// Reads wait for this key-value revision.
    pub(crate) min_revision: u64,
    credential: Credential,
}

impl Caller {
    /// The server itself, which may what root may.
    pub(crate) fn own() -> Self {
        Self {
            principal: crate::tls::anonymous(),
            user: Some(KvCaller {
                user: ROOT.to_owned(),
                auth_revision: u64::MAX,
            }),
            min_revision: 0,
            credential: Credential::Own,
        }
    }

    /// The user as of a version of users and roles: for reads, which are judged by the version that they read.
    ///
    /// # Errors
    /// [`AuthError::InvalidToken`].
    pub(crate) fn user_at(&self, auth: &AuthStore) -> Result<Option<KvCaller>, AuthError> {
        self.credential.user(auth)
    }

    /// Asks users and roles of a version about this caller.
    ///
    /// # Errors
    /// What they answer.
    pub(crate) fn check(
        &self,
        auth: &AuthStore,
        question: impl FnOnce(&AuthStore, Option<&KvCaller>) -> Result<(), AuthError>,
    ) -> Result<(), Status> {
        let user = self.user_at(auth);
        user.and_then(|user| question(auth, user.as_ref()))
            .map_err(|error| errors::of_auth(&error))
    }
}

impl Etcd {
    /// On whose behalf a call is made.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`: the token is not valid; `INVALID_ARGUMENT`: a malformed minimum revision.
    pub(crate) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let metadata = request.metadata();
        let min_revision = match metadata.get(MIN_REVISION) {
            None => 0,
            Some(text) => text
                .to_str()
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| {
                    Status::invalid_argument(format!("quorate: `{MIN_REVISION}` is not a number"))
                })?,
        };
        let principal = request.extensions().get::<Principal>().cloned();
        let principal = principal.unwrap_or_else(crate::tls::anonymous);
        let credential = Credential::of(metadata.as_ref(), &principal);
        let version = self.api.publisher.version();
        let user = credential.user(version.state.auth());
        Ok(Caller {
            principal,
            user: user.map_err(|error| errors::of_auth(&error))?,
            min_revision,
            credential,
        })
    }
}

/// Puts another user in front of a command.
pub(super) fn replace(command: &mut Command, user: Option<KvCaller>) {
    match command {
        Command::Kv { caller, .. }
        | Command::CompactKv { caller, .. }
        | Command::GrantLease { caller, .. }
        | Command::RevokeLease { caller, .. }
        | Command::Auth { caller, .. } => *caller = user,
        other => unreachable!("no user is in front of {other:?}"),
    }
}

/// Lets a call wait until this server has applied what its token's maker had.
pub(super) async fn catch_up(
    Extract(etcd): Extract<Etcd>,
    request: HttpRequest<Body>,
    next: Next,
) -> Response {
    let anonymous = crate::tls::anonymous();
    if let Credential::Token(shown) = Credential::of(request.headers(), &anonymous) {
        let index = shown.index();
        if etcd.api.publisher.version().state.applied().0 < index {
            // Whether it got there shows when the token is judged.
            let reached = etcd.api.publisher.reached(index, Revision::ZERO);
            let _ = tokio::time::timeout(CATCH_UP_TIMEOUT, reached).await;
        }
    }
    next.run(request).await
}
