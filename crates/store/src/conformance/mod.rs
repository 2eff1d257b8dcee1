//! The behaviour of the store as plain async functions, run on every engine.
//!
//! A case gets a [`Home`]: an open store and two tenants of its own. It says what must hold and nothing about
//! the engine. [`for_each_case!`](crate::for_each_case) hands the list of all cases to a macro, which makes a
//! test of each for each engine (`tests/conformance.rs`).

pub mod statements;
pub mod users;

use agentkeep_core::{NewTenant, Result};

use crate::{Store, TenantStore};

/// Where a case lives.
pub struct Home {
    /// The open store.
    pub store: Store,
    /// The tenant of the case; empty.
    pub tenant: TenantStore,
    /// A second tenant, for what must not be seen or blocked across; empty.
    pub other: TenantStore,
}

impl Home {
    /// Makes two new tenants on an open store.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn new(store: Store) -> Result<Self> {
        let new = async |what: &str| {
            let name = format!("{what}-{}", uuid::Uuid::now_v7());
            store.tenants().create(NewTenant::new(name)).await.map(|tenant| store.tenant(tenant.id))
        };
        let (tenant, other) = (new("case").await?, new("other").await?);
        Ok(Self { store, tenant, other })
    }
}

/// Calls `$callback! { module: case, case; … }` with every case of the suite.
#[macro_export]
macro_rules! for_each_case {
    ($callback:path) => {
        $callback! {
            statements: every_statement_is_understood;
            users:
                a_user_is_created_read_changed_and_deleted,
                a_taken_email_is_told_and_nothing_changes,
                racing_upserts_of_one_email_make_one_user,
                users_are_found_by_id_email_or_phone_number,
                lists_are_filtered_ordered_and_paged,
                a_list_refuses_what_it_does_not_know,
                tenants_do_not_see_or_block_each_other;
        }
    };
}
