//! Files whose checksums and hashes are right and whose content is not: what no mutation of bytes would ever find.
//!
//! Written anew from the formats' documentation in `storage`, so that it also checks that the two agree.

use crate::input::Input;

/// A log whose segments continue each other, but where the input says otherwise.
pub(crate) struct Log {
    segment: u64,
    slot_bytes: u32,
    number: u64,
    chain: [u8; 32],
    vote: (u64, u64),
    purged: (u64, u64),
    next: u64,
}

impl Log {
    pub(crate) fn new(input: &mut Input<'_>) -> Self {
        let start = input.number(1);
        Self {
            segment: input.number(1),
            slot_bytes: 4096,
            number: input.number(0),
            chain: [0; 32],
            vote: (0, 0),
            purged: (start.wrapping_sub(1), 0),
            next: start,
        }
    }

    /// The name of the next segment.
    pub(crate) fn name(&mut self, input: &mut Input<'_>) -> String {
        let name = format!("log-{:016x}.seg", self.segment);
        self.segment = input.number(self.segment.wrapping_add(1));
        name
    }

    /// One whole segment.
    pub(crate) fn segment(&mut self, input: &mut Input<'_>) -> (String, Vec<u8>) {
        // An old format, a new one, or slots of another size: now and then.
        let odd = input.u8();
        let format = if odd == 1 { u32::from(input.u16()) } else { 1 };
        if odd == 2 {
            self.slot_bytes = u32::try_from(input.number(4096) & 0xffff_ffff).expect("masked");
        }
        if odd == 3 {
            self.next = input.number(self.next);
            self.purged = (input.number(self.purged.0), input.number(self.purged.1));
            self.vote = (input.number(self.vote.0), input.number(self.vote.1));
            self.number = input.number(self.number);
        }
        let mut bytes = self.header(format);
        let slot = usize::try_from(self.slot_bytes).expect("it fits");
        // A slot larger than a file of ours is only claimed.
        let slot_in_file = slot.min(16 << 10);
        let data_at = 4096 + 2 * slot_in_file;
        bytes.resize(data_at, 0);
        let segment = self.segment;
        for _ in 0..input.below(5) {
            let payload = self.operations(input);
            let offset = bytes.len() as u64 + (2 * (slot - slot_in_file)) as u64;
            self.number = self.number.wrapping_add(1);
            let frame = seal(1, segment, offset, self.number, &self.chain, &payload);
            self.chain = frame[40..72].try_into().expect("32 bytes");
            let slot_at = 4096 + usize::from(self.number % 2 == 1) * slot_in_file;
            let copy = if frame.len() <= slot_in_file {
                frame.clone()
            } else {
                seal(2, segment, offset, self.number, &self.chain, &self.chain)
            };
            let copied = copy.len().min(slot_in_file);
            bytes[slot_at..slot_at + copied].copy_from_slice(&copy[..copied]);
            bytes.extend(frame);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        (self.name(input), bytes)
    }

    fn header(&self, format: u32) -> Vec<u8> {
        let mut bytes = b"quorlog\n".to_vec();
        bytes.extend(format.to_le_bytes());
        bytes.extend(self.slot_bytes.to_le_bytes());
        bytes.extend(self.segment.to_le_bytes());
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.chain);
        for field in [
            self.vote.0,
            self.vote.1,
            self.purged.0,
            self.purged.1,
            self.next,
        ] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.resize(124, 0);
        with_crc(bytes)
    }

    /// The operations of one batch: mostly such as may follow, at times any.
    fn operations(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..input.below(5) {
            match input.below(8) {
                0..=3 => {
                    let index = input.number(self.next);
                    let count = usize::from(input.u8());
                    let body = if input.below(16) == 0 {
                        vec![7; 5_000]
                    } else {
                        input.take(count).to_vec()
                    };
                    bytes.push(1);
                    bytes.extend(index.to_le_bytes());
                    bytes.extend(input.number(self.vote.0).to_le_bytes());
                    let len = u32::try_from(body.len()).expect("it is short");
                    bytes.extend(len.to_le_bytes());
                    bytes.extend(body);
                    self.next = index.wrapping_add(1);
                }
                4 => {
                    let from = input.number(self.next.wrapping_sub(1));
                    bytes.push(2);
                    bytes.extend(from.to_le_bytes());
                    self.next = from;
                }
                5 => {
                    let through = input.number(self.next.wrapping_sub(1));
                    let term = input.number(self.vote.0);
                    bytes.push(3);
                    bytes.extend(through.to_le_bytes());
                    bytes.extend(term.to_le_bytes());
                    self.purged = (through, term);
                    self.next = self.next.max(through.wrapping_add(1));
                }
                6 => {
                    self.vote = (input.number(self.vote.0), input.number(1));
                    bytes.push(4);
                    bytes.extend(self.vote.0.to_le_bytes());
                    bytes.extend(self.vote.1.to_le_bytes());
                }
                _ => {
                    let count = usize::from(input.u8());
                    bytes.extend(input.take(count));
                }
            }
        }
        bytes
    }
}

fn seal(
    kind: u32,
    segment: u64,
    offset: u64,
    number: u64,
    before: &[u8; 32],
    payload: &[u8],
) -> Vec<u8> {
    let mut fields = b"qlfr".to_vec();
    fields.extend(kind.to_le_bytes());
    for field in [segment, offset, number] {
        fields.extend(field.to_le_bytes());
    }
    let len = u32::try_from(payload.len()).expect("it is short");
    fields.extend(len.to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(before).update(&fields).update(payload);
    let chain = *hasher.finalize().as_bytes();
    let crc = [fields.as_slice(), &chain, payload]
        .into_iter()
        .fold(0, crc32c::crc32c_append);
    [&fields, crc.to_le_bytes().as_slice(), &chain, payload].concat()
}

/// The bytes, and their checksum.
pub(crate) fn with_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// A snapshot's file around any content, with any sizes declared.
pub(crate) fn snapshot(index: u64, term: u64, input: &mut Input<'_>) -> Vec<u8> {
    let odd = input.u8();
    let format = if odd == 1 { u32::from(input.u16()) } else { 1 };
    let (index, term) = (
        if odd == 2 { input.number(index) } else { index },
        if odd == 3 { input.number(term) } else { term },
    );
    let packs = input.below(4) > 0;
    let count = usize::from(input.u16());
    let content = input.take(count);
    let packed = if packs {
        zstd::bulk::compress(content, 1).expect("packing into memory cannot fail")
    } else {
        content.to_vec()
    };
    let plain_bytes = if odd == 4 {
        input.number(content.len() as u64)
    } else {
        content.len() as u64
    };
    let packed_bytes = if odd == 5 {
        input.number(packed.len() as u64)
    } else {
        packed.len() as u64
    };
    let mut header = b"quorsnap".to_vec();
    header.extend(format.to_le_bytes());
    header.extend(0_u32.to_le_bytes());
    for field in [index, term, plain_bytes, packed_bytes] {
        header.extend(field.to_le_bytes());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header).update(&packed);
    let hash = *hasher.finalize().as_bytes();
    [header.as_slice(), &hash, &packed].concat()
}

/// Changes a few bytes, or cuts the end off.
pub(crate) fn damage(bytes: &mut Vec<u8>, input: &mut Input<'_>) {
    for _ in 0..input.below(4) {
        let at = usize::from(input.u16());
        let xor = input.u8();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= xor;
        }
    }
    if input.below(8) == 1 {
        bytes.truncate(usize::from(input.u16()));
    }
}
