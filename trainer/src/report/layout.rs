//! The layout drawn: a row a pipeline stage, a column a replica, in each cell the tensor ranks.

use std::fmt::Write;

use crate::config::RunConfig;
use crate::layout::{Coordinates, virtual_stage_layers};

/// Ranks that are drawn; of a larger world the first replicas.
const RANKS: usize = 512;

/// The drawing as HTML.
pub fn html(config: &RunConfig) -> String {
    let layout = &config.layout();
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
        let _ = write!(html, "<tr><th>stage {stage}<small>{}</small></th>", holds(config, stage));
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

/// What a stage holds, in words: the layers of each of its model chunks.
fn holds(config: &RunConfig, stage: usize) -> String {
    let pipeline = config.pipeline(config.train.global_batch);
    let parts = pipeline.stages * pipeline.chunks;
    let given = (!config.parallel.layers.is_empty()).then_some(&config.parallel.layers[..]);
    let chunks = (0..pipeline.chunks).map(|chunk| {
        match virtual_stage_layers(config.model.layers, given, parts, pipeline.virtual_stage(stage, chunk)) {
            Ok(layers) if layers.len() == 1 => format!("layer {}", layers.start),
            Ok(layers) => format!("layers {}–{}", layers.start, layers.end - 1),
            Err(error) => error.to_string(),
        }
    });
    let layers = chunks.collect::<Vec<_>>().join(" and ");
    let first = if stage == 0 { "embedding, " } else { "" };
    let last = if stage + 1 == pipeline.stages { ", final norm, logits" } else { "" };
    super::escape(&format!("{first}{layers}{last}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, defaults};

    fn resolve(sets: &[&str]) -> RunConfig {
        let layers = sets.iter().try_fold(Layers::default(), |layers, set| layers.set(set));
        RunConfig::resolve(&layers.unwrap()).unwrap()
    }

    #[test]
    fn every_rank_and_layer_is_there() {
        let html = html(&resolve(&["model.layers=5", "parallel.pipeline=3"]));
        for rank in 0..12 {
            assert!(html.contains(&format!(">{rank}</span>")), "{rank}");
        }
        for text in ["embedding, layers 0–1", ">layers 2–3<", "layer 4, final norm, logits", "replica 1"]
        {
            assert!(html.contains(text), "{text}");
        }
    }

    #[test]
    fn uneven_stages_and_chunks() {
        let uneven = html(&resolve(&["parallel.layers=[1,3]"]));
        assert!(
            uneven.contains("embedding, layer 0<") && uneven.contains("layers 1–3, final norm"),
            "{uneven}"
        );
        let chunks = html(&resolve(&["parallel.schedule=interleaved"]));
        assert!(chunks.contains("embedding, layer 0 and layer 2<"), "{chunks}");
    }

    #[test]
    fn a_large_world_shows_its_first_replicas() {
        let html = html(&defaults::preset("mt-nlg-530b").unwrap());
        assert!(html.contains("2240 ranks") && html.contains("… and 7 more"));
        assert_eq!(html.matches("class=\"rank\"").count(), 280);
    }
}
