//! The store's URL, and directories, as the operator may write them.

use std::path::PathBuf;

/// Checks a store's URL. A local one is made absolute, and its directory given too.
pub(super) fn store_url(url: &str) -> Result<(String, Option<PathBuf>), String> {
    if url == "memory:" || url == "memory://" || url == "memory:///" {
        return Ok(("memory:".to_owned(), None));
    }
    if let Some(rest) = url.strip_prefix("file:") {
        let dir = rest.strip_prefix("//").unwrap_or(rest);
        let dir = dir
            .strip_prefix("localhost/")
            .map_or(dir.to_owned(), |dir| format!("/{dir}"));
        if dir.is_empty() {
            return Err(format!("`{url}` names no directory"));
        }
        let dir = absolute(&percent_decoded(&dir))?;
        let text = dir
            .to_str()
            .ok_or_else(|| "the directory's name is not UTF-8".to_owned())?;
        let text = text.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
        return Ok((format!("file://{text}"), Some(dir)));
    }
    for scheme in ["s3://", "gs://", "az://"] {
        if let Some(rest) = url.strip_prefix(scheme) {
            let bucket = rest.split('/').next().unwrap_or_default();
            return if bucket.is_empty() {
                Err(format!("`{url}` names no bucket"))
            } else {
                Ok((url.to_owned(), None))
            };
        }
    }
    Err(format!(
        "`{url}` is none of file:///dir, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, memory:"
    ))
}

/// `%20` and the like as what they stand for; a `%` without two hexadecimal digits stands for itself.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code
            .and_then(|code| u8::from_str_radix(code, 16).ok())
            .filter(|_| *first == b'%')
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The path from the root.
pub(super) fn absolute(dir: &str) -> Result<PathBuf, String> {
    let path = std::path::absolute(dir).map_err(|error| format!("`{dir}`: {error}"))?;
    Ok(path.components().collect())
}
