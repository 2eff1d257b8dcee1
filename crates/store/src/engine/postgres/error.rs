//! What went wrong with a statement, and what that leaves open.
//!
//! Errors are sorted once, here, by what is known of the statement afterwards: everything that
//! is repeated or given up elsewhere is decided from that.

use std::time::Duration;

use agentkeep_core::Error;
use postgres_protocol::message::backend::{ErrorFields, ErrorResponseBody};
use tokio_postgres::error::SqlState;
use tokio_postgres::fallible_iterator::FallibleIterator as _;

/// How a statement failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// It was not sent, and would not be next time either.
    Unfit(Error),
    /// It was not sent: the connection had been lost before.
    Closed,
    /// It was not sent: no connection came about.
    Away(Error),
    /// The server refused it; nothing of it remains.
    Server { code: SqlState, message: String },
    /// The connection was lost while it ran: whether it took effect is not known.
    Lost(String),
    /// It ran; what came back cannot be read.
    Unreadable(Error),
    /// Neither an answer nor the end of the connection came in time.
    Expired,
}

impl Fault {
    /// What the server says of a statement.
    pub(super) fn from_server(body: &ErrorResponseBody) -> Self {
        let Words { code, message, hint, .. } = Words::read(body.fields());
        let code = SqlState::from_code(&code);
        // The server's DETAIL repeats values of the row, which may be secrets: it is left out.
        Self::Server { code, message: if hint.is_empty() { message } else { format!("{message}; {hint}") } }
    }

    /// A parameter, counted from 1, that does not fit its place in the statement.
    pub(super) fn unfit(place: usize, cause: &dyn std::error::Error) -> Self {
        Self::Unfit(Error::invalid(format!("parameter ${place}"), cause.to_string()))
    }

    /// A statement or a name that no message can hold.
    pub(super) fn unsendable(error: &std::io::Error) -> Self {
        Self::Unfit(Error::database(format!("the statement cannot be sent: {error}")))
    }

    pub(super) fn unreadable(error: &std::io::Error) -> Self {
        Self::Unreadable(Error::database(format!("the server's answer cannot be read: {error}")))
    }

    pub(super) fn malformed_row() -> Self {
        Self::Unreadable(Error::database("the server's answer cannot be read: a row has other columns than were told"))
    }

    fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server { code, .. } => Some(code.code()),
            _ => None,
        }
    }

    /// Stopped by a time limit or a cancel request.
    pub(super) fn is_cancelled(&self) -> bool {
        self.sqlstate() == Some("57014")
    }

    /// A serialisation failure or a deadlock: worth repeating at once.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.sqlstate(), Some("40001" | "40P01"))
    }

    /// The server is busy, starting or stopping: worth repeating after a pause. Nothing was done.
    pub(super) fn is_busy(&self) -> bool {
        self.sqlstate().is_some_and(|code| {
            matches!(code, "55P03" | "57P01" | "57P02" | "57P03") || code.starts_with("53") || code.starts_with("08")
        })
    }

    /// It waited for a lock for longer than its connection allows. Nothing was done.
    pub(super) fn is_lock_timeout(&self) -> bool {
        self.sqlstate() == Some("55P03")
    }

    /// One of the rows is at fault, not the statement.
    pub(super) fn is_row(&self) -> bool {
        matches!(self, Self::Unfit(_))
            || self.sqlstate().is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    }

    /// A prepared statement that the server has forgotten, or whose columns changed under it.
    pub(super) fn is_stale(&self) -> bool {
        match self {
            Self::Server { code, .. } if *code == SqlState::INVALID_SQL_STATEMENT_NAME => true,
            // "cached plan must not change result type"; the text is translated, the code is shared with
            // other errors, and one more try does no harm.
            Self::Server { code, .. } => *code == SqlState::FEATURE_NOT_SUPPORTED,
            _ => false,
        }
    }

    /// The error to tell, for a statement that ran at `target`.
    pub(super) fn into_error(self, target: &str, limit: Duration) -> Error {
        match self {
            Self::Unfit(error) | Self::Away(error) | Self::Unreadable(error) => error,
            Self::Closed => unavailable(target, "the connection was closed"),
            Self::Lost(reason) => unavailable(
                target,
                &format!("{reason} while a statement ran; if it writes, it may or may not have happened"),
            ),
            Self::Expired => Error::Timeout { what: format!("a statement on {target}"), after: limit },
            Self::Server { code, .. } if code == SqlState::QUERY_CANCELED => {
                Error::Timeout { what: format!("a statement on {target}"), after: limit }
            }
            Self::Server { code, message } if code.code().starts_with("08") => unavailable(target, &message),
            Self::Server { code, message } => Error::Database { code: Some(code.code().to_owned()), message },
        }
    }
}

pub(super) fn unavailable(target: &str, reason: &str) -> Error {
    Error::Unavailable { target: target.to_owned(), reason: reason.to_owned() }
}

/// What the server says in an error or a notice.
#[derive(Default)]
pub(super) struct Words {
    pub(super) severity: String,
    pub(super) code: String,
    pub(super) message: String,
    hint: String,
}

impl Words {
    /// Reads as many as there are.
    pub(super) fn read(mut fields: ErrorFields<'_>) -> Self {
        let mut words = Self::default();
        while let Ok(Some(field)) = fields.next() {
            let place = match field.type_() {
                b'S' => &mut words.severity,
                b'C' => &mut words.code,
                b'M' => &mut words.message,
                b'H' => &mut words.hint,
                _ => continue,
            };
            *place = String::from_utf8_lossy(field.value_bytes()).into_owned();
        }
        words
    }
}

/// The same error again, for another caller of the same group.
pub(super) fn repeat(error: &Error) -> Error {
    match error {
        Error::Database { code, message } => Error::Database { code: code.clone(), message: message.clone() },
        Error::Unavailable { target, reason } => unavailable(target, reason),
        Error::Timeout { what, after } => Error::Timeout { what: what.clone(), after: *after },
        Error::Invalid { field, reason } => Error::invalid(field.clone(), reason.clone()),
        Error::Config(reason) => Error::Config(reason.clone()),
        other => Error::database(other.to_string()),
    }
}

/// The deepest text of an error's chain, for errors whose own text says too little.
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
