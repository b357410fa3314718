//! Figures as a table and as JSON.

use serde_json::{Value, json};

#[derive(Default)]
pub struct Report(Vec<Line>);

struct Line {
    what: String,
    figure: f64,
    unit: &'static str,
    /// What it is measured against in this run.
    floor: Option<(String, f64)>,
}

impl Report {
    pub fn add(&mut self, what: impl Into<String>, figure: f64, unit: &'static str) {
        self.0.push(Line { what: what.into(), figure, unit, floor: None });
    }

    pub fn add_beside(
        &mut self,
        what: impl Into<String>,
        figure: f64,
        unit: &'static str,
        floor: (&str, f64),
    ) {
        let floor = Some((floor.0.to_owned(), floor.1));
        self.0.push(Line { what: what.into(), figure, unit, floor });
    }

    pub fn table(&self) -> String {
        let row = |line: &Line| {
            let beside = match &line.floor {
                Some((name, floor)) => format!("{:>7.2} × {name} ({floor:.3})", line.figure / floor),
                None => String::new(),
            };
            format!("{:<58} {:>10.3} {:<4} {beside}", line.what, line.figure, line.unit)
        };
        self.0.iter().map(row).collect::<Vec<_>>().join("\n")
    }

    pub fn json(&self) -> Value {
        let lines = self.0.iter().map(|line| {
            json!({
                "what": line.what,
                "figure": line.figure,
                "unit": line.unit,
                "floor": line.floor.as_ref().map(|(name, _)| name),
                "floor_figure": line.floor.as_ref().map(|(_, figure)| figure),
                "ratio": line.floor.as_ref().map(|(_, figure)| line.figure / figure),
            })
        });
        lines.collect()
    }
}

/// The value below which this share of the samples lies.
pub fn percentile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let at = ((samples.len() as f64 * share).ceil() as usize).clamp(1, samples.len());
    samples[at - 1]
}
