//! The Auth service: users, roles, permissions, and tokens for those who know a password.
//!
//! Deliberately absent: the rules (`coord`), how tokens and passwords are made (`token`, `passwords`).

use std::sync::Arc;

use quorate_coord::kv::{
    Access, AuthChange, AuthError, AuthStore, KeyRange, KvCaller, Permission, Secret,
};
use quorate_coord::{Command, Reply};
use quorate_types::WallTime;
use quorate_wire::etcd::authpb;
use quorate_wire::etcd::etcdserverpb as pb;
use quorate_wire::etcd::etcdserverpb::auth_server::Auth;
use tonic::{Request, Response, Status};

use super::token::Token;
use super::{Caller, Etcd, check_size, errors};
use crate::publish::Version;

/// Bytes of the key that tokens are signed with.
const TOKEN_KEY_BYTES: usize = 32;

/// The user may only authenticate by certificate. etcd gives this one no code of its own.
fn no_password() -> Status {
    Status::unknown("auth: authentication failed, password was given for no password user")
}

fn failed() -> Status {
    errors::of_auth(&AuthError::AuthFailed)
}

fn draw_token_key() -> Result<Secret, Status> {
    let mut key = Vec::with_capacity(TOKEN_KEY_BYTES);
    while key.len() < TOKEN_KEY_BYTES {
        let bytes = crate::clock::random_u64()
            .map_err(|error| Status::internal(format!("quorate: no random key: {error}")))?;
        key.extend(bytes.to_le_bytes());
    }
    Ok(Secret::from(key.as_slice()))
}

fn permission(permission: &authpb::Permission) -> Result<Permission, AuthError> {
    let access = match authpb::permission::Type::try_from(permission.perm_type) {
        Ok(authpb::permission::Type::Read) => Access::Read,
        Ok(authpb::permission::Type::Write) => Access::Write,
        Ok(authpb::permission::Type::Readwrite) => Access::ReadWrite,
        Err(_) => return Err(AuthError::InvalidManagement),
    };
    Ok(Permission {
        access,
        range: KeyRange {
            key: permission.key.to_vec().into(),
            range_end: permission.range_end.to_vec().into(),
        },
    })
}

fn permission_pb(permission: &Permission) -> authpb::Permission {
    let kind = match permission.access {
        Access::Read => authpb::permission::Type::Read,
        Access::Write => authpb::permission::Type::Write,
        Access::ReadWrite => authpb::permission::Type::Readwrite,
    };
    authpb::Permission {
        perm_type: kind.into(),
        key: permission.range.key.to_vec().into(),
        range_end: permission.range.range_end.to_vec().into(),
    }
}

impl Etcd {
    /// Changes users or roles; answers with the header.
    async fn change<T>(
        &self,
        request: &Request<T>,
        change: AuthChange,
    ) -> Result<Option<pb::ResponseHeader>, Status>
    where
        T: prost::Message,
    {
        check_size(request.get_ref())?;
        let caller = self.caller(request)?;
        self.change_as(&caller, change).await
    }

    async fn change_as(
        &self,
        caller: &Caller,
        change: AuthChange,
    ) -> Result<Option<pb::ResponseHeader>, Status> {
        let command = Command::Auth {
            caller: caller.user.clone(),
            change,
        };
        match self.apply(caller, command).await? {
            Reply::AuthChanged { .. } => {}
            other => return Err(errors::unexpected(&other)),
        }
        let version = self.api.publisher.version();
        Ok(Some(self.header(version.state.kv().revision())))
    }

    /// A version that holds all that was acknowledged before, and its users and roles allow the question.
    async fn consult<T>(
        &self,
        request: &Request<T>,
        question: impl FnOnce(&AuthStore, Option<&KvCaller>) -> Result<(), AuthError>,
    ) -> Result<(Arc<Version>, Option<pb::ResponseHeader>), Status> {
        let caller = self.caller(request)?;
        let version = self.read(&caller, false).await?;
        caller.check(version.state.auth(), question)?;
        let header = self.header(version.state.kv().revision());
        Ok((version, Some(header)))
    }
}

