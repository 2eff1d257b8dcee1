//! What holds when many write at once, on each engine; and for each protection a control: the same check on a
//! variant without it, which has to break.

#[macro_use]
mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use agentkeep::{
    Store, TenantStore, Value,
    conformance::support::{chat, delivered, messages, new_name, object, race, rows_of, said, seqs, session, user},
    core::{
        Direction, Error, FilterOperator, ListRequest, NewMessage, NewSession, NewUser, Result, SessionId,
        SessionPatch, UserPatch,
    },
};
use support::Place;

on_each_engine! {
    sixty_four_writers_of_one_session_get_1_to_10_000,
    a_number_read_outside_of_the_lock_is_given_twice,
    a_number_taken_apart_from_its_row_leaves_gaps,
    writers_of_many_sessions_keep_each_without_gap,
    racers_over_the_same_keys_make_one_row_for_each,
    select_then_insert_makes_doubles,
    a_session_deleted_under_its_writers_leaves_no_orphan,
    an_append_that_does_not_lock_its_session_leaves_orphans,
    one_bad_append_in_a_crowd_fails_alone,
    a_group_without_isolation_is_lost_whole,
    a_reader_that_follows_the_seq_never_sees_a_hole,
    deletes_of_messages_sessions_and_users_at_once_all_end,
    a_caller_that_goes_away_leaves_no_gap,
    a_patch_that_reads_and_writes_back_loses_updates,
    a_conditional_change_that_looks_before_the_lock_loses_changes,
    a_request_that_looks_before_it_claims_is_done_twice,
}

/// Whether numbers are 1, 2, 3 … without gap or repeat: what every test here is about.
fn is_gapless(numbers: &[i64]) -> bool {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.iter().copied().eq(1..=i64::try_from(numbers.len()).expect("fits"))
}

async fn counts(tenant: &TenantStore, id: SessionId) -> (i64, i64) {
    let session = tenant.sessions().get(id).await.expect("read").expect("the session is there");
    (session.message_count, session.last_seq)
}

async fn sixty_four_writers_of_one_session_get_1_to_10_000(place: &Place) {
    const APPENDS: usize = 10_000;
    let tenant = place.tenant().await;
    let id = session(&tenant).await.id;
    let taken = Arc::new(AtomicUsize::new(0));
    let given = race(64, |writer| {
        let (tenant, taken) = (tenant.clone(), Arc::clone(&taken));
        async move {
            let mut given = Vec::new();
            while taken.fetch_add(1, Ordering::Relaxed) < APPENDS {
                let message = tenant.messages().append(id, said(format!("writer {writer}"))).await.expect("appended");
                assert!(given.last().is_none_or(|last| *last < message.seq), "a writer's own come in order");
                given.push(message.seq);
            }
            given
        }
    })
    .await
    .concat();
    assert_eq!(given.len(), APPENDS);
    assert!(is_gapless(&given), "the acknowledged numbers are 1 to 10,000");
    assert_eq!(seqs(&tenant, id).await, (1..=10_000).collect::<Vec<_>>());
    assert_eq!(counts(&tenant, id).await, (10_000, 10_000));
}

/// A table without the protections of ours.
async fn bare_table(store: &Store) -> String {
    let name = new_name("bare");
    store.execute(&format!("CREATE TABLE {name} (k text, seq bigint)"), &[]).await.expect("a table");
    name
}

