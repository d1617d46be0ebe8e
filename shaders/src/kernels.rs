//! Every kernel and every variant of it. To add one: a file in `wgsl/`, a [`Kernel`], a function that makes its variants, and
//! a line in [`all`].

use crate::variant::Access::{Read, Write};
use crate::variant::{Kernel, Requires, Variant};

/// How the elements of a token vector are stored; also the value of `ELEMENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// f32.
    F32 = 0,
    /// f16, two to a word.
    F16 = 1,
    /// bf16, two to a word.
    Bf16 = 2,
    /// fp8 e4m3fn, four to a word.
    E4m3 = 3,
    /// int8, four to a word, as numbers.
    I8 = 4,
    /// int8 against int8 by integer dot products.
    I8Dot = 5,
    /// A centroid and packed buckets, decoded to f32: `wgsl/lib/residual.wgsl`.
    Residual = 6,
}

impl Element {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::F32, Self::F16, Self::Bf16, Self::E4m3, Self::I8, Self::I8Dot, Self::Residual];

    /// Vectors of four f32 that 16 stored bytes become.
    pub const fn parts(self) -> u32 {
        match self {
            Self::F32 | Self::I8Dot | Self::Residual => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::E4m3 | Self::I8 => 4,
        }
    }
}

/// Names that `#if` compares with.
pub(crate) const NAMES: &[(&str, u32)] = &[
    ("F32", Element::F32 as u32),
    ("F16", Element::F16 as u32),
    ("BF16", Element::Bf16 as u32),
    ("E4M3", Element::E4m3 as u32),
    ("I8", Element::I8 as u32),
    ("I8_DOT", Element::I8Dot as u32),
    ("RESIDUAL", Element::Residual as u32),
];

/// A block of query rows against a block of document rows: what a workgroup of `forward` computes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Query rows.
    pub bm: u32,
    /// Document rows.
    pub bn: u32,
    /// Query rows of an invocation, a multiple of 4.
    pub tm: u32,
    /// Document rows of an invocation.
    pub tn: u32,
    /// Vectors of four elements staged at a time, a multiple of 4.
    pub kv: u32,
}

impl Tile {
    /// Invocations of a workgroup.
    pub const fn threads(&self) -> u32 {
        (self.bm / self.tm) * (self.bn / self.tn)
    }

    /// Bytes of workgroup memory.
    pub const fn workgroup_bytes(&self) -> u32 {
        let staged = (self.bm + self.bn) * (self.kv + 1);
        let reduced = self.threads() * 2;
        16 * if staged > reduced { staged } else { reduced } + 4 * self.bm
    }
}

/// Tiles of `forward`, fewest query rows first. All of them run everywhere: at most 256 invocations and 16 KiB.
///
/// More rows per invocation mean fewer loads from workgroup memory per multiply-add; more rows per workgroup mean fewer
/// loads of documents per query. The sizes are data, meant to be tuned per device.
pub const TILES: [Tile; 3] = [
    Tile { bm: 16, bn: 64, tm: 4, tn: 4, kv: 4 },
    Tile { bm: 32, bn: 128, tm: 4, tn: 4, kv: 4 },
    Tile { bm: 128, bn: 64, tm: 8, tn: 4, kv: 4 },
];

/// A block of query rows against a block of tokens in `forward_residual`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidualTile {
    /// Query rows.
    pub bm: u32,
    /// Tokens.
    pub bn: u32,
    /// Query rows of an invocation, a multiple of 4; it owns four tokens.
    pub tm: u32,
    /// Vectors of four elements of query rows staged at a time, a multiple of 8.
    pub kv: u32,
}

/// Tiles of `forward_residual`, fewest query rows first. Few invocations each: what they share is small, and documents end
/// anywhere.
pub const RESIDUAL_TILES: [ResidualTile; 3] = [
    ResidualTile { bm: 16, bn: 128, tm: 16, kv: 8 },
    ResidualTile { bm: 32, bn: 64, tm: 16, kv: 8 },
    ResidualTile { bm: 64, bn: 64, tm: 16, kv: 8 },
];

