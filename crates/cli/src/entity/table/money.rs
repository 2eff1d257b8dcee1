//! What agents cost and what they may cost: the ledger, prices and budgets; and deployments.

use agentkeep::core::{
    AgentId, BudgetPatch, DeploymentStatus, Error, LedgerDimension, LedgerStatisticsRequest, Money, NewBudget,
    NewDeployment, NewLedgerEntry, NewPrice, NewReservation, Price, PricePatch, Reservation, Result, SystemClock,
};
use agentkeep::core::{Clock as _, Page};
use serde_json::Value;

use super::{METADATA, entity, json, text};
use crate::entity::{
    Action, Answer, Entity, Home,
    call::{agent_id, call, option, optional, page, parse, user_id, value},
};

pub(super) static TOKENS: Entity = entity! {
    name: "tokens",
    one: "ledger entry",
    about: "The ledger: what every call of a model used and cost",
    columns: &["created_at", "provider", "model", "input", "output", "total", "cost", "agent_id", "id"],
    list: call!(|home, request| page(home.tenant.ledger().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.ledger().get(key.parse()?).await?))),
    create_name: "log",
    create: Some(call!(|home, body| value(home.tenant.ledger().log(parse::<NewLedgerEntry>(body)?).await?))),
    fields: &[
        text("scope", "Why the tokens were used: reactive (the default) or proactive"),
        text("provider", "Who runs the model"),
        text("model", "The model"),
        json("input", "Tokens sent and not read from a cache"),
        json("output", "Tokens received, reasoning apart"),
        json("cache_read", "Tokens sent and read from a cache"),
        json("cache_write", "Tokens sent and put into a cache"),
        json("reasoning", "Tokens of reasoning"),
        json("total", "All tokens: their sum, or it is refused"),
        text("cost", "What they cost in USD; computed from the prices if nothing is said"),
        json("agent_id", "The agent"),
        text("user_id", "The user"),
        text("session_id", "The session"),
        text("message_id", "The message"),
        text("job_id", "The job"),
        text("reservation_id", "The reservation that this settles"),
        text("request_id", "The id of the request: it is logged once"),
        json("tags", "Names and values to find it by, a JSON object"),
        text("created_at", "When; now if nothing is said"),
        METADATA,
    ],
    actions: &[
        Action {
            name: "stats",
            about: "What was used and spent, in groups",
            arguments: &[
                ("--by", "What to group by, with commas: hour or day, scope, provider, model, agent, user, session"),
                ("--days", "Only since so many days before now [default: 7, unless a time is given]"),
                ("--from", "The first time that counts: 2025-03-01T12:00:00Z"),
                ("--to", "The first time that counts no longer"),
                ("--provider", "Only of this provider"),
                ("--model", "Only of this model"),
                ("--scope", "Only proactive or reactive"),
                ("--agent", "Only of this agent: its id or name"),
                ("--user", "Only of this user: id, e-mail or phone number"),
                ("--session", "Only of this session"),
            ],
            columns: &[
                "start", "scope", "provider", "model", "agent_id", "user_id", "session_id", "entries", "input", "output",
                "total", "cost", "unpriced",
            ],
            run: call!(|home, arguments| statistics(home, &arguments).await),
        },
        Action {
            name: "rebuild",
            about: "Compute the roll-ups of statistics anew from the entries (after changes by direct SQL)",
            arguments: &[],
            columns: &[],
            run: call!(|home, _arguments| {
                let entries = home.tenant.ledger().rebuild().await?;
                Ok(Answer::One(serde_json::json!({ "entries": entries })))
            }),
        },
    ],
};

