//! The ledger and its statistics.

use std::{collections::BTreeMap, time::Duration};

use agentkeep_core::{
    AgentId, Direction, Error, FilterOperator, LedgerDimension, LedgerEntry, LedgerStatistics, LedgerStatisticsRequest,
    ListRequest, Money, MoneyTotal, NewLedgerEntry, NewPrice, NewTenant, SessionId, Timestamp, TokenKind, TokenScope,
    UserId,
};

use super::{
    Home,
    fixtures::{object, race},
    support::all_pages,
};
use crate::{TenantStore, Value};

fn dollars(text: &str) -> Money {
    text.parse().expect("dollars")
}

fn start() -> Timestamp {
    "2025-03-01T00:00:00Z".parse().expect("a time")
}

fn minutes(number: u64) -> Timestamp {
    start().plus(Duration::from_secs(number * 60))
}

fn entry(provider: &str, input: i64, output: i64) -> NewLedgerEntry {
    NewLedgerEntry::new(TokenScope::Reactive, provider, input, output)
}

/// A small generator (xorshift): the same entries on every engine.
struct Chooser(u64);

impl Chooser {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// An entry of one of few models, agents, users and sessions within 40 days.
    fn entry(&mut self) -> NewLedgerEntry {
        let scope = if self.below(3) == 0 { TokenScope::Proactive } else { TokenScope::Reactive };
        let provider = ["anthropic", "openai"][self.below(2) as usize];
        let mut new = NewLedgerEntry::new(scope, provider, self.below(5000) as i64, self.below(2000) as i64);
        new.model = [None, Some("large"), Some("small")][self.below(3) as usize].map(str::to_owned);
        new.cache_read = self.below(100) as i64;
        new.cache_write = self.below(10) as i64;
        new.reasoning = self.below(50) as i64;
        new.agent_id = [None, Some(AgentId(1)), Some(AgentId(2))][self.below(3) as usize];
        new.user_id =
            [None, Some(UserId(uuid::Uuid::from_u128(u128::from(1 + self.below(3)))))][self.below(2) as usize];
        new.session_id =
            [None, Some(SessionId(uuid::Uuid::from_u128(u128::from(1 + self.below(3)))))][self.below(2) as usize];
        new.cost = [None, Some(Money::from_units(self.below(1 << 50) as i64))][self.below(4).min(1) as usize];
        new.created_at = Some(start().plus(Duration::from_micros(self.below(40 * 86_400_000_000))));
        new
    }
}

/// Every entry, page by page.
async fn all(tenant: &TenantStore) -> Vec<LedgerEntry> {
    all_pages(ListRequest::new().limit(700), async |request| tenant.ledger().list(&request).await).await
}

/// The statistics that entries amount to, summed one by one.
fn raw(entries: &[LedgerEntry], request: &LedgerStatisticsRequest) -> Vec<LedgerStatistics> {
    let mut groups: BTreeMap<_, LedgerStatistics> = BTreeMap::new();
    for entry in entries {
        let counts = request.from.is_none_or(|from| entry.created_at >= from)
            && request.to.is_none_or(|to| entry.created_at < to)
            && request.scope.is_none_or(|scope| entry.scope == scope)
            && request.provider.as_ref().is_none_or(|provider| entry.provider == *provider)
            && (request.model.is_none() || entry.model == request.model)
            && (request.agent_id.is_none() || entry.agent_id == request.agent_id)
            && (request.user_id.is_none() || entry.user_id == request.user_id)
            && (request.session_id.is_none() || entry.session_id == request.session_id);
        if !counts {
            continue;
        }
        let unit = match (request.has(LedgerDimension::Hour), request.has(LedgerDimension::Day)) {
            (true, _) => Some(3_600_000_000),
            (_, true) => Some(86_400_000_000),
            _ => None,
        };
        let micros = entry.created_at.as_micros();
        let begin = unit.map(|unit| Timestamp::from_micros(micros - micros % unit).expect("a time"));
        let has = |dimension| request.has(dimension);
        let key = (
            begin,
            has(LedgerDimension::Scope).then_some(entry.scope),
            has(LedgerDimension::Provider).then(|| entry.provider.clone()),
            if has(LedgerDimension::Model) { entry.model.clone() } else { None },
            if has(LedgerDimension::Agent) { entry.agent_id } else { None },
            if has(LedgerDimension::User) { entry.user_id } else { None },
            if has(LedgerDimension::Session) { entry.session_id } else { None },
        );
        let group = groups.entry(key.clone()).or_default();
        (group.start, group.scope, group.provider, group.model) = (key.0, key.1, key.2, key.3);
        (group.agent_id, group.user_id, group.session_id) = (key.4, key.5, key.6);
        group.entries += 1;
        group.tokens.input += entry.tokens.input;
        group.tokens.output += entry.tokens.output;
        group.tokens.cache_read += entry.tokens.cache_read;
        group.tokens.cache_write += entry.tokens.cache_write;
        group.tokens.reasoning += entry.tokens.reasoning;
        group.total += entry.total;
        group.cost += MoneyTotal::from(entry.cost.unwrap_or_default());
        group.unpriced += i64::from(entry.cost.is_none());
    }
    groups.into_values().collect()
}

