//! An artifact: what belongs to a message beside its text.

use serde::{Deserialize, Serialize};

use crate::{ArtifactId, Json, JsonObject, MessageId, Result, SessionId, Timestamp, limits, text_enum};

text_enum! {
    /// What an artifact is.
    ArtifactKind, "kind" {
        /// The text of a voice message.
        VoiceTranscript = "voice_transcript",
        /// What was seen in an image.
        ImageJson = "image_json",
        /// Text read from an image.
        OcrText = "ocr_text",
        /// Name, size and type of a file.
        FileMeta = "file_meta",
        /// What a tool gave back.
        ToolResult = "tool_result",
    }
}

/// An artifact of a message.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Artifact {
    /// Its id.
    pub id: ArtifactId,
    /// The session of the message.
    pub session_id: SessionId,
    /// The message it belongs to; deleted with it.
    pub message_id: MessageId,
    /// What it is.
    pub kind: ArtifactKind,
    /// The content.
    pub content: Json,
    /// Where the file itself lies.
    pub uri: Option<String>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An artifact to create. Its session is that of the message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewArtifact {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<ArtifactId>,
    /// The message it belongs to.
    pub message_id: MessageId,
    /// What it is.
    pub kind: ArtifactKind,
    /// The content; `{}` when absent.
    #[serde(default = "no_content")]
    pub content: Json,
    /// Where the file itself lies.
    #[serde(default)]
    pub uri: Option<String>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

fn no_content() -> Json {
    JsonObject::default().into()
}

impl NewArtifact {
    /// An artifact of a message, without a file.
    #[must_use]
    pub fn new(message_id: MessageId, kind: ArtifactKind, content: impl Into<Json>) -> Self {
        Self { id: None, message_id, kind, content: content.into(), uri: None, metadata: JsonObject::default() }
    }

    /// Refuses an empty URI, and a content, a URI or metadata over the limit.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_content("content", self.content.as_str())?;
        limits::check_optional_name("uri", self.uri.as_deref())?;
        limits::check_content("metadata", self.metadata.as_str())
    }
}
