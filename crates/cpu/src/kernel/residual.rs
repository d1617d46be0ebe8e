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
    let (whole, rest) = to.as_chunks_mut::<F>();
    let (centroids, centroid_rest) = centroid.as_chunks::<F>();
    for ((x, c), &byte) in whole.iter_mut().zip(centroids).zip(bytes) {
        let weights = &table[usize::from(byte)];
        for i in 0..F {
            x[i] = c[i] + weights[i];
        }
    }
    // `d` that is no multiple of the fields of a byte.
    if let Some(&byte) = bytes.get(whole.len()) {
        for ((x, c), w) in rest.iter_mut().zip(centroid_rest).zip(&table[usize::from(byte)]) {
            *x = c + w;
        }
    }
}
