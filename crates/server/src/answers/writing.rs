//! An answer on its way into the database. While a delta is being committed what comes meanwhile is collected into the
//! next one: a slow database makes larger deltas, not a queue.

use std::time::Duration;

use agentkeep::TenantStore;
use agentkeep_core::{Delta, Error, Finish, JsonArray, MessageId, Result, SessionId, StreamError};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

/// The largest answer, text and reasoning together.
const ANSWER_BYTES: usize = 2 * 1024 * 1024;
/// How often something that has to be written is tried while the database is away.
const TRIES: u32 = 6;

/// A message that is being streamed in.
pub(super) struct Writing {
    tenant: TenantStore,
    session: SessionId,
    pub(super) message: MessageId,
    pub(super) text: String,
    thinking: String,
    pub(super) calls: Vec<Value>,
    /// What came and is not on its way yet.
    collected: Delta,
    on_its_way: Option<BoxFuture<'static, Result<i64>>>,
}

impl Writing {
    pub(super) fn new(tenant: TenantStore, session: SessionId, message: MessageId) -> Self {
        let (text, thinking, calls) = (String::new(), String::new(), Vec::new());
        Self { tenant, session, message, text, thinking, calls, collected: Delta::default(), on_its_way: None }
    }

    /// More of the text.
    pub(super) fn add_text(&mut self, more: &str) -> Result<(), StreamError> {
        self.text.push_str(more);
        self.collected.content.get_or_insert_default().push_str(more);
        self.check()
    }

    /// More of the reasoning.
    pub(super) fn add_thinking(&mut self, more: &str) -> Result<(), StreamError> {
        self.thinking.push_str(more);
        self.collected.thinking.get_or_insert_default().push_str(more);
        self.check()
    }

    fn check(&self) -> Result<(), StreamError> {
        if self.text.len() + self.thinking.len() <= ANSWER_BYTES {
            return Ok(());
        }
        let message = format!("the answer is larger than {ANSWER_BYTES} bytes");
        Err(StreamError { code: "model_too_large".to_owned(), message })
    }

    /// Whether a delta is being committed.
    pub(super) fn is_busy(&self) -> bool {
        self.on_its_way.is_some()
    }

    /// Sends what was collected, unless something is on its way.
    pub(super) fn send(&mut self) {
        if self.is_busy() || self.collected == Delta::default() {
            return;
        }
        let delta = std::mem::take(&mut self.collected);
        let (tenant, session, message) = (self.tenant.clone(), self.session, self.message);
        self.on_its_way = Some(Box::pin(async move { tenant.messages().delta(session, message, &delta).await }));
    }

    /// Waits for what is on its way.
    pub(super) async fn sent(&mut self) -> Result<()> {
        if let Some(on_its_way) = &mut self.on_its_way {
            let outcome = on_its_way.await;
            self.on_its_way = None;
            outcome?;
        }
        Ok(())
    }

    /// Sends all that was collected and waits for it.
    pub(super) async fn flush(&mut self) -> Result<()> {
        self.sent().await?;
        self.send();
        self.sent().await
    }

    /// Ends the message: whole, or with the error that broke it off.
    pub(super) async fn finish(self, finish: Finish) -> Result<()> {
        let parts = match self.thinking.is_empty() {
            true => None,
            false => Some(JsonArray::from_serialize(
                "parts",
                &json!([{"type": "reasoning", "text": self.thinking}, {"type": "text", "text": self.text}]),
            )?),
        };
        let whole = finish.error.is_none() && !self.calls.is_empty();
        let tool_calls = match whole {
            true => Some(JsonArray::from_serialize("tool_calls", &self.calls)?),
            false => None,
        };
        let finish = Finish { content: Some(self.text), parts, tool_calls, ..finish };
        let (tenant, session, message, finish) = (&self.tenant, self.session, self.message, &finish);
        persist(|| async move { tenant.messages().finish(session, message, finish.clone()).await.map(|_| ()) }).await
    }
}

/// Writes something that has to be written: tried again as long as the database is away, for some seconds. What is over
/// already counts as written when an earlier try may have done it.
pub(super) async fn persist<F, Work>(write: F) -> Result<()>
where
    F: Fn() -> Work,
    Work: Future<Output = Result<()>>,
{
    let mut tries = 1;
    loop {
        match write().await {
            Err(Error::IllegalTransition { .. } | Error::RunFenced { .. }) if tries > 1 => return Ok(()),
            Err(error) if tries < TRIES && is_passing(&error) => {
                tokio::time::sleep(Duration::from_millis(100) * 2_u32.pow(tries)).await;
                tries += 1;
            }
            outcome => return outcome,
        }
    }
}

/// Whether a repetition may cure it.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Unavailable { .. } | Error::PoolTimeout { .. } | Error::Timeout { .. } => true,
        Error::Database { code: Some(code), .. } => {
            ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) || code == "55P03"
        }
        _ => false,
    }
}
