//! The document that describes the service.

use serde_json::Value;

/// What is checked in is what the code says.
#[test]
fn the_document_that_is_checked_in_is_the_one_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let checked_in = std::fs::read_to_string(path).expect("docs/openapi.json");
    let now = agentkeep_server::document();
    assert!(checked_in == now, "docs/openapi.json is out of date: cargo run -- openapi > docs/openapi.json");
}

/// Each operation has a name of its own, a summary, and tells what it answers.
#[test]
fn every_operation_is_described() {
    let document: Value = serde_json::from_str(&agentkeep_server::document()).expect("JSON");
    assert_eq!(document["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let name = operation["operationId"].as_str().unwrap_or_default();
            assert!(names.insert(name.to_owned()), "{method} {path}: the name {name:?} is taken");
            assert!(operation["summary"].is_string(), "{method} {path} has no summary");
            let answers = operation["responses"].as_object().expect("responses");
            assert!(answers.keys().any(|status| status.starts_with('2')), "{method} {path} tells of no success");
            if path.starts_with("/api/v1") {
                assert!(answers.contains_key("401") && answers.contains_key("503"), "{method} {path}: {answers:?}");
                assert!(operation["security"].is_array(), "{method} {path}");
            }
        }
    }
}
