//! Late-interaction (ColBERT, ColPali) MaxSim scoring and search.
//!
//! `score(i, j) = Σ_s max_t ⟨Q[i,s], D[j,t]⟩`: every query token is compared with every document token, the best match of
//! each query token counts (Khattab & Zaharia, *ColBERT*, 2020). The similarity tensor is never built.
//!
//! ```
//! use maxsim::{CorpusOptions, SearchOptions, Tokens};
//!
//! // Two documents of 3 and 2 tokens, one query of 2, all of dimension 4.
//! let documents: Vec<f32> = (0..5 * 4).map(|x| (x as f32).sin()).collect();
//! let query: Vec<f32> = (0..2 * 4).map(|x| (x as f32).cos()).collect();
//!
//! let engine = maxsim::engine()?;
//! let docs = engine.corpus(Tokens::packed(&documents, 4, &[0u32, 3, 5])?, CorpusOptions::default())?;
//! let hits = docs.search(Tokens::padded(&query, &[2, 4])?, SearchOptions::top_k(10).with_explain())?;
//! assert_eq!(hits.indices.len(), 2);
//! # Ok::<(), maxsim::Error>(())
//! ```

mod builder;
mod scorer;

pub use builder::{EngineBuilder, engine};
pub use maxsim_core::*;
#[cfg(feature = "cpu")]
pub use maxsim_cpu::Level as CpuLevel;
/// What is CUDA's alone: graphs, memory and streams of the caller's, tuning tables, prebuilt kernels, several GPUs.
#[cfg(feature = "cuda")]
pub use maxsim_cuda as cuda;
#[cfg(feature = "cuda")]
pub use maxsim_cuda::{CudaBackend, CudaOptions, Path as CudaPath};
#[cfg(feature = "plaid")]
pub use maxsim_plaid as plaid;
#[cfg(feature = "wgpu")]
pub use maxsim_wgpu::{AdapterFacts, Tier as WgpuTier, adapters as wgpu_adapters};
pub use scorer::Scorer;
