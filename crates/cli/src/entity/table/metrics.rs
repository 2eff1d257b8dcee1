//! What was measured, and how teams chose.

use agentkeep::core::{NewMetric, NewRoutingDecision};

use super::{METADATA, entity, json, text};
use crate::entity::{
    Action, Answer, Entity, Scope,
    call::{call, optional, page, parse, team_id, value},
};

pub(super) static METRICS: Entity = entity! {
    name: "metrics",
    one: "metric",
    about: "Samples of measures, and what they amount to",
    columns: &["id", "name", "value", "labels", "recorded_at"],
    fields: &[
        text("name", "What is measured"),
        json("value", "The number"),
        json("labels", "What it was measured of, a JSON object"),
        text("recorded_at", "When; now if nothing is said"),
    ],
    list: call!(|home, request| page(home.tenant.metrics().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.metrics().get(key.parse()?).await?))),
    create: Some(call!(|home, body| value(home.tenant.metrics().record(parse::<NewMetric>(body)?).await?))),
    delete: Some(call!(|home, key| home.tenant.metrics().delete(key.parse()?).await)),
    actions: &[Action {
        name: "statistics",
        about: "Count, sum, smallest, largest and mean of a measure's samples",
        arguments: &[
            ("NAME", "The measure"),
            ("[FROM]", "The first time that counts: 2025-03-01T12:00:00Z"),
            ("[TO]", "The first time that counts no longer"),
        ],
        columns: &[],
        run: call!(|home, arguments| {
            let time = |index: usize| arguments.get(index).map(|time| time.parse()).transpose();
            let (from, to) = (time(1)?, time(2)?);
            value(home.tenant.metrics().statistics(&arguments[0], from, to).await?).map(Answer::One)
        }),
    }],
};

pub(super) static ROUTING_DECISIONS: Entity = entity! {
    name: "routing-decisions",
    one: "routing decision",
    about: "Which agent a team chose, from whom, and why",
    columns: &["id", "team_id", "agent_id", "reason", "latency_ms", "session_id", "created_at"],
    fields: &[
        text("team_id", "The team that chose"),
        json("agent_id", "The agent that was chosen"),
        text("session_id", "The session it was chosen for"),
        text("message_id", "The message it was chosen for"),
        json("candidates", "Who could have been chosen, with scores, a JSON array"),
        text("reason", "Why"),
        json("latency_ms", "How long the choice took"),
        METADATA,
    ],
    scope: Some(Scope {
        argument: "TEAM",
        field: "team_id",
        resolve: call!(|home, key| value(team_id(home, &key).await?)),
    }),
    list: call!(|home, request| page(home.tenant.routing_decisions().list(&request).await?)),
    get: Some(call!(|home, key| optional(home.tenant.routing_decisions().get(key.parse()?).await?))),
    create: Some(call!(|home, body| {
        value(home.tenant.routing_decisions().record(parse::<NewRoutingDecision>(body)?).await?)
    })),
    delete: Some(call!(|home, key| home.tenant.routing_decisions().delete(key.parse()?).await)),
};
