//! Kafka's decoder: `tests/java/Decoder.java`, compiled here, as a process that is asked over a pipe.

use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use super::mutate::Token;
use crate::{cache, process};

/// A running decoder; it ends when its input does.
pub struct Java {
    child: Child,
    to: Option<BufWriter<ChildStdin>>,
    from: BufReader<ChildStdout>,
}

/// How far Kafka's classes came with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The header is refused.
    Header,
    /// Kafka has no such version of the API.
    Version,
    /// The body is refused.
    Body,
    /// The body is decoded, and the class of the request refuses its content.
    Content,
    /// All is taken.
    Taken,
}

/// What Kafka's classes made of a frame.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How far they came.
    pub stage: Stage,
    /// Why not further.
    pub why: String,
    /// From the header: correlation id and client id.
    pub header: Option<(i32, String)>,
    /// If the body was decoded: the number of bytes behind it, and the body written again.
    pub body: Option<(usize, Result<Vec<u8>, String>)>,
}

impl Java {
    /// Compiles the program into `dir` and starts it.
    pub fn start(dir: &Path) -> anyhow::Result<Java> {
        let class_path = cache::kafka_class_path()?;
        let mut compile = Command::new("javac");
        compile
            .args(["-cp", &class_path, "-d"])
            .arg(dir)
            .arg(cache::repository().join("tests/java/Decoder.java"));
        process::run(compile, Duration::from_secs(120)).context("Decoder.java")?;
        let mut command = Command::new("java");
        command
            // A refusal is an exception, and every other request is refused: no traces of them. Hundreds of classes
            // run a little each, which the quicker compiler serves best.
            .args(["-XX:-StackTraceInThrowable", "-XX:TieredStopAtLevel=1"])
            .args(["-Xmx1G", "-XX:+UseSerialGC", "-cp"])
            .arg(format!("{}:{class_path}", dir.display()))
            .arg("Decoder")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start Decoder")?;
        let to = child.stdin.take().map(BufWriter::new);
        let from = child.stdout.take().map(BufReader::new).context("its output")?;
        Ok(Java { child, to, from })
    }

    /// The values that each sound frame's body has, in order.
    pub fn tokens(&mut self, frames: &[Vec<u8>]) -> anyhow::Result<Vec<Vec<Token>>> {
        self.ask(b'T', frames)?;
        let mut all = Vec::with_capacity(frames.len());
        for _ in frames {
            let count = self.int()?;
            let mut tokens = Vec::new();
            for _ in 0..count {
                let at = usize::try_from(self.int()?)?;
                tokens.push(Token {
                    at,
                    kind: self.byte()?,
                });
            }
            all.push(tokens);
        }
        Ok(all)
    }

    /// Decodes each frame.
    pub fn decode(&mut self, frames: &[Vec<u8>]) -> anyhow::Result<Vec<Answer>> {
        self.ask(b'D', frames)?;
        frames.iter().map(|_| self.answer()).collect()
    }

    fn answer(&mut self) -> anyhow::Result<Answer> {
        let stage = match self.byte()? {
            0 => Stage::Header,
            1 => Stage::Version,
            2 => Stage::Body,
            3 => Stage::Content,
            4 => Stage::Taken,
            other => bail!("Decoder answers {other}"),
        };
        let why = self.text()?;
        let header = match stage {
            Stage::Header => None,
            _ => Some((self.int()?, self.text()?)),
        };
        let body = match stage {
            Stage::Content | Stage::Taken => {
                let left = usize::try_from(self.int()?)?;
                let again = match self.int()? {
                    -1 => Err(self.text()?),
                    len => Ok(self.bytes(len)?),
                };
                Some((left, again))
            }
            _ => None,
        };
        Ok(Answer {
            stage,
            why,
            header,
            body,
        })
    }

    fn ask(&mut self, order: u8, frames: &[Vec<u8>]) -> anyhow::Result<()> {
        let to = self.to.as_mut().context("Decoder was told to end")?;
        to.write_all(&[order])?;
        to.write_all(&u32::try_from(frames.len())?.to_be_bytes())?;
        for frame in frames {
            to.write_all(&u32::try_from(frame.len())?.to_be_bytes())?;
            to.write_all(frame)?;
        }
        to.flush().context("Decoder has ended")
    }

    fn byte(&mut self) -> anyhow::Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte).context("Decoder has ended")?;
        Ok(byte[0])
    }

    fn int(&mut self) -> anyhow::Result<i32> {
        let mut bytes = [0; 4];
        self.from.read_exact(&mut bytes).context("Decoder has ended")?;
        Ok(i32::from_be_bytes(bytes))
    }

    fn bytes(&mut self, len: i32) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(len)?];
        self.from.read_exact(&mut bytes).context("Decoder has ended")?;
        Ok(bytes)
    }

    fn text(&mut self) -> anyhow::Result<String> {
        let len = self.int()?;
        Ok(String::from_utf8(self.bytes(len)?)?)
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        // The end of its input ends it; a kill makes sure of it if it hangs.
        drop(self.to.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
