//! How an operator will be run: a pure function of the operator and the device.

use maxsim_core::{BackendKind, Documents, Error, Forward, Op, PlaidIndex, Plan, Precision, Result};

use crate::config::{self, Kind, Problem, Scorer, Stored, Use};
use crate::device::Caps;
use crate::operands::Held;
use crate::plaid::{Course, Index};

/// How documents are stored, here or there.
fn stored(documents: &Documents<'_>) -> Result<Stored> {
    Ok(match documents {
        Documents::Residual(residual) => Stored::residual(residual.codec()),
        Documents::Resident(resident) => resident.handle::<Held>()?.stored,
        other => Stored::Vectors(other.dtype().into()),
    })
}

/// The tile that scores `op`.
fn scorer(caps: &Caps, op: &Forward<'_>, argmax: bool) -> Result<(Scorer, Kind)> {
    let stored = stored(&op.d)?;
    let product = config::product(caps.arch.path, op.q.dtype(), stored, op.options.precision);
    let rows = match op.pairing {
        maxsim_core::Pairing::Cross => op.q.kept(),
        _ => op.q.max_extent(),
    };
    let problem = Problem {
        product,
        stored,
        dim: op.q.dim() as u32,
        rows: rows.min(u32::MAX as usize) as u32,
        listed: !matches!(op.pairing, maxsim_core::Pairing::Cross),
        scaled: op.options.normalize || op.d.dtype().is_quantized(),
        precision: op.options.precision,
        purpose: Use::Scores { argmax },
    };
    let scorer = Scorer::choose(caps, &problem);
    let product = if let Scorer::Residual(_) = scorer { Kind::F16 } else { product };
    Ok((scorer, product))
}

pub(crate) fn plan(caps: &Caps, op: &Op<'_>) -> Result<Plan> {
    let mut notes = Vec::new();
    let (scored, argmax) = match op {
        Op::Forward(op) => (Some(op), op.options.argmax),
        Op::Retrieve(op) => (Some(&op.forward), false),
        Op::Backward(op) => {
            notes.push("both methods are two gathers without atomics".into());
            (Some(&op.forward), true)
        }
        Op::PlaidSearch(op) => {
            if let PlaidIndex::Resident(resident) = &op.index {
                resident.handle::<Index>()?;
            }
            (None, false)
        }
        Op::FromHidden(_) | Op::FromHiddenBackward(_) | Op::ApproxScore(_) => (None, false),
        other => return Err(unsupported(other)),
    };
    let mut choices = vec![("target", caps.arch.target.clone())];
    let mut kernel = op.name().to_owned();
    if let Some(forward) = scored {
        let (scorer, product) = scorer(caps, forward, argmax)?;
        kernel = format!("{kernel}/{}", scorer.name());
        choices
            .push(("tile", format!("{} query tokens × {} document tokens", scorer.rows(), scorer.columns())));
        choices.push((
            "operands",
            format!("{}×{} as {}", forward.q.dtype(), forward.d.dtype(), product.dtype()),
        ));
        choices.push(("shared", format!("{} bytes", scorer.shared())));
        if let Some(us) = caps.tuning.floor(op.cost(), product) {
            choices.push(("floor", format!("{us:.1} µs")));
        }
        if !caps.tuning.entries.is_empty() {
            choices.push(("tuned", caps.tuning.device.clone()));
        }
    }
    if let Op::PlaidSearch(op) = op {
        let course = Course::of(op);
        kernel = format!("{kernel}/{}", if course.probing { "probing" } else { "everything" });
        if course.probing {
            choices.push(("probes", course.probes.to_string()));
            choices.push(("kept", course.kept.to_string()));
        } else {
            choices.push(("documents", course.allowed.to_string()));
        }
    }
    if let Op::FromHidden(op) = op {
        let stored = Stored::Vectors(op.h.dtype().into());
        let product = config::product(caps.arch.path, op.w.dtype(), stored, op.options.precision);
        let rows = op.q.dim() as u32;
        let dim = op.h.dim() as u32;
        let problem = Problem {
            product,
            stored,
            dim,
            rows,
            listed: false,
            scaled: false,
            precision: Precision::Default,
            purpose: Use::Store,
        };
        let tile = Scorer::choose(caps, &problem);
        choices.push(("tile", format!("{} dimensions × {} document tokens", tile.rows(), tile.columns())));
        choices.push(("operands", format!("{}×{} as {}", op.h.dtype(), op.w.dtype(), product.dtype())));
    }
    Ok(Plan { backend: BackendKind::Cuda, kernel: format!("{kernel}/{}", caps.arch.path), choices, notes })
}

pub(crate) fn unsupported(op: &Op<'_>) -> Error {
    Error::Unsupported { what: format!("{} on CUDA", op.name()), hint: "use another backend".into() }
}
