//! The bucket itself, watched: what reaches it is traced and counted, stamped with simulated time, and can set off
//! a kill at the very moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use drumlin_objects::object_store::path::Path;
use drumlin_objects::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::oneshot;

use super::trace::{Trace, lock};

/// What an object is, by its key.
pub(super) fn class(key: &str) -> &'static str {
    let find = |part: &str| key.contains(part);
    match key.split('/').next() {
        Some("meta") if find("/log/") => "metadata entry",
        Some("meta") => "metadata checkpoint",
        Some("topic") if find("/segment/") => "segment",
        Some("topic") => "manifest",
        _ if find("/log/") => "wal entry",
        _ if find("/bundle/") => "bundle",
        _ if find("/checkpoint/") => "marker",
        _ if find("/estate/") => "estate",
        _ => "checkpoint body",
    }
}

/// Fires when as many writes of a class have come.
struct Trigger {
    class: &'static str,
    left: u64,
    fire: oneshot::Sender<()>,
}

#[derive(Clone)]
pub(super) struct Tap {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
}

struct Shared {
    trace: Arc<Trace>,
    start_ms: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// When each object was written last, by the store's clock.
    written: BTreeMap<Path, i64>,
    trigger: Option<Trigger>,
}

impl Tap {
    pub(super) fn new(inner: Arc<dyn ObjectStore>, trace: &Arc<Trace>, start_ms: i64) -> Self {
        Self {
            inner,
            shared: Arc::new(Shared {
                trace: Arc::clone(trace),
                start_ms,
                state: Mutex::default(),
            }),
        }
    }

    /// Told when the `after`th write or deletion of a class from now reaches the bucket.
    pub(super) fn arm(&self, class: &'static str, after: u64) -> oneshot::Receiver<()> {
        let (fire, fired) = oneshot::channel();
        let left = after;
        lock(&self.shared.state).trigger = Some(Trigger { class, left, fire });
        fired
    }

    fn hit(&self, class: &'static str) {
        let mut state = lock(&self.shared.state);
        if let Some(mut trigger) = state.trigger.take_if(|trigger| trigger.class == class) {
            trigger.left = trigger.left.saturating_sub(1);
            if trigger.left == 0 {
                let _ = trigger.fire.send(());
            } else {
                state.trigger = Some(trigger);
            }
        }
    }

    fn stamped(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let at = lock(&self.shared.state).written.get(&meta.location).copied();
        let at = Duration::from_millis(at.unwrap_or(0).max(0) as u64);
        meta.last_modified = (UNIX_EPOCH + at).into();
        meta
    }

    fn note(&self, verb: &str, location: &Path, size: usize) {
        let class = class(location.as_ref());
        self.shared.trace.count(&format!("{verb} {class}"));
        self.shared
            .trace
            .note(&format!("{verb} {location}"), &[size as i64]);
        self.hit(class);
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tap")
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated bucket")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Tap {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let size = payload.content_length();
        let result = self.inner.put_opts(location, payload, opts).await;
        match &result {
            Ok(_) => {
                let now = self.shared.start_ms + self.shared.trace.now_ms();
                lock(&self.shared.state).written.insert(location.clone(), now);
                self.note("put", location, size);
            }
            Err(_) => self.note("refused", location, size),
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.shared.trace.count("get");
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let tap = self.clone();
        self.inner
            .delete_stream(locations)
            .inspect(move |deleted| {
                if let Ok(location) = deleted {
                    tap.note("delete", location, 0);
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.shared.trace.count("list");
        let tap = self.clone();
        self.inner
            .list(prefix)
            .map(move |meta| meta.map(|meta| tap.stamped(meta)))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
