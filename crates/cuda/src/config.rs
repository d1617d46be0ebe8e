//! From an operator to a kernel's configuration: pure, printable, total.
//!
//! A configuration never depends on more of a problem than the classes below, so that the number of kernels to compile is
//! bounded, and nothing in it changes a bit of a score: every similarity is one chain over k whatever the tile.

use maxsim_core::{Codec, DType, Precision, ResidualLayout};
use maxsim_kernels::{Kernel, kernels};

use crate::arch::Path;
use crate::device::{Caps, Unit};
use crate::params::{
    AddParams, ApproxParams, CompactParams, EligibleParams, ForwardParams, GatherParams, GroupParams,
    HiddenParams, JobsParams, MarkParams, Piece, ProjectParams, PutParams, RankParams, RoughParams,
    RowsParams, SelectParams, SumParams, TakeParams, TakeWinnersParams, TurnParams, UnitParams,
    WarpgroupParams, WeightParams,
};

/// Element types, numbered as in `convert.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    F32 = 0,
    F16 = 1,
    BF16 = 2,
    E4M3 = 3,
    I8 = 4,
}

impl From<DType> for Kind {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::BF16 => Self::BF16,
            DType::E4M3 => Self::E4M3,
            DType::I8 => Self::I8,
        }
    }
}

impl Kind {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::BF16 => DType::BF16,
            Self::E4M3 => DType::E4M3,
            Self::I8 => DType::I8,
        }
    }

    pub(crate) fn size(self) -> u32 {
        self.dtype().size() as u32
    }

    pub(crate) fn is_16_bit(self) -> bool {
        matches!(self, Self::F16 | Self::BF16)
    }

    fn is_8_bit(self) -> bool {
        matches!(self, Self::E4M3 | Self::I8)
    }
}

/// How documents are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stored {
    Vectors(Kind),
    /// `reversed`: fields of a byte, and their bits, begin at its highest bit.
    Residual {
        bits: u32,
        reversed: bool,
    },
}

impl Stored {
    pub(crate) fn residual(codec: &Codec<'_>) -> Self {
        Self::Residual { bits: codec.nbits(), reversed: codec.layout() == ResidualLayout::Plaid }
    }
}

/// What is multiplied: queries are converted to it, documents are it or are decoded to it.
pub(crate) fn product(path: Path, q: DType, stored: Stored, precision: Precision) -> Kind {
    let q = Kind::from(q);
    if path == Path::Sm75 {
        return Kind::F32;
    }
    let fast = precision == Precision::Fast;
    match stored {
        // Weights and centroids are f32: 16-bit queries meet the tables of the former in f32, and the latter as 16-bit numbers (two
        // each in the tile kernel, see `split`).
        Stored::Residual { .. } if q.is_16_bit() => q,
        Stored::Residual { .. } if fast => Kind::BF16,
        Stored::Residual { .. } => Kind::F32,
        Stored::Vectors(d) => match (q, d) {
            (Kind::E4M3, Kind::E4M3) if path < Path::Sm89 => Kind::F16,
            _ if q == d && (q != Kind::F32 || !fast) => q,
            // 16-bit floats hold every e4m3 and int8 number.
            _ if q.is_16_bit() && d.is_8_bit() => q,
            _ if q.is_8_bit() && d.is_16_bit() => d,
            _ if q.is_8_bit() && d.is_8_bit() => Kind::F16,
            // bf16 holds the range of everything else.
            _ if fast => Kind::BF16,
            _ => Kind::F32,
        },
    }
}

/// What the similarity of a tile is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Use {
    /// Maxima, with winners or without.
    Scores { argmax: bool },
    /// Written to memory: tables and projections.
    Store,
}

/// Configuration of `forward/tile.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TileConfig {
    pub(crate) product: Kind,
    pub(crate) stored: Stored,
    /// Elements of a row in a stage.
    pub(crate) chunk: u32,
    /// Rows are one chunk.
    pub(crate) single: bool,
    /// A warp's tile is 16·mt × 8·nt, a block's wm × wn of them.
    mt: u32,
    nt: u32,
    wm: u32,
    wn: u32,
    pub(crate) stages: u32,
    pub(crate) scaled: bool,
    split: bool,
    purpose: Use,
}

