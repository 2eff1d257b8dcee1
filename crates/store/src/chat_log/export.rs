//! Sessions as JSON lines.

use std::{error, fmt, io, io::Write};

use agentkeep_core::{Direction, Error, ListRequest, Session, SessionId, SessionStatus};

use super::openai::openai_message;
use crate::TenantStore;

/// Sessions read at a time.
const SESSIONS: u32 = 100;
/// Messages read at a time.
const MESSAGES: u32 = 200;

/// What an export has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Sessions.
    pub sessions: u64,
    /// Their messages.
    pub messages: u64,
}

/// Why an export ended early.
#[derive(Debug)]
pub enum ExportError {
    /// The store could not be read.
    Store(Error),
    /// The output could not be written.
    Output(io::Error),
}

impl fmt::Display for ExportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Output(error) => write!(f, "the export cannot be written: {error}"),
        }
    }
}

impl error::Error for ExportError {}

impl From<Error> for ExportError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for ExportError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Writes one session, or all of them in the order they were created, as JSON lines: `id`, `name`, `metadata`
/// and `messages` of each. Sessions marked as deleted are left out of all. Reads page by page; `progress` is
/// told after every page.
///
/// # Errors
/// [`Error::NotFound`] for a session that does not exist, what the database reports, or the fault of `output`.
pub async fn export(
    tenant: &TenantStore,
    session: Option<SessionId>,
    output: &mut impl Write,
    mut progress: impl FnMut(&ExportReport),
) -> Result<ExportReport, ExportError> {
    let mut report = ExportReport::default();
    if let Some(id) = session {
        let session = tenant.sessions().get(id).await?.ok_or_else(|| Error::not_found("session", id))?;
        write_session(tenant, &session, output, &mut report, &mut progress).await?;
        return Ok(report);
    }
    let mut request = ListRequest::new().order_by("id", Direction::Ascending).limit(SESSIONS);
    loop {
        let page = tenant.sessions().list(&request).await?;
        for session in page.items.iter().filter(|session| session.status != SessionStatus::Deleted) {
            write_session(tenant, session, output, &mut report, &mut progress).await?;
        }
        match page.next {
            Some(next) => request.cursor = Some(next),
            None => return Ok(report),
        }
    }
}

async fn write_session(
    tenant: &TenantStore,
    session: &Session,
    output: &mut impl Write,
    report: &mut ExportReport,
    progress: &mut impl FnMut(&ExportReport),
) -> Result<(), ExportError> {
    let name = serde_json::to_string(&session.name).map_err(io::Error::from)?;
    // The metadata may have line breaks where its writer had them; a line of JSON lines may not.
    let metadata = session.metadata.to_value();
    write!(output, r#"{{"id":"{}","name":{name},"metadata":{metadata},"messages":["#, session.id)?;
    let mut request = ListRequest::new().filter("session_id", session.id).limit(MESSAGES);
    let mut first = true;
    loop {
        let page = tenant.messages().list(&request).await?;
        for message in &page.items {
            if !std::mem::take(&mut first) {
                output.write_all(b",")?;
            }
            serde_json::to_writer(&mut *output, &openai_message(message)).map_err(io::Error::from)?;
            report.messages += 1;
        }
        progress(report);
        match page.next {
            Some(next) => request.cursor = Some(next),
            None => break,
        }
    }
    output.write_all(b"]}\n")?;
    report.sessions += 1;
    progress(report);
    Ok(())
}
