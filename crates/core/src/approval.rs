//! An approval: what somebody has to agree to before it is done.

use serde::{Deserialize, Serialize};

use crate::{ApprovalId, Error, JobId, JsonObject, Result, SessionId, Timestamp, limits, text_enum};

text_enum! {
    /// Where an approval stands in its life.
    ApprovalStatus, "status" {
        /// Nobody has decided.
        Pending = "pending",
        /// Agreed to.
        Approved = "approved",
        /// Refused, by somebody or because its time was over.
        Rejected = "rejected",
        /// Another proposal took its place, or what it was for came to its end.
        Superseded = "superseded",
    }
}

impl ApprovalStatus {
    /// Whether an approval may go from this status to `next`.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Pending, Self::Approved | Self::Rejected | Self::Superseded))
    }
}

text_enum! {
    /// What somebody decides about a proposal.
    Decision, "decision" {
        /// Do it.
        Approve = "approve",
        /// Do not.
        Reject = "reject",
    }
}

/// An approval.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// The job that waits for it. A soft reference: the decision outlives the job.
    pub job_id: Option<JobId>,
    /// The session it came up in; deleted with it.
    pub session_id: Option<SessionId>,
    /// What is proposed.
    pub proposal: String,
    /// The SHA-256 of the proposal, in hexadecimal digits: what was agreed to is this text and no other.
    pub proposal_hash: String,
    /// Where it stands in its life.
    pub status: ApprovalStatus,
    /// Who asks; cannot approve it.
    pub requested_by: Option<String>,
    /// Who decided; `system` when its time was over.
    pub resolved_by: Option<String>,
    /// When it was decided.
    pub resolved_at: Option<Timestamp>,
    /// Why; `expired` when its time was over.
    pub reason: Option<String>,
    /// Until when it can be approved.
    pub expires_at: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
    /// When it was requested.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// An approval to request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct NewApproval {
    /// The id, when the caller chooses it.
    pub id: Option<ApprovalId>,
    /// The job that is to wait for it; it has to be queued.
    pub job_id: Option<JobId>,
    /// The session it came up in; the one of the job when not given.
    pub session_id: Option<SessionId>,
    /// What is proposed.
    pub proposal: String,
    /// Who asks.
    pub requested_by: Option<String>,
    /// Until when it can be approved.
    pub expires_at: Option<Timestamp>,
    /// Anything the application wants to keep with it.
    pub metadata: JsonObject,
}

impl NewApproval {
    /// Refuses an empty or overlong proposal and empty names.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        if self.proposal.trim().is_empty() {
            return Err(Error::invalid("proposal", "must not be empty"));
        }
        limits::check_content("proposal", &self.proposal)?;
        limits::check_optional_name("requested_by", self.requested_by.as_deref())?;
        limits::check_content("metadata", self.metadata.as_str())
    }
}

/// What somebody decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Resolution {
    /// What.
    pub decision: Decision,
    /// Who.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Decide only if the proposal still has this hash.
    #[serde(default)]
    pub proposal_hash: Option<String>,
}

impl Resolution {
    /// Approved by somebody.
    pub fn approve(by: impl Into<String>) -> Self {
        Self { decision: Decision::Approve, by: by.into(), reason: None, proposal_hash: None }
    }

    /// Rejected by somebody.
    pub fn reject(by: impl Into<String>, reason: Option<String>) -> Self {
        Self { decision: Decision::Reject, by: by.into(), reason, proposal_hash: None }
    }

    /// Refuses an empty name and an overlong reason.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_name("by", &self.by)?;
        self.reason.as_deref().map_or(Ok(()), |reason| limits::check_content("reason", reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_listed_status_changes_are_legal() {
        let legal: Vec<_> = ApprovalStatus::ALL
            .iter()
            .flat_map(|from| ApprovalStatus::ALL.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from.can_become(*to))
            .map(|(from, to)| format!("{from}→{to}"))
            .collect();
        assert_eq!(legal, ["pending→approved", "pending→rejected", "pending→superseded"]);
    }
}