async fn numbers(store: &Store, table: &str) -> Vec<i64> {
    let rows = store.fetch_all(&format!("SELECT seq FROM {table}"), &[]).await.expect("read");
    rows.into_iter()
        .flat_map(agentkeep::Row::into_values)
        .map(|value| match value {
            Value::I64(number) => number,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Control: `max(seq) + 1`.
async fn a_number_read_outside_of_the_lock_is_given_twice(place: &Place) {
    let table = bare_table(&place.store).await;
    race(16, |_| {
        let (store, table) = (place.store.clone(), table.clone());
        async move {
            for _ in 0..25 {
                let next = format!("SELECT COALESCE(MAX(seq), 0) + 1 FROM {table}");
                let next = store.fetch_val(&next, &[]).await.expect("read").expect("a number");
                let insert = format!("INSERT INTO {table} (k, seq) VALUES ('s', $1)");
                store.execute(&insert, &[next]).await.expect("inserted");
            }
        }
    })
    .await;
    let given = numbers(&place.store, &table).await;
    assert_eq!(given.len(), 400);
    assert!(!is_gapless(&given), "the check notices that numbers were given twice");
}

/// Control: a counter that is moved in a transaction of its own.
async fn a_number_taken_apart_from_its_row_leaves_gaps(place: &Place) {
    let store = &place.store;
    let (table, counter) = (bare_table(store).await, bare_table(store).await);
    store.execute(&format!("CREATE UNIQUE INDEX {table}_k ON {table} (k)"), &[]).await.expect("an index");
    store.execute(&format!("INSERT INTO {counter} (seq) VALUES (0)"), &[]).await.expect("a counter");
    for key in ["a", "b", "a", "c"] {
        let next = format!("UPDATE {counter} SET seq = seq + 1 RETURNING seq");
        let next = store.fetch_val(&next, &[]).await.expect("counted").expect("a number");
        let _ = store.execute(&format!("INSERT INTO {table} (k, seq) VALUES ($1, $2)"), &[key.into(), next]).await;
    }
    let given = numbers(store, &table).await;
    assert_eq!(given.len(), 3);
    assert!(!is_gapless(&given), "the check notices the number that the repeated key used up");
}

async fn writers_of_many_sessions_keep_each_without_gap(place: &Place) {
    let tenants = [place.tenant().await, place.tenant().await];
    let mut sessions = Vec::new();
    for index in 0..40 {
        let tenant = &tenants[index % 2];
        sessions.push((tenant.clone(), session(tenant).await.id));
    }
    let sessions = Arc::new(sessions);
    let acknowledged = race(32, |writer| {
        let sessions = Arc::clone(&sessions);
        async move {
            let mut acknowledged = Vec::new();
            for step in 0..60 {
                let place = (writer * 7 + step * (writer + 1)) % sessions.len();
                let (tenant, id) = &sessions[place];
                if step % 10 == 9 {
                    let batch = vec![said("batch"); 3];
                    let appended = tenant.messages().append_many(*id, batch).await.expect("appended");
                    acknowledged.extend(appended.iter().map(|message| (place, message.seq)));
                } else {
                    let message = tenant.messages().append(*id, said("x")).await.expect("appended");
                    acknowledged.push((place, message.seq));
                }
            }
            acknowledged
        }
    })
    .await
    .concat();
    let mut by_session: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
    for (place, seq) in acknowledged {
        by_session.entry(place).or_default().push(seq);
    }
    for (place, given) in by_session {
        let (tenant, id) = &sessions[place];
        assert!(is_gapless(&given), "session {place}: {given:?}");
        assert_eq!(seqs(tenant, *id).await.len(), given.len());
        let count = i64::try_from(given.len()).expect("fits");
        assert_eq!(counts(tenant, *id).await, (count, count));
    }
}

const KEYS: usize = 12;

async fn racers_over_the_same_keys_make_one_row_for_each(place: &Place) {
    let tenant = place.tenant().await;
    let id = session(&tenant).await.id;
    let seen = race(32, |_| {
        let tenant = tenant.clone();
        async move {
            let mut seen = Vec::new();
            for key in 0..KEYS {
                let new = NewUser { email: Some(format!("{key}@example.org")), ..NewUser::default() };
                let user = tenant.users().upsert(new).await.expect("upserted");
                let new = NewSession { user_id: Some(user.id), ..chat("web", &key.to_string()) };
                let session = tenant.sessions().get_or_create(new).await.expect("a session");
                let message = delivered(&key.to_string(), "hello");
                let message = tenant.messages().append(id, message).await.expect("appended or found");
                seen.push((user.id, session.id, message.id, message.seq));
            }
            seen
        }
    })
    .await;
    assert!(seen.iter().all(|theirs| *theirs == seen[0]), "all racers saw the same rows");
    let keys = i64::try_from(KEYS).expect("fits");
    assert_eq!(rows_of(&place.store, &tenant, "users").await, keys);
    assert_eq!(rows_of(&place.store, &tenant, "sessions").await, keys + 1);
    assert_eq!(rows_of(&place.store, &tenant, "messages").await, keys);
    assert!(is_gapless(&seqs(&tenant, id).await));
}

/// Control: look first, insert when nothing was found.
async fn select_then_insert_makes_doubles(place: &Place) {
    let table = bare_table(&place.store).await;
    race(32, |racer| {
        let (store, table) = (place.store.clone(), table.clone());
        async move {
            for key in 0..KEYS {
                let key = Value::from(key.to_string());
                let find = format!("SELECT seq FROM {table} WHERE k = $1");
                if store.fetch_val(&find, std::slice::from_ref(&key)).await.expect("read").is_none() {
                    let insert = format!("INSERT INTO {table} (k, seq) VALUES ($1, $2)");
                    store.execute(&insert, &[key, Value::I64(racer as i64)]).await.expect("inserted");
                }
            }
        }
    })
    .await;
    let rows = numbers(&place.store, &table).await.len();
    assert!(rows > KEYS, "{rows} rows for {KEYS} keys: the check notices the doubles");
}

/// Messages without head and heads without session, of any tenant, counted by direct SQL.
async fn orphans(place: &Place) -> i64 {
    let messages = "SELECT count(*) FROM messages m LEFT JOIN session_heads h
                    ON h.tenant_id = m.tenant_id AND h.session_id = m.session_id WHERE h.session_id IS NULL";
    let heads = "SELECT count(*) FROM session_heads h LEFT JOIN sessions s
                 ON s.tenant_id = h.tenant_id AND s.id = h.session_id WHERE s.id IS NULL";
    place.number(messages, &[]).await + place.number(heads, &[]).await
}

async fn a_session_deleted_under_its_writers_leaves_no_orphan(place: &Place) {
    let tenant = place.tenant().await;
    for round in 0..12_u64 {
        let owner = user(&tenant, &format!("{round}@example.org")).await.id;
        let new = NewSession { user_id: Some(owner), ..NewSession::default() };
        let id = tenant.sessions().create(new).await.expect("created").id;
        let deleter = tenant.clone();
        let deletion = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(3 + 2 * round)).await;
            match round % 3 {
                0 => deleter.users().delete(owner).await.expect("deleted"),
                _ => deleter.sessions().delete(id).await.expect("deleted"),
            }
        });
        let written = race(16, |writer| {
            let tenant = tenant.clone();
            async move {
                for written in 0_usize.. {
                    let outcome = match writer % 4 {
                        0 => tenant.messages().append_many(id, vec![said("a"), said("b")]).await.map(|_| ()),
                        _ => tenant.messages().append(id, said("x")).await.map(|_| ()),
                    };
                    match outcome {
                        Ok(()) => {}
                        Err(Error::NotFound { entity: "session", .. }) => return written,
                        Err(other) => panic!("a late writer got: {other}"),
                    }
                }
                0
            }
        })
        .await;
        deletion.await.expect("no panic");
        assert!(round < 4 || written.iter().sum::<usize>() > 0, "nobody wrote before the session was deleted");
        assert_eq!(orphans(place).await, 0, "round {round}");
        assert_eq!(rows_of(&place.store, &tenant, "messages").await, 0);
        assert_eq!(rows_of(&place.store, &tenant, "session_heads").await, 0);
    }
}

