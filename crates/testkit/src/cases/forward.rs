//! Cases of the scoring operators: one sweep of shapes, types and values, in the layout of every operator.

use maxsim_core::{DType, Forward, Options};

use super::{Batch, DIMS, Layout, QUERY_LENGTHS, Random, Spec, Values};

/// Operators that score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// `maxsim` with masks.
    Dense,
    /// `maxsim` with `[Nq, K, Ld, d]` documents and masks.
    Kd,
    /// `maxsim_pairs` with masks.
    Pairs,
    /// `maxsim_varlen`.
    Varlen,
    /// `score_pairs`, with repeated pairs.
    ScorePairs,
    /// `maxsim_padded`: `[B, K, Ld, d]` with lengths.
    Padded,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 6] =
        [Self::Dense, Self::Kd, Self::Pairs, Self::Varlen, Self::ScorePairs, Self::Padded];
}

/// What a case is made of.
#[derive(Debug, Clone, Copy)]
pub struct Params {
    /// Queries.
    pub queries: usize,
    /// Documents, or candidates per query.
    pub documents: usize,
    /// Longest query.
    pub query_len: usize,
    /// Longest document.
    pub document_len: usize,
    /// Embedding dimension.
    pub dim: usize,
    /// Element types of queries and documents.
    pub dtypes: (DType, DType),
    /// What the vectors hold.
    pub values: Values,
    /// Whether tokens are normalised.
    pub normalize: bool,
    /// Whether some tokens are masked or some sequences are shorter.
    pub holes: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            queries: 2,
            documents: 3,
            query_len: 5,
            document_len: 9,
            dim: 33,
            dtypes: (DType::F32, DType::F32),
            values: Values::Normal,
            normalize: false,
            holes: true,
        }
    }
}

/// Inputs of one scoring call.
#[derive(Debug, Clone)]
pub struct Case {
    /// What is special about it.
    pub name: String,
    /// Operator.
    pub family: Family,
    /// What it was made of.
    pub params: Params,
    /// Queries.
    pub q: Batch,
    /// Documents.
    pub d: Batch,
    /// Pairs of [`Family::ScorePairs`].
    pub pairs: (Vec<u32>, Vec<u32>),
    /// Options.
    pub options: Options,
}

impl Case {
    /// Generates a case.
    pub fn generate(name: &str, family: Family, params: Params, random: &mut Random) -> Self {
        let Params { queries, documents, query_len, document_len, .. } = params;
        let pair_documents = if family == Family::Pairs { queries } else { documents };
        let (q_layout, d_layout) = match family {
            Family::Dense | Family::Pairs => {
                (padded(&[queries, query_len]), padded(&[pair_documents, document_len]))
            }
            Family::Kd => (padded(&[queries, query_len]), padded(&[queries, documents, document_len])),
            Family::Padded => (
                with_lengths(random, &[queries, query_len], params.holes),
                with_lengths(random, &[queries, documents, document_len], params.holes),
            ),
            Family::Varlen | Family::ScorePairs => (
                packed(random, queries, query_len, params.holes),
                packed(random, documents, document_len, params.holes),
            ),
        };
        // Lengths are the holes of the others.
        let keep =
            (params.holes && matches!(family, Family::Dense | Family::Kd | Family::Pairs)).then_some(0.8);
        let mut batch = |layout, query| {
            let dtype = if query { params.dtypes.0 } else { params.dtypes.1 };
            let spec = Spec { layout, dim: params.dim, dtype, values: params.values, query, keep };
            Batch::generate(random, &spec)
        };
        let (q, d) = (batch(q_layout, true), batch(d_layout, false));
        let pairs = match family {
            Family::ScorePairs if queries * documents > 0 => (0..2 * queries * documents + 1)
                .map(|_| (random.below(queries) as u32, random.below(documents) as u32))
                .unzip(),
            _ => Default::default(),
        };
        let options = Options { normalize: params.normalize, argmax: true, ..Options::default() };
        Self { name: format!("{family:?}/{name}"), family, params, q, d, pairs, options }
    }

    /// The operator.
    ///
    /// # Panics
    /// Never on generated cases.
    pub fn op(&self) -> Forward<'_> {
        let (q, d) = (self.q.tokens(), self.d.tokens());
        match self.family {
            Family::Pairs => Forward::pairs(q, d, self.options),
            Family::ScorePairs => Forward::score_pairs(q, d, &self.pairs.0, &self.pairs.1, self.options)
                .expect("32-bit indices are never refused here"),
            _ => Forward::maxsim(q, d, self.options),
        }
    }

    /// Tolerance of its scores.
    pub fn tolerance(&self) -> f64 {
        let (q, d) = self.params.dtypes;
        crate::tolerance::scores(q, d, self.options.precision, self.params.dim)
    }

    /// Whether equal similarities are bit-equal on every backend. A scale or norm per token breaks the ties of integers.
    pub fn exact_ties(&self) -> bool {
        let (q, d) = self.params.dtypes;
        match self.params.values {
            Values::Integers => !self.params.normalize && !q.is_quantized() && !d.is_quantized(),
            values => values.exact_ties(),
        }
    }
}

