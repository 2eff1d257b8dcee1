//! Agents, ready to answer: built from their rows when they are needed, and kept until these change.
//!
//! What an agent is told of itself comes from its persona, its prompt and its description ([`system_prompt`]). Its
//! prompt is the active version of its own prompt of the name [`PROMPT`].

use std::sync::Arc;

use agentkeep::{Change, Store, TenantStore};
use agentkeep_core::{Agent, AgentId, AgentStamp, Prompt, TenantId};
use axum::http::StatusCode;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    error::{ApiError, Result},
    model::{ModelProvider, Models, chat_tools},
};

/// The name of the prompt that an agent has for its system prompt.
pub(crate) const PROMPT: &str = "system";

/// Agents that may stand above one another.
const DEEPEST: usize = 8;
/// Answers that one message to an agent may ask for.
const MOST_ANSWERS: usize = 64;
/// What the kept instances may take in memory, roughly.
const KEPT_BYTES: u64 = 64 * 1024 * 1024;
/// Messages of the session that a model is given, unless the agent's `config.history_limit` says otherwise.
const HISTORY: u32 = 100;

/// An agent that can answer.
pub(crate) struct Instance {
    pub(crate) id: AgentId,
    pub(crate) name: String,
    pub(crate) work: Work,
    /// What it and those below it were built from.
    stamps: Vec<AgentStamp>,
    /// Answers of models that one answer of it takes.
    answers: usize,
    bytes: usize,
}

/// How an agent comes to its answer.
pub(crate) enum Work {
    /// It asks a model.
    Model(Box<Client>),
    /// Its agents answer one after the other, each what the one before said.
    Sequence(Vec<Arc<Instance>>),
    /// Its agents answer the same at once.
    Parallel(Vec<Arc<Instance>>),
}

/// The model of an agent, and all that it is given beside the conversation.
pub(crate) struct Client {
    pub(crate) provider: Arc<dyn ModelProvider>,
    pub(crate) model: String,
    pub(crate) system: Option<String>,
    pub(crate) tools: Vec<Value>,
    pub(crate) settings: Map<String, Value>,
}

impl Instance {
    /// How many messages of the session are read for it.
    pub(crate) fn history_limit(&self) -> u32 {
        match &self.work {
            Work::Model(client) => {
                let given = client.settings.get("history_limit").and_then(Value::as_u64);
                given.and_then(|limit| u32::try_from(limit).ok()).map_or(HISTORY, |limit| limit.clamp(1, 1000))
            }
            Work::Sequence(agents) | Work::Parallel(agents) => {
                agents.iter().map(|agent| agent.history_limit()).max().unwrap_or(HISTORY)
            }
        }
    }
}

/// The instances that are kept.
pub(crate) struct Instances(moka::sync::Cache<(TenantId, AgentId), Arc<Instance>>);

impl Default for Instances {
    fn default() -> Self {
        let weight = |_: &(TenantId, AgentId), it: &Arc<Instance>| u32::try_from(it.bytes).unwrap_or(u32::MAX);
        Self(moka::sync::Cache::builder().weigher(weight).max_capacity(KEPT_BYTES).build())
    }
}

impl Instances {
    /// The agent, ready to answer: as it is kept if nothing it was made of has changed, which one short read tells,
    /// else built anew.
    ///
    /// # Errors
    /// 404 when there is no such agent in use; 422 when it cannot answer: an agent below it is missing or below
    /// itself, or nobody runs its model.
    pub(crate) async fn get(&self, tenant: &TenantStore, models: &Models, id: AgentId) -> Result<Arc<Instance>> {
        let key = (tenant.id(), id);
        if let Some(kept) = self.0.get(&key) {
            let ids: Vec<AgentId> = kept.stamps.iter().map(|stamp| stamp.id).collect();
            let now = tenant.agents().stamps(&ids, PROMPT).await?;
            if now.iter().zip(&kept.stamps).all(|(now, then)| now.as_ref() == Some(then)) {
                return Ok(kept);
            }
        }
        let agent = tenant.agents().get(id).await?.filter(in_use).ok_or_else(|| ApiError::not_found("agent", id))?;
        let built = build(tenant, models, agent, &[]).await?;
        self.0.insert(key, Arc::clone(&built));
        Ok(built)
    }

