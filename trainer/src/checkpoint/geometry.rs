//! Boxes in an index space: which one covers what, and what two of them share.

/// `start[i] .. start[i] + shape[i]` along each axis.
#[derive(Clone, Copy, Debug)]
pub struct Box<'a> {
    pub start: &'a [usize],
    pub shape: &'a [usize],
}

impl Box<'_> {
    /// Whether it lies in a space of these extents, with as many axes and none of its sums overflowing.
    pub fn fits(&self, extents: &[usize]) -> bool {
        self.start.len() == extents.len()
            && self.shape.len() == extents.len()
            && (0..extents.len())
                .all(|a| self.start[a].checked_add(self.shape[a]).is_some_and(|end| end <= extents[a]))
    }

    /// Whether `other` lies in it.
    pub fn contains(&self, other: &Box<'_>) -> bool {
        (0..self.start.len()).all(|a| {
            self.start[a] <= other.start[a]
                && other.start[a] + other.shape[a] <= self.start[a] + self.shape[a]
        })
    }
}

/// Whether the boxes, each of which fits, together cover a space of these extents.
pub fn covered(extents: &[usize], boxes: &[Box<'_>]) -> bool {
    // The boxes' faces cut the space into cells, each of which lies in a box or outside of it.
    let cuts: Vec<Vec<usize>> = (0..extents.len())
        .map(|a| {
            let faces = boxes.iter().flat_map(|b| [b.start[a], b.start[a] + b.shape[a]]);
            let mut cuts: Vec<usize> = faces.chain([0, extents[a]]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            cuts
        })
        .collect();
    let cells: usize = cuts.iter().map(|cuts| cuts.len() - 1).product();
    (0..cells).all(|mut index| {
        let (mut start, mut shape) = (vec![0; extents.len()], vec![0; extents.len()]);
        for a in (0..extents.len()).rev() {
            let cell = index % (cuts[a].len() - 1);
            index /= cuts[a].len() - 1;
            (start[a], shape[a]) = (cuts[a][cell], cuts[a][cell + 1] - cuts[a][cell]);
        }
        boxes.iter().any(|b| b.contains(&Box { start: &start, shape: &shape }))
    })
}

/// A run of elements that two boxes share, as offsets into each one's row-major storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    pub from: usize,
    pub to: usize,
    pub len: usize,
}

/// What `from` and `to` share, in `from`'s order.
pub fn shared(from: &Box<'_>, to: &Box<'_>) -> Vec<Shared> {
    let rank = from.start.len();
    let mut start = Vec::with_capacity(rank);
    let mut extent = Vec::with_capacity(rank);
    for a in 0..rank {
        let first = from.start[a].max(to.start[a]);
        let end = (from.start[a] + from.shape[a]).min(to.start[a] + to.shape[a]);
        if first >= end {
            return vec![];
        }
        start.push(first);
        extent.push(end - first);
    }
    let offset = |b: &Box<'_>, at: &[usize]| (0..rank).fold(0, |o, a| o * b.shape[a] + at[a] - b.start[a]);
    let len = extent.last().copied().unwrap_or(1);
    let rows: usize = extent[..rank.saturating_sub(1)].iter().product();
    let mut at = start.clone();
    let mut runs: Vec<Shared> = Vec::new();
    for _ in 0..rows {
        let run = Shared { from: offset(from, &at), to: offset(to, &at), len };
        match runs.last_mut() {
            // Rows that follow each other in both are one run.
            Some(last) if last.from + last.len == run.from && last.to + last.len == run.to => last.len += len,
            _ => runs.push(run),
        }
        for a in (0..rank.saturating_sub(1)).rev() {
            at[a] += 1;
            if at[a] < start[a] + extent[a] {
                break;
            }
            at[a] = start[a];
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn b<'a>(start: &'a [usize], shape: &'a [usize]) -> Box<'a> {
        Box { start, shape }
    }

    #[test]
    fn cover() {
        assert!(covered(&[4, 4], &[b(&[0, 0], &[4, 2]), b(&[0, 2], &[4, 2])]));
        assert!(covered(&[4, 4], &[b(&[0, 0], &[4, 3]), b(&[0, 1], &[4, 3])]));
        assert!(!covered(&[4, 4], &[b(&[0, 0], &[4, 2]), b(&[0, 2], &[3, 2])]));
        assert!(!covered(&[4], &[]));
        assert!(covered(&[], &[b(&[], &[])]));
        assert!(!covered(&[], &[]));
    }

    #[test]
    fn share() {
        assert_eq!(shared(&b(&[0, 0], &[2, 3]), &b(&[0, 0], &[2, 3])), [Shared { from: 0, to: 0, len: 6 }]);
        let cut = shared(&b(&[0, 0], &[2, 4]), &b(&[1, 2], &[3, 2]));
        assert_eq!(cut, [Shared { from: 6, to: 0, len: 2 }]);
        let columns = shared(&b(&[0, 2], &[2, 2]), &b(&[0, 0], &[2, 3]));
        assert_eq!(columns, [Shared { from: 0, to: 2, len: 1 }, Shared { from: 2, to: 5, len: 1 }]);
        assert!(shared(&b(&[0], &[2]), &b(&[2], &[2])).is_empty());
        assert_eq!(shared(&b(&[], &[]), &b(&[], &[])), [Shared { from: 0, to: 0, len: 1 }]);
    }
}
