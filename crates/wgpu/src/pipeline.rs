//! Compiled variants.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use maxsim_core::Result;
use maxsim_shaders::{Access, Kernel, Variant};

use crate::device::Gpu;

/// A compiled variant with the layout of its bindings. Clones share both.
#[derive(Clone)]
pub(crate) struct Pipeline {
    pub(crate) raw: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
}

/// What was compiled so far: a few dozen at most, so lists do.
#[derive(Default)]
pub(crate) struct Pipelines {
    compiled: Mutex<Vec<(Variant, Pipeline)>>,
    layouts: Mutex<Vec<(&'static Kernel, wgpu::BindGroupLayout)>>,
    count: AtomicUsize,
}

impl Pipelines {
    /// Compilations so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Gpu {
    /// The pipeline of `variant`, compiled if it was not yet.
    pub(crate) fn pipeline(&self, variant: &Variant) -> Result<Pipeline> {
        let mut compiled = self.pipelines.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pipeline)) = compiled.iter().find(|(known, _)| known == variant) {
            return Ok(pipeline.clone());
        }
        let layout = self.layout(variant.kernel);
        let label = variant.label();
        tracing::debug!("compiling {label}");
        let raw = self.caught(0, &label, || self.compile(variant, &layout))?;
        self.pipelines.count.fetch_add(1, Ordering::Relaxed);
        let pipeline = Pipeline { raw, layout };
        compiled.push((variant.clone(), pipeline.clone()));
        Ok(pipeline)
    }

    fn compile(&self, variant: &Variant, layout: &wgpu::BindGroupLayout) -> wgpu::ComputePipeline {
        let source = variant.source(cfg!(target_arch = "wasm32"));
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(variant.kernel.name),
            source: wgpu::ShaderSource::Wgsl(Cow::Owned(source)),
        };
        // SAFETY: our own kernels check every index they read from buffers that callers fill, their loops end, and tests run
        // all of them with the checks on.
        let module = unsafe { self.device.create_shader_module_trusted(descriptor, runtime_checks()) };
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(variant.kernel.name),
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Kernels write workgroup memory before they read it.
                zero_initialize_workgroup_memory: cfg!(target_arch = "wasm32"),
                ..Default::default()
            },
            cache: None,
        })
    }

    fn layout(&self, kernel: &'static Kernel) -> wgpu::BindGroupLayout {
        let mut layouts = self.pipelines.layouts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, layout)) = layouts.iter().find(|(known, _)| std::ptr::eq(*known, kernel)) {
            return layout.clone();
        }
        let entry = |binding: u32, ty, has_dynamic_offset| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform, true)];
        for (access, binding) in kernel.bindings.iter().zip(1..) {
            let ty = wgpu::BufferBindingType::Storage { read_only: *access == Access::Read };
            entries.push(entry(binding, ty, false));
        }
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries };
        let layout = self.device.create_bind_group_layout(&descriptor);
        layouts.push((kernel, layout.clone()));
        layout
    }
}

/// `MAXSIM_WGPU_CHECKS=1` keeps the bounds checks that native compilers would inject; browsers always do.
fn runtime_checks() -> wgpu::ShaderRuntimeChecks {
    if std::env::var_os("MAXSIM_WGPU_CHECKS").is_some_and(|value| value != "0") {
        wgpu::ShaderRuntimeChecks::checked()
    } else {
        wgpu::ShaderRuntimeChecks::unchecked()
    }
}
