//! Random sequences of operations, on the store and on a simple model of it: the answers and what is stored
//! have to agree after every step. A sequence that fails is shortened by proptest.

mod support;

use std::sync::atomic::{AtomicI64, Ordering};

use agentkeep::{
    Store, TenantStore,
    conformance::support::{all_pages, chat, messages, new_name, object, said},
    core::{
        Clock, Error, ListRequest, Message, MessageId, MessagePatch, NewMessage, NewSession, NewTenant, NewUser,
        Result, Session, SessionId, SessionPatch, SessionStatus, Timestamp, UserId,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::Index};
use serde_json::{Map, Value, json};

/// A clock that goes on a millisecond each time it is read: rows come in the order they were made.
struct Ticking(AtomicI64);

impl Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1_000, Ordering::Relaxed)).expect("in range")
    }
}

/// One step. An `Index` picks from everything that was ever made, deleted or not.
#[derive(Debug, Clone)]
enum Step {
    CreateUser { email: u8 },
    UpsertUser { email: u8, name: u8 },
    DeleteUser(Index),
    CreateSession { user: Option<Index>, chat: Option<u8> },
    GetOrCreateSession { chat: u8 },
    PatchSession { session: Index, key: u8, value: Option<u8>, revision: Option<i64> },
    ChangeStatus { session: Index, to: SessionStatus },
    DeleteSession(Index),
    Append { session: Index, platform_id: Option<u8>, taken_id: Option<Index> },
    AppendMany { session: Index, platform_ids: Vec<Option<u8>> },
    UpdateMessage { message: Index, text: u8 },
    DeleteMessage(Index),
    Recent { session: Index, limit: u32 },
    ListMessages { session: Index, page: u32 },
    ListSessions { status: Option<SessionStatus>, page: u32 },
}

fn status() -> impl Strategy<Value = SessionStatus> {
    proptest::sample::select(SessionStatus::ALL)
}

fn step() -> impl Strategy<Value = Step> {
    let any_index = any::<Index>;
    prop_oneof![
        2 => (0..4_u8).prop_map(|email| Step::CreateUser { email }),
        2 => (0..4_u8, 0..9_u8).prop_map(|(email, name)| Step::UpsertUser { email, name }),
        1 => any_index().prop_map(Step::DeleteUser),
        4 => (option::of(any_index()), option::of(0..3_u8)).prop_map(|(user, chat)| Step::CreateSession { user, chat }),
        3 => (0..3_u8).prop_map(|chat| Step::GetOrCreateSession { chat }),
        4 => (any_index(), 0..3_u8, option::of(0..9_u8), option::of(1..4_i64))
            .prop_map(|(session, key, value, revision)| Step::PatchSession { session, key, value, revision }),
        3 => (any_index(), status()).prop_map(|(session, to)| Step::ChangeStatus { session, to }),
        1 => any_index().prop_map(Step::DeleteSession),
        8 => (any_index(), option::of(0..4_u8), option::weighted(0.1, any_index()))
            .prop_map(|(session, platform_id, taken_id)| Step::Append { session, platform_id, taken_id }),
        3 => (any_index(), vec(option::weighted(0.2, 0..6_u8), 0..5))
            .prop_map(|(session, platform_ids)| Step::AppendMany { session, platform_ids }),
        2 => (any_index(), 0..9_u8).prop_map(|(message, text)| Step::UpdateMessage { message, text }),
        2 => any_index().prop_map(Step::DeleteMessage),
        2 => (any_index(), 1..8_u32).prop_map(|(session, limit)| Step::Recent { session, limit }),
        2 => (any_index(), 1..4_u32).prop_map(|(session, page)| Step::ListMessages { session, page }),
        2 => (option::of(status()), 1..4_u32).prop_map(|(status, page)| Step::ListSessions { status, page }),
    ]
}

/// A message as the model knows it.
#[derive(Debug, Clone, PartialEq)]
struct ModelMessage {
    id: MessageId,
    seq: i64,
    platform_id: Option<String>,
    text: Option<String>,
}

