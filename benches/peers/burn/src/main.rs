//! burn's wgpu backend on the same machine: a product of two matrices of 1024 x 1024, and the training step of the preset `laptop`.
//!
//!     cargo run --release -- matmul | step [SECONDS]
//!
//! Rates by the clock, and for each two seconds of processor time that the process took, as `cargo bench -p backend-wgpu --bench matmul` counts.
//! The step is that of `mtnlg bench step`: 4 layers, hidden 128, 4 heads, sequence 256, vocabulary 4096, batch 8, fp32, AdamW.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Embedding, EmbeddingConfig, Gelu, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::softmax;
use burn::tensor::{Device, Distribution, Int, Tensor};

const LAYERS: usize = 4;
const HIDDEN: usize = 128;
const HEADS: usize = 4;
const SEQ: usize = 256;
const VOCAB: usize = 4096;
const BATCH: usize = 8;

#[derive(Module, Debug)]
struct Layer {
    ln1: LayerNorm,
    qkv: Linear,
    out: Linear,
    ln2: LayerNorm,
    up: Linear,
    down: Linear,
}

#[derive(Module, Debug)]
struct Gpt {
    token: Embedding,
    position: Embedding,
    layers: Vec<Layer>,
    last: LayerNorm,
}

impl Gpt {
    fn new(device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let norm = || LayerNormConfig::new(HIDDEN).init(device);
        let layer = |_| Layer {
            ln1: norm(),
            qkv: linear(HIDDEN, 3 * HIDDEN),
            out: linear(HIDDEN, HIDDEN),
            ln2: norm(),
            up: linear(HIDDEN, 4 * HIDDEN),
            down: linear(4 * HIDDEN, HIDDEN),
        };
        Self {
            token: EmbeddingConfig::new(VOCAB, HIDDEN).init(device),
            position: EmbeddingConfig::new(SEQ, HIDDEN).init(device),
            layers: (0..LAYERS).map(layer).collect(),
            last: norm(),
        }
    }

    fn loss(&self, tokens: Tensor<2, Int>, targets: Tensor<1, Int>, mask: Tensor<4>) -> Tensor<1> {
        let device = tokens.device();
        let places = Tensor::<1, Int>::arange(0..SEQ as i64, &device).reshape([1, SEQ]);
        let mut x = self.token.forward(tokens) + self.position.forward(places);
        let d = HIDDEN / HEADS;
        for layer in &self.layers {
            let qkv = layer.qkv.forward(layer.ln1.forward(x.clone()));
            let heads = |i: usize| {
                let part = qkv.clone().slice([0..BATCH, 0..SEQ, i * HIDDEN..(i + 1) * HIDDEN]);
                part.reshape([BATCH, SEQ, HEADS, d]).swap_dims(1, 2)
            };
            let scores = heads(0).matmul(heads(1).transpose()) * (1.0 / (d as f32).sqrt()) + mask.clone();
            let context = softmax(scores, 3).matmul(heads(2)).swap_dims(1, 2).reshape([BATCH, SEQ, HIDDEN]);
            x = x + layer.out.forward(context);
            x = x.clone() + layer.down.forward(Gelu::new().forward(layer.up.forward(layer.ln2.forward(x))));
        }
        let x = self.last.forward(x).reshape([BATCH * SEQ, HIDDEN]);
        let logits = x.matmul(self.token.weight.val().transpose());
        CrossEntropyLossConfig::new().init(&device).forward(logits, targets)
    }
}

/// Processor seconds of this process, where Linux tells them.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or(vec![], |(_, rest)| rest.split_whitespace().collect());
    [11, 12].iter().filter_map(|&i| fields.get(i)?.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Calls `work` for that long, and says how often a second it went by the clock, and for two seconds of processor time.
fn rate(seconds: f64, mut work: impl FnMut()) -> [f64; 2] {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut calls = 0.0;
    while start.elapsed() < Duration::from_secs_f64(seconds) {
        work();
        calls += 1.0;
    }
    [calls / start.elapsed().as_secs_f64(), 2.0 * calls / (cpu_seconds() - cpu)]
}

fn matmul(seconds: f64) {
    let device = Device::wgpu(Default::default());
    let random = || Tensor::<2>::random([1024, 1024], Distribution::Default, &device);
    let (a, b) = (random(), random());
    let work = || {
        let c = a.clone().matmul(b.clone());
        device.sync().expect("the device");
        drop(c);
    };
    let start = Instant::now();
    work();
    println!("burn, matmul 1024^3: first call {:.1} s (with its tuning)", start.elapsed().as_secs_f64());
    let [clock, cpu] = rate(seconds, work).map(|rate| rate * 2.0 * 1024f64.powi(3) / 1e9);
    println!("burn, matmul 1024^3: {clock:.1} GFLOP/s by the clock, {cpu:.1} per 2 CPU-seconds");
}

fn step(seconds: f64) {
    let device = Device::wgpu(Default::default()).autodiff();
    let mut model = Gpt::new(&device);
    let mut optimizer = AdamWConfig::new().init();
    let tokens = || Tensor::<1>::random([BATCH * SEQ], Distribution::Uniform(0.0, VOCAB as f64 - 1.0), &device).int();
    let (inputs, targets) = (tokens().reshape([BATCH, SEQ]), tokens());
    let mask = Tensor::<2>::ones([SEQ, SEQ], &device).triu(1) * -1e9;
    let mask = mask.reshape([1, 1, SEQ, SEQ]);
    let mut work = || {
        let loss = model.loss(inputs.clone(), targets.clone(), mask.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model.clone(), gradients);
        let value = loss.into_scalar::<f32>();
        assert!(value.is_finite(), "the loss is {value}");
    };
    let start = Instant::now();
    work();
    println!("burn, step: first {:.1} s (with its tuning)", start.elapsed().as_secs_f64());
    work();
    let [clock, cpu] = rate(seconds, work).map(|rate| rate * (BATCH * SEQ) as f64);
    println!("burn, step: {clock:.0} tokens/s by the clock, {cpu:.0} per 2 CPU-seconds");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next();
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10.0);
    match what.as_deref() {
        Some("matmul") => matmul(seconds),
        Some("step") => step(seconds),
        _ => {
            eprintln!("matmul or step, and seconds");
            std::process::exit(2);
        }
    }
}
