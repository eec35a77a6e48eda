//! Child processes that cannot outlive the test: killed when dropped, killed by the
//! kernel when the test's process ends, bounded in time, their output in files that
//! are shown when the test fails.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// A running server, its output in a file.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; what it prints is appended to `log`.
    pub fn start(name: &str, command: Command, log: &Path) -> anyhow::Result<Process> {
        let mut command = bound_to_us(command);
        let out = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let child = spawn(command).with_context(|| format!("cannot start {name}"))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        text_of(&self.log)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait()?;
        }
        Ok(self.ended)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        if self.ended()?.is_none() {
            self.child.kill()?;
            self.ended = Some(self.child.wait()?);
        }
        Ok(())
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`).
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.id().to_string())
            .status()?;
        if !sent.success() {
            bail!("cannot send {signal} to {} ({})", self.name, self.id());
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end; killed and an error if it takes longer than `patience`.
    pub fn terminate(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal("TERM")?;
        match self.wait(patience)? {
            Some(status) => Ok(status),
            None => {
                self.kill9()?;
                bail!(
                    "{} did not stop within {patience:?} of SIGTERM\n{}",
                    self.name,
                    tail(&self.log, 40)
                )
            }
        }
    }

    /// Waits for the end, at most so long.
    pub fn wait(&mut self, patience: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `ready` says so; an error with the log's end when the process ends first or time is up.
    pub fn wait_ready(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut(&Process) -> bool,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + patience;
        while !ready(self) {
            if let Some(status) = self.ended()? {
                bail!(
                    "{} ended ({status}) before it was ready\n{}",
                    self.name,
                    tail(&self.log, 40)
                );
            }
            if Instant::now() >= end {
                bail!(
                    "{} was not ready within {patience:?}\n{}",
                    self.name,
                    tail(&self.log, 40)
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let failed = self.kill9();
        if std::thread::panicking() {
            eprintln!("--- {} printed, at the end:\n{}", self.name, tail(&self.log, 60));
        }
        if let Err(e) = failed {
            eprintln!("cannot kill {}: {e}", self.name);
        }
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Output {
    /// Exit status; signal 9 if it ran out of time.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a command to its end. An error if it takes longer than `patience` or fails.
pub fn run(command: Command, patience: Duration) -> anyhow::Result<Output> {
    let words = shown(&command);
    let output = run_any(command, patience)?;
    if !output.status.success() {
        let why = if output.status.signal() == Some(9) {
            " (out of time?)"
        } else {
            ""
        };
        bail!(
            "{words}\nended with {}{why}\n{}\n{}",
            output.status,
            output.stdout,
            output.stderr
        );
    }
    Ok(output)
}

/// Runs a command to its end, however it ends; killed after `patience`.
pub fn run_any(command: Command, patience: Duration) -> anyhow::Result<Output> {
    let words = shown(&command);
    let mut command = bound_to_us(command);
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .stdin(Stdio::null());
    let mut child = spawn(command).with_context(|| format!("cannot start {words}"))?;
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let end = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            child.kill()?;
            break child.wait()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| match reader.join() {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    };
    Ok(Output {
        status,
        stdout: text(out),
        stderr: text(err),
    })
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe
            && let Err(e) = pipe.read_to_end(&mut bytes)
        {
            bytes.extend(format!("\n(cannot read on: {e})").into_bytes());
        }
        bytes
    })
}

/// `setpriv` asks the kernel to kill the program when the thread that started it
/// ends, then becomes the program, under the same process id.
fn bound_to_us(command: Command) -> Command {
    if !Path::new("/usr/bin/setpriv").exists() {
        return command;
    }
    let mut wrapped = Command::new("/usr/bin/setpriv");
    wrapped
        .args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(key, value),
            None => wrapped.env_remove(key),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        wrapped.current_dir(dir);
    }
    wrapped
}

type SpawnOrder = (Command, mpsc::Sender<std::io::Result<Child>>);

/// Starts the command on a thread that lives as long as this process: the kernel's
/// signal above follows the starting *thread*, and a test's thread ends before
/// others are done with a server that it started for all.
fn spawn(command: Command) -> std::io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<SpawnOrder>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<SpawnOrder>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                if let Err(unheard) = reply.send(command.spawn())
                    && let Ok(mut child) = unheard.0
                    && let Err(e) = child.kill()
                {
                    eprintln!("cannot kill a process that nobody waits for: {e}");
                }
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| std::io::Error::other("the thread that starts processes is gone");
    spawner.send((command, reply)).map_err(|e| gone(e.to_string()))?;
    answer.recv().map_err(|e| gone(e.to_string()))?
}

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = text_of(path);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn text_of(path: &Path) -> String {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| w.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> Command {
        let mut c = Command::new("sleep");
        c.arg("60");
        c
    }

    #[test]
    fn a_command_is_bounded_in_time() {
        let started = Instant::now();
        let out = run_any(sleeper(), Duration::from_millis(100)).expect("sleep starts");
        assert_eq!(out.status.signal(), Some(9));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_process_dies_when_dropped() {
        let dir = tempfile::tempdir().expect("a folder");
        let p = Process::start("sleep", sleeper(), &dir.path().join("log")).expect("sleep starts");
        let id = p.id();
        drop(p);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
