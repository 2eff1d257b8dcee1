//! Connections: who says nothing, or takes nothing, holds none for long, and nobody else is kept out by them.

#[macro_use]
mod support;

use std::time::{Duration, Instant};

use agentkeep::conformance::support::{said, session};
use agentkeep_server::Options;
use reqwest::Method;
use serde_json::json;
use support::{Place, Service, serve_with, sse::Reader};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

on_each_engine! {
    who_says_nothing_is_cut_off,
    half_a_request_is_not_waited_for,
    a_connection_is_kept_from_one_request_to_the_next,
    what_takes_its_time_is_not_cut_off,
    who_does_not_take_an_answer_is_cut_off,
    no_more_connections_are_open_than_wanted,
}

/// How long a connection of these tests may be idle.
const IDLE: Duration = Duration::from_millis(600);

fn patient(idle_timeout: Duration) -> Options {
    Options { idle_timeout, stream_heartbeat: Duration::from_millis(100), ..Options::default() }
}

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.base.trim_start_matches("http://")).await.expect("a connection")
}

/// Reads until the server closes the connection; how many bytes came.
async fn to_the_end(stream: &mut TcpStream) -> usize {
    let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        let read = timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.expect("an end");
        match read {
            Ok(0) => return count,
            Ok(read) => count += read,
            // Whoever is cut off while something is on its way to him.
            Err(_) => return count,
        }
    }
}

/// Whether the connection is still open after that long, when nothing is read from it.
async fn is_open_after(stream: &mut TcpStream, pause: Duration) -> bool {
    timeout(pause, stream.read(&mut [0; 1])).await.is_err()
}

/// How many connections the server has.
async fn open(service: &Service) -> usize {
    let told = service.get("//metrics").await;
    let line = told.text.lines().find_map(|line| line.strip_prefix("agentkeep_http_connections "));
    line.expect("a figure").parse().expect("a number")
}

async fn who_says_nothing_is_cut_off(place: &Place) {
    let service = serve_with(place, patient(IDLE)).await;
    let begun = Instant::now();
    let mut silent = connect(&service).await;
    assert_eq!(to_the_end(&mut silent).await, 0);
    let took = begun.elapsed();
    assert!(took > IDLE / 2 && took < IDLE * 10, "{took:?}");

    // It is the limit that does it.
    let patient = serve_with(place, patient(Duration::from_secs(60))).await;
    assert!(is_open_after(&mut connect(&patient).await, IDLE * 3).await);
    patient.stop().await;
    service.stop().await;
}

async fn half_a_request_is_not_waited_for(place: &Place) {
    let service = serve_with(place, patient(IDLE)).await;
    let mut slow = connect(&service).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.expect("sent");
    let begun = Instant::now();
    while slow.write_all(b"x").await.is_ok() {
        assert!(begun.elapsed() < IDLE * 20, "a byte now and then keeps it open");
        sleep(Duration::from_millis(50)).await;
    }
    service.stop().await;
}

async fn a_connection_is_kept_from_one_request_to_the_next(place: &Place) {
    let service = serve_with(place, patient(IDLE)).await;
    let mut stream = connect(&service).await;
    let begun = Instant::now();
    while begun.elapsed() < IDLE * 3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        let mut buffer = [0; 1024];
        let read = timeout(Duration::from_secs(20), stream.read(&mut buffer)).await.expect("an answer").expect("read");
        assert!(buffer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&buffer[..read]));
        sleep(IDLE / 6).await;
    }
    assert_eq!(to_the_end(&mut stream).await, 0, "it is closed without a word");
    service.stop().await;
}

async fn what_takes_its_time_is_not_cut_off(place: &Place) {
    let service = serve_with(place, patient(IDLE)).await;
    let made = session(&service.tenant).await.id;
    // Nothing but heartbeats.
    let mut stream =
        Reader::open(service.request(Method::GET, &format!("sessions/{made}/events")), None).await.expect("a stream");
    // An answer that is worked at.
    let approval = json!({"proposal": "rm -r /", "requested_by": "me"});
    let approval = service.post("approvals", approval).await.json(201);
    let path = format!("approvals/{}/wait?seconds=3", approval["id"].as_str().expect("an id"));
    let begun = Instant::now();
    // A body that comes little by little.
    let body = br#"{"role": "user", "content": "piece by piece"}"#;
    let mut slow = connect(&service).await;
    let head = format!(
        "POST /api/v1/sessions/{made}/messages HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        service.key,
        body.len()
    );
    let trickle = async {
        slow.write_all(head.as_bytes()).await.expect("sent");
        for piece in body.chunks(4) {
            slow.write_all(piece).await.expect("sent");
            sleep(Duration::from_millis(150)).await;
        }
        let mut buffer = [0; 4096];
        let read = timeout(Duration::from_secs(20), slow.read(&mut buffer)).await.expect("an answer").expect("read");
        assert!(buffer[..read].starts_with(b"HTTP/1.1 201"), "{:?}", String::from_utf8_lossy(&buffer[..read]));
    };
    let (waited, ()) = tokio::join!(service.get(&path), trickle);
    assert_eq!(waited.json(200)["status"], "pending");
    assert!(begun.elapsed() > IDLE * 2);
    assert_eq!(stream.next().await.expect("the message").place(), ('m', 1));
    drop(stream);
    service.stop().await;
}

async fn who_does_not_take_an_answer_is_cut_off(place: &Place) {
    const BYTES: usize = 15 << 20;
    let large = async |service: &Service| {
        let made = session(&service.tenant).await.id;
        let message = service.tenant.messages().append(made, said("x".repeat(BYTES))).await.expect("appended");
        let mut stream = connect(service).await;
        let request = format!(
            "GET /api/v1/messages/{} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            message.id, service.key
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    };
    let service = serve_with(place, patient(IDLE)).await;
    let mut slow = large(&service).await;
    let begun = Instant::now();
    // The one that asks for the figure is one itself.
    while open(&service).await > 1 {
        assert!(begun.elapsed() < IDLE * 20, "it is still open");
        sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() > IDLE / 2, "{:?}", begun.elapsed());
    assert!(to_the_end(&mut slow).await < BYTES);

    let patient = serve_with(place, patient(Duration::from_secs(60))).await;
    let mut slow = large(&patient).await;
    sleep(IDLE * 3).await;
    assert!(to_the_end(&mut slow).await > BYTES, "who only takes his time is told all");
    patient.stop().await;
    service.stop().await;
}

async fn no_more_connections_are_open_than_wanted(place: &Place) {
    let options = Options { max_connections: 3, ..patient(Duration::from_secs(60)) };
    let service = serve_with(place, options).await;
    assert_eq!(open(&service).await, 1);
    let (first, second) = (connect(&service).await, connect(&service).await);
    while open(&service).await < 3 {
        sleep(Duration::from_millis(10)).await;
    }
    let mut late = connect(&service).await;
    late.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
    assert!(is_open_after(&mut late, Duration::from_millis(500)).await, "it waits");
    assert_eq!(open(&service).await, 3, "those that are open are answered");
    drop(first);
    let mut buffer = [0; 1024];
    let read = timeout(Duration::from_secs(20), late.read(&mut buffer)).await.expect("its turn").expect("read");
    assert!(buffer[..read].starts_with(b"HTTP/1.1 200"));
    drop(second);
    service.stop().await;
}
