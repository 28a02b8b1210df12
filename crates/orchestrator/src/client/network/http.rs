//! An HTTP client for addresses that somebody else chose, such as webhooks. It resolves the host itself, refuses the
//! request when any of its addresses is not public, connects only to the addresses that it has checked, follows no
//! redirects, uses no proxy, and bounds time and size.

use std::{
    error::Error as StdError,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Once},
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use reqwest::{
    Client, ClientBuilder, Method,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use url::{Host, Url};

use super::guard;
use crate::core::market::quantity::Micros;

/// Settings of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Whether addresses that are not public are allowed: for tests, and for markets on one machine.
    pub allow_private: bool,
    /// Longest time to connect.
    pub connect_timeout: Micros,
    /// Longest time from the call to the last byte of the answer.
    pub timeout: Micros,
    /// Longest body of an answer, in bytes.
    pub max_response: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            allow_private: false,
            connect_timeout: Micros::from_secs(5),
            timeout: Micros::from_secs(10),
            max_response: 64 << 10,
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is none that we ask.
    #[error("`{url}` can't be called: {reason}")]
    InvalidUrl {
        /// The address, without user and password.
        url: String,
        /// Why.
        reason: String,
    },
    /// The host is, or resolves to, an address that is not public.
    #[error("{0}")]
    Refused(Refused),
    /// It took too long.
    #[error("the request timed out")]
    Timeout(#[source] reqwest::Error),
    /// The answer is too long.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// It did not connect, or broke off.
    #[error("the request failed")]
    Failed(#[source] reqwest::Error),
    /// The client could not be made.
    #[error("the HTTP client could not be set up")]
    Setup(#[source] reqwest::Error),
}

impl HttpError {
    /// Whether the same request may succeed later.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Failed(_) => true,
            Self::InvalidUrl { .. } | Self::Refused(_) | Self::TooLarge(_) | Self::Setup(_) => false,
        }
    }
}

/// A host that must not be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` is at {address}, which must not be called: {reason}")]
pub struct Refused {
    /// The host of the address.
    pub host: String,
    /// What it is or resolves to.
    pub address: IpAddr,
    /// Why.
    pub reason: &'static str,
}

/// An answer, whatever its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// How host names become addresses.
type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The client.
#[derive(Clone)]
pub struct HttpClient {
    client: Client,
    settings: HttpSettings,
}

/// Makes `ring` the process's TLS provider, unless there is one. Whoever makes a `reqwest` client calls this first.
pub fn install_crypto_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error says that another provider was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A client from a builder, trusting the system's certificates. On a machine that has none, it still speaks plain HTTP, and
/// says once per client that HTTPS will fail.
///
/// # Errors
/// [`HttpError::Setup`].
pub fn build_client(builder: impl Fn() -> ClientBuilder) -> Result<Client, HttpError> {
    install_crypto_provider();
    builder().build().or_else(|error| {
        tracing::warn!(error = %crate::error::chain(&error), "no trusted certificates on this machine: https will fail");
        builder().tls_certs_only([]).build().map_err(HttpError::Setup)
    })
}

impl HttpClient {
    /// A client with the system's name resolution.
    ///
    /// # Errors
    /// [`HttpError::Setup`].
    pub fn new(settings: HttpSettings) -> Result<Self, HttpError> {
        let lookup: Lookup =
            Arc::new(|host| Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.collect()) }));
        Self::with_lookup(settings, lookup)
    }

    fn with_lookup(settings: HttpSettings, lookup: Lookup) -> Result<Self, HttpError> {
        let resolver = Arc::new(GuardedResolver { lookup, allow_private: settings.allow_private });
        let client = build_client(|| {
            Client::builder()
                .dns_resolver(resolver.clone())
                .redirect(redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .connect_timeout(settings.connect_timeout.to_std())
                .timeout(settings.timeout.to_std())
                .user_agent(concat!("orchestrator/", env!("CARGO_PKG_VERSION")))
        })?;
        Ok(Self { client, settings })
    }

    /// Checks an address without calling it: scheme, user and password, and a host that is an address itself. What a
    /// name resolves to is checked at each call.
    ///
    /// # Errors
    /// [`HttpError::InvalidUrl`] or [`HttpError::Refused`].
    pub fn check_url(&self, text: &str) -> Result<Url, HttpError> {
        let invalid = |reason: &str| HttpError::InvalidUrl { url: redacted(text), reason: reason.to_owned() };
        let url = Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid("the scheme must be http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("it must not hold a user or a password"));
        }
        // A name is checked when it is resolved; an address never gets to the resolver.
        let address: Option<IpAddr> = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) => None,
            None => return Err(invalid("it has no host")),
        };
        if let Some(address) = address.filter(|_| !self.settings.allow_private) {
            check_address(url.host_str().unwrap_or_default(), address).map_err(HttpError::Refused)?;
        }
        Ok(url)
    }

    /// Asks for `url`.
    ///
    /// # Errors
    /// Any [`HttpError`]; an answer with an error status is none.
    pub async fn get(&self, url: &str) -> Result<HttpResponse, HttpError> {
        self.call(Method::GET, url, None).await
    }

    /// Posts a JSON text to `url`.
    ///
    /// # Errors
    /// Any [`HttpError`]; an answer with an error status is none.
    pub async fn post_json(&self, url: &str, body: String) -> Result<HttpResponse, HttpError> {
        self.call(Method::POST, url, Some(body)).await
    }

    async fn call(&self, method: Method, url: &str, json: Option<String>) -> Result<HttpResponse, HttpError> {
        let mut request = self.client.request(method, self.check_url(url)?);
        if let Some(body) = json {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body(body);
        }
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let limit = self.settings.max_response;
        let mut body = BytesMut::new();
        while let Some(part) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(part.len()) > limit {
                return Err(HttpError::TooLarge(limit));
            }
            body.extend_from_slice(&part);
        }
        Ok(HttpResponse { status, body: body.freeze() })
    }
}

