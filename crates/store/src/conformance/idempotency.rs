//! Requests that are done once however often they are sent.

use std::time::Duration;

use agentkeep_core::{Error, IdempotencyClaim, ListRequest, NewUser, Result, StoredAnswer, TenantId};

use super::{Home, fixtures::race, support::rows_of};
use crate::{TenantStore, Tx};

const ONE: [u8; 32] = [1; 32];
const TWO: [u8; 32] = [2; 32];

fn answer(body: &[u8]) -> StoredAnswer {
    let headers = [("location", "/v1/users/1"), ("x-twice", "a"), ("x-twice", "b\0")];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    StoredAnswer { status: 201, headers, body: body.to_vec() }
}

async fn begin(home: &Home) -> (Tx, TenantStore) {
    let tx = home.store.begin().await.expect("a transaction");
    let view = home.store.tenant_in(&tx, home.tenant.id());
    (tx, view)
}

/// Claims a key in a transaction of its own, which is rolled back.
async fn look(home: &Home, tenant: TenantId, key: &str, fingerprint: [u8; 32]) -> IdempotencyClaim {
    let tx = home.store.begin().await.expect("a transaction");
    let claim = home.store.tenant_in(&tx, tenant).idempotency_keys().claim(key, fingerprint).await.expect("a claim");
    tx.rollback().await.expect("rolled back");
    claim
}

/// Does a request that makes a user, unless it was done.
async fn request(view: TenantStore, key: &str) -> Result<IdempotencyClaim> {
    let claim = view.idempotency_keys().claim(key, ONE).await?;
    if claim == IdempotencyClaim::New {
        let user = view.users().create(NewUser::default()).await?;
        view.idempotency_keys().answer(key, &answer(user.id.to_string().as_bytes())).await?;
    }
    Ok(claim)
}

/// The life of the key of a request.
pub async fn a_request_is_claimed_answered_and_repeated(home: &Home) {
    let (tx, view) = begin(home).await;
    assert_eq!(view.idempotency_keys().claim("k", ONE).await.expect("a claim"), IdempotencyClaim::New);
    view.idempotency_keys().answer("k", &answer(b"\0\xff{}")).await.expect("kept");
    let again = view.idempotency_keys().claim("k", ONE).await.expect("a claim");
    assert_eq!(again, IdempotencyClaim::Repeated(answer(b"\0\xff{}")), "within the transaction as well");
    tx.commit().await.expect("committed");

    let own = home.tenant.id();
    assert_eq!(look(home, own, "k", ONE).await, IdempotencyClaim::Repeated(answer(b"\0\xff{}")));
    assert_eq!(look(home, own, "k", TWO).await, IdempotencyClaim::Different);
    assert_eq!(look(home, own, "K", ONE).await, IdempotencyClaim::New, "another key");
    assert_eq!(look(home, home.other.id(), "k", TWO).await, IdempotencyClaim::New, "the key of another tenant");
    let empty = StoredAnswer { status: 204, ..StoredAnswer::default() };
    let (tx, view) = begin(home).await;
    assert_eq!(view.idempotency_keys().claim("empty", ONE).await.expect("a claim"), IdempotencyClaim::New);
    view.idempotency_keys().answer("empty", &empty).await.expect("kept");
    tx.commit().await.expect("committed");
    assert_eq!(look(home, own, "empty", ONE).await, IdempotencyClaim::Repeated(empty));
}

/// What breaks a rule.
pub async fn what_is_wrong_with_a_claim_is_told(home: &Home) {
    let (tx, view) = begin(home).await;
    let keys = view.idempotency_keys();
    for key in ["", &"k".repeat(256)] {
        let outcome = keys.claim(key, ONE).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == "Idempotency-Key"), "{outcome:?}");
    }
    let unclaimed = keys.answer("k", &answer(b"")).await;
    assert!(matches!(unclaimed, Err(Error::NotFound { entity: "idempotency key", .. })), "{unclaimed:?}");
    let longest = "\0".repeat(255);
    assert_eq!(keys.claim(&longest, ONE).await.expect("a claim"), IdempotencyClaim::New);
    tx.rollback().await.expect("rolled back");

    let outside = home.tenant.idempotency_keys();
    assert!(matches!(outside.claim("k", ONE).await, Err(Error::Unsupported(_))));
    assert!(matches!(outside.answer("k", &answer(b"")).await, Err(Error::Unsupported(_))));
    let tx = home.store.begin().await.expect("a transaction");
    let nobody = home.store.tenant_in(&tx, TenantId(i32::MAX));
    let outcome = nobody.idempotency_keys().claim("k", ONE).await;
    assert!(matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == "tenant_id"), "{outcome:?}");
    tx.rollback().await.expect("rolled back");
    assert_eq!(rows_of(&home.store, &home.tenant, "idempotency_keys").await, 0);
}

