//! The format of a backup: one snapshot in a file of its own, to be kept elsewhere. Bytes only.
//!
//! ```text
//! "QRTBACK1"  plain length (8, little endian)  packed length (8)  packed bytes (zstd)  zeros up to a multiple of 512
//! BLAKE3 of all before (32)
//! ```
//! The last two lines make tools of etcd, which expect pages and a checksum of 32 bytes behind them, keep such a file, too.

/// What every backup begins with.
const MAGIC: &[u8; 8] = b"QRTBACK1";
const HEADER: usize = 24;
const PAGE: usize = 512;
const CHECKSUM: usize = 32;
const LEVEL: i32 = 1;

/// Why a file is not a backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It begins with something else.
    #[error("this is not a backup of Quorate: it begins with something else")]
    Foreign,
    /// It ends too early, or goes on too long.
    #[error(
        "the backup has {found} bytes, {expected} expected: it was cut off, or something was added"
    )]
    Length {
        /// How many there are.
        found: u64,
        /// How many there should be.
        expected: u64,
    },
    /// Its bytes changed.
    #[error("the backup's checksum is wrong: it changed after it was made")]
    Rotten,
    /// It does not unpack.
    #[error("the backup does not unpack")]
    Unpack(#[source] std::io::Error),
}

/// The bytes of a backup of a snapshot's bytes.
///
/// # Errors
/// What the compressor says; it has no reason to in practice.
pub fn pack_backup(plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(plain, LEVEL)?;
    let mut bytes = Vec::with_capacity(length(packed.len()));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(plain.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&(packed.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&packed);
    bytes.resize(length(packed.len()) - CHECKSUM, 0);
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    Ok(bytes)
}

/// The snapshot's bytes in a backup, verified.
///
/// # Errors
/// [`BackupError`]: use another backup.
pub fn unpack_backup(bytes: &[u8]) -> Result<Vec<u8>, BackupError> {
    if bytes.len() < HEADER || &bytes[..MAGIC.len()] != MAGIC {
        return Err(BackupError::Foreign);
    }
    let number = |at: usize| {
        let bytes = bytes[at..at + 8].try_into().expect("eight bytes");
        usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX)
    };
    let (plain, packed) = (number(8), number(16));
    // A length that no file has is a lie: it is compared before anything is made of it.
    let expected = (packed <= bytes.len()).then(|| length(packed));
    if expected != Some(bytes.len()) {
        return Err(BackupError::Length {
            found: bytes.len() as u64,
            expected: expected.map_or(packed as u64, |expected| expected as u64),
        });
    }
    let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if blake3::hash(content).as_bytes().as_slice() != checksum {
        return Err(BackupError::Rotten);
    }
    zstd::bulk::decompress(&content[HEADER..HEADER + packed], plain).map_err(BackupError::Unpack)
}

/// Checks a backup that arrives in pieces, without keeping it: its beginning, its length and its checksum. Whether it unpacks is left
/// open; what has its checksum is what was sent.
///
/// # Invariants
/// - `hasher` has seen all bytes but those in `held`; these are the last ones, at most as many as a checksum has.
#[derive(Clone, Debug, Default)]
pub struct BackupCheck {
    hasher: blake3::Hasher,
    head: Vec<u8>,
    held: Vec<u8>,
    bytes: u64,
}

impl BackupCheck {
    /// The next piece.
    ///
    /// # Errors
    /// [`BackupError::Foreign`]: it is no backup. There is no use in going on.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), BackupError> {
        let missing = HEADER - self.head.len();
        self.head
            .extend_from_slice(&piece[..missing.min(piece.len())]);
        let begun = self.head.len().min(MAGIC.len());
        if self.head[..begun] != MAGIC[..begun] {
            return Err(BackupError::Foreign);
        }
        self.bytes += piece.len() as u64;
        self.held.extend_from_slice(piece);
        let seen = self.held.len().saturating_sub(CHECKSUM);
        self.hasher.update(&self.held[..seen]);
        self.held.drain(..seen);
        Ok(())
    }

    /// That was all.
    ///
    /// # Errors
    /// [`BackupError`]: it is incomplete, or it changed on its way.
    pub fn finish(self) -> Result<(), BackupError> {
        let packed = self.head.get(16..HEADER).ok_or(BackupError::Foreign)?;
        let packed = u64::from_le_bytes(packed.try_into().expect("eight bytes"));
        let expected = match usize::try_from(packed) {
            // What is longer than all that came is a lie, and too large to be reckoned with.
            Ok(known) if packed <= self.bytes => length(known) as u64,
            _ => packed,
        };
        if expected != self.bytes {
            let found = self.bytes;
            return Err(BackupError::Length { found, expected });
        }
        if self.hasher.finalize().as_bytes().as_slice() != self.held {
            return Err(BackupError::Rotten);
        }
        Ok(())
    }
}

/// The length of a backup whose packed part has so many bytes.
fn length(packed: usize) -> usize {
    (HEADER + packed).next_multiple_of(PAGE) + CHECKSUM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_gives_back_what_went_in() {
        for length in [0, 1, 700, 100_000] {
            let plain: Vec<u8> = (0..length).map(|n: u32| (n * 7) as u8).collect();
            let bytes = pack_backup(&plain).unwrap();
            assert_eq!(bytes.len() % PAGE, CHECKSUM);
            assert_eq!(unpack_backup(&bytes).unwrap(), plain);
        }
    }

    /// What a check says of a backup that comes in pieces of this length.
    fn in_pieces(bytes: &[u8], length: usize) -> Result<(), BackupError> {
        let mut check = BackupCheck::default();
        for piece in bytes.chunks(length) {
            check.take(piece)?;
        }
        check.finish()
    }

    #[test]
    fn a_backup_in_pieces_is_found_whole_or_not_as_the_whole_is() {
        let plain: Vec<u8> = (0..5_000_u32).map(|n| (n * n) as u8).collect();
        let bytes = pack_backup(&plain).unwrap();
        for length in [1, 7, 32, 33, 512, bytes.len()] {
            in_pieces(&bytes, length).unwrap();
            let longer = [&bytes[..], &[0]].concat();
            in_pieces(&longer, length).unwrap_err();
            for at in (0..bytes.len())
                .step_by(11)
                .chain([0, 8, 16, bytes.len() - 1])
            {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                // The plain length is the unpacker's: but the checksum is over it, too.
                in_pieces(&changed, length).unwrap_err();
                in_pieces(&bytes[..at], length).unwrap_err();
            }
        }
        let foreign = in_pieces(b"bolt", 1).unwrap_err();
        assert!(matches!(foreign, BackupError::Foreign), "{foreign}");
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_found() {
        let bytes = pack_backup(b"the state of a small cluster").unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(unpack_backup(&changed).is_err(), "byte {at}");
            assert!(unpack_backup(&bytes[..at]).is_err(), "cut at {at}");
        }
        let longer = [bytes, vec![0]].concat();
        assert!(matches!(
            unpack_backup(&longer),
            Err(BackupError::Length { .. })
        ));
        assert!(matches!(unpack_backup(b"bolt"), Err(BackupError::Foreign)));
    }
}
