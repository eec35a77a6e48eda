//! A small disk of its own for a broker, to be filled and made read-only.
//!
//! It is mounted in a mount namespace that a waiting process holds, so that it is gone with the test however that
//! ends. As root it is an image with ext4, where the local store's direct writes and its kept files are as in real
//! life; where that is not allowed, and for anybody else, it is memory.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use drumlin_tests::broker::Options;
use drumlin_tests::process::{self, Process};

const PATIENCE: Duration = Duration::from_secs(20);
const BALLAST: &str = "ballast";

/// A mounted disk.
pub struct Disk {
    holder: Process,
    place: PathBuf,
    root: bool,
    /// A file system that takes direct writes.
    pub real: bool,
}

impl Disk {
    /// A disk of so many MiB, below `dir`.
    pub fn new(dir: &Path, mib: u32) -> anyhow::Result<Disk> {
        let place = dir.join("disk");
        let image = dir.join("disk.img");
        std::fs::create_dir_all(&place)?;
        let root = process::run(shell("id -u"), PATIENCE)?.stdout.trim() == "0";
        let script = format!(
            "if truncate -s {mib}M '{image}' && PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -m 0 '{image}' && mount -o loop '{image}' '{place}'
             then echo 'mounted an image'
             elif mount -t tmpfs -o size={mib}m tmpfs '{place}'; then echo 'mounted memory'
             else echo 'not allowed'; fi
             exec sleep 3600",
            image = image.display(),
            place = place.display(),
        );
        let mut command = Command::new("unshare");
        if !root {
            command.arg("--map-root-user");
        }
        command.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script]);
        let mut holder = Process::start("a disk", command, &dir.join("disk.log"))?;
        holder.wait_ready(PATIENCE, |holder| {
            ["mounted", "not allowed"]
                .iter()
                .any(|said| holder.printed().contains(said))
        })?;
        let said = holder.printed();
        if !said.contains("mounted") {
            bail!(
                "this test needs to mount a small disk: run it as root, or where user namespaces are allowed\n{said}"
            );
        }
        let real = said.contains("an image");
        if !real {
            eprintln!("no image could be mounted, the disk is memory:\n{said}");
        }
        Ok(Disk {
            holder,
            place,
            root,
            real,
        })
    }

    /// A path on the disk, as a broker on it sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.join(name)
    }

    /// The same path for everybody else.
    pub fn seen(&self, name: &str) -> PathBuf {
        let inside = self.path(name);
        Path::new(&format!("/proc/{}/root", self.holder.id()))
            .join(inside.strip_prefix("/").unwrap_or(&inside))
    }

    fn enter(&self) -> Vec<String> {
        let mut words = vec![
            "nsenter".to_owned(),
            format!("--target={}", self.holder.id()),
            "--mount".to_owned(),
        ];
        if !self.root {
            words.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        words.push("--".to_owned());
        words
    }

    /// Has a broker run where the disk is.
    pub fn under(&self, mut options: Options) -> Options {
        options.under = self.enter();
        options
    }

    /// A command that runs where the disk is.
    pub fn inside(&self, command: &Command) -> Command {
        let words = self.enter();
        let mut inside = Command::new(&words[0]);
        inside
            .args(&words[1..])
            .arg(command.get_program())
            .args(command.get_args());
        inside.envs(command.get_envs().filter_map(|(k, v)| Some((k, v?))));
        inside
    }

    /// Takes all the space that is left.
    pub fn fill(&self) -> anyhow::Result<u64> {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.seen(BALLAST))?;
        let mut taken = 0;
        // What was reserved for a file's metadata is free again once it is on the disk.
        for _ in 0..4 {
            for size in [1 << 20, 64 << 10, 4 << 10, 512] {
                let piece = vec![b'x'; size];
                loop {
                    match file.write(&piece) {
                        Ok(written) => taken += written as u64,
                        Err(e) if e.kind() == ErrorKind::StorageFull => break,
                        Err(e) => return Err(e).context("cannot fill the disk"),
                    }
                }
            }
            if let Err(e) = file.sync_all()
                && e.kind() != ErrorKind::StorageFull
            {
                return Err(e).context("cannot fill the disk");
            }
        }
        Ok(taken)
    }

    /// Gives back what [`Disk::fill`] took.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.seen(BALLAST))?)
    }

    /// Makes it read-only under those who write, as a file system does that met an error. For a real one only.
    pub fn fail(&self) -> anyhow::Result<()> {
        self.remount("abort")
    }

    /// Makes it read-only; nobody may have a file open for writing.
    pub fn read_only(&self) -> anyhow::Result<()> {
        self.remount("ro")
    }

    fn remount(&self, how: &str) -> anyhow::Result<()> {
        let script = format!("mount -o remount,{how} '{}'", self.place.display());
        process::run(self.inside(&shell(&script)), PATIENCE)?;
        Ok(())
    }
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}