/// Nothing of a request that failed stays, the claim of its key included.
pub async fn a_claim_that_is_rolled_back_leaves_nothing(home: &Home) {
    let (tx, view) = begin(home).await;
    assert_eq!(request(view, "k").await.expect("done"), IdempotencyClaim::New);
    tx.rollback().await.expect("rolled back");
    assert_eq!(rows_of(&home.store, &home.tenant, "idempotency_keys").await, 0);
    assert_eq!(rows_of(&home.store, &home.tenant, "users").await, 0);
    assert_eq!(look(home, home.tenant.id(), "k", TWO).await, IdempotencyClaim::New);
}

/// Many send the same request at once.
pub async fn racing_claims_of_one_key_do_the_request_once(home: &Home) {
    let work =
        |tenant: TenantStore, _| async move { tenant.transaction(|view| request(view, "k")).await.expect("done") };
    let claims = race(&home.tenant, 16, work).await;
    let users = home.tenant.users().list(&ListRequest::new()).await.expect("listed").items;
    assert_eq!(users.len(), 1);
    let repeated = IdempotencyClaim::Repeated(answer(users[0].id.to_string().as_bytes()));
    assert_eq!(claims.iter().filter(|claim| **claim == IdempotencyClaim::New).count(), 1, "{claims:?}");
    assert_eq!(claims.iter().filter(|claim| **claim == repeated).count(), 15, "{claims:?}");
}

/// Who sends a request that is being done waits for what comes of it.
pub async fn who_waits_for_a_claim_goes_on_when_it_is_rolled_back(home: &Home) {
    let (tx, view) = begin(home).await;
    assert_eq!(request(view, "k").await.expect("done"), IdempotencyClaim::New);
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let tenant = home.tenant.clone();
            tokio::spawn(async move { tenant.transaction(|view| request(view, "k")).await.expect("done") })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(waiting.iter().all(|one| !one.is_finished()), "they wait");
    tx.rollback().await.expect("rolled back");
    let mut new = 0;
    for one in waiting {
        match one.await.expect("no panic") {
            IdempotencyClaim::New => new += 1,
            IdempotencyClaim::Repeated(_) => {}
            IdempotencyClaim::Different => panic!("the request is the same"),
        }
    }
    assert_eq!((new, rows_of(&home.store, &home.tenant, "users").await), (1, 1));
}

/// A claim that was committed without an answer, which should not happen, is as good as none.
pub async fn a_claim_without_an_answer_is_taken_over_by_one(home: &Home) {
    let (tx, view) = begin(home).await;
    assert_eq!(view.idempotency_keys().claim("k", TWO).await.expect("a claim"), IdempotencyClaim::New);
    tx.commit().await.expect("committed");
    assert_eq!(look(home, home.tenant.id(), "k", TWO).await, IdempotencyClaim::New);
    let work =
        |tenant: TenantStore, _| async move { tenant.transaction(|view| request(view, "k")).await.expect("done") };
    let claims = race(&home.tenant, 12, work).await;
    assert_eq!(claims.iter().filter(|claim| **claim == IdempotencyClaim::New).count(), 1, "{claims:?}");
    assert_eq!(claims.iter().filter(|claim| matches!(claim, IdempotencyClaim::Repeated(_))).count(), 11, "{claims:?}");
    assert_eq!(look(home, home.tenant.id(), "k", TWO).await, IdempotencyClaim::Different);
}

/// Old keys are forgotten.
pub async fn old_idempotency_keys_are_pruned(home: &Home) {
    for key in ["a", "b", "c"] {
        home.tenant.transaction(|view| request(view, key)).await.expect("done");
    }
    let between = home.tenant.now().plus(Duration::from_micros(1));
    tokio::time::sleep(Duration::from_millis(2)).await;
    home.tenant.transaction(|view| request(view, "new")).await.expect("done");
    let other = home.store.tenant(home.other.id());
    other.transaction(|view| request(view, "a")).await.expect("done");
    assert_eq!(home.tenant.idempotency_keys().prune(between).await.expect("pruned"), 3);
    assert_eq!(home.tenant.idempotency_keys().prune(between).await.expect("pruned"), 0);
    assert_eq!(look(home, home.tenant.id(), "a", TWO).await, IdempotencyClaim::New, "it is free again");
    assert!(matches!(look(home, home.tenant.id(), "new", ONE).await, IdempotencyClaim::Repeated(_)));
    assert!(matches!(look(home, home.other.id(), "a", ONE).await, IdempotencyClaim::Repeated(_)));
}
