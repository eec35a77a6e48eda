//! Counters from the broker's metrics page.

use std::collections::BTreeMap;

/// All samples of a page, by name with labels.
#[derive(Clone, Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Reads Prometheus' text format; lines that are none are left out.
    pub fn parse(page: &str) -> Metrics {
        let samples = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let (series, value) = line.trim().rsplit_once(' ')?;
                Some((series.to_owned(), value.parse().ok()?))
            });
        Metrics(samples.collect())
    }

    /// The sum of a family's samples that have all these labels.
    pub fn sum(&self, family: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(family)
            .filter(|(series, _)| {
                labels
                    .iter()
                    .all(|(key, value)| series.contains(&format!("{key}=\"{value}\"")))
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// Sums of all families whose name satisfies a condition, by name.
    pub fn sums(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, f64> {
        let mut found: BTreeMap<String, f64> = BTreeMap::new();
        for (series, value) in &self.0 {
            let family = series.split('{').next().unwrap_or_default();
            if wanted(family) {
                *found.entry(family.to_owned()).or_default() += value;
            }
        }
        found
    }

    /// A family's samples.
    pub fn series<'a>(&'a self, family: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let of = move |series: &str| series.split('{').next() == Some(family);
        self.0
            .iter()
            .filter(move |(series, _)| of(series))
            .map(|(series, value)| (series.as_str(), *value))
    }

    /// What has been added to every sample since `before`.
    pub fn since(&self, before: &Metrics) -> Metrics {
        let added = |(series, value): (&String, &f64)| {
            (
                series.clone(),
                value - before.0.get(series).copied().unwrap_or(0.0),
            )
        };
        Metrics(self.0.iter().map(added).collect())
    }

    /// Requests and bytes to the store by (operation, reason).
    pub fn store(&self) -> BTreeMap<(String, String), (f64, f64)> {
        let mut found: BTreeMap<(String, String), (f64, f64)> = BTreeMap::new();
        for (series, value) in self.series("drumlin_store_requests_total") {
            found.entry(labels(series)).or_default().0 += value;
        }
        for (series, value) in self.series("drumlin_store_bytes_total") {
            found.entry(labels(series)).or_default().1 += value;
        }
        found.retain(|_, (requests, bytes)| *requests > 0.0 || *bytes > 0.0);
        found
    }
}

fn labels(series: &str) -> (String, String) {
    let label = |key: &str| {
        let after = series.split(&format!("{key}=\"")).nth(1).unwrap_or_default();
        after.split('"').next().unwrap_or_default().to_owned()
    };
    (label("operation"), label("reason"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page = "HTTP/1.1 200 OK\r\n\r\n# HELP x y\ndrumlin_unsealed_bytes 12\n\
            drumlin_store_requests_total{operation=\"put\",reason=\"wal\"} 3\n\
            drumlin_store_requests_total{operation=\"get\",reason=\"wal\"} 4\n\
            drumlin_store_bytes_total{operation=\"put\",reason=\"wal\"} 300\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.sum("drumlin_unsealed_bytes", &[]), 12.0);
        assert_eq!(
            metrics.sum("drumlin_store_requests_total", &[("reason", "wal")]),
            7.0
        );
        let key = ("put".to_owned(), "wal".to_owned());
        assert_eq!(metrics.store()[&key], (3.0, 300.0));
        assert_eq!(metrics.since(&metrics).store().len(), 0);
        let sums = metrics.sums(|family| family.ends_with("_total"));
        assert_eq!(sums.into_values().collect::<Vec<_>>(), [300.0, 7.0]);
    }
}
