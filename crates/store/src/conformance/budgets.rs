//! Budgets and their reservations.

use std::time::Duration;

use agentkeep_core::{
    AgentId, Budget, BudgetPatch, BudgetPeriod, Error, ListRequest, Money, MoneyTotal, NewBudget, NewLedgerEntry,
    NewPrice, NewReservation, ReservationId, ReservationStatus, TokenCounts, TokenKind, TokenScope, UserId,
};

use super::{Home, fixtures};
use crate::TenantStore;

fn dollars(text: &str) -> Money {
    text.parse().expect("dollars")
}

fn total(text: &str) -> MoneyTotal {
    dollars(text).into()
}

fn cost(amount: &str) -> NewLedgerEntry {
    NewLedgerEntry { cost: Some(dollars(amount)), ..NewLedgerEntry::new(TokenScope::Reactive, "p", 1, 1) }
}

async fn budget(tenant: &TenantStore, limit: &str) -> Budget {
    tenant.budgets().create(NewBudget::tenant(BudgetPeriod::Total, dollars(limit))).await.expect("a budget")
}

/// Spent and reserved of a budget, as text.
async fn usage(tenant: &TenantStore, budget: &Budget) -> (String, String) {
    let usage = tenant.budgets().usage(budget.id).await.expect("usage");
    (usage.spent.to_string(), usage.reserved.to_string())
}

fn is(usage: (String, String), spent: &str, reserved: &str) {
    assert_eq!((usage.0.as_str(), usage.1.as_str()), (spent, reserved));
}

/// The life of a budget.
pub async fn a_budget_is_created_read_changed_and_deleted(home: &Home) {
    let budgets = home.tenant.budgets();
    let agent = fixtures::agent(&home.tenant).await;
    let new = NewBudget { name: Some("bot".into()), ..NewBudget::agent(agent, BudgetPeriod::Day, dollars("5")) };
    let made = budgets.create(new).await.expect("created");
    assert_eq!((made.limit, made.hard, made.agent_id), (dollars("5"), true, Some(agent)));
    assert_eq!(budgets.get(made.id).await.expect("read"), Some(made.clone()));
    let patch = BudgetPatch { limit: Some(dollars("6.5")), hard: Some(false), ..BudgetPatch::default() };
    let changed = budgets.update(made.id, patch).await.expect("changed");
    assert_eq!((changed.limit, changed.hard, changed.name.as_deref()), (dollars("6.5"), false, Some("bot")));
    assert_eq!(budgets.list(&ListRequest::new().filter("limit", "6.50")).await.expect("listed").items, [changed]);
    assert_eq!(home.other.budgets().list(&ListRequest::new()).await.expect("listed").items, []);
    assert!(matches!(home.other.budgets().usage(made.id).await, Err(Error::NotFound { .. })));
    budgets.delete(made.id).await.expect("deleted");
    assert!(matches!(budgets.delete(made.id).await, Err(Error::NotFound { .. })));
}

