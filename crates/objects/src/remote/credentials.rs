//! Credentials that run out, and are replaced before they do.
//!
//! The client asks a credential endpoint (a container's, the machine's metadata service, an STS) five minutes before
//! those at hand run out, while a request waits, and fails the request when the endpoint does. Here the endpoint is asked
//! beside the requests. What is at hand is used for as long as there is nothing newer, so that an endpoint in trouble
//! costs nothing while they are valid. Once they are not, the store says so.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use tokio::time::{Instant, timeout};

use crate::answer::in_short;
use crate::error::whole_text;

/// How often the provider is asked whether it is time for new ones. It answers from memory until then.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// For how long after a successful check those at hand are certainly valid: the provider asks for new ones five minutes
/// before the end.
const CERTAIN_FOR: Duration = Duration::from_secs(240);
/// How long a request waits for an endpoint while there are credentials at hand that may be valid.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a failure that goes on is told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// There are no credentials. Carried through `object_store::Error::Generic`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoCredentials(pub String);

/// A provider's credentials, kept until newer ones have come.
pub(crate) struct KeptCredentials<T: Send + Sync + fmt::Debug + 'static> {
    inner: Arc<Inner<T>>,
}

/// What is wrong with credentials that were given, if anything is.
pub(crate) type Check<T> = Box<dyn Fn(Option<&T>) -> Result<(), String> + Send + Sync>;

struct Inner<T: Send + Sync + fmt::Debug + 'static> {
    provider: Arc<dyn CredentialProvider<Credential = T>>,
    /// What is said when there are none, before the provider's own words.
    hint: String,
    /// Asked without credentials before the provider is, and with what it gave after.
    check: Check<T>,
    state: Mutex<State<T>>,
    /// Held by whoever asks the provider.
    asking: tokio::sync::Mutex<()>,
}

struct State<T> {
    at_hand: Option<Arc<T>>,
    /// When the provider last gave them.
    given: Instant,
    /// When it was last asked, with whatever outcome.
    asked: Instant,
    is_asked: bool,
    /// What the provider last said instead of giving any.
    failure: Option<String>,
    told: Option<Instant>,
}

impl<T: Send + Sync + fmt::Debug + 'static> fmt::Debug for KeptCredentials<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptCredentials")
    }
}