/// Bits of a bucket.
pub const NBITS: [u32; 4] = [1, 2, 4, 8];

/// The same of residual documents: `wgsl/forward_residual.wgsl`.
pub static FORWARD_RESIDUAL: Kernel =
    Kernel { name: "forward_residual", bindings: &[Read, Read, Read, Read, Read, Read, Write, Write] };

/// A variant of [`FORWARD_RESIDUAL`] for buckets of `nbits` bits.
pub fn forward_residual(nbits: u32, tile: &ResidualTile, argmax: bool) -> Variant {
    Variant::portable(
        &FORWARD_RESIDUAL,
        &[
            ("BITS", nbits),
            ("WIDE", (nbits > 2).into()),
            ("BM", tile.bm),
            ("BN", tile.bn),
            ("TM", tile.tm),
            ("QUADS", tile.tm / 4),
            ("KV", tile.kv),
            ("ARGMAX", argmax.into()),
        ],
    )
}

/// Scores, or maxima per query row: `wgsl/forward.wgsl`.
pub static FORWARD: Kernel =
    Kernel { name: "forward", bindings: &[Read, Read, Read, Read, Read, Read, Write, Write] };

/// A variant of [`FORWARD`]: `argmax` for winners too.
pub fn forward(element: Element, tile: &Tile, argmax: bool) -> Variant {
    Variant::portable(
        &FORWARD,
        &[
            ("ELEMENT", element as u32),
            ("PARTS", element.parts()),
            ("BM", tile.bm),
            ("BN", tile.bn),
            ("TM", tile.tm),
            ("TN", tile.tn),
            ("KV", tile.kv),
            ("ARGMAX", argmax.into()),
        ],
    )
}

/// How subgroups share a block in `forward_coop`; each owns 2 × 2 matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoopTile {
    /// Subgroups along query rows.
    pub sm: u32,
    /// Subgroups along document rows.
    pub sn: u32,
}

impl CoopTile {
    /// Query rows of a workgroup, for matrices of extent `c`.
    pub const fn bm(&self, c: u32) -> u32 {
        self.sm * 2 * c
    }
}

/// Tiles of `forward_coop`, fewest query rows first.
pub const COOP_TILES: [CoopTile; 2] = [CoopTile { sm: 1, sn: 4 }, CoopTile { sm: 4, sn: 2 }];

/// Rows that `forward_coop` may read behind the last.
pub const COOP_PADDING: u32 = 128;

/// Matrices of a device: extent, and invocations of a subgroup.
pub const MATRICES: [(u32, u32); 3] = [(16, 32), (8, 32), (8, 8)];

/// Scores of f16 by cooperative matrices: `wgsl/forward_coop.wgsl`.
pub static FORWARD_COOP: Kernel =
    Kernel { name: "forward_coop", bindings: &[Read, Read, Read, Read, Read, Read, Write, Write] };

/// A variant of [`FORWARD_COOP`] for matrices of extent `c` and subgroups of `lanes` invocations.
pub fn forward_coop((c, lanes): (u32, u32), tile: &CoopTile, argmax: bool) -> Variant {
    Variant {
        kernel: &FORWARD_COOP,
        defines: vec![
            ("EXTENT", c),
            ("LANES", lanes),
            ("SM", tile.sm),
            ("SN", tile.sn),
            ("BM", tile.bm(c)),
            ("ARGMAX", argmax.into()),
        ],
        requires: Requires::CooperativeMatrix,
    }
}

/// Sums of the maxima that [`FORWARD`] left: `wgsl/forward_sum.wgsl`.
pub static FORWARD_SUM: Kernel =
    Kernel { name: "forward_sum", bindings: &[Read, Read, Read, Read, Write, Write] };

