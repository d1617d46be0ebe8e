//! Tensors of a `model.safetensors`.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use maxsim_core::{Error, Result};

use super::folder::{bytes, missing, named};
use crate::fingerprint::Fingerprint;

pub(super) const FILE: &str = "model.safetensors";

/// The tensors of a folder's file by name, in memory, and the hash of the file.
pub(super) fn read(folder: &Path, fingerprint: &mut Fingerprint) -> Result<HashMap<String, Tensor>> {
    let Some(content) = bytes(folder, FILE)? else {
        if folder.join("pytorch_model.bin").exists() {
            return Err(Error::Unsupported {
                what: format!("{}: pytorch_model.bin, which can run code when it is read,", folder.display()),
                hint: "load the model in Python and save it again: it is then written as model.safetensors"
                    .into(),
            });
        }
        return Err(missing(folder, FILE));
    };
    fingerprint.add(&content);
    candle_core::safetensors::load_buffer(&content, &Device::Cpu).map_err(|e| failed(folder, &e))
}

/// Gives layers their tensors, as f32 whatever the file has.
pub(super) fn builder(tensors: HashMap<String, Tensor>) -> VarBuilder<'static> {
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

/// A tensor that is not there, or not as the configuration says.
pub(super) fn failed(folder: &Path, error: &candle_core::Error) -> Error {
    Error::format(named(folder, FILE), plain(error))
}

/// Candle's message without the backtrace that its `Display` appends when one was asked for.
pub(super) fn plain(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } | candle_core::Error::Context { inner, .. } => {
            plain(inner)
        }
        candle_core::Error::WithPath { inner, .. } => plain(inner),
        other => other.to_string(),
    }
}
