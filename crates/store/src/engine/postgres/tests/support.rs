//! What the tests share: a database for each, and the tables that appends need.

use std::{env, sync::Arc};

use agentkeep_core::{Result, TenantId, Timestamp};
use uuid::Uuid;

use crate::engine::{AppendSql, Config, Sql, Value, postgres::Postgres};

pub(super) const TENANT: TenantId = TenantId::DEFAULT;

/// The address of the server that tests run on.
pub(super) fn server_url() -> String {
    match env::var("DATABASE_URL") {
        Ok(url) if url.starts_with("postgres") => url,
        _ => panic!(
            "the tests of the PostgreSQL engine need a server: set DATABASE_URL=postgres://… or run them \
             through `cargo xtask test`, which brings its own"
        ),
    }
}

/// The address with another database, and parameters behind it.
pub(super) fn with_database(url: &str, name: &str, parameters: &str) -> String {
    let base = url.split('?').next().unwrap_or(url);
    let end = base.rfind('/').expect("a database in DATABASE_URL");
    let separator = if parameters.is_empty() { "" } else { "?" };
    format!("{}/{name}{separator}{parameters}", &base[..end])
}

/// Settings of a test: few connections, errors soon.
pub(super) fn config(url: impl Into<String>) -> Config {
    let mut config = Config::new(url);
    config.pool_min = 0;
    config.pool_max = 8;
    config
}

pub(super) async fn open(url: &str) -> Postgres {
    Postgres::open(Arc::new(config(url))).await.expect("a connection")
}

/// The address of a database of the test's own, which goes when the test ends, however it ends.
pub(super) struct Scratch(String);

impl std::ops::Deref for Scratch {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let name = self.0.rsplit('/').next().unwrap_or_default().to_owned();
        // The test's own runtime may be ending.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let server = open(&server_url()).await;
                run(&server, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
            });
        });
        let _ = dropping.join();
    }
}

/// An empty database of the test's own.
pub(super) async fn new_database() -> (Postgres, Scratch) {
    let name = format!("engine_{}", Uuid::new_v4().simple());
    let server = open(&server_url()).await;
    run(&server, &format!("CREATE DATABASE {name}")).await;
    let url = with_database(&server_url(), &name, "");
    (open(&url).await, Scratch(url))
}

pub(super) async fn run(engine: &Postgres, text: &str) {
    engine.execute(&Sql::assembled(text), &[]).await.expect(text);
}

pub(super) async fn values(engine: &Postgres, text: &str, params: &[Value]) -> Result<Vec<Value>> {
    let rows = engine.fetch_all::<crate::engine::Row>(&Sql::assembled(text), params).await?;
    Ok(rows.into_iter().flat_map(crate::engine::Row::into_values).collect())
}

/// A database with the tables of [`APPEND`].
pub(super) async fn new_database_with_messages() -> (Postgres, Scratch) {
    let (engine, url) = new_database().await;
    run(
        &engine,
        "CREATE TABLE session_heads(tenant_id int4, session_id uuid, last_seq int8 NOT NULL DEFAULT 0, \
         message_count int8 NOT NULL DEFAULT 0, last_message_at timestamptz, PRIMARY KEY (tenant_id, session_id)) \
         WITH (fillfactor = 50)",
    )
    .await;
    run(
        &engine,
        "CREATE TABLE messages(tenant_id int4, session_id uuid, seq int8, id uuid, role text CHECK (role <> 'bad'), \
         content text, metadata jsonb, created_at timestamptz, PRIMARY KEY (tenant_id, session_id, seq), \
         UNIQUE (tenant_id, id), FOREIGN KEY (tenant_id, session_id) REFERENCES session_heads ON DELETE CASCADE)",
    )
    .await;
    (engine, url)
}

pub(super) async fn new_session(engine: &Postgres) -> Uuid {
    let id = Uuid::now_v7();
    engine
        .execute(
            &Sql::both("INSERT INTO session_heads(tenant_id, session_id) VALUES ($1, $2)"),
            &[TENANT.into(), Value::Uuid(id)],
        )
        .await
        .expect("a session");
    id
}

