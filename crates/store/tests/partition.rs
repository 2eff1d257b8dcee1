//! Schema rule 1 without Citus: the conformance suite on tables that are partitioned by tenant, where every plan
//! must touch one partition of each table.
//!
//! The schema is the one of the migrations with `PARTITION BY HASH (tenant_id)` behind every table that has a
//! tenant, and without the stamping triggers (schema rule 6). The statements are those that the store logs while
//! the suite runs, and those that are registered.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use agentkeep::Store;
use parking_lot::Mutex;
use serde_json::Value as Json;
use support::Place;
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, types::Type};

const PARTITIONS: usize = 4;

macro_rules! suite {
    ($($module:ident: $($case:ident),+;)+) => {
        $(mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let place = crate::partitioned().await;
                    let home = agentkeep::conformance::Home::new(place.store.clone()).await.expect("tenants");
                    agentkeep::conformance::$module::$case(&home).await;
                    place.close().await;
                    crate::check_logged_statements().await;
                }
            )+
        })+
    };
}

agentkeep::for_each_case!(suite);

/// A store on the partitioned database of this test program.
async fn partitioned() -> Place {
    static DATABASE: OnceCell<String> = OnceCell::const_new();
    listen();
    let url = DATABASE.get_or_init(make_database).await;
    let mut config = support::postgres_config(url);
    config.log_sql = true;
    Place::new(Store::open_with(config).await.expect("PostgreSQL opens"))
}

/// A database that the migrator takes for its own, with the tables made anew in parts.
async fn make_database() -> String {
    let url = support::new_postgres_database("partition").await;
    Store::open_with(support::postgres_config(&url)).await.expect("PostgreSQL opens").close().await;
    let client = connect(&url).await;
    let schema = schema();
    for table in tables_of(&schema) {
        client.batch_execute(&format!("DROP TABLE {table} CASCADE")).await.expect("dropped");
    }
    let functions = "SELECT 'DROP FUNCTION ' || oid::regprocedure || ' CASCADE' FROM pg_proc
                     WHERE proname LIKE 'agentkeep%'";
    for row in client.query(functions, &[]).await.expect("functions") {
        client.batch_execute(row.get(0)).await.expect("dropped");
    }
    client.batch_execute(&partition(&schema)).await.expect("the schema in parts");
    url
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL answers");
    tokio::spawn(connection);
    client
}

/// The text of all migrations.
fn schema() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/postgres");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("migrations").map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).expect("text")).collect()
}

fn tables_of(schema: &str) -> Vec<&str> {
    let names = schema.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
    names.filter_map(|rest| rest.split([' ', '(']).next()).collect()
}

/// Triggers that do what a foreign key would.
const KEPT_TRIGGERS: [&str; 6] = [
    " ledger_heads_delete ",
    " messages_need_head ",
    " messages_move ",
    " session_heads_delete ",
    " session_heads_move ",
    " session_heads_truncate ",
];

/// The schema with every table that has a tenant in four parts, and without triggers but those.
fn partition(schema: &str) -> String {
    let mut parts = String::new();
    let mut lines = schema.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("CREATE TRIGGER ") && !KEPT_TRIGGERS.iter().any(|name| line.contains(name)) {
            let mut end = line;
            while !end.trim_end().ends_with(';') {
                end = lines.next().expect("the end of the trigger");
            }
            continue;
        }
        let Some(table) = tables_of(line).first().copied() else {
            writeln!(parts, "{line}").expect("written");
            continue;
        };
        let mut body = format!("{line}\n");
        let end = loop {
            let line = lines.next().expect("the end of the table");
            if line.starts_with(')') {
                break line;
            }
            writeln!(body, "{line}").expect("written");
        };
        if !body.contains("tenant_id") || table == "tenants" {
            writeln!(parts, "{body}{end}").expect("written");
            continue;
        }
        // What the table says about its storage is for its parts to say; here it does not matter.
        writeln!(parts, "{body}) PARTITION BY HASH (tenant_id);").expect("written");
        for part in 0..PARTITIONS {
            writeln!(
                parts,
                "CREATE TABLE {table}_part{part} PARTITION OF {table}
                 FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {part});"
            )
            .expect("written");
        }
    }
    parts
}

/// Collects the statements that the store logs, without those that failed.
struct Listener(AtomicU64);

static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static CHECKED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn listen() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| tracing::subscriber::set_global_default(Listener(AtomicU64::new(1))).expect("the only one"));
}

#[derive(Default)]
struct Event {
    statement: Option<String>,
    failed: bool,
}

impl tracing::field::Visit for Event {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "statement" => self.statement = Some(format!("{value:?}")),
            "code" => self.failed = true,
            _ => {}
        }
    }
}

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "agentkeep::sql"
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut seen = Event::default();
        event.record(&mut seen);
        if let (Some(statement), false) = (seen.statement, seen.failed) {
            LOGGED.lock().insert(statement);
        }
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Checks what was logged since the last look.
async fn check_logged_statements() {
    let new: Vec<String> = {
        let mut checked = CHECKED.lock();
        LOGGED.lock().iter().filter(|statement| checked.insert((*statement).clone())).cloned().collect()
    };
    if new.is_empty() {
        return;
    }
    let place = partitioned().await;
    let client = connect(&place.store.config().url).await;
    // Registered statements are checked with their literals, which decide what a plan leaves out.
    let registered: BTreeSet<String> =
        agentkeep::conformance::statements::texts(&place.store).iter().map(|text| as_logged(text)).collect();
    let new = new.iter().filter(|statement| is_planned(statement) && !registered.contains(*statement));
    for statement in new {
        // The log has no literals; NULL takes any type in their places.
        let statement = statement.replace("'…''…'", "'…'").replace("'…'", "NULL");
        assert_one_partition(&client, &statement).await;
    }
    place.close().await;
}

