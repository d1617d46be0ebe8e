//! Random inputs: Gaussian vectors of unit length, the same on every machine with any number of threads.

use maxsim::{DType, DataBuf, Error, ScaleMode, TensorRef, quantize_fp8, quantize_int8};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::operand::{Layout, Operand, OwnedScales};

/// Rows made from one seed; also what one thread makes at a time.
const ROWS: usize = 256;

/// Makes inputs.
pub(crate) struct Inputs {
    /// Seed of everything.
    pub(crate) seed: u64,
    /// Threads to use.
    pub(crate) threads: usize,
}

impl Inputs {
    /// `shape` is `[.., L, d]`; with `ragged`, lengths of `ragged..=L`. `stream` keeps operands apart.
    pub(crate) fn padded(
        &self,
        stream: u64,
        shape: &[usize],
        ragged: Option<usize>,
        dtype: DType,
    ) -> maxsim::Result<Operand> {
        let [outer @ .., len, dim] = shape else {
            return Err(Error::shape("shape", "rank 3 or 4", format!("{shape:?}")));
        };
        let rows = product(&[outer, &[*len]].concat())?;
        let count = product(outer)?;
        let lengths = ragged.map(|low| self.lengths(stream, count, low, *len));
        let (data, scales) = self.vectors(stream, rows, *dim, dtype)?;
        let layout = Layout::Padded { shape: shape.to_vec(), lengths };
        Ok(Operand { data, scales, dim: *dim, layout, mask: None })
    }

    /// `count` sequences of `len` tokens, or of `ragged..=len`, behind one another.
    pub(crate) fn packed(
        &self,
        stream: u64,
        count: usize,
        len: usize,
        dim: usize,
        ragged: Option<usize>,
        dtype: DType,
    ) -> maxsim::Result<Operand> {
        let offsets = self.offsets(stream, count, ragged.unwrap_or(len), len)?;
        let rows = offsets[count] as usize;
        let (data, scales) = self.vectors(stream, rows, dim, dtype)?;
        Ok(Operand { data, scales, dim, layout: Layout::Packed { offsets }, mask: None })
    }

    /// `count` indices below `below`.
    pub(crate) fn indices(&self, stream: u64, count: usize, below: usize) -> Vec<u32> {
        let mut rng = self.rng(stream, u64::MAX);
        // With nothing to point at, index 0 is what validation names.
        (0..count).map(|_| rng.random_range(0..below.max(1)) as u32).collect()
    }

    /// `count` Gaussian numbers.
    pub(crate) fn gaussians(&self, stream: u64, count: usize) -> maxsim::Result<Vec<f32>> {
        let mut rng = self.rng(stream, u64::MAX - 3);
        product(&[count])?;
        Ok((0..count).map(|_| StandardNormal.sample(&mut rng)).collect())
    }

    /// `count` random bytes.
    pub(crate) fn bytes(&self, stream: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.rng(stream, u64::MAX - 2).fill(&mut bytes[..]);
        bytes
    }

    /// Where `count` sequences of `low..=high` tokens start, behind one another.
    pub(crate) fn offsets(
        &self,
        stream: u64,
        count: usize,
        low: usize,
        high: usize,
    ) -> maxsim::Result<Vec<u32>> {
        let most = product(&[count, high])?;
        if most >= maxsim::MAX_TOKENS {
            return Err(too_large(format!("{most} tokens")));
        }
        let lengths = self.lengths(stream, count, low, high);
        let ends = lengths.iter().scan(0, |total, length| {
            *total += length;
            Some(*total)
        });
        Ok(std::iter::once(0).chain(ends).collect())
    }

    fn lengths(&self, stream: u64, count: usize, low: usize, high: usize) -> Vec<u32> {
        let mut rng = self.rng(stream, u64::MAX - 1);
        (0..count).map(|_| rng.random_range(low..=high) as u32).collect()
    }

