//! Messages that are streamed in.

use std::collections::HashMap;

use agentkeep_core::{
    Delta, Error, Finish, Message, MessageId, MessagePatch, MessageRole, NewMessage, NewRun, SessionEvent,
    SessionEventKind, SessionId,
};
use uuid::Uuid;

use super::{
    Home,
    fixtures::array,
    session_events::numbers,
    support::{delivered, object, race, rows_of, said, session},
};
use crate::TenantStore;

fn answer() -> NewMessage {
    NewMessage::empty(MessageRole::Assistant)
}

async fn events(tenant: &TenantStore, session: SessionId) -> Vec<SessionEvent> {
    let mut events: Vec<SessionEvent> = Vec::new();
    loop {
        let number = events.last().map_or(0, |event| event.number);
        let page = tenant.session_events().after(session, number, 1000).await.expect("a page");
        assert!(!page.gap, "nothing was pruned");
        if page.events.is_empty() {
            return events;
        }
        events.extend(page.events);
    }
}

/// The message that the data of an event tells, as JSON.
fn told(event: &SessionEvent) -> serde_json::Value {
    event.data.to_value()
}

fn as_json(message: &Message) -> serde_json::Value {
    serde_json::to_value(message).expect("JSON")
}

/// The life of a streamed message.
pub async fn a_message_is_started_grows_and_is_finished(home: &Home) {
    let messages = home.tenant.messages();
    let made = session(&home.tenant).await;
    messages.append(made.id, said("hello")).await.expect("appended");
    let lease = home.tenant.now().plus(std::time::Duration::from_secs(60));
    let run = home.tenant.runs().create(NewRun::new(made.id, "me", lease)).await.expect("a run").id;
    let new = NewMessage { metadata: object(r#"{"kept":1}"#), ..answer() };
    let started = messages.start(made.id, new, Some(run)).await.expect("started");
    assert_eq!((started.seq, started.is_streaming, started.is_complete), (2, true, false));
    assert_eq!(messages.get(started.id).await.expect("read"), Some(started.clone()));
    let between = messages.append(made.id, said("and?")).await.expect("others go on");
    assert_eq!(between.seq, 3);
    let deltas = [
        Delta { thinking: Some("hm".into()), ..Delta::default() },
        Delta::text("Hel"),
        Delta { tool_calls: Some(array(r#"[{"index": 0}]"#)), ..Delta::text("lo") },
    ];
    for (delta, number) in deltas.iter().zip(3..) {
        assert_eq!(messages.delta(made.id, started.id, delta).await.expect("grown"), number);
    }
    let now = messages.get(started.id).await.expect("read").expect("there");
    assert_eq!(now, started, "the row is as it began");
    let end = Finish {
        tool_calls: Some(array(r#"[{"id":"1"}]"#)),
        parts: Some(array(r#"[{"type":"text"}]"#)),
        usage: Some(object(r#"{"input":7}"#)),
        metadata: Some(object(r#"{"new":2}"#)),
        ..Finish::default()
    };
    let ended = messages.finish(made.id, started.id, end.clone()).await.expect("finished");
    assert_eq!((ended.content.as_deref(), ended.is_streaming, ended.is_complete), (Some("Hello"), false, true));
    assert_eq!((&ended.tool_calls, &ended.parts, &ended.usage), (&end.tool_calls, &end.parts, &end.usage));
    assert_eq!((&ended.metadata, ended.seq), (&object(r#"{"kept":1,"new":2}"#), 2));
    assert_eq!(messages.get(started.id).await.expect("read"), Some(ended.clone()));

    let events = events(&home.tenant, made.id).await;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["run.started", "message.started", "message.delta", "message.delta", "message.delta", "message.completed"]
    );
    assert!(events[1..].iter().all(|event| event.seq == 2 && event.message_id == Some(started.id)));
    assert_eq!((events[1].run_id, events[5].run_id), (Some(run), Some(run)));
    assert_eq!(told(&events[1]), as_json(&started));
    assert_eq!(told(&events[5]), as_json(&ended));
    for (event, delta) in events[2..].iter().zip(&deltas) {
        assert_eq!(event.data.decode::<Delta>("delta").expect("a delta"), *delta);
    }
}

/// A content of one's own, or none at all.
pub async fn the_content_is_what_was_given_or_what_it_began_with_and_its_deltas(home: &Home) {
    let messages = home.tenant.messages();
    let made = session(&home.tenant).await;
    for (began, deltas, given, wanted) in [
        (None, vec![], None, None),
        (None, vec!["a", "b"], None, Some("ab")),
        (Some("0"), vec!["a"], None, Some("0a")),
        (Some("0"), vec!["a"], Some("given"), Some("given")),
        (None, vec!["a"], Some(""), Some("")),
        (None, vec![""], None, Some("")),
    ] {
        let new = NewMessage { content: began.map(str::to_owned), ..answer() };
        let started = messages.start(made.id, new, None).await.expect("started");
        for delta in deltas {
            messages.delta(made.id, started.id, &Delta::text(delta)).await.expect("grown");
        }
        let end = Finish { content: given.map(str::to_owned), ..Finish::default() };
        let ended = messages.finish(made.id, started.id, end).await.expect("finished");
        assert_eq!(ended.content.as_deref(), wanted);
    }
    // One that was appended as streaming, without being told.
    let plain = messages.append(made.id, NewMessage { is_streaming: true, ..said("a") }).await.expect("appended");
    messages.delta(made.id, plain.id, &Delta::text("b")).await.expect("grown");
    let ended = messages.finish(made.id, plain.id, Finish::default()).await.expect("finished");
    assert_eq!(ended.content.as_deref(), Some("ab"));
}

/// Thousands of deltas with every character there is, while others stream in the same session.
pub async fn ten_thousand_deltas_are_put_together_exactly(home: &Home) {
    let messages = home.tenant.messages();
    let made = session(&home.tenant).await;
    let (long, other) = (
        messages.start(made.id, answer(), None).await.expect("started"),
        messages.start(made.id, answer(), None).await.expect("started"),
    );
    let pieces = ["a", "\0", "\u{10}0", "😀", "e\u{301}", "\\u0000", "\"", "\r\n", "'; --", "", "\u{10}\0"];
    let mut wanted = String::new();
    for number in 0..10_000 {
        let piece = pieces[number % pieces.len()];
        wanted.push_str(piece);
        messages.delta(made.id, long.id, &Delta::text(piece)).await.expect("grown");
        if number % 100 == 0 {
            messages.delta(made.id, other.id, &Delta::text("x")).await.expect("grown");
        }
    }
    let ended = messages.finish(made.id, long.id, Finish::default()).await.expect("finished");
    assert_eq!(ended.content.as_deref(), Some(wanted.as_str()));
    let ended = messages.finish(made.id, other.id, Finish::default()).await.expect("finished");
    assert_eq!(ended.content, Some("x".repeat(100)));
    let stored = messages.get(long.id).await.expect("read").expect("there");
    assert_eq!(stored.content, Some(wanted));
}

/// An end with an error.
pub async fn a_message_that_breaks_off_stays_incomplete_and_says_why(home: &Home) {
    let messages = home.tenant.messages();
    let made = session(&home.tenant).await;
    let new = NewMessage { metadata: object(r#"{"a":1}"#), ..answer() };
    let started = messages.start(made.id, new, None).await.expect("started");
    messages.delta(made.id, started.id, &Delta::text("half")).await.expect("grown");
    let failed = Finish { metadata: Some(object(r#"{"b":2}"#)), ..Finish::failed("overloaded", "try\0again") };
    let ended = messages.finish(made.id, started.id, failed).await.expect("ended");
    assert_eq!((ended.is_streaming, ended.is_complete, ended.content.as_deref()), (false, false, Some("half")));
    let wanted = r#"{"a":1,"b":2,"error":{"code":"overloaded","message":"try\u0000again"}}"#;
    assert_eq!(ended.metadata, object(wanted));
    let events = events(&home.tenant, made.id).await;
    let last = events.last().expect("an event");
    assert_eq!((last.kind, told(last)), (SessionEventKind::MessageIncomplete, as_json(&ended)));
    let error = messages.finish(made.id, started.id, Finish::failed(" ", "x")).await.expect_err("no code");
    assert!(matches!(&error, Error::Invalid { field, .. } if field == "error.code"), "{error}");
    let error = messages.delta(made.id, started.id, &Delta::text("x")).await.expect_err("over");
    assert!(matches!(&error, Error::IllegalTransition { from, .. } if from == "incomplete"), "{error}");
}

/// What does not stream does not grow, and is not finished.
pub async fn a_message_that_is_not_streaming_is_refused_and_nothing_is_stored(home: &Home) {
    let messages = home.tenant.messages();
    let (made, other) = (session(&home.tenant).await, session(&home.tenant).await);
    let plain = messages.append(made.id, said("x")).await.expect("appended");
    let done = messages.start(made.id, answer(), None).await.expect("started");
    messages.finish(made.id, done.id, Finish::default()).await.expect("finished");
    let open = messages.start(made.id, answer(), None).await.expect("started");
    let before = events(&home.tenant, made.id).await;
    for id in [plain.id, done.id] {
        for error in [
            messages.delta(made.id, id, &Delta::text("y")).await.expect_err("a delta"),
            messages.finish(made.id, id, Finish::default()).await.map(|_| 0).expect_err("an end"),
        ] {
            match error {
                Error::IllegalTransition { entity: "message", key, from, .. } => {
                    assert_eq!((key, from.as_str()), (id.to_string(), "complete"));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // Of no session, of another session, of another tenant.
    let missing = MessageId(Uuid::nil());
    for (tenant, session, message, entity) in [
        (&home.tenant, made.id, missing, "message"),
        (&home.tenant, other.id, open.id, "message"),
        (&home.tenant, SessionId(Uuid::nil()), open.id, "session"),
        (&home.other, made.id, open.id, "session"),
    ] {
        for error in [
            tenant.messages().delta(session, message, &Delta::text("y")).await.expect_err("a delta"),
            tenant.messages().finish(session, message, Finish::default()).await.map(|_| 0).expect_err("an end"),
        ] {
            assert!(matches!(&error, Error::NotFound { entity: found, .. } if *found == entity), "{error}");
        }
    }
    assert_eq!(events(&home.tenant, made.id).await, before);
    assert_eq!(messages.get(plain.id).await.expect("read"), Some(plain));
    assert_eq!(rows_of(&home.store, &home.other, "session_events").await, 0);
    // A refusal among many harms nobody.
    let outcomes = race(16, |racer| {
        let (tenant, id) = (home.tenant.clone(), if racer % 4 == 0 { done.id } else { open.id });
        async move { tenant.messages().delta(made.id, id, &Delta::text("z")).await }
    })
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 12);
    assert_eq!(numbers(&home.tenant, made.id).await.len(), before.len() + 12);
    let ended = messages.finish(made.id, open.id, Finish::default()).await.expect("finished");
    assert_eq!(ended.content, Some("z".repeat(12)));
}

/// A message of a platform is started once.
pub async fn a_repeated_start_gives_the_first_message_back(home: &Home) {
    let messages = home.tenant.messages();
    let made = session(&home.tenant).await;
    let first = messages.start(made.id, delivered("1", "a"), None).await.expect("started");
    assert_eq!(messages.start(made.id, delivered("1", "b"), None).await.expect("started"), first);
    let racers = race(8, |_| {
        let tenant = home.tenant.clone();
        async move { tenant.messages().start(made.id, delivered("2", "c"), None).await.expect("started").id }
    })
    .await;
    assert!(racers.iter().all(|id| *id == racers[0]));
    assert_eq!(events(&home.tenant, made.id).await.len(), 2, "each is told once");
    let taken = messages.start(made.id, NewMessage { id: Some(first.id), ..answer() }, None).await;
    assert!(matches!(taken, Err(Error::AlreadyExists { entity: "message", .. })), "{taken:?}");
    let gone = messages.start(SessionId(Uuid::nil()), answer(), None).await;
    assert!(matches!(gone, Err(Error::NotFound { entity: "session", .. })), "{gone:?}");
    let nobody = messages.start(made.id, answer(), Some(agentkeep_core::RunId(Uuid::nil()))).await;
    assert!(matches!(nobody, Err(Error::MissingReference { entity: "run", .. })), "{nobody:?}");
    assert_eq!(super::support::seqs(&home.tenant, made.id).await, [1, 2]);
    assert_eq!(numbers(&home.tenant, made.id).await, [1, 2], "what fails leaves no gap");
}

/// Many streams in one session at once.
pub async fn sixteen_streams_on_one_session_are_numbered_without_gaps(home: &Home) {
    let made = session(&home.tenant).await;
    let ended = race(16, |racer| {
        let tenant = home.tenant.clone();
        async move {
            let messages = tenant.messages();
            let started = messages.start(made.id, answer(), None).await.expect("started");
            let mut last = 0;
            for number in 0..25 {
                let text = format!("{racer}.{number} ");
                let number = messages.delta(made.id, started.id, &Delta::text(text)).await.expect("grown");
                assert!(number > last, "in order");
                last = number;
            }
            messages.finish(made.id, started.id, Finish::default()).await.expect("finished")
        }
    })
    .await;
    for (racer, message) in ended.iter().enumerate() {
        let wanted: String = (0..25).map(|number| format!("{racer}.{number} ")).collect();
        assert_eq!(message.content.as_ref(), Some(&wanted));
    }
    assert_eq!(numbers(&home.tenant, made.id).await, (1..=16 * 27).collect::<Vec<i64>>());
    let mut ended: HashMap<MessageId, bool> = HashMap::new();
    for event in events(&home.tenant, made.id).await {
        let message = event.message_id.expect("a message");
        assert_ne!(ended.get(&message), Some(&true), "nothing comes behind the end");
        ended.insert(message, event.kind == SessionEventKind::MessageCompleted);
    }
}

/// Deltas that race the end of their message: how many were acknowledged and came behind it.
pub async fn deltas_behind_the_end(tenant: &TenantStore, rounds: usize) -> usize {
    let mut behind = 0;
    for _ in 0..rounds {
        let made = session(tenant).await;
        let started = tenant.messages().start(made.id, answer(), None).await.expect("started");
        let outcomes = race(8, |racer| {
            let tenant = tenant.clone();
            async move {
                if racer == 0 {
                    tokio::task::yield_now().await;
                    tenant.messages().finish(made.id, started.id, Finish::default()).await.expect("finished");
                    return 0;
                }
                let mut grown = 0;
                while tenant.messages().delta(made.id, started.id, &Delta::text("x")).await.is_ok() {
                    grown += 1;
                }
                grown
            }
        })
        .await;
        let acknowledged: usize = outcomes.into_iter().sum();
        let events = events(tenant, made.id).await;
        let end = events.iter().position(|event| event.kind == SessionEventKind::MessageCompleted).expect("an end");
        behind += events.len() - end - 1;
        assert_eq!(events.len(), acknowledged + 2, "what was acknowledged is there, and nothing else is");
        let content = tenant.messages().get(started.id).await.expect("read").expect("there").content;
        assert_eq!(content.map_or(0, |text| text.len()), end - 1, "the content is what was told before the end");
    }
    behind
}

/// A delta that races the end comes before it or is refused.
pub async fn no_delta_comes_behind_the_end(home: &Home) {
    assert_eq!(deltas_behind_the_end(&home.tenant, 15).await, 0);
}

/// The session goes while messages stream into it.
pub async fn a_session_that_is_deleted_while_streaming_leaves_nothing(home: &Home) {
    for _ in 0..5 {
        let made = session(&home.tenant).await;
        let started = home.tenant.messages().start(made.id, answer(), None).await.expect("started");
        race(9, |racer| {
            let tenant = home.tenant.clone();
            async move {
                if racer == 0 {
                    tenant.sessions().delete(made.id).await.expect("deleted");
                    return;
                }
                let error = loop {
                    let grown = match racer {
                        1 => tenant.messages().start(made.id, answer(), None).await.map(|_| ()),
                        2 => tenant.messages().finish(made.id, started.id, Finish::failed("x", "y")).await.map(|_| ()),
                        _ => tenant.messages().delta(made.id, started.id, &Delta::text("x")).await.map(|_| ()),
                    };
                    match grown {
                        Err(Error::IllegalTransition { .. }) | Ok(()) => tokio::task::yield_now().await,
                        Err(error) => break error,
                    }
                };
                assert!(matches!(error, Error::NotFound { .. }), "{error}");
            }
        })
        .await;
    }
    for table in ["session_events", "session_heads", "messages", "runs"] {
        assert_eq!(rows_of(&home.store, &home.tenant, table).await, 0, "{table}");
    }
}

/// Inside a transaction of the caller's.
pub async fn streams_in_a_transaction_are_done_with_it(home: &Home) {
    let made = session(&home.tenant).await;
    let outcome = home.tenant.transaction(async |inside: TenantStore| {
        let started = inside.messages().start(made.id, answer(), None).await?;
        inside.messages().delta(made.id, started.id, &Delta::text("x")).await?;
        inside.messages().finish(made.id, started.id, Finish::default()).await?;
        // What is refused is undone alone.
        assert!(inside.messages().delta(made.id, started.id, &Delta::text("y")).await.is_err());
        inside
            .messages()
            .update(started.id, MessagePatch { is_complete: Some(true), ..MessagePatch::default() })
            .await?;
        Err::<(), _>(Error::invalid("test", "changed my mind"))
    });
    assert!(matches!(outcome.await, Err(Error::Invalid { .. })));
    assert_eq!(rows_of(&home.store, &home.tenant, "session_events").await, 0);
    assert_eq!(numbers(&home.tenant, made.id).await, [0_i64; 0]);
}