/// Bad budgets and reservations; nothing is kept of them.
pub async fn bad_budgets_and_reservations_are_refused_by_field(home: &Home) {
    let budgets = home.tenant.budgets();
    let good = || NewBudget::tenant(BudgetPeriod::Day, dollars("1"));
    for (bad, wanted) in [
        (NewBudget { limit: Money::ZERO, ..good() }, "limit"),
        (NewBudget { limit: dollars("-3"), ..good() }, "limit"),
        (NewBudget { name: Some(String::new()), ..good() }, "name"),
        (NewBudget { agent_id: Some(AgentId(1)), ..good() }, "agent_id"),
        (NewBudget { model: None, ..NewBudget::model("m", BudgetPeriod::Day, dollars("1")) }, "model"),
    ] {
        let outcome = budgets.create(bad).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    let nobody = NewBudget::user(UserId(uuid::Uuid::from_u128(1)), BudgetPeriod::Day, dollars("1"));
    let outcome = budgets.create(nobody).await;
    assert!(matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == "user_id"), "{outcome:?}");
    assert_eq!(budgets.list(&ListRequest::new()).await.expect("listed").items, []);
    let made = budgets.create(good()).await.expect("created");
    let outcome = budgets.update(made.id, BudgetPatch { limit: Some(Money::ZERO), ..BudgetPatch::default() }).await;
    assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == "limit"), "{outcome:?}");
    let past = Some(home.tenant.now().minus(Duration::from_secs(1)));
    let tokens = Some(TokenCounts::new(1, 1));
    for (bad, wanted) in [
        (NewReservation::of(dollars("-1")), "amount"),
        (NewReservation { amount: None, ..NewReservation::of(Money::ZERO) }, "amount"),
        (NewReservation { tokens, ..NewReservation::of(Money::ZERO) }, "tokens"),
        (NewReservation { amount: None, tokens, ..NewReservation::of(Money::ZERO) }, "model"),
        (NewReservation { amount: None, tokens, model: Some("m".into()), ..NewReservation::of(Money::ZERO) }, "tokens"),
        (NewReservation { expires_at: past, ..NewReservation::of(Money::ZERO) }, "expires_at"),
    ] {
        let outcome = budgets.reserve(bad).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
    }
    let unknown = ReservationId(uuid::Uuid::from_u128(1));
    assert!(matches!(budgets.settle(unknown, Money::ZERO).await, Err(Error::NotFound { .. })));
    assert!(matches!(budgets.settle(unknown, dollars("-1")).await, Err(Error::Invalid { .. })));
    assert_eq!(budgets.list_reservations(&ListRequest::new()).await.expect("listed").items, []);
}

/// Reserved, settled, released: what is held and spent after each.
pub async fn a_reservation_is_settled_or_released(home: &Home) {
    let (tenant, budgets) = (&home.tenant, home.tenant.budgets());
    let limit = budget(tenant, "10").await;
    let first = budgets.reserve(NewReservation::of(dollars("6"))).await.expect("reserved").reservation;
    is(usage(tenant, &limit).await, "0.00", "6.00");
    let outcome = budgets.reserve(NewReservation::of(dollars("4.000000000001"))).await;
    match outcome {
        Err(Error::BudgetExceeded(told)) => {
            assert_eq!((told.budget, told.limit, told.spent), (limit.id, dollars("10"), Money::ZERO));
            assert_eq!((told.reserved, told.asked, told.renews_at), (total("6"), dollars("4.000000000001"), None));
        }
        other => panic!("{other:?}"),
    }
    let second = budgets.reserve(NewReservation::of(dollars("4"))).await.expect("all of the rest").reservation;
    is(usage(tenant, &limit).await, "0.00", "10.00");
    let settled = budgets.settle(first.id, dollars("2.5")).await.expect("settled");
    assert_eq!((settled.status, settled.cost), (ReservationStatus::Settled, dollars("2.5")));
    is(usage(tenant, &limit).await, "2.50", "4.00");
    assert_eq!(budgets.settle(first.id, dollars("2.5")).await.expect("again"), settled);
    for outcome in [budgets.settle(first.id, dollars("3")).await, budgets.release(first.id).await] {
        assert!(matches!(&outcome, Err(Error::IllegalTransition { .. })), "{outcome:?}");
    }
    let released = budgets.release(second.id).await.expect("released");
    assert_eq!(budgets.release(second.id).await.expect("again"), released);
    assert!(matches!(budgets.settle(second.id, Money::ZERO).await, Err(Error::IllegalTransition { .. })));
    is(usage(tenant, &limit).await, "2.50", "0.00");
    let held = ListRequest::new().filter("status", "held");
    assert_eq!(budgets.list_reservations(&held).await.expect("listed").items, []);
}

/// A key makes a reservation once, also when many race.
pub async fn a_key_reserves_once(home: &Home) {
    let limit = budget(&home.tenant, "10").await;
    let raced = fixtures::race(&home.tenant, 16, |tenant, _| async move {
        let new = NewReservation { key: Some("job 1".into()), ..NewReservation::of(dollars("1")) };
        tenant.budgets().reserve(new).await.expect("reserved").reservation.id
    })
    .await;
    assert!(raced.iter().all(|id| *id == raced[0]));
    is(usage(&home.tenant, &limit).await, "0.00", "1.00");
    let new = NewReservation { key: Some("job 1".into()), ..NewReservation::of(dollars("1")) };
    assert_ne!(home.other.budgets().reserve(new).await.expect("reserved").reservation.id, raced[0]);
}

