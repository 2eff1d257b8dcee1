//! An MCP server: a place where agents get tools from, over the Model Context Protocol.

use serde::{Deserialize, Serialize};

use crate::{
    AgentId, Error, JsonObject, McpServerId, Result, SecretObject, Timestamp,
    limits::{check_content, check_name, check_optional_name},
    text_enum,
};

text_enum! {
    /// How a server is spoken to.
    McpTransport, "transport" {
        /// A program, over its input and output.
        Stdio = "stdio",
        /// An address, over HTTP.
        Http = "http",
        /// An address, over server-sent events.
        Sse = "sse",
    }
}

text_enum! {
    /// What a server was last seen doing.
    McpServerStatus, "status" {
        /// It does not run.
        Stopped = "stopped",
        /// It is being started.
        Starting = "starting",
        /// It runs.
        Running = "running",
        /// It is being stopped.
        Stopping = "stopping",
        /// It failed; `last_error` says how.
        Error = "error",
    }
}

/// An MCP server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct McpServer {
    /// Its id.
    pub id: McpServerId,
    /// Its name, unique within the tenant.
    pub name: String,
    /// How it is spoken to.
    pub transport: McpTransport,
    /// The program and its arguments, with the transport `stdio`.
    pub command: Vec<String>,
    /// Its address, with the other transports.
    pub url: Option<String>,
    /// The environment the program runs in.
    pub env: SecretObject,
    /// The headers of requests to it.
    pub headers: SecretObject,
    /// Whether it is in use.
    pub enabled: bool,
    /// What it was last seen doing.
    pub status: McpServerStatus,
    /// What last went wrong with it.
    pub last_error: Option<String>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl McpServer {
    /// Refuses a server that cannot be reached with its transport.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        check_reach(self.transport, &self.command, self.url.as_deref())
    }
}

/// An MCP server to create or upsert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewMcpServer {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<McpServerId>,
    /// Its name, unique within the tenant.
    pub name: String,
    /// How it is spoken to.
    pub transport: McpTransport,
    /// The program and its arguments, with the transport `stdio`.
    #[serde(default)]
    pub command: Vec<String>,
    /// Its address, with the other transports.
    #[serde(default)]
    pub url: Option<String>,
    /// The environment the program runs in.
    #[serde(default)]
    pub env: SecretObject,
    /// The headers of requests to it.
    #[serde(default)]
    pub headers: SecretObject,
    /// Whether it is in use; true when absent.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewMcpServer {
    /// A server that is a program.
    #[must_use]
    pub fn stdio<Part: Into<String>>(name: impl Into<String>, command: impl IntoIterator<Item = Part>) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { command, ..Self::bare(name.into(), McpTransport::Stdio) }
    }

    /// A server at an address.
    #[must_use]
    pub fn http(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::bare(name.into(), McpTransport::Http) }
    }

    fn bare(name: String, transport: McpTransport) -> Self {
        Self {
            id: None,
            name,
            transport,
            command: Vec::new(),
            url: None,
            env: SecretObject::default(),
            headers: SecretObject::default(),
            enabled: None,
            metadata: JsonObject::default(),
        }
    }

    /// Refuses an empty or overlong name, a server that cannot be reached with its transport, and a mask in
    /// place of a secret.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        check_name("name", &self.name)?;
        check_reach(self.transport, &self.command, self.url.as_deref())?;
        self.env.check("env")?;
        self.headers.check("headers")
    }
}

/// Changes of an MCP server; what is `None` stays, `Some(None)` takes the value away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct McpServerPatch {
    /// A new name.
    pub name: Option<String>,
    /// Another transport.
    pub transport: Option<McpTransport>,
    /// Another program and its arguments.
    pub command: Option<Vec<String>>,
    /// Another address.
    #[serde(deserialize_with = "crate::present")]
    pub url: Option<Option<String>>,
    /// A merge patch (RFC 7396) of the environment.
    pub env: Option<SecretObject>,
    /// A merge patch (RFC 7396) of the headers.
    pub headers: Option<SecretObject>,
    /// Whether it is in use.
    pub enabled: Option<bool>,
    /// What it is seen doing.
    pub status: Option<McpServerStatus>,
    /// What went wrong with it.
    #[serde(deserialize_with = "crate::present")]
    pub last_error: Option<Option<String>>,
    /// A merge patch (RFC 7396) of the metadata.
    pub metadata: Option<JsonObject>,
}

impl McpServerPatch {
    /// Refuses an empty or overlong name, an overlong error, and a mask in place of a secret.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        check_optional_name("name", self.name.as_deref())?;
        check_content("last_error", self.last_error.as_ref().and_then(Option::as_deref).unwrap_or_default())?;
        self.env.as_ref().map_or(Ok(()), |env| env.check("env"))?;
        self.headers.as_ref().map_or(Ok(()), |headers| headers.check("headers"))
    }
}

fn check_reach(transport: McpTransport, command: &[String], url: Option<&str>) -> Result<()> {
    let program = command.first().filter(|program| !program.trim().is_empty());
    match (transport, program, url) {
        (McpTransport::Stdio, None, _) => Err(Error::invalid("command", "is needed with the transport stdio")),
        (McpTransport::Http | McpTransport::Sse, _, None) => {
            Err(Error::invalid("url", format!("is needed with the transport {transport}")))
        }
        (_, _, Some(url)) if url.trim().is_empty() => Err(Error::invalid("url", "must not be empty")),
        (_, _, url) => check_content("url", url.unwrap_or_default()),
    }
}

/// An agent's use of an MCP server.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentMcpServer {
    /// The agent; the link is deleted with it.
    pub agent_id: AgentId,
    /// The server; the link is deleted with it.
    pub mcp_server_id: McpServerId,
    /// Whether the agent may use it now.
    pub enabled: bool,
    /// The tools the agent may use; `None` for all.
    pub tools: Option<Vec<String>>,
    /// When it was assigned.
    pub created_at: Timestamp,
    /// When the link was last changed.
    pub updated_at: Timestamp,
}

/// An MCP server as an agent uses it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignedMcpServer {
    /// The link.
    pub link: AgentMcpServer,
    /// The server.
    pub server: McpServer,
}

/// Changes of an agent's use of an MCP server; what is `None` stays, `Some(None)` takes the value away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct AgentMcpServerPatch {
    /// Whether the agent may use it now.
    pub enabled: Option<bool>,
    /// The tools the agent may use; `Some(None)` for all.
    #[serde(deserialize_with = "crate::present")]
    pub tools: Option<Option<Vec<String>>>,
}
