//! The text of the CUDA kernels, and what turns it into a translation unit.
//!
//! Kernels are C++ without toolkit headers, compiled at run time (NVRTC) for exactly the configuration that is wanted: a
//! unit is one include, a generated `struct Cfg` and one `extern "C"` entry. Everything that only hardware has goes through
//! `include/ptx/`; `emulator/` has the same names for the host, so that the same text can be run and checked without a GPU.
//!
//! This package holds text only and builds anywhere.

use std::fmt::Write as _;

/// A file that units can include.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Name as includes spell it, e.g. `ptx/mma.cuh`.
    pub name: &'static str,
    /// Text.
    pub text: &'static str,
}

macro_rules! headers {
    ($folder:literal: $($name:literal),* $(,)?) => {
        &[$(Header { name: $name, text: include_str!(concat!("../", $folder, "/", $name)) }),*]
    };
}

/// Headers for the device.
pub const HEADERS: &[Header] = headers!("include":
    "backward/gather.cuh",
    "backward/group.cuh",
    "backward/pairs.cuh",
    "backward/winners.cuh",
    "convert.cuh",
    "forward/params.cuh",
    "forward/sums.cuh",
    "forward/tile.cuh",
    "forward/warpgroup.cuh",
    "head/backward.cuh",
    "head/products.cuh",
    "head/project.cuh",
    "head/rows.cuh",
    "plaid/approx.cuh",
    "plaid/candidates.cuh",
    "plaid/chosen.cuh",
    "plaid/residual.cuh",
    "ptx/base.cuh",
    "ptx/bulk.cuh",
    "ptx/copy.cuh",
    "ptx/mma.cuh",
    "ptx/wgmma.cuh",
    "ring.cuh",
    "rows.cuh",
    "stored.cuh",
    "topk/select.cuh",
    "warp.cuh",
);

/// Headers that take the place of those of the same name when a unit is compiled for the host.
pub const EMULATOR: &[Header] = headers!("emulator":
    "ptx/base.cuh",
    "ptx/bulk.cuh",
    "ptx/copy.cuh",
    "ptx/mma.cuh",
    "ptx/wgmma.cuh",
    "runtime.hpp",
);

/// A kernel: a device function template over a configuration, called with one block of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Name of the function, and of the entry point with `_kernel` behind it.
    pub name: &'static str,
    /// Header that defines it.
    pub header: &'static str,
    /// Type of its parameters.
    pub params: &'static str,
}

/// The kernels.
pub mod kernels {
    use super::Kernel;

