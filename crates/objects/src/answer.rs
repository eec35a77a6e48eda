//! A remote store's own words, as one line for a person.
//!
//! The client beneath wraps them in the request, its time, and the XML that all of these stores speak: what it says of
//! one failure is four lines long and never twice the same.

/// Codes of S3 and Google, and of Azure, for a bucket that is not there.
const NO_BUCKET: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];

/// What stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    Some(rest.split_once(after)?.0.trim())
}

/// Whether the answer is that there is no bucket, and not only no object in it.
pub(crate) fn is_no_bucket(text: &str) -> bool {
    code_of(text).is_some_and(|code| NO_BUCKET.contains(&code))
}

/// The HTTP status of an answer that was none that was wanted.
pub(crate) fn status_of(text: &str) -> Option<u16> {
    between(text, "status code: ", " ")?.parse().ok()
}

/// The store's own code of a failure.
pub(crate) fn code_of(text: &str) -> Option<&str> {
    between(text, "<Code>", "</Code>")
}

/// Where the request went, and the text after what tells of it: `Error performing GET http://host/key in 3ms - said`.
fn request(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("Error performing ")?;
    let (request, said) = rest.split_once(" - ")?;
    let url = request.split(' ').nth(1)?;
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    Some((&url[..end], said))
}

/// An error's text without what does not help.
pub(crate) fn in_short(text: &str) -> String {
    let (from, said) = request(text).map_or((None, text), |(from, said)| (Some(from), said));
    let code = code_of(said);
    let words = match (code, between(said, "<Message>", "</Message>")) {
        (None, _) => said.to_owned(),
        (Some(code), message) => {
            let status = between(said, "status code: ", ":").unwrap_or("an error");
            let message = message.map(|message| format!(": {message}"));
            format!("{status}, {code}{}", message.unwrap_or_default())
        }
    };
    let from = from.map(|from| format!("{from}: ")).unwrap_or_default();
    let words: Vec<&str> = words.split_whitespace().collect();
    from + &words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What MinIO and the client made of a wrong secret key, but for the ids.
    const DENIED: &str = "The operation lacked the necessary privileges to complete for path \
        x/meta/log/00000000000000000000: Error performing GET \
        http://127.0.0.1:19555/b/x/meta/log/00000000000000000000 in 10.971373ms - Server returned non-2xx status \
        code: 403 Forbidden: <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SignatureDoesNotMatch</Code>\
        <Message>The request signature we calculated does not match the signature you provided. Check your key and \
        signing method.</Message><Key>x</Key><BucketName>b</BucketName></Error>";

    #[test]
    fn a_stores_words_are_one_line_and_always_the_same() {
        assert_eq!(
            in_short(DENIED),
            "http://127.0.0.1:19555: 403 Forbidden, SignatureDoesNotMatch: The request signature we calculated does \
             not match the signature you provided. Check your key and signing method."
        );
        assert_eq!(in_short(&DENIED.replace("10.971373ms", "2s")), in_short(DENIED));
        let refused = "Error performing GET http://127.0.0.1:1/b/x in 1.2ms - HTTP error: error sending request: \
                       tcp connect error: Connection refused (os error 111)";
        assert_eq!(
            in_short(refused),
            "http://127.0.0.1:1: HTTP error: error sending request: tcp connect error: Connection refused (os error 111)"
        );
        let bare = "Error performing PUT http://h in 1s - Server returned error response: <Error>\n <Code>SlowDown\
                    </Code></Error>";
        assert_eq!(in_short(bare), "http://h: an error, SlowDown");
        for other in [
            "",
            "Input/output error (os error 5)",
            "Error performing",
            "Error performing X - y",
            "<Code>",
        ] {
            assert_eq!(in_short(other), other);
        }
    }

    #[test]
    fn status_and_code_are_found() {
        assert_eq!(
            (status_of(DENIED), code_of(DENIED)),
            (Some(403), Some("SignatureDoesNotMatch"))
        );
        assert_eq!((status_of("no answer"), code_of("no answer")), (None, None));
    }

    #[test]
    fn a_missing_bucket_is_no_missing_object() {
        let missing = |code: &str| format!("404 Not Found: <Error><Code>{code}</Code></Error>");
        assert!(is_no_bucket(&missing("NoSuchBucket")) && is_no_bucket(&missing("ContainerNotFound")));
        assert!(!is_no_bucket(&missing("NoSuchKey")) && !is_no_bucket(&missing("BlobNotFound")));
        assert!(!is_no_bucket("no NoSuchBucket here"));
    }
}
