//! One run: an agent answers in a session.
//!
//! How far a run has come stands in its messages. Each has in its metadata the run, the step (the way from the agent
//! down to the one that speaks: `0`, `0.2`) and the agent's name. A run that waited for tools goes on by the same way
//! as a new one: steps that have answered are passed over, one whose tools have answered asks its model again.

use std::sync::Arc;

use agentkeep::TenantStore;
use agentkeep_core::{
    AgentId, Direction, Error, FilterOperator, Finish, JsonArray, JsonObject, ListRequest, Message, MessageId,
    MessageRole, NewLedgerEntry, NewMessage, Result, Run, RunOutcome, StreamError, TokenCounts, TokenScope, UserId,
};
use futures_util::{StreamExt, future::BoxFuture, future::join_all};
use serde_json::{Value, json};

use super::{
    instance::{Client, Instance, Work},
    is_result,
    running::{Guard, Stop},
    writing::{Writing, persist},
};
use crate::{
    history,
    model::{ModelEvent, ModelRequest, chat_messages},
};

/// A run that this process is at.
pub(super) struct Answering {
    tenant: TenantStore,
    user: Option<UserId>,
    run: Run,
    owner: String,
    guard: Guard,
}

/// What came of a step.
enum Step {
    Answered(String),
    /// Tools have been called that somebody else runs.
    Waiting,
}

/// Why a step did not come to its end.
enum Failure {
    /// It failed, which is to be written.
    Failed(StreamError),
    /// There is nothing to write to: the session was deleted, or the run is somebody else's or over.
    Gone,
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        Self::Failed(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { .. } | Error::IllegalTransition { .. } | Error::RunFenced { .. } => Self::Gone,
            error => {
                // What a database says is for those who run the server.
                tracing::error!(target: "agentkeep::answers", "an answer could not be written: {error}");
                let message = "the answer could not be written; the log of the server says why".to_owned();
                Self::Failed(StreamError { code: error.code().to_owned(), message })
            }
        }
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Lost => Self::Gone,
            stop => Self::Failed(stop.error()),
        }
    }
}

/// What a model used.
struct Used {
    tokens: TokenCounts,
    reported: JsonObject,
}

impl Answering {
    pub(super) fn new(tenant: TenantStore, user: Option<UserId>, run: Run, owner: String, guard: Guard) -> Self {
        Self { tenant, user, run, owner, guard }
    }

    /// Answers, and lets go of the run.
    pub(super) async fn run(self, instance: Arc<Instance>) {
        let outcome = match self.answer(&instance).await {
            Ok(Step::Answered(_)) => RunOutcome::Completed,
            Ok(Step::Waiting) => RunOutcome::Waiting,
            Err(Failure::Failed(error)) => RunOutcome::Failed(error),
            Err(Failure::Gone) => return,
        };
        if let Err(error) = self.let_go(outcome).await
            && !matches!(error, Error::NotFound { .. } | Error::RunFenced { .. })
        {
            tracing::error!(target: "agentkeep::answers", run = %self.run.id, "a run could not be ended: {error}");
        }
    }

    async fn let_go(&self, outcome: RunOutcome) -> Result<()> {
        let data = match outcome {
            RunOutcome::Waiting => {
                let own = run_messages(&self.tenant, &self.run).await?;
                let calls: Vec<Value> = open_calls(&own).into_iter().map(|open| open.call).collect();
                Some(JsonObject::from_serialize("data", &json!({"run_id": self.run.id, "tool_calls": calls}))?)
            }
            _ => None,
        };
        let (data, outcome) = (&data, &outcome);
        persist(|| async move {
            let (outcome, data) = (outcome.clone(), data.clone());
            self.tenant.runs().finish(self.run.id, &self.owner, outcome, data).await.map(|_| ())
        })
        .await
    }

    async fn answer(&self, instance: &Instance) -> Result<Step, Failure> {
        let said = self.history(instance.history_limit()).await?;
        let own = run_messages(&self.tenant, &self.run).await?;
        self.step(instance, "0".to_owned(), chat_messages(&history::valid(said)), &own).await
    }

    /// What was said in the session before the run, as far as it is read.
    async fn history(&self, limit: u32) -> Result<Vec<Message>> {
        let request = ListRequest::new()
            .filter("session_id", self.run.session_id)
            .filter("is_streaming", false)
            .filter_by("seq", FilterOperator::Less, self.run.first_seq)
            .order_by("seq", Direction::Descending)
            .limit(limit);
        let mut messages = self.tenant.messages().list(&request).await?.items;
        messages.reverse();
        Ok(messages)
    }

