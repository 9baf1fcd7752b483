//! Line charts as SVG, coloured by the page's style sheet.

use std::fmt::Write;

use super::escape;

/// How the steps are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; steps below 1 are left out.
    Log,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its class in the style sheet.
    pub class: &'static str,
    /// By ascending x, all finite.
    pub points: Vec<(f64, f64)>,
    /// Whether each point is marked and can be pointed at.
    pub dots: bool,
}

impl Series {
    pub fn line(name: &str, class: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), class, points, dots: false }
    }

    pub fn dotted(name: &str, class: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { dots: true, ..Self::line(name, class, points) }
    }
}

/// Curves over the steps.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// What it shows, for a reader who cannot see it.
    pub label: &'a str,
    /// The unit of y.
    pub y_label: &'a str,
    pub scale: Scale,
    /// Width and height, in the page's pixels.
    pub size: (f64, f64),
    /// Whether the y axis starts at 0 whatever the values.
    pub from_zero: bool,
    pub series: &'a [Series],
    /// A height to compare with, and its caption.
    pub reference: Option<(f64, String)>,
}

/// The size of a chart over the page's whole width, and of one of two beside each other.
pub const WIDE: (f64, f64) = (760.0, 300.0);
pub const NARROW: (f64, f64) = (400.0, 220.0);

const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 40.0;
/// Pixels between two ticks, along x and along y.
const TICKS: (f64, f64) = (85.0, 42.0);
/// Columns that a curve is reduced to: more points than pixels are no curve.
const COLUMNS: usize = 600;

/// The names of the curves and their colours.
pub fn legend(series: &[Series]) -> String {
    let mut html = String::from("<p class=\"legend\">");
    for series in series.iter().filter(|series| !series.points.is_empty()) {
        let _ = write!(html, "<span class=\"key {}\"></span>{} ", series.class, escape(&series.name));
    }
    html.push_str("</p>\n");
    html
}