/// `[mt, wm, wn]` of tiles of 16, 32, 64 and 128 query rows.
const SHAPES: [[u32; 3]; 4] = [[1, 1, 4], [2, 1, 4], [2, 2, 4], [2, 4, 2]];

/// What a tile configuration is chosen for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Problem {
    pub(crate) product: Kind,
    pub(crate) stored: Stored,
    pub(crate) dim: u32,
    /// Query rows that can share a tile.
    pub(crate) rows: u32,
    /// Whether tiles of queries meet few documents each, one tile after the other.
    pub(crate) listed: bool,
    pub(crate) scaled: bool,
    pub(crate) precision: Precision,
    pub(crate) purpose: Use,
}

impl TileConfig {
    /// The best that fits into the device's shared memory. There always is one: the smallest needs 31 KiB, and every device
    /// has 48.
    pub(crate) fn choose(caps: &Caps, problem: &Problem) -> Self {
        let most = SHAPES.iter().position(|[mt, wm, _]| 16 * mt * wm >= problem.rows).unwrap_or(3);
        let chunks = chunks(problem);
        // Two blocks a multiprocessor hide each other's waits; one is better than a smaller tile.
        for budget in [(caps.shared_processor / 2).saturating_sub(1 << 10), caps.shared_block] {
            for shape in (0..=most).rev() {
                for &chunk in &chunks {
                    for (nt, stages) in [(4, 4), (4, 3), (4, 2), (2, 3), (2, 2)] {
                        let config = Self::new(problem, SHAPES[shape], nt, chunk, stages);
                        if config.shared() <= budget {
                            return config;
                        }
                    }
                }
            }
        }
        unreachable!("the smallest tile fits everywhere")
    }

    fn new(problem: &Problem, [mt, wm, wn]: [u32; 3], nt: u32, chunk: u32, stages: u32) -> Self {
        let residual = matches!(problem.stored, Stored::Residual { .. });
        // The widest tile has half as many warps across, each twice as wide.
        let nt = nt * (4 / wn);
        Self {
            product: problem.product,
            stored: problem.stored,
            chunk,
            single: problem.dim <= chunk,
            mt,
            nt,
            wm,
            wn,
            stages,
            scaled: problem.scaled,
            split: residual && problem.product.is_16_bit() && problem.precision != Precision::Fast,
            purpose: problem.purpose,
        }
    }

    /// Query rows of a tile.
    pub(crate) fn rows(&self) -> u32 {
        16 * self.mt * self.wm
    }

    /// Document rows of a tile.
    pub(crate) fn columns(&self) -> u32 {
        8 * self.nt * self.wn
    }

    pub(crate) fn threads(&self) -> u32 {
        32 * self.wm * self.wn
    }

    fn bits(&self) -> u32 {
        match self.stored {
            Stored::Residual { bits, .. } => bits,
            Stored::Vectors(_) => 0,
        }
    }

    /// Bytes of shared memory, as `TileLayout` lays them out.
    pub(crate) fn shared(&self) -> u32 {
        let (rows, columns, bits) = (self.rows(), self.columns(), self.bits());
        let query_row = self.chunk * self.product.size() + 16;
        let stored = match self.stored {
            Stored::Vectors(kind) => self.chunk * kind.size(),
            Stored::Residual { bits, .. } => (self.chunk * bits / 8).next_multiple_of(16),
        };
        let queries = rows * query_row;
        let stage = columns * (stored + 16) + if self.single { 0 } else { queries };
        let decoded = if bits > 0 { columns * query_row * if self.split { 2 } else { 1 } } else { 0 };
        let weights = 256 * 4 * 8u32.checked_div(bits).unwrap_or(0);
        let argmax = matches!(self.purpose, Use::Scores { argmax: true });
        let best = 2 * self.wn * rows * if argmax { 8 } else { 4 };
        (if self.single { queries } else { 0 }) + self.stages * stage + decoded + weights + best + rows * 4
    }

