//! CRC32C of bytes whose parts' CRCs are known already.
//!
//! A CRC is a remainder of polynomials over GF(2), so that of two runs together follows from theirs and the length of the
//! second: the first is moved up by that length, which is a product with `x^(8·length)` modulo the polynomial, and the
//! second is added. That takes a fraction of a microsecond, whatever the length.

/// CRC32C's polynomial, bits reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The polynomial 1, bits reflected.
const ONE: u32 = 1 << 31;
/// `x^(2^n)` modulo the polynomial.
const POWERS: [u32; 32] = powers();

const fn powers() -> [u32; 32] {
    let mut powers = [0; 32];
    // x itself.
    let mut power = ONE >> 1;
    let mut n = 0;
    while n < 32 {
        powers[n] = power;
        power = product(power, power);
        n += 1;
    }
    powers
}

/// The product of two polynomials modulo CRC32C's.
const fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    let mut bit = ONE;
    while bit != 0 {
        if a & bit != 0 {
            sum ^= b;
        }
        // Times x.
        b = if b & 1 != 0 { (b >> 1) ^ POLYNOMIAL } else { b >> 1 };
        bit >>= 1;
    }
    sum
}

/// `x^(8·length)` modulo the polynomial.
const fn shift(mut length: u64) -> u32 {
    let mut power = ONE;
    // From bytes to bits.
    let mut n = 3;
    while length != 0 {
        if length & 1 != 0 {
            power = product(POWERS[n % 32], power);
        }
        length >>= 1;
        // The order of x divides 2^31 - 1 for this polynomial, so that powers repeat after 31 squarings.
        n = if n == 31 { 1 } else { n + 1 };
    }
    power
}

/// The CRC32C of two runs of bytes one behind the other, from the CRC of each and the length of the second.
#[must_use]
pub const fn combine(first: u32, second: u32, second_length: u64) -> u32 {
    product(shift(second_length), first) ^ second
}

/// The CRC32C of bytes that come in parts, some of them with a CRC that is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Crc {
    crc: u32,
    length: u64,
    /// The last length by which something was moved up, and its factor: parts often have the same length.
    last: (u64, u32),
}

impl Crc {
    /// Of no bytes.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            crc: 0,
            length: 0,
            last: (0, ONE),
        }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.length += bytes.len() as u64;
    }

    /// Adds `length` bytes of which the CRC is known.
    pub fn add(&mut self, crc: u32, length: u64) {
        if self.last.0 != length {
            self.last = (length, shift(length));
        }
        self.crc = product(self.last.1, self.crc) ^ crc;
        self.length += length;
    }

    /// The CRC of all so far.
    #[must_use]
    pub const fn value(&self) -> u32 {
        self.crc
    }

    /// Bytes so far.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_in_any_number_give_the_crc_of_the_whole(
            bytes in proptest::collection::vec(any::<u8>(), 0..5000),
            cuts in proptest::collection::vec((0_usize..5000, any::<bool>()), 0..12),
        ) {
            let mut cuts: Vec<(usize, bool)> =
                cuts.into_iter().map(|(at, known)| (at.min(bytes.len()), known)).collect();
            cuts.push((bytes.len(), true));
            cuts.sort_unstable();
            let (mut crc, mut from) = (Crc::new(), 0);
            for (to, known) in cuts {
                let part = &bytes[from..to];
                match known {
                    true => crc.add(crc32c::crc32c(part), part.len() as u64),
                    false => crc.update(part),
                }
                from = to;
            }
            prop_assert_eq!(crc.value(), crc32c::crc32c(&bytes));
            prop_assert_eq!(crc.length(), bytes.len() as u64);
        }

        #[test]
        fn any_lengths_combine_as_the_library_combines_them(
            first in any::<u32>(), second in any::<u32>(), length in 0_u64..1 << 45,
        ) {
            let expected = crc32c::crc32c_combine(first, second, length as usize);
            prop_assert_eq!(combine(first, second, length), expected);
        }
    }

    #[test]
    fn one_bit_makes_a_difference() {
        let crc = combine(crc32c::crc32c(b"1234"), crc32c::crc32c(b"56789"), 5);
        assert_eq!(crc, 0xe306_9283, "the check value of CRC32C");
        assert_ne!(combine(crc32c::crc32c(b"1235"), crc32c::crc32c(b"56789"), 5), crc);
    }
}