impl Chart<'_> {
    /// The chart as an `<svg>` element.
    pub fn svg(&self) -> String {
        let every = || self.series.iter().flat_map(|s| s.points.iter().copied()).filter(|p| self.shows(p.0));
        let Some((x_min, x_max)) = extent(every().map(|p| p.0)) else {
            return "<p class=\"note\">No steps yet.</p>\n".into();
        };
        let (width, height) = self.size;
        let (right, bottom) = (width - RIGHT, height - BOTTOM);
        let also = self.reference.as_ref().map(|r| r.0).into_iter().chain(self.from_zero.then_some(0.0));
        let (y_min, y_max) = extent(every().map(|p| p.1).chain(also)).unwrap_or((0.0, 1.0));
        let (y_ticks, y_step) = ticks(y_min, y_max, (bottom - TOP) / TICKS.1);
        let y_min = y_min.min(y_ticks[0]);
        let y_max = y_max.max(y_ticks[y_ticks.len() - 1]);
        let frame =
            Frame { scale: self.scale, size: self.size, x: widened(x_min, x_max), y: widened(y_min, y_max) };

        let mut svg = format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n",
            escape(self.label)
        );
        for &tick in &y_ticks {
            let y = frame.y(tick);
            let text = label(tick, y_step);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"tick end\" x=\"{}\" y=\"{:.1}\">{text}</text>",
                LEFT - 8.0,
                y + 4.0
            );
        }
        for (tick, text) in frame.x_ticks() {
            let x = frame.x(tick);
            let _ = write!(svg, "<path class=\"grid\" d=\"M{x:.1} {bottom}v5\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"tick middle\" x=\"{x:.1}\" y=\"{}\">{text}</text>",
                bottom + 18.0
            );
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>");
        let _ = writeln!(
            svg,
            "<text class=\"tick middle\" x=\"{}\" y=\"{}\">step</text>",
            (LEFT + right) / 2.0,
            height - 4.0
        );
        let _ = writeln!(svg, "<text class=\"tick\" x=\"0\" y=\"12\">{}</text>", escape(self.y_label));
        if let Some((level, caption)) = &self.reference {
            let y = frame.y(*level);
            let _ = write!(svg, "<path class=\"reference\" d=\"M{LEFT} {y:.1}H{right}\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"tick end\" x=\"{right}\" y=\"{:.1}\">{}</text>",
                y - 5.0,
                escape(caption)
            );
        }
        for series in self.series {
            self.curve(series, &frame, &mut svg);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn shows(&self, x: f64) -> bool {
        self.scale == Scale::Linear || x >= 1.0
    }

    fn curve(&self, series: &Series, frame: &Frame, svg: &mut String) {
        let shown = series.points.iter().filter(|p| self.shows(p.0));
        let points: Vec<(f64, f64)> = shown.map(|&(x, y)| (frame.x(x), frame.y(y))).collect();
        if points.is_empty() {
            return;
        }
        let text: Vec<String> = reduce(&points).iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(svg, "<polyline class=\"{}\" points=\"{}\"/>", series.class, text.join(" "));
        if series.dots {
            for ((x, y), (step, value)) in points.iter().zip(series.points.iter().filter(|p| self.shows(p.0)))
            {
                let name = escape(&series.name);
                let _ = writeln!(
                    svg,
                    "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"><title>{name}, step {step}: {value:.4}</title></circle>",
                    series.class
                );
            }
        }
    }
}

/// From values to places in the SVG.
struct Frame {
    scale: Scale,
    size: (f64, f64),
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn x(&self, x: f64) -> f64 {
        let place = |x: f64| if self.scale == Scale::Log { x.ln() } else { x };
        let share = (place(x) - place(self.x.0)) / (place(self.x.1) - place(self.x.0));
        LEFT + share * (self.size.0 - LEFT - RIGHT)
    }

    fn y(&self, y: f64) -> f64 {
        let share = (y - self.y.0) / (self.y.1 - self.y.0);
        let bottom = self.size.1 - BOTTOM;
        bottom - share * (bottom - TOP)
    }

    fn x_ticks(&self) -> Vec<(f64, String)> {
        let (min, max) = self.x;
        let all = match self.scale {
            Scale::Linear => {
                let (ticks, step) = ticks(min, max, (self.size.0 - LEFT - RIGHT) / TICKS.0);
                ticks.into_iter().map(|tick| (tick, label(tick, step))).collect()
            }
            Scale::Log => {
                log_ticks(min, max).into_iter().map(|tick| (tick, label(tick, tick))).collect::<Vec<_>>()
            }
        };
        all.into_iter().filter(|(tick, _)| (min..=max).contains(tick)).collect()
    }
}

fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |extent, value| {
        let (min, max) = extent.unwrap_or((value, value));
        Some((min.min(value), max.max(value)))
    })
}

/// A range of one value has no width to draw in.
fn widened(min: f64, max: f64) -> (f64, f64) {
    if min < max { (min, max) } else { (min, min + min.abs().max(1.0)) }
}

/// About `count` round numbers, 1, 2 or 5 times a power of ten apart, that reach over `min..=max`; and their distance.
fn ticks(min: f64, max: f64, count: f64) -> (Vec<f64>, f64) {
    let (min, max) = widened(min, max);
    let rough = (max - min) / count;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((min / step).floor() as i64, (max / step).ceil() as i64);
    ((first..=last).map(|n| n as f64 * step).collect(), step)
}

/// 1, 2 and 5 times the powers of ten; over more than three of them the powers alone.
fn log_ticks(min: f64, max: f64) -> Vec<f64> {
    let between: &[f64] = if max / min > 3000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = min.log10().floor() as i32..=max.log10().ceil() as i32;
    powers.flat_map(|power| between.iter().map(move |m| m * 10f64.powi(power))).collect()
}

