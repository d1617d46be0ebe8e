//! BERT: learned positions, norms behind the additions.

use candle_core::{Result as CandleResult, Tensor};
use candle_nn::{Activation, Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, linear};
use maxsim_core::Result;
use serde::Deserialize;

use super::attention::{Attention, Masks};
use super::{Folder, Sizes, config, norm, unsupported, weights};

#[derive(Deserialize)]
struct Config {
    #[serde(default = "two")]
    type_vocab_size: usize,
    #[serde(default = "epsilon")]
    layer_norm_eps: f64,
    #[serde(default)]
    hidden_act: Activation,
    position_embedding_type: Option<String>,
}

fn two() -> usize {
    2
}

fn epsilon() -> f64 {
    1e-12
}

pub(super) struct Bert {
    words: Embedding,
    /// `[positions, hidden]`, the type of all tokens included.
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

struct Layer {
    attention: Attention,
    attention_norm: LayerNorm,
    wide: Linear,
    activation: Activation,
    narrow: Linear,
    norm: LayerNorm,
}

impl Bert {
    pub(super) fn load(folder: &Folder, sizes: &Sizes, vb: &VarBuilder<'_>) -> Result<Self> {
        let config: Config = config(folder)?;
        if let Some(other) = config.position_embedding_type.as_deref().filter(|&kind| kind != "absolute") {
            return Err(unsupported(folder, format!("the position embedding type {other:?}"), "absolute is"));
        }
        Self::layers(sizes, &config, vb).map_err(|error| weights::failed(&folder.transformer, &error))
    }

    fn layers(sizes: &Sizes, config: &Config, vb: &VarBuilder<'_>) -> CandleResult<Self> {
        let (hidden, epsilon) = (sizes.hidden_size, config.layer_norm_eps);
        let at = vb.pp("embeddings");
        let positions = at.get((sizes.max_position_embeddings, hidden), "position_embeddings.weight")?;
        let types = at.get((config.type_vocab_size, hidden), "token_type_embeddings.weight")?;
        let layer = |i: usize| {
            let at = vb.pp("encoder.layer").pp(i);
            let own = at.pp("attention.self");
            let part = |name: &str| linear(hidden, hidden, own.pp(name));
            let parts = [part("query")?, part("key")?, part("value")?];
            let weight = Tensor::cat(&parts.each_ref().map(Linear::weight), 0)?;
            let biases: Vec<&Tensor> = parts.iter().filter_map(Linear::bias).collect();
            Ok(Layer {
                attention: Attention {
                    qkv: Linear::new(weight, Some(Tensor::cat(&biases, 0)?)),
                    out: linear(hidden, hidden, at.pp("attention.output.dense"))?,
                    heads: sizes.num_attention_heads,
                },
                attention_norm: norm(hidden, epsilon, true, at.pp("attention.output.LayerNorm"))?,
                wide: linear(hidden, sizes.intermediate_size, at.pp("intermediate.dense"))?,
                activation: config.hidden_act,
                narrow: linear(sizes.intermediate_size, hidden, at.pp("output.dense"))?,
                norm: norm(hidden, epsilon, true, at.pp("output.LayerNorm"))?,
            })
        };
        Ok(Self {
            words: embedding(sizes.vocab_size, hidden, at.pp("word_embeddings"))?,
            positions: positions.broadcast_add(&types.narrow(0, 0, 1)?)?,
            norm: norm(hidden, epsilon, true, at.pp("LayerNorm"))?,
            layers: (0..sizes.num_hidden_layers).map(layer).collect::<CandleResult<_>>()?,
        })
    }

    pub(super) fn forward(&self, ids: &Tensor, masks: &Masks<'_>) -> CandleResult<Tensor> {
        let mask = masks.whole()?;
        let x = self.words.forward(ids)?.broadcast_add(&self.positions.narrow(0, 0, ids.dim(1)?)?)?;
        self.layers.iter().try_fold(self.norm.forward(&x)?, |x, layer| {
            let x = layer.attention_norm.forward(&(layer.attention.forward(&x, &mask, None)? + x)?)?;
            let wide = layer.activation.forward(&layer.wide.forward(&x)?)?;
            layer.norm.forward(&(layer.narrow.forward(&wide)? + x)?)
        })
    }
}
