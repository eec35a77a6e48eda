//! What a case that runs over time leaves: figures of each second, a page, and a picture.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use crate::picture::Picture;
use crate::suite::bench::Bench;
use crate::suite::table::number;
use crate::suite::timed::Phase;
use crate::suite::watch::Sample;

/// Acknowledgements never pause longer while the store works.
pub const PAUSE_MS: f64 = 250.0;

/// Where files go, and what stands in all of them.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The folder.
    pub results: PathBuf,
    /// How the names of files begin.
    pub stem: String,
    /// Command, date, commit and machine.
    pub head: Value,
    /// Said on every page: what the run was for, or what disturbed it.
    pub remark: Option<String>,
}

/// A case over time.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// How the names of files end.
    pub name: String,
    /// Its title.
    pub title: String,
    /// What a reader must know.
    pub about: Vec<String>,
    /// Loads, in order.
    pub phases: Vec<Phase>,
    /// What the watch saw of each broker.
    pub samples: BTreeMap<&'static str, Vec<Sample>>,
    /// Figures that belong to the whole.
    pub figures: Vec<(String, f64)>,
}

impl Record {
    /// An empty one.
    pub fn new(name: &str, title: &str, about: &[&str]) -> Record {
        Record {
            name: name.to_owned(),
            title: title.to_owned(),
            about: about.iter().map(|line| (*line).to_owned()).collect(),
            ..Record::default()
        }
    }

    /// The first moment of a broker's part, in milliseconds since 1970.
    pub fn begin_of(&self, broker: &str) -> u64 {
        let phases = self.phases.iter().filter(|p| p.broker == broker);
        phases.map(|p| p.from_ms).min().unwrap_or_default()
    }

    /// The first moment of all.
    pub fn begin(&self) -> u64 {
        self.phases.iter().map(|p| p.from_ms).min().unwrap_or_default()
    }

    /// The greatest of a figure that the watch saw of a broker.
    pub fn most(&self, broker: &str, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let samples = self.samples.get(broker)?;
        samples.iter().filter_map(figure).max_by(f64::total_cmp)
    }

