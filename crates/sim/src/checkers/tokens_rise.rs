//! Fencing tokens rise with every tenure of a group, over its recreations too, and a resource that checks them never takes an
//! older holder's write after a newer one's (guarantee 4).

use std::collections::BTreeMap;

use quorate_coord::{Event, Phase, TenureKey};
use quorate_replica::AppliedEntry;
use quorate_types::{FencingToken, GroupName};

use super::{Verdict, Violation};

/// Tokens granted, and tokens presented.
#[derive(Debug, Default)]
pub struct Tokens {
    granted: BTreeMap<GroupName, (TenureKey, FencingToken)>,
    written: BTreeMap<GroupName, (FencingToken, u64)>,
    /// How many grants were looked at.
    pub granted_count: u64,
    /// How many writes were looked at.
    pub written_count: u64,
}

impl Tokens {
    /// An entry was applied for the first time.
    ///
    /// # Errors
    /// A tenure's token does not exceed those before, or a tenure's token changed.
    pub fn on_committed(&mut self, entry: &AppliedEntry) -> Verdict {
        for event in &entry.events {
            let Event::Transition { to, tenure, .. } = event else {
                continue;
            };
            if *to == Phase::Vacant {
                continue;
            }
            self.on_grant(&tenure.key, tenure.token)?;
        }
        Ok(())
    }

    fn on_grant(&mut self, tenure: &TenureKey, token: FencingToken) -> Verdict {
        self.granted_count += 1;
        let name = tenure.group.name.clone();
        match self.granted.insert(name, (tenure.clone(), token)) {
            Some((before, known)) if before == *tenure && known == token => Ok(()),
            Some((before, known)) if before == *tenure || token <= known => Err(violation(
                format!("{tenure:?} has token {token}, after {before:?} with token {known}"),
            )),
            _ => Ok(()),
        }
    }

    /// A resource took a write of `writer` (any number that tells tenures apart) with this token.
    ///
    /// # Errors
    /// It took a newer one before, or the same token from another writer.
    pub fn on_write(&mut self, group: &GroupName, token: FencingToken, writer: u64) -> Verdict {
        self.written_count += 1;
        match self.written.insert(group.clone(), (token, writer)) {
            Some((before, _)) if token < before => Err(violation(format!(
                "the resource of {group:?} took a write with token {token} after one with {before}"
            ))),
            Some((before, other)) if token == before && writer != other => Err(violation(format!(
                "two tenures of {group:?} wrote with token {token}"
            ))),
            _ => Ok(()),
        }
    }
}

fn violation(what: String) -> Violation {
    Violation {
        checker: "tokens_rise",
        guarantee: "4: fencing tokens still rise: a resource that checks them rejects the old one",
        what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_coord::GroupKey;
    use quorate_types::{Revision, TenureNumber};

    fn tenure(created: u64, number: u64) -> TenureKey {
        let name = GroupName::new("g").unwrap();
        TenureKey {
            group: GroupKey {
                name,
                created: Revision(created),
            },
            number: TenureNumber(number),
        }
    }

    #[test]
    fn a_token_that_does_not_rise_is_reported() {
        let mut tokens = Tokens::default();
        assert!(tokens.on_grant(&tenure(1, 1), FencingToken(5)).is_ok());
        assert!(tokens.on_grant(&tenure(1, 1), FencingToken(5)).is_ok());
        assert!(tokens.on_grant(&tenure(1, 2), FencingToken(6)).is_ok());
        assert!(
            tokens.on_grant(&tenure(9, 1), FencingToken(6)).is_err(),
            "the same over a recreation"
        );
        let mut tokens = Tokens::default();
        assert!(tokens.on_grant(&tenure(1, 1), FencingToken(5)).is_ok());
        assert!(
            tokens.on_grant(&tenure(1, 1), FencingToken(7)).is_err(),
            "a tenure has one token"
        );
    }

    #[test]
    fn an_old_holders_write_after_a_new_ones_is_reported() {
        let group = GroupName::new("g").unwrap();
        let mut tokens = Tokens::default();
        assert!(tokens.on_write(&group, FencingToken(5), 1).is_ok());
        assert!(tokens.on_write(&group, FencingToken(7), 2).is_ok());
        assert!(tokens.on_write(&group, FencingToken(5), 1).is_err());
        let mut tokens = Tokens::default();
        assert!(tokens.on_write(&group, FencingToken(5), 1).is_ok());
        assert!(tokens.on_write(&group, FencingToken(5), 2).is_err());
    }
}
