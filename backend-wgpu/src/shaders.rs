//! The files of `shaders/`, in the binary.

macro_rules! files {
    ($($path:literal,)*) => {
        &[$(($path, include_str!(concat!("../../shaders/", $path)))),*]
    };
}

/// Path below `shaders/`, and text.
pub(crate) static FILES: &[(&str, &str)] = files![
    "adamw/adamw.wgsl",
    "attention/backward_key.wgsl",
    "attention/backward_query.wgsl",
    "attention/common.wgsl",
    "attention/forward.wgsl",
    "attention/subgroup_backward_key.wgsl",
    "attention/subgroup_backward_query.wgsl",
    "attention/subgroup_forward.wgsl",
    "bias/add.wgsl",
    "bias/backward.wgsl",
    "bias/backward_partial.wgsl",
    "bias/dropout_residual.wgsl",
    "bias/gelu.wgsl",
    "cross_entropy/backward.wgsl",
    "cross_entropy/loss.wgsl",
    "cross_entropy/max.wgsl",
    "cross_entropy/sums.wgsl",
    "dropout/dropout.wgsl",
    "elementwise/add.wgsl",
    "elementwise/copy.wgsl",
    "elementwise/fill.wgsl",
    "elementwise/scale.wgsl",
    "embedding/backward.wgsl",
    "embedding/backward_links.wgsl",
    "embedding/forward.wgsl",
    "gelu/backward.wgsl",
    "gelu/forward.wgsl",
    "layernorm/backward.wgsl",
    "layernorm/backward_params.wgsl",
    "layernorm/backward_partial.wgsl",
    "layernorm/forward.wgsl",
    "lib/columns.wgsl",
    "lib/dropout.wgsl",
    "lib/flat.wgsl",
    "lib/gelu.wgsl",
    "lib/nan.wgsl",
    "lib/philox.wgsl",
    "lib/reduce.wgsl",
    "lib/wide.wgsl",
    "matmul/finish.wgsl",
    "matmul/registers.wgsl",
    "matmul/subgroup.wgsl",
    "matmul/tiled.wgsl",
    "reduce/reduce.wgsl",
    "sum/block_squares.wgsl",
    "sum/final.wgsl",
    "sum/partial.wgsl",
];
