//! Broken kernels: one text of one shader changed at a time, on lavapipe or whatever adapter there is, and the suite must find each. The same cases pass on the
//! kernels as they are.
//!
//! The kernels are those that a GPU gets, with many lanes to a workgroup: on lavapipe eight lanes run in step, and what a barrier is for shows only beyond them.

// In a module so that the tests' names hold the backend's: `--skip wgpu`.
mod wgpu {
    use std::collections::BTreeMap;
    use std::sync::OnceLock;
    use std::time::Duration;

    use backend_wgpu::{Choice, Patch, Trial, WgpuBackend};
    use conformance::ops::*;
    use conformance::{Case, or_skip};

    fn open(trial: Trial) -> backend::Result<WgpuBackend> {
        WgpuBackend::on_trial(
            &Choice::Any { name: None },
            Duration::from_secs(120),
            &Trial { as_hardware: true, ..trial },
        )
    }

    /// The cases whose id has all of these texts, and how many of them fail: `(cases, failed)`.
    fn failing<C: Case>(backend: &WgpuBackend, cases: Vec<C>, texts: &[&str]) -> (usize, usize) {
        let chosen: Vec<C> =
            cases.into_iter().filter(|case| texts.iter().all(|text| case.id().contains(text))).collect();
        let failed = chosen.iter().filter(|case| case.run(backend).is_err()).count();
        (chosen.len(), failed)
    }

    /// A fault, and the cases that are to find it.
    struct Mutant {
        file: &'static str,
        from: &'static str,
        to: &'static str,
        /// Runs the cases that touch it.
        find: fn(&WgpuBackend) -> (usize, usize),
    }

