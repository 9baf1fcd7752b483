//! Vocabulary-parallel embedding.

use crate::Real;

/// The row of `table` for a token, where this rank holds it.
fn row(token: u32, first_row: usize, v: usize) -> Option<usize> {
    (token as usize).checked_sub(first_row).filter(|&row| row < v)
}

/// `y[t, :] = table[tokens[t] - first_row, :]`, or 0.
pub fn forward<R: Real>(h: usize, tokens: &[u32], table: &[R], first_row: usize) -> Vec<R> {
    let mut y = Vec::with_capacity(tokens.len() * h);
    for &token in tokens {
        match row(token, first_row, table.len() / h) {
            Some(row) => y.extend_from_slice(&table[row * h..(row + 1) * h]),
            None => y.extend(std::iter::repeat_n(R::zero(), h)),
        }
    }
    y
}

/// `dtable` with the rows of `dy` added.
pub fn backward<R: Real>(h: usize, tokens: &[u32], dy: &[R], first_row: usize, dtable: &[R]) -> Vec<R> {
    let v = dtable.len() / h;
    let mut users = vec![Vec::new(); v];
    for (t, &token) in tokens.iter().enumerate() {
        if let Some(row) = row(token, first_row, v) {
            users[row].push(t);
        }
    }
    let element = |i: usize| {
        let (row, j) = (i / h, i % h);
        R::sum(std::iter::once(dtable[i]).chain(users[row].iter().map(|t| dy[t * h + j])))
    };
    (0..v * h).map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::differences::{check, normal, weigh};

    #[test]
    fn against_differences() {
        let (h, first) = (3, 4);
        let tokens = [4, 6, 3, 6, 8, 5, 9];
        let (table, dy) = (normal(1, 4 * h), normal(2, tokens.len() * h));
        let dtable = backward(h, &tokens, &dy, first, &vec![0.0; 4 * h]);
        check("dtable", &table, &dtable, |table| weigh(&dy, &forward(h, &tokens, table, first)));
    }
}
