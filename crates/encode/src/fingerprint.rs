//! [`Fingerprint`].

/// A 64-bit hash of byte strings, for the names of caches: eight bytes at a time, so that reading a model's weights takes
/// longer than hashing them.
///
/// Each step is a bijection of the word that comes in, so that no change of a single word goes unseen. Not for adversaries:
/// who can write a user's cache needs no collision. The hash of the same bytes is the same on every machine.
#[derive(Debug, Clone)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// The hash of nothing; different seeds make different hashes of the same bytes.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    }

    /// Adds `bytes` and their number, so that `ab, c` and `a, bc` differ.
    pub fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|&word| self.word(u64::from_le_bytes(word)));
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    /// The hash of all that was added.
    pub fn finish(mut self) -> u64 {
        self.word(0);
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[&[u8]]) -> u64 {
        let mut hash = Fingerprint::new(1);
        parts.iter().for_each(|part| hash.add(part));
        hash.finish()
    }

    #[test]
    fn bytes_and_their_borders_count() {
        let bytes: Vec<u8> = (0..40).collect();
        let whole = hash(&[&bytes]);
        assert_eq!(whole, hash(&[&bytes]));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_ne!(whole, hash(&[&changed]), "byte {at}");
            assert_ne!(whole, hash(&[&bytes[..at], &bytes[at..]]), "split at {at}");
        }
        assert_ne!(hash(&[b"a"]), hash(&[b"a\0"]));
        assert_ne!(hash(&[]), Fingerprint::new(2).finish());
    }
}