/// A tick with the digits that its distance to the next one asks for.
fn label(value: f64, step: f64) -> String {
    let short = |number: f64, step: f64| {
        let digits = (-step.log10()).ceil().clamp(0.0, 6.0) as usize;
        format!("{number:.digits$}")
    };
    match value.abs() {
        0.0 => "0".into(),
        large if large >= 1e6 => short(value / 1e6, step / 1e6) + "M",
        large if large >= 1e4 => short(value / 1e3, step / 1e3) + "k",
        small if small < 1e-2 => {
            // One power of ten for all ticks, as far as they have the same.
            let power = small.log10().floor();
            let unit = 10f64.powf(power);
            format!("{}e{power}", short(value / unit, step / unit))
        }
        _ => short(value, step),
    }
}

/// At most four points a column: first, lowest, highest, last, so that no peak is lost.
fn reduce(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= 2 * COLUMNS {
        return points.to_vec();
    }
    let left = points[0].0;
    let width = (points[points.len() - 1].0 - left) / COLUMNS as f64;
    let column = |point: &(f64, f64)| ((point.0 - left) / width) as usize;
    let mut kept = Vec::new();
    for group in points.chunk_by(|a, b| column(a) == column(b)) {
        let by_height = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends =
            [group.first(), group.iter().min_by(by_height), group.iter().max_by(by_height), group.last()];
        let mut ends: Vec<(f64, f64)> = ends.into_iter().flatten().copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        kept.extend(ends);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_over_the_range() {
        assert_eq!(ticks(4.37, 8.32, 6.0), (vec![4.0, 5.0, 6.0, 7.0, 8.0, 9.0], 1.0));
        assert_eq!(ticks(0.0, 1280.0, 8.0).1, 200.0);
        assert_eq!(ticks(3.0, 3.0, 6.0).0[0], 3.0);
        for (min, max) in [(1e-5, 2e-5), (0.0, 1e9), (-3.0, 4.0), (11_999.0, 12_001.0)] {
            let (ticks, _) = ticks(min, max, 6.0);
            assert!(ticks[0] <= min && ticks[ticks.len() - 1] >= max && ticks.len() <= 9, "{ticks:?}");
        }
        assert_eq!(log_ticks(1.0, 100.0), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]);
    }

    #[test]
    fn labels_are_as_short_as_they_can_be() {
        let texts = [
            label(0.0, 1.0),
            label(4.5, 0.5),
            label(12_500.0, 500.0),
            label(2e6, 1e6),
            label(5e-3, 1e-3),
            label(1000.0, 200.0),
            label(0.25, 0.25),
        ];
        assert_eq!(texts, ["0", "4.5", "12.5k", "2M", "5e-3", "1000", "0.2"]);
    }

    #[test]
    fn many_points_keep_their_peaks() {
        let points: Vec<(f64, f64)> =
            (0..100_000).map(|i| (LEFT + i as f64 * 0.0068, if i == 54_321 { 99.0 } else { 1.0 })).collect();
        let kept = reduce(&points);
        assert!(kept.len() <= 4 * (COLUMNS + 1), "{}", kept.len());
        assert!(kept.contains(&points[54_321]));
        assert_eq!((kept[0], kept[kept.len() - 1]), (points[0], points[99_999]));
        assert!(kept.is_sorted_by(|a, b| a.0 <= b.0));
    }

    #[test]
    fn one_point_and_none() {
        let chart = |series: &[Series]| {
            Chart {
                label: "l",
                y_label: "y",
                scale: Scale::Log,
                size: WIDE,
                from_zero: false,
                series,
                reference: None,
            }
            .svg()
        };
        assert!(chart(&[]).contains("No steps yet"));
        let one = chart(&[Series::dotted("v", "valid", vec![(1.0, 4.5)])]);
        assert!(one.contains("<circle") && !one.contains("NaN") && !one.contains("inf"), "{one}");
    }
}
