//! Every statement the store can run is one the engine understands: what compile-time checking would give.

use super::Home;
use crate::repo;

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
}
