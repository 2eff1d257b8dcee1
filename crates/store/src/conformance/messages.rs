//! Messages.

use std::collections::BTreeSet;

use agentkeep_core::{
    AgentId, Direction, Error, Json, JsonArray, ListRequest, Message, MessageId, MessagePatch, MessageRole,
    MessageType, NewMessage, Session, SessionId, UserId, limits,
};
use uuid::Uuid;

use super::{
    Home,
    support::{agent, delivered, messages, object, race, rows_of, said, seqs, session, user},
};
use crate::TenantStore;

/// Characters that drivers, escapes and encodings are prone to touch.
const HARD_TEXT: &str = "NUL \0 DLE \u{10} DLE0 \u{10}0 DLE1 \u{10}1 BEL \u{7} emoji 🙂👩‍👩‍👧 é e\u{301} \u{feff} \
                         \u{fffd} \u{10ffff} quotes ' '' \" \\ \\u0000 %_ \r\n\t $1 ?1 :x";
/// The same inside JSON, with numbers that no float holds.
const HARD_JSON: &str = r#"{"text":"NUL \u0000 DLE \u0010 \u00100 \u00101 🙂 \ud83d\ude42 \\u0000 \" \/ é","key\u0000":1,"key\u0010":2,"n":123456789012345678901234567890,"d":-0.123456789012345678901234567891,"a":[[],{},null,true,false,""]}"#;

fn json(text: &str) -> Json {
    Json::parse("test", text).expect("JSON")
}

fn array(text: &str) -> JsonArray {
    JsonArray::parse("test", text).expect("a JSON array")
}

async fn head(tenant: &TenantStore, id: SessionId) -> Session {
    tenant.sessions().get(id).await.expect("read").expect("the session is there")
}

fn field_of(error: Error) -> String {
    match error {
        Error::Invalid { field, .. } | Error::MissingReference { field, .. } => field,
        other => panic!("{other}"),
    }
}

/// One after the other.
pub async fn appends_get_1_2_3_and_move_their_session(home: &Home) {
    let made = session(&home.tenant).await;
    let mut last = None;
    for seq in 1..=5 {
        let message = home.tenant.messages().append(made.id, said(format!("{seq}"))).await.expect("appended");
        assert_eq!((message.seq, message.session_id), (seq, made.id));
        last = Some(message.created_at);
    }
    let after = head(&home.tenant, made.id).await;
    assert_eq!((after.message_count, after.last_seq, after.last_message_at), (5, 5, last));
    assert_eq!((after.revision, after.updated_at), (made.revision, made.updated_at), "the session did not change");
    let other = session(&home.tenant).await;
    assert_eq!(home.tenant.messages().append(other.id, said("first")).await.expect("appended").seq, 1);
}