/// A variant of [`FORWARD_SUM`].
pub fn forward_sum(argmax: bool) -> Variant {
    Variant::portable(&FORWARD_SUM, &[("ARGMAX", argmax.into())])
}

/// Rows as f32 and factors that normalise them: `wgsl/rows.wgsl`.
pub static ROWS: Kernel = Kernel { name: "rows", bindings: &[Read, Read, Write, Write] };

/// A variant of [`ROWS`]: `widen` writes f32 rows, `norm` writes factors.
pub fn rows(element: Element, widen: bool, norm: bool) -> Variant {
    let element = if element == Element::I8Dot { Element::I8 } else { element };
    Variant::portable(
        &ROWS,
        &[
            ("ELEMENT", element as u32),
            ("PARTS", element.parts()),
            ("WIDEN", widen.into()),
            ("NORM", norm.into()),
        ],
    )
}

/// Rows as corpora store them: `wgsl/store.wgsl`.
pub static STORE: Kernel = Kernel { name: "store", bindings: &[Read, Write, Write] };

/// Rows that a workgroup of [`STORE`] takes.
pub const STORED: u32 = 64;

/// A variant of [`STORE`]: rows of `from` (f32, f16 or bf16) become rows of `to`.
pub fn store(from: Element, to: Element) -> Variant {
    let (per_word, quantized) = match to {
        Element::F32 => (1, false),
        Element::F16 | Element::Bf16 => (2, false),
        _ => (4, true),
    };
    Variant::portable(
        &STORE,
        &[("ELEMENT", from as u32), ("TO", to as u32), ("PER", per_word), ("QUANTIZED", quantized.into())],
    )
}

/// Candidates that a workgroup of [`TOPK_SORT`] sorts.
pub const SORTED: u32 = 1024;

/// The best of every [`SORTED`] candidates: `wgsl/topk_sort.wgsl`.
pub static TOPK_SORT: Kernel = Kernel { name: "topk_sort", bindings: &[Read, Read, Write, Write] };

/// A variant of [`TOPK_SORT`]: `indexed` for candidates that have keys and indices already.
pub fn topk_sort(indexed: bool) -> Variant {
    Variant::portable(&TOPK_SORT, &[("SIZE", SORTED), ("INDEXED", indexed.into())])
}

/// Pairs of sorted runs merged: `wgsl/topk_merge.wgsl`.
pub static TOPK_MERGE: Kernel = Kernel { name: "topk_merge", bindings: &[Read, Read, Write, Write] };

/// The one variant of [`TOPK_MERGE`].
pub fn topk_merge() -> Variant {
    Variant::portable(&TOPK_MERGE, &[])
}

/// Inverse norms of decoded residual rows: `wgsl/residual_norms.wgsl`.
pub static RESIDUAL_NORMS: Kernel = Kernel { name: "residual_norms", bindings: &[Read, Write] };

/// The variant of [`RESIDUAL_NORMS`].
pub fn residual_norms() -> Variant {
    Variant::portable(&RESIDUAL_NORMS, &[])
}

/// Scores from a table of similarities with centroids: `wgsl/approx.wgsl`.
pub static APPROX: Kernel = Kernel { name: "approx", bindings: &[Read, Read, Write] };

/// A variant of [`APPROX`] over tables of `element`, f32 or f16.
pub fn approx(element: Element) -> Variant {
    Variant::portable(&APPROX, &[("ELEMENT", element as u32)])
}

/// Sums of rows times coefficients: `wgsl/gather.wgsl`.
pub static GATHER: Kernel = Kernel { name: "gather", bindings: &[Read, Read, Read, Read, Write] };

/// A variant of [`GATHER`] over rows of `element`.
pub fn gather(element: Element) -> Variant {
    Variant::portable(&GATHER, &[("ELEMENT", element as u32), ("PARTS", element.parts())])
}

/// Gradients through the normalisation of rows: `wgsl/jacobian.wgsl`.
pub static JACOBIAN: Kernel = Kernel { name: "jacobian", bindings: &[Read, Read, Read, Write] };

