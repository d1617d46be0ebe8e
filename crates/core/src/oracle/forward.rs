//! Forward scores and retrieval in float64.

use crate::op::{Argmax, Documents, Forward, Retrieve};
use crate::tokens::Tokens;

/// Scores with what a comparison needs to know about near ties.
#[derive(Debug, Clone)]
pub struct OracleScores {
    /// Exact scores, row-major.
    pub values: Vec<f64>,
    /// Winners.
    pub argmax: Argmax,
    /// Per argmax row: winning similarity, and its lead over the best other token (infinite without a rival).
    pub rows: Vec<(f64, f64)>,
    /// Per pair: `Σ_s` of the winning similarities' magnitudes; scores that cancel are judged by it.
    pub magnitude: Vec<f64>,
}

/// A token's vector in float64, normalised and scaled as the options ask.
pub(super) fn vector(tokens: &Tokens<'_>, row: usize, normalize: bool) -> Vec<f64> {
    let mut x: Vec<f64> = tokens.vector(row).into_iter().map(f64::from).collect();
    if normalize {
        // The scale of a quantised token cancels: normalising comes last.
        let scale = tokens.scales().map_or(1.0, |s| f64::from(s.get(row)));
        let norm = x.iter().map(|v| (v * scale) * (v * scale)).sum::<f64>().sqrt().max(1e-6);
        x.iter_mut().for_each(|v| *v = *v * scale / norm);
    } else if let Some(scales) = tokens.scales() {
        let scale = f64::from(scales.get(row));
        x.iter_mut().for_each(|v| *v *= scale);
    }
    x
}

/// Similarity as the contract defines it: the sum of the products, in order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// A document token's vector, whatever kind of documents they are. Panics on resident ones: the oracle reads host memory.
pub(super) fn document_vector(documents: &Documents<'_>, row: usize, normalize: bool) -> Vec<f64> {
    let residual = match documents {
        Documents::Tokens(tokens) => return vector(tokens, row, normalize),
        Documents::Residual(residual) => residual,
        Documents::Resident(_) => panic!("the oracle reads host memory"),
    };
    let codec = residual.codec();
    let per_byte = 8 / codec.nbits() as usize;
    let mut x: Vec<f64> = (0..codec.dim())
        .map(|f| {
            let byte = residual.residual(row)[f / per_byte];
            let bucket = codec.layout().bucket(byte, f % per_byte, codec.nbits());
            let centroid = codec.centroids().data().get(residual.codes()[row] as usize * codec.dim() + f);
            f64::from(centroid) + f64::from(codec.bucket_weights()[usize::from(bucket)])
        })
        .collect();
    if normalize {
        let inverse = match residual.inv_norms() {
            Some(stored) => f64::from(stored.get(row)),
            None => 1.0 / x.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-6),
        };
        x.iter_mut().for_each(|v| *v *= inverse);
    }
    x
}

/// Scores every pair of `op`. Panics on resident documents: the oracle reads host memory.
pub fn forward(op: &Forward<'_>) -> OracleScores {
    let normalize = op.options.normalize;
    let queries: Vec<Vec<f64>> = (0..op.q.slots()).map(|row| vector(&op.q, row, normalize)).collect();
    score_pairs_of(op, &queries, &|row| document_vector(&op.d, row, normalize))
}

/// Scores every pair of `op` over the given query vectors and document vectors.
pub(super) fn score_pairs_of(
    op: &Forward<'_>,
    queries: &[Vec<f64>],
    document: &dyn Fn(usize) -> Vec<f64>,
) -> OracleScores {
    let sequences = op.d.sequences();
    // What a mask or length leaves out stays empty: it is never looked at.
    let mut documents = vec![Vec::new(); sequences.slots()];
    for row in sequences.kept_rows() {
        documents[row] = document(row);
    }
    let mut argmax = op.empty_argmax();
    let mut rows = vec![(0.0, f64::INFINITY); argmax.values.len()];
    let mut values = Vec::with_capacity(op.pair_count());
    let mut magnitude = Vec::with_capacity(op.pair_count());
    for p in 0..op.pair_count() {
        let (i, j) = op.pair(p);
        let slots = argmax.range(p);
        let mut score = 0.0;
        let mut size = 0.0;
        for (s, q_row) in op.q.rows(i).enumerate() {
            if !op.q.keeps(q_row) {
                continue;
            }
            let mut best = f64::NEG_INFINITY;
            let mut second = f64::NEG_INFINITY;
            let mut winner = -1;
            for (t, d_row) in sequences.rows(j).enumerate() {
                if !sequences.keeps(d_row) {
                    continue;
                }
                let similarity = dot(&queries[q_row], &documents[d_row]);
                // A NaN compares false and so never wins; equal similarities leave the earlier token in place.
                if similarity > best {
                    second = best;
                    best = similarity;
                    winner = t as i32;
                } else if similarity > second {
                    second = similarity;
                }
            }
            if winner >= 0 {
                score += best;
                size += best.abs();
                argmax.values[slots.start + s] = winner;
                rows[slots.start + s] = (best, best - second);
            }
        }
        values.push(score);
        magnitude.push(size);
    }
    OracleScores { values, argmax, rows, magnitude }
}

/// Ranking of every query from exact scores: `(score, document)` in result order.
pub fn retrieve(op: &Retrieve<'_>) -> Vec<Vec<(f64, u32)>> {
    let scores = forward(&op.forward);
    let documents = op.forward.d.count();
    (0..op.forward.q.count())
        .map(|i| {
            let mut ranked: Vec<(f64, u32)> =
                (0..documents).map(|j| (scores.values[i * documents + j], j as u32)).collect();
            ranked.sort_by(|a, b| {
                let by_score = if op.options.largest { b.0.total_cmp(&a.0) } else { a.0.total_cmp(&b.0) };
                by_score.then(a.1.cmp(&b.1))
            });
            ranked.truncate(op.width());
            ranked
        })
        .collect()
}
