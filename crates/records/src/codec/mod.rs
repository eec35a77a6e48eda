//! The compression codecs: their numbers and names, a streaming encoder and a streaming decoder.
//!
//! Decoders hold bounded memory whatever the input says: gzip its 32 KiB window, lz4 at most two blocks of 4 MiB, zstd
//! the window that it fills (128 MiB at most, and no page before it is written), snappy one block, refused when it claims
//! more than snappy can expand to. How much they may yield is the caller's to cap ([`crate::Limits`]).

mod lz4;
mod snappy;

use std::fmt;
use std::io::{self, Read, Write};

use bytes::buf::Writer;
use bytes::{BufMut, BytesMut};
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// A compression codec, as in the low three bits of a batch's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[repr(i16)]
pub enum Compression {
    /// Not compressed.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy in the xerial framing; raw snappy is read too.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// Zstandard; from Produce 7 and Fetch 10 on.
    Zstd = 4,
}

impl Compression {
    /// All codecs, in order of their numbers.
    pub const ALL: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The codec of a number, if there is one.
    pub fn from_id(id: i16) -> Option<Compression> {
        Compression::ALL.into_iter().find(|codec| *codec as i16 == id)
    }

    /// Its number.
    pub fn id(self) -> i16 {
        self as i16
    }

    /// Its name in Kafka's configuration (`compression.type`).
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    /// The codec of a name in `compression.type`; `uncompressed` is the topic option's word for none.
    pub fn from_name(name: &str) -> Option<Compression> {
        if name == "uncompressed" {
            return Some(Compression::None);
        }
        Compression::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Bytes that one compressed byte can become at most, with room to spare: a batch that claims more is lying.
    ///
    /// Deflate ends at 1032, snappy at 64 bytes from a copy of 3, lz4 at 255 from a length byte; a zstd block of 4 bytes
    /// repeats one byte 128 Ki times.
    pub(crate) fn max_ratio(self) -> usize {
        match self {
            Compression::None => 1,
            Compression::Gzip => 1_040,
            Compression::Snappy => 32,
            Compression::Lz4 => 264,
            Compression::Zstd => 40_000,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Decompresses a batch's payload as it is read. After the first `Ok(0)` or error it must not be read again.
pub(crate) enum Decoder<'a> {
    Gzip(Box<Gunzip<'a>>),
    Snappy(snappy::Decoder<'a>),
    Lz4(Box<FrameDecoder<&'a [u8]>>),
    Zstd(zstd::stream::read::Decoder<'static, &'a [u8]>),
}

impl<'a> Decoder<'a> {
    /// A decoder over `payload`, or `None` where nothing is compressed. `max_output` lets codecs refuse early.
    pub(crate) fn new(
        codec: Compression,
        payload: &'a [u8],
        max_output: u64,
    ) -> io::Result<Option<Decoder<'a>>> {
        Ok(Some(match codec {
            Compression::None => return Ok(None),
            Compression::Gzip => Decoder::Gzip(Box::new(Gunzip(GzDecoder::new(payload)))),
            Compression::Snappy => Decoder::Snappy(snappy::Decoder::new(payload, max_output)),
            Compression::Lz4 => {
                // A batch that the cleaner emptied has no frame.
                let frame = if payload.is_empty() {
                    Some(payload)
                } else {
                    lz4::first_frame(payload)
                };
                Decoder::Lz4(Box::new(FrameDecoder::new(
                    frame.ok_or(io::ErrorKind::UnexpectedEof)?,
                )))
            }
            Compression::Zstd => Decoder::Zstd(zstd::stream::read::Decoder::with_buffer(payload)?),
        }))
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Decoder::Gzip(inner) => inner.read(out),
            Decoder::Snappy(inner) => inner.read(out),
            Decoder::Lz4(inner) => inner.read(out),
            Decoder::Zstd(inner) => inner.read(out),
        }
    }
}

/// Reads gzip streams that stand one behind the other. What follows a stream and is none itself is left alone, as
/// Java's reader does.
pub(crate) struct Gunzip<'a>(GzDecoder<&'a [u8]>);

impl Read for Gunzip<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.0.read(out)?;
            if read > 0 || out.is_empty() {
                return Ok(read);
            }
            let rest: &[u8] = self.0.get_ref();
            if !rest.starts_with(&[0x1f, 0x8b, 8]) {
                return Ok(0);
            }
            self.0 = GzDecoder::new(rest);
        }
    }
}

/// Compresses what is written, behind whatever `BytesMut` already holds.
pub(crate) enum Encoder {
    None(Writer<BytesMut>),
    Gzip(Box<GzEncoder<Writer<BytesMut>>>),
    Snappy(Box<snappy::Encoder>),
    Lz4(Box<FrameEncoder<Writer<BytesMut>>>),
    Zstd(zstd::stream::write::Encoder<'static, Writer<BytesMut>>),
}

impl Encoder {
    /// An encoder that appends to `out`. `level` is clamped to what the codec knows; lz4 and snappy have none here.
    pub(crate) fn new(codec: Compression, level: Option<i32>, out: BytesMut) -> io::Result<Encoder> {
        Ok(match codec {
            Compression::None => Encoder::None(out.writer()),
            Compression::Gzip => Encoder::Gzip(Box::new(GzEncoder::new(out.writer(), gzip_level(level)))),
            Compression::Snappy => Encoder::Snappy(Box::new(snappy::Encoder::new(out))),
            Compression::Lz4 => {
                // Java's reader insists on independent blocks, and its writer makes blocks of 64 KiB without checksums.
                let info = FrameInfo::new()
                    .block_mode(BlockMode::Independent)
                    .block_size(BlockSize::Max64KB);
                Encoder::Lz4(Box::new(FrameEncoder::with_frame_info(info, out.writer())))
            }
            Compression::Zstd => {
                let range = zstd::compression_level_range();
                let level = level
                    .unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL)
                    .clamp(*range.start(), *range.end());
                Encoder::Zstd(zstd::stream::write::Encoder::new(out.writer(), level)?)
            }
        })
    }

    /// Ends the stream and gives the buffer back.
    pub(crate) fn finish(self) -> io::Result<BytesMut> {
        Ok(match self {
            Encoder::None(out) => out.into_inner(),
            Encoder::Gzip(inner) => inner.finish()?.into_inner(),
            Encoder::Snappy(inner) => inner.finish()?,
            Encoder::Lz4(inner) => inner.finish().map_err(io::Error::other)?.into_inner(),
            Encoder::Zstd(inner) => inner.finish()?.into_inner(),
        })
    }
}

/// Kafka's `compression.gzip.level` is 1 to 9, or -1 for the default.
fn gzip_level(level: Option<i32>) -> flate2::Compression {
    match level {
        Some(level @ 0..) => flate2::Compression::new(level.clamp(1, 9) as u32),
        _ => flate2::Compression::default(),
    }
}

impl Write for Encoder {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Encoder::None(inner) => inner.write(data),
            Encoder::Gzip(inner) => inner.write(data),
            Encoder::Snappy(inner) => inner.write(data),
            Encoder::Lz4(inner) => inner.write(data),
            Encoder::Zstd(inner) => inner.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
