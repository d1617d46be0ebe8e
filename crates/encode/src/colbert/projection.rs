//! `1_Dense` and the like: a linear map of every token's vector.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Result as CandleResult, Tensor};
use candle_nn::{Linear, Module};
use maxsim_core::{Error, Result};
use serde::Deserialize;

use super::folder::{named, required};
use super::weights;
use crate::fingerprint::Fingerprint;

/// One projection `[.., from] → [.., to]`.
pub(super) struct Projection {
    linear: Linear,
    activation: Option<fn(&Tensor) -> CandleResult<Tensor>>,
    residual: Residual,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// What is added to the output.
enum Residual {
    None,
    Input,
    Linear(Linear),
}

#[derive(Deserialize)]
struct Config {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    activation_function: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

fn yes() -> bool {
    true
}

impl Projection {
    /// Reads the folder of a projection.
    pub(super) fn open(folder: &Path, fingerprint: &mut Fingerprint) -> Result<Self> {
        let config: Config = required(folder, "config.json")?;
        let Config { in_features: from, out_features: to, .. } = config;
        let activation: Option<fn(&Tensor) -> CandleResult<Tensor>> =
            match config.activation_function.as_deref().map(|name| name.rsplit('.').next().unwrap_or(name)) {
                None | Some("Identity") => None,
                Some("Tanh") => Some(Tensor::tanh),
                Some("ReLU") => Some(Tensor::relu),
                Some("GELU") => Some(Tensor::gelu_erf),
                Some("SiLU") => Some(Tensor::silu),
                Some("Sigmoid") => Some(candle_nn::ops::sigmoid),
                Some(other) => {
                    return Err(Error::Unsupported {
                        what: format!("{}: the activation function {other}", named(folder, "config.json")),
                        hint: "Identity, Tanh, ReLU, GELU, SiLU and Sigmoid are".into(),
                    });
                }
            };
        let vb = weights::builder(weights::read(folder, fingerprint)?);
        let layers = || -> CandleResult<Self> {
            let linear = if config.bias {
                candle_nn::linear(from, to, vb.pp("linear"))?
            } else {
                candle_nn::linear_no_bias(from, to, vb.pp("linear"))?
            };
            let residual = match config.use_residual {
                false => Residual::None,
                true if from == to => Residual::Input,
                true => Residual::Linear(candle_nn::linear_no_bias(from, to, vb.pp("residual"))?),
            };
            Ok(Self { linear, activation, residual, from, to })
        };
        layers().map_err(|error| weights::failed(folder, &error))
    }

    /// The projection `linear.weight` `[to, from]` among the tensors of a transformer.
    pub(super) fn stanford(folder: &Path, tensors: &HashMap<String, Tensor>) -> Result<Self> {
        let layer = || -> CandleResult<Self> {
            let name = "linear.weight";
            let weight =
                tensors.get(name).ok_or(candle_core::Error::CannotFindTensor { path: name.into() })?;
            let (to, from) = weight.dims2()?;
            let linear = Linear::new(weight.to_dtype(candle_core::DType::F32)?, None);
            Ok(Self { linear, activation: None, residual: Residual::None, from, to })
        };
        layer().map_err(|error| weights::failed(folder, &error))
    }

    /// Projects `[batch, tokens, from]`.
    pub(super) fn forward(&self, x: &Tensor) -> CandleResult<Tensor> {
        let mut y = self.linear.forward(x)?;
        if let Some(activation) = self.activation {
            y = activation(&y)?;
        }
        match &self.residual {
            Residual::None => Ok(y),
            Residual::Input => y + x,
            Residual::Linear(linear) => y + linear.forward(x)?,
        }
    }
}
