//! Lists of names that the JavaScript surface repeats, since TypeScript cannot read Rust: they are Rust's.

use std::path::Path;

use maxsim::{CpuLevel, DType};

fn source(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bindings-js/api/src").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The texts in double quotes between `start` and the first `end` behind it.
fn quoted(text: &str, start: &str, end: &str) -> Vec<String> {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?}"));
    let (list, _) = rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} behind {start:?}"));
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn levels_and_types_are_those_of_rust() {
    let (types, engine) = (source("index.ts"), source("binding/engine.ts"));
    let levels = CpuLevel::ALL.map(CpuLevel::name);
    assert_eq!(quoted(&types, "export type CpuLevel =", ";"), levels);
    assert_eq!(quoted(&engine, "cpuLevel: oneOf(", ")"), levels);
    assert_eq!(quoted(&types, "export type DType =", ";"), DType::ALL.map(DType::name));
}
