//! Every variant that the crate can ask for is expanded, parsed and validated, and its bindings and parameters are those of the host.

use std::collections::BTreeSet;

use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, ScalarKind, StorageAccess, TypeInner};

use super::{ALL, Kernel, REDUCE_INPUTS, REDUCE_OUTPUTS};
use crate::operand::Element;
use crate::preprocess::{Bindings, MAX_BINDINGS, MAX_OPERANDS, expand};
use crate::queue::MAX_PARAMS;
use crate::shaders::FILES;

type Defines = Vec<(&'static str, u32)>;

/// The definitions that the operations can make, without `WIDE`'s dependence on the operands.
fn defines(kernel: &Kernel) -> Vec<Defines> {
    let mut all = vec![Defines::new()];
    for flag in kernel.flags {
        all =
            all.iter().flat_map(|d| [0, 1].map(|value| [d.clone(), vec![(*flag, value)]].concat())).collect();
    }
    for (name, values) in kernel.constants {
        all =
            all.iter().flat_map(|d| values.iter().map(|v| [d.clone(), vec![(*name, *v)]].concat())).collect();
    }
    let value = |d: &Defines, name| d.iter().find(|(n, _)| *n == name).is_some_and(|(_, v)| *v == 1);
    match kernel.path {
        "reduce/reduce.wgsl" => {
            let sizes = [(1, 1), (2, 1), (2, 2), (3, 3), (7, 1), (8, 8)];
            let with = |d: &Defines, (inputs, outputs): (usize, usize)| {
                let names = REDUCE_INPUTS[..inputs].iter().chain(&REDUCE_OUTPUTS[..outputs]);
                [d.clone(), names.map(|name| (*name, 1)).collect()].concat()
            };
            all = all.iter().flat_map(|d| sizes.map(|size| with(d, size))).collect();
        }
        "matmul/subgroup.wgsl" => {
            for d in &mut all {
                let lanes = d.iter().find(|(name, _)| *name == "LANES").map_or(8, |(_, lanes)| *lanes);
                let spread = lanes.min(8);
                d.extend([("READS", 32 / lanes), ("SPREAD", spread), ("QUADS", 8 / spread)]);
            }
        }
        _ => {}
    }
    // The activation comes after a bias, and neither with beta or a transposed a.
    all.retain(|d| !value(d, "GELU") || value(d, "BIAS"));
    // Vectors of a product's operands have whole fours of k.
    if kernel.flags.contains(&"K4") {
        all.retain(|d| !value(d, "WIDE") || value(d, "K4"));
    }
    all
}

/// The operand lines that are kept: name, whether written.
fn operands(kernel: &Kernel, defines: &Defines) -> Vec<(String, bool)> {
    // With everything in one binding of its own the declarations show; more than eight are fine here, since nothing is compiled.
    let of = std::array::from_fn(|i| i as u8);
    let declared = |operands: usize, written: u16| {
        let elements = [Element::Word; MAX_OPERANDS];
        expand(FILES, kernel.path, defines, &Bindings { of, elements, operands: operands as u8, written })
    };
    for count in 0..=MAX_OPERANDS {
        if let Ok(text) = declared(count, u16::MAX) {
            let names = text.lines().filter_map(|line| {
                line.split_once("var<storage, read_write> buffer_")?.1.split_once(": array<")
            });
            // What is written cannot be given to be read.
            let written = |i: usize| declared(count, !(1 << i)).is_err();
            return names.enumerate().map(|(i, (name, _))| (name.to_owned(), written(i))).collect();
        }
    }
    panic!("{}: no number of operands fits", kernel.path);
}

/// Ways in which operands may share buffers: none, all, each pair, and for the reductions each output with its input.
fn sharings(operands: &[(String, bool)]) -> BTreeSet<Vec<u8>> {
    let n = operands.len();
    let apart: Vec<u8> = (0..n as u8).collect();
    let mut all = BTreeSet::from([vec![0; n]]);
    if n <= MAX_BINDINGS {
        all.insert(apart.clone());
    }
    for i in 0..n {
        for j in 0..i {
            let mut pair = apart.clone();
            pair[i] = pair[j];
            for later in &mut pair[i + 1..] {
                *later -= 1;
            }
            // Two that are only read keep bindings of their own.
            if (operands[i].1 || operands[j].1) && n <= MAX_BINDINGS + 1 {
                all.insert(pair);
            }
        }
    }
    let (inputs, outputs) =
        operands.split_at(operands.iter().filter(|(name, _)| name.starts_with("in")).count());
    if inputs.len() == outputs.len() {
        all.insert((0..n).map(|i| (i % inputs.len()) as u8).collect());
    }
    all
}

#[test]
fn every_variant_is_valid_and_laid_out_as_the_host_has_it() {
    let variants = each_variant(check);
    println!("{variants} variants of {} kernels", ALL.len());
    assert!(variants > 500);
}

/// A variant as the host asks for it, expanded.
pub(crate) struct Expanded<'a> {
    /// What it is, for messages.
    pub what: String,
    kernel: &'static Kernel,
    operands: &'a [(String, bool)],
    pub bindings: Bindings,
    pub source: String,
}