impl From<&Message> for ModelMessage {
    fn from(message: &Message) -> Self {
        Self {
            id: message.id,
            seq: message.seq,
            platform_id: message.platform_message_id.clone(),
            text: message.content.clone(),
        }
    }
}

/// A session as the model knows it.
#[derive(Debug, Clone, PartialEq)]
struct ModelSession {
    id: SessionId,
    user: Option<UserId>,
    chat: Option<String>,
    status: SessionStatus,
    state: Value,
    revision: i64,
    last_seq: i64,
    count: i64,
}

impl From<&Session> for ModelSession {
    fn from(session: &Session) -> Self {
        Self {
            id: session.id,
            user: session.user_id,
            chat: session.chat_id.clone(),
            status: session.status,
            state: session.state.to_value(),
            revision: session.revision,
            last_seq: session.last_seq,
            count: session.message_count,
        }
    }
}

/// The model: lists in the order of their making.
#[derive(Debug, Default)]
struct Model {
    users: Vec<(UserId, String, Option<String>)>,
    sessions: Vec<(ModelSession, Vec<ModelMessage>)>,
    every_user: Vec<UserId>,
    every_session: Vec<SessionId>,
    every_message: Vec<MessageId>,
    /// What a wrong store would do; see the control.
    reuses_seqs: bool,
}

/// An answer, as far as the model can foretell it.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Done,
    User(UserId, Option<String>),
    Session(ModelSession),
    Messages(Vec<ModelMessage>),
    Sessions(Vec<ModelSession>),
    /// The code of an error.
    Refused(&'static str),
}

fn told<T>(result: Result<T>, answer: impl FnOnce(T) -> Answer) -> Answer {
    match result {
        Ok(value) => answer(value),
        Err(error @ Error::Database { .. }) => panic!("a fault of the database: {error}"),
        Err(error) => Answer::Refused(error.code()),
    }
}

fn one(message: Message) -> Answer {
    Answer::Messages(vec![(&message).into()])
}

fn many(messages: Vec<Message>) -> Answer {
    Answer::Messages(messages.iter().map(Into::into).collect())
}

fn pick<T: Copy + From<uuid::Uuid>>(from: &[T], index: &Index) -> T {
    if from.is_empty() { uuid::Uuid::nil().into() } else { *index.get(from) }
}

impl Model {
    fn session(&mut self, id: SessionId) -> Option<&mut (ModelSession, Vec<ModelMessage>)> {
        self.sessions.iter_mut().find(|(session, _)| session.id == id)
    }

    fn message(&mut self, id: MessageId) -> Option<(&mut ModelSession, &mut Vec<ModelMessage>, usize)> {
        self.sessions.iter_mut().find_map(|(session, messages)| {
            let place = messages.iter().position(|message| message.id == id)?;
            Some((session, messages, place))
        })
    }

    fn insert_session(&mut self, id: SessionId, user: Option<UserId>, chat: Option<String>) -> ModelSession {
        let session = ModelSession {
            id,
            user,
            chat,
            status: SessionStatus::Active,
            state: json!({}),
            revision: 1,
            last_seq: 0,
            count: 0,
        };
        self.every_session.push(id);
        self.sessions.push((session.clone(), Vec::new()));
        session
    }

    fn insert_message(&mut self, session: SessionId, id: MessageId, new: &NewMessage) -> ModelMessage {
        self.every_message.push(id);
        let reuses = self.reuses_seqs;
        let (session, messages) = self.session(session).expect("there");
        session.last_seq = if reuses { messages.last().map_or(0, |last| last.seq) } else { session.last_seq } + 1;
        session.count += 1;
        let (platform_id, text) = (new.platform_message_id.clone(), new.content.clone());
        let message = ModelMessage { id, seq: session.last_seq, platform_id, text };
        messages.push(message.clone());
        message
    }

    fn taken_chat(&self, chat: &str) -> Option<ModelSession> {
        self.sessions.iter().map(|(session, _)| session).find(|session| session.chat.as_deref() == Some(chat)).cloned()
    }
}

