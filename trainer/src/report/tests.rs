//! The page as a whole.

use super::*;
use crate::config::{Layers, RunConfig};

/// A run of `steps` whose loss falls as such losses do.
fn run(steps: u64) -> (RunConfig, Vec<StepMetrics>, Summary, Vec<Sample>) {
    let config =
        RunConfig::resolve(&Layers::default().set(&format!("train.steps={steps}")).unwrap()).unwrap();
    let noise = |step: u64| (step.wrapping_mul(2_654_435_761) % 1000) as f64 / 1000.0 - 0.5;
    let loss = |step: u64| 4.2 + 4.1 * (-(step as f64) / 150.0).exp();
    let metrics: Vec<StepMetrics> = (1..=steps)
        .map(|step| StepMetrics {
            step,
            loss: loss(step) + 0.4 * noise(step),
            lr: config.learning_rate().at(config.tokens_after(step)),
            grad_norm: 0.6 + 2.0 * (-(step as f64) / 40.0).exp() + 0.2 * noise(step + 7),
            tokens_per_second: 11_000.0 + 900.0 * noise(step + 3),
            valid_loss: (step % 128 == 0 || step == steps).then(|| loss(step) + 0.05),
            evaluation: vec![],
        })
        .collect();
    let summary = Summary {
        final_valid_loss: loss(steps) + 0.05,
        bits_per_byte: 2.09,
        steps,
        tokens: config.tokens_after(steps),
        seconds: 238.0,
        backend: "cpu".into(),
        layout: config.layout().to_string(),
    };
    let samples = vec![Sample {
        prompt: "fn main() {".into(),
        continuation: "\n    let x: &Vec<u8> = &\"</pre><script>alert(1)</script>\";\n}\u{0}".into(),
    }];
    (config, metrics, summary, samples)
}

fn page(steps: u64) -> String {
    let (config, metrics, summary, samples) = run(steps);
    Report { config: &config, metrics: &metrics, summary: &summary, samples: &samples }.html()
}

/// Every element that is opened is closed, in order.
fn assert_balanced(page: &str) {
    let void = ["meta", "input", "!doctype", "path", "rect", "polyline", "circle"];
    let mut open: Vec<&str> = Vec::new();
    for piece in page.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect("a tag ends");
        let name = tag.split([' ', '\n', '/']).find(|word| !word.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "near <{tag}>");
        } else if !tag.ends_with('/') && (!void.contains(&name) || matches!(name, "rect" | "circle")) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_page_is_self_contained_and_sound() {
    let page = page(1280);
    for outside in ["http", "src=", "<script", "@import", "url(", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    for bad in ["NaN", "inf\"", "{}"] {
        assert!(!page.contains(bad), "{bad}");
    }
    assert_balanced(&page);
    assert_eq!(page.matches("<svg").count(), 6);
    assert!(page.len() < 300_000, "{}", page.len());
    if let Ok(path) = std::env::var("MTNLG_TEST_REPORT") {
        std::fs::write(path, &page).unwrap();
    }
}

#[test]
fn it_shows_the_run() {
    let page = page(1280);
    for text in [
        "4.2508",
        "2,621,440",
        "1,350,400",
        "3m58s",
        "uniform over 4096 tokens: 8.32",
        "schedule = &quot;1f1b&quot;",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // Ten validations, as dots of both loss charts and as rows.
    assert_eq!(page.matches("<circle").count(), 20);
    assert_eq!(page.matches("<tr><td>").count() - 1, 10);
}

#[test]
fn an_evaluation_stands_beside_what_is_published() {
    use crate::metrics::Evaluated;
    let (config, mut metrics, summary, samples) = run(200);
    let html = |metrics: &[StepMetrics]| {
        Report { config: &config, metrics, summary: &summary, samples: &samples }.html()
    };
    assert!(!html(&metrics).contains("<h2>Evaluation</h2>"));
    let metric = |task: &str, shots, metric: &str, value| Evaluated {
        task: task.into(),
        shots,
        documents: 1838,
        metric: metric.into(),
        value,
        stderr: value.map(|_| 0.0123),
    };
    for (step, acc) in [(99, 0.5011), (199, 0.6022)] {
        metrics[step].evaluation = vec![
            metric("piqa", 0, "acc", Some(0.4)),
            metric("piqa", 0, "acc_norm", Some(acc)),
            metric("lambada_openai", 0, "perplexity", None),
            metric("lambada_openai", 3, "acc", Some(0.1)),
        ];
    }
    let page = html(&metrics);
    assert_balanced(&page);
    assert!(!page.contains("NaN") && page.contains("<h2>Evaluation</h2>") && page.contains("Of step 200."));
    // Of the last step, as per cent with its error, and MT-NLG's and GPT-3's number beside the headline metric alone.
    let row = "<td>piqa</td><td>0</td><td>1,838</td><td>acc_norm</td><td>60.22 ± 1.23</td><td>81.99</td><td>81.00</td>";
    assert!(page.contains(row), "{page}");
    assert!(
        page.contains("<td>acc</td><td>40.00 ± 1.23</td><td></td><td></td>") && !page.contains("50.11 ±")
    );
    assert!(page.contains("<td>perplexity</td><td>–</td>"));
    // A chart of each headline, PIQA's with the published line; LAMBADA was not published with three examples.
    assert_eq!(page.matches("<svg").count(), 8);
    assert_eq!(page.matches("MT-NLG 530B: ").count(), 1);
}

#[test]
fn what_the_model_writes_is_only_text() {
    let page = page(10);
    assert!(page.contains("<b>fn main() {</b>\n    let x: &amp;Vec&lt;u8&gt;"));
    assert!(page.contains("&lt;script&gt;") && !page.contains('\u{0}'));
}

#[test]
fn a_run_that_has_hardly_begun_or_gone_wrong_has_a_page_too() {
    let (config, mut metrics, mut summary, _) = run(3);
    metrics[1].loss = f64::NAN;
    metrics[2].grad_norm = f64::INFINITY;
    (summary.final_valid_loss, summary.seconds) = (f64::NAN, 0.0);
    for metrics in [&metrics[..], &metrics[..1], &[]] {
        let page = Report { config: &config, metrics, summary: &summary, samples: &[] }.html();
        assert_balanced(&page);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }
}

#[test]
fn a_recorded_step_is_drawn_where_there_is_one() {
    use crate::timeline::{Args, Category};
    let (config, metrics, summary, samples) = run(9);
    let report = Report { config: &config, metrics: &metrics, summary: &summary, samples: &samples };
    assert!(!report.html().contains("as measured"));
    let origin = std::time::Instant::now();
    let rank = Recorder::new(0, "stage 0", origin, 9);
    rank.span(Category::Forward, "forward", origin, origin + Duration::from_millis(3), Args::default());
    let page = report.html_with(&[rank]);
    assert!(page.contains("<h2>A step as measured</h2>"));
    assert_balanced(&page);
}
