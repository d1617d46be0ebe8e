//! Inverted lists in about a byte per entry: differences in LEB128.

use super::SegmentParts;
use crate::error::{Error, Result};

/// Documents of an inverted list, ascending.
///
/// A list is stored as what lies between its documents: the number of documents left out before each, in LEB128 (seven bits per byte,
/// low ones first, the top bit set in all but the last byte).
#[derive(Debug, Clone)]
pub struct List<'a> {
    /// What is left of the list, checked.
    bytes: &'a [u8],
    /// The least document that can come next.
    next: u32,
}

impl<'a> List<'a> {
    /// A list that [`check`] passed.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0 }
    }
}

impl Iterator for List<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let (&byte, mut rest) = self.bytes.split_first()?;
        let mut gap = u32::from(byte & 0x7f);
        if byte >= 0x80 {
            let mut shift = 7;
            while let Some((&byte, behind)) = rest.split_first() {
                gap |= u32::from(byte & 0x7f) << shift;
                (rest, shift) = (behind, shift + 7);
                if byte < 0x80 {
                    break;
                }
            }
        }
        self.bytes = rest;
        let document = self.next + gap;
        self.next = document + 1;
        Some(document)
    }
}

/// Checks lists that may hold anything: whole numbers in their shortest form, of documents below `documents`.
pub(super) fn check(offsets: &[u32], bytes: &[u8], documents: usize) -> Result<()> {
    for list in offsets.windows(2) {
        let (mut at, end) = (list[0] as usize, list[1] as usize);
        let mut next = 0u64;
        while at < end {
            let start = at;
            let (mut gap, mut shift) = (0u64, 0);
            loop {
                let Some(&byte) = bytes[..end].get(at).filter(|_| shift < 35) else {
                    return Err(Error::index("list_entries", start, "a number of at most 5 bytes", "more"));
                };
                at += 1;
                gap |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    if byte == 0 && shift > 0 {
                        return Err(Error::index(
                            "list_entries",
                            start,
                            "numbers in their shortest form",
                            "a longer one",
                        ));
                    }
                    break;
                }
                shift += 7;
            }
            let document = next + gap;
            if document >= documents as u64 {
                let expected = format!("below {documents} documents");
                return Err(Error::index("list_entries", start, expected, document.to_string()));
            }
            next = document + 1;
        }
    }
    Ok(())
}

/// Offsets and bytes of the inverted lists that checked codes make.
pub(super) fn invert(parts: &SegmentParts, centroids: usize) -> Result<(Vec<u32>, Vec<u8>)> {
    // Per cell the last document that was counted, plus one: a document counts once.
    let mut next = vec![0u32; centroids];
    let each = |next: &mut [u32], found: &mut dyn FnMut(usize, u32)| {
        for (document, rows) in (0u32..).zip(parts.offsets.windows(2)) {
            for &code in &parts.codes[rows[0] as usize..rows[1] as usize] {
                let next = &mut next[code as usize];
                if *next <= document {
                    found(code as usize, document - *next);
                    *next = document + 1;
                }
            }
        }
    };
    let mut lengths = vec![0u64; centroids];
    each(&mut next, &mut |code, gap| lengths[code] += leb128(gap).count() as u64);
    let mut offsets = vec![0u32; centroids + 1];
    let mut end = 0u64;
    for (offset, length) in offsets[1..].iter_mut().zip(lengths) {
        end += length;
        *offset = u32::try_from(end).map_err(|_| Error::Limit {
            argument: "codes".into(),
            limit: format!("{} bytes of inverted lists per segment", u32::MAX),
            got: end.to_string(),
        })?;
    }
    let mut bytes = vec![0u8; end as usize];
    let mut places = offsets.clone();
    next.fill(0);
    each(&mut next, &mut |code, gap| {
        for byte in leb128(gap) {
            bytes[places[code] as usize] = byte;
            places[code] += 1;
        }
    });
    Ok((offsets, bytes))
}

fn leb128(number: u32) -> impl Iterator<Item = u8> {
    let rest = std::iter::successors(Some(number), |number| Some(number >> 7).filter(|&rest| rest > 0));
    rest.map(|rest| (rest & 0x7f) as u8 | if rest > 0x7f { 0x80 } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::f16;

    fn parts(offsets: Vec<u32>, codes: Vec<u32>) -> SegmentParts {
        let norms = vec![f16::ONE; codes.len()];
        SegmentParts {
            offsets: offsets.into(),
            residuals: vec![0; codes.len()].into(),
            inv_norms: norms.into(),
            codes: codes.into(),
            list_offsets: Vec::new().into(),
            list_entries: Vec::new().into(),
        }
    }

    #[test]
    fn lists_are_those_of_the_codes() {
        // Cell 0 is in every document, cell 1 in one of 200, cell 2 in one of 20,000; cell 3 in none.
        let documents = 50_000u32;
        let (mut offsets, mut codes) = (vec![0u32], Vec::new());
        for document in 0..documents {
            codes.extend([0, 0]);
            codes.extend((document % 200 == 7).then_some(1));
            codes.extend((document % 20_000 == 19_999).then_some(2));
            codes.push(0);
            offsets.push(codes.len() as u32);
        }
        let (starts, bytes) = invert(&parts(offsets, codes), 4).unwrap();
        check(&starts, &bytes, documents as usize).unwrap();
        let list = |c: usize| List::new(&bytes[starts[c] as usize..starts[c + 1] as usize]);
        assert!(list(0).eq(0..documents));
        assert!(list(1).eq((7..documents).step_by(200)));
        assert!(list(2).eq([19_999, 39_999]));
        assert_eq!((list(3).next(), starts[1], starts[2]), (None, documents, documents + 2 * 250 - 1));
        assert_eq!(check(&starts, &bytes, 49_999).unwrap_err().argument(), Some("list_entries"));
    }

    #[test]
    fn numbers_take_the_bytes_they_need() {
        for (number, bytes) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u32::MAX, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            assert_eq!(leb128(number).collect::<Vec<u8>>(), bytes);
        }
    }

    #[test]
    fn lists_made_to_deceive_are_refused() {
        let fails = |bytes: &[u8]| check(&[0, bytes.len() as u32], bytes, u32::MAX as usize).is_err();
        assert!(!fails(&[5, 0, 0x80, 1]));
        assert!(fails(&[0x80]), "cut");
        assert!(fails(&[5, 0x80, 0]), "longer than needed");
        assert!(fails(&[0xff, 0xff, 0xff, 0xff, 0xff, 1]), "longer than any");
        assert!(fails(&[0xff, 0xff, 0xff, 0xff, 0x7f]), "beyond 32 bits");
        assert!(fails(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]), "beyond the documents");
        // A number must not go on in the next list.
        assert!(check(&[0, 1, 2], &[0x80, 1], 1000).is_err());
    }
}