/// Control: a writer that only looks whether the session is there, on tables without foreign keys.
async fn an_append_that_does_not_lock_its_session_leaves_orphans(place: &Place) {
    let store = &place.store;
    let (sessions, rows) = (bare_table(store).await, bare_table(store).await);
    store.execute(&format!("INSERT INTO {sessions} (k) VALUES ('s')"), &[]).await.expect("a session");
    let found = store.fetch_one(&format!("SELECT k FROM {sessions} WHERE k = 's'"), &[]).await.expect("read");
    assert!(found.is_some(), "the writer sees its session");
    store.execute(&format!("DELETE FROM {rows} WHERE k = 's'"), &[]).await.expect("deleted");
    store.execute(&format!("DELETE FROM {sessions} WHERE k = 's'"), &[]).await.expect("deleted");
    store.execute(&format!("INSERT INTO {rows} (k, seq) VALUES ('s', 1)"), &[]).await.expect("appended");
    let orphans = format!("SELECT count(*) FROM {rows} r LEFT JOIN {sessions} s ON s.k = r.k WHERE s.k IS NULL");
    assert_eq!(place.number(&orphans, &[]).await, 1, "the check notices the orphan");
}

/// Direct SQL that inserts a message while other direct SQL, with a snapshot from before, deletes the session: whether
/// the deletion was refused, and how many messages are left without a session.
async fn deleted_with_an_older_snapshot(checked: bool) -> (bool, i64) {
    let url = support::new_postgres_database("snapshot").await;
    let store = Store::open_with(support::postgres_config(&url)).await.expect("PostgreSQL opens");
    let tenant = store.default_tenant().clone();
    let id = session(&tenant).await.id;
    let connect = async || {
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("connected");
        tokio::spawn(connection);
        client
    };
    let (writer, deleter) = (connect().await, connect().await);
    if !checked {
        writer.batch_execute("SET agentkeep.appends = on").await.expect("set");
    }
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM messages";
    deleter.batch_execute(begin).await.expect("a snapshot");
    let insert = format!(
        "INSERT INTO messages (tenant_id, session_id, seq, id, role, type, is_streaming, is_complete, created_at,
             updated_at, metadata)
         VALUES (1, '{id}', 1, '{id}', 'user', 'text', false, true, '2025-01-01T00:00:00Z', '2025-01-01T00:00:00Z', '{{}}')"
    );
    writer.batch_execute(&insert).await.expect("inserted");
    let deleted = deleter.batch_execute(&format!("DELETE FROM sessions WHERE tenant_id = 1 AND id = '{id}'")).await;
    if deleted.is_ok() {
        deleter.batch_execute("COMMIT").await.expect("committed");
    }
    let place = Place::new(store);
    let left = orphans(&place).await;
    place.close().await;
    (deleted.is_err(), left)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_not_deleted_by_who_cannot_see_its_messages() {
    assert_eq!(deleted_with_an_older_snapshot(true).await, (true, 0));
}

