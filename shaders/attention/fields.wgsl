    // Members of every attention kernel's Params, behind the operands' offsets. block_at and head_at: where this dispatch begins, of a long call's several.
    s: u32, a: u32, d: u32, scale: f32,
    seed_low: u32, seed_high: u32, stream_low: u32, stream_high: u32, first_low: u32, first_high: u32,
    threshold: u32, keep_scale: f32, heads: u32, first_head: u32, block_at: u32, head_at: u32,
