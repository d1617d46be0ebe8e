//! How the documents of a cross product are cut into pieces for the blocks of `forward/warpgroup.cuh`: pure.

use std::ops::Range;

use crate::params::Piece;

/// Rows of the boxes that ends of pieces are copied in.
pub(crate) const PART: u32 = 32;
/// Rows that leaving a document to several blocks costs, in the time it takes to stream them: the last block has to hear from
/// the others.
const JOIN: u32 = 512;
/// The fewest rows of a chunk.
const CHUNK: u32 = 128;
/// Rows of the small pieces at the end that blocks take as they become free.
const SMALL: Range<u32> = 256..1024;

/// Pieces of a cross product's documents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Split {
    /// In order; tiles are left open.
    pub(crate) pieces: Vec<Piece>,
    /// Rows of a chunk where documents are cut, counted from `row_begin`; 0: every document lies in one piece.
    pub(crate) chunk_rows: u32,
    pub(crate) row_begin: u32,
    /// Whether blocks take what is left as they become free.
    pub(crate) shared: bool,
}

impl Split {
    /// Pieces of `documents`, at least one: the rows of document `j` are `offsets[j]..offsets[j + 1]`. `workers` blocks share
    /// them, each for one of `tiles` tiles of queries; pieces begin at multiples of `align` rows.
    pub(crate) fn new(offsets: &[u32], documents: &Range<u32>, tiles: u32, workers: u32, align: u32) -> Self {
        let cut = Cut { offsets, documents, align };
        let rows = cut.rows();
        if tiles > workers {
            // Enough that the last round is short.
            let chunks = (4 * workers).div_ceil(tiles);
            return cut.by_documents((1..chunks).map(|c| rows * u64::from(c) / u64::from(chunks)), false);
        }
        let chunks = u64::from(workers / tiles);
        let longest = documents.clone().map(|j| cut.rows_of(j)).max().unwrap_or(0);
        if tiles == 1 && u64::from(longest) * 16 <= rows / chunks {
            // Most of the rows in equal parts, and the others to whoever is done first: some multiprocessors are further from
            // memory than others.
            let large = rows * 7 / 8 / chunks;
            let rest = rows - large * chunks;
            let small = (rest / (8 * chunks)).clamp(SMALL.start.into(), SMALL.end.into());
            let ends = (1..=chunks).map(|c| c * large);
            return cut
                .by_documents(ends.chain((1..=rest / small).map(|c| chunks * large + c * small)), true);
        }
        let whole = cut.by_documents((1..chunks).map(|c| rows * c / chunks), false);
        let most = whole.pieces.iter().map(|p| p.row_end - p.row).max().unwrap_or(0);
        let part = (rows.div_ceil(chunks) as u32).next_multiple_of(PART).max(CHUNK);
        if most <= part + JOIN { whole } else { cut.by_rows(part) }
    }
}

struct Cut<'a> {
    offsets: &'a [u32],
    documents: &'a Range<u32>,
    align: u32,
}