/// A variant of [`JACOBIAN`] over rows of `element`.
pub fn jacobian(element: Element) -> Variant {
    Variant::portable(&JACOBIAN, &[("ELEMENT", element as u32), ("PARTS", element.parts())])
}

/// Products of f32 matrices: `wgsl/matmul.wgsl`.
pub static MATMUL: Kernel = Kernel { name: "matmul", bindings: &[Read, Read, Read, Write] };

/// A variant of [`MATMUL`]: A·Bᵀ, or Aᵀ·B if `transposed`.
pub fn matmul(transposed: bool) -> Variant {
    Variant::portable(&MATMUL, &[("TRANSPOSED", transposed.into())])
}

/// Scores that take part in no selection: `wgsl/mask.wgsl`.
pub static MASK: Kernel = Kernel { name: "mask", bindings: &[Read, Write] };
/// Centroids of allowed documents: `wgsl/plaid_eligible.wgsl`.
pub static PLAID_ELIGIBLE: Kernel = Kernel { name: "plaid_eligible", bindings: &[Read, Read, Read, Write] };
/// Centroids that queries look into: `wgsl/plaid_probed.wgsl`.
pub static PLAID_PROBED: Kernel =
    Kernel { name: "plaid_probed", bindings: &[Read, Read, Read, Read, Read, Write] };
/// Approximate scores of candidates: `wgsl/plaid_approx.wgsl`.
pub static PLAID_APPROX: Kernel =
    Kernel { name: "plaid_approx", bindings: &[Read, Read, Read, Read, Read, Read, Write] };
/// Documents that were selected, as pairs for [`FORWARD`]: `wgsl/plaid_items.wgsl`.
pub static PLAID_ITEMS: Kernel = Kernel { name: "plaid_items", bindings: &[Read, Read, Write, Write] };
/// Keys of documents that were scored: `wgsl/plaid_rank.wgsl`.
pub static PLAID_RANK: Kernel = Kernel { name: "plaid_rank", bindings: &[Read, Write] };

/// The one variant of a kernel without constants.
pub fn only(kernel: &'static Kernel) -> Variant {
    Variant::portable(kernel, &[])
}

/// Every variant that a plan may ask for. Tests validate each of them.
pub fn all() -> Vec<Variant> {
    let mut all = Vec::new();
    for element in Element::ALL {
        if element != Element::Residual {
            for tile in &TILES {
                all.extend([false, true].map(|argmax| forward(element, tile, argmax)));
            }
        }
        if !matches!(element, Element::I8Dot | Element::Residual) {
            all.extend([(false, true), (true, false), (true, true)].map(|(w, n)| rows(element, w, n)));
        }
    }
    for nbits in NBITS {
        for tile in &RESIDUAL_TILES {
            all.extend([false, true].map(|argmax| forward_residual(nbits, tile, argmax)));
        }
    }
    for matrices in MATRICES {
        for tile in &COOP_TILES {
            all.extend([false, true].map(|argmax| forward_coop(matrices, tile, argmax)));
        }
    }
    all.extend([false, true].map(forward_sum));
    all.extend([false, true].map(topk_sort));
    all.push(topk_merge());
    all.push(residual_norms());
    all.extend([Element::F32, Element::F16].map(approx));
    for element in [Element::F32, Element::F16, Element::Bf16] {
        all.extend([gather(element), jacobian(element)]);
        all.extend(
            [Element::F32, Element::F16, Element::Bf16, Element::E4m3, Element::I8]
                .map(|to| store(element, to)),
        );
    }
    all.push(gather(Element::Residual));
    all.extend([false, true].map(matmul));
    all.extend([&MASK, &PLAID_ELIGIBLE, &PLAID_PROBED, &PLAID_APPROX, &PLAID_ITEMS, &PLAID_RANK].map(only));
    all
}
