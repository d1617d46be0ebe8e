//! The fused projection head in float64.

use super::backward::normalize_gradient;
use super::forward::{OracleScores, score_pairs_of, vector};
use crate::op::{Argmax, FromHidden, FromHiddenBackward};

/// Projected rows of `H`, before normalisation, `[slots][d]`.
fn projected(op: &FromHidden<'_>) -> Vec<Vec<f64>> {
    let (d, d_model) = (op.q.dim(), op.h.dim());
    (0..op.h.slots())
        .map(|row| {
            let hidden = op.h.vector(row);
            (0..d)
                .map(|c| {
                    let product: f64 = (0..d_model)
                        .map(|m| f64::from(hidden[m]) * f64::from(op.w.data().get(c * d_model + m)))
                        .sum();
                    product + op.b.as_ref().map_or(0.0, |b| f64::from(b.data().get(c)))
                })
                .collect()
        })
        .collect()
}

fn units(op: &FromHidden<'_>, rows: &[Vec<f64>]) -> Vec<Vec<f64>> {
    rows.iter()
        .map(|row| {
            if !op.options.normalize {
                return row.clone();
            }
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-6);
            row.iter().map(|v| v / norm).collect()
        })
        .collect()
}

/// Scores of `op`.
pub fn from_hidden(op: &FromHidden<'_>) -> OracleScores {
    let units = units(op, &projected(op));
    let queries: Vec<Vec<f64>> = (0..op.q.slots()).map(|row| vector(&op.q, row, false)).collect();
    score_pairs_of(&op.scoring(), &queries, &|row| units[row].clone())
}

/// Gradients of the fused head, flat.
#[derive(Debug, Clone)]
pub struct OracleHeadGradients {
    /// With respect to `Q`.
    pub q: Vec<f64>,
    /// With respect to `H`.
    pub h: Vec<f64>,
    /// With respect to `W`.
    pub w: Vec<f64>,
    /// With respect to `b`, whether or not there is one.
    pub b: Vec<f64>,
}

/// Gradients of `op`, with its winners if it brings some.
pub fn from_hidden_backward(op: &FromHiddenBackward<'_>) -> OracleHeadGradients {
    let forward = &op.forward;
    let rows = projected(forward);
    let units = units(forward, &rows);
    let own;
    let argmax: &Argmax = match op.argmax {
        Some(given) => given,
        None => {
            own = from_hidden(forward).argmax;
            &own
        }
    };
    let scoring = forward.scoring();
    let (q, h) = (&forward.q, &forward.h);
    let (d, d_model) = (q.dim(), h.dim());
    let mut grads = OracleHeadGradients {
        q: vec![0.0; q.slots() * d],
        h: vec![0.0; h.slots() * d_model],
        w: vec![0.0; d * d_model],
        b: vec![0.0; d],
    };
    let mut grad_units = vec![vec![0.0; d]; h.slots()];
    for pair in 0..scoring.pair_count() {
        let (i, j) = scoring.pair(pair);
        let g = f64::from(op.grad[pair]);
        for (s, q_row) in q.rows(i).enumerate() {
            let winner = argmax.pair(pair)[s];
            if winner < 0 || !q.keeps(q_row) {
                continue;
            }
            let row = h.rows(j).start + winner as usize;
            let query = vector(q, q_row, false);
            for c in 0..d {
                grads.q[q_row * d + c] += g * units[row][c];
                grad_units[row][c] += g * query[c];
            }
        }
    }
    for (row, grad) in grad_units.iter_mut().enumerate() {
        if grad.iter().all(|&g| g == 0.0) {
            continue;
        }
        if forward.options.normalize {
            normalize_gradient(&rows[row], grad);
        }
        let hidden = h.vector(row);
        for (c, &g) in grad.iter().enumerate() {
            grads.b[c] += g;
            for (m, &x) in hidden.iter().enumerate() {
                grads.h[row * d_model + m] += g * f64::from(forward.w.data().get(c * d_model + m));
                grads.w[c * d_model + m] += g * f64::from(x);
            }
        }
    }
    grads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::TensorRef;
    use crate::tokens::Tokens;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    #[test]
    fn gradients_are_slopes() {
        let inputs = [values(2 * 3 * 4, 1), values(2 * 3 * 6, 2), values(4 * 6, 3), values(4, 4)];
        let g = values(4, 5);
        let lengths = [3u32, 2];
        fn op<'a>(x: &'a [Vec<f32>; 4], lengths: &'a [u32; 2], normalize: bool) -> FromHidden<'a> {
            let mut op = FromHidden::new(
                Tokens::padded(&x[0], &[2, 3, 4]).unwrap(),
                Tokens::padded(&x[1], &[2, 3, 6]).unwrap().with_lengths(lengths).unwrap(),
                TensorRef::new(&x[2], &[4, 6]).unwrap(),
                Some(TensorRef::new(&x[3], &[4]).unwrap()),
            );
            op.options.normalize = normalize;
            op
        }
        for normalize in [false, true] {
            let grads = from_hidden_backward(&FromHiddenBackward::new(op(&inputs, &lengths, normalize), &g));
            let loss = |x: &[Vec<f32>; 4]| -> f64 {
                let scores = from_hidden(&op(x, &lengths, normalize));
                scores.values.iter().zip(&g).map(|(s, &g)| s * f64::from(g)).sum()
            };
            for (which, grad) in [&grads.q, &grads.h, &grads.w, &grads.b].into_iter().enumerate() {
                for (at, &grad) in grad.iter().enumerate() {
                    let (mut up, mut down) = (inputs.clone(), inputs.clone());
                    up[which][at] += 1.0 / 2048.0;
                    down[which][at] -= 1.0 / 2048.0;
                    let step = f64::from(up[which][at]) - f64::from(down[which][at]);
                    let slope = (loss(&up) - loss(&down)) / step;
                    assert!(
                        (slope - grad).abs() < 1e-4,
                        "input {which}[{at}]: {slope} {grad} normalize={normalize}"
                    );
                }
            }
        }
    }
}
