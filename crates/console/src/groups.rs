//! The metrics of groups: how many there are, what their coordinators do, and how far consumers are behind.

use std::borrow::Cow;

use drumlin_broker::Broker;
use drumlin_broker::groups::report::{GroupOffset, GroupsReport};

use crate::metrics::Page;

/// Committed offsets that have series of their own, first by group, topic and partition.
pub const OFFSETS: usize = 10_000;

/// Asks the coordinators. One that loads, or waits for the store, is left out after a second.
pub async fn report(broker: &Broker) -> GroupsReport {
    broker.shared().groups.report(OFFSETS).await
}

/// Writes the families of groups.
pub(crate) fn page(page: &mut Page, broker: &Broker, report: &GroupsReport) {
    groups(page, report);
    coordinators(page, report);
    lags(page, broker, report);
}

fn groups(page: &mut Page, report: &GroupsReport) {
    let figures = &report.figures;
    let name = "drumlin_groups";
    page.family(name, "gauge", "Groups by type and state.");
    for (kind, state, count) in [
        ("classic", "empty", figures.classic_empty),
        ("classic", "preparing_rebalance", figures.classic_preparing),
        ("classic", "completing_rebalance", figures.classic_completing),
        ("classic", "stable", figures.classic_stable),
        ("consumer", "empty", figures.consumer_empty),
        ("consumer", "assigning", figures.consumer_assigning),
        ("consumer", "reconciling", figures.consumer_reconciling),
        ("consumer", "stable", figures.consumer_stable),
    ] {
        page.sample(name, &[("type", kind), ("state", state)], count);
    }
    page.one(
        "drumlin_group_members",
        "gauge",
        "Members of all groups.",
        figures.members,
    );
    page.one(
        "drumlin_group_offsets",
        "gauge",
        "Committed offsets.",
        figures.offsets,
    );
    let name = "drumlin_group_rebalances_total";
    page.family(
        name,
        "counter",
        "Completed rebalances, and new assignments of consumer groups.",
    );
    page.sample(name, &[("type", "classic")], figures.classic_rebalances);
    page.sample(name, &[("type", "consumer")], figures.consumer_rebalances);
    for (name, help, count) in [
        (
            "drumlin_group_commits_total",
            "Offsets committed.",
            figures.commits,
        ),
        (
            "drumlin_group_expirations_total",
            "Offsets that expired.",
            figures.expirations,
        ),
        (
            "drumlin_group_deletions_total",
            "Offsets deleted on request or with their topic.",
            figures.deletions,
        ),
    ] {
        page.one(name, "counter", help, count);
    }
}

fn coordinators(page: &mut Page, report: &GroupsReport) {
    let name = "drumlin_group_coordinators";
    page.family(
        name,
        "gauge",
        "Partitions of __consumer_offsets that this broker leads.",
    );
    page.sample(name, &[("state", "loaded")], report.loaded);
    page.sample(name, &[("state", "busy")], report.loading);
    for (name, help, count) in [
        (
            "drumlin_group_loads_total",
            "Loads of coordinators.",
            report.loads,
        ),
        (
            "drumlin_group_loads_from_snapshot_total",
            "Those that began with a snapshot.",
            report.restored,
        ),
        (
            "drumlin_group_load_records_total",
            "Records replayed by loads.",
            report.replayed,
        ),
        (
            "drumlin_group_snapshots_total",
            "Snapshots of coordinators put.",
            report.snapshots,
        ),
        (
            "drumlin_group_snapshot_bytes_total",
            "Their bytes.",
            report.snapshot_bytes,
        ),
        (
            "drumlin_group_records_total",
            "Records written by coordinators.",
            report.records,
        ),
        (
            "drumlin_group_batches_total",
            "Batches that they were written in.",
            report.batches,
        ),
    ] {
        page.one(name, "counter", help, count);
    }
    page.one(
        "drumlin_group_load_seconds_total",
        "counter",
        "Time that loads took.",
        report.load_time.as_secs_f64(),
    );
}

/// Names and labels of the widely used `kafka_exporter`, so that its dashboards and alerts serve.
fn lags(page: &mut Page, broker: &Broker, report: &GroupsReport) {
    let topics = &broker.shared().topics;
    let shown: Vec<(&GroupOffset, i64)> = report
        .offsets
        .iter()
        .filter_map(|committed| {
            let topic = topics.by_name(&committed.topic)?;
            let end = topic.partition(committed.partition)?.high_watermark();
            Some((committed, end.saturating_sub(committed.offset).max(0)))
        })
        .collect();
    let sample = |page: &mut Page, name: &str, committed: &GroupOffset, value: i64| {
        let labels = [
            ("consumergroup", &*escaped(&committed.group)),
            ("topic", &*escaped(&committed.topic)),
            ("partition", &*committed.partition.to_string()),
        ];
        page.sample(name, &labels, value);
    };
    let name = "kafka_consumergroup_current_offset";
    page.family(name, "gauge", "The committed offset of a group in a partition.");
    for (committed, _) in &shown {
        sample(page, name, committed, committed.offset);
    }
    let name = "kafka_consumergroup_lag";
    page.family(
        name,
        "gauge",
        "Records between a group's committed offset and the partition's end.",
    );
    for (committed, lag) in &shown {
        sample(page, name, committed, *lag);
    }
    let left = report.figures.offsets.saturating_sub(report.offsets.len() as u64);
    page.one(
        "drumlin_group_offsets_without_series",
        "gauge",
        "Committed offsets that are too many to have series of their own.",
        left,
    );
}

/// A label's value: a group may have any name.
fn escaped(value: &str) -> Cow<'_, str> {
    if value.contains(['\\', '"', '\n']) {
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        Cow::Owned(value)
    } else {
        Cow::Borrowed(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_break_the_page() {
        assert_eq!(escaped("plain"), "plain");
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