/// Control: on a connection that promises to change the head, and does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_whose_head_was_not_changed_is_left_behind() {
    assert_eq!(deleted_with_an_older_snapshot(false).await, (false, 1));
}

async fn one_bad_append_in_a_crowd_fails_alone(place: &Place) {
    let tenant = place.tenant().await;
    let sessions = [session(&tenant).await.id, session(&tenant).await.id, session(&tenant).await.id];
    let first = tenant.messages().append(sessions[0], said("first")).await.expect("appended");
    let ghost = SessionId(uuid::Uuid::nil());
    for round in 0..5_usize {
        let outcomes = race(64, |writer| {
            let tenant = tenant.clone();
            async move {
                let id = sessions[writer % 3];
                match writer {
                    _ if writer % 16 == 7 => {
                        let taken = NewMessage { id: Some(first.id), ..said("taken") };
                        tenant.messages().append(id, taken).await
                    }
                    _ if writer % 16 == 11 => tenant.messages().append(ghost, said("nowhere")).await,
                    _ => tenant.messages().append(id, said(format!("{round}/{writer}"))).await,
                }
            }
        })
        .await;
        for (writer, outcome) in outcomes.into_iter().enumerate() {
            match (writer % 16, outcome) {
                (7, Err(Error::AlreadyExists { field, .. })) => assert_eq!(field, "id"),
                (11, Err(Error::NotFound { entity, .. })) => assert_eq!(entity, "session"),
                (7 | 11, other) => panic!("{writer}: {other:?}"),
                (_, outcome) => drop(outcome.expect("a good append succeeds beside a bad one")),
            }
        }
    }
    let mut total = 0;
    for id in sessions {
        let seqs = seqs(&tenant, id).await;
        assert!(is_gapless(&seqs), "{seqs:?}");
        let count = i64::try_from(seqs.len()).expect("fits");
        assert_eq!(counts(&tenant, id).await, (count, count));
        total += seqs.len();
    }
    assert_eq!(total, 1 + 5 * 56);
}

/// Control: the same crowd in one transaction that knows no parts.
async fn a_group_without_isolation_is_lost_whole(place: &Place) {
    let table = bare_table(&place.store).await;
    place.store.execute(&format!("CREATE UNIQUE INDEX {table}_k ON {table} (k)"), &[]).await.expect("an index");
    let row = |key: usize| vec![Value::from(key.to_string()), Value::I64(1)];
    let group = (0..64).map(|writer| row(if writer == 7 { 6 } else { writer })).collect();
    let insert = format!("INSERT INTO {table} (k, seq) VALUES ($1, $2)");
    place.store.execute_batch(&insert, group).await.expect_err("a duplicate");
    assert_eq!(numbers(&place.store, &table).await.len(), 0, "the good ones are lost with the bad one");
}

