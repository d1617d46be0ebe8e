//! From an operator to a kernel's configuration: pure, printable, total.
//!
//! A configuration never depends on more of a problem than the classes below, so that the number of kernels to compile is
//! bounded, and nothing in it changes a bit of a score: every similarity is one chain over k whatever the tile.

use maxsim_core::{DType, Documents, Precision};
use maxsim_kernels::kernels;

use crate::arch::Path;
use crate::device::{Caps, Unit};
use crate::params::{ForwardParams, RowsParams, SumParams};

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
    Residual { bits: u32 },
}

impl Stored {
    pub(crate) fn of(documents: &Documents<'_>, bits: impl FnOnce() -> u32) -> Self {
        if documents.is_residual() {
            Self::Residual { bits: bits() }
        } else {
            Self::Vectors(documents.dtype().into())
        }
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
        // Weights and centroids are f32; a 16-bit query meets them as a sum of two 16-bit parts (see `split`).
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
    pub(crate) scaled: bool,
    /// f32 exactness is not needed.
    pub(crate) fast: bool,
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
            split: residual && problem.product.is_16_bit() && !problem.fast,
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
            Stored::Residual { bits } => bits,
            Stored::Vectors(_) => 0,
        }
    }

    /// Bytes of shared memory, as `TileLayout` lays them out.
    pub(crate) fn shared(&self) -> u32 {
        let (rows, columns, bits) = (self.rows(), self.columns(), self.bits());
        let query_row = self.chunk * self.product.size() + 16;
        let stored = match self.stored {
            Stored::Vectors(kind) => self.chunk * kind.size(),
            Stored::Residual { bits } => (self.chunk * bits / 8).next_multiple_of(16),
        };
        let queries = rows * query_row;
        let stage = columns * (stored + 16) + if self.single { 0 } else { queries };
        let decoded = if bits > 0 { columns * query_row * if self.split { 2 } else { 1 } } else { 0 };
        let weights = if bits > 0 { 256 * (8 / bits) * 4 } else { 0 };
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
    if let Stored::Residual { bits } = problem.stored {
        let whole = [32, 64, 96, 128].into_iter().find(|&chunk| chunk >= problem.dim);
        // Packed residuals of a piece are whole 16-byte words.
        let pieces = [128, 64, 32].into_iter().filter(|&chunk| chunk < problem.dim && chunk * bits % 128 == 0);
        return whole.into_iter().chain(pieces).collect();
    }
    let classes: &[u32] = if problem.product.is_8_bit() { &[32, 64, 96, 128] } else { &[16, 32, 48, 64, 96, 128] };
    let mut chunks: Vec<u32> = classes.iter().copied().find(|&chunk| chunk >= problem.dim).into_iter().collect();
    chunks.extend([128, 64, 32].into_iter().filter(|&chunk| chunk < problem.dim));
    chunks
}

/// `rows.cuh`.
pub(crate) fn row_factors(stored: Stored) -> Unit {
    let (kind, bits) = match stored {
        Stored::Vectors(kind) => (kind, 0),
        Stored::Residual { bits } => (Kind::F32, bits),
    };
    Unit {
        kernel: kernels::ROW_FACTORS,
        config: vec![("kStored", kind as i64), ("kBits", bits.into()), ("kThreads", 256)],
        min_blocks: 1,
        params: size_of::<RowsParams>(),
    }
}

/// `forward/sums.cuh`.
pub(crate) fn forward_sum() -> Unit {
    Unit {
        kernel: kernels::FORWARD_SUM,
        config: vec![("kThreads", 256)],
        min_blocks: 1,
        params: size_of::<SumParams>(),
    }
}
