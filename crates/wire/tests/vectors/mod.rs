//! Messages that Apache Kafka 4.3.1 itself encoded; see `README.md`.

#![allow(dead_code, reason = "each test uses its part")]

/// One encoded message.
pub struct Vector {
    /// Whether it is a response.
    pub response: bool,
    /// The API key.
    pub key: u16,
    /// The version.
    pub version: i16,
    /// Flags; what they say depends on the file.
    pub flags: u8,
    /// The body.
    pub body: &'static [u8],
}

/// Random messages.
pub const RANDOM: &[u8] = include_bytes!("random.bin");
/// Messages with default values.
pub const DEFAULTS: &[u8] = include_bytes!("defaults.bin");
/// Messages in which every array has one element with default values and every structure is there.
pub const NESTED: &[u8] = include_bytes!("nested.bin");
/// Bodies that Java refuses.
pub const REFUSED: &[u8] = include_bytes!("refused.bin");
/// Records and data structures, by name.
pub const RECORDS: &[u8] = include_bytes!("records.bin");
/// API key, version, version of the request header, of the response header.
pub const HEADERS: &str = include_str!("headers.txt");

/// The vectors in a file.
pub fn vectors(mut file: &'static [u8]) -> Vec<Vector> {
    let mut out = Vec::new();
    while !file.is_empty() {
        let head: &[u8; 10] = file.first_chunk().expect("a whole head");
        let len = u32::from_be_bytes([head[6], head[7], head[8], head[9]]) as usize;
        out.push(Vector {
            response: head[0] == 1,
            key: u16::from_be_bytes([head[1], head[2]]),
            version: i16::from_be_bytes([head[3], head[4]]),
            flags: head[5],
            body: &file[10..10 + len],
        });
        file = &file[10 + len..];
    }
    out
}

/// Name, version and body of the vectors in a file by name.
pub fn named(mut file: &'static [u8]) -> Vec<(&'static str, i16, &'static [u8])> {
    let mut out = Vec::new();
    while let [len, rest @ ..] = file {
        let (name, rest) = rest.split_at(*len as usize);
        let head: &[u8; 6] = rest.first_chunk().expect("a whole head");
        let version = i16::from_be_bytes([head[0], head[1]]);
        let end = 6 + u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize;
        out.push((std::str::from_utf8(name).expect("a name"), version, &rest[6..end]));
        file = &rest[end..];
    }
    out
}
