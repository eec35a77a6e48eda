//! Where an LZ4 frame ends. Java's reader wants the end mark, and leaves alone what follows it; the decoder used here takes
//! the end of its input for the end of a frame, and what follows an end mark for another frame. So the decoder is
//! given exactly one frame.
//!
//! ```text
//! magic (4)   flags (1)   block descriptor (1)   content size (8, if bit 3)   dictionary id (4, if bit 0)   checksum (1)
//! blocks: length (4, little-endian; top bit: not compressed), bytes, checksum (4, if bit 4)
//! end mark: length 0   content checksum (4, if bit 2)
//! ```

/// The first frame in `input`, whole; `None` if it is cut short.
pub(crate) fn first_frame(input: &[u8]) -> Option<&[u8]> {
    let flags = *input.get(4)?;
    let has = |bit: u8| usize::from(flags >> bit & 1);
    let mut at = 4 + 2 + 8 * has(3) + 4 * has(0) + 1;
    loop {
        let length = u32::from_le_bytes(*input.get(at..)?.first_chunk::<4>()?);
        at += 4;
        if length == 0 {
            return input.get(..at + 4 * has(2));
        }
        at = at.checked_add((length & 0x7fff_ffff) as usize + 4 * has(4))?;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};

    use super::*;

    #[test]
    fn a_frame_ends_behind_its_end_mark() {
        let plain: Vec<u8> = (0..200_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for checksums in [false, true] {
            for size in [None, Some(plain.len() as u64)] {
                let info = FrameInfo::new()
                    .block_size(BlockSize::Max64KB)
                    .block_checksums(checksums)
                    .content_checksum(checksums)
                    .content_size(size);
                let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(&plain).unwrap();
                let frame = encoder.finish().unwrap();
                assert_eq!(first_frame(&frame), Some(frame.as_slice()));
                let twice = [&frame[..], &frame[..]].concat();
                assert_eq!(first_frame(&twice), Some(frame.as_slice()));
                for end in (0..frame.len()).step_by(997).chain([frame.len() - 1]) {
                    assert_eq!(first_frame(&frame[..end]), None, "{end} bytes of {}", frame.len());
                }
            }
        }
    }
}