/// Requests of every kind: groups, ranges, filters.
fn requests() -> Vec<LedgerStatisticsRequest> {
    use LedgerDimension::{Agent, Day, Hour, Model, Provider, Scope, Session, User};
    let groups: [&[LedgerDimension]; 12] = [
        &[],
        &[Model, Agent],
        &[Scope],
        &[Day],
        &[Hour],
        &[Day, Model],
        &[Hour, Provider, Agent],
        &[Provider, Scope, Model, Agent, Day],
        &[User],
        &[Session, Model],
        &[Day, User, Agent],
        &[Hour, Session],
    ];
    let ranges = [
        (None, None),
        (Some(minutes(0)), Some(minutes(40 * 24 * 60))),
        (Some(minutes(7)), None),
        (None, Some(minutes(30 * 24 * 60 + 61))),
        (Some(minutes(3 * 24 * 60 + 59)), Some(minutes(33 * 24 * 60 + 1))),
        (Some(minutes(601)), Some(minutes(659))),
        (Some(minutes(600)), Some(minutes(660))),
        (Some(minutes(610)), Some(minutes(670))),
        (Some(minutes(600)), Some(minutes(600))),
    ];
    let mut requests = Vec::new();
    for by in groups {
        for (from, to) in ranges {
            requests.push(LedgerStatisticsRequest { from, to, ..LedgerStatisticsRequest::by(by) });
        }
    }
    let of = |by| LedgerStatisticsRequest { from: Some(minutes(11)), ..LedgerStatisticsRequest::by(by) };
    requests.push(LedgerStatisticsRequest { scope: Some(TokenScope::Proactive), ..of(&[Model]) });
    requests.push(LedgerStatisticsRequest {
        provider: Some("openai".into()),
        model: Some("small".into()),
        ..of(&[Day])
    });
    requests.push(LedgerStatisticsRequest { agent_id: Some(AgentId(2)), ..of(&[Hour, Scope]) });
    requests.push(LedgerStatisticsRequest { user_id: Some(UserId(uuid::Uuid::from_u128(1))), ..of(&[Model]) });
    requests.push(LedgerStatisticsRequest { session_id: Some(SessionId(uuid::Uuid::from_u128(2))), ..of(&[]) });
    requests
}

/// What differs from the sums of the entries.
async fn differences(tenant: &TenantStore) -> Vec<String> {
    let entries = all(tenant).await;
    let mut differences = Vec::new();
    for request in requests() {
        let told = tenant.ledger().statistics(&request).await.expect("statistics");
        if told != raw(&entries, &request) {
            differences.push(format!("{request:?}: {told:#?} is not {:#?}", raw(&entries, &request)));
        }
    }
    differences
}

async fn assert_exact(tenant: &TenantStore, when: &str) {
    let differences = differences(tenant).await;
    assert!(differences.is_empty(), "{when}: {}", differences[0]);
}

