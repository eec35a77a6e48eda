//! The two blocks that a journal's file has besides bodies: its header, and the header of each record.

use std::ops::Range;

use super::super::aligned::{Aligned, BLOCK};

/// Length of a journal's file in bytes, the header included.
pub(super) const FILE_BYTES: u64 = 8 << 20;
/// The same in blocks. The header is block 0.
pub(super) const FILE_BLOCKS: u32 = (FILE_BYTES / BLOCK as u64) as u32;
/// The longest key of an object here.
pub(super) const MAX_KEY: usize = 1024;

const FILE_MAGIC: &[u8; 8] = b"DRMJFILE";
const RECORD_MAGIC: &[u8; 8] = b"DRMJDATA";
const VERSION: u32 = 1;
const CRC: Range<usize> = 12..16;
const MAP: Range<usize> = 64..64 + FILE_BLOCKS as usize / 8;
/// Where a block tells of its record, and of the one before.
const THIS: usize = 64;
const BEFORE: usize = 1536;

/// Blocks of a file that begin a record whose object is there no more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Dead([u8; FILE_BLOCKS as usize / 8]);

impl Dead {
    pub(super) fn none() -> Self {
        Self([0; FILE_BLOCKS as usize / 8])
    }

    pub(super) fn has(&self, block: u32) -> bool {
        self.0[block as usize / 8] & (1 << (block % 8)) != 0
    }

    pub(super) fn add(&mut self, block: u32) {
        self.0[block as usize / 8] |= 1 << (block % 8);
    }
}

/// What is known of an object and its record. As bytes, in 30 and the key's:
///
/// | at | size | field |
/// | --- | --- | --- |
/// | 0 | 8 | number, rising by one a put over all files; from 1 |
/// | 8 | 8 | when it was put, Unix milliseconds |
/// | 16 | 4 | block where the record begins |
/// | 20 | 4 | length of the object's bytes, which begin at the next block |
/// | 24 | 4 | CRC of them |
/// | 28 | 2 | length of the key |
/// | 30 | | the key |
///
/// Zeros are none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Record {
    pub(super) number: u64,
    pub(super) modified_ms: i64,
    pub(super) block: u32,
    pub(super) length: u32,
    pub(super) crc: u32,
    /// At most [`MAX_KEY`] bytes.
    pub(super) key: String,
}

impl Record {
    fn encode(&self, out: &mut [u8]) {
        out[..8].copy_from_slice(&self.number.to_be_bytes());
        out[8..16].copy_from_slice(&self.modified_ms.to_be_bytes());
        out[16..20].copy_from_slice(&self.block.to_be_bytes());
        out[20..24].copy_from_slice(&self.length.to_be_bytes());
        out[24..28].copy_from_slice(&self.crc.to_be_bytes());
        let key = self.key.as_bytes();
        out[28..30].copy_from_slice(&(key.len() as u16).to_be_bytes());
        out[30..30 + key.len()].copy_from_slice(key);
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let number = u64::from_be_bytes(array(bytes, 0));
        let length = usize::from(u16::from_be_bytes(array(bytes, 28)));
        let key = bytes.get(30..30 + length)?;
        let record = Self {
            number,
            modified_ms: i64::from_be_bytes(array(bytes, 8)),
            block: u32::from_be_bytes(array(bytes, 16)),
            length: u32::from_be_bytes(array(bytes, 20)),
            crc: u32::from_be_bytes(array(bytes, 24)),
            key: std::str::from_utf8(key).ok()?.to_owned(),
        };
        let fits =
            record.block > 0 && u64::from(record.block) + u64::from(record.blocks()) <= FILE_BLOCKS.into();
        (number > 0 && fits).then_some(record)
    }

    /// Blocks of the whole record.
    pub(super) fn blocks(&self) -> u32 {
        blocks_of(self.length)
    }
}

/// Blocks of a record whose object has so many bytes.
pub(super) fn blocks_of(length: u32) -> u32 {
    length.div_ceil(BLOCK as u32) + 1
}

/// Block 0 of a file, version 1:
///
/// | at | size | field |
/// | --- | --- | --- |
/// | 0 | 8 | `DRMJFILE` |
/// | 8 | 4 | version |
/// | 12 | 4 | CRC of the block, these four bytes zero |
/// | 16 | 16 | tag, random: no object can hold a record that passes for the file's own |
/// | 32 | 8 | generation: records of another are what was there before |
/// | 40 | 8 | number of the generation's first record |
/// | 48 | 8 | puts with a number below this were over when this was written |
/// | 56 | 4 | blocks that may hold records: 1 if there are none |
/// | 64 | 256 | a bit per block: the record that begins there is no object any more |
/// | 1,536 | | the last [`Record`] of the file that was written before |
/// | 2,624 | 8 | that file's generation |
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FileHeader {
    pub(super) tag: [u8; 16],
    pub(super) generation: u64,
    pub(super) first: u64,
    pub(super) settled: u64,
    pub(super) end: u32,
    pub(super) dead: Dead,
    /// The last record of the generation before, which lies in another file and has no successor there.
    pub(super) before: Option<(u64, Record)>,
}

