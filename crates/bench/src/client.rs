//! A client of HTTP/1.1 that costs next to nothing: what it measures is the server. One connection, one request at a
//! time; answers carry their length.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A connection that is kept.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Result<Self, Fault> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(64 << 10) })
    }

    /// Sends a GET and reads the whole answer; returns the length of its body.
    pub async fn get(&mut self, path: &str, key: &str) -> Result<usize, Fault> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let (head, length) = loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server hung up".into());
            }
            if let Some(found) = head(&self.buffer)? {
                break found;
            }
        };
        while self.buffer.len() < head + length {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server hung up".into());
            }
        }
        if !self.buffer.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&self.buffer).into_owned().into());
        }
        Ok(length)
    }
}

/// Where the body begins and how long it is, once the whole head is there.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>, Fault> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default())?;
    let length = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or("an answer without a length")?;
    Ok(Some((end + 4, length.1.trim().parse()?)))
}

/// What a run against a server saw.
#[derive(Debug, Default)]
pub struct Load {
    /// How long each request took, in ascending order.
    pub times: Vec<Duration>,
    /// How long the run took.
    pub seconds: f64,
    /// Bytes of all bodies.
    pub bytes: usize,
}

impl Load {
    /// Requests a second.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.seconds
    }

    /// A percentile in milliseconds.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> f64 {
        percentile(&self.times, percent)
    }
}

/// A percentile of sorted times, in milliseconds.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let at = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(at).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

/// Asks over `connections` connections for so long, each request as soon as the one before is answered. `path` names the
/// nth request.
pub async fn drive(
    address: SocketAddr,
    key: &str,
    connections: usize,
    time: Duration,
    path: impl Fn(usize) -> String,
) -> Result<Load, Fault> {
    let next = std::cell::Cell::new(0_usize);
    let began = Instant::now();
    let one = || async {
        let mut connection = Connection::open(address).await?;
        let (mut times, mut bytes) = (Vec::new(), 0);
        while began.elapsed() < time {
            let nth = next.replace(next.get() + 1);
            let path = path(nth);
            let sent = Instant::now();
            bytes += connection.get(&path, key).await?;
            times.push(sent.elapsed());
        }
        Ok::<_, Fault>((times, bytes))
    };
    let answers = futures::future::try_join_all((0..connections).map(|_| one())).await?;
    let mut load = Load { seconds: began.elapsed().as_secs_f64(), ..Load::default() };
    for (times, bytes) in answers {
        load.times.extend(times);
        load.bytes += bytes;
    }
    load.times.sort_unstable();
    Ok(load)
}
