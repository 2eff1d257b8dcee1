//! Requests that are done once however often they are sent. Who claims a key inserts its row in the transaction that
//! does the request; whoever claims it meanwhile waits at that row until the transaction has ended.

use agentkeep_core::{Error, IdempotencyClaim, Json, Result, StoredAnswer, Timestamp, check_idempotency_key};

use super::table::{delete_in_batches, missing_reference, params};
use crate::{
    engine::{Executor, Sql, Value},
    store::TenantStore,
};

/// The keys of requests of a tenant, with the answers they got.
///
/// [`IdempotencyKeys::claim`], what the request does and [`IdempotencyKeys::answer`] belong in one transaction
/// ([`TenantStore::transaction`], [`Store::tenant_in`](crate::Store::tenant_in)).
pub struct IdempotencyKeys<'a>(pub(super) &'a TenantStore);

// On PostgreSQL it waits for the transaction that inserted the same key and has not ended.
static CLAIM: Sql = Sql::both(
    "INSERT INTO idempotency_keys (tenant_id, key, fingerprint, created_at) VALUES ($1, $2, $3, $4)
     ON CONFLICT (tenant_id, key) DO NOTHING
     RETURNING key",
);
static READ: Sql =
    Sql::both("SELECT fingerprint, status, headers, body FROM idempotency_keys WHERE tenant_id = $1 AND key = $2")
        .short();
// Of several who find a row without an answer one gets it: the others wait, and find it answered.
static TAKE_OVER: Sql = Sql::both(
    "UPDATE idempotency_keys SET fingerprint = $3, created_at = $4
     WHERE tenant_id = $1 AND key = $2 AND status IS NULL
     RETURNING key",
);
static ANSWER: Sql =
    Sql::both("UPDATE idempotency_keys SET status = $3, headers = $4, body = $5 WHERE tenant_id = $1 AND key = $2");
static PRUNE: Sql = Sql::both(
    "DELETE FROM idempotency_keys WHERE tenant_id = $1 AND key IN (
         SELECT key FROM idempotency_keys WHERE tenant_id = $1 AND created_at < $2 ORDER BY created_at, key LIMIT $3
     )",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static FIXED: &[&Sql] = &[&CLAIM, &READ, &TAKE_OVER, &ANSWER, &PRUNE];

/// A row: its fingerprint, and the answer if there is one.
type Stored = (Vec<u8>, Option<i32>, Option<Vec<(String, String)>>, Option<Vec<u8>>);

impl IdempotencyKeys<'_> {
    /// Claims the key of a request, inside the transaction that does it. The fingerprint is a hash of the request, by
    /// which another one with the same key is told. While another transaction has the key this waits for its end: a
    /// committed one gives its answer, one that was rolled back leaves the key free.
    ///
    /// # Errors
    /// [`Error::Invalid`] (`Idempotency-Key`) for a key that is empty or too long, [`Error::MissingReference`] when
    /// there is no such tenant, [`Error::Unsupported`] outside of a transaction.
    pub async fn claim(&self, key: &str, fingerprint: [u8; 32]) -> Result<IdempotencyClaim> {
        check_idempotency_key(key)?;
        self.check_transaction()?;
        let executor = &self.0.executor;
        let params = params![self.0.tenant, key, fingerprint.to_vec(), self.0.now()];
        loop {
            if self.inserted(&CLAIM, &params).await? {
                return Ok(IdempotencyClaim::New);
            }
            match executor.fetch_optional::<Stored>(&READ, &params[..2]).await? {
                Some((first, Some(_), ..)) if first != fingerprint => return Ok(IdempotencyClaim::Different),
                Some((_, Some(status), headers, body)) => {
                    let status = u16::try_from(status)
                        .map_err(|_| Error::database(format!("{status} was stored as the status of an answer")))?;
                    let (headers, body) = (headers.unwrap_or_default(), body.unwrap_or_default());
                    return Ok(IdempotencyClaim::Repeated(StoredAnswer { status, headers, body }));
                }
                // Committed without an answer, or claimed in this transaction before: nothing was done for it.
                Some((_, None, ..)) if self.inserted(&TAKE_OVER, &params).await? => return Ok(IdempotencyClaim::New),
                // It was pruned, or answered, meanwhile.
                Some((_, None, ..)) | None => {}
            }
        }
    }

    /// Keeps the answer to the request that claimed the key, in the same transaction.
    ///
    /// # Errors
    /// [`Error::NotFound`] when nobody has claimed the key, [`Error::Unsupported`] outside of a transaction.
    pub async fn answer(&self, key: &str, answer: &StoredAnswer) -> Result<()> {
        self.check_transaction()?;
        let headers = Json::from_serialize("headers", &answer.headers)?;
        let params = params![self.0.tenant, key, i32::from(answer.status), headers, answer.body.clone()];
        match self.0.executor.execute(&ANSWER, &params).await? {
            0 => Err(Error::not_found("idempotency key", format!("{key:?}"))),
            _ => Ok(()),
        }
    }

    /// Forgets the requests that were claimed before that time, in bounded batches; how many it were. Sent again,
    /// they are done again.
    ///
    /// # Errors
    /// What the database reports; the batches before it are done.
    pub async fn prune(&self, before: Timestamp) -> Result<u64> {
        delete_in_batches(&self.0.executor, &PRUNE, &params![self.0.tenant, before]).await
    }

    /// Runs a statement that gives the key back if it wrote.
    async fn inserted(&self, sql: &Sql, params: &[Value]) -> Result<bool> {
        match self.0.executor.fetch_optional::<(String,)>(sql, params).await {
            Ok(written) => Ok(written.is_some()),
            // The one reference there is.
            Err(Error::Database { code: Some(code), .. }) if code == "23503" => {
                Err(missing_reference("tenant_id", "tenant", &params[0]))
            }
            Err(error) => Err(error),
        }
    }

    fn check_transaction(&self) -> Result<()> {
        match self.0.executor {
            Executor::Tx(_) => Ok(()),
            Executor::Engine(_) => Err(Error::Unsupported(
                "claiming and answering a request outside of the transaction that does it".to_owned(),
            )),
        }
    }
}
