//! Results against references.

use maxsim_core::{Forward, TopK, oracle::OracleScores};

use crate::tolerance;

/// What comparisons found; several can be joined.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    /// Largest error as a multiple of what is allowed; above 1 is a failure, infinite where no number measures it.
    pub worst: f64,
    /// Elements compared.
    pub compared: usize,
    /// One line per result that is wrong: how many elements, the worst of them, where.
    pub problems: Vec<String>,
}

impl Comparison {
    /// Whether everything is within tolerance.
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds what another comparison found.
    pub fn join(&mut self, other: Comparison) {
        self.worst = self.worst.max(other.worst);
        self.compared += other.compared;
        self.problems.extend(other.problems);
    }

    /// Adds a problem that no number measures.
    pub fn problem(&mut self, text: impl Into<String>) {
        self.worst = f64::INFINITY;
        self.problems.push(text.into());
    }

    /// The problems as one text.
    pub fn text(&self) -> String {
        self.problems.join("; ")
    }

    /// Panics with `context` and the problems, for tests.
    ///
    /// # Panics
    /// Unless everything is within tolerance.
    pub fn assert(&self, context: impl std::fmt::Display) {
        assert!(self.passed(), "{context}: {}", self.text());
    }
}

/// Row-major position `i` of `shape` as text, e.g. `[1, 0, 2]`.
pub fn position(shape: &[usize], mut i: usize) -> String {
    let mut index = vec![0; shape.len()];
    for (axis, &extent) in shape.iter().enumerate().rev() {
        index[axis] = i % extent.max(1);
        i /= extent.max(1);
    }
    format!("{index:?}")
}

/// Error of one value as a multiple of `allowed`. Infinities must be equal; NaN is never right.
fn excess(got: f64, reference: f64, allowed: f64) -> f64 {
    if got == reference {
        return 0.0;
    }
    let error = (got - reference).abs() / allowed;
    if error.is_finite() { error } else { f64::INFINITY }
}

/// Compares element by element; `allowed(reference)` is the largest `|Δ|`.
fn elements(
    name: &str,
    shape: &[usize],
    got: &[f32],
    reference: &[f64],
    allowed: impl Fn(f64) -> f64,
) -> Comparison {
    let mut result = Comparison::default();
    if got.len() != reference.len() {
        result.problem(format!("{name}: {} elements, the reference has {}", got.len(), reference.len()));
        return result;
    }
    let (mut wrong, mut worst_at) = (0, 0);
    for (i, (&got, &reference)) in got.iter().zip(reference).enumerate() {
        // Beyond the range of f32 only infinity is left.
        let reference =
            if (reference as f32).is_infinite() { f64::from(reference as f32) } else { reference };
        let error = excess(f64::from(got), reference, allowed(reference));
        wrong += usize::from(error > 1.0);
        if error > result.worst {
            (result.worst, worst_at) = (error, i);
        }
    }
    result.compared = got.len();
    if wrong > 0 {
        result.problems.push(format!(
            "{name}: {wrong} of {} wrong, worst at {}: got {:e}, reference {:e}, {:.1} times the tolerance",
            got.len(),
            position(shape, worst_at),
            got[worst_at],
            reference[worst_at],
            result.worst
        ));
    }
    result
}

/// Scores: `|Δ| ≤ t · max(1, |reference|)`.
pub fn scores(name: &str, shape: &[usize], got: &[f32], reference: &[f64], t: f64) -> Comparison {
    elements(name, shape, got, reference, |reference| {
        t * if reference.is_finite() { reference.abs().max(1.0) } else { 1.0 }
    })
}

/// A gradient returned as `dtype` (values brought to f32).
pub fn gradient(
    name: &str,
    shape: &[usize],
    got: &[f32],
    reference: &[f64],
    dtype: maxsim_core::DType,
) -> Comparison {
    let largest = reference.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    elements(name, shape, got, reference, |reference| tolerance::gradient(dtype, reference, largest))
}

