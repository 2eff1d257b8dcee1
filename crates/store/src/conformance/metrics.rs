//! Metrics.

use std::{slice, time::Duration};

use agentkeep_core::{Direction, Error, FilterOperator, ListRequest, MetricStatistics, NewMetric, Timestamp};

use super::{Home, fixtures::object};
use crate::TenantStore;

/// The second after the start of 2025 with that number.
fn second(number: u64) -> Timestamp {
    let start: Timestamp = "2025-01-01T00:00:00Z".parse().expect("a time");
    start.plus(Duration::from_secs(number))
}

fn sample(number: u64, value: f64) -> NewMetric {
    NewMetric { recorded_at: Some(second(number)), ..NewMetric::new("latency", value) }
}

async fn count(tenant: &TenantStore) -> u64 {
    let page = tenant.metrics().list(&ListRequest::new().limit(1).with_total()).await.expect("listed");
    page.total.expect("a total")
}

/// The life of a sample.
pub async fn samples_are_recorded_read_and_listed(home: &Home) {
    let metrics = home.tenant.metrics();
    let new = NewMetric { labels: object(r#"{"agent":{"name":"bot"},"ok":true}"#), ..sample(5, 0.1) };
    let first = metrics.record(new).await.expect("recorded");
    assert_eq!((first.value, first.recorded_at), (0.1, second(5)));
    assert_eq!(metrics.get(first.id).await.expect("read"), Some(first.clone()));
    let new = vec![sample(1, -1.5), NewMetric::new("cost", 3.0), sample(9, 1e300)];
    let many = metrics.record_many(new).await.expect("recorded");
    for metric in &many {
        assert_eq!(metrics.get(metric.id).await.expect("read").as_ref(), Some(metric));
    }
    assert_eq!(metrics.record_many(Vec::new()).await.expect("recorded"), []);

    let listed = async |request: ListRequest| metrics.list(&request).await.expect("listed").items;
    let latency = || ListRequest::new().filter("name", "latency");
    assert_eq!(listed(latency()).await, [many[0].clone(), first.clone(), many[2].clone()]);
    let late = latency().filter_by("recorded_at", FilterOperator::GreaterOrEqual, second(5));
    assert_eq!(listed(late).await.len(), 2);
    let early = latency().filter_by("recorded_at", FilterOperator::Less, second(5));
    assert_eq!(listed(early).await, [many[0].clone()]);
    assert_eq!(listed(ListRequest::new().filter("labels.agent.name", "bot")).await, slice::from_ref(&first));
    assert_eq!(listed(ListRequest::new().filter("labels.ok", false)).await, []);
    let mut request = ListRequest::new().order_by("value", Direction::Descending).limit(1);
    for expected in [&many[2], &many[1], &first, &many[0]] {
        let page = metrics.list(&request).await.expect("listed");
        assert_eq!(page.items, slice::from_ref(expected));
        request = page.next.map_or(ListRequest::new(), |next| request.after(next));
    }

    metrics.delete(first.id).await.expect("deleted");
    assert_eq!(metrics.get(first.id).await.expect("read"), None);
    assert!(matches!(metrics.delete(first.id).await, Err(Error::NotFound { .. })));
}

/// Count, sum, min, max, avg.
pub async fn statistics_count_every_sample_in_range(home: &Home) {
    let metrics = home.tenant.metrics();
    assert_eq!(metrics.statistics("latency", None, None).await.expect("read"), MetricStatistics::default());
    // Eighths: sums of them are exact in binary.
    let samples = (0..3000).map(|number| sample(number, number as f64 / 8.0)).collect();
    metrics.record_many(samples).await.expect("recorded");
    metrics.record(NewMetric::new("cost", 1e6)).await.expect("recorded");
    home.other.metrics().record(sample(1, 1e6)).await.expect("recorded");
    let whole = metrics.statistics("latency", None, None).await.expect("read");
    let sum = 2999.0 * 3000.0 / 2.0 / 8.0;
    let expected =
        MetricStatistics { count: 3000, sum, min: Some(0.0), max: Some(2999.0 / 8.0), avg: Some(sum / 3000.0) };
    assert_eq!(whole, expected);
    let part = metrics.statistics("latency", Some(second(8)), Some(second(10))).await.expect("read");
    let expected = MetricStatistics { count: 2, sum: 2.125, min: Some(1.0), max: Some(1.125), avg: Some(1.0625) };
    assert_eq!(part, expected);
    let none = metrics.statistics("latency", Some(second(3000)), None).await.expect("read");
    assert_eq!(none, MetricStatistics::default());
}

/// Bad values; of a batch nothing remains.
pub async fn bad_samples_are_refused_and_of_a_batch_nothing_remains(home: &Home) {
    let metrics = home.tenant.metrics();
    for (new, wanted) in [
        (NewMetric::new("", 1.0), "name"),
        (NewMetric::new("n", f64::NAN), "value"),
        (NewMetric::new("n", f64::INFINITY), "value"),
    ] {
        let outcome = metrics.record(new.clone()).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
        let outcome = metrics.record_many(vec![sample(1, 1.0), new]).await;
        let place = format!("metrics[1].{wanted}");
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if *field == place), "{place}: {outcome:?}");
    }
    assert_eq!(count(&home.tenant).await, 0);
    let kept = metrics.record(sample(1, 1.0)).await.expect("recorded");
    let repeated = || NewMetric { id: Some(kept.id), ..sample(2, 2.0) };
    let outcome = metrics.record(repeated()).await;
    assert!(matches!(&outcome, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{outcome:?}");
    let outcome = metrics.record_many(vec![sample(3, 3.0), repeated()]).await;
    assert!(matches!(&outcome, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{outcome:?}");
    assert_eq!(metrics.list(&ListRequest::new()).await.expect("listed").items, [kept]);

    let in_transaction = home.tenant.transaction(|tenant| async move {
        let batch = vec![sample(3, 3.0), NewMetric { id: None, ..sample(4, 4.0) }];
        tenant.metrics().record_many(batch).await?;
        Err::<(), _>(Error::database("undo it"))
    });
    assert!(in_transaction.await.is_err());
    assert_eq!(count(&home.tenant).await, 1);
}

/// Old samples go, in more than one batch; those of others stay.
pub async fn old_samples_are_pruned(home: &Home) {
    let metrics = home.tenant.metrics();
    let samples = (0..2500).map(|number| sample(number, 1.0)).collect();
    metrics.record_many(samples).await.expect("recorded");
    home.other.metrics().record(sample(1, 1.0)).await.expect("recorded");
    assert_eq!(metrics.prune(second(2400)).await.expect("pruned"), 2400);
    assert_eq!(metrics.prune(second(2400)).await.expect("pruned"), 0);
    assert_eq!(count(&home.tenant).await, 100);
    assert_eq!(count(&home.other).await, 1);
    assert_eq!(metrics.statistics("latency", None, None).await.expect("read").count, 100);
}
