//! From an operator and a device's capabilities to kernel variants. Pure: nothing here touches a device.

use maxsim_core::{
    BackendKind, DType, Documents, Error, Forward, FromHidden, Op, Pairing, Plan, Result, Tokens,
};
use maxsim_shaders::Variant;
use maxsim_shaders::kernels::{
    self, COOP_PADDING, COOP_TILES, CoopTile, Element, RESIDUAL_TILES, ResidualTile, TILES, Tile,
};

use crate::residual::CodecShape;
use crate::rows::Held;
use crate::tier::Tier;

/// What plans depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caps {
    pub(crate) tier: Tier,
    /// Cooperative matrices: extent, and invocations of a subgroup.
    pub(crate) coop: Option<(u32, u32)>,
    /// Bytes of a storage binding.
    pub(crate) max_binding: u64,
    /// Workgroups per dimension of a dispatch.
    pub(crate) max_workgroups: u32,
    /// Multiply-adds of a submission, about: operating systems and browsers reset devices that are busy for seconds, and a call
    /// stops between submissions.
    pub(crate) max_work: u64,
}

impl Caps {
    /// Rows on the device are multiples of this many bytes; f16 ones of whole matrices.
    pub(crate) fn row_unit(&self, dtype: DType) -> usize {
        match self.coop {
            Some((extent, _)) if dtype == DType::F16 => 2 * extent as usize,
            _ => 16,
        }
    }

    /// Rows that kernels may read behind the last.
    pub(crate) fn padding(&self) -> usize {
        if self.coop.is_some() { COOP_PADDING as usize } else { 0 }
    }
}

/// Rows of queries and documents that a workgroup takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Block {
    /// Of the kernel `forward`: how documents are read.
    Plain(Element, &'static Tile),
    /// Of the kernel `forward_coop`: matrices, subgroups.
    Coop((u32, u32), &'static CoopTile),
    /// Of the kernel `forward_residual`: bits of a bucket.
    Residual(u32, &'static ResidualTile),
}

impl Block {
    /// Query rows.
    pub(crate) fn rows(&self) -> u32 {
        match self {
            Self::Plain(_, tile) => tile.bm,
            Self::Coop((extent, _), tile) => tile.bm(*extent),
            Self::Residual(_, tile) => tile.bm,
        }
    }
}

/// Largest dimension whose integer dot products fit 31 bits: 127 · 128 each.
const I8_DOT_DIM: usize = (i32::MAX as usize) / (128 * 128);

/// How documents are read by the kernels that score them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Token vectors.
    As(Element),
    /// Codes and packed residuals.
    Residual(CodecShape),
}

/// How a scoring operator is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForwardPlan {
    /// The kernel, and rows that a workgroup takes.
    pub(crate) block: Block,
    /// Whether pairs are listed or are a cross product.
    pub(crate) list: bool,
    /// Whether winners are wanted.
    pub(crate) argmax: bool,
}

impl ForwardPlan {
    /// The plan of `op`.
    pub(crate) fn new(op: &Forward<'_>, caps: &Caps) -> Result<Self> {
        let stored = match &op.d {
            #[cfg(feature = "residual")]
            Documents::Residual(residual) => Stored::Residual(CodecShape::of(residual.codec())),
            Documents::Resident(resident) if resident.meta().residual => {
                let codec = resident.handle::<Held>()?.codec().expect("of residual documents");
                Stored::Residual(codec.shape)
            }
            _ => Stored::As(element(op.q.dtype(), op.d.dtype(), op.q.dim())),
        };
        let list = !matches!(op.pairing, Pairing::Cross);
        Self::over(&op.q, stored, list, op.options.argmax, caps)
    }

    /// The plan for queries that meet documents that are `stored` so.
    pub(crate) fn over(
        q: &Tokens<'_>,
        stored: Stored,
        list: bool,
        argmax: bool,
        caps: &Caps,
    ) -> Result<Self> {
        let longest = q.max_extent();
        // A cross product fills blocks with rows of several queries.
        let rows = if list { longest } else { longest.max(q.slots()) };
        // Which kernel it is depends on types alone, so that bits do not depend on shapes.
        let blocks = blocks(q.dtype(), stored, caps);
        let block =
            blocks.iter().find(|block| rows <= block.rows() as usize).unwrap_or(&blocks[blocks.len() - 1]);
        Ok(Self { block: *block, list, argmax })
    }

    /// Whether query rows stay as they are stored; else they become f32.
    pub(crate) fn stored_queries(&self) -> bool {
        matches!(self.block, Block::Plain(Element::I8Dot, _) | Block::Coop(..))
    }

    /// The kernel that meets documents.
    pub(crate) fn variant(&self) -> Variant {
        variant(self.block, self.argmax)
    }
}

