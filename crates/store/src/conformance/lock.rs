//! Rows under lock: changes on the condition that nobody else has made one.

use agentkeep_core::{
    ArtifactKind, BudgetPeriod, Error, Money, NewAgent, NewApiKey, NewArtifact, NewBudget, NewDeployment, NewJob,
    NewJobSchedule, NewMcpServer, NewMemory, NewPreference, NewPrice, NewPrompt, NewTeam, NewTenant, NewUser, Result,
    Scope, TenantPatch, Timestamp, TokenKind, User, UserId, UserPatch,
};

use super::{
    Home,
    fixtures::{message, object, race, session},
    support,
};
use crate::{Lockable, TenantStore, Tenants};

/// One of every kind, and when it was last changed.
async fn one_of_each(home: &Home) -> Vec<(Lockable, Timestamp)> {
    let (tenant, dollar) = (&home.tenant, Money::from_units(1_000_000_000_000));
    let own = home.store.tenants().get(tenant.id()).await.expect("read").expect("a tenant");
    let user = tenant.users().create(NewUser::default()).await.expect("a user");
    let agent = tenant.agents().create(NewAgent::new("a")).await.expect("an agent");
    let team = tenant.teams().create(NewTeam::new("t")).await.expect("a team");
    let server = tenant.mcp_servers().create(NewMcpServer::stdio("s", ["x"])).await.expect("an MCP server");
    let session_id = session(tenant, None).await;
    let message_id = message(tenant, session_id).await;
    let artifact = NewArtifact::new(message_id, ArtifactKind::FileMeta, object("{}"));
    let artifact = tenant.artifacts().create(artifact).await.expect("an artifact");
    let session = tenant.sessions().get(session_id).await.expect("read").expect("a session");
    let message = tenant.messages().get(message_id).await.expect("read").expect("a message");
    let memory = tenant.memories().create(NewMemory::new("m", "tea")).await.expect("a memory");
    let prompt = tenant.prompts().create(NewPrompt::new("p", "hi")).await.expect("a prompt");
    let preference = NewPreference::new(user.id, "ui", object("{}"));
    let preference = tenant.preferences().create(preference).await.expect("a preference");
    let schedule = NewJobSchedule::new("s", "@daily", NewJob::new("k", object("{}")));
    let schedule = tenant.job_schedules().create(schedule).await.expect("a schedule");
    let job = tenant.jobs().enqueue(NewJob::new("k", object("{}"))).await.expect("a job");
    let price = NewPrice::per_million("large", TokenKind::Input, dollar);
    let price = tenant.prices().create(price).await.expect("a price");
    let budget = tenant.budgets().create(NewBudget::tenant(BudgetPeriod::Total, dollar)).await.expect("a budget");
    let deployment = tenant.deployments().create(NewDeployment::new("abc", "main")).await.expect("a deployment");
    let key = tenant.api_keys().create(NewApiKey::new("ci", [Scope::Read])).await.expect("a key").api_key;
    vec![
        (Lockable::Tenant, own.updated_at),
        (Lockable::User(user.id), user.updated_at),
        (Lockable::Agent(agent.id), agent.updated_at),
        (Lockable::Team(team.id), team.updated_at),
        (Lockable::McpServer(server.id), server.updated_at),
        (Lockable::Session(session_id), session.updated_at),
        (Lockable::Message(message_id), message.updated_at),
        (Lockable::Artifact(artifact.id), artifact.updated_at),
        (Lockable::Memory(memory.id), memory.updated_at),
        (Lockable::Prompt(prompt.id), prompt.updated_at),
        (Lockable::Preference(preference.id), preference.updated_at),
        (Lockable::Job(job.id), job.updated_at),
        (Lockable::JobSchedule(schedule.id), schedule.updated_at),
        (Lockable::Price(price.id), price.updated_at),
        (Lockable::Budget(budget.id), budget.updated_at),
        (Lockable::Deployment(deployment.id), deployment.updated_at),
        (Lockable::ApiKey(key.id), key.updated_at),
    ]
}

