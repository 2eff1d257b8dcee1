//! Connections that their callers drive: callers that go away or are not polled, answers in pieces, large ones, and the
//! end of a connection.

use std::{net::SocketAddr, time::Duration};

use agentkeep_core::Error;
use futures_util::{
    future::{MaybeDone, join_all, maybe_done},
    poll,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    super::{error::Fault, link::STATEMENTS_KEPT},
    support::*,
};
use crate::engine::{Sql, Value, postgres::Postgres};

const SOON: Duration = Duration::from_secs(20);

static ECHO: Sql = Sql::both("SELECT CAST($1 AS text)").short();
static ECHO_ROWS: Sql = Sql::both("SELECT CAST($1 AS text) FROM generate_series(1, 600)").short();
// The last row comes later than the others.
static LATE_ROW: Sql = Sql::both(
    "SELECT CAST($1 AS text) FROM generate_series(1, 60) AS n WHERE n < 60 OR CAST(pg_sleep(0.2) AS text) = ''",
)
.short();

async fn echo(engine: &Postgres, text: &str) -> String {
    let rows = engine.fetch_all::<(String,)>(&ECHO, &[text.into()]).await.expect("an answer");
    rows.into_iter().map(|(text,)| text).collect()
}

/// A proxy in front of the server that passes on what the server says in pieces of this many bytes; its address.
async fn in_pieces(size: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (address, server) = (listener.local_addr().expect("an address"), server_address().await);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.expect("the server");
            client.set_nodelay(true).expect("no delay");
            let ((mut questions, mut to_client), (mut answers, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut questions, &mut to_server).await });
            tokio::spawn(async move {
                let mut piece = vec![0; size];
                while let Ok(read @ 1..) = answers.read(&mut piece).await {
                    if to_client.write_all(&piece[..read]).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_put_together_from_pieces_of_any_size() {
    for size in [1, 2, 3, 7, 100] {
        let address = in_pieces(size).await;
        let engine = open(&format!("postgres://postgres@{address}/postgres")).await;
        let asked = join_all((0..40).map(|number| {
            let engine = &engine;
            async move { echo(engine, &"é".repeat(number)).await == "é".repeat(number) }
        }));
        assert!(timeout(SOON, asked).await.expect("soon").into_iter().all(|same| same), "{size}");
        let error = values(&engine, "SELECT 1 / 0", &[]).await.expect_err("no number");
        assert!(matches!(&error, Error::Database { code: Some(code), .. } if code == "22012"), "{error}");
        engine.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_file_serves_as_a_port_does() {
    let engine = open(&server_url()).await;
    let folder = values(&engine, "SELECT current_setting('unix_socket_directories')", &[]).await.expect("a setting");
    let [Value::Text(folder)] = folder.as_slice() else { panic!("{folder:?}") };
    let (folder, port) = (folder.replace('/', "%2F"), server_address().await.port());
    let engine = open(&format!("postgres://postgres@{folder}:{port}/postgres")).await;
    assert_eq!(echo(&engine, "a").await, "a");
    let port = "SELECT inet_client_port()";
    assert_eq!(values(&engine, port, &[]).await.expect("an answer"), [Value::Null], "it came through the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_questions_and_answers_pass_each_other() {
    let engine = open(&server_url()).await;
    // More than the buffers of both sockets hold, in both directions, on connections that all share.
    let text = "0123456789abcdef".repeat(1 << 17);
    let asked = join_all((0..24).map(|_| echo(&engine, &text)));
    assert!(timeout(SOON, asked).await.expect("nobody waits for the other").into_iter().all(|given| given == text));
    let text = &text[..100_000];
    let rows = engine.fetch_all::<(String,)>(&ECHO_ROWS, &[text.into()]).await.expect("rows");
    assert!(rows.len() == 600 && rows.iter().all(|(given,)| given == text));
    assert_eq!(echo(&engine, "small again").await, "small again");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_go_away_leave_others_their_answers() {
    let engine = open(&server_url()).await;
    let text = "x".repeat(10_000);
    let params = [text.as_str().into()];
    for round in 0..40 {
        let mut leaving: Vec<_> =
            (0..12).map(|_| Box::pin(engine.fetch_all::<(String,)>(&ECHO_ROWS, &params))).collect();
        for read in &mut leaving {
            // Asked, and of some a part of the answer was read.
            let _ = timeout(Duration::from_micros(round * 20), read).await;
        }
        let names: Vec<_> = (0..12).map(|number| format!("{round}/{number}")).collect();
        let staying = join_all(names.iter().map(|name| echo(&engine, name)));
        drop(leaving);
        assert_eq!(timeout(SOON, staying).await.expect("soon"), names);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_are_kept_and_not_polled_hold_up_no_other() {
    let engine = open(&server_url()).await;
    let text = "y".repeat(20_000);
    let params = [text.as_str().into()];
    // Nothing of an answer was read, or a part of it; on each connection that callers share.
    for (read, count, polls) in [(&ECHO, 1, 1), (&LATE_ROW, 60, 2)] {
        let ready = join_all((0..9).map(|_| engine.fetch_all::<(String,)>(read, &params))).await;
        assert!(ready.into_iter().all(|rows| rows.expect("rows").len() == count));
        let mut kept: Vec<_> =
            (0..9).map(|_| Box::pin(maybe_done(engine.fetch_all::<(String,)>(read, &params)))).collect();
        for _ in 0..polls {
            for read in &mut kept {
                let _ = poll!(read.as_mut());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let unfinished = kept.iter().filter(|read| matches!(***read, MaybeDone::Future(_))).count();
        assert!(unfinished >= 4, "{unfinished} are kept");
        for number in 0..9 {
            let name = number.to_string();
            assert_eq!(timeout(SOON, echo(&engine, &name)).await.expect("nobody waits for who is not polled"), name);
        }
        for mut read in kept {
            timeout(SOON, read.as_mut()).await.expect("soon");
            let rows = read.as_mut().take_output().expect("an end").expect("rows");
            assert!(rows.len() == count && rows.iter().all(|(given,)| *given == text));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_without_those_behind_nobody_reads_for_who_is_not_polled() {
    let (engine, _database) = new_database().await;
    let patient = engine.0.connector.connect().await.expect("a connection").with_patience(Duration::from_secs(3600));
    let usual = engine.0.connector.connect().await.expect("a connection");
    for (link, is_answered) in [(&usual, true), (&patient, false)] {
        let mut kept = Box::pin(link.command("SELECT pg_sleep(0.1)"));
        assert!(poll!(&mut kept).is_pending(), "it was asked");
        let next = timeout(Duration::from_secs(1), link.command("SELECT 2")).await;
        assert_eq!(next.is_ok(), is_answered);
        kept.await.expect("an answer");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_last_reaches_everybody_who_waits() {
    let (engine, url) = new_database().await;
    let tx = engine.begin().await.expect("a transaction");
    let slow = tokio::spawn(async move { tx.execute(&Sql::both("SELECT pg_sleep(30)"), &[]).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    end_connections(&url).await;
    let error = timeout(SOON, slow).await.expect("soon").expect("a task").expect_err("its connection has ended");
    assert!(matches!(&error, Error::Database { code: Some(code), .. } if code == "57P01"), "{error}");
    // What was said on a connection that nobody was using is known before it is used again.
    assert_eq!(values(&engine, "SELECT 1", &[]).await.expect("an answer"), [Value::I64(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_something_else_ends_the_connection_with_a_reason() {
    let (engine, _database) = new_database().await;
    let link = engine.0.connector.connect().await.expect("a connection");
    let error = link.command("COPY (SELECT 1) TO STDOUT").await.expect_err("no rows to copy");
    assert!(format!("{error:?}").contains("nothing asked for"), "{error:?}");
    assert!(!link.is_usable());
    let error = link.command("SELECT 1").await.expect_err("it has ended");
    assert!(matches!(error, Fault::Closed), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_forgets_statements_that_nobody_keeps() {
    let (engine, _database) = new_database().await;
    let link = engine.0.connector.connect().await.expect("a connection");
    let mut prepared: Vec<(i64,)> = Vec::new();
    for number in 0..STATEMENTS_KEPT + 10 {
        let text = format!("SELECT {number}::int8");
        let ready = link.ready(&text, 0).await.expect("prepared");
        let mut rows: Vec<(i64,)> = Vec::new();
        link.rows(&text, &ready, &[] as &[Value], &mut rows).await.expect("a row");
        assert_eq!(rows, [(i64::try_from(number).expect("few"),)]);
    }
    let count = "SELECT count(*) FROM pg_prepared_statements";
    let ready = link.ready(count, 0).await.expect("prepared");
    link.rows(count, &ready, &[] as &[Value], &mut prepared).await.expect("a row");
    assert_eq!(prepared, [(11,)], "ten and the one that counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_of_the_database_are_looked_up() {
    let (engine, _database) = new_database().await;
    run(&engine, "CREATE DOMAIN short AS varchar(8)").await;
    run(&engine, "CREATE DOMAIN shorter AS short").await;
    run(&engine, "CREATE TYPE mood AS ENUM ('glad', 'sad')").await;
    run(&engine, "CREATE TABLE t(word shorter, mood mood, many shorter[])").await;
    let insert = Sql::assembled("INSERT INTO t VALUES ($1, $2, ARRAY[$1]::shorter[])");
    engine.execute(&insert, &["a".into(), "glad".into()]).await.expect("a row");
    assert_eq!(values(&engine, "SELECT word FROM t", &[]).await.expect("a domain is its base"), [Value::from("a")]);
    for column in ["mood", "many"] {
        let error = values(&engine, &format!("SELECT {column} FROM t"), &[]).await.expect_err("no counterpart");
        assert!(error.to_string().contains("CAST"), "{error}");
    }
    let cast = "SELECT CAST(mood AS text) FROM t WHERE mood = $1";
    assert_eq!(values(&engine, cast, &["glad".into()]).await.expect("a word"), [Value::from("glad")]);
}