    /// Whether queries are stored in the order of `load_four`'s fragments.
    pub(crate) fn permuted(&self) -> bool {
        self.product.is_16_bit() && matches!(self.stored, Stored::Vectors(kind) if kind != self.product)
    }

    /// Blocks that share a multiprocessor.
    pub(crate) fn blocks(&self, caps: &Caps) -> u32 {
        (caps.shared_processor / (self.shared() + (1 << 10))).clamp(1, 4)
    }

    pub(crate) fn unit(&self) -> Unit {
        let stored = match self.stored {
            Stored::Vectors(kind) => kind,
            // Not looked at.
            Stored::Residual { .. } => Kind::F32,
        };
        Unit {
            kernel: kernels::FORWARD_TILE,
            config: vec![
                ("kProduct", self.product as i64),
                ("kStored", stored as i64),
                ("kBits", self.bits().into()),
                ("kChunk", self.chunk.into()),
                ("kSingle", self.single.into()),
                ("kMT", self.mt.into()),
                ("kNT", self.nt.into()),
                ("kWM", self.wm.into()),
                ("kWN", self.wn.into()),
                ("kStages", self.stages.into()),
                ("kArgmax", matches!(self.purpose, Use::Scores { argmax: true }).into()),
                ("kScaled", self.scaled.into()),
                ("kSplit", self.split.into()),
                ("kStore", (self.purpose == Use::Store).into()),
                ("kThreads", self.threads().into()),
                ("kShared", self.shared().into()),
            ],
            min_blocks: 1,
            params: size_of::<ForwardParams>(),
        }
    }
}

/// Elements of a stage, best first: the whole row if it is short, else pieces that keep copies and fragments whole.
fn chunks(problem: &Problem) -> Vec<u32> {
    if let Stored::Residual { bits, .. } = problem.stored {
        let whole = [32, 64, 96, 128].into_iter().find(|&chunk| chunk >= problem.dim);
        // Packed residuals of a piece are whole 16-byte words.
        let pieces =
            [128, 64, 32].into_iter().filter(|&chunk| chunk < problem.dim && chunk * bits % 128 == 0);
        return whole.into_iter().chain(pieces).collect();
    }
    let classes: &[u32] =
        if problem.product.is_8_bit() { &[32, 64, 96, 128] } else { &[16, 32, 48, 64, 96, 128] };
    let mut chunks: Vec<u32> =
        classes.iter().copied().find(|&chunk| chunk >= problem.dim).into_iter().collect();
    chunks.extend([128, 64, 32].into_iter().filter(|&chunk| chunk < problem.dim));
    chunks
}

/// Configuration of `forward/warpgroup.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WarpgroupConfig {
    pub(crate) kind: Kind,
    groups: u32,
    mt: u32,
    steps: u32,
    /// Tiles of queries that stay in shared memory; none: they come along with the documents.
    queries: u32,
    stages: u32,
    argmax: bool,
    scaled: bool,
    store: bool,
}

/// Shared memory of a multiprocessor of sm_90.
const SHARED_PROCESSOR: u32 = 228 << 10;

/// `[groups, mt]` of tiles of 64, 128 and 256 query rows.
const GROUPS: [[u32; 2]; 3] = [[1, 1], [2, 1], [2, 2]];

