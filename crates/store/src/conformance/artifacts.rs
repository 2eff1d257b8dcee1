//! Artifacts.

use agentkeep_core::{Artifact, ArtifactId, ArtifactKind, Error, Json, ListRequest, MessageId, NewArtifact, limits};

use super::{
    Home,
    fixtures::{message, object, session},
};
use crate::TenantStore;

fn transcript(message: MessageId) -> NewArtifact {
    NewArtifact::new(message, ArtifactKind::VoiceTranscript, object(r#"{"text":"hello"}"#))
}

async fn all(tenant: &TenantStore) -> Vec<Artifact> {
    tenant.artifacts().list(&ListRequest::new()).await.expect("listed").items
}

/// The life of an artifact; system B's `store_artifact` and `get_artifacts_for_message`.
pub async fn an_artifact_takes_its_session_from_its_message(home: &Home) {
    let artifacts = home.tenant.artifacts();
    let talk = session(&home.tenant, None).await;
    let (first, second) = (message(&home.tenant, talk).await, message(&home.tenant, talk).await);
    let new = NewArtifact {
        content: Json::parse("content", r#"["a\u0000b", 1.10, null]"#).expect("json"),
        uri: Some("s3://bucket/audio.mp3".into()),
        metadata: object(r#"{"seconds":3}"#),
        ..transcript(first)
    };
    let created = artifacts.create(new.clone()).await.expect("created");
    assert_eq!((created.session_id, created.message_id, created.kind), (talk, first, new.kind));
    assert_eq!((&created.content, &created.uri, &created.metadata), (&new.content, &new.uri, &new.metadata));
    assert_eq!(artifacts.get(created.id).await.expect("read"), Some(created.clone()));
    let ocr = NewArtifact::new(first, ArtifactKind::OcrText, object("{}"));
    let ocr = artifacts.create(ocr).await.expect("created");
    artifacts.create(transcript(second)).await.expect("created");
    assert_eq!(artifacts.list_by_message(first).await.expect("listed"), [created.clone(), ocr.clone()]);

    let count = async |request: ListRequest| artifacts.list(&request).await.expect("listed").items.len();
    assert_eq!(count(ListRequest::new().filter("session_id", talk)).await, 3);
    assert_eq!(count(ListRequest::new().filter("message_id", first)).await, 2);
    assert_eq!(count(ListRequest::new().filter("kind", "ocr_text")).await, 1);
    assert_eq!(count(ListRequest::new().filter("content.text", "hello")).await, 1);

    artifacts.delete(created.id).await.expect("deleted");
    assert_eq!(artifacts.get(created.id).await.expect("read"), None);
    assert!(matches!(artifacts.delete(created.id).await, Err(Error::NotFound { .. })));
    assert_eq!(artifacts.list_by_message(first).await.expect("listed"), [ocr]);
}

/// Bad values and references, told by field; nothing is written.
pub async fn bad_artifacts_are_refused_by_field(home: &Home) {
    let artifacts = home.tenant.artifacts();
    let talk = session(&home.tenant, None).await;
    let mine = message(&home.tenant, talk).await;
    let theirs = message(&home.other, session(&home.other, None).await).await;
    for missing in [theirs, MessageId(talk.0)] {
        match artifacts.create(transcript(missing)).await {
            Err(Error::MissingReference { field, entity: "message", value }) => {
                assert_eq!((field.as_str(), value), ("message_id", missing.to_string()));
            }
            outcome => panic!("{outcome:?}"),
        }
    }
    let too_long = Json::parse("content", format!("\"{}\"", "x".repeat(limits::CONTENT_BYTES))).expect("json");
    for (new, wanted) in [
        (NewArtifact { content: too_long, ..transcript(mine) }, "content"),
        (NewArtifact { uri: Some(String::new()), ..transcript(mine) }, "uri"),
    ] {
        let outcome = artifacts.create(new).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    let kept = artifacts.create(transcript(mine)).await.expect("created");
    let outcome = artifacts.create(NewArtifact { id: Some(kept.id), ..transcript(mine) }).await;
    assert!(matches!(&outcome, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{outcome:?}");
    assert_eq!(all(&home.tenant).await, [kept]);
    assert!(serde_json::from_str::<ArtifactKind>("\"video\"").is_err());
}

/// Cascades and tenants.
pub async fn artifacts_go_with_their_message_and_session(home: &Home) {
    let artifacts = home.tenant.artifacts();
    let talk = session(&home.tenant, None).await;
    let (first, second) = (message(&home.tenant, talk).await, message(&home.tenant, talk).await);
    artifacts.create(transcript(first)).await.expect("created");
    let kept = artifacts.create(transcript(second)).await.expect("created");
    let their_talk = session(&home.other, None).await;
    let theirs = transcript(message(&home.other, their_talk).await);
    // The same id in another tenant is another artifact.
    let theirs = NewArtifact { id: Some(ArtifactId(kept.id.0)), ..theirs };
    let theirs = home.other.artifacts().create(theirs).await.expect("created");

    home.tenant.messages().delete(first).await.expect("deleted");
    assert_eq!(all(&home.tenant).await, [kept]);
    assert!(artifacts.list_by_message(first).await.expect("listed").is_empty());
    home.tenant.sessions().delete(talk).await.expect("deleted");
    assert!(all(&home.tenant).await.is_empty());
    assert!(artifacts.list_by_message(theirs.message_id).await.expect("listed").is_empty());
    assert!(matches!(artifacts.delete(theirs.id).await, Err(Error::NotFound { .. })));
    assert_eq!(all(&home.other).await, [theirs]);
}
