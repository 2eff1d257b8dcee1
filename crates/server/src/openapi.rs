//! The OpenAPI document: made from the code, completed with what holds for every operation.

use axum::{
    Router,
    http::header,
    response::{Html, IntoResponse},
    routing::get,
};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ComponentsBuilder, Content, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
        Required, Response, ResponseBuilder, Schema, SecurityRequirement, Type,
        path::{Operation, ParameterBuilder, ParameterIn, PathItem},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use crate::{
    app::App,
    error::{FieldProblem, Problem},
};

/// What may go wrong with every operation of the API.
const PROBLEMS: &[(&str, &str)] = &[
    ("400", "A value breaks a rule; `errors` names it"),
    ("401", "No key, or one that is not valid"),
    ("403", "The key lacks a scope; it is named"),
    ("404", "There is nothing with that id in this tenant"),
    ("409", "It is taken, or its state does not allow it"),
    ("429", "Too many requests with this key; `Retry-After` says when to come back"),
    ("503", "The database is away or busy; `Retry-After` says when to come back"),
];
/// What may go wrong beside that where there is a body.
const BODY_PROBLEMS: &[(&str, &str)] = &[
    ("413", "The body is larger than 16 MiB"),
    ("415", "The body is not said to be JSON"),
    ("422", "It points to something that does not exist, or the idempotency key was used for another request"),
];
/// The tags of operations that take no `If-Match`: what they change has no version of its own.
const UNCONDITIONAL: &[&str] =
    &["agent-mcp-servers", "agent-sessions", "checkpoints", "metrics", "routing-decisions", "team-members"];
const PRECONDITION: (&str, &str) = ("412", "It has another version than `If-Match` says; `current` tells which");

/// The page loads nothing from outside, and nothing else may.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'";

/// The document before its operations.
pub(crate) fn frame() -> OpenApi {
    let info = InfoBuilder::new()
        .title("agentkeep")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("The state of AI agents, kept."))
        .license(Some(LicenseBuilder::new().name("MIT OR Apache-2.0").build()));
    let key = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A key of `agentkeep keys create`"));
    let components = ComponentsBuilder::new()
        .schema(Problem::name(), Problem::schema())
        .schema(FieldProblem::name(), FieldProblem::schema())
        .security_scheme("key", SecurityScheme::Http(key.build()))
        .responses_from_iter(problems());
    OpenApiBuilder::new().info(info.build()).components(Some(components.build())).build()
}

/// The document with what holds for every operation: names, problems, keys and conditions.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        // What is named otherwise has no version.
        let has_id = path.contains("{id}");
        let PathItem { get, post, put, patch, delete, .. } = item;
        let operations = [("get", get), ("post", post), ("put", put), ("patch", patch), ("delete", delete)];
        for (method, operation) in operations {
            if let Some(operation) = operation {
                complete_operation(path, method, has_id, operation);
            }
        }
    }
    open_parts(&mut document);
    document
}

/// A type whose fields stand among those of another one knows only its own: with it they would be refused.
fn open_parts(document: &mut OpenApi) {
    let Some(components) = &mut document.components else { return };
    let parts: Vec<String> = components
        .schemas
        .values()
        .filter_map(|schema| match schema {
            RefOr::T(Schema::AllOf(whole)) => Some(&whole.items),
            _ => None,
        })
        .flatten()
        .filter_map(|part| match part {
            RefOr::Ref(part) => part.ref_location.rsplit('/').next().map(str::to_owned),
            RefOr::T(_) => None,
        })
        .collect();
    for part in parts {
        if let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(&part) {
            object.additional_properties = None;
        }
    }
}

fn complete_operation(path: &str, method: &str, has_id: bool, operation: &mut Operation) {
    let tag = operation.tags.as_ref().and_then(|tags| tags.first()).cloned().unwrap_or_default();
    if let Some(id) = &mut operation.operation_id {
        *id = format!("{}_{id}", tag.replace('-', "_"));
    }
    if !path.starts_with(crate::app::API) {
        problem(operation, "503");
        return;
    }
    operation.security =
        Some(vec![SecurityRequirement::new("key", Vec::<String>::new()), SecurityRequirement::default()]);
    PROBLEMS.iter().for_each(|(status, _)| problem(operation, status));
    if operation.request_body.is_some() || method != "get" {
        BODY_PROBLEMS.iter().for_each(|(status, _)| problem(operation, status));
    }
    let mut header = |name: &str, what: &str| {
        let parameters = operation.parameters.get_or_insert_default();
        if parameters.iter().any(|it| matches!(it, RefOr::T(it) if it.name == name)) {
            // The operation tells of its own.
            return;
        }
        let schema = ObjectBuilder::new().schema_type(Type::String);
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header).required(Required::False);
        let parameter = parameter.description(Some(what)).schema(Some(schema)).build();
        parameters.push(parameter.into());
    };
    match method {
        "post" => {
            header("Idempotency-Key", "Makes the request repeatable: the same key and body get the first answer again")
        }
        "put" | "patch" | "delete" if has_id && !UNCONDITIONAL.contains(&tag.as_str()) => {
            header("If-Match", "Do it only if the resource still has this `ETag`");
            problem(operation, PRECONDITION.0);
        }
        _ => {}
    }
}

/// Adds a problem to the answers, unless the operation tells of its own.
fn problem(operation: &mut Operation, status: &str) {
    let responses = &mut operation.responses.responses;
    responses.entry(status.to_owned()).or_insert_with(|| RefOr::Ref(Ref::from_response_name(named(status))));
}

/// What the answer with that status is called.
fn named(status: &str) -> String {
    format!("Problem{status}")
}

/// The answers that tell problems, by their names.
fn problems() -> impl Iterator<Item = (String, Response)> {
    PROBLEMS.iter().chain(BODY_PROBLEMS).chain([&PRECONDITION]).map(|(status, what)| {
        let schema = RefOr::Ref(Ref::from_schema_name(Problem::name()));
        let answer = ResponseBuilder::new().description(*what);
        (named(status), answer.content("application/problem+json", Content::new(Some(schema))).build())
    })
}

/// The document and the page that shows it.
pub(crate) fn routes(document: &OpenApi) -> Router<App> {
    let text = text(document);
    let json = move || {
        let text = text.clone();
        async move { ([(header::CONTENT_TYPE, "application/json")], text).into_response() }
    };
    let page = || async { ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(include_str!("docs.html"))) };
    Router::new().route("/openapi.json", get(json)).route("/docs", get(page))
}

/// The document as it is checked in.
pub(crate) fn text(document: &OpenApi) -> String {
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{Options, app};

    #[test]
    fn every_operation_has_a_name_and_parameters_of_its_own() {
        let (_, document) = app::routes(&App::new(Options::default()));
        let mut names = BTreeSet::new();
        for (path, item) in document.paths.paths {
            let PathItem { get, post, put, patch, delete, .. } = item;
            for operation in [get, post, put, patch, delete].into_iter().flatten() {
                let name = operation.operation_id.unwrap_or_default();
                assert!(names.insert(name.clone()), "{name} of {path} is there twice");
                let parameters = operation.parameters.unwrap_or_default();
                let given: BTreeSet<String> = parameters
                    .iter()
                    .filter_map(|it| if let RefOr::T(it) = it { Some(it.name.clone()) } else { None })
                    .collect();
                assert_eq!(given.len(), parameters.len(), "{path}: {given:?}");
                let in_path = path.split('{').skip(1).filter_map(|part| part.split('}').next());
                assert!(in_path.clone().all(|name| given.contains(name)), "{path}: {given:?}");
            }
        }
    }
}
