//! The rows that every system writes and reads, and the callers that do it through agentkeep.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agentkeep::{
    Store,
    core::{JsonObject, MessageId, MessageRole, NewMessage, NewSession, SessionId},
};
use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::figures::Round;

/// Sessions that the writers choose from.
pub const SESSIONS: u64 = 1_000;
/// Messages that each session has before anything is read.
pub const MESSAGES: u64 = 100;
/// Rows in a batch.
pub const BATCH: usize = 1_000;
/// How long one round of one system takes.
pub const ROUND: Duration = Duration::from_secs(1);

/// The text of a message: 500 bytes.
pub fn text() -> String {
    "The customer asks whether flight HAT136 can still be changed. ".chars().cycle().take(500).collect()
}

/// The metadata of a message: 200 bytes.
pub fn metadata() -> String {
    let start = r#"{"model":"gpt-4o","temperature":0.2,"latency_ms":812,"trace":""#;
    let end = r#"","tags":["airline","change"]}"#;
    format!("{start}{}{end}", "a1b2c3d4".chars().cycle().take(200 - start.len() - end.len()).collect::<String>())
}

/// The id of session `number`, from 1: known to every system without asking.
pub fn session_id(number: u64) -> SessionId {
    SessionId(agentkeep_uuid(0x5e55_0000_0000_0000_0000_0000_0000_0000, number))
}

/// The id of the message with that place in all of the messages, from 1.
pub fn message_id(number: u64) -> MessageId {
    MessageId(agentkeep_uuid(0x3e55_0000_0000_0000_0000_0000_0000_0000, number))
}

fn agentkeep_uuid(kind: u128, number: u64) -> uuid::Uuid {
    uuid::Uuid::from_u128(kind | u128::from(number))
}

/// A message as the benches write it.
pub fn message(text: &str, metadata: &JsonObject) -> NewMessage {
    NewMessage { metadata: metadata.clone(), ..NewMessage::text(MessageRole::User, text) }
}

/// Makes the sessions, each with its messages.
pub async fn fill(store: &Store) -> Result<()> {
    let (text, metadata) = (text(), JsonObject::parse("metadata", metadata())?);
    for session in 1..=SESSIONS {
        let new = NewSession { id: Some(session_id(session)), ..NewSession::default() };
        store.sessions().create(new).await?;
        let messages = (1..=MESSAGES).map(|place| NewMessage {
            id: Some(message_id((session - 1) * MESSAGES + place)),
            ..message(&text, &metadata)
        });
        store.messages().append_many(session_id(session), messages.collect()).await?;
    }
    Ok(())
}

/// A small generator of numbers (xorshift): choosing a session must cost nothing.
pub struct Chooser(u64);

impl Chooser {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 1 to `last`.
    pub fn next(&mut self, last: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % last + 1
    }
}

/// What a caller does again and again.
#[derive(Clone, Copy)]
pub enum Operation {
    Append,
    AppendBatch,
    Get,
    Recent,
}

/// Runs `clients` callers for one round.
pub async fn run(store: &Store, operation: Operation, clients: usize) -> Result<Round> {
    let (text, metadata) = (Arc::<str>::from(text()), JsonObject::parse("metadata", metadata())?);
    let mut callers = JoinSet::new();
    let started = Instant::now();
    for client in 0..clients {
        let (store, text, metadata) = (store.clone(), Arc::clone(&text), metadata.clone());
        callers.spawn(async move {
            let mut chooser = Chooser::new(client as u64 + 1);
            let (mut operations, mut latencies) = (0, Vec::new());
            while started.elapsed() < ROUND {
                let begun = Instant::now();
                operations += once(&store, operation, &mut chooser, &text, &metadata).await?;
                latencies.push(begun.elapsed());
            }
            anyhow::Ok((operations, latencies))
        });
    }
    let mut round = Round { operations: 0, took: Duration::ZERO, latencies: Vec::new() };
    while let Some(caller) = callers.join_next().await {
        let (operations, latencies) = caller??;
        round.operations += operations;
        round.latencies.extend(latencies);
    }
    round.took = started.elapsed();
    Ok(round)
}

async fn once(
    store: &Store,
    operation: Operation,
    chooser: &mut Chooser,
    text: &str,
    metadata: &JsonObject,
) -> Result<u64> {
    let session = session_id(chooser.next(SESSIONS));
    match operation {
        Operation::Append => {
            store.messages().append(session, message(text, metadata)).await?;
            Ok(1)
        }
        Operation::AppendBatch => {
            let messages = (0..BATCH).map(|_| message(text, metadata)).collect();
            Ok(store.messages().append_many(session, messages).await?.len() as u64)
        }
        Operation::Get => {
            let id = message_id(chooser.next(SESSIONS * MESSAGES));
            store.messages().get(id).await?.context("a message that was written is there")?;
            Ok(1)
        }
        Operation::Recent => {
            let recent = store.messages().recent(session, 30).await?;
            anyhow::ensure!(recent.len() == 30, "30 messages come back, not {}", recent.len());
            Ok(1)
        }
    }
}