impl Cut<'_> {
    fn begin(&self) -> u32 {
        self.offsets[self.documents.start as usize]
    }

    fn rows(&self) -> u64 {
        u64::from(self.offsets[self.documents.end as usize] - self.begin())
    }

    fn rows_of(&self, j: u32) -> u32 {
        self.offsets[j as usize + 1] - self.offsets[j as usize]
    }

    /// The first document, from the first one on, for which `holds` no longer does.
    fn document(&self, holds: impl Fn(u32) -> bool) -> u32 {
        let (mut low, mut high) = (self.documents.start, self.documents.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn aligned(&self, row: u32) -> u32 {
        row - row % self.align
    }

    /// Whole documents, cut where they begin nearest to `rows`, which are counted from the first.
    fn by_documents(&self, rows: impl Iterator<Item = u64>, shared: bool) -> Split {
        let mut starts = vec![self.documents.start];
        for row in rows {
            let row = u64::from(self.begin()) + row;
            let at = |j: u32| u64::from(self.offsets[j as usize]);
            let after = self.document(|j| at(j) < row);
            let nearer_before =
                after > self.documents.start && row - at(after - 1) <= at(after).saturating_sub(row);
            let start = if nearer_before { after - 1 } else { after };
            if start > starts[starts.len() - 1] && start < self.documents.end {
                starts.push(start);
            }
        }
        starts.push(self.documents.end);
        let piece = |window: &[u32]| Piece {
            row: self.aligned(self.offsets[window[0] as usize]),
            row_end: self.offsets[window[1] as usize],
            document: window[0],
            document_end: window[1],
            ..Piece::default()
        };
        Split { pieces: starts.windows(2).map(piece).collect(), chunk_rows: 0, row_begin: 0, shared }
    }

    /// Equal rows, whatever documents they are of.
    fn by_rows(&self, chunk_rows: u32) -> Split {
        let row_begin = self.aligned(self.begin());
        let end = self.offsets[self.documents.end as usize];
        let count = (end - row_begin).div_ceil(chunk_rows).max(1);
        let piece = |chunk: u32| {
            let row = row_begin + chunk * chunk_rows;
            let row_end = end.min(row.saturating_add(chunk_rows));
            let document = match chunk {
                0 => self.documents.start,
                _ => self.document(|j| self.offsets[j as usize + 1] <= row),
            };
            let ended = self.document(|j| self.offsets[j as usize + 1] <= row_end);
            let begun = ended < self.documents.end && self.offsets[ended as usize] < row_end;
            Piece { row, row_end, document, document_end: ended + u32::from(begun), ..Piece::default() }
        };
        Split { pieces: (0..count).map(piece).collect(), chunk_rows, row_begin, shared: false }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every row of every document is in one piece that knows the document, and every document ends in one.
        #[test]
        fn pieces_hold_everything_once(
            lengths in proptest::collection::vec(prop_oneof![Just(0u32), 1u32..400, 300u32..301, 1000u32..20_000], 1..200),
            cut in 0.0f64..0.5,
            tiles in 1u32..40,
            workers in 1u32..300,
            align in prop_oneof![Just(1u32), Just(4)],
        ) {
            let mut offsets = vec![0];
            offsets.extend(lengths.iter().scan(0, |sum, length| { *sum += length; Some(*sum) }));
            let start = (cut * lengths.len() as f64) as u32;
            let documents = start..lengths.len() as u32;
            let split = Split::new(&offsets, &documents, tiles, workers, align);
            let mut row = offsets[start as usize];
            let mut ended = start;
            for piece in &split.pieces {
                prop_assert!(piece.row <= row && row - piece.row < align, "{piece:?} after row {row}");
                prop_assert!(piece.row % align == 0);
                prop_assert!(piece.document < piece.document_end);
                prop_assert_eq!(piece.document, ended);
                for j in piece.document..piece.document_end {
                    prop_assert!(offsets[j as usize] < piece.row_end || offsets[j as usize + 1] <= piece.row_end);
                    if offsets[j as usize + 1] <= piece.row_end { ended = j + 1; }
                }
                prop_assert!(ended + 1 >= piece.document_end);
                row = piece.row_end;
            }
            prop_assert_eq!(row, offsets[lengths.len()]);
            prop_assert_eq!(ended, documents.end);
            if split.chunk_rows > 0 {
                for (c, piece) in split.pieces.iter().enumerate() {
                    prop_assert_eq!(piece.row, split.row_begin + c as u32 * split.chunk_rows);
                }
            }
        }
    }

    #[test]
    fn work_is_even() {
        let uniform = |count: u32, rows: u32| (0..=count).map(|j| j * rows).collect::<Vec<u32>>();
        let most = |split: &Split| split.pieces.iter().map(|p| p.row_end - p.row).max().expect("pieces");
        // Four documents a block here and there are as good as 3.8 everywhere.
        let split = Split::new(&uniform(1000, 300), &(0..1000), 1, 264, 1);
        assert_eq!((split.chunk_rows, split.shared, most(&split)), (0, false, 1200));
        // Few huge documents are cut.
        let split = Split::new(&uniform(32, 16_384), &(0..32), 1, 264, 1);
        assert_eq!((split.pieces.len(), split.chunk_rows), (261, 2016));
        // Many documents end in small pieces.
        let split = Split::new(&uniform(10_000, 300), &(0..10_000), 1, 264, 1);
        assert!(split.shared && split.pieces.len() > 1000 && most(&split) < 10_300);
        assert!(split.pieces[264..].iter().all(|p| p.row_end - p.row <= 600));
    }
}
