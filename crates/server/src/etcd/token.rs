//! Tokens: what a client shows after it has authenticated. Stateless, signed with a key from the replicated state, so that every server
//! accepts them, after a restart, too (ADR auth-tokens).
//!
//! Deliberately absent: what the user may, which is looked up with each call.

use blake3::Hash;
use quorate_types::{LogIndex, WallTime};

/// Names the form, so that another one can be told from it.
const FORM: &str = "q1";
const CONTEXT: &str = "quorate etcd auth token v1";

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// Who authenticated.
    pub(super) user: String,
    /// At which revision of users and roles.
    pub(super) revision: u64,
    /// What the server that made it had applied. A server that has not cannot judge it yet.
    pub(super) index: LogIndex,
    /// When it ends, by the servers' wall clocks.
    pub(super) expires: WallTime,
}

impl Token {
    /// Its text, signed.
    pub(super) fn sign(&self, key: &[u8]) -> String {
        let user: String = self
            .user
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let claims = format!(
            "{FORM}.{user}.{}.{}.{}",
            self.revision, self.index.0, self.expires.0
        );
        let signature = signature(key, &claims);
        format!("{claims}.{signature}")
    }
}

fn signature(key: &[u8], claims: &str) -> Hash {
    let key = blake3::derive_key(CONTEXT, key);
    blake3::keyed_hash(&key, claims.as_bytes())
}

/// A token as it was shown: nothing in it is to be believed before its signature was checked.
#[derive(Clone)]
pub(super) struct Shown {
    token: Token,
    claims: String,
    signature: Hash,
}

impl Shown {
    /// Reads a text; `None` where it cannot be a token.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (claims, signature) = text.rsplit_once('.')?;
        let signature = Hash::from_hex(signature).ok()?;
        let mut parts = claims.split('.');
        if parts.next()? != FORM {
            return None;
        }
        let user = unhex(parts.next()?)?;
        let mut number = || parts.next()?.parse::<u64>().ok();
        let token = Token {
            user,
            revision: number()?,
            index: LogIndex(number()?),
            expires: WallTime(number()?),
        };
        let claims = claims.to_owned();
        parts.next().is_none().then_some(Self {
            token,
            claims,
            signature,
        })
    }

    /// Up to where a server must have applied before it judges the token. Not to be believed: only to be waited for a little.
    pub(super) fn index(&self) -> LogIndex {
        self.token.index
    }

    /// What it says, if the key signed it and its time is not over.
    pub(super) fn verify(&self, key: &[u8], now: WallTime) -> Option<&Token> {
        // Compared in constant time.
        let is_ours = signature(key, &self.claims) == self.signature;
        (is_ours && now < self.token.expires).then_some(&self.token)
    }
}

fn unhex(text: &str) -> Option<String> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let digits = text.as_bytes().chunks(2);
    let bytes = digits.map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    });
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token {
            user: "älice.1".to_owned(),
            revision: 12,
            index: LogIndex(345),
            expires: WallTime(1_000),
        }
    }

    #[test]
    fn a_token_tells_its_user_until_it_ends() {
        let shown = Shown::parse(&token().sign(b"key")).unwrap();
        assert_eq!(shown.index(), LogIndex(345));
        assert_eq!(shown.verify(b"key", WallTime(999)), Some(&token()));
        assert_eq!(shown.verify(b"key", WallTime(1_000)), None);
        assert_eq!(shown.verify(b"another", WallTime(0)), None);
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed() {
        let text = token().sign(b"key");
        for at in 0..text.len() {
            for byte in [b'0', b'1', b'f', b'.', b' '] {
                let mut changed = text.clone().into_bytes();
                if changed[at] == byte {
                    continue;
                }
                changed[at] = byte;
                let changed = String::from_utf8(changed).unwrap();
                let found = Shown::parse(&changed);
                let found = found
                    .as_ref()
                    .and_then(|shown| shown.verify(b"key", WallTime(0)));
                assert_eq!(found, None, "{changed}");
            }
            assert!(
                Shown::parse(&text[..at])
                    .is_none_or(|shown| shown.verify(b"key", WallTime(0)).is_none())
            );
        }
        for text in ["", ".", "a.b", "q1.1.1.1.1.00", "DarisuFghIQMHrSB.30"] {
            assert!(Shown::parse(text).is_none(), "{text}");
        }
    }
}
