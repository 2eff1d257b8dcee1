//! Who is in a team. Whoever changes that locks the team's row first, so that positions stay 1, 2, 3 …

use std::collections::BTreeSet;

use agentkeep_core::{
    AgentId, Direction, Error, ListRequest, NewTeamMember, Page, Result, TeamId, TeamMember, TenantId, Timestamp,
};

use super::{
    list::list,
    table::{Field, FieldKind, Reference, Table, params, record},
};
use crate::{
    engine::{Executor, Sql},
    store::TenantStore,
};

/// The members of the teams of a tenant.
pub struct TeamMembers<'a>(pub(super) &'a TenantStore);

macro_rules! columns {
    () => {
        "team_id, agent_id, role, position, created_at"
    };
}

macro_rules! select {
    ($condition:literal) => {
        concat!("SELECT ", columns!(), " FROM team_members WHERE tenant_id = $1 AND ", $condition)
    };
}

record!(TeamMember, &TABLE, { team_id, agent_id, role, position, created_at });

static TABLE: Table = Table {
    entity: "team member",
    name: "team_members",
    from: "team_members",
    tenant: "tenant_id = $1",
    columns: columns!(),
    // A team has one member at each position, so the two order all memberships.
    key: "team_id",
    order: ("position", Direction::Ascending),
    fields: &[
        Field::new("team_id", FieldKind::Uuid),
        Field::new("agent_id", FieldKind::Int),
        Field::new("role", FieldKind::Text),
        Field::new("position", FieldKind::Int).sortable(),
        Field::new("created_at", FieldKind::Time),
    ],
    unique: &[&["team_id", "agent_id"]],
    references: &[Reference::new("team_id", "team", "teams"), Reference::new("agent_id", "agent", "agents")],
};

// The change of its members is a change of the team.
static LOCK_TEAM: Sql = Sql::both("UPDATE teams SET updated_at = $3 WHERE tenant_id = $1 AND id = $2 RETURNING id");
// An agent that joins cannot be deleted meanwhile. SQLite has no row locks: a transaction that may write is the
// only one.
static HOLD_AGENT: Sql = Sql::per_engine(
    "SELECT id FROM agents WHERE tenant_id = $1 AND id = $2 FOR KEY SHARE",
    "SELECT id FROM agents WHERE tenant_id = $1 AND id = $2",
);
static GET: Sql = Sql::both(select!("team_id = $2 AND agent_id = $3")).short();
static MEMBERS: Sql = Sql::both(select!("team_id = $2 ORDER BY position")).short();
static TEAM: Sql = Sql::both("SELECT id FROM teams WHERE tenant_id = $1 AND id = $2").short();
static TEAMS_OF_AGENT: Sql =
    Sql::both("SELECT team_id FROM team_members WHERE tenant_id = $1 AND agent_id = $2 ORDER BY team_id");
static SIZE: Sql = Sql::both("SELECT count(*) FROM team_members WHERE tenant_id = $1 AND team_id = $2").short();
static INSERT: Sql = Sql::both(concat!(
    "INSERT INTO team_members (tenant_id, team_id, agent_id, role, position, created_at)
     VALUES ($1, $2, $3, $4, $5, $6)
     RETURNING ",
    columns!(),
));
// A unique key is checked row by row, so positions move by way of their negatives.
static SHIFT_AWAY: Sql = Sql::both(
    "UPDATE team_members SET position = -(position + $3)
     WHERE tenant_id = $1 AND team_id = $2 AND position BETWEEN $4 AND $5",
);
static SHIFT_BACK: Sql =
    Sql::both("UPDATE team_members SET position = -position WHERE tenant_id = $1 AND team_id = $2 AND position < 0");
static PLACE: Sql = Sql::both(concat!(
    "UPDATE team_members SET position = $4 WHERE tenant_id = $1 AND team_id = $2 AND agent_id = $3 RETURNING ",
    columns!(),
));
static SET_ROLE: Sql = Sql::both(concat!(
    "UPDATE team_members SET role = $4 WHERE tenant_id = $1 AND team_id = $2 AND agent_id = $3 RETURNING ",
    columns!(),
));
static DELETE: Sql =
    Sql::both("DELETE FROM team_members WHERE tenant_id = $1 AND team_id = $2 AND agent_id = $3 RETURNING position");
static DELETE_ALL: Sql = Sql::both("DELETE FROM team_members WHERE tenant_id = $1 AND team_id = $2");

/// Every fixed statement of this file.
#[cfg(any(test, feature = "conformance"))]
pub(super) static STATEMENTS: super::Statements = (
    &TABLE,
    &[
        &LOCK_TEAM,
        &HOLD_AGENT,
        &GET,
        &MEMBERS,
        &TEAM,
        &TEAMS_OF_AGENT,
        &SIZE,
        &INSERT,
        &SHIFT_AWAY,
        &SHIFT_BACK,
        &PLACE,
        &SET_ROLE,
        &DELETE,
        &DELETE_ALL,
    ],
);

