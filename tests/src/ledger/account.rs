//! What is known so far: what consumers saw at each offset, and promises found broken.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::bail;

/// A batch that was acknowledged.
#[derive(Clone, Debug)]
pub struct Acked {
    pub producer: u32,
    pub partition: i32,
    /// The producer's count of the batch's first record.
    pub first: u64,
    pub count: u64,
    /// Where the broker said that it is; `None` if it only said that it is there already.
    pub offset: Option<i64>,
}

/// Shared by all threads of a run.
pub struct Account {
    pub stop_producing: AtomicBool,
    pub stop_consuming: AtomicBool,
    seen: Vec<Mutex<Vec<Option<u32>>>>,
    broken: Mutex<Vec<String>>,
    figures: Mutex<BTreeMap<&'static str, u64>>,
    acked: AtomicU64,
}

impl Account {
    pub fn new(partitions: i32) -> Account {
        Account {
            stop_producing: AtomicBool::new(false),
            stop_consuming: AtomicBool::new(false),
            seen: (0..partitions).map(|_| Mutex::default()).collect(),
            broken: Mutex::default(),
            figures: Mutex::default(),
            acked: AtomicU64::new(0),
        }
    }

    /// Notes a broken promise.
    pub fn broken(&self, what: String) {
        let mut broken = lock(&self.broken);
        if broken.len() < 20 {
            println!("ledger: BROKEN: {what}");
        }
        broken.push(what);
    }

    /// Whether the run may as well end.
    pub fn is_broken(&self) -> bool {
        !lock(&self.broken).is_empty()
    }

    /// An error if any promise was broken.
    pub fn result(&self) -> anyhow::Result<()> {
        let broken = lock(&self.broken);
        if !broken.is_empty() {
            let first: Vec<_> = broken.iter().take(20).cloned().collect();
            bail!(
                "{} broken promises, among them:\n{}",
                broken.len(),
                first.join("\n")
            );
        }
        Ok(())
    }

    /// Notes what a consumer saw at an offset; it must be what was seen there before.
    pub fn saw(&self, partition: i32, offset: i64, fingerprint: u32) {
        let (Ok(at), Some(seen)) = (usize::try_from(offset), self.seen.get(partition as usize)) else {
            return self.broken(format!("partition {partition} has an offset {offset}"));
        };
        let mut seen = lock(seen);
        if seen.len() <= at {
            seen.resize(at + 1, None);
        }
        match seen[at] {
            None => seen[at] = Some(fingerprint),
            Some(before) if before == fingerprint => {}
            Some(_) => {
                drop(seen);
                self.broken(format!(
                    "partition {partition}, offset {offset}: a consumer saw another record there"
                ));
            }
        }
    }

    /// One more than the highest offset that any consumer saw.
    pub fn seen_end(&self, partition: i32) -> i64 {
        self.seen
            .get(partition as usize)
            .map_or(0, |s| lock(s).len() as i64)
    }

    /// What was seen in a partition, by offset.
    pub fn seen(&self, partition: i32) -> Vec<Option<u32>> {
        self.seen
            .get(partition as usize)
            .map(|s| lock(s).clone())
            .unwrap_or_default()
    }

    pub fn add(&self, figure: &'static str, n: u64) {
        *lock(&self.figures).entry(figure).or_insert(0) += n;
    }

    /// Counts acknowledged records, for the killer to see progress.
    pub fn add_acked(&self, n: u64) {
        self.acked.fetch_add(n, Ordering::Relaxed);
    }

    pub fn acked(&self) -> u64 {
        self.acked.load(Ordering::Relaxed)
    }

    pub fn figures(&self) -> BTreeMap<&'static str, u64> {
        let mut figures = lock(&self.figures).clone();
        figures.insert("records_acked", self.acked());
        figures.insert(
            "records_seen",
            self.seen.iter().map(|s| lock(s).len() as u64).sum(),
        );
        figures
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked fails the run by itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
