//! Writes the conversations of a log as sessions.
//!
//! A thread of its own reads and maps the items; the writer takes them in batches. An item is written in one
//! transaction, its session and all its messages, and small items share one. A session is known by the
//! platform and by a chat id that follows from the item alone, so an import that was interrupted at any point
//! and is run again adds exactly what is missing.

use std::{
    collections::HashMap,
    io::{self, Read},
    pin::pin,
};

use agentkeep_core::{
    AgentId, Error, ListRequest, NewMessage, NewSession, Result, Session, SessionId, SessionPatch, limits,
};
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    openai::{Conversation, has_messages, openai_message},
    scan::{Items, RawItem},
};
use crate::TenantStore;

/// The platform of imported sessions, unless another is asked for.
pub const PLATFORM: &str = "openai-chat";

/// A transaction holds items until it has so many of them or so many bytes.
const BATCH_ITEMS: usize = 64;
const BATCH_BYTES: usize = 512 * 1024;
/// Messages written, or read for comparison, at a time.
const MESSAGES: usize = 500;
/// Items that could not be read and are told one by one; the rest is counted.
const UNREADABLE_TOLD: usize = 1000;

/// How a log is imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// The platform of the sessions. The same log on another platform makes other sessions.
    pub platform: String,
    /// The agent that leads the sessions.
    pub agent: Option<AgentId>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { platform: PLATFORM.to_owned(), agent: None }
    }
}

/// What an import has done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// Items passed.
    pub items: u64,
    /// Sessions that are new.
    pub sessions_added: u64,
    /// Sessions that were there and got the messages they missed.
    pub sessions_extended: u64,
    /// Sessions that were there with all their messages.
    pub sessions_unchanged: u64,
    /// Messages written.
    pub messages_added: u64,
    /// Items that could not be read.
    pub unreadable: u64,
    /// The first of them, with the reasons.
    pub problems: Vec<Unreadable>,
    /// Bytes of the log passed.
    pub bytes: u64,
    /// Whether the import was asked to stop before the end.
    pub stopped: bool,
}

/// An item that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Its number in the log, from 1.
    pub item: u64,
    /// The line it starts on, from 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// Imports a log of chat messages in the format of OpenAI's API: a JSON array, JSON lines, or one object,
/// each item with a list of messages under `messages`, `traj` or `conversation`. What stands beside the list
/// becomes the session's metadata.
///
/// Items that cannot be read are told in the report and passed over. When `stop` completes, the import ends
/// after the transaction that is running. `progress` is told after every transaction.
///
/// # Errors
/// [`Error::Invalid`] for options that break a rule, or what the database reports. What `progress` was told
/// last is done; running the import again does the rest.
pub async fn import(
    tenant: &TenantStore,
    input: impl Read + Send + 'static,
    options: &ImportOptions,
    stop: impl Future<Output = ()>,
    mut progress: impl FnMut(&ImportReport),
) -> Result<ImportReport> {
    limits::check_name("platform", &options.platform)?;
    let (sender, mut batches) = mpsc::channel(1);
    // Detached: a reader that waits for its input must not keep a stopped import from ending.
    std::thread::Builder::new().name("agentkeep-import".to_owned()).spawn(move || read(input, &sender)).map_err(
        |error| Error::Unavailable { target: "a thread to read with".to_owned(), reason: error.to_string() },
    )?;
    let mut report = ImportReport::default();
    let mut stop = pin!(stop);
    loop {
        let batch = tokio::select! {
            biased;
            () = &mut stop => {
                report.stopped = true;
                return Ok(report);
            }
            batch = batches.recv() => batch,
        };
        let Some(batch) = batch else { return Ok(report) };
        let batch: Batch = batch.map_err(|error| Error::invalid("input", format!("cannot be read: {error}")))?;
        report.items += batch.items.len() as u64 + batch.problems.len() as u64;
        let written = write(tenant, options, batch.items, &mut report).await;
        report.unreadable += batch.problems.len() as u64;
        report.problems.extend(batch.problems);
        report.problems.sort_by_key(|problem| problem.item);
        report.problems.truncate(UNREADABLE_TOLD);
        report.bytes = batch.offset;
        progress(&report);
        written?;
    }
}

