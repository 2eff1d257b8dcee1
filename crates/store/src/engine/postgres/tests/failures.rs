//! Servers that are away, connections that end, statements that take too long or are refused.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep_core::Error;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::support::*;
use crate::engine::{
    Sql, Value,
    postgres::{Postgres, PostgresTx},
};

async fn open_error(url: &str) -> (Error, Duration) {
    let started = Instant::now();
    let error = Postgres::open(Arc::new(config(url))).await.err().expect("no connection");
    (error, started.elapsed())
}

/// A port where nobody listens.
async fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address").port()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_named_within_five_seconds() {
    let dead = dead_port().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mute = silent.local_addr().expect("an address").port();
    let (error, took) = open_error(&format!("postgres://me:hunter2@127.0.0.1:{dead},127.0.0.1:{mute}/x")).await;
    let text = error.to_string();
    assert!(matches!(error, Error::Unavailable { .. }) && took < Duration::from_secs(5), "{text} after {took:?}");
    assert!(text.contains(&format!("127.0.0.1:{dead}")) && text.contains(&format!("127.0.0.1:{mute}")), "{text}");
    assert!(text.contains("refused") && text.contains("no answer") && !text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_says_about_a_login_is_passed_on() {
    let (error, _) = open_error(&with_database(&server_url(), "no_such_database", "")).await;
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("\"no_such_database\" does not exist"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_host_serves_when_the_first_is_dead_or_only_reads() {
    let (engine, url) = new_database().await;
    let address = server_address().await;
    let name = url.rsplit('/').next().expect("a name");
    let hosts = format!("postgres://postgres@127.0.0.1:{},{address}/{name}", dead_port().await);
    let two = open(&hosts).await;
    assert_eq!(values(&two, "SELECT 1", &[]).await.expect("an answer"), [Value::I64(1)]);
    run(&engine, &format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    let (error, _) = open_error(&format!("{hosts}?target_session_attrs=read-write")).await;
    assert!(error.to_string().contains("does not allow writes"), "{error}");
    open(&format!("{hosts}?target_session_attrs=read-only")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_used_up_says_so() {
    let mut settings = config(server_url());
    settings.pool_max = 2;
    settings.acquire_timeout = Duration::from_millis(200);
    let engine = Postgres::open(Arc::new(settings)).await.expect("a connection");
    let (first, _second) = (engine.begin().await.expect("one"), engine.begin().await.expect("two"));
    let error = engine.begin().await.err().expect("no third");
    assert!(matches!(error, Error::PoolTimeout { size: 2, in_use: 2, .. }), "{error:?}");
    assert_eq!((engine.gauges().open, engine.gauges().in_use), (2, 2));
    first.rollback().await.expect("a rollback");
    engine.begin().await.expect("a free one");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_writes_and_appends_survive_the_end_of_their_connections() {
    let (engine, url) = new_database_with_messages().await;
    let session = new_session(&engine).await;
    static READ: Sql = Sql::both("SELECT count(*) FROM messages WHERE tenant_id = $1").short();
    for round in 1..=3 {
        engine.append(&APPEND, TENANT, message(session, "user", "x")).await.expect("an append");
        assert_eq!(engine.fetch_all::<(i64,)>(&READ, &[TENANT.into()]).await.expect("a read"), [(round,)]);
        run(&engine, "UPDATE session_heads SET last_message_at = NULL").await;
        engine.begin().await.expect("a transaction").commit().await.expect("a commit");
        end_connections(&url).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_loses_its_connection_half_way_is_repeated_and_a_transaction_is_not() {
    let (engine, url) = new_database().await;
    let slow = tokio::spawn({
        let engine = engine.clone();
        async move { values(&engine, "SELECT 1 FROM pg_sleep(0.5)", &[]).await }
    });
    let tx = engine.begin().await.expect("a transaction");
    tokio::time::sleep(Duration::from_millis(200)).await;
    end_connections(&url).await;
    assert_eq!(slow.await.expect("a task").expect("a repeated read"), [Value::I64(1)]);
    let error = tx.execute(&Sql::both("SELECT 1"), &[]).await.expect_err("the transaction is gone");
    assert!(!matches!(error, Error::Timeout { .. }), "{error}");
    tx.commit().await.expect_err("nothing to commit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_stopped_at_its_time_limit_with_and_without_the_servers_help() {
    for parameters in ["", "pgbouncer=true"] {
        let mut settings = config(with_database(&server_url(), "postgres", parameters));
        settings.statement_timeout = Duration::from_millis(300);
        let engine = Postgres::open(Arc::new(settings)).await.expect("a connection");
        let started = Instant::now();
        let error = values(&engine, "SELECT 1 FROM pg_sleep(30)", &[]).await.expect_err("too long");
        assert!(matches!(error, Error::Timeout { .. }) && started.elapsed() < Duration::from_secs(3), "{error}");
        assert_eq!(values(&engine, "SELECT 1", &[]).await.expect("the next one"), [Value::I64(1)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_is_rolled_back_and_a_commit_is_not_cancelled() {
    let (engine, _database) = new_database().await;
    run(&engine, "CREATE TABLE t(id int8 PRIMARY KEY)").await;
    run(
        &engine,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END'",
    )
    .await;
    run(
        &engine,
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    .await;
    static INSERT: Sql = Sql::both("INSERT INTO t VALUES ($1)");
    let tx = engine.begin().await.expect("a transaction");
    tx.execute(&INSERT, &[Value::I64(1)]).await.expect("a row");
    tokio::time::timeout(Duration::from_millis(50), tx.commit()).await.expect_err("the caller went away");
    let tx = engine.begin().await.expect("a transaction");
    tx.execute(&INSERT, &[Value::I64(2)]).await.expect("a row");
    static SLEEP: Sql = Sql::both("SELECT pg_sleep(30)");
    let abandoned = tx.execute(&SLEEP, &[]);
    tokio::time::timeout(Duration::from_millis(50), abandoned).await.expect_err("the caller went away");
    drop(tx);
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(values(&engine, "SELECT id FROM t", &[]).await.expect("rows"), [Value::I64(1)]);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    assert_eq!(values(&engine, open, &[]).await.expect("a count"), [Value::I64(0)]);
    assert_eq!(engine.gauges().in_use, 0);
}

/// A session that has two messages, each appended alone: the next lone append is driven by its caller.
async fn session_of_a_lone_writer(engine: &Postgres) -> Uuid {
    let session = new_session(engine).await;
    for number in 1..=2 {
        let appended = engine.append(&APPEND, TENANT, message(session, "user", "x")).await;
        assert_eq!(appended.expect("appended"), Some(number));
        // An answer comes before the lane rests.
        while !engine.0.appends.is_idle() {
            tokio::task::yield_now().await;
        }
    }
    session
}

/// A transaction that holds all sessions: appends wait for its end.
async fn locked(engine: &Postgres) -> PostgresTx {
    let tx = engine.begin().await.expect("a transaction");
    tx.execute(&Sql::both("SELECT 1 FROM session_heads FOR UPDATE"), &[]).await.expect("a lock");
    tx
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_written_though_its_caller_goes_away() {
    let (engine, url) = new_database_with_messages().await;
    let session = session_of_a_lone_writer(&engine).await;
    let tx = locked(&engine).await;
    let mut append = Box::pin(engine.append(&APPEND, TENANT, message(session, "user", "x")));
    tokio::time::timeout(Duration::from_millis(100), &mut append).await.expect_err("it waits for the lock");
    // It waits behind the one that goes away.
    let next = tokio::spawn({
        let engine = engine.clone();
        async move { engine.append(&APPEND, TENANT, message(session, "user", "y")).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(append);
    tx.rollback().await.expect("a rollback");
    assert_eq!(next.await.expect("a task").expect("appended"), Some(4));
    engine.close().await;
    let count = values(&open(&url).await, "SELECT count(*) FROM messages", &[]).await;
    assert_eq!(count.expect("a count"), [Value::I64(4)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_append_is_written_though_its_caller_goes_away() {
    let (engine, _database) = new_database_with_messages().await;
    let session = session_of_a_lone_writer(&engine).await;
    let tx = locked(&engine).await;
    let mut append = Box::pin(engine.append(&APPEND, TENANT, message(session, "user", "x")));
    assert!(futures_util::poll!(&mut append).is_pending(), "it is under way");
    assert!(engine.0.appends.has_driver(), "its caller drives it");
    tx.rollback().await.expect("a rollback");
    drop(append);
    let next = engine.append(&APPEND, TENANT, message(session, "user", "y"));
    assert_eq!(next.await.expect("appended"), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_kept_and_not_polled_holds_up_no_other() {
    let (engine, _database) = new_database_with_messages().await;
    let session = session_of_a_lone_writer(&engine).await;
    let tx = locked(&engine).await;
    let mut kept = Box::pin(engine.append(&APPEND, TENANT, message(session, "user", "x")));
    assert!(futures_util::poll!(&mut kept).is_pending(), "it is under way");
    assert!(engine.0.appends.has_driver(), "its caller drives it");
    tx.rollback().await.expect("a rollback");
    let next = engine.append(&APPEND, TENANT, message(session, "user", "y"));
    let next = tokio::time::timeout(Duration::from_secs(10), next).await.expect("nobody waits for who is not polled");
    assert_eq!(next.expect("appended"), Some(4));
    assert!(!engine.0.appends.has_driver(), "a task does");
    assert_eq!(kept.await.expect("appended"), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_is_kept_and_not_polled_is_written_before_the_end() {
    let (engine, _database) = new_database_with_messages().await;
    let session = session_of_a_lone_writer(&engine).await;
    let tx = locked(&engine).await;
    let mut kept = Box::pin(engine.append(&APPEND, TENANT, message(session, "user", "x")));
    assert!(futures_util::poll!(&mut kept).is_pending(), "it is under way");
    assert!(engine.0.appends.has_driver(), "its caller drives it");
    tx.rollback().await.expect("a rollback");
    tokio::time::timeout(Duration::from_secs(10), engine.close()).await.expect("closing does not wait for callers");
    assert_eq!(kept.await.expect("appended"), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn lone_writers_that_meet_now_and_then_are_all_answered() {
    let (engine, _database) = new_database_with_messages().await;
    let session = session_of_a_lone_writer(&engine).await;
    let writers = (0..3_u64).map(|writer| {
        let engine = engine.clone();
        tokio::spawn(async move {
            for turn in 0..200 {
                engine
                    .append(&APPEND, TENANT, message(session, "user", "x"))
                    .await
                    .expect("appended")
                    .expect("a number");
                tokio::time::sleep(Duration::from_micros(turn * writer * 7 % 900)).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_secs(60), writer).await.expect("an end").expect("a writer");
    }
    let counted = values(&engine, "SELECT count(*), max(seq) FROM messages", &[]).await.expect("counted");
    assert_eq!(counted, [Value::I64(602), Value::I64(602)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_repeated() {
    let (engine, _database) = new_database_with_messages().await;
    let (one, two) = (new_session(&engine).await, new_session(&engine).await);
    let tx = engine.begin().await.expect("a transaction");
    static LOCK: Sql = Sql::both("SELECT 1 FROM session_heads WHERE session_id = $1 FOR UPDATE");
    let (first, second) = if one < two { (one, two) } else { (two, one) };
    tx.execute(&LOCK, &[Value::Uuid(second)]).await.expect("a lock");
    let rows = [first, second].map(|session| message(session, "user", "x")).to_vec();
    let appends = tokio::spawn({
        let engine = engine.clone();
        async move { engine.append_many(&APPEND, TENANT, rows).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Whichever side the server picks as the victim: the append is repeated, the transaction is told.
    let _ = tx.execute(&LOCK, &[Value::Uuid(first)]).await;
    tx.rollback().await.expect("a rollback");
    assert_eq!(appends.await.expect("a task").expect("both rows"), [Some(1), Some(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_not_in_what_the_driver_would_log() {
    let secret = format!("hunter2-{}", Uuid::new_v4());
    let params = [Value::from(secret.as_str()), Value::Bytes(secret.clone().into_bytes())];
    assert!(!format!("{params:?}").contains("hunter2"));
    let rows = [params.as_slice()];
    let array = super::super::encode::ColumnArray { rows: &rows, column: 0 };
    assert_eq!(format!("{array:?}"), "array[1]");
}
