//! `maxsim info`: what this build and this machine can do.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Args;
use maxsim::{CpuLevel, WgpuTier};
use serde::Serialize;

use crate::exit::Outcome;
use crate::output::{Out, Style, pad};
use crate::setup::{Global, cache_directory};

/// Show version, backends, device, SIMD levels, threads, settings and directories
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  maxsim info
  maxsim info --json
  MAXSIM_CPU_LEVEL=avx2 maxsim info --threads 4")]
pub(crate) struct InfoArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Environment variables that change what happens.
const VARIABLES: [&str; 12] = [
    "MAXSIM_BACKEND",
    "MAXSIM_CPU_LEVEL",
    "MAXSIM_THREADS",
    "MAXSIM_DISABLE_GPU",
    "MAXSIM_WGPU_ADAPTER",
    "MAXSIM_WGPU_TIER",
    "MAXSIM_CUDA_ARCH",
    "MAXSIM_CUDA_KERNELS",
    "MAXSIM_CUDA_TUNING",
    "MAXSIM_CACHE_DIR",
    "MAXSIM_LOG",
    "NO_COLOR",
];

#[derive(Serialize)]
struct Info {
    version: &'static str,
    backends: Vec<Backend>,
    /// Null when no engine could be made; the error follows on stderr.
    engine: Option<EngineInfo>,
    cpu_levels: Vec<&'static str>,
    /// GPUs that wgpu finds, in the order of their numbers.
    adapters: Vec<Adapter>,
    encoder: Encoder,
    environment: BTreeMap<&'static str, String>,
    cache_directory: Option<String>,
}

#[derive(Serialize)]
struct Backend {
    name: &'static str,
    built_in: bool,
    /// Why it cannot be used, where it cannot.
    missing: Option<&'static str>,
}

#[derive(Serialize)]
struct Adapter {
    name: String,
    api: String,
    kind: &'static str,
    driver: String,
    /// Best first.
    tiers: Vec<&'static str>,
}

#[derive(Serialize)]
struct EngineInfo {
    backend: &'static str,
    device: String,
    level: String,
    threads: usize,
}

#[derive(Serialize)]
struct Encoder {
    name: String,
    dim: usize,
}

/// Runs `maxsim info`.
pub(crate) fn run(global: &Global, args: &InfoArgs) -> anyhow::Result<Outcome> {
    let engine = global.engine();
    let encoder = maxsim_encode::StaticEncoder::embedded()?;
    let adapters: Vec<Adapter> = pollster::block_on(maxsim::wgpu_adapters())
        .into_iter()
        .map(|adapter| Adapter {
            name: adapter.name,
            api: adapter.api,
            kind: adapter.kind,
            driver: adapter.driver,
            tiers: adapter.tiers.into_iter().map(WgpuTier::name).collect(),
        })
        .collect();
    let info = Info {
        version: env!("CARGO_PKG_VERSION"),
        backends: vec![
            Backend { name: "cpu", built_in: true, missing: None },
            Backend {
                name: "wgpu",
                built_in: true,
                missing: adapters.is_empty().then_some("built in, but there is no adapter"),
            },
            Backend {
                name: "cuda",
                built_in: true,
                missing: maxsim::CudaBackend::device_count()
                    .is_err()
                    .then_some("built in, but there is no driver"),
            },
        ],
        engine: engine.as_ref().ok().map(|engine| {
            let info = engine.info();
            EngineInfo {
                backend: info.kind.name(),
                device: info.device.clone(),
                level: info.level.clone(),
                threads: info.threads,
            }
        }),
        cpu_levels: CpuLevel::available().map(CpuLevel::name).collect(),
        adapters,
        encoder: Encoder { name: encoder.name().to_owned(), dim: encoder.dim() },
        environment: VARIABLES
            .into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?.to_string_lossy().into_owned())))
            .collect(),
        cache_directory: cache_directory().map(|path| path.display().to_string()),
    };
    let mut out = Out::stdout();
    if args.json {
        out.json(&info)?;
    } else {
        print(&info, &mut out)?;
    }
    // Said last: who asks for information wants to see it above all when the engine cannot be made.
    engine.map(|_| Outcome::Success)
}

fn print(info: &Info, out: &mut Out) -> std::io::Result<()> {
    let style = Style::stdout();
    let mut line = |name: &str, value: &str| writeln!(out, "{} {value}", style.dim(&pad(name, 12)));
    line("version", info.version)?;
    for (i, backend) in info.backends.iter().enumerate() {
        let name = style.strong(&pad(backend.name, 6));
        let state = backend.missing.unwrap_or("built in");
        line(if i == 0 { "backends" } else { "" }, &format!("{name} {state}"))?;
    }
    if let Some(engine) = &info.engine {
        line("device", &format!("{} ({})", engine.device, engine.backend))?;
        line("level", &format!("{} (this CPU runs {})", engine.level, info.cpu_levels.join(", ")))?;
        line("threads", &engine.threads.to_string())?;
    } else {
        line("level", &format!("this CPU runs {}", info.cpu_levels.join(", ")))?;
    }
    for (i, adapter) in info.adapters.iter().enumerate() {
        let Adapter { name, api, kind, driver, tiers } = adapter;
        let tiers = tiers.join(", ");
        line(
            if i == 0 { "adapters" } else { "" },
            &format!("{i} {} ({kind}, {api}, {driver}; runs {tiers})", style.strong(name)),
        )?;
    }
    line("encoder", &format!("{}, {} dimensions", info.encoder.name, info.encoder.dim))?;
    line("cache", info.cache_directory.as_deref().unwrap_or("none: no home directory"))?;
    if info.environment.is_empty() {
        line("environment", "no setting")?;
    }
    for (i, (name, value)) in info.environment.iter().enumerate() {
        line(if i == 0 { "environment" } else { "" }, &format!("{name}={value}"))?;
    }
    out.flush()
}
