//! The kernels that an operation of the contract is made of, in a given software.
//!
//! Most are one kernel that streams its operands. What differs between stacks is here: the attention, the GELU, dropout masks, and how a weight's gradient
//! is added to those of the microbatches before.

use backend::DType;
use backend::ops::{AttentionDims, MatmulDims};

use crate::cost::Kernel;
use crate::stack::{Attention, Stack, WeightGradients};

/// A few kernels, one after the other.
pub type Kernels = Vec<Kernel>;

impl Stack {
    /// A product with operands of `bytes` in all; `sum` is how many bytes of a running sum it adds to, 0 where it overwrites.
    pub fn product(&self, dims: MatmulDims, dtype: DType, bytes: f64, sum: f64) -> Kernels {
        let product = |bytes| Kernel::Product { dims, dtype, bytes, share: 1.0 };
        match self.weight_gradients {
            WeightGradients::Separate if sum > 0.0 => {
                // A gradient of the factors' type is written, read again, and added to a sum of the type that is held beside it.
                let elements = (dims.batch * dims.m * dims.n) as f64;
                let own = elements * dtype.size() as f64;
                let held = elements * self.sum_bytes();
                vec![product(bytes - sum + own), Kernel::Stream(own + 2.0 * held)]
            }
            _ => vec![product(bytes + sum)],
        }
    }

    /// Bytes an element of the sum over microbatches: what replicas then reduce.
    fn sum_bytes(&self) -> f64 {
        self.reduced_gradient_bytes
    }

    /// A product whose output goes through a GELU; both are written.
    pub fn product_gelu(&self, dims: MatmulDims, dtype: DType, bytes: f64) -> Kernels {
        let output = (dims.batch * dims.m * dims.n * dtype.size()) as f64;
        let product = |bytes| Kernel::Product { dims, dtype, bytes, share: 1.0 };
        match self.separate_gelu {
            true => vec![product(bytes - output), Kernel::Stream(2.0 * output)],
            false => vec![product(bytes)],
        }
    }

    /// Bytes of a dropout's mask over so many elements.
    pub fn mask(&self, elements: f64) -> f64 {
        if self.masks { elements } else { 0.0 }
    }

    /// Causal attention over heads of one rank.
    pub fn attention(&self, dims: AttentionDims, dtype: DType, dropout: bool) -> Kernels {
        let parts = Parts::new(dims, dtype);
        match self.attention {
            Attention::Streaming => vec![parts.causal(parts.scores()), parts.causal(parts.values())],
            Attention::Unfused => {
                let mut kernels = vec![parts.scores(), Kernel::Stream(2.0 * parts.matrix)];
                if dropout {
                    kernels.push(Kernel::Stream(2.0 * parts.matrix + self.mask(parts.elements)));
                }
                // The result is laid out by tokens again.
                kernels.extend([parts.values(), Kernel::Stream(2.0 * parts.vector)]);
                kernels
            }
        }
    }

    /// Its gradient.
    pub fn attention_backward(&self, dims: AttentionDims, dtype: DType, dropout: bool) -> Kernels {
        let parts = Parts::new(dims, dtype);
        match self.attention {
            // The scores again, and the gradients of probabilities, values, queries and keys.
            Attention::Streaming => {
                let products =
                    [parts.scores(), parts.scores(), parts.values(), parts.values(), parts.values()];
                products.map(|product| parts.causal(product)).to_vec()
            }
            Attention::Unfused => {
                let mut kernels = vec![Kernel::Stream(2.0 * parts.vector), parts.scores(), parts.values()];
                if dropout {
                    kernels.push(Kernel::Stream(2.0 * parts.matrix + self.mask(parts.elements)));
                }
                kernels.extend([Kernel::Stream(3.0 * parts.matrix), parts.values(), parts.values()]);
                kernels
            }
        }
    }

    /// f32 elements of what a layer's attention writes for its own use: probabilities, before and behind the dropout, and its mask.
    pub fn attention_workspace(&self, dims: AttentionDims) -> usize {
        match self.attention {
            Attention::Streaming => 0,
            Attention::Unfused => (dims.b * dims.a * dims.s * dims.s * 5).div_ceil(4),
        }
    }
}

