//! Every shipped configuration through NVRTC, for the architectures that are told apart. No GPU is needed, libnvrtc is:
//! `./test cuda` fetches it.

use maxsim_cuda::{Path, jit, variants};

/// Architectures a path's kernels are compiled for: the devices that use it, and PTX for devices to come.
fn targets(path: Path) -> &'static [&'static str] {
    match path {
        Path::Sm75 => &["sm_75"],
        Path::Sm80 => &["sm_80", "compute_80"],
        Path::Sm89 => &["sm_89", "sm_100", "sm_120"],
        Path::Sm90 => &["sm_90a"],
    }
}

/// What `ptxas -v` says that may not be: memory for registers that did not fit, a stack, products that wait for each other (C7510). A
/// `warpgroup.arrive` more (C7519) costs nothing.
fn complaint(log: &str) -> Option<&str> {
    let spills = |line: &str| {
        line.contains("bytes stack frame")
            && !line.contains(" 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads")
    };
    log.lines().find(|line| spills(line) || line.contains("serialized") || line.contains("C7510"))
}

fn check(path: Path) {
    let units = variants(path);
    let mut problems = Vec::new();
    for (i, target) in targets(path).iter().enumerate() {
        // The first is where all of them have to be right; the others are the same instructions for other devices.
        for unit in units.iter().step_by(if i == 0 { 1 } else { 8 }) {
            let name = || {
                let constants: Vec<String> = unit.config.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("{target} {} {}", unit.kernel.name, constants.join(" "))
            };
            match jit::compile(unit, target) {
                Err(error) => problems.push(format!("{}: {error}", name())),
                Ok(compiled) if target.starts_with("sm_") => {
                    assert!(
                        compiled.log.contains("bytes stack frame"),
                        "ptxas said nothing: {}",
                        compiled.log
                    );
                    if let Some(line) = complaint(&compiled.log) {
                        problems.push(format!("{}: {}", name(), line.trim()));
                    }
                    if std::env::var_os("MAXSIM_TRACE").is_some() {
                        let used = compiled.log.lines().find(|line| line.contains("registers")).unwrap_or("");
                        eprintln!("{}: {}", name(), used.trim());
                    }
                }
                Ok(compiled) => assert!(compiled.image.starts_with(b"//"), "no PTX"),
            }
        }
    }
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    println!("{path}: {} kernels for {}", units.len(), targets(path).join(", "));
}

#[test]
#[ignore = "needs libnvrtc: ./test cuda"]
fn sm_75() {
    check(Path::Sm75);
}

#[test]
#[ignore = "needs libnvrtc: ./test cuda"]
fn sm_80() {
    check(Path::Sm80);
}

#[test]
#[ignore = "needs libnvrtc: ./test cuda"]
fn sm_89() {
    check(Path::Sm89);
}

#[test]
#[ignore = "needs libnvrtc: ./test cuda"]
fn sm_90() {
    check(Path::Sm90);
}