const BEFORE_GENERATION: usize = 2624;

/// What block 0 of a file is if no header that is known.
#[derive(Debug)]
pub(super) enum Unknown {
    /// A header of a later format.
    Newer(u32),
    /// Something else, or a torn one.
    Other,
}

impl FileHeader {
    pub(super) fn encode(&self) -> Aligned {
        let mut memory = Aligned::new(BLOCK);
        let block = memory.as_mut();
        block[..8].copy_from_slice(FILE_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_be_bytes());
        block[16..32].copy_from_slice(&self.tag);
        block[32..40].copy_from_slice(&self.generation.to_be_bytes());
        block[40..48].copy_from_slice(&self.first.to_be_bytes());
        block[48..56].copy_from_slice(&self.settled.to_be_bytes());
        block[56..60].copy_from_slice(&self.end.to_be_bytes());
        block[MAP].copy_from_slice(&self.dead.0);
        if let Some((generation, record)) = &self.before {
            record.encode(&mut block[BEFORE..]);
            block[BEFORE_GENERATION..BEFORE_GENERATION + 8].copy_from_slice(&generation.to_be_bytes());
        }
        seal(block);
        memory
    }

    pub(super) fn decode(block: &[u8]) -> Result<Self, Unknown> {
        match version(block, FILE_MAGIC) {
            None => return Err(Unknown::Other),
            Some(VERSION) => {}
            Some(newer) => return Err(Unknown::Newer(newer)),
        }
        let mut dead = Dead::none();
        dead.0.copy_from_slice(&block[MAP]);
        let before = Record::decode(&block[BEFORE..]);
        Ok(Self {
            tag: array(block, 16),
            generation: u64::from_be_bytes(array(block, 32)),
            first: u64::from_be_bytes(array(block, 40)),
            settled: u64::from_be_bytes(array(block, 48)),
            end: u32::from_be_bytes(array(block, 56)).clamp(1, FILE_BLOCKS),
            dead,
            before: before.map(|record| (u64::from_be_bytes(array(block, BEFORE_GENERATION)), record)),
        })
    }
}

/// The block before an object's bytes, version 1:
///
/// | at | size | field |
/// | --- | --- | --- |
/// | 0 | 8 | `DRMJDATA` |
/// | 8 | 4 | version |
/// | 12 | 4 | CRC of the block, these four bytes zero |
/// | 16 | 16 | tag of the file |
/// | 32 | 8 | generation of the file |
/// | 64 | | the [`Record`] |
/// | 1,536 | | the record before it in this generation: if that one's own block is damaged, it is known from here |
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RecordHeader {
    pub(super) tag: [u8; 16],
    pub(super) generation: u64,
    pub(super) this: Record,
    pub(super) before: Option<Record>,
}

impl RecordHeader {
    /// Writes it to the first block of `block`, which is zeroed.
    pub(super) fn encode(&self, block: &mut [u8]) {
        let block = &mut block[..BLOCK];
        block[..8].copy_from_slice(RECORD_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_be_bytes());
        block[16..32].copy_from_slice(&self.tag);
        block[32..40].copy_from_slice(&self.generation.to_be_bytes());
        self.this.encode(&mut block[THIS..]);
        if let Some(before) = &self.before {
            before.encode(&mut block[BEFORE..]);
        }
        seal(block);
    }

    pub(super) fn decode(block: &[u8]) -> Option<Self> {
        if version(block, RECORD_MAGIC)? != VERSION {
            return None;
        }
        Some(Self {
            tag: array(block, 16),
            generation: u64::from_be_bytes(array(block, 32)),
            this: Record::decode(&block[THIS..])?,
            before: Record::decode(&block[BEFORE..]),
        })
    }
}

fn seal(block: &mut [u8]) {
    let crc = crc32c::crc32c(block);
    block[CRC].copy_from_slice(&crc.to_be_bytes());
}

/// The version of a block with that magic, whole.
fn version(block: &[u8], magic: &[u8; 8]) -> Option<u32> {
    let block = block.get(..BLOCK).filter(|block| block[..8] == *magic)?;
    let mut crc = crc32c::crc32c(&block[..CRC.start]);
    crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc = crc32c::crc32c_append(crc, &block[CRC.end..]);
    (crc == u32::from_be_bytes(array(block, CRC.start))).then(|| u32::from_be_bytes(array(block, 8)))
}

fn array<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&block[at..at + N]);
    array
}