    fn mutants() -> BTreeMap<&'static str, Mutant> {
        let mutant = |file, from, to, find| Mutant { file, from, to, find };
        BTreeMap::from([
            (
                "a dropped barrier in a reduction",
                mutant("lib/reduce.wgsl", "    workgroupBarrier();\n    for (", "    for (", |backend| {
                    failing(backend, layernorm::cases(), &["rows=normal", "dt=f32"])
                }),
            ),
            (
                "a slot written before everybody has read it",
                mutant(
                    "lib/reduce.wgsl",
                    "    let total = tree[0];\n    // Nobody writes the slots again before everybody has read.\n    workgroupBarrier();\n",
                    "    let total = tree[0];\n",
                    |backend| failing(backend, layernorm::cases(), &["rows=normal", "dt=f32"]),
                ),
            ),
            (
                "a stale read of what is staged",
                mutant(
                    "matmul/tiled.wgsl",
                    "        workgroupBarrier();\n        for (var i = 0u; i < DEPTH; i++) {",
                    "        for (var i = 0u; i < DEPTH; i++) {",
                    |backend| failing(backend, matmul::cases(), &["place=aligned", "dt=f32"]),
                ),
            ),
            (
                "a wrong transpose",
                mutant(
                    "matmul/tiled.wgsl",
                    "b_start + (column + bc) * p.k + first + bk",
                    "b_start + (first + bk) * p.n + column + bc",
                    |backend| failing(backend, matmul::cases(), &["tb=1", "m=63", "dt=f32"]),
                ),
            ),
            (
                "sums in f16",
                mutant(
                    "matmul/tiled.wgsl",
                    "acc[r * TILE_SIZE + j] = fma(left[r], right[j], acc[r * TILE_SIZE + j]);",
                    "acc[r * TILE_SIZE + j] = unpack2x16float(pack2x16float(vec2<f32>(fma(left[r], right[j], acc[r * TILE_SIZE + j]), 0.0))).x;",
                    |backend| failing(backend, matmul::cases(), &["m=63", "dt=f32"]),
                ),
            ),
            (
                "an ignored upstream gradient",
                mutant("gelu/backward.wgsl", " * load4_dy(at, left)", "", |backend| {
                    failing(backend, gelu::backward_cases(), &["dt=f32"])
                }),
            ),
            (
                "an unclamped tanh",
                mutant(
                    "lib/gelu.wgsl",
                    "return 1.0 / (1.0 + exp(clamp(-twice, vec4<f32>(-80.0), vec4<f32>(80.0))));",
                    "let e = exp(twice);\n    return 0.5 * (1.0 + (e - 1.0) / (e + 1.0));",
                    |backend| failing(backend, gelu::cases(), &["dt=f32"]),
                ),
            ),
            (
                "a missing accumulate",
                mutant("layernorm/backward.wgsl", "load4_dx(start + i, left) + d", "d", |backend| {
                    failing(backend, layernorm::backward_cases(), &["dx=accumulate", "dt=f32"])
                }),
            ),
            (
                "a forgotten epsilon",
                mutant("layernorm/forward.wgsl", " + p.eps)", ")", |backend| {
                    failing(backend, layernorm::cases(), &["rows=constant", "dt=f32"])
                }),
            ),
            (
                "a counter of 32 bits in Philox",
                mutant("lib/philox.wgsl", "(i.x >> 2u) | (i.y << 30u)", "(i.x >> 2u)", |backend| {
                    failing(backend, dropout::cases(), &["dt=f32"])
                }),
            ),
            (
                "nine rounds of Philox",
                mutant("lib/philox.wgsl", "round < 10", "round < 9", |backend| {
                    failing(backend, dropout::cases(), &["dt=f32"])
                }),
            ),
            (
                "a softmax that does not subtract the maximum",
                mutant(
                    "cross_entropy/sums.wgsl",
                    "load4_logits(row * p.v + column, left) - row_max",
                    "load4_logits(row * p.v + column, left)",
                    |backend| failing(backend, cross_entropy::cases(), &["dt=f32"]),
                ),
            ),
            (
                "columns past the last one counted",
                mutant(
                    "cross_entropy/sums.wgsl",
                    "present(exp(load4_logits(row * p.v + column, left) - row_max), left, 0.0)",
                    "exp(load4_logits(row * p.v + column, left) - row_max)",
                    |backend| failing(backend, cross_entropy::cases(), &["dt=f32"]),
                ),
            ),
            (
                "a reduction short of a rank",
                mutant(
                    "reduce/reduce.wgsl",
                    "second = combine(second, load4_in3(at, left));",
                    "",
                    |backend| failing(backend, reduce::cases(), &["dt=f32"]),
                ),
            ),
            (
                "an optimizer without decay",
                mutant("adamw/adamw.wgsl", " + p.weight_decay * w", "", |backend| {
                    failing(backend, adamw::cases(), &[])
                }),
            ),
            (
                "an overwritten table",
                mutant(
                    "embedding/backward.wgsl",
                    "var sum = load4_dtable(row * p.h + column, left);",
                    "var sum = vec4<f32>(0.0);",
                    |backend| failing(backend, embedding::backward_cases(), &["dt=f32"]),
                ),
            ),
            (
                "a mask that is off by one",
                mutant("attention/forward.wgsl", "<= vec4<u32>(q[{I}])", "< vec4<u32>(q[{I}])", |backend| {
                    failing(backend, attention::cases(), &["s=33", "dt=f32"])
                }),
            ),
            (
                "a mask that is off by one in the backward",
                mutant("attention/backward_key.wgsl", "(k + {I}u) <= q)", "(k + {I}u) < q)", |backend| {
                    failing(backend, attention::backward_cases(), &["s=33", "dt=f32"])
                }),
            ),
        ])
    }

    fn as_they_are() -> Option<&'static WgpuBackend> {
        static BACKEND: OnceLock<backend::Result<WgpuBackend>> = OnceLock::new();
        or_skip("wgpu", BACKEND.get_or_init(|| open(Trial::default())).as_ref().map_err(Clone::clone))
    }

    #[test]
    fn each_mutant_is_found() {
        let Some(sound) = as_they_are() else { return };
        let mut survived = Vec::new();
        for (name, Mutant { file, from, to, find }) in mutants() {
            let (cases, failed) = find(sound);
            assert!(cases > 0 && failed == 0, "{name}: {failed} of {cases} cases fail without it");
            let broken = open(Trial { patches: vec![Patch { file, from, to }], ..Trial::default() })
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let (_, failed) = find(&broken);
            println!("{name}: found by {failed} of {cases} cases");
            if failed == 0 {
                survived.push(name);
            }
        }
        assert!(survived.is_empty(), "not found: {survived:?}");
    }

    #[test]
    fn a_patch_of_nothing_is_refused() {
        if as_they_are().is_none() {
            return;
        }
        let patch = Patch { file: "lib/philox.wgsl", from: "round < 11", to: "" };
        let error =
            open(Trial { patches: vec![patch], ..Trial::default() }).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("round < 11")));
    }
}