/// The address without what may be a secret: user, password and query.
fn redacted(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else { return "the address".to_owned() };
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.to_string()
}

fn check_address(host: &str, address: IpAddr) -> Result<(), Refused> {
    match guard::refused(address) {
        Some(reason) => Err(Refused { host: host.to_owned(), address, reason }),
        None => Ok(()),
    }
}

/// Tells apart what `reqwest` reports as one, and takes the address out, which may hold a secret.
fn failed(error: reqwest::Error) -> HttpError {
    let mut cause: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(source) = cause {
        if let Some(refused) = source.downcast_ref::<Refused>() {
            return HttpError::Refused(refused.clone());
        }
        cause = source.source();
    }
    let error = error.without_url();
    if error.is_timeout() { HttpError::Timeout(error) } else { HttpError::Failed(error) }
}

/// Resolves a name once and gives the connector what it has checked, so that a name can't change its mind in between.
struct GuardedResolver {
    lookup: Lookup,
    allow_private: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = (self.lookup)(host.clone());
        let allow_private = self.allow_private;
        Box::pin(async move {
            let addresses = found.await?;
            if !allow_private {
                // One bad address spoils the name: nobody with honest intentions mixes them.
                for address in &addresses {
                    check_address(&host, address.ip())?;
                }
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{
        Router,
        body::Body,
        response::Redirect,
        routing::{get, post},
    };

    use super::*;

    async fn serve(router: Router) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn allowing() -> HttpClient {
        HttpClient::new(HttpSettings { allow_private: true, max_response: 100, ..HttpSettings::default() })
            .unwrap()
    }

    fn lookup_of(answers: Vec<Vec<&'static str>>) -> (Lookup, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        let lookup: Lookup = Arc::new(move |_| {
            let call = counted.fetch_add(1, Ordering::SeqCst);
            let answer = answers[call.min(answers.len() - 1)].clone();
            Box::pin(
                async move { Ok(answer.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 0)).collect()) },
            )
        });
        (lookup, calls)
    }

    #[tokio::test]
    async fn it_posts_and_gets_from_a_local_server_when_that_is_allowed() {
        let echo = post(|headers: http::HeaderMap, body: String| async move {
            format!("{}|{body}", headers["content-type"].to_str().unwrap())
        });
        let router = Router::new().route("/echo", echo).route("/hello", get(|| async { "hello" }));
        let address = serve(router).await;
        let client = allowing();
        let response = client.post_json(&format!("http://{address}/echo"), "{\"a\":1}".into()).await.unwrap();
        assert_eq!((response.status, &response.body[..]), (200, &b"application/json|{\"a\":1}"[..]));
        // By name, too: that goes through the resolver.
        let url = format!("http://localhost:{}/hello", address.port());
        assert_eq!(&client.get(&url).await.unwrap().body[..], b"hello");
        assert_eq!(client.get(&format!("http://{address}/none")).await.unwrap().status, 404);
    }

    #[tokio::test]
    async fn redirects_are_answers_and_long_answers_are_errors() {
        let long = get(|| async {
            Body::from_stream(futures::stream::iter((0..20).map(|_| Ok::<_, io::Error>("0123456789"))))
        });
        let router =
            Router::new().route("/away", get(|| async { Redirect::to("/hello") })).route("/long", long);
        let address = serve(router).await;
        let client = allowing();
        assert_eq!(client.get(&format!("http://{address}/away")).await.unwrap().status, 303);
        let error = client.get(&format!("http://{address}/long")).await.unwrap_err();
        assert!(matches!(error, HttpError::TooLarge(100)), "{error:?}");
    }

    #[tokio::test]
    async fn addresses_that_are_not_public_are_refused_in_every_spelling() {
        let client = HttpClient::new(HttpSettings::default()).unwrap();
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://0.0.0.0/",
            "http://10.0.0.1/",
            "http://172.16.0.1/",
            "http://192.168.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "http://100.64.0.1/",
            "http://224.0.0.1/",
            "http://255.255.255.255/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:8.8.8.8]/",
            "http://[fc00::1]/",
            "http://[fe80::1]/",
            "http://[ff02::1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://[2002:7f00:1::]/",
        ] {
            let error = client.get(url).await.unwrap_err();
            assert!(matches!(error, HttpError::Refused(_)), "{url}: {error:?}");
            assert!(!error.retryable());
        }
        for url in
            ["ftp://example.com/", "file:///etc/passwd", "http://user:pw@example.com/", "http://", "nothing"]
        {
            let error = client.get(url).await.unwrap_err();
            assert!(matches!(&error, HttpError::InvalidUrl { .. }), "{url}: {error:?}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_is_refused_and_never_connected_to() {
        let hits = Arc::new(AtomicUsize::new(0));
        let seen = hits.clone();
        let router = Router::new().route(
            "/",
            get(move || async move {
                seen.fetch_add(1, Ordering::SeqCst);
            }),
        );
        let port = serve(router).await.port();
        for answer in
            [vec!["127.0.0.1"], vec!["1.1.1.1", "127.0.0.1"], vec!["::ffff:127.0.0.1"], vec!["fd00::1"]]
        {
            let (lookup, _) = lookup_of(vec![answer]);
            let client = HttpClient::with_lookup(HttpSettings::default(), lookup).unwrap();
            let error = client.get(&format!("http://innocent.example:{port}/")).await.unwrap_err();
            assert!(matches!(error, HttpError::Refused(_)), "{error:?}");
        }
        let client = HttpClient::new(HttpSettings::default()).unwrap();
        let error = client.get(&format!("http://localhost:{port}/")).await.unwrap_err();
        assert!(matches!(error, HttpError::Refused(_)), "{error:?}");
        assert_eq!(hits.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_name_is_resolved_once_per_connection_so_that_rebinding_gains_nothing() {
        let address = serve(Router::new().route("/", get(|| async { "here" }))).await;
        let (lookup, calls) = lookup_of(vec![vec!["127.0.0.1"], vec!["192.0.2.1"]]);
        let settings = HttpSettings { allow_private: true, ..HttpSettings::default() };
        let client = HttpClient::with_lookup(settings, lookup).unwrap();
        let response = client.get(&format!("http://rebinding.example:{}/", address.port())).await.unwrap();
        assert_eq!(&response.body[..], b"here");
        assert_eq!(calls.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_silent_server_times_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let settings =
            HttpSettings { allow_private: true, timeout: Micros::from_millis(50), ..HttpSettings::default() };
        let error = HttpClient::new(settings).unwrap().get(&format!("http://{address}/")).await.unwrap_err();
        assert!(matches!(error, HttpError::Timeout(_)), "{error:?}");
        assert!(error.retryable());
    }

    #[test]
    fn a_client_can_be_made_on_a_machine_without_certificates() {
        install_crypto_provider();
        assert!(Client::builder().tls_certs_only([]).build().is_ok());
    }
}
