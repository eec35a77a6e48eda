//! Pictures of figures over time, as SVG: panels below each other that share one time axis.

use std::fmt::Write;

use crate::suite::table::number;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 100.0;
/// Room above a panel for its title and legend.
const HEAD: f64 = 34.0;
/// Room below the last panel for the time axis.
const FOOT: f64 = 44.0;
const LINE: f64 = 17.0;
/// Characters of the title block in one line.
const WRAP: usize = 150;

/// Colours of lines, told apart by those who do not see red and green as different too.
pub const BLUE: &str = "#1f6fb2";
/// See [`BLUE`].
pub const ORANGE: &str = "#d1701c";
/// See [`BLUE`].
pub const GREEN: &str = "#1b8a6b";
/// See [`BLUE`].
pub const PURPLE: &str = "#8e5bb5";
/// See [`BLUE`].
pub const GREY: &str = "#666666";

/// How values become heights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// From zero up.
    Linear,
    /// Whole powers of ten. Values of zero and below are left out.
    Log,
}

/// Values over time.
#[derive(Clone, Debug)]
pub struct Line {
    /// For the legend.
    pub name: String,
    /// Its colour.
    pub colour: &'static str,
    /// Seconds and values, by time.
    pub points: Vec<(f64, f64)>,
}

/// One chart.
#[derive(Clone, Debug)]
pub struct Panel {
    /// What is shown, with its unit.
    pub title: String,
    /// How values become heights.
    pub scale: Scale,
    /// What is drawn.
    pub lines: Vec<Line>,
    /// A value to be held against, with its name.
    pub goal: Option<(f64, String)>,
}

/// A stretch of time with a background of its own.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its start in seconds.
    pub from: f64,
    /// Its end.
    pub to: f64,
    /// Shown if there is room.
    pub name: String,
    /// The background.
    pub tint: &'static str,
}

/// A picture.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Its title.
    pub title: String,
    /// What a reader must know, below the title.
    pub notes: Vec<String>,
    /// Stretches of time, behind all panels.
    pub spans: Vec<Span>,
    /// The charts, from the top down.
    pub panels: Vec<Panel>,
    /// Points further apart than so many seconds are not joined.
    pub gap: f64,
}

/// The range of an axis and the values that it names.
struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    scale: Scale,
}

impl Axis {
    /// Ticks are 1, 2, 2.5 or 5 times a power of ten.
    fn linear(low: f64, high: f64, ticks: f64, round_up: bool) -> Axis {
        let rough = ((high - low) / ticks).max(1e-9);
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(10.0 * power);
        let high = if round_up {
            (high / step).ceil() * step
        } else {
            high
        };
        let count = ((high - low) / step + 1e-6).floor() as u32;
        Axis {
            low,
            high: high.max(low + step),
            ticks: (0..=count).map(|i| low + f64::from(i) * step).collect(),
            scale: Scale::Linear,
        }
    }

    fn log(low: f64, high: f64) -> Axis {
        let first = low.log10().floor() as i32;
        let last = (high.log10().ceil() as i32).max(first + 1);
        Axis {
            low: f64::from(first),
            high: f64::from(last),
            ticks: (first..=last).map(|power| 10f64.powi(power)).collect(),
            scale: Scale::Log,
        }
    }

    /// Values of a panel, its goal included.
    fn of_values(panel: &Panel) -> Axis {
        let goal = panel.goal.iter().map(|(value, _)| *value);
        let points = panel.lines.iter().flat_map(|line| &line.points).map(|p| p.1);
        let all: Vec<f64> = points.chain(goal).filter(|v| v.is_finite()).collect();
        let high = all.iter().copied().fold(0.0, f64::max);
        match panel.scale {
            Scale::Linear => Axis::linear(0.0, if high > 0.0 { high } else { 1.0 }, 4.0, true),
            Scale::Log => {
                let positive = all.iter().copied().filter(|v| *v > 0.0);
                let low = positive.fold(f64::INFINITY, f64::min);
                match low.is_finite() {
                    true => Axis::log(low, high),
                    false => Axis::log(1.0, 10.0),
                }
            }
        }
    }

    /// Where a value lies between both ends, from 0 to 1; `None` if it cannot be shown.
    fn place(&self, value: f64) -> Option<f64> {
        let value = match self.scale {
            Scale::Log if value <= 0.0 => return None,
            Scale::Log => value.log10(),
            Scale::Linear => value,
        };
        let at = (value - self.low) / (self.high - self.low);
        at.is_finite().then(|| at.clamp(0.0, 1.0))
    }
}

