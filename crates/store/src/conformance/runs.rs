//! Runs and their leases.

use std::time::Duration;

use agentkeep_core::{
    AgentId, Error, Finish, ListRequest, NewRun, NewSession, Run, RunId, RunOutcome, RunStatus, SessionEvent,
    SessionId, StreamError, Timestamp,
};
use uuid::Uuid;

use super::{
    Home,
    fixtures::agent,
    support::{object, race, rows_of, said, session},
};
use crate::TenantStore;

const MINUTE: Duration = Duration::from_secs(60);

fn later(tenant: &TenantStore) -> Timestamp {
    tenant.now().plus(MINUTE)
}

fn over(tenant: &TenantStore) -> Timestamp {
    tenant.now().minus(MINUTE)
}

async fn run(tenant: &TenantStore, session: SessionId, owner: &str) -> Run {
    tenant.runs().create(NewRun::new(session, owner, later(tenant))).await.expect("a run")
}

async fn events(tenant: &TenantStore, session: SessionId) -> Vec<SessionEvent> {
    tenant.session_events().after(session, 0, 1000).await.expect("a page").events
}

async fn told(tenant: &TenantStore, session: SessionId) -> Vec<&'static str> {
    events(tenant, session).await.iter().map(|event| event.kind.as_str()).collect()
}

fn broken() -> RunOutcome {
    RunOutcome::Failed(StreamError { code: "overloaded".into(), message: "later".into() })
}

