//! How the HTTP clients of remote stores are made.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, Result};

/// Makes clients. One that never speaks TLS needs no CA certificates, and works on a machine that has none.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    without_tls: bool,
    /// The client made last: a store's own is made after those of its credentials.
    newest: Arc<Mutex<Option<HttpClient>>>,
}

impl Connector {
    pub fn new(without_tls: bool) -> Self {
        Self {
            without_tls,
            newest: Arc::default(),
        }
    }

    /// The client of the store that was built with this connector.
    pub fn newest(&self) -> Option<HttpClient> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        let connector = ReqwestConnector::default();
        let client = connector.connect(options).or_else(|error| {
            if !self.without_tls {
                return Err(error);
            }
            let options = options.clone().with_no_system_certificates(true);
            connector.connect(&options).map_err(|_| error)
        })?;
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(client.clone());
        Ok(client)
    }
}

/// Gives out a client that exists, so that stores that differ in their settings share its connections.
#[derive(Debug)]
pub(crate) struct SharedClient(pub HttpClient);

impl HttpConnector for SharedClient {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient> {
        Ok(self.0.clone())
    }
}

/// Stands in the extensions of a request whose body is to be damaged on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DamageBody;

/// Sends requests, and damages the bodies of those that ask for it after they were signed and summed up: so the test of
/// whether a store notices is made with the requests that depend on it.
#[derive(Debug)]
pub(crate) struct DamagingClient(pub HttpClient);

#[async_trait]
impl HttpService for DamagingClient {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if request.extensions().get::<DamageBody>().is_some() {
            let length = request.body().content_length();
            *request.body_mut() = HttpRequestBody::from(vec![b'~'; length]);
        }
        self.0.execute(request).await
    }
}
