//! Every variant of every kernel through the real NVRTC, which needs no GPU, for A100 and H100. `MTNLG_NVRTC` names the directory of `libnvrtc`, unless the
//! system's loader finds it; without it skipped, and with `MTNLG_REQUIRE=nvrtc` failed.
//!
//! With `MTNLG_KERNEL_TABLE` naming a file, what the kernels need is written there as the table of docs/kernels-cuda.md.

use std::collections::BTreeMap;
use std::fmt::Write;

use backend_cuda::{Report, Settings, report};
use conformance::or_skip;

/// The files in which no kernel may spill: their inner loops are what a step waits for.
const NO_SPILLS: [&str; 4] = ["attention", "flash", "layernorm", "matmul"];

fn reports(capability: (i32, i32)) -> Option<Vec<Report>> {
    let settings =
        Settings { libraries: std::env::var_os("MTNLG_NVRTC").map(Into::into), ..Settings::default() };
    or_skip("nvrtc", report(&settings, capability))
}

#[test]
fn nvrtc_compiles_every_variant() {
    let mut table: BTreeMap<(String, String), String> = BTreeMap::new();
    let mut spilling = Vec::new();
    for (capability, name) in [((8, 0), "sm_80"), ((9, 0), "sm_90")] {
        let Some(reports) = reports(capability) else { return };
        for Report { variant, kernels } in &reports {
            assert!(!kernels.is_empty(), "{variant}: the compiler told of no kernel");
            for kernel in kernels {
                assert!(kernel.registers > 0, "{variant}: {kernel:?}");
                let (registers, shared, spills) = (kernel.registers, kernel.shared, kernel.spills);
                let row = table.entry((variant.clone(), kernel.kernel.clone())).or_default();
                write!(row, " {registers} | {shared} | {spills} |").unwrap();
                if spills > 0 && NO_SPILLS.iter().any(|file| variant.starts_with(file)) {
                    spilling.push(format!("{} of {variant} for {name}: {spills} bytes", kernel.kernel));
                }
            }
        }
    }
    if let Some(path) = std::env::var_os("MTNLG_KERNEL_TABLE") {
        let head = "| variant | kernel | registers, sm_80 | shared | spills | registers, sm_90 | shared | spills |\n|---|---|---|---|---|---|---|---|\n";
        let rows = table.iter().map(|((variant, kernel), row)| format!("| {variant} | `{kernel}` |{row}\n"));
        std::fs::write(path, head.to_owned() + &rows.collect::<String>()).unwrap();
    }
    assert!(spilling.is_empty(), "kernels that spill registers:\n{}", spilling.join("\n"));
}