/// The life of an entry.
pub async fn an_entry_is_logged_read_and_listed(home: &Home) {
    let ledger = home.tenant.ledger();
    let new = NewLedgerEntry {
        model: Some("large".into()),
        cost: Some(dollars("0.0123")),
        agent_id: Some(AgentId(77)),
        user_id: Some(UserId(uuid::Uuid::from_u128(7))),
        cache_read: 3,
        request_id: Some("r\u{0}1".into()),
        tags: object(r#"{"team":"growth"}"#),
        metadata: object(r#"{"temperature":0.20}"#),
        created_at: Some(minutes(5)),
        ..entry("anthropic", 100, 50)
    };
    let logged = ledger.log(new.clone()).await.expect("logged");
    assert_eq!((logged.total, logged.cost, logged.created_at), (153, Some(dollars("0.0123")), minutes(5)));
    assert_eq!(ledger.get(logged.id).await.expect("read"), Some(logged.clone()));
    assert_eq!(ledger.get_by_request_id("r\u{0}1").await.expect("read"), Some(logged.clone()));
    let other = ledger.log(entry("openai", 1, 0)).await.expect("logged");
    assert_eq!((other.cost, other.model.as_deref(), other.scope), (None, None, TokenScope::Reactive));

    let listed = async |request: ListRequest| ledger.list(&request).await.expect("listed").items;
    assert_eq!(listed(ListRequest::new().filter("tags.team", "growth")).await, std::slice::from_ref(&logged));
    assert_eq!(
        listed(ListRequest::new().filter_by("cost", FilterOperator::Greater, "0.01")).await,
        std::slice::from_ref(&logged)
    );
    assert_eq!(listed(ListRequest::new().filter_by("cost", FilterOperator::Greater, "0.02")).await, []);
    assert_eq!(listed(ListRequest::new().filter("agent_id", AgentId(77))).await, std::slice::from_ref(&logged));
    assert_eq!(listed(ListRequest::new()).await, [logged.clone(), other]);
    assert_eq!(home.other.ledger().get(logged.id).await.expect("read"), None);
    assert_eq!(home.other.ledger().log(new).await.expect("logged").request_id, logged.request_id);
    let one = LedgerStatisticsRequest::default();
    assert_eq!(home.other.ledger().statistics(&one).await.expect("statistics")[0].entries, 1);
    assert_eq!(ledger.statistics(&one).await.expect("statistics")[0].entries, 2);
}

/// A repeated request is logged once, alone, in a batch, and when many race.
pub async fn a_repeated_request_gives_the_first_entry_back(home: &Home) {
    let ledger = home.tenant.ledger();
    let request = |id: &str, input: i64| NewLedgerEntry { request_id: Some(id.into()), ..entry("p", input, 0) };
    let first = ledger.log(request("a", 1)).await.expect("logged");
    assert_eq!(ledger.log(request("a", 2)).await.expect("the first"), first);
    let batch = vec![request("b", 3), request("a", 4), request("b", 5), entry("p", 6, 0)];
    let logged = ledger.log_many(batch).await.expect("logged");
    assert_eq!(logged.iter().map(|entry| entry.tokens.input).collect::<Vec<_>>(), [3, 1, 3, 6]);
    assert_eq!((&logged[1], logged[0].id), (&first, logged[2].id));
    let in_transaction = home.tenant.transaction(|tenant| async move {
        let first = tenant.ledger().log(request("a", 7)).await?;
        tenant.ledger().log(request("c", 8)).await?;
        Ok(first)
    });
    assert_eq!(in_transaction.await.expect("committed"), first);
    let raced = race(&home.tenant, 16, |tenant, _| async move {
        let batch = (0..20).map(|id| NewLedgerEntry { request_id: Some(format!("x{id}")), ..entry("p", 1, 0) });
        tenant.ledger().log_many(batch.collect()).await.expect("logged")
    })
    .await;
    assert!(raced.iter().all(|theirs| *theirs == raced[0]), "all got the same entries");
    assert_eq!(all(&home.tenant).await.len(), 4 + 20);
    assert_exact(&home.tenant, "repeated requests").await;
}

/// Costs come from the prices of their time.
pub async fn a_cost_is_computed_from_the_prices_of_its_time(home: &Home) {
    let prices = home.tenant.prices();
    for (kind, price, from, to) in [
        (TokenKind::Input, "3", 0, Some(60)),
        (TokenKind::Input, "2", 60, None),
        (TokenKind::Output, "15", 0, None),
        (TokenKind::CacheRead, "0.30", 0, None),
    ] {
        let new = NewPrice::per_million("large", kind, dollars(price));
        let new = NewPrice { valid_from: Some(minutes(from)), valid_to: to.map(minutes), ..new };
        prices.create(new).await.expect("a price");
    }
    let cost = async |at: u64, new: NewLedgerEntry| {
        let new = NewLedgerEntry { model: Some("large".into()), created_at: Some(minutes(at)), ..new };
        home.tenant.ledger().log(new).await.expect("logged").cost.map(|cost| cost.to_string())
    };
    assert_eq!(cost(59, entry("p", 1, 1)).await.as_deref(), Some("0.000018"));
    assert_eq!(cost(60, entry("p", 1, 1)).await.as_deref(), Some("0.000017"));
    assert_eq!(cost(60, NewLedgerEntry { cache_read: 1, ..entry("p", 0, 0) }).await.as_deref(), Some("0.0000003"));
    assert_eq!(cost(60, NewLedgerEntry { cost: Some(Money::ZERO), ..entry("p", 1, 1) }).await.as_deref(), Some("0.00"));
    let before = NewLedgerEntry { created_at: Some(start().minus(Duration::from_secs(1))), ..entry("p", 1, 0) };
    let before = NewLedgerEntry { model: Some("large".into()), ..before };
    assert_eq!(home.tenant.ledger().log(before).await.expect("logged").cost, None);
    let sums = home.tenant.ledger().statistics(&LedgerStatisticsRequest::default()).await.expect("statistics");
    assert_eq!((sums[0].cost.to_string().as_str(), sums[0].unpriced, sums[0].entries), ("0.0000353", 1, 5));
}

/// Bad entries; of a batch nothing remains.
pub async fn bad_entries_are_refused_and_of_a_batch_nothing_remains(home: &Home) {
    let ledger = home.tenant.ledger();
    for (bad, wanted) in [
        (entry("p", -1, 0), "input"),
        (entry("p", 0, -5), "output"),
        (NewLedgerEntry { cache_write: -1, ..entry("p", 0, 0) }, "cache_write"),
        (NewLedgerEntry { total: Some(2), ..entry("p", 1, 0) }, "total"),
        (NewLedgerEntry { total: Some(-1), ..entry("p", 0, 0) }, "total"),
        (NewLedgerEntry { cost: Some(dollars("-0.01")), ..entry("p", 1, 0) }, "cost"),
        (entry("", 1, 0), "provider"),
    ] {
        let outcome = ledger.log(bad.clone()).await;
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{wanted}: {outcome:?}");
        let outcome = ledger.log_many(vec![entry("p", 1, 0), bad]).await;
        let place = format!("entries[1].{wanted}");
        assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if *field == place), "{place}: {outcome:?}");
    }
    let lost = agentkeep_core::ReservationId(uuid::Uuid::from_u128(9));
    let outcome = ledger.log(NewLedgerEntry { reservation_id: Some(lost), ..entry("p", 1, 0) }).await;
    assert!(matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == "reservation_id"), "{outcome:?}");
    let undone = home.tenant.transaction(|tenant| async move {
        tenant.ledger().log_many(vec![entry("p", 1, 0); 3]).await?;
        Err::<(), _>(Error::database("undo it"))
    });
    assert!(undone.await.is_err());
    assert_eq!(all(&home.tenant).await, []);
    assert_eq!(ledger.statistics(&LedgerStatisticsRequest::default()).await.expect("statistics"), []);
    let backwards = LedgerStatisticsRequest::default().from(minutes(1)).to(minutes(0));
    assert!(matches!(ledger.statistics(&backwards).await, Err(Error::Invalid { field, .. }) if field == "to"));
    let both = LedgerStatisticsRequest::by(&[LedgerDimension::Hour, LedgerDimension::Day]);
    assert!(matches!(ledger.statistics(&both).await, Err(Error::Invalid { field, .. }) if field == "by"));
    let nobody = home.store.tenant(agentkeep_core::TenantId(2_000_000_000));
    let outcome = nobody.ledger().log(entry("p", 1, 0)).await;
    assert!(matches!(&outcome, Err(Error::MissingReference { field, .. }) if field == "tenant_id"), "{outcome:?}");
    assert_eq!(nobody.ledger().statistics(&LedgerStatisticsRequest::default()).await.expect("statistics"), []);
}