fn padded(shape: &[usize]) -> Layout {
    Layout::Padded { shape: shape.to_vec(), lengths: None }
}

fn lengths(random: &mut Random, count: usize, longest: usize, holes: bool) -> Vec<u32> {
    // Zero-length sequences at the start and in the middle, a full one at the end, random ones between.
    (0..count)
        .map(|i| match i {
            _ if !holes || i + 1 == count => longest,
            0 => 0,
            _ if i % 4 == 2 => 0,
            _ => random.below(longest + 1),
        } as u32)
        .collect()
}

fn with_lengths(random: &mut Random, shape: &[usize], holes: bool) -> Layout {
    let (&longest, rest) = shape.split_last().expect("a shape with a length");
    let lengths = lengths(random, rest.iter().product(), longest, holes);
    Layout::Padded { shape: shape.to_vec(), lengths: Some(lengths) }
}

fn packed(random: &mut Random, count: usize, longest: usize, holes: bool) -> Layout {
    let mut offsets = vec![0u32];
    let mut lengths = lengths(random, count, longest, holes);
    // Zero length at the end is a case of its own: turn every second batch around.
    if random.chance(0.5) {
        lengths.reverse();
    }
    for length in lengths {
        offsets.push(offsets[offsets.len() - 1] + length);
    }
    Layout::Packed { offsets }
}

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// Every case of an operator, the same on every machine.
pub fn cases(family: Family) -> Vec<Case> {
    let mut list: Vec<(String, Params)> = Vec::new();
    let default = Params::default();
    for (i, dim) in DIMS.into_iter().enumerate() {
        for normalize in [false, true] {
            let dtypes = (FLOATS[i % 3], FLOATS[i / 2 % 3]);
            list.push((format!("d={dim}"), Params { dim, normalize, dtypes, ..default }));
            list.push((format!("d={dim}"), Params { dim, normalize, ..default }));
        }
    }
    for query_len in QUERY_LENGTHS {
        for holes in [false, true] {
            let params = Params { query_len, holes, dim: 16, document_len: 6, ..default };
            list.push((format!("Lq={query_len}"), params));
        }
    }
    for document_len in [0, 1, 2, 3, 4, 5, 6, 7, 8, 31, 64, 65, 300] {
        list.push((format!("Ld={document_len}"), Params { document_len, dim: 16, holes: false, ..default }));
    }
    for q in DType::ALL {
        for d in DType::ALL {
            for normalize in [false, true] {
                list.push((format!("{q}x{d}"), Params { dtypes: (q, d), normalize, ..default }));
            }
        }
    }
    for values in Values::ALL {
        for dtype in FLOATS {
            // bf16 and f32 hold the wide values, products of f16 do not matter: sums are f32.
            for normalize in [false, true] {
                let params =
                    Params { values, dtypes: (dtype, dtype), normalize, document_len: 21, ..default };
                list.push((format!("{values:?} {dtype}"), params));
            }
        }
        if values.is_finite() {
            for dtype in [DType::I8, DType::E4M3] {
                list.push((
                    format!("{values:?} {dtype}"),
                    Params { values, dtypes: (dtype, dtype), ..default },
                ));
            }
        }
    }
    for (queries, documents) in [(0, 3), (3, 0), (0, 0), (1, 1), (1, 40), (40, 1), (9, 17)] {
        list.push((format!("{queries}x{documents}"), Params { queries, documents, dim: 16, ..default }));
    }
    let mut random = Random::named(&format!("{family:?}"));
    list.into_iter()
        .map(|(name, params)| {
            let name = if params.normalize { format!("{name} normalized") } else { name };
            Case::generate(&name, family, params, &mut random)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_valid_and_reproducible() {
        for family in Family::ALL {
            let cases = cases(family);
            for case in &cases {
                case.op().validate().unwrap_or_else(|error| panic!("{}: {error}", case.name));
            }
            let again = super::cases(family);
            let bits =
                |case: &Case| case.d.data.as_ref().to_f32().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(cases.iter().zip(&again).all(|(a, b)| bits(a) == bits(b)), "{family:?}");
        }
    }

    /// Values named after a property have it; otherwise the tests that use them would test nothing.
    #[test]
    fn special_values_are_special() {
        let similarities = |values, normalize| {
            let params = Params { values, normalize, document_len: 21, holes: false, ..Params::default() };
            let case = Case::generate("x", Family::Dense, params, &mut Random::new(5));
            maxsim_core::oracle::forward(&case.op())
        };
        let ties = |values| similarities(values, false).rows.iter().filter(|row| row.1 == 0.0).count();
        assert!(ties(Values::Integers) > 0 && ties(Values::Repeated) > 0);
        assert_eq!(ties(Values::Normal), 0);
        assert!(similarities(Values::Negative, false).rows.iter().all(|row| row.0 < 0.0));
        assert!(similarities(Values::Infinite, false).values.iter().any(|x| x.is_infinite()));
        assert!(similarities(Values::NonFinite, false).argmax.values.contains(&-1));
    }
}