    /// Writes `.json`, `.md` and `.svg`.
    pub fn write(&self, bench: &mut Bench, picture: &Picture) -> anyhow::Result<()> {
        let output = bench.output.clone();
        std::fs::create_dir_all(&output.results)?;
        let stem = format!("{}-{}", output.stem, self.name);
        let path = |ending: &str| output.results.join(format!("{stem}.{ending}"));
        let put = |ending: &str, text: String| {
            let path = path(ending);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        put("json", self.to_json(&output)?)?;
        put("md", self.page(&output, &format!("{stem}.svg")))?;
        put("svg", picture.to_svg())?;
        bench.say(&format!("a page and a picture: {}", path("md").display()));
        Ok(())
    }

    /// One line for each second, so that the file can be read and compared.
    fn to_json(&self, output: &Output) -> anyhow::Result<String> {
        let lines = |values: Vec<Value>| -> String {
            let all: Vec<String> = values.iter().map(|value| format!("  {value}")).collect();
            format!("[\n{}\n ]", all.join(",\n"))
        };
        let mut seconds = Vec::new();
        let mut phases = Vec::new();
        for (number, phase) in self.phases.iter().enumerate() {
            let mut value = serde_json::to_value(phase)?;
            if let Some(fields) = value.as_object_mut() {
                fields.remove("seconds");
            }
            phases.push(value);
            for second in &phase.seconds {
                let mut value = serde_json::to_value(second)?;
                value["phase"] = json!(number);
                seconds.push(value);
            }
        }
        let mut samples = Vec::new();
        for (broker, all) in &self.samples {
            for sample in all {
                let mut value = serde_json::to_value(sample)?;
                value["broker"] = json!(broker);
                samples.push(value);
            }
        }
        let figures: BTreeMap<&str, f64> = self.figures.iter().map(|(name, v)| (name.as_str(), *v)).collect();
        let head = json!({
            "title": self.title, "about": self.about, "remark": output.remark, "run": output.head, "figures": figures,
        });
        Ok(format!(
            "{{\n \"head\": {head},\n \"phases\": {},\n \"seconds\": {},\n \"samples\": {}\n}}\n",
            lines(phases),
            lines(seconds),
            lines(samples)
        ))
    }

    fn page(&self, output: &Output, picture: &str) -> String {
        let mut out = format!("# {}\n\n", self.title);
        if let Some(remark) = &output.remark {
            out.push_str(&format!("**{remark}**\n\n"));
        }
        for line in &self.about {
            out.push_str(&format!("{line}\n"));
        }
        out.push_str(&format!("\n![{}]({picture})\n\n", self.title));
        out.push_str(&self.phase_table());
        if !self.figures.is_empty() {
            out.push_str("\n| figure | |\n| --- | --- |\n");
            for (name, value) in &self.figures {
                out.push_str(&format!("| {name} | {} |\n", number(*value)));
            }
        }
        let text = |key: &str| match &output.head[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let machine = &output.head["machine"];
        out.push_str(&format!(
            "\n`{}`, {}, commit {}, Drumlin with {}; {} processors ({}), {} of memory, {}.\n",
            text("command"),
            text("date"),
            text("commit"),
            text("settings"),
            machine["processors"],
            machine["model"].as_str().unwrap_or("?"),
            machine["memory"].as_str().unwrap_or("?"),
            machine["kernel"].as_str().unwrap_or("?"),
        ));
        out
    }

    /// p50 to p999 are of the whole phase where it ran to its end, and else medians over seconds.
    fn phase_table(&self) -> String {
        let mut out = format!(
            "| broker | phase | MB/s | longest pause ms | seconds with a pause > {PAUSE_MS:.0} ms | p50 ms | p99 ms | p999 ms \
             | worst second's p50 | worst second's p99 | CPU-s/GB | errors |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
        );
        let shown = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
        for phase in &self.phases {
            let whole = phase.summary.as_ref().map(|s| s.latency);
            let cpu = phase.summary.as_ref().map(|s| s.cpu_per_gb());
            let long = phase.seconds.iter().filter(|s| s.pause_ms > PAUSE_MS).count();
            let cells = [
                phase.broker.clone(),
                phase.name.clone(),
                shown(phase.mb_per_second()),
                shown(phase.worst(|s| s.pause_ms)),
                long.to_string(),
                shown(whole.map(|l| l.p50).or(phase.typical(|s| s.latency.p50))),
                shown(whole.map(|l| l.p99).or(phase.typical(|s| s.latency.p99))),
                shown(whole.map(|l| l.p999).or(phase.typical(|s| s.latency.p999))),
                shown(phase.worst(|s| s.latency.p50)),
                shown(phase.worst(|s| s.latency.p99)),
                shown(cpu.filter(|c| c.is_finite())),
                phase.seconds.iter().map(|s| s.errors).sum::<u64>().to_string(),
            ];
            out.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        for broker in self.samples.keys() {
            let mb = |value: Option<f64>| shown(value.map(|bytes| bytes / 1e6));
            let backlog = self.most(broker, |s| s.metric("drumlin_unsealed_bytes"));
            let rss = self.most(broker, |s| Some(s.rss as f64));
            out.push_str(&format!(
                "\nMost of {broker}: {} MB resident, {} MB not sealed.\n",
                mb(rss),
                mb(backlog)
            ));
        }
        for phase in self.phases.iter().filter(|p| p.error.is_some()) {
            let error = phase.error.as_deref().unwrap_or_default();
            let first = error.lines().next().unwrap_or_default();
            out.push_str(&format!("\n{}, {}: cut off: {first}\n", phase.broker, phase.name));
        }
        out
    }
}
