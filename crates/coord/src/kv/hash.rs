//! A checksum over what can be read through a revision, so that members can be compared at one they share.

use std::ops::Bound;

use super::{Blob, KeyValue, KvChange, KvStore};

/// CRC-32C, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

struct Crc(u32);

impl Crc {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let at = (self.0 ^ u32::from(*byte)) & 0xff;
            self.0 = (self.0 >> 8) ^ TABLE[at as usize];
        }
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn blob(&mut self, blob: &Blob) {
        self.number(blob.len() as u64);
        self.bytes(blob);
    }

    fn version(&mut self, kv: &KeyValue) {
        self.bytes(&[1]);
        self.blob(&kv.key);
        self.blob(&kv.value);
        self.number(kv.create_revision);
        self.number(kv.mod_revision);
        self.number(kv.version);
        self.number(kv.lease);
    }
}

impl KvStore {
    /// The checksum of what was there at the last compaction and of the changes since, through a revision (0: the newest). Members that
    /// compacted at one revision agree, however far each has swept. O(n). Clamped to what can be read: refuse other revisions first.
    #[must_use]
    pub fn hash(&self, through_revision: u64) -> u32 {
        let compacted = self.compacted();
        let through = match through_revision {
            0 => self.revision,
            asked => asked.clamp(compacted, self.revision.max(compacted)),
        };
        let mut crc = Crc(!0);
        for kv in self.scan_at((Bound::Unbounded, Bound::Unbounded), compacted) {
            crc.version(kv);
        }
        for change in self.changes(compacted + 1) {
            if change.mod_revision() > through {
                break;
            }
            match change {
                KvChange::Put(kv) => crc.version(kv),
                KvChange::Delete { key, mod_revision } => {
                    crc.bytes(&[2]);
                    crc.blob(key);
                    crc.number(*mod_revision);
                }
            }
        }
        !crc.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{delete, filled, put, run};
    use super::*;

    #[test]
    fn checksum_is_crc_32c() {
        let mut crc = Crc(!0);
        crc.bytes(b"123456789");
        assert_eq!(!crc.0, 0xe306_9283, "the check value of the catalogue");
    }

    #[test]
    fn checksum_through_a_revision_ignores_what_came_later() {
        let mut store = filled(&[("a", "1"), ("b", "1")]);
        let before = store.hash(0);
        run(&mut store, &put("a", "2"));
        run(&mut store, &delete("b"));
        assert_eq!(store.hash(3), before);
        assert_ne!(store.hash(0), before);
        assert_eq!(store.hash(5), store.hash(0));
        assert_eq!(store.hash(99), store.hash(0));
    }

    #[test]
    fn sweeping_does_not_change_the_checksum() {
        let mut store = filled(&[("a", "1"), ("b", "1"), ("a", "2")]);
        run(&mut store, &delete("b"));
        store.compact(4).unwrap();
        let before = store.hash(0);
        assert!(!store.sweep(9));
        assert_eq!(store.hash(0), before);
    }
}
