//! Fused projection head: MaxSim over `H·Wᵀ + b` without writing the projection to memory.

use super::{Argmax, Cost, Documents, Forward, Options};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::tensor::TensorRef;
use crate::tokens::Tokens;

/// `maxsim_from_hidden`: `≡ maxsim(Q, norm(H·Wᵀ + b))`.
#[derive(Debug, Clone)]
pub struct FromHidden<'a> {
    /// Queries `[Nq, Lq, d]`, projected and normalised by the caller.
    pub q: Tokens<'a>,
    /// Hidden states `[Nd, Ld, d_model]`, with the documents' mask or lengths.
    pub h: Tokens<'a>,
    /// Projection `[d, d_model]`.
    pub w: TensorRef<'a>,
    /// Bias `[d]`.
    pub b: Option<TensorRef<'a>>,
    /// `normalize` (default true) is about the projected document tokens; queries are taken as they are.
    pub options: Options,
}

impl<'a> FromHidden<'a> {
    /// The operator with its default options.
    pub fn new(q: Tokens<'a>, h: Tokens<'a>, w: TensorRef<'a>, b: Option<TensorRef<'a>>) -> Self {
        Self { q, h, w, b, options: Options::normalized() }
    }

    /// The scoring operator whose documents are the projected tokens, for its pair layout. Its documents are `H`, whose
    /// dimension is `d_model`: do not run it.
    pub fn scoring(&self) -> Forward<'a> {
        Forward::maxsim(self.q.clone(), Documents::Tokens(self.h.clone()), self.options)
    }

    /// Checks operands.
    ///
    /// # Errors
    /// `ERR_SHAPE` for ranks or extents that do not fit (arguments `Q`, `H`, `W`, `b`), `ERR_DTYPE` for quantised operands,
    /// `ERR_NON_FINITE` under `validate_finite`.
    pub fn validate(&self) -> Result<()> {
        super::check_query(&self.q)?;
        let (d, d_model) = match *self.w.shape() {
            [d, d_model] => (d, d_model),
            _ => {
                return Err(Error::shape("W", "rank 2 [d, d_model]", format!("{:?}", self.w.shape())));
            }
        };
        if self.q.dim() != d {
            return Err(Error::shape(
                "W",
                format!("[{}, d_model] for d of Q", self.q.dim()),
                format!("[{d}, {d_model}]"),
            ));
        }
        if self.h.dim() != d_model {
            return Err(Error::shape(
                "H",
                format!("d_model = {d_model} as in W"),
                format!("d_model = {}", self.h.dim()),
            ));
        }
        if let crate::sequences::Axes::Grid(..) = self.h.axes() {
            return Err(Error::shape("H", "rank 2 [Ld, d_model] or 3 [Nd, Ld, d_model]", "rank 4"));
        }
        if let Some(b) = &self.b
            && b.shape() != [d]
        {
            return Err(Error::shape("b", format!("[{d}]"), format!("{:?}", b.shape())));
        }
        let b_dtype = self.b.as_ref().map_or(DType::F32, TensorRef::dtype);
        for (argument, dtype) in
            [("Q", self.q.dtype()), ("H", self.h.dtype()), ("W", self.w.dtype()), ("b", b_dtype)]
        {
            if dtype.is_quantized() {
                return Err(Error::dtype(argument, "f32, f16 or bf16", dtype.name()));
            }
        }
        if self.options.validate_finite {
            self.q.check_finite("Q")?;
            self.h.check_finite("H")?;
            self.w.check_finite("W")?;
            if let Some(b) = &self.b {
                b.check_finite("b")?;
            }
        }
        Ok(())
    }

    /// Work of projection and scoring; the projection itself is neither read nor written.
    pub fn cost(&self) -> Cost {
        let (d, d_model) = (self.q.dim() as u64, self.h.dim() as u64);
        let (q, h) = (self.q.kept() as u64, self.h.kept() as u64);
        let bytes = q * d * self.q.dtype().size() as u64
            + h * d_model * self.h.dtype().size() as u64
            + d * d_model * self.w.dtype().size() as u64;
        let pairs = self.q.count() as u64 * self.h.count() as u64;
        Cost { flops: 2 * h * d * (d_model + q), bytes: bytes + 4 * pairs }
    }
}

/// Gradients of [`FromHidden`] with respect to `Q`, `H`, `W` and `b`.
#[derive(Debug, Clone)]
pub struct FromHiddenBackward<'a> {
    /// The operator to differentiate.
    pub forward: FromHidden<'a>,
    /// Gradient with respect to the scores `[Nq, Nd]`.
    pub grad: &'a [f32],
    /// Winners of the forward run; recomputed if absent.
    pub argmax: Option<&'a Argmax>,
    /// Which gradients are wanted.
    pub wants: HeadGradients,
}

/// Which gradients of the fused head are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadGradients {
    /// `Q`.
    pub q: bool,
    /// `H`.
    pub h: bool,
    /// `W`.
    pub w: bool,
    /// `b`; ignored where there is no bias.
    pub b: bool,
}

impl HeadGradients {
    /// All of them.
    pub const ALL: Self = Self { q: true, h: true, w: true, b: true };
}

impl<'a> FromHiddenBackward<'a> {
    /// All gradients.
    pub fn new(forward: FromHidden<'a>, grad: &'a [f32]) -> Self {
        Self { forward, grad, argmax: None, wants: HeadGradients::ALL }
    }

    /// Checks operands.
    ///
    /// # Errors
    /// As [`FromHidden::validate`]; `ERR_SHAPE` and `ERR_INDEX` for a gradient or winners that do not fit.
    pub fn validate(&self) -> Result<()> {
        self.forward.validate()?;
        let mut backward = super::Backward::new(self.forward.scoring(), self.grad);
        backward.argmax = self.argmax;
        backward.check_shapes()
    }

    /// Work: the forward pass (unless winners are given), then two products per winning row.
    pub fn cost(&self) -> Cost {
        let forward = self.forward.cost();
        let (d, d_model) = (self.forward.q.dim() as u64, self.forward.h.dim() as u64);
        let winners = self.forward.q.kept() as u64 * self.forward.h.count() as u64;
        Cost {
            flops: if self.argmax.is_some() { 0 } else { forward.flops } + 6 * winners * d * d_model,
            bytes: 2 * forward.bytes,
        }
    }
}
