//! Requests, and what can be wrong with them: damage to any byte, and damage that knows where values stand.

use std::collections::BTreeMap;

use rand::RngExt;
use rand::rngs::StdRng;

/// A sound request, as Kafka's own classes wrote it.
pub struct Sample {
    /// The API.
    pub key: u16,
    /// The version.
    pub version: i16,
    /// The body.
    pub body: Vec<u8>,
    /// The values that Kafka read from the body, in order.
    pub tokens: Vec<Token>,
}

/// Where a value stands in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its offset.
    pub at: usize,
    /// 1, 2, 4 or 8 for a number of so many bytes, `v` for one of variable length, `a` for bytes.
    pub kind: u8,
}

/// A tagged field: its tag and its content.
type Tagged = (u32, Vec<u8>);

/// Tagged fields that stand in samples, by API.
pub struct TaggedFields(BTreeMap<u16, Vec<Tagged>>);

impl TaggedFields {
    /// Those of all samples.
    pub fn of(samples: &[Sample]) -> TaggedFields {
        let mut found: BTreeMap<u16, Vec<Tagged>> = BTreeMap::new();
        for sample in samples {
            for section in sections(sample) {
                found.entry(sample.key).or_default().extend(section.fields);
            }
        }
        TaggedFields(found)
    }
}

/// What seems to be a section of tagged fields: a count, and as many ascending tags with sizes that fit.
struct Section {
    start: usize,
    end: usize,
    fields: Vec<Tagged>,
}

fn sections(sample: &Sample) -> Vec<Section> {
    let numbers = sample.tokens.iter().filter(|token| token.kind == b'v');
    numbers
        .filter_map(|token| {
            let (count, mut at) = read_varint(&sample.body, token.at)?;
            if !(1..=8).contains(&count) {
                return None;
            }
            let mut fields: Vec<Tagged> = Vec::new();
            for _ in 0..count {
                let (tag, after) = read_varint(&sample.body, at)?;
                let (size, after) = read_varint(&sample.body, after)?;
                let content = sample.body.get(after..after.checked_add(size as usize)?)?;
                if fields.last().is_some_and(|(last, _)| *last >= tag) {
                    return None;
                }
                fields.push((tag, content.to_vec()));
                at = after + size as usize;
            }
            Some(Section {
                start: token.at,
                end: at,
                fields,
            })
        })
        .collect()
}

fn read_varint(body: &[u8], mut at: usize) -> Option<(u32, usize)> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *body.get(at)?;
        at += 1;
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at));
        }
    }
    None
}

/// The number in its shortest form, or in a longer one with bytes that add nothing.
fn varint(value: u32, at_least: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = value;
    while rest >= 0x80 || out.len() + 1 < at_least {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

/// Where the value of a token ends.
fn token_end(sample: &Sample, index: usize) -> usize {
    let next = sample.tokens.get(index + 1).map(|token| token.at);
    next.unwrap_or(sample.body.len()).min(sample.body.len())
}

fn pick<'a, T>(rng: &mut StdRng, of: &'a [T]) -> Option<&'a T> {
    of.get(rng.random_range(0..of.len().max(1)))
}

/// A broken body of the sample's API; `other` is a request of the same API.
pub fn mutate_body(rng: &mut StdRng, sample: &Sample, other: &Sample, tagged: &TaggedFields) -> Vec<u8> {
    let mut body = match rng.random_range(0..10) {
        0 | 1 => change_number(rng, sample),
        2 | 3 => change_varint(rng, sample),
        4 | 5 => change_section(rng, sample, tagged),
        6 => insert_section(rng, sample, tagged),
        7 => change_text(rng, sample),
        8 => repeat_elements(rng, sample),
        _ => sample.body.clone(),
    };
    // What knows the structure is often interesting by itself.
    let more = if body == sample.body {
        rng.random_range(1..=3)
    } else {
        rng.random_range(0..=2) / 2
    };
    for _ in 0..more {
        damage_bytes(rng, &mut body, &other.body);
    }
    body
}

