//! An S3 server that misbehaves as those in the wild do: a proxy in front of a real one.
//!
//! It looks at whole requests, so that a fault can be given to some kind of them and to so many: it answers with errors,
//! is silent, cuts answers short, takes damaged bodies, and lets uploads through at a limited rate. It is also the
//! endpoint where temporary credentials come from. [`crate::flaky`] is the same for connections: it knows bytes only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures::StreamExt;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::process;
use crate::stores::{S3, TemporaryCredentials};

/// Where [`FaultyS3`] gives credentials, as a container's endpoint does.
const CONTAINER: &str = "/credentials";
/// Where it gives them as a machine's metadata service does, below [`FaultyS3::metadata_endpoint`].
const METADATA: &str = "/metadata";
/// Uploads that are limited pass in pieces of at most this size.
const PIECE: usize = 64 << 10;

/// A kind of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Requests {
    /// Every request to the store.
    All,
    /// Uploads of objects and of parts.
    Puts,
    /// Uploads whose payload's hash is not signed.
    UnsignedPuts,
    /// Uploads with a CRC-64 in a header.
    SummedPuts,
    /// Reads of objects.
    Gets,
    /// Lists.
    Lists,
    /// Deletes of one object.
    Deletes,
    /// Deletes of many objects.
    BulkDeletes,
    /// Requests for credentials.
    Credentials,
}

/// What becomes of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The store does not see it, and this is the answer.
    Answer {
        /// HTTP status.
        status: u16,
        /// The code in the answer's body.
        code: &'static str,
    },
    /// Nothing happens until the faults are lifted.
    Silence,
    /// Half of the answer's body, then the connection ends.
    CutAnswer,
    /// Whatever the store says of the body's checksum, it is told to have taken it.
    TakeDamage,
}

struct Injected {
    requests: Requests,
    fault: Fault,
    /// How many more; none for all.
    times: Option<u64>,
}

#[derive(Default)]
struct Rules {
    injected: Vec<Injected>,
    upload_bytes_per_second: Option<u64>,
    /// When the next byte of a limited upload may pass.
    upload_free_at: Option<Instant>,
    seen: Vec<Requests>,
    credentials: Option<(TemporaryCredentials, Duration)>,
}

struct Shared {
    target: SocketAddr,
    client: Client<HttpConnector, Body>,
    rules: Mutex<Rules>,
    /// Counts how often the faults were lifted.
    lifted: watch::Sender<u64>,
}

