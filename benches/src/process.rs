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
    // The second field is the program's name in brackets and may hold anything, spaces too.
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let ticks = |field: usize| -> anyhow::Result<f64> {
        let word = after_name
            .split_whitespace()
            .nth(field)
            .context("/proc/PID/stat is short")?;
        Ok(word.parse()?)
    };
    // Fields 14 and 15 of the line; the first after the name is field 3.
    Ok((ticks(11)? + ticks(12)?) / rustix::param::clock_ticks_per_second() as f64)
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
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .context("/proc/PID/status lacks it")?;
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
    }
}
