//! What is done about a store that refuses bodies in some form, played by a client that sends nothing.

use std::sync::Mutex;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::client::{HttpClient, HttpError, HttpRequest, HttpResponse, HttpService};
use object_store::{PutMode, RetryConfig};

use super::super::connector::SharedClient;
use super::*;

/// A form of a body: whether its hash is signed, and whether a checksum comes with it.
type Form = (bool, bool);

type Answer = fn(Form) -> (u16, &'static str);

/// Answers puts by their form, and remembers it.
#[derive(Clone)]
struct Played {
    answer: Answer,
    seen: Arc<Mutex<Vec<Form>>>,
}

impl fmt::Debug for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Played")
    }
}

#[async_trait]
impl HttpService for Played {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let headers = request.headers();
        let is_signed = headers["x-amz-content-sha256"] != "UNSIGNED-PAYLOAD";
        let form = (is_signed, headers.contains_key("x-amz-checksum-crc64nvme"));
        self.seen.lock().unwrap().push(form);
        let (status, code) = (self.answer)(form);
        let mut response = HttpResponse::new(format!("<Error><Code>{code}</Code></Error>").into());
        *response.status_mut() = status.try_into().unwrap();
        response.headers_mut().insert("etag", "\"1\"".parse().unwrap());
        Ok(response)
    }
}

fn store(answer: Answer, is_https: bool) -> (S3Store, Played) {
    let played = Played {
        answer,
        seen: Arc::default(),
    };
    let build = |unsigned: bool, checksum: Option<Checksum>| {
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name("bucket")
            .with_access_key_id("key")
            .with_secret_access_key("secret")
            .with_unsigned_payload(unsigned)
            .with_retry(RetryConfig {
                max_retries: 0,
                ..RetryConfig::default()
            })
            .with_http_connector(SharedClient(HttpClient::new(played.clone())));
        if let Some(checksum) = checksum {
            builder = builder.with_checksum_algorithm(checksum);
        }
        builder.build().unwrap()
    };
    let variants = Variants {
        signed: build(false, None),
        bulk: build(false, None),
        unsigned: build(true, None),
        summed: build(true, Some(Checksum::CRC64NVME)),
    };
    (S3Store::new(variants, is_https, true, false), played)
}

const SIGNED: Form = (true, false);
const UNSIGNED: Form = (false, false);
const SUMMED: Form = (false, true);

/// Puts twice; what was sent, and how bodies are protected in the end.
async fn put_twice(answer: Answer, is_https: bool) -> (Vec<Form>, BodyCheck, bool) {
    let (store, played) = store(answer, is_https);
    let options = PutOptions {
        mode: PutMode::Create,
        ..PutOptions::default()
    };
    let (key, mut all_well) = (Path::from("key"), true);
    for _ in 0..2 {
        let put = store.put_opts(&key, PutPayload::from_static(b"body"), options.clone());
        all_well &= put.await.is_ok();
    }
    let seen = played.seen.lock().unwrap().clone();
    (seen, store.body_check(), all_well)
}

#[tokio::test]
async fn over_tls_no_hash_is_made() {
    let (seen, check, all_well) = put_twice(|_| (200, ""), true).await;
    assert_eq!(
        (seen, check, all_well),
        (vec![UNSIGNED; 2], BodyCheck::Transport, true)
    );
}

#[tokio::test]
async fn over_plain_http_hashes_are_made() {
    let (seen, check, all_well) = put_twice(|_| (200, ""), false).await;
    assert_eq!(
        (seen, check, all_well),
        (vec![SIGNED; 2], BodyCheck::SignedHash, true)
    );
}

#[tokio::test]
async fn a_store_that_wants_hashes_gets_them_from_the_second_put_on() {
    for answer in [
        (|form| {
            if form == SIGNED {
                (200, "")
            } else {
                (403, "AccessDenied")
            }
        }) as Answer,
        |form| {
            if form == SIGNED {
                (200, "")
            } else {
                (400, "InvalidDigest")
            }
        },
        |form| {
            if form == SIGNED {
                (200, "")
            } else {
                (400, "XAmzContentSHA256Mismatch")
            }
        },
        |form| {
            if form == SIGNED {
                (200, "")
            } else {
                (501, "NotImplemented")
            }
        },
    ] {
        let (seen, check, all_well) = put_twice(answer, true).await;
        assert_eq!(seen, [UNSIGNED, SIGNED, SIGNED]);
        assert_eq!((check, all_well), (BodyCheck::SignedHash, true));
    }
}

#[tokio::test]
async fn a_key_that_exists_shows_as_well_what_the_store_takes() {
    let answer: Answer = |form| match form {
        SIGNED => (412, "PreconditionFailed"),
        _ => (403, "AccessDenied"),
    };
    let (seen, check, all_well) = put_twice(answer, true).await;
    assert_eq!(seen, [UNSIGNED, SIGNED, SIGNED]);
    assert_eq!((check, all_well), (BodyCheck::SignedHash, false));
}

#[tokio::test]
async fn a_bucket_with_object_lock_gets_checksums() {
    let answer: Answer = |form| match form {
        SUMMED => (200, ""),
        _ => (400, "InvalidRequest"),
    };
    let (seen, check, all_well) = put_twice(answer, true).await;
    assert_eq!(seen, [UNSIGNED, SIGNED, SUMMED, SUMMED]);
    assert_eq!((check, all_well), (BodyCheck::Checksum, true));
}

#[tokio::test]
async fn a_wrong_key_and_a_store_in_trouble_change_nothing() {
    for answer in [
        (|_| (403, "SignatureDoesNotMatch")) as Answer,
        |_| (503, "SlowDown"),
        |_| (400, "BadDigest"),
        |form| {
            if form == SIGNED {
                (500, "InternalError")
            } else {
                (403, "AccessDenied")
            }
        },
    ] {
        let (_, check, all_well) = put_twice(answer, true).await;
        assert_eq!((check, all_well), (BodyCheck::Transport, false));
    }
}