#[tonic::async_trait]
impl Auth for Etcd {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let token_key = draw_token_key()?;
        let header = self
            .change(&request, AuthChange::Enable { token_key })
            .await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.change(&request, AuthChange::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        request: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        let (version, header) = self.consult(&request, AuthStore::check_admin).await?;
        let auth = version.state.auth();
        Ok(Response::new(pb::AuthStatusResponse {
            header,
            enabled: auth.is_enabled(),
            auth_revision: auth.revision(),
        }))
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        check_size(request.get_ref())?;
        let caller = self.caller(&request)?;
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let version = self.read(&caller, false).await?;
        let auth = version.state.auth();
        let Some(key) = auth.token_key() else {
            return Err(errors::of_auth(&AuthError::NotEnabled));
        };
        let stored = match auth.user(&name) {
            Some(user) => Some(user.password.clone().ok_or_else(no_password)?),
            None => None,
        };
        if !self.passwords.matches(password, stored).await? {
            tracing::info!(user = name, "a user failed to authenticate");
            return Err(failed());
        }
        let ttl = self.passwords.token_ttl();
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let token = Token {
            user: name,
            revision: auth.revision(),
            index: version.state.applied().0,
            expires: WallTime(crate::clock::wall().0.saturating_add(ttl_ms)),
        };
        Ok(Response::new(pb::AuthenticateResponse {
            header: Some(self.header(version.state.kv().revision())),
            token: token.sign(key.as_bytes()),
        }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        check_size(request.get_ref())?;
        let caller = self.caller(&request)?;
        // Before a password is hashed, which costs much: only those who may add users make us do it.
        self.consult(&request, AuthStore::check_admin).await?;
        let request = request.into_inner();
        let password = match request.options {
            Some(options) if options.no_password => None,
            _ => Some(self.passwords.hash(request.password).await?),
        };
        let name = request.name;
        let change = AuthChange::AddUser { name, password };
        let header = self.change_as(&caller, change).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let name = &request.get_ref().name;
        let question = |auth: &AuthStore, user: Option<&KvCaller>| auth.check_user(user, name);
        let (version, header) = self.consult(&request, question).await?;
        let user = version.state.auth().user(name);
        let user = user.ok_or_else(|| errors::of_auth(&AuthError::UserNotFound))?;
        let roles = user.roles.iter().cloned().collect();
        Ok(Response::new(pb::AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (version, header) = self.consult(&request, AuthStore::check_admin).await?;
        let users = version.state.auth().users();
        let users = users.map(|(name, _)| name.to_owned()).collect();
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let name = request.get_ref().name.clone();
        let header = self
            .change(&request, AuthChange::DeleteUser { name })
            .await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        check_size(request.get_ref())?;
        let caller = self.caller(&request)?;
        self.consult(&request, AuthStore::check_admin).await?;
        let request = request.into_inner();
        let (name, password) = (request.name, self.passwords.hash(request.password).await?);
        let change = AuthChange::ChangePassword { name, password };
        let header = self.change_as(&caller, change).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let pb::AuthUserGrantRoleRequest { user, role } = request.get_ref().clone();
        let header = self
            .change(&request, AuthChange::GrantRole { user, role })
            .await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let pb::AuthUserRevokeRoleRequest { name: user, role } = request.get_ref().clone();
        let header = self
            .change(&request, AuthChange::RevokeRole { user, role })
            .await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let name = request.get_ref().name.clone();
        let header = self.change(&request, AuthChange::AddRole { name }).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let role = &request.get_ref().role;
        let question = |auth: &AuthStore, user: Option<&KvCaller>| auth.check_role(user, role);
        let (version, header) = self.consult(&request, question).await?;
        let role = version.state.auth().role(role);
        let role = role.ok_or_else(|| errors::of_auth(&AuthError::RoleNotFound))?;
        let perm = role.permissions().iter().map(permission_pb).collect();
        Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (version, header) = self.consult(&request, AuthStore::check_admin).await?;
        let roles = version.state.auth().roles();
        let roles = roles.map(|(name, _)| name.to_owned()).collect();
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let name = request.get_ref().role.clone();
        let header = self
            .change(&request, AuthChange::DeleteRole { name })
            .await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let pb::AuthRoleGrantPermissionRequest { name: role, perm } = request.get_ref().clone();
        // Who may not is told that first, as everywhere.
        self.consult(&request, AuthStore::check_admin).await?;
        let permission = perm
            .ok_or(AuthError::PermissionNotGiven)
            .and_then(|asked| permission(&asked))
            .map_err(|error| errors::of_auth(&error))?;
        let change = AuthChange::GrantPermission { role, permission };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse {
            header,
        }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let message = request.get_ref();
        let change = AuthChange::RevokePermission {
            role: message.role.clone(),
            range: KeyRange {
                key: message.key.to_vec().into(),
                range_end: message.range_end.to_vec().into(),
            },
        };
        let header = self.change(&request, change).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse {
            header,
        }))
    }
}
