//! Attention of tokens to tokens, and who may attend to whom.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Linear, Module, ops::softmax, rotary_emb::rope};

/// Low enough that a masked token has no weight beside one that is not. Infinity would make NaN of rows without any.
const MASKED: f32 = f32::MIN;

/// Which tokens a batch of padded sequences attends to.
pub(super) struct Masks<'a> {
    attended: &'a [usize],
    tokens: usize,
}

/// The masks of one kind of layer, as tensors; nothing where everything is attended to.
#[derive(Default)]
pub(super) struct Mask {
    /// Added to scores `[batch, heads, tokens, tokens]`.
    scores: Option<Tensor>,
    /// Multiplies outputs `[batch, heads, tokens, _]`: 0 for tokens that have nothing to attend to.
    outputs: Option<Tensor>,
}

impl<'a> Masks<'a> {
    /// The first `attended[i]` of `tokens` tokens of sequence `i` are attended to.
    pub(super) fn new(attended: &'a [usize], tokens: usize) -> Self {
        Self { attended, tokens }
    }

    /// For layers that see everything.
    pub(super) fn whole(&self) -> Result<Mask> {
        let (batch, tokens) = (self.attended.len(), self.tokens);
        if self.attended.iter().all(|&n| n == tokens) {
            return Ok(Mask::default());
        }
        let one = |&n: &usize| (0..tokens).map(move |j| if j < n { 0.0 } else { MASKED });
        let scores: Vec<f32> = self.attended.iter().flat_map(one).collect();
        Ok(Mask {
            scores: Some(Tensor::from_vec(scores, (batch, 1, 1, tokens), &Device::Cpu)?),
            outputs: None,
        })
    }

    /// For layers whose tokens see `reach` tokens to either side.
    pub(super) fn window(&self, reach: usize) -> Result<Mask> {
        let (batch, tokens) = (self.attended.len(), self.tokens);
        if tokens <= reach + 1 {
            return self.whole();
        }
        let mut scores = Vec::with_capacity(batch * tokens * tokens);
        let mut outputs = Vec::with_capacity(batch * tokens);
        for &n in self.attended {
            for i in 0..tokens {
                scores
                    .extend((0..tokens).map(|j| if j < n && i.abs_diff(j) <= reach { 0.0 } else { MASKED }));
                outputs.push(if i < n + reach { 1f32 } else { 0.0 });
            }
        }
        let lonely = outputs.contains(&0.0);
        let outputs = Tensor::from_vec(outputs, (batch, 1, tokens, 1), &Device::Cpu)?;
        Ok(Mask {
            scores: Some(Tensor::from_vec(scores, (batch, 1, tokens, tokens), &Device::Cpu)?),
            outputs: lonely.then_some(outputs),
        })
    }
}

/// Cosines and sines of a rotation, `[tokens, size / 2]` each.
pub(super) struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Of heads of `size` dimensions, for positions `0..tokens`.
    pub(super) fn new(theta: f64, size: usize, tokens: usize) -> Result<Self> {
        let frequency = |i: usize| theta.powf(-2.0 * i as f64 / size as f64) as f32;
        let angles: Vec<f32> =
            (0..tokens).flat_map(|t| (0..size / 2).map(move |i| t as f32 * frequency(i))).collect();
        let angles = Tensor::from_vec(angles, (tokens, size / 2), &Device::Cpu)?;
        Ok(Self { cos: angles.cos()?, sin: angles.sin()? })
    }
}

/// Self-attention, with one linear map for queries, keys and values.
pub(super) struct Attention {
    /// `hidden → 3 · hidden`.
    pub(super) qkv: Linear,
    /// `hidden → hidden`.
    pub(super) out: Linear,
    pub(super) heads: usize,
}

impl Attention {
    /// `[batch, tokens, hidden]` to the same.
    pub(super) fn forward(&self, x: &Tensor, mask: &Mask, rotation: Option<&Rotation>) -> Result<Tensor> {
        let (batch, tokens, hidden) = x.dims3()?;
        let size = hidden / self.heads;
        // [3, batch, heads, tokens, size]
        let qkv =
            self.qkv.forward(x)?.reshape((batch, tokens, 3, self.heads, size))?.permute((2, 0, 3, 1, 4))?;
        let part = |i: usize| qkv.get(i)?.contiguous();
        let (mut q, mut k, v) = (part(0)?, part(1)?, part(2)?);
        if let Some(rotation) = rotation {
            q = rope(&q, &rotation.cos, &rotation.sin)?;
            k = rope(&k, &rotation.cos, &rotation.sin)?;
        }
        let mut scores = (q * (size as f64).powf(-0.5))?.matmul(&k.t()?)?;
        if let Some(mask) = &mask.scores {
            scores = scores.broadcast_add(mask)?;
        }
        let mut mixed = softmax(&scores, D::Minus1)?.matmul(&v)?;
        if let Some(mask) = &mask.outputs {
            mixed = mixed.broadcast_mul(mask)?;
        }
        self.out.forward(&mixed.transpose(1, 2)?.reshape((batch, tokens, hidden))?)
    }
}
