//! Raw access: statements of the caller's.

use agentkeep_core::{Error, Json};

use super::{
    Home,
    support::{new_name, race},
};
use crate::{Store, Value};

/// A table of the case's own; the text is the same on both engines.
async fn table(store: &Store) -> String {
    let name = new_name("raw");
    store
        .execute(&format!("CREATE TABLE {name} (id bigint PRIMARY KEY, body text, amount double precision)"), &[])
        .await
        .expect("a table");
    name
}

async fn ids(store: &Store, table: &str) -> Vec<i64> {
    let rows = store.fetch_all(&format!("SELECT id FROM {table} ORDER BY id"), &[]).await.expect("read");
    rows.iter()
        .map(|row| match row.get("id") {
            Some(Value::I64(id)) => *id,
            other => panic!("{other:?} is no id"),
        })
        .collect()
}

fn row(id: i64, body: &str) -> Vec<Value> {
    vec![Value::I64(id), Value::from(body)]
}

fn code_of(error: &Error) -> Option<&str> {
    match error {
        Error::Database { code, .. } => code.as_deref(),
        _ => None,
    }
}

/// `execute`, `fetch_one`, `fetch_all`, `fetch_val`, on one text.
pub async fn statements_of_the_callers_run_with_the_same_text_on_every_engine(home: &Home) {
    let store = &home.store;
    let name = table(store).await;
    let insert = format!("INSERT INTO {name} (body, id) VALUES ($2, $1)");
    assert_eq!(store.execute(&insert, &row(1, "one")).await.expect("inserted"), 1);
    assert_eq!(store.execute(&insert, &row(2, "two")).await.expect("inserted"), 1);
    let rows = store.fetch_all(&format!("SELECT id, body FROM {name} ORDER BY id"), &[]).await.expect("read");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].names(), ["id", "body"]);
    assert_eq!(rows[0].values(), row(1, "one"));
    assert_eq!((rows[1].get("body"), rows[1].get("nobody")), (Some(&Value::from("two")), None));
    let by_id = format!("SELECT body FROM {name} WHERE id = $1");
    let found = store.fetch_one(&by_id, &[Value::I64(2)]).await.expect("read").map(crate::Row::into_values);
    assert_eq!(found, Some(vec![Value::from("two")]));
    assert_eq!(store.fetch_one(&by_id, &[Value::I64(3)]).await.expect("read"), None);
    assert_eq!(store.fetch_val(&by_id, &[Value::I64(1)]).await.expect("read"), Some(Value::from("one")));
    assert_eq!(store.fetch_val(&by_id, &[Value::I64(3)]).await.expect("read"), None);
    let changed = store.execute(&format!("UPDATE {name} SET body = $1"), &[Value::Null]).await;
    assert_eq!(changed.expect("changed"), 2);
    assert_eq!(store.fetch_val(&by_id, &[Value::I64(1)]).await.expect("read"), Some(Value::Null), "a row of NULL");
    let returned = format!("DELETE FROM {name} WHERE id > $1 RETURNING id");
    let returned = store.fetch_all(&returned, &[Value::I64(1)]).await.expect("deleted");
    assert_eq!(returned.iter().map(|row| row.values().to_vec()).collect::<Vec<_>>(), [vec![Value::I64(2)]]);
    assert_eq!(ids(store, &name).await, [1]);
    let none = store.execute(&format!("DELETE FROM {name} WHERE id = $1"), &[Value::I64(99)]).await;
    assert_eq!(none.expect("nothing to delete"), 0);
}