/// Winners of `op` against a reference `expected` in the same order. `rows` (winning similarity and lead, from the oracle)
/// tells where the lead is too small for the winner to be certain: there any kept token will do.
pub fn argmax(
    name: &str,
    op: &Forward<'_>,
    got: &maxsim_core::Argmax,
    expected: &[i32],
    rows: &[(f64, f64)],
    t: f64,
) -> Comparison {
    let mut result = Comparison::default();
    let layout = op.empty_argmax();
    if got.shape() != layout.shape() || got.values.len() != expected.len() {
        result.problem(format!(
            "{name}: {} winners of shape {:?}, expected {} of {:?}",
            got.values.len(),
            got.shape(),
            expected.len(),
            layout.shape()
        ));
        return result;
    }
    let documents = op.d.sequences();
    let (mut wrong, mut first) = (0, String::new());
    for pair in 0..op.pair_count() {
        let document = op.pair(pair).1;
        let tokens = documents.rows(document);
        for (slot, i) in layout.range(pair).enumerate() {
            let (got, expected) = (got.values[i], expected[i]);
            result.compared += 1;
            let (best, lead) = rows[i];
            // A NaN lead is infinity against infinity: a tie that nobody's rounding can break.
            let certain = expected < 0 || lead.is_nan() || lead > tolerance::argmax_lead(best, t);
            let kept =
                got >= 0 && (got as usize) < tokens.len() && documents.keeps(tokens.start + got as usize);
            if got != expected && (certain || !kept) {
                wrong += 1;
                if first.is_empty() {
                    first =
                        format!("pair {pair} row {slot}: got {got}, reference {expected} (lead {lead:e})");
                }
            }
        }
    }
    if wrong > 0 {
        result.problem(format!("{name}: {wrong} of {} wrong, first at {first}", result.compared));
    }
    result
}

/// Scores and, where asked for, winners of `op` against the oracle's answer. With `exact_ties`, equal similarities are
/// bit-equal on every backend (small integers, repeated vectors), so that the lowest index has to win.
pub fn forward(
    op: &Forward<'_>,
    got: &maxsim_core::Scores,
    exact: &OracleScores,
    t: f64,
    exact_ties: bool,
) -> Comparison {
    let mut result = Comparison::default();
    if got.shape != op.output_shape() {
        result.problem(format!("scores: shape {:?}, expected {:?}", got.shape, op.output_shape()));
        return result;
    }
    result.join(scores("scores", &got.shape, &got.values, &exact.values, t));
    match (&got.argmax, op.options.argmax) {
        (Some(winners), true) => {
            let lead = |&(best, lead): &(f64, f64)| (best, if exact_ties { f64::INFINITY } else { lead });
            let rows: Vec<_> = exact.rows.iter().map(lead).collect();
            result.join(argmax("argmax", op, winners, &exact.argmax.values, &rows, t));
        }
        (None, false) => {}
        (Some(_), false) => result.problem("argmax: there, but not asked for"),
        (None, true) => result.problem("argmax: asked for, but not there"),
    }
    result
}

/// Hits against exact scores `[Nq, Nd]`: every hit's score is that document's within `t`, no document comes twice, and at
/// every rank stands a score as good as the exact ranking's there (so only ties within `t` may change places).
pub fn top_k(got: &TopK, exact: &[f64], queries: usize, largest: bool, sorted: bool, t: f64) -> Comparison {
    let mut result = Comparison::default();
    let documents = exact.len().checked_div(queries).unwrap_or(0);
    let width = got.width();
    if got.scores.len() != queries * width || got.indices.len() != queries * width {
        result.problem(format!("{} scores and {} indices", got.scores.len(), got.indices.len()));
        return result;
    }
    for i in 0..queries {
        let row = &exact[i * documents..(i + 1) * documents];
        let mut ranking = row.to_vec();
        ranking.sort_by(|a, b| if largest { b.total_cmp(a) } else { a.total_cmp(b) });
        ranking.truncate(width);
        let mut hits: Vec<(u32, f32)> = got.hits(i).collect();
        let mut ids: Vec<u32> = hits.iter().map(|hit| hit.0).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != hits.len() || ids.last().is_some_and(|&id| id as usize >= documents) {
            result.problem(format!("query {i}: documents {hits:?} repeat or are out of range"));
            continue;
        }
        let better = |a: f32, b: f32| if largest { b.total_cmp(&a) } else { a.total_cmp(&b) };
        if sorted {
            let in_order = hits.windows(2).all(|w| better(w[0].1, w[1].1).then(w[0].0.cmp(&w[1].0)).is_lt());
            if !in_order {
                result.problem(format!("query {i}: {hits:?} is not in order"));
            }
        } else {
            hits.sort_by(|a, b| better(a.1, b.1));
        }
        let values: Vec<f32> = hits.iter().map(|hit| hit.1).collect();
        let own: Vec<f64> = hits.iter().map(|hit| row[hit.0 as usize]).collect();
        result.join(scores(&format!("query {i}: scores of hits"), &[width], &values, &own, t));
        result.join(scores(&format!("query {i}: ranking"), &[width], &values, &ranking, t));
    }
    result
}

