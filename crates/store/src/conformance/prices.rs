//! Prices.

use std::time::Duration;

use agentkeep_core::{
    Error, FilterOperator, ListRequest, Money, NewPrice, PricePatch, Timestamp, TokenCounts, TokenKind,
};

use super::{
    Home,
    fixtures::{object, race},
};

fn dollars(text: &str) -> Money {
    text.parse().expect("dollars")
}

/// The start of 2025, and so many days later.
fn day(number: u64) -> Timestamp {
    let start: Timestamp = "2025-01-01T00:00:00Z".parse().expect("a time");
    start.plus(Duration::from_secs(number * 86_400))
}

fn price(kind: TokenKind, per_million: &str, from: u64, to: Option<u64>) -> NewPrice {
    NewPrice {
        valid_from: Some(day(from)),
        valid_to: to.map(day),
        ..NewPrice::per_million("large", kind, dollars(per_million))
    }
}

/// The life of a price.
pub async fn a_price_is_created_read_changed_and_deleted(home: &Home) {
    let prices = home.tenant.prices();
    let new = NewPrice { metadata: object(r#"{"list":"a"}"#), ..price(TokenKind::Input, "3", 0, None) };
    let made = prices.create(new).await.expect("created");
    assert_eq!((made.per_token, made.per_million().to_string().as_str()), (Money::from_units(3_000_000), "3.00"));
    assert_eq!(prices.get(made.id).await.expect("read"), Some(made.clone()));
    let patch = PricePatch {
        valid_to: Some(Some(day(30))),
        per_million: Some(dollars("2.5")),
        metadata: Some(object(r#"{"note":"ends"}"#)),
        ..PricePatch::default()
    };
    let changed = prices.update(made.id, patch).await.expect("changed");
    assert_eq!((changed.valid_to, changed.per_token), (Some(day(30)), Money::from_units(2_500_000)));
    assert_eq!(changed.metadata, object(r#"{"list":"a","note":"ends"}"#));
    let open = PricePatch { valid_to: Some(None), ..PricePatch::default() };
    assert_eq!(prices.update(made.id, open).await.expect("changed").valid_to, None);
    let request = ListRequest::new().filter("model", "large").filter_by("per_token", FilterOperator::Less, "0.000003");
    assert_eq!(prices.list(&request).await.expect("listed").items.len(), 1);
    let request = ListRequest::new().filter_by("per_token", FilterOperator::Greater, "0.000003");
    assert_eq!(prices.list(&request).await.expect("listed").items, []);
    assert_eq!(home.other.prices().list(&ListRequest::new()).await.expect("listed").items, []);
    assert!(matches!(home.other.prices().delete(made.id).await, Err(Error::NotFound { .. })));
    prices.delete(made.id).await.expect("deleted");
    assert_eq!(prices.get(made.id).await.expect("read"), None);
    assert!(matches!(prices.update(made.id, PricePatch::default()).await, Err(Error::NotFound { .. })));
}

/// Validity that overlaps names the other price; what only touches or differs is fine.
pub async fn overlapping_prices_are_refused_and_name_the_other(home: &Home) {
    let prices = home.tenant.prices();
    let first = prices.create(price(TokenKind::Input, "3", 10, Some(20))).await.expect("created");
    for (from, to) in [(10, Some(20)), (0, Some(11)), (19, None), (0, None), (12, Some(13))] {
        let outcome = prices.create(price(TokenKind::Input, "4", from, to)).await;
        let named = matches!(&outcome, Err(Error::PriceOverlap { other, .. }) if *other == first.id);
        assert!(named, "{from}–{to:?}: {outcome:?}");
    }
    prices.create(price(TokenKind::Output, "15", 0, None)).await.expect("another kind");
    let azure = NewPrice { provider: Some("azure".into()), ..price(TokenKind::Input, "4", 0, None) };
    let azure = prices.create(azure).await.expect("another provider");
    prices.create(price(TokenKind::Input, "5", 0, Some(10))).await.expect("until the first begins");
    let behind = prices.create(price(TokenKind::Input, "6", 20, None)).await.expect("from where the first ends");
    home.other.prices().create(price(TokenKind::Input, "9", 0, None)).await.expect("another tenant");
    let longer = PricePatch { valid_to: Some(Some(day(21))), ..PricePatch::default() };
    let outcome = prices.update(first.id, longer).await;
    assert!(matches!(&outcome, Err(Error::PriceOverlap { other, .. }) if *other == behind.id));
    assert_eq!(prices.get(first.id).await.expect("read"), Some(first.clone()));

    let cost = async |provider: &str, number: u64| {
        let tokens = TokenCounts::new(1_000_000, 0);
        let cost = prices.cost(provider, "large", &tokens, day(number)).await.expect("a cost");
        cost.map(|cost| cost.to_string())
    };
    assert_eq!(cost("x", 9).await.as_deref(), Some("5.00"));
    assert_eq!(cost("x", 10).await.as_deref(), Some("3.00"));
    assert_eq!(cost("x", 20).await.as_deref(), Some("6.00"));
    assert_eq!(cost(azure.provider.as_deref().expect("a provider"), 10).await.as_deref(), Some("4.00"));
    assert_eq!(prices.cost("x", "small", &TokenCounts::new(1, 0), day(1)).await.expect("read"), None);
}

/// Bad prices; nothing is kept of them.
pub async fn bad_prices_are_refused_by_field(home: &Home) {
    let prices = home.tenant.prices();
    let good = || price(TokenKind::Input, "3", 0, None);
    for (bad, wanted) in [
        (NewPrice { model: String::new(), ..good() }, "model"),
        (NewPrice { provider: Some(" ".into()), ..good() }, "provider"),
        (NewPrice { per_million: Some(dollars("-1")), ..good() }, "per_million"),
        (NewPrice { per_million: Some(dollars("0.0000001")), ..good() }, "per_million"),
        (NewPrice { per_million: None, ..good() }, "per_million"),
        (NewPrice { valid_to: Some(day(0)), ..good() }, "valid_to"),
    ] {
        let outcome = prices.create(bad).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    assert_eq!(prices.list(&ListRequest::new()).await.expect("listed").items, []);
    let made = prices.create(good()).await.expect("created");
    let again = NewPrice { id: Some(made.id), ..price(TokenKind::Output, "3", 0, None) };
    let outcome = prices.create(again).await;
    assert!(matches!(&outcome, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{outcome:?}");
}

/// Of prices for the same time that are created at once, one is there.
pub async fn of_racing_prices_of_one_time_one_wins(home: &Home) {
    let outcomes = race(&home.tenant, 24, |tenant, _| async move {
        tenant.prices().create(price(TokenKind::Input, "3", 0, Some(5))).await
    })
    .await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let refused = |outcome: &&Result<_, Error>| matches!(outcome, Err(Error::PriceOverlap { .. }));
    assert_eq!(outcomes.iter().filter(refused).count(), 23);
    assert_eq!(home.tenant.prices().list(&ListRequest::new()).await.expect("listed").items.len(), 1);
}
