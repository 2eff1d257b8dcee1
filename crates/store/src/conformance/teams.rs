//! Teams and their members.

use agentkeep_core::{
    Agent, AgentId, Direction, Error, ListRequest, NewAgent, NewSession, NewTeam, NewTeamMember, Result, Team, TeamId,
    TeamMode, TeamPatch,
};

use super::{
    Home,
    fixtures::{object, race},
};
use crate::TenantStore;

async fn agent(tenant: &TenantStore, name: &str) -> Agent {
    tenant.agents().create(NewAgent::new(name)).await.expect("created")
}

fn agent_id(number: usize) -> AgentId {
    AgentId(i64::try_from(number).expect("a small number"))
}

/// A team of agents a1, a2 … whose ids are 1, 2 …
async fn team_of(tenant: &TenantStore, size: i64) -> Team {
    let team = tenant.teams().create(NewTeam::new("team")).await.expect("created");
    for number in 1..=size {
        let agent = agent(tenant, &format!("a{number}")).await;
        tenant.team_members().add(team.id, NewTeamMember::new(agent.id), None).await.expect("joined");
    }
    team
}

/// The agents of a team in their order, once their positions are 1, 2 …
async fn order(tenant: &TenantStore, team: TeamId) -> Vec<i64> {
    let members = tenant.team_members().of_team(team).await.expect("listed");
    let positions: Vec<_> = members.iter().map(|member| member.position).collect();
    let expected: Vec<_> = (1..).take(members.len()).collect();
    assert_eq!(positions, expected);
    members.into_iter().map(|member| member.agent_id.0).collect()
}

fn assert_missing<T: std::fmt::Debug>(outcome: Result<T>, wanted: &str) {
    assert!(matches!(&outcome, Err(Error::NotFound { entity, .. }) if *entity == wanted), "{outcome:?}");
}

fn assert_invalid<T: std::fmt::Debug>(outcome: Result<T>, wanted: &str) {
    assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == wanted), "{outcome:?}");
}