/// What expired holds nothing, and can still be settled.
pub async fn an_expired_reservation_holds_nothing(home: &Home) {
    let budgets = home.tenant.budgets();
    let limit = budget(&home.tenant, "10").await;
    let soon = home.tenant.now().plus(Duration::from_millis(1000));
    let new = NewReservation { expires_at: Some(soon), ..NewReservation::of(dollars("10")) };
    let first = budgets.reserve(new).await.expect("reserved").reservation;
    assert!(matches!(budgets.reserve(NewReservation::of(dollars("1"))).await, Err(Error::BudgetExceeded(_))));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    is(usage(&home.tenant, &limit).await, "0.00", "0.00");
    budgets.reserve(NewReservation::of(dollars("7"))).await.expect("the first one has expired");
    budgets.settle(first.id, dollars("3")).await.expect("the money is gone");
    is(usage(&home.tenant, &limit).await, "3.00", "7.00");
}

/// Every budget that applies is asked; of those that do not, none.
pub async fn every_budget_that_applies_is_asked(home: &Home) {
    let (tenant, budgets) = (&home.tenant, home.tenant.budgets());
    let (user, agent) = (fixtures::user(tenant).await, fixtures::agent(tenant).await);
    let day = BudgetPeriod::Day;
    let of_all = budgets.create(NewBudget::tenant(day, dollars("100"))).await.expect("created");
    let of_user = budgets.create(NewBudget::user(user, day, dollars("3"))).await.expect("created");
    let of_agent = budgets.create(NewBudget::agent(agent, day, dollars("50"))).await.expect("created");
    let of_model = budgets.create(NewBudget::model("large", day, dollars("5")).soft()).await.expect("created");
    let new = |amount: &str| NewReservation { user_id: Some(user), ..NewReservation::of(dollars(amount)) };
    let outcome = budgets.reserve(new("4")).await;
    assert!(matches!(&outcome, Err(Error::BudgetExceeded(told)) if told.budget == of_user.id), "{outcome:?}");
    is(usage(tenant, &of_all).await, "0.00", "0.00");
    let everything = NewReservation { agent_id: Some(agent), model: Some("large".into()), ..new("2") };
    assert_eq!(budgets.reserve(everything).await.expect("reserved").over, []);
    for one in [&of_all, &of_user, &of_agent, &of_model] {
        is(usage(tenant, one).await, "0.00", "2.00");
    }
    let nobody = NewReservation { model: Some("large".into()), ..NewReservation::of(dollars("4")) };
    let over = budgets.reserve(nobody).await.expect("a soft budget only warns").over;
    assert_eq!(over.iter().map(|usage| usage.budget_id).collect::<Vec<_>>(), [of_model.id]);
    assert_eq!((over[0].reserved, over[0].left()), (total("6"), total("-1")));
    is(usage(tenant, &of_all).await, "0.00", "6.00");
    is(usage(tenant, &of_user).await, "0.00", "2.00");
    let outcome = home.other.budgets().reserve(NewReservation::of(dollars("1000"))).await;
    assert!(outcome.is_ok(), "another tenant's budgets do not apply");
    tenant.users().delete(user).await.expect("deleted");
    assert_eq!(budgets.get(of_user.id).await.expect("read"), None, "a user's budget goes with them");
}

