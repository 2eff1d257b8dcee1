//! What a caller is told when something went wrong: problem details (RFC 9457) with a stable `code`, the failing
//! fields and the id of the request.

use std::time::Duration;

use agentkeep_core::Error;
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// The result of every operation.
pub(crate) type Result<T, E = ApiError> = std::result::Result<T, E>;

/// When to come back after the database was away or busy.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A problem, as it is sent (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Where this kind of problem is described, relative to the server.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The kind of problem, for people.
    pub(crate) title: &'static str,
    /// The HTTP status.
    pub(crate) status: u16,
    /// The kind of problem, for programs.
    pub(crate) code: &'static str,
    /// What happened, and what to do.
    pub(crate) detail: String,
    /// The fields that are at fault; empty when it is not about fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub(crate) errors: Vec<FieldProblem>,
    /// The version that the resource has, when the caller named another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<i64>,
    /// The id of the request: it stands in the server's log too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

/// A field that is at fault.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct FieldProblem {
    /// Where the value stood, as a path (`messages[3].role`), or the name of a header or a parameter.
    pub(crate) field: String,
    /// Which rule it broke, and what is allowed.
    pub(crate) reason: String,
}

/// An error on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldProblem>,
    current: Option<i64>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), current: None, headers: Vec::new() }
    }

    /// A value of the request that breaks a rule.
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::invalid(field, reason).into()
    }

    /// Nothing is there.
    pub(crate) fn not_found(entity: &'static str, key: impl ToString) -> Self {
        Error::not_found(entity, key).into()
    }

    /// A fault of the server's own, which its log tells of.
    pub(crate) fn internal() -> Self {
        let detail = "the server failed in a way that should not happen; its log says where";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// The server cannot do it now.
    pub(crate) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(RETRY_AFTER)
    }

    /// Names the field that is at fault.
    pub(crate) fn field(mut self, field: impl Into<String>, reason: impl Into<String>) -> Self {
        self.errors.push(FieldProblem { field: field.into(), reason: reason.into() });
        self
    }

    /// Adds a header to the answer.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Says when to come back.
    pub(crate) fn retry_after(self, pause: Duration) -> Self {
        let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
        self.header(header::RETRY_AFTER, seconds.max(1).into())
    }

    /// What happened.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The caller named the version that a resource should have: another one is a failed precondition, not a
    /// conflict.
    #[allow(clippy::wrong_self_convention, reason = "an error is told as another one: nothing is borrowed")]
    pub(crate) fn as_precondition(mut self) -> Self {
        if self.code == "stale_revision" {
            self.status = StatusCode::PRECONDITION_FAILED;
            self.code = "precondition_failed";
            if let Some(tag) = self.current.and_then(|current| HeaderValue::from_str(&format!("\"{current}\"")).ok()) {
                self.headers.push((header::ETAG, tag));
            }
        }
        self
    }

    fn problem(self) -> (Problem, Vec<(HeaderName, HeaderValue)>) {
        let problem = Problem {
            kind: format!("/docs#{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail,
            errors: self.errors,
            current: self.current,
            request_id: None,
        };
        (problem, self.headers)
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let status = status_of(&error);
        let (code, detail) = (error.code(), error.to_string());
        let problem = match status {
            StatusCode::SERVICE_UNAVAILABLE => Self::unavailable(code, detail),
            // What a database says is for those who run the server; it may name what a caller should not see.
            StatusCode::INTERNAL_SERVER_ERROR => {
                tracing::error!(target: "agentkeep::http", code, "{detail}");
                Self::new(status, code, "the server could not do it; its log says why, under the id of this request")
            }
            _ => Self::new(status, code, detail),
        };
        match error {
            Error::Invalid { field, reason } => problem.field(field, reason),
            Error::AlreadyExists { field, value, .. } => problem.field(field, format!("{value} is taken")),
            Error::MissingReference { field, entity, value } => {
                problem.field(field, format!("no {entity} {value} exists"))
            }
            Error::StaleRevision { current, .. } => Self { current: Some(current), ..problem },
            _ => problem,
        }
    }
}

/// The same error, told with the name that the field has here.
pub(crate) fn renamed(error: Error, from: &str, to: &str) -> ApiError {
    match error {
        Error::Invalid { field, reason } if field == from => ApiError::invalid(to, reason),
        error => error.into(),
    }
}

fn status_of(error: &Error) -> StatusCode {
    match error {
        Error::Invalid { .. } => StatusCode::BAD_REQUEST,
        Error::NotFound { .. } => StatusCode::NOT_FOUND,
        Error::MissingReference { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Error::AlreadyExists { .. }
        | Error::IllegalTransition { .. }
        | Error::StaleRevision { .. }
        | Error::Fenced { .. }
        | Error::PriceOverlap { .. } => StatusCode::CONFLICT,
        Error::BudgetExceeded(_) => StatusCode::PAYMENT_REQUIRED,
        Error::NotPermitted(_) => StatusCode::FORBIDDEN,
        Error::Unavailable { .. } | Error::PoolTimeout { .. } | Error::Timeout { .. } | Error::Schema(_) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        // Classes of SQLSTATE: connection, resources, operator intervention, a lock that was not to be had, and what
        // a repetition may cure.
        Error::Database { code: Some(code), .. }
            if ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class)) || code == "55P03" =>
        {
            StatusCode::SERVICE_UNAVAILABLE
        }
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (problem, headers) = self.problem();
        let mut response = render(&problem);
        response.headers_mut().extend(headers);
        // Whoever knows the id of the request writes it in.
        response.extensions_mut().insert(problem);
        response
    }
}

/// The answer that tells a problem.
fn render(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let text = serde_json::to_vec(problem).unwrap_or_default();
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    (status, [content_type], Body::from(text)).into_response()
}

/// The same answer, with the id of the request if it tells a problem.
pub(crate) fn with_request_id(mut response: Response, request_id: &str) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let problem = Problem { request_id: Some(request_id.to_owned()), ..problem };
    let headers = std::mem::take(response.headers_mut());
    let mut response = render(&problem);
    for (name, value) in &headers {
        if name != header::CONTENT_LENGTH && name != header::CONTENT_TYPE {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_says_stays_in_the_log() {
        let error = Error::Database { code: Some("XX000".into()), message: "relation secrets".into() };
        let (problem, _) = ApiError::from(error).problem();
        assert_eq!((problem.status, problem.code), (500, "database"));
        assert!(!problem.detail.contains("secrets"), "{}", problem.detail);
    }

    #[test]
    fn a_busy_database_says_when_to_come_back() {
        let error = Error::Database { code: Some("57P01".into()), message: "shutting down".into() };
        let (problem, headers) = ApiError::from(error).problem();
        assert_eq!(problem.status, 503);
        assert!(headers.iter().any(|(name, value)| name == header::RETRY_AFTER && value == "1"));
    }

    #[test]
    fn a_stale_revision_is_a_failed_precondition_for_who_named_one() {
        let stale =
            || ApiError::from(Error::StaleRevision { entity: "session", key: "x".into(), expected: 1, current: 7 });
        assert_eq!(stale().problem().0.status, 409);
        let (problem, headers) = stale().as_precondition().problem();
        assert_eq!((problem.status, problem.current), (412, Some(7)));
        assert!(headers.iter().any(|(name, value)| name == header::ETAG && value == "\"7\""));
    }
}