/// The store and the model, side by side.
struct Run {
    tenant: TenantStore,
    model: Model,
}

impl Run {
    /// Takes a step on both; the two answers. The ids that the store makes are taken over by the model.
    async fn step(&mut self, step: &Step) -> (Answer, Answer) {
        match step {
            Step::CreateUser { email } => self.create_user(*email).await,
            Step::UpsertUser { email, name } => self.upsert_user(*email, *name).await,
            Step::DeleteUser(index) => self.delete_user(pick(&self.model.every_user, index)).await,
            Step::CreateSession { user, chat } => {
                let user = user.as_ref().map(|index| pick(&self.model.every_user, index));
                self.create_session(user, chat.map(|chat| chat.to_string())).await
            }
            Step::GetOrCreateSession { chat } => self.get_or_create_session(&chat.to_string()).await,
            Step::PatchSession { session, key, value, revision } => {
                let session = pick(&self.model.every_session, session);
                self.patch_session(session, *key, *value, *revision).await
            }
            Step::ChangeStatus { session, to } => {
                self.change_status(pick(&self.model.every_session, session), *to).await
            }
            Step::DeleteSession(index) => self.delete_session(pick(&self.model.every_session, index)).await,
            Step::Append { session, platform_id, taken_id } => {
                let session = pick(&self.model.every_session, session);
                let taken = taken_id.as_ref().filter(|_| !self.model.every_message.is_empty());
                let id = taken.map(|index| pick(&self.model.every_message, index));
                self.append(session, NewMessage { id, ..message(*platform_id) }).await
            }
            Step::AppendMany { session, platform_ids } => {
                let batch = platform_ids.iter().map(|id| message(*id)).collect();
                self.append_many(pick(&self.model.every_session, session), batch).await
            }
            Step::UpdateMessage { message, text } => {
                self.update_message(pick(&self.model.every_message, message), format!("changed {text}")).await
            }
            Step::DeleteMessage(index) => self.delete_message(pick(&self.model.every_message, index)).await,
            Step::Recent { session, limit } => {
                let id = pick(&self.model.every_session, session);
                let answer = told(self.tenant.messages().recent(id, *limit).await, many);
                let mut expected = self.model.session(id).map(|(_, messages)| messages.clone()).unwrap_or_default();
                expected.drain(..expected.len().saturating_sub(*limit as usize));
                (answer, Answer::Messages(expected))
            }
            Step::ListMessages { session, page } => {
                let id = pick(&self.model.every_session, session);
                let request = ListRequest::new().filter("session_id", id).limit(*page);
                let listed = all_pages(request, async |request| self.tenant.messages().list(&request).await).await;
                let expected = self.model.session(id).map(|(_, messages)| messages.clone()).unwrap_or_default();
                (many(listed), Answer::Messages(expected))
            }
            Step::ListSessions { status, page } => self.list_sessions(*status, *page).await,
        }
    }

    async fn create_user(&mut self, email: u8) -> (Answer, Answer) {
        let email = format!("{email}@example.org");
        let new = NewUser { email: Some(email.clone()), ..NewUser::default() };
        let created = self.tenant.users().create(new).await;
        if self.model.users.iter().any(|(_, taken, _)| *taken == email) {
            return (told(created, |_| Answer::Done), Answer::Refused("already_exists"));
        }
        let id = created.as_ref().map_or(UserId(uuid::Uuid::nil()), |user| user.id);
        self.model.users.push((id, email, None));
        self.model.every_user.push(id);
        (told(created, |user| Answer::User(user.id, user.name)), Answer::User(id, None))
    }

    async fn upsert_user(&mut self, email: u8, name: u8) -> (Answer, Answer) {
        let (email, name) = (format!("{email}@example.org"), Some(format!("name {name}")));
        let new = NewUser { email: Some(email.clone()), name: name.clone(), ..NewUser::default() };
        let upserted = self.tenant.users().upsert(new).await;
        let id = match self.model.users.iter_mut().find(|(_, taken, _)| *taken == email) {
            Some((id, _, known)) => {
                known.clone_from(&name);
                *id
            }
            None => {
                let id = upserted.as_ref().map_or(UserId(uuid::Uuid::nil()), |user| user.id);
                self.model.users.push((id, email, name.clone()));
                self.model.every_user.push(id);
                id
            }
        };
        (told(upserted, |user| Answer::User(user.id, user.name)), Answer::User(id, name))
    }

