//! Limits: of time, of connections, of what can be opened; and that an append costs the same however long its
//! session is.

#[macro_use]
mod support;

use std::{
    env,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep::{
    Config, Store, TenantStore, Value,
    conformance::support::{race, said, seqs, session},
    core::{Error, Result, SessionId, TenantId},
};
use support::{Place, postgres_config};

on_each_engine! {
    an_append_costs_the_same_at_message_100_000_as_at_message_100,
}

/// How much longer `work` takes on the second session than on the first: medians, taken in turns.
async fn slowdown<Work: Future>(turns: usize, sessions: [SessionId; 2], work: impl Fn(SessionId) -> Work) -> f64 {
    let mut times = [Vec::new(), Vec::new()];
    for turn in 0..turns {
        // The first of a pair changes, so that neither always follows the other.
        let index = (turn + turn / 2) % 2;
        let started = Instant::now();
        work(sessions[index]).await;
        times[index].push(started.elapsed());
    }
    let [short, long] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    long.as_secs_f64() / short.as_secs_f64()
}

async fn fill(tenant: &TenantStore, count: usize) -> SessionId {
    let id = session(tenant).await.id;
    let text = "x".repeat(100);
    for start in (0..count).step_by(1_000) {
        let batch = vec![said(text.clone()); 1_000.min(count - start)];
        tenant.messages().append_many(id, batch).await.expect("appended");
    }
    id
}

async fn an_append_costs_the_same_at_message_100_000_as_at_message_100(place: &Place) {
    let tenant = place.tenant().await;
    let sessions = [fill(&tenant, 100).await, fill(&tenant, 100_000).await];
    let (tenant, store) = (&tenant, &place.store);
    let append = async |id| drop(tenant.messages().append(id, said("x".repeat(100))).await.expect("appended"));
    let mut ratio = f64::MAX;
    for _ in 0..3 {
        // Noise only adds: the best of three rounds counts.
        ratio = ratio.min(slowdown(400, sessions, append).await);
    }
    assert!(ratio <= 1.2, "an append to the long session takes {ratio:.2} times as long");

    // Control: an append that looks at the session's messages.
    let counting = async |id: SessionId| {
        let sql = "SELECT count(*) FROM messages WHERE tenant_id = $1 AND session_id = $2";
        store.fetch_val(sql, &[tenant.id().into(), id.into()]).await.expect("counted");
        append(id).await;
    };
    let ratio = slowdown(40, sessions, counting).await;
    assert!(ratio > 1.2, "the check notices an append that is not O(1): {ratio:.2}");
}

fn sqlite(path: &std::path::Path) -> Config {
    Config::new(format!("sqlite://{}", path.display()))
}

async fn refused(config: Config) -> String {
    match Store::open_with(config).await {
        Ok(_) => panic!("it opened"),
        Err(error @ Error::Unavailable { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notes.txt");
    for content in ["this is no database, it only has the name of one".repeat(100), "short".to_owned()] {
        std::fs::write(&path, &content).expect("written");
        let error = refused(sqlite(&path)).await;
        assert!(error.contains("notes.txt") && error.contains("no SQLite database"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), content);
    }
}

#[tokio::test]
async fn a_folder_or_a_file_in_a_folder_that_is_missing_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = refused(sqlite(folder.path())).await;
    assert!(error.contains(&folder.path().display().to_string()), "{error}");
    let error = refused(sqlite(&folder.path().join("missing").join("a.db"))).await;
    assert!(error.contains("missing") && error.contains("does not exist"), "{error}");
    assert!(!folder.path().join("missing").exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stores_on_one_file_both_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shared.db");
    let first = Store::open_with(sqlite(&path)).await.expect("opened");
    let second = Store::open_with(sqlite(&path)).await.expect("opened");
    let id = session(first.default_tenant()).await.id;
    let stores = [first.clone(), second.clone()];
    race(8, |writer| {
        let store = stores[writer % 2].clone();
        async move {
            for _ in 0..25 {
                store.messages().append(id, said("x")).await.expect("appended");
            }
        }
    })
    .await;
    assert_eq!(seqs(second.default_tenant(), id).await, (1..=200).collect::<Vec<_>>());
    // A transaction of the one makes the other wait, not fail.
    let tx = first.begin().await.expect("begun");
    let inside = first.tenant_in(&tx, TenantId::DEFAULT);
    inside.messages().append(id, said("in a transaction")).await.expect("appended");
    let waiting = {
        let second = second.clone();
        tokio::spawn(async move { second.messages().append(id, said("waits")).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    tx.commit().await.expect("committed");
    assert_eq!(waiting.await.expect("no panic").expect("appended").seq, 202);
    first.close().await;
    second.close().await;
}

const OTHER_PROCESS: &str = "AGENTKEEP_TEST_OTHER_PROCESS";

/// Not a test by itself: the second process of the one below. Without its variable it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_process() {
    let Ok(set) = env::var(OTHER_PROCESS) else { return };
    let (id, path) = set.split_once(' ').expect("a session and a path");
    let store = Store::open_with(sqlite(path.as_ref())).await.expect("opened");
    append_from_eight(&store, id.parse().expect("a session id")).await;
    store.close().await;
}

async fn append_from_eight(store: &Store, id: SessionId) {
    race(8, |_| {
        let store = store.clone();
        async move {
            for _ in 0..50 {
                store.messages().append(id, said("x")).await.expect("appended");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_on_one_file_both_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shared.db");
    let store = Store::open_with(sqlite(&path)).await.expect("opened");
    let id = session(store.default_tenant()).await.id;
    let mut other = Command::new(env::current_exe().expect("this program"))
        .args(["other_process", "--exact", "--test-threads=1"])
        .env(OTHER_PROCESS, format!("{id} {}", path.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    append_from_eight(&store, id).await;
    let ended = tokio::task::spawn_blocking(move || other.wait()).await.expect("no panic").expect("it ended");
    assert!(ended.success(), "the other process wrote everything");
    assert_eq!(seqs(store.default_tenant(), id).await, (1..=800).collect::<Vec<_>>());
    store.close().await;
}

/// A statement that would run for minutes: on SQLite it counts, on PostgreSQL it sleeps.
const COUNTS: &str = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 1000000000000)
                      SELECT count(*) FROM n";
const SLEEPS: &str = "SELECT pg_sleep(60)";

fn assert_timed_out<T>(outcome: Result<T>, started: Instant) {
    match outcome.map(|_| ()) {
        Err(Error::Timeout { what, after }) => {
            assert!(what.starts_with("a statement on "), "{what}");
            assert_eq!(after, Duration::from_millis(200));
        }
        other => panic!("{other:?}"),
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(5), "it took {took:?}");
}

async fn long_statements_are_stopped(mut config: Config, long: &str) {
    config.statement_timeout = Duration::from_millis(200);
    let store = Store::open_with(config).await.expect("opened");
    let started = Instant::now();
    assert_timed_out(store.fetch_all(long, &[]).await, started);
    let started = Instant::now();
    assert_timed_out(store.execute(long, &[]).await, started);
    let tx = store.begin().await.expect("begun");
    let started = Instant::now();
    assert_timed_out(tx.fetch_all(long, &[]).await, started);
    drop(tx);
    // Beside a statement that runs too long, and behind it, all goes on.
    let id = session(store.default_tenant()).await.id;
    let messages = store.messages();
    let (slow, beside) = tokio::join!(store.fetch_all(long, &[]), messages.append(id, said("beside")));
    assert!(matches!(slow, Err(Error::Timeout { .. })), "{slow:?}");
    assert_eq!(beside.expect("appended").seq, 1);
    assert_eq!(store.messages().append(id, said("behind")).await.expect("appended").seq, 2);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_runs_too_long_is_stopped_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    long_statements_are_stopped(sqlite(&folder.path().join("slow.db")), COUNTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_runs_too_long_is_stopped_in_memory() {
    long_statements_are_stopped(Config::new("sqlite::memory:"), COUNTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_runs_too_long_is_stopped_on_postgres() {
    let url = support::new_postgres_database("slow").await;
    long_statements_are_stopped(postgres_config(&url), SLEEPS).await;
}

async fn an_exhausted_pool_says_so(mut config: Config, size: usize) {
    config.pool_max = 2;
    config.acquire_timeout = Duration::from_millis(300);
    let store = Store::open_with(config).await.expect("opened");
    let mut held = Vec::new();
    for _ in 0..size {
        held.push(store.begin().await.expect("begun"));
    }
    let started = Instant::now();
    let outcomes = race(3, |_| {
        let store = store.clone();
        async move { store.begin().await.map(|_| ()) }
    })
    .await;
    for outcome in outcomes {
        match outcome {
            Err(ref error @ Error::PoolTimeout { size: told, in_use, waited, .. }) => {
                assert_eq!((told, in_use), (size, size));
                assert!(waited >= Duration::from_millis(250), "{waited:?}");
                assert!(error.to_string().contains(&format!("{size} of {size} are in use")), "{error}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    held.pop();
    let free = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            if let Ok(tx) = store.begin().await {
                return tx;
            }
        }
    });
    free.await.expect("a connection is free again").rollback().await.expect("rolled back");
    drop(held);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exhausted_pool_names_its_size_and_use_on_postgres() {
    let url = support::new_postgres_database("pool").await;
    an_exhausted_pool_says_so(postgres_config(&url), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_held_is_named_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    an_exhausted_pool_says_so(sqlite(&folder.path().join("pool.db")), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gauges_tell_what_is_in_use() {
    let url = support::new_postgres_database("gauges").await;
    let config = Config { pool_max: 3, ..postgres_config(&url) };
    let store = Store::open_with(config).await.expect("opened");
    let before = store.gauges();
    assert_eq!((before.size, before.in_use, before.waiting), (3, 0, 0));
    let held = [store.begin().await.expect("begun"), store.begin().await.expect("begun")];
    let gauges = store.gauges();
    assert_eq!((gauges.in_use, gauges.waiting), (2, 0), "{gauges:?}");
    assert!(gauges.open >= 2 && gauges.open == gauges.in_use + gauges.idle, "{gauges:?}");
    let third = store.begin().await.expect("begun");
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { store.begin().await.map(|_| ()) })
    };
    let seen = tokio::time::timeout(Duration::from_secs(5), async {
        while store.gauges().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    seen.await.expect("somebody waits");
    drop((held, third));
    waiting.await.expect("no panic").expect("a connection became free");
    store.close().await;
}

async fn away(url: &str, named: &str) {
    let started = Instant::now();
    match Store::open(url).await {
        Err(error @ Error::Unavailable { .. }) => {
            assert!(error.to_string().contains(named), "{error} does not name {named}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{url} opened"),
    }
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_postgres_that_is_away_is_named_within_five_seconds() {
    // Nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its number").port();
    away(&format!("postgres://me:secret@127.0.0.1:{free}/db"), &format!("127.0.0.1:{free}")).await;
    // Somebody listens and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("its number").port();
    away(&format!("postgres://me@127.0.0.1:{port}/db"), &format!("127.0.0.1:{port}")).await;
    // There is no such host.
    away("postgres://me@no-such-host.invalid:5432/db", "no-such-host.invalid:5432").await;
}

#[tokio::test]
async fn a_password_is_in_no_error() {
    let Err(error) = Store::open("postgres://me:s3cr3t@127.0.0.1:1/db").await else { panic!("it opened") };
    assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_says_so() {
    for place in [support::sqlite_memory().await, support::sqlite_file().await, support::postgres().await] {
        let store = place.store.clone();
        let id = session(store.default_tenant()).await.id;
        store.close().await;
        let late = Arc::new(store);
        for outcome in [
            late.messages().append(id, said("late")).await.map(|_| ()),
            late.messages().get_by_seq(id, 1).await.map(|_| ()),
            late.execute("SELECT 1", &[]).await.map(|_| ()),
            late.begin().await.map(|_| ()),
        ] {
            let error = outcome.expect_err("closed");
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        }
        place.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_writes_what_was_handed_over() {
    for (place, reopen) in [sqlite_twice().await, postgres_twice().await] {
        let id = session(place.store.default_tenant()).await.id;
        let appends: Vec<_> = (0..64)
            .map(|_| {
                let store = place.store.clone();
                tokio::spawn(async move { store.messages().append(id, said("x")).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(3)).await;
        place.store.close().await;
        let mut acknowledged = Vec::new();
        for append in appends {
            match append.await.expect("no panic") {
                Ok(message) => acknowledged.push(message.seq),
                Err(error) => assert!(matches!(error, Error::Unavailable { .. }), "{error:?}"),
            }
        }
        let again = Store::open_with(reopen).await.expect("opened");
        let stored = seqs(again.default_tenant(), id).await;
        assert!(acknowledged.iter().all(|seq| stored.contains(seq)), "{acknowledged:?} {stored:?}");
        let count = Value::I64(i64::try_from(stored.len()).expect("fits"));
        let sql = "SELECT message_count FROM session_heads WHERE tenant_id = 1 AND session_id = $1";
        assert_eq!(again.fetch_val(sql, &[id.into()]).await.expect("read"), Some(count));
        again.close().await;
        place.close().await;
    }
}

async fn sqlite_twice() -> (Place, Config) {
    let place = support::sqlite_file().await;
    let config = place.store.config().clone();
    (place, config)
}

async fn postgres_twice() -> (Place, Config) {
    let place = support::postgres().await;
    let config = place.store.config().clone();
    (place, config)
}
