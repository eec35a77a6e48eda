//! Java's properties syntax, as `java.util.Properties` reads it: comments, continued lines, escapes.

/// One property of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Property {
    /// The line on which it starts, from 1.
    pub line: usize,
    /// Its name.
    pub key: String,
    /// Its value; trailing white space is a part of it.
    pub value: String,
}

/// A line that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Malformed {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads a file's bytes: UTF-8, or Latin-1 (which is what Java takes) where they are not UTF-8.
pub fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text).to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

/// The properties of a file in their order. A key may come again; the later one counts.
pub fn parse(text: &str) -> Result<Vec<Property>, Malformed> {
    let mut properties = Vec::new();
    for (line, logical) in logical_lines(text) {
        let (key, value) = split(&logical);
        let key = unescape(key).map_err(|reason| Malformed { line, reason })?;
        let value = unescape(value).map_err(|reason| Malformed { line, reason })?;
        properties.push(Property { line, key, value });
    }
    Ok(properties)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Lines without blanks and comments, continued ones joined, each with the number of its first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut lines = unix.split('\n').enumerate();
    let mut logical = Vec::new();
    while let Some((number, line)) = lines.next() {
        let line = line.trim_start_matches(is_space);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while continues(&whole) {
            whole.pop();
            match lines.next() {
                Some((_, next)) => whole.push_str(next.trim_start_matches(is_space)),
                None => break,
            }
        }
        logical.push((number + 1, whole));
    }
    logical
}

/// An odd number of backslashes at the end: the last one escapes the line's end.
fn continues(line: &str) -> bool {
    line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

/// Key and value, still escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line
        .char_indices()
        .find(|(_, c)| {
            let ends = !escaped && (matches!(c, '=' | ':') || is_space(*c));
            escaped = *c == '\\' && !escaped;
            ends
        })
        .map_or(line.len(), |(at, _)| at);
    let (key, rest) = line.split_at(end);
    let rest = rest.trim_start_matches(is_space);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, rest.trim_start_matches(is_space))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut buffer = [0u16; 2];
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        let plain = if c != '\\' {
            c
        } else {
            match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    let unit = u16::from_str_radix(&digits, 16)
                        .ok()
                        .filter(|_| digits.len() == 4 && !digits.starts_with('+'))
                        .ok_or_else(|| format!("`\\u{digits}` is not \\u and four hexadecimal digits"))?;
                    units.push(unit);
                    continue;
                }
                Some(other) => other,
                None => break,
            }
        };
        units.extend_from_slice(plain.encode_utf16(&mut buffer));
    }
    Ok(String::from_utf16_lossy(&units))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|p| (p.line, p.key, p.value))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = pairs(text);
        assert_eq!(all.len(), 1, "{text:?}");
        let (_, key, value) = all.remove(0);
        (key, value)
    }

    #[test]
    fn separators_and_blanks() {
        for text in [
            "a=b",
            "a:b",
            "a b",
            " \t a = b",
            "a\t:\tb",
            "a   b",
            "a=b\n",
            "\r\na=b\r\n",
            "a = b\r",
        ] {
            assert_eq!(one(text), ("a".to_owned(), "b".to_owned()), "{text:?}");
        }
        assert_eq!(one("a=b "), ("a".to_owned(), "b ".to_owned()));
        assert_eq!(one("a"), ("a".to_owned(), String::new()));
        assert_eq!(one("a="), ("a".to_owned(), String::new()));
        assert_eq!(one("a==b"), ("a".to_owned(), "=b".to_owned()));
        assert_eq!(one("a = = b"), ("a".to_owned(), "= b".to_owned()));
        assert_eq!(one("listeners=PLAINTEXT://:9092").1, "PLAINTEXT://:9092");
        assert_eq!(one("a=b # no comment").1, "b # no comment");
    }

    #[test]
    fn comments_and_continued_lines() {
        let text = "# one\n  ! two\n\na=1,\\\n   2,\\\n\t3\nb=x\\\\\nc=last\\";
        assert_eq!(
            pairs(text),
            [
                (4, "a".to_owned(), "1,2,3".to_owned()),
                (7, "b".to_owned(), "x\\".to_owned()),
                (8, "c".to_owned(), "last".to_owned()),
            ]
        );
        // A comment is not continued, and a continued line is no comment.
        assert_eq!(pairs("# a \\\nb=c"), [(2, "b".to_owned(), "c".to_owned())]);
        assert_eq!(one("a=b\\\n#c").1, "b#c");
    }

    #[test]
    fn escapes() {
        assert_eq!(one(r"a\ b\=c\:d=e"), ("a b=c:d".to_owned(), "e".to_owned()));
        assert_eq!(one(r"a=\t\n\r\f\z\\").1, "\t\n\r\u{c}z\\");
        assert_eq!(one(r"a=\u00e9\ud83d\ude00").1, "é😀");
        assert_eq!(parse("a=1\nb=\\u00g0").unwrap_err().line, 2);
        assert_eq!(
            parse("a=\\u12").unwrap_err().reason,
            "`\\u12` is not \\u and four hexadecimal digits"
        );
    }

    #[test]
    fn encodings() {
        assert_eq!(decode("a=é".as_bytes()), "a=é");
        assert_eq!(decode(b"a=\xe9"), "a=é");
        assert_eq!(decode("\u{feff}a=b".as_bytes()), "a=b");
    }
}