/// Items that are written together.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    problems: Vec<Unreadable>,
    /// Where in the log the scanner stands behind them.
    offset: u64,
    bytes: usize,
}

/// An item that was read.
struct Item {
    number: u64,
    line: u64,
    conversation: Conversation,
    /// The chat id when the item has no id of its own, or when its id holds another conversation.
    content_id: String,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.items.len() + self.problems.len() >= BATCH_ITEMS
    }
}

/// Reads the log and sends batches, until the end or until nobody takes them any more.
fn read(input: impl Read, sender: &mpsc::Sender<io::Result<Batch>>) {
    let mut items = Items::new(input, has_messages);
    let mut equals = HashMap::new();
    let mut batch = Batch::default();
    while let Some(item) = items.next() {
        let item = match item {
            Ok(item) => item,
            Err(error) => {
                let _ = sender.blocking_send(Ok(batch));
                let _ = sender.blocking_send(Err(error));
                return;
            }
        };
        batch.offset = items.offset();
        batch.add(item, &mut equals);
        if batch.is_full() && sender.blocking_send(Ok(std::mem::take(&mut batch))).is_err() {
            return;
        }
    }
    batch.offset = items.offset();
    let _ = sender.blocking_send(Ok(batch));
}

impl Batch {
    fn add(&mut self, raw: RawItem, equals: &mut HashMap<String, u64>) {
        let RawItem { number, line, offset, content } = raw;
        let conversation = content.and_then(|bytes| {
            self.bytes += bytes.len();
            parse(bytes, offset)
        });
        match conversation {
            Ok(conversation) => {
                let content_id = content_id(&conversation, equals);
                self.items.push(Item { number, line, conversation, content_id });
            }
            Err(reason) => self.problems.push(Unreadable { item: number, line, reason }),
        }
    }
}

fn parse(bytes: Vec<u8>, offset: u64) -> Result<Conversation, String> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = offset + error.utf8_error().valid_up_to() as u64;
        format!("is not UTF-8 at byte {at} of the file")
    })?;
    Conversation::parse(&text).map_err(|error| error.to_string())
}

/// The hash of the item. Items without an id that are equal are different conversations: the second one's
/// id says that it is the second.
fn content_id(conversation: &Conversation, equals: &mut HashMap<String, u64>) -> String {
    if conversation.id.is_some() {
        return conversation.hash.clone();
    }
    let count = equals.entry(conversation.hash.clone()).or_default();
    *count += 1;
    match *count {
        1 => conversation.hash.clone(),
        count => format!("{}-{count}", conversation.hash),
    }
}

/// What became of an item.
enum Outcome {
    Added(usize),
    Extended(usize),
    Unchanged,
}

impl ImportReport {
    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Added(messages) => {
                self.sessions_added += 1;
                self.messages_added += *messages as u64;
            }
            Outcome::Extended(messages) => {
                self.sessions_extended += 1;
                self.messages_added += *messages as u64;
            }
            Outcome::Unchanged => self.sessions_unchanged += 1,
        }
    }
}

