//! Samples of named measures.

use agentkeep_core::{
    Direction, Error, ListRequest, Metric, MetricId, MetricStatistics, NewMetric, Page, Result, TenantId, Timestamp,
};

use super::{
    list::list,
    table::{Field, FieldKind, Table, delete, delete_in_batches, explain, params, record, write_one},
};
use crate::{
    engine::{Sql, Value},
    store::TenantStore,
};

/// The metrics of a tenant.
pub struct Metrics<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "id, name, value, labels, recorded_at, created_at"
    };
}

record!(Metric, &TABLE, { id, name, value, labels, recorded_at, created_at });

static TABLE: Table = Table {
    entity: "metric",
    name: "metrics",
    from: "metrics",
    tenant: "tenant_id = $1",
    columns: columns!(),
    key: "id",
    order: ("recorded_at", Direction::Ascending),
    fields: &[
        Field::new("id", FieldKind::Uuid).sortable(),
        Field::new("name", FieldKind::Text).sortable(),
        Field::new("value", FieldKind::Float).sortable(),
        Field::new("recorded_at", FieldKind::Time).sortable(),
        Field::new("created_at", FieldKind::Time).sortable(),
        Field::new("labels", FieldKind::Json),
    ],
    unique: &[],
    references: &[],
};

static RECORD: Sql = Sql::both(concat!(
    "INSERT INTO metrics (tenant_id, id, name, value, labels, recorded_at, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7)
     RETURNING ",
    columns!(),
));
static RECORD_SILENTLY: Sql = Sql::both(
    "INSERT INTO metrics (tenant_id, id, name, value, labels, recorded_at, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7)",
);
static GET: Sql = Sql::both(concat!("SELECT ", columns!(), " FROM metrics WHERE tenant_id = $1 AND id = $2")).short();
static STATISTICS: Sql = Sql::both(
    "SELECT count(*), sum(value), min(value), max(value) FROM metrics
     WHERE tenant_id = $1 AND name = $2 AND recorded_at >= $3 AND recorded_at < $4",
);
static DELETE: Sql = Sql::both("DELETE FROM metrics WHERE tenant_id = $1 AND id = $2");
static PRUNE: Sql = Sql::both(
    "DELETE FROM metrics WHERE tenant_id = $1 AND id IN (
         SELECT id FROM metrics WHERE tenant_id = $1 AND recorded_at < $2 ORDER BY recorded_at, id LIMIT $3
     )",
);

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements =
    (&TABLE, &[&RECORD, &RECORD_SILENTLY, &GET, &STATISTICS, &DELETE, &PRUNE]);

impl Metrics<'_> {
    /// Records a sample.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that breaks a rule,
    /// [`Error::AlreadyExists`] when the id is taken.
    pub async fn record(&self, new: NewMetric) -> Result<Metric> {
        new.check()?;
        let metric = self.stored(new);
        let held = [("id", Value::from(metric.id))];
        write_one(&self.0.executor, &TABLE, &RECORD, &row_of(self.0.tenant, &metric), &held).await
    }

    /// Records many samples in one transaction: all of them or none; they come back in the same order.
    ///
    /// # Errors
    /// As [`Metrics::record`], with the place of the sample (`metrics[3].value`).
    pub async fn record_many(&self, new: Vec<NewMetric>) -> Result<Vec<Metric>> {
        for (index, new) in new.iter().enumerate() {
            new.check().map_err(|error| error.at(&format!("metrics[{index}]")))?;
        }
        let metrics: Vec<Metric> = new.into_iter().map(|new| self.stored(new)).collect();
        let rows = metrics.iter().map(|metric| row_of(self.0.tenant, metric)).collect();
        let Err(mut error) = self.0.executor.execute_batch(&RECORD_SILENTLY, rows).await else { return Ok(metrics) };
        for metric in &metrics {
            if !matches!(error, Error::Database { .. }) {
                break;
            }
            let held = [("id", Value::from(metric.id))];
            error = explain(&self.0.executor, &TABLE, &params![self.0.tenant], &held, error).await;
        }
        Err(error)
    }

    /// The sample as it will be stored.
    fn stored(&self, new: NewMetric) -> Metric {
        let now = self.0.now();
        Metric {
            id: new.id.unwrap_or_else(|| self.0.new_id(now)),
            name: new.name,
            value: new.value,
            labels: new.labels,
            recorded_at: new.recorded_at.unwrap_or(now),
            created_at: now,
        }
    }

    /// The sample with that id; `None` when there is none.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, id: MetricId) -> Result<Option<Metric>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, id]).await
    }

    /// One page of the samples. Filters: id, name, value, recorded_at, created_at, labels.PATH. Orders: id,
    /// recorded_at (the default), created_at, name, value.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign
    /// cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<Metric>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// What all samples of a measure recorded from `from` on and before `to` amount to; without a bound, from
    /// the first or to the last. Every sample counts.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn statistics(
        &self,
        name: &str,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<MetricStatistics> {
        let (from, to) = (from.unwrap_or(Timestamp::MIN), to.unwrap_or(Timestamp::MAX));
        let params = params![self.0.tenant, name, from, to];
        let (count, sum, min, max): (i64, Option<f64>, Option<f64>, Option<f64>) =
            self.0.executor.fetch_one(&STATISTICS, &params).await?;
        let avg = sum.map(|sum| sum / count as f64);
        Ok(MetricStatistics { count: count.unsigned_abs(), sum: sum.unwrap_or(0.0), min, max, avg })
    }

    /// Deletes a sample.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete(&self, id: MetricId) -> Result<()> {
        delete(&self.0.executor, &TABLE, &DELETE, self.0.tenant, id).await
    }

    /// Deletes the samples recorded before that time, in bounded batches; how many it were.
    ///
    /// # Errors
    /// What the database reports; the batches before it are done.
    pub async fn prune(&self, before: Timestamp) -> Result<u64> {
        delete_in_batches(&self.0.executor, &PRUNE, &params![self.0.tenant, before]).await
    }
}

/// The columns of a row, in the order of [`RECORD`].
fn row_of(tenant: TenantId, metric: &Metric) -> Vec<Value> {
    params![
        tenant,
        metric.id,
        metric.name.as_str(),
        metric.value,
        metric.labels.clone(),
        metric.recorded_at,
        metric.created_at,
    ]
    .into()
}
