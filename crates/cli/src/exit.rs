//! Exit codes, and the failure that carries one with a hint.

use std::fmt;

/// What a script can tell from the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It failed, for a reason that no other code names.
    Failed = 1,
    /// The command line or a file it names is wrong. Nothing was done.
    Usage = 2,
    /// What it names does not exist. Nothing was done.
    NotFound = 3,
    /// Something is not as the command expects: it exists already, or has changed. Nothing was done.
    Conflict = 4,
    /// No server could serve it. Nothing was done: try again.
    Unavailable = 5,
    /// It may or may not have been done: look before trying again.
    Unknown = 6,
    /// The leadership or lock under which COMMAND ran was lost.
    Lost = 7,
}

/// The table of codes as `quorate --help` prints it.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage or configuration; nothing was done
  3  not found; nothing was done
  4  conflict: exists already, has changed, or a condition does not hold; nothing was done
  5  unavailable: no server could serve it; nothing was done, try again
  6  unknown: it may or may not have been done; look before trying again
  7  leadership lost (`contend --once`), or the lock (`lock`)
`contend` and `lock` otherwise end with the exit code of COMMAND (128 + the signal that killed it).";

/// A failure with its exit code and what the user can do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    pub(crate) fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
