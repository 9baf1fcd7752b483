//! One digest a backend and precision: under `invariant` numerics every layout, schedule, recomputation, sequence parallelism, sharded optimizer and
//! interruption gives the same bits, dropout on. And the other way round: a small fault in one of them changes the digest.

mod faults;

use backend_wgpu::{Choice, WgpuBackend};
use conformance::or_skip;
use faults::{Fault, faulty};
use trainer::config::RunConfig;
use trainer::device::{Device, Gpu};
use trainer::launch::World;
use trainer::parity::{self, ParityReport, Variant, all, default_config, digest, parse};
use trainer::run::rank_config;

/// Ten steps, as the default configuration of `mtnlg parity` says.
const STEPS: u64 = 10;

fn config(set: &[&str]) -> RunConfig {
    let set: Vec<String> = set.iter().map(|&assignment| assignment.to_owned()).collect();
    default_config(&set).expect("the configuration that comes with the program")
}

fn equal(config: &RunConfig, device: &Device, variants: &[Variant]) {
    let report = parity::run(config, device, variants, STEPS, |_| {}).expect("every variant trains");
    let others =
        |report: &ParityReport| -> Vec<String> { report.others().map(ToString::to_string).collect() };
    assert!(report.equal, "{report}\n{}\n{}", report.layouts[0], others(&report).join("\n"));
    assert!(report.layouts[0].loss.is_finite() && report.kept());
    assert_eq!(report.layouts.len(), variants.len());
}

/// What the promise names is among the variants.
#[test]
fn all_is_all() {
    let variants = all(&config(&[]));
    let cubes = variants.iter().filter(|v| **v == Variant::plain(v.layout[0], v.layout[1], v.layout[2]));
    assert_eq!(cubes.count(), 23);
    for text in [
        "1x4x1+gpipe",
        "2x2x2+zb-h1",
        "2x2x2+interleaved+v2",
        "2x2x2+selective",
        "2x2x2+full",
        "4x1x1+sp",
        "1x1x4+zero1",
        "1x1x1<2x2x2",
    ] {
        assert!(variants.contains(&parse(text).unwrap()), "{text}");
    }
}

#[test]
fn one_digest_on_the_cpu() {
    let config = config(&[]);
    equal(&config, &Device::Cpu, &all(&config));
}

#[test]
fn one_digest_on_the_cpu_in_bf16() {
    let config = config(&["train.precision=bf16"]);
    equal(&config, &Device::Cpu, &all(&config));
}

/// A loss scale that overflows, is halved and is doubled again within the ten steps: skipped steps are the same ones everywhere.
#[test]
fn one_digest_on_the_cpu_in_f16() {
    let scale = ["loss_scale.initial=16777216.0", "loss_scale.window=3", "loss_scale.hysteresis=1"];
    let config = config(&[&["train.precision=f16"][..], &scale].concat());
    let variants =
        ["1x1x1", "2x2x2+sp+full", "1x4x1+zb-h1", "1x2x4+zero1", "4x2x2+interleaved+v2", "1x1x1<2x2x2"];
    let variants = variants.map(|text| parse(text).unwrap());
    equal(&config, &Device::Cpu, &variants);
}

/// On a software adapter an operation costs as much as it holds little: fewer microbatches and chunks, the same layouts.
fn on_wgpu(precision: &str) {
    let any = Choice::Any { name: None };
    if or_skip("wgpu", WgpuBackend::cluster(1, std::time::Duration::from_secs(60), &any)).is_some() {
        let config = config(&["numerics.chunks=4", "train.global_batch=4", precision]);
        equal(&config, &Device::Wgpu(Gpu::new(any)), &all(&config));
    }
}

#[test]
fn one_digest_on_wgpu() {
    on_wgpu("train.precision=f32");
}

#[test]
fn one_digest_on_wgpu_in_bf16() {
    on_wgpu("train.precision=bf16");
}

/// Fast numerics keep to their bound, and are not the same bits: the digest is not blind.
#[test]
fn fast_numerics_keep_to_their_bound() {
    let config = config(&["numerics.mode=fast"]);
    let variants = ["1x1x1", "2x2x2", "4x1x2+sp+zero1", "1x4x1+zb-h1", "2x2x2+interleaved+v2+full"];
    let variants = variants.map(|text| parse(text).unwrap());
    let report = parity::run(&config, &Device::Cpu, &variants, STEPS, |_| {}).unwrap();
    assert!(report.kept() && report.largest_difference > 0.0, "{report}");
    assert!(!report.equal);
}

/// Each fault is planted in one layout; the layout without it has the serial run's digest.
#[test]
fn a_fault_changes_the_digest() {
    let config = config(&[]);
    let variant = parse("2x2x2+sp").unwrap();
    let plain = parse("2x2x2").unwrap();
    let digest_of = |variant: &Variant, fault: Fault| {
        let config = rank_config(&variant.apply(&config).unwrap());
        let ranks = faulty(config.layout.world_size(), fault);
        let samples = parity::random_samples(1, config.model.vocab, config.seq_len);
        let samples = fault.samples(&samples, config.global_batch as u64);
        digest::of(&parity::train(World::Threads(ranks), &config, &samples, 3e-3, 0..3, None).unwrap().state)
    };
    let right = digest_of(&Variant::plain(1, 1, 1), Fault::None);
    for variant in [&plain, &variant] {
        assert_eq!(digest_of(variant, Fault::None), right, "{variant}");
    }
    for fault in Fault::ALL {
        assert_ne!(digest_of(&plain, fault), right, "{fault:?} leaves no trace");
    }
}