    async fn delete_user(&mut self, id: UserId) -> (Answer, Answer) {
        let answer = told(self.tenant.users().delete(id).await, |()| Answer::Done);
        let before = self.model.users.len();
        self.model.users.retain(|(user, ..)| *user != id);
        self.model.sessions.retain(|(session, _)| session.user != Some(id));
        let found = self.model.users.len() < before;
        (answer, if found { Answer::Done } else { Answer::Refused("not_found") })
    }

    async fn create_session(&mut self, user: Option<UserId>, chat_id: Option<String>) -> (Answer, Answer) {
        let new = chat_id.as_deref().map_or_else(NewSession::default, |chat_id| chat("web", chat_id));
        let created = self.tenant.sessions().create(NewSession { user_id: user, ..new }).await;
        let expected = if chat_id.as_ref().is_some_and(|chat| self.model.taken_chat(chat).is_some()) {
            Answer::Refused("already_exists")
        } else if user.is_some_and(|user| self.model.users.iter().all(|(known, ..)| *known != user)) {
            Answer::Refused("missing_reference")
        } else {
            let id = created.as_ref().map_or(SessionId(uuid::Uuid::nil()), |session| session.id);
            Answer::Session(self.model.insert_session(id, user, chat_id))
        };
        (told(created, |session| Answer::Session((&session).into())), expected)
    }

    async fn get_or_create_session(&mut self, chat_id: &str) -> (Answer, Answer) {
        let got = self.tenant.sessions().get_or_create(chat("web", chat_id)).await;
        let expected = match self.model.taken_chat(chat_id) {
            Some(session) => session,
            None => {
                let id = got.as_ref().map_or(SessionId(uuid::Uuid::nil()), |session| session.id);
                self.model.insert_session(id, None, Some(chat_id.to_owned()))
            }
        };
        (told(got, |session| Answer::Session((&session).into())), Answer::Session(expected))
    }

    async fn patch_session(
        &mut self,
        id: SessionId,
        key: u8,
        value: Option<u8>,
        revision: Option<i64>,
    ) -> (Answer, Answer) {
        let key = format!("k{key}");
        let state = object(&json!({ &key: value }).to_string());
        let patch = SessionPatch { state: Some(state), revision, ..SessionPatch::default() };
        let patched = self.tenant.sessions().update(id, patch).await;
        let expected = match self.model.session(id) {
            None => Answer::Refused("not_found"),
            Some((session, _)) if revision.is_some_and(|expected| expected != session.revision) => {
                Answer::Refused("stale_revision")
            }
            Some((session, _)) => {
                let state: &mut Map<String, Value> = session.state.as_object_mut().expect("an object");
                match value {
                    Some(value) => drop(state.insert(key, value.into())),
                    None => drop(state.remove(&key)),
                }
                session.revision += 1;
                Answer::Session(session.clone())
            }
        };
        (told(patched, |session| Answer::Session((&session).into())), expected)
    }

    async fn change_status(&mut self, id: SessionId, to: SessionStatus) -> (Answer, Answer) {
        let changed = match to {
            SessionStatus::Finished => self.tenant.sessions().finish(id).await,
            to => self.tenant.sessions().update(id, SessionPatch { status: Some(to), ..SessionPatch::default() }).await,
        };
        let expected = match self.model.session(id) {
            None => Answer::Refused("not_found"),
            Some((session, _)) if !session.status.can_become(to) => Answer::Refused("illegal_transition"),
            Some((session, _)) => {
                session.status = to;
                session.revision += 1;
                Answer::Session(session.clone())
            }
        };
        (told(changed, |session| Answer::Session((&session).into())), expected)
    }