    /// An agent answers; `own` is what the run has said before.
    fn step<'a>(
        &'a self,
        instance: &'a Instance,
        step: String,
        input: Vec<Value>,
        own: &'a [Message],
    ) -> BoxFuture<'a, Result<Step, Failure>> {
        Box::pin(async move {
            match &instance.work {
                Work::Model(client) => self.ask(instance, client, &step, input, own).await,
                Work::Sequence(agents) => {
                    let (mut input, mut last) = (input, String::new());
                    for (index, agent) in agents.iter().enumerate() {
                        match self.step(agent, format!("{step}.{index}"), input, own).await? {
                            Step::Answered(answer) => last = answer,
                            Step::Waiting => return Ok(Step::Waiting),
                        }
                        input = vec![json!({"role": "user", "content": last})];
                    }
                    Ok(Step::Answered(last))
                }
                Work::Parallel(agents) => {
                    let steps = agents
                        .iter()
                        .enumerate()
                        .map(|(index, agent)| self.step(agent, format!("{step}.{index}"), input.clone(), own));
                    // Each comes to its end, also when another one fails.
                    let outcomes = join_all(steps).await;
                    let outcomes: Vec<Step> = outcomes.into_iter().collect::<Result<_, Failure>>()?;
                    let answers: Option<Vec<String>> = outcomes
                        .into_iter()
                        .zip(agents)
                        .map(|(outcome, agent)| match outcome {
                            Step::Answered(answer) => Some(format!("{}: {answer}", agent.name)),
                            Step::Waiting => None,
                        })
                        .collect();
                    Ok(answers.map_or(Step::Waiting, |answers| Step::Answered(answers.join("\n\n"))))
                }
            }
        })
    }

    /// A model answers, unless it has already.
    async fn ask(
        &self,
        instance: &Instance,
        client: &Client,
        step: &str,
        mut input: Vec<Value>,
        own: &[Message],
    ) -> Result<Step, Failure> {
        let own: Vec<Message> =
            own.iter().filter(|message| step_of(message).as_deref() == Some(step)).cloned().collect();
        if let Some(last) = own.last().filter(|last| !is_result(last)) {
            let answer = || Step::Answered(last.content.clone().unwrap_or_default());
            return Ok(if last.tool_calls.is_some() { Step::Waiting } else { answer() });
        }
        let is_new = own.is_empty();
        input.extend(chat_messages(&history::valid(own)));
        let request = ModelRequest {
            model: client.model.clone(),
            system: client.system.clone(),
            messages: input,
            tools: client.tools.clone(),
            settings: client.settings.clone(),
        };
        let used = async {
            if is_new {
                self.count_use(instance.id).await;
            }
        };
        let (outcome, ()) = tokio::join!(self.write_answer(instance, client, step, request), used);
        outcome
    }

    /// Streams the answer of a model into a message of its own.
    async fn write_answer(
        &self,
        instance: &Instance,
        client: &Client,
        step: &str,
        request: ModelRequest,
    ) -> Result<Step, Failure> {
        let session = self.run.session_id;
        let metadata = json!({"run": self.run.id, "step": step, "agent": instance.name});
        let begin = NewMessage {
            agent_id: Some(instance.id),
            metadata: JsonObject::from_serialize("metadata", &metadata)?,
            ..NewMessage::empty(MessageRole::Assistant)
        };
        let begun = self.tenant.messages().start(session, begin, Some(self.run.id)).await?;
        let mut writing = Writing::new(self.tenant.clone(), session, begun.id);
        let mut used = None;
        let outcome = self.read(client, request, &mut writing, &mut used).await;
        let outcome = match outcome {
            Ok(()) => writing.flush().await.map_err(Failure::from),
            Err(failure) => {
                // What was told so far is told to its end, if that is possible. The message has it in any case.
                if matches!(failure, Failure::Failed(_)) {
                    let _ = writing.flush().await;
                }
                Err(failure)
            }
        };
        let error = match outcome {
            Ok(()) => None,
            Err(Failure::Failed(error)) => Some(error),
            Err(Failure::Gone) => return Err(Failure::Gone),
        };
        let answered = match writing.calls.is_empty() {
            true => Step::Answered(writing.text.clone()),
            false => Step::Waiting,
        };
        let usage = used.as_ref().map(|used| used.reported.clone());
        writing.finish(Finish { error: error.clone(), usage, ..Finish::default() }).await?;
        if let Some(used) = used {
            self.log_use(instance.id, client, begun.id, used.tokens).await;
        }
        error.map_or(Ok(answered), |error| Err(Failure::Failed(error)))
    }

    /// Reads the answer of a model to its end.
    async fn read(
        &self,
        client: &Client,
        request: ModelRequest,
        writing: &mut Writing,
        used: &mut Option<Used>,
    ) -> Result<(), Failure> {
        let mut events = client.provider.answer(request);
        let stopped = self.guard.stopped();
        tokio::pin!(stopped);
        loop {
            let event = tokio::select! {
                stop = &mut stopped => return Err(stop.into()),
                sent = writing.sent(), if writing.is_busy() => {
                    sent?;
                    writing.send();
                    continue;
                }
                event = events.next() => event,
            };
            match event {
                Some(Ok(ModelEvent::Text(more))) => writing.add_text(&more)?,
                Some(Ok(ModelEvent::Thinking(more))) => writing.add_thinking(&more)?,
                Some(Ok(ModelEvent::ToolCalls(calls))) => writing.calls.extend(calls),
                Some(Ok(ModelEvent::Usage { tokens, reported })) => *used = Some(Used { tokens, reported }),
                Some(Ok(ModelEvent::Finished { .. })) => return Ok(()),
                Some(Err(error)) => {
                    return Err(StreamError { code: error.code.to_owned(), message: error.message }.into());
                }
                None => {
                    let message = "the answer ended before the model said so".to_owned();
                    return Err(StreamError { code: "model_broken_off".to_owned(), message }.into());
                }
            }
            writing.send();
        }
    }

    /// Counts a use of an agent, beside its answer.
    async fn count_use(&self, agent: AgentId) {
        match self.tenant.agents().record_use(agent).await {
            // Agents may be deleted while they answer.
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(target: "agentkeep::answers", %agent, "a use was not counted: {error}"),
        }
    }

    async fn log_use(&self, agent: AgentId, client: &Client, message: MessageId, tokens: TokenCounts) {
        let entry = NewLedgerEntry {
            model: Some(client.model.clone()),
            cache_read: tokens.cache_read,
            cache_write: tokens.cache_write,
            reasoning: tokens.reasoning,
            agent_id: Some(agent),
            user_id: self.user,
            session_id: Some(self.run.session_id),
            message_id: Some(message),
            request_id: Some(format!("{}/{message}", self.run.id)),
            ..NewLedgerEntry::new(TokenScope::Reactive, client.provider.name(), tokens.input, tokens.output)
        };
        // Repeated, it is logged once: it has the id of its request.
        let logged = persist(|| async { self.tenant.ledger().log(entry.clone()).await.map(|_| ()) }).await;
        if let Err(error) = logged {
            tracing::error!(target: "agentkeep::answers", %message, "what an answer used was not logged: {error}");
        }
    }
}

