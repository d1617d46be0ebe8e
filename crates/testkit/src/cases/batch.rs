//! Batches of token sequences, and the rearrangements that must not change a score.

use maxsim_core::{DType, DataBuf, E4M3, Element, Scales, Tokens, dispatch};

use super::Random;

/// What the vectors of a batch hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Normal, of norm about 1.
    Normal,
    /// Normal, of norms from 0.1 to 10.
    Uneven,
    /// Integers from −2 to 2: similarities are exact in every float type, and many are equal.
    Integers,
    /// Three different vectors over and over: most maxima are ties.
    Repeated,
    /// Queries positive, documents negative: every similarity is negative.
    Negative,
    /// Every third vector is zero.
    Zeros,
    /// Norms around 1e-6, where normalisation stops dividing.
    Tiny,
    /// Positive powers of two from 2^-12 to 2^14, beyond what products of f16 hold.
    Wide,
    /// Some elements are ±infinity.
    Infinite,
    /// Some elements are NaN or ±infinity.
    NonFinite,
    /// Queries positive; every second document token has an element of −infinity, so that its similarities are.
    MinusInfinite,
}

impl Values {
    /// All of them.
    pub const ALL: [Values; 11] = [
        Self::Normal,
        Self::Uneven,
        Self::Integers,
        Self::Repeated,
        Self::Negative,
        Self::Zeros,
        Self::Tiny,
        Self::Wide,
        Self::Infinite,
        Self::NonFinite,
        Self::MinusInfinite,
    ];

    /// Whether equal similarities are bit-equal on every backend, so that ties have one right answer.
    pub fn exact_ties(self) -> bool {
        matches!(self, Self::Integers | Self::Repeated)
    }

    /// Whether quantised types can hold them.
    pub fn is_finite(self) -> bool {
        !matches!(self, Self::Infinite | Self::NonFinite | Self::MinusInfinite)
    }
}

/// How sequences are to lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    /// Behind one another, with offsets.
    Packed,
    /// Padded to a length, with prefix lengths.
    Lengths(usize),
    /// Padded to a length, with the padding masked.
    Masked(usize),
}

/// How sequences lie in memory.
#[derive(Debug, Clone, PartialEq)]
pub enum Layout {
    /// `[.., L]` with optional prefix lengths.
    Padded {
        /// Shape without the embedding dimension: `[L]`, `[N, L]` or `[N, K, L]`.
        shape: Vec<usize>,
        /// Prefix lengths.
        lengths: Option<Vec<u32>>,
    },
    /// Offsets.
    Packed {
        /// `[N + 1]`.
        offsets: Vec<u32>,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum OwnedScales {
    PerTensor(f32),
    PerToken(Vec<f32>),
}

/// What to generate.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Layout; what lies behind a length is filled with NaN (or the largest byte).
    pub layout: Layout,
    /// Embedding dimension.
    pub dim: usize,
    /// Element type. Quantised types get per-token scales.
    pub dtype: DType,
    /// What the vectors hold.
    pub values: Values,
    /// Whether this is the query side, where [`Values`] differ by side.
    pub query: bool,
    /// Probability that the mask keeps a token; `None`: no mask. Masked tokens are filled like padding.
    pub keep: Option<f64>,
}

/// An owned batch of token sequences.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Elements.
    pub data: DataBuf,
    /// Embedding dimension.
    pub dim: usize,
    /// Layout.
    pub layout: Layout,
    /// One entry per token slot, true = keep.
    pub mask: Option<Vec<bool>>,
    scales: Option<OwnedScales>,
}

impl Batch {
    /// Generates a batch.
    pub fn generate(random: &mut Random, spec: &Spec) -> Self {
        let slots = match &spec.layout {
            Layout::Padded { shape, .. } => shape.iter().product(),
            Layout::Packed { offsets } => offsets.last().map_or(0, |&o| o as usize),
        };
        let palette: Vec<Vec<f32>> = (0..3).map(|_| normal(random, spec.dim)).collect();
        let mut values = Vec::with_capacity(slots * spec.dim);
        for slot in 0..slots {
            values.extend(vector(random, spec, slot, &palette));
        }
        let mask = spec.keep.map(|keep| (0..slots).map(|_| random.chance(keep)).collect());
        let (data, scales) = encode(&values, spec);
        let mut batch = Self { data, dim: spec.dim, layout: spec.layout.clone(), mask, scales };
        batch.poison();
        batch
    }

