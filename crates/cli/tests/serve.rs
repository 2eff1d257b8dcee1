//! `agentkeep serve` as a process: what its start says, what survives its end, and what it does while the database is
//! away.

#[macro_use]
mod support;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use support::{
    Place,
    postgres::OwnPostgres,
    proxy::Proxy,
    sse::{Reader, Told, assert_complete},
};
use tokio::task::JoinHandle;

on_both_engines! {
    acknowledged_writes_survive_kills
    a_stop_loses_nothing_and_ends_well
}

/// A server in a process of its own; killed when it is dropped.
struct Server {
    child: Child,
    base: String,
}

impl Server {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        Self::from_command(place.command(&[&["serve", "--json", "--listen", "127.0.0.1:0"], arguments].concat()))
    }

    fn from_command(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::null()).spawn().expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let base = told["api"].as_str().expect("an address").trim_end_matches("/api/v1").to_owned();
        Self { child, base }
    }

    /// Waits until it is ready.
    async fn ready(self, client: &Client) -> Self {
        let until = Instant::now() + Duration::from_secs(30);
        let url = format!("{}/readyz", self.base);
        while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(Instant::now() < until, "the server does not get ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1/{path}", self.base)
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Ends it as a service manager does; its exit code.
    fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("told");
        self.child.wait().expect("ended").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

fn client() -> Client {
    // It wants one though nothing here is encrypted; a second one is no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(Duration::from_secs(30)).build().expect("a client")
}

/// A session to write to; its id.
async fn session(client: &Client, server: &Server) -> String {
    let answer = client.post(server.url("sessions")).json(&json!({})).send().await.expect("an answer");
    assert_eq!(answer.status(), 201);
    let session: Value = answer.json().await.expect("JSON");
    session["id"].as_str().expect("an id").to_owned()
}

/// The contents of a session's messages, in order.
async fn contents(client: &Client, server: &Server, session: &str) -> Vec<String> {
    let mut contents = Vec::new();
    let mut after = String::new();
    loop {
        let url = server.url(&format!("sessions/{session}/messages?limit=1000{after}"));
        let page: Value = client.get(url).send().await.expect("an answer").json().await.expect("JSON");
        let data = page["data"].as_array().expect("a list");
        for (place, message) in data.iter().enumerate() {
            assert_eq!(message["seq"].as_u64(), Some((contents.len() + 1) as u64), "no gap at {place}");
            contents.push(message["content"].as_str().expect("a text").to_owned());
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => after = format!("&cursor={cursor}"),
            None => return contents,
        }
    }
}

/// Writers that say each thing once, with a key, until it is acknowledged.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Writers {
    fn start(count: usize, client: &Client, base: &Arc<Mutex<String>>, session: &str) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = (0..count).map(|writer| {
            let (client, base, session) = (client.clone(), Arc::clone(base), session.to_owned());
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tokio::spawn(async move {
                let mut said = 0;
                while !stop.load(Ordering::Relaxed) {
                    let words = format!("{writer}-{said}");
                    // The same words with the same key, until they are acknowledged.
                    loop {
                        let url = format!("{}/api/v1/sessions/{session}/messages", base.lock().clone());
                        let request = client.post(url).header("idempotency-key", &words);
                        let answer = request.json(&json!({"role": "user", "content": words})).send().await;
                        match answer.map(|answer| answer.status()) {
                            Ok(StatusCode::CREATED) => break,
                            // A request of the server before may still hold the key, and the database may be away.
                            Ok(StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE) | Err(_) => {
                                tokio::time::sleep(Duration::from_millis(5)).await;
                            }
                            Ok(other) => panic!("{other}"),
                        }
                    }
                    said += 1;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                said
            })
        });
        let tasks = tasks.collect();
        Self { stop, acknowledged, tasks }
    }

    /// Ends them; what each said.
    async fn end(self) -> HashMap<usize, u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut said = HashMap::new();
        for (writer, task) in self.tasks.into_iter().enumerate() {
            said.insert(writer, task.await.expect("no panic"));
        }
        said
    }
}