impl<T: Send + Sync + fmt::Debug + 'static> KeptCredentials<T> {
    pub fn new(
        provider: Arc<dyn CredentialProvider<Credential = T>>,
        hint: impl Into<String>,
        check: Check<T>,
    ) -> Self {
        let now = Instant::now();
        let state = State {
            at_hand: None,
            given: now,
            asked: now,
            is_asked: false,
            failure: None,
            told: None,
        };
        let inner = Inner {
            provider,
            hint: hint.into(),
            check,
            state: Mutex::new(state),
            asking: tokio::sync::Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

/// What a request does about its credentials.
enum Step<T> {
    Use(Arc<T>),
    /// Uses them, while the provider is asked.
    UseAndAsk(Arc<T>),
    /// Waits a moment for the provider: nobody has asked it for so long that these may have run out.
    AskFirst(Arc<T>),
    Wait,
}

impl<T: Send + Sync + fmt::Debug + 'static> Inner<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_step(&self) -> Step<T> {
        let mut state = self.state();
        let Some(at_hand) = state.at_hand.clone() else {
            return Step::Wait;
        };
        if state.is_asked || state.asked.elapsed() < CHECK_EVERY {
            return Step::Use(at_hand);
        }
        state.is_asked = true;
        // The endpoint may fail for long. Requests wait for it only after a pause, not at each of its failures.
        if state.asked.elapsed() < CERTAIN_FOR {
            Step::UseAndAsk(at_hand)
        } else {
            Step::AskFirst(at_hand)
        }
    }

    async fn ask(self: Arc<Self>) -> Result<Arc<T>, String> {
        let began = Instant::now();
        let _asking = self.asking.lock().await;
        if let Some(outcome) = self.answer_since(began) {
            return outcome;
        }
        // Gives the turn back however this ends.
        let _turn = Turn(&self);
        let outcome = match (self.check)(None) {
            Ok(()) => self
                .provider
                .get_credential()
                .await
                .map_err(|error| whole_text(&error)),
            Err(what) => Err(what),
        };
        let outcome = outcome.and_then(|given| (self.check)(Some(&given)).map(|()| given));
        let mut state = self.state();
        match &outcome {
            Ok(given) => {
                state.given = Instant::now();
                state.at_hand = Some(Arc::clone(given));
                if state.told.take().is_some() {
                    tracing::info!("credentials can be refreshed again");
                }
            }
            Err(what) if state.at_hand.is_some() => {
                if state.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
                    state.told = Some(Instant::now());
                    let since = state.given.elapsed();
                    tracing::warn!(
                        "credentials could not be refreshed for {} s, those at hand are used until they run out: {}",
                        since.as_secs(),
                        without_body(what)
                    );
                }
            }
            Err(_) => {}
        }
        state.failure = outcome.as_ref().err().cloned();
        outcome
    }

    /// The answer to whoever asked since `began`: of many that wait, one asks.
    fn answer_since(&self, began: Instant) -> Option<Result<Arc<T>, String>> {
        let state = self.state();
        if state.asked <= began {
            return None;
        }
        match (&state.failure, &state.at_hand) {
            (Some(failure), _) => Some(Err(failure.clone())),
            (None, Some(at_hand)) => Some(Ok(Arc::clone(at_hand))),
            (None, None) => None,
        }
    }

    fn missing(&self, what: &str) -> object_store::Error {
        let what = without_body(what);
        let what = match what.split_once("http://169.254.") {
            // An address that nobody has configured says nothing to anybody.
            Some((_, said)) => said.split_once(": ").map_or("", |(_, said)| said).to_owned(),
            None => what,
        };
        object_store::Error::Generic {
            store: "credentials",
            source: Box::new(NoCredentials(format!("{} ({what})", self.hint))),
        }
    }
}

/// A failure without the body of the answer, which may hold a secret. The stores' own words are a code and a sentence.
fn without_body(what: &str) -> String {
    const STATUS: &str = "Server returned non-2xx status code: ";
    let what = in_short(what);
    match what.split_once(STATUS) {
        Some((from, said)) => {
            let status = said.split(':').next().unwrap_or_default();
            format!("{from}it answered {status}")
        }
        None => what,
    }
}

struct Turn<'a, T: Send + Sync + fmt::Debug + 'static>(&'a Inner<T>);

impl<T: Send + Sync + fmt::Debug + 'static> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        (state.asked, state.is_asked) = (Instant::now(), false);
    }
}

