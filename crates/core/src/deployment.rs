//! A deployment: a build on its way to where it serves, and every step of it.

use serde::{Deserialize, Serialize};

use crate::{DeploymentId, JsonObject, Result, Timestamp, limits, text_enum};

text_enum! {
    /// Where a deployment stands.
    DeploymentStatus, "status" {
        /// It is being built.
        Building = "building",
        /// It is being tested.
        Testing = "testing",
        /// It is being put in place.
        Deploying = "deploying",
        /// It serves.
        Healthy = "healthy",
        /// It was taken back.
        RolledBack = "rolled_back",
        /// It came to nothing.
        Failed = "failed",
    }
}

impl DeploymentStatus {
    /// Whether a deployment may go from this status to `next`.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Building, Self::Testing | Self::Failed)
                | (Self::Testing, Self::Deploying | Self::Failed)
                | (Self::Deploying, Self::Healthy | Self::Failed | Self::RolledBack)
                | (Self::Healthy, Self::RolledBack)
        )
    }
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The commit that is deployed.
    pub git_sha: String,
    /// The branch it is on.
    pub branch: String,
    /// Where it stands.
    pub status: DeploymentStatus,
    /// What its newest step told.
    pub report: Option<String>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A step of a deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeploymentChange {
    /// Its place, from 1.
    pub number: i64,
    /// The status from then on.
    pub status: DeploymentStatus,
    /// What it told.
    pub report: Option<String>,
    /// When it was taken.
    pub created_at: Timestamp,
}

/// A deployment to create; it begins as `building`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewDeployment {
    /// The id, when the caller chooses it.
    #[serde(default)]
    pub id: Option<DeploymentId>,
    /// The commit that is deployed.
    pub git_sha: String,
    /// The branch it is on.
    pub branch: String,
    /// What there is to tell at the beginning.
    #[serde(default)]
    pub report: Option<String>,
    /// Anything the application wants to keep with it.
    #[serde(default)]
    pub metadata: JsonObject,
}

impl NewDeployment {
    /// A deployment of a commit on a branch.
    #[must_use]
    pub fn new(git_sha: impl Into<String>, branch: impl Into<String>) -> Self {
        Self { git_sha: git_sha.into(), branch: branch.into(), ..Self::default() }
    }

    /// Refuses empty or overlong texts.
    ///
    /// # Errors
    /// [`crate::Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("git_sha", &self.git_sha)?;
        limits::check_name("branch", &self.branch)?;
        limits::check_content("report", self.report.as_deref().unwrap_or(""))?;
        limits::check_content("metadata", self.metadata.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_status_changes_are_legal() {
        let all = DeploymentStatus::ALL;
        let legal: Vec<_> = all
            .iter()
            .flat_map(|from| all.iter().filter(|to| from.can_become(**to)).map(move |to| format!("{from}→{to}")))
            .collect();
        assert_eq!(
            legal,
            [
                "building→testing",
                "building→failed",
                "testing→deploying",
                "testing→failed",
                "deploying→healthy",
                "deploying→rolled_back",
                "deploying→failed",
                "healthy→rolled_back",
            ]
        );
    }
}
