//! Deployments.

use agentkeep_core::{DeploymentStatus, Error, ListRequest, NewDeployment};

use super::{
    Home,
    fixtures::{object, race},
};

/// The life of a deployment, and its history.
pub async fn a_deployment_is_created_moved_on_and_remembers_every_step(home: &Home) {
    let deployments = home.tenant.deployments();
    let new = NewDeployment { metadata: object(r#"{"by":"ci"}"#), ..NewDeployment::new("abc123", "main") };
    let made = deployments.create(new).await.expect("created");
    assert_eq!((made.status, made.report.as_deref()), (DeploymentStatus::Building, None));
    let steps = [
        (DeploymentStatus::Testing, Some("built")),
        (DeploymentStatus::Deploying, None),
        (DeploymentStatus::Healthy, Some("deployed")),
        (DeploymentStatus::RolledBack, Some("too slow")),
    ];
    for (status, report) in steps {
        let moved = deployments.update_status(made.id, status, report.map(str::to_owned)).await.expect("moved");
        assert_eq!(moved.status, status);
        assert_eq!(moved.report.as_deref(), report.or(Some("built")), "a report stays until there is another");
    }
    let history = deployments.history(made.id).await.expect("read");
    let told: Vec<_> = history.iter().map(|change| (change.number, change.status, change.report.as_deref())).collect();
    let expected: Vec<_> = std::iter::once((DeploymentStatus::Building, None))
        .chain(steps)
        .zip(1..)
        .map(|((status, report), number)| (number, status, report))
        .collect();
    assert_eq!(told, expected);
    assert!(history.windows(2).all(|pair| pair[0].created_at <= pair[1].created_at));
    let request = ListRequest::new().filter("status", "rolled_back").filter("branch", "main");
    assert_eq!(deployments.list(&request).await.expect("listed").items.len(), 1);
    let other = home.other.deployments();
    assert_eq!(other.get(made.id).await.expect("read"), None);
    assert_eq!(other.history(made.id).await.expect("read"), []);
    let outcome = other.update_status(made.id, DeploymentStatus::Failed, None).await;
    assert!(matches!(outcome, Err(Error::NotFound { .. })));
}

/// Every pair of statuses.
pub async fn only_legal_changes_of_a_deployment_happen(home: &Home) {
    let deployments = home.tenant.deployments();
    let path = |to: DeploymentStatus| match to {
        DeploymentStatus::Building => vec![],
        DeploymentStatus::Testing => vec![DeploymentStatus::Testing],
        DeploymentStatus::Deploying => vec![DeploymentStatus::Testing, DeploymentStatus::Deploying],
        DeploymentStatus::Failed => vec![DeploymentStatus::Failed],
        last => vec![DeploymentStatus::Testing, DeploymentStatus::Deploying, last],
    };
    for from in DeploymentStatus::ALL {
        for to in DeploymentStatus::ALL {
            let made = deployments.create(NewDeployment::new("abc", "main")).await.expect("created");
            for step in path(*from) {
                deployments.update_status(made.id, step, None).await.expect("on the way");
            }
            let before =
                (deployments.get(made.id).await.expect("read"), deployments.history(made.id).await.expect("read"));
            let outcome = deployments.update_status(made.id, *to, Some("told".into())).await;
            if from.can_become(*to) {
                assert_eq!(outcome.expect("legal").status, *to);
                continue;
            }
            let told = matches!(&outcome, Err(Error::IllegalTransition { from: a, to: b, .. }) if a == from.as_str() && b == to.as_str());
            assert!(told, "{from}→{to}: {outcome:?}");
            let after =
                (deployments.get(made.id).await.expect("read"), deployments.history(made.id).await.expect("read"));
            assert_eq!(before, after, "{from}→{to} changed nothing");
        }
    }
    let outcome = deployments.create(NewDeployment::new("", "main")).await;
    assert!(matches!(&outcome, Err(Error::Invalid { field, .. }) if field == "git_sha"), "{outcome:?}");
}

/// Of two who move a deployment on in different ways, one does.
pub async fn of_racing_changes_of_a_deployment_one_wins(home: &Home) {
    let made = home.tenant.deployments().create(NewDeployment::new("abc", "main")).await.expect("created");
    let outcomes = race(&home.tenant, 16, move |tenant, index| async move {
        let next = if index % 2 == 0 { DeploymentStatus::Testing } else { DeploymentStatus::Failed };
        tenant.deployments().update_status(made.id, next, None).await
    })
    .await;
    // Testing, then perhaps failed: at most two, and the history tells exactly them.
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let history = home.tenant.deployments().history(made.id).await.expect("read");
    assert_eq!(history.len(), won + 1);
    assert!(history.windows(2).all(|pair| pair[0].status.can_become(pair[1].status)), "{history:?}");
}
