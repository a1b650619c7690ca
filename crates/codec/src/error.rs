//! Why bytes were not understood.

/// Bytes could not be decoded. What to do depends on where they came from: a peer's connection is closed, a file refuses to load.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// There are no bytes.
    #[error("{what} is empty")]
    Empty {
        /// What was decoded.
        what: &'static str,
    },
    /// A newer version wrote them: upgrade this one.
    #[error(
        "{what} has format version {found}; this version reads up to {supported}: upgrade this server"
    )]
    Version {
        /// What was decoded.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The newest version understood.
        supported: u8,
    },
    /// They are not what they should be.
    #[error("{what} is malformed")]
    Malformed {
        /// What was decoded.
        what: &'static str,
        /// Why.
        #[source]
        source: postcard::Error,
    },
    /// Bytes are left over.
    #[error("{what} has {count} bytes too many")]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// How many.
        count: usize,
    },
}