/// Every kind of statistics against a raw sum: before, during and after roll-ups, with late rows in between.
pub async fn statistics_are_the_sums_of_the_entries(home: &Home) {
    let ledger = home.tenant.ledger();
    let mut chooser = Chooser(0x9e37_79b9_7f4a_7c15);
    home.other.ledger().log_many((0..50).map(|_| chooser.entry()).collect()).await.expect("another's");
    assert_eq!(ledger.statistics(&LedgerStatisticsRequest::default()).await.expect("statistics"), []);
    ledger.log_many((0..1500).map(|_| chooser.entry()).collect()).await.expect("logged");
    assert_exact(&home.tenant, "nothing is rolled up").await;
    assert_eq!(ledger.roll_up().await.expect("moved"), 1500);
    assert_eq!(ledger.roll_up().await.expect("moved"), 0);
    assert_exact(&home.tenant, "everything is rolled up").await;
    // Late rows: their hours, days and weeks are rolled up already.
    ledger.log_many((0..300).map(|_| chooser.entry()).collect()).await.expect("logged");
    for _ in 0..20 {
        ledger.log(chooser.entry()).await.expect("logged");
    }
    assert_exact(&home.tenant, "late rows wait").await;
    ledger.roll_up().await.expect("moved");
    assert_exact(&home.tenant, "late rows are rolled up").await;
    assert_eq!(
        home.other.ledger().statistics(&LedgerStatisticsRequest::default()).await.expect("statistics")[0].entries,
        50
    );
}

