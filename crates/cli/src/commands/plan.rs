//! A plan as JSON.

use std::collections::BTreeMap;

use maxsim::Plan;
use serde::Serialize;

/// How an operator was run.
#[derive(Debug, Serialize)]
pub(super) struct PlanInfo {
    backend: &'static str,
    kernel: String,
    choices: BTreeMap<&'static str, String>,
    notes: Vec<String>,
}

impl From<&Plan> for PlanInfo {
    fn from(plan: &Plan) -> Self {
        Self {
            backend: plan.backend.name(),
            kernel: plan.kernel.clone(),
            choices: plan.choices.iter().cloned().collect(),
            notes: plan.notes.clone(),
        }
    }
}
