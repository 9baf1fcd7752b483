//! A step of AdamW.

use std::cell::Cell;

use backend::Result;
use backend::ops::AdamW;

use super::GRAIN;
use crate::CpuBuffer;
use crate::lanes::{Lanes, kernel, lanes};
use crate::operand::Floats;
use crate::threads::Threads;

/// The step's numbers.
#[derive(Clone, Copy)]
struct Step {
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    weight_decay: f32,
    grad_scale: f32,
    corrections: [f32; 2],
}

kernel! {
    fn update<'a, S>(
        simd,
        param: &'a [Cell<f32>],
        grad: &'a [Cell<f32>],
        m: &'a [Cell<f32>],
        v: &'a [Cell<f32>],
        step: Step,
    ) {
        let splat = |x| Lanes::splat(simd, x);
        let (beta1, beta2) = (splat(step.beta1), splat(step.beta2));
        let (rest1, rest2) = (splat(1.0 - step.beta1), splat(1.0 - step.beta2));
        let [inverse1, inverse2] = step.corrections.map(|c| splat(1.0 / c));
        let (eps, decay, scale) = (splat(step.eps), splat(step.weight_decay), splat(step.grad_scale));
        let minus_lr = splat(-step.lr);
        lanes!(S, param.len(), |i, w| {
            let g = Lanes::load(simd, grad, i, w) * scale;
            let m_new = beta1.mul_add(Lanes::load(simd, m, i, w), rest1 * g);
            let v_new = beta2.mul_add(Lanes::load(simd, v, i, w), rest2 * g * g);
            m_new.store(m, i, w);
            v_new.store(v, i, w);
            let p = Lanes::load(simd, param, i, w);
            let direction = m_new * inverse1 / ((v_new * inverse2).sqrt() + eps);
            minus_lr.mul_add(decay.mul_add(p, direction), p).store(param, i, w);
        });
    }
}

pub(crate) fn adamw(threads: &Threads, args: AdamW<'_, CpuBuffer>) -> Result<()> {
    const OP: &str = "adamw";
    let n = args.check()?;
    let (param, grad) = (Floats::new(OP, args.param)?, Floats::new(OP, args.grad)?);
    let (m, v) = (Floats::new(OP, args.m)?, Floats::new(OP, args.v)?);
    let step = Step {
        lr: args.lr,
        beta1: args.beta1,
        beta2: args.beta2,
        eps: args.eps,
        weight_decay: args.weight_decay,
        grad_scale: args.grad_scale,
        corrections: args.bias_corrections(),
    };
    threads.pieces(n, GRAIN, |piece| {
        // SAFETY: the operands are apart; each piece is its own task's.
        let (param, grad, m, v) = unsafe {
            (param.cells(piece.clone()), grad.cells(piece.clone()), m.cells(piece.clone()), v.cells(piece))
        };
        update(param, grad, m, v, step);
    });
    Ok(())
}
