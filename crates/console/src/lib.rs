//! HTTP beside the broker: health and metrics.
//!
//! Owns the admin listener and the text of the metrics page ([`metrics`]); what it shows it reads from the broker's
//! public view and from the counters of the crates below. It changes nothing.

pub mod groups;
mod memory;
pub mod metrics;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use drumlin_broker::Broker;
use drumlin_objects::Failure;
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::watch;
use tracing::warn;

/// The admin listener, bound.
#[derive(Debug)]
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the pages show.
#[derive(Clone)]
struct View {
    /// Filled once the broker serves.
    broker: watch::Receiver<Option<Arc<Broker>>>,
    /// Filled once it cannot go on.
    failed: watch::Receiver<Option<Failure>>,
}

impl View {
    /// Why the broker ended by itself, if it has: the process is about to exit.
    fn end(&self) -> Option<String> {
        let failure = self.failed.borrow().as_ref().map(ToString::to_string);
        let ended = || self.broker.borrow().as_ref().and_then(|broker| broker.end());
        failure.or_else(|| ended().map(|reason| reason.to_string()))
    }
}

impl Console {
    /// Binds the admin address.
    pub async fn bind(host: &str, port: u16) -> io::Result<Self> {
        let mut addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let mut bound = Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the host name has no address",
        ));
        for address in addresses {
            bound = TcpListener::bind(address).await;
            // Where another process listens, no other address of the same name is taken in its place.
            if bound
                .as_ref()
                .map_or_else(|error| error.kind() == io::ErrorKind::AddrInUse, |_| true)
            {
                break;
            }
        }
        let listener = bound?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped. `broker` becomes something once the broker serves, `failed` once it cannot go on.
    pub async fn serve(
        self,
        broker: watch::Receiver<Option<Arc<Broker>>>,
        failed: watch::Receiver<Option<Failure>>,
    ) {
        let app = Router::new()
            .route("/health/live", get(live))
            .route("/health/ready", get(ready))
            .route("/metrics", get(page))
            .with_state(View { broker, failed });
        if let Err(error) = axum::serve(self.listener, app).await {
            warn!(%error, "the admin listener ended");
        }
    }
}

/// A broker that has ended, and whose process has not yet, is not alive.
async fn live(State(view): State<View>) -> impl IntoResponse {
    match view.end() {
        None => (StatusCode::OK, "live\n".to_owned()),
        Some(end) => (StatusCode::SERVICE_UNAVAILABLE, format!("failed: {end}\n")),
    }
}

async fn ready(State(view): State<View>) -> impl IntoResponse {
    if let Some(end) = view.end() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("failed: {end}\n"));
    }
    let (status, said) = match &*view.broker.borrow() {
        Some(broker) if broker.is_serving() => (StatusCode::OK, "ready\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    };
    (status, said.to_owned())
}

async fn page(State(view): State<View>) -> impl IntoResponse {
    let broker = view.broker.borrow().clone();
    match broker {
        Some(broker) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (StatusCode::OK, kind, metrics::page(&broker).await)
        }
        None => {
            let kind = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            (StatusCode::SERVICE_UNAVAILABLE, kind, "starting\n".to_owned())
        }
    }
}
