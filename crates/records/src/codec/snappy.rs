//! Snappy as Kafka has it: the framing of the xerial library (`\x82SNAPPY\0`, version, compatible version, then blocks of
//! a big-endian length and raw snappy), which Java writes, or one raw block, which librdkafka and others write.

use std::io::{self, Read, Write};

use bytes::{BufMut, BytesMut};

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const FRAME_HEADER: usize = 16;
/// Uncompressed bytes a block, as Java's `SnappyOutputStream` has them.
const BLOCK: usize = 32 * 1024;
/// A block is in memory as a whole. Java's are of 32 KiB; one raw block is a whole batch.
const MAX_BLOCK: u64 = 128 << 20;

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Decodes either form, one block at a time.
pub(crate) struct Decoder<'a> {
    input: &'a [u8],
    xerial: bool,
    max_block: u64,
    /// Room for a block; the one at hand is `block[..len]`.
    block: Vec<u8>,
    len: usize,
    read: usize,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(input: &'a [u8], max_output: u64) -> Decoder<'a> {
        Decoder {
            input,
            xerial: input.starts_with(&MAGIC),
            max_block: max_output.min(MAX_BLOCK),
            block: Vec::new(),
            len: 0,
            read: 0,
        }
    }

    /// The next compressed block, or `None` at the end.
    fn next_block(&mut self) -> io::Result<Option<&'a [u8]>> {
        if !self.xerial {
            let block = std::mem::take(&mut self.input);
            return Ok((!block.is_empty()).then_some(block));
        }
        // Streams may be concatenated, each with its own header.
        while self.input.starts_with(&MAGIC) {
            self.input = self
                .input
                .get(FRAME_HEADER..)
                .ok_or_else(|| invalid("snappy frame header cut"))?;
        }
        // Less than a length behind the last block is left alone, as Java's reader does.
        let Some((length, rest)) = self.input.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        let (block, rest) = rest
            .split_at_checked(length)
            .ok_or_else(|| invalid("snappy block cut"))?;
        self.input = rest;
        Ok(Some(block))
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.read == self.len {
            let Some(block) = self.next_block()? else {
                return Ok(0);
            };
            // The length at the front of a block is a claim: at most 64 bytes come of a copy of 2 or 3.
            let claimed = snap::raw::decompress_len(block).map_err(io::Error::other)?;
            if claimed > block.len().saturating_mul(32) {
                return Err(invalid("snappy block claims more than it can hold"));
            }
            if claimed as u64 > self.max_block {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "snappy block above the cap",
                ));
            }
            if self.block.len() < claimed {
                self.block = vec![0; claimed];
            }
            self.len = 0;
            self.read = 0;
            self.len = snap::raw::Decoder::new()
                .decompress(block, &mut self.block)
                .map_err(io::Error::other)?;
        }
        let rest = &self.block[self.read..self.len];
        let len = rest.len().min(out.len());
        out[..len].copy_from_slice(&rest[..len]);
        self.read += len;
        Ok(len)
    }
}

/// Writes the xerial framing.
pub(crate) struct Encoder {
    out: BytesMut,
    pending: Vec<u8>,
    snappy: snap::raw::Encoder,
}

impl Encoder {
    pub(crate) fn new(mut out: BytesMut) -> Encoder {
        out.put_slice(&MAGIC);
        out.put_i32(1);
        out.put_i32(1);
        Encoder {
            out,
            pending: Vec::with_capacity(BLOCK),
            snappy: snap::raw::Encoder::new(),
        }
    }

    fn flush_block(&mut self) -> io::Result<()> {
        let at = self.out.len();
        self.out.put_u32(0);
        self.out
            .resize(at + 4 + snap::raw::max_compress_len(self.pending.len()), 0);
        let len = self
            .snappy
            .compress(&self.pending, &mut self.out[at + 4..])
            .map_err(io::Error::other)?;
        self.out[at..at + 4].copy_from_slice(&(len as u32).to_be_bytes());
        self.out.truncate(at + 4 + len);
        self.pending.clear();
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<BytesMut> {
        if !self.pending.is_empty() {
            self.flush_block()?;
        }
        Ok(self.out)
    }
}

impl Write for Encoder {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let take = data.len().min(BLOCK - self.pending.len());
        self.pending.extend_from_slice(&data[..take]);
        if self.pending.len() == BLOCK {
            self.flush_block()?;
        }
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
