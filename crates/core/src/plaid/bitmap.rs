//! Sets of documents.

/// A set of document numbers below `len`, one bit each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bitmap {
    words: Vec<u32>,
    len: usize,
}

impl Bitmap {
    /// No document of `len`.
    pub fn empty(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(32)], len }
    }

    /// All documents of `len`.
    pub fn full(len: usize) -> Self {
        let mut bitmap = Self { words: vec![u32::MAX; len.div_ceil(32)], len };
        bitmap.clear_tail();
        bitmap
    }

    /// Bits in words of 32, lowest first; bits behind `len` do not count. `None` on another number of words.
    pub fn from_words(mut words: Vec<u32>, len: usize) -> Option<Self> {
        if words.len() != len.div_ceil(32) {
            return None;
        }
        words.shrink_to_fit();
        let mut bitmap = Self { words, len };
        bitmap.clear_tail();
        Some(bitmap)
    }

    /// The set of the given numbers; `None` if one is not below `len`.
    pub fn of(len: usize, documents: impl IntoIterator<Item = usize>) -> Option<Self> {
        let mut bitmap = Self::empty(len);
        for document in documents {
            if document >= len {
                return None;
            }
            bitmap.insert(document);
        }
        Some(bitmap)
    }

    fn clear_tail(&mut self) {
        if let (Some(last), tail @ 1..) = (self.words.last_mut(), self.len % 32) {
            *last &= (1 << tail) - 1;
        }
    }

    /// How many numbers it is about, not how many it holds.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is about no numbers at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Numbers in the set.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether `document` is in the set. Panics if it is not below `len`.
    pub fn contains(&self, document: usize) -> bool {
        assert!(document < self.len);
        self.words[document / 32] >> (document % 32) & 1 != 0
    }

    /// Adds `document`. Panics if it is not below `len`.
    pub fn insert(&mut self, document: usize) {
        assert!(document < self.len);
        self.words[document / 32] |= 1 << (document % 32);
    }

    /// Takes `document` out. Panics if it is not below `len`.
    pub fn remove(&mut self, document: usize) {
        assert!(document < self.len);
        self.words[document / 32] &= !(1 << (document % 32));
    }

    /// Keeps what `other` holds too. Panics if it is about another number of documents.
    pub fn intersect(&mut self, other: &Self) {
        assert_eq!(self.len, other.len);
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    /// Appends the numbers of `other`, counted on from `len`.
    pub fn append(&mut self, other: &Self) {
        let first = self.len;
        self.len += other.len;
        self.words.resize(self.len.div_ceil(32), 0);
        other.iter().for_each(|document| self.insert(first + document));
    }

    /// The numbers in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut word = word;
            std::iter::from_fn(move || {
                let bit = word.checked_ilog2().map(|_| word.trailing_zeros())?;
                word &= word - 1;
                Some(i * 32 + bit as usize)
            })
        })
    }

    /// Bits in words of 32, lowest first; bits behind `len` are 0.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_behave() {
        let mut all = Bitmap::full(70);
        assert_eq!((all.count(), all.words().len(), all.words()[2]), (70, 3, 0b11_1111));
        all.remove(33);
        let some = Bitmap::of(70, [1, 33, 64, 69]).unwrap();
        assert_eq!(some.iter().collect::<Vec<_>>(), [1, 33, 64, 69]);
        all.intersect(&some);
        assert_eq!(all.iter().collect::<Vec<_>>(), [1, 64, 69]);
        all.append(&Bitmap::of(3, [0, 2]).unwrap());
        assert_eq!((all.len(), all.iter().collect::<Vec<_>>()), (73, vec![1, 64, 69, 70, 72]));
        assert!(Bitmap::of(3, [3]).is_none());
        assert_eq!(Bitmap::from_words(vec![u32::MAX], 3).unwrap(), Bitmap::full(3));
        assert!(Bitmap::from_words(vec![], 3).is_none());
    }
}