    async fn delete_session(&mut self, id: SessionId) -> (Answer, Answer) {
        let answer = told(self.tenant.sessions().delete(id).await, |()| Answer::Done);
        let before = self.model.sessions.len();
        self.model.sessions.retain(|(session, _)| session.id != id);
        let found = self.model.sessions.len() < before;
        (answer, if found { Answer::Done } else { Answer::Refused("not_found") })
    }

    async fn append(&mut self, id: SessionId, new: NewMessage) -> (Answer, Answer) {
        let appended = self.tenant.messages().append(id, new.clone()).await;
        let taken = new.id.is_some_and(|id| self.model.message(id).is_some());
        let expected = match self.model.session(id) {
            None => Answer::Refused("not_found"),
            Some((_, messages)) => {
                let repeated = |message: &&ModelMessage| {
                    new.platform_message_id.is_some() && message.platform_id == new.platform_message_id
                };
                match messages.iter().find(repeated).cloned() {
                    Some(first) => Answer::Messages(vec![first]),
                    None if taken => Answer::Refused("already_exists"),
                    None => {
                        let made = appended.as_ref().map_or(MessageId(uuid::Uuid::nil()), |message| message.id);
                        Answer::Messages(vec![self.model.insert_message(id, made, &new)])
                    }
                }
            }
        };
        (told(appended, one), expected)
    }

    async fn append_many(&mut self, id: SessionId, batch: Vec<NewMessage>) -> (Answer, Answer) {
        let appended = self.tenant.messages().append_many(id, batch.clone()).await;
        let mut platform_ids: Vec<_> = batch.iter().filter_map(|new| new.platform_message_id.clone()).collect();
        let given = platform_ids.len();
        platform_ids.sort();
        platform_ids.dedup();
        let expected = if batch.is_empty() {
            Answer::Messages(Vec::new())
        } else if platform_ids.len() < given {
            Answer::Refused("already_exists")
        } else {
            match self.model.session(id) {
                None => Answer::Refused("not_found"),
                Some((_, messages))
                    if messages.iter().filter_map(|m| m.platform_id.as_ref()).any(|id| platform_ids.contains(id)) =>
                {
                    Answer::Refused("already_exists")
                }
                Some(_) => {
                    let made: Vec<_> = appended.iter().flatten().map(|message| message.id).collect();
                    let made = made.into_iter().chain(std::iter::repeat(MessageId(uuid::Uuid::nil())));
                    Answer::Messages(
                        batch.iter().zip(made).map(|(new, made)| self.model.insert_message(id, made, new)).collect(),
                    )
                }
            }
        };
        (told(appended, many), expected)
    }

    async fn update_message(&mut self, id: MessageId, text: String) -> (Answer, Answer) {
        let patch = MessagePatch { content: Some(Some(text.clone())), ..MessagePatch::default() };
        let updated = self.tenant.messages().update(id, patch).await;
        let expected = match self.model.message(id) {
            None => Answer::Refused("not_found"),
            Some((_, messages, place)) => {
                messages[place].text = Some(text);
                Answer::Messages(vec![messages[place].clone()])
            }
        };
        (told(updated, one), expected)
    }

    async fn delete_message(&mut self, id: MessageId) -> (Answer, Answer) {
        let answer = told(self.tenant.messages().delete(id).await, |()| Answer::Done);
        let expected = match self.model.message(id) {
            None => Answer::Refused("not_found"),
            Some((session, messages, place)) => {
                messages.remove(place);
                session.count -= 1;
                Answer::Done
            }
        };
        (answer, expected)
    }

    async fn list_sessions(&mut self, status: Option<SessionStatus>, page: u32) -> (Answer, Answer) {
        let request = ListRequest::new().limit(page);
        let request = match status {
            Some(status) => request.filter("status", status.as_str()),
            None => request,
        };
        let total = self.tenant.sessions().list(&request.clone().with_total()).await.expect("listed").total;
        let listed = all_pages(request, async |request| self.tenant.sessions().list(&request).await).await;
        assert_eq!(total, Some(listed.len() as u64));
        let expected = self.model.sessions.iter().map(|(session, _)| session.clone());
        let expected = expected.filter(|session| status.is_none_or(|status| session.status == status)).collect();
        (Answer::Sessions(listed.iter().map(Into::into).collect()), Answer::Sessions(expected))
    }