/// The life of a team.
pub async fn a_team_is_created_read_changed_and_deleted(home: &Home) {
    let teams = home.tenant.teams();
    let new = NewTeam {
        mode: Some(TeamMode::Coordinate),
        routing: object(r#"{"rules":[{"if":"tax","then":1}]}"#),
        metadata: object(r#"{"floor":2}"#),
        ..NewTeam::new("support")
    };
    let created = teams.create(new.clone()).await.expect("created");
    assert_eq!((created.mode, &created.routing, created.active), (TeamMode::Coordinate, &new.routing, true));
    assert_eq!(teams.get(created.id).await.expect("read"), Some(created.clone()));
    assert_eq!(teams.get_by_name("support").await.expect("read"), Some(created.clone()));
    assert_eq!(teams.get_by_name("sales").await.expect("read"), None);

    let patch = TeamPatch {
        active: Some(false),
        routing: Some(object(r#"{"rules":null,"default":1}"#)),
        ..TeamPatch::default()
    };
    let changed = teams.update(created.id, patch).await.expect("changed");
    assert_eq!((changed.active, changed.mode, &changed.metadata), (false, created.mode, &created.metadata));
    assert_eq!(changed.routing, object(r#"{"default":1}"#));
    assert_eq!(teams.update(created.id, TeamPatch::default()).await.expect("nothing to do"), changed);

    let ada = agent(&home.tenant, "ada").await;
    home.tenant.team_members().add(created.id, NewTeamMember::new(ada.id), None).await.expect("joined");
    let new = NewSession { team_id: Some(created.id), ..NewSession::default() };
    let talk = home.tenant.sessions().create(new).await.expect("created");
    teams.delete(created.id).await.expect("deleted");
    assert_eq!(teams.get(created.id).await.expect("read"), None);
    assert_eq!(home.tenant.team_members().get(created.id, ada.id).await.expect("read"), None);
    assert!(home.tenant.agents().get(ada.id).await.expect("read").is_some());
    assert_eq!(home.tenant.sessions().get(talk.id).await.expect("read"), Some(talk));
    assert_missing(teams.delete(created.id).await, "team");
    assert_missing(teams.update(created.id, TeamPatch::default()).await, "team");
    assert_missing(home.tenant.team_members().of_team(created.id).await, "team");
}

/// A duplicate on create and on update.
pub async fn a_taken_team_name_is_told_and_nothing_changes(home: &Home) {
    let teams = home.tenant.teams();
    let first = teams.create(NewTeam::new("first")).await.expect("created");
    let second = teams.create(NewTeam::new("second")).await.expect("created");
    let patch = TeamPatch { name: Some("first".into()), active: Some(false), ..TeamPatch::default() };
    for outcome in [teams.create(NewTeam::new("first")).await, teams.update(second.id, patch).await] {
        match outcome {
            Err(Error::AlreadyExists { entity: "team", field, value }) => {
                assert_eq!((field.as_str(), value.as_str()), ("name", "\"first\""));
            }
            other => panic!("{other:?}"),
        }
    }
    let outcome = teams.create(NewTeam { id: Some(first.id), ..NewTeam::new("third") }).await;
    assert!(matches!(&outcome, Err(Error::AlreadyExists { field, .. }) if field == "id"), "{outcome:?}");
    assert_eq!(teams.list(&ListRequest::new()).await.expect("listed").items, [first, second]);
    assert_invalid(teams.create(NewTeam::new("")).await, "name");
    assert_invalid("round table".parse::<TeamMode>(), "mode");
}

/// Upsert under contention.
pub async fn racing_upserts_of_one_team_make_one_team(home: &Home) {
    let upserted = race(&home.tenant, 16, |tenant, _| async move {
        let new = NewTeam { mode: Some(TeamMode::Collaborate), ..NewTeam::new("support") };
        tenant.teams().upsert(new).await.expect("upserted").id
    });
    let mut ids = upserted.await;
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let changed = home.tenant.teams().upsert(NewTeam::new("support")).await.expect("changed");
    assert_eq!((changed.id, changed.mode), (ids[0], TeamMode::Route));
    assert_eq!(home.tenant.teams().list(&ListRequest::new()).await.expect("listed").items, [changed]);
}

/// What lists of teams can do.
pub async fn teams_are_filtered_and_ordered(home: &Home) {
    let teams = home.tenant.teams();
    for (name, mode) in [("cid", TeamMode::Route), ("ada", TeamMode::Coordinate), ("bob", TeamMode::Route)] {
        teams.create(NewTeam { mode: Some(mode), ..NewTeam::new(name) }).await.expect("created");
    }
    let route = ListRequest::new().filter("mode", "route").filter("active", true);
    let names = |items: Vec<Team>| items.into_iter().map(|team| team.name).collect::<Vec<_>>();
    assert_eq!(names(teams.list(&route).await.expect("listed").items), ["cid", "bob"]);
    let by_name = ListRequest::new().order_by("name", Direction::Descending);
    assert_eq!(names(teams.list(&by_name).await.expect("listed").items), ["cid", "bob", "ada"]);
}

/// The members of a team.
pub async fn members_join_move_and_leave_without_holes(home: &Home) {
    let tenant = &home.tenant;
    let members = tenant.team_members();
    let team = team_of(tenant, 5).await;
    assert_eq!(order(tenant, team.id).await, [1, 2, 3, 4, 5]);
    for (agent, position, expected) in [
        (5, 1, [5, 1, 2, 3, 4]),
        (5, 4, [1, 2, 3, 5, 4]),
        (1, 5, [2, 3, 5, 4, 1]),
        (4, 2, [2, 4, 3, 5, 1]),
        (3, 3, [2, 4, 3, 5, 1]),
    ] {
        let moved = members.move_to(team.id, AgentId(agent), position).await.expect("moved");
        assert_eq!((moved.agent_id, moved.position), (AgentId(agent), position));
        assert_eq!(order(tenant, team.id).await, expected);
    }
    members.remove(team.id, AgentId(4)).await.expect("removed");
    members.remove(team.id, AgentId(1)).await.expect("removed");
    assert_eq!(order(tenant, team.id).await, [2, 3, 5]);
    let joined =
        members.add(team.id, NewTeamMember { role: Some("lead".into()), ..NewTeamMember::new(AgentId(1)) }, Some(2));
    let joined = joined.await.expect("joined");
    assert_eq!((joined.position, joined.role.as_deref()), (2, Some("lead")));
    assert_eq!(order(tenant, team.id).await, [2, 1, 3, 5]);
    let changed = members.set_role(team.id, AgentId(1), None).await.expect("changed");
    assert_eq!((changed.position, &changed.role, changed.created_at), (2, &None, joined.created_at));
    assert_eq!(members.get(team.id, AgentId(1)).await.expect("read"), Some(changed));

    let stays = members.get(team.id, AgentId(5)).await.expect("read").expect("there");
    let new = [5, 4, 2].map(|agent| NewTeamMember::new(AgentId(agent))).to_vec();
    let set = members.set(team.id, new).await.expect("set");
    assert_eq!(set, members.of_team(team.id).await.expect("listed"));
    assert_eq!((order(tenant, team.id).await, set[0].created_at), (vec![5, 4, 2], stays.created_at));
    assert!(tenant.teams().get(team.id).await.expect("read").expect("there").updated_at > team.updated_at);
    let second = tenant.teams().create(NewTeam::new("second")).await.expect("created");
    members.add(second.id, NewTeamMember::new(AgentId(4)), None).await.expect("joined");
    let of_agent = ListRequest::new().filter("agent_id", 4_i64).with_total();
    assert_eq!(members.list(&of_agent).await.expect("listed").total, Some(2));
    assert_eq!(members.set(team.id, Vec::new()).await.expect("emptied"), []);
    assert_eq!(order(tenant, team.id).await, Vec::<i64>::new());
}

/// What cannot be done with members.
pub async fn what_is_wrong_with_a_member_is_told_and_nothing_changes(home: &Home) {
    let members = home.tenant.team_members();
    let team = team_of(&home.tenant, 3).await.id;
    let before = members.of_team(team).await.expect("listed");
    let spare = agent(&home.tenant, "spare").await.id;
    let nobody = AgentId(99);
    let new = NewTeamMember::new;

    match members.add(team, new(AgentId(2)), Some(1)).await {
        Err(Error::AlreadyExists { entity: "team member", field, value }) => {
            assert_eq!((field.as_str(), value.as_str()), ("agent_id", "2"));
        }
        other => panic!("{other:?}"),
    }
    match members.add(team, new(nobody), None).await {
        Err(Error::MissingReference { field, entity: "agent", value }) => {
            assert_eq!((field.as_str(), value.as_str()), ("agent_id", "99"));
        }
        other => panic!("{other:?}"),
    }
    match members.set(team, vec![new(spare), new(nobody)]).await {
        Err(Error::MissingReference { field, .. }) => assert_eq!(field, "members[1].agent_id"),
        other => panic!("{other:?}"),
    }
    assert_invalid(members.set(team, vec![new(spare), new(spare)]).await, "members[1].agent_id");
    let bad_role = NewTeamMember { role: Some(" ".into()), ..new(spare) };
    assert_invalid(members.set(team, vec![bad_role.clone()]).await, "members[0].role");
    assert_invalid(members.add(team, bad_role, None).await, "role");
    assert_invalid(members.set_role(team, AgentId(1), Some(String::new())).await, "role");
    for position in [0, -1, 5] {
        assert_invalid(members.add(team, new(spare), Some(position)).await, "position");
    }
    for position in [0, 4, i64::MAX] {
        assert_invalid(members.move_to(team, AgentId(1), position).await, "position");
    }
    assert_missing(members.move_to(team, spare, 1).await, "team member");
    assert_missing(members.remove(team, spare).await, "team member");
    assert_missing(members.set_role(team, spare, None).await, "team member");
    let no_team = TeamId(uuid::Uuid::nil());
    assert_missing(members.add(no_team, new(spare), None).await, "team");
    assert_missing(members.set(no_team, vec![]).await, "team");
    assert_missing(members.remove(no_team, spare).await, "team");
    assert_missing(members.of_team(no_team).await, "team");
    assert_eq!(members.of_team(team).await.expect("listed"), before);
}

/// Members under contention.
pub async fn racing_changes_of_members_leave_no_holes(home: &Home) {
    let team = team_of(&home.tenant, 8).await.id;
    for number in 9..=16 {
        agent(&home.tenant, &format!("a{number}")).await;
    }
    let changes = race(&home.tenant, 16, move |tenant, index| async move {
        let (members, number) = (tenant.team_members(), index + 1);
        let agent = agent_id(number);
        match number {
            1..=4 => members.remove(team, agent).await.expect("removed"),
            5..=8 => drop(members.move_to(team, agent, 1).await.expect("moved")),
            _ => drop(members.add(team, NewTeamMember::new(agent), Some(1)).await.expect("joined")),
        }
    });
    changes.await;
    let mut agents = order(&home.tenant, team).await;
    agents.sort_unstable();
    assert_eq!(agents, (5..=16).collect::<Vec<_>>());
}

/// An agent is deleted while its teams change.
pub async fn a_deleted_agent_leaves_its_teams_without_holes(home: &Home) {
    let tenant = &home.tenant;
    let team = team_of(tenant, 6).await.id;
    let second = tenant.teams().create(NewTeam::new("second")).await.expect("created").id;
    let new = [3, 2, 1].map(|agent| NewTeamMember::new(AgentId(agent))).to_vec();
    tenant.team_members().set(second, new).await.expect("set");
    tenant.agents().delete(AgentId(2)).await.expect("deleted");
    assert_eq!(order(tenant, team).await, [1, 3, 4, 5, 6]);
    assert_eq!(order(tenant, second).await, [3, 1]);

    let changes = race(tenant, 6, move |tenant, index| async move {
        let agent = agent_id([1, 1, 3, 3, 4, 4][index]);
        if index % 2 == 0 {
            return tenant.agents().delete(agent).await.expect("deleted");
        }
        match tenant.team_members().add(second, NewTeamMember::new(agent), Some(1)).await {
            Ok(_) | Err(Error::MissingReference { .. } | Error::AlreadyExists { .. }) => {}
            other => panic!("{other:?}"),
        }
    });
    changes.await;
    assert_eq!(order(tenant, team).await, [5, 6]);
    assert_eq!(order(tenant, second).await, Vec::<i64>::new());
}

/// The same names in two tenants.
pub async fn teams_of_two_tenants_do_not_meet(home: &Home) {
    let mine = team_of(&home.tenant, 2).await;
    let theirs = team_of(&home.other, 1).await;
    let (teams, members) = (home.other.teams(), home.other.team_members());
    assert_eq!(teams.get(mine.id).await.expect("read"), None);
    assert_missing(teams.update(mine.id, TeamPatch::default()).await, "team");
    assert_missing(teams.delete(mine.id).await, "team");
    assert_missing(members.of_team(mine.id).await, "team");
    assert_missing(members.remove(mine.id, AgentId(1)).await, "team");
    assert_eq!(members.get(mine.id, AgentId(1)).await.expect("read"), None);
    let outcome = members.add(theirs.id, NewTeamMember::new(AgentId(2)), None).await;
    assert!(matches!(outcome, Err(Error::MissingReference { .. })), "{outcome:?}");
    assert_eq!(members.list(&ListRequest::new()).await.expect("listed").items.len(), 1);
    let taken = teams.upsert(NewTeam { id: Some(mine.id), ..NewTeam::new("mine") }).await.expect("an id of its own");
    assert_eq!(taken.id, mine.id);
    assert_eq!(order(&home.tenant, mine.id).await, [1, 2]);
}