/// The messages of a run, in order.
///
/// # Errors
/// What the database reports.
pub(crate) async fn run_messages(tenant: &TenantStore, run: &Run) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    let mut request = ListRequest::new()
        .filter("session_id", run.session_id)
        .filter_by("seq", FilterOperator::GreaterOrEqual, run.first_seq)
        .filter("metadata.run", run.id)
        .limit(1000);
    loop {
        let page = tenant.messages().list(&request).await?;
        messages.extend(page.items);
        match page.next {
            Some(cursor) => request = request.after(cursor),
            None => return Ok(messages),
        }
    }
}

/// A call of a tool that has no result yet.
pub(crate) struct OpenCall {
    pub(crate) id: String,
    /// As the provider gave it.
    pub(crate) call: Value,
    /// The step that waits for it.
    pub(crate) step: String,
}

/// The calls among the messages of a run that have no result, in order.
pub(crate) fn open_calls(messages: &[Message]) -> Vec<OpenCall> {
    let mut open: Vec<OpenCall> = Vec::new();
    for message in messages {
        let step = step_of(message).unwrap_or_default();
        if is_result(message) {
            open.retain(|it| it.step != step || Some(&it.id) != message.tool_call_id.as_ref());
            continue;
        }
        let Some(Value::Array(calls)) = message.tool_calls.as_ref().map(JsonArray::to_value) else { continue };
        open.extend(calls.into_iter().filter_map(|call| {
            let id = call["id"].as_str()?.to_owned();
            Some(OpenCall { id, call, step: step.clone() })
        }));
    }
    open
}

fn step_of(message: &Message) -> Option<String> {
    message.metadata.to_value()["step"].as_str().map(str::to_owned)
}