    /// What is stored: users, sessions, and the messages of one session.
    async fn compare(&self, session: Option<SessionId>) {
        let users = self.tenant.users().list(&ListRequest::new()).await.expect("listed").items;
        let users: Vec<_> =
            users.into_iter().map(|user| (user.id, user.email.unwrap_or_default(), user.name)).collect();
        assert_eq!(users, self.model.users);
        let sessions = self.tenant.sessions().list(&ListRequest::new()).await.expect("listed").items;
        let sessions: Vec<ModelSession> = sessions.iter().map(Into::into).collect();
        let expected: Vec<ModelSession> = self.model.sessions.iter().map(|(session, _)| session.clone()).collect();
        assert_eq!(sessions, expected);
        for (known, expected) in &self.model.sessions {
            if session.is_none_or(|only| only == known.id) {
                let stored = messages(&self.tenant, known.id).await;
                let stored: Vec<ModelMessage> = stored.iter().map(Into::into).collect();
                assert_eq!(&stored, expected);
            }
        }
    }
}

fn message(platform_id: Option<u8>) -> NewMessage {
    NewMessage { platform_message_id: platform_id.map(|id| format!("p{id}")), ..said("said") }
}

/// The session that a step is about.
fn subject(step: &Step, model: &Model) -> Option<SessionId> {
    match step {
        Step::Append { session, .. } | Step::AppendMany { session, .. } => Some(pick(&model.every_session, session)),
        _ => None,
    }
}

async fn agrees_with_its_model(store: &Store, steps: &[Step], model: Model) {
    let tenant = NewTenant::new(new_name("model"));
    let tenant = store.tenants().create(tenant).await.expect("a tenant").id;
    let mut run = Run { tenant: store.tenant(tenant), model };
    for (number, step) in steps.iter().enumerate() {
        let session = subject(step, &run.model);
        let (answer, expected) = run.step(step).await;
        assert_eq!(answer, expected, "answer (left) and model (right) at step {number}, {step:?}");
        run.compare(session).await;
    }
    run.compare(None).await;
}

/// Runs random sequences; the shortest one that fails, if any does.
fn check(
    open: impl Future<Output = Store>,
    config: ProptestConfig,
    model: impl Fn() -> Model,
) -> std::result::Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let store = runtime.block_on(open);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&vec(step(), 30..50), |steps| {
        runtime.block_on(agrees_with_its_model(&store, &steps, model()));
        Ok(())
    });
    runtime.block_on(store.close());
    outcome.map_err(|failure| failure.to_string())
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 60, failure_persistence: None, max_shrink_time: 60_000, ..ProptestConfig::default() }
}

async fn sqlite() -> Store {
    let config = agentkeep::Config::new("sqlite::memory:");
    Store::open_with_clock(config, clock()).await.expect("a database in memory opens")
}

async fn postgres() -> Store {
    let url = support::new_postgres_database("model").await;
    Store::open_with_clock(support::postgres_config(&url), clock()).await.expect("PostgreSQL opens")
}

fn clock() -> Ticking {
    // 2020-09-13: far from the present, so that a time of the database's own would stand out.
    Ticking(AtomicI64::new(1_600_000_000_000_000))
}

#[test]
fn the_store_agrees_with_its_model_on_sqlite() {
    check(sqlite(), config(), Model::default).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn the_store_agrees_with_its_model_on_postgres() {
    check(postgres(), config(), Model::default).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Control: a store that differed from its model in one rare case would be found.
#[test]
fn a_seq_that_is_given_again_is_found() {
    let wrong = || Model { reuses_seqs: true, ..Model::default() };
    let config = ProptestConfig { max_shrink_iters: 0, ..config() };
    let failure = check(sqlite(), config, wrong).expect_err("the sequences reach the case");
    assert!(failure.contains("answer (left) and model (right)"), "{failure}");
}
