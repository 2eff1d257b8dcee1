//! Users.

use agentkeep_core::{Direction, Error, FilterOperator, JsonObject, ListRequest, NewUser, User, UserPatch};

use super::Home;

fn named(email: &str) -> NewUser {
    NewUser { email: Some(email.into()), ..NewUser::default() }
}

/// The life of a user.
pub async fn a_user_is_created_read_changed_and_deleted(home: &Home) {
    let users = home.tenant.users();
    let metadata = JsonObject::parse("metadata", r#"{"tier":"gold","nul":"a\u0000b","n":0.10}"#).expect("json");
    let new = NewUser { name: Some("Ann\0e".into()), metadata: metadata.clone(), ..named("ann@example.org") };
    let created = users.create(new).await.expect("created");
    assert_eq!((created.name.as_deref(), &created.metadata), (Some("Ann\0e"), &metadata));
    assert_eq!(users.get(created.id).await.expect("read"), Some(created.clone()));

    let patch = JsonObject::parse("metadata", r#"{"tier":null,"since":2020}"#).expect("json");
    let patch = UserPatch { name: Some(None), metadata: Some(patch), ..UserPatch::default() };
    let changed = users.update(created.id, patch).await.expect("changed");
    let expected = JsonObject::parse("metadata", r#"{"nul":"a\u0000b","n":0.10,"since":2020}"#).expect("json");
    assert_eq!((changed.name, changed.email, changed.metadata), (None, created.email, expected));
    assert!(changed.updated_at > created.updated_at);

    users.delete(created.id).await.expect("deleted");
    assert_eq!(users.get(created.id).await.expect("read"), None);
    assert!(matches!(users.delete(created.id).await, Err(Error::NotFound { .. })));
    assert!(matches!(users.update(created.id, UserPatch::default()).await, Err(Error::NotFound { .. })));
}

/// A duplicate on create and on update.
pub async fn a_taken_email_is_told_and_nothing_changes(home: &Home) {
    let users = home.tenant.users();
    let ann = users.create(named("ann@example.org")).await.expect("created");
    let bob = users.create(named("bob@example.org")).await.expect("created");
    for outcome in [
        users.create(named("ann@example.org")).await,
        users.update(bob.id, UserPatch { email: Some(ann.email.clone()), ..UserPatch::default() }).await,
    ] {
        match outcome {
            Err(Error::AlreadyExists { entity: "user", field, value }) => {
                assert_eq!((field.as_str(), value.as_str()), ("email", "\"ann@example.org\""));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(users.get(bob.id).await.expect("read"), Some(bob));
    assert!(matches!(users.create(named("no at sign")).await, Err(Error::Invalid { field, .. }) if field == "email"));
}

/// Upsert under contention.
pub async fn racing_upserts_of_one_email_make_one_user(home: &Home) {
    let racers = (0..32).map(|_| {
        let tenant = home.tenant.clone();
        tokio::spawn(async move { tenant.users().upsert(named("ann@example.org")).await.expect("upserted").id })
    });
    let mut ids = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        ids.push(racer.await.expect("no panic"));
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let all = home.tenant.users().list(&ListRequest::new().with_total()).await.expect("listed");
    assert_eq!((all.items.len(), all.total), (1, Some(1)));
}

/// System A's `get_user_by_identifier`.
pub async fn users_are_found_by_id_email_or_phone_number(home: &Home) {
    let users = home.tenant.users();
    let new = NewUser { phone_number: Some("+4912345".into()), ..named("ann@example.org") };
    let ann = users.create(new).await.expect("created");
    for identifier in [ann.id.to_string().as_str(), "ann@example.org", "+4912345"] {
        assert_eq!(users.get_by_identifier(identifier).await.expect("read").as_ref(), Some(&ann), "{identifier}");
    }
    assert_eq!(users.get_by_identifier("nobody").await.expect("read"), None);
    assert_eq!(users.get_by_email("bob@example.org").await.expect("read"), None);
}

/// The list machine, by the example of users.
pub async fn lists_are_filtered_ordered_and_paged(home: &Home) {
    let users = home.tenant.users();
    let mut made: Vec<User> = Vec::new();
    for index in 0..7 {
        let metadata = JsonObject::parse("metadata", format!(r#"{{"group":{{"n":{}}}}}"#, index % 2)).expect("json");
        let new = NewUser { metadata, name: Some(format!("user {index}")), ..named(&format!("{index}@example.org")) };
        made.push(users.create(new).await.expect("created"));
    }
    for direction in [Direction::Ascending, Direction::Descending] {
        let mut request = ListRequest::new().order_by("created_at", direction).limit(3);
        let mut seen = Vec::new();
        loop {
            let page = users.list(&request).await.expect("listed");
            seen.extend(page.items);
            match page.next {
                Some(next) => request = request.after(next),
                None => break,
            }
        }
        if direction == Direction::Descending {
            seen.reverse();
        }
        assert_eq!(seen, made);
    }
    let odd = users.list(&ListRequest::new().filter("metadata.group.n", 1).with_total()).await.expect("listed");
    assert_eq!((odd.items.len(), odd.total, odd.next), (3, Some(3), None));
    let like = ListRequest::new().filter_by("name", FilterOperator::Like, "user _");
    assert_eq!(users.list(&like).await.expect("listed").items.len(), 7);
    let like = ListRequest::new().filter_by("name", FilterOperator::Like, "USER%");
    assert_eq!(users.list(&like).await.expect("listed").items.len(), 0);
    let none = users.list(&ListRequest::new().filter("phone_number", None::<&str>)).await.expect("listed");
    assert_eq!(none.items.len(), 7);
    let late = ListRequest::new().filter_by("created_at", FilterOperator::GreaterOrEqual, made[5].created_at);
    assert_eq!(users.list(&late).await.expect("listed").items.len(), 2);
    let second = users.list(&ListRequest::new().page(2, 3)).await.expect("listed");
    assert_eq!(second.items, made[3..6]);
}

/// What a list cannot do it says.
pub async fn a_list_refuses_what_it_does_not_know(home: &Home) {
    let users = home.tenant.users();
    for index in 0..3 {
        users.create(named(&format!("{index}@example.org"))).await.expect("created");
    }
    let first = users.list(&ListRequest::new().limit(1)).await.expect("listed");
    let cursor = first.next.expect("more");
    let requests = [
        (ListRequest::new().filter("shoe_size", 42), "filter"),
        (ListRequest::new().filter("id", "not a uuid"), "id"),
        (ListRequest::new().filter("metadata", "x"), "metadata"),
        (ListRequest::new().order_by("name; DROP TABLE users", Direction::Ascending), "order"),
        (ListRequest::new().limit(0), "limit"),
        (ListRequest::new().limit(1001), "limit"),
        (ListRequest::new().order_by("id", Direction::Ascending).after(cursor), "cursor"),
        (ListRequest::new().after(agentkeep_core::Cursor::new("rubbish")), "cursor"),
    ];
    for (request, wanted) in requests {
        match users.list(&request).await {
            Err(Error::Invalid { field, .. }) => assert_eq!(field, wanted, "{request:?}"),
            other => panic!("{request:?} gave {other:?}"),
        }
    }
}

/// The same e-mail in two tenants.
pub async fn tenants_do_not_see_or_block_each_other(home: &Home) {
    let mine = home.tenant.users().create(named("ann@example.org")).await.expect("created");
    let theirs = home.other.users().create(named("ann@example.org")).await.expect("created");
    assert_ne!(mine.id, theirs.id);
    assert_eq!(home.tenant.users().get(theirs.id).await.expect("read"), None);
    assert!(matches!(home.tenant.users().delete(theirs.id).await, Err(Error::NotFound { .. })));
    let patch = UserPatch { name: Some(Some("taken over".into())), ..UserPatch::default() };
    assert!(matches!(home.tenant.users().update(theirs.id, patch).await, Err(Error::NotFound { .. })));
    assert_eq!(home.other.users().list(&ListRequest::new()).await.expect("listed").items, [theirs]);
}
