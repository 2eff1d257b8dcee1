//! Callers over HTTP that cost little themselves: they share two cores with what they measure.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time};

use super::super::{figures::Round, load::Chooser};

/// A connection that is kept.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

/// What one caller asks for; it may choose among many.
pub type Asking = fn(&mut Chooser) -> (Method, String, Bytes);

impl Connection {
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("the server does not listen")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // Its end shows at the next request.
            let _ = connection.await;
        });
        Ok(Self { sender, host: address.to_string() })
    }

    /// Sends a request and reads the whole answer; fails unless it is one of success.
    pub async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Opens a stream of events and leaves it open: the connection is the stream's from here on.
    pub async fn listen(mut self, path: &str) -> Result<hyper::body::Incoming> {
        let request = Request::builder().method(Method::GET).uri(path).header("host", &self.host);
        let answer = self.sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
        ensure!(answer.status().is_success(), "{path}: {}", answer.status());
        Ok(answer.into_body())
    }
}

/// Runs `clients` callers for a while; with a pace they start so many requests a second together.
pub async fn run(
    address: SocketAddr,
    clients: usize,
    asking: Asking,
    lasting: Duration,
    pace: Option<f64>,
) -> Result<Round> {
    let mut connections = Vec::with_capacity(clients);
    for _ in 0..clients {
        connections.push(Connection::open(address).await?);
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
                let (method, path, body) = asking(&mut chooser);
                let begun = Instant::now();
                connection.ask(method, &path, body).await?;
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