/// What attention is made of.
struct Parts {
    dims: AttentionDims,
    dtype: DType,
    /// Elements of `[b, a, s, s]`.
    elements: f64,
    /// Bytes of them.
    matrix: f64,
    /// Bytes of `[b, s, a, d]`.
    vector: f64,
}

impl Parts {
    fn new(dims: AttentionDims, dtype: DType) -> Self {
        let AttentionDims { b, s, a, d } = dims;
        let size = dtype.size() as f64;
        let elements = (b * a * s * s) as f64;
        Self { dims, dtype, elements, matrix: elements * size, vector: (b * s * a * d) as f64 * size }
    }

    /// `[s, d] x [d, s]` a head.
    fn scores(&self) -> Kernel {
        let AttentionDims { b, s, a, d } = self.dims;
        self.product(MatmulDims { batch: b * a, m: s, n: s, k: d })
    }

    /// `[s, s] x [s, d]` a head.
    fn values(&self) -> Kernel {
        let AttentionDims { b, s, a, d } = self.dims;
        self.product(MatmulDims { batch: b * a, m: s, n: d, k: s })
    }

    fn product(&self, dims: MatmulDims) -> Kernel {
        let bytes = self.matrix + 2.0 * self.vector;
        Kernel::Product { dims, dtype: self.dtype, bytes, share: 1.0 }
    }

    /// The same without a matrix in memory, and only below the diagonal.
    fn causal(&self, product: Kernel) -> Kernel {
        match product {
            Kernel::Product { dims, dtype, .. } => {
                Kernel::Product { dims, dtype, bytes: 2.0 * self.vector, share: 0.5 }
            }
            stream => stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIMS: AttentionDims = AttentionDims { b: 1, s: 2048, a: 16, d: 160 };

    fn sums(kernels: &[Kernel]) -> (f64, f64) {
        (kernels.iter().map(Kernel::flops).sum(), kernels.iter().map(Kernel::bytes).sum())
    }

    /// 13 and 19 bytes a score forward and backward of two-byte scores (KOR keeps 5 of them); streaming moves none, and computes half and a half more.
    #[test]
    fn attention_by_hand() {
        let matrix = 16.0 * 2048.0 * 2048.0;
        let product = 2.0 * matrix * 160.0;
        let unfused = Stack::load("narayanan-2021").unwrap();
        let (flops, bytes) = sums(&unfused.attention(DIMS, DType::F16, true));
        assert_eq!(flops, 2.0 * product);
        assert!((bytes / matrix - 13.0).abs() < 1.5, "{}", bytes / matrix);
        let (flops, bytes) = sums(&unfused.attention_backward(DIMS, DType::F16, true));
        assert_eq!(flops, 4.0 * product);
        assert!((bytes / matrix - 19.0).abs() < 2.0, "{}", bytes / matrix);
        let own = Stack::load("mtnlg").unwrap();
        assert_eq!(sums(&own.attention(DIMS, DType::Bf16, true)).0, product);
        let (flops, bytes) = sums(&own.attention_backward(DIMS, DType::Bf16, true));
        assert_eq!(flops, 2.5 * product);
        // Not as much as one matrix of scores in two bytes.
        assert!(bytes < 2.0 * matrix);
        assert_eq!((own.attention_workspace(DIMS), unfused.attention_workspace(DIMS)), (0, 83_886_080));
    }

    #[test]
    fn a_separate_sum_is_a_kernel_of_its_own() {
        let dims = MatmulDims { batch: 1, m: 100, n: 10, k: 7 };
        let (bytes, sum) = (2.0 * 770.0 + 4000.0, 4000.0);
        let own = Stack::load("mtnlg").unwrap().product(dims, DType::Bf16, bytes, sum);
        assert_eq!((own.len(), own[0].bytes()), (1, bytes + sum));
        let separate = Stack::load("mt-nlg").unwrap().product(dims, DType::Bf16, bytes, sum);
        // Written as bf16; then read, and added to fp32.
        let added: Vec<f64> = separate.iter().map(Kernel::bytes).collect();
        assert_eq!(added, [2.0 * 770.0 + 2000.0, 2000.0 + 8000.0]);
        assert_eq!(Stack::load("mt-nlg").unwrap().product(dims, DType::Bf16, bytes, 0.0).len(), 1);
    }
}
