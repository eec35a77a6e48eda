//! What a process costs, from `/proc`: CPU over all its threads, those that ended included, and resident memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

/// CPU seconds, user and system, since the process started. The kernel counts in hundredths.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    let ticks = stat_field(&text, 14)? + stat_field(&text, 15)?;
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Page faults since the process started, those without a read from disk included.
pub fn page_faults(pid: u32) -> anyhow::Result<u64> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    Ok((stat_field(&text, 10)? + stat_field(&text, 12)?) as u64)
}

/// A field of `/proc/PID/stat`, numbered from 1 as in its manual page.
fn stat_field(text: &str, number: usize) -> anyhow::Result<f64> {
    // The second field is the program's name in brackets and may hold anything, spaces too.
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let word = after_name.split_whitespace().nth(number.saturating_sub(3));
    Ok(word.context("/proc/PID/stat is short")?.parse()?)
}

/// Resident memory by kind, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// Heap, stacks and other memory without a file.
    pub anonymous: u64,
    /// Pages of files: the program itself, and what it maps.
    pub file: u64,
}

/// Resident memory by kind. The kernel walks all pages for it: not for many times a second.
pub fn resident_by_kind(pid: u32) -> anyhow::Result<Resident> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
        .with_context(|| format!("process {pid}"))?;
    let (all, anonymous) = (kib_line(&text, "Rss:")?, kib_line(&text, "Anonymous:")?);
    Ok(Resident {
        anonymous,
        file: all.saturating_sub(anonymous),
    })
}

/// Resident memory now, in bytes.
pub fn resident(pid: u32) -> anyhow::Result<u64> {
    field(pid, "VmRSS:")
}

/// The most memory that the process ever had resident, in bytes.
pub fn peak_resident(pid: u32) -> anyhow::Result<u64> {
    field(pid, "VmHWM:")
}

fn field(pid: u32, name: &str) -> anyhow::Result<u64> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid}"))?;
    kib_line(&text, name)
}

/// The bytes of a line such as `VmRSS:  1024 kB`.
fn kib_line(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .with_context(|| format!("no line {name}"))?;
    let kib: u64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib << 10)
}

/// Samples a process's memory from the side.
pub struct MemoryWatch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl MemoryWatch {
    /// Samples five times a second until dropped.
    pub fn start(pid: u32) -> MemoryWatch {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (stop, most) = (Arc::clone(&stop), Arc::clone(&most));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    most.fetch_max(resident(pid).unwrap_or(0), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        });
        MemoryWatch {
            stop,
            most,
            thread: Some(thread),
        }
    }

    /// The most that was seen so far, in bytes.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the memory watch panicked");
        }
    }
}

/// Lets this process, and those it starts, open as many files as the system allows.
pub fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised) {
        eprintln!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let id = std::process::id();
        assert!(cpu_seconds(id).expect("stat is readable") >= 0.0);
        let now = resident(id).expect("status is readable");
        assert!(now > 100_000 && peak_resident(id).expect("status is readable") >= now);
        let kinds = resident_by_kind(id).expect("smaps_rollup is readable");
        assert!(kinds.anonymous > 0 && kinds.file > 0);
        assert!(page_faults(id).expect("stat is readable") > 0);
    }
}
