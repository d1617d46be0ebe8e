//! Every variant, through naga: parsed, validated, and written for Vulkan, Metal and DX12.

use std::collections::HashSet;

use maxsim_shaders::{Requires, Variant, all};
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Fails with the place in the file.
fn fail(variant: &Variant, what: &str, text: &str, line: Option<u32>) -> ! {
    let place = line.and_then(|line| variant.locate(line as usize));
    panic!("{}: {what} at {place:?}: {text}", variant.label());
}

fn validated(variant: &Variant) -> (naga::Module, naga::valid::ModuleInfo) {
    let source = variant.source(false);
    let module = naga::front::wgsl::parse_str(&source).unwrap_or_else(|error| {
        let line = error.location(&source).map(|place| place.line_number);
        fail(variant, "parser", &error.emit_to_string(&source), line)
    });
    let needs = match variant.requires {
        Requires::Portable => Capabilities::empty(),
        Requires::F16 => Capabilities::SHADER_FLOAT16,
        Requires::Subgroups => Capabilities::SUBGROUP,
        Requires::CooperativeMatrix => {
            Capabilities::SHADER_FLOAT16 | Capabilities::SUBGROUP | Capabilities::COOPERATIVE_MATRIX
        }
    };
    // What WebGPU itself always has.
    let needs = needs | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let info = Validator::new(ValidationFlags::all(), needs).validate(&module).unwrap_or_else(|error| {
        let line = error.location(&source).map(|place| place.line_number);
        fail(variant, "validation", &error.emit_to_string(&source), line)
    });
    (module, info)
}

#[test]
fn variants_are_distinct() {
    let all = all();
    let labels: HashSet<String> = all.iter().map(Variant::label).collect();
    assert_eq!(labels.len(), all.len());
}

#[test]
fn every_variant_is_valid_everywhere() {
    for variant in all() {
        let (module, info) = validated(&variant);
        let point = &module.entry_points[0];
        assert_eq!((module.entry_points.len(), point.name.as_str()), (1, "main"), "{}", variant.label());
        let size: u32 = point.workgroup_size.iter().product();
        assert!(size <= 256 || variant.requires == Requires::CooperativeMatrix, "{}", variant.label());

        let layouter = module.to_ctx();
        let workgroup: u32 = (module.global_variables.iter())
            .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup)
            .map(|(_, v)| module.types[v.ty].inner.size(layouter))
            .sum();
        let limit = if variant.requires == Requires::CooperativeMatrix { 48 << 10 } else { 16 << 10 };
        assert!(workgroup <= limit, "{}: {workgroup} bytes of workgroup memory", variant.label());

        let storage = (module.global_variables.iter())
            .filter(|(_, v)| matches!(v.space, naga::AddressSpace::Storage { .. }))
            .count();
        assert_eq!(storage, variant.kernel.bindings.len(), "{}", variant.label());
        assert!(storage <= 8, "{}: {storage} storage buffers", variant.label());

        use naga::back::{hlsl, msl, spv};
        spv::write_vec(&module, &info, &spv::Options { lang_version: (1, 3), ..Default::default() }, None)
            .unwrap_or_else(|error| fail(&variant, "SPIR-V", &error.to_string(), None));
        let options =
            msl::Options { lang_version: (2, 3), fake_missing_bindings: true, ..Default::default() };
        msl::write_string(&module, &info, &options, &Default::default())
            .unwrap_or_else(|error| fail(&variant, "MSL", &error.to_string(), None));
        // naga has no HLSL for cooperative matrices.
        if variant.requires != Requires::CooperativeMatrix {
            let options = hlsl::Options { fake_missing_bindings: true, ..Default::default() };
            let pipeline = hlsl::PipelineOptions::default();
            let mut text = String::new();
            hlsl::Writer::new(&mut text, &options, &pipeline)
                .write(&module, &info, None)
                .unwrap_or_else(|error| fail(&variant, "HLSL", &error.to_string(), None));
        }
    }
}

#[test]
fn lines_are_found_again() {
    // Also those that `#for` makes several of.
    for (kernel, assembled, written) in [
        ("forward", "fn key_of", "fn key_of"),
        ("forward_residual", "sums2_3 = fma(vec4<f32>(a2_3.y)", "sums@g_@r = fma(vec4<f32>(a@g_@r.y)"),
    ] {
        let variant = all().into_iter().find(|variant| variant.kernel.name == kernel).unwrap();
        let source = variant.source(false);
        let number = source.lines().position(|line| line.contains(assembled)).unwrap() + 1;
        let (file, line) = variant.locate(number).unwrap();
        let path = format!("{}/wgsl/{file}.wgsl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.lines().nth(line - 1).unwrap().contains(written), "{file}:{line}");
    }
}