async fn statistics(home: &Home, arguments: &[String]) -> Result<Answer> {
    let mut request = LedgerStatisticsRequest::default();
    for dimension in option(arguments, "--by").into_iter().flat_map(|by| by.split(',')) {
        request.by.push(dimension.trim().parse::<LedgerDimension>()?);
    }
    let time = |name| option(arguments, name).map(str::parse).transpose();
    (request.from, request.to) = (time("--from")?, time("--to")?);
    let days = match option(arguments, "--days") {
        Some(_) if request.from.is_some() => return Err(Error::invalid("days", "cannot be combined with --from")),
        Some(days) => {
            let days = days.parse::<u32>();
            Some(days.map_err(|_| Error::invalid("days", "is no whole number"))?)
        }
        None => (request.from.is_none() && request.to.is_none()).then_some(7),
    };
    if let Some(days) = days {
        request.from = Some(SystemClock.now().minus(std::time::Duration::from_secs(u64::from(days) * 86_400)));
    }
    request.scope = option(arguments, "--scope").map(str::parse).transpose()?;
    request.provider = option(arguments, "--provider").map(str::to_owned);
    request.model = option(arguments, "--model").map(str::to_owned);
    request.session_id = option(arguments, "--session").map(str::parse).transpose()?;
    if let Some(agent) = option(arguments, "--agent") {
        // An agent that is gone has its history still: a number is taken as it is.
        request.agent_id = Some(match agent.parse::<AgentId>() {
            Ok(id) => id,
            Err(_) => agent_id(home, agent).await?,
        });
    }
    if let Some(user) = option(arguments, "--user") {
        request.user_id = Some(match user.parse() {
            Ok(id) => id,
            Err(_) => user_id(home, user).await?,
        });
    }
    let groups = home.tenant.ledger().statistics(&request).await?;
    groups.into_iter().map(value).collect::<Result<_>>().map(Answer::Many)
}

