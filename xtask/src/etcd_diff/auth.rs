//! Draws what is asked of users, roles and permissions: in episodes, at whose end authentication is off again.

use fastrand::Rng;
use quorate_wire::etcd::{authpb, etcdserverpb as pb};

use super::generate::prefix_end;
use super::ops::{Answer, Op, Step, Who};
use super::side::ROOT_PASSWORD;

const USERS: &[&str] = &["root", "alice", "bob", "carol"];
const ROLES: &[&str] = &["root", "reader", "writer", "all"];
const PASSWORDS: &[&str] = &["secret", "other", ""];
const KEYS: &[&[u8]] = &[b"a", b"b", b"a/", b"c", b"\0", b"", b"z"];

/// Setting up, living under permissions, and taking them away.
#[derive(Debug, Default)]
pub(crate) struct Episode {
    batches: u32,
    is_enabled: bool,
}

impl Episode {
    /// The next operations; `None` at the end.
    pub(crate) fn batch(&mut self, rng: &mut Rng) -> Option<Vec<Step>> {
        self.batches += 1;
        // While authentication is off, etcd 3.4 refuses tokens that it does not know, and etcd 3.5 and ours do not look at them: they
        // would do different things.
        if self.batches > 1 && !self.is_enabled {
            return None;
        }
        let mut steps = Vec::new();
        match self.batches {
            1 => {
                for _ in 0..rng.usize(5..20) {
                    steps.extend(all_by(&Who::Nobody, administration(rng)));
                }
                if rng.u32(0..4) == 0 {
                    // Too early, where there is no root yet.
                    steps.push(by(Who::Nobody, Op::AuthEnable(pb::AuthEnableRequest {})));
                }
                steps.extend(root());
                for _ in 0..rng.usize(30..80) {
                    steps.extend(all_by(&Who::Nobody, administration(rng)));
                }
                steps.extend(root());
                steps.extend(USERS[1..].iter().flat_map(|user| able(rng, user)));
                steps.push(by(Who::Nobody, Op::AuthEnable(pb::AuthEnableRequest {})));
                steps.push(by(Who::Nobody, Op::AuthEnable(pb::AuthEnableRequest {})));
                steps.push(authenticate("root", ROOT_PASSWORD));
                steps.extend(
                    USERS[1..]
                        .iter()
                        .map(|user| authenticate(user, PASSWORDS[0])),
                );
            }
            2..7 => {
                for _ in 0..rng.usize(5..15) {
                    let user = USERS[rng.usize(1..USERS.len())];
                    let password = password(rng);
                    match rng.u32(0..10) {
                        0..6 => steps.push(authenticate(user, password)),
                        6 if rng.u32(0..4) == 0 => steps.push(authenticate("nobody", "secret")),
                        6..9 => {
                            steps.extend(all_by(&Who::User("root"), administration(rng)));
                        }
                        _ => {
                            let who = self.somebody(rng);
                            steps.extend(all_by(&who, administration(rng)));
                        }
                    }
                }
                steps.push(authenticate("root", ROOT_PASSWORD));
            }
            // By somebody who may not, or may, being granted the role root.
            7 => {
                let who = self.somebody(rng);
                steps.push(by(who, Op::AuthDisable(pb::AuthDisableRequest {})));
            }
            8..10 => {
                steps.push(authenticate("root", ROOT_PASSWORD));
                let disable = Op::AuthDisable(pb::AuthDisableRequest {});
                steps.push(by(Who::User("root"), disable));
                steps.push(authenticate("root", ROOT_PASSWORD));
            }
            _ => return None,
        }
        Some(steps)
    }

    /// Who asks next.
    pub(crate) fn somebody(&self, rng: &mut Rng) -> Who {
        if !self.is_enabled {
            return Who::Nobody;
        }
        match rng.u32(0..12) {
            0 if rng.bool() => Who::Nobody,
            0 => Who::Forger,
            1..3 => Who::User("root"),
            _ => Who::User(USERS[rng.usize(1..USERS.len())]),
        }
    }

    /// Whether the key space is asked for between its steps.
    pub(crate) fn is_guarded(&self) -> bool {
        self.batches < 7
    }

    /// Learns whether authentication is on.
    pub(crate) fn learn(&mut self, step: &Step, answer: &Answer) {
        match (&step.op, answer) {
            (Op::AuthEnable(_), Answer::AuthEnable(_)) => self.is_enabled = true,
            (Op::AuthDisable(_), Answer::AuthDisable(_)) => self.is_enabled = false,
            _ => {}
        }
    }
}

fn by(who: Who, op: Op) -> Step {
    Step { op, who }
}

fn all_by(who: &Who, ops: Vec<Op>) -> Vec<Step> {
    ops.into_iter().map(|op| by(who.clone(), op)).collect()
}

/// The token is kept under the user's name.
fn authenticate(user: &'static str, password: &str) -> Step {
    let request = pb::AuthenticateRequest {
        name: user.to_owned(),
        password: password.to_owned(),
    };
    by(Who::User(user), Op::Authenticate(request))
}

/// A root that can enable authentication, and disable it again.
fn root() -> [Step; 3] {
    let user = pb::AuthUserAddRequest {
        name: "root".to_owned(),
        password: ROOT_PASSWORD.to_owned(),
        options: Some(authpb::UserAddOptions { no_password: false }),
        ..Default::default()
    };
    let role = pb::AuthRoleAddRequest {
        name: "root".to_owned(),
    };
    let grant = pb::AuthUserGrantRoleRequest {
        user: "root".to_owned(),
        role: "root".to_owned(),
    };
    [Op::UserAdd(user), Op::RoleAdd(role), Op::UserGrant(grant)].map(|op| by(Who::Nobody, op))
}

