//! Names that users choose, checked where they enter.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name of a group, node or principal, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 512;

/// Why a name was refused. The caller should ask its user for another name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name has no characters.
    #[error("the name is empty; give it 1 to {NAME_BYTES_MAX} bytes")]
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("the name has {bytes} bytes; at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The name holds a control character.
    #[error("the name holds the control character {character:?} at byte {at}; remove it")]
    Control {
        /// The character.
        character: char,
        /// Its byte offset.
        at: usize,
    },
}

fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    match name.char_indices().find(|(_, c)| c.is_control()) {
        Some((at, character)) => Err(NameError::Control { character, at }),
        None => Ok(()),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// # Invariants
        /// - 1 to [`NAME_BYTES_MAX`] bytes, no control characters; decoding checks it too.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// [`NameError`]: ask the user for another name.
            pub fn new(name: &str) -> Result<Self, NameError> {
                check(name)?;
                Ok(Self(Arc::from(name)))
            }

            /// The name itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name! {
    /// A group's name: a path such as `orders/0042`.
    GroupName
}
name! {
    /// The name of a node of the service, unique among live sessions.
    NodeName
}
name! {
    /// Who asked: a certificate's subject, or `anonymous` where no certificate was shown.
    Principal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_out_of_bounds_are_refused_and_say_why() {
        assert_eq!(GroupName::new(""), Err(NameError::Empty));
        assert_eq!(
            GroupName::new(&"x".repeat(513)),
            Err(NameError::TooLong { bytes: 513 })
        );
        assert!(GroupName::new(&"x".repeat(512)).is_ok());
        assert_eq!(
            GroupName::new("a\nb"),
            Err(NameError::Control {
                character: '\n',
                at: 1
            })
        );
    }
}
