//! What the cases share: short ways to make things, and to run many at once.

use agentkeep_core::{
    AgentId, JsonObject, ListRequest, Message, MessageRole, NewMessage, NewSession, NewUser, Page, Result, Session,
    SessionId, TeamId, User,
};
use uuid::Uuid;

use crate::{Store, TenantStore, Value};

/// A JSON object from its text.
#[must_use]
pub fn object(text: &str) -> JsonObject {
    JsonObject::parse("test", text).expect("a JSON object")
}

/// A message of a user.
#[must_use]
pub fn said(content: impl Into<String>) -> NewMessage {
    NewMessage::text(MessageRole::User, content)
}

/// A message with an id of its platform.
#[must_use]
pub fn delivered(platform_message_id: &str, content: &str) -> NewMessage {
    NewMessage { platform_message_id: Some(platform_message_id.into()), ..said(content) }
}

/// A session of a chat.
#[must_use]
pub fn chat(platform: &str, chat_id: &str) -> NewSession {
    NewSession { platform: Some(platform.into()), chat_id: Some(chat_id.into()), ..NewSession::default() }
}

/// Makes a session without anything particular.
pub async fn session(tenant: &TenantStore) -> Session {
    tenant.sessions().create(NewSession::default()).await.expect("a session")
}

/// Makes a user.
pub async fn user(tenant: &TenantStore, email: &str) -> User {
    let new = NewUser { email: Some(email.into()), ..NewUser::default() };
    tenant.users().create(new).await.expect("a user")
}

/// Makes an agent by direct SQL: sessions and messages point to agents, and a case fails for one reason.
pub async fn agent(store: &Store, tenant: &TenantStore, id: i64) -> AgentId {
    let params = [
        Value::from(tenant.id()),
        Value::I64(id),
        Value::from(format!("agent {id}")),
        Value::from(object("{}")),
        Value::Bool(true),
        Value::from(tenant.now()),
        Value::Json(agentkeep_core::Json::from_stored("[]")),
    ];
    let sql = "INSERT INTO agents (tenant_id, id, name, type, config, version, active, run_id, persona, tools,
                   sub_agents, usage_count, metadata, created_at, updated_at)
               VALUES ($1, $2, $3, 'chat', $4, 1, $5, 0, $4, $7, $7, 0, $4, $6, $6)";
    assert_eq!(store.execute(sql, &params).await.expect("an agent"), 1);
    AgentId(id)
}

/// Makes a team by direct SQL.
pub async fn team(store: &Store, tenant: &TenantStore, name: &str) -> TeamId {
    let id: TeamId = tenant.new_id(tenant.now());
    let params = [
        Value::from(tenant.id()),
        Value::from(id),
        Value::from(name),
        Value::from(object("{}")),
        Value::Bool(true),
        Value::from(tenant.now()),
    ];
    let sql = "INSERT INTO teams (tenant_id, id, name, mode, routing, active, metadata, created_at, updated_at)
               VALUES ($1, $2, $3, 'route', $4, $5, $4, $6, $6)";
    assert_eq!(store.execute(sql, &params).await.expect("a team"), 1);
    id
}

/// Rows of a table that belong to a tenant, counted by direct SQL.
pub async fn rows_of(store: &Store, tenant: &TenantStore, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table} WHERE tenant_id = $1");
    match store.fetch_val(&sql, &[tenant.id().into()]).await.expect("counted") {
        Some(Value::I64(count)) => count,
        other => panic!("{other:?} is no count"),
    }
}

/// The seqs of all messages of a session, in order, read page by page.
pub async fn seqs(tenant: &TenantStore, session: SessionId) -> Vec<i64> {
    messages(tenant, session).await.iter().map(|message| message.seq).collect()
}

/// Every message of a session, in order, read page by page.
pub async fn messages(tenant: &TenantStore, session: SessionId) -> Vec<Message> {
    let mut request = ListRequest::new().filter("session_id", session).limit(1000);
    let mut messages = Vec::new();
    loop {
        let page = tenant.messages().list(&request).await.expect("a page");
        messages.extend(page.items);
        match page.next {
            Some(next) => request = request.after(next),
            None => return messages,
        }
    }
}

/// The items of all pages of a list.
pub async fn all_pages<T>(mut request: ListRequest, list: impl AsyncFn(ListRequest) -> Result<Page<T>>) -> Vec<T> {
    let mut items = Vec::new();
    loop {
        let page = list(request.clone()).await.expect("a page");
        items.extend(page.items);
        match page.next {
            Some(next) => request = request.after(next),
            None => return items,
        }
    }
}

/// Runs `count` tasks at once, started together; their results in order.
pub async fn race<T, Work>(count: usize, work: impl Fn(usize) -> Work) -> Vec<T>
where
    T: Send + 'static,
    Work: Future<Output = T> + Send + 'static,
{
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(count));
    let mut racers = Vec::with_capacity(count);
    for index in 0..count {
        let (start, work) = (std::sync::Arc::clone(&start), work(index));
        racers.push(tokio::spawn(async move {
            start.wait().await;
            work.await
        }));
    }
    let mut results = Vec::with_capacity(count);
    for racer in racers {
        results.push(racer.await.expect("no panic"));
    }
    results
}

/// A name that no other case uses, whatever runs on the same server: for a tenant, a table, a database.
#[must_use]
pub fn new_name(what: &str) -> String {
    // Not an id of ours: no clock of the store's has to decide it.
    #[allow(clippy::disallowed_methods)]
    let id = Uuid::now_v7();
    format!("{what}_{}", id.simple())
}
