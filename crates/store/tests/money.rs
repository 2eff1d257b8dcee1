//! What holds of money when many write at once, when a process is killed, and against direct SQL; and for each
//! protection a control: the same check on a variant without it, which has to notice.

#[macro_use]
mod support;

use std::{
    env,
    io::{BufRead as _, Write as _},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use agentkeep::{
    Store, TenantStore, Value,
    conformance::support::{new_name, race},
    core::{
        Budget, BudgetPeriod, DeploymentStatus, Error, LedgerStatistics, LedgerStatisticsRequest, Money, MoneyTotal,
        NewBudget, NewDeployment, NewLedgerEntry, NewReservation, NewTenant, TenantId, TokenScope,
    },
};
use support::{Place, postgres_config};

on_each_engine! {
    of_256_reservations_at_once_none_passes_a_hard_budget,
    reservations_that_do_not_lock_the_budget_pass_it,
    reservations_settlements_and_entries_at_once_leave_exact_sums,
    a_budget_waits_for_who_is_logging_and_counts_them,
    a_budget_that_does_not_wait_misses_who_is_logging,
    an_illegal_change_of_a_deployment_by_direct_sql_is_refused,
    an_open_reservation_of_one_tenant_blocks_no_other,
}

fn dollars(text: &str) -> Money {
    text.parse().expect("dollars")
}

fn cost(amount: &str) -> NewLedgerEntry {
    NewLedgerEntry { cost: Some(dollars(amount)), ..NewLedgerEntry::new(TokenScope::Reactive, "p", 1, 1) }
}

async fn budget(tenant: &TenantStore, limit: &str) -> Budget {
    tenant.budgets().create(NewBudget::tenant(BudgetPeriod::Total, dollars(limit))).await.expect("a budget")
}

/// Whether what is spent and reserved passes the limit.
async fn is_passed(tenant: &TenantStore, budget: &Budget) -> bool {
    let usage = tenant.budgets().usage(budget.id).await.expect("usage");
    MoneyTotal::from(usage.spent) + usage.reserved > usage.limit.into()
}

async fn of_256_reservations_at_once_none_passes_a_hard_budget(place: &Place) {
    let tenant = place.tenant().await;
    let limit = budget(&tenant, "100").await;
    let outcomes = race(256, |_| {
        let tenant = tenant.clone();
        async move { tenant.budgets().reserve(NewReservation::of(dollars("1"))).await }
    })
    .await;
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::BudgetExceeded(_)))).count();
    assert_eq!((made, refused), (100, 156), "the budget was used up, and not passed");
    assert!(!is_passed(&tenant, &limit).await);
    assert_eq!(tenant.budgets().usage(limit.id).await.expect("usage").left(), MoneyTotal::ZERO);
}

/// Control: the same race over a limit that is read without its lock.
async fn reservations_that_do_not_lock_the_budget_pass_it(place: &Place) {
    let tenant = place.tenant().await;
    let limit = budget(&tenant, "10").await;
    let reservation = tenant.budgets().reserve(NewReservation::of(Money::ZERO)).await.expect("reserved").reservation;
    let start = Arc::new(tokio::sync::Barrier::new(32));
    race(32, |index| {
        let (store, tenant, start) = (place.store.clone(), tenant.clone(), Arc::clone(&start));
        let (limit, reservation) = (limit.clone(), reservation.clone());
        async move {
            start.wait().await;
            let usage = tenant.budgets().usage(limit.id).await.expect("usage");
            start.wait().await;
            if MoneyTotal::from(usage.spent) + usage.reserved + dollars("1").into() > usage.limit.into() {
                return;
            }
            let id = Value::Uuid(uuid::Uuid::from_u128(index as u128 + 1));
            let params = [
                tenant.id().into(),
                id,
                dollars("1").into(),
                reservation.expires_at.into(),
                reservation.created_at.into(),
            ];
            let made = "INSERT INTO budget_reservations (tenant_id, id, amount, status, cost, expires_at, created_at,
                            updated_at)
                        VALUES ($1, $2, $3, 'held', 0, $4, $5, $5)";
            store.execute(made, &params).await.expect("reserved");
            let [tenant_id, id, amount, expires_at, _] = params;
            let params = [tenant_id, id, amount, expires_at, limit.id.into(), usage.starts_at.into()];
            let held = "INSERT INTO budget_holds (tenant_id, reservation_id, amount, expires_at, budget_id, starts_at)
                        VALUES ($1, $2, $3, $4, $5, $6)";
            store.execute(held, &params).await.expect("held");
        }
    })
    .await;
    assert!(is_passed(&tenant, &limit).await, "the check notices a budget that is passed");
}

