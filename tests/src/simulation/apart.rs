//! Seeds played each in a process of its own.
//!
//! Tokio draws from a generator that it seeds from the system's randomness and a count of what the process did
//! before; nothing stable lets one choose that seed. So whoever wants a run to be the same every time plays it in a
//! fresh process whose `getrandom` is a constant: the test binary `simulation` has one.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Outcome, Report, Settings};

/// What a child process is told to play.
const VARIABLE: &str = "DRUMLIN_PLAY";
/// Precedes the outcome on the child's output.
const MARK: &str = "DRUMLIN-OUTCOME ";
/// Real time after which a run is taken to spin for ever; a seed takes a second or two of a machine that has nothing
/// else to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// In a child process: plays what it was told to and prints what came of it. False: this is no child.
pub fn play_if_told() -> bool {
    let Ok(told) = std::env::var(VARIABLE) else {
        return false;
    };
    let settings: Settings = told.parse().expect("written by play");
    let outcome = super::run(&settings);
    println!("\n{MARK}{}", outcome.to_line());
    true
}

/// Plays a seed in a fresh process of this executable, whose test `test` calls [`play_if_told`].
pub fn play(settings: &Settings, test: &str) -> Outcome {
    let failed = |what: String| Outcome::failed(settings.seed, what);
    let executable = match std::env::current_exe() {
        Ok(path) => path,
        Err(error) => return failed(error.to_string()),
    };
    let child = Command::new(executable)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, settings.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(if settings.loud {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return failed(error.to_string()),
    };
    // Read beside, so that a long outcome cannot stop the child.
    let mut output = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let _ = std::io::Read::read_to_string(&mut output, &mut text);
        text
    });
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if began.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return failed(format!("the run does not end within {PATIENCE:?}"));
            }
        }
    }
    let text = reader.join().unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(MARK));
    line.and_then(Outcome::from_line)
        .unwrap_or_else(|| failed("the process died without an outcome".to_owned()))
}

/// Plays seeds from `seed` on until the time is over; `progress` is told after each.
pub fn for_a_while(time: Duration, seed: u64, test: &str, progress: &mut dyn FnMut(&Report)) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    for next in seed.. {
        if began.elapsed() >= time {
            break;
        }
        report.add(play(&Settings::new(next), test));
        report.elapsed = began.elapsed();
        progress(&report);
    }
    report
}
