//! Gradients in float64.

use super::forward::{document_vector, forward, vector};
use crate::op::{Argmax, Backward, Documents};
use crate::tokens::Tokens;

/// Gradients, flat and in the operands' layouts; `d` is empty for documents that have none.
#[derive(Debug, Clone)]
pub struct OracleGradients {
    /// With respect to `Q`.
    pub q: Vec<f64>,
    /// With respect to `D`.
    pub d: Vec<f64>,
}

/// Gradients of `op`. Winners are the oracle's own unless `op` brings some: near ties, where the two may differ, both are
/// right, and a comparison wants those of the run it checks.
pub fn backward(op: &Backward<'_>) -> OracleGradients {
    let op_forward = &op.forward;
    let own;
    let argmax: &Argmax = match op.argmax {
        Some(given) => given,
        None => {
            own = forward(op_forward).argmax;
            &own
        }
    };
    let (q, dim) = (&op_forward.q, op_forward.q.dim());
    let normalize = op_forward.options.normalize;
    let sequences = op_forward.d.sequences();
    let mut grad_q = vec![0.0; q.slots() * dim];
    let mut grad_d = vec![0.0; sequences.slots() * dim];
    for pair in 0..op_forward.pair_count() {
        let (i, j) = op_forward.pair(pair);
        let g = f64::from(op.grad[pair]);
        for (s, q_row) in q.rows(i).enumerate() {
            let winner = argmax.pair(pair)[s];
            if winner < 0 || !q.keeps(q_row) {
                continue;
            }
            let d_row = sequences.rows(j).start + winner as usize;
            let query = vector(q, q_row, normalize);
            let document = document_vector(&op_forward.d, d_row, normalize);
            for k in 0..dim {
                grad_q[q_row * dim + k] += g * document[k];
                grad_d[d_row * dim + k] += g * query[k];
            }
        }
    }
    if normalize {
        jacobian(q, &mut grad_q);
    }
    let d = match &op_forward.d {
        Documents::Tokens(documents) => {
            if normalize {
                jacobian(documents, &mut grad_d);
            }
            grad_d
        }
        _ => Vec::new(),
    };
    OracleGradients { q: grad_q, d }
}

fn jacobian(tokens: &Tokens<'_>, grad: &mut [f64]) {
    for row in tokens.sequences().kept_rows() {
        let x: Vec<f64> = tokens.vector(row).into_iter().map(f64::from).collect();
        normalize_gradient(&x, &mut grad[row * x.len()..(row + 1) * x.len()]);
    }
}

/// From the gradient of `x / max(‖x‖, 1e-6)` to that of `x`: `(g − ⟨g, x̂⟩x̂) / ‖x‖`, exactly 0 where `‖x‖ < 1e-6`.
pub(super) fn normalize_gradient(x: &[f64], grad: &mut [f64]) {
    if grad.iter().all(|&g| g == 0.0) {
        return;
    }
    let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
    if norm < 1e-6 {
        grad.fill(0.0);
        return;
    }
    let along: f64 = x.iter().zip(&*grad).map(|(v, g)| v / norm * g).sum();
    for (g, v) in grad.iter_mut().zip(x) {
        *g = (*g - along * v / norm) / norm;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Forward, Options};

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    /// The gradient is the slope: moving one element by ±h changes Σ g·score by 2h times it.
    #[test]
    fn gradients_are_slopes() {
        let shape_q = [2, 3, 5];
        let shape_d = [3, 4, 5];
        let (q, d, g) = (values(30, 1), values(60, 2), values(6, 3));
        let q_mask = [true, false, true, true, true, true];
        let d_lengths = [4u32, 2, 0];
        for normalize in [false, true] {
            let options = Options { normalize, ..Options::default() };
            let loss = |q: &[f32], d: &[f32]| -> f64 {
                let q = Tokens::padded(q, &shape_q).unwrap().with_mask(&q_mask[..]).unwrap();
                let d = Tokens::padded(d, &shape_d).unwrap().with_lengths(&d_lengths).unwrap();
                let scores = forward(&Forward::maxsim(q, d, options));
                scores.values.iter().zip(&g).map(|(s, &g)| s * f64::from(g)).sum()
            };
            let q_tokens = Tokens::padded(&q, &shape_q).unwrap().with_mask(&q_mask[..]).unwrap();
            let d_tokens = Tokens::padded(&d, &shape_d).unwrap().with_lengths(&d_lengths).unwrap();
            let grads = backward(&Backward::new(Forward::maxsim(q_tokens, d_tokens, options), &g));
            // A power of two, so that x ± h is exact enough in f32.
            let h = 1.0 / 1024.0;
            let slope = |at: usize, of_q: bool| {
                let (mut q_up, mut q_down, mut d_up, mut d_down) =
                    (q.clone(), q.clone(), d.clone(), d.clone());
                let (up, down) = if of_q { (&mut q_up, &mut q_down) } else { (&mut d_up, &mut d_down) };
                up[at] += h;
                down[at] -= h;
                let step = f64::from(up[at]) - f64::from(down[at]);
                (loss(&q_up, &d_up) - loss(&q_down, &d_down)) / step
            };
            for at in 0..30 {
                assert!(
                    (slope(at, true) - grads.q[at]).abs() < 1e-4,
                    "Q[{at}] {} {}",
                    slope(at, true),
                    grads.q[at]
                );
            }
            for at in 0..60 {
                assert!(
                    (slope(at, false) - grads.d[at]).abs() < 1e-4,
                    "D[{at}] {} {}",
                    slope(at, false),
                    grads.d[at]
                );
            }
            assert!(grads.q[5..10].iter().all(|&g| g == 0.0), "a masked query token has no gradient");
            assert!(grads.d[30..].iter().all(|&g| g == 0.0), "nor has what lies behind a length");
        }
    }
}