/// A rebuild gives the same, mends what was changed by direct SQL, and leaves what is not rolled up alone.
pub async fn a_rebuild_gives_the_same_and_mends_roll_ups(home: &Home) {
    let ledger = home.tenant.ledger();
    let mut chooser = Chooser(42);
    ledger.log_many((0..800).map(|_| chooser.entry()).collect()).await.expect("logged");
    ledger.roll_up().await.expect("moved");
    let rollups = async || {
        let sql = "SELECT hours, start, block, sums FROM ledger_rollups WHERE tenant_id = $1 ORDER BY 1, 2, 3";
        home.store.fetch_all(sql, &[home.tenant.id().into()]).await.expect("read")
    };
    let before = rollups().await;
    assert_eq!(ledger.rebuild().await.expect("rebuilt"), 800);
    assert_eq!(rollups().await, before);
    let params = [home.tenant.id().into()];
    let damage = async |sums: Vec<u8>| {
        let damage = "UPDATE ledger_rollups SET sums = $2 WHERE tenant_id = $1 AND hours = 24";
        let params = [home.tenant.id().into(), Value::Bytes(sums)];
        assert!(home.store.execute(damage, &params).await.expect("damaged") > 0);
    };
    // Two numbers of one byte: the second series of the block has one entry.
    damage(vec![0x11, 0, 0, 0, 0, 1, 1]).await;
    assert!(!differences(&home.tenant).await.is_empty(), "the check notices damage");
    damage(vec![0x11]).await;
    let unreadable = ledger.statistics(&LedgerStatisticsRequest::by(&[LedgerDimension::Day])).await;
    assert!(
        matches!(&unreadable, Err(Error::Database { message, .. }) if message.contains("rebuild")),
        "{unreadable:?}"
    );
    ledger.rebuild().await.expect("rebuilt");
    assert_eq!(rollups().await, before);
    let lost = "DELETE FROM ledger_rollups WHERE tenant_id = $1";
    home.store.execute(lost, &params).await.expect("lost");
    ledger.log_many((0..30).map(|_| chooser.entry()).collect()).await.expect("logged");
    ledger.rebuild().await.expect("rebuilt");
    assert_exact(&home.tenant, "after the rebuild").await;
    // Entries that nobody counted: direct SQL.
    let copied = "UPDATE ledger SET input = input + 7, total = total + 7 WHERE tenant_id = $1 AND output > 1000";
    assert!(home.store.execute(copied, &params).await.expect("changed") > 0);
    assert!(!differences(&home.tenant).await.is_empty(), "the check notices changed entries");
    ledger.rebuild().await.expect("rebuilt");
    assert_exact(&home.tenant, "after changed entries").await;
}

