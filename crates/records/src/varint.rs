//! Kafka's variable-length integers: zigzag, seven bits a byte, least significant first.

/// Bytes that a 32-bit varint takes at most.
pub(crate) const MAX_VARINT: usize = 5;
/// Bytes that a 64-bit varint takes at most.
pub(crate) const MAX_VARLONG: usize = 10;

/// Reads an unsigned varint of up to `max` bytes; `None` when it does not end within `input` or within `max`.
#[inline]
fn read_unsigned(input: &[u8], max: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().take(max).enumerate() {
        value |= u64::from(byte & 0x7f).wrapping_shl(7 * i as u32);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Reads a 32-bit varint: value and length.
#[inline]
pub(crate) fn read_i32(input: &[u8]) -> Option<(i32, usize)> {
    let (raw, len) = read_unsigned(input, MAX_VARINT)?;
    let raw = raw as u32;
    Some(((raw >> 1) as i32 ^ -((raw & 1) as i32), len))
}

/// Reads a 64-bit varint: value and length.
#[inline]
pub(crate) fn read_i64(input: &[u8]) -> Option<(i64, usize)> {
    let (raw, len) = read_unsigned(input, MAX_VARLONG)?;
    Some(((raw >> 1) as i64 ^ -((raw & 1) as i64), len))
}

/// Reads numbers from the front of a slice. One byte, which most deltas and lengths of fields take, and two are the
/// fast ways.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl Cursor<'_> {
    /// The next 32-bit number; `None` where it does not end.
    #[inline(always)]
    pub(crate) fn varint(&mut self) -> Option<i32> {
        match self.0 {
            [a, rest @ ..] if *a < 0x80 => {
                self.0 = rest;
                Some(i32::from(*a >> 1) ^ -i32::from(*a & 1))
            }
            [a, b, rest @ ..] if *b < 0x80 => {
                self.0 = rest;
                let raw = i32::from(*a & 0x7f) | (i32::from(*b) << 7);
                Some((raw >> 1) ^ -(raw & 1))
            }
            _ => {
                let (value, used) = read_i32(self.0)?;
                self.0 = self.0.get(used..)?;
                Some(value)
            }
        }
    }

    /// The next 64-bit number; `None` where it does not end.
    #[inline(always)]
    pub(crate) fn varlong(&mut self) -> Option<i64> {
        match self.0 {
            [a, rest @ ..] if *a < 0x80 => {
                self.0 = rest;
                Some(i64::from(*a >> 1) ^ -i64::from(*a & 1))
            }
            [a, b, rest @ ..] if *b < 0x80 => {
                self.0 = rest;
                let raw = i64::from(*a & 0x7f) | (i64::from(*b) << 7);
                Some((raw >> 1) ^ -(raw & 1))
            }
            _ => {
                let (value, used) = read_i64(self.0)?;
                self.0 = self.0.get(used..)?;
                Some(value)
            }
        }
    }
}

/// Appends a varint; 32-bit values take the same bytes as 64-bit ones.
#[inline]
pub(crate) fn write(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_widths_survive_a_round_trip() {
        for shift in 0..64 {
            for value in [
                1i64 << shift,
                (1i64 << shift).wrapping_neg(),
                (1i64 << shift).wrapping_sub(1),
                0,
                -1,
            ] {
                let mut out = Vec::new();
                write(&mut out, value);
                assert_eq!(read_i64(&out), Some((value, out.len())));
                let mut cursor = Cursor(&out);
                assert_eq!((cursor.varlong(), cursor.0.len()), (Some(value), 0));
                if let Ok(small) = i32::try_from(value) {
                    assert_eq!(read_i32(&out), Some((small, out.len())));
                    let mut cursor = Cursor(&out);
                    assert_eq!((cursor.varint(), cursor.0.len()), (Some(small), 0));
                }
            }
        }
    }

    #[test]
    fn unterminated_or_overlong_is_none() {
        for cut in [&[][..], &[0x80], &[0x80, 0x80], &[0xff; 11]] {
            assert_eq!(Cursor(cut).varint(), None);
            assert_eq!(Cursor(cut).varlong(), None);
        }
        assert_eq!(read_i32(&[]), None);
        assert_eq!(read_i32(&[0x80, 0x80]), None);
        assert_eq!(read_i32(&[0xff; 5]), None);
        assert_eq!(read_i64(&[0xff; 11]), None);
        assert_eq!(read_i32(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some((i32::MIN, 5)));
    }
}
