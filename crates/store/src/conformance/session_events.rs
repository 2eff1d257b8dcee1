//! The events of sessions, and the stamps that tell whether anything changed.

use std::time::Duration;

use agentkeep_core::{
    Delta, Error, Finish, MessagePatch, MessageRole, NewMessage, NewSessionEvent, SessionEventKind, SessionId,
    SessionPatch, SessionStamp,
};
use uuid::Uuid;

use super::{
    Home,
    support::{object, race, rows_of, said, session},
};
use crate::{Lockable, TenantStore};

fn requested(data: &str) -> NewSessionEvent {
    NewSessionEvent { data: object(data), ..NewSessionEvent::new(SessionEventKind::ToolCallsRequested) }
}

/// The numbers of all events of a session, read page by page.
pub(super) async fn numbers(tenant: &TenantStore, session: SessionId) -> Vec<i64> {
    let mut numbers = Vec::new();
    loop {
        let page = tenant.session_events().after(session, numbers.last().copied().unwrap_or(0), 1000).await;
        let page = page.expect("a page");
        assert!(!page.gap, "nothing was pruned");
        if page.events.is_empty() {
            return numbers;
        }
        numbers.extend(page.events.iter().map(|event| event.number));
    }
}

/// What is appended comes back in order and page by page, exactly.
pub async fn events_get_1_2_3_and_are_read_behind_a_number(home: &Home) {
    let events = home.tenant.session_events();
    let made = session(&home.tenant).await;
    let empty = events.after(made.id, 0, 10).await.expect("a page");
    assert_eq!((empty.events.len(), empty.gap, empty.last_event), (0, false, 0));
    home.tenant.messages().append(made.id, said("hello")).await.expect("appended");
    let data = r#"{"n": 1.10, "nul":"\u0000", "dle":"\u0010", "smile":"\ud83d\ude00"}"#;
    for number in 1..=5 {
        assert_eq!(events.append(made.id, requested(data)).await.expect("appended"), number);
    }
    let page = events.after(made.id, 1, 3).await.expect("a page");
    assert_eq!(page.events.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((page.gap, page.last_event), (false, 5));
    let event = &page.events[0];
    assert_eq!((event.seq, event.kind, event.data.as_str()), (1, SessionEventKind::ToolCallsRequested, data));
    assert_eq!((event.message_id, event.run_id), (None, None));
    let rest = events.after(made.id, 5, 3).await.expect("a page");
    assert_eq!((rest.events.len(), rest.gap), (0, false));
    let beyond = events.after(made.id, 6, 3).await.expect("a page");
    assert!(beyond.gap, "a number that was never given");
    let read = home.tenant.sessions().get(made.id).await.expect("read").expect("there");
    assert_eq!((read.last_seq, read.message_count), (1, 1), "events are no messages");
}

/// What is wrong is told.
pub async fn bad_events_are_refused(home: &Home) {
    let events = home.tenant.session_events();
    let made = session(&home.tenant).await;
    for id in [SessionId(Uuid::nil()), session(&home.other).await.id] {
        let error = events.append(id, requested("{}")).await.expect_err("no such session");
        assert!(matches!(error, Error::NotFound { entity: "session", .. }), "{error}");
        let error = events.after(id, 0, 10).await.expect_err("no such session");
        assert!(matches!(error, Error::NotFound { entity: "session", .. }), "{error}");
    }
    for kind in [
        "message.started",
        "message.delta",
        "message.completed",
        "message.incomplete",
        "message.updated",
        "message.deleted",
    ] {
        let new = NewSessionEvent::new(kind.parse().expect("a kind"));
        let error = events.append(made.id, new).await.expect_err("not by hand");
        assert!(matches!(&error, Error::Invalid { field, .. } if field == "type"), "{error}");
    }
    assert!(events.after(made.id, 0, 0).await.is_err());
    assert!(events.after(made.id, 0, 1001).await.is_err());
    assert_eq!(rows_of(&home.store, &home.tenant, "session_events").await, 0);
    assert_eq!(home.tenant.sessions().stamps(&[made.id]).await.expect("read")[0].expect("there").last_event, 0);
}

/// Events and messages of some sessions at once: each has its own counter.
pub async fn racing_events_and_messages_are_numbered_without_gaps(home: &Home) {
    let sessions = [session(&home.tenant).await.id, session(&home.tenant).await.id, session(&home.tenant).await.id];
    race(12, |racer| {
        let (tenant, id) = (home.tenant.clone(), sessions[racer % 3]);
        async move {
            for _ in 0..20 {
                tenant.session_events().append(id, requested("{}")).await.expect("appended");
                tenant.messages().append(id, said("x")).await.expect("appended");
            }
        }
    })
    .await;
    for id in sessions {
        assert_eq!(numbers(&home.tenant, id).await, (1..=80).collect::<Vec<i64>>());
        assert_eq!(super::support::seqs(&home.tenant, id).await, (1..=80).collect::<Vec<i64>>());
    }
}

/// Old events go, and those who have not read them are told.
pub async fn pruned_events_are_told_as_a_gap(home: &Home) {
    let (events, messages) = (home.tenant.session_events(), home.tenant.messages());
    let made = session(&home.tenant).await;
    let start =
        async || messages.start(made.id, NewMessage::empty(MessageRole::Assistant), None).await.expect("started");
    let (done, open) = (start().await, start().await);
    messages.delta(made.id, done.id, &Delta::text("a")).await.expect("grown");
    messages.delta(made.id, open.id, &Delta::text("b")).await.expect("grown");
    messages.finish(made.id, done.id, Finish::default()).await.expect("finished");
    assert_eq!(events.streamed(made.id, 1, 9).await.expect("read"), [1, 2]);
    assert_eq!(events.streamed(made.id, 2, 9).await.expect("read"), [2]);
    assert_eq!(events.streamed(made.id, 3, 9).await.expect("read"), [0_i64; 0]);

    let past = home.tenant.now().minus(Duration::from_secs(3600));
    assert_eq!(events.prune(past).await.expect("pruned"), 0);
    let soon = home.tenant.now().plus(Duration::from_secs(3600));
    assert_eq!(home.other.session_events().prune(soon).await.expect("pruned"), 0, "nothing of another tenant");
    // Number 1, 3 and 5 are of the message that is done.
    assert_eq!(events.prune(soon).await.expect("pruned"), 3);
    let page = events.after(made.id, 0, 10).await.expect("a page");
    assert_eq!(page.events.iter().map(|event| event.number).collect::<Vec<_>>(), [2, 4]);
    assert_eq!((page.gap, page.last_event), (true, 5));
    for (number, limit, gap) in
        [(1, 1, false), (1, 10, true), (3, 1, false), (3, 10, true), (4, 10, true), (5, 1, false)]
    {
        let page = events.after(made.id, number, limit).await.expect("a page");
        assert_eq!(page.gap, gap, "{limit} behind {number}");
    }
    assert_eq!(events.streamed(made.id, 1, 9).await.expect("read"), [2], "the other is like any message");
    let grown = messages.finish(made.id, open.id, Finish::default()).await.expect("finished");
    assert_eq!(grown.content.as_deref(), Some("b"), "what streams is not pruned");
}

async fn stamp(tenant: &TenantStore, session: SessionId) -> SessionStamp {
    tenant.sessions().stamps(&[session]).await.expect("read")[0].expect("there")
}

/// Whatever changes a session, its messages or events changes its stamp; nothing else does.
pub async fn stamps_change_exactly_when_something_changed(home: &Home) {
    let (sessions, messages) = (home.tenant.sessions(), home.tenant.messages());
    let (made, other) = (session(&home.tenant).await, session(&home.tenant).await);
    let untouched = stamp(&home.tenant, other.id).await;
    let mut before = stamp(&home.tenant, made.id).await;
    assert_eq!((before.revision, before.last_seq, before.last_event, before.edits), (1, 0, 0, 0));
    let mut moved = async |what: &str| {
        let now = stamp(&home.tenant, made.id).await;
        assert_ne!(now, before, "{what}");
        assert_eq!(stamp(&home.tenant, made.id).await, now, "reading changes nothing");
        before = now;
        now
    };
    let message = messages.append(made.id, said("x")).await.expect("appended");
    assert_eq!(moved("an append").await.edits, 0, "an append edits nothing");
    let patch = MessagePatch { content: Some(Some("y".into())), ..MessagePatch::default() };
    messages.update(message.id, patch.clone()).await.expect("changed");
    let changed = moved("a changed message").await;
    assert_eq!((changed.edits, changed.last_event), (1, 1));
    messages.delete(message.id).await.expect("deleted");
    let deleted = moved("a deleted message").await;
    assert_eq!((deleted.edits, deleted.last_event), (2, 2));
    sessions
        .update(made.id, SessionPatch { name: Some(Some("n".into())), ..SessionPatch::default() })
        .await
        .expect("x");
    assert_eq!(moved("a changed session").await.revision, 2);
    home.tenant.session_events().append(made.id, requested("{}")).await.expect("appended");
    assert_eq!(moved("an event").await.last_event, 3);
    let streamed = messages.start(made.id, said(""), None).await.expect("started");
    moved("the start of a message").await;
    messages.delta(made.id, streamed.id, &Delta::text("x")).await.expect("grown");
    moved("a delta").await;
    messages.finish(made.id, streamed.id, Finish::default()).await.expect("finished");
    let last = moved("the end of a message").await;
    assert_eq!((last.edits, last.last_event, last.last_seq, last.message_count), (3, 6, 2, 1));

    // What fails or changes nothing leaves it as it is.
    messages.update(streamed.id, MessagePatch::default()).await.expect("nothing to change");
    assert!(messages.update(message.id, patch).await.is_err());
    assert!(messages.delete(message.id).await.is_err());
    assert!(messages.delta(made.id, streamed.id, &Delta::text("x")).await.is_err());
    assert!(messages.finish(made.id, streamed.id, Finish::default()).await.is_err());
    assert!(messages.append(made.id, NewMessage { id: Some(streamed.id), ..said("x") }).await.is_err());
    assert_eq!(stamp(&home.tenant, made.id).await, last);
    assert_eq!(stamp(&home.tenant, other.id).await, untouched);

    let missing = SessionId(Uuid::nil());
    let theirs = session(&home.other).await.id;
    let many = sessions.stamps(&[other.id, missing, made.id, theirs, other.id]).await.expect("read");
    assert_eq!(many, [Some(untouched), None, Some(last), None, Some(untouched)]);
    assert_eq!(sessions.stamps(&[]).await.expect("read"), []);
    let ids: Vec<SessionId> = (0..500).map(|number| SessionId(Uuid::from_u128(number))).chain([made.id]).collect();
    assert_eq!(sessions.stamps(&ids).await.expect("read").into_iter().flatten().count(), 1);
    assert!(matches!(sessions.stamps(&[made.id; 1001]).await, Err(Error::Invalid { field, .. }) if field == "ids"));
}

/// A message that is changed or deleted is told with the change itself, under the seq that it has.
pub async fn changes_of_messages_are_events(home: &Home) {
    let (messages, events) = (home.tenant.messages(), home.tenant.session_events());
    let (made, other) = (session(&home.tenant).await, session(&home.tenant).await);
    let all = messages.append_many(made.id, vec![said("a"), said("b"), said("c")]).await.expect("appended");
    let patch = MessagePatch { content: Some(Some("B".into())), ..MessagePatch::default() };
    let changed = messages.update(all[1].id, patch.clone()).await.expect("changed");
    messages.delete(all[0].id).await.expect("deleted");
    let page = events.after(made.id, 0, 10).await.expect("a page");
    assert_eq!((page.gap, page.last_event, page.last_seq), (false, 2, 3));
    let told: Vec<_> =
        page.events.iter().map(|event| (event.number, event.seq, event.kind, event.message_id)).collect();
    let (updated, deleted) = (SessionEventKind::MessageUpdated, SessionEventKind::MessageDeleted);
    assert_eq!(told, [(1, 2, updated, Some(all[1].id)), (2, 1, deleted, Some(all[0].id))]);
    assert_eq!(page.events[0].data.to_value(), serde_json::to_value(&changed).expect("JSON"));
    assert_eq!(page.events[1].data.as_str(), "{}");
    assert_eq!(
        events.streamed(made.id, 0, 9).await.expect("read"),
        [0_i64; 0],
        "no message is taken for a streamed one"
    );

    // What did not happen is not told: nothing there, nothing to change, of another tenant, taken back.
    messages.update(all[1].id, MessagePatch::default()).await.expect("nothing to change");
    assert!(messages.update(all[0].id, patch.clone()).await.is_err());
    assert!(messages.delete(all[0].id).await.is_err());
    assert!(home.other.messages().update(all[1].id, patch.clone()).await.is_err());
    assert!(home.other.messages().delete(all[1].id).await.is_err());
    let tx = home.store.begin().await.expect("a transaction");
    let inside = home.store.tenant_in(&tx, home.tenant.id());
    inside.messages().update(all[1].id, patch).await.expect("changed");
    inside.messages().delete(all[2].id).await.expect("deleted");
    tx.rollback().await.expect("rolled back");
    assert_eq!(numbers(&home.tenant, made.id).await, [1, 2]);
    assert_eq!(numbers(&home.tenant, other.id).await, [0_i64; 0]);
    let read = home.tenant.sessions().get(made.id).await.expect("read").expect("there");
    assert_eq!((read.last_seq, read.message_count), (3, 2));
}

/// Changes of messages, on conditions and without, beside appends and deltas: all are told, in numbers without gaps.
pub async fn racing_changes_of_messages_are_all_told(home: &Home) {
    let made = session(&home.tenant).await.id;
    let message = home.tenant.messages().append(made, said("x")).await.expect("appended").id;
    let streamed = home.tenant.messages().start(made, said(""), None).await.expect("started").id;
    race(12, |racer| {
        let tenant = home.tenant.clone();
        async move {
            for turn in 0..5 {
                let patch = MessagePatch { content: Some(Some(format!("{racer}.{turn}"))), ..MessagePatch::default() };
                match racer % 4 {
                    0 => drop(tenant.messages().update(message, patch).await.expect("changed")),
                    1 => {
                        let guarded = async |inside: TenantStore| {
                            inside.lock_updated_at(Lockable::Message(message)).await?;
                            inside.messages().update(message, patch.clone()).await.map(drop)
                        };
                        tenant.transaction(guarded).await.expect("changed");
                    }
                    2 => drop(tenant.messages().delta(made, streamed, &Delta::text("x")).await.expect("grown")),
                    _ => drop(tenant.messages().append(made, said("y")).await.expect("appended")),
                }
            }
        }
    })
    .await;
    let page = home.tenant.session_events().after(made, 0, 1000).await.expect("a page");
    let count = |kind| page.events.iter().filter(|event| event.kind == kind).count();
    assert!(!page.gap);
    assert_eq!((count(SessionEventKind::MessageUpdated), count(SessionEventKind::MessageDelta)), (30, 15));
    assert_eq!(page.last_event, 46);
    let last = page.events.iter().rfind(|event| event.kind == SessionEventKind::MessageUpdated).expect("a change");
    let read = home.tenant.messages().get(message).await.expect("read").expect("there");
    assert_eq!(last.data.to_value(), serde_json::to_value(&read).expect("JSON"), "the last one told is what is there");
}

/// Who waits for a session is woken by what happens in it, and by nothing else.
pub async fn those_who_wait_for_a_session_are_woken(home: &Home) {
    let (made, other) = (session(&home.tenant).await, session(&home.tenant).await);
    let (here, there) = (home.tenant.session_waiter(made.id), home.tenant.session_waiter(other.id));
    // The first look of who listens to other processes wakes everybody.
    let woken = async |waiter: &tokio::sync::Notify, patience: u64| {
        tokio::time::timeout(Duration::from_millis(patience), waiter.notified()).await.is_ok()
    };
    while woken(&here, 300).await || woken(&there, 300).await {}
    let mut changes = home.store.changes();
    let messages = home.tenant.messages();
    let run = home.tenant.transaction(async |inside: TenantStore| {
        inside.session_events().append(made.id, requested("{}")).await?;
        assert!(!woken(&here, 50).await, "not before the commit");
        Ok(())
    });
    run.await.expect("committed");
    assert!(woken(&here, 1000).await, "an event");
    let streamed = messages.start(made.id, said(""), None).await.expect("started");
    assert!(woken(&here, 1000).await, "a start");
    messages.delta(made.id, streamed.id, &Delta::text("x")).await.expect("grown");
    assert!(woken(&here, 1000).await, "a delta");
    messages.finish(made.id, streamed.id, Finish::default()).await.expect("finished");
    assert!(woken(&here, 1000).await, "an end");
    messages
        .update(streamed.id, MessagePatch { content: Some(Some("y".into())), ..MessagePatch::default() })
        .await
        .expect("changed");
    assert!(woken(&here, 1000).await, "a change");
    messages.delete(streamed.id).await.expect("deleted");
    assert!(woken(&here, 1000).await, "a deletion");
    home.tenant.session_changed(made.id);
    assert!(woken(&here, 1000).await, "what is told");
    let wanted = crate::Change::Session(home.tenant.id(), made.id);
    let told =
        tokio::time::timeout(Duration::from_secs(5), async { while changes.recv().await.expect("told") != wanted {} });
    told.await.expect("the change is told");
}