impl WarpgroupConfig {
    /// The best for `problem`, if warpgroups can do it: operands that are multiplied as they are stored. Whether they can
    /// depends on types alone, so that scores do not depend on what they are computed together with.
    pub(crate) fn choose(caps: &Caps, problem: &Problem) -> Option<Self> {
        let argmax = problem.purpose == Use::Scores { argmax: true };
        if caps.arch.path != Path::Sm90
            || problem.stored != Stored::Vectors(problem.product)
            || problem.product == Kind::F32
        {
            return None;
        }
        let most = GROUPS.iter().position(|[groups, mt]| 64 * groups * mt >= problem.rows).unwrap_or(2);
        // Winners of 128 rows a warpgroup do not fit into its registers, those of integers not beside a second block.
        let most = match (argmax, problem.product) {
            (true, Kind::I8) => 0,
            (true, _) => most.min(1),
            _ => most,
        };
        // The next tile of queries arrives while the one before it is used.
        let tiles: &[u32] = if problem.listed { &[2, 1, 0] } else { &[1, 0] };
        for &queries in tiles {
            for shape in (0..=most).rev() {
                let [groups, mt] = GROUPS[shape];
                let mut config = Self {
                    kind: problem.product,
                    groups,
                    mt,
                    steps: (problem.dim * problem.product.size()).div_ceil(32),
                    queries,
                    stages: 0,
                    argmax,
                    scaled: problem.scaled,
                    store: problem.purpose == Use::Store,
                };
                // Small tiles share a multiprocessor: one block's end of a document is hidden by the other.
                let blocks = if shape == 0 { [2, 1] } else { [1, 1] };
                for blocks in blocks {
                    let budget = (caps.shared_processor / blocks - (1 << 10)).min(caps.shared_block);
                    let each = config.stage() + if config.scaled { 4 * config.columns() } else { 0 };
                    let stages = budget.saturating_sub(config.shared()).checked_div(each + 16)?;
                    // Fewer stages than panels in flight for a microsecond of latency are a smaller tile's turn.
                    if stages >= 4 {
                        config.stages = stages.min(12);
                        return Some(config);
                    }
                }
            }
        }
        unreachable!("64 query rows and their stages fit")
    }

    pub(crate) fn rows(&self) -> u32 {
        64 * self.groups * self.mt
    }

    pub(crate) fn columns(&self) -> u32 {
        128
    }

    fn stage(&self) -> u32 {
        self.columns() * 128 + if self.queries > 0 { 0 } else { self.rows() * 128 }
    }

    /// Bytes of shared memory, as `WarpgroupLayout` lays them out.
    pub(crate) fn shared(&self) -> u32 {
        let queries = self.queries * self.steps.div_ceil(4) * self.rows() * 128;
        let factors = if self.scaled { self.stages * self.columns() * 4 } else { 0 };
        let best = 4 * self.rows() * if self.argmax { 8 } else { 4 };
        let pieces = 4 * size_of::<Piece>() as u32;
        let barriers = 2 * (self.stages + self.queries.max(1) + 4 + 4 + 1);
        queries + self.stages * self.stage() + factors + best + pieces + 8 * barriers
    }

    pub(crate) fn blocks(&self, caps: &Caps) -> u32 {
        (caps.shared_processor / (self.shared() + (1 << 10))).clamp(1, 2)
    }

    fn threads(&self) -> u32 {
        // With a producer and three adders.
        128 * self.groups + 128
    }

    pub(crate) fn unit(&self) -> Unit {
        Unit {
            kernel: kernels::FORWARD_WARPGROUP,
            config: vec![
                ("kKind", self.kind as i64),
                ("kGroups", self.groups.into()),
                ("kMT", self.mt.into()),
                ("kSteps", self.steps.into()),
                ("kQueries", self.queries.into()),
                ("kStages", self.stages.into()),
                ("kArgmax", self.argmax.into()),
                ("kScaled", self.scaled.into()),
                ("kStore", self.store.into()),
                ("kThreads", self.threads().into()),
                ("kShared", self.shared().into()),
            ],
            // What fits by shared memory is to fit by registers: 2 blocks of 256 threads, or 1 of 384.
            // Integers of long rows need more registers than two blocks leave each.
            min_blocks: match self.kind == Kind::I8 && (self.argmax || self.steps > 8) {
                true => 1,
                false => (SHARED_PROCESSOR / (self.shared() + (1 << 10))).clamp(1, 2 / self.groups),
            },
            params: size_of::<WarpgroupParams>(),
        }
    }
}

/// Configuration of `plaid/residual.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ResidualConfig {
    /// What queries are stored as; all are multiplied as f16, f32 in two parts.
    query: Kind,
    bits: u32,
    reversed: bool,
    steps: u32,
    /// Weights are two parts too.
    split: bool,
    scaled: bool,
    argmax: bool,
}

impl ResidualConfig {
    /// Warps of a block, each with jobs of its own.
    const WARPS: u32 = 4;
    /// Elements of the largest query row that warps hold in registers.
    const DIM: u32 = 128;

