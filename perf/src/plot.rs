//! Plots in plain SVG: lines and bars.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 400.0;
/// Room for what is written around the plot: left, top, right, bottom.
const MARGIN: [f64; 4] = [64.0, 40.0, 16.0, 48.0];
/// Told apart by people who see colours differently, too (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// A row of figures of the same kind.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is called.
    pub name: String,
    /// x, lowest, median and highest y.
    pub points: Vec<[f64; 4]>,
}

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// Each step ten times the one before.
    Logarithmic,
}

/// Lines with markers, and a bar from the lowest to the highest figure of each.
#[must_use]
pub fn lines(title: &str, x_label: &str, y_label: &str, scale: Scale, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|it| &it.points);
    let across = |x: f64| if scale == Scale::Logarithmic { x.max(1e-9).log10() } else { x };
    let least = points().map(|it| across(it[0])).fold(f64::INFINITY, f64::min);
    let most = points().map(|it| across(it[0])).fold(f64::NEG_INFINITY, f64::max);
    let mut svg = Canvas::new(title, x_label, y_label, points().map(|it| it[3]).fold(0.0, f64::max));
    let place = |x: f64| MARGIN[0] + 24.0 + (across(x) - least) / (most - least).max(1e-9) * (inner_width() - 48.0);
    let mut marks: Vec<f64> = points().map(|it| it[0]).collect();
    marks.sort_unstable_by(f64::total_cmp);
    marks.dedup();
    for mark in marks {
        svg.text(place(mark), HEIGHT - MARGIN[3] + 16.0, "middle", &short(mark));
    }
    for (number, Series { name, points }) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<String> = points.iter().map(|it| format!("{:.1},{:.1}", place(it[0]), svg.y(it[2]))).collect();
        svg.put(&format!(r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, path.join(" ")));
        for &[x, low, median, high] in points {
            let (x, low, high) = (place(x), svg.y(low), svg.y(high));
            svg.put(&format!(r#"<line x1="{x:.1}" x2="{x:.1}" y1="{low:.1}" y2="{high:.1}" stroke="{colour}"/>"#));
            svg.put(&format!(r#"<circle cx="{x:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, svg.y(median)));
        }
        svg.legend(number, name);
    }
    svg.finish()
}

/// Groups of bars: each has a name, and a figure, or none, for each series.
#[must_use]
pub fn bars(title: &str, y_label: &str, series: &[&str], groups: &[(String, Vec<Option<f64>>)]) -> String {
    let most = groups.iter().flat_map(|(_, figures)| figures).flatten().copied().fold(0.0, f64::max);
    let mut svg = Canvas::new(title, "", y_label, most);
    let group_width = inner_width() / groups.len().max(1) as f64;
    let width = group_width * 0.8 / series.len().max(1) as f64;
    for (at, (name, figures)) in groups.iter().enumerate() {
        let left = MARGIN[0] + group_width * (at as f64 + 0.1);
        for (number, figure) in figures.iter().enumerate() {
            let Some(figure) = figure else { continue };
            let (x, y) = (left + width * number as f64, svg.y(*figure));
            let height = HEIGHT - MARGIN[3] - y;
            let colour = COLOURS[number % COLOURS.len()];
            let size = format!(r#"width="{:.1}" height="{height:.1}""#, width * 0.92);
            svg.put(&format!(r#"<rect x="{x:.1}" y="{y:.1}" {size} fill="{colour}"/>"#));
        }
        // Two lines, so that names do not meet.
        let (first, second) = name.split_once(", ").unwrap_or((name, ""));
        svg.text(left + group_width * 0.4, HEIGHT - MARGIN[3] + 16.0, "middle", first);
        svg.text(left + group_width * 0.4, HEIGHT - MARGIN[3] + 30.0, "middle", second);
    }
    for (number, name) in series.iter().enumerate() {
        svg.legend(number, name);
    }
    svg.finish()
}

const fn inner_width() -> f64 {
    WIDTH - MARGIN[0] - MARGIN[2]
}

/// `1032192` as `1M`.
fn short(number: f64) -> String {
    match number {
        it if it >= 1e6 => format!("{:.0}M", it / 1e6),
        it if it >= 1e3 => format!("{:.0}k", it / 1e3),
        it if it >= 10.0 || it.fract() == 0.0 => format!("{it:.0}"),
        it => format!("{it:.2}"),
    }
}

/// A plot's frame, its y axis and what is drawn on it.
struct Canvas {
    svg: String,
    top: f64,
}

impl Canvas {
    /// One whose y axis goes from 0 to at least `most`.
    fn new(title: &str, x_label: &str, y_label: &str, most: f64) -> Self {
        // A step of 1, 2 or 5 times a power of ten, some six of them.
        let rough = (most / 5.0).max(1e-9);
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|it| it * power).find(|&it| it >= rough).unwrap_or(rough);
        let steps = (most / step).ceil().max(1.0);
        let mut canvas = Canvas { svg: String::new(), top: step * steps };
        let size = format!(r#"width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}""#);
        let font = r#"font-family="sans-serif" font-size="12""#;
        canvas.put(&format!(r#"<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>"#));
        canvas.put(&format!(r#"<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>"#));
        canvas.text(WIDTH / 2.0, 16.0, "middle", title);
        canvas.text(MARGIN[0] + inner_width() / 2.0, HEIGHT - 8.0, "middle", x_label);
        canvas.text(8.0, 32.0, "start", y_label);
        for at in 0..=10_u8 {
            let value = step * f64::from(at);
            if value > canvas.top * 1.001 {
                break;
            }
            let (y, end) = (canvas.y(value), WIDTH - MARGIN[2]);
            let line = format!(r#"<line x1="{}" x2="{end}" y1="{y:.1}" y2="{y:.1}" stroke="silver"/>"#, MARGIN[0]);
            canvas.put(&line);
            canvas.text(MARGIN[0] - 6.0, y + 4.0, "end", &short(value));
        }
        canvas
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - MARGIN[3] - value / self.top * (HEIGHT - MARGIN[1] - MARGIN[3])
    }

    fn put(&mut self, element: &str) {
        let _ = writeln!(self.svg, "{element}");
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.put(&format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#));
    }

    fn legend(&mut self, number: usize, name: &str) {
        let (x, y) = (MARGIN[0] + 12.0, MARGIN[1] + 16.0 + 16.0 * number as f64);
        let colour = COLOURS[number % COLOURS.len()];
        self.put(&format!(r#"<rect x="{x}" y="{}" width="10" height="10" fill="{colour}"/>"#, y - 9.0));
        self.text(x + 16.0, y, "start", name);
    }

    fn finish(mut self) -> String {
        self.put("</svg>");
        self.svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_have_a_mark_for_every_figure() {
        let series =
            |name: &str| Series { name: name.into(), points: vec![[1.0, 9.0, 10.0, 11.0], [1e6, 40.0, 50.0, 90.0]] };
        let svg = lines("t", "flows", "cycles", Scale::Logarithmic, &[series("a < b"), series("c")]);
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (2, 4));
        assert!(svg.contains("a &lt; b") && svg.trim_end().ends_with("</svg>"));
        let bars = bars("t", "Mpps", &["x", "y"], &[("one, way".into(), vec![Some(3.0), None])]);
        // The background, one bar, and a mark for each of two series.
        assert_eq!(bars.matches("<rect").count(), 4);
    }

    #[test]
    fn the_highest_figure_is_inside() {
        for most in [0.0, 0.07, 1.0, 99.0, 1_234_567.0] {
            let canvas = Canvas::new("", "", "", most);
            assert!(canvas.y(most) >= MARGIN[1] - 1e-6 && canvas.top >= most, "{most}: {}", canvas.top);
        }
    }
}