pub(super) static PRICES: Entity = entity! {
    name: "prices",
    one: "price",
    about: "What tokens cost, from when to when",
    columns: &["id", "provider", "model", "kind", "per_million", "valid_from", "valid_to"],
    fields: &[
        text("model", "The model (create only)"),
        text("kind", "The kind of tokens: input, output, cache_read, cache_write or reasoning (create only)"),
        text("provider", "Who runs it; without one it is for all who have no price of their own (create only)"),
        text("per_million", "What a million tokens cost, in USD"),
        text("per_token", "What one token costs, in USD; this or per_million"),
        text("valid_from", "The first time it is valid; now if nothing is said"),
        text("valid_to", "The first time it is valid no longer"),
        METADATA,
    ],
    list: call!(|home, request| {
        let Page { items, next, total } = home.tenant.prices().list(&request).await?;
        let items = items.iter().map(priced).collect::<Result<_>>()?;
        Ok(Page { items, next, total })
    }),
    get: Some(call!(|home, key| home.tenant.prices().get(key.parse()?).await?.as_ref().map(priced).transpose())),
    create: Some(call!(|home, body| priced(&home.tenant.prices().create(parse::<NewPrice>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = key.parse()?;
        priced(&home.tenant.prices().update(id, parse::<PricePatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.prices().delete(key.parse()?).await)),
};

/// A price with its usual unit.
fn priced(price: &Price) -> Result<Value> {
    let mut item = value(price)?;
    item["per_million"] = value(price.per_million())?;
    Ok(item)
}

pub(super) static BUDGETS: Entity = entity! {
    name: "budgets",
    one: "budget",
    about: "What may be spent in a period, and what is reserved of it",
    columns: &["id", "name", "scope", "user_id", "agent_id", "model", "period", "limit", "hard"],
    fields: &[
        text("name", "Name to show"),
        text("scope", "Whose spending it limits: tenant, user, agent or model (create only)"),
        text("user_id", "The user of a budget of scope user (create only)"),
        json("agent_id", "The agent of a budget of scope agent (create only)"),
        text("model", "The model of a budget of scope model (create only)"),
        text("period", "When it begins anew: hour, day, week, month or total, UTC (create only)"),
        text("limit", "What may be spent in a period, in USD"),
        json("hard", "Whether reservations beyond it are refused (true, the default) or warned of (false)"),
        METADATA,
    ],
    list: call!(|home, request| page(home.tenant.budgets().list(&request).await?)),
    get: Some(call!(|home, key| {
        let id = key.parse()?;
        let Some(budget) = home.tenant.budgets().get(id).await? else { return Ok(None) };
        let usage = home.tenant.budgets().usage(id).await?;
        let mut item = value(budget)?;
        item["starts_at"] = value(usage.starts_at)?;
        item["ends_at"] = value(usage.ends_at)?;
        item["spent"] = value(usage.spent)?;
        item["reserved"] = value(usage.reserved)?;
        item["left"] = value(usage.left())?;
        Ok(Some(item))
    })),
    create: Some(call!(|home, body| value(home.tenant.budgets().create(parse::<NewBudget>(body)?).await?))),
    update: Some(call!(|home, key, body| {
        let id = key.parse()?;
        value(home.tenant.budgets().update(id, parse::<BudgetPatch>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.budgets().delete(key.parse()?).await)),
    actions: &[
        Action {
            name: "reserve",
            about: "Hold an amount in every budget that applies",
            arguments: &[
                ("AMOUNT", "How much, in USD"),
                ("--key", "A name for it: reserving it again gives the first reservation back"),
                ("--user", "The user the work is for: id, e-mail or phone number"),
                ("--agent", "The agent that does it: its id or name"),
                ("--model", "The model it is done with"),
                ("--expires", "When it expires if nobody settles or releases it [default: in an hour]"),
            ],
            columns: &[],
            run: call!(|home, arguments| {
                let mut new = NewReservation::of(arguments[0].parse::<Money>()?);
                new.key = option(&arguments, "--key").map(str::to_owned);
                new.model = option(&arguments, "--model").map(str::to_owned);
                new.expires_at = option(&arguments, "--expires").map(str::parse).transpose()?;
                if let Some(user) = option(&arguments, "--user") {
                    new.user_id = Some(user_id(home, user).await?);
                }
                if let Some(agent) = option(&arguments, "--agent") {
                    new.agent_id = Some(agent_id(home, agent).await?);
                }
                value(home.tenant.budgets().reserve(new).await?).map(Answer::One)
            }),
        },
        Action {
            name: "settle",
            about: "Say what the work of a reservation cost; the rest is given back",
            arguments: &[("RESERVATION", "Its id"), ("COST", "What it cost, in USD")],
            columns: &[],
            run: call!(|home, arguments| {
                let (id, cost) = (arguments[0].parse()?, arguments[1].parse()?);
                value(home.tenant.budgets().settle(id, cost).await?).map(Answer::One)
            }),
        },
        Action {
            name: "release",
            about: "Give back what a reservation holds: the work was not done",
            arguments: &[("RESERVATION", "Its id")],
            columns: &[],
            run: call!(|home, arguments| {
                value(home.tenant.budgets().release(arguments[0].parse()?).await?).map(Answer::One)
            }),
        },
    ],
    parts: &[&RESERVATIONS],
};

static RESERVATIONS: Entity = entity! {
    name: "reservations",
    one: "reservation",
    about: "Amounts held for work that is about to cost",
    columns: &["id", "key", "status", "amount", "cost", "user_id", "agent_id", "model", "expires_at"],
    list: call!(|home, request| page::<Reservation>(home.tenant.budgets().list_reservations(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.budgets().get_reservation(key.parse()?).await?))),
};

pub(super) static DEPLOYMENTS: Entity = entity! {
    name: "deployments",
    one: "deployment",
    about: "Deployments and every step of them",
    columns: &["id", "git_sha", "branch", "status", "report", "created_at", "updated_at"],
    fields: &[
        text("git_sha", "The commit"),
        text("branch", "The branch it is on"),
        text("report", "What there is to tell"),
        METADATA,
    ],
    list: call!(|home, request| page(home.tenant.deployments().list(&request).await?)),
    get: Some(call!(|home, key| {
        let id = key.parse()?;
        let Some(deployment) = home.tenant.deployments().get(id).await? else { return Ok(None) };
        let mut item = value(deployment)?;
        item["history"] = value(home.tenant.deployments().history(id).await?)?;
        Ok(Some(item))
    })),
    create: Some(call!(|home, body| value(home.tenant.deployments().create(parse::<NewDeployment>(body)?).await?))),
    actions: &[Action {
        name: "status",
        about: "Move a deployment on: building → testing → deploying → healthy, failed, rolled_back",
        arguments: &[
            ("ID", "The deployment"),
            ("STATUS", "The next status"),
            ("[REPORT]", "What there is to tell of the step"),
        ],
        columns: &[],
        run: call!(|home, arguments| {
            let next: DeploymentStatus = arguments[1].parse()?;
            let report = arguments.get(2).cloned();
            value(home.tenant.deployments().update_status(arguments[0].parse()?, next, report).await?).map(Answer::One)
        }),
    }],
};