/// `$2` before `$1`, repeated, left out of quotes and comments, `$10` is not `$1` and a zero.
pub async fn parameters_are_bound_by_number_whatever_their_order(home: &Home) {
    let store = &home.store;
    let text = "SELECT CAST($2 AS text) AS second, CAST($1 AS bigint) + CAST($1 AS bigint) AS twice,
                       '$1' AS quoted, CAST($3 AS text) AS \"the $2\" /* $9 */ -- $8";
    let params = [Value::I64(21), Value::from("b"), Value::from("c")];
    let row = store.fetch_one(text, &params).await.expect("read").expect("a row");
    let expected = [Value::from("b"), Value::I64(42), Value::from("$1"), Value::from("c")];
    assert_eq!(row.values(), expected);
    let list: Vec<String> = (1..=12).rev().map(|n| format!("CAST(${n} AS bigint)")).collect();
    let params: Vec<Value> = (1..=12).map(Value::I64).collect();
    let row = store.fetch_one(&format!("SELECT {}", list.join(", ")), &params).await.expect("read").expect("a row");
    assert_eq!(row.into_values(), (1..=12).rev().map(Value::I64).collect::<Vec<_>>());
    for params in [&params[..11], &[params.as_slice(), &params[..1]].concat()] {
        let error = store.fetch_all(&format!("SELECT {}", list.join(", ")), params).await.expect_err("wrong number");
        assert!(matches!(error, Error::Database { .. } | Error::Invalid { .. }), "{error}");
    }
}

/// Values of every type.
pub async fn values_come_back_as_they_went_in(home: &Home) {
    let store = &home.store;
    let name = table(store).await;
    let hard = "NUL \0 DLE \u{10} \u{10}0 \u{10}1 🙂 ' \" \\ $1";
    let insert = format!("INSERT INTO {name} (id, body, amount) VALUES ($1, $2, $3)");
    for (id, body, amount) in [
        (i64::MAX, Value::from(hard), Value::F64(0.1)),
        (i64::MIN, Value::from(""), Value::F64(-1.5e300)),
        (0, Value::Null, Value::Null),
    ] {
        let row = [Value::I64(id), body, amount];
        store.execute(&insert, &row).await.expect("inserted");
        let read = format!("SELECT id, body, amount FROM {name} WHERE id = $1");
        let read = store.fetch_one(&read, &row[..1]).await.expect("read").expect("a row");
        assert_eq!(read.values(), row);
    }
    let found = store.fetch_val(&format!("SELECT id FROM {name} WHERE body = $1"), &[Value::from(hard)]).await;
    assert_eq!(found.expect("read"), Some(Value::I64(i64::MAX)), "text is compared as it is stored");
    let sql = "SELECT metadata FROM tenants WHERE id = $1";
    let metadata = store.fetch_val(sql, &[home.tenant.id().into()]).await.expect("read").expect("a row");
    match metadata {
        Value::Json(json) => assert_eq!(json, Json::from_stored("{}")),
        Value::Text(text) => assert_eq!(text, "{}"),
        other => panic!("{other:?}"),
    }
}

/// `execute_batch`.
pub async fn a_batch_is_done_whole_or_not_at_all(home: &Home) {
    let store = &home.store;
    let name = table(store).await;
    let insert = format!("INSERT INTO {name} (id, body) VALUES ($1, $2)");
    let batch = |from: i64, to: i64| (from..to).map(|id| row(id, "x")).collect::<Vec<_>>();
    assert_eq!(store.execute_batch(&insert, batch(0, 500)).await.expect("inserted"), 500);
    assert_eq!(store.execute_batch(&insert, Vec::new()).await.expect("nothing to do"), 0);
    let error = store.execute_batch(&insert, [batch(500, 700), batch(10, 11), batch(700, 710)].concat()).await;
    assert_eq!(code_of(&error.expect_err("a duplicate")), Some("23505"));
    assert_eq!(ids(store, &name).await.len(), 500, "nothing of the failing batch remains");
    let bad = vec![row(900, "fits"), vec![Value::I64(901)]];
    store.execute_batch(&insert, bad).await.expect_err("a row with too few parameters");
    assert_eq!(ids(store, &name).await.len(), 500);
    let update = format!("UPDATE {name} SET body = $2 WHERE id >= $1");
    let changed = store.execute_batch(&update, vec![row(490, "y"), row(1000, "z"), row(495, "w")]).await;
    assert_eq!(changed.expect("changed"), 15);
}

