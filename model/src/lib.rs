//! Megatron-Turing NLG: the GPT model, its presets and its tensor-parallel layers.
