//! How many kernels a layer of preset `laptop` costs on wgpu, counted as the device is given them, whatever cut an operation into several.

use std::sync::Arc;
use std::time::Duration;

use backend::{Backend, Class, DType, Group, GroupKind, Result, Shape};
use backend_wgpu::{Choice, WgpuBackend};
use conformance::or_skip;
use model::layers::Scratch;
use model::{GptConfig, Microbatch, Shard, Stage, StageOptions, TensorGroup, presets};

/// The most that a layer may cost.
const FORWARD: u64 = 12;
const BACKWARD: u64 = 25;
/// The microbatch of the benchmark of steps.
const SEQUENCES: usize = 8;

/// Kernels of the forward and of the backward of that many layers in the middle of the model.
fn launches(layers: usize, precision: DType) -> Option<[u64; 2]> {
    let any = Choice::Any { name: None };
    let mut ranks = or_skip("wgpu", WgpuBackend::cluster(1, Duration::from_secs(120), &any))?;
    let communicator = ranks.remove(0);
    let counts = || -> Result<[u64; 2]> {
        let backend = communicator.backend();
        let config = GptConfig { dropout: 0.1, ..presets::find("laptop").expect("the preset").config };
        let shard = Shard { layers: 1..1 + layers, first: false, last: false, ..Shard::whole(&config) };
        let group = TensorGroup::new(&communicator, Group::new(GroupKind::Tensor, vec![0]));
        let mut options = StageOptions::plain(SEQUENCES, config.seq_len);
        (options.store.dtype, options.partial) = (precision, precision);
        let scratch = Scratch::new(backend, &options.dims(&config, &shard), options.recompute, &[])?;
        let stage = Stage::new(backend, group, &config, &shard, &options, Arc::new(scratch))?;
        let kept = stage.activations()?;
        let loss = backend.alloc(Class::Workspace, DType::F32, Shape::new(&[1]))?;
        let microbatch =
            Microbatch { index: 0, first_sample: 0, dropout_seed: Some(1), weight: 1.0, loss_scale: 1.0 };
        let start = backend.launched();
        stage.forward(&kept, &microbatch, loss.view())?;
        let middle = backend.launched();
        stage.backward(&kept, &microbatch, |_| Ok(()))?;
        let end = backend.launched();
        backend.sync()?;
        Ok([middle - start, end - middle])
    };
    Some(counts().expect("a forward and a backward"))
}

#[test]
fn a_layer_of_laptop() {
    for precision in [DType::F32, DType::Bf16] {
        let (Some(two), Some(three)) = (launches(2, precision), launches(3, precision)) else { return };
        let [forward, backward] = [three[0] - two[0], three[1] - two[1]];
        println!("{precision}: {forward} kernels a layer forward, {backward} backward");
        assert!((1..=FORWARD).contains(&forward), "{precision}: {forward} forward");
        assert!((1..=BACKWARD).contains(&backward), "{precision}: {backward} backward");
    }
}