/// A batch that fails beside others in the same group of writes.
pub async fn failing_statements_in_a_crowd_fail_alone(home: &Home) {
    let name = table(&home.store).await;
    let outcomes = race(32, |racer| {
        let (store, name) = (home.store.clone(), name.clone());
        async move {
            let insert = format!("INSERT INTO {name} (id, body) VALUES ($1, $2)");
            let racer = i64::try_from(racer).expect("small");
            let (first, second) = (racer * 2, racer * 2 + 1);
            let second = if racer % 4 == 0 { first } else { second };
            store.execute_batch(&insert, vec![row(first, "a"), row(second, "b")]).await
        }
    })
    .await;
    for (racer, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), racer % 4 == 0, "{racer}: {outcome:?}");
    }
    let expected: Vec<i64> = (0..64).filter(|id| (id / 2) % 4 != 0).collect();
    assert_eq!(ids(&home.store, &name).await, expected);
}

/// Transactions.
pub async fn a_transaction_is_done_when_committed_and_undone_otherwise(home: &Home) {
    let store = &home.store;
    let name = table(store).await;
    let insert = format!("INSERT INTO {name} (id, body) VALUES ($1, $2)");
    let tx = store.begin().await.expect("begun");
    assert_eq!(tx.execute(&insert, &row(1, "committed")).await.expect("inserted"), 1);
    let seen = tx.fetch_all(&format!("SELECT id FROM {name}"), &[]).await.expect("read");
    assert_eq!(seen.len(), 1, "a transaction sees what it wrote");
    tx.commit().await.expect("committed");
    assert_eq!(ids(store, &name).await, [1]);

    let tx = store.begin().await.expect("begun");
    tx.execute(&insert, &row(2, "rolled back")).await.expect("inserted");
    tx.rollback().await.expect("rolled back");

    let tx = store.begin().await.expect("begun");
    tx.execute(&insert, &row(3, "dropped")).await.expect("inserted");
    let handle = tx.clone();
    drop(tx);
    handle.execute(&insert, &row(4, "by the other handle")).await.expect("still open");
    drop(handle);

    let tx = store.begin().await.expect("begun");
    tx.execute(&insert, &row(5, "fails later")).await.expect("inserted");
    let error = tx.execute(&insert, &row(1, "taken")).await.expect_err("a duplicate");
    assert_eq!(code_of(&error), Some("23505"));
    tx.rollback().await.expect("rolled back");
    assert_eq!(ids(store, &name).await, [1], "only what was committed");
    assert_eq!(store.execute(&insert, &row(6, "after")).await.expect("inserted"), 1, "the connection is clean");
}

/// A transaction that was ended does nothing any more.
pub async fn a_transaction_that_is_over_says_so(home: &Home) {
    let name = table(&home.store).await;
    let insert = format!("INSERT INTO {name} (id, body) VALUES ($1, $2)");
    let tx = home.store.begin().await.expect("begun");
    let late = tx.clone();
    tx.execute(&insert, &row(1, "in time")).await.expect("inserted");
    tx.commit().await.expect("committed");
    late.execute(&insert, &row(2, "late")).await.expect_err("the transaction is over");
    late.fetch_all("SELECT 1", &[]).await.expect_err("the transaction is over");
    late.commit().await.expect_err("the transaction is over");
    assert_eq!(ids(&home.store, &name).await, [1]);
}

/// Statements that would end a transaction of others.
pub async fn statements_of_transaction_control_are_refused(home: &Home) {
    let name = table(&home.store).await;
    let insert = format!("INSERT INTO {name} (id, body) VALUES ($1, $2)");
    for text in [
        "BEGIN",
        "begin immediate",
        "  Commit ",
        "ROLLBACK",
        "END",
        "START TRANSACTION",
        "SAVEPOINT a",
        "RELEASE a",
        "ABORT",
        "PREPARE TRANSACTION 'x'",
        "/* a remark */ COMMIT",
        "-- a remark\nROLLBACK",
        "/* /* */ COMMIT",
        "; COMMIT",
    ] {
        for outcome in [
            home.store.execute(text, &[]).await.map(|_| ()),
            home.store.fetch_all(text, &[]).await.map(|_| ()),
            home.store.execute_batch(text, vec![Vec::new()]).await.map(|_| ()),
        ] {
            let error = outcome.expect_err(text);
            assert!(matches!(error, Error::Invalid { ref field, .. } if field == "sql"), "{text}: {error}");
        }
        let tx = home.store.begin().await.expect("begun");
        tx.execute(&insert, &row(1, "not yet")).await.expect("inserted");
        let inside = tx.execute(text, &[]).await;
        drop(tx);
        assert_eq!(ids(&home.store, &name).await, [0_i64; 0], "{text} inside a transaction: {inside:?}");
    }
}

