//! The header that every chain entry begins with.
//!
//! Format version 1, 96 bytes, integers big-endian:
//!
//! | at | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic, `DRML` |
//! | 4 | 1 | format version, 1 |
//! | 5 | 1 | kind: 0 birth, 1 data, 2 fence, 3 checkpoint, 4 release, 5 edit, 6 control, 7 given up |
//! | 6 | 2 | zero |
//! | 8 | 16 | chain id |
//! | 24 | 8 | slot |
//! | 32 | 16 | put id, drawn when the slot is first dispatched; tells one's own entry from another's |
//! | 48 | 8 | epoch of the writer (metadata: the controller's; elsewhere its owner's business) |
//! | 56 | 8 | length of what follows the header |
//! | 64 | 8 | where the footer starts, counted from the start of the object; 0: there is none |
//! | 72 | 4 | CRC32C of all that follows the header |
//! | 76 | 16 | zero |
//! | 92 | 4 | CRC32C of bytes 0 to 91 |
//!
//! A reader refuses what it does not know: another version, an unknown kind, bytes that should be zero.

use crate::chain::ChainId;

/// Length of the header.
pub const ENTRY_HEADER_LEN: usize = 96;
/// The format that this code writes.
pub const FORMAT_VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"DRML";
const CRC_AT: usize = 92;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum EntryKind {
    /// Slot 0.
    Birth = 0,
    /// The owner's data.
    Data = 1,
    /// Ends a WAL; in the metadata log, a new controller.
    Fence = 2,
    /// Names a checkpoint (rule D1); its footer is a [`Checkpoint`](crate::chain::Checkpoint).
    Checkpoint = 3,
    /// Gives partitions away (rule M1).
    Release = 4,
    /// Changes what a partition consists of (rule N1).
    Edit = 5,
    /// Anything else that is the owner's own business.
    Control = 6,
    /// Stands in place of a committed entry that was missing, and that an operator gave up.
    GivenUp = 7,
}

impl EntryKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Birth,
            1 => Self::Data,
            2 => Self::Fence,
            3 => Self::Checkpoint,
            4 => Self::Release,
            5 => Self::Edit,
            6 => Self::Control,
            7 => Self::GivenUp,
            _ => return None,
        })
    }
}

/// What is wrong with the bytes of a chain object.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the format needs.
    #[error("cut off after {0} bytes")]
    Short(usize),
    /// The first bytes are wrong.
    #[error("not one of drumlin's objects")]
    Magic,
    /// Written by a newer version.
    #[error("format version {0} is not known, this version reads up to 1")]
    Version(u8),
    /// Written by a newer version, or damaged.
    #[error("entry kind {0} is not known")]
    Kind(u8),
    /// The header's CRC is wrong, or it holds what cannot be.
    #[error("the header is damaged")]
    Header,
    /// The body's CRC is wrong.
    #[error("the body is damaged")]
    Body,
    /// The object is longer or shorter than its header says.
    #[error("{found} bytes where the header says {told}")]
    Length {
        /// Bytes of the object.
        found: u64,
        /// Bytes that it should have.
        told: u64,
    },
    /// The object belongs to another chain.
    #[error("belongs to chain {0}")]
    Chain(ChainId),
    /// The object belongs to another slot.
    #[error("holds slot {0}")]
    Slot(u64),
}

impl FormatError {
    /// What an operator can do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::Version(_) | Self::Kind(_) => "start the newer drumlin that wrote it, or a later one",
            Self::Chain(_) => {
                "that is another cluster's, or another start's: point store.url at the bucket and prefix of one \
                 cluster, or restore what was replaced from a copy"
            }
            Self::Short(_)
            | Self::Magic
            | Self::Header
            | Self::Body
            | Self::Length { .. }
            | Self::Slot(_) => {
                "restore it from a copy of the bucket; `drumlin store check` names all that is wrong"
            }
        }
    }
}