fn variant(block: Block, argmax: bool) -> Variant {
    match block {
        Block::Plain(element, tile) => kernels::forward(element, tile, argmax),
        Block::Coop(matrices, tile) => kernels::forward_coop(matrices, tile, argmax),
        Block::Residual(nbits, tile) => kernels::forward_residual(nbits, tile, argmax),
    }
}

/// Blocks for queries of type `q` and documents that are `stored` so, fewest rows first.
fn blocks(q: DType, stored: Stored, caps: &Caps) -> Vec<Block> {
    match (stored, caps.coop) {
        (Stored::Residual(codec), _) => {
            // The similarities of a block's rows with all centroids fit a binding.
            let fits = |bm: u32| 4 * u64::from(bm) * codec.centroids as u64 <= caps.max_binding;
            let most = RESIDUAL_TILES.iter().filter(|tile| fits(tile.bm)).count().max(1);
            RESIDUAL_TILES[..most].iter().map(|tile| Block::Residual(codec.nbits, tile)).collect()
        }
        (Stored::As(Element::F16), Some(matrices)) if q == DType::F16 => {
            COOP_TILES.iter().map(|tile| Block::Coop(matrices, tile)).collect()
        }
        (Stored::As(element), _) => TILES.iter().map(|tile| Block::Plain(element, tile)).collect(),
    }
}

/// Every variant that scoring and searching documents of type `d` with queries of type `q` may need, of any shape and with any
/// options.
pub(crate) fn variants(q: DType, d: DType, caps: &Caps) -> Vec<Variant> {
    let mut variants = vec![kernels::topk_merge()];
    for flag in [false, true] {
        variants.extend([kernels::forward_sum(flag), kernels::topk_sort(flag)]);
        // Beyond some dimension, int8 is decoded like everything else.
        let mut elements = vec![element(q, d, 1), stored(d)];
        elements.dedup();
        for element in elements {
            let blocks = blocks(q, Stored::As(element), caps);
            variants.extend(blocks.into_iter().map(|block| variant(block, flag)));
        }
    }
    variants.push(kernels::rows(stored(d), false, true));
    variants.push(kernels::rows(stored(q), false, true));
    if q != DType::F32 {
        variants.extend([false, true].map(|norm| kernels::rows(stored(q), true, norm)));
    }
    variants
}

/// How documents of type `d` are read for queries of type `q`.
pub(crate) fn element(q: DType, d: DType, dim: usize) -> Element {
    match d {
        DType::I8 if q == DType::I8 && dim <= I8_DOT_DIM => Element::I8Dot,
        other => stored(other),
    }
}

/// How stored elements are decoded.
pub(crate) fn stored(dtype: DType) -> Element {
    match dtype {
        DType::F32 => Element::F32,
        DType::F16 => Element::F16,
        DType::BF16 => Element::Bf16,
        DType::E4M3 => Element::E4m3,
        DType::I8 => Element::I8,
    }
}

/// Every variant that running `op` may need, in the order of the work.
pub(crate) fn variants_of(op: &Op<'_>, caps: &Caps) -> Result<Vec<Variant>> {
    let mut all = Vec::new();
    match op {
        Op::Forward(op) => scoring(&mut all, op, op.options.argmax, caps)?,
        Op::Retrieve(op) => {
            scoring(&mut all, &op.forward, false, caps)?;
            selection(&mut all);
            if op.forward.options.argmax {
                let plan = ForwardPlan::new(&op.forward, caps)?;
                all.extend([variant(plan.block, true), kernels::forward_sum(true)]);
            }
        }
        #[cfg(feature = "gradients")]
        Op::Backward(op) => {
            if op.argmax.is_none() {
                scoring(&mut all, &op.forward, true, caps)?;
            }
            let q = stored(op.forward.q.dtype());
            let residual = op.forward.d.is_residual();
            let d = if residual { Element::Residual } else { stored(op.forward.d.dtype()) };
            let normalize = op.forward.options.normalize;
            if normalize {
                all.extend([norms(q), norms(d)]);
            }
            for (wanted, target, source) in [(op.wants_q, q, d), (op.wants_d && !residual, d, q)] {
                if wanted {
                    all.push(kernels::gather(source));
                    all.extend(normalize.then(|| kernels::jacobian(target)));
                }
            }
        }
        #[cfg(feature = "gradients")]
        Op::FromHidden(op) => head(&mut all, op, op.options.argmax, caps)?,
        #[cfg(feature = "gradients")]
        Op::FromHiddenBackward(op) => {
            head(&mut all, &op.forward, true, caps)?;
            let operands = [stored(op.forward.q.dtype()), stored(op.forward.h.dtype()), Element::F32];
            all.extend(operands.map(kernels::gather));
            all.extend([kernels::jacobian(Element::F32), kernels::matmul(true)]);
        }
        #[cfg(feature = "residual")]
        Op::ApproxScore(op) => all.push(kernels::approx(stored(op.table().dtype()))),
        #[cfg(feature = "plaid")]
        Op::PlaidSearch(op) if !op.options.candidates_only => {
            use kernels::{MASK, PLAID_APPROX, PLAID_ELIGIBLE, PLAID_ITEMS, PLAID_PROBED, PLAID_RANK};
            let q = op.q.clone().flattened();
            queries(&mut all, q.dtype(), false, op.options.normalize);
            // Whether few enough documents are allowed to score them all is not counted for this.
            all.push(kernels::matmul(false));
            if !op.options.exact {
                let steps = [&PLAID_ELIGIBLE, &PLAID_PROBED, &PLAID_APPROX, &PLAID_ITEMS, &PLAID_RANK];
                all.extend(steps.map(kernels::only));
            }
            all.push(kernels::only(&MASK));
            let stored = Stored::Residual(crate::plaid::codec_shape(&op.index)?);
            // Every document, those that were chosen, and winners of the hits.
            let lists =
                [(false, false, true), (true, false, !op.options.exact), (true, true, op.options.explain)];
            for (list, argmax, _) in lists.into_iter().filter(|&(.., wanted)| wanted) {
                let plan = ForwardPlan::over(&q, stored, list, argmax, caps)?;
                all.extend([plan.variant(), kernels::forward_sum(argmax)]);
            }
            selection(&mut all);
        }
        other => return Err(unsupported(other)),
    }
    let mut unique = Vec::with_capacity(all.len());
    for variant in all {
        if !unique.contains(&variant) {
            unique.push(variant);
        }
    }
    Ok(unique)
}

