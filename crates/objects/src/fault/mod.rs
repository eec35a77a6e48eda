//! A store that fails, for tests and simulations: a wrapper of any other.
//!
//! Faults are drawn from one seed and can be changed while it runs. All waiting is done by tokio's clock, so
//! that a paused one works. Writes run in tasks of the *store*: a caller that dies, or gives up, does not call
//! back what it has sent.

mod faults;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::sleep;

pub use faults::{Faults, Latency};
use faults::{PutFate, State, injected};

/// Whether the store answers at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outage {
    /// It does.
    None,
    /// Requests fail at once.
    Refuse,
    /// Requests hang until the outage is over.
    Hang,
}

/// A store that fails.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    outage: watch::Sender<Outage>,
}

impl FaultStore {
    /// Wraps `inner`; without faults until [`FaultStore::set`].
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64) -> Self {
        let state = State {
            rng: StdRng::seed_from_u64(seed),
            faults: Faults::none(),
            slow_until: None,
            counts: BTreeMap::new(),
        };
        let (outage, _) = watch::channel(Outage::None);
        Self {
            inner,
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                outage,
            }),
        }
    }

    /// The same with faults from the start.
    pub fn with_faults(inner: Arc<dyn ObjectStore>, seed: u64, faults: Faults) -> Self {
        let store = Self::new(inner, seed);
        store.set(faults);
        store
    }

    /// Changes what goes wrong from now on.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Changes a part of it.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// Begins or ends an outage.
    pub fn set_outage(&self, outage: Outage) {
        self.shared.outage.send_replace(outage);
    }

    /// How often each kind of trouble was met.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// The store beneath, which does not fail.
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn gate(&self) -> Result<()> {
        let now = *self.shared.outage.borrow();
        if now != Outage::None {
            *self.state().counts.entry("outage").or_default() += 1;
        }
        let mut outage = self.shared.outage.subscribe();
        loop {
            let now = *outage.borrow_and_update();
            match now {
                Outage::None => return Ok(()),
                Outage::Refuse => return Err(injected("connection refused")),
                Outage::Hang => drop(outage.changed().await),
            }
        }
    }

    /// What every request goes through first.
    async fn enter(&self) -> Result<()> {
        self.gate().await?;
        let (wait, failure) = self.state().any();
        if wait > Duration::ZERO {
            sleep(wait).await;
            // An outage that began meanwhile swallows what is on its way.
            self.gate().await?;
        }
        failure.map_or(Ok(()), Err)
    }

    async fn put_in_task(self, location: Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.enter().await?;
        let fate = self.state().put_fate(opts.mode == PutMode::Create);
        let inner = self.inner.clone();
        match fate {
            PutFate::Lands => inner.put_opts(&location, payload, opts).await,
            PutFate::Fail(error) => Err(error),
            PutFate::FailAfter(error) => {
                inner.put_opts(&location, payload, opts).await?;
                Err(error)
            }
            PutFate::Late(by) => {
                tokio::spawn(async move {
                    sleep(by).await;
                    inner.put_opts(&location, payload, opts).await
                });
                Err(injected("connection reset, the put lands late"))
            }
            PutFate::Twice(by) => {
                let result = inner.put_opts(&location, payload.clone(), opts.clone()).await;
                tokio::spawn(async move {
                    sleep(by).await;
                    inner.put_opts(&location, payload, opts).await
                });
                result
            }
            PutFate::Conflict => {
                let source = "injected: 409 ConditionalRequestConflict".into();
                Err(Error::AlreadyExists {
                    path: location.to_string(),
                    source,
                })
            }
        }
    }

    async fn delete_in_task(self, location: Path) -> Result<Path> {
        self.enter().await?;
        let lost = {
            let mut state = self.state();
            let chance = state.faults.error_after;
            state.hits("error after", chance)
        };
        self.inner.delete(&location).await?;
        if lost {
            Err(injected("connection reset after the effect"))
        } else {
            Ok(location)
        }
    }

    async fn list_all(self, prefix: Option<Path>) -> Result<Vec<ObjectMeta>> {
        self.enter().await?;
        let before: Vec<ObjectMeta> = self.inner.list(prefix.as_ref()).try_collect().await?;
        let spread = {
            let mut state = self.state();
            let faults = state.faults.clone();
            state
                .hits("torn list", faults.torn_list)
                .then(|| state.time(&faults.list_for))
        };
        let Some(spread) = spread else { return Ok(before) };
        sleep(spread).await;
        let after: Vec<ObjectMeta> = self.inner.list(prefix.as_ref()).try_collect().await?;
        // Each name shows as it was at one moment or another of the list's time.
        let by_name = |list: Vec<ObjectMeta>| -> BTreeMap<Path, ObjectMeta> {
            list.into_iter()
                .map(|meta| (meta.location.clone(), meta))
                .collect()
        };
        let (before, mut after) = (by_name(before), by_name(after));
        let mut state = self.state();
        let mut torn = Vec::new();
        for (name, meta) in before {
            let still = after.remove(&name).is_some();
            if still || state.rng.random() {
                torn.push(meta);
            }
        }
        torn.extend(after.into_values().filter(|_| state.rng.random::<bool>()));
        Ok(torn)
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({:?})", self.inner)
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty {}", self.inner)
    }
}

/// Awaits a task of the store's. It goes on when the caller is gone.
async fn of_store<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(source) => Err(Error::JoinError { source }),
    }
}

#[async_trait::async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        of_store(self.clone().put_in_task(location.clone(), payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.enter().await?;
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.enter().await?;
        let result = self.inner.get_opts(location, options).await?;
        let (cut, silent, part) = {
            let mut state = self.state();
            let chance = state.faults.cut_body;
            (
                state.hits("cut body", chance),
                state.rng.random::<bool>(),
                state.rng.random::<f64>(),
            )
        };
        if !cut {
            return Ok(result);
        }
        let (meta, range, attributes) = (
            result.meta.clone(),
            result.range.clone(),
            result.attributes.clone(),
        );
        let whole: Bytes = result.bytes().await?;
        let kept = whole.slice(..(whole.len() as f64 * part) as usize);
        let end = (!silent).then(|| Err(injected("connection reset in the body")));
        let payload = futures::stream::iter([Ok(kept)].into_iter().chain(end)).boxed();
        let payload = GetResultPayload::Stream(payload);
        Ok(GetResult {
            payload,
            meta,
            range,
            attributes,
            extensions: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .and_then(move |location| of_store(store.clone().delete_in_task(location)))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.clone()
            .list_all(prefix.cloned())
            .map(|found| match found {
                Ok(found) => futures::stream::iter(found.into_iter().map(Ok)).boxed(),
                Err(error) => futures::stream::iter([Err(error)]).boxed(),
            })
            .flatten_stream()
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.enter().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.enter().await?;
        self.inner.copy_opts(from, to, options).await
    }
}