/// Calls with every variant; returns how many there are.
pub(crate) fn each_variant(mut call: impl FnMut(Expanded<'_>)) -> usize {
    let mut variants = 0;
    for kernel in ALL {
        for defines in defines(kernel) {
            let operands = operands(kernel, &defines);
            for of in sharings(&operands) {
                for elements in ELEMENTS {
                    if let Some(variant) = expanded(kernel, &defines, &operands, &of, elements) {
                        variants += 1;
                        call(variant);
                    }
                }
            }
        }
    }
    variants
}

/// What operands hold, one after the other and again from the first: all alike, and mixed.
const ELEMENTS: [&[Element]; 4] =
    [&[Element::Word], &[Element::Bf16], &[Element::F16], &[Element::Bf16, Element::Bf16, Element::Word]];

/// Expands a variant; `None` if its operands cannot share buffers like that, which `launch` never asks for.
fn expanded<'a>(
    kernel: &'static Kernel,
    defines: &Defines,
    operands: &'a [(String, bool)],
    of: &[u8],
    elements: &[Element],
) -> Option<Expanded<'a>> {
    let what = format!("{} {defines:?} {of:?} {elements:?}", kernel.path);
    let elements = std::array::from_fn(|i| elements[i % elements.len()]);
    let mut bindings = Bindings { of: [0; MAX_OPERANDS], elements, operands: of.len() as u8, written: 0 };
    bindings.of[..of.len()].copy_from_slice(of);
    for (binding, (_, written)) in of.iter().zip(operands) {
        bindings.written |= u16::from(*written) << binding;
    }
    match expand(FILES, kernel.path, defines, &bindings) {
        Ok(source) => Some(Expanded { what, kernel, operands, bindings, source }),
        Err(error) if error.contains("share a buffer, but are") => None,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Validates a variant, and holds it against what the host lays out.
fn check(variant: Expanded<'_>) {
    let Expanded { what, kernel, operands, bindings, source } = variant;
    let module = naga::front::wgsl::parse_str(&source)
        .unwrap_or_else(|error| panic!("{what}: {}\n{source}", error.emit_to_string(&source)));
    // No capability beyond WebGPU's own, but for the kernel that is for subgroups.
    let subgroups = kernel.path.contains("/subgroup");
    let mut capabilities = if subgroups { Capabilities::SUBGROUP } else { Capabilities::empty() };
    if kernel.path == "matmul/cooperative.wgsl" {
        capabilities |= Capabilities::COOPERATIVE_MATRIX;
    }
    if source.contains("f16;") {
        capabilities |= Capabilities::SHADER_FLOAT16;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(&source)));
    assert_eq!(module.entry_points.len(), 1, "{what}");
    let entry = &module.entry_points[0];
    assert!(entry.name == "main" && entry.workgroup_size.iter().product::<u32>() <= 256, "{what}");

    let mut storage = vec![None; bindings.count()];
    let (mut workgroup, mut uniforms) = (0, 0);
    for (handle, variable) in module.global_variables.iter() {
        let ty = &module.types[variable.ty].inner;
        match variable.space {
            AddressSpace::Storage { access } => {
                let place = variable.binding.expect("a binding");
                assert_eq!(place.group, 0, "{what}");
                storage[place.binding as usize] = Some(access.contains(StorageAccess::STORE));
                assert!(
                    !info.get_entry_point(0)[handle].is_empty(),
                    "{what}: {:?} is not used",
                    variable.name
                );
            }
            AddressSpace::Uniform => {
                let place = variable.binding.expect("a binding");
                assert_eq!((place.group, place.binding), (1, 0), "{what}");
                check_params(kernel, operands, &module, ty, &what);
                uniforms += 1;
            }
            AddressSpace::WorkGroup => workgroup += ty.size(module.to_ctx()),
            space => panic!("{what}: {space:?}"),
        }
    }
    assert_eq!(uniforms, 1, "{what}");
    assert!(workgroup <= 16 << 10, "{what}: {workgroup} bytes of workgroup memory");
    for (binding, declared) in storage.iter().enumerate() {
        assert_eq!(*declared, Some(bindings.written >> binding & 1 == 1), "{what}: binding {binding}");
    }
}

fn check_params(
    kernel: &Kernel,
    operands: &[(String, bool)],
    module: &naga::Module,
    ty: &TypeInner,
    what: &str,
) {
    let TypeInner::Struct { members, span } = ty else { panic!("{what}: the parameters are no struct") };
    let expected = operands
        .iter()
        .map(|(name, _)| (format!("{name}_at"), "u32"))
        .chain(kernel.fields.iter().map(|(name, ty, _)| ((*name).to_owned(), *ty)));
    let found: Vec<_> = members
        .iter()
        .map(|member| {
            let TypeInner::Scalar(scalar) = module.types[member.ty].inner else { panic!("{what}") };
            let ty = match (scalar.kind, scalar.width) {
                (ScalarKind::Uint, 4) => "u32",
                (ScalarKind::Float, 4) => "f32",
                other => panic!("{what}: {other:?}"),
            };
            (member.name.clone().unwrap_or_default(), ty)
        })
        .collect();
    assert_eq!(found, expected.collect::<Vec<_>>(), "{what}");
    for (i, member) in members.iter().enumerate() {
        assert_eq!(member.offset as usize, 4 * i, "{what}");
    }
    for (i, (name, _, offset)) in kernel.fields.iter().enumerate() {
        assert_eq!(*offset, 4 * i, "{what}: {name}");
    }
    assert!(*span as usize <= MAX_PARAMS, "{what}: {span} bytes of parameters");
}
