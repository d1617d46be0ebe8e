//! Queries brought into the kernels' layout.

use std::ops::Range;

use maxsim_core::{DataRef, Element, Tokens};

use crate::arch::Kernels;
use crate::norm::inverse_norm;

/// Up to two vectors of query tokens, dimension-major.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    /// Query the tokens belong to.
    pub(crate) query: usize,
    /// First of them within the query.
    pub(crate) token: usize,
    /// How many there are; the lanes behind them hold zeros.
    pub(crate) tokens: usize,
    /// Vectors of lanes.
    pub(crate) vectors: usize,
}

impl Panel {
    fn width(self, kernels: &Kernels) -> usize {
        self.vectors * kernels.lanes
    }
}

/// The panels of one query, in token order.
pub(crate) fn panels_of(
    q: &Tokens<'_>,
    query: usize,
    kernels: &Kernels,
) -> impl Iterator<Item = Panel> + use<> {
    let tokens = q.rows(query).len();
    let widest = kernels.vectors * kernels.lanes;
    let lanes = kernels.lanes;
    (0..tokens.div_ceil(widest)).map(move |p| {
        let token = p * widest;
        let here = widest.min(tokens - token);
        Panel { query, token, tokens: here, vectors: here.div_ceil(lanes) }
    })
}

/// Packed panels with everything that is needed to turn their maxima into scores.
#[derive(Default)]
pub(crate) struct Packed {
    pub(crate) panels: Vec<Panel>,
    /// All panels behind one another, each `[dim][width]`.
    data: Vec<f32>,
    /// Per lane: factor of the winning similarity; NaN where the lane is masked or empty.
    pub(crate) factors: Vec<f32>,
    /// Per panel: its place in `data` and in per-lane arrays.
    places: Vec<(usize, usize)>,
}

impl Packed {
    /// f32 values that `panels` take when packed.
    pub(crate) fn size(panel: Panel, dim: usize, kernels: &Kernels) -> usize {
        panel.width(kernels) * dim
    }

    /// Packs `panels`, keeping the buffers' memory.
    pub(crate) fn pack(
        &mut self,
        q: &Tokens<'_>,
        panels: impl IntoIterator<Item = Panel>,
        normalize: bool,
        kernels: &Kernels,
    ) {
        self.panels.clear();
        self.panels.extend(panels);
        self.places.clear();
        let (mut at, mut lane) = (0, 0);
        for panel in &self.panels {
            self.places.push((at, lane));
            at += Self::size(*panel, q.dim(), kernels);
            lane += panel.width(kernels);
        }
        self.data.clear();
        self.data.resize(at, 0.0);
        self.factors.clear();
        self.factors.resize(lane, f32::NAN);
        let mut row_f32 = Vec::with_capacity(q.dim());
        for (panel, &(at, lane)) in self.panels.iter().zip(&self.places) {
            let width = panel.width(kernels);
            let first = q.rows(panel.query).start + panel.token;
            let out = &mut self.data[at..at + width * q.dim()];
            for t in 0..panel.tokens {
                let row = first + t;
                if !q.keeps(row) {
                    continue;
                }
                let vector = q.data().slice(row * q.dim()..(row + 1) * q.dim());
                transpose_any(vector, out, width, t);
                let scale = q.scales().map_or(1.0, |s| s.get(row));
                self.factors[lane + t] = if normalize {
                    row_f32.clear();
                    row_f32.extend(vector.to_f32());
                    inverse_norm(&row_f32, scale, kernels)
                } else {
                    scale
                };
            }
        }
    }

    /// Panel `p` and its lanes.
    pub(crate) fn panel(&self, p: usize, dim: usize, kernels: &Kernels) -> (&[f32], Range<usize>) {
        let (at, lane) = self.places[p];
        let width = self.panels[p].width(kernels);
        (&self.data[at..at + width * dim], lane..lane + width)
    }

    /// Lanes of all panels.
    pub(crate) fn lanes(&self) -> usize {
        self.factors.len()
    }
}

/// Writes a row of any type as column `t` of a `[dim][width]` panel.
pub(crate) fn transpose_any(row: DataRef<'_>, panel: &mut [f32], width: usize, t: usize) {
    maxsim_core::dispatch!(DataRef, row, |row| transpose(row, panel, width, t));
}

/// Writes a row as column `t` of a `[dim][width]` panel.
fn transpose<T: Element>(row: &[T], panel: &mut [f32], width: usize, t: usize) {
    for (line, &x) in panel.chunks_exact_mut(width).zip(row) {
        line[t] = x.to_f32();
    }
}
