//! Values there and back, transactions, appends.

use agentkeep_core::{Error, Json};
use uuid::Uuid;

use super::{super::link::FIRST_PLANS, support::*};
use crate::engine::{Sql, Value};

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_as_it_went_in() {
    let (engine, _database) = new_database().await;
    let id = Uuid::now_v7();
    let time = "2025-03-01T12:00:00.000001Z".parse().expect("a time");
    let nul = "a\0b\u{10}c\u{10}0é";
    let json = r#"{"n":1.10,"s":"a\u0000b\u0010c"}"#;
    let cases = [
        ("bool", Value::Bool(true)),
        ("int2", Value::I64(-5)),
        ("int4", Value::I64(7)),
        ("int8", Value::I64(i64::MIN)),
        ("float8", Value::F64(0.1)),
        ("float4", Value::F64(0.5)),
        ("text", Value::from(nul)),
        ("varchar(20)", Value::from(nul)),
        ("bytea", Value::Bytes(vec![0, 1, 255])),
        ("uuid", Value::Uuid(id)),
        ("timestamptz", Value::Time(time)),
        ("timestamp", Value::Time(time)),
    ];
    for (ty, value) in cases {
        let back = values(&engine, &format!("SELECT $1::{ty}"), std::slice::from_ref(&value)).await.expect(ty);
        assert!(back == [value], "{ty} came back changed");
        let null = values(&engine, &format!("SELECT $1::{ty}"), &[Value::Null]).await.expect(ty);
        assert!(null == [Value::Null], "NULL of {ty} came back changed");
    }
    let back = values(&engine, "SELECT $1::jsonb, $2::json", &vec![Value::Json(Json::from_stored(json)); 2]).await;
    assert!(back.expect("json") == [Value::Json(Json::from_stored(json)), Value::from(json)], "JSON came back changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn text_stands_for_types_that_have_no_value_of_their_own() {
    let (engine, _database) = new_database().await;
    let params = [Value::from("2025-03-01"), Value::from("12345678901234567890.10"), Value::I64(3)];
    let back = values(&engine, "SELECT ($1::date)::text, $2::numeric, $3::numeric * 2", &params).await.expect("row");
    assert_eq!(back, [Value::from("2025-03-01"), Value::from("12345678901234567890.10"), Value::from("6")]);
    let error = values(&engine, "SELECT $1::int4", &[Value::I64(1 << 40)]).await.expect_err("too large");
    assert!(matches!(&error, Error::Invalid { field, .. } if field == "parameter $1"), "{error}");
    let error = values(&engine, "SELECT current_date", &[]).await.expect_err("a date");
    assert!(error.to_string().contains("CAST"), "{error}");
    let error = values(&engine, "SELECT 'infinity'::timestamptz", &[]).await.expect_err("infinity");
    assert!(error.to_string().contains("infinity"), "{error}");
    let error = values(&engine, "SELECT $1::int4", &[]).await.expect_err("a parameter too few");
    assert!(error.to_string().contains("takes 1, 0 were given"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_kept_by_commit_alone() {
    let (engine, _database) = new_database().await;
    run(&engine, "CREATE TABLE t(id int8 PRIMARY KEY)").await;
    static INSERT: Sql = Sql::both("INSERT INTO t VALUES ($1)");
    for (id, keep) in [(1, true), (2, false)] {
        let tx = engine.begin().await.expect("a transaction");
        assert_eq!(tx.execute(&INSERT, &[Value::I64(id)]).await.expect("a row"), 1);
        if keep { tx.commit().await.expect("a commit") } else { drop(tx) }
    }
    let tx = engine.begin().await.expect("a transaction");
    tx.execute(&INSERT, &[Value::I64(3)]).await.expect("a row");
    tx.execute(&INSERT, &[Value::I64(3)]).await.expect_err("a duplicate");
    let error = tx.commit().await.expect_err("a failed transaction");
    assert!(matches!(&error, Error::Database { code: Some(code), .. } if code == "25P02"), "{error}");
    assert_eq!(values(&engine, "SELECT id FROM t", &[]).await.expect("rows"), [Value::I64(1)]);
    let rows = (10..3000).map(|id| vec![Value::I64(id)]).collect();
    assert_eq!(engine.execute_batch(&INSERT, rows).await.expect("a batch"), 2990);
    let rows = (4000..4100).chain([10]).map(|id| vec![Value::I64(id)]).collect();
    let error = engine.execute_batch(&INSERT, rows).await.expect_err("a duplicate");
    assert!(matches!(&error, Error::Database { code: Some(code), .. } if code == "23505"), "{error}");
    assert_eq!(values(&engine, "SELECT count(*) FROM t", &[]).await.expect("rows"), [Value::I64(2991)]);
    assert_eq!(engine.gauges().in_use, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_get_gapless_numbers_under_contention() {
    let (engine, _database) = new_database_with_messages().await;
    let sessions = [new_session(&engine).await, new_session(&engine).await, new_session(&engine).await];
    let writers = (0..64).map(|writer| {
        let engine = engine.clone();
        tokio::spawn(async move {
            for turn in 0..20 {
                let session = sessions[(writer + turn) % 3];
                engine
                    .append(&APPEND, TENANT, message(session, "user", "hi"))
                    .await
                    .expect("an append")
                    .expect("a number");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer");
    }
    let many = sessions.iter().cycle().take(2500).map(|session| message(*session, "user", "many")).collect();
    let numbers = engine.append_many(&APPEND, TENANT, many).await.expect("many");
    assert_eq!(numbers.len(), 2500);
    assert!(numbers[3] == numbers[0].map(|number| number + 1), "rows of one parent are numbered in order");
    let gaps = values(
        &engine,
        "SELECT count(*) FROM (SELECT seq - row_number() OVER (PARTITION BY session_id ORDER BY seq) AS gap FROM messages) g \
         WHERE gap <> 0",
        &[],
    );
    assert_eq!(gaps.await.expect("gaps"), [Value::I64(0)]);
    let total = values(
        &engine,
        "SELECT count(*), sum(message_count) FROM (SELECT 1) a, session_heads JOIN messages USING (session_id) WHERE seq = 1",
        &[],
    );
    assert_eq!(total.await.expect("total"), [Value::I64(3), Value::from("3780")]);
    assert_eq!(engine.append(&APPEND, TENANT, message(Uuid::now_v7(), "user", "lost")).await.expect("no error"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_loses_its_bad_row_alone() {
    let (engine, _database) = new_database_with_messages().await;
    let session = new_session(&engine).await;
    let appends = (0..50).map(|index| {
        let engine = engine.clone();
        let role = if index == 20 { "bad" } else { "user" };
        async move { engine.append(&APPEND, TENANT, message(session, role, "x")).await }
    });
    let outcomes = futures_util::future::join_all(appends).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Ok(Some(_)) => assert_ne!(index, 20),
            Err(Error::Database { code: Some(code), .. }) => assert_eq!((index, code.as_str()), (20, "23514")),
            other => panic!("row {index}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_has_grown_is_planned_for_anew() {
    let (engine, _database) = new_database().await;
    run(&engine, "CREATE TABLE t(tenant_id int4, id int8, n int4, PRIMARY KEY (tenant_id, id))").await;
    let lane = engine.0.batches.acquire().await;
    let link = lane.link().await.expect("a connection");
    link.command(
        "PREPARE renumber(int4, int8[]) AS UPDATE t SET n = 1 FROM unnest($2) AS i(id) \
         WHERE t.tenant_id = $1 AND t.id = i.id",
    )
    .await
    .expect("a statement");
    let plan = || async {
        let text = "EXPLAIN EXECUTE renumber(1, '{1,2,3}')";
        let ready = link.ready(text, 0).await.expect(text);
        let mut lines: Vec<(String,)> = Vec::new();
        link.rows(text, &ready, &[] as &[Value], &mut lines).await.expect(text);
        lines
    };
    let of_nothing = plan().await;
    run(&engine, "INSERT INTO t SELECT 1, i, 0 FROM generate_series(1, 50000) AS i").await;
    assert_eq!(plan().await, of_nothing, "control: by itself the server keeps its plan");
    tokio::time::sleep(FIRST_PLANS).await;
    link.refresh_plans().await.expect("new plans");
    let of_many = plan().await;
    assert_ne!(of_many, of_nothing, "the server was told to look again");
}
