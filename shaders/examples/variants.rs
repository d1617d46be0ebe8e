//! Prints every variant that browsers compile as JSON: `[{ label, requires, source }]`.

use maxsim_shaders::{Requires, all};
use serde_json::json;

fn main() {
    let variants: Vec<_> = all()
        .iter()
        .filter(|variant| variant.requires != Requires::CooperativeMatrix)
        .map(|variant| {
            let requires = match variant.requires {
                Requires::F16 => vec!["shader-f16"],
                Requires::Subgroups => vec!["subgroups"],
                _ => vec![],
            };
            json!({ "label": variant.label(), "requires": requires, "source": variant.source(true) })
        })
        .collect();
    println!("{}", json!(variants));
}