/// Everything that was acknowledged is there once, each writer's words in their order.
fn check(contents: &[String], said: &HashMap<usize, u64>) {
    let mut next: HashMap<usize, u64> = HashMap::new();
    for words in contents {
        let (writer, number) = words.split_once('-').expect("two numbers");
        let (writer, number): (usize, u64) = (writer.parse().expect("a number"), number.parse().expect("a number"));
        let expected = next.entry(writer).or_default();
        assert_eq!(number, *expected, "writer {writer}: lost, doubled or out of order");
        *expected += 1;
    }
    assert_eq!(&next, said, "what was acknowledged is what is there");
}

/// One that streams messages in, each step with a key until it is acknowledged, and those who follow the session.
struct Streams {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<i64>,
    readers: Vec<JoinHandle<Vec<Told>>>,
}

impl Streams {
    fn start(readers: usize, client: &Client, base: &Arc<Mutex<String>>, session: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = tokio::spawn(stream_in(client.clone(), Arc::clone(base), session.to_owned(), Arc::clone(&stop)));
        let reader = || tokio::spawn(follow(client.clone(), Arc::clone(base), session.to_owned()));
        Self { stop, writer, readers: (0..readers).map(|_| reader()).collect() }
    }

    /// Ends the writing, and looks whether everybody was told of everything, once and in order.
    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let turns = self.writer.await.expect("no panic");
        assert!(turns > 0, "something was streamed");
        // Each turn is a message and one that is streamed; the last word stands alone.
        let whole: Vec<i64> = (0..=turns).map(|turn| turn * 2 + 1).collect();
        for reader in self.readers {
            let told = tokio::time::timeout(Duration::from_secs(60), reader).await.expect("in time");
            assert_complete(&told.expect("no panic"), &whole, turns * (DELTAS + 2));
        }
    }
}

/// Deltas of a message that is streamed.
const DELTAS: i64 = 3;
/// What is said when nothing follows.
const LAST: &str = "the last word";

