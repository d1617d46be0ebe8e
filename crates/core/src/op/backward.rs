//! Gradients of the scoring operator.

use super::{Argmax, Cost, Documents, Forward};
use crate::dtype::{DType, DataBuf};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How gradients are accumulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum BackwardMethod {
    /// The better of the two for the shape.
    #[default]
    Auto,
    /// One pass with atomic additions; fastest where contention is low, not bit-reproducible on GPUs.
    Unified,
    /// Every output row owned by one program and stored once: deterministic, half the peak memory.
    Lowmem,
}

impl std::str::FromStr for BackwardMethod {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s {
            "auto" => Ok(Self::Auto),
            "unified" => Ok(Self::Unified),
            "lowmem" => Ok(Self::Lowmem),
            other => Err(Error::value("backward", "one of auto, unified, lowmem", format!("{other:?}"))),
        }
    }
}

/// The backward operator of every scoring form: dense, KD, pairs, packed, pair lists, residual (to `Q` only).
#[derive(Debug, Clone)]
pub struct Backward<'a> {
    /// The operator to differentiate, with the options it was run with.
    pub forward: Forward<'a>,
    /// Gradient of the loss with respect to the scores, in the layout of [`Forward::output_shape`].
    pub grad: &'a [f32],
    /// Winners of the forward run; recomputed if absent.
    pub argmax: Option<&'a Argmax>,
    /// How to accumulate.
    pub method: BackwardMethod,
    /// Whether the gradient of `Q` is wanted.
    pub wants_q: bool,
    /// Whether the gradient of `D` is wanted.
    pub wants_d: bool,
}

impl<'a> Backward<'a> {
    /// Both gradients (only that of `Q` for residual documents, which are not differentiable).
    pub fn new(forward: Forward<'a>, grad: &'a [f32]) -> Self {
        let wants_d = matches!(forward.d, Documents::Tokens(_));
        Self { forward, grad, argmax: None, method: BackwardMethod::Auto, wants_q: true, wants_d }
    }

    /// Checks operands.
    ///
    /// # Errors
    /// As [`Forward::validate`]; `ERR_SHAPE` for a gradient or winners of another size, `ERR_INDEX` for a winner beyond
    /// its document, `ERR_DTYPE` for quantised operands, which have no gradient, `ERR_UNSUPPORTED` for documents of a corpus.
    pub fn validate(&self) -> Result<()> {
        self.forward.validate()?;
        if self.forward.q.dtype().is_quantized() {
            return Err(differentiable("Q", self.forward.q.dtype()));
        }
        match &self.forward.d {
            Documents::Tokens(d) if !d.dtype().is_quantized() => {}
            Documents::Residual(_) if !self.wants_d => {}
            Documents::Residual(_) => {
                return Err(Error::value("wants_d", "false for residual documents", "true"));
            }
            Documents::Resident(_) => {
                return Err(Error::Unsupported {
                    what: "the gradient of scores of a corpus".into(),
                    hint: "a corpus is kept to be searched; pass the documents' token vectors themselves"
                        .into(),
                });
            }
            other => return Err(differentiable("D", other.dtype())),
        }
        self.check_shapes()
    }

    /// Checks `grad` and `argmax` alone.
    pub(crate) fn check_shapes(&self) -> Result<()> {
        let pairs = self.forward.pair_count();
        if self.grad.len() != pairs {
            return Err(Error::shape(
                "grad",
                format!("{pairs} elements (shape {:?})", self.forward.output_shape()),
                format!("{} elements", self.grad.len()),
            ));
        }
        self.argmax.map_or(Ok(()), |argmax| self.check_argmax(argmax))
    }

    fn check_argmax(&self, argmax: &Argmax) -> Result<()> {
        let expected = self.forward.empty_argmax();
        if argmax.values.len() != expected.values.len() || argmax.shape() != expected.shape() {
            return Err(Error::shape(
                "argmax",
                format!("{} elements as forward returns them", expected.values.len()),
                format!("{} elements", argmax.values.len()),
            ));
        }
        for pair in 0..self.forward.pair_count() {
            let tokens = self.forward.d.sequences().rows(self.forward.pair(pair).1).len();
            let range = argmax.range(pair);
            for position in range {
                let winner = argmax.values[position];
                if winner < -1 || winner >= tokens as i32 {
                    return Err(Error::index(
                        "argmax",
                        position,
                        format!("-1 or a token below {tokens}"),
                        winner.to_string(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Work: the forward pass (unless winners are given) and two multiply-adds per winner and dimension.
    pub fn cost(&self) -> Cost {
        let forward = self.forward.cost();
        let rows: usize = (0..self.forward.q.count()).map(|i| self.forward.q.extent(i)).sum();
        let mean = rows as u64 / self.forward.q.count().max(1) as u64;
        let winners = self.forward.pair_count() as u64 * mean;
        Cost {
            flops: if self.argmax.is_some() { 0 } else { forward.flops }
                + 4 * winners * self.forward.q.dim() as u64,
            bytes: 2 * forward.bytes,
        }
    }
}

fn differentiable(argument: &'static str, dtype: DType) -> Error {
    Error::dtype(argument, "f32, f16 or bf16, which have gradients", dtype.name())
}

/// Gradients in their operands' shapes and dtypes; those not asked for are absent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gradients {
    /// With respect to `Q`.
    pub q: Option<Tensor>,
    /// With respect to `D`.
    pub d: Option<Tensor>,
    /// With respect to the hidden states `H` (fused head).
    pub h: Option<Tensor>,
    /// With respect to the projection `W` (fused head).
    pub w: Option<Tensor>,
    /// With respect to the bias `b` (fused head).
    pub b: Option<Tensor>,
}

impl Gradients {
    /// An f32 accumulator rounded once to the operand's dtype.
    pub fn rounded(values: Vec<f32>, shape: Vec<usize>, dtype: DType) -> Tensor {
        let data = if dtype == DType::F32 { DataBuf::F32(values) } else { DataBuf::from_f32(&values, dtype) };
        Tensor::new(data, shape).expect("a gradient has its operand's shape")
    }
}
