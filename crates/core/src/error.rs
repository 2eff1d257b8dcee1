//! What can go wrong, told to the person who has to act on it.
//!
//! Every error names what was wrong, where, and carries a stable `code` that clients may match on. An
//! absent row is [`Error::NotFound`] or `None`, never an empty success; a fault of the database is never
//! dressed up as "no rows".

use std::time::Duration;

use crate::{BudgetExceeded, PriceId, Timestamp, TokenKind};

/// The result of every operation of agentkeep.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of agentkeep. [`Error::code`] gives the stable name of its kind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value broke a rule. Nothing was changed.
    #[error("{field}: {reason}")]
    Invalid {
        /// Where the value stood, as a path (`metadata.tags[3]`).
        field: String,
        /// Which rule it broke, and what is allowed.
        reason: String,
    },
    /// No such row in this tenant.
    #[error("{entity} {key} not found")]
    NotFound {
        /// The kind of entity, in the singular.
        entity: &'static str,
        /// The id or unique key that was looked for.
        key: String,
    },
    /// The unique key is taken.
    #[error("{entity} with {field} {value} exists already")]
    AlreadyExists {
        /// The kind of entity, in the singular.
        entity: &'static str,
        /// The unique field or fields.
        field: String,
        /// The value that is taken.
        value: String,
    },
    /// A reference points to a row that does not exist in this tenant.
    #[error("{field}: no {entity} {value} exists")]
    MissingReference {
        /// The field that holds the reference.
        field: String,
        /// The kind of entity it should point to.
        entity: &'static str,
        /// The id that points nowhere.
        value: String,
    },
    /// The status may not change this way. Nothing was changed.
    #[error("{entity} {key} is {from} and cannot become {to}")]
    IllegalTransition {
        /// The kind of entity, in the singular.
        entity: &'static str,
        /// The id of the row.
        key: String,
        /// The status it has.
        from: String,
        /// The status that was asked for.
        to: String,
    },
    /// The row was changed by somebody else since it was read.
    #[error("{entity} {key} is at revision {current}, not {expected}: read it again and repeat the change")]
    StaleRevision {
        /// The kind of entity, in the singular.
        entity: &'static str,
        /// The id of the row.
        key: String,
        /// The revision the caller expected.
        expected: i64,
        /// The revision the row has.
        current: i64,
    },
    /// Another attempt of the job has begun, or it came to its end: this one has no say any more. Nothing was
    /// changed.
    #[error("job {job}: attempt {given} has no say any more; it is {status} at attempt {current}")]
    Fenced {
        /// The id of the job.
        job: String,
        /// The attempt that was named.
        given: i32,
        /// The attempt that the job is at.
        current: i32,
        /// The status it has.
        status: String,
    },
    /// Somebody else has taken the run over, or it is not running: this owner has no say any more. Nothing was changed.
    #[error("run {run}: {given:?} has no say any more; it is {status} and belongs to {current:?}")]
    RunFenced {
        /// The id of the run.
        run: String,
        /// The owner that was named.
        given: String,
        /// The owner it has.
        current: String,
        /// The status it has.
        status: String,
    },
    /// The price would be valid at the same time as another one for the same tokens. Nothing was changed.
    #[error(
        "price of {kind} tokens of {model}: price {other} is valid from {valid_from} to {}; end it first, or begin \
         after it",
        .valid_to.map_or_else(|| "no known end".to_owned(), |end| end.to_string())
    )]
    PriceOverlap {
        /// The model.
        model: String,
        /// The kind of tokens.
        kind: TokenKind,
        /// The other price.
        other: PriceId,
        /// The first time the other one is valid.
        valid_from: Timestamp,
        /// The first time the other one is valid no longer.
        valid_to: Option<Timestamp>,
    },
    /// A hard budget does not allow it. Nothing was reserved.
    #[error("{0}")]
    BudgetExceeded(Box<BudgetExceeded>),
    /// The database cannot be reached or does not answer.
    #[error("{target} cannot be reached: {reason}")]
    Unavailable {
        /// Host and port, or the path of the file.
        target: String,
        /// What was tried and what came back.
        reason: String,
    },
    /// No connection became free in time.
    #[error(
        "no connection became free within {waited:?}: {in_use} of {size} are in use, {waiting} callers wait; \
         raise POSTGRES_POOL_MAX or hold transactions for a shorter time"
    )]
    PoolTimeout {
        /// Connections the pool may open.
        size: usize,
        /// Connections handed out.
        in_use: usize,
        /// Callers that are waiting.
        waiting: usize,
        /// How long this caller waited.
        waited: Duration,
    },
    /// An operation ran past its time limit and was stopped.
    #[error("{what} was stopped after {after:?}")]
    Timeout {
        /// What was stopped.
        what: String,
        /// Its limit.
        after: Duration,
    },
    /// The schema of the database does not fit this program.
    #[error("schema: {0}")]
    Schema(String),
    /// The configuration (an address, an environment variable, a file) cannot be used.
    #[error("configuration: {0}")]
    Config(String),
    /// What was asked for is not allowed to this caller.
    #[error("not permitted: {0}")]
    NotPermitted(String),
    /// This engine, or this database server, cannot do it.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Any other error the database reported.
    #[error("database: {message}{}", .code.as_deref().map(|code| format!(" (code {code})")).unwrap_or_default())]
    Database {
        /// SQLSTATE on PostgreSQL, the extended result code on SQLite.
        code: Option<String>,
        /// What the database said.
        message: String,
    },
}

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    /// An [`Error::NotFound`].
    pub fn not_found(entity: &'static str, key: impl ToString) -> Self {
        Self::NotFound { entity, key: key.to_string() }
    }

    /// An [`Error::Database`] without a code.
    pub fn database(message: impl Into<String>) -> Self {
        Self::Database { code: None, message: message.into() }
    }

    /// The stable name of this kind of error, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::NotFound { .. } => "not_found",
            Self::AlreadyExists { .. } => "already_exists",
            Self::MissingReference { .. } => "missing_reference",
            Self::IllegalTransition { .. } => "illegal_transition",
            Self::StaleRevision { .. } => "stale_revision",
            Self::Fenced { .. } | Self::RunFenced { .. } => "fenced",
            Self::PriceOverlap { .. } => "price_overlap",
            Self::BudgetExceeded(_) => "budget_exceeded",
            Self::Unavailable { .. } => "unavailable",
            Self::PoolTimeout { .. } => "pool_timeout",
            Self::Timeout { .. } => "timeout",
            Self::Schema(_) => "schema",
            Self::Config(_) => "config",
            Self::NotPermitted(_) => "not_permitted",
            Self::Unsupported(_) => "unsupported",
            Self::Database { .. } => "database",
        }
    }

    /// Puts `prefix` before the field of an error that names one: `role` becomes `messages[3].role`.
    #[must_use]
    pub fn at(mut self, prefix: &str) -> Self {
        if let Self::Invalid { field, .. } | Self::MissingReference { field, .. } = &mut self {
            let dot = if field.is_empty() || field.starts_with('[') { "" } else { "." };
            *field = format!("{prefix}{dot}{field}");
        }
        self
    }
}