/// A statement as the log has it: on one line, without literals.
fn as_logged(text: &str) -> String {
    let parts = text.split('\'').enumerate();
    let masked: Vec<&str> = parts.map(|(index, part)| if index % 2 == 1 { "…" } else { part }).collect();
    let mut line = String::with_capacity(text.len());
    for character in masked.join("'").chars() {
        match character {
            space if space.is_whitespace() && line.ends_with(' ') => {}
            space if space.is_whitespace() => line.push(' '),
            other => line.push(other),
        }
    }
    line
}

/// Whether a statement has a plan, on tables of ours: cases also run statements on tables of their own.
fn is_planned(statement: &str) -> bool {
    static TABLES: LazyLock<BTreeSet<String>> =
        LazyLock::new(|| tables_of(&schema()).into_iter().map(str::to_owned).collect());
    let mut words = statement.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let first = words.next().unwrap_or_default().to_ascii_uppercase();
    ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first.as_str())
        && words.any(|word| TABLES.contains(word))
}

/// The partitions of each table that the plan of a statement touches.
async fn partitions(client: &Client, statement: &str) -> BTreeMap<String, BTreeSet<String>> {
    let prepared = client.prepare(statement).await.unwrap_or_else(|error| panic!("{error:?}: {statement}"));
    let values: Vec<String> = prepared.params().iter().map(|ty| sample(ty, statement)).collect();
    let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    let types: Vec<String> = prepared.params().iter().map(|ty| ty.name().to_owned()).collect();
    let types = if types.is_empty() { String::new() } else { format!("({})", types.join(", ")) };
    let text = format!(
        "SET plan_cache_mode = force_custom_plan; DEALLOCATE ALL; PREPARE p {types} AS {statement};
         EXPLAIN (FORMAT JSON) EXECUTE p {values}"
    );
    let messages = client.simple_query(&text).await.unwrap_or_else(|error| panic!("{error:?}: {text}"));
    let plan = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: Json = serde_json::from_str(plan.expect("a plan")).expect("JSON");
    let mut touched = BTreeMap::new();
    collect(&plan, &mut touched);
    touched
}

fn collect(plan: &Json, touched: &mut BTreeMap<String, BTreeSet<String>>) {
    match plan {
        Json::Array(parts) => parts.iter().for_each(|part| collect(part, touched)),
        Json::Object(fields) => {
            if let Some(Json::String(relation)) = fields.get("Relation Name")
                && let Some((table, part)) = relation.rsplit_once("_part")
            {
                touched.entry(table.to_owned()).or_default().insert(part.to_owned());
            }
            fields.values().for_each(|part| collect(part, touched));
        }
        _ => {}
    }
}

/// A value of that type for a parameter of the statement, as a literal.
fn sample(ty: &Type, statement: &str) -> String {
    let text = match ty.name() {
        // A text may be a list of ids, most of which are UUIDs.
        "text" if statement.contains("AS int8[]") => "1",
        "bool" => "true",
        "int2" | "int4" | "int8" | "float4" | "float8" | "numeric" => "1",
        "uuid" | "text" => "01890a5d-ac96-774b-bcce-b302099a8057",
        "timestamptz" => "2025-01-01T00:00:00Z",
        "jsonb" | "json" => "{}",
        "_bool" => "{true}",
        "_int4" | "_int8" | "_float8" => "{1}",
        "_uuid" => "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "_timestamptz" => "{2025-01-01T00:00:00Z}",
        "_jsonb" => r#"{"{}"}"#,
        "_text" | "_bytea" => "{x}",
        _ => "x",
    };
    format!("'{text}'")
}

async fn assert_one_partition(client: &Client, statement: &str) {
    for (table, touched) in partitions(client, statement).await {
        assert_eq!(touched.len(), 1, "{statement} touches the partitions {touched:?} of {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_registered_statement_touches_one_partition() {
    let place = partitioned().await;
    let client = connect(&place.store.config().url).await;
    let statements = agentkeep::conformance::statements::texts(&place.store);
    assert!(statements.len() > 50, "they are registered: {}", statements.len());
    for statement in statements {
        assert_one_partition(&client, &statement).await;
    }
    place.close().await;
}

/// Control: the same look at statements that forget the tenant, of one table of two, or in a sub-select.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_without_its_tenant_touches_every_partition() {
    let place = partitioned().await;
    let client = connect(&place.store.config().url).await;
    for statement in [
        "SELECT id FROM sessions WHERE id = $1",
        "UPDATE sessions SET name = 'x' WHERE id = $1",
        "DELETE FROM sessions WHERE id = $1",
        "SELECT id FROM users WHERE tenant_id = $1 AND EXISTS (SELECT 1 FROM sessions s WHERE s.id = users.id)",
    ] {
        let touched = partitions(&client, statement).await;
        assert_eq!(touched["sessions"].len(), PARTITIONS, "{statement}: {touched:?}");
    }
    place.close().await;
}

/// The rows of a suite that ran lie in more than one partition: tenants were spread.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_spread_over_the_partitions() {
    let place = partitioned().await;
    for _ in 0..24 {
        let tenant = place.tenant().await;
        agentkeep::conformance::support::session(&tenant).await;
    }
    let client = connect(&place.store.config().url).await;
    let count = client.query_one("SELECT count(DISTINCT tableoid) FROM sessions", &[]).await.expect("counted");
    assert_eq!(count.get::<_, i64>(0), PARTITIONS as i64);
    place.close().await;
}
