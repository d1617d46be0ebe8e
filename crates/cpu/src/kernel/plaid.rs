//! Search over an index: which centroids to probe, and approximate scores from a table of bytes.
//!
//! A byte per similarity keeps the table of 32 query tokens and 16,384 centroids in half a megabyte, and 32 maxima in one
//! 256-bit instruction. Plain Rust: inlined into a level's function it becomes that level's vector instructions.

/// Columns of the byte table are a multiple of this.
pub(crate) const COLUMNS: usize = 32;

/// Whether any similarity of `row` is above its bar.
#[inline(always)]
pub(crate) fn beats(row: &[f32], bars: &[f32]) -> bool {
    // No early exit: most rows hold nothing, and all lanes at once are one comparison.
    row.iter().zip(bars).fold(false, |any, (x, bar)| any | (x > bar))
}

/// How one panel's columns of a table of similarities become bytes: `(x · factor − low) · scale`, rounded.
pub(crate) struct Rounding<'a> {
    /// Factor of every column, 0 for those that take no part.
    pub(crate) factors: &'a [f32],
    /// What every column starts at: `0.5 − low · scale`, 0 for those that take no part.
    pub(crate) starts: &'a [f32],
    /// Bytes of a row of the result.
    pub(crate) stride: usize,
    /// First of the panel's columns in it.
    pub(crate) column: usize,
}

/// Rounds rows `[n][width]` into rows of `stride` bytes. What is NaN becomes 0, the least there is.
#[inline(always)]
pub(crate) fn round_rows(rounding: &Rounding<'_>, from: &[f32], to: &mut [u8]) {
    let Rounding { factors, starts, stride, column } = *rounding;
    let width = factors.len();
    for (row, to) in from.chunks_exact(width).zip(to.chunks_exact_mut(stride)) {
        let to = &mut to[column..column + width];
        for ((to, x), (factor, start)) in to.iter_mut().zip(row).zip(factors.iter().zip(starts)) {
            // Casts saturate, and NaN is 0. By way of i32 they are vector instructions.
            *to = (x * factor + start).clamp(0.0, 255.0) as i32 as u8;
        }
    }
}

/// Sum over the columns of a byte table of the largest entry among the rows `codes`.
#[inline(always)]
pub(crate) fn approx(table: &[u8], stride: usize, codes: &[u32]) -> u32 {
    let mut sum = 0;
    for at in (0..stride).step_by(COLUMNS) {
        let mut best = [0u8; COLUMNS];
        for &code in codes {
            let start = code as usize * stride + at;
            let row: &[u8; COLUMNS] = table[start..start + COLUMNS].try_into().expect("as long as that");
            for (best, &x) in best.iter_mut().zip(row) {
                *best = (*best).max(x);
            }
        }
        sum += best.iter().map(|&x| u32::from(x)).sum::<u32>();
    }
    sum
}
