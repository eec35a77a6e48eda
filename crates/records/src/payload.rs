//! The records' bytes of one batch, in order: borrowed where nothing is compressed, else decompressed through a window
//! that grows only with bytes that have really arrived, up to the cap.

use std::io::{ErrorKind, Read};

use crate::codec::{Compression, Decoder};
use crate::error::{BatchError, Flaw};
use crate::header::{BatchHeader, HEADER_LEN};
use crate::record::Limits;

/// What the window holds at first; most records are shorter.
const WINDOW: usize = 32 * 1024;

pub(crate) enum Payload<'a> {
    Plain(&'a [u8]),
    Packed(Box<Window<'a>>),
}

/// The part of a decompressed stream that is in memory: `buf[start..end]`.
pub(crate) struct Window<'a> {
    codec: Compression,
    decoder: Decoder<'a>,
    cap: u64,
    produced: u64,
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// The decoder has ended or failed, and must not be called again.
    done: bool,
}

impl<'a> Payload<'a> {
    /// The payload of `batch`, which is exactly the batch of `header`. Nothing is decompressed yet.
    pub(crate) fn new(
        header: &BatchHeader,
        batch: &'a [u8],
        limits: Limits,
    ) -> Result<Payload<'a>, BatchError> {
        let codec = header.compression()?;
        let bytes = batch.get(HEADER_LEN..).unwrap_or(&[]);
        let decoder =
            Decoder::new(codec, bytes, limits.max_decompressed).map_err(|_| Flaw::Payload(codec))?;
        Ok(match decoder {
            // A batch that the cleaner emptied has no payload, whatever its codec.
            Some(decoder) if !bytes.is_empty() => Payload::Packed(Box::new(Window {
                codec,
                decoder,
                cap: limits.max_decompressed,
                produced: 0,
                buf: Vec::new(),
                start: 0,
                end: 0,
                done: false,
            })),
            _ => Payload::Plain(bytes),
        })
    }

    /// Makes `n` bytes available, or fewer where the stream ends before; how many are. Never asks for more than the cap.
    #[inline]
    pub(crate) fn fill(&mut self, n: usize) -> Result<usize, BatchError> {
        match self {
            Payload::Plain(rest) => Ok(rest.len()),
            Payload::Packed(window) => {
                if window.end - window.start < n {
                    window.fill(n)?;
                }
                Ok(window.end - window.start)
            }
        }
    }

    /// What is available.
    #[inline]
    pub(crate) fn available(&self) -> &[u8] {
        match self {
            Payload::Plain(rest) => rest,
            Payload::Packed(window) => &window.buf[window.start..window.end],
        }
    }

    /// Passes over `n` available bytes and gives them back.
    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> &[u8] {
        match self {
            Payload::Plain(rest) => {
                let (taken, left) = rest.split_at(n.min(rest.len()));
                *rest = left;
                taken
            }
            Payload::Packed(window) => {
                let start = window.start;
                window.start = window.end.min(start.saturating_add(n));
                &window.buf[start..window.start]
            }
        }
    }

    /// Passes over `n` bytes without keeping them; false where the stream ends before.
    pub(crate) fn skip(&mut self, mut n: usize) -> Result<bool, BatchError> {
        while n > 0 {
            let available = self.fill(1)?;
            if available == 0 {
                return Ok(false);
            }
            let step = n.min(available);
            self.take(step);
            n -= step;
        }
        Ok(true)
    }
}

impl Window<'_> {
    #[cold]
    fn fill(&mut self, n: usize) -> Result<(), BatchError> {
        if self.start > 0 {
            self.buf.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end < n && !self.done {
            if self.end == self.buf.len() {
                // Doubles what is full, so memory follows the bytes that came and not a length that was claimed.
                let mut grown = vec![0; (self.end * 2).max(WINDOW)];
                grown[..self.end].copy_from_slice(&self.buf[..self.end]);
                self.buf = grown;
            }
            let read = self.decoder.read(&mut self.buf[self.end..]);
            match read {
                Ok(0) => self.done = true,
                Ok(read) => {
                    self.end += read;
                    self.produced += read as u64;
                    if self.produced > self.cap {
                        return Err(self.too_large());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::FileTooLarge => {
                    self.produced = self.cap.saturating_add(1);
                    return Err(self.too_large());
                }
                Err(_) => {
                    self.done = true;
                    return Err(Flaw::Payload(self.codec).into());
                }
            }
        }
        Ok(())
    }

    fn too_large(&mut self) -> BatchError {
        self.done = true;
        BatchError::TooLarge {
            size: self.produced,
            max: self.cap,
        }
    }
}