#[async_trait]
impl<T: Send + Sync + fmt::Debug + 'static> CredentialProvider for KeptCredentials<T> {
    type Credential = T;

    async fn get_credential(&self) -> object_store::Result<Arc<T>> {
        match self.inner.next_step() {
            Step::Use(at_hand) => Ok(at_hand),
            Step::UseAndAsk(at_hand) => {
                // It ends by itself, with the provider's answer or its time limit, and holds nothing that lasts.
                tokio::spawn(Arc::clone(&self.inner).ask());
                Ok(at_hand)
            }
            Step::AskFirst(at_hand) => {
                let asking = tokio::spawn(Arc::clone(&self.inner).ask());
                match timeout(PATIENCE, asking).await {
                    Ok(Ok(Ok(newer))) => Ok(newer),
                    _ => Ok(at_hand),
                }
            }
            Step::Wait => {
                // Those who waited for the first answer take it.
                let asking = Arc::clone(&self.inner).ask();
                asking.await.map_err(|what| self.inner.missing(&what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    /// An endpoint that counts, and can fail or be silent.
    #[derive(Debug, Default)]
    struct Endpoint {
        asked: AtomicU32,
        fails: AtomicBool,
        is_silent: AtomicBool,
    }

    #[async_trait]
    impl CredentialProvider for Endpoint {
        type Credential = u32;

        async fn get_credential(&self) -> object_store::Result<Arc<u32>> {
            let asked = self.asked.fetch_add(1, Ordering::Relaxed);
            if self.is_silent.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            if self.fails.load(Ordering::Relaxed) {
                let source = "Error performing GET http://169.254.169.254/x in 1ms - refused".into();
                return Err(object_store::Error::Generic { store: "t", source });
            }
            Ok(Arc::new(asked))
        }
    }

    fn kept(endpoint: &Arc<Endpoint>) -> KeptCredentials<u32> {
        KeptCredentials::new(endpoint.clone(), "none are set", Box::new(|_| Ok(())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_endpoint_costs_nothing_while_there_are_credentials() {
        let endpoint = Arc::new(Endpoint::default());
        let kept = kept(&endpoint);
        assert_eq!(*kept.get_credential().await.unwrap(), 0);
        endpoint.fails.store(true, Ordering::Relaxed);
        endpoint.is_silent.store(true, Ordering::Relaxed);
        let mut slowest = Duration::ZERO;
        for _ in 0..3_000 {
            let began = Instant::now();
            assert_eq!(*kept.get_credential().await.unwrap(), 0);
            slowest = slowest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(slowest, Duration::ZERO, "a request waited for the endpoint");
        let asked = endpoint.asked.load(Ordering::Relaxed);
        assert!((5..=60).contains(&asked), "asked {asked} times in five minutes");
        endpoint.fails.store(false, Ordering::Relaxed);
        endpoint.is_silent.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let _ = kept.get_credential().await.unwrap();
        tokio::task::yield_now().await;
        assert_ne!(*kept.get_credential().await.unwrap(), 0, "new ones are taken");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_new_ones_are_waited_for_but_not_for_long() {
        let endpoint = Arc::new(Endpoint::default());
        let kept = kept(&endpoint);
        kept.get_credential().await.unwrap();
        tokio::time::sleep(CERTAIN_FOR * 2).await;
        assert_eq!(*kept.get_credential().await.unwrap(), 1);
        tokio::time::sleep(CERTAIN_FOR * 2).await;
        endpoint.is_silent.store(true, Ordering::Relaxed);
        let began = Instant::now();
        assert_eq!(*kept.get_credential().await.unwrap(), 1);
        assert_eq!(began.elapsed(), PATIENCE);
    }

    #[tokio::test]
    async fn no_credentials_at_all_are_said_without_an_address() {
        let endpoint = Arc::new(Endpoint::default());
        endpoint.fails.store(true, Ordering::Relaxed);
        let error = kept(&endpoint).get_credential().await.unwrap_err();
        let text = whole_text(&error);
        assert!(text.contains("none are set (refused)"), "{text}");
        assert!(!text.contains("169.254"), "{text}");
    }

    #[test]
    fn an_answers_body_is_not_told() {
        let said = "Error performing GET http://127.0.0.1:1/c in 1ms - Server returned non-2xx status code: 500 Internal \
                    Server Error: {\"SecretAccessKey\": \"b\"}";
        assert_eq!(
            without_body(said),
            "http://127.0.0.1:1: it answered 500 Internal Server Error"
        );
    }

    #[tokio::test]
    async fn credentials_that_no_header_can_hold_are_refused() {
        let check: Check<u32> = Box::new(|given| match given {
            Some(_) => Err("the key holds a line break".to_owned()),
            None => Ok(()),
        });
        let kept = KeptCredentials::new(Arc::new(Endpoint::default()), "none", check);
        let text = whole_text(&kept.get_credential().await.unwrap_err());
        assert!(text.contains("the key holds a line break"), "{text}");
    }
}
