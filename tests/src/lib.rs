//! What the tests in `tests/` share. Tests run on every device of [`maxsim_testkit::devices`].

// Engines cannot be shared between threads in WebAssembly, so no static holds them; `level-selftest` makes its own.
#![cfg(not(target_arch = "wasm32"))]

use std::sync::OnceLock;

use maxsim::{Engine, Forward, Op, Output, Scores, oracle};
use maxsim_testkit::cases::forward::{Family, cases};
use maxsim_testkit::compare;
use maxsim_testkit::devices::{self, Device};

/// All devices, set up once per process: the CPU's first. What is not there is a skip, printed and counted.
pub fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let (gpus, skipped) = devices::gpus();
        for skip in &skipped {
            println!("skipped: {skip}");
        }
        println!("{} devices skipped", skipped.len());
        [devices::cpus(), gpus].concat()
    })
}

/// The CPU's devices: for operators that GPUs cannot run yet, and for what is about threads.
pub fn cpu_devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(devices::cpus)
}

/// Runs a scoring operator.
///
/// # Panics
/// If it fails.
pub fn score(engine: &Engine, op: &Forward<'_>) -> Scores {
    match engine.run(&Op::Forward(op.clone())) {
        Ok(Output::Scores(scores)) => scores,
        other => panic!("{other:?}"),
    }
}

/// Compares every case of an operator on every device with the oracle.
///
/// # Panics
/// If one is not within tolerance; the text names every such case and device.
pub fn check_family(family: Family) {
    let mut problems = Vec::new();
    let cases = cases(family);
    for case in &cases {
        let op = case.op();
        let exact = oracle::forward(&op);
        for device in devices() {
            let got = score(&device.engine, &op);
            let result = compare::forward(&op, &got, &exact, case.tolerance(), case.exact_ties());
            if !result.passed() {
                problems.push(format!("{} {}: {}", device.name, case.name, result.text()));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{} of {} runs wrong:\n{}",
        problems.len(),
        cases.len() * devices().len(),
        problems.join("\n")
    );
}

/// The examples in `README.md`, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// The examples in `docs/guide-rust.md`, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/guide-rust.md")]
pub struct RustGuide;

/// The examples in `docs/plaid.md`, run as tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/plaid.md")]
pub struct PlaidGuide;