    /// For compressed documents that are multiplied on tensor cores, if lanes can share their residuals by whole words.
    /// Whether they can depends on how documents are stored alone, so that scores do not depend on what they are computed
    /// together with.
    pub(crate) fn choose(caps: &Caps, problem: &Problem) -> Option<Self> {
        let (Stored::Residual { bits, reversed }, Use::Scores { argmax }) = (problem.stored, problem.purpose)
        else {
            return None;
        };
        let fits = problem.dim.is_multiple_of(16) && (problem.dim * bits).is_multiple_of(128);
        (caps.arch.path >= Path::Sm80 && fits && problem.dim <= Self::DIM).then_some(Self {
            query: problem.product,
            bits,
            reversed,
            steps: problem.dim / 16,
            split: problem.product == Kind::F32 || problem.precision == Precision::Exact,
            scaled: problem.scaled,
            argmax,
        })
    }

    pub(crate) fn rows(&self) -> u32 {
        32
    }

    /// Document rows of a product.
    pub(crate) fn columns(&self) -> u32 {
        16
    }

    /// Bytes of shared memory, as `ResidualLayout` lays them out.
    pub(crate) fn shared(&self) -> u32 {
        let entry = match self.bits {
            2 => 0,
            8 => 1,
            bits => (if self.split { 8 } else { 4 }) / bits,
        };
        let rests = if self.query == Kind::F32 { self.steps * 2 * 32 * 16 } else { 0 };
        let scales = if self.query == Kind::F16 { 0 } else { self.rows() * 4 };
        256 * entry * 4 + Self::WARPS * (self.rows() * 8 + rests + scales)
    }

    /// Blocks that share a multiprocessor as far as registers go.
    fn most_blocks(&self) -> u32 {
        let short = self.query == Kind::F32 && matches!(self.bits, 1 | 8);
        if self.argmax || short { 2 } else { 3 }
    }

    pub(crate) fn blocks(&self, caps: &Caps) -> u32 {
        (caps.shared_processor / (self.shared() + (1 << 10))).clamp(1, self.most_blocks())
    }

    pub(crate) fn unit(&self) -> Unit {
        Unit {
            kernel: kernels::FORWARD_RESIDUAL,
            config: vec![
                ("kQuery", self.query as i64),
                ("kBits", self.bits.into()),
                ("kReversed", self.reversed.into()),
                ("kSteps", self.steps.into()),
                ("kSplit", self.split.into()),
                ("kScaled", self.scaled.into()),
                ("kArgmax", self.argmax.into()),
                ("kThreads", (32 * Self::WARPS).into()),
                ("kShared", self.shared().into()),
            ],
            min_blocks: self.most_blocks(),
            params: size_of::<ForwardParams>(),
        }
    }
}

/// Configuration of whichever kernel scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scorer {
    Tile(TileConfig),
    Warpgroup(WarpgroupConfig),
    Residual(ResidualConfig),
}

impl Scorer {
    /// The kernel for `problem`. A tuned tile is chosen as if rows were as few as fill it.
    pub(crate) fn choose(caps: &Caps, problem: &Problem) -> Self {
        if let Some(config) = ResidualConfig::choose(caps, problem) {
            return Self::Residual(config);
        }
        let rows = caps.tuning.tile(problem).map_or(problem.rows, |tile| tile.min(problem.rows));
        let problem = &Problem { rows, ..*problem };
        match WarpgroupConfig::choose(caps, problem) {
            Some(config) => Self::Warpgroup(config),
            None => Self::Tile(TileConfig::choose(caps, problem)),
        }
    }

    pub(crate) fn rows(&self) -> u32 {
        match self {
            Self::Tile(config) => config.rows(),
            Self::Warpgroup(config) => config.rows(),
            Self::Residual(config) => config.rows(),
        }
    }

    pub(crate) fn columns(&self) -> u32 {
        match self {
            Self::Tile(config) => config.columns(),
            Self::Warpgroup(config) => config.columns(),
            Self::Residual(config) => config.columns(),
        }
    }

    pub(crate) fn shared(&self) -> u32 {
        match self {
            Self::Tile(config) => config.shared(),
            Self::Warpgroup(config) => config.shared(),
            Self::Residual(config) => config.shared(),
        }
    }

