//! Sums as balanced binary trees, on the host: the same trees as [`Backend::reduce`](backend::Backend::reduce)'s.

/// The sum of `terms`: neighbours are added pairwise, level after level, and an odd last one goes up as it is.
pub fn tree_sum(terms: &[f32]) -> f32 {
    let mut level = terms.to_vec();
    while level.len() > 1 {
        level =
            level.chunks(2).map(|pair| pair.iter().copied().reduce(|a, b| a + b).unwrap_or(0.0)).collect();
    }
    level.first().copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_the_sum_of_its_halves() {
        let terms: Vec<f32> = (0..16).map(|i| 1.0 / (i as f32 + 0.3)).collect();
        assert_eq!(tree_sum(&terms), tree_sum(&terms[..8]) + tree_sum(&terms[8..]));
        assert_eq!(tree_sum(&[1e8, 1.0, -1e8]), (1e8 + 1.0) - 1e8);
        assert_eq!(tree_sum(&[]), 0.0);
    }
}
