//! HTTP beside the broker: health and metrics.
//!
//! Owns the admin listener and the text of the metrics page ([`metrics`]); what it shows it reads from the broker's
//! public view and from the counters of the crates below. It changes nothing.

pub mod groups;
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

    /// Serves until dropped. `broker` becomes something once the broker serves.
    pub async fn serve(self, broker: watch::Receiver<Option<Arc<Broker>>>) {
        let app = Router::new()
            .route("/health/live", get(|| async { "live\n" }))
            .route("/health/ready", get(ready))
            .route("/metrics", get(page))
            .with_state(View { broker });
        if let Err(error) = axum::serve(self.listener, app).await {
            warn!(%error, "the admin listener ended");
        }
    }
}

async fn ready(State(view): State<View>) -> impl IntoResponse {
    match &*view.broker.borrow() {
        Some(broker) if broker.is_serving() => (StatusCode::OK, "ready\n"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
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
