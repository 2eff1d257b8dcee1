//! Behind a pooler in transaction mode that knows nothing of prepared statements, as PgBouncer before 1.21.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

use super::support::*;
use crate::engine::{Sql, Value};

/// A message of the protocol: its tag and everything from its length on.
async fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; 5];
    stream.read_exact(&mut message).await?;
    let length = u32::from_be_bytes([message[1], message[2], message[3], message[4]]) as usize;
    message.resize(1 + length, 0);
    stream.read_exact(&mut message[5..]).await?;
    Ok(message)
}

fn startup(database: &str) -> Vec<u8> {
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    body.extend_from_slice(format!("user\0postgres\0database\0{database}\0\0").as_bytes());
    let mut message = u32::try_from(body.len() + 4).expect("short").to_be_bytes().to_vec();
    message.extend(body);
    message
}

async fn connect(server: SocketAddr, database: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server).await.expect("the server");
    stream.set_nodelay(true).expect("no delay");
    stream.write_all(&startup(database)).await.expect("a startup");
    while read_message(&mut stream).await.expect("an answer")[0] != b'Z' {}
    stream
}

/// What a pooler does with options that a client sends when it connects.
#[derive(Clone, Copy, PartialEq)]
enum Options {
    Refused,
    /// As PgBouncer with `ignore_startup_parameters = options`.
    Ignored,
}

/// Gives each transaction the next of three server connections. The port, and how many transactions there were.
async fn pooler(database: &str, options: Options) -> (u16, Arc<AtomicUsize>) {
    let server = server_address().await;
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Mutex::new(connect(server, database).await));
    }
    let (servers, next) = (Arc::new(servers), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let count = Arc::clone(&next);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, options, Arc::clone(&servers), Arc::clone(&next)));
        }
    });
    (port, count)
}

async fn serve(
    mut client: TcpStream,
    options: Options,
    servers: Arc<Vec<Mutex<TcpStream>>>,
    next: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    greet(&mut client, options).await?;
    loop {
        let mut message = read_message(&mut client).await?;
        if message[0] == b'X' {
            return Ok(());
        }
        let mut server = servers[next.fetch_add(1, Ordering::Relaxed) % servers.len()].lock().await;
        loop {
            let asks = matches!(message[0], b'S' | b'Q');
            server.write_all(&message).await?;
            if asks && pass_answer(&mut server, &mut client).await? == b'I' {
                break;
            }
            message = match read_message(&mut client).await {
                Ok(message) if message[0] != b'X' => message,
                // The client left in the middle: nothing of it may remain.
                _ => {
                    server.write_all(b"Q\0\0\0\x0dROLLBACK\0").await?;
                    while read_message(&mut server).await?[0] != b'Z' {}
                    return Ok(());
                }
            };
        }
    }
}

/// Everything up to the next "ready"; the state of the transaction it tells.
async fn pass_answer(server: &mut TcpStream, client: &mut TcpStream) -> std::io::Result<u8> {
    loop {
        let message = read_message(server).await?;
        client.write_all(&message).await?;
        if message[0] == b'Z' {
            return Ok(message[5]);
        }
    }
}

async fn greet(client: &mut TcpStream, options: Options) -> std::io::Result<()> {
    loop {
        let length = client.read_u32().await? as usize;
        let mut body = vec![0; length - 4];
        client.read_exact(&mut body).await?;
        if body == 80_877_103_u32.to_be_bytes() {
            client.write_all(b"N").await?;
            continue;
        }
        let refused = options == Options::Refused && String::from_utf8_lossy(&body).contains("options");
        assert!(!refused, "a pooler refuses startup options");
        return client.write_all(b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x01Z\0\0\0\x05I").await;
    }
}

fn database_of(url: &str) -> &str {
    url.rsplit('/').next().expect("a name")
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_without_prepared_statements() {
    let (direct, url) = new_database_with_messages().await;
    let (port, transactions) = pooler(database_of(&url), Options::Refused).await;
    let engine = open(&format!("postgres://postgres@127.0.0.1:{port}/x?pgbouncer=true")).await;
    let sessions = [new_session(&engine).await, new_session(&engine).await];
    let appends = (0..60).map(|index| engine.append(&APPEND, TENANT, message(sessions[index % 2], "user", "a\0b")));
    assert!(join_all(appends).await.into_iter().all(|outcome| matches!(outcome, Ok(Some(_)))));
    let many = (0..1500).map(|_| message(sessions[0], "user", "many")).collect();
    assert_eq!(engine.append_many(&APPEND, TENANT, many).await.expect("many").last(), Some(&Some(1530)));

    static COUNT: Sql = Sql::both("SELECT count(*) FROM messages WHERE tenant_id = $1 AND session_id = $2").short();
    let of_session = [TENANT.into(), Value::Uuid(sessions[1])];
    let reads = (0..40).map(|_| engine.fetch_all::<(i64,)>(&COUNT, &of_session));
    assert!(join_all(reads).await.into_iter().all(|rows| rows.expect("a read") == [(30,)]));
    // Callers at once may share a transaction, one after another may not: each gets the next server.
    let before = transactions.load(Ordering::Relaxed);
    for _ in 0..12 {
        assert_eq!(engine.fetch_all::<(i64,)>(&COUNT, &of_session).await.expect("a read"), [(30,)]);
    }
    assert!(transactions.load(Ordering::Relaxed) - before >= 12, "each server is met several times");

    static TOUCH: Sql =
        Sql::both("UPDATE session_heads SET last_seq = last_seq + $3 WHERE tenant_id = $1 AND session_id = $2");
    let touch = |by: i64| vec![TENANT.into(), Value::Uuid(sessions[1]), Value::I64(by)];
    let tx = engine.begin().await.expect("a transaction");
    tx.execute(&TOUCH, &touch(1000)).await.expect("an update");
    let number = tx.append_many(&APPEND, TENANT, vec![message(sessions[1], "user", "in a transaction")]).await;
    assert_eq!(number.expect("an append"), [Some(1031)]);
    tx.rollback().await.expect("a rollback");
    assert_eq!(engine.execute_batch(&TOUCH, (0..300).map(|_| touch(1)).collect()).await.expect("a batch"), 300);
    let head = values(&direct, "SELECT last_seq FROM session_heads ORDER BY last_seq DESC", &[]).await;
    assert_eq!(head.expect("heads"), [Value::I64(1530), Value::I64(330)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_statements_would_not_survive_this_pooler() {
    let (_direct, url) = new_database_with_messages().await;
    let (port, _) = pooler(database_of(&url), Options::Ignored).await;
    let engine = open(&format!("postgres://postgres@127.0.0.1:{port}/x")).await;
    static READ: Sql = Sql::both("SELECT count(*) FROM messages WHERE tenant_id = $1").short();
    let mut failures = 0;
    for _ in 0..8 {
        failures += usize::from(engine.fetch_all::<(i64,)>(&READ, &[TENANT.into()]).await.is_err());
    }
    assert!(failures > 0, "the emulated pooler does not break prepared statements: it proves nothing");
}