/// Where a member stands that is on its way to another place. Never seen outside the transaction.
const NOWHERE: i64 = 0;

impl TeamMembers<'_> {
    /// The member of a team that is this agent; `None` when it is not in the team.
    ///
    /// # Errors
    /// What the database reports.
    pub async fn get(&self, team: TeamId, agent: AgentId) -> Result<Option<TeamMember>> {
        self.0.executor.fetch_optional(&GET, &params![self.0.tenant, team, agent]).await
    }

    /// The members of a team in the order of their places; empty when it has none.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such team.
    pub async fn of_team(&self, team: TeamId) -> Result<Vec<TeamMember>> {
        let params = params![self.0.tenant, team];
        let members = self.0.executor.fetch_all(&MEMBERS, &params).await?;
        if members.is_empty() && self.0.executor.fetch_optional::<(TeamId,)>(&TEAM, &params).await?.is_none() {
            return Err(Error::not_found("team", team));
        }
        Ok(members)
    }

    /// Puts these agents in the team, in this order, and nobody else.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such team; [`Error::MissingReference`], [`Error::Invalid`] for a
    /// role, or for an agent that is named twice, each with the place in the list (`members[2].agent_id`).
    pub async fn set(&self, team: TeamId, members: Vec<NewTeamMember>) -> Result<Vec<TeamMember>> {
        let (tenant, members) = (self.0.tenant, &members);
        check_members(members)?;
        let set = |executor: Executor| async move {
            for (index, member) in members.iter().enumerate() {
                hold(&executor, tenant, member.agent_id).await.map_err(|error| error.at(&place(index)))?;
            }
            let now = self.lock(&executor, team).await?;
            let before: Vec<TeamMember> = executor.fetch_all(&MEMBERS, &params![tenant, team]).await?;
            executor.execute(&DELETE_ALL, &params![tenant, team]).await?;
            let mut after = Vec::with_capacity(members.len());
            for (member, position) in members.iter().zip(1_i64..) {
                let stays = before.iter().find(|stays| stays.agent_id == member.agent_id);
                let joined = stays.map_or(now, |stays| stays.created_at);
                after.push(insert(&executor, tenant, team, member, position, joined).await?);
            }
            Ok(after)
        };
        self.0.executor.transaction(set).await
    }

    /// Makes an agent a member: at the end, or at a position, where those behind it move on by one.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such team, [`Error::MissingReference`] when there is no such
    /// agent, [`Error::AlreadyExists`] when it is a member already, [`Error::Invalid`] for a position past the
    /// end.
    pub async fn add(&self, team: TeamId, member: NewTeamMember, position: Option<i64>) -> Result<TeamMember> {
        member.check()?;
        let (tenant, member) = (self.0.tenant, &member);
        let add = |executor: Executor| async move {
            let agent = member.agent_id;
            hold(&executor, tenant, agent).await?;
            let now = self.lock(&executor, team).await?;
            if executor.fetch_optional::<TeamMember>(&GET, &params![tenant, team, agent]).await?.is_some() {
                let (entity, field) = (TABLE.entity, "agent_id".to_owned());
                return Err(Error::AlreadyExists { entity, field, value: agent.to_string() });
            }
            let end = size(&executor, tenant, team).await? + 1;
            let position = within(position.unwrap_or(end), end)?;
            shift(&executor, tenant, team, 1, (position, end)).await?;
            insert(&executor, tenant, team, member, position, now).await
        };
        self.0.executor.transaction(add).await
    }

    /// Moves a member to a position; those in between move up or down by one.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such team or the agent is not in it, [`Error::Invalid`] for a
    /// position past the end.
    pub async fn move_to(&self, team: TeamId, agent: AgentId, position: i64) -> Result<TeamMember> {
        let tenant = self.0.tenant;
        let move_to = |executor: Executor| async move {
            self.lock(&executor, team).await?;
            let member: Option<TeamMember> = executor.fetch_optional(&GET, &params![tenant, team, agent]).await?;
            let member = member.ok_or_else(|| not_in(team, agent))?;
            let position = within(position, size(&executor, tenant, team).await?)?;
            let _: TeamMember = executor.fetch_one(&PLACE, &params![tenant, team, agent, NOWHERE]).await?;
            if position < member.position {
                shift(&executor, tenant, team, 1, (position, member.position)).await?;
            } else {
                shift(&executor, tenant, team, -1, (member.position, position)).await?;
            }
            executor.fetch_one(&PLACE, &params![tenant, team, agent, position]).await
        };
        self.0.executor.transaction(move_to).await
    }

    /// Gives a member another role, or none.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such team or the agent is not in it, [`Error::Invalid`].
    pub async fn set_role(&self, team: TeamId, agent: AgentId, role: Option<String>) -> Result<TeamMember> {
        let (tenant, role) = (self.0.tenant, &role);
        NewTeamMember { agent_id: agent, role: role.clone() }.check()?;
        let set_role = |executor: Executor| async move {
            self.lock(&executor, team).await?;
            let params = params![tenant, team, agent, role.clone()];
            let changed: Option<TeamMember> = executor.fetch_optional(&SET_ROLE, &params).await?;
            changed.ok_or_else(|| not_in(team, agent))
        };
        self.0.executor.transaction(set_role).await
    }

    /// Takes an agent out of a team; those behind it move up by one.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such team or the agent is not in it.
    pub async fn remove(&self, team: TeamId, agent: AgentId) -> Result<()> {
        let remove = |executor: Executor| async move {
            self.lock(&executor, team).await?;
            take_out(&executor, self.0.tenant, team, agent).await
        };
        self.0.executor.transaction(remove).await
    }

    /// One page of the memberships: the teams of an agent, when filtered by agent_id. Filters: team_id,
    /// agent_id, role, position, created_at. Orders: position (the default).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown filter or order, a page of a wrong size, a foreign cursor.
    pub async fn list(&self, request: &ListRequest) -> Result<Page<TeamMember>> {
        list(&self.0.executor, self.0.tenant, request).await
    }

    /// Takes an agent out of every team it is in. Its own row is locked by the caller, so it joins no other.
    pub(super) async fn leave_all(&self, executor: &Executor, agent: AgentId) -> Result<()> {
        let teams: Vec<(TeamId,)> = executor.fetch_all(&TEAMS_OF_AGENT, &params![self.0.tenant, agent]).await?;
        for (team,) in teams {
            let left = async {
                self.lock(executor, team).await?;
                take_out(executor, self.0.tenant, team, agent).await
            };
            // The team, or the membership, may be gone by the time the team is locked.
            match left.await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Locks the team; the time of the change.
    async fn lock(&self, executor: &Executor, team: TeamId) -> Result<Timestamp> {
        let now = self.0.now();
        let locked: Option<(TeamId,)> = executor.fetch_optional(&LOCK_TEAM, &params![self.0.tenant, team, now]).await?;
        locked.map(|_| now).ok_or_else(|| Error::not_found("team", team))
    }
}

fn not_in(team: TeamId, agent: AgentId) -> Error {
    Error::not_found(TABLE.entity, format!("{agent} of team {team}"))
}

fn place(index: usize) -> String {
    format!("members[{index}]")
}

fn check_members(members: &[NewTeamMember]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for (index, member) in members.iter().enumerate() {
        member.check().map_err(|error| error.at(&place(index)))?;
        if !seen.insert(member.agent_id) {
            let reason = format!("agent {} is named before; it can be a member once", member.agent_id);
            return Err(Error::invalid("agent_id", reason).at(&place(index)));
        }
    }
    Ok(())
}

fn within(position: i64, last: i64) -> Result<i64> {
    if (1..=last).contains(&position) {
        return Ok(position);
    }
    Err(Error::invalid("position", format!("is {position}; there are places 1 to {last}")))
}

/// Makes sure that an agent is there, and stays.
async fn hold(executor: &Executor, tenant: TenantId, agent: AgentId) -> Result<()> {
    match executor.fetch_optional::<(AgentId,)>(&HOLD_AGENT, &params![tenant, agent]).await? {
        Some(_) => Ok(()),
        None => {
            let (field, value) = ("agent_id".to_owned(), agent.to_string());
            Err(Error::MissingReference { field, entity: "agent", value })
        }
    }
}

async fn size(executor: &Executor, tenant: TenantId, team: TeamId) -> Result<i64> {
    Ok(executor.fetch_one::<(i64,)>(&SIZE, &params![tenant, team]).await?.0)
}

async fn insert(
    executor: &Executor,
    tenant: TenantId,
    team: TeamId,
    member: &NewTeamMember,
    position: i64,
    joined: Timestamp,
) -> Result<TeamMember> {
    let params = params![tenant, team, member.agent_id, member.role.clone(), position, joined];
    executor.fetch_one(&INSERT, &params).await
}

/// Moves the members between two positions by some places.
async fn shift(executor: &Executor, tenant: TenantId, team: TeamId, by: i64, (first, last): (i64, i64)) -> Result<()> {
    executor.execute(&SHIFT_AWAY, &params![tenant, team, by, first, last]).await?;
    executor.execute(&SHIFT_BACK, &params![tenant, team]).await.map(|_| ())
}

/// Takes an agent out of a locked team.
async fn take_out(executor: &Executor, tenant: TenantId, team: TeamId, agent: AgentId) -> Result<()> {
    let removed: Option<(i64,)> = executor.fetch_optional(&DELETE, &params![tenant, team, agent]).await?;
    let (position,) = removed.ok_or_else(|| not_in(team, agent))?;
    shift(executor, tenant, team, -1, (position + 1, i64::MAX)).await
}
