//! Which of Megatron-LM's tensors hold which of our parameters, and how tensor ranks and versions cut and order them.
//!
//! Its weights are `[out, in]` as ours are. The order of the rows of `query_key_value` has changed (`fix_query_key_value_ordering` in its `checkpointing.py`):
//! `[3, a, d]` in checkpoint version 0, `[a, d, 3]` in 1.0, `[a, 3, d]`, which is ours, since 2.0; `a` are the heads of a tensor rank.

use model::GptConfig;

/// How tensor ranks share a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Each has all of it.
    Whole,
    /// Its rows: column-parallel layers.
    Rows,
    /// Its columns: row-parallel layers.
    Columns,
    /// The rows of each head.
    Qkv,
    /// The rows of the vocabulary, padding included.
    Vocabulary,
}

/// A parameter, and where it is in Megatron-LM's model.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Our logical name.
    pub ours: String,
    /// Our shape.
    pub shape: Vec<usize>,
    /// Theirs, as [`normal`] makes it.
    pub theirs: String,
    /// How it is cut there.
    pub cut: Cut,
}

/// What the last of several pipeline stages computes the logits with.
pub const HEAD: &str = "word_embeddings_for_head.weight";
/// What that must be equal to.
pub const EMBEDDING: &str = "embedding.word_embeddings.weight";
/// What a layer's name begins with.
pub const LAYERS: &str = "encoder.layers.";

/// A tensor's name in the words of the legacy model of checkpoint version 3.0, from those of any version and of Megatron Core's model.
pub fn normal(name: &str) -> String {
    let name = name.strip_prefix("language_model.").unwrap_or(name);
    let name = match name.split_once('.') {
        Some(("transformer" | "decoder", rest)) => format!("encoder.{rest}"),
        _ if name == "output_layer.weight" => HEAD.to_owned(),
        _ => name.to_owned(),
    };
    if !name.starts_with("encoder.") {
        return name;
    }
    const WORDS: [(&str, &str); 10] = [
        (".attention.", ".self_attention."),
        (".input_norm.", ".input_layernorm."),
        (".post_attention_norm.", ".post_attention_layernorm."),
        ("encoder.final_norm.", "encoder.final_layernorm."),
        (".linear_qkv.layer_norm_", ".input_layernorm."),
        (".linear_fc1.layer_norm_", ".post_attention_layernorm."),
        (".pre_mlp_layernorm.", ".post_attention_layernorm."),
        (".linear_qkv.", ".query_key_value."),
        (".linear_fc1.", ".dense_h_to_4h."),
        (".linear_fc2.", ".dense_4h_to_h."),
    ];
    let name = WORDS.iter().fold(name, |name, (from, to)| name.replacen(from, to, 1));
    // The LayerNorms that are fused with the layer behind them are named inside of its module.
    name.replace(".self_attention.input_layernorm.", ".input_layernorm.")
        .replace(".mlp.post_attention_layernorm.", ".post_attention_layernorm.")
        .replace(".self_attention.linear_proj.", ".self_attention.dense.")
}

/// Every parameter of the model, in groups: the embeddings, each layer, the final LayerNorm.
pub fn entries(model: &GptConfig) -> Vec<Vec<Entry>> {
    let GptConfig { layers, hidden: h, ffn_hidden: f, vocab, seq_len, .. } = *model;
    let entry = |ours: String, shape: &[usize], theirs: String, cut| Entry {
        ours,
        shape: shape.to_vec(),
        theirs,
        cut,
    };
    let norm = |ours: String, theirs: String| {
        [("gamma", "weight"), ("beta", "bias")]
            .map(|(a, b)| entry(format!("{ours}.{a}"), &[h], format!("{theirs}.{b}"), Cut::Whole))
    };
    let layer = |i: usize| {
        let ours = |part: &str| format!("layers.{i}.{part}");
        let theirs = |part: &str| format!("{LAYERS}{i}.{part}");
        let mut list = Vec::from(norm(ours("ln1"), theirs("input_layernorm")));
        list.extend(norm(ours("ln2"), theirs("post_attention_layernorm")));
        for (a, b, shape, weight, bias) in [
            ("attention.qkv", "self_attention.query_key_value", [3 * h, h], Cut::Qkv, Cut::Qkv),
            ("attention.out", "self_attention.dense", [h, h], Cut::Columns, Cut::Whole),
            ("mlp.up", "mlp.dense_h_to_4h", [f, h], Cut::Rows, Cut::Rows),
            ("mlp.down", "mlp.dense_4h_to_h", [h, f], Cut::Columns, Cut::Whole),
        ] {
            list.push(entry(ours(&format!("{a}.weight")), &shape, theirs(&format!("{b}.weight")), weight));
            list.push(entry(ours(&format!("{a}.bias")), &shape[..1], theirs(&format!("{b}.bias")), bias));
        }
        list
    };
    let mut all = vec![vec![
        entry("embedding.token.weight".into(), &[vocab, h], EMBEDDING.into(), Cut::Vocabulary),
        entry(
            "embedding.position.weight".into(),
            &[seq_len, h],
            "embedding.position_embeddings.weight".into(),
            Cut::Whole,
        ),
    ]];
    all.extend((0..layers).map(layer));
    all.push(norm("final_ln".into(), "encoder.final_layernorm".into()).into());
    all
}