/// Columns of a row: session, time, id, role, content, metadata.
pub(super) static APPEND: AppendSql = AppendSql {
    postgres: Sql::both(
        "WITH parents AS (
            UPDATE session_heads AS s
            SET last_seq = s.last_seq + p.n, message_count = s.message_count + p.n,
                last_message_at = greatest(s.last_message_at, p.at)
            FROM unnest($2::uuid[], $3::int8[], $4::timestamptz[]) AS p(id, n, at)
            WHERE s.tenant_id = $1 AND s.session_id = p.id
            RETURNING s.session_id, s.last_seq - p.n AS base
        ), written AS (
            INSERT INTO messages(tenant_id, session_id, seq, created_at, id, role, content, metadata)
            SELECT $1, r.session_id, parents.base + r.place, r.at, r.id, r.role, r.content, r.metadata
            FROM unnest($5::int8[], $6::uuid[], $7::timestamptz[], $8::uuid[], $9::text[], $10::text[], $11::jsonb[])
                AS r(place, session_id, at, id, role, content, metadata)
            JOIN parents ON parents.session_id = r.session_id
        )
        SELECT session_id, base FROM parents",
    ),
    postgres_one: Sql::both(
        "WITH parent AS (
            UPDATE session_heads AS s
            SET last_seq = s.last_seq + 1, message_count = s.message_count + 1,
                last_message_at = greatest(s.last_message_at, $3::timestamptz)
            WHERE s.tenant_id = $1 AND s.session_id = $2
            RETURNING s.session_id, s.last_seq
        ), written AS (
            INSERT INTO messages(tenant_id, session_id, seq, created_at, id, role, content, metadata)
            SELECT $1, parent.session_id, parent.last_seq, $3::timestamptz, $4::uuid, $5::text, $6::text, $7::jsonb
            FROM parent
        )
        SELECT session_id, last_seq - 1 FROM parent",
    ),
    postgres_plain: Sql::both(
        "WITH parents AS (
            UPDATE session_heads AS s
            SET last_seq = s.last_seq + g.rows, message_count = s.message_count + g.rows,
                last_message_at = greatest(s.last_message_at, g.latest)
            FROM unnest($2::uuid[], $3::int8[], $4::timestamptz[]) AS g(session_id, rows, latest)
            WHERE s.tenant_id = $1 AND s.session_id = g.session_id
            RETURNING s.session_id, s.last_seq - g.rows AS base
        ), written AS (
            INSERT INTO messages(tenant_id, session_id, seq, created_at, id, role, content)
            SELECT $1, r.session_id, parents.base + r.place, r.at, r.id, r.role, r.content
            FROM unnest($5::int8[], $6::uuid[], $7::timestamptz[], $8::uuid[], $9::text[], $10::text[])
                AS r(place, session_id, at, id, role, content)
            JOIN parents ON parents.session_id = r.session_id
        )
        SELECT session_id, base FROM parents",
    ),
    postgres_one_plain: Sql::both(
        "WITH parent AS (
            UPDATE session_heads AS s
            SET last_seq = s.last_seq + 1, message_count = s.message_count + 1,
                last_message_at = greatest(s.last_message_at, $3::timestamptz)
            WHERE s.tenant_id = $1 AND s.session_id = $2
            RETURNING s.session_id, s.last_seq
        ), written AS (
            INSERT INTO messages(tenant_id, session_id, seq, created_at, id, role, content)
            SELECT $1, parent.session_id, parent.last_seq, $3::timestamptz, $4::uuid, $5::text, $6::text
            FROM parent
        )
        SELECT session_id, last_seq - 1 FROM parent",
    ),
    plain_columns: 5,
    sqlite_insert: Sql::both(""),
    sqlite_count: Sql::both(""),
};

pub(super) fn message(session: Uuid, role: &str, content: &str) -> Vec<Value> {
    vec![
        Value::Uuid(session),
        Value::Time(Timestamp::from_micros(1_700_000_000_000_000).expect("a time")),
        Value::Uuid(Uuid::now_v7()),
        Value::from(role),
        Value::from(content),
        Value::Null,
    ]
}

/// Where the test server listens.
pub(super) async fn server_address() -> std::net::SocketAddr {
    let address = super::super::address::Address::parse(&server_url()).expect("DATABASE_URL");
    tokio::net::lookup_host(address.servers[0].name()).await.expect("a host").next().expect("an address")
}

/// Ends every connection of the database but the one that asks.
pub(super) async fn end_connections(url: &str) {
    let killer = open(url).await;
    run(
        &killer,
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await;
}