    /// The batch as operators take it.
    ///
    /// # Panics
    /// If someone changed a field so that it does not fit the others.
    pub fn tokens(&self) -> Tokens<'_> {
        self.try_tokens().expect("a consistent batch")
    }

    fn try_tokens(&self) -> maxsim_core::Result<Tokens<'_>> {
        let mut tokens = match &self.layout {
            Layout::Padded { shape, lengths } => {
                let shape = [shape.as_slice(), &[self.dim]].concat();
                let tokens = Tokens::padded(&self.data, &shape)?;
                match lengths {
                    Some(lengths) => tokens.with_lengths(lengths)?,
                    None => tokens,
                }
            }
            Layout::Packed { offsets } => Tokens::packed(&self.data, self.dim, offsets)?,
        };
        if let Some(mask) = &self.mask {
            tokens = tokens.with_mask(mask)?;
        }
        if let Some(scales) = &self.scales {
            tokens = tokens.with_scales(match scales {
                OwnedScales::PerTensor(scale) => Scales::PerTensor(*scale),
                OwnedScales::PerToken(scales) => Scales::PerToken(scales),
            })?;
        }
        Ok(tokens)
    }

    /// Number of sequences.
    pub fn count(&self) -> usize {
        self.tokens().count()
    }

    /// Rows of every sequence, masked ones included.
    pub fn sequences(&self) -> Vec<Vec<Option<usize>>> {
        let tokens = self.tokens();
        (0..tokens.count()).map(|i| tokens.rows(i).map(Some).collect()).collect()
    }

    /// Replaces the scales of a quantised batch by one for all.
    pub fn with_tensor_scale(mut self, scale: f32) -> Self {
        self.scales = Some(OwnedScales::PerTensor(scale));
        self
    }

    /// Fills every slot that does not count with values that would show in any score.
    pub fn poison(&mut self) {
        let tokens = self.tokens();
        let mut counts = vec![false; tokens.slots()];
        for row in (0..tokens.count()).flat_map(|i| tokens.rows(i)) {
            counts[row] = tokens.keeps(row);
        }
        let dim = self.dim;
        for slot in (0..counts.len()).filter(|&slot| !counts[slot]) {
            let range = slot * dim..(slot + 1) * dim;
            match &mut self.data {
                DataBuf::F32(v) => v[range].fill(f32::NAN),
                DataBuf::F16(v) => v[range].fill(half_nan()),
                DataBuf::BF16(v) => v[range].fill(maxsim_core::bf16::from_f32(f32::NAN)),
                DataBuf::E4M3(v) => v[range].fill(E4M3(0x7f)),
                DataBuf::I8(v) => v[range].fill(127),
            }
            if let Some(OwnedScales::PerToken(scales)) = &mut self.scales {
                scales[slot] = f32::NAN;
            }
        }
    }

    /// The given sequences of rows in another arrangement; `None` is a slot of padding, which is masked.
    ///
    /// # Panics
    /// If a sequence is longer than the padded length.
    pub fn arranged(&self, sequences: &[Vec<Option<usize>>], arrangement: Arrangement) -> Self {
        let mut rows: Vec<Option<usize>> = Vec::new();
        let mut offsets = vec![0u32];
        for sequence in sequences {
            rows.extend(sequence);
            if let Arrangement::Lengths(len) | Arrangement::Masked(len) = arrangement {
                assert!(sequence.len() <= len, "{} tokens in {len} slots", sequence.len());
                rows.extend(std::iter::repeat_n(None, len - sequence.len()));
            }
            offsets.push(rows.len() as u32);
        }
        let layout = match arrangement {
            Arrangement::Packed => Layout::Packed { offsets },
            Arrangement::Lengths(len) => Layout::Padded {
                shape: vec![sequences.len(), len],
                lengths: Some(sequences.iter().map(|s| s.len() as u32).collect()),
            },
            Arrangement::Masked(len) => Layout::Padded { shape: vec![sequences.len(), len], lengths: None },
        };
        let masked = self.mask.is_some() || rows.contains(&None);
        let keeps = |row: &Option<usize>| row.is_some_and(|row| self.mask.as_ref().is_none_or(|m| m[row]));
        let mut batch = Self {
            data: gather(&self.data, self.dim, &rows),
            dim: self.dim,
            layout,
            mask: masked.then(|| rows.iter().map(keeps).collect()),
            scales: self.scales.as_ref().map(|scales| match scales {
                OwnedScales::PerTensor(scale) => OwnedScales::PerTensor(*scale),
                OwnedScales::PerToken(scales) => OwnedScales::PerToken(
                    rows.iter().map(|row| row.map_or(f32::NAN, |r| scales[r])).collect(),
                ),
            }),
        };
        batch.poison();
        batch
    }

    /// Sequences `which`, in that order, packed.
    pub fn select(&self, which: &[usize]) -> Self {
        let sequences = self.sequences();
        let chosen: Vec<_> = which.iter().map(|&i| sequences[i].clone()).collect();
        self.arranged(&chosen, Arrangement::Packed)
    }
}

fn half_nan() -> maxsim_core::f16 {
    maxsim_core::f16::from_f32(f32::NAN)
}

fn normal(random: &mut Random, dim: usize) -> Vec<f32> {
    let scale = 1.0 / (dim as f32).sqrt();
    (0..dim).map(|_| random.normal() * scale).collect()
}

