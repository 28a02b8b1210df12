//! Evidence over HTTP: the API of a daemon, or any web server that has its answers as files.

use std::time::Duration;

use async_trait::async_trait;

use super::network::http::{HttpClient, HttpError, HttpSettings};
use crate::core::{
    madara::evidence::{EvidenceError, EvidenceSource},
    market::quantity::Micros,
};

/// Longest bundle, in bytes: a month of five-minute buckets of several oracles is a tenth of it.
const LONGEST: usize = 64 << 20;
/// Longest time for one.
const TIMEOUT: Micros = Micros::from_secs(120);
/// How often one is asked for while the source is away, a second apart.
const TRIES: u32 = 10;
/// The same while it says that it has too much to do: it will come to an end.
const PATIENT_TRIES: u32 = 120;

/// The source behind an address.
pub struct HttpEvidence {
    client: HttpClient,
    base: String,
    pause: Duration,
}

impl HttpEvidence {
    /// Bundles lie at `<url>/evidence/<subject>`.
    ///
    /// # Errors
    /// When the address is none of a web server, or has a query.
    pub fn new(url: &str) -> Result<Self, HttpError> {
        let settings = HttpSettings {
            // Whoever runs the check names the address; a mirror on the same machine is as good as any.
            allow_private: true,
            timeout: TIMEOUT,
            max_response: LONGEST,
            ..HttpSettings::default()
        };
        let client = HttpClient::new(settings)?;
        let checked = client.check_url(url)?;
        if checked.query().is_some() || checked.fragment().is_some() {
            let reason = "it must end with a path".to_owned();
            return Err(HttpError::InvalidUrl { url: url.to_owned(), reason });
        }
        let base = checked.as_str().trim_end_matches('/').to_owned();
        Ok(Self { client, base, pause: Duration::from_secs(1) })
    }
}

#[async_trait]
impl EvidenceSource for HttpEvidence {
    async fn bundle(&self, subject: &[u8; 16]) -> Result<Option<Vec<u8>>, EvidenceError> {
        let url = format!("{}/evidence/{}", self.base, hex::encode(subject));
        let mut tries = 0;
        loop {
            tries += 1;
            let (problem, most) = match self.client.get(&url).await {
                Ok(answer) => match answer.status {
                    200 => return Ok(Some(answer.body.into())),
                    404 | 410 => return Ok(None),
                    429 => (format!("{url} has too much to do"), PATIENT_TRIES),
                    status @ 502..=504 => (format!("{url} answers with {status}"), TRIES),
                    status => return Err(EvidenceError::Unexpected(format!("{status} at {url}"))),
                },
                Err(error) if error.retryable() => (format!("{url}: {}", crate::error::chain(&error)), TRIES),
                Err(error) => {
                    return Err(EvidenceError::Unexpected(format!(
                        "{} at {url}",
                        crate::error::chain(&error)
                    )));
                }
            };
            if tries >= most {
                return Err(EvidenceError::Unavailable(problem));
            }
            tokio::time::sleep(self.pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A web server that gives these answers, one after the other, and counts who asked.
    async fn server(answers: &'static [(u16, &'static str)]) -> (String, &'static AtomicU32) {
        let asked: &'static AtomicU32 = Box::leak(Box::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mirror/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4_096];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let wanted = format!("GET /mirror/evidence/{} ", "07".repeat(16));
                assert!(request.starts_with(&wanted), "{request}");
                asked.fetch_add(1, Ordering::Relaxed);
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        });
        (url, asked)
    }

    #[tokio::test]
    async fn what_may_pass_is_asked_again_and_nothing_else() {
        let source = |url: &str| HttpEvidence { pause: Duration::ZERO, ..HttpEvidence::new(url).unwrap() };
        let (url, asked) = server(&[(429, ""), (503, ""), (200, "{}")]).await;
        assert_eq!(source(&url).bundle(&[7; 16]).await.unwrap(), Some(b"{}".to_vec()));
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        let (url, _) = server(&[(404, "no")]).await;
        assert_eq!(source(&url).bundle(&[7; 16]).await.unwrap(), None);
        let (url, asked) = server(&[(500, "no"), (200, "{}")]).await;
        let refused = source(&url).bundle(&[7; 16]).await;
        assert!(matches!(refused, Err(EvidenceError::Unexpected(why)) if why.contains("500")));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        // Nobody listens any more.
        let gone = source("http://127.0.0.1:1").bundle(&[7; 16]).await;
        assert!(matches!(gone, Err(EvidenceError::Unavailable(_))));
    }

    #[test]
    fn an_address_is_that_of_a_web_server_and_no_more() {
        for bad in ["", "evidence", "file:///tmp", "http://a:b@host", "http://host/?x=1", "http://host/#x"] {
            assert!(HttpEvidence::new(bad).is_err(), "{bad}");
        }
        assert_eq!(HttpEvidence::new("https://host/a/").unwrap().base, "https://host/a");
        assert_eq!(HttpEvidence::new("http://127.0.0.1:8080").unwrap().base, "http://127.0.0.1:8080");
    }
}
