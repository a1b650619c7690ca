//! Base64 of the JSON gateway: the standard alphabet, padded, refused with the words that etcd's gateway uses.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of each letter; 255 for what is none.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut n = 0;
    while n < ALPHABET.len() {
        values[ALPHABET[n] as usize] = n as u8;
        n += 1;
    }
    values
};

/// The text is not base64 from this byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal base64 data at input byte {at}")]
pub(super) struct Illegal {
    at: usize,
}

/// Appends the text of some bytes.
pub(super) fn encode(bytes: &[u8], to: &mut String) {
    to.reserve(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            if n <= chunk.len() {
                let letter = (bits >> (18 - 6 * n)) & 63;
                to.push(char::from(ALPHABET[letter as usize]));
            } else {
                to.push('=');
            }
        }
    }
}

/// The bytes of a text. Line ends within it are passed over, as etcd's gateway does.
///
/// # Errors
/// [`Illegal`]: the caller sent something else.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, Illegal> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut letters = text
        .bytes()
        .enumerate()
        .filter(|(_, letter)| !matches!(letter, b'\r' | b'\n'));
    loop {
        let mut bits = 0_u32;
        let mut start = text.len();
        for n in 0..4 {
            let Some((at, letter)) = letters.next() else {
                // Within a group of four that began at `start`, the padding is missing.
                return if n == 0 {
                    Ok(bytes)
                } else {
                    Err(Illegal { at: start })
                };
            };
            start = if n == 0 { at } else { start };
            if letter == b'=' {
                if n < 2 {
                    return Err(Illegal { at });
                }
                if n == 2 {
                    match letters.next() {
                        Some((_, b'=')) => {}
                        Some((at, _)) => return Err(Illegal { at }),
                        None => return Err(Illegal { at: text.len() }),
                    }
                }
                if let Some((at, _)) = letters.next() {
                    return Err(Illegal { at });
                }
                // `n` letters hold `6 n` bits: one byte of two letters, two of three.
                let aligned = bits << (6 * (4 - n));
                bytes.extend_from_slice(&aligned.to_be_bytes()[1..n]);
                return Ok(bytes);
            }
            let value = VALUES[usize::from(letter)];
            if value == 255 {
                return Err(Illegal { at });
            }
            bits = bits << 6 | u32::from(value);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_every_length_come_back() {
        for length in 0..70_u8 {
            let bytes: Vec<u8> = (0..length).map(|n| n.wrapping_mul(151) ^ length).collect();
            let mut text = String::new();
            encode(&bytes, &mut text);
            assert_eq!(text.len() % 4, 0);
            assert_eq!(decode(&text), Ok(bytes), "{text}");
        }
        let mut text = String::new();
        encode(b"any carnal pleas", &mut text);
        assert_eq!(text, "YW55IGNhcm5hbCBwbGVhcw==");
        assert_eq!(decode("Zm9v\r\nYg==").unwrap(), b"foob");
    }

    #[test]
    fn what_is_no_base64_is_refused_at_the_byte_that_etcd_names() {
        let at = |text| decode(text).unwrap_err().at;
        // Recorded from the real one: the first three.
        assert_eq!(at("***"), 0);
        assert_eq!(at("Zm9"), 0);
        assert_eq!(at("_-8="), 0);
        assert_eq!(at("Zm9vZg"), 4);
        assert_eq!(at("Zm-v"), 2);
        assert_eq!(at("Z==="), 1);
        assert_eq!(at("Zg="), 3);
        assert_eq!(at("Zg=x"), 3);
        assert_eq!(at("Zg==Zg=="), 4);
    }
}