/// Says something and streams a message in, again and again, until it is told to stop; how often that was.
async fn stream_in(client: Client, base: Arc<Mutex<String>>, session: String, stop: Arc<AtomicBool>) -> i64 {
    let mut steps = 0;
    // The same step with the same key, until it is acknowledged.
    let mut step = async |path: String, body: Value| {
        steps += 1;
        loop {
            let url = format!("{}/api/v1/sessions/{session}/messages{path}", base.lock().clone());
            let request = client.post(url).header("idempotency-key", format!("step {steps}")).json(&body);
            match request.send().await {
                Ok(answer) if answer.status().is_success() => {
                    if let Ok(answer) = answer.json::<Value>().await {
                        return answer;
                    }
                }
                // A request of the server before may still hold the key.
                Ok(answer) if [409, 503].contains(&answer.status().as_u16()) => {}
                Ok(answer) => panic!("{}", answer.text().await.unwrap_or_default()),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let mut turns = 0;
    while !stop.load(Ordering::Relaxed) {
        step(String::new(), json!({"role": "user", "content": "go on"})).await;
        let started = step("/stream".to_owned(), json!({"role": "assistant"})).await;
        let id = started["id"].as_str().expect("an id").to_owned();
        for number in 0..DELTAS {
            step(format!("/{id}/deltas"), json!({"content": format!("{number} ")})).await;
        }
        let ended = step(format!("/{id}/finish"), json!({})).await;
        assert_eq!(ended["content"], "0 1 2 ");
        turns += 1;
    }
    step(String::new(), json!({"role": "user", "content": LAST})).await;
    turns
}

/// Follows a session until the last word, behind the last event that came whenever the server was gone.
async fn follow(client: Client, base: Arc<Mutex<String>>, session: String) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    loop {
        let request = client.get(format!("{}/api/v1/sessions/{session}/events", base.lock().clone()));
        let from = told.last().map_or("0.0", |told| told.id.as_str()).to_owned();
        if let Ok(mut reader) = Reader::open(request, Some(&from)).await {
            while let Some(next) = reader.next().await {
                assert_ne!(next.event, "reset", "nothing that is kept is left out");
                let last = next.data["content"] == LAST;
                told.push(next);
                if last {
                    return told;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const KILLS: u32 = 50;

/// `kill -9` again and again while writers write, one streams and others follow.
fn acknowledged_writes_survive_kills(place: &Place) {
    block_on(async {
        let client = client();
        let mut server = Server::start(place, &[]).ready(&client).await;
        let (session, streamed) = (session(&client, &server).await, session(&client, &server).await);
        let base = Arc::new(Mutex::new(server.base.clone()));
        let writers = Writers::start(8, &client, &base, &session);
        let streams = Streams::start(4, &client, &base, &streamed);
        for kill in 0..KILLS {
            let before = writers.acknowledged.load(Ordering::Relaxed);
            let until = Instant::now() + Duration::from_secs(30);
            while writers.acknowledged.load(Ordering::Relaxed) < before + u64::from(kill % 7) * 3 {
                assert!(Instant::now() < until, "nothing is acknowledged any more");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.kill();
            server = Server::start(place, &[]).ready(&client).await;
            *base.lock() = server.base.clone();
        }
        let said = writers.end().await;
        streams.end().await;
        assert!(said.values().sum::<u64>() > u64::from(KILLS), "{said:?}");
        check(&contents(&client, &server, &session).await, &said);
    });
}

/// SIGTERM while writers write.
fn a_stop_loses_nothing_and_ends_well(place: &Place) {
    block_on(async {
        let client = client();
        let server = Server::start(place, &[]).ready(&client).await;
        let session = session(&client, &server).await;
        let base = Arc::new(Mutex::new(server.base.clone()));
        let writers = Writers::start(8, &client, &base, &session);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let ended = tokio::task::spawn_blocking(|| server.terminate()).await.expect("no panic");
        assert_eq!(ended, Some(0));
        let server = Server::start(place, &[]).ready(&client).await;
        *base.lock() = server.base.clone();
        tokio::time::sleep(Duration::from_millis(200)).await;
        let said = writers.end().await;
        check(&contents(&client, &server, &session).await, &said);
    });
}

/// PostgreSQL is restarted ten times under load, in order and after a crash.
#[test]
fn a_database_that_restarts_loses_nothing() {
    let postgres = OwnPostgres::start();
    let place = postgres.place();
    block_on(async {
        let client = client();
        let server = Server::start(&place, &[]).ready(&client).await;
        let (session, streamed) = (session(&client, &server).await, session(&client, &server).await);
        let base = Arc::new(Mutex::new(server.base.clone()));
        let writers = Writers::start(8, &client, &base, &session);
        let streams = Streams::start(4, &client, &base, &streamed);
        for restart in 0..10 {
            tokio::time::sleep(Duration::from_millis(150)).await;
            postgres.stop(if restart % 2 == 0 { "fast" } else { "immediate" });
            tokio::time::sleep(Duration::from_millis(100)).await;
            postgres.go();
            let before = writers.acknowledged.load(Ordering::Relaxed);
            let until = Instant::now() + Duration::from_secs(30);
            while writers.acknowledged.load(Ordering::Relaxed) < before + 8 {
                assert!(Instant::now() < until, "the server does not find the database again");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let said = writers.end().await;
        streams.end().await;
        check(&contents(&client, &server, &session).await, &said);
    });
}

/// The database is not there when the server starts.
#[test]
fn a_server_starts_without_its_database_and_finds_it_later() {
    let place = support::postgres();
    block_on(async {
        let client = client();
        let proxy = Proxy::start(place.postgres_address()).await;
        proxy.close();
        let url = place.url_through(proxy.address());
        let server = Server::start(&place, &["--database", &url]);
        let status = async |path: &str| {
            let answer = client.get(format!("{}{path}", server.base)).send().await.expect("an answer");
            (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
        };
        assert_eq!(status("/livez").await.0, 200);
        assert_eq!(status("/readyz").await, (503, true));
        assert_eq!(status("/health").await.0, 503);
        assert_eq!(status("/api/v1/users").await, (503, true));
        let write = client.post(server.url("users")).json(&json!({"name": "x"})).send().await.expect("an answer");
        assert_eq!(write.status(), 503);
        proxy.open();
        let server = server.ready(&client).await;
        let write = client.post(server.url("users")).json(&json!({"name": "x"})).send().await.expect("an answer");
        assert_eq!(write.status(), 201);
    });
}

/// Five connections, five hundred callers: each is answered in bounded time, and nothing is left behind.
#[test]
fn a_small_pool_turns_callers_away_and_leaks_nothing() {
    let place = support::postgres();
    block_on(async {
        let client = client();
        let mut command = place.command(&["serve", "--json", "--listen", "127.0.0.1:0"]);
        command.env("POSTGRES_POOL_MIN", "1").env("POSTGRES_POOL_MAX", "5").env("AGENTKEEP_ACQUIRE_TIMEOUT_MS", "300");
        let server = Server::from_command(command).ready(&client).await;
        let started = Instant::now();
        // With a key each call is a transaction, which has a connection to itself.
        let calls = (0..500).map(|number| {
            let request = client.post(server.url("users")).header("idempotency-key", format!("call {number}"));
            let request = request.json(&json!({"name": format!("user {number}")}));
            tokio::spawn(async move {
                let answer = request.send().await.expect("an answer");
                (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
            })
        });
        let mut made = 0;
        for call in calls.collect::<Vec<_>>() {
            match call.await.expect("no panic") {
                (201, _) => made += 1,
                (503, true) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        assert!(made > 0, "somebody is served");
        // The server itself reads now and then.
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let health = client.get(format!("{}/health", server.base)).send().await.expect("an answer");
            let health: Value = health.json().await.expect("JSON");
            let pool = &health["database"]["pool"];
            if (&pool["in_use"], &pool["waiting"]) == (&json!(0), &json!(0)) {
                break;
            }
            assert!(Instant::now() < until, "{pool}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let users: Value =
            client.get(server.url("users?total=true")).send().await.expect("an answer").json().await.expect("JSON");
        assert_eq!(users["total"], json!(made), "what was turned away was not done");
    });
}

/// A server whose process may have that many files: at first, and at most.
#[cfg(unix)]
fn with_files(place: &Place, first: u32, most: Option<u32>) -> Server {
    let served = place.command(&["serve", "--json", "--listen", "127.0.0.1:0"]);
    let hard = most.map_or_else(String::new, |most| format!("ulimit -Hn {most} && "));
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -Sn {first} && {hard}exec \"$0\" \"$@\"")]);
    command.arg(served.get_program()).args(served.get_args());
    for (name, value) in served.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Server::from_command(command)
}

/// Asks for something on a connection, which stays open; the body of the answer, which is one of success.
#[cfg(unix)]
async fn call(stream: &mut tokio::net::TcpStream, method: &str, path: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let length = body.len();
    let head = "host: localhost\r\ncontent-type: application/json\r\ncontent-length";
    let request = format!("{method} {path} HTTP/1.1\r\n{head}: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    loop {
        let read = stream.read_buf(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(30), read).await.expect("an answer").expect("read");
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("HTTP/1.1 20"), "{text}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        if body.len() >= length.parse().expect("a number") {
            return body.to_owned();
        }
    }
}

/// However many connect and say nothing, those that are connected are served, and the database has its files.
#[cfg(unix)]
#[test]
fn connections_leave_the_database_its_files() {
    const SILENT: usize = 300;
    let place = support::sqlite();
    block_on(async {
        let connect = async |server: &Server| {
            let address = server.base.trim_start_matches("http://").to_owned();
            tokio::net::TcpStream::connect(address).await.expect("a connection")
        };
        // What a shell allows at first is not all.
        let server = with_files(&place, 140, None).ready(&client()).await;
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            silent.push(connect(&server).await);
        }
        session(&client(), &server).await;
        drop(silent);
        server.terminate();

        let server = with_files(&place, 160, Some(160)).ready(&client()).await;
        // By hand: a client of HTTP may open another connection when it likes.
        let mut kept = connect(&server).await;
        call(&mut kept, "GET", "/livez", "").await;
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            silent.push(connect(&server).await);
        }
        // The first write opens files of the database.
        let made = call(&mut kept, "POST", "/api/v1/sessions", "{}").await;
        let made: Value = serde_json::from_str(&made).expect("JSON");
        let path = format!("/api/v1/sessions/{}", made["id"].as_str().expect("an id"));
        for _ in 0..10 {
            call(&mut kept, "POST", &format!("{path}/messages"), r#"{"role": "user", "content": "x"}"#).await;
        }
        let late = tokio::spawn({
            let request = client().get(format!("{}{path}", server.base));
            async move { request.send().await.expect("an answer").status() }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!late.is_finished(), "there is no room for another one");
        drop(silent);
        assert_eq!(late.await.expect("no panic"), 200);
        assert_eq!(server.terminate(), Some(0));
    });
}

/// Requests are told to a collector, as parts of the traces that they name.
#[cfg(feature = "otlp")]
#[test]
fn spans_are_sent_to_a_collector() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let place = support::sqlite();
    block_on(async {
        let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = collector.local_addr().expect("an address");
        let mut command = place.command(&["serve", "--json", "--listen", "127.0.0.1:0"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"));
        let received = tokio::spawn(async move {
            let mut received = Vec::new();
            // Until the process ends, which may send all in one call or in some.
            while let Ok(Ok((mut stream, _))) = tokio::time::timeout(Duration::from_secs(5), collector.accept()).await {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(Ok(read @ 1..)) =
                    tokio::time::timeout(Duration::from_millis(500), stream.read(&mut buffer)).await
                {
                    received.extend_from_slice(&buffer[..read]);
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("answered");
            }
            received
        });
        let client = client();
        let server = Server::from_command(command).ready(&client).await;
        let made = session(&client, &server).await;
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let request = client.get(server.url(&format!("sessions/{made}")));
        let answer = request.header("traceparent", format!("00-{trace}-{parent}-01")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        assert_eq!(server.terminate(), Some(0));
        let received = received.await.expect("no panic");
        let has = |part: &[u8]| received.windows(part.len()).any(|window| window == part);
        let raw = |hex: &str| -> Vec<u8> {
            hex.as_bytes()
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("hex"), 16).expect("hex"))
                .collect()
        };
        assert!(has(b"POST /v1/traces HTTP/1.1"), "{}", String::from_utf8_lossy(&received));
        for name in ["agentkeep", "POST /api/v1/sessions", "GET /api/v1/sessions/{id}", "http.response.status_code"] {
            assert!(has(name.as_bytes()), "{name}: {}", String::from_utf8_lossy(&received));
        }
        assert!(has(&raw(trace)) && has(&raw(parent)), "the span belongs to the caller's trace");
    });
}

/// What a start says, and what it refuses.
#[test]
fn a_start_tells_where_it_is_and_refuses_to_be_reached_without_a_key() {
    let place = support::sqlite();
    let mut child = place.command(&["serve", "--listen", "127.0.0.1:0"]).spawn().expect("starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().expect("a line").expect("a text");
    let (api, docs, database) = (line(), line(), line());
    assert!(api.starts_with("API ") && api.ends_with("/api/v1"), "{api}");
    assert!(docs.ends_with("/docs"), "{docs}");
    assert!(database.ends_with("test.db"), "{database}");
    child.kill().expect("killed");
    child.wait().expect("ended");

    let refused = place.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(refused.code, 4, "{}", refused.stderr);
    assert!(refused.stderr.contains("agentkeep keys create"), "{}", refused.stderr);
    let wrong = place.run(&["serve", "--listen", "nowhere"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address: SocketAddr = taken.local_addr().expect("an address");
    let taken = place.run(&["serve", "--listen", &address.to_string()]);
    assert!(taken.code == 1 && taken.stderr.contains("--listen"), "{}", taken.stderr);
}

/// Nothing outlives it, and it says so everywhere.
#[test]
fn an_ephemeral_server_says_so() {
    let place = support::sqlite();
    block_on(async {
        let client = client();
        let server =
            Server::from_command(place.bare_command(&["serve", "--json", "--listen", "127.0.0.1:0", "--ephemeral"]));
        let server = server.ready(&client).await;
        let answer = client.get(format!("{}/health", server.base)).send().await.expect("an answer");
        assert_eq!(answer.headers()["agentkeep-ephemeral"], "true");
        let health: Value = answer.json().await.expect("JSON");
        assert_eq!(health["ephemeral"], true);
        assert!(!place.folder.path().join("agentkeep.db").exists());
    });
}

/// The README's session of curl calls, to the letter but for the port.
#[test]
fn the_calls_of_the_readme_work() {
    let readme = include_str!("../../../README.md");
    let (_, rest) = readme.split_once("<!-- calls -->\n```sh\n").expect("the calls");
    let (calls, _) = rest.split_once("```").expect("their end");
    assert_eq!(calls.matches("curl ").count(), 5, "five calls");
    let place = support::sqlite();
    block_on(async {
        let server = Server::start(&place, &[]).ready(&client()).await;
        let script = calls.replace("http://127.0.0.1:8787", &server.base);
        let mut shell = Command::new("bash");
        shell.args(["-euc", &script]).current_dir(place.folder.path());
        let output = tokio::task::spawn_blocking(move || shell.output()).await.expect("no panic").expect("bash");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.contains("event: message.completed"), "{told}");
        assert!(told.contains("\"role\":\"assistant\""), "{told}");
    });
}
