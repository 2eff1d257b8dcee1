//! Tenants, and what keeps them apart.

use std::time::Duration;

use agentkeep_core::{
    Error, ListRequest, MessagePatch, NewMessage, NewRun, NewSession, NewTenant, NewUser, SessionPatch, TenantId,
    TenantPatch, UserPatch,
};

use super::{
    Home,
    support::{chat, delivered, messages, new_name, object, rows_of, said, session, user},
};
use crate::TenantStore;

/// The life of a tenant.
pub async fn a_tenant_is_created_read_changed_and_deleted_with_everything(home: &Home) {
    let tenants = home.store.tenants();
    let name = new_name("acme");
    let new = NewTenant { metadata: object(r#"{"plan":"\u0000","n":1.10}"#), ..NewTenant::new(name.clone()) };
    let created = tenants.create(new.clone()).await.expect("created");
    assert_eq!((&created.name, &created.metadata), (&new.name, &new.metadata));
    assert_eq!(tenants.get(created.id).await.expect("read").as_ref(), Some(&created));
    assert_eq!(tenants.get_by_name(&name).await.expect("read").as_ref(), Some(&created));
    let listed = tenants.list(&ListRequest::new().filter("name", name.as_str()).with_total()).await.expect("listed");
    assert_eq!((listed.items.as_slice(), listed.total), (&[created.clone()][..], Some(1)));

    match tenants.create(NewTenant::new(name.clone())).await {
        Err(Error::AlreadyExists { entity: "tenant", field, .. }) => assert_eq!(field, "name"),
        other => panic!("{other:?}"),
    }
    let patch = TenantPatch { metadata: Some(object(r#"{"plan":null,"x":2}"#)), ..TenantPatch::default() };
    let changed = tenants.update(created.id, patch).await.expect("changed");
    assert_eq!((&changed.name, &changed.metadata), (&name, &object(r#"{"n":1.10,"x":2}"#)));

    let inside = home.store.tenant(created.id);
    let ann = user(&inside, "ann@example.org").await;
    let of_ann = NewSession { user_id: Some(ann.id), ..chat("web", "1") };
    let made = inside.sessions().create(of_ann).await.expect("created");
    inside.messages().append(made.id, said("hello")).await.expect("appended");
    let run = NewRun::new(made.id, "me", inside.now());
    let run = inside.runs().create(run).await.expect("a run");
    inside.messages().start(made.id, said(""), Some(run.id)).await.expect("started");
    let kept = session(&home.tenant).await;
    tenants.delete(created.id).await.expect("deleted");
    assert_eq!(tenants.get(created.id).await.expect("read"), None);
    for table in ["users", "sessions", "session_heads", "messages", "session_events", "runs"] {
        assert_eq!(rows_of(&home.store, &inside, table).await, 0, "{table}");
    }
    assert!(home.tenant.sessions().get(kept.id).await.expect("read").is_some(), "the others are as they were");
    let again = tenants.create(NewTenant::new(name)).await.expect("the name is free again");
    assert!(again.id > created.id, "a number is not given twice");
    for error in [
        tenants.delete(created.id).await.expect_err("gone"),
        tenants.update(created.id, TenantPatch::default()).await.expect_err("gone"),
    ] {
        assert!(matches!(error, Error::NotFound { entity: "tenant", .. }), "{error}");
    }
    assert!(matches!(tenants.delete(TenantId::DEFAULT).await, Err(Error::Invalid { .. })));
    assert!(matches!(tenants.create(NewTenant::new(" ")).await, Err(Error::Invalid { field, .. }) if field == "name"));
}

/// A tenant that does not exist.
pub async fn an_unknown_tenant_is_named_by_writes_and_empty_to_reads(home: &Home) {
    let nowhere = home.store.tenant(TenantId(i32::MAX));
    for outcome in [
        nowhere.users().create(NewUser::default()).await.map(|_| ()),
        nowhere.sessions().create(NewSession::default()).await.map(|_| ()),
        nowhere.sessions().get_or_create(chat("web", "1")).await.map(|_| ()),
    ] {
        match outcome {
            Err(Error::MissingReference { field, entity: "tenant", .. }) => assert_eq!(field, "tenant_id"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(nowhere.users().list(&ListRequest::new()).await.expect("listed").items, []);
    assert_eq!(nowhere.sessions().list(&ListRequest::new()).await.expect("listed").items, []);
    assert_eq!(nowhere.messages().list(&ListRequest::new()).await.expect("listed").items, []);
}

fn is_not_found<T: std::fmt::Debug>(outcome: agentkeep_core::Result<T>) {
    assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
}

/// The same names in both; every function of one with the ids of the other.
pub async fn two_tenants_with_the_same_names_never_see_each_other(home: &Home) {
    let mut made = Vec::new();
    for tenant in [&home.tenant, &home.other] {
        let ann = user(tenant, "ann@example.org").await;
        let new = NewSession { user_id: Some(ann.id), name: Some("Help".into()), ..chat("web", "1") };
        let session = tenant.sessions().get_or_create(new).await.expect("a session");
        let message = tenant.messages().append(session.id, delivered("1", "hello")).await.expect("appended");
        made.push((ann, session, message));
    }
    let [(_, my_session, my_message), (their_ann, their_session, their_message)] = &made[..] else { panic!() };
    assert_ne!(my_session.id, their_session.id);
    assert_eq!((my_message.seq, their_message.seq), (1, 1));

    let (users, sessions, store) = (home.tenant.users(), home.tenant.sessions(), home.tenant.messages());
    assert_eq!(users.get(their_ann.id).await.expect("read"), None);
    assert_eq!(users.get_by_identifier(&their_ann.id.to_string()).await.expect("read"), None);
    assert_ne!(users.get_by_email("ann@example.org").await.expect("read").as_ref(), Some(their_ann));
    is_not_found(users.update(their_ann.id, UserPatch { name: Some(None), ..UserPatch::default() }).await);
    is_not_found(users.delete(their_ann.id).await);
    let upserted = NewUser { email: Some("ann@example.org".into()), name: Some("Ann".into()), ..NewUser::default() };
    assert_ne!(users.upsert(upserted).await.expect("upserted").id, their_ann.id);
    assert_eq!(users.list(&ListRequest::new().with_total()).await.expect("listed").total, Some(1));

    assert_eq!(sessions.get(their_session.id).await.expect("read"), None);
    let by_chat = sessions.get_by_chat("web", "1").await.expect("read").map(|session| session.id);
    assert_eq!(by_chat, Some(my_session.id));
    let found = sessions.get_or_create(chat("web", "1")).await.expect("found");
    assert_eq!(found.id, my_session.id);
    is_not_found(sessions.update(their_session.id, SessionPatch::default()).await);
    is_not_found(
        sessions.update(their_session.id, SessionPatch { revision: Some(1), ..SessionPatch::default() }).await,
    );
    is_not_found(sessions.finish(their_session.id).await);
    is_not_found(sessions.delete(their_session.id).await);
    for request in [
        ListRequest::new(),
        ListRequest::new().filter("name", "Help"),
        ListRequest::new().filter("id", their_session.id),
        ListRequest::new().filter("user_id", their_ann.id),
    ] {
        let listed = sessions.list(&request.with_total()).await.expect("listed");
        assert!(listed.items.iter().all(|session| session.id == my_session.id));
        assert_eq!(listed.total, Some(listed.items.len() as u64));
    }

    assert_eq!(store.get(their_message.id).await.expect("read"), None);
    assert_eq!(store.get_by_seq(their_session.id, 1).await.expect("read"), None);
    assert_eq!(store.get_by_platform_message_id(their_session.id, "1").await.expect("read"), None);
    assert_eq!(store.recent(their_session.id, 30).await.expect("read"), []);
    is_not_found(store.append(their_session.id, said("x")).await);
    is_not_found(store.append(their_session.id, delivered("1", "x")).await);
    is_not_found(store.append_many(their_session.id, vec![said("x")]).await);
    let patch = MessagePatch { content: Some(None), ..MessagePatch::default() };
    is_not_found(store.update(their_message.id, patch).await);
    is_not_found(store.update(their_message.id, MessagePatch::default()).await);
    is_not_found(store.delete(their_message.id).await);
    for request in [ListRequest::new(), ListRequest::new().filter("session_id", their_session.id)] {
        let listed = store.list(&request).await.expect("listed").items;
        assert!(listed.iter().all(|message| message == my_message));
    }

    // Nothing of theirs changed by any of it.
    assert_eq!(home.other.users().get(their_ann.id).await.expect("read").as_ref(), Some(their_ann));
    let expected = agentkeep_core::Session {
        message_count: 1,
        last_seq: 1,
        last_message_at: Some(their_message.created_at),
        ..their_session.clone()
    };
    assert_eq!(home.other.sessions().get(their_session.id).await.expect("read"), Some(expected));
    assert_eq!(messages(&home.other, their_session.id).await, std::slice::from_ref(their_message));
}

/// What a tenant does in the test below: it writes every table and reads it again.
async fn a_day_of_work(tenant: &TenantStore) {
    let new = NewUser { email: Some("bob@example.org".into()), ..NewUser::default() };
    let bob = tenant.users().upsert(new).await.expect("upserted");
    let new = NewSession { user_id: Some(bob.id), ..chat("web", "2") };
    let session = tenant.sessions().get_or_create(new).await.expect("a session");
    let first = tenant.messages().append(session.id, delivered("1", "hello")).await.expect("appended");
    let batch = vec![said("a"), NewMessage { id: Some(first_free(tenant)), ..said("b") }];
    tenant.messages().append_many(session.id, batch).await.expect("appended");
    let patch = MessagePatch { metadata: Some(object(r#"{"seen":1}"#)), ..MessagePatch::default() };
    tenant.messages().update(first.id, patch).await.expect("changed");
    tenant.messages().delete(first.id).await.expect("deleted");
    let patch = SessionPatch { state: Some(object(r#"{"step":1}"#)), ..SessionPatch::default() };
    tenant.sessions().update(session.id, patch).await.expect("changed");
    tenant.sessions().finish(session.id).await.expect("finished");
    assert_eq!(messages(tenant, session.id).await.len(), 2);
    tenant.users().delete(bob.id).await.expect("deleted");
    assert_eq!(tenant.sessions().get(session.id).await.expect("read"), None);
}

fn first_free(tenant: &TenantStore) -> agentkeep_core::MessageId {
    tenant.new_id(tenant.now())
}

/// A transaction that one tenant leaves open on all its rows.
pub async fn an_open_transaction_of_one_tenant_does_not_block_another(home: &Home) {
    let mine = session(&home.tenant).await;
    let theirs = session(&home.other).await;
    let tx = home.store.begin().await.expect("begun");
    let inside = home.store.tenant_in(&tx, home.tenant.id());
    a_day_of_work(&inside).await;
    let patch = SessionPatch { name: Some(Some("held".into())), ..SessionPatch::default() };
    inside.sessions().update(mine.id, patch).await.expect("changed");
    inside.messages().append(mine.id, said("held")).await.expect("appended");

    let other = home.other.clone();
    let mut work = tokio::spawn(async move {
        other.messages().append(theirs.id, said("free")).await.expect("appended");
        a_day_of_work(&other).await;
    });
    // The control: somebody who wants the row that is held waits.
    let tenant = home.tenant.clone();
    let patch = SessionPatch { state: Some(object(r#"{"late":1}"#)), ..SessionPatch::default() };
    let mut blocked = tokio::spawn(async move { tenant.sessions().update(mine.id, patch).await.expect("changed") });

    if has_one_writer(home) {
        // The others wait in turn, and finish.
        tokio::time::timeout(SHORT, &mut work).await.expect_err("a transaction is open");
    } else {
        tokio::time::timeout(LONG, &mut work).await.expect("not blocked").expect("no panic");
    }
    tokio::time::timeout(SHORT, &mut blocked).await.expect_err("the row of the session is held");
    tx.commit().await.expect("committed");
    assert_eq!(blocked.await.expect("no panic").name.as_deref(), Some("held"), "behind the transaction");
    if has_one_writer(home) {
        work.await.expect("no panic");
    }
    assert_eq!(home.other.sessions().get(theirs.id).await.expect("read").map(|session| session.last_seq), Some(1));
}

/// Appends that wait for a session which a transaction holds, while everybody else appends too.
pub async fn an_append_that_waits_for_its_session_holds_up_no_other(home: &Home) {
    let held = session(&home.tenant).await;
    let mut free = Vec::new();
    for tenant in [&home.tenant, &home.other] {
        for _ in 0..8 {
            free.push((tenant.clone(), session(tenant).await.id));
        }
    }
    let tx = home.store.begin().await.expect("begun");
    let inside = home.store.tenant_in(&tx, home.tenant.id());
    inside.messages().append(held.id, said("held")).await.expect("appended");
    let blocked: Vec<_> = (0..4)
        .map(|_| {
            let tenant = home.tenant.clone();
            tokio::spawn(async move { tenant.messages().append(held.id, said("waits")).await.expect("appended").seq })
        })
        .collect();
    tokio::time::sleep(SHORT).await;
    let mut work = tokio::spawn(async move {
        for _ in 0..3 {
            for (tenant, id) in &free {
                tenant.messages().append(*id, said("free")).await.expect("appended");
            }
        }
    });
    if has_one_writer(home) {
        tokio::time::timeout(SHORT, &mut work).await.expect_err("a transaction is open");
    } else {
        tokio::time::timeout(LONG, &mut work).await.expect("not held up").expect("no panic");
    }
    assert!(blocked.iter().all(|append| !append.is_finished()), "the session is held");
    tx.commit().await.expect("committed");
    let mut numbers = Vec::new();
    for append in blocked {
        numbers.push(append.await.expect("no panic"));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3, 4, 5], "behind the message of the transaction");
    if has_one_writer(home) {
        work.await.expect("no panic");
    }
}

/// What differs by necessity: SQLite has one writer, so writers wait for each other in turn.
fn has_one_writer(home: &Home) -> bool {
    home.store.engine().dialect().pick(false, true)
}

/// Long enough to see that somebody waits.
const SHORT: Duration = Duration::from_millis(200);
/// Long enough for everybody who does not wait, on a busy machine.
const LONG: Duration = Duration::from_secs(10);

/// Transactions of one tenant through the view of another.
pub async fn a_transaction_sees_its_own_tenant_only(home: &Home) {
    let theirs = session(&home.other).await;
    let outcome = home.tenant.transaction(async |inside: TenantStore| {
        let mine = inside.sessions().create(NewSession::default()).await?;
        assert_eq!(inside.sessions().get(theirs.id).await?, None);
        is_not_found(inside.sessions().delete(theirs.id).await);
        is_not_found(inside.messages().append(theirs.id, said("x")).await);
        inside.messages().append(mine.id, said("x")).await
    });
    assert_eq!(outcome.await.expect("committed").seq, 1);
    assert_eq!(rows_of(&home.store, &home.other, "messages").await, 0);
}