/// Entries count, with a reservation and without, whatever came first.
pub async fn entries_of_the_ledger_are_spent(home: &Home) {
    let (tenant, budgets) = (&home.tenant, home.tenant.budgets());
    let user = fixtures::user(tenant).await;
    let of_user = |amount: &str| NewLedgerEntry { user_id: Some(user), ..cost(amount) };
    tenant.ledger().log_many(vec![cost("1"), of_user("2")]).await.expect("logged");
    tenant.ledger().roll_up().await.expect("moved");
    tenant.ledger().log(cost("0.25")).await.expect("logged");
    let of_all = budget(tenant, "10").await;
    let month = budgets.create(NewBudget::user(user, BudgetPeriod::Month, dollars("10"))).await.expect("created");
    is(usage(tenant, &of_all).await, "3.25", "0.00");
    is(usage(tenant, &month).await, "2.00", "0.00");
    tenant.ledger().log_many(vec![cost("0.5"), of_user("0.75"), cost("0.25")]).await.expect("logged");
    is(usage(tenant, &of_all).await, "4.75", "0.00");
    is(usage(tenant, &month).await, "2.75", "0.00");
    let long_ago = tenant.now().minus(Duration::from_secs(40 * 86_400));
    tenant.ledger().log(NewLedgerEntry { created_at: Some(long_ago), ..of_user("1") }).await.expect("logged");
    is(usage(tenant, &of_all).await, "5.75", "0.00");
    is(usage(tenant, &month).await, "2.75", "0.00");

    let new = NewReservation { user_id: Some(user), ..NewReservation::of(dollars("4")) };
    let held = budgets.reserve(new).await.expect("reserved").reservation;
    is(usage(tenant, &of_all).await, "5.75", "4.00");
    let entry = NewLedgerEntry { reservation_id: Some(held.id), ..of_user("1.5") };
    tenant.ledger().log(entry.clone()).await.expect("logged");
    is(usage(tenant, &of_all).await, "7.25", "0.00");
    is(usage(tenant, &month).await, "4.25", "0.00");
    let settled = budgets.get_reservation(held.id).await.expect("read").expect("there");
    assert_eq!((settled.status, settled.cost), (ReservationStatus::Settled, dollars("1.5")));
    tenant.ledger().log(entry).await.expect("another call for the same work");
    is(usage(tenant, &of_all).await, "8.75", "0.00");
    assert_eq!(budgets.get_reservation(held.id).await.expect("read").expect("there").cost, dollars("3"));
    // Beyond the limit: what was spent is told as it is, and nothing more can be reserved.
    tenant.ledger().log(cost("100")).await.expect("logged");
    is(usage(tenant, &of_all).await, "108.75", "0.00");
    assert!(matches!(budgets.reserve(NewReservation::of(Money::ZERO)).await, Err(Error::BudgetExceeded(_))));
}

/// The cost of estimated tokens is reserved.
pub async fn tokens_are_reserved_by_their_price(home: &Home) {
    let limit = budget(&home.tenant, "10").await;
    for (kind, price) in [(TokenKind::Input, "3"), (TokenKind::Output, "15")] {
        home.tenant.prices().create(NewPrice::per_million("large", kind, dollars(price))).await.expect("a price");
    }
    let new = NewReservation {
        amount: None,
        tokens: Some(TokenCounts::new(100_000, 20_000)),
        model: Some("large".into()),
        ..NewReservation::of(Money::ZERO)
    };
    home.tenant.budgets().reserve(new).await.expect("reserved");
    is(usage(&home.tenant, &limit).await, "0.00", "0.60");
}

/// Inside of a caller's transaction: with it or not at all, and a refusal leaves it usable.
pub async fn a_reservation_is_part_of_the_callers_transaction(home: &Home) {
    let limit = budget(&home.tenant, "10").await;
    let undone = home.tenant.transaction(|tenant| async move {
        tenant.budgets().reserve(NewReservation::of(dollars("6"))).await?;
        Err::<(), _>(Error::database("undo it"))
    });
    assert!(undone.await.is_err());
    is(usage(&home.tenant, &limit).await, "0.00", "0.00");
    let kept = home.tenant.transaction(|tenant| async move {
        let budgets = tenant.budgets();
        let first = budgets.reserve(NewReservation::of(dollars("6"))).await?.reservation;
        let refused = budgets.reserve(NewReservation::of(dollars("5"))).await;
        assert!(matches!(&refused, Err(Error::BudgetExceeded(_))), "{refused:?}");
        budgets.reserve(NewReservation::of(dollars("4"))).await?;
        budgets.settle(first.id, dollars("1")).await
    });
    kept.await.expect("committed");
    is(usage(&home.tenant, &limit).await, "1.00", "4.00");
}
