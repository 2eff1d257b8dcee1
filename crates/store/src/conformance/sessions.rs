//! Sessions.

use std::collections::BTreeSet;

use agentkeep_core::{
    AgentId, Direction, Error, FilterOperator, ListRequest, NewSession, Session, SessionId, SessionKind, SessionPatch,
    SessionStatus, TeamId, UserId,
};
use uuid::Uuid;

use super::{
    Home,
    support::{agent, all_pages, chat, object, race, rows_of, said, session, team, user},
};
use crate::{TenantStore, Value};

fn become_(status: SessionStatus) -> SessionPatch {
    SessionPatch { status: Some(status), ..SessionPatch::default() }
}

fn state(patch: &str) -> SessionPatch {
    SessionPatch { state: Some(object(patch)), ..SessionPatch::default() }
}

fn renamed(name: &str) -> SessionPatch {
    SessionPatch { name: Some(Some(name.into())), ..SessionPatch::default() }
}

async fn read(tenant: &TenantStore, id: SessionId) -> Session {
    tenant.sessions().get(id).await.expect("read").expect("the session is there")
}

fn nobody() -> UserId {
    UserId(Uuid::nil())
}

/// The life of a session, with every field.
pub async fn a_session_is_created_read_changed_finished_and_deleted(home: &Home) {
    let sessions = home.tenant.sessions();
    let ann = user(&home.tenant, "ann@example.org").await;
    let (agent, team) = (agent(&home.store, &home.tenant, 1).await, team(&home.store, &home.tenant, "desk").await);
    let new = NewSession {
        user_id: Some(ann.id),
        agent_id: Some(agent),
        team_id: Some(team),
        kind: Some(SessionKind::Workflow),
        name: Some("Title\0 \u{10} 🙂".into()),
        state: object(r#"{"step":1,"pi":3.14159265358979323846264338327950288}"#),
        metadata: object(r#"{"nul\u0000":"a\u0000b\u0010","n":123456789012345678901234567890}"#),
        ..chat("whatsapp", "49 123\u{10}1")
    };
    let created = sessions.create(new.clone()).await.expect("created");
    let told = (created.user_id, created.agent_id, created.team_id, created.kind, created.status);
    assert_eq!(told, (Some(ann.id), Some(agent), Some(team), SessionKind::Workflow, SessionStatus::Active));
    assert_eq!((&created.name, &created.platform, &created.chat_id), (&new.name, &new.platform, &new.chat_id));
    assert_eq!((&created.state, &created.metadata), (&new.state, &new.metadata));
    assert_eq!((created.message_count, created.last_seq, created.revision), (0, 0, 1));
    assert_eq!((created.last_message_at, created.finished_at), (None, None));
    assert_eq!(created.created_at, created.updated_at);
    assert_eq!(read(&home.tenant, created.id).await, created);
    let by_chat = sessions.get_by_chat("whatsapp", "49 123\u{10}1").await.expect("read");
    assert_eq!(by_chat.as_ref(), Some(&created));
    assert_eq!(sessions.get_by_chat("telegram", "49 123\u{10}1").await.expect("read"), None);

    let changed = sessions.update(created.id, renamed("New title")).await.expect("changed");
    assert_eq!((changed.name.as_deref(), changed.revision), (Some("New title"), 2));
    assert!(changed.updated_at > created.updated_at);
    let unchanged = Session { name: created.name.clone(), revision: 1, updated_at: created.updated_at, ..changed };
    assert_eq!(unchanged, created, "only the name, the revision and the time changed");

    let without =
        SessionPatch { name: Some(None), user_id: Some(None), agent_id: Some(None), ..SessionPatch::default() };
    let emptied = sessions.update(created.id, without).await.expect("changed");
    assert_eq!((emptied.user_id, emptied.agent_id, emptied.team_id, emptied.name), (None, None, Some(team), None));

    let finished = sessions.finish(created.id).await.expect("finished");
    assert_eq!((finished.status, finished.finished_at), (SessionStatus::Finished, Some(finished.updated_at)));
    sessions.delete(created.id).await.expect("deleted");
    assert_eq!(sessions.get(created.id).await.expect("read"), None);
    assert!(matches!(sessions.delete(created.id).await, Err(Error::NotFound { entity: "session", .. })));
    assert!(matches!(sessions.finish(created.id).await, Err(Error::NotFound { entity: "session", .. })));
    assert!(matches!(sessions.update(created.id, renamed("x")).await, Err(Error::NotFound { .. })));
}

/// The kind follows from who leads.
pub async fn the_kind_of_a_session_follows_from_its_leader(home: &Home) {
    let (agent, team) = (agent(&home.store, &home.tenant, 1).await, team(&home.store, &home.tenant, "desk").await);
    for (agent_id, team_id, kind) in [
        (None, None, SessionKind::Agent),
        (Some(agent), None, SessionKind::Agent),
        (None, Some(team), SessionKind::Team),
        (Some(agent), Some(team), SessionKind::Agent),
    ] {
        let new = NewSession { agent_id, team_id, ..NewSession::default() };
        assert_eq!(home.tenant.sessions().create(new).await.expect("created").kind, kind, "{agent_id:?} {team_id:?}");
    }
}

/// System B's `get_or_create_thread`.
pub async fn racing_get_or_create_of_one_chat_makes_one_session(home: &Home) {
    for round in 0..4 {
        let chat_id = format!("chat {round}");
        let ids = race(32, |racer| {
            let (tenant, chat_id) = (home.tenant.clone(), chat_id.clone());
            async move {
                let new = NewSession { name: Some(format!("racer {racer}")), ..chat("discord", &chat_id) };
                tenant.sessions().get_or_create(new).await.expect("a session").id
            }
        });
        let ids: BTreeSet<_> = ids.await.into_iter().collect();
        assert_eq!(ids.len(), 1, "all racers got the same session");
    }
    assert_eq!(rows_of(&home.store, &home.tenant, "sessions").await, 4);
    assert_eq!(rows_of(&home.store, &home.tenant, "session_heads").await, 4);
}

/// The second call gives the first session back as it is now, changes nothing, and needs both names.
pub async fn get_or_create_gives_the_session_of_a_chat_back_unchanged(home: &Home) {
    let sessions = home.tenant.sessions();
    let first = sessions.get_or_create(chat("slack", "C1")).await.expect("created");
    let again = NewSession { name: Some("other".into()), ..chat("slack", "C1") };
    assert_eq!(sessions.get_or_create(again).await.expect("found"), first);
    let elsewhere = sessions.get_or_create(chat("discord", "C1")).await.expect("created");
    assert_ne!(elsewhere.id, first.id);
    for new in [NewSession { platform: Some("slack".into()), ..NewSession::default() }, NewSession::default()] {
        let error = sessions.get_or_create(new).await.expect_err("no chat id");
        assert!(matches!(error, Error::Invalid { ref field, .. } if field == "chat_id"), "{error}");
    }
}

/// A taken chat, a taken id, and a chat that has no platform.
pub async fn a_taken_chat_or_id_is_told_and_nothing_changes(home: &Home) {
    let sessions = home.tenant.sessions();
    let first = sessions.create(chat("slack", "C1")).await.expect("created");
    match sessions.create(chat("slack", "C1")).await {
        Err(Error::AlreadyExists { entity: "session", field, value }) => {
            assert_eq!((field.as_str(), value.as_str()), ("platform, chat_id", "\"slack\", \"C1\""));
        }
        other => panic!("{other:?}"),
    }
    match sessions.create(NewSession { id: Some(first.id), ..NewSession::default() }).await {
        Err(Error::AlreadyExists { entity: "session", field, value }) => {
            assert_eq!((field.as_str(), value), ("id", first.id.to_string()));
        }
        other => panic!("{other:?}"),
    }
    let without = NewSession { chat_id: Some("C2".into()), ..NewSession::default() };
    assert!(matches!(sessions.create(without).await, Err(Error::Invalid { field, .. }) if field == "platform"));
    let blank = NewSession { name: Some("  ".into()), ..NewSession::default() };
    assert!(matches!(sessions.create(blank).await, Err(Error::Invalid { field, .. }) if field == "name"));
    let long = NewSession { name: Some("x".repeat(1025)), ..NewSession::default() };
    assert!(matches!(sessions.create(long).await, Err(Error::Invalid { field, .. }) if field == "name"));
    assert_eq!(sessions.list(&ListRequest::new()).await.expect("listed").items, [first]);
    assert_eq!(rows_of(&home.store, &home.tenant, "session_heads").await, 1);
}

async fn in_status(tenant: &TenantStore, status: SessionStatus) -> Session {
    let made = session(tenant).await;
    match status {
        SessionStatus::Active => made,
        status => tenant.sessions().update(made.id, become_(status)).await.expect("a legal change"),
    }
}

/// Every pair of statuses.
pub async fn only_legal_status_changes_happen_and_the_others_change_nothing(home: &Home) {
    let sessions = home.tenant.sessions();
    for (&from, &to) in SessionStatus::ALL.iter().flat_map(|from| SessionStatus::ALL.iter().map(move |to| (from, to))) {
        let before = in_status(&home.tenant, from).await;
        let patch = SessionPatch { status: Some(to), state: Some(object(r#"{"seen":true}"#)), ..renamed("changed") };
        match sessions.update(before.id, patch).await {
            Ok(after) => {
                assert!(from.can_become(to), "{from} became {to}");
                assert_eq!((after.status, after.name.as_deref()), (to, Some("changed")));
                assert_eq!(after.finished_at.is_some(), to == SessionStatus::Finished);
            }
            Err(Error::IllegalTransition { entity: "session", key, from: was, to: wanted }) => {
                assert!(!from.can_become(to), "{from} may become {to}");
                assert_eq!((key, was, wanted), (before.id.to_string(), from.to_string(), to.to_string()));
                assert_eq!(read(&home.tenant, before.id).await, before, "nothing changed");
            }
            Err(other) => panic!("{from} to {to}: {other}"),
        }
    }
}

/// Two that finish at once: one of them does.
pub async fn of_racing_status_changes_one_wins(home: &Home) {
    let made = session(&home.tenant).await;
    let outcomes = race(16, |racer| {
        let tenant = home.tenant.clone();
        let next = if racer % 2 == 0 { SessionStatus::Finished } else { SessionStatus::Deleted };
        async move { tenant.sessions().update(made.id, become_(next)).await }
    })
    .await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1);
    for outcome in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(outcome, Error::IllegalTransition { .. }), "{outcome}");
    }
    assert_eq!(read(&home.tenant, made.id).await.revision, 2);
}

/// The expected revision.
pub async fn a_stale_revision_is_told_with_the_current_one(home: &Home) {
    let sessions = home.tenant.sessions();
    let made = session(&home.tenant).await;
    let expecting = |revision, name: &str| SessionPatch { revision: Some(revision), ..renamed(name) };
    let second = sessions.update(made.id, expecting(1, "mine")).await.expect("the right revision");
    assert_eq!(second.revision, 2);
    match sessions.update(made.id, expecting(1, "late")).await {
        Err(Error::StaleRevision { entity: "session", key, expected: 1, current: 2 }) => {
            assert_eq!(key, made.id.to_string());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(read(&home.tenant, made.id).await, second);
    // A message is no change of the session itself.
    home.tenant.messages().append(made.id, said("hello")).await.expect("appended");
    sessions.update(made.id, expecting(2, "still")).await.expect("the revision did not move");

    let outcomes = race(16, |racer| {
        let tenant = home.tenant.clone();
        async move { tenant.sessions().update(made.id, expecting(3, &format!("racer {racer}"))).await }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "one of them had revision 3");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(error, Error::StaleRevision { expected: 3, current: 4, .. }), "{error}");
    }
}

/// The examples of RFC 7396, appendix A; ours stand under a key, since state is always an object.
const MERGE_PATCHES: &[(&str, &str, Option<&str>)] = &[
    (r#"{"a":"b"}"#, r#"{"a":"c"}"#, Some(r#"{"a":"c"}"#)),
    (r#"{"a":"b"}"#, r#"{"b":"c"}"#, Some(r#"{"a":"b","b":"c"}"#)),
    (r#"{"a":"b"}"#, r#"{"a":null}"#, Some("{}")),
    (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, Some(r#"{"b":"c"}"#)),
    (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, Some(r#"{"a":"c"}"#)),
    (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, Some(r#"{"a":["b"]}"#)),
    (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, Some(r#"{"a":{"b":"d"}}"#)),
    (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, Some(r#"{"a":[1]}"#)),
    (r#"["a","b"]"#, r#"["c","d"]"#, Some(r#"["c","d"]"#)),
    (r#"{"a":"b"}"#, r#"["c"]"#, Some(r#"["c"]"#)),
    (r#"{"a":"foo"}"#, "null", None),
    (r#"{"a":"foo"}"#, r#""bar""#, Some(r#""bar""#)),
    (r#"{"e":null}"#, r#"{"a":1}"#, Some(r#"{"e":null,"a":1}"#)),
    ("[1,2]", r#"{"a":"b","c":null}"#, Some(r#"{"a":"b"}"#)),
    ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, Some(r#"{"a":{"bb":{}}}"#)),
    // Beyond the RFC's own: keys and values that engines are prone to touch.
    (
        r#"{"a":1}"#,
        r#"{"n":0.100000000000000000000000000001}"#,
        Some(r#"{"a":1,"n":0.100000000000000000000000000001}"#),
    ),
    (r#"{"n":123456789012345678901234567890}"#, r#"{"a":1}"#, Some(r#"{"n":123456789012345678901234567890,"a":1}"#)),
    (r#"{"nul\u0000":1,"nul":2}"#, r#"{"nul\u0000":"\u0000"}"#, Some(r#"{"nul\u0000":"\u0000","nul":2}"#)),
    (r#"{"nul\u0000":1,"nul":2}"#, r#"{"nul\u0000":null}"#, Some(r#"{"nul":2}"#)),
    (r#"{"dle\u0010":1,"dle\u00100":2}"#, r#"{"dle\u00100":null}"#, Some(r#"{"dle\u0010":1}"#)),
    (r#"{"é":1}"#, r#"{"\u00e9":2}"#, Some(r#"{"é":2}"#)),
    (r#"{"a\"b":1}"#, r#"{"a\"b":{"c":[null]}}"#, Some(r#"{"a\"b":{"c":[null]}}"#)),
    (r#"{"a.b":{"c":1}}"#, r#"{"a":{"b":2}}"#, Some(r#"{"a.b":{"c":1},"a":{"b":2}}"#)),
];

/// Merge patches of state and metadata.
pub async fn json_changes_by_merge_patch_as_rfc_7396_says(home: &Home) {
    let sessions = home.tenant.sessions();
    for (target, patch, expected) in MERGE_PATCHES {
        let under = |text: &str| object(&format!(r#"{{"x":{text},"kept":[1]}}"#));
        let new = NewSession { state: under(target), metadata: under(target), ..NewSession::default() };
        let made = sessions.create(new).await.expect("created");
        let change = object(&format!(r#"{{"x":{patch}}}"#));
        let both = SessionPatch { state: Some(change.clone()), metadata: Some(change), ..SessionPatch::default() };
        let changed = sessions.update(made.id, both).await.unwrap_or_else(|error| panic!("{target} {patch}: {error}"));
        let expected = expected.map_or_else(|| object(r#"{"kept":[1]}"#), under);
        assert_eq!(changed.state, expected, "{target} patched with {patch}");
        assert_eq!(changed.metadata, expected, "{target} patched with {patch}");
        assert_eq!(read(&home.tenant, made.id).await, changed);
    }
}

/// Patches of different keys at once.
pub async fn racing_patches_of_different_keys_lose_nothing(home: &Home) {
    let made = session(&home.tenant).await;
    race(32, |racer| {
        let tenant = home.tenant.clone();
        async move {
            for round in 0..3 {
                let key = format!(r#"{{"shared":{{"r{racer}_{round}":{racer}}}}}"#);
                let patch = SessionPatch { metadata: Some(object(&key)), ..state(&key) };
                tenant.sessions().update(made.id, patch).await.expect("patched");
            }
        }
    })
    .await;
    let after = read(&home.tenant, made.id).await;
    for json in [&after.state, &after.metadata] {
        let value = json.to_value();
        assert_eq!(value["shared"].as_object().map(serde_json::Map::len), Some(96), "every patch is there: {value}");
    }
    assert_eq!(after.revision, 1 + 96);
}

/// References that point nowhere, or to another tenant.
pub async fn a_missing_or_foreign_user_agent_or_team_is_told(home: &Home) {
    let sessions = home.tenant.sessions();
    let made = session(&home.tenant).await;
    let theirs = user(&home.other, "ann@example.org").await;
    let their_agent = agent(&home.store, &home.other, 7).await;
    let their_team = team(&home.store, &home.other, "desk").await;
    let blank = NewSession::default;
    let same = SessionPatch::default;
    let attempts = [
        (
            "user_id",
            "user",
            vec![NewSession { user_id: Some(nobody()), ..blank() }, NewSession { user_id: Some(theirs.id), ..blank() }],
            vec![SessionPatch { user_id: Some(Some(theirs.id)), ..same() }],
        ),
        (
            "agent_id",
            "agent",
            vec![
                NewSession { agent_id: Some(AgentId(404)), ..blank() },
                NewSession { agent_id: Some(their_agent), ..blank() },
            ],
            vec![SessionPatch { agent_id: Some(Some(their_agent)), ..same() }],
        ),
        (
            "team_id",
            "team",
            vec![
                NewSession { team_id: Some(TeamId(Uuid::nil())), ..blank() },
                NewSession { team_id: Some(their_team), ..blank() },
            ],
            vec![SessionPatch { team_id: Some(Some(their_team)), ..same() }],
        ),
    ];
    for (wanted, kind, creations, changes) in attempts {
        let mut outcomes = Vec::new();
        for new in creations {
            outcomes.push(sessions.create(new).await);
        }
        for patch in changes {
            outcomes.push(sessions.update(made.id, patch).await);
        }
        for outcome in outcomes {
            match outcome {
                Err(Error::MissingReference { field, entity, .. }) => {
                    assert_eq!((field.as_str(), entity), (wanted, kind));
                }
                other => panic!("{wanted}: {other:?}"),
            }
        }
    }
    assert_eq!(sessions.list(&ListRequest::new()).await.expect("listed").items, [made]);
}

/// What hangs from a session or a user goes with it, and nothing else does.
pub async fn deleting_a_session_or_a_user_deletes_what_hangs_from_it(home: &Home) {
    let ann = user(&home.tenant, "ann@example.org").await;
    let of_ann = NewSession { user_id: Some(ann.id), ..NewSession::default() };
    let mut made = Vec::new();
    for new in [of_ann.clone(), of_ann, NewSession::default(), NewSession::default()] {
        let session = home.tenant.sessions().create(new).await.expect("created");
        for text in ["one", "two", "three"] {
            home.tenant.messages().append(session.id, said(text)).await.expect("appended");
        }
        made.push(session);
    }
    let counts = async || {
        let count = async |table| rows_of(&home.store, &home.tenant, table).await;
        (count("sessions").await, count("session_heads").await, count("messages").await)
    };
    assert_eq!(counts().await, (4, 4, 12));
    home.tenant.sessions().delete(made[3].id).await.expect("deleted");
    assert_eq!(counts().await, (3, 3, 9));
    home.tenant.users().delete(ann.id).await.expect("deleted");
    assert_eq!(counts().await, (1, 1, 3));
    assert_eq!(read(&home.tenant, made[2].id).await.message_count, 3);
}

/// Whoever writes past the store leaves no message without its session either.
pub async fn messages_hang_from_their_session_for_direct_sql_too(home: &Home) {
    let (kept, other) = (session(&home.tenant).await.id, session(&home.tenant).await.id);
    let message = home.tenant.messages().append(kept, said("one")).await.expect("appended");
    let (tenant, nowhere) = (Value::from(home.tenant.id()), Value::from(SessionId(Uuid::nil())));
    let (kept, other, now) = (Value::from(kept), Value::from(other), Value::from(home.tenant.now()));
    let insert = "INSERT INTO messages (tenant_id, session_id, seq, id, role, type, is_streaming, is_complete,
                      created_at, updated_at, metadata)
                  VALUES ($1, $2, 2, $3, 'user', 'text', $4, $4, $5, $5, $6)";
    let row = |session: &Value| {
        let id = Value::from(SessionId(Uuid::from_u128(7)));
        [tenant.clone(), session.clone(), id, Value::Bool(true), now.clone(), Value::from(object("{}"))]
    };
    let refused = async |sql: &str, params: &[Value]| {
        let error = home.store.execute(sql, params).await.expect_err(sql);
        assert!(matches!(&error, Error::Database { code: Some(code), .. } if code == "23503"), "{sql}: {error}");
    };
    refused(insert, &row(&nowhere)).await;
    let moved = "UPDATE messages SET session_id = $2 WHERE tenant_id = $1 AND id = $3";
    refused(moved, &[tenant.clone(), nowhere, message.id.into()]).await;
    let behead = "DELETE FROM session_heads WHERE tenant_id = $1 AND session_id = $2";
    home.store.execute(behead, &[tenant.clone(), other.clone()]).await.expect("a head without messages goes");
    let renamed = "UPDATE session_heads SET session_id = $2 WHERE tenant_id = $1 AND session_id = $3";
    refused(renamed, &[tenant.clone(), other.clone(), kept.clone()]).await;
    refused(insert, &row(&other)).await;
    assert_eq!(home.store.execute(insert, &row(&kept)).await.expect("a session that is there"), 1);
    assert_eq!(rows_of(&home.store, &home.tenant, "messages").await, 2);
    home.store.execute(behead, &[tenant, kept]).await.expect("deleted");
    assert_eq!(rows_of(&home.store, &home.tenant, "messages").await, 0);
}

/// An agent that goes leaves its conversations.
pub async fn a_session_outlives_its_agent(home: &Home) {
    let agent = agent(&home.store, &home.tenant, 3).await;
    let new = NewSession { agent_id: Some(agent), ..NewSession::default() };
    let made = home.tenant.sessions().create(new).await.expect("created");
    let params = [home.tenant.id().into(), agent.into()];
    home.store.execute("DELETE FROM agents WHERE tenant_id = $1 AND id = $2", &params).await.expect("deleted");
    assert_eq!(read(&home.tenant, made.id).await, made);
}

/// Every filter and order of sessions.
pub async fn sessions_are_filtered_and_ordered(home: &Home) {
    let sessions = home.tenant.sessions();
    let ann = user(&home.tenant, "ann@example.org").await;
    let agent = agent(&home.store, &home.tenant, 5).await;
    let team = team(&home.store, &home.tenant, "desk").await;
    let mut made = Vec::new();
    for index in 0..6_i64 {
        let new = NewSession {
            user_id: (index % 2 == 0).then_some(ann.id),
            agent_id: (index < 2).then_some(agent),
            team_id: (index == 5).then_some(team),
            name: Some(format!("session {index}")),
            state: object(&format!(r#"{{"step":{index},"done":{},"cursor":null}}"#, index > 3)),
            metadata: object(&format!(r#"{{"customer":{{"tier":"t{}","a\u0010":"\u00101"}}}}"#, index % 3)),
            ..chat("web", &format!("{index}"))
        };
        let session = sessions.create(new).await.expect("created");
        for _ in 0..index {
            home.tenant.messages().append(session.id, said("x")).await.expect("appended");
        }
        made.push(session.id);
    }
    sessions.finish(made[4]).await.expect("finished");
    let second = read(&home.tenant, made[1]).await;
    let found = async |request: ListRequest| -> Vec<usize> {
        let page = sessions.list(&request.with_total()).await.expect("listed");
        assert_eq!(page.total, Some(page.items.len() as u64));
        page.items.iter().map(|item| made.iter().position(|id| *id == item.id).expect("one of ours")).collect()
    };
    let by = |field: &str, value| ListRequest::new().filter(field, value);
    let text = |value: &str| agentkeep_core::FilterValue::from(value);
    assert_eq!(found(ListRequest::new().filter("user_id", ann.id)).await, [0, 2, 4]);
    assert_eq!(found(ListRequest::new().filter("user_id", None::<&str>)).await, [1, 3, 5]);
    assert_eq!(found(ListRequest::new().filter("agent_id", agent)).await, [0, 1]);
    assert_eq!(found(ListRequest::new().filter("team_id", team)).await, [5]);
    assert_eq!(found(by("kind", text("team"))).await, [5]);
    assert_eq!(found(by("platform", text("web")).filter("chat_id", "3")).await, [3]);
    assert_eq!(found(by("status", text("finished"))).await, [4]);
    assert_eq!(found(by("name", text("session 2"))).await, [2]);
    assert_eq!(found(by("metadata.customer.tier", text("t1"))).await, [1, 4]);
    assert_eq!(found(by("state.done", true.into())).await, [4, 5]);
    assert_eq!(found(by("state.step", 3.into())).await, [3]);
    assert_eq!(found(by("state.step", text("3"))).await, [0_usize; 0], "a number is no text");
    assert_eq!(found(by("state.cursor", None::<&str>.into())).await, [0, 1, 2, 3, 4, 5]);
    assert_eq!(found(by("state.absent", None::<&str>.into())).await, [0_usize; 0], "absent is not null");
    assert_eq!(found(by("metadata.customer.a\u{10}", text("\u{10}1"))).await, [0, 1, 2, 3, 4, 5]);
    let busy = ListRequest::new().filter_by("message_count", FilterOperator::GreaterOrEqual, 4);
    assert_eq!(found(busy.order_by("message_count", Direction::Descending)).await, [5, 4]);
    let early = ListRequest::new().filter_by("created_at", FilterOperator::Less, second.created_at);
    assert_eq!(found(early).await, [0]);
    assert_eq!(found(ListRequest::new().order_by("last_message_at", Direction::Descending)).await, [5, 4, 3, 2, 1, 0]);
    assert_eq!(found(ListRequest::new().order_by("id", Direction::Ascending)).await, [0, 1, 2, 3, 4, 5]);
    for (order, limit) in [("last_message_at", 2), ("message_count", 1), ("updated_at", 4), ("created_at", 5)] {
        let request = ListRequest::new().order_by(order, Direction::Descending).limit(limit);
        let paged = all_pages(request, async |request| sessions.list(&request).await).await;
        let mut ids: Vec<_> = paged.iter().map(|item| item.id).collect();
        ids.sort();
        assert_eq!(ids, made, "paged by {order}");
    }
}

/// A value inside JSON is compared as it is, whatever characters it has.
pub async fn json_filters_compare_every_character(home: &Home) {
    let values = ["a\0b", "a", "a\u{10}0b", "a\u{10}", "a\u{10}1b", "a\"b\\", "é🙂", "a' OR '1'='1", ""];
    for value in values {
        let metadata = object(&serde_json::json!({ "key": value }).to_string());
        let new = NewSession { metadata, ..NewSession::default() };
        home.tenant.sessions().create(new).await.expect("created");
    }
    for value in values {
        let page = home.tenant.sessions().list(&ListRequest::new().filter("metadata.key", value)).await;
        let found: Vec<_> = page.expect("listed").items.iter().map(|item| item.metadata.to_value()).collect();
        assert_eq!(found, [serde_json::json!({ "key": value })]);
    }
}

/// Pages by key while others write.
pub async fn paging_neither_skips_nor_repeats_while_rows_are_written(home: &Home) {
    let sessions = home.tenant.sessions();
    let mut made = Vec::new();
    for _ in 0..60 {
        made.push(session(&home.tenant).await.id);
    }
    for (order, direction) in [
        ("created_at", Direction::Ascending),
        ("created_at", Direction::Descending),
        ("id", Direction::Ascending),
        ("id", Direction::Descending),
    ] {
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let tenant = home.tenant.clone();
        let first = made[0];
        let writer = tokio::spawn(async move {
            let mut own = Vec::new();
            while stopped.try_recv().is_err() {
                own.push(session(&tenant).await.id);
                tenant.sessions().update(first, renamed(&format!("{}", own.len()))).await.expect("changed");
                if own.len() % 3 == 0 {
                    tenant.sessions().delete(own.swap_remove(0)).await.expect("deleted");
                }
                tokio::task::yield_now().await;
            }
        });
        let request = ListRequest::new().order_by(order, direction).limit(7);
        let mut seen: Vec<SessionId> = Vec::new();
        let mut next = Some(request.clone());
        while let Some(request_now) = next.take() {
            let page = sessions.list(&request_now).await.expect("listed");
            seen.extend(page.items.iter().map(|item| item.id).filter(|id| made.contains(id)));
            // Ascending, a writer that never rests could keep the last page for ever ahead.
            next = page.next.filter(|_| seen.len() < made.len()).map(|cursor| request.clone().after(cursor));
        }
        let _ = stop.send(());
        writer.await.expect("no panic");
        if direction == Direction::Descending {
            seen.reverse();
        }
        assert_eq!(seen, made, "by {order} {direction:?}");
    }
}

/// A cursor works in the list that gave it out only.
pub async fn a_cursor_of_another_list_is_refused(home: &Home) {
    for tenant in [&home.tenant, &home.other] {
        for index in 0..3 {
            let made = session(tenant).await;
            home.tenant.messages().append(made.id, said("x")).await.ok();
            user(tenant, &format!("{index}@example.org")).await;
        }
    }
    let sessions = home.tenant.sessions();
    let first = sessions.list(&ListRequest::new().limit(1)).await.expect("listed").next.expect("more");
    let of_users = home.tenant.users().list(&ListRequest::new().limit(1)).await.expect("listed").next.expect("more");
    let of_messages =
        home.tenant.messages().list(&ListRequest::new().limit(1)).await.expect("listed").next.expect("more");
    let theirs = home.other.sessions().list(&ListRequest::new().limit(1)).await.expect("listed").next.expect("more");
    let broken = agentkeep_core::Cursor::new(format!("{}A", first.as_str()));
    let requests = [
        ("other filter", ListRequest::new().filter("status", "active").after(first.clone())),
        ("other order", ListRequest::new().order_by("id", Direction::Ascending).after(first.clone())),
        ("other direction", ListRequest::new().order_by("created_at", Direction::Descending).after(first.clone())),
        ("list of users", ListRequest::new().after(of_users)),
        ("list of messages", ListRequest::new().after(of_messages)),
        ("another tenant's", ListRequest::new().after(theirs)),
        ("broken", ListRequest::new().after(broken)),
        ("empty", ListRequest::new().after(agentkeep_core::Cursor::new(""))),
    ];
    for (what, request) in requests {
        match sessions.list(&request).await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, "cursor", "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
    let with_offset = ListRequest { offset: Some(1), ..ListRequest::new().after(first.clone()) };
    assert!(matches!(sessions.list(&with_offset).await, Err(Error::Invalid { field, .. }) if field == "offset"));
    let wider = sessions.list(&ListRequest::new().limit(5).after(first)).await.expect("the size of a page may change");
    assert_eq!(wider.items.len(), 2);
}