/// The life of a run.
pub async fn a_run_is_started_told_and_finished(home: &Home) {
    let runs = home.tenant.runs();
    let made = session(&home.tenant).await;
    let agent = agent(&home.tenant).await;
    home.tenant.messages().append(made.id, said("hello")).await.expect("appended");
    let lease = later(&home.tenant);
    let new = NewRun { agent_id: Some(agent), metadata: object(r#"{"a":1}"#), ..NewRun::new(made.id, "me", lease) };
    let started = runs.create(new).await.expect("started");
    assert_eq!((started.session_id, started.agent_id, started.status), (made.id, Some(agent), RunStatus::Running));
    assert_eq!((started.owner.as_str(), started.lease_until), ("me", lease));
    assert_eq!((started.first_seq, started.first_event), (2, 1));
    assert_eq!((&started.error, started.finished_at, &started.metadata), (&None, None, &object(r#"{"a":1}"#)));
    assert_eq!(runs.get(started.id).await.expect("read").as_ref(), Some(&started));
    let done = runs.finish(started.id, "me", RunOutcome::Completed, None).await.expect("finished");
    assert_eq!((done.status, done.finished_at.is_some()), (RunStatus::Completed, true));
    assert_eq!(runs.get(started.id).await.expect("read").as_ref(), Some(&done));

    let second = run(&home.tenant, made.id, "me").await;
    assert_eq!((second.first_seq, second.first_event), (2, 3));
    let data = object(r#"{"usage": 1.10}"#);
    let failed = runs.finish(second.id, "me", broken(), Some(data.clone())).await.expect("finished");
    assert_eq!(failed.error, Some(object(r#"{"code":"overloaded","message":"later"}"#)));
    assert_eq!(failed.status, RunStatus::Failed);
    let events = events(&home.tenant, made.id).await;
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["run.started", "run.completed", "run.started", "run.failed"]);
    assert!(events.iter().all(|event| event.seq == 1 && event.message_id.is_none()));
    assert_eq!((events[1].run_id, events[3].run_id), (Some(started.id), Some(second.id)));
    assert_eq!(events[0].data.to_value(), serde_json::to_value(&started).expect("JSON"));
    assert_eq!(events[1].data.to_value(), serde_json::to_value(&done).expect("JSON"));
    assert_eq!(events[3].data.as_str(), data.as_str());
}

/// A run that waits for tools that somebody else runs.
pub async fn a_run_that_waits_is_resumed_by_anybody_and_once(home: &Home) {
    let runs = home.tenant.runs();
    let made = session(&home.tenant).await;
    let started = run(&home.tenant, made.id, "me").await;
    let early = runs.resume(started.id, "you", later(&home.tenant)).await.expect_err("it does not wait");
    assert!(matches!(&early, Error::IllegalTransition { entity: "run", from, .. } if from == "running"), "{early}");
    let waiting = runs.finish(started.id, "me", RunOutcome::Waiting, Some(object("{}"))).await.expect("waits");
    assert_eq!((waiting.status, waiting.finished_at), (RunStatus::Waiting, None));
    let outcomes = race(8, |racer| {
        let tenant = home.tenant.clone();
        async move { tenant.runs().resume(started.id, &format!("racer {racer}"), later(&tenant)).await }
    })
    .await;
    let resumed: Vec<Run> = outcomes.into_iter().filter_map(Result::ok).collect();
    assert_eq!(resumed.len(), 1);
    assert_eq!(runs.get(started.id).await.expect("read").as_ref(), Some(&resumed[0]));
    runs.finish(started.id, &resumed[0].owner, RunOutcome::Completed, None).await.expect("finished");
    let wanted = ["run.started", "tool_calls.requested", "run.resumed", "run.completed"];
    assert_eq!(told(&home.tenant, made.id).await, wanted);
    let missing = runs.resume(RunId(Uuid::nil()), "you", later(&home.tenant)).await;
    assert!(matches!(missing, Err(Error::NotFound { entity: "run", .. })), "{missing:?}");
}

/// What is wrong with a run is told, and nothing of it stays.
pub async fn bad_runs_are_refused(home: &Home) {
    let runs = home.tenant.runs();
    let made = session(&home.tenant).await;
    let first = run(&home.tenant, made.id, "me").await;
    let new = |owner: &str| NewRun::new(made.id, owner, later(&home.tenant));
    assert!(matches!(runs.create(new(" ")).await, Err(Error::Invalid { field, .. }) if field == "owner"));
    let taken = runs.create(NewRun { id: Some(first.id), ..new("me") }).await;
    assert!(matches!(taken, Err(Error::AlreadyExists { entity: "run", .. })), "{taken:?}");
    let stranger = runs.create(NewRun { agent_id: Some(AgentId(404)), ..new("me") }).await;
    assert!(matches!(stranger, Err(Error::MissingReference { entity: "agent", .. })), "{stranger:?}");
    for id in [SessionId(Uuid::nil()), session(&home.other).await.id] {
        let gone = runs.create(NewRun::new(id, "me", later(&home.tenant))).await;
        assert!(matches!(gone, Err(Error::NotFound { entity: "session", .. })), "{gone:?}");
    }
    let failed = RunOutcome::Failed(StreamError { code: String::new(), message: String::new() });
    assert!(matches!(runs.finish(first.id, "me", failed, None).await, Err(Error::Invalid { .. })));
    assert!(runs.take_expired("", MINUTE, 10).await.is_err() && runs.take_expired("me", MINUTE, 0).await.is_err());
    assert_eq!(told(&home.tenant, made.id).await, ["run.started"]);
    assert_eq!(rows_of(&home.store, &home.tenant, "runs").await, 1);
}

/// Filters of a list.
pub async fn runs_are_listed_by_session_agent_status_and_time(home: &Home) {
    let runs = home.tenant.runs();
    let (first, second) = (session(&home.tenant).await, session(&home.tenant).await);
    let agent = agent(&home.tenant).await;
    let new = NewRun { agent_id: Some(agent), ..NewRun::new(second.id, "me", later(&home.tenant)) };
    let (a, b) = (run(&home.tenant, first.id, "me").await.id, runs.create(new).await.expect("a run"));
    runs.finish(a, "me", RunOutcome::Completed, None).await.expect("finished");
    let found = async |request: ListRequest| {
        let page = runs.list(&request).await.expect("a page");
        page.items.iter().map(|run| run.id).collect::<Vec<_>>()
    };
    assert_eq!(found(ListRequest::new()).await, [a, b.id]);
    assert_eq!(found(ListRequest::new().filter("session_id", first.id)).await, [a]);
    assert_eq!(found(ListRequest::new().filter("agent_id", agent.0)).await, [b.id]);
    assert_eq!(found(ListRequest::new().filter("status", "running")).await, [b.id]);
    assert_eq!(found(ListRequest::new().filter("created_at", b.created_at.to_string())).await, [b.id]);
    assert!(home.other.runs().list(&ListRequest::new()).await.expect("a page").items.is_empty());
}

/// Leases are kept by those who have them.
pub async fn a_heartbeat_keeps_what_is_the_owners_and_says_what(home: &Home) {
    let runs = home.tenant.runs();
    let made = session(&home.tenant).await;
    let (mine, done, theirs) = (
        run(&home.tenant, made.id, "me").await,
        run(&home.tenant, made.id, "me").await,
        run(&home.tenant, made.id, "you").await,
    );
    runs.finish(done.id, "me", RunOutcome::Completed, None).await.expect("finished");
    let until = home.tenant.now().plus(10 * MINUTE);
    let ids = [mine.id, done.id, theirs.id, RunId(Uuid::nil())];
    assert_eq!(runs.heartbeat("me", &ids, until).await.expect("kept"), [mine.id]);
    assert_eq!(runs.heartbeat("me", &[], until).await.expect("nothing"), []);
    assert_eq!(home.other.runs().heartbeat("me", &ids, until).await.expect("nothing"), []);
    let lease = async |id| runs.get(id).await.expect("read").expect("there").lease_until;
    assert_eq!((lease(mine.id).await, lease(theirs.id).await), (until, theirs.lease_until));
    assert!(runs.heartbeat("me", &[mine.id; 1001], until).await.is_err());
}

/// Who let a lease run out has no say.
pub async fn a_run_that_was_taken_over_is_not_finished_by_its_old_owner(home: &Home) {
    let runs = home.tenant.runs();
    let made = session(&home.tenant).await;
    let kept = run(&home.tenant, made.id, "old").await;
    let lost = runs.create(NewRun::new(made.id, "old", over(&home.tenant))).await.expect("a run");
    assert!(home.other.runs().take_expired("new", MINUTE, 10).await.expect("nothing").is_empty());
    let taken = runs.take_expired("new", MINUTE, 10).await.expect("taken");
    assert_eq!(taken.iter().map(|run| run.id).collect::<Vec<_>>(), [lost.id]);
    assert!(taken[0].owner == "new" && taken[0].lease_until > home.tenant.now());
    assert!(runs.take_expired("third", MINUTE, 10).await.expect("nothing").is_empty());
    assert_eq!(runs.heartbeat("old", &[kept.id, lost.id], later(&home.tenant)).await.expect("kept"), [kept.id]);
    let before = told(&home.tenant, made.id).await;
    for outcome in [RunOutcome::Completed, broken(), RunOutcome::Waiting] {
        match runs.finish(lost.id, "old", outcome, None).await {
            Err(Error::RunFenced { run, given, current, status }) => {
                assert_eq!((run, given.as_str()), (lost.id.to_string(), "old"));
                assert_eq!((current.as_str(), status.as_str()), ("new", "running"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told(&home.tenant, made.id).await, before, "nothing is told");
    runs.finish(lost.id, "new", broken(), None).await.expect("the new owner closes it");
    let twice = runs.finish(lost.id, "new", RunOutcome::Completed, None).await.expect_err("it is over");
    assert!(matches!(&twice, Error::RunFenced { status, .. } if status == "failed"), "{twice}");
    assert_eq!(super::session_events::numbers(&home.tenant, made.id).await, [1, 2, 3]);
    let missing = runs.finish(RunId(Uuid::nil()), "me", RunOutcome::Completed, None).await;
    assert!(matches!(missing, Err(Error::NotFound { entity: "run", .. })), "{missing:?}");
}

/// Many take over at once.
pub async fn of_racing_owners_one_takes_a_run_over(home: &Home) {
    let made = session(&home.tenant).await;
    let mut wanted = Vec::new();
    for _ in 0..20 {
        let new = NewRun::new(made.id, "old", over(&home.tenant));
        wanted.push(home.tenant.runs().create(new).await.expect("a run").id);
    }
    let taken = race(8, |racer| {
        let tenant = home.tenant.clone();
        async move {
            let owner = format!("racer {racer}");
            let mut taken = Vec::new();
            for _ in 0..10 {
                taken.extend(tenant.runs().take_expired(&owner, MINUTE, 5).await.expect("taken"));
            }
            taken
        }
    })
    .await;
    let mut taken: Vec<RunId> = taken.into_iter().flatten().map(|run| run.id).collect();
    taken.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(taken, wanted, "each by one");
}

/// Of several runs in one session.
pub async fn what_a_run_left_streaming_is_found(home: &Home) {
    let (messages, made) = (home.tenant.messages(), session(&home.tenant).await);
    let first = run(&home.tenant, made.id, "me").await;
    let begin =
        async |run: Option<RunId>| home.tenant.messages().start(made.id, said("x"), run).await.expect("begun").id;
    let (ended, left) = (begin(Some(first.id)).await, begin(Some(first.id)).await);
    let second = run(&home.tenant, made.id, "me").await;
    begin(None).await;
    let (other, also_left) = (begin(Some(second.id)).await, begin(Some(first.id)).await);
    messages.finish(made.id, ended, Finish::default()).await.expect("ended");
    assert_eq!(messages.streaming_of_run(&first).await.expect("read"), [left, also_left]);
    assert_eq!(messages.streaming_of_run(&second).await.expect("read"), [other]);
    assert_eq!(home.other.messages().streaming_of_run(&first).await.expect("read"), []);
}

/// What is deleted takes its runs along, and tenants do not meet.
pub async fn runs_go_with_their_session_and_stay_in_their_tenant(home: &Home) {
    let made = session(&home.tenant).await;
    let started = run(&home.tenant, made.id, "me").await;
    let copy = NewSession { id: Some(made.id), ..NewSession::default() };
    let theirs = home.other.sessions().create(copy).await.expect("ids are the tenant's own");
    let same = NewRun { id: Some(started.id), ..NewRun::new(theirs.id, "you", later(&home.other)) };
    let other = home.other.runs().create(same).await.expect("ids are the tenant's own");
    assert_eq!((other.id, other.first_event), (started.id, 1));
    let fenced = home.other.runs().finish(started.id, "me", RunOutcome::Completed, None).await;
    assert!(matches!(fenced, Err(Error::RunFenced { .. })), "{fenced:?}");
    home.tenant.sessions().delete(made.id).await.expect("deleted");
    assert_eq!(home.tenant.runs().get(started.id).await.expect("read"), None);
    let late = home.tenant.runs().finish(started.id, "me", RunOutcome::Completed, None).await;
    assert!(matches!(late, Err(Error::NotFound { .. })), "{late:?}");
    assert_eq!(home.other.runs().get(started.id).await.expect("read"), Some(other));
    assert_eq!(told(&home.other, theirs.id).await, ["run.started"]);
    for table in ["runs", "session_events"] {
        assert_eq!(rows_of(&home.store, &home.tenant, table).await, 0, "{table}");
    }
}
