//! What text columns hold beside plain text: the closed lists of words of `core`, and its types that are
//! stored as JSON.

use agentkeep_core::{
    AgentSnapshot, ArtifactKind, BudgetPeriod, BudgetScope, DeploymentStatus, Json, McpServerStatus, McpTransport,
    MessageRole, MessageType, Persona, ReservationStatus, RunStatus, Scope, SecretObject, SessionEventKind,
    SessionKind, SessionStatus, TeamMode, TokenKind, TokenScope,
};

use crate::engine::{ColumnRef, FromColumn, from_column_words};

from_column_words!(
    ArtifactKind,
    BudgetPeriod,
    BudgetScope,
    DeploymentStatus,
    McpServerStatus,
    McpTransport,
    MessageRole,
    MessageType,
    ReservationStatus,
    RunStatus,
    SessionEventKind,
    SessionKind,
    SessionStatus,
    TeamMode,
    TokenKind,
    TokenScope
);

macro_rules! from_column_json {
    ($($type:ty, $wanted:literal;)*) => {$(
        impl FromColumn for $type {
            fn from_column(column: ColumnRef<'_>) -> Result<Self, &'static str> {
                Json::from_column(column)?.decode("json").map_err(|_| $wanted)
            }
        }
    )*};
}

from_column_json! {
    Persona, "a persona";
    AgentSnapshot, "a version of an agent";
    SecretObject, "a JSON object";
    Vec<String>, "a list of texts";
    Vec<Scope>, "scopes";
    Vec<(String, String)>, "names and values";
}