async fn a_reader_that_follows_the_seq_never_sees_a_hole(place: &Place) {
    let tenant = place.tenant().await;
    let id = session(&tenant).await.id;
    let writing = Arc::new(AtomicBool::new(true));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (tenant, writing) = (tenant.clone(), Arc::clone(&writing));
            tokio::spawn(async move {
                let mut last = 0;
                let mut looks = 0;
                loop {
                    let on = writing.load(Ordering::Acquire);
                    let behind = ListRequest::new()
                        .filter("session_id", id)
                        .filter_by("seq", FilterOperator::Greater, last)
                        .order_by("seq", Direction::Ascending)
                        .limit(100);
                    let page = tenant.messages().list(&behind).await.expect("listed").items;
                    for message in page {
                        assert_eq!(message.seq, last + 1, "a hole");
                        last = message.seq;
                    }
                    let recent = tenant.messages().recent(id, 50).await.expect("read");
                    assert!(recent.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "a hole among the newest");
                    looks += 1;
                    if !on && tenant.messages().get_by_seq(id, last + 1).await.expect("read").is_none() {
                        return (last, looks);
                    }
                }
            })
        })
        .collect();
    race(8, |_| {
        let tenant = tenant.clone();
        async move {
            for step in 0..150 {
                if step % 15 == 0 {
                    tenant.messages().append_many(id, vec![said("a"), said("b")]).await.expect("appended");
                } else {
                    tenant.messages().append(id, said("x")).await.expect("appended");
                }
            }
        }
    })
    .await;
    writing.store(false, Ordering::Release);
    for reader in readers {
        let (last, looks) = reader.await.expect("no hole");
        assert_eq!(last, 8 * 160);
        assert!(looks > 3, "the reader looked while others wrote: {looks}");
    }
}

/// Control: a number that is taken before the commit, as a sequence of PostgreSQL gives it. (SQLite has one
/// writer, so its commits come in the order of their numbers by themselves.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_shows_a_later_row_before_an_earlier_one() {
    let place = support::postgres().await;
    let table = new_name("serial");
    let create = format!("CREATE TABLE {table} (seq bigserial PRIMARY KEY, k text)");
    place.store.execute(&create, &[]).await.expect("a table");
    let insert = format!("INSERT INTO {table} (k) VALUES ('x')");
    let tx = place.store.begin().await.expect("begun");
    tx.execute(&insert, &[]).await.expect("the slow one");
    place.store.execute(&insert, &[]).await.expect("the fast one");
    let seen = numbers(&place.store, &table).await;
    assert_eq!(seen, [2], "a reader that goes on behind 2 never sees 1");
    assert!(!is_gapless(&seen), "the check notices the hole");
    tx.commit().await.expect("committed");
    place.close().await;
}

fn found_or_gone(outcome: Result<()>) {
    match outcome {
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(other) => panic!("{other}"),
    }
}