async fn reservations_settlements_and_entries_at_once_leave_exact_sums(place: &Place) {
    let tenant = place.tenant().await;
    let limit = budget(&tenant, "1000").await;
    let spent = race(24, |index| {
        let tenant = tenant.clone();
        async move {
            let mut spent = MoneyTotal::ZERO;
            for step in 0..10 {
                let new = NewReservation::of(dollars("2"));
                let held = tenant.budgets().reserve(new).await.expect("reserved").reservation;
                match (index + step) % 3 {
                    0 => drop(tenant.budgets().release(held.id).await.expect("released")),
                    1 => {
                        tenant.budgets().settle(held.id, dollars("0.75")).await.expect("settled");
                        spent += dollars("0.75").into();
                    }
                    _ => {
                        let entry = NewLedgerEntry { reservation_id: Some(held.id), ..cost("0.50") };
                        tenant.ledger().log_many(vec![entry, cost("0.01")]).await.expect("logged");
                        spent += dollars("0.51").into();
                    }
                }
            }
            spent
        }
    })
    .await;
    let usage = tenant.budgets().usage(limit.id).await.expect("usage");
    assert_eq!(MoneyTotal::from(usage.spent), spent.into_iter().sum());
    assert_eq!(usage.reserved, MoneyTotal::ZERO);
}

async fn spent(tenant: &TenantStore, budget: &Budget) -> Money {
    tenant.budgets().usage(budget.id).await.expect("usage").spent
}