/// Bits against bits: SPEC's promise that something does not matter at all.
pub fn same_bits(name: &str, shape: &[usize], got: &[f32], expected: &[f32]) -> Comparison {
    let mut result = Comparison { compared: got.len(), ..Comparison::default() };
    let differs = got.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits());
    if got.len() != expected.len() {
        result.problem(format!("{name}: {} elements, expected {}", got.len(), expected.len()));
    } else if let Some(i) = differs {
        result.problem(format!(
            "{name}: bits differ at {}: {:e}, {:e}",
            position(shape, i),
            got[i],
            expected[i]
        ));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_measured_and_placed() {
        let within = scores("s", &[2, 2], &[1.0, 2.0, 3.0, 100.0005], &[1.0, 2.0, 3.0, 100.0], 1e-5);
        assert!(within.passed() && within.worst > 0.4 && within.worst < 0.6, "{within:?}");
        let beyond = scores("s", &[2, 2], &[1.0, 2.0, 3.1, 4.0], &[1.0, 2.0, 3.0, 4.0], 1e-5);
        assert!(beyond.text().contains("[1, 0]"), "{}", beyond.text());
        assert!(!scores("s", &[1], &[f32::NAN], &[0.0], 1.0).passed());
        assert!(!scores("s", &[1], &[f32::INFINITY], &[0.0], 1.0).passed());
        assert!(scores("s", &[1], &[f32::INFINITY], &[1e300], 1e-5).passed());
        assert!(!scores("s", &[1], &[f32::NEG_INFINITY], &[1e300], 1e-5).passed());
        assert!(!scores("s", &[2], &[0.0], &[0.0, 0.0], 1.0).passed());
    }

    #[test]
    fn a_zero_gradient_must_be_zero() {
        let dtype = maxsim_core::DType::F32;
        assert!(gradient("g", &[2], &[0.0, 1.0], &[0.0, 1.0], dtype).passed());
        assert!(!gradient("g", &[2], &[1e-3, 1.0], &[0.0, 1.0], dtype).passed());
        assert!(!gradient("g", &[1], &[1e-30], &[0.0], dtype).passed());
    }

    #[test]
    fn only_ties_may_change_places() {
        let hits = |indices: &[u32], scores: &[f32]| TopK {
            scores: scores.to_vec(),
            indices: indices.to_vec(),
            shape: vec![1, indices.len()],
            argmax: None,
        };
        let exact = [1.0, 3.0, 3.000001, 0.0];
        let check = |top: TopK| top_k(&top, &exact, 1, true, true, 1e-5).passed();
        assert!(check(hits(&[2, 1], &[3.000001, 3.0])));
        assert!(check(hits(&[1, 2], &[3.0, 3.0])));
        assert!(!check(hits(&[2, 1], &[3.0, 3.0])), "equal scores come by index");
        assert!(!check(hits(&[1, 0], &[3.0, 1.0])), "a better document is missing");
        assert!(!check(hits(&[1, 1], &[3.0, 3.0])), "twice");
        assert!(!check(hits(&[1, 9], &[3.0, 3.0])), "out of range");
        assert!(!check(hits(&[0, 1], &[3.0, 3.0])), "not that document's score");
    }

    #[test]
    fn bits_are_bits() {
        assert!(same_bits("b", &[1], &[0.0], &[0.0]).passed());
        assert!(!same_bits("b", &[1], &[0.0], &[-0.0]).passed());
    }
}