fn damage_bytes(rng: &mut StdRng, body: &mut Vec<u8>, other: &[u8]) {
    let at = rng.random_range(0..=body.len());
    match rng.random_range(0..9) {
        0 => body.truncate(at),
        1 => body.extend((0..rng.random_range(1..9)).map(|_| rng.random::<u8>())),
        2 => body.extend(std::iter::repeat_n(0, rng.random_range(1..9))),
        3 => {
            let (from, len) = (rng.random_range(0..=other.len()), rng.random_range(0..40));
            let piece = &other[from..other.len().min(from + len)];
            drop(body.splice(at..at, piece.iter().copied()));
        }
        4 => drop(body.drain(at..body.len().min(at + rng.random_range(1..6)))),
        5 => {
            let byte = [0, 1, 2, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff][rng.random_range(0..9)];
            if let Some(there) = body.get_mut(at) {
                *there = byte;
            }
        }
        6 => {
            let claim = [
                0xff,
                0xff,
                0xff,
                0xff,
                [0x07, 0x0f, 0x10, 0x7f][rng.random_range(0..4)],
            ];
            drop(body.splice(at..at, claim));
        }
        _ => {
            if let Some(there) = body.get_mut(at) {
                *there ^= 1 << rng.random_range(0..8);
            }
        }
    }
}

/// Another number in two, four or eight bytes: lengths, null marks, and all others.
fn change_number(rng: &mut StdRng, sample: &Sample) -> Vec<u8> {
    let mut body = sample.body.clone();
    let numbers: Vec<Token> = sample
        .tokens
        .iter()
        .filter(|token| matches!(token.kind, 1 | 2 | 4 | 8))
        .copied()
        .collect();
    let Some(token) = pick(rng, &numbers) else {
        return body;
    };
    let near = rng.random_range(-2..=2i64);
    let number = match rng.random_range(0..8) {
        0 => -1,
        1 => -2,
        2 => i64::MIN,
        3 => i64::MAX,
        4 => (body.len() - token.at) as i64 + near,
        5 => i64::from(i16::MAX) + near,
        6 => i64::from(rng.random::<i32>()),
        _ => near,
    };
    let width = usize::from(token.kind);
    // Its low bytes, and for the greatest and the least number those of this width.
    let bytes = match number {
        i64::MIN => [&[0x80][..], &[0; 7]].concat(),
        i64::MAX => [&[0x7f][..], &[0xff; 7]].concat(),
        number => number.to_be_bytes()[8 - width..].to_vec(),
    };
    body[token.at..token.at + width].copy_from_slice(&bytes[..width]);
    body
}

/// Another number of variable length, or the same in another form: lengths, counts, tags and sizes.
fn change_varint(rng: &mut StdRng, sample: &Sample) -> Vec<u8> {
    let mut body = sample.body.clone();
    let numbers: Vec<Token> = sample.tokens.iter().filter(|t| t.kind == b'v').copied().collect();
    let Some(token) = pick(rng, &numbers) else {
        return body;
    };
    let Some((value, end)) = read_varint(&body, token.at) else {
        return body;
    };
    let claims = [
        0,
        1,
        2,
        value.wrapping_sub(1),
        value.wrapping_add(1),
        0x7fff,
        0x8000,
        0x8001,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        u32::MAX,
        (body.len() - end) as u32 + rng.random_range(0..3),
    ];
    let form = match rng.random_range(0..10) {
        // The same in two to five bytes.
        0 | 1 => varint(value, rng.random_range(2..=5)),
        // With bits beyond the 32nd.
        2 => {
            let mut form = varint(value, 5);
            form[4] |= [0x10, 0x20, 0x40, 0x70][rng.random_range(0..4)];
            form
        }
        3 => varint(value, 6),
        _ => varint(claims[rng.random_range(0..claims.len())], 1),
    };
    drop(body.splice(token.at..end, form));
    body
}