/// A user that can authenticate, with a role that permits something.
fn able(rng: &mut Rng, user: &str) -> Vec<Step> {
    let role = ROLES[rng.usize(1..ROLES.len())].to_owned();
    let user = user.to_owned();
    let password = PASSWORDS[0].to_owned();
    let mut ops = vec![
        Op::UserAdd(pb::AuthUserAddRequest {
            name: user.clone(),
            password: password.clone(),
            options: Some(authpb::UserAddOptions { no_password: false }),
            ..Default::default()
        }),
        Op::UserPassword(pb::AuthUserChangePasswordRequest {
            name: user.clone(),
            password,
            ..Default::default()
        }),
        Op::RoleAdd(pb::AuthRoleAddRequest { name: role.clone() }),
    ];
    ops.extend(grant(rng, role.clone()));
    ops.push(Op::UserGrant(pb::AuthUserGrantRoleRequest { user, role }));
    all_by(&Who::Nobody, ops)
}

/// A permission. Taken back before: one that is granted again replaces itself in ours, and in etcd not always.
fn grant(rng: &mut Rng, role: String) -> [Op; 2] {
    let (key, range_end) = permitted(rng);
    [
        Op::RoleRevoke(pb::AuthRoleRevokePermissionRequest {
            role: role.clone(),
            key: key.clone().into(),
            range_end: range_end.clone().into(),
        }),
        Op::RoleGrant(pb::AuthRoleGrantPermissionRequest {
            name: role,
            perm: Some(authpb::Permission {
                perm_type: rng.i32(0..3),
                key: key.into(),
                range_end: range_end.into(),
            }),
        }),
    ]
}

/// What etcd 3.4 and 3.5 answer alike.
fn administration(rng: &mut Rng) -> Vec<Op> {
    // Not root: its password must stay what it is, and it must stay able to disable.
    let user = if rng.u32(0..40) == 0 {
        ""
    } else {
        USERS[rng.usize(1..USERS.len())]
    }
    .to_owned();
    let role = if rng.u32(0..40) == 0 {
        ""
    } else {
        ROLES[rng.usize(1..ROLES.len())]
    }
    .to_owned();
    let any_user = USERS[rng.usize(0..USERS.len())].to_owned();
    let any_role = ROLES[rng.usize(0..ROLES.len())].to_owned();
    let password = password(rng).to_owned();
    let op = match rng.u32(0..100) {
        0..14 => Op::UserAdd(pb::AuthUserAddRequest {
            name: user,
            password,
            options: match rng.u32(0..6) {
                0 => None,
                1 => Some(authpb::UserAddOptions { no_password: true }),
                _ => Some(authpb::UserAddOptions { no_password: false }),
            },
            ..Default::default()
        }),
        // Seldom, or there would be nobody left.
        24..30 if rng.bool() => Op::RoleList(pb::AuthRoleListRequest {}),
        14..20 => Op::UserGet(pb::AuthUserGetRequest { name: any_user }),
        20..24 => Op::UserList(pb::AuthUserListRequest {}),
        24..30 => Op::UserDelete(pb::AuthUserDeleteRequest { name: user }),
        30..34 => Op::UserPassword(pb::AuthUserChangePasswordRequest {
            name: user,
            password,
            ..Default::default()
        }),
        34..46 => Op::UserGrant(pb::AuthUserGrantRoleRequest {
            user,
            role: any_role,
        }),
        46..52 => Op::UserRevoke(pb::AuthUserRevokeRoleRequest {
            name: user,
            role: any_role,
        }),
        52..62 => Op::RoleAdd(pb::AuthRoleAddRequest { name: role }),
        62..70 => Op::RoleGet(pb::AuthRoleGetRequest { role: any_role }),
        70..74 => Op::RoleList(pb::AuthRoleListRequest {}),
        74..78 => Op::RoleDelete(pb::AuthRoleDeleteRequest { role }),
        78..93 => return grant(rng, role).into(),
        _ => {
            let (key, range_end) = keys(rng);
            Op::RoleRevoke(pb::AuthRoleRevokePermissionRequest {
                role,
                key: key.into(),
                range_end: range_end.into(),
            })
        }
    };
    vec![op]
}

/// Mostly the right one.
fn password(rng: &mut Rng) -> &'static str {
    match rng.u32(0..10) {
        0 => PASSWORDS[1],
        1 => PASSWORDS[2],
        _ => PASSWORDS[0],
    }
}

/// A range that may be permitted: etcd 3.5 and ours refuse one that holds nothing, 3.4 takes it.
fn permitted(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    loop {
        let (key, end) = keys(rng);
        if !key.is_empty() && (end.is_empty() || end == [0] || key < end) {
            return (key, end);
        }
    }
}

fn keys(rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let key = KEYS[rng.usize(0..KEYS.len())].to_vec();
    let end = match rng.u32(0..6) {
        0..2 => Vec::new(),
        2 => vec![0],
        3..5 => prefix_end(&key),
        _ => KEYS[rng.usize(0..KEYS.len())].to_vec(),
    };
    (key, end)
}
