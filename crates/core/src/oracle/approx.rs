//! Approximate PLAID scores in float64.

use crate::op::ApproxScore;

/// `Σ_s max_t table[codes[t], s]` of every document; a query token without a winner adds 0.
pub fn plaid_approx_score(op: &ApproxScore<'_>) -> Vec<f64> {
    let tokens = op.table().shape()[1];
    let entry = |code: u32, s: usize| f64::from(op.table().data().get(code as usize * tokens + s));
    (0..op.sequences().count())
        .map(|document| {
            let mut score = 0.0;
            for s in 0..tokens {
                let mut best = f64::NEG_INFINITY;
                for row in op.sequences().rows(document) {
                    // A NaN compares false and so never wins.
                    if entry(op.codes()[row], s) > best {
                        best = entry(op.codes()[row], s);
                    }
                }
                if best > f64::NEG_INFINITY {
                    score += best;
                }
            }
            score
        })
        .collect()
}
