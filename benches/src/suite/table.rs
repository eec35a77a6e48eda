//! The figures, the goals beside them, and how both are shown.

use serde::Serialize;
use serde_json::{Value, json};

/// What is asked of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub enum Goal {
    /// Ours divided by Kafka's, at least.
    RatioAtLeast(f64),
    /// Ours divided by Kafka's, at most.
    RatioAtMost(f64),
    /// Ours alone, at most.
    AtMost(f64),
    /// Ours alone, at least.
    AtLeast(f64),
}

impl Goal {
    fn shown(self) -> String {
        match self {
            Goal::RatioAtLeast(x) => format!("≥ {} ×", number(x)),
            Goal::RatioAtMost(x) => format!("≤ {} ×", number(x)),
            Goal::AtMost(x) => format!("≤ {}", number(x)),
            Goal::AtLeast(x) => format!("≥ {}", number(x)),
        }
    }
}

/// One figure of ours, and the same of what it is held against.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Local directory, MinIO, memory.
    pub store: String,
    /// What was run.
    pub case: String,
    /// What was measured, with its unit.
    pub measure: String,
    /// Ours.
    pub ours: Option<f64>,
    /// Kafka's, or the proxy's.
    pub peer: Option<f64>,
    /// What the issue asks for.
    pub goals: Vec<Goal>,
}

impl Row {
    /// Ours divided by theirs.
    pub fn ratio(&self) -> Option<f64> {
        match (self.ours, self.peer) {
            (Some(ours), Some(peer)) if peer > 0.0 => Some(ours / peer),
            _ => None,
        }
    }

    /// `pass`, `short`, or nothing where no goal is set or no figure was had.
    pub fn verdict(&self) -> &'static str {
        let met = |goal: &Goal| match *goal {
            Goal::RatioAtLeast(x) => self.ratio().map(|r| r >= x),
            Goal::RatioAtMost(x) => self.ratio().map(|r| r <= x),
            Goal::AtMost(x) => self.ours.map(|o| o <= x),
            Goal::AtLeast(x) => self.ours.map(|o| o >= x),
        };
        let verdicts: Vec<Option<bool>> = self.goals.iter().map(met).collect();
        match verdicts.as_slice() {
            [] => "",
            all if all.contains(&Some(false)) => "short",
            all if all.contains(&None) => "?",
            _ => "pass",
        }
    }

    fn cells(&self) -> [String; 8] {
        let shown = |x: Option<f64>| x.map_or_else(|| "–".to_owned(), number);
        let goals: Vec<String> = self.goals.iter().map(|g| g.shown()).collect();
        [
            self.store.clone(),
            self.case.clone(),
            self.measure.clone(),
            shown(self.ours),
            shown(self.peer),
            self.ratio()
                .map_or_else(String::new, |r| format!("{} ×", number(r))),
            goals.join(", "),
            self.verdict().to_owned(),
        ]
    }

    /// For the results file.
    pub fn json(&self) -> Value {
        json!({
            "store": self.store, "case": self.case, "measure": self.measure,
            "drumlin": self.ours, "peer": self.peer, "ratio": self.ratio(),
            "goals": self.goals.iter().map(|g| g.shown()).collect::<Vec<_>>(), "verdict": self.verdict(),
        })
    }
}

/// Three digits or so, whatever the size.
pub fn number(x: f64) -> String {
    let size = x.abs();
    match size {
        _ if size == 0.0 => "0".to_owned(),
        _ if size >= 100.0 => format!("{x:.0}"),
        _ if size >= 10.0 => format!("{x:.1}").trim_end_matches(".0").to_owned(),
        _ if size >= 0.1 => format!("{x:.2}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned(),
        _ => format!("{x:.4}"),
    }
}

const HEAD: [&str; 8] = [
    "store", "case", "measure", "Drumlin", "Kafka", "ratio", "goal", "",
];

/// A Markdown table that is also readable as it is.
pub fn markdown(rows: &[Row]) -> String {
    let cells: Vec<[String; 8]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let width = |column: usize| {
        cells
            .iter()
            .filter_map(|row| row.get(column))
            .map(|c| c.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut out = String::new();
    for (at, row) in cells.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            out.push_str(&format!("| {cell}{} ", " ".repeat(width - cell.chars().count())));
        }
        out.push_str("|\n");
        if at == 0 {
            widths
                .iter()
                .for_each(|w| out.push_str(&format!("| {} ", "-".repeat((*w).max(3)))));
            out.push_str("|\n");
        }
    }
    out
}

/// The middle one.
pub fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    match all.len() % 2 {
        0 => Some((all.get(middle.checked_sub(1)?)? + all.get(middle)?) / 2.0),
        _ => all.get(middle).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: Option<f64>, peer: Option<f64>, goals: &[Goal]) -> Row {
        let text = String::new;
        Row {
            store: text(),
            case: text(),
            measure: text(),
            ours,
            peer,
            goals: goals.to_vec(),
        }
    }

    #[test]
    fn goals_are_judged() {
        let both = [Goal::RatioAtMost(1.0), Goal::AtMost(4.0)];
        assert_eq!(row(Some(3.0), Some(3.5), &both).verdict(), "pass");
        assert_eq!(row(Some(5.0), Some(6.0), &both).verdict(), "short");
        assert_eq!(row(Some(3.0), None, &both).verdict(), "?");
        assert_eq!(row(Some(3.0), None, &[]).verdict(), "");
        assert_eq!(
            row(Some(300.0), Some(100.0), &[Goal::RatioAtLeast(3.0)]).verdict(),
            "pass"
        );
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