/// A batch of messages, and batches beside each other.
pub async fn append_many_keeps_the_order_without_gap(home: &Home) {
    let made = session(&home.tenant).await;
    assert_eq!(home.tenant.messages().append_many(made.id, Vec::new()).await.expect("nothing to do"), []);
    let batch = |from: usize, count: usize| (from..from + count).map(|n| said(format!("{n}"))).collect::<Vec<_>>();
    let first = home.tenant.messages().append_many(made.id, batch(0, 7)).await.expect("appended");
    assert_eq!(first.iter().map(|m| m.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(messages(&home.tenant, made.id).await, first);
    let many = home.tenant.messages().append_many(made.id, batch(7, 2500)).await.expect("appended");
    assert_eq!((many[0].seq, many[2499].seq), (8, 2507));
    let stored = messages(&home.tenant, made.id).await;
    assert_eq!(stored[7..], many, "more than one statement holds come back in order");

    race(16, |writer| {
        let tenant = home.tenant.clone();
        async move {
            let batch = (0..20).map(|n| said(format!("{writer}/{n}"))).collect();
            let appended = tenant.messages().append_many(made.id, batch).await.expect("appended");
            let first = appended[0].seq;
            assert!(appended.iter().zip(first..).all(|(message, seq)| message.seq == seq), "a batch stays together");
        }
    })
    .await;
    assert_eq!(seqs(&home.tenant, made.id).await, (1..=2507 + 320).collect::<Vec<_>>());
    let after = head(&home.tenant, made.id).await;
    assert_eq!((after.message_count, after.last_seq), (2827, 2827));
}

/// A message with every column set.
fn full(author: UserId, agent: AgentId) -> NewMessage {
    NewMessage {
        id: None,
        role: MessageRole::Tool,
        kind: Some(MessageType::Thinking),
        content: Some(HARD_TEXT.into()),
        parts: Some(array(&format!(r#" [ {HARD_JSON} , 1e400, 1.10 ] "#))),
        tool_calls: Some(array(&format!(r#"[{{"id":"c1","function":{HARD_JSON}}}]"#))),
        tool_name: Some(HARD_TEXT.into()),
        tool_args: Some(json(r#" "a bare text \u0000" "#)),
        tool_call_id: Some(HARD_TEXT.into()),
        channel_payload: Some(json(HARD_JSON)),
        author_user_id: Some(author),
        agent_id: Some(agent),
        platform_message_id: Some(HARD_TEXT.into()),
        is_streaming: true,
        is_complete: Some(true),
        usage: Some(object(r#"{"input":1, "input":2}"#)),
        extra: Some(object(HARD_JSON)),
        metadata: object(HARD_JSON),
        created_at: Some("2001-02-03T04:05:06.789012Z".parse().expect("a time")),
    }
}

/// The letters of the JSON that is kept as text.
fn letters(message: &Message) -> Vec<Option<String>> {
    let array = |json: &Option<JsonArray>| json.as_ref().map(|json| json.as_str().to_owned());
    let any = |json: &Option<Json>| json.as_ref().map(|json| json.as_str().to_owned());
    let object = |json: &Option<agentkeep_core::JsonObject>| json.as_ref().map(|json| json.as_str().to_owned());
    vec![
        array(&message.parts),
        array(&message.tool_calls),
        any(&message.tool_args),
        any(&message.channel_payload),
        object(&message.usage),
        object(&message.extra),
    ]
}

/// Every column, on every way out.
pub async fn every_field_of_a_message_comes_back_exactly(home: &Home) {
    let store = home.tenant.messages();
    let author = user(&home.tenant, "ann@example.org").await.id;
    let agent = agent(&home.store, &home.tenant, i64::MAX).await;
    let made = session(&home.tenant).await;
    let new = full(author, agent);
    let appended = store.append(made.id, new.clone()).await.expect("appended");
    assert_eq!((appended.role, appended.kind), (MessageRole::Tool, MessageType::Thinking));
    assert_eq!((appended.is_streaming, appended.is_complete), (true, true));
    assert_eq!(Some(appended.created_at), new.created_at);
    let told = (&appended.content, &appended.tool_name, &appended.tool_call_id, &appended.platform_message_id);
    assert_eq!(told, (&new.content, &new.tool_name, &new.tool_call_id, &new.platform_message_id));
    assert_eq!((appended.author_user_id, appended.agent_id), (Some(author), Some(agent)));
    assert_eq!(
        (&appended.parts, &appended.tool_calls, &appended.tool_args),
        (&new.parts, &new.tool_calls, &new.tool_args)
    );
    assert_eq!(
        (&appended.channel_payload, &appended.usage, &appended.extra),
        (&new.channel_payload, &new.usage, &new.extra)
    );

    let batch = store.append_many(made.id, vec![NewMessage { platform_message_id: None, ..new }]).await;
    let batched = batch.expect("appended").remove(0);
    let listed = messages(&home.tenant, made.id).await;
    let recent = store.recent(made.id, 30).await.expect("read");
    for (index, message) in [&appended, &batched].into_iter().enumerate() {
        for read in [
            store.get(message.id).await.expect("read").expect("there"),
            store.get_by_seq(made.id, message.seq).await.expect("read").expect("there"),
            listed[index].clone(),
            recent[index].clone(),
        ] {
            assert_eq!(&read, message);
            assert_eq!(letters(&read), letters(message), "JSON that is not searched is kept to the letter");
        }
    }
    let by_platform = store.get_by_platform_message_id(made.id, HARD_TEXT).await.expect("read");
    assert_eq!(by_platform, Some(appended));
}

/// A message with nothing but its role, and what follows from the fields.
pub async fn what_was_not_given_stays_absent_and_the_type_follows(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    for (new, kind) in [
        (NewMessage::empty(MessageRole::User), MessageType::Text),
        (NewMessage::empty(MessageRole::System), MessageType::Text),
        (NewMessage::empty(MessageRole::Tool), MessageType::ToolResponse),
        (
            NewMessage { tool_calls: Some(array("[]")), ..NewMessage::empty(MessageRole::Assistant) },
            MessageType::ToolCall,
        ),
        (NewMessage { kind: Some(MessageType::Error), ..NewMessage::empty(MessageRole::Tool) }, MessageType::Error),
        (NewMessage { content: Some(String::new()), ..NewMessage::empty(MessageRole::User) }, MessageType::Text),
    ] {
        let appended = store.append(made.id, new.clone()).await.expect("appended");
        let read = store.get(appended.id).await.expect("read").expect("there");
        assert_eq!(read, appended);
        assert_eq!((read.kind, &read.content, &read.tool_calls), (kind, &new.content, &new.tool_calls));
        assert_eq!((&read.parts, &read.tool_args, &read.usage, &read.extra), (&None, &None, &None, &None));
        assert_eq!((&read.author_user_id, &read.agent_id, &read.platform_message_id), (&None, &None, &None));
        assert_eq!((read.is_streaming, read.is_complete, read.metadata.as_str()), (false, true, "{}"));
    }
    let streaming = NewMessage { is_streaming: true, ..NewMessage::empty(MessageRole::Assistant) };
    assert!(!store.append(made.id, streaming).await.expect("appended").is_complete);
}

/// Large texts, up to the limit.
pub async fn a_text_of_a_megabyte_and_of_16_comes_back_exactly(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    let hard = HARD_TEXT.repeat(1024 * 1024 / HARD_TEXT.len() + 1);
    let parts = serde_json::to_string(&[&hard]).expect("JSON");
    let new = NewMessage { parts: Some(array(&parts)), metadata: object(&format!(r#"{{"x":{parts}}}"#)), ..said(hard) };
    let appended = store.append(made.id, new).await.expect("a megabyte");
    assert!(store.get(appended.id).await.expect("read").expect("there") == appended, "a megabyte came back changed");
    let largest = store.append(made.id, said("x".repeat(limits::CONTENT_BYTES))).await.expect("16 MiB");
    let read = store.get(largest.id).await.expect("read").expect("there");
    assert!(read == largest, "16 MiB came back changed");
}

/// Texts over the limit, and names over theirs.
pub async fn a_text_over_its_limit_is_refused_by_field_and_nothing_changes(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    let kept = store.append(made.id, said("kept")).await.expect("appended");
    let long = "x".repeat(limits::CONTENT_BYTES + 1);
    let long_json = format!(r#"["{}"]"#, &long[..limits::CONTENT_BYTES - 3]);
    let name = "x".repeat(limits::NAME_BYTES + 1);
    let empty = || NewMessage::empty(MessageRole::User);
    for (field, new) in [
        ("content", said(long.clone())),
        ("parts", NewMessage { parts: Some(array(&long_json)), ..empty() }),
        ("tool_calls", NewMessage { tool_calls: Some(array(&long_json)), ..empty() }),
        ("tool_args", NewMessage { tool_args: Some(json(&long_json)), ..empty() }),
        ("channel_payload", NewMessage { channel_payload: Some(json(&long_json)), ..empty() }),
        ("metadata", NewMessage { metadata: object(&format!(r#"{{"x":{long_json}}}"#)), ..empty() }),
        ("extra", NewMessage { extra: Some(object(&format!(r#"{{"x":{long_json}}}"#))), ..empty() }),
        ("usage", NewMessage { usage: Some(object(&format!(r#"{{"x":{long_json}}}"#))), ..empty() }),
        ("tool_name", NewMessage { tool_name: Some(name.clone()), ..empty() }),
        ("tool_call_id", NewMessage { tool_call_id: Some(name.clone()), ..empty() }),
        ("platform_message_id", NewMessage { platform_message_id: Some(" ".into()), ..empty() }),
    ] {
        assert_eq!(field_of(store.append(made.id, new.clone()).await.expect_err(field)), field);
        let batch = vec![said("good"), new];
        let error = store.append_many(made.id, batch).await.expect_err(field);
        assert_eq!(field_of(error), format!("messages[1].{field}"));
    }
    let patch = MessagePatch { content: Some(Some(long)), ..MessagePatch::default() };
    assert_eq!(field_of(store.update(kept.id, patch).await.expect_err("too long")), "content");
    assert_eq!(messages(&home.tenant, made.id).await, [kept]);
}

/// A message that the platform delivers twice.
pub async fn a_repeated_platform_message_id_gives_the_first_message_back(home: &Home) {
    let store = home.tenant.messages();
    let (made, other) = (session(&home.tenant).await, session(&home.tenant).await);
    let first = store.append(made.id, delivered("wamid.1", "first")).await.expect("appended");
    let again = NewMessage { role: MessageRole::Assistant, ..delivered("wamid.1", "second") };
    assert_eq!(store.append(made.id, again).await.expect("found"), first);
    let elsewhere = store.append(other.id, delivered("wamid.1", "elsewhere")).await.expect("appended");
    assert_eq!((elsewhere.seq, elsewhere.content.as_deref()), (1, Some("elsewhere")));
    assert_eq!(store.append(made.id, said("next")).await.expect("appended").seq, 2, "no seq was used up");
    assert_eq!(head(&home.tenant, made.id).await.message_count, 2);
}

/// Deliveries at once, in a crowd of other appends.
pub async fn racing_repeats_of_one_platform_message_id_make_one_message_and_no_gap(home: &Home) {
    let made = session(&home.tenant).await;
    for round in 0..3_i64 {
        let id = format!("wamid.{round}");
        let ids = race(32, |racer| {
            let (tenant, id) = (home.tenant.clone(), id.clone());
            async move {
                if racer % 4 == 3 {
                    tenant.messages().append(made.id, said(format!("{racer}"))).await.expect("appended");
                    return None;
                }
                let message = tenant.messages().append(made.id, delivered(&id, &format!("{racer}"))).await;
                Some(message.expect("appended or found"))
            }
        })
        .await;
        let answers: Vec<Message> = ids.into_iter().flatten().collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "all were given the same message");
        let expected = (round + 1) * 9;
        assert_eq!(seqs(&home.tenant, made.id).await, (1..=expected).collect::<Vec<_>>());
        assert_eq!(head(&home.tenant, made.id).await.message_count, expected);
    }
}

/// A repeated delivery inside a batch.
pub async fn a_repeated_platform_message_id_in_a_batch_is_told_and_nothing_of_it_stays(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    store.append(made.id, delivered("1", "first")).await.expect("appended");
    for batch in [
        vec![said("a"), delivered("1", "again")],
        vec![delivered("2", "twice"), said("b"), delivered("2", "in one batch")],
    ] {
        match store.append_many(made.id, batch).await {
            Err(Error::AlreadyExists { entity: "message", field, .. }) => {
                assert!(field.contains("platform_message_id"), "{field}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seqs(&home.tenant, made.id).await, [1]);
    assert_eq!(store.append(made.id, said("next")).await.expect("appended").seq, 2);
}

/// System B's `fetch_recent_messages`.
pub async fn recent_gives_the_newest_messages_oldest_first(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    assert_eq!(store.recent(made.id, 30).await.expect("read"), []);
    let batch = (1..=40).map(|n| said(format!("{n}"))).collect();
    let all = store.append_many(made.id, batch).await.expect("appended");
    let noise = session(&home.tenant).await;
    store.append(noise.id, said("noise")).await.expect("appended");
    assert_eq!(store.recent(made.id, 30).await.expect("read"), all[10..]);
    assert_eq!(store.recent(made.id, 1).await.expect("read"), all[39..]);
    assert_eq!(store.recent(made.id, 1000).await.expect("read"), all);
    for limit in [0, 1001] {
        assert_eq!(field_of(store.recent(made.id, limit).await.expect_err("no such page")), "limit");
    }
    assert_eq!(store.recent(SessionId(Uuid::nil()), 30).await.expect("read"), []);
    assert_eq!(home.other.messages().recent(made.id, 30).await.expect("read"), []);
}

/// System A's `list_messages`.
pub async fn messages_are_listed_by_session_with_limit_offset_and_total(home: &Home) {
    let store = home.tenant.messages();
    let (made, noise) = (session(&home.tenant).await, session(&home.tenant).await);
    let all = store.append_many(made.id, (0..25).map(|n| said(format!("{n}"))).collect()).await.expect("appended");
    store.append_many(noise.id, vec![said("noise"); 3]).await.expect("appended");
    let of_session = || ListRequest::new().filter("session_id", made.id);
    for (page, range) in [(1, 0..10), (2, 10..20), (3, 20..25), (4, 25..25)] {
        let listed = store.list(&of_session().page(page, 10).with_total()).await.expect("listed");
        assert_eq!((&listed.items[..], listed.total), (&all[range], Some(25)), "page {page}");
    }
    let newest = of_session().order_by("seq", Direction::Descending).limit(3);
    let listed = store.list(&newest).await.expect("listed");
    assert_eq!(listed.items.iter().map(|m| m.seq).collect::<Vec<_>>(), [25, 24, 23]);
    assert_eq!((listed.total, listed.next.is_some()), (None, true), "a total costs a scan: only when asked for");
    let unknown = ListRequest::new().filter("session_id", Uuid::nil().to_string()).with_total();
    let nothing = store.list(&unknown).await.expect("listed");
    assert_eq!((nothing.items.len(), nothing.total, nothing.next), (0, Some(0), None));
    let everything = store.list(&ListRequest::new().limit(1000).with_total()).await.expect("listed");
    assert_eq!((everything.items.len(), everything.total), (28, Some(28)));
}

/// The filters of messages.
pub async fn messages_are_filtered_by_field(home: &Home) {
    let store = home.tenant.messages();
    let author = user(&home.tenant, "ann@example.org").await.id;
    let agent = agent(&home.store, &home.tenant, 1).await;
    let made = session(&home.tenant).await;
    store.append(made.id, full(author, agent)).await.expect("appended");
    let streaming = NewMessage { is_streaming: true, ..NewMessage::empty(MessageRole::Assistant) };
    store.append(made.id, streaming).await.expect("appended");
    store
        .append(made.id, NewMessage { metadata: object(r#"{"n":{"x":2}}"#), ..said("plain") })
        .await
        .expect("appended");
    let found = async |field: &str, value: agentkeep_core::FilterValue| {
        let page = store.list(&ListRequest::new().filter(field, value)).await;
        page.unwrap_or_else(|error| panic!("{field}: {error}")).items.iter().map(|m| m.seq).collect::<Vec<_>>()
    };
    assert_eq!(found("role", "assistant".into()).await, [2]);
    assert_eq!(found("type", "thinking".into()).await, [1]);
    assert_eq!(found("content", HARD_TEXT.into()).await, [1]);
    assert_eq!(found("content", None::<&str>.into()).await, [2]);
    assert_eq!(found("tool_name", HARD_TEXT.into()).await, [1]);
    assert_eq!(found("tool_call_id", HARD_TEXT.into()).await, [1]);
    assert_eq!(found("platform_message_id", HARD_TEXT.into()).await, [1]);
    assert_eq!(found("author_user_id", author.into()).await, [1]);
    assert_eq!(found("agent_id", agent.into()).await, [1]);
    assert_eq!(found("is_streaming", true.into()).await, [1, 2]);
    assert_eq!(found("is_complete", false.into()).await, [2]);
    assert_eq!(found("seq", 3_i64.into()).await, [3]);
    assert_eq!(found("metadata.n.x", 2.into()).await, [3]);
    assert_eq!(found("created_at", "2001-02-03T04:05:06.789012Z".into()).await, [1]);
}

/// Changes of a message.
pub async fn a_message_is_changed_and_the_rest_of_it_stays(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    let streaming = NewMessage {
        is_streaming: true,
        metadata: object(r#"{"kept":1,"gone":2}"#),
        extra: Some(object(r#"{"name":"ann"}"#)),
        ..NewMessage::text(MessageRole::Assistant, "par")
    };
    let first = store.append(made.id, streaming).await.expect("appended");
    let patch = MessagePatch {
        content: Some(Some(HARD_TEXT.into())),
        parts: Some(Some(array(HARD_JSON_ARRAY))),
        tool_calls: Some(Some(array("[{}]"))),
        kind: Some(MessageType::ToolCall),
        is_streaming: Some(false),
        is_complete: Some(true),
        usage: Some(Some(object(r#"{"input":7}"#))),
        metadata: Some(object(r#"{"gone":null,"new":"\u0000"}"#)),
    };
    let changed = store.update(first.id, patch).await.expect("changed");
    assert_eq!(changed.content.as_deref(), Some(HARD_TEXT));
    assert_eq!(changed.parts.as_ref().map(JsonArray::as_str), Some(HARD_JSON_ARRAY));
    assert_eq!((changed.kind, changed.is_streaming, changed.is_complete), (MessageType::ToolCall, false, true));
    assert_eq!(changed.metadata, object(r#"{"kept":1,"new":"\u0000"}"#));
    assert_eq!((&changed.extra, changed.seq, changed.created_at), (&first.extra, first.seq, first.created_at));
    assert!(changed.updated_at > first.updated_at);
    assert_eq!(store.get(first.id).await.expect("read"), Some(changed.clone()));

    let nothing = store.update(first.id, MessagePatch::default()).await.expect("nothing to change");
    assert_eq!(nothing, changed);
    let emptied = MessagePatch {
        content: Some(None),
        parts: Some(None),
        tool_calls: Some(None),
        usage: Some(None),
        ..MessagePatch::default()
    };
    let emptied = store.update(first.id, emptied).await.expect("changed");
    assert_eq!((emptied.content, emptied.parts, emptied.tool_calls, emptied.usage), (None, None, None, None));
    let missing = MessageId(Uuid::nil());
    for patch in [MessagePatch::default(), MessagePatch { is_complete: Some(true), ..MessagePatch::default() }] {
        let error = store.update(missing, patch).await.expect_err("missing");
        assert!(matches!(error, Error::NotFound { entity: "message", .. }), "{error}");
    }
    assert_eq!(head(&home.tenant, made.id).await.message_count, 1);
}

const HARD_JSON_ARRAY: &str = r#" [ "\u0000\u0010", 123456789012345678901234567890, 1E+2 ] "#;

/// Merges of a message's metadata at once.
pub async fn racing_patches_of_one_message_lose_nothing(home: &Home) {
    let made = session(&home.tenant).await;
    let message = home.tenant.messages().append(made.id, said("x")).await.expect("appended");
    race(32, |racer| {
        let tenant = home.tenant.clone();
        async move {
            let metadata = Some(object(&format!(r#"{{"k{racer}":{racer}}}"#)));
            let patch = MessagePatch { metadata, ..MessagePatch::default() };
            tenant.messages().update(message.id, patch).await.expect("patched");
        }
    })
    .await;
    let read = home.tenant.messages().get(message.id).await.expect("read").expect("there");
    assert_eq!(read.metadata.to_value().as_object().map(serde_json::Map::len), Some(32));
}

/// A deleted message leaves its place empty.
pub async fn deleting_a_message_keeps_the_seq_of_the_others(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    let all = store.append_many(made.id, vec![said("x"); 5]).await.expect("appended");
    store.delete(all[1].id).await.expect("deleted");
    store.delete(all[4].id).await.expect("deleted");
    assert_eq!(seqs(&home.tenant, made.id).await, [1, 3, 4]);
    let after = head(&home.tenant, made.id).await;
    assert_eq!((after.message_count, after.last_seq), (3, 5));
    assert_eq!(store.append(made.id, said("next")).await.expect("appended").seq, 6);
    assert_eq!(store.get(all[1].id).await.expect("read"), None);
    assert_eq!(store.get_by_seq(made.id, 2).await.expect("read"), None);
    for missing in [all[1].id, MessageId(Uuid::nil())] {
        assert!(matches!(store.delete(missing).await, Err(Error::NotFound { entity: "message", .. })));
    }
    assert_eq!(head(&home.tenant, made.id).await.message_count, 4, "a second delete counts nothing");
}

/// Deletes of one message at once: one does it.
pub async fn of_racing_deletes_of_one_message_one_counts(home: &Home) {
    let made = session(&home.tenant).await;
    let all = home.tenant.messages().append_many(made.id, vec![said("x"); 3]).await.expect("appended");
    let victim = all[1].id;
    let outcomes = race(16, |_| {
        let tenant = home.tenant.clone();
        async move { tenant.messages().delete(victim).await }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.into_iter().filter_map(Result::err).all(|error| matches!(error, Error::NotFound { .. })));
    assert_eq!(head(&home.tenant, made.id).await.message_count, 2);
}

/// A session that is not there, was deleted, or is another tenant's.
pub async fn an_append_to_an_unknown_session_is_not_found(home: &Home) {
    let store = home.tenant.messages();
    let theirs = session(&home.other).await;
    let gone = session(&home.tenant).await;
    home.tenant.sessions().delete(gone.id).await.expect("deleted");
    for id in [SessionId(Uuid::nil()), theirs.id, gone.id] {
        for outcome in [
            store.append(id, said("x")).await.map(|_| ()),
            store.append(id, delivered("1", "x")).await.map(|_| ()),
            store.append_many(id, vec![said("x"), said("y")]).await.map(|_| ()),
        ] {
            match outcome {
                Err(Error::NotFound { entity: "session", key }) => assert_eq!(key, id.to_string()),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(rows_of(&home.store, &home.tenant, "messages").await, 0);
    assert_eq!(rows_of(&home.store, &home.other, "messages").await, 0);
}

/// Ids that are taken.
pub async fn a_taken_message_id_is_told_and_leaves_no_gap(home: &Home) {
    let store = home.tenant.messages();
    let (made, other) = (session(&home.tenant).await, session(&home.tenant).await);
    let first = store.append(made.id, said("first")).await.expect("appended");
    let same_id = || NewMessage { id: Some(first.id), ..said("second") };
    for outcome in [
        store.append(made.id, same_id()).await.map(|_| ()),
        store.append(other.id, same_id()).await.map(|_| ()),
        store.append_many(made.id, vec![said("a"), same_id()]).await.map(|_| ()),
    ] {
        match outcome {
            Err(Error::AlreadyExists { entity: "message", field, value }) => {
                assert_eq!((field.as_str(), value), ("id", first.id.to_string()));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(store.append(made.id, said("next")).await.expect("appended").seq, 2);
    assert_eq!(store.append(other.id, said("first there")).await.expect("appended").seq, 1);
    let theirs = session(&home.other).await;
    let copied = home.other.messages().append(theirs.id, same_id()).await.expect("ids are the tenant's own");
    assert_eq!((copied.id, copied.seq), (first.id, 1));
}

/// Author and agent have to be of this tenant.
pub async fn a_missing_or_foreign_author_or_agent_is_told(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    let theirs = user(&home.other, "ann@example.org").await.id;
    let their_agent = agent(&home.store, &home.other, 9).await;
    for (wanted, new) in [
        ("author_user_id", NewMessage { author_user_id: Some(UserId(Uuid::nil())), ..said("x") }),
        ("author_user_id", NewMessage { author_user_id: Some(theirs), ..said("x") }),
        ("agent_id", NewMessage { agent_id: Some(AgentId(404)), ..said("x") }),
        ("agent_id", NewMessage { agent_id: Some(their_agent), ..said("x") }),
    ] {
        assert_eq!(field_of(store.append(made.id, new.clone()).await.expect_err(wanted)), wanted);
        let error = store.append_many(made.id, vec![said("good"), new]).await.expect_err(wanted);
        assert_eq!(field_of(error), format!("messages[1].{wanted}"));
    }
    assert_eq!(messages(&home.tenant, made.id).await, []);
}

/// SQL in any string.
pub async fn sql_in_any_string_is_stored_as_text(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    let attacks = [
        "'; DROP TABLE messages; --",
        "\"; DELETE FROM sessions; --",
        "' OR '1'='1",
        "$1",
        "?1; --",
        "\\'); DROP TABLE users; --",
        "%' UNION SELECT * FROM users --",
        "/* */ COMMIT",
    ];
    for attack in attacks {
        let new = NewMessage {
            content: Some(attack.into()),
            tool_name: Some(attack.into()),
            tool_call_id: Some(attack.into()),
            platform_message_id: Some(attack.into()),
            metadata: object(&serde_json::json!({ attack: attack }).to_string()),
            ..NewMessage::empty(MessageRole::User)
        };
        let appended = store.append(made.id, new).await.expect("stored");
        assert_eq!(store.get(appended.id).await.expect("read"), Some(appended.clone()));
        let found = store.list(&ListRequest::new().filter("content", attack)).await.expect("listed").items;
        assert_eq!(found, std::slice::from_ref(&appended));
        let like = ListRequest::new().filter_by("tool_name", agentkeep_core::FilterOperator::Like, attack);
        let _ = store.list(&like).await;
        let field = ListRequest::new().filter(format!("metadata.{attack}"), attack);
        if let Ok(page) = store.list(&field).await {
            assert!(page.items.iter().all(|item| *item == appended), "{attack}");
        }
        assert!(store.list(&ListRequest::new().filter(attack, "x")).await.is_err(), "an unknown field");
        assert!(store.list(&ListRequest::new().order_by(attack, Direction::Ascending)).await.is_err());
    }
    assert_eq!(rows_of(&home.store, &home.tenant, "messages").await, attacks.len() as i64);
    assert_eq!(rows_of(&home.store, &home.tenant, "sessions").await, 1);
}

/// Appends inside a transaction of the caller's.
pub async fn appends_in_a_transaction_are_done_together_or_not_at_all(home: &Home) {
    let made = session(&home.tenant).await;
    let outcome = home.tenant.transaction(async |inside: TenantStore| {
        inside.messages().append(made.id, said("a")).await?;
        inside.messages().append_many(made.id, vec![said("b"), said("c")]).await?;
        Err::<(), _>(Error::invalid("test", "changed my mind"))
    });
    assert_eq!(field_of(outcome.await.expect_err("its own error")), "test");
    assert_eq!(seqs(&home.tenant, made.id).await, [0_i64; 0]);

    let done = home.tenant.transaction(async |inside: TenantStore| {
        let first = inside.messages().append(made.id, delivered("1", "a")).await?;
        // What fails inside is undone alone, and the transaction goes on.
        let taken = inside.messages().append(made.id, NewMessage { id: Some(first.id), ..said("b") }).await;
        assert!(matches!(taken, Err(Error::AlreadyExists { .. })), "{taken:?}");
        let again = inside.messages().append(made.id, delivered("1", "c")).await?;
        assert_eq!(again, first);
        inside.sessions().update(made.id, agentkeep_core::SessionPatch::default()).await?;
        inside.messages().append(made.id, said("d")).await
    });
    assert_eq!(done.await.expect("committed").seq, 2);
    assert_eq!(seqs(&home.tenant, made.id).await, [1, 2]);
    assert_eq!(head(&home.tenant, made.id).await.message_count, 2);
}

/// Old messages that come late.
pub async fn an_old_message_does_not_move_the_time_of_the_newest_back(home: &Home) {
    let store = home.tenant.messages();
    let made = session(&home.tenant).await;
    let newest = store.append(made.id, said("now")).await.expect("appended");
    let old = NewMessage { created_at: Some("1999-12-31T23:59:59.999999Z".parse().expect("a time")), ..said("then") };
    let old = store.append(made.id, old).await.expect("appended");
    assert_eq!(old.seq, 2);
    assert_eq!(head(&home.tenant, made.id).await.last_message_at, Some(newest.created_at));
}

/// Ids made by the store are new, and ascend with the time.
pub async fn message_ids_are_new_under_contention(home: &Home) {
    let made = session(&home.tenant).await;
    let ids = race(32, |_| {
        let tenant = home.tenant.clone();
        async move {
            let mut ids = Vec::new();
            for _ in 0..10 {
                ids.push(tenant.messages().append(made.id, said("x")).await.expect("appended").id);
            }
            ids
        }
    });
    let ids: Vec<MessageId> = ids.await.concat();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), 320);
    assert!(ids.iter().all(|id| id.0.get_version_num() == 7));
}