/// Vector of `slot`.
fn vector(random: &mut Random, spec: &Spec, slot: usize, palette: &[Vec<f32>]) -> Vec<f32> {
    let mut x = normal(random, spec.dim);
    match spec.values {
        Values::Normal => {}
        Values::Uneven => {
            let scale = 10f32.powf(random.normal().clamp(-1.0, 1.0));
            x.iter_mut().for_each(|x| *x *= scale);
        }
        Values::Integers => x.iter_mut().for_each(|x| *x = random.below(5) as f32 - 2.0),
        Values::Repeated => x = palette[random.below(palette.len())].clone(),
        Values::Negative => {
            let sign = if spec.query { 1.0 } else { -1.0 };
            x.iter_mut().for_each(|x| *x = sign * (x.abs() + 0.01));
        }
        Values::Zeros => {
            if slot.is_multiple_of(3) {
                x.fill(0.0);
            }
        }
        Values::Tiny => {
            let scale = [1e-7, 1e-6, 1e-5][random.below(3)];
            x.iter_mut().for_each(|x| *x *= scale);
        }
        Values::Wide => x.iter_mut().for_each(|x| *x = 2f32.powi(random.below(27) as i32 - 12)),
        Values::Infinite | Values::NonFinite => {
            let kinds = if spec.values == Values::Infinite { 2 } else { 3 };
            if random.chance(0.3) {
                let k = random.below(spec.dim);
                x[k] = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN][random.below(kinds)];
            }
        }
        Values::MinusInfinite => {
            x.iter_mut().for_each(|x| *x = x.abs() + 0.01);
            if !spec.query && slot.is_multiple_of(2) {
                let k = random.below(spec.dim);
                x[k] = f32::NEG_INFINITY;
            }
        }
    }
    x
}

/// Values as `spec.dtype`, with per-token scales where it is quantised.
fn encode(values: &[f32], spec: &Spec) -> (DataBuf, Option<OwnedScales>) {
    let largest = match spec.dtype {
        DType::I8 => 127.0,
        DType::E4M3 => E4M3::MAX,
        _ => return (DataBuf::from_f32(values, spec.dtype), None),
    };
    let scales: Vec<f32> = values
        .chunks_exact(spec.dim)
        .map(|x| x.iter().fold(1e-6f32, |largest, x| largest.max(x.abs())) / largest)
        .collect();
    let scaled: Vec<f32> = values.iter().enumerate().map(|(i, x)| x / scales[i / spec.dim]).collect();
    (DataBuf::from_f32(&scaled, spec.dtype), Some(OwnedScales::PerToken(scales)))
}

fn gather(data: &DataBuf, dim: usize, rows: &[Option<usize>]) -> DataBuf {
    fn copy<T: Element>(data: &[T], dim: usize, rows: &[Option<usize>]) -> DataBuf {
        let filler = vec![T::default(); dim];
        let row = |row: &Option<usize>| row.map_or(filler.as_slice(), |r| &data[r * dim..(r + 1) * dim]);
        T::buffer(rows.iter().flat_map(row).copied().collect())
    }
    dispatch!(DataRef, data.as_ref(), |data| copy(data, dim, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: DType) -> Spec {
        Spec {
            layout: Layout::Padded { shape: vec![3, 4], lengths: Some(vec![4, 0, 2]) },
            dim: 5,
            dtype,
            values: Values::Normal,
            query: false,
            keep: Some(0.7),
        }
    }

    #[test]
    fn what_does_not_count_is_poison() {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::E4M3] {
            let batch = Batch::generate(&mut Random::new(1), &spec(dtype));
            let tokens = batch.tokens();
            for row in tokens.rows(2).end..12 {
                assert!(tokens.vector(row).iter().all(|x| x.is_nan()), "{dtype}");
            }
            let kept = (0..3).flat_map(|i| tokens.rows(i)).filter(|&row| tokens.keeps(row));
            assert!(kept.into_iter().all(|row| tokens.vector(row).iter().all(|x| x.is_finite())), "{dtype}");
        }
    }

    #[test]
    fn arranging_keeps_the_vectors() {
        let batch = Batch::generate(&mut Random::new(2), &spec(DType::I8));
        let sequences = batch.sequences();
        for arrangement in [Arrangement::Packed, Arrangement::Lengths(6), Arrangement::Masked(6)] {
            let other = batch.arranged(&sequences, arrangement);
            let (a, b) = (batch.tokens(), other.tokens());
            for i in 0..3 {
                let kept = |t: &Tokens<'_>| -> Vec<(Vec<f32>, f32)> {
                    let rows = t.rows(i).filter(|&row| t.keeps(row));
                    rows.map(|row| (t.vector(row), t.scales().unwrap().get(row))).collect()
                };
                assert_eq!(kept(&a), kept(&b), "{arrangement:?}");
            }
        }
        assert_eq!(batch.select(&[2, 2]).count(), 2);
    }
}