/// The bytes of tagged fields; now and then with sizes that lie.
fn write_fields(rng: &mut StdRng, fields: &[Tagged]) -> Vec<u8> {
    let mut out = varint(fields.len() as u32, 1);
    for (tag, content) in fields {
        let size = content.len() as u32;
        let size = match rng.random_range(0..8) {
            0 => size.wrapping_add_signed(rng.random_range(-2..=2)),
            1 => [0, 200, 0x7fff_ffff, u32::MAX][rng.random_range(0..4)],
            _ => size,
        };
        out.extend(varint(*tag, 1));
        out.extend(varint(size, 1));
        out.extend(content);
    }
    out
}

/// A tagged field that the API knows, perhaps, or that nobody knows.
fn some_field(rng: &mut StdRng, key: u16, tagged: &TaggedFields) -> Tagged {
    let known = tagged.0.get(&key).and_then(|fields| pick(rng, fields)).cloned();
    match (known, rng.random_range(0..3)) {
        (Some(known), 0 | 1) => known,
        _ => {
            let tag = match rng.random_range(0..12) {
                0 => rng.random_range(0x7fff_fff0..0x8000_0010),
                1..=3 => rng.random_range(100..20_000),
                _ => rng.random_range(0..8),
            };
            let content = (0..rng.random_range(0..12)).map(|_| rng.random::<u8>()).collect();
            (tag, content)
        }
    }
}

/// A section of tagged fields in another order, with fields twice, too many or too few.
fn change_section(rng: &mut StdRng, sample: &Sample, tagged: &TaggedFields) -> Vec<u8> {
    let mut body = sample.body.clone();
    let found = sections(sample);
    let Some(section) = pick(rng, &found) else {
        return insert_section(rng, sample, tagged);
    };
    let mut fields = section.fields.clone();
    for _ in 0..rng.random_range(1..=3) {
        let at = rng.random_range(0..=fields.len());
        match rng.random_range(0..5) {
            0 => fields.reverse(),
            1 => {
                if let Some(again) = pick(rng, &fields).cloned() {
                    fields.insert(at, again);
                }
            }
            2 if at < fields.len() => drop(fields.remove(at)),
            3 => fields.rotate_left(at),
            _ => fields.insert(at, some_field(rng, sample.key, tagged)),
        }
    }
    let written = write_fields(rng, &fields);
    drop(body.splice(section.start..section.end, written));
    body
}

/// Tagged fields where there are none: a zero of variable length is often the count of a section.
fn insert_section(rng: &mut StdRng, sample: &Sample, tagged: &TaggedFields) -> Vec<u8> {
    let mut body = sample.body.clone();
    let zeros: Vec<Token> = sample
        .tokens
        .iter()
        .filter(|token| token.kind == b'v' && body.get(token.at) == Some(&0))
        .copied()
        .collect();
    // The last one is that of the message itself.
    let zero = if rng.random_bool(0.3) {
        zeros.last()
    } else {
        pick(rng, &zeros)
    };
    let Some(zero) = zero else { return body };
    let fields: Vec<Tagged> = (0..rng.random_range(1..=4))
        .map(|_| some_field(rng, sample.key, tagged))
        .collect();
    let written = write_fields(rng, &fields);
    drop(body.splice(zero.at..=zero.at, written));
    body
}

/// Bytes that are not UTF-8, where a text or other bytes stand.
fn change_text(rng: &mut StdRng, sample: &Sample) -> Vec<u8> {
    const PIECES: [&[u8]; 12] = [
        b"\xed\xa0\x80",
        b"\xed\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
        b"\xe0\x80\x80",
        b"\xe2\x82",
        b"\xf0\x90\x80",
        b"\xf0\x9f\x98\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88",
        b"\xc0\xaf",
        b"\x80",
        b"\xff",
    ];
    let mut body = sample.body.clone();
    let texts: Vec<usize> = (0..sample.tokens.len())
        .filter(|i| sample.tokens[*i].kind == b'a' && token_end(sample, *i) > sample.tokens[*i].at)
        .collect();
    let Some(&index) = pick(rng, &texts) else {
        return body;
    };
    let (start, end) = (sample.tokens[index].at, token_end(sample, index));
    let mut at = rng.random_range(start..end);
    while at < end {
        for byte in PIECES[rng.random_range(0..PIECES.len())] {
            if at < end {
                body[at] = *byte;
            }
            at += 1;
        }
        at += rng.random_range(0..8);
    }
    body
}

