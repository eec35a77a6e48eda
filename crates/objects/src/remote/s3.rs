//! S3 as it is in the wild: what one store cannot do, another way does.
//!
//! Two things differ between stores. Some cannot delete many objects with one request: they get one request an object.
//! And the hash of a body, which a signed payload needs, costs a fifth of a broker's CPU; it is left out where something
//! else tells a body that was damaged on its way: TLS, or a checksum that the store was seen to verify. The checksums in
//! our own bodies do not help here. They are read when it is too late to send the body again.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::connector::DamageBody;
use crate::answer::{code_of, in_short, status_of};
use crate::error::whole_text;

/// Keys of one request to delete many.
const DELETES_AT_ONCE: usize = 1_000;
/// Requests to delete many at a time.
const BULKS_IN_FLIGHT: usize = 4;

/// What protects the body of a put on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum BodyCheck {
    /// The hash of the body, which is part of the signature.
    SignedHash,
    /// TLS.
    Transport,
    /// A CRC-64 in a header, which the store compares.
    Checksum,
}

impl BodyCheck {
    fn from_u8(n: u8) -> Self {
        match n {
            n if n == Self::Transport as u8 => Self::Transport,
            n if n == Self::Checksum as u8 => Self::Checksum,
            _ => Self::SignedHash,
        }
    }
}

/// The same bucket with different settings, over the same connections and with the same credentials.
#[derive(Debug)]
pub(crate) struct Variants {
    /// Signs the hash of each body; deletes one object a request.
    pub signed: AmazonS3,
    /// Deletes many objects a request.
    pub bulk: AmazonS3,
    /// Leaves out the hash.
    pub unsigned: AmazonS3,
    /// Leaves out the hash and sends a CRC-64.
    pub summed: AmazonS3,
}

/// A bucket of an S3 store.
#[derive(Debug)]
pub(crate) struct S3Store {
    variants: Variants,
    body_check: AtomicU8,
    /// Whether the settings leave it to the broker how bodies are checked.
    may_choose: bool,
    is_https: bool,
    bulk_refused: Arc<AtomicBool>,
}

impl fmt::Display for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.variants.signed.fmt(f)
    }
}

impl S3Store {
    pub fn new(variants: Variants, is_https: bool, may_choose: bool, no_bulk_delete: bool) -> Self {
        let body_check = match (may_choose, is_https) {
            (true, true) => BodyCheck::Transport,
            _ => BodyCheck::SignedHash,
        };
        Self {
            variants,
            body_check: AtomicU8::new(body_check as u8),
            may_choose,
            is_https,
            bulk_refused: Arc::new(AtomicBool::new(no_bulk_delete)),
        }
    }

    /// What protects the bodies of puts now.
    pub fn body_check(&self) -> BodyCheck {
        BodyCheck::from_u8(self.body_check.load(Ordering::Relaxed))
    }

    fn of(&self, check: BodyCheck) -> &AmazonS3 {
        match check {
            BodyCheck::SignedHash => &self.variants.signed,
            BodyCheck::Transport => &self.variants.unsigned,
            BodyCheck::Checksum => &self.variants.summed,
        }
    }

    /// Over plain HTTP, finds out with two puts at `key` whether the store refuses a body that was damaged on its way and
    /// takes one that was not. From then on a checksum is sent in place of the hash. A store that fails is not asked
    /// again: hashes are always right.
    pub async fn choose_body_check(&self, key: &Path) {
        if self.is_https || !self.may_choose {
            return;
        }
        let body = || PutPayload::from_static(b"a body whose damage on the way must not go unnoticed");
        let mut options = PutOptions::default();
        options.extensions.insert(DamageBody);
        let damaged = self.variants.summed.put_opts(key, body(), options).await;
        let verdict = match damaged {
            Ok(_) => Err("it takes damaged bodies".to_owned()),
            Err(error) if is_damage(&error) => match self.variants.summed.put(key, body()).await {
                Ok(_) => Ok(()),
                Err(error) => Err(in_short(&whole_text(&error))),
            },
            Err(error) => Err(in_short(&whole_text(&error))),
        };
        match verdict {
            Ok(()) => {
                self.body_check
                    .store(BodyCheck::Checksum as u8, Ordering::Relaxed);
                tracing::info!(
                    "the store verifies checksums (CRC64NVME), which are sent in place of signed hashes"
                );
            }
            Err(reason) => {
                tracing::info!(
                    "bodies are hashed for their signatures, which costs CPU: over http the store was not seen to \
                     verify checksums ({reason})"
                );
            }
        }
        // One that is left behind is harmless, and sweepers know the prefix.
        let _ = self.variants.signed.delete(key).await;
    }

