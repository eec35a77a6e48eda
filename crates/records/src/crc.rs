//! How a CRC32C changes with bits of its input, without reading the rest of it.
//!
//! A CRC is a remainder of polynomials over GF(2), so it is linear: the CRCs of two inputs of one length differ by the
//! remainder of their difference. Zero bytes behind a difference multiply it by x^8 each.

/// The polynomial, lowest power in the highest bit, as the CRC's own bits stand.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1.
const ONE: u32 = 1 << 31;
/// Powers of two that a number of bits may have.
const POWERS: usize = 36;

/// x^(2^n) for each n.
const X_TO_TWO_TO: [u32; POWERS] = {
    let mut powers = [0; POWERS];
    powers[0] = ONE >> 1;
    let mut n = 1;
    while n < POWERS {
        powers[n] = multiply(powers[n - 1], powers[n - 1]);
        n += 1;
    }
    powers
};

/// The product, reduced.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            product ^= b;
        }
        b = (b >> 1) ^ (POLYNOMIAL & (b & 1).wrapping_neg());
        bit >>= 1;
    }
    product
}

/// What a CRC32C changes by when `changed` are the bits that change, with `behind` bytes after them.
pub(crate) fn difference(changed: &[u8], behind: usize) -> u32 {
    // Without the inversions at both ends of the register, which cancel out in a difference.
    let mut crc = !crc32c::crc32c_append(!0, changed);
    let (mut bytes, mut power) = (behind, 3);
    while bytes > 0 && power < POWERS {
        if bytes & 1 != 0 {
            crc = multiply(X_TO_TWO_TO[power], crc);
        }
        bytes >>= 1;
        power += 1;
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_input_has_the_crc_that_the_difference_says() {
        for behind in [0, 1, 2, 3, 7, 8, 63, 64, 1_000, 65_536, 1_048_577] {
            let mut input = vec![0x5a; 40 + behind];
            for (at, byte) in input.iter_mut().enumerate() {
                *byte ^= at as u8;
            }
            let before = crc32c::crc32c(&input);
            let mut changed = [0u8; 40];
            (changed[1], changed[14], changed[21]) = (8, 0xff, 1);
            for (byte, changed) in input.iter_mut().zip(changed) {
                *byte ^= changed;
            }
            assert_eq!(
                before ^ difference(&changed, behind),
                crc32c::crc32c(&input),
                "{behind} bytes behind"
            );
        }
    }
}
