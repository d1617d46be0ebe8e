//! Embeds `wgsl/**/*.wgsl`, without comments and indentation: the text travels in every web page that searches.
//!
//! Lines keep their numbers, so that an error in a kernel can be found in its file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=wgsl");
    let with = |feature: &str| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    let wanted = |stem: &str| match stem {
        // No browser has cooperative matrices.
        "forward_coop" => env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch != "wasm32"),
        "gather" | "jacobian" => with("GRADIENTS"),
        "mask" => with("PLAID"),
        "store" | "exact" => with("STORE"),
        "approx" | "matmul" | "residual" | "residual_norms" | "forward_residual" => with("RESIDUAL"),
        _ => !stem.starts_with("plaid_") || with("PLAID"),
    };
    let mut out = String::from("static FILES: &[(&str, &str)] = &[\n");
    for (directory, prefix) in [("wgsl", ""), ("wgsl/lib", "lib/")] {
        for path in files(Path::new(directory)) {
            let stem = path.file_stem().expect("a file").to_string_lossy().into_owned();
            if !wanted(&stem) {
                continue;
            }
            let text =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            writeln!(out, "    ({:?}, {:?}),", format!("{prefix}{stem}"), minified(&text)).expect("memory");
        }
    }
    out.push_str("];\n");
    let to = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo")).join("files.rs");
    fs::write(&to, out).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wgsl"))
        .collect();
    files.sort();
    files
}

/// WGSL has no string literals, so `//` always begins a comment. Lines stay lines.
fn minified(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or("").trim()).collect();
    lines.join("\n")
}
