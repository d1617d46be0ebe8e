//! The scoring operators.

use maxsim_core::oracle;
use maxsim_cuda::Path;
use maxsim_testkit::cases::forward::{Case, Family, cases};
use maxsim_testkit::compare;

use crate::{all_paths, engine, paths, score};

/// Operations of a case that take the emulator about a second; larger ones are left to hardware.
const MOST: u64 = 1 << 28;

fn check(family: Family, paths: Vec<Path>) {
    let cases: Vec<Case> = cases(family).into_iter().filter(|case| case.op().cost().flops < MOST).collect();
    let mut problems = Vec::new();
    for path in paths {
        let engine = engine(path);
        for case in &cases {
            let op = case.op();
            let got = score(&engine, &op);
            let result =
                compare::forward(&op, &got, &oracle::forward(&op), case.tolerance(), case.exact_ties());
            if !result.passed() {
                problems.push(format!("{path} {}: {}", case.name, result.text()));
            }
        }
    }
    assert!(problems.is_empty(), "{} of {} wrong:\n{}", problems.len(), cases.len(), problems.join("\n"));
}

#[test]
fn dense() {
    check(Family::Dense, all_paths());
}

#[test]
fn kd() {
    check(Family::Kd, paths());
}

#[test]
fn pairs() {
    check(Family::Pairs, paths());
}

#[test]
fn varlen() {
    check(Family::Varlen, paths());
}

#[test]
fn score_pairs() {
    check(Family::ScorePairs, paths());
}

#[test]
fn padded() {
    check(Family::Padded, paths());
}