/// A count, and what follows it so many times: many small elements are what takes most memory for its bytes.
fn repeat_elements(rng: &mut StdRng, sample: &Sample) -> Vec<u8> {
    let mut body = sample.body.clone();
    let counts: Vec<usize> = (0..sample.tokens.len())
        .filter(|i| matches!(sample.tokens[*i].kind, b'v' | 4))
        .collect();
    let Some(&index) = pick(rng, &counts) else {
        return body;
    };
    let (start, after) = (sample.tokens[index].at, token_end(sample, index));
    let until = index + rng.random_range(1..8);
    let end = if until < sample.tokens.len() {
        token_end(sample, until)
    } else {
        body.len()
    };
    // Some kilobytes are enough to meet the budget. More would only take time, and without end at that: Kafka's
    // collections with keys take minutes for thousands of elements with the same key.
    let most = (if rng.random_bool(0.1) { 5_000 } else { 1_000 }) / (end - after).max(1);
    let times = rng.random_range(1..most.max(2));
    let count = match sample.tokens[index].kind {
        4 => (times as i32).to_be_bytes().to_vec(),
        _ => varint(times as u32 + rng.random_range(0..2), 1),
    };
    let repeated = body[after..end].repeat(times);
    drop(body.splice(start..end, count.into_iter().chain(repeated)));
    body
}

/// A frame, without its length: a header, sound or not, and the body.
pub fn frame(rng: &mut StdRng, sample: &Sample, flexible: bool, body: &[u8]) -> Vec<u8> {
    let client_id: &[u8] = [&b"client"[..], b"", b"caf\xe9 \xed\xa0\x80"][rng.random_range(0..3)];
    let mut frame = Vec::with_capacity(body.len() + 32);
    frame.extend(sample.key.to_be_bytes());
    frame.extend(sample.version.to_be_bytes());
    frame.extend(rng.random::<i32>().to_be_bytes());
    if rng.random_bool(0.1) {
        frame.extend([-1i16, -2, i16::MIN][rng.random_range(0..3)].to_be_bytes());
    } else {
        frame.extend((client_id.len() as i16).to_be_bytes());
        frame.extend(client_id);
    }
    if flexible {
        let fields: Vec<Tagged> = match rng.random_range(0..12) {
            0 => (0..rng.random_range(1..4))
                .map(|_| (rng.random_range(0..6), vec![7; rng.random_range(0..5)]))
                .collect(),
            _ => Vec::new(),
        };
        frame.extend(write_fields(rng, &fields));
    }
    if rng.random_bool(0.03) {
        let at = rng.random_range(0..frame.len());
        frame[at] ^= 1 << rng.random_range(0..8);
    }
    frame.extend(body);
    if rng.random_bool(0.01) {
        frame.truncate(rng.random_range(0..frame.len().min(24)));
    }
    frame
}

/// A frame with the sample's own header and body.
pub fn sound_frame(sample: &Sample, flexible: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(sample.body.len() + 16);
    frame.extend(sample.key.to_be_bytes());
    frame.extend(sample.version.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0]);
    if flexible {
        frame.push(0);
    }
    frame.extend(&sample.body);
    frame
}

#[cfg(test)]
mod tests {
    use super::{read_varint, varint};

    #[test]
    fn numbers_of_variable_length_read_back_in_every_form() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
            for at_least in 1..=5 {
                let form = varint(value, at_least);
                assert!(form.len() >= at_least);
                assert_eq!(read_varint(&form, 0), Some((value, form.len())));
            }
        }
    }
}
