//! Memory that direct I/O accepts, without `unsafe`: a vector with room to begin at a block's boundary.

/// Address, length and file offset of direct I/O are multiples of this. Devices ask for 512 or 4,096.
pub(crate) const BLOCK: usize = 4096;

/// A zeroed buffer whose slice begins at a multiple of [`BLOCK`].
pub(crate) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// `len` bytes.
    pub(crate) fn new(len: usize) -> Self {
        let memory = vec![0; len + BLOCK];
        let start = memory.as_ptr().addr().next_multiple_of(BLOCK) - memory.as_ptr().addr();
        Self { memory, start, len }
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Whether the slice begins at a multiple of [`BLOCK`].
pub(crate) fn is_aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().addr().is_multiple_of(BLOCK)
}
