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

/// Blocks of a file that begin a record whose object is there no more.
#[derive(Clone, PartialEq, Eq)]
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

/// Block 0 of a file, version 1:
///
/// | at | size | field |
/// | --- | --- | --- |
/// | 0 | 8 | `DRMJFILE` |
/// | 8 | 4 | version |
/// | 12 | 4 | CRC of the block, these four bytes zero |
/// | 16 | 16 | tag, drawn when the file was made: no object can hold a record that passes for the file's own |
/// | 32 | 8 | generation: records of another are what was there before |
/// | 40 | 4 | blocks that may hold records: 1 if there are none |
/// | 64 | 256 | a bit per block: the record that begins there is no object any more |
#[derive(Clone, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) tag: [u8; 16],
    pub(super) generation: u64,
    pub(super) end: u32,
    pub(super) dead: Dead,
}

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
        block[40..44].copy_from_slice(&self.end.to_be_bytes());
        block[MAP].copy_from_slice(&self.dead.0);
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
        Ok(Self {
            tag: array(block, 16),
            generation: u64::from_be_bytes(array(block, 32)),
            end: u32::from_be_bytes(array(block, 40)).clamp(1, FILE_BLOCKS),
            dead,
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
/// | 40 | 8 | number, rising by one a put over all files |
/// | 48 | 8 | when it was put, Unix milliseconds |
/// | 56 | 4 | length of the object's bytes, which begin at the next block |
/// | 60 | 4 | CRC of them |
/// | 64 | 2 | length of the key |
/// | 66 | | the key |
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RecordHeader {
    pub(super) tag: [u8; 16],
    pub(super) generation: u64,
    pub(super) number: u64,
    pub(super) modified_ms: i64,
    pub(super) length: u32,
    pub(super) crc: u32,
    pub(super) key: String,
}

impl RecordHeader {
    /// Writes it to the first block of `block`, which is zeroed. The key is one of at most [`MAX_KEY`] bytes.
    pub(super) fn encode(&self, block: &mut [u8]) {
        let block = &mut block[..BLOCK];
        block[..8].copy_from_slice(RECORD_MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_be_bytes());
        block[16..32].copy_from_slice(&self.tag);
        block[32..40].copy_from_slice(&self.generation.to_be_bytes());
        block[40..48].copy_from_slice(&self.number.to_be_bytes());
        block[48..56].copy_from_slice(&self.modified_ms.to_be_bytes());
        block[56..60].copy_from_slice(&self.length.to_be_bytes());
        block[60..64].copy_from_slice(&self.crc.to_be_bytes());
        let key = self.key.as_bytes();
        block[64..66].copy_from_slice(&(key.len() as u16).to_be_bytes());
        block[66..66 + key.len()].copy_from_slice(key);
        seal(block);
    }

    pub(super) fn decode(block: &[u8]) -> Option<Self> {
        if version(block, RECORD_MAGIC)? != VERSION {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(array(block, 64)));
        let key = block.get(66..66 + length)?;
        Some(Self {
            tag: array(block, 16),
            generation: u64::from_be_bytes(array(block, 32)),
            number: u64::from_be_bytes(array(block, 40)),
            modified_ms: i64::from_be_bytes(array(block, 48)),
            length: u32::from_be_bytes(array(block, 56)),
            crc: u32::from_be_bytes(array(block, 60)),
            key: std::str::from_utf8(key).ok()?.to_owned(),
        })
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