impl Picture {
    /// The file's text.
    pub fn to_svg(&self) -> String {
        let notes: Vec<String> = self.notes.iter().flat_map(|note| wrap(note)).collect();
        let top = 34.0 + LINE * notes.len() as f64;
        let height = top + (HEAD + PANEL) * self.panels.len() as f64 + FOOT;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" font-family=\"Verdana, DejaVu Sans, sans-serif\" font-size=\"12\" fill=\"#222222\">\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        );
        text(
            &mut out,
            (LEFT, 24.0),
            "start",
            "font-size=\"16\" font-weight=\"bold\"",
            &self.title,
        );
        for (at, note) in notes.iter().enumerate() {
            text(
                &mut out,
                (LEFT, 43.0 + LINE * at as f64),
                "start",
                "fill=\"#555555\"",
                note,
            );
        }
        let time = self.time_axis();
        for (at, panel) in self.panels.iter().enumerate() {
            let y = top + (HEAD + PANEL) * at as f64 + HEAD;
            self.draw_panel(&mut out, panel, &time, y, at == 0);
        }
        self.draw_time(&mut out, &time, height - FOOT);
        out.push_str("</svg>\n");
        out
    }

    /// All points and spans, in seconds.
    fn time_axis(&self) -> Axis {
        let lines = self.panels.iter().flat_map(|panel| &panel.lines);
        let points = lines.flat_map(|line| &line.points).map(|p| p.0);
        let all = points.chain(self.spans.iter().flat_map(|span| [span.from, span.to]));
        let high = all.fold(1.0, f64::max);
        match self.in_minutes(high) {
            // Ticks at whole minutes: the axis is in minutes while it is made.
            true => {
                let axis = Axis::linear(0.0, high / 60.0, 12.0, false);
                Axis {
                    high: axis.high * 60.0,
                    ticks: axis.ticks.iter().map(|tick| tick * 60.0).collect(),
                    ..axis
                }
            }
            false => Axis::linear(0.0, high, 12.0, false),
        }
    }

    fn in_minutes(&self, high: f64) -> bool {
        high > 900.0
    }

    fn draw_panel(&self, out: &mut String, panel: &Panel, time: &Axis, top: f64, is_first: bool) {
        let bottom = top + PANEL;
        let values = Axis::of_values(panel);
        let x = |at: f64| time.place(at).map(|part| LEFT + part * (WIDTH - LEFT - RIGHT));
        let y = |value: f64| values.place(value).map(|part| bottom - part * PANEL);
        for span in &self.spans {
            let (Some(from), Some(to)) = (x(span.from), x(span.to)) else {
                continue;
            };
            let width = to - from;
            _ = writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{PANEL}\" fill=\"{}\"/>",
                span.tint
            );
            if is_first && width > 6.5 * span.name.chars().count() as f64 {
                let at = (from + width / 2.0, top + 13.0);
                text(out, at, "middle", "fill=\"#777777\" font-size=\"11\"", &span.name);
            }
        }
        for tick in &values.ticks {
            let Some(at) = y(*tick) else { continue };
            line(out, (LEFT, at), (WIDTH - RIGHT, at), "stroke=\"#dddddd\"");
            text(
                out,
                (LEFT - 6.0, at + 4.0),
                "end",
                "fill=\"#555555\" font-size=\"11\"",
                &number(*tick),
            );
        }
        if let Some((goal, name)) = &panel.goal
            && let Some(at) = y(*goal)
        {
            line(
                out,
                (LEFT, at),
                (WIDTH - RIGHT, at),
                "stroke=\"#b00020\" stroke-dasharray=\"5 4\"",
            );
            let style = "fill=\"#b00020\" font-size=\"11\"";
            text(out, (WIDTH - RIGHT - 3.0, at - 3.0), "end", style, name);
        }
        for drawn in &panel.lines {
            let path = self.path(&drawn.points, &x, &y);
            if !path.is_empty() {
                _ = writeln!(
                    out,
                    "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.6\" stroke-linejoin=\"round\" \
                     stroke-linecap=\"round\"/>",
                    drawn.colour
                );
            }
        }
        for drawn in &panel.lines {
            for (at, value) in self.alone(&drawn.points) {
                if let (Some(px), Some(py)) = (x(at), y(value)) {
                    let colour = drawn.colour;
                    _ = writeln!(
                        out,
                        "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"2.2\" fill=\"{colour}\"/>"
                    );
                }
            }
        }
        line(out, (LEFT, top), (LEFT, bottom), "stroke=\"#888888\"");
        line(out, (LEFT, bottom), (WIDTH - RIGHT, bottom), "stroke=\"#888888\"");
        draw_legend(out, panel, top - 7.0);
    }

    /// Points with no neighbour that they could be joined to: a line would hardly show them.
    fn alone(&self, points: &[(f64, f64)]) -> Vec<(f64, f64)> {
        let is_near =
            |a: Option<&(f64, f64)>, b: &(f64, f64)| a.is_some_and(|a| (a.0 - b.0).abs() <= self.gap);
        let shown: Vec<&(f64, f64)> = points.iter().filter(|p| p.1 > 0.0).collect();
        let lone = shown.iter().enumerate().filter(|(at, point)| {
            let before = at.checked_sub(1).and_then(|at| shown.get(at)).copied();
            !is_near(before, point) && !is_near(shown.get(at + 1).copied(), point)
        });
        lone.map(|(_, point)| **point).collect()
    }

    /// Points that are close in time are joined.
    fn path(
        &self,
        points: &[(f64, f64)],
        x: &impl Fn(f64) -> Option<f64>,
        y: &impl Fn(f64) -> Option<f64>,
    ) -> String {
        let mut path = String::new();
        let mut last: Option<f64> = None;
        for (at, value) in points {
            let (Some(px), Some(py)) = (x(*at), y(*value)) else {
                last = None;
                continue;
            };
            let joined = last.is_some_and(|last| at - last <= self.gap);
            let step = if joined { "L" } else { "M" };
            _ = write!(path, "{step}{px:.1} {py:.1}");
            if !joined {
                path.push_str("h0.1");
            }
            last = Some(*at);
        }
        path
    }

    fn draw_time(&self, out: &mut String, time: &Axis, bottom: f64) {
        let in_minutes = self.in_minutes(time.high);
        for tick in &time.ticks {
            let Some(part) = time.place(*tick) else { continue };
            let at = LEFT + part * (WIDTH - LEFT - RIGHT);
            line(out, (at, bottom), (at, bottom + 4.0), "stroke=\"#888888\"");
            let shown = number(if in_minutes { tick / 60.0 } else { *tick });
            text(
                out,
                (at, bottom + 18.0),
                "middle",
                "fill=\"#555555\" font-size=\"11\"",
                &shown,
            );
        }
        let unit = if in_minutes { "minutes" } else { "seconds" };
        text(
            out,
            (LEFT + (WIDTH - LEFT - RIGHT) / 2.0, bottom + 35.0),
            "middle",
            "",
            unit,
        );
    }
}

