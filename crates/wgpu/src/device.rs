//! Adapters and devices.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use maxsim_core::{Error, Result};

use crate::fault::Faults;
use crate::memory::Memory;
use crate::pipeline::Pipelines;
use crate::plan::Caps;
use crate::tier::{self, Tier};

/// How to set a GPU up. The defaults use the best adapter and all it offers.
#[derive(Debug, Clone, Default)]
pub struct WgpuOptions {
    /// Part of an adapter's name, in any case, or its number in [`adapters`]; `None`: `MAXSIM_WGPU_ADAPTER`, else the best.
    /// Browsers have one adapter and ignore this.
    pub adapter: Option<String>,
    /// Tier to use; `None`: `MAXSIM_WGPU_TIER`, else the best the adapter runs.
    pub tier: Option<Tier>,
    /// Bytes of device memory that documents and scratch may take together; `None`: as much as there is.
    pub memory_budget: Option<u64>,
    /// Largest buffer binding in bytes; `None`: the adapter's limit. Smaller ones split work as small devices would.
    pub max_binding: Option<u64>,
    /// Measure the time the device spends, where it can; see `Backend::device_time`.
    pub timing: bool,
    /// Workgroups per dimension of a dispatch; `None`: the adapter's limit.
    pub max_workgroups: Option<u32>,
    /// Whether the device normalises, converts and quantises corpora, or the host does; the result is the same. `None`: the device,
    /// unless it is a CPU.
    pub convert: Option<bool>,
}

/// What is known of an adapter before it is used.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFacts {
    /// Name as the driver gives it.
    pub name: String,
    /// Graphics API: `vulkan`, `metal`, `dx12`, `webgpu`.
    pub api: String,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: &'static str,
    /// Driver and its version.
    pub driver: String,
    /// Tiers it runs, best first.
    pub tiers: Vec<Tier>,
}

impl AdapterFacts {
    fn of(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        let driver = [info.driver, info.driver_info].join(" ").trim().to_owned();
        let name = if info.name.is_empty() { "WebGPU".to_owned() } else { info.name };
        Self { name, api: info.backend.to_string(), kind, driver, tiers: Tier::available(adapter) }
    }

    /// Whether a CPU stands behind it.
    pub fn is_software(&self) -> bool {
        self.kind == "software"
    }
}

/// The GPU of a backend and what belongs to it.
pub(crate) struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) caps: Caps,
    pub(crate) faults: Arc<Faults>,
    pub(crate) memory: Memory,
    pub(crate) pipelines: Pipelines,
    /// Whether corpora are converted here.
    #[cfg_attr(not(feature = "store"), allow(dead_code, reason = "the host converts then"))]
    pub(crate) converts: bool,
    /// Where the device tells time and was asked to.
    pub(crate) clock: Option<Clock>,
}

/// Time that the device spent on finished submissions.
pub(crate) struct Clock {
    /// Nanoseconds per tick.
    period: f32,
    total: Mutex<Duration>,
}

