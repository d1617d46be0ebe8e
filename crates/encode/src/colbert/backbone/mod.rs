//! The transformer. Own code on candle's layers, for what its model collection (candle-transformers 0.11) has no switch
//! for: the mask tokens of an expanded query that lie farther from every word than ModernBERT's window attend to nothing,
//! which has to give zero, as in the reference; biases, layer types and rotations as configurations name them.

mod attention;
mod bert;
mod modern_bert;

use std::collections::HashMap;

use candle_core::{Device, Result as CandleResult, Tensor};
use candle_nn::{LayerNorm, VarBuilder};
use maxsim_core::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::attention::Masks;
use super::folder::{Folder, named, required};
use super::weights;

/// No size in a configuration is as large: keeps products of sizes from overflowing.
const MAX_SIZE: usize = 1 << 24;

/// A transformer that gives a vector per token.
pub(super) struct Backbone {
    model: Model,
    /// Length of a vector.
    pub(super) hidden: usize,
    /// Attention heads, which say how much memory a sequence takes.
    pub(super) heads: usize,
    /// Ids that have an embedding.
    pub(super) vocabulary: usize,
    /// Tokens that a sequence can have.
    pub(super) positions: usize,
}

enum Model {
    Bert(bert::Bert),
    ModernBert(modern_bert::ModernBert),
}

/// What both configurations say about sizes.
#[derive(Deserialize)]
struct Sizes {
    #[serde(default)]
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
}

impl Backbone {
    /// The transformer that a folder's `config.json` describes, from `tensors`.
    pub(super) fn load(folder: &Folder, tensors: HashMap<String, Tensor>) -> Result<Self> {
        let sizes: Sizes = config(folder)?;
        let heads = sizes.num_attention_heads;
        let all = [
            sizes.vocab_size,
            sizes.hidden_size,
            sizes.num_hidden_layers,
            heads,
            sizes.intermediate_size,
            sizes.max_position_embeddings,
        ];
        if let Some(size) = all.into_iter().find(|&size| size > MAX_SIZE) {
            return Err(malformed(folder, format!("a size of {size}, which is more than {MAX_SIZE}")));
        }
        if heads == 0 || sizes.hidden_size == 0 || !sizes.hidden_size.is_multiple_of(2 * heads) {
            let problem =
                format!("hidden_size {} does not make {heads} heads of even size", sizes.hidden_size);
            return Err(malformed(folder, problem));
        }
        // Saved from within a larger model, tensors have its name before theirs.
        let bare = |name: String| match name.strip_prefix("bert.").or(name.strip_prefix("model.")) {
            Some(bare) => bare.to_owned(),
            None => name,
        };
        let vb = weights::builder(tensors.into_iter().map(|(name, tensor)| (bare(name), tensor)).collect());
        let model = match sizes.model_type.as_str() {
            "bert" => Model::Bert(bert::Bert::load(folder, &sizes, &vb)?),
            "modernbert" => Model::ModernBert(modern_bert::ModernBert::load(folder, &sizes, &vb)?),
            other => {
                return Err(unsupported(
                    folder,
                    format!("the model type {other:?}"),
                    "bert and modernbert are",
                ));
            }
        };
        Ok(Self {
            model,
            hidden: sizes.hidden_size,
            heads,
            vocabulary: sizes.vocab_size,
            positions: sizes.max_position_embeddings,
        })
    }

    /// Outputs `[batch, tokens, hidden]` for `ids` `[batch, tokens]`. Others attend to the first `attended[i]` tokens of
    /// sequence `i`, at least one.
    pub(super) fn forward(&self, ids: &Tensor, attended: &[usize]) -> CandleResult<Tensor> {
        let masks = Masks::new(attended, ids.dim(1)?);
        match &self.model {
            Model::Bert(bert) => bert.forward(ids, &masks),
            Model::ModernBert(modern) => modern.forward(ids, &masks),
        }
    }
}

fn config<T: DeserializeOwned>(folder: &Folder) -> Result<T> {
    required(&folder.transformer, "config.json")
}

fn malformed(folder: &Folder, problem: String) -> Error {
    Error::format(named(&folder.transformer, "config.json"), problem)
}

fn unsupported(folder: &Folder, what: String, hint: &str) -> Error {
    Error::Unsupported {
        what: format!("{}: {what}", named(&folder.transformer, "config.json")),
        hint: hint.into(),
    }
}

/// A layer norm. Without a bias it has one of zeros: candle computes those with a bias in one pass.
fn norm(size: usize, epsilon: f64, bias: bool, vb: VarBuilder<'_>) -> CandleResult<LayerNorm> {
    if bias {
        return candle_nn::layer_norm(size, epsilon, vb);
    }
    let zeros = Tensor::zeros(size, vb.dtype(), &Device::Cpu)?;
    Ok(LayerNorm::new(vb.get(size, "weight")?, zeros, epsilon))
}