/// The proxy. Ends when dropped.
pub struct FaultyS3 {
    port: u16,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for FaultyS3 {
    fn drop(&mut self) {
        // Tests may be asynchronous themselves, and must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl FaultyS3 {
    /// Starts one in front of an S3 server on a port of this machine. It does no harm until it is told to.
    pub fn before(target: u16) -> anyhow::Result<FaultyS3> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("faulty-s3")
            .enable_all()
            .build()?;
        let _entered = runtime.enter();
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], target)),
            client: Client::builder(TokioExecutor::new()).build(connector),
            rules: Mutex::default(),
            lifted: watch::Sender::new(0),
        });
        let listener = TcpListener::from_std(socket)?.tap_io(|stream| {
            // Without it small answers wait; if it cannot be set, they do.
            let _ = stream.set_nodelay(true);
        });
        let app = Router::new().fallback(serve).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, app).await });
        drop(_entered);
        Ok(FaultyS3 {
            port,
            shared,
            runtime: Some(runtime),
        })
    }

    /// The bucket of the server behind, through this proxy, under `prefix`.
    pub fn store(&self, prefix: &str) -> S3 {
        S3::at(self.port, prefix)
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.shared.rules()
    }

    /// Does this to all requests of a kind.
    pub fn inject(&self, requests: Requests, fault: Fault) {
        self.push(requests, fault, None);
    }

    /// Does this to the next so many requests of a kind.
    pub fn inject_times(&self, requests: Requests, fault: Fault, times: u64) {
        self.push(requests, fault, Some(times));
    }

    fn push(&self, requests: Requests, fault: Fault, times: Option<u64>) {
        self.rules().injected.push(Injected {
            requests,
            fault,
            times,
        });
    }

    /// Lifts all faults, the silence of requests that wait included. A limited rate stays.
    pub fn heal(&self) {
        self.rules().injected.clear();
        self.shared.lifted.send_modify(|lifted| *lifted += 1);
    }

    /// Lets the bodies of uploads through at this rate, all connections together; none for any rate.
    pub fn limit_uploads(&self, bytes_per_second: Option<u64>) {
        let mut rules = self.rules();
        rules.upload_bytes_per_second = bytes_per_second.filter(|rate| *rate > 0);
        rules.upload_free_at = None;
    }

    /// How many requests of a kind have come.
    pub fn seen(&self, requests: Requests) -> usize {
        self.rules().seen.iter().filter(|seen| **seen == requests).count()
    }

    /// Gives these credentials, each time as if they were valid for so long from then on.
    pub fn give_credentials(&self, credentials: TemporaryCredentials, valid: Duration) {
        self.rules().credentials = Some((credentials, valid));
    }

    /// The value of `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    pub fn container_uri(&self) -> String {
        format!("http://127.0.0.1:{}{CONTAINER}", self.port)
    }

    /// The value of `AWS_METADATA_ENDPOINT`.
    pub fn metadata_endpoint(&self) -> String {
        format!("http://127.0.0.1:{}{METADATA}", self.port)
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request, and says what is to become of it.
    fn fault_of(&self, kinds: &[Requests]) -> Option<Fault> {
        let mut rules = self.rules();
        rules.seen.extend_from_slice(kinds);
        let injected = rules
            .injected
            .iter_mut()
            .find(|injected| kinds.contains(&injected.requests) && injected.times != Some(0))?;
        if let Some(times) = &mut injected.times {
            *times -= 1;
        }
        Some(injected.fault.clone())
    }

    /// How long a piece of an upload has to wait for its turn.
    fn reserve(&self, bytes: usize) -> Option<Instant> {
        let mut rules = self.rules();
        let rate = rules.upload_bytes_per_second?;
        let turn = rules
            .upload_free_at
            .unwrap_or_else(Instant::now)
            .max(Instant::now());
        rules.upload_free_at = Some(turn + Duration::from_secs_f64(bytes as f64 / rate as f64));
        Some(turn)
    }
}

fn kinds_of(method: &Method, uri: &Uri, headers: &HeaderMap) -> Vec<Requests> {
    let path = uri.path();
    if path.starts_with(CONTAINER) || path.starts_with(METADATA) {
        return vec![Requests::Credentials];
    }
    let query = uri.query().unwrap_or_default();
    let asks = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    let mut kinds = vec![Requests::All];
    match *method {
        Method::PUT => {
            kinds.push(Requests::Puts);
            if headers
                .get("x-amz-content-sha256")
                .is_some_and(|hash| hash == "UNSIGNED-PAYLOAD")
            {
                kinds.push(Requests::UnsignedPuts);
            }
            if headers.contains_key("x-amz-checksum-crc64nvme") {
                kinds.push(Requests::SummedPuts);
            }
        }
        Method::DELETE => kinds.push(Requests::Deletes),
        Method::POST if asks("delete") => kinds.push(Requests::BulkDeletes),
        Method::GET if asks("list-type") => kinds.push(Requests::Lists),
        Method::GET => kinds.push(Requests::Gets),
        _ => {}
    }
    kinds
}