impl Entry {
    /// The shape of a rank's part, of `tensor` ranks, where the embedding has `rows` in all.
    pub fn part_shape(&self, tensor: usize, rows: usize) -> Vec<usize> {
        let mut shape = self.shape.clone();
        match self.cut {
            Cut::Whole => {}
            Cut::Rows | Cut::Qkv => shape[0] /= tensor,
            Cut::Columns => shape[1] /= tensor,
            Cut::Vocabulary => shape[0] = rows / tensor,
        }
        shape
    }

    /// Our values from those of all tensor ranks. Rows of the vocabulary that are no `tokens` are 0, as ours are.
    pub fn join(&self, parts: &[Vec<f32>], version: f64, heads: usize, tokens: usize) -> Vec<f32> {
        let width = self.shape.get(1).copied().unwrap_or(1);
        match self.cut {
            Cut::Whole => parts[0].clone(),
            Cut::Rows => parts.concat(),
            Cut::Columns => {
                let width = width / parts.len();
                let row = |i: usize| parts.iter().flat_map(move |part| &part[i * width..(i + 1) * width]);
                (0..self.shape[0]).flat_map(row).copied().collect()
            }
            Cut::Qkv => {
                let heads = heads / parts.len();
                parts.iter().flat_map(|part| by_head(part, version, heads, width)).collect()
            }
            Cut::Vocabulary => {
                let mut table = parts.concat();
                table.truncate(tokens * width);
                table.resize(self.shape[0] * width, 0.0);
                table
            }
        }
    }
}

/// A rank's queries, keys and values, rows of `width`, in the order `[a, 3, d]`.
fn by_head(part: &[f32], version: f64, heads: usize, width: usize) -> Vec<f32> {
    let rows = part.len() / width;
    let d = rows / 3 / heads;
    let place = |row: usize| {
        let (head, kind, element) = (row / (3 * d), row / d % 3, row % d);
        if version == 0.0 {
            (kind * heads + head) * d + element
        } else if version < 2.0 {
            (head * d + element) * 3 + kind
        } else {
            row
        }
    };
    (0..rows).map(place).flat_map(|row| &part[row * width..(row + 1) * width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_has_a_place() {
        let model = GptConfig { ffn_hidden: 20, ..GptConfig::new(2, 12, 3, 8, 128) };
        let mut ours: Vec<_> = model::Shard::whole(&model)
            .parameters(&model)
            .into_iter()
            .map(|p| (p.name, p.slice.global))
            .collect();
        let groups = entries(&model);
        let mut listed: Vec<_> = groups.iter().flatten().map(|e| (e.ours.clone(), e.shape.clone())).collect();
        ours.sort();
        listed.sort();
        assert_eq!(listed, ours);
        for entry in groups.iter().flatten() {
            assert_eq!(normal(&entry.theirs), entry.theirs, "a normal name stays");
        }
    }

    /// Element 2 of the key (1) of the second of a rank's two heads, d = 3, followed by hand.
    #[test]
    fn queries_keys_and_values_by_head() {
        for (version, theirs) in
            [(0.0, 6 + 3 + 2), (1.0, (3 + 2) * 3 + 1), (2.0, 9 + 3 + 2), (3.0, 9 + 3 + 2)]
        {
            let mut part = vec![0.0; 18 * 2];
            part[theirs * 2 + 1] = 7.0;
            let ours = by_head(&part, version, 2, 2);
            assert_eq!(ours.iter().position(|&x| x == 7.0), Some((9 + 3 + 2) * 2 + 1), "version {version}");
        }
    }

    #[test]
    fn parts_are_joined() {
        let entry = |shape: &[usize], cut| Entry {
            ours: String::new(),
            shape: shape.to_vec(),
            theirs: String::new(),
            cut,
        };
        let parts = [vec![1.0, 2.0, 3.0, 4.0], vec![5.0, 6.0, 7.0, 8.0]];
        let join = |entry: &Entry, tokens| entry.join(&parts, 3.0, 2, tokens);
        assert_eq!(join(&entry(&[4, 2], Cut::Rows), 0), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(join(&entry(&[2, 4], Cut::Columns), 0), [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]);
        let table = entry(&[5, 2], Cut::Vocabulary);
        assert_eq!(table.part_shape(2, 4), [2, 2]);
        assert_eq!(join(&table, 3), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn names_of_other_versions() {
        for (theirs, name) in [
            ("language_model.embedding.word_embeddings.weight", "embedding.word_embeddings.weight"),
            (
                "language_model.transformer.layers.3.attention.dense.bias",
                "encoder.layers.3.self_attention.dense.bias",
            ),
            ("language_model.encoder.layers.0.input_norm.weight", "encoder.layers.0.input_layernorm.weight"),
            ("language_model.encoder.final_norm.bias", "encoder.final_layernorm.bias"),
            (
                "decoder.layers.1.self_attention.linear_qkv.layer_norm_bias",
                "encoder.layers.1.input_layernorm.bias",
            ),
            (
                "decoder.layers.1.self_attention.linear_qkv.weight",
                "encoder.layers.1.self_attention.query_key_value.weight",
            ),
            (
                "decoder.layers.1.self_attention.linear_proj.bias",
                "encoder.layers.1.self_attention.dense.bias",
            ),
            (
                "decoder.layers.1.mlp.linear_fc1.layer_norm_weight",
                "encoder.layers.1.post_attention_layernorm.weight",
            ),
            ("decoder.layers.1.pre_mlp_layernorm.bias", "encoder.layers.1.post_attention_layernorm.bias"),
            ("decoder.layers.1.mlp.linear_fc2.bias", "encoder.layers.1.mlp.dense_4h_to_h.bias"),
            ("output_layer.weight", HEAD),
        ] {
            assert_eq!(normal(theirs), name);
        }
    }
}