/// Writes a batch in one transaction; when an item of it is refused, each item in one of its own.
async fn write(
    tenant: &TenantStore,
    options: &ImportOptions,
    items: Vec<Item>,
    report: &mut ImportReport,
) -> Result<()> {
    match write_together(tenant, options, &items).await {
        Ok(outcomes) => {
            outcomes.iter().for_each(|outcome| report.count(outcome));
            return Ok(());
        }
        Err(error) if !is_about_an_item(&error) => return Err(error),
        Err(_) => {}
    }
    for item in &items {
        match write_together(tenant, options, std::slice::from_ref(item)).await {
            Ok(outcomes) => outcomes.iter().for_each(|outcome| report.count(outcome)),
            Err(error) if is_about_an_item(&error) => {
                report.unreadable += 1;
                report.problems.push(Unreadable { item: item.number, line: item.line, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the next item may fare better.
fn is_about_an_item(error: &Error) -> bool {
    match error {
        Error::Invalid { .. } | Error::AlreadyExists { .. } => true,
        // Values the database refuses; 18 is SQLite's word for a value that is too big.
        Error::Database { code: Some(code), .. } => code.starts_with("22") || code.starts_with("54") || code == "18",
        _ => false,
    }
}

async fn write_together(tenant: &TenantStore, options: &ImportOptions, items: &[Item]) -> Result<Vec<Outcome>> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let work = |tenant: TenantStore| async move {
        let mut outcomes = Vec::with_capacity(items.len());
        for item in items {
            outcomes.push(write_item(&tenant, options, item).await?);
        }
        Ok(outcomes)
    };
    tenant.transaction(work).await
}

/// Writes an item where it belongs: behind what is stored of it, or as a new session.
async fn write_item(tenant: &TenantStore, options: &ImportOptions, item: &Item) -> Result<Outcome> {
    let Conversation { id, exported_from, messages, .. } = &item.conversation;
    if let Some(origin) = exported_from
        && let Some(session) = tenant.sessions().get(*origin).await?
        && let Some(stored) = stored_prefix(tenant, &session, messages).await?
    {
        return extend(tenant, options, &session, &messages[stored..]).await;
    }
    if let Some(id) = id {
        let Some(session) = tenant.sessions().get_by_chat(&options.platform, id).await? else {
            return create(tenant, options, id, &item.conversation).await;
        };
        if let Some(stored) = stored_prefix(tenant, &session, messages).await? {
            return extend(tenant, options, &session, &messages[stored..]).await;
        }
    }
    match tenant.sessions().get_by_chat(&options.platform, &item.content_id).await? {
        None => create(tenant, options, &item.content_id, &item.conversation).await,
        // Written whole, in one transaction, by an import before; what was changed since is left alone.
        Some(session) => extend(tenant, options, &session, &[]).await,
    }
}

/// How many of the messages the session has already; `None` when it holds others.
async fn stored_prefix(tenant: &TenantStore, session: &Session, messages: &[NewMessage]) -> Result<Option<usize>> {
    let mut request = ListRequest::new().filter("session_id", session.id).limit(MESSAGES as u32);
    let mut same = 0;
    while same < messages.len() {
        let page = tenant.messages().list(&request).await?;
        for (stored, new) in page.items.iter().zip(&messages[same..]) {
            if openai_message(stored) != openai_message(new) {
                return Ok(None);
            }
            same += 1;
        }
        match page.next {
            Some(next) => request.cursor = Some(next),
            None => break,
        }
    }
    Ok(Some(same))
}

async fn create(
    tenant: &TenantStore,
    options: &ImportOptions,
    chat_id: &str,
    conversation: &Conversation,
) -> Result<Outcome> {
    let session = NewSession {
        agent_id: options.agent,
        name: conversation.name.clone(),
        platform: Some(options.platform.clone()),
        chat_id: Some(chat_id.to_owned()),
        metadata: conversation.metadata.clone(),
        ..NewSession::default()
    };
    let session = tenant.sessions().create(session).await?;
    append(tenant, session.id, 0, &conversation.messages).await?;
    Ok(Outcome::Added(conversation.messages.len()))
}

async fn extend(
    tenant: &TenantStore,
    options: &ImportOptions,
    session: &Session,
    messages: &[NewMessage],
) -> Result<Outcome> {
    if options.agent.is_some() && session.agent_id.is_none() {
        let patch = SessionPatch { agent_id: Some(options.agent), ..SessionPatch::default() };
        tenant.sessions().update(session.id, patch).await?;
    }
    if messages.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    append(tenant, session.id, session.last_seq, messages).await?;
    Ok(Outcome::Extended(messages.len()))
}

async fn append(tenant: &TenantStore, session: SessionId, last_seq: i64, messages: &[NewMessage]) -> Result<()> {
    let mut expected = last_seq + 1;
    for part in messages.chunks(MESSAGES) {
        let written = tenant.messages().append_many(session, part.to_vec()).await?;
        // Somebody appended since the session was read: the transaction is repeated with fresh eyes.
        if written.first().is_some_and(|message| message.seq != expected) {
            let message = format!("session {session} was written to at the same time");
            return Err(Error::Database { code: Some("40001".to_owned()), message });
        }
        expected += part.len() as i64;
    }
    Ok(())
}
