//! A client of a session's events, for the tests of every crate that has one.

use std::{collections::VecDeque, time::Duration};

use reqwest::{RequestBuilder, Response};
use serde_json::Value;

/// How long it waits for anything, a heartbeat at least.
const PATIENCE: Duration = Duration::from_secs(30);

/// An event as it was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub id: String,
    pub event: String,
    pub data: Value,
}

impl Told {
    /// Whether it tells a message or an event, and which.
    pub fn place(&self) -> (char, i64) {
        match self.event.as_str() {
            "message.created" => ('m', self.data["seq"].as_i64().expect("a seq")),
            _ => ('e', self.data["number"].as_i64().expect("a number")),
        }
    }
}

/// A client of a stream.
pub struct Reader {
    response: Response,
    text: Vec<u8>,
    understood: Understood,
}

/// What a stream said.
#[derive(Default)]
struct Understood {
    told: VecDeque<Told>,
    id: String,
    heartbeats: usize,
}

/// The events of a stream that came to its end.
pub fn parse(text: &str) -> Vec<Told> {
    let mut understood = Understood::default();
    text.split("\n\n").for_each(|block| understood.add(block));
    understood.told.into()
}

impl Reader {
    /// Asks for a stream that begins behind an event; as the request says when that is `None`.
    pub async fn open(mut request: RequestBuilder, from: Option<&str>) -> reqwest::Result<Self> {
        if let Some(from) = from {
            request = request.header("last-event-id", from);
        }
        let response = request.send().await?.error_for_status()?;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(response.headers().get("content-encoding").is_none(), "a stream is not compressed");
        Ok(Self { response, text: Vec::new(), understood: Understood::default() })
    }

    /// The last id that came, be it without an event.
    pub fn id(&self) -> &str {
        &self.understood.id
    }

    pub fn heartbeats(&self) -> usize {
        self.understood.heartbeats
    }

    /// The next event; `None` at the end, however that came.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(told) = self.understood.told.pop_front() {
                return Some(told);
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// So many events, which must come.
    pub async fn take_some(&mut self, count: usize) -> Vec<Told> {
        let mut told = Vec::new();
        while told.len() < count {
            told.push(self.next().await.expect("more"));
        }
        told
    }

    /// Reads what comes next, whole events or not; whether anything came before the end.
    pub async fn read(&mut self) -> bool {
        let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("in time");
        let Ok(Some(chunk)) = chunk else { return false };
        // What came before was looked through already.
        let mut from = self.text.len().saturating_sub(1);
        self.text.extend_from_slice(&chunk);
        if !chunk.contains(&b'\n') {
            return true;
        }
        while let Some(end) = self.text[from..].windows(2).position(|two| two == b"\n\n") {
            let block: Vec<u8> = self.text.drain(..from + end + 2).collect();
            self.understood.add(std::str::from_utf8(&block).expect("UTF-8"));
            from = 0;
        }
        true
    }
}

impl Understood {
    fn add(&mut self, block: &str) {
        let (mut event, mut data) = (String::new(), String::new());
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => self.id = id.to_owned(),
                Some(("event", name)) => event = name.to_owned(),
                Some(("data", text)) => data.push_str(text),
                Some(("", "hb")) => self.heartbeats += 1,
                _ => assert_eq!(line, ""),
            }
        }
        if !data.is_empty() {
            let data = serde_json::from_str(&data).expect("JSON");
            self.told.push_back(Told { id: self.id.clone(), event, data });
        }
    }
}

/// That each message and each event is there once, in order; some messages are streamed.
pub fn assert_complete(told: &[Told], whole: &[i64], events: i64) {
    let places = |kind: char| told.iter().map(Told::place).filter(move |it| it.0 == kind).map(|it| it.1);
    assert_eq!(places('m').collect::<Vec<_>>(), whole);
    assert_eq!(places('e').collect::<Vec<_>>(), (1..=events).collect::<Vec<_>>());
    // A message is announced before it grows.
    let mut announced = 0;
    for told in told {
        match told.event.as_str() {
            "message.started" => announced = announced.max(told.data["seq"].as_i64().expect("a seq")),
            "message.delta" => assert!(told.data["seq"].as_i64().expect("a seq") <= announced, "{told:?}"),
            _ => {}
        }
    }
}