async fn a_budget_waits_for_who_is_logging_and_counts_them(place: &Place) {
    let tenant = place.tenant().await;
    tenant.ledger().log(cost("1")).await.expect("logged");
    let tx = place.store.begin().await.expect("begun");
    let inside = place.store.tenant_in(&tx, tenant.id());
    inside.ledger().log(cost("2")).await.expect("logged");
    let creating = tokio::spawn({
        let tenant = tenant.clone();
        async move { budget(&tenant, "10").await }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!creating.is_finished(), "it waits for the transaction that logs");
    tx.commit().await.expect("committed");
    let made = creating.await.expect("no panic");
    assert_eq!(spent(&tenant, &made).await, dollars("3"));
}

/// Control: a budget that is made by hand, from what the ledger says at that moment.
async fn a_budget_that_does_not_wait_misses_who_is_logging(place: &Place) {
    let tenant = place.tenant().await;
    let made = budget(&tenant, "10").await;
    let again = |store: Store, tenant: TenantStore, made: Budget| async move {
        // What `create` does, without its lock: what was spent is read, and written when the budget is there.
        let sums = tenant.ledger().statistics(&LedgerStatisticsRequest::default()).await.expect("statistics");
        let known = sums.first().map_or(MoneyTotal::ZERO, |sums| sums.cost);
        tenant.ledger().log(cost("2")).await.expect("somebody logs before the budget is there");
        let params = [tenant.id().into(), made.id.into(), known.to_money("spent").expect("an amount").into()];
        let sql = "UPDATE budget_periods SET spent = $3 WHERE tenant_id = $1 AND budget_id = $2";
        store.execute(sql, &params).await.expect("written");
    };
    tenant.ledger().log(cost("1")).await.expect("logged");
    again(place.store.clone(), tenant.clone(), made.clone()).await;
    assert_ne!(spent(&tenant, &made).await, dollars("3"), "the check notices an entry that is not counted");
}

async fn an_open_reservation_of_one_tenant_blocks_no_other(place: &Place) {
    let (tenant, other) = (place.tenant().await, place.tenant().await);
    budget(&tenant, "10").await;
    budget(&other, "10").await;
    let open = place.store.begin().await.expect("begun");
    let inside = place.store.tenant_in(&open, tenant.id());
    inside.budgets().reserve(NewReservation::of(dollars("1"))).await.expect("reserved");
    inside.ledger().log(cost("1")).await.expect("logged");
    if place.store.config().url.starts_with("postgres") {
        // SQLite has one writer at a time, whoever it is.
        let others = async {
            other.budgets().reserve(NewReservation::of(dollars("1"))).await.expect("reserved");
            other.ledger().log(cost("1")).await.expect("logged");
            budget(&other, "5").await;
            other.ledger().roll_up().await.expect("moved");
            // Logging and moving what is logged go on in the tenant itself.
            tenant.ledger().roll_up().await.expect("moved");
        };
        tokio::time::timeout(Duration::from_secs(10), others).await.expect("not blocked");
    }
    let reading = async { other.ledger().statistics(&LedgerStatisticsRequest::default()).await.expect("statistics") };
    tokio::time::timeout(Duration::from_secs(10), reading).await.expect("not blocked");
    open.rollback().await.expect("undone");
}

async fn an_illegal_change_of_a_deployment_by_direct_sql_is_refused(place: &Place) {
    let tenant = place.tenant().await;
    let set = async |id: agentkeep::core::DeploymentId, status: DeploymentStatus| {
        let sql = "UPDATE deployments SET status = $3 WHERE tenant_id = $1 AND id = $2";
        place.store.execute(sql, &[tenant.id().into(), id.into(), status.as_str().into()]).await
    };
    for from in DeploymentStatus::ALL {
        for to in DeploymentStatus::ALL {
            let made = tenant.deployments().create(NewDeployment::new("abc", "main")).await.expect("created");
            let steps: &[DeploymentStatus] = match from {
                DeploymentStatus::Building => &[],
                DeploymentStatus::Testing | DeploymentStatus::Failed => &[*from],
                DeploymentStatus::Deploying => &[DeploymentStatus::Testing, *from],
                _ => &[DeploymentStatus::Testing, DeploymentStatus::Deploying, *from],
            };
            for step in steps {
                set(made.id, *step).await.expect("a legal step");
            }
            let outcome = set(made.id, *to).await;
            let now = tenant.deployments().get(made.id).await.expect("read").expect("there").status;
            if from == to || from.can_become(*to) {
                assert_eq!((outcome.expect("legal"), now), (1, *to), "{from}→{to}");
            } else {
                let code = matches!(&outcome, Err(Error::Database { code: Some(code), .. }) if code == "23514");
                assert!(code, "{from}→{to}: {outcome:?}");
                assert_eq!(now, *from);
            }
        }
    }
}

// What is killed while it moves the ledger's tail: this test program, started again.

const URL: &str = "AGENTKEEP_TEST_MOVER_URL";
const TENANT: &str = "AGENTKEEP_TEST_MOVER_TENANT";
const HALVES: &str = "AGENTKEEP_TEST_MOVER_HALVES";
const KILLS: u64 = 12;

/// Not a test by itself: the process that the tests below start and kill. Without its variables it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mover_process() {
    let Ok(url) = env::var(URL) else { return };
    let store = Store::open_with(postgres_config(&url)).await.expect("the database opens");
    let tenant = store.tenant(TenantId(env::var(TENANT).expect("a tenant").parse().expect("a number")));
    for step in 0_u64.. {
        let entries = (0..40).map(|place| NewLedgerEntry {
            created_at: Some(tenant_time(step * 40 + place)),
            ..NewLedgerEntry::new(TokenScope::Reactive, "p", 1, 1)
        });
        tenant.ledger().log_many(entries.collect()).await.expect("logged");
        let mut out = std::io::stdout().lock();
        out.write_all(b"\nready\n").and_then(|()| out.flush()).expect("told");
        drop(out);
        if env::var(HALVES).is_ok() {
            // Taken in one transaction, to be added in another: the kill comes in between.
            let taken = "DELETE FROM ledger_tail WHERE tenant_id = $1";
            store.execute(taken, &[tenant.id().into()]).await.expect("taken");
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        tenant.ledger().roll_up().await.expect("moved");
        if step % 5 == 4 {
            tenant.ledger().rebuild().await.expect("rebuilt");
        }
    }
}

/// Times of many days, in no order.
fn tenant_time(number: u64) -> agentkeep::core::Timestamp {
    let start: agentkeep::core::Timestamp = "2025-01-01T00:00:00Z".parse().expect("a time");
    start.plus(Duration::from_secs(number * 7_919 % (50 * 86_400)))
}

/// Starts a mover, kills it after `pause`, and gives the statistics that are left and the count of the entries.
async fn move_and_kill(url: &str, pause: Duration, halves: bool) -> (Vec<LedgerStatistics>, i64) {
    let store = Store::open_with(postgres_config(url)).await.expect("the database opens");
    let tenant = store.tenants().create(NewTenant::new(new_name("move"))).await.expect("a tenant").id;
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["mover_process", "--exact", "--nocapture", "--test-threads=1"]).env(URL, url);
    command.env(TENANT, tenant.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
    if halves {
        command.env(HALVES, "1");
    }
    let mut mover = command.spawn().expect("the mover starts");
    let mut lines = std::io::BufReader::new(mover.stdout.take().expect("its output")).lines();
    assert!(lines.any(|line| line.expect("text") == "ready"), "the mover gets ready");
    tokio::time::sleep(pause).await;
    mover.kill().expect("killed");
    assert!(!mover.wait().expect("ended").success(), "the mover was killed, it did not end");
    // On PostgreSQL the last statement of the killed mover may still be under way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let view = store.tenant(tenant);
    let told = view.ledger().statistics(&LedgerStatisticsRequest::default()).await.expect("statistics");
    let sql = "SELECT count(*) FROM ledger WHERE tenant_id = $1";
    let count = match store.fetch_val(sql, &[tenant.into()]).await.expect("counted") {
        Some(Value::I64(count)) => count,
        other => panic!("{other:?}"),
    };
    store.close().await;
    (told, count)
}

async fn kills_lose_and_double_nothing(url: &str) {
    for kill in 1..=KILLS {
        let (told, count) = move_and_kill(url, Duration::from_millis(15 * kill), false).await;
        let entries = told.first().map_or(0, |sums| sums.entries);
        assert_eq!((entries, count % 40), (count, 0), "kill {kill}");
        assert!(told.first().is_none_or(|sums| sums.total == 2 * count), "kill {kill}: {told:?}");
    }
}

async fn a_move_in_two_transactions_loses(url: &str) {
    let (told, count) = move_and_kill(url, Duration::from_millis(400), true).await;
    let entries = told.first().map_or(0, |sums| sums.entries);
    assert!(entries < count, "the check notices what is lost: {entries} of {count}");
}

fn sqlite() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}", folder.path().join("move.db").display());
    (folder, url)
}

#[tokio::test]
async fn kills_while_the_tail_is_moved_lose_nothing_on_sqlite() {
    let (_folder, url) = sqlite();
    kills_lose_and_double_nothing(&url).await;
}

#[tokio::test]
async fn kills_while_the_tail_is_moved_lose_nothing_on_postgres() {
    kills_lose_and_double_nothing(&support::new_postgres_database("move").await).await;
}

#[tokio::test]
async fn a_tail_moved_in_two_transactions_is_lost_on_sqlite() {
    let (_folder, url) = sqlite();
    a_move_in_two_transactions_loses(&url).await;
}

#[tokio::test]
async fn a_tail_moved_in_two_transactions_is_lost_on_postgres() {
    a_move_in_two_transactions_loses(&support::new_postgres_database("move").await).await;
}
