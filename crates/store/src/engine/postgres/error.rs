//! What went wrong with a statement, and what that leaves open.
//!
//! The driver's errors are sorted once, here, by what is known of the statement afterwards: everything that
//! is repeated or given up elsewhere is decided from that.

use std::time::Duration;

use agentkeep_core::Error;
use tokio_postgres::error::SqlState;

use super::encode::Unfit;

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
    /// Sorts an error of the driver.
    pub(super) fn from_driver(error: &tokio_postgres::Error) -> Self {
        if let Some(server) = error.as_db_error() {
            return Self::Server { code: server.code().clone(), message: server_message(server) };
        }
        match std::error::Error::source(error) {
            Some(cause) if cause.is::<Unfit>() => {
                // The driver's text is "error serializing parameter N", counted from 0.
                let place = error.to_string().rsplit(' ').next().and_then(|last| last.parse::<usize>().ok());
                let place = place.map_or_else(|| "a parameter".to_owned(), |index| format!("parameter ${}", index + 1));
                Self::Unfit(Error::invalid(place, cause.to_string()))
            }
            Some(cause) if cause.is::<std::io::Error>() => Self::Lost(cause.to_string()),
            Some(cause) => Self::Unfit(Error::database(format!("{error}: {cause}"))),
            None if error.is_closed() => Self::Lost("the connection was closed".into()),
            None => Self::Unfit(Error::database(error.to_string())),
        }
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

/// The message with its detail where that names a column or constraint. The server's DETAIL repeats values of
/// the row, which may be secrets: it is left out.
fn server_message(error: &tokio_postgres::error::DbError) -> String {
    let mut message = error.message().to_owned();
    if let Some(hint) = error.hint() {
        message.push_str("; ");
        message.push_str(hint);
    }
    message
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