/// Two statements in one text.
pub async fn a_second_statement_in_one_text_is_refused(home: &Home) {
    let name = table(&home.store).await;
    for text in [
        format!("INSERT INTO {name} (id) VALUES (1); INSERT INTO {name} (id) VALUES (2)"),
        format!("INSERT INTO {name} (id) VALUES (1); DROP TABLE {name}"),
        "SELECT 1; SELECT 2".to_owned(),
        "SELECT 1; COMMIT".to_owned(),
    ] {
        home.store.execute(&text, &[]).await.expect_err(&text);
        home.store.fetch_all(&text, &[]).await.expect_err(&text);
        home.store.execute_batch(&text, vec![Vec::new()]).await.expect_err(&text);
        assert_eq!(ids(&home.store, &name).await, [0_i64; 0], "{text}");
    }
    let one = home.store.fetch_val("SELECT CAST(1 AS bigint); ", &[]).await.expect("a semicolon at the end is none");
    assert_eq!(one, Some(Value::I64(1)));
}

/// A fault of the database is never an empty list.
pub async fn a_fault_is_an_error_with_a_code_and_never_an_empty_list(home: &Home) {
    let name = table(&home.store).await;
    for (text, code) in [
        ("SELEC 1".to_owned(), "42601"),
        (format!("SELECT * FROM {name} WHERE"), "42601"),
        ("SELECT * FROM no_such_table".to_owned(), "42P01"),
        (format!("SELECT no_such_column FROM {name}"), "42703"),
        (format!("UPDATE {name} SET no_such_column = 1"), "42703"),
    ] {
        for outcome in [
            home.store.fetch_all(&text, &[]).await.map(|rows| rows.len() as u64),
            home.store.fetch_one(&text, &[]).await.map(|row| u64::from(row.is_some())),
            home.store.execute(&text, &[]).await,
        ] {
            let error = outcome.expect_err(&text);
            assert_eq!(code_of(&error), Some(code), "{text}: {error}");
        }
    }
}

/// Codes of violated rules are the same on both engines.
pub async fn violated_rules_have_the_same_code_on_every_engine(home: &Home) {
    let name = new_name("rules");
    let create = format!(
        "CREATE TABLE {name} (id bigint PRIMARY KEY, parent bigint REFERENCES {name} (id), n bigint CHECK (n > 0),
         must text NOT NULL)"
    );
    home.store.execute(&create, &[]).await.expect("a table");
    let insert = format!("INSERT INTO {name} (id, parent, n, must) VALUES ($1, $2, $3, $4)");
    let good = [Value::I64(1), Value::Null, Value::I64(1), Value::from("x")];
    home.store.execute(&insert, &good).await.expect("inserted");
    for (row, code) in [
        ([Value::I64(1), Value::Null, Value::I64(1), Value::from("x")], "23505"),
        ([Value::I64(2), Value::I64(9), Value::I64(1), Value::from("x")], "23503"),
        ([Value::I64(2), Value::Null, Value::I64(0), Value::from("x")], "23514"),
        ([Value::I64(2), Value::Null, Value::I64(1), Value::Null], "23502"),
    ] {
        let error = home.store.execute(&insert, &row).await.expect_err(code);
        assert_eq!(code_of(&error), Some(code), "{error}");
    }
    assert_eq!(ids(&home.store, &name).await, [1]);
}
