//! What is heard of changes that other processes make, and what a streamed message would be without its fence.
//!
//! A second store on the same database stands for another process: nothing but the database connects the two.

#[macro_use]
mod support;

use std::time::Duration;

use agentkeep::{
    Change, Store, TenantStore,
    conformance::{
        streams::deltas_behind_the_end,
        support::{said, session},
    },
    core::{AgentId, Delta, Finish, MessageRole, NewMessage},
};
use support::Place;
use tokio::sync::{Notify, broadcast::Receiver};

on_each_engine! {
    a_waiter_is_woken_by_another_process,
    changes_are_heard_from_another_process,
    what_a_process_writes_itself_is_not_something_unknown,
    control_without_the_fence_deltas_come_behind_the_end,
}

const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(300);

/// Another process on the same database, and the same tenant there.
async fn another(place: &Place, tenant: &TenantStore) -> (Store, TenantStore) {
    let store = Store::open_with(place.store.config().clone()).await.expect("the database opens");
    let there = store.tenant(tenant.id());
    (store, there)
}

async fn woken(waiter: &Notify, patience: Duration) -> bool {
    tokio::time::timeout(patience, waiter.notified()).await.is_ok()
}

/// Waits until nothing is heard any more: in the beginning anything may have changed.
async fn quiet(changes: &mut Receiver<Change>) {
    while tokio::time::timeout(2 * SILENCE, changes.recv()).await.is_ok() {}
}

/// What is heard until nothing is any more.
async fn heard(changes: &mut Receiver<Change>) -> Vec<Change> {
    let mut heard = vec![tokio::time::timeout(PATIENCE, changes.recv()).await.expect("in time").expect("a change")];
    while let Ok(change) = tokio::time::timeout(SILENCE, changes.recv()).await {
        heard.push(change.expect("a change"));
    }
    heard
}

fn on_postgres(place: &Place) -> bool {
    place.store.config().url.starts_with("postgres")
}

async fn a_waiter_is_woken_by_another_process(place: &Place) {
    let tenant = place.tenant().await;
    let (store, there) = another(place, &tenant).await;
    let (made, other) = (session(&tenant).await, session(&tenant).await);
    let (waiter, bystander) = (tenant.session_waiter(made.id), tenant.session_waiter(other.id));
    while woken(&waiter, 2 * SILENCE).await || woken(&bystander, 2 * SILENCE).await {}
    let started = there.messages().start(made.id, NewMessage::empty(MessageRole::Assistant), None).await;
    let message = started.expect("started").id;
    assert!(woken(&waiter, PATIENCE).await, "a start");
    // One that is not told at once is told with the next, or once more.
    while woken(&waiter, SILENCE).await {}
    there.messages().delta(made.id, message, &Delta::text("x")).await.expect("grown");
    assert!(woken(&waiter, PATIENCE).await, "a delta");
    while woken(&waiter, SILENCE).await {}
    there.messages().finish(made.id, message, Finish::default()).await.expect("finished");
    assert!(woken(&waiter, PATIENCE).await, "an end");
    while woken(&waiter, SILENCE).await {}
    there.messages().append(made.id, said("x")).await.expect("appended");
    there.session_changed(made.id);
    assert!(woken(&waiter, PATIENCE).await, "what is told");
    // On SQLite all that is known is that another process wrote something.
    assert_eq!(woken(&bystander, SILENCE).await, !on_postgres(place), "another session");
    store.close().await;
}

async fn changes_are_heard_from_another_process(place: &Place) {
    let tenant = place.tenant().await;
    let (store, there) = another(place, &tenant).await;
    let made = session(&tenant).await;
    let mut changes = place.store.changes();
    quiet(&mut changes).await;
    there.agents().create(agentkeep::core::NewAgent::new("a")).await.expect("an agent");
    there.agent_changed(AgentId(1));
    there.session_changed(made.id);
    let heard = heard(&mut changes).await;
    if on_postgres(place) {
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard.contains(&Change::Agent(tenant.id(), AgentId(1))), "{heard:?}");
        assert!(heard.contains(&Change::Session(tenant.id(), made.id)), "{heard:?}");
    } else {
        assert!(!heard.is_empty() && heard.iter().all(|change| *change == Change::Anything), "{heard:?}");
    }
    store.close().await;
}

async fn what_a_process_writes_itself_is_not_something_unknown(place: &Place) {
    let tenant = place.tenant().await;
    let made = session(&tenant).await;
    let mut changes = place.store.changes();
    quiet(&mut changes).await;
    for _ in 0..200 {
        tenant.messages().append(made.id, said("x")).await.expect("appended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tenant.session_changed(made.id);
    tenant.agent_changed(AgentId(7));
    let wanted = [Change::Session(tenant.id(), made.id), Change::Agent(tenant.id(), AgentId(7))];
    assert_eq!(heard(&mut changes).await, wanted, "each once");
}

async fn control_without_the_fence_deltas_come_behind_the_end(place: &Place) {
    let tenant = place.tenant().await;
    assert_eq!(deltas_behind_the_end(&tenant, 5).await, 0);
    tenant.controls().without_stream_fence();
    assert!(deltas_behind_the_end(&tenant, 40).await > 0, "a look beforehand is not enough");
}
