//! Kernels and their variants.

use crate::kernels::NAMES;
use crate::preprocess::{Defines, assemble, push_number};

/// How a kernel uses a storage binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and written.
    Write,
}

/// What a variant needs beyond WebGPU's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Requires {
    /// Nothing.
    Portable,
    /// `shader-f16`.
    F16,
    /// Subgroup operations.
    Subgroups,
    /// Cooperative matrices, which no browser has.
    CooperativeMatrix,
}

/// A kernel: the file `wgsl/NAME.wgsl` with the entry point `main`.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Stem of the file.
    pub name: &'static str,
    /// Storage bindings 1, 2, … of group 0. Binding 0 is a uniform buffer of parameters with a dynamic offset.
    pub bindings: &'static [Access],
}

/// A kernel with values for its constants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// The kernel.
    pub kernel: &'static Kernel,
    /// Constants, in the order in which they make up the label.
    pub defines: Defines,
    /// What the device must offer.
    pub requires: Requires,
}

impl Variant {
    /// A variant that every device runs.
    pub fn portable(kernel: &'static Kernel, defines: &[(&'static str, u32)]) -> Self {
        Self { kernel, defines: defines.to_vec(), requires: Requires::Portable }
    }

    /// `NAME` with the constants that are not 0, e.g. `forward:ELEMENT=1,BM=32`. Different variants have different labels.
    pub fn label(&self) -> String {
        let mut label = String::from(self.kernel.name);
        let mut separator = ':';
        for (name, value) in self.defines.iter().filter(|(_, value)| *value != 0) {
            label.push(separator);
            label.push_str(name);
            label.push('=');
            push_number(&mut label, *value);
            separator = ',';
        }
        label
    }

    /// The WGSL text. `browser` adds the `enable` lines that browsers want and naga refuses.
    pub fn source(&self, browser: bool) -> String {
        let mut text = String::new();
        assemble(self.kernel.name, self.header(browser), &self.defines, NAMES, &mut |line, _, _| {
            text.push_str(line);
            text.push('\n');
        });
        text
    }

    /// File and line of line `number` (from 1) of [`source`](Self::source); line 0 of a file stands for its constants.
    pub fn locate(&self, number: usize) -> Option<(&'static str, usize)> {
        let mut found = None;
        let mut at = 0;
        assemble(self.kernel.name, self.header(false), &self.defines, NAMES, &mut |_, file, line| {
            at += 1;
            if at == number {
                found = Some((file, line));
            }
        });
        found
    }

    fn header(&self, browser: bool) -> &'static str {
        match (self.requires, browser) {
            (Requires::Portable, _) | (Requires::Subgroups, false) => "",
            (Requires::F16, _) => "enable f16;",
            (Requires::Subgroups, true) => "enable subgroups;",
            (Requires::CooperativeMatrix, _) => "enable f16;enable wgpu_cooperative_matrix;",
        }
    }
}