    macro_rules! kernels {
        ($($(#[$meta:meta])* $constant:ident = $name:literal, $header:literal, $params:literal;)*) => {
            $($(#[$meta])* pub const $constant: Kernel =
                Kernel { name: $name, header: $header, params: $params };)*
        };
    }

    kernels! {
        /// MaxSim by warps; also tables and projections.
        FORWARD_TILE = "forward_tile", "forward/tile.cuh", "ForwardParams";
        /// MaxSim by warpgroups.
        FORWARD_WARPGROUP = "forward_warpgroup", "forward/warpgroup.cuh", "WarpgroupParams";
        /// MaxSim over compressed documents.
        FORWARD_RESIDUAL = "forward_residual", "plaid/residual.cuh", "ForwardParams";
        /// Sums of long queries' parts.
        FORWARD_SUM = "forward_sum", "forward/sums.cuh", "SumParams";
        /// Inverse norms and scales of rows.
        ROW_FACTORS = "row_factors", "rows.cuh", "RowsParams";
        /// Rows in another element type, normalised or quantised.
        TAKE_ROWS = "take_rows", "stored.cuh", "TakeParams";
        /// Rows in the slots of a tensor.
        PUT_ROWS = "put_rows", "stored.cuh", "PutParams";
        /// The best scores of every query.
        TOPK_SELECT = "topk_select", "topk/select.cuh", "SelectParams";
        /// PLAID's approximate scores.
        APPROX_SCORE = "approx_score", "plaid/approx.cuh", "ApproxParams";
        /// Similarities with centroids, the other way round.
        PLAID_TURN = "plaid_turn", "plaid/candidates.cuh", "TurnParams";
        /// Centroids of the documents that may be found.
        PLAID_ELIGIBLE = "plaid_eligible", "plaid/candidates.cuh", "EligibleParams";
        /// Documents in the lists that are probed.
        PLAID_MARK = "plaid_mark", "plaid/candidates.cuh", "MarkParams";
        /// Approximate scores of the candidates of a search.
        PLAID_ROUGH = "plaid_rough", "plaid/candidates.cuh", "RoughParams";
        /// Chosen documents as work for the scoring kernel.
        PLAID_JOBS = "plaid_jobs", "plaid/chosen.cuh", "JobsParams";
        /// Chosen documents by their scores.
        PLAID_RANK = "plaid_rank", "plaid/chosen.cuh", "RankParams";
        /// Winners of a tensor as gradients take them.
        TAKE_WINNERS = "take_winners", "backward/winners.cuh", "TakeWinnersParams";
        /// Winners grouped by document row.
        BACKWARD_GROUP = "backward_group", "backward/group.cuh", "GroupParams";
        /// Gradients of queries.
        BACKWARD_QUERIES = "backward_queries", "backward/gather.cuh", "GatherParams";
        /// Gradients of documents.
        BACKWARD_DOCUMENTS = "backward_documents", "backward/gather.cuh", "GatherParams";
        /// Hidden states projected, normalised and converted.
        HEAD_PROJECT = "head_project", "head/project.cuh", "ProjectParams";
        /// Rows normalised and converted.
        UNIT_ROWS = "unit_rows", "head/rows.cuh", "UnitParams";
        /// How many rows won something.
        HEAD_COUNT = "head_count", "head/backward.cuh", "CompactParams";
        /// The rows that won something.
        HEAD_COMPACT = "head_compact", "head/backward.cuh", "CompactParams";
        /// Gradients of hidden states.
        HEAD_HIDDEN = "head_hidden", "head/backward.cuh", "HiddenParams";
        /// Gradients of the projection and its bias.
        HEAD_WEIGHTS = "head_weights", "head/backward.cuh", "WeightParams";
        /// Gradients of hidden states on tensor cores.
        HEAD_HIDDEN_PRODUCTS = "head_hidden_products", "head/products.cuh", "HiddenParams";
        /// Gradients of the projection and its bias on tensor cores.
        HEAD_WEIGHTS_PRODUCTS = "head_weights_products", "head/products.cuh", "WeightParams";
        /// Partial sums added up.
        HEAD_ADD = "head_add", "head/backward.cuh", "AddParams";
    }
}

/// Where a unit will run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// A GPU.
    Device,
    /// The host, through the emulator.
    Host,
}

/// The translation unit of `kernel` for a configuration: constants by name (`kThreads` among them), the blocks that have to
/// fit on a multiprocessor together, and the size of the parameters, which the compiler checks.
pub fn unit(
    kernel: &Kernel,
    config: &[(&'static str, i64)],
    min_blocks: u32,
    params_size: usize,
    target: Target,
) -> String {
    let Kernel { name, header, params } = kernel;
    let mut text = format!("#include \"{header}\"\n\nnamespace maxsim {{\nstruct Cfg {{\n");
    for (name, value) in config {
        writeln!(text, "    static constexpr int {name} = {value};").expect("writing to a string");
    }
    write!(
        text,
        "}};\nstatic_assert(sizeof({params}) == {params_size}, \"parameters as the host lays them out\");\n}}\n\n\
         extern \"C\" __global__ void __launch_bounds__(maxsim::Cfg::kThreads, {min_blocks})\n\
         {name}_kernel(const __grid_constant__ maxsim::{params} p) {{\n    maxsim::{name}<maxsim::Cfg>(p);\n}}\n"
    )
    .expect("writing to a string");
    if target == Target::Host {
        writeln!(text, "\nEMULATE({name}_kernel, maxsim::{params})").expect("writing to a string");
    }
    text
}
