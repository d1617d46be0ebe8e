//! ModernBERT: rotated positions, norms before the layers, gated products, and layers that see a window only.

use std::collections::HashMap;

use candle_core::{D, Result as CandleResult, Tensor};
use candle_nn::{Activation, Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, linear_b};
use maxsim_core::Result;
use serde::Deserialize;

use super::attention::{Attention, Masks, Rotation};
use super::{Folder, Sizes, config, malformed, norm, unsupported, weights};

#[derive(Deserialize)]
struct Config {
    norm_eps: Option<f64>,
    layer_norm_eps: Option<f64>,
    /// Tokens that a window spans, half of them to either side.
    #[serde(default = "local_attention")]
    local_attention: usize,
    global_attn_every_n_layers: Option<usize>,
    layer_types: Option<Vec<Kind>>,
    global_rope_theta: Option<f64>,
    local_rope_theta: Option<f64>,
    #[serde(default)]
    rope_parameters: HashMap<Kind, Rope>,
    #[serde(default)]
    hidden_activation: Activation,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    norm_bias: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
enum Kind {
    #[serde(rename = "full_attention")]
    Whole,
    #[serde(rename = "sliding_attention")]
    Window,
}

#[derive(Deserialize)]
struct Rope {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
}

fn local_attention() -> usize {
    128
}

impl Config {
    fn kinds(&self, layers: usize) -> Result<Vec<Kind>, String> {
        match (&self.layer_types, self.global_attn_every_n_layers.unwrap_or(3)) {
            (Some(kinds), _) if kinds.len() == layers => Ok(kinds.clone()),
            (Some(kinds), _) => Err(format!("{} layer_types for {layers} layers", kinds.len())),
            (None, 0) => Err("global_attn_every_n_layers is 0".into()),
            (None, every) => {
                Ok((0..layers).map(|i| if i % every == 0 { Kind::Whole } else { Kind::Window }).collect())
            }
        }
    }

    fn theta(&self, kind: Kind) -> f64 {
        let (own, usual) = match kind {
            Kind::Whole => (self.global_rope_theta, 160_000.0),
            Kind::Window => (self.local_rope_theta, 10_000.0),
        };
        self.rope_parameters.get(&kind).and_then(|rope| rope.rope_theta).or(own).unwrap_or(usual)
    }
}

pub(super) struct ModernBert {
    words: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
    final_norm: LayerNorm,
    /// How far a window reaches to either side.
    reach: usize,
    /// Dimensions of a head.
    size: usize,
    /// Of layers that see everything, and of those that see a window.
    thetas: [f64; 2],
}

struct Layer {
    kind: Kind,
    /// The first layer has none.
    attention_norm: Option<LayerNorm>,
    attention: Attention,
    norm: LayerNorm,
    /// The gated half and its gate.
    wide: Linear,
    activation: Activation,
    narrow: Linear,
}

impl ModernBert {
    pub(super) fn load(folder: &Folder, sizes: &Sizes, vb: &VarBuilder<'_>) -> Result<Self> {
        let config: Config = config(folder)?;
        let kinds = config.kinds(sizes.num_hidden_layers).map_err(|problem| malformed(folder, problem))?;
        let types = config.rope_parameters.values().filter_map(|rope| rope.rope_type.as_deref());
        if let Some(other) = types.into_iter().find(|&kind| kind != "default") {
            return Err(unsupported(folder, format!("the rope_type {other:?}"), "default is"));
        }
        Self::layers(sizes, &config, &kinds, vb).map_err(|error| weights::failed(&folder.transformer, &error))
    }

    fn layers(sizes: &Sizes, config: &Config, kinds: &[Kind], vb: &VarBuilder<'_>) -> CandleResult<Self> {
        let (hidden, inner) = (sizes.hidden_size, sizes.intermediate_size);
        let epsilon = config.norm_eps.or(config.layer_norm_eps).unwrap_or(1e-5);
        let norm = |at: VarBuilder<'_>| norm(hidden, epsilon, config.norm_bias, at);
        let layer = |(i, &kind): (usize, &Kind)| {
            let at = vb.pp("layers").pp(i);
            Ok(Layer {
                kind,
                attention_norm: if i == 0 { None } else { Some(norm(at.pp("attn_norm"))?) },
                attention: Attention {
                    qkv: linear_b(hidden, 3 * hidden, config.attention_bias, at.pp("attn.Wqkv"))?,
                    out: linear_b(hidden, hidden, config.attention_bias, at.pp("attn.Wo"))?,
                    heads: sizes.num_attention_heads,
                },
                norm: norm(at.pp("mlp_norm"))?,
                wide: linear_b(hidden, inner.saturating_mul(2), config.mlp_bias, at.pp("mlp.Wi"))?,
                activation: config.hidden_activation,
                narrow: linear_b(inner, hidden, config.mlp_bias, at.pp("mlp.Wo"))?,
            })
        };
        Ok(Self {
            words: embedding(sizes.vocab_size, hidden, vb.pp("embeddings.tok_embeddings"))?,
            norm: norm(vb.pp("embeddings.norm"))?,
            layers: kinds.iter().enumerate().map(layer).collect::<CandleResult<_>>()?,
            final_norm: norm(vb.pp("final_norm"))?,
            reach: config.local_attention / 2,
            size: hidden / sizes.num_attention_heads,
            thetas: [Kind::Whole, Kind::Window].map(|kind| config.theta(kind)),
        })
    }

    pub(super) fn forward(&self, ids: &Tensor, masks: &Masks<'_>) -> CandleResult<Tensor> {
        let (whole, window) = (masks.whole()?, masks.window(self.reach)?);
        let [whole_rotation, window_rotation] =
            self.thetas.map(|theta| Rotation::new(theta, self.size, ids.dim(1)?));
        let (whole_rotation, window_rotation) = (whole_rotation?, window_rotation?);
        let start = self.norm.forward(&self.words.forward(ids)?)?;
        let end = self.layers.iter().try_fold(start, |x, layer| {
            let (mask, rotation) = match layer.kind {
                Kind::Whole => (&whole, &whole_rotation),
                Kind::Window => (&window, &window_rotation),
            };
            let normed = match &layer.attention_norm {
                None => x.clone(),
                Some(norm) => norm.forward(&x)?,
            };
            let x = (layer.attention.forward(&normed, mask, Some(rotation))? + x)?;
            let parts = layer.wide.forward(&layer.norm.forward(&x)?)?.chunk(2, D::Minus1)?;
            let gated = (layer.activation.forward(&parts[0].contiguous()?)? * &parts[1])?;
            layer.narrow.forward(&gated)? + x
        })?;
        self.final_norm.forward(&end)
    }
}
