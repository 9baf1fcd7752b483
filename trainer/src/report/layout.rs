//! The layout drawn: a row a pipeline stage, a column a replica, in each cell the tensor ranks.

use std::fmt::Write;

use model::GptConfig;

use crate::layout::{Coordinates, Layout};

/// Ranks that are drawn; of a larger world the first replicas.
const RANKS: usize = 512;

/// The drawing as HTML.
pub fn html(layout: &Layout, model: &GptConfig) -> String {
    let (tp, pp, dp) = (layout.tp(), layout.pp(), layout.dp());
    let replicas = dp.min((RANKS / (tp * pp)).max(1));
    let mut html = format!(
        "<p class=\"note\">{} rank{}: {layout}. A box is a rank; the ranks of a cell share its layers by tensor parallelism, a column is one \
         pipeline, the cells of a row hold the same weights.</p>\n<div class=\"wide\">\n<table class=\"layout\">\n<tr><td></td>",
        layout.world_size(),
        if layout.world_size() == 1 { "" } else { "s" },
    );
    for replica in 0..replicas {
        let _ = write!(html, "<th>replica {replica}</th>");
    }
    if replicas < dp {
        let _ = write!(html, "<th>… and {} more</th>", dp - replicas);
    }
    html.push_str("</tr>\n");
    for stage in 0..pp {
        let _ = write!(html, "<tr><th>stage {stage}<small>{}</small></th>", holds(layout, model, stage));
        for replica in 0..replicas {
            html.push_str("<td>");
            for tensor in 0..tp {
                let rank = layout.rank_of(Coordinates { tp: tensor, dp: replica, pp: stage });
                let _ = write!(
                    html,
                    "<span class=\"rank\" title=\"rank {rank}: tensor {tensor}, data {replica}, stage {stage}\">{rank}</span>"
                );
            }
            html.push_str("</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table>\n</div>\n");
    html
}

/// What a stage holds, in words.
fn holds(layout: &Layout, model: &GptConfig, stage: usize) -> String {
    let rank = layout.rank_of(Coordinates { tp: 0, dp: 0, pp: stage });
    let layers = match layout.layers_of(rank, model.layers) {
        Ok(layers) if layers.len() == 1 => format!("layer {}", layers.start),
        Ok(layers) => format!("layers {}–{}", layers.start, layers.end - 1),
        Err(error) => error.to_string(),
    };
    let first = if stage == 0 { "embedding, " } else { "" };
    let last = if stage + 1 == layout.pp() { ", final norm, logits" } else { "" };
    super::escape(&format!("{first}{layers}{last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_and_layer_is_there() {
        let model = GptConfig::new(5, 128, 4, 256, 4096);
        let html = html(&Layout::new(2, 3, 2).unwrap(), &model);
        for rank in 0..12 {
            assert!(html.contains(&format!(">{rank}</span>")), "{rank}");
        }
        for text in ["embedding, layers 0–1", ">layers 2–3<", "layer 4, final norm, logits", "replica 1"]
        {
            assert!(html.contains(text), "{text}");
        }
    }

    #[test]
    fn a_large_world_shows_its_first_replicas() {
        let model = model::presets::find("mt-nlg-530b").unwrap().config;
        let html = html(&Layout::new(8, 35, 8).unwrap(), &model);
        assert!(html.contains("2240 ranks") && html.contains("… and 7 more"));
        assert_eq!(html.matches("class=\"rank\"").count(), 280);
    }
}
