//! Gradients that replicas reduce while the last backward still runs (Li et al. 2020, section 3.2.3): the matrices of the layers, which lie behind each other
//! in the flat buffer and are done from the last layer to the first.

use std::ops::Range;

use backend::Backend;
use model::ParameterStore;

/// When which part is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// Behind the backward of which layer of the stage a range may be reduced, last layer first.
    parts: Vec<(usize, Range<usize>)>,
}

impl Buckets {
    /// Buckets of at least `size` elements over the matrices of a stage's layers; none for a size of 0.
    pub fn new<B: Backend>(parameters: &ParameterStore<B>, layers: Range<usize>, size: usize) -> Self {
        let of_layer = |layer: usize| {
            let prefix = format!("layers.{layer}.");
            let entries = parameters.entries().iter();
            let mut matrices = entries
                .filter(|e| e.parameter.decays && e.parameter.name.starts_with(&prefix))
                .map(|e| e.range());
            let first = matrices.next().unwrap_or(0..0);
            first.start..matrices.next_back().unwrap_or(first).end
        };
        let ranges: Vec<Range<usize>> = layers.map(of_layer).collect();
        Self::of(&ranges, size)
    }

    /// The same over any neighbouring ranges, the first layer's first.
    fn of(ranges: &[Range<usize>], size: usize) -> Self {
        let mut parts: Vec<(usize, Range<usize>)> = Vec::new();
        if size == 0 || ranges.is_empty() {
            return Self { parts };
        }
        let mut end = ranges[ranges.len() - 1].end;
        for (i, range) in ranges.iter().enumerate().rev() {
            if end - range.start >= size || i == 0 {
                parts.push((i, range.start..end));
                end = range.start;
            }
        }
        Self { parts }
    }

    /// What may be reduced behind the backward of layer `i` of the stage.
    pub fn done_with(&self, i: usize) -> Option<Range<usize>> {
        self.parts.iter().find(|(layer, _)| *layer == i).map(|(_, range)| range.clone())
    }

    /// Everything that is reduced this way.
    pub fn covered(&self) -> Range<usize> {
        match (self.parts.last(), self.parts.first()) {
            (Some((_, first)), Some((_, last))) => first.start..last.end,
            _ => 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_the_layers_from_the_last_to_the_first() {
        let layers = [100..140, 140..180, 180..220, 220..260];
        let buckets = Buckets::of(&layers, 60);
        assert_eq!(buckets.parts, [(2, 180..260), (0, 100..180)]);
        assert_eq!((buckets.done_with(3), buckets.done_with(2)), (None, Some(180..260)));
        assert_eq!(buckets.covered(), 100..260);
        assert_eq!(Buckets::of(&layers, 1).parts.len(), 4);
        assert_eq!(Buckets::of(&layers, 1000).parts, [(0, 100..260)]);
        assert_eq!(Buckets::of(&layers, 0).covered(), 0..0);
    }
}
