//! `pack_padded`: padded reranking batches as packed tokens and a pair list.

use crate::dtype::{DataBuf, Element};
use crate::error::{Error, Result};
use crate::sequences::Axes;
use crate::tokens::Tokens;

/// Padded reranking input without its padding; feed it to `score_pairs`.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedPairs {
    /// Query tokens `[ΣLq, d]`.
    pub q: DataBuf,
    /// Document tokens `[ΣLd, d]`.
    pub d: DataBuf,
    /// `[B + 1]`.
    pub cu_seqlens_q: Vec<u32>,
    /// `[B·K + 1]`.
    pub cu_seqlens_d: Vec<u32>,
    /// `[B·K]`: `0,0,…,1,1,…`.
    pub pair_q_idx: Vec<u32>,
    /// `[B·K]`: `0,1,2,…`.
    pub pair_d_idx: Vec<u32>,
    /// Embedding dimension.
    pub dim: usize,
}

/// Packs `queries [B,Lq,d]` and `documents [B,K,Ld,d]` (with their prefix lengths) tightly.
///
/// # Errors
/// `ERR_SHAPE` if the ranks, `B` or `d` do not fit; `ERR_VALUE` if an operand has a mask, which packing would lose.
pub fn pack_padded(queries: &Tokens<'_>, documents: &Tokens<'_>) -> Result<PackedPairs> {
    let b = queries.count();
    let k = match documents.axes() {
        Axes::Grid(n, k) if n == b => k,
        _ => {
            return Err(Error::shape(
                "documents",
                format!("[{b}, K, Ld, d] for {b} queries"),
                format!("{:?}", documents.shape()),
            ));
        }
    };
    if documents.dim() != queries.dim() {
        return Err(Error::shape(
            "documents",
            format!("d = {} as in queries", queries.dim()),
            format!("d = {}", documents.dim()),
        ));
    }
    for (tokens, argument) in [(queries, "queries"), (documents, "documents")] {
        if tokens.mask().is_some() {
            return Err(Error::value(argument, "prefix lengths", "a mask"));
        }
        if tokens.scales().is_some() {
            return Err(Error::dtype(argument, "f32, f16 or bf16", tokens.dtype().name()));
        }
    }
    let (q, cu_seqlens_q) = pack(queries);
    let (d, cu_seqlens_d) = pack(documents);
    Ok(PackedPairs {
        q,
        d,
        cu_seqlens_q,
        cu_seqlens_d,
        pair_q_idx: (0..b as u32).flat_map(|i| std::iter::repeat_n(i, k)).collect(),
        pair_d_idx: (0..(b * k) as u32).collect(),
        dim: queries.dim(),
    })
}

fn pack(tokens: &Tokens<'_>) -> (DataBuf, Vec<u32>) {
    fn gather<T: Element>(data: &[T], tokens: &Tokens<'_>) -> DataBuf {
        let dim = tokens.dim();
        let mut out = Vec::with_capacity(tokens.kept() * dim);
        for i in 0..tokens.count() {
            let rows = tokens.rows(i);
            out.extend_from_slice(&data[rows.start * dim..rows.end * dim]);
        }
        T::buffer(out)
    }
    let mut offsets = vec![0u32];
    for i in 0..tokens.count() {
        offsets.push(offsets[i] + tokens.rows(i).len() as u32);
    }
    (crate::dispatch!(DataRef, tokens.data(), |data| gather(data, tokens)), offsets)
}
