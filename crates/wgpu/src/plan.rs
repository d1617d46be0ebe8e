//! From an operator and a device's capabilities to kernel variants. Pure: nothing here touches a device.

use maxsim_core::{BackendKind, DType, Error, Forward, Op, Pairing, Plan, Result, Tokens};
use maxsim_shaders::Variant;
use maxsim_shaders::kernels::{self, Element, TILES, Tile};

use crate::tier::Tier;

/// What plans depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caps {
    pub(crate) tier: Tier,
    /// Extent of cooperative matrices, or 0.
    pub(crate) coop: u32,
    /// Bytes of a storage binding.
    pub(crate) max_binding: u64,
    /// Workgroups per dimension of a dispatch.
    pub(crate) max_workgroups: u32,
    /// Multiply-adds of a submission: operating systems and browsers reset devices that are busy for seconds.
    pub(crate) max_work: u64,
}

/// Largest dimension whose integer dot products fit 31 bits: 127 · 128 each.
const I8_DOT_DIM: usize = (i32::MAX as usize) / (128 * 128);

/// How a scoring operator is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ForwardPlan {
    /// How documents are read.
    pub(crate) element: Element,
    /// Rows of queries and documents that a workgroup takes.
    pub(crate) tile: &'static Tile,
    /// Whether pairs are listed or are a cross product.
    pub(crate) list: bool,
    /// Whether winners are wanted.
    pub(crate) argmax: bool,
}

impl ForwardPlan {
    /// The plan of `op`.
    pub(crate) fn new(op: &Forward<'_>, caps: &Caps) -> Result<Self> {
        let element = match op.d.is_residual() {
            true => Element::Residual,
            false => element(op.q.dtype(), op.d.dtype(), op.q.dim()),
        };
        let list = !matches!(op.pairing, Pairing::Cross);
        Self::over(&op.q, element, list, op.options.argmax, caps)
    }

    /// The plan for queries that meet documents stored as `element`.
    pub(crate) fn over(
        q: &Tokens<'_>,
        element: Element,
        list: bool,
        argmax: bool,
        _caps: &Caps,
    ) -> Result<Self> {
        let longest = q.max_extent();
        // A cross product fills blocks with rows of several queries.
        let rows = if list { longest } else { longest.max(q.slots()) };
        let tile = TILES.iter().find(|tile| rows <= tile.bm as usize).unwrap_or(&TILES[TILES.len() - 1]);
        Ok(Self { element, tile, list, argmax })
    }

    /// The kernel that meets documents.
    pub(crate) fn variant(&self) -> Variant {
        kernels::forward(self.element, self.tile, self.argmax)
    }
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

/// What `explain()` shows.
pub(crate) fn explain(op: &Op<'_>, caps: &Caps) -> Result<Plan> {
    let (name, forward) = match op {
        Op::Forward(op) => ("forward", Some(op)),
        Op::Retrieve(op) => ("retrieve", Some(&op.forward)),
        Op::ApproxScore(_) => ("approx", None),
        Op::PlaidSearch(_) => ("plaid_search", None),
        Op::FromHidden(_) => ("from_hidden", None),
        Op::FromHiddenBackward(_) => ("from_hidden_backward", None),
        Op::Backward(op) => ("backward", Some(&op.forward)),
        other => return Err(unsupported(other)),
    };
    let mut choices = Vec::new();
    if let Some(forward) = forward {
        let plan = ForwardPlan::new(forward, caps)?;
        let tile = plan.tile;
        choices = vec![
            ("tile", format!("{}×{} rows, {}×{} each", tile.bm, tile.bn, tile.tm, tile.tn)),
            ("operands", operands(forward, plan.element)),
            ("pairs", if plan.list { "list".into() } else { "cross".into() }),
        ];
    }
    let notes = Vec::new();
    Ok(Plan { backend: BackendKind::Wgpu, kernel: format!("{name}/{}", caps.tier), choices, notes })
}

fn operands(op: &Forward<'_>, element: Element) -> String {
    let (q, d) = (op.q.dtype(), op.d.dtype());
    match element {
        Element::I8Dot => format!("{q}×{d}"),
        Element::Residual => format!("{q}×residual as f32"),
        _ => format!("{q}×{d} as f32"),
    }
}

pub(crate) fn unsupported(op: &Op<'_>) -> Error {
    Error::Unsupported { what: format!("{} on wgpu", op.name()), hint: "use the cpu backend".into() }
}
