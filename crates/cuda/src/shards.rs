//! Documents spread over several devices: each scores its own, answers are put together on the host.
//!
//! Scores depend on a query and a document alone, so the answer has the bits of one device's. The shards are backends of any
//! kind; several of them can be the same device.

use std::ops::Range;
use std::sync::Arc;

use maxsim_core::plaid::Segment;
use maxsim_core::{
    Argmax, Backend, BackendInfo, BackendKind, Cancel, Codec, Documents, Error, Forward, Op, Output, Pairing,
    Plan, Resident, ResidentIndex, ResidentMeta, Result, Retrieve, RetrieveOptions, Scores, Submission, TopK,
};

/// A backend over several others. Uploaded documents are spread over them; everything else runs on the first.
pub struct ShardedBackend {
    shards: Vec<Arc<dyn Backend>>,
    info: BackendInfo,
}

/// Documents `first ..` of a sharded corpus.
struct Part {
    shard: usize,
    documents: Range<u32>,
    resident: Resident,
}

struct Parts(Vec<Part>);

impl ShardedBackend {
    /// Spreads documents over `shards`.
    ///
    /// # Errors
    /// `ERR_VALUE` if there are none.
    pub fn new(shards: Vec<Arc<dyn Backend>>) -> Result<Self> {
        let Some(first) = shards.first() else {
            return Err(Error::value("shards", "at least one", "none"));
        };
        let device = format!("{} × {}", shards.len(), first.info().device);
        let info = BackendInfo { device, ..first.info().clone() };
        Ok(Self { shards, info })
    }

    fn forward(&self, op: &Forward<'_>, parts: &Parts, cancel: &Cancel) -> Result<Submission> {
        // What every part scores, and where those scores belong.
        let mut pending = Vec::new();
        for part in &parts.0 {
            let (submission, pairs) = match &op.pairing {
                Pairing::Cross => {
                    let scoring = Forward::maxsim(op.q.clone(), &part.resident, op.options);
                    let documents = op.d.count();
                    let pairs = (0..op.q.count())
                        .flat_map(|i| part.documents.clone().map(move |j| i * documents + j as usize))
                        .collect();
                    (self.shards[part.shard].submit(&Op::Forward(scoring), cancel), pairs)
                }
                _ => {
                    let pairs: Vec<usize> = (0..op.pair_count())
                        .filter(|&p| part.documents.contains(&(op.pair(p).1 as u32)))
                        .collect();
                    let q: Vec<u32> = pairs.iter().map(|&p| op.pair(p).0 as u32).collect();
                    let d: Vec<u32> =
                        pairs.iter().map(|&p| op.pair(p).1 as u32 - part.documents.start).collect();
                    let scoring = Forward::score_pairs(op.q.clone(), &part.resident, q, d, op.options)?;
                    (self.shards[part.shard].submit(&Op::Forward(scoring), cancel), pairs)
                }
            };
            pending.push((submission, pairs));
        }
        let (shape, count) = (op.output_shape(), op.pair_count());
        let mut argmax = op.options.argmax.then(|| op.empty_argmax());
        Ok(Submission::pending(Box::pin(async move {
            let mut values = vec![0f32; count];
            for (submission, pairs) in pending {
                let Output::Scores(scores) = submission.await? else {
                    unreachable!("forward returns scores")
                };
                for (at, &pair) in pairs.iter().enumerate() {
                    values[pair] = scores.values[at];
                    copy_winners(argmax.as_mut(), pair, scores.argmax.as_ref(), at);
                }
            }
            Ok(Output::Scores(Scores { values, shape, argmax }))
        })))
    }

    fn retrieve(&self, op: &Retrieve<'_>, parts: &Parts, cancel: &Cancel) -> Result<Submission> {
        let mut pending = Vec::new();
        for part in &parts.0 {
            // In order even where none is asked for: that is what can be merged.
            let options = RetrieveOptions { sorted: true, scoring: op.forward.options, ..op.options };
            let search = Retrieve::new(op.forward.q.clone(), &part.resident, options);
            pending
                .push((part.documents.start, self.shards[part.shard].submit(&Op::Retrieve(search), cancel)));
        }
        let (shape, width, queries) = (op.output_shape(), op.width(), op.forward.q.count());
        let largest = op.options.largest;
        // The layout of winners depends on the queries of the hits alone.
        let mut argmax = match op.forward.options.argmax {
            true => {
                let q: Vec<u32> = (0..queries as u32).flat_map(|i| std::iter::repeat_n(i, width)).collect();
                let d = vec![0u32; q.len()];
                let pairs = Forward::score_pairs(
                    op.forward.q.clone(),
                    op.forward.d.clone(),
                    q,
                    d,
                    op.forward.options,
                )?;
                Some(pairs.empty_argmax())
            }
            false => None,
        };
        Ok(Submission::pending(Box::pin(async move {
            let mut found: Vec<(u32, TopK)> = Vec::new();
            for (first, submission) in pending {
                let Output::TopK(hits) = submission.await? else { unreachable!("retrieve returns hits") };
                found.push((first, hits));
            }
            let mut result = TopK { scores: vec![], indices: vec![], shape, argmax: None };
            for i in 0..queries {
                let mut next = vec![0; found.len()];
                for rank in 0..width {
                    let hit = |part: usize, next: &[usize]| {
                        let (first, hits) = &found[part];
                        let at = i * hits.width() + next[part];
                        (next[part] < hits.width()).then(|| (hits.scores[at], first + hits.indices[at], at))
                    };
                    let better = |a: f32, b: f32| if largest { a > b } else { a < b };
                    let mut best: Option<(usize, (f32, u32, usize))> = None;
                    for part in 0..found.len() {
                        // Parts are in document order, so the first of equals has the lowest index.
                        if let Some(hit) = hit(part, &next)
                            && best.is_none_or(|(_, b)| better(hit.0, b.0))
                        {
                            best = Some((part, hit));
                        }
                    }
                    let (part, (score, index, at)) = best.expect("the parts hold every document");
                    next[part] += 1;
                    result.scores.push(score);
                    result.indices.push(index);
                    copy_winners(argmax.as_mut(), i * width + rank, found[part].1.argmax.as_ref(), at);
                }
            }
            result.argmax = argmax;
            Ok(Output::TopK(result))
        })))
    }
}

