//! Options every command takes, and what they set up.

use std::path::PathBuf;

use anyhow::Context;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use etcetera::BaseStrategy;
use maxsim::{
    BackendKind, CpuLevel, DType, Engine, EngineBuilder, Error, ErrorCode, Precision, ResidualLayout,
    WgpuTier,
};

use crate::exit::Usage;

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendChoice {
    /// MAXSIM_BACKEND, else the best there is.
    Auto,
    /// SIMD kernels on the CPU.
    Cpu,
    /// WebGPU, Vulkan, Metal or DX12.
    Wgpu,
    /// NVIDIA GPUs.
    Cuda,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Engine options")]
pub(crate) struct Global {
    /// Where to compute; a backend named here is used or is an error
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "BACKEND")]
    pub(crate) backend: BackendChoice,

    /// CPU threads [default: MAXSIM_THREADS, else one per core]
    #[arg(long, global = true, value_name = "N", value_parser = positive())]
    pub(crate) threads: Option<usize>,

    /// SIMD level of the CPU [default: MAXSIM_CPU_LEVEL, else the best this machine runs]
    #[arg(long, global = true, value_name = "LEVEL", value_parser = level())]
    pub(crate) level: Option<CpuLevel>,

    /// GPU: its number or part of its name, as `maxsim info` lists them [default: MAXSIM_WGPU_ADAPTER, else the best]
    #[arg(long, global = true, value_name = "GPU")]
    pub(crate) adapter: Option<String>,

    /// Capability tier of the GPU [default: MAXSIM_WGPU_TIER, else the best it runs]
    #[arg(long, global = true, value_name = "TIER", value_parser = tier())]
    pub(crate) tier: Option<WgpuTier>,

    /// Bytes of GPU memory to use at most [default: all there is]
    #[arg(long, global = true, value_name = "BYTES")]
    pub(crate) memory_budget: Option<u64>,
}

impl Global {
    /// CPU threads, if there are to be fewer than cores.
    pub(crate) fn threads(&self) -> Option<usize> {
        // What cannot be read is an error once an engine is made.
        self.threads.or_else(|| std::env::var("MAXSIM_THREADS").ok()?.parse().ok().filter(|&n| n > 0))
    }

    /// The engine these options and the environment ask for.
    pub(crate) fn engine(&self) -> anyhow::Result<Engine> {
        self.engine_from(EngineBuilder::new())
    }

    /// The same, with the device's own time measured.
    pub(crate) fn timed_engine(&self) -> anyhow::Result<Engine> {
        self.engine_from(EngineBuilder::new().device_timing())
    }

    fn engine_from(&self, mut builder: EngineBuilder) -> anyhow::Result<Engine> {
        builder = match self.backend {
            BackendChoice::Auto => builder,
            BackendChoice::Cpu => builder.backend(BackendKind::Cpu),
            BackendChoice::Wgpu => builder.backend(BackendKind::Wgpu),
            BackendChoice::Cuda => builder.backend(BackendKind::Cuda),
        };
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        if let Some(threads) = self.threads() {
            // What indexes are built by beside the engine. There is one pool a process: an engine made before has made it.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        }
        if let Some(level) = self.level {
            builder = builder.cpu_level(level);
        }
        if let Some(adapter) = &self.adapter {
            builder = builder.wgpu_adapter(adapter);
        }
        if let Some(tier) = self.tier {
            builder = builder.wgpu_tier(tier);
        }
        if let Some(bytes) = self.memory_budget {
            builder = builder.memory_budget(bytes);
        }
        builder.build().map_err(|error| match error.code() {
            // Options were checked when they were parsed; what is left comes from the environment.
            ErrorCode::Value if error.argument() == Some("adapter") && self.adapter.is_some() => {
                Usage::new(error.map_argument(|_| "--adapter".into()).to_string()).into()
            }
            ErrorCode::Value => Usage::new(format!("in the environment: {error}")).into(),
            _ => error.into(),
        })
    }
}

/// Parses a whole number of at least 1.
pub(crate) fn positive() -> impl TypedValueParser<Value = usize> {
    clap::builder::RangedU64ValueParser::<usize>::new().range(1..)
}

fn level() -> impl TypedValueParser<Value = CpuLevel> {
    PossibleValuesParser::new(CpuLevel::ALL.map(CpuLevel::name)).try_map(|name| name.parse::<CpuLevel>())
}

fn tier() -> impl TypedValueParser<Value = WgpuTier> {
    PossibleValuesParser::new(WgpuTier::ALL.map(WgpuTier::name)).try_map(|name| name.parse::<WgpuTier>())
}

/// Parses an element type among `names`.
pub(crate) fn dtype(names: &'static [&'static str]) -> impl TypedValueParser<Value = DType> {
    PossibleValuesParser::new(names).try_map(|name| name.parse::<DType>())
}

/// What `--dtype` of `score` and `search` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// Vectors of this type.
    Vectors(DType),
    /// Codes and packed residuals.
    Residual,
}

/// Parses a [`Storage`].
pub(crate) fn storage() -> impl TypedValueParser<Value = Storage> {
    let names = DType::ALL.map(DType::name).into_iter().chain(["residual"]);
    PossibleValuesParser::new(names).try_map(|name| match &name[..] {
        "residual" => Ok(Storage::Residual),
        name => name.parse::<DType>().map(Storage::Vectors),
    })
}

/// Parses a [`Precision`].
pub(crate) fn precision() -> impl TypedValueParser<Value = Precision> {
    PossibleValuesParser::new(["default", "exact", "fast", "int8"]).try_map(|name| name.parse::<Precision>())
}

/// Parses bits per dimension of residuals.
pub(crate) fn nbits() -> impl TypedValueParser<Value = u32> {
    PossibleValuesParser::new(["1", "2", "4", "8"]).try_map(|text| text.parse::<u32>())
}

/// Parses a [`ResidualLayout`].
pub(crate) fn layout() -> impl TypedValueParser<Value = ResidualLayout> {
    PossibleValuesParser::new(["plaid", "lik"]).try_map(|name| name.parse::<ResidualLayout>())
}

/// Log messages on stderr: `MAXSIM_LOG` is a filter such as `debug` or `maxsim_core=trace`; warnings by default.
pub(crate) fn logging() -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let filter = match std::env::var("MAXSIM_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|error| Usage::new(format!("in the environment: MAXSIM_LOG={text:?}: {error}")))?,
        _ => EnvFilter::new("warn"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        // It would print on a stderr that is gone, and panic.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| Error::io("log", error))
        .context("log messages cannot be set up")
}

/// Directory for files that can be made again: `MAXSIM_CACHE_DIR`, else `maxsim` in the user's cache directory.
pub(crate) fn cache_directory() -> Option<PathBuf> {
    match std::env::var_os("MAXSIM_CACHE_DIR") {
        Some(path) if !path.is_empty() => Some(path.into()),
        _ => Some(etcetera::choose_base_strategy().ok()?.cache_dir().join("maxsim")),
    }
}