fn scoring(all: &mut Vec<Variant>, op: &Forward<'_>, argmax: bool, caps: &Caps) -> Result<()> {
    let plan = ForwardPlan { argmax, ..ForwardPlan::new(op, caps)? };
    queries(all, op.q.dtype(), plan.stored_queries(), op.options.normalize);
    if op.options.normalize {
        all.push(norms(if op.d.is_residual() { Element::Residual } else { stored(op.d.dtype()) }));
    }
    if op.d.is_residual() {
        all.push(kernels::matmul(false));
    }
    all.extend([plan.variant(), kernels::forward_sum(argmax)]);
    Ok(())
}

/// What finds the factors that normalise rows.
fn norms(element: Element) -> Variant {
    match element {
        Element::Residual => kernels::residual_norms(),
        element => kernels::rows(element, false, true),
    }
}

/// What prepares query rows.
fn queries(all: &mut Vec<Variant>, q: DType, as_stored: bool, normalize: bool) {
    let widen = q != DType::F32 && !as_stored;
    if widen || normalize {
        all.push(kernels::rows(stored(q), widen, normalize));
    }
}

fn selection(all: &mut Vec<Variant>) {
    all.extend([kernels::topk_sort(false), kernels::topk_sort(true), kernels::topk_merge()]);
}

fn head(all: &mut Vec<Variant>, op: &FromHidden<'_>, argmax: bool, caps: &Caps) -> Result<()> {
    if op.h.dtype() != DType::F32 {
        all.push(kernels::rows(stored(op.h.dtype()), true, false));
    }
    all.push(kernels::matmul(false));
    if op.options.normalize {
        all.push(norms(Element::F32));
    }
    queries(all, op.q.dtype(), false, false);
    let plan = ForwardPlan::over(&op.q, Stored::As(Element::F32), false, argmax, caps)?;
    all.extend([plan.variant(), kernels::forward_sum(argmax)]);
    Ok(())
}

/// What `explain()` shows.
pub(crate) fn explain(op: &Op<'_>, caps: &Caps) -> Result<Plan> {
    let scored = match op {
        Op::Forward(op) => Some(op),
        Op::Retrieve(op) => Some(&op.forward),
        Op::Backward(op) => Some(&op.forward),
        _ => None,
    };
    let mut choices = Vec::new();
    if let Some(forward) = scored {
        let plan = ForwardPlan::new(forward, caps)?;
        let tile = match plan.block {
            Block::Plain(_, t) => format!("{}×{} rows, {}×{} each", t.bm, t.bn, t.tm, t.tn),
            Block::Coop((extent, lanes), t) => {
                format!("{}×{} subgroups of {lanes}, 2×2 matrices {extent}×{extent} each", t.sm, t.sn)
            }
            Block::Residual(_, t) => format!("{}×{} rows, {}×4 each", t.bm, t.bn, t.tm),
        };
        choices = vec![
            ("kernel", plan.variant().kernel.name.into()),
            ("tile", tile),
            ("operands", operands(forward, &plan)),
            ("pairs", if plan.list { "list".into() } else { "cross".into() }),
        ];
    }
    let mut names: Vec<&str> = variants_of(op, caps)?.iter().map(|variant| variant.kernel.name).collect();
    names.dedup();
    choices.push(("kernels", names.join(" ")));
    let kernel = [op.name(), "/", caps.tier.name()].concat();
    Ok(Plan { backend: BackendKind::Wgpu, kernel, choices, notes: Vec::new() })
}

