//! The record of one measurement, as `bench --json` prints it and `bench compare` reads it.

use std::fmt;

use serde::Serialize;

use super::floor::Machine;

/// One measurement.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    /// Operator.
    pub(crate) op: String,
    /// Extents and what else decides the work.
    pub(crate) shape: Shape,
    /// Element type of the operands.
    pub(crate) dtype: String,
    /// Backend that ran it.
    pub(crate) backend: String,
    /// Device name.
    pub(crate) device: String,
    /// Kernel, from `explain`.
    pub(crate) kernel: String,
    /// Whether tokens were normalised.
    pub(crate) normalize: bool,
    /// How exact the products are.
    pub(crate) precision: String,
    /// CPU threads.
    pub(crate) threads: usize,
    /// Timed calls.
    pub(crate) reps: usize,
    /// Time on the device, where it has a clock of its own.
    pub(crate) gpu_us: Option<f64>,
    /// Median time of a call.
    pub(crate) wall_us: f64,
    /// Shortest time of a call.
    pub(crate) min_us: f64,
    /// Operations per nanosecond at the median time.
    pub(crate) gflops: f64,
    /// Memory beyond inputs and result.
    pub(crate) peak_bytes: u64,
    /// Least time possible; unknown for devices that are not measured.
    pub(crate) floor_us: Option<f64>,
    /// What `floor_us` was computed from.
    pub(crate) machine: Option<Machine>,
}

/// Extents; what an operator does not have is left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Shape {
    /// Queries.
    pub(crate) nq: usize,
    /// Documents.
    pub(crate) nd: usize,
    /// Tokens per query.
    pub(crate) lq: usize,
    /// Most tokens per document.
    pub(crate) ld: usize,
    /// Embedding dimension.
    pub(crate) dim: usize,
    /// Documents per query, where each has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) k_docs: Option<usize>,
    /// Fewest tokens per document, where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ragged: Option<usize>,
    /// Length of the pair list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pairs: Option<usize>,
    /// Results per query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_k: Option<usize>,
    /// Documents scored at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chunk: Option<usize>,
    /// Size of hidden states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) d_model: Option<usize>,
    /// Number of centroids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) centroids: Option<usize>,
    /// Bits per dimension of residuals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nbits: Option<u32>,
    /// Whether the documents were on the device already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resident: Option<bool>,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{} queries, {}×", self.nq, self.lq, self.nd)?;
        if let Some(low) = self.ragged {
            write!(f, "{low}–")?;
        }
        write!(f, "{} documents, d={}", self.ld, self.dim)?;
        for (name, value) in [
            ("k_docs", self.k_docs),
            ("pairs", self.pairs),
            ("top_k", self.top_k),
            ("chunk", self.chunk),
            ("d_model", self.d_model),
            ("centroids", self.centroids),
            ("nbits", self.nbits.map(|bits| bits as usize)),
        ] {
            if let Some(value) = value {
                write!(f, ", {name}={value}")?;
            }
        }
        if self.resident.is_some() {
            f.write_str(", resident")?;
        }
        Ok(())
    }
}
