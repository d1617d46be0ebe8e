//! Search over a PLAID index in float64, stage by stage as [`PlaidSearch`] defines them.

use super::forward::{document_vector, score_pairs_of, vector};
use crate::op::{Documents, Forward, Hit, Options, PlaidHits, PlaidIndex, PlaidSearch};
use crate::plaid::Segment;

/// The hits of every query of a search in host memory, and which queries they do not settle. Panics for an index that a backend
/// holds.
pub fn plaid_search(op: &PlaidSearch<'_>) -> PlaidHits {
    let PlaidIndex::Host { codec, segments } = &op.index else { panic!("the oracle reads host memory") };
    let options = &op.options;
    let allowed = op.allowed();
    let is_allowed = |document: usize| allowed.as_ref().is_none_or(|allowed| allowed.contains(document));
    let (live_count, allowed_count) = op.counts();
    // (number of the first document, segment)
    let placed: Vec<(usize, &Segment)> = segments
        .iter()
        .scan(0, |first, segment| {
            *first += segment.documents();
            Some((*first - segment.documents(), *segment))
        })
        .collect();
    let place = |document: usize| {
        *placed
            .iter()
            .find(|(first, segment)| (*first..first + segment.documents()).contains(&document))
            .expect("a document of the index")
    };
    let codes = |document: usize| {
        let (first, segment) = place(document);
        &segment.parts().codes[segment.rows(document - first)]
    };
    let everything: Vec<usize> = (0..op.index.documents()).filter(|&d| is_allowed(d)).collect();

    let mut unsettled = Vec::new();
    let hits = (0..op.q.count())
        .map(|query| {
            let rows: Vec<usize> = op.q.rows(query).collect();
            // S, one column per query token; NaN where the token takes no part.
            let column = |&row: &usize| -> Vec<f64> {
                let q = vector(&op.q, row, options.normalize);
                let similarity = |c: usize| {
                    let centroid =
                        (0..codec.dim()).map(|f| codec.centroids().data().get(c * codec.dim() + f));
                    q.iter().zip(centroid).map(|(x, y)| x * f64::from(y)).sum()
                };
                (0..codec.count()).map(similarity).collect()
            };
            let table: Vec<Vec<f64>> = rows.iter().filter(|&&row| op.q.keeps(row)).map(column).collect();

            let mut candidates = everything.clone();
            let probing = !options.exact && allowed_count > options.kept();
            if probing {
                let eligible: Vec<bool> = (0..codec.count())
                    .map(|c| {
                        op.subset.is_none() || everything.iter().any(|&d| codes(d).contains(&(c as u32)))
                    })
                    .collect();
                let count = eligible.iter().filter(|&&e| e).count();
                let probes = match op.subset {
                    None => options.n_ivf_probe.min(count),
                    Some(_) => options.probes(live_count, allowed_count, count),
                };
                let mut probed = vec![false; codec.count()];
                for column in &table {
                    let mut order: Vec<usize> =
                        (0..codec.count()).filter(|&c| eligible[c] && !column[c].is_nan()).collect();
                    order.sort_by(|&a, &b| column[b].total_cmp(&column[a]).then(a.cmp(&b)));
                    order.iter().take(probes).for_each(|&c| probed[c] = true);
                }
                if let Some(threshold) = options.centroid_score_threshold {
                    for (c, probed) in probed.iter_mut().enumerate() {
                        let best = table.iter().map(|column| column[c]).fold(f64::NEG_INFINITY, f64::max);
                        *probed &= best >= f64::from(threshold);
                    }
                }
                candidates.retain(|&d| codes(d).iter().any(|&c| probed[c as usize]));
            }
            if probing {
                let approximate = |d: usize| -> f64 {
                    let best = table.iter().map(|column| {
                        codes(d).iter().map(|&c| column[c as usize]).fold(f64::NEG_INFINITY, f64::max)
                    });
                    best.filter(|&x| x > f64::NEG_INFINITY).sum()
                };
                let mut scored: Vec<(f64, usize)> = candidates.iter().map(|&d| (approximate(d), d)).collect();
                scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                scored.truncate(options.kept());
                candidates = scored.into_iter().map(|(_, d)| d).collect();
            }

            if options.candidates_only {
                let hit = |d: usize| Hit { document: d as u32, score: 0.0, winners: Vec::new() };
                candidates.sort_unstable();
                return candidates.into_iter().map(hit).collect();
            }
            let q = op.q.slice(query..query + 1);
            let vectors: Vec<Vec<f64>> =
                (0..q.slots()).map(|row| vector(&q, row, options.normalize)).collect();
            let mut hits: Vec<Hit> = candidates
                .iter()
                .map(|&document| {
                    let (first, segment) = place(document);
                    let local = document - first;
                    let residual = segment.residual(codec);
                    let d = Documents::Residual(residual.slice(local..local + 1));
                    let pair = Forward::maxsim(q.clone(), d.clone(), Options::default());
                    let scored = score_pairs_of(&pair, &vectors, &|row| document_vector(&d, row, true));
                    Hit {
                        document: document as u32,
                        score: scored.values[0] as f32,
                        winners: if options.explain { scored.argmax.pair(0).to_vec() } else { Vec::new() },
                    }
                })
                .collect();
            hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.document.cmp(&b.document)));
            hits.truncate(options.top_k);
            let front = &candidates[..candidates.len() / 4];
            let behind = hits.iter().filter(|hit| !front.contains(&(hit.document as usize))).count();
            if probing && options.wider().is_some() && !options.settles(behind) {
                unsettled.push(query as u32);
            }
            hits
        })
        .collect();
    PlaidHits { hits, unsettled }
}