fn operands(op: &Forward<'_>, plan: &ForwardPlan) -> String {
    let (q, d) = (op.q.dtype(), op.d.dtype());
    match plan.block {
        _ if plan.stored_queries() => format!("{q}×{d}"),
        Block::Residual(..) => format!("{q}×residual as f32"),
        _ => format!("{q}×{d} as f32"),
    }
}

pub(crate) fn unsupported(op: &Op<'_>) -> Error {
    Error::Unsupported { what: format!("{} on wgpu", op.name()), hint: "use the cpu backend".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use maxsim_core::{DataBuf, Options};

    fn caps() -> Vec<Caps> {
        let caps = |tier, coop| Caps {
            tier,
            coop,
            max_binding: 128 << 20,
            max_workgroups: 65_535,
            max_work: 1 << 37,
        };
        let plain = Tier::ALL[..3].iter().map(|&tier| caps(tier, None));
        plain.chain(kernels::MATRICES.map(|matrices| caps(Tier::Coop, Some(matrices)))).collect()
    }

    /// Every shape has a plan; its variant is one that tests validate and that `prepare` compiles; its kernel depends on types,
    /// not on shapes.
    #[test]
    fn plans_are_total() {
        let known = kernels::all();
        for caps in caps() {
            for q_type in DType::ALL {
                for d_type in DType::ALL {
                    let mut kernels = Vec::new();
                    for (queries, len) in
                        [(0, 3), (1, 0), (1, 1), (1, 17), (1, 33), (2, 20), (3, 200), (1, 5000)]
                    {
                        for dim in [1, 7, 128] {
                            let data = |rows: usize, t| DataBuf::from_f32(&vec![0.0; rows * dim], t);
                            let (q, d) = (data(queries * len, q_type), data(queries * 2, d_type));
                            let q = Tokens::padded(&q, &[queries, len, dim]).unwrap();
                            let d = Tokens::padded(&d, &[queries, 2, dim]).unwrap();
                            for op in [
                                Forward::maxsim(q.clone(), d.clone(), Options::default()),
                                Forward::pairs(q, d, Options::default().with_argmax()),
                            ] {
                                let plan = ForwardPlan::new(&op, &caps).unwrap();
                                let variant = plan.variant();
                                assert!(known.contains(&variant), "{}", variant.label());
                                let prepared = variants(q_type, d_type, &caps);
                                assert!(prepared.contains(&variant), "{}", variant.label());
                                let element = if let Block::Plain(element, _) = plan.block {
                                    Some(element)
                                } else {
                                    None
                                };
                                kernels.push((variant.kernel.name, element));
                            }
                        }
                    }
                    kernels.dedup();
                    assert_eq!(kernels.len(), 1, "{q_type}×{d_type}: {kernels:?}");
                }
            }
        }
    }

    /// Residual documents have a kernel for every query, and a table of a block's rows fits a binding.
    #[test]
    fn tables_fit() {
        let known = kernels::all();
        let caps = caps()[0];
        let values = [0.0f32; 5000];
        for nbits in kernels::NBITS {
            for (centroids, most) in
                [(0, 64), (1, 64), (1 << 16, 64), (1 << 19, 64), (1 << 20, 32), (1 << 21, 16)]
            {
                for rows in [0, 1, 16, 17, 40, 5000] {
                    let q = Tokens::padded(&values[..rows], &[1, rows, 1]).unwrap();
                    let stored = Stored::Residual(CodecShape { nbits, centroids });
                    let plan = ForwardPlan::over(&q, stored, false, true, &caps).unwrap();
                    assert!(known.contains(&plan.variant()), "{}", plan.variant().label());
                    let bytes = 4 * u64::from(plan.block.rows()) * centroids as u64;
                    assert!(plan.block.rows() <= most && bytes <= caps.max_binding, "{centroids}: {bytes}");
                }
            }
        }
    }

    #[test]
    fn long_int8_rows_are_decoded() {
        assert_eq!(element(DType::I8, DType::I8, I8_DOT_DIM), Element::I8Dot);
        assert_eq!(element(DType::I8, DType::I8, I8_DOT_DIM + 1), Element::I8);
        assert_eq!(element(DType::F32, DType::I8, 8), Element::I8);
    }

    #[test]
    fn all_of_a_variant_is_prepared() {
        let known = kernels::all();
        for caps in caps() {
            for q in DType::ALL {
                for d in DType::ALL {
                    assert!(variants(q, d, &caps).iter().all(|variant| known.contains(variant)));
                }
            }
        }
    }
}
