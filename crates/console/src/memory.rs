//! What the process' memory is used for, part by part.
//!
//! No byte is in two parts, so that their sum can be held against the resident memory. Answers are not a part of their
//! own: what is large in them are slices of blocks and of WAL objects, which are counted for as long as an answer
//! refers to them.

use drumlin_broker::Broker;
use drumlin_broker::groups::report::GroupsReport;
use drumlin_objects::cache::BlockCache;
use tikv_jemalloc_ctl::{epoch, stats};

use crate::metrics::Page;

/// What a topic takes in the metadata image and in the broker's table of topics, about; bytes.
const TOPIC_BYTES: u64 = 1_000;
/// What a partition takes there.
const PARTITION_BYTES: u64 = 400;
/// What a committed offset takes in its coordinator.
const OFFSET_BYTES: u64 = 300;
/// What a member of a group takes, its metadata and assignment included.
const MEMBER_BYTES: u64 = 2_000;

/// Writes the family.
pub(crate) fn page(page: &mut Page, broker: &Broker, groups: &GroupsReport) {
    let log = broker.shared().log.memory();
    let from_disk = broker.cache().stats().from_disk_bytes;
    let image = broker.shared().image();
    let topics = broker.shared().topics.sorted().len() as u64;
    let offsets = groups.figures.offsets;
    let mut parts = vec![
        ("wal", log.arenas),
        ("blocks", log.blocks + from_disk),
        ("block_reads", log.loading),
        ("wal_read_back", log.read_back),
        ("requests", broker.read_buffer_bytes() as u64),
        ("partitions", log.partitions),
        (
            "metadata",
            topics * TOPIC_BYTES + image.partition_count() * PARTITION_BYTES,
        ),
        (
            "groups",
            offsets * OFFSET_BYTES + groups.figures.members * MEMBER_BYTES,
        ),
    ];
    parts.extend(file_bytes().map(|bytes| ("program", bytes)));
    let allocator = Allocator::read();
    parts.extend(
        allocator
            .as_ref()
            .map(|allocator| ("allocator", allocator.unused)),
    );
    let name = "drumlin_memory_bytes";
    page.family(name, "gauge", "What memory is used for.");
    for (part, bytes) in parts {
        page.sample(name, &[("part", part)], bytes);
    }
    if let Some(allocator) = allocator {
        page.one(
            "drumlin_allocated_bytes",
            "gauge",
            "Memory that the program has allocated and not freed.",
            allocator.allocated,
        );
    }
}

/// What the allocator tells.
struct Allocator {
    allocated: u64,
    /// Resident and not allocated: gaps between allocations, freed pages that the system does not have back yet, and the
    /// allocator's own tables.
    unused: u64,
}

impl Allocator {
    fn read() -> Option<Self> {
        // The figures are as old as the last advance of the epoch.
        epoch::advance().ok()?;
        let allocated = stats::allocated::read().ok()? as u64;
        let resident = stats::resident::read().ok()? as u64;
        Some(Self {
            allocated,
            unused: resident.saturating_sub(allocated),
        })
    }
}

/// Resident pages of files: the program and its libraries.
fn file_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_has_pages_and_the_allocator_figures() {
        assert!(file_bytes().unwrap() > 100_000);
        assert!(Allocator::read().is_some());
    }
}
