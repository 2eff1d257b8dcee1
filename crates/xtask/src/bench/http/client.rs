//! Callers over HTTP that cost little themselves: they share two cores with what they measure.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use httparse::Status;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time,
};

use super::super::{figures::Round, load::Chooser};

/// Headers of an answer that are read at most.
const HEADERS: usize = 32;
/// What a buffer has room for before it grows.
const BUFFER: usize = 16 << 10;

/// A server, and the key with which it is called.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub key: Option<String>,
}

/// A connection that is kept: one request after another. A client with more to it took a sixth of what the server and
/// its database did.
pub struct Connection {
    stream: TcpStream,
    /// Headers of every request.
    headers: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// What one caller asks for.
pub struct Request {
    pub path: String,
    /// A GET without one, a POST with one.
    pub body: Option<String>,
}

/// What a caller asks for next; it may choose among many.
pub type Asking = fn(&mut Chooser) -> Request;

impl Request {
    pub fn get(path: impl Into<String>) -> Self {
        Self { path: path.into(), body: None }
    }
}

/// The first part of an answer.
struct Head {
    status: u16,
    bytes: usize,
    content_length: Option<usize>,
}

impl Connection {
    pub async fn open(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).await.context("the server does not listen")?;
        stream.set_nodelay(true)?;
        let (request, answer) = (Vec::with_capacity(BUFFER), Vec::with_capacity(BUFFER));
        let mut headers = format!("host: {}\r\n", target.address);
        if let Some(key) = &target.key {
            headers += &format!("authorization: Bearer {key}\r\n");
        }
        Ok(Self { stream, headers, request, answer })
    }

    /// Sends a request and reads the whole answer; fails unless it is one of success and tells its length.
    pub async fn ask(&mut self, request: &Request) -> Result<()> {
        self.send(request).await?;
        let head = self.head(&request.path).await?;
        let length = head.content_length.with_context(|| format!("{}: no Content-Length", request.path))?;
        while self.answer.len() < head.bytes + length {
            self.read().await?;
        }
        let body = &self.answer[head.bytes..];
        let success = (200..300).contains(&head.status);
        ensure!(success, "{}: {}: {}", request.path, head.status, String::from_utf8_lossy(body));
        Ok(())
    }

    /// Opens a stream of events and leaves it open: the connection is the stream's from here on.
    pub async fn listen(mut self, path: &str) -> Result<TcpStream> {
        self.send(&Request::get(path)).await?;
        let head = self.head(path).await?;
        ensure!(head.status == 200, "{path}: {}", head.status);
        Ok(self.stream)
    }

    async fn send(&mut self, request: &Request) -> Result<()> {
        use std::io::Write as _;
        let (method, body) = match &request.body {
            Some(body) => ("POST", body.as_str()),
            None => ("GET", ""),
        };
        self.request.clear();
        write!(self.request, "{method} {} HTTP/1.1\r\n{}", request.path, self.headers)?;
        if !body.is_empty() {
            write!(self.request, "content-type: application/json\r\ncontent-length: {}\r\n", body.len())?;
        }
        write!(self.request, "\r\n{body}")?;
        self.stream.write_all(&self.request).await?;
        Ok(())
    }

    async fn head(&mut self, path: &str) -> Result<Head> {
        self.answer.clear();
        loop {
            self.read().await?;
            let mut headers = [httparse::EMPTY_HEADER; HEADERS];
            let mut answer = httparse::Response::new(&mut headers);
            let Status::Complete(bytes) = answer.parse(&self.answer)? else { continue };
            let status = answer.code.with_context(|| format!("{path}: no status"))?;
            let length = answer.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let content_length = length.map(|header| std::str::from_utf8(header.value)).transpose()?;
            let content_length = content_length.map(str::parse).transpose()?;
            return Ok(Head { status, bytes, content_length });
        }
    }

    async fn read(&mut self) -> Result<()> {
        if self.stream.read_buf(&mut self.answer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// Runs `clients` callers for a while; with a pace they start so many requests a second together.
pub async fn run(
    target: &Target,
    clients: usize,
    asking: Asking,
    lasting: Duration,
    pace: Option<f64>,
) -> Result<Round> {
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Connection::open(target).await?);
    }
    let started = Instant::now();
    let mut callers = JoinSet::new();
    for (client, mut connection) in connections.into_iter().enumerate() {
        callers.spawn(async move {
            let mut chooser = Chooser::new(client as u64 + 1);
            let mut latencies = Vec::new();
            let interval = pace.map(|pace| Duration::from_secs_f64(clients as f64 / pace));
            // Spread over one interval, so that not all of them call at once.
            let mut due = started + interval.unwrap_or_default().mul_f64(client as f64 / clients as f64);
            while started.elapsed() < lasting {
                if let Some(interval) = interval {
                    time::sleep_until(due.into()).await;
                    due += interval;
                }
                let request = asking(&mut chooser);
                let begun = Instant::now();
                connection.ask(&request).await?;
                latencies.push(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(caller) = callers.join_next().await {
        latencies.extend(caller??);
    }
    Ok(Round { operations: latencies.len() as u64, took: started.elapsed(), latencies })
}