    /// Blocks that share a multiprocessor.
    pub(crate) fn blocks(&self, caps: &Caps) -> u32 {
        match self {
            Self::Tile(config) => config.blocks(caps),
            Self::Warpgroup(config) => config.blocks(caps),
            Self::Residual(config) => config.blocks(caps),
        }
    }

    /// Pieces that the tile kernel reads rows of `dim` elements in.
    pub(crate) fn chunks(&self, dim: u32) -> u32 {
        if let Self::Tile(config) = self { dim.div_ceil(config.chunk) } else { 0 }
    }

    /// Jobs that a block has at a time.
    pub(crate) fn jobs(&self) -> u32 {
        if let Self::Residual(_) = self { ResidualConfig::WARPS } else { 1 }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Tile(_) => "tile",
            Self::Warpgroup(_) => "warpgroup",
            Self::Residual(_) => "residual",
        }
    }

    pub(crate) fn unit(&self) -> Unit {
        match self {
            Self::Tile(config) => config.unit(),
            Self::Warpgroup(config) => config.unit(),
            Self::Residual(config) => config.unit(),
        }
    }
}

/// A kernel whose configuration is a few constants.
fn plain<P>(kernel: Kernel, threads: i64, constants: &[(&'static str, i64)]) -> Unit {
    let config = constants.iter().copied().chain([("kThreads", threads)]).collect();
    Unit { kernel, config, min_blocks: 1, params: size_of::<P>() }
}

/// `kStored` and `kBits` of rows.
fn source(stored: Stored) -> [(&'static str, i64); 2] {
    match stored {
        Stored::Vectors(kind) => [("kStored", kind as i64), ("kBits", 0)],
        Stored::Residual { bits, .. } => [("kStored", Kind::F32 as i64), ("kBits", bits.into())],
    }
}

/// `rows.cuh`.
pub(crate) fn row_factors(stored: Stored) -> Unit {
    plain::<RowsParams>(kernels::ROW_FACTORS, 256, &source(stored))
}

/// `stored.cuh`.
pub(crate) fn take_rows(from: Kind, to: Kind, permuted: bool, normalize: bool) -> Unit {
    let constants = [
        ("kFrom", from as i64),
        ("kTo", to as i64),
        ("kPermuted", permuted.into()),
        ("kNormalize", normalize.into()),
    ];
    plain::<TakeParams>(kernels::TAKE_ROWS, 256, &constants)
}

/// `stored.cuh`.
pub(crate) fn put_rows() -> Unit {
    plain::<PutParams>(kernels::PUT_ROWS, 256, &[])
}

/// `backward/winners.cuh`.
pub(crate) fn take_winners() -> Unit {
    plain::<TakeWinnersParams>(kernels::TAKE_WINNERS, 256, &[])
}

/// `forward/sums.cuh`.
pub(crate) fn forward_sum() -> Unit {
    plain::<SumParams>(kernels::FORWARD_SUM, 256, &[])
}

/// `topk/select.cuh`.
pub(crate) fn topk_select() -> Unit {
    plain::<SelectParams>(kernels::TOPK_SELECT, 512, &[])
}

/// `plaid/approx.cuh`, for tables of `width` columns.
pub(crate) fn approx_score(kind: Kind, width: u32) -> Unit {
    let wide = 16 / kind.size();
    let wide = if width.is_multiple_of(wide) { wide } else { 1 };
    plain::<ApproxParams>(kernels::APPROX_SCORE, 128, &[("kStored", kind as i64), ("kWide", wide.into())])
}

/// `plaid/candidates.cuh`, and its shared memory.
pub(crate) fn plaid_turn() -> (Unit, u32) {
    (plain::<TurnParams>(kernels::PLAID_TURN, 256, &[]), 32 * 33 * 4)
}

/// `plaid/candidates.cuh`.
pub(crate) fn plaid_eligible() -> Unit {
    plain::<EligibleParams>(kernels::PLAID_ELIGIBLE, 256, &[])
}

/// `plaid/candidates.cuh`.
pub(crate) fn plaid_mark() -> Unit {
    plain::<MarkParams>(kernels::PLAID_MARK, 128, &[])
}

/// `plaid/candidates.cuh`; `aligned`: columns of every query begin at multiples of 16 bytes.
pub(crate) fn plaid_rough(aligned: bool) -> Unit {
    plain::<RoughParams>(kernels::PLAID_ROUGH, 128, &[("kWide", if aligned { 4 } else { 1 })])
}

/// `plaid/chosen.cuh`.
pub(crate) fn plaid_jobs() -> Unit {
    plain::<JobsParams>(kernels::PLAID_JOBS, 256, &[])
}

/// `plaid/chosen.cuh`.
pub(crate) fn plaid_rank() -> Unit {
    plain::<RankParams>(kernels::PLAID_RANK, 256, &[])
}

/// `backward/group.cuh`, by as many warps as have counters of `rows` document rows each in shared memory, and the bytes that
/// takes; `false`: by one warp with counters elsewhere.
///
/// Warps share out a document's `pairs`.
pub(crate) fn backward_group(caps: &Caps, rows: u32, pairs: u32) -> (Unit, u32, bool) {
    // Two blocks a multiprocessor.
    let most = (caps.shared_processor / 2 - (1 << 10)).min(caps.shared_block);
    let bytes = |warps: u32| 4 * warps * (rows.saturating_add(1)).min(1 << 20);
    let warps = [16, 8, 4, 2, 1]
        .into_iter()
        .filter(|&warps| warps <= pairs.max(1).next_power_of_two())
        .find(|&warps| bytes(warps) <= most);
    let unit = |warps: u32, local: bool| {
        plain::<GroupParams>(kernels::BACKWARD_GROUP, (32 * warps).into(), &[("kLocal", local.into())])
    };
    match warps {
        Some(warps) => (unit(warps, true), bytes(warps), true),
        None => (unit(1, false), 4, false),
    }
}

/// Document rows that a warp gives gradients to, of so many: most rows have none, and a warp writes zeros in passing; few rows
/// are spread over many warps.
fn document_rows(rows: u32) -> i64 {
    if rows >= 1 << 18 { 32 } else { 8 }
}

/// `backward/gather.cuh`: rows of `source` added up to `rows` rows of `own`'s kind, given back as `out`.
pub(crate) fn gather(
    kernel: Kernel,
    source_rows: Stored,
    own: Kind,
    out: Kind,
    dim: u32,
    rows: u32,
    add: bool,
) -> Option<Unit> {
    // Registers for an element each; a row that one warp cannot hold is spread over up to 32.
    let quads = dim.div_ceil(128);
    let warps = if quads <= 8 { 1 } else { quads.div_ceil(8).next_power_of_two() };
    if warps > 32 {
        return None;
    }
    let steps = quads.div_ceil(warps).next_power_of_two();
    let [stored, bits] = source(source_rows);
    let constants = [
        stored,
        bits,
        ("kOwn", own as i64),
        ("kOut", out as i64),
        ("kSteps", steps.into()),
        ("kWarps", warps.into()),
        ("kEach", if kernel == kernels::BACKWARD_DOCUMENTS { document_rows(rows) } else { 1 }),
        ("kAdd", add.into()),
    ];
    Some(plain::<GatherParams>(kernel, if warps == 1 { 128 } else { 32 * i64::from(warps) }, &constants))
}

/// Hidden states and rows of W that `head/project.cuh` multiplies at a time.
pub(crate) const PROJECT_ROWS: [u32; 2] = [256, 128];

/// `head/project.cuh` and its shared memory, if warpgroups can project: 16-bit operands that are multiplied as they are stored
/// to rows of `out` that one product holds.
pub(crate) fn head_project(
    caps: &Caps,
    product: Kind,
    hidden: Stored,
    out: Kind,
    model: u32,
    dim: u32,
) -> Option<(Unit, u32)> {
    let stages = 4;
    let shared = stages * (PROJECT_ROWS.iter().sum::<u32>() * 128 + 16);
    let fits = caps.arch.path == Path::Sm90 && shared <= caps.shared_block && dim <= PROJECT_ROWS[1];
    let types = product.is_16_bit() && hidden == Stored::Vectors(product) && out.is_16_bit();
    (fits && types).then(|| {
        let panels = model.div_ceil(64);
        let constants = [
            ("kKind", product as i64),
            ("kOut", out as i64),
            ("kPanels", panels.into()),
            ("kStages", stages.into()),
            ("kShared", shared.into()),
        ];
        // With a producer.
        (plain::<ProjectParams>(kernels::HEAD_PROJECT, 2 * 128 + 32, &constants), shared)
    })
}

/// `head/rows.cuh`.
pub(crate) fn unit_rows(out: Kind) -> Unit {
    plain::<UnitParams>(kernels::UNIT_ROWS, 256, &[("kOut", out as i64)])
}

/// `head/backward.cuh`: the kernel that counts, the one that writes, and the rows of a block.
pub(crate) fn head_compact() -> ([Unit; 2], u32) {
    let unit = |kernel| plain::<CompactParams>(kernel, 256, &[]);
    ([unit(kernels::HEAD_COUNT), unit(kernels::HEAD_COMPACT)], 16 * 256)
}

/// `head/backward.cuh`.
pub(crate) fn head_hidden(out: Kind, model: u32) -> Unit {
    let wide = if model.is_multiple_of(4) { 4 } else { 1 };
    plain::<HiddenParams>(kernels::HEAD_HIDDEN, 192, &[("kOut", out as i64), ("kRows", 16), ("kWide", wide)])
}

/// `head/backward.cuh`.
pub(crate) fn head_weights(hidden: Kind) -> Unit {
    plain::<WeightParams>(kernels::HEAD_WEIGHTS, 128, &[("kStored", hidden as i64)])
}

/// `head/products.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadProducts {
    kind: Kind,
}

impl HeadProducts {
    /// Columns of the model that a block computes.
    pub(crate) const COLUMNS: u32 = 128;
    /// Rows that a block takes at a time: of hidden states' gradients, and of weights'.
    pub(crate) const ROWS: [u32; 2] = [64, 32];

    /// Where hidden states are multiplied as they are stored, with weights that were of 16 bits too. What it takes are types and
    /// `dim` alone, so that gradients do not depend on what they are computed together with.
    pub(crate) fn choose(
        caps: &Caps,
        product: Kind,
        hidden: Stored,
        weights: DType,
        dim: u32,
    ) -> Option<Self> {
        let types = product.is_16_bit() && hidden == Stored::Vectors(product) && product.dtype() == weights;
        let products = Self { kind: product };
        let fits = dim <= Self::COLUMNS && dim.is_multiple_of(4) && products.hidden().1 <= caps.shared_block;
        (caps.arch.path >= Path::Sm80 && types && fits).then_some(products)
    }

    fn unit<P>(self, kernel: Kernel, tiles: impl Fn(u32) -> u32) -> (Unit, u32) {
        // Two blocks a multiprocessor: one multiplies while the other loads. f16's tiles of hidden states do not fit twice everywhere,
        // their registers do.
        let parts = if self.kind == Kind::BF16 { 1 } else { 2 };
        // Rows of bf16, 16 bytes further apart than they are long.
        let shared = tiles(parts) * (2 * Self::COLUMNS + 16);
        let constants = [("kKind", self.kind as i64), ("kShared", shared.into())];
        (Unit { min_blocks: 2, ..plain::<P>(kernel, 256, &constants) }, shared)
    }

    /// Gradients of hidden states, and the kernel's shared memory.
    pub(crate) fn hidden(self) -> (Unit, u32) {
        let tiles = |parts| parts * Self::COLUMNS + 2 * Self::ROWS[0];
        self.unit::<HiddenParams>(kernels::HEAD_HIDDEN_PRODUCTS, tiles)
    }

    /// Gradients of the projection, likewise.
    pub(crate) fn weights(self) -> (Unit, u32) {
        self.unit::<WeightParams>(kernels::HEAD_WEIGHTS_PRODUCTS, |parts| (parts + 2) * Self::ROWS[1])
    }
}

/// `head/backward.cuh`.
pub(crate) fn head_add() -> Unit {
    plain::<AddParams>(kernels::HEAD_ADD, 256, &[])
}