    /// Lets go of agents as they change, until the store is closed: what is kept would not be used any more.
    pub(crate) async fn follow(&self, store: &Store) {
        let mut changes = store.changes();
        loop {
            match changes.recv().await {
                Ok(Change::Agent(tenant, agent)) => self.0.invalidate(&(tenant, agent)),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    }
}

fn in_use(agent: &Agent) -> bool {
    agent.active && agent.deleted_at.is_none()
}

/// Builds an agent that stands below those of `above`.
fn build<'a>(
    tenant: &'a TenantStore,
    models: &'a Models,
    agent: Agent,
    above: &'a [AgentId],
) -> BoxFuture<'a, Result<Arc<Instance>>> {
    Box::pin(async move {
        if above.contains(&agent.id) {
            return Err(unfit("agent_cycle", format!("the agent {:?} stands below itself", agent.name)));
        }
        if above.len() >= DEEPEST {
            return Err(unfit("agent_too_deep", format!("more than {DEEPEST} agents stand above one another")));
        }
        let prompt = tenant.prompts().get_active(Some(agent.id), PROMPT).await?;
        let active_prompt = prompt.as_ref().map(|prompt| prompt.id);
        let mut stamps = vec![AgentStamp { id: agent.id, version: agent.version, active_prompt }];
        let mut below = Vec::new();
        let is_team = matches!(agent.kind.as_str(), "SequentialAgent" | "ParallelAgent");
        if is_team {
            let above = [above, &[agent.id]].concat();
            for sub_agent in sub_agents(tenant, &agent).await? {
                below.push(build(tenant, models, sub_agent, &above).await?);
                let answers: usize = below.iter().map(|it| it.answers).sum();
                if answers > MOST_ANSWERS {
                    let detail = format!("the agent {:?} stands for more than {MOST_ANSWERS} answers", agent.name);
                    return Err(unfit("agent_too_large", detail));
                }
            }
            if below.is_empty() {
                return Err(unfit("sub_agent_missing", format!("the agent {:?} has no sub_agents", agent.name)));
            }
            stamps.extend(below.iter().flat_map(|it| it.stamps.iter().copied()));
            stamps.sort_unstable_by_key(|stamp| stamp.id);
            stamps.dedup_by_key(|stamp| stamp.id);
        }
        let answers = if is_team { below.iter().map(|it| it.answers).sum() } else { 1 };
        let own = agent.config.as_str().len() + agent.tools.as_str().len();
        let texts = agent.description.as_ref().map_or(0, String::len) + prompt.as_ref().map_or(0, |it| it.text.len());
        // Parsed JSON takes some times its text.
        let bytes = 1024 + 4 * own + 2 * texts + below.iter().map(|it| it.bytes).sum::<usize>();
        let work = match agent.kind.as_str() {
            "SequentialAgent" => Work::Sequence(below),
            "ParallelAgent" => Work::Parallel(below),
            _ => Work::Model(Box::new(client(models, &agent, prompt.as_ref())?)),
        };
        Ok(Arc::new(Instance { id: agent.id, name: agent.name, work, stamps, answers, bytes }))
    })
}

fn client(models: &Models, agent: &Agent, prompt: Option<&Prompt>) -> Result<Client> {
    let (provider, model) = models.find(agent.model.as_deref()).map_err(|error| unfit(error.code, error.message))?;
    let settings = match agent.config.to_value() {
        Value::Object(settings) => settings,
        _ => Map::new(),
    };
    Ok(Client { provider, model, system: system_prompt(agent, prompt), tools: chat_tools(&agent.tools), settings })
}

/// The agents below one, in order: each entry is the id of an agent, or its name.
async fn sub_agents(tenant: &TenantStore, agent: &Agent) -> Result<Vec<Agent>> {
    let Value::Array(entries) = agent.sub_agents.to_value() else { return Ok(Vec::new()) };
    let mut found = Vec::with_capacity(entries.len());
    for entry in entries {
        let sub_agent = match &entry {
            Value::Number(id) => match id.as_i64() {
                Some(id) => tenant.agents().get(AgentId(id)).await?,
                None => None,
            },
            Value::String(name) => match (tenant.agents().get_by_name(name).await?, name.parse()) {
                (None, Ok(id)) => tenant.agents().get(AgentId(id)).await?,
                (found, _) => found,
            },
            _ => None,
        };
        let missing =
            || unfit("sub_agent_missing", format!("{:?} hands work to {entry}, which is no agent in use", agent.name));
        found.push(sub_agent.filter(in_use).ok_or_else(missing)?);
    }
    Ok(found)
}

/// What an agent is told of itself, in this order: who it is (its persona), what to do (its prompt), what it is for
/// (its description). `None` when nothing of it is there.
fn system_prompt(agent: &Agent, prompt: Option<&Prompt>) -> Option<String> {
    let persona = &agent.persona;
    let expertise =
        (!persona.expertise.is_empty()).then(|| format!("You know about: {}.", persona.expertise.join(", ")));
    let parts = [
        persona.name.as_ref().map(|name| format!("You are {name}.")),
        persona.description.clone(),
        persona.personality.as_ref().map(|personality| format!("Your personality: {personality}")),
        expertise,
        prompt.map(|prompt| prompt.text.clone()),
        agent.description.clone(),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.trim().is_empty()).collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

/// An agent that is there and cannot answer.
fn unfit(code: &'static str, detail: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
}
