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
    /// All panels as integers, each `[groups][width]`.
    words: Vec<u32>,
    /// Per lane: what integer sums start at.
    starts: Vec<i32>,
    /// Per lane: factor of integer sums (1 for queries that are int8 themselves).
    lane_scales: Vec<f32>,
}

/// A panel as the integer kernels take it.
pub(crate) struct IntegerPanel<'a> {
    pub(crate) words: &'a [u32],
    pub(crate) starts: &'a [i32],
    pub(crate) scales: &'a [f32],
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
        let values = self.lay_out(q.dim(), panels, kernels);
        self.data.clear();
        self.data.resize(values, 0.0);
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

    /// Gives every panel its place; all lanes start out masked. Returns how many f32 values they take.
    fn lay_out(&mut self, dim: usize, panels: impl IntoIterator<Item = Panel>, kernels: &Kernels) -> usize {
        self.panels.clear();
        self.panels.extend(panels);
        self.places.clear();
        let (mut at, mut lane) = (0, 0);
        for panel in &self.panels {
            self.places.push((at, lane));
            at += Self::size(*panel, dim, kernels);
            lane += panel.width(kernels);
        }
        self.factors.clear();
        self.factors.resize(lane, f32::NAN);
        at
    }

    /// Packs int8 queries as they are.
    pub(crate) fn pack_int8(
        &mut self,
        q: &Tokens<'_>,
        panels: impl IntoIterator<Item = Panel>,
        normalize: bool,
        kernels: &Kernels,
    ) {
        let DataRef::I8(data) = q.data() else { unreachable!("int8 queries") };
        let dim = q.dim();
        self.lay_out(dim, panels, kernels);
        let order: Vec<u32> = (0..dim as u32).collect();
        self.clear_words(order.len(), kernels);
        let mut row_f32 = Vec::with_capacity(dim);
        for (panel, &(_, lane)) in self.panels.iter().zip(&self.places) {
            let first = q.rows(panel.query).start + panel.token;
            for t in (0..panel.tokens).filter(|&t| q.keeps(first + t)) {
                let row = &data[(first + t) * dim..(first + t + 1) * dim];
                let words = words_of(&mut self.words, lane, order.len(), *panel, kernels);
                self.starts[lane + t] = scatter(row, &order, words, t, panel.width(kernels), kernels);
                let scale = q.scales().map_or(1.0, |s| s.get(first + t));
                self.factors[lane + t] = if normalize {
                    row_f32.clear();
                    row_f32.extend(row.iter().map(|&x| f32::from(x)));
                    inverse_norm(&row_f32, scale, kernels)
                } else {
                    scale
                };
            }
        }
    }

    /// Packs queries as f32 and, rounded to int8 with a scale per token, as integers whose dimensions come in `order`
    /// (`u32::MAX`: none). Integer sums are multiplied by `weight_scale` too.
    pub(crate) fn pack_residual(
        &mut self,
        q: &Tokens<'_>,
        panels: impl IntoIterator<Item = Panel>,
        normalize: bool,
        order: &[u32],
        weight_scale: f32,
        kernels: &Kernels,
    ) {
        self.pack(q, panels, normalize, kernels);
        self.clear_words(order.len(), kernels);
        let dim = q.dim();
        let mut rounded = vec![0i8; dim];
        for (panel, &(_, lane)) in self.panels.iter().zip(&self.places) {
            let first = q.rows(panel.query).start + panel.token;
            for t in (0..panel.tokens).filter(|&t| q.keeps(first + t)) {
                let vector = q.data().slice((first + t) * dim..(first + t + 1) * dim).to_f32();
                let scale = round_int8(&vector, &mut rounded);
                self.lane_scales[lane + t] = scale * weight_scale;
                let words = words_of(&mut self.words, lane, order.len(), *panel, kernels);
                self.starts[lane + t] = scatter(&rounded, order, words, t, panel.width(kernels), kernels);
            }
        }
    }

    fn clear_words(&mut self, positions: usize, kernels: &Kernels) {
        self.words.clear();
        self.words.resize(positions.div_ceil(kernels.integer.group) * self.lanes(), 0);
        self.starts.clear();
        self.starts.resize(self.lanes(), 0);
        self.lane_scales.clear();
        self.lane_scales.resize(self.lanes(), 1.0);
    }

    /// Lanes of panel `p`.
    pub(crate) fn lanes_of(&self, p: usize, kernels: &Kernels) -> Range<usize> {
        let lane = self.places[p].1;
        lane..lane + self.panels[p].width(kernels)
    }

    /// Panel `p` as integers.
    pub(crate) fn integer_panel(&self, p: usize, kernels: &Kernels) -> (IntegerPanel<'_>, Range<usize>) {
        let lanes = self.lanes_of(p, kernels);
        let groups = self.words.len() / self.lanes().max(1);
        let panel = IntegerPanel {
            words: &self.words[lanes.start * groups..lanes.end * groups],
            starts: &self.starts[lanes.clone()],
            scales: &self.lane_scales[lanes.clone()],
        };
        (panel, lanes)
    }

    /// Panel `p` and its lanes.
    pub(crate) fn panel(&self, p: usize, dim: usize, kernels: &Kernels) -> (&[f32], Range<usize>) {
        let (at, lanes) = (self.places[p].0, self.lanes_of(p, kernels));
        (&self.data[at..at + lanes.len() * dim], lanes)
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

/// The part of `words` that belongs to the panel at `lane`.
fn words_of<'a>(
    words: &'a mut [u32],
    lane: usize,
    positions: usize,
    panel: Panel,
    kernels: &Kernels,
) -> &'a mut [u32] {
    let groups = positions.div_ceil(kernels.integer.group);
    &mut words[lane * groups..(lane + panel.width(kernels)) * groups]
}

/// Writes int8 elements into lane `t` of a `[groups][width]` panel; returns what the lane's sums start at.
fn scatter(row: &[i8], order: &[u32], words: &mut [u32], t: usize, width: usize, kernels: &Kernels) -> i32 {
    let group = kernels.integer.group;
    let mut sum = 0;
    for (line, dims) in words.chunks_exact_mut(width).zip(order.chunks(group)) {
        let mut bytes = [0u8; 4];
        for (i, &dim) in dims.iter().enumerate().filter(|(_, dim)| **dim != u32::MAX) {
            let x = row[dim as usize];
            sum += i32::from(x);
            if group == 4 {
                bytes[i] = x as u8;
            } else {
                bytes[2 * i..2 * i + 2].copy_from_slice(&i16::from(x).to_ne_bytes());
            }
        }
        line[t] = u32::from_ne_bytes(bytes);
    }
    -i32::from(kernels.integer.bias) * sum
}

/// `row / scale` rounded to int8 (nearest-even); returns `scale = max|row| / 127`. What is too small for that becomes 0.
pub(crate) fn round_int8(row: &[f32], to: &mut [i8]) -> f32 {
    let largest = row.iter().fold(0f32, |m, x| m.max(x.abs()));
    if largest < 1e-30 {
        to.fill(0);
        return 0.0;
    }
    let scale = largest / 127.0;
    for (y, x) in to.iter_mut().zip(row) {
        *y = Element::from_f32(x / scale);
    }
    scale
}
