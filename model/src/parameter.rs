//! A parameter by its logical name: stable under any cut, and all that initialisation, checkpoints and resharding need to know.

/// The part of a global tensor that somebody holds: a box, `start[i] .. start[i] + shape[i]` along each axis, stored contiguous and row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Extents of the whole tensor.
    pub global: Vec<usize>,
    /// First index held, per axis.
    pub start: Vec<usize>,
    /// Extents held, per axis.
    pub shape: Vec<usize>,
}

impl Slice {
    /// The whole tensor.
    pub fn whole(global: &[usize]) -> Self {
        Self { global: global.to_vec(), start: vec![0; global.len()], shape: global.to_vec() }
    }

    /// Part `index` of `parts` equal parts along `axis`, which `parts` divides.
    pub fn part(global: &[usize], axis: usize, index: usize, parts: usize) -> Self {
        debug_assert!(global[axis].is_multiple_of(parts) && index < parts);
        let mut slice = Self::whole(global);
        slice.shape[axis] /= parts;
        slice.start[axis] = index * slice.shape[axis];
        slice
    }

    /// Elements held.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The runs of consecutive elements in which this slice lies in the global tensor, in order: `(global element index, length)`.
    ///
    /// The same element has the same global index whatever the cut: initial weights are drawn by it.
    pub fn runs(&self) -> Vec<(u64, usize)> {
        let rank = self.global.len();
        // Trailing axes that are held whole join into one run.
        let mut axis = rank;
        let mut run = 1;
        while axis > 0 && (axis == rank || self.shape[axis] == self.global[axis]) {
            axis -= 1;
            run *= self.shape[axis];
        }
        let stride = |a: usize| self.global[a + 1..].iter().product::<usize>();
        let outer: usize = self.shape[..axis].iter().product();
        let inner = if rank == 0 {
            0
        } else {
            self.start[axis..].iter().enumerate().map(|(i, s)| s * stride(axis + i)).sum()
        };
        (0..outer)
            .map(|mut index| {
                let mut first = inner;
                for a in (0..axis).rev() {
                    first += (self.start[a] + index % self.shape[a]) * stride(a);
                    index /= self.shape[a];
                }
                (first as u64, run)
            })
            .collect()
    }
}

/// One parameter as a rank holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Logical name, such as `layers.3.attention.qkv.weight`.
    pub name: String,
    /// Which part of it this rank holds.
    pub slice: Slice,
    /// Standard deviation of its initial values; 0 for a constant.
    pub init_std: f32,
    /// Mean of its initial values: 1 for a LayerNorm's gamma, else 0.
    pub init_mean: f32,
    /// Whether weight decay applies: matrices only, not biases and LayerNorms.
    pub decays: bool,
    /// Whether this rank's part is its own in the tensor-parallel group (false where every tensor rank holds the same values).
    pub tensor_parallel: bool,
    /// Whether the first and the last pipeline stage both hold it (the tied embedding).
    pub tied: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_each_element_once_in_every_cut() {
        for axis in 0..3 {
            let mut seen = vec![0; 4 * 6 * 2];
            for index in 0..2 {
                let slice = Slice::part(&[4, 6, 2], axis, index, 2);
                let runs = slice.runs();
                assert_eq!(runs.iter().map(|r| r.1).sum::<usize>(), slice.len());
                for (first, len) in runs {
                    (first as usize..first as usize + len).for_each(|i| seen[i] += 1);
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "axis {axis}: {seen:?}");
        }
    }

    #[test]
    fn whole_is_one_run() {
        assert_eq!(Slice::whole(&[3, 5]).runs(), [(0, 15)]);
        assert_eq!(Slice::part(&[4, 6], 0, 1, 2).runs(), [(12, 12)]);
        assert_eq!(Slice::part(&[2, 6], 1, 1, 3).runs(), [(2, 2), (8, 2)]);
    }
}