/// Every kind of row.
pub async fn a_row_under_lock_says_when_it_was_changed(home: &Home) {
    let rows = one_of_each(home).await;
    let tx = home.store.begin().await.expect("a transaction");
    let view = home.store.tenant_in(&tx, home.tenant.id());
    let other = home.store.tenant_in(&tx, home.other.id());
    for (row, updated_at) in &rows {
        assert_eq!(view.lock_updated_at(*row).await.expect("locked"), Some(*updated_at), "{row:?}");
        if *row != Lockable::Tenant {
            assert_eq!(other.lock_updated_at(*row).await.expect("read"), None, "{row:?} of another tenant");
        }
    }
    tx.rollback().await.expect("rolled back");
}

/// A row that is not there, and a lock that would hold nothing.
pub async fn what_cannot_be_locked_is_told(home: &Home) {
    let row = Lockable::User(home.tenant.new_id::<UserId>(home.tenant.now()));
    let found = home.tenant.transaction(|view| async move { view.lock_updated_at(row).await }).await;
    assert_eq!(found.expect("read"), None);
    assert!(matches!(home.tenant.lock_updated_at(row).await, Err(Error::Unsupported(_))));
}

/// Changes a user's name if nobody has changed the user since.
async fn rename(view: &TenantStore, seen: &User, name: String) -> Result<bool> {
    if view.lock_updated_at(Lockable::User(seen.id)).await? != Some(seen.updated_at) {
        return Ok(false);
    }
    let patch = UserPatch { name: Some(Some(name)), ..UserPatch::default() };
    view.users().update(seen.id, patch).await.map(|_| true)
}

/// Many change what they have seen.
pub async fn of_racing_conditional_changes_of_a_locked_row_one_wins(home: &Home) {
    let user = support::user(&home.tenant, "ann@example.org").await;
    let seen = user.clone();
    let change = move |tenant: TenantStore, index: usize| {
        let seen = seen.clone();
        async move {
            let work = |view: TenantStore| {
                let seen = seen.clone();
                async move { rename(&view, &seen, index.to_string()).await }
            };
            tenant.transaction(work).await.expect("an answer")
        }
    };
    let won = race(&home.tenant, 16, change).await;
    let winners: Vec<usize> = won.iter().enumerate().filter(|(_, won)| **won).map(|(index, _)| index).collect();
    let name = home.tenant.users().get(user.id).await.expect("read").expect("the user").name;
    assert_eq!(winners.iter().map(|index| Some(index.to_string())).collect::<Vec<_>>(), [name]);
}

/// A tenant is created and changed inside a transaction.
pub async fn tenants_are_changed_within_the_transaction_of_a_lock(home: &Home) {
    let name = support::new_name("within");
    let tx = home.store.begin().await.expect("a transaction");
    let view = home.store.tenant_in(&tx, home.tenant.id());
    let before = view.lock_updated_at(Lockable::Tenant).await.expect("locked").expect("the tenant");
    let patch = TenantPatch { metadata: Some(object(r#"{"a":1}"#)), ..TenantPatch::default() };
    let changed = Tenants::within(&view).update(home.tenant.id(), patch).await.expect("changed");
    assert!(changed.updated_at > before);
    assert_eq!(view.lock_updated_at(Lockable::Tenant).await.expect("locked"), Some(changed.updated_at));
    let made = Tenants::within(&view).create(NewTenant::new(&name)).await.expect("created");
    assert_eq!(Tenants::within(&view).get_by_name(&name).await.expect("read"), Some(made));
    tx.rollback().await.expect("rolled back");
    assert_eq!(home.store.tenants().get_by_name(&name).await.expect("read"), None);
    let kept = home.store.tenants().get(home.tenant.id()).await.expect("read").expect("the tenant");
    assert_eq!(kept.updated_at, before);
}