async fn deletes_of_messages_sessions_and_users_at_once_all_end(place: &Place) {
    let tenant = place.tenant().await;
    for round in 0..6 {
        let owner = user(&tenant, &format!("{round}@example.org")).await.id;
        let new = NewSession { user_id: Some(owner), ..NewSession::default() };
        let id = tenant.sessions().create(new).await.expect("created").id;
        let batch = tenant.messages().append_many(id, vec![said("x"); 24]).await.expect("appended");
        let ids: Vec<_> = batch.iter().map(|message| message.id).collect();
        let work = race(12, |racer| {
            let (tenant, ids) = (tenant.clone(), ids.clone());
            async move {
                match racer {
                    0 => found_or_gone(tenant.sessions().delete(id).await),
                    1 => found_or_gone(tenant.users().delete(owner).await),
                    2..=7 => {
                        for message in ids.iter().skip(racer).step_by(3) {
                            found_or_gone(tenant.messages().delete(*message).await);
                        }
                    }
                    8 => {
                        let patch = SessionPatch { state: Some(object(r#"{"a":1}"#)), ..SessionPatch::default() };
                        found_or_gone(tenant.sessions().update(id, patch).await.map(|_| ()));
                    }
                    _ => {
                        for _ in 0..4 {
                            found_or_gone(tenant.messages().append(id, said("y")).await.map(|_| ()));
                        }
                    }
                }
            }
        });
        tokio::time::timeout(Duration::from_secs(20), work).await.expect("nobody waits for ever");
        assert_eq!(orphans(place).await, 0);
        assert_eq!(rows_of(&place.store, &tenant, "messages").await, 0);
    }
}

async fn a_caller_that_goes_away_leaves_no_gap(place: &Place) {
    let tenant = place.tenant().await;
    let id = session(&tenant).await.id;
    let acknowledged = Arc::new(parking_lot::Mutex::new(Vec::new()));
    for round in 0..10_u64 {
        let writers: Vec<_> = (0..16)
            .map(|_| {
                let (tenant, acknowledged) = (tenant.clone(), Arc::clone(&acknowledged));
                tokio::spawn(async move {
                    loop {
                        let message = tenant.messages().append(id, said("x")).await.expect("appended");
                        acknowledged.lock().push(message.seq);
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5 + round)).await;
        for writer in &writers {
            writer.abort();
        }
        for writer in writers {
            assert!(writer.await.expect_err("it never ends by itself").is_cancelled());
        }
    }
    // Behind everything that was handed over.
    tenant.messages().append(id, said("last")).await.expect("appended");
    let stored = messages(&tenant, id).await;
    let seqs: Vec<i64> = stored.iter().map(|message| message.seq).collect();
    assert!(is_gapless(&seqs), "no gap where callers went away");
    let acknowledged = acknowledged.lock().clone();
    assert!(acknowledged.iter().all(|seq| seqs.contains(seq)), "what was acknowledged is there");
    let count = i64::try_from(seqs.len()).expect("fits");
    assert_eq!(counts(&tenant, id).await, (count, count));
}

/// Control: what merge patches protect from.
async fn a_patch_that_reads_and_writes_back_loses_updates(place: &Place) {
    let tenant = place.tenant().await;
    let id = session(&tenant).await.id;
    race(16, |racer| {
        let (store, tenant) = (place.store.clone(), tenant.clone());
        async move {
            for round in 0..5 {
                let session = tenant.sessions().get(id).await.expect("read").expect("there");
                let mut state = session.state.to_value();
                state[format!("{racer}/{round}")] = true.into();
                let params = [tenant.id().into(), id.into(), object(&state.to_string()).into()];
                let sql = "UPDATE sessions SET state = $3 WHERE tenant_id = $1 AND id = $2";
                store.execute(sql, &params).await.expect("written back");
            }
        }
    })
    .await;
    let session = tenant.sessions().get(id).await.expect("read").expect("there");
    let kept = session.state.to_value().as_object().map_or(0, serde_json::Map::len);
    assert!(kept < 80, "all {kept} of 80 are there: the check does not notice lost updates");
}

/// Control: the conditional change of the suite with the look outside of the lock.
async fn a_conditional_change_that_looks_before_the_lock_loses_changes(place: &Place) {
    let tenant = place.tenant().await;
    let seen = user(&tenant, "ann@example.org").await;
    let looked = Arc::new(tokio::sync::Barrier::new(8));
    let won = race(8, |index| {
        let (tenant, looked, seen) = (tenant.clone(), Arc::clone(&looked), seen.clone());
        async move {
            let found = tenant.users().get(seen.id).await.expect("read").expect("the user");
            looked.wait().await;
            let unchanged = found.updated_at == seen.updated_at;
            if unchanged {
                let patch = UserPatch { name: Some(Some(index.to_string())), ..UserPatch::default() };
                tenant.users().update(seen.id, patch).await.expect("changed");
            }
            unchanged
        }
    })
    .await;
    assert!(won.iter().filter(|won| **won).count() > 1, "several believe that they were the one: {won:?}");
}

/// Control: the repeated request of the suite, which looks whether it was done instead of claiming its key first.
async fn a_request_that_looks_before_it_claims_is_done_twice(place: &Place) {
    let tenant = place.tenant().await;
    let looked = Arc::new(tokio::sync::Barrier::new(8));
    race(8, |_| {
        let (tenant, store, looked) = (tenant.clone(), place.store.clone(), Arc::clone(&looked));
        async move {
            let sql = "SELECT key FROM idempotency_keys WHERE tenant_id = $1 AND key = 'k'";
            let done = store.fetch_one(sql, &[tenant.id().into()]).await.expect("read").is_some();
            looked.wait().await;
            if !done {
                tenant.users().create(NewUser::default()).await.expect("created");
            }
        }
    })
    .await;
    assert!(rows_of(&place.store, &tenant, "users").await > 1, "the request is done more than once");
}