impl Clock {
    /// Adds a pass from its two timestamps.
    pub(crate) fn add(&self, begin: u64, end: u64) {
        let nanoseconds = end.saturating_sub(begin) as f64 * f64::from(self.period);
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) +=
            Duration::from_nanos(nanoseconds as u64);
    }

    /// Time since the last call.
    pub(crate) fn take(&self) -> Duration {
        std::mem::take(&mut *self.total.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

/// The adapters of this machine, in the order of their numbers. Empty where `MAXSIM_DISABLE_GPU` is set.
pub async fn adapters() -> Vec<AdapterFacts> {
    if disabled() {
        return Vec::new();
    }
    found(&instance()).await.iter().map(AdapterFacts::of).collect()
}

/// Adapters, real ones before software.
#[cfg(not(target_arch = "wasm32"))]
async fn found(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut adapters = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

/// The adapter that the browser gives.
#[cfg(target_arch = "wasm32")]
async fn found(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..Default::default()
    };
    instance.request_adapter(&options).await.into_iter().collect()
}

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn disabled() -> bool {
    setting("MAXSIM_DISABLE_GPU").is_some_and(|value| value != "0")
}

fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Unsupported { what: what.into(), hint: hint.into() }
}

/// The adapter that options and environment name.
async fn choose(options: &WgpuOptions) -> Result<wgpu::Adapter> {
    if disabled() {
        return Err(unsupported("a GPU", "MAXSIM_DISABLE_GPU is set"));
    }
    let mut adapters = found(&instance()).await;
    let wanted = options.adapter.clone().or_else(|| setting("MAXSIM_WGPU_ADAPTER"));
    let at = match &wanted {
        _ if cfg!(target_arch = "wasm32") => Some(0),
        None => Some(0),
        Some(wanted) => match wanted.parse::<usize>() {
            Ok(number) => Some(number),
            Err(_) => {
                let wanted = wanted.to_lowercase();
                adapters.iter().position(|adapter| adapter.get_info().name.to_lowercase().contains(&wanted))
            }
        },
    };
    match at.filter(|&at| at < adapters.len()) {
        Some(at) => Ok(adapters.swap_remove(at)),
        None => Err(match wanted {
            Some(wanted) if !adapters.is_empty() => {
                let names: Vec<String> = adapters.iter().map(|a| a.get_info().name).collect();
                Error::value("adapter", ["part of one of ", &names.join(", ")].concat(), wanted)
            }
            _ => unsupported("a GPU", "this machine offers no WebGPU, Vulkan, Metal or DX12 adapter"),
        }),
    }
}

impl Gpu {
    /// Opens the device that options and environment ask for.
    pub(crate) async fn open(options: &WgpuOptions) -> Result<(Self, AdapterFacts)> {
        let adapter = choose(options).await?;
        let facts = AdapterFacts::of(&adapter);
        let tier = match (options.tier, setting("MAXSIM_WGPU_TIER")) {
            (Some(tier), _) => tier,
            (None, Some(name)) => {
                name.parse().map_err(|e: Error| e.map_argument(|_| "MAXSIM_WGPU_TIER".into()))?
            }
            (None, None) => facts.tiers[0],
        };
        if !facts.tiers.contains(&tier) {
            let names: Vec<&str> = facts.tiers.iter().map(|tier| tier.name()).collect();
            let what = ["tier ", tier.name(), " on ", &facts.name].concat();
            return Err(unsupported(what, ["this adapter runs ", &names.join(", ")].concat()));
        }
        let timing = match options.timing {
            true => adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
            false => wgpu::Features::empty(),
        };
        let experimental_features = if tier >= Tier::Coop {
            // SAFETY: cooperative matrices are used by kernels of `maxsim-shaders` alone, which naga validates.
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        let limits = adapter.limits();
        let (device, queue) = adapter
            .request_device(&wgpu::DeviceDescriptor {
                label: Some("maxsim"),
                required_features: tier.features() | timing,
                required_limits: limits.clone(),
                experimental_features,
                ..Default::default()
            })
            .await
            .map_err(|error| unsupported(["device ", &facts.name].concat(), error.to_string()))?;
        let binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let caps = Caps {
            tier,
            coop: if tier >= Tier::Coop { tier::coop(&adapter) } else { None },
            max_binding: options.max_binding.unwrap_or(u64::MAX).min(binding),
            max_workgroups: options
                .max_workgroups
                .unwrap_or(u32::MAX)
                .min(limits.max_compute_workgroups_per_dimension),
            // A fraction of a second each.
            max_work: match facts.kind {
                "software" => 1 << 26,
                "discrete" => 1 << 37,
                _ => 1 << 34,
            },
        };
        let faults = Faults::of(&device);
        let memory = Memory::new(options.memory_budget);
        let pipelines = Pipelines::default();
        let clock = (!timing.is_empty())
            .then(|| Clock { period: queue.get_timestamp_period(), total: Mutex::default() });
        let converts = options.convert.unwrap_or(!facts.is_software());
        Ok((Self { device, queue, caps, faults, memory, pipelines, converts, clock }, facts))
    }
}