fn draw_legend(out: &mut String, panel: &Panel, y: f64) {
    text(out, (LEFT, y), "start", "font-weight=\"bold\"", &panel.title);
    let mut right = WIDTH - RIGHT;
    for drawn in panel.lines.iter().rev() {
        text(out, (right, y), "end", "font-size=\"11\"", &drawn.name);
        right -= 5.9 * drawn.name.chars().count() as f64 + 8.0;
        let style = format!("stroke=\"{}\" stroke-width=\"3\"", drawn.colour);
        line(out, (right - 16.0, y - 4.0), (right, y - 4.0), &style);
        right -= 28.0;
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), style: &str) {
    _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" {style}/>",
        from.0, from.1, to.0, to.1
    );
}

fn text(out: &mut String, at: (f64, f64), anchor: &str, style: &str, what: &str) {
    _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" {style}>{}</text>",
        at.0,
        at.1,
        escape(what)
    );
}

fn escape(what: &str) -> String {
    what.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// SVG does not break lines by itself.
fn wrap(note: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in note.split_whitespace() {
        let full = lines
            .last()
            .is_some_and(|line| !line.is_empty() && line.chars().count() + word.chars().count() >= WRAP);
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(scale: Scale, points: &[(f64, f64)]) -> Panel {
        Panel {
            title: "a & b".to_owned(),
            scale,
            lines: vec![Line {
                name: "Drumlin".to_owned(),
                colour: BLUE,
                points: points.to_vec(),
            }],
            goal: None,
        }
    }

    fn picture(panels: Vec<Panel>) -> Picture {
        Picture {
            title: "t".to_owned(),
            notes: Vec::new(),
            spans: Vec::new(),
            panels,
            gap: 2.5,
        }
    }

    #[test]
    fn axes_have_round_ticks() {
        let axis = Axis::linear(0.0, 609.0, 4.0, true);
        assert_eq!(
            (axis.high, axis.ticks),
            (800.0, vec![0.0, 200.0, 400.0, 600.0, 800.0])
        );
        let axis = Axis::log(0.7, 3_300.0);
        assert_eq!(axis.ticks, [0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0]);
        assert_eq!(
            (axis.place(0.1), axis.place(10_000.0), axis.place(0.0)),
            (Some(0.0), Some(1.0), None)
        );
    }

    #[test]
    fn a_gap_is_not_joined() {
        let drawn = picture(vec![panel(Scale::Linear, &[(0.0, 1.0), (1.0, 2.0), (9.0, 1.0)])]).to_svg();
        let path = drawn
            .split("<path d=\"")
            .nth(1)
            .and_then(|p| p.split('"').next())
            .expect("a path");
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1));
        assert_eq!(drawn.matches("<circle").count(), 1);
    }

    #[test]
    fn text_is_escaped_and_nothing_is_not_a_number() {
        let drawn = picture(vec![panel(Scale::Log, &[]), panel(Scale::Linear, &[(0.0, 0.0)])]).to_svg();
        assert!(drawn.contains("a &amp; b") && !drawn.contains("NaN") && !drawn.contains("inf"));
        assert_eq!(drawn.matches("<svg").count(), drawn.matches("</svg>").count());
    }
}