    /// What to try where a body was refused that was protected like this. A bucket with Object Lock wants a checksum on
    /// each body. Over plain HTTP one is worth something only if the store was seen to verify it.
    fn alternatives(&self, refused: BodyCheck) -> Vec<BodyCheck> {
        match (refused, self.is_https) {
            (BodyCheck::SignedHash, false) => vec![],
            (BodyCheck::SignedHash, true) => vec![BodyCheck::Checksum],
            (BodyCheck::Transport, _) => vec![BodyCheck::SignedHash, BodyCheck::Checksum],
            (BodyCheck::Checksum, _) => vec![BodyCheck::SignedHash],
        }
    }

    /// Protects bodies otherwise from now on: the store refused one as it was, and took the same one in the other form.
    fn change_body_check(&self, to: BodyCheck, refusal: &Error) {
        if self.body_check.swap(to as u8, Ordering::Relaxed) == to as u8 {
            return;
        }
        let refusal = in_short(&whole_text(refusal));
        match to {
            BodyCheck::SignedHash => tracing::info!(
                "the store refuses bodies whose hash is not signed; they are hashed from now on, which costs CPU \
                 ({refusal})"
            ),
            BodyCheck::Checksum | BodyCheck::Transport => tracing::info!(
                "the store wants a checksum with each body, as buckets with Object Lock do; it is sent from now on \
                 ({refusal})"
            ),
        }
    }
}

/// Whether the store answered that it will not do this, rather than that it cannot now.
fn is_refusal(error: &Error) -> bool {
    matches!(status_of(&whole_text(error)), Some(400 | 403 | 405 | 411 | 501))
}

/// Whether the store found that a body is not what its checksum says.
fn is_damage(error: &Error) -> bool {
    // `InvalidDigest` and `XAmzContentSHA256Mismatch` are what some stores say of a hash that is left out.
    const CODES: [&str; 2] = ["BadDigest", "XAmzContentChecksumMismatch"];
    let text = whole_text(error);
    status_of(&text) == Some(400) && code_of(&text).is_some_and(|code| CODES.contains(&code))
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let now = self.body_check();
        let first = self
            .of(now)
            .put_opts(location, payload.clone(), options.clone())
            .await;
        let refusal = match first {
            Err(error) if self.may_choose && is_refusal(&error) && !is_damage(&error) => error,
            other => return other,
        };
        for other in self.alternatives(now) {
            let result = self
                .of(other)
                .put_opts(location, payload.clone(), options.clone())
                .await;
            if is_taken(&result) {
                self.change_body_check(other, &refusal);
                return result;
            }
            // In trouble: nothing was learned of what the store wants.
            if !matches!(&result, Err(error) if is_refusal(error)) {
                return result;
            }
        }
        // A wrong key is refused in any form.
        Err(refusal)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.of(self.body_check())
            .put_multipart_opts(location, options)
            .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.variants.signed.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.variants.signed.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let deleter = Deleter {
            single: self.variants.signed.clone(),
            bulk: self.variants.bulk.clone(),
            bulk_refused: Arc::clone(&self.bulk_refused),
        };
        locations
            .try_chunks(DELETES_AT_ONCE)
            .map(move |chunk| {
                let deleter = deleter.clone();
                async move {
                    match chunk {
                        Ok(paths) => deleter.delete(paths).await,
                        Err(error) => VecDeque::from([Err(error.1)]),
                    }
                }
            })
            .buffered(BULKS_IN_FLIGHT)
            .flat_map(futures::stream::iter)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.variants.signed.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.variants.signed.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.variants.signed.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.variants.signed.copy_opts(from, to, options).await
    }
}

/// Whether the store took the form of a body, whatever it said of the key.
fn is_taken(result: &Result<PutResult>) -> bool {
    matches!(
        result,
        Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotModified { .. })
    )
}

/// Deletes objects, many a request where the store can.
#[derive(Clone)]
struct Deleter {
    single: AmazonS3,
    bulk: AmazonS3,
    bulk_refused: Arc<AtomicBool>,
}

impl Deleter {
    async fn delete(&self, paths: Vec<Path>) -> VecDeque<Result<Path>> {
        if paths.len() == 1 || self.bulk_refused.load(Ordering::Relaxed) {
            return collect(&self.single, paths).await;
        }
        let results = collect(&self.bulk, paths.clone()).await;
        // A request that failed as a whole has one result, and a status; a key that could not be deleted has none.
        let refusal = match results.front() {
            Some(Err(error)) if results.len() == 1 => whole_text(error),
            _ => return results,
        };
        if !matches!(status_of(&refusal), Some(400 | 403 | 404 | 405 | 411 | 501)) {
            return results;
        }
        let results = collect(&self.single, paths).await;
        let deleted = |result: &Result<Path>| matches!(result, Ok(_) | Err(Error::NotFound { .. }));
        if results.iter().all(deleted) && !self.bulk_refused.swap(true, Ordering::Relaxed) {
            tracing::info!(
                "the store does not delete many objects with one request ({}); each gets a request of its own",
                in_short(&refusal)
            );
        }
        results
    }
}

async fn collect(store: &AmazonS3, paths: Vec<Path>) -> VecDeque<Result<Path>> {
    let paths = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
    store.delete_stream(paths).collect().await
}

#[cfg(test)]
mod tests;