fn copy_winners(to: Option<&mut Argmax>, pair: usize, from: Option<&Argmax>, at: usize) {
    if let (Some(to), Some(from)) = (to, from) {
        let range = to.range(pair);
        to.values[range].copy_from_slice(from.pair(at));
    }
}

/// Runs of documents of about as many tokens each, one per shard; fewer where there are fewer documents.
fn split(documents: &Documents<'_>, shards: usize) -> Vec<Range<u32>> {
    let sequences = documents.sequences();
    let count = sequences.count();
    let total: usize = (0..count).map(|j| sequences.rows(j).len() + 1).sum();
    let (mut ranges, mut first, mut seen) = (Vec::new(), 0, 0);
    for j in 0..count {
        seen += sequences.rows(j).len() + 1;
        if seen * shards >= total * (ranges.len() + 1) {
            ranges.push(first as u32..j as u32 + 1);
            first = j + 1;
        }
    }
    ranges
}

impl Backend for ShardedBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn plan(&self, op: &Op<'_>) -> Result<Plan> {
        let resident = match op {
            Op::Forward(Forward { d: Documents::Resident(resident), .. }) => Some(*resident),
            Op::Retrieve(Retrieve { forward: Forward { d: Documents::Resident(resident), .. }, .. }) => {
                Some(*resident)
            }
            _ => None,
        };
        let Some(resident) = resident else { return self.shards[0].plan(op) };
        let parts = resident.handle::<Parts>()?;
        Ok(Plan {
            backend: self.info.kind,
            kernel: format!("{}/sharded", op.name()),
            choices: vec![("parts", parts.0.len().to_string())],
            notes: vec![],
        })
    }

    fn upload(&self, documents: &Documents<'_>, normalized: bool) -> Result<Resident> {
        let mut parts = Vec::new();
        for (shard, range) in split(documents, self.shards.len()).into_iter().enumerate() {
            let documents_of = range.start as usize..range.end as usize;
            let resident = match documents {
                Documents::Tokens(tokens) => {
                    self.shards[shard].upload(&Documents::Tokens(tokens.slice(documents_of)), normalized)?
                }
                Documents::Residual(residual) => self.shards[shard]
                    .upload(&Documents::Residual(residual.slice(documents_of)), normalized)?,
                Documents::Resident(resident) => return Ok((*resident).clone()),
                _ => return Err(unsupported(self.info.kind)),
            };
            parts.push(Part { shard, documents: range, resident });
        }
        let mut meta = ResidentMeta::of(documents, self.info.kind, normalized);
        meta.bytes = parts.iter().map(|part| part.resident.meta().bytes).sum();
        Ok(Resident::new(meta, Parts(parts)))
    }

    fn upload_index(&self, codec: &Codec<'_>, segments: &[&Segment]) -> Result<ResidentIndex> {
        self.shards[0].upload_index(codec, segments)
    }

    fn submit(&self, op: &Op<'_>, cancel: &Cancel) -> Submission {
        let result = match op {
            Op::Forward(forward) => match &forward.d {
                Documents::Resident(resident) => {
                    resident.handle::<Parts>().and_then(|parts| self.forward(forward, parts, cancel))
                }
                _ => return self.shards[0].submit(op, cancel),
            },
            Op::Retrieve(retrieve) => match &retrieve.forward.d {
                Documents::Resident(resident) => {
                    resident.handle::<Parts>().and_then(|parts| self.retrieve(retrieve, parts, cancel))
                }
                _ => return self.shards[0].submit(op, cancel),
            },
            _ => return self.shards[0].submit(op, cancel),
        };
        result.unwrap_or_else(|error| Submission::ready(Err(error)))
    }
}

fn unsupported(kind: BackendKind) -> Error {
    Error::Unsupported {
        what: format!("these documents on several {kind} devices"),
        hint: "use one device".into(),
    }
}
