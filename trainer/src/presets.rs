//! `mtnlg presets`: the models by name, with their exact sizes.

use std::fmt::Write;

use serde::Serialize;

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The preset's name.
    pub name: &'static str,
    /// Transformer layers.
    pub layers: usize,
    /// Hidden size.
    pub hidden: usize,
    /// Attention heads.
    pub heads: usize,
    /// Tokens a sample.
    pub seq_len: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Exact number of parameters, the tied embedding once.
    pub parameters: u64,
    /// Model FLOPs of forward and backward a token.
    pub flops_per_token: f64,
    /// Where the numbers come from.
    pub source: &'static str,
}

/// Every preset, smallest first.
pub fn rows() -> Vec<Row> {
    let row = |preset: model::presets::Preset| Row {
        name: preset.name,
        layers: preset.config.layers,
        hidden: preset.config.hidden,
        heads: preset.config.heads,
        seq_len: preset.config.seq_len,
        vocab: preset.config.vocab,
        parameters: preset.config.parameters(),
        flops_per_token: preset.config.flops_per_token(),
        source: preset.source,
    };
    model::presets::all().into_iter().map(row).collect()
}

/// The table for a terminal.
pub fn table() -> String {
    let header =
        ["preset", "layers", "hidden", "heads", "sequence", "vocabulary", "parameters", "FLOPs/token"];
    let mut cells: Vec<Vec<String>> = vec![header.map(String::from).to_vec()];
    for row in rows() {
        let sizes = [row.layers, row.hidden, row.heads, row.seq_len, row.vocab];
        let mut line = vec![row.name.to_string()];
        line.extend(sizes.map(|size| grouped(size as u64)));
        line.extend([grouped(row.parameters), format!("{:.3e}", row.flops_per_token)]);
        cells.push(line);
    }
    let width = |column: usize| cells.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in &cells {
        let _ = write!(text, "{:<1$}", line[0], widths[0]);
        for (cell, width) in line.iter().zip(&widths).skip(1) {
            let _ = write!(text, "  {cell:>width$}");
        }
        text.push('\n');
    }
    text
}

/// The rows as a JSON array.
pub fn json() -> String {
    serde_json::to_string_pretty(&rows()).expect("a row has only JSON's types")
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_published_count() {
        let table = table();
        let line = table.lines().find(|line| line.starts_with("mt-nlg-530b")).unwrap();
        for cell in ["105", "20,480", "128", "2,048", "51,200", "529,600,819,200"] {
            assert!(line.contains(cell), "{line}");
        }
        assert_eq!(table.lines().count(), 1 + model::presets::all().len());
        let lengths: Vec<usize> = table.lines().map(str::len).collect();
        assert!(lengths.iter().all(|&length| length == lengths[0] && length <= 110), "{lengths:?}");
    }

    #[test]
    fn json_has_exact_integers() {
        let rows: serde_json::Value = serde_json::from_str(&json()).unwrap();
        let last = rows.as_array().unwrap().iter().find(|row| row["name"] == "mt-nlg-530b").unwrap();
        assert_eq!(last["parameters"], 529_600_819_200u64);
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
