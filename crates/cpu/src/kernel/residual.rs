//! Residual tokens as f32: centroid plus bucket weights, a table row per byte.

/// `to = centroid + weights of bytes`, where `table` has a row of `8 / nbits` weights for each of the 256 bytes.
///
/// Plain Rust: inlined into a level's function it becomes that level's vector loads and additions.
#[inline(always)]
pub(crate) fn decode(centroid: &[f32], bytes: &[u8], table: &[f32], to: &mut [f32]) {
    match table.len() / 256 {
        1 => fields::<1>(centroid, bytes, table, to),
        2 => fields::<2>(centroid, bytes, table, to),
        4 => fields::<4>(centroid, bytes, table, to),
        _ => fields::<8>(centroid, bytes, table, to),
    }
}

#[inline(always)]
fn fields<const F: usize>(centroid: &[f32], bytes: &[u8], table: &[f32], to: &mut [f32]) {
    let table: &[[f32; F]; 256] = table.as_chunks().0.try_into().expect("256 rows");
    if F == 1 {
        for ((x, c), &byte) in to.iter_mut().zip(centroid).zip(bytes) {
            *x = c + table[usize::from(byte)][0];
        }
        return;
    }
    let (whole, rest) = to.as_chunks_mut::<F>();
    // Weights first, in copies of a table row; adding to them at once makes compilers gather single weights instead.
    for (x, &byte) in whole.iter_mut().zip(bytes) {
        *x = table[usize::from(byte)];
    }
    // `d` that is no multiple of the fields of a byte.
    if let Some(&byte) = bytes.get(whole.len()) {
        rest.copy_from_slice(&table[usize::from(byte)][..rest.len()]);
    }
    for (x, c) in to.iter_mut().zip(centroid) {
        *x += c;
    }
}
