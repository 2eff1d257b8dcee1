//! Agents that answer. An answer is a run: a task of this process that asks models and writes what they say into the
//! session, whoever listens. Its lease in the database says that the process lives; the runs of a process that died are
//! closed by any other, so that nothing is streaming for ever.

mod answering;
mod instance;
mod leases;
mod running;
mod writing;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentkeep::TenantStore;
use agentkeep_core::{
    AgentId, Clock, IdGenerator, Message, MessageRole, Run, RunId, RunOutcome, Session, SystemClock, Timestamp,
};

pub(crate) use answering::{OpenCall, open_calls, run_messages};
pub(crate) use instance::Instance;
pub(crate) use leases::tend;

use crate::{
    app::App,
    error::{ApiError, Result},
    model::Models,
};
use running::{Running, Stop};

/// For how long a run is sure to be this process's, unless it says that it still lives.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How long runs that are under way at the end of the server may take.
const GRACE: Duration = Duration::from_secs(8);
/// How long it may take then to write that they ended.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// What answering takes, beside the database.
pub(crate) struct Answers {
    models: Models,
    /// The name of this process among those that answer.
    owner: String,
    instances: instance::Instances,
    running: Running,
    ending: AtomicBool,
}

impl Answers {
    pub(crate) fn new(models: Models) -> Self {
        let owner = IdGenerator::default().generate(SystemClock.now()).to_string();
        let (instances, running) = (instance::Instances::default(), Running::default());
        Self { models, owner, instances, running, ending: AtomicBool::new(false) }
    }

    /// The name of this process, and until when a run that it begins now is its own.
    pub(crate) fn lease(&self, now: Timestamp) -> (&str, Timestamp) {
        (&self.owner, now.plus(LEASE))
    }

    /// The agent, ready to answer.
    ///
    /// # Errors
    /// 404 when there is no such agent in use, 422 when it cannot answer, 503 when the server is about to end.
    pub(crate) async fn instance(&self, tenant: &TenantStore, agent: AgentId) -> Result<Arc<Instance>> {
        if self.ending.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable("server_stopping", "the server is ending"));
        }
        self.instances.get(tenant, &self.models, agent).await
    }

    /// Answers, as a task that nobody has to wait for. The run is this process's and running.
    pub(crate) fn begin(app: &App, tenant: TenantStore, session: &Session, run: Run, instance: Arc<Instance>) {
        let guard = app.answers.running.add(tenant.id(), run.id);
        if app.answers.ending.load(Ordering::Relaxed) {
            app.answers.running.stop(run.id, Stop::ServerStopping);
        }
        let owner = app.answers.owner.clone();
        let answering = answering::Answering::new(tenant, session.user_id, run, owner, guard);
        tokio::spawn(answering.run(instance));
    }

    /// Ends a run that this process is at or that waits; as it is then.
    ///
    /// # Errors
    /// 404; 409 when it is over, or another server is at it.
    pub(crate) async fn cancel(&self, tenant: &TenantStore, id: RunId) -> Result<Run> {
        let get = || async { tenant.runs().get(id).await?.ok_or_else(|| ApiError::not_found("run", id)) };
        get().await?;
        if self.running.stop(id, Stop::Cancelled) {
            self.running.ended(Some(id), LAST_WRITES).await;
            return get().await;
        }
        let run = get().await?;
        if run.status == agentkeep_core::RunStatus::Running {
            let detail = format!("another server is at the run; only {} can cancel it", run.owner);
            return Err(ApiError::new(axum::http::StatusCode::CONFLICT, "run_elsewhere", detail));
        }
        let (owner, until) = self.lease(tenant.now());
        let end = |tenant: TenantStore| async move {
            // Refused unless it waits.
            tenant.runs().resume(id, owner, until).await?;
            tenant.runs().finish(id, owner, RunOutcome::Failed(Stop::Cancelled.error()), None).await
        };
        Ok(tenant.transaction(end).await?)
    }

    /// Begins no more runs, gives those under way some seconds, and ends the others.
    pub(crate) async fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
        if self.running.ended(None, GRACE).await {
            return;
        }
        self.running.stop_all(Stop::ServerStopping);
        if !self.running.ended(None, LAST_WRITES).await {
            tracing::warn!(target: "agentkeep::answers", "some runs could not be ended; other servers will close them");
        }
    }
}

/// The result of a tool among messages.
fn is_result(message: &Message) -> bool {
    message.role == MessageRole::Tool
}
