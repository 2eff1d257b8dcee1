//! Checkpoints.

use std::{collections::HashSet, slice};

use agentkeep_core::{Checkpoint, CheckpointId, Error, Json, JsonArray, ListRequest, NewCheckpoint, SessionId, limits};

use super::{
    Home,
    fixtures::{array, object, race, session},
};
use crate::TenantStore;

fn values(text: &str) -> Json {
    Json::parse("channel_values", text).expect("json")
}

fn new(session: SessionId, number: usize) -> NewCheckpoint {
    NewCheckpoint::new(session, values(&format!(r#"{{"step":{number}}}"#)))
}

async fn all(tenant: &TenantStore) -> Vec<Checkpoint> {
    tenant.checkpoints().list(&ListRequest::new()).await.expect("listed").items
}

/// The life of a checkpoint.
pub async fn a_checkpoint_is_kept_to_the_letter(home: &Home) {
    let checkpoints = home.tenant.checkpoints();
    let talk = session(&home.tenant, None).await;
    let text = r#" {"b": 1.10, "a":"x\u0000y", "big": 123456789012345678901234567890, "a":2} "#;
    let writes = r#"[["task-1", "messages", {"n": 1.0}], null]"#;
    let first = NewCheckpoint {
        channel_values: values(text),
        pending_writes: array(writes),
        metadata: object(r#"{"source":"loop"}"#),
        ..new(talk, 0)
    };
    let first = checkpoints.put(first).await.expect("put");
    let read = checkpoints.get(first.id).await.expect("read").expect("there");
    assert_eq!((read.channel_values.as_str(), read.pending_writes.as_str()), (text, writes));
    assert_eq!((read.namespace.as_str(), read.parent_id, &read), ("", None, &first));

    let second = NewCheckpoint { parent_id: Some(first.id), ..new(talk, 1) };
    let second = checkpoints.put(second).await.expect("put");
    let inner = NewCheckpoint { namespace: "inner|1".into(), ..new(talk, 2) };
    let inner = checkpoints.put(inner).await.expect("put");
    assert_eq!(checkpoints.latest(talk, "").await.expect("read"), Some(second.clone()));
    assert_eq!(checkpoints.latest(talk, "inner|1").await.expect("read"), Some(inner.clone()));
    assert_eq!(checkpoints.latest(talk, "other").await.expect("read"), None);
    assert_eq!(all(&home.tenant).await, [inner.clone(), second.clone(), read], "newest first");
    let children = ListRequest::new().filter("parent_id", first.id).filter("namespace", "");
    assert_eq!(checkpoints.list(&children).await.expect("listed").items, slice::from_ref(&second));
    let of_loop = ListRequest::new().filter("session_id", talk).filter("metadata.source", "loop");
    assert_eq!(checkpoints.list(&of_loop).await.expect("listed").items.len(), 1);

    checkpoints.delete(first.id).await.expect("deleted");
    assert!(matches!(checkpoints.delete(first.id).await, Err(Error::NotFound { .. })));
    assert_eq!(all(&home.tenant).await, [inner, second], "the child of a deleted checkpoint stays");
}

/// A repeated put.
pub async fn putting_again_replaces_the_state_and_keeps_the_writes(home: &Home) {
    let checkpoints = home.tenant.checkpoints();
    let (talk, other_talk) = (session(&home.tenant, None).await, session(&home.tenant, None).await);
    let first = checkpoints.put(new(talk, 0)).await.expect("put");
    checkpoints.add_writes(first.id, &array("[1]")).await.expect("added");
    let again = NewCheckpoint { id: Some(first.id), pending_writes: array("[7]"), ..new(talk, 1) };
    let second = checkpoints.put(again.clone()).await.expect("put");
    assert_eq!((second.id, second.created_at), (first.id, first.created_at));
    assert_eq!((second.channel_values.as_str(), second.pending_writes.as_str()), (r#"{"step":1}"#, "[1]"));
    for elsewhere in [
        NewCheckpoint { session_id: other_talk, ..again.clone() },
        NewCheckpoint { namespace: "inner".into(), ..again },
    ] {
        let outcome = checkpoints.put(elsewhere).await;
        assert!(matches!(&outcome, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{outcome:?}");
    }
    assert_eq!(all(&home.tenant).await, [second]);
}

/// `add_writes`, one after another and at once.
pub async fn racing_writes_are_all_kept_in_one_piece(home: &Home) {
    let checkpoints = home.tenant.checkpoints();
    let talk = session(&home.tenant, None).await;
    let empty = NewCheckpoint { pending_writes: array(" [ ] "), ..new(talk, 0) };
    let id = checkpoints.put(empty).await.expect("put").id;
    for (writes, expected) in [
        ("[]", "[]"),
        (r#" [ 1.0, "]" ] "#, r#"[ 1.0, "]" ]"#),
        ("[ ]", r#"[ 1.0, "]" ]"#),
        (r#"[["é\u0000", {}]]"#, r#"[ 1.0, "]" ,["é\u0000", {}]]"#),
    ] {
        let changed = checkpoints.add_writes(id, &array(writes)).await.expect("added");
        assert_eq!(changed.pending_writes.as_str(), expected);
    }
    let id = checkpoints.put(new(talk, 1)).await.expect("put").id;
    let add = |tenant: TenantStore, index: usize| async move {
        let writes = array(&format!(r#"[["task-{index}",0],["task-{index}",1]]"#));
        tenant.checkpoints().add_writes(id, &writes).await.expect("added");
    };
    race(&home.tenant, 32, add).await;
    let checkpoint = checkpoints.get(id).await.expect("read").expect("there");
    let writes = checkpoint.pending_writes.to_value();
    let writes: Vec<(String, u64)> = serde_json::from_value(writes).expect("pairs");
    assert_eq!(writes.len(), 64);
    assert!(writes.chunks(2).all(|pair| pair[0].0 == pair[1].0 && (pair[0].1, pair[1].1) == (0, 1)), "{writes:?}");
    assert_eq!(writes.iter().map(|(task, _)| task).collect::<HashSet<_>>().len(), 32);
    let outcome = checkpoints.add_writes(CheckpointId(talk.0), &JsonArray::default()).await;
    assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
}

/// `keep_newest`.
pub async fn all_but_the_newest_checkpoints_are_deleted(home: &Home) {
    let checkpoints = home.tenant.checkpoints();
    let (talk, other_talk) = (session(&home.tenant, None).await, session(&home.tenant, None).await);
    let mut made = Vec::new();
    for number in 0..7 {
        made.push(checkpoints.put(new(talk, number)).await.expect("put"));
    }
    checkpoints.put(NewCheckpoint { namespace: "inner".into(), ..new(talk, 0) }).await.expect("put");
    checkpoints.put(new(other_talk, 0)).await.expect("put");
    assert_eq!(checkpoints.keep_newest(talk, "", 2).await.expect("deleted"), 5);
    assert_eq!(checkpoints.keep_newest(talk, "", 2).await.expect("deleted"), 0);
    let left = ListRequest::new().filter("session_id", talk).filter("namespace", "");
    let left = checkpoints.list(&left).await.expect("listed").items;
    assert_eq!(left, [made[6].clone(), made[5].clone()]);
    assert_eq!(checkpoints.keep_newest(talk, "", 0).await.expect("deleted"), 2);
    assert_eq!(all(&home.tenant).await.len(), 2);
}

/// Bad values and references, told by field; nothing is written.
pub async fn bad_checkpoints_are_refused_by_field(home: &Home) {
    let checkpoints = home.tenant.checkpoints();
    let (talk, their_talk) = (session(&home.tenant, None).await, session(&home.other, None).await);
    let theirs = home.other.checkpoints().put(new(their_talk, 0)).await.expect("put");
    for (new, wanted) in [
        (new(their_talk, 0), "session_id"),
        (new(SessionId(theirs.id.0), 0), "session_id"),
        (NewCheckpoint { parent_id: Some(theirs.id), ..new(talk, 0) }, "parent_id"),
    ] {
        let outcome = checkpoints.put(new).await;
        let told = matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == wanted);
        assert!(told, "{wanted}: {outcome:?}");
    }
    let long = |length: usize| format!("[\"{}\"]", "x".repeat(length));
    for (new, wanted) in [
        (NewCheckpoint { namespace: " ".into(), ..new(talk, 0) }, "namespace"),
        (NewCheckpoint { namespace: long(limits::NAME_BYTES), ..new(talk, 0) }, "namespace"),
        (NewCheckpoint { channel_values: values(&long(limits::CONTENT_BYTES)), ..new(talk, 0) }, "channel_values"),
        (NewCheckpoint { pending_writes: array(&long(limits::CONTENT_BYTES)), ..new(talk, 0) }, "pending_writes"),
    ] {
        let outcome = checkpoints.put(new).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    assert!(all(&home.tenant).await.is_empty());
}

/// Cascade and tenants.
pub async fn checkpoints_go_with_their_session_and_stay_in_their_tenant(home: &Home) {
    let checkpoints = home.tenant.checkpoints();
    let (talk, their_talk) = (session(&home.tenant, None).await, session(&home.other, None).await);
    let mine = checkpoints.put(new(talk, 0)).await.expect("put");
    // The same id in another tenant is another checkpoint.
    let theirs = NewCheckpoint { id: Some(mine.id), ..new(their_talk, 9) };
    let theirs = home.other.checkpoints().put(theirs).await.expect("put");
    assert_eq!(checkpoints.latest(their_talk, "").await.expect("read"), None);
    assert_eq!(checkpoints.keep_newest(their_talk, "", 0).await.expect("deleted"), 0);
    checkpoints.add_writes(mine.id, &array("[1]")).await.expect("added");
    home.tenant.sessions().delete(talk).await.expect("deleted");
    assert!(all(&home.tenant).await.is_empty());
    let outcome = checkpoints.add_writes(mine.id, &array("[1]")).await;
    assert!(matches!(outcome, Err(Error::NotFound { .. })), "{outcome:?}");
    assert_eq!(all(&home.other).await, [theirs]);
}
