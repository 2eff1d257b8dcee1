//! JSON bodies: read strictly, refused with the field that is wrong; and written.

use agentkeep_core::{Error, limits};
use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use http_body_util::BodyExt as _;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    app::App,
    error::{ApiError, Result},
};

/// The largest body that is read: 16 MiB, as a message may have.
pub(crate) const BODY_BYTES: usize = limits::CONTENT_BYTES;

/// How much of a larger one is read at most.
const READ_BYTES: usize = 4 * BODY_BYTES;

/// What most answers are smaller than.
const ANSWER_BYTES: usize = 2048;

/// A JSON body of a type: `application/json`, for changes `application/merge-patch+json` too.
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self> {
        check_content_type(request.headers())?;
        let bytes = read(request).await?;
        parse(&bytes).map(Self)
    }
}

/// A JSON body that may be left out.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<App> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self> {
        let content_type = check_content_type(request.headers());
        let bytes = read(request).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        content_type?;
        parse(&bytes).map(Self)
    }
}

pub(crate) fn check_content_type(headers: &HeaderMap) -> Result<()> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if matches!(essence.as_str(), "application/json" | "application/merge-patch+json") {
        return Ok(());
    }
    let detail = match given {
        Some(given) => format!("the body is said to be {given:?}; send JSON, with Content-Type: application/json"),
        None => "send JSON, with Content-Type: application/json".to_owned(),
    };
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", &detail)
        .field("Content-Type", detail))
}

/// The whole body.
///
/// # Errors
/// 413 when it is too large. It is read to its end all the same, within reason: a caller who is still sending would not
/// read the answer.
pub(crate) async fn read(request: Request) -> Result<Bytes> {
    let mut body = request.into_body();
    let mut kept: Vec<Bytes> = Vec::new();
    let mut length: usize = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, "incomplete_body", format!("the body ended early: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= BODY_BYTES {
            kept.push(data);
        } else if length <= READ_BYTES {
            kept.clear();
        } else {
            return Err(too_large());
        }
    }
    match kept.as_slice() {
        _ if length > BODY_BYTES => Err(too_large()),
        [whole] => Ok(whole.clone()),
        parts => Ok(parts.concat().into()),
    }
}

pub(crate) fn too_large() -> ApiError {
    let detail = format!("the body is larger than {BODY_BYTES} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", detail)
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    // A struct would be read from a list of its fields too.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::invalid("body", "must be a JSON object, not an array"));
    }
    // To know the path of every value costs more than the values themselves: it is asked for when something is wrong.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        // The path ends with `?` where the text broke off.
        let path = error.path().to_string();
        let field = path.trim_end_matches(['?', '.']);
        refuse(if field.is_empty() { "body".to_owned() } else { field.to_owned() }, error.inner())
    })?;
    deserializer.end().map_err(|error| refuse("body".into(), &error))?;
    Ok(value)
}

fn refuse(field: String, error: &serde_json::Error) -> ApiError {
    if error.is_data() {
        return ApiError::invalid(field, error.to_string());
    }
    let detail = format!("the body is not JSON: {error}");
    ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", detail).field(field, error.to_string())
}

/// A value as JSON.
///
/// # Errors
/// 500 for what cannot be written as JSON, which no entity is.
pub(crate) fn json(value: &impl Serialize) -> Result<Bytes> {
    let mut text = Vec::with_capacity(ANSWER_BYTES);
    serde_json::to_writer(&mut text, value).map_err(|error| Error::database(error.to_string()))?;
    Ok(text.into())
}

/// The answer that is a value as JSON, with these headers.
pub(crate) fn answer(status: StatusCode, headers: HeaderMap, value: &impl Serialize) -> Response {
    match json(value) {
        Ok(text) => written(status, headers, text),
        Err(error) => error.into_response(),
    }
}

/// The answer that is a text of JSON, with these headers.
pub(crate) fn written(status: StatusCode, mut headers: HeaderMap, text: Bytes) -> Response {
    let mut response = Response::new(text.into());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use agentkeep_core::NewSession;

    use super::*;

    fn error(text: &str) -> String {
        let error = parse::<NewSession>(text.as_bytes()).expect_err(text);
        format!("{error:?}")
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        let told = error(r#"{"nmae":"x"}"#);
        assert!(told.contains("\"nmae\"") || told.contains("`nmae`"), "{told}");
        assert!(error(r#"{"metadata":[]}"#).contains("\"metadata\""), "{}", error(r#"{"metadata":[]}"#));
        assert!(error(r#"{"kind":"nobody"}"#).contains("\"kind\""));
        assert!(error(r#"{"name":"\ud800"}"#).contains("invalid_json"));
        assert!(error("{} {}").contains("invalid_json"));
    }

    #[test]
    fn json_keeps_its_text_on_the_way() {
        let new: NewSession = parse(br#"{"metadata":{"n":1.10,"big":12345678901234567890123}}"#).expect("a session");
        assert_eq!(new.metadata.as_str(), r#"{"n":1.10,"big":12345678901234567890123}"#);
    }
}
