//! Every statement the store can run is one the engine understands: what compile-time checking would give.

use super::Home;
use crate::{
    Store,
    engine::{Dialect, Sql},
    repo,
};

/// Prepares all of them.
pub async fn every_statement_is_understood(home: &Home) {
    let engine = home.store.engine();
    for (table, fixed) in repo::statements() {
        let lists = repo::list_statements(engine.dialect(), table).expect("lists can be assembled");
        for sql in fixed.iter().copied().chain(&lists) {
            engine
                .prepare(sql)
                .await
                .unwrap_or_else(|error| panic!("{error} in a statement of {}: {sql:?}", table.name));
        }
    }
    for sql in more(engine.dialect()) {
        engine.prepare(sql).await.unwrap_or_else(|error| panic!("{error} in: {sql:?}"));
    }
}

/// The texts of all of them, as this store's engine takes them.
///
/// # Panics
/// When a list cannot be assembled.
#[must_use]
pub fn texts(store: &Store) -> Vec<String> {
    let lists = |table| repo::list_statements(store.engine().dialect(), table).expect("lists can be assembled");
    let tables = repo::statements().into_iter();
    let texts = tables.flat_map(|(table, fixed)| {
        let fixed = fixed.iter().map(|sql| format!("{sql:?}"));
        fixed.chain(lists(table).iter().map(|sql| format!("{sql:?}"))).collect::<Vec<_>>()
    });
    texts.chain(more(store.engine().dialect()).iter().map(|sql| format!("{sql:?}"))).collect()
}

/// What repositories have beside the statements of their entity.
fn more(dialect: Dialect) -> Vec<&'static Sql> {
    let batches = repo::batches().into_iter().flat_map(|batch| batch.statements(dialect));
    let appends = repo::appends().into_iter().flat_map(|append| append.statements(dialect));
    repo::more_statements().into_iter().chain(batches).chain(appends).collect()
}