fn answer(status: u16, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let kinds = kinds_of(request.method(), request.uri(), request.headers());
    let fault = shared.fault_of(&kinds);
    match &fault {
        Some(Fault::Answer { status, code }) => {
            // Read, as servers do: an upload whose answer comes first may be cut off.
            let mut body = request.into_body().into_data_stream();
            while body.next().await.is_some() {}
            let text = format!("<Error><Code>{code}</Code><Message>injected by the test</Message></Error>");
            return answer(*status, text);
        }
        Some(Fault::Silence) => {
            let mut lifted = shared.lifted.subscribe();
            lifted.mark_unchanged();
            let _ = lifted.changed().await;
        }
        _ => {}
    }
    if kinds == [Requests::Credentials] {
        return give(&shared, request.uri().path());
    }
    match forward(&shared, request).await {
        Ok(response) if fault == Some(Fault::CutAnswer) => cut(response).await,
        Ok(response) if fault == Some(Fault::TakeDamage) && response.status() == StatusCode::BAD_REQUEST => {
            let mut taken = answer(200, Body::empty());
            taken
                .headers_mut()
                .insert("etag", axum::http::HeaderValue::from_static("\"1\""));
            taken
        }
        Ok(response) => response,
        Err(error) => answer(
            502,
            format!("<Error><Code>BadGateway</Code><Message>{error}</Message></Error>"),
        ),
    }
}

async fn forward(shared: &Arc<Shared>, request: Request) -> anyhow::Result<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("http://{}{path}", shared.target).parse()?;
    let limited = shared.rules().upload_bytes_per_second.is_some();
    let body = if limited {
        slow(Arc::clone(shared), body)
    } else {
        body
    };
    // The host's name stays as it came: it is signed.
    let response = shared.client.request(Request::from_parts(parts, body)).await?;
    Ok(response.map(Body::new))
}

/// The same body at the rate of all uploads.
fn slow(shared: Arc<Shared>, body: Body) -> Body {
    let pieces = body.into_data_stream().flat_map(|chunk| {
        let mut rest = chunk.ok();
        let cut = std::iter::from_fn(move || {
            let bytes = rest.as_mut().filter(|rest| !rest.is_empty())?;
            Some(bytes.split_to(bytes.len().min(PIECE)))
        });
        futures::stream::iter(cut)
    });
    Body::from_stream(pieces.then(move |piece| {
        let turn = shared.reserve(piece.len());
        async move {
            if let Some(turn) = turn {
                tokio::time::sleep_until(turn).await;
            }
            Ok::<Bytes, Infallible>(piece)
        }
    }))
}

/// Half of an answer, whose head promises all of it.
async fn cut(response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let whole = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let half = whole.slice(..whole.len() / 2);
    let pieces = futures::stream::iter([Ok(half), Err(std::io::Error::other("cut by the test"))]);
    Response::from_parts(parts, Body::from_stream(pieces))
}

/// Answers a request for credentials as a container's endpoint does, or as a machine's metadata service.
fn give(shared: &Shared, path: &str) -> Response<Body> {
    if path.ends_with("/latest/api/token") {
        return answer(200, "a-token");
    }
    if path.ends_with("/security-credentials/") {
        return answer(200, "a-role");
    }
    let Some((credentials, valid)) = shared.rules().credentials.clone() else {
        return answer(404, "no credentials");
    };
    match date_in(valid) {
        Ok(until) => {
            let body = serde_json::json!({
                "AccessKeyId": credentials.id,
                "SecretAccessKey": credentials.secret,
                "Token": credentials.token,
                "Expiration": until,
            });
            answer(200, body.to_string())
        }
        Err(error) => answer(500, error.to_string()),
    }
}

/// A time of day as AWS writes it.
fn date_in(ahead: Duration) -> anyhow::Result<String> {
    let mut date = Command::new("date");
    date.args([
        "-u",
        "-d",
        &format!("+{} seconds", ahead.as_secs()),
        "+%Y-%m-%dT%H:%M:%SZ",
    ]);
    let told = process::run(date, Duration::from_secs(10)).context("no date")?;
    Ok(told.stdout.trim().to_owned())
}