    fn rng(&self, stream: u64, block: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ block);
        rng
    }

    fn vectors(
        &self,
        stream: u64,
        rows: usize,
        dim: usize,
        dtype: DType,
    ) -> maxsim::Result<(DataBuf, Option<OwnedScales>)> {
        let elements = product(&[rows, dim])?;
        let mut values: Vec<f32> = Vec::new();
        values
            .try_reserve_exact(elements)
            .map_err(|_| Error::OutOfMemory { requested: 4 * elements as u64 })?;
        values.resize(elements, 0.0);
        let blocks: Vec<(usize, &mut [f32])> = values.chunks_mut(ROWS * dim).enumerate().collect();
        let share = blocks.len().div_ceil(self.threads.max(1)).max(1);
        std::thread::scope(|scope| {
            let mut blocks = blocks.into_iter();
            loop {
                let mine: Vec<_> = blocks.by_ref().take(share).collect();
                if mine.is_empty() {
                    break;
                }
                scope.spawn(move || {
                    for (block, values) in mine {
                        fill(&mut self.rng(stream, block as u64), values, dim);
                    }
                });
            }
        });
        if !dtype.is_quantized() {
            let converted = (dtype != DType::F32).then(|| DataBuf::from_f32(&values, dtype));
            return Ok((converted.unwrap_or(DataBuf::F32(values)), None));
        }
        let vectors = TensorRef::new(&values, &[rows, dim])?;
        let quantized = match dtype {
            DType::I8 => quantize_int8(&vectors, ScaleMode::PerToken)?,
            _ => quantize_fp8(&vectors, ScaleMode::PerToken)?,
        };
        Ok((quantized.values.into_data(), Some(OwnedScales::PerToken(quantized.scales))))
    }
}

fn fill(rng: &mut ChaCha8Rng, values: &mut [f32], dim: usize) {
    for vector in values.chunks_exact_mut(dim) {
        vector.fill_with(|| StandardNormal.sample(rng));
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        vector.iter_mut().for_each(|x| *x /= norm);
    }
}

fn product(extents: &[usize]) -> maxsim::Result<usize> {
    let product = extents.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
    // Half the address space at four bytes an element: what a Vec can ever hold.
    product.filter(|&n| n <= isize::MAX as usize / 4).ok_or_else(|| too_large(format!("{extents:?}")))
}

fn too_large(got: String) -> Error {
    Error::Limit {
        argument: "shape".into(),
        limit: format!("{} tokens per call", maxsim::MAX_TOKENS - 1),
        got,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(threads: usize) -> Inputs {
        Inputs { seed: 7, threads }
    }

    #[test]
    fn vectors_have_unit_length_and_do_not_depend_on_threads() {
        let one = inputs(1).padded(0, &[3, 200, 5], None, DType::F32).unwrap();
        let many = inputs(3).padded(0, &[3, 200, 5], None, DType::F32).unwrap();
        let other = inputs(1).padded(1, &[3, 200, 5], None, DType::F32).unwrap();
        assert_eq!(one.data, many.data);
        assert_ne!(one.data, other.data);
        let tokens = one.tokens().unwrap();
        for row in 0..tokens.slots() {
            let norm: f32 = tokens.vector(row).iter().map(|x| x * x).sum();
            assert!((norm - 1.0).abs() < 1e-5, "row {row}: {norm}");
        }
    }

    #[test]
    fn quantised_vectors_use_the_whole_range() {
        for (dtype, largest) in [(DType::I8, 127.0), (DType::E4M3, 448.0)] {
            let side = inputs(1).padded(0, &[2, 3, 8], None, dtype).unwrap();
            let tokens = side.tokens().unwrap();
            for row in 0..6 {
                let max = tokens.vector(row).iter().fold(0f32, |m, x| m.max(x.abs()));
                assert_eq!(max, largest, "{dtype} row {row}");
            }
        }
    }

    #[test]
    fn ragged_lengths_stay_in_range_and_differ() {
        let side = inputs(1).packed(0, 50, 9, 4, Some(2), DType::F32).unwrap();
        let tokens = side.tokens().unwrap();
        let lengths: Vec<usize> = (0..50).map(|i| tokens.rows(i).len()).collect();
        assert!(lengths.iter().all(|l| (2..=9).contains(l)), "{lengths:?}");
        assert!(lengths.contains(&2) && lengths.contains(&9), "{lengths:?}");
    }

    #[test]
    fn impossible_sizes_are_errors() {
        let huge = inputs(1).padded(0, &[usize::MAX, 2, 8], None, DType::F32);
        assert_eq!(huge.err().map(|e| e.code().as_str()), Some("ERR_LIMIT"));
    }
}
