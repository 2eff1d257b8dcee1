//! Tenants, users and what users prefer.

use agentkeep::core::{NewPreference, NewTenant, NewUser, PreferencePatch, TenantPatch, UserPatch};

use super::{METADATA, entity, json, text};
use crate::entity::{
    Entity, Scope,
    call::{call, optional, page, parse, tenant_id, user_id, value},
};

pub(super) static TENANTS: Entity = entity! {
    name: "tenants",
    one: "tenant",
    about: "Tenants: nothing of one is seen by another",
    key: "ID-or-NAME",
    columns: &["id", "name", "metadata", "created_at"],
    fields: &[text("name", "Its name, unique in the database"), METADATA],
    list: call!(|home, request| page(home.store.tenants().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.store.tenants().get(tenant_id(home, &key).await?).await?))),
    create: Some(call!(|home, body| value(home.store.tenants().create(parse::<NewTenant>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = tenant_id(home, &key).await?;
        value(home.store.tenants().update(id, parse::<TenantPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.store.tenants().delete(tenant_id(home, &key).await?).await)),
    delete_warning: Some("everything that belongs to it"),
};

pub(super) static USERS: Entity = entity! {
    name: "users",
    one: "user",
    about: "Users: the people, or systems, that talk to agents",
    key: "ID-or-EMAIL",
    columns: &["id", "name", "email", "phone_number", "created_at"],
    fields: &[
        text("name", "Name to show"),
        text("email", "E-mail address, unique within the tenant"),
        text("phone_number", "Phone number"),
        METADATA,
    ],
    list: call!(|home, request| page(home.tenant.users().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.users().get_by_identifier(&key).await?))),
    create: Some(call!(|home, body| value(home.tenant.users().create(parse::<NewUser>(body)?).await?))),
    upsert: Some(call!(|home, body| value(home.tenant.users().upsert(parse::<NewUser>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = user_id(home, &key).await?;
        value(home.tenant.users().update(id, parse::<UserPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.users().delete(user_id(home, &key).await?).await)),
};

pub(super) static PREFERENCES: Entity = entity! {
    name: "preferences",
    one: "preference",
    about: "Preferences of users, by category",
    columns: &["id", "user_id", "category", "preferences", "updated_at"],
    fields: &[
        text("user_id", "The user (create and upsert)"),
        text("category", "What they are about; unique for each user"),
        json("preferences", "A JSON object; update merges it (RFC 7396)"),
        METADATA,
    ],
    scope: Some(Scope {
        argument: "USER",
        field: "user_id",
        resolve: call!(|home, key| value(user_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.preferences().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.preferences().get_by_id(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.preferences().create(parse::<NewPreference>(body)?).await?))),
    upsert: Some(call!(|home, body| value(home.tenant.preferences().upsert(parse::<NewPreference>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = key.parse()?;
        value(home.tenant.preferences().update(id, parse::<PreferencePatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.preferences().delete_by_id(key.parse()?).await)),
};