/// Writers, roll-ups, rebuilds and readers at once: totals only grow, and at the end everything is exact.
pub async fn statistics_stay_exact_while_all_is_moved_at_once(home: &Home) {
    const WRITERS: usize = 4;
    race(&home.tenant, WRITERS + 3, |tenant, index| async move {
        let ledger = tenant.ledger();
        match index {
            0 | 1 => {
                for _ in 0..15 {
                    ledger.roll_up().await.expect("moved");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                if index == 0 {
                    ledger.rebuild().await.expect("rebuilt");
                }
            }
            2 => {
                let mut last = 0;
                for _ in 0..30 {
                    let sums = ledger.statistics(&LedgerStatisticsRequest::default()).await.expect("statistics");
                    let entries = sums.first().map_or(0, |sums| sums.entries);
                    // Writers log 25 at a time: nobody sees half of that, and nothing twice.
                    assert!(entries >= last && entries % 25 == 0 && entries <= 25 * 20 * WRITERS as i64, "{entries}");
                    last = entries;
                }
            }
            writer => {
                let mut chooser = Chooser(writer as u64 * 7919);
                for _ in 0..20 {
                    ledger.log_many((0..25).map(|_| chooser.entry()).collect()).await.expect("logged");
                }
            }
        }
    })
    .await;
    let sums = home.tenant.ledger().statistics(&LedgerStatisticsRequest::default()).await.expect("statistics");
    assert_eq!(sums[0].entries, 25 * 20 * WRITERS as i64);
    assert_exact(&home.tenant, "after the race").await;
}

/// Sums that no 64 bits hold.
pub async fn sums_of_money_do_not_overflow(home: &Home) {
    let ledger = home.tenant.ledger();
    let huge = NewLedgerEntry { cost: Some(Money::MAX), created_at: Some(minutes(1)), ..entry("p", 1_000_000_000, 0) };
    ledger.log_many(vec![huge; 5]).await.expect("logged");
    let expected: MoneyTotal = [Money::MAX; 5].into_iter().sum();
    for when in ["in the tail", "rolled up"] {
        for by in [&[][..], &[LedgerDimension::User]] {
            let sums = ledger.statistics(&LedgerStatisticsRequest::by(by)).await.expect("statistics");
            assert_eq!((sums[0].cost, sums[0].total), (expected, 5_000_000_000), "{when}");
        }
        ledger.roll_up().await.expect("moved");
    }
}

/// What B asks for.
pub async fn token_stats_are_those_of_the_last_days(home: &Home) {
    let ledger = home.tenant.ledger();
    let now = home.tenant.now();
    let ago = |hours: u64, input: i64| NewLedgerEntry {
        created_at: Some(now.minus(Duration::from_secs(hours * 3600))),
        ..entry("anthropic", input, 1)
    };
    let proactive = NewLedgerEntry { scope: TokenScope::Proactive, ..entry("openai", 5, 5) };
    ledger.log_many(vec![ago(1, 10), ago(100, 20), ago(7 * 24 + 1, 40), proactive]).await.expect("logged");
    for _ in 0..2 {
        let week = ledger.token_stats(7).await.expect("statistics");
        let told: Vec<_> =
            week.iter().map(|sums| (sums.scope, sums.provider.as_deref(), sums.entries, sums.total)).collect();
        let expected = [
            (Some(TokenScope::Proactive), Some("openai"), 1, 10),
            (Some(TokenScope::Reactive), Some("anthropic"), 2, 32),
        ];
        assert_eq!(told, expected);
        assert_eq!(ledger.token_stats(8).await.expect("statistics")[1].entries, 3);
        ledger.roll_up().await.expect("moved");
    }
}

/// Entries of one user or session lie in many hours, and most hours have none of theirs.
pub async fn entries_of_one_user_or_session_are_listed_by_time(home: &Home) {
    let (ledger, mut chooser) = (home.tenant.ledger(), Chooser(11));
    let far = |days: u64| start().plus(Duration::from_secs(days * 86_400));
    let of_one = |field: &str, number: u128| {
        ListRequest::new().filter(field, uuid::Uuid::from_u128(number).to_string()).limit(25)
    };
    assert!(
        ledger.list(&of_one("user_id", 1).with_total()).await.expect("a page").items.is_empty(),
        "no entries at all"
    );
    ledger.log_many((0..300).map(|_| chooser.entry()).collect()).await.expect("logged");
    for days in [60, 0, 90] {
        let late = NewLedgerEntry { created_at: Some(far(days)), ..chooser.entry() };
        ledger.log_many(vec![late.clone(), NewLedgerEntry { output: 7, ..late }]).await.expect("logged");
    }
    let mut expected = all(&home.tenant).await;
    for (field, number) in [("user_id", 1), ("user_id", 3), ("session_id", 2), ("session_id", 9)] {
        let id = Some(uuid::Uuid::from_u128(number));
        let fits = |entry: &&LedgerEntry| {
            id == if field == "user_id" { entry.user_id.map(|id| id.0) } else { entry.session_id.map(|id| id.0) }
        };
        for order in ["created_at", "id", "total"] {
            for direction in [Direction::Ascending, Direction::Descending] {
                expected.sort_by_key(|entry| match order {
                    "created_at" => (entry.created_at.as_micros(), entry.id),
                    "total" => (entry.total, entry.id),
                    _ => (0, entry.id),
                });
                if direction == Direction::Descending {
                    expected.reverse();
                }
                let request = of_one(field, number).order_by(order, direction);
                let listed = all_pages(request.clone(), async |request| ledger.list(&request).await).await;
                let fitting: Vec<_> = expected.iter().filter(fits).cloned().collect();
                assert_eq!(listed, fitting, "{field} {number} by {order}");
                let page = ledger.list(&request.clone().page(2, 5).with_total()).await.expect("a page");
                assert_eq!(page.total, Some(fitting.len() as u64));
                assert_eq!(page.items, fitting.iter().skip(5).take(5).cloned().collect::<Vec<_>>());
                let from = FilterOperator::GreaterOrEqual;
                let request = request.filter_by("created_at", from, far(20).to_string());
                let listed = all_pages(request, async |request| ledger.list(&request).await).await;
                let fitting: Vec<_> = fitting.into_iter().filter(|entry| entry.created_at >= far(20)).collect();
                assert_eq!(listed, fitting, "{field} {number} by {order} since the 20th day");
            }
        }
    }
}

/// Whoever logs while the tenant is deleted is told, and what was logged goes with it.
pub async fn a_tenant_that_is_deleted_while_it_logs_leaves_nothing(home: &Home) {
    for _ in 0..5 {
        let new = NewTenant::new(uuid::Uuid::now_v7().to_string());
        let tenant = home.store.tenant(home.store.tenants().create(new).await.expect("created").id);
        tenant.ledger().log(entry("p", 1, 1)).await.expect("logged");
        super::support::race(5, |racer| {
            let (store, tenant) = (home.store.clone(), tenant.clone());
            async move {
                if racer == 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    store.tenants().delete(tenant.id()).await.expect("deleted");
                    return;
                }
                let batch = || (0..50).map(|number| entry("p", number, racer as i64)).collect();
                let error = loop {
                    if let Err(error) = tenant.ledger().log_many(batch()).await {
                        break error;
                    }
                };
                assert!(matches!(error, Error::MissingReference { .. } | Error::Database { .. }), "{error}");
            }
        })
        .await;
        for table in ["ledger", "ledger_heads", "ledger_tail", "ledger_series", "ledger_rollups"] {
            assert_eq!(super::support::rows_of(&home.store, &tenant, table).await, 0, "{table}");
        }
    }
}

/// A tenant takes its ledger along.
pub async fn a_ledger_goes_with_its_tenant(home: &Home) {
    let ledger = home.other.ledger();
    ledger.log_many((0..10).map(|number| entry("p", number, 0)).collect()).await.expect("logged");
    ledger.roll_up().await.expect("moved");
    ledger.log(entry("p", 1, 1)).await.expect("logged");
    home.store.tenants().delete(home.other.id()).await.expect("deleted");
    for table in ["ledger", "ledger_heads", "ledger_tail", "ledger_series", "ledger_rollups"] {
        assert_eq!(super::support::rows_of(&home.store, &home.other, table).await, 0, "{table}");
    }
}