/// The header of a chain entry; the module's page has its layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// What it is.
    pub kind: EntryKind,
    /// Which chain it belongs to.
    pub chain: ChainId,
    /// Its place in the chain.
    pub slot: u64,
    /// Drawn at the first dispatch, the same over every retry (rule A1).
    pub put_id: [u8; 16],
    /// The writer's epoch.
    pub epoch: u64,
    /// Bytes after the header.
    pub body_len: u64,
    /// Where the footer starts in the object; 0: there is none.
    pub footer_at: u64,
    /// CRC32C of everything after the header.
    pub body_crc: u32,
}

impl EntryHeader {
    /// Bytes of the whole object.
    pub fn object_len(&self) -> u64 {
        self.body_len.saturating_add(ENTRY_HEADER_LEN as u64)
    }

    /// The header's 96 bytes.
    pub fn encode(&self) -> [u8; ENTRY_HEADER_LEN] {
        let mut bytes = [0; ENTRY_HEADER_LEN];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = FORMAT_VERSION;
        bytes[5] = self.kind as u8;
        bytes[8..24].copy_from_slice(&self.chain.0);
        bytes[24..32].copy_from_slice(&self.slot.to_be_bytes());
        bytes[32..48].copy_from_slice(&self.put_id);
        bytes[48..56].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[56..64].copy_from_slice(&self.body_len.to_be_bytes());
        bytes[64..72].copy_from_slice(&self.footer_at.to_be_bytes());
        bytes[72..76].copy_from_slice(&self.body_crc.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Reads the header at the start of `bytes`. Says nothing of the body.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (head, _) = bytes
            .split_first_chunk::<ENTRY_HEADER_LEN>()
            .ok_or(FormatError::Short(bytes.len()))?;
        if head[0..4] != MAGIC {
            return Err(FormatError::Magic);
        }
        if head[4] != FORMAT_VERSION {
            return Err(FormatError::Version(head[4]));
        }
        if crc32c::crc32c(&head[..CRC_AT]) != u32::from_be_bytes(array(&head[CRC_AT..])) {
            return Err(FormatError::Header);
        }
        if head[6..8] != [0; 2] || head[76..CRC_AT] != [0; 16] {
            return Err(FormatError::Header);
        }
        let header = Self {
            kind: EntryKind::from_byte(head[5]).ok_or(FormatError::Kind(head[5]))?,
            chain: ChainId(array(&head[8..24])),
            slot: u64::from_be_bytes(array(&head[24..32])),
            put_id: array(&head[32..48]),
            epoch: u64::from_be_bytes(array(&head[48..56])),
            body_len: u64::from_be_bytes(array(&head[56..64])),
            footer_at: u64::from_be_bytes(array(&head[64..72])),
            body_crc: u32::from_be_bytes(array(&head[72..76])),
        };
        let footer_fits = header.footer_at == 0
            || (ENTRY_HEADER_LEN as u64..=header.object_len()).contains(&header.footer_at);
        if !footer_fits || header.body_len > u64::MAX / 2 {
            return Err(FormatError::Header);
        }
        Ok(header)
    }

    /// Whether this is the entry of `slot` of `chain`.
    pub fn check_place(&self, chain: &ChainId, slot: u64) -> Result<(), FormatError> {
        if self.chain != *chain {
            return Err(FormatError::Chain(self.chain));
        }
        if self.slot != slot {
            return Err(FormatError::Slot(self.slot));
        }
        Ok(())
    }

    /// Whether `object`, header included, has the length and the body that the header tells of.
    pub fn check_body(&self, object: &[u8]) -> Result<(), FormatError> {
        let found = object.len() as u64;
        if found != self.object_len() {
            return Err(FormatError::Length {
                found,
                told: self.object_len(),
            });
        }
        if crc32c::crc32c(&object[ENTRY_HEADER_LEN..]) != self.body_crc {
            return Err(FormatError::Body);
        }
        Ok(())
    }
}

/// A slice of known length as an array.
pub(crate) fn array<const N: usize>(slice: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(slice);
    array
}
