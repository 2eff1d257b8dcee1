//! What an API key may do.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Result, text_enum};

/// What can be read and written: the names of resources in scopes.
pub const RESOURCES: &[&str] = &[
    "tenants",
    "users",
    "agents",
    "agent_versions",
    "teams",
    "team_members",
    "mcp_servers",
    "agent_mcp_servers",
    "sessions",
    "messages",
    "artifacts",
    "memories",
    "prompts",
    "preferences",
    "metrics",
    "routing_decisions",
    "checkpoints",
    "jobs",
    "job_schedules",
    "approvals",
    "prices",
    "ledger",
    "budgets",
    "deployments",
    "keys",
    "runs",
];

/// The words that are scopes without a resource.
const WORDS: [(&str, Scope); 5] = [
    ("read", Scope::Read),
    ("write", Scope::Write),
    ("jobs", Scope::Jobs),
    ("approvals", Scope::Approvals),
    ("admin", Scope::Admin),
];

text_enum! {
    /// What is done with a resource.
    Access, "access" {
        /// It is looked at.
        Read = "read",
        /// It is created, changed or deleted.
        Write = "write",
    }
}

/// Something that an API key may do. Written as a word (`read`) or as a resource and an access
/// (`sessions:write`); whoever may write a resource may read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// To read everything but keys and tenants.
    Read,
    /// To read everything but keys and tenants, and to write what is no work of operators: jobs, their schedules and
    /// approvals are left out as well.
    Write,
    /// To read and write jobs and their schedules.
    Jobs,
    /// To read and decide approvals.
    Approvals,
    /// Everything.
    Admin,
    /// To read, or to read and write, one of [`RESOURCES`]. [`Scope::of`] makes it.
    Resource(&'static str, Access),
}

impl Scope {
    /// The scope of one resource; `None` when there is no resource of that name.
    #[must_use]
    pub fn of(resource: &str, access: Access) -> Option<Self> {
        RESOURCES.iter().find(|known| **known == resource).map(|known| Self::Resource(known, access))
    }

    /// Whether somebody with these scopes may do that. A resource that is none of [`RESOURCES`] is for `admin`.
    #[must_use]
    pub fn allows(scopes: &[Self], resource: &str, access: Access) -> bool {
        scopes.iter().any(|scope| scope.covers(resource, access))
    }

    /// Whether all that `scope` allows is allowed to somebody with these scopes: then they may hand it on.
    #[must_use]
    pub fn include(scopes: &[Self], scope: Self) -> bool {
        // Beside what is known, `admin` allows what will come.
        let resources = RESOURCES.iter().copied().chain([""]);
        let mut all = resources.flat_map(|resource| Access::ALL.iter().map(move |access| (resource, *access)));
        all.all(|(resource, access)| !scope.covers(resource, access) || Self::allows(scopes, resource, access))
    }

    /// The scopes each of which would be enough, the narrowest first: to tell whoever lacks them.
    #[must_use]
    pub fn sufficient(resource: &str, access: Access) -> Vec<Self> {
        let narrow = Access::ALL.iter().filter_map(|access| Self::of(resource, *access));
        narrow.chain(WORDS.map(|(_, scope)| scope)).filter(|scope| scope.covers(resource, access)).collect()
    }

    fn covers(self, resource: &str, access: Access) -> bool {
        let reads = access == Access::Read;
        let common = !matches!(resource, "keys" | "tenants") && RESOURCES.contains(&resource);
        match self {
            Self::Admin => true,
            Self::Read => reads && common,
            Self::Write => common && (reads || !matches!(resource, "jobs" | "job_schedules" | "approvals")),
            Self::Jobs => matches!(resource, "jobs" | "job_schedules"),
            Self::Approvals => resource == "approvals",
            Self::Resource(own, own_access) => own == resource && (reads || own_access == Access::Write),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(resource, access) => f.pad(&format!("{resource}:{access}")),
            word => f.pad(WORDS.iter().find(|(_, scope)| scope == word).map_or("", |(text, _)| text)),
        }
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let word = || WORDS.iter().find(|(word, _)| *word == text).map(|(_, scope)| *scope);
        let of_resource = |(resource, access): (&str, &str)| Self::of(resource, access.parse().ok()?);
        text.split_once(':').map_or_else(word, of_resource).ok_or_else(|| {
            let words = WORDS.map(|(word, _)| word).join(", ");
            let resources = RESOURCES.join(", ");
            let reason =
                format!("{text:?} is none of {words}, RESOURCE:read, RESOURCE:write; resources are {resources}");
            Error::invalid("scopes", reason)
        })
    }
}

#[cfg(feature = "openapi")]
crate::openapi::described! {
    Scope => crate::openapi::text(None, "What a key may do: read, write, jobs, approvals, admin, or RESOURCE:read, RESOURCE:write"),
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a scope allows, as `resource:access`.
    fn allowed(scope: &str) -> Vec<String> {
        let scopes = [scope.parse().expect(scope)];
        let all = RESOURCES.iter().flat_map(|resource| Access::ALL.iter().map(move |access| (*resource, *access)));
        let allowed = all.filter(|(resource, access)| Scope::allows(&scopes, resource, *access));
        allowed.map(|(resource, access)| format!("{resource}:{access}")).collect()
    }

    fn without(all: &[String], left_out: &[&str]) -> Vec<String> {
        all.iter().filter(|one| !left_out.contains(&one.as_str())).cloned().collect()
    }

    #[test]
    fn each_scope_allows_what_it_says_and_nothing_else() {
        let all = allowed("admin");
        assert_eq!(all.len(), 2 * RESOURCES.len());
        let private = ["keys:read", "keys:write", "tenants:read", "tenants:write"];
        let reads: Vec<String> = all.iter().filter(|one| one.ends_with(":read")).cloned().collect();
        assert_eq!(allowed("read"), without(&reads, &private));
        let operators = ["jobs:write", "job_schedules:write", "approvals:write"];
        assert_eq!(allowed("write"), without(&all, &[&private[..], &operators].concat()));
        assert_eq!(allowed("jobs"), ["jobs:read", "jobs:write", "job_schedules:read", "job_schedules:write"]);
        assert_eq!(allowed("approvals"), ["approvals:read", "approvals:write"]);
        assert_eq!(allowed("keys:read"), ["keys:read"]);
        assert_eq!(allowed("sessions:write"), ["sessions:read", "sessions:write"]);
        assert!(!Scope::allows(&[], "sessions", Access::Read));
    }

    #[test]
    fn a_scope_is_handed_on_by_those_who_may_do_all_of_it() {
        let include = |scopes: &[&str], scope: &str| {
            let scopes: Vec<Scope> = scopes.iter().map(|scope| scope.parse().expect("a scope")).collect();
            Scope::include(&scopes, scope.parse().expect("a scope"))
        };
        for (scopes, scope) in [
            (&["admin"][..], "admin"),
            (&["admin"], "keys:write"),
            (&["write"], "read"),
            (&["write"], "users:write"),
            (&["users:write"], "users:read"),
            (&["jobs:write", "job_schedules:write"], "jobs"),
        ] {
            assert!(include(scopes, scope), "{scopes:?} {scope}");
        }
        let each: Vec<String> = RESOURCES.iter().map(|resource| format!("{resource}:write")).collect();
        let each: Vec<&str> = each.iter().map(String::as_str).collect();
        for (scopes, scope) in [
            (&[][..], "users:read"),
            (&each, "admin"),
            (&["read"], "write"),
            (&["write"], "keys:read"),
            (&["write"], "jobs"),
            (&["users:read"], "users:write"),
            (&["keys:write"], "read"),
        ] {
            assert!(!include(scopes, scope), "{scopes:?} {scope}");
        }
        assert!(include(&each, "write"));
    }

    #[test]
    fn an_unknown_resource_is_for_admin_only() {
        let most = [Scope::Read, Scope::Write, Scope::Jobs, Scope::Approvals];
        assert!(!Scope::allows(&most, "secrets", Access::Read));
        assert_eq!(Scope::sufficient("secrets", Access::Read), [Scope::Admin]);
    }

    #[test]
    fn the_scopes_that_would_be_enough_are_named_from_the_narrowest() {
        let named = |resource, access| -> Vec<String> {
            Scope::sufficient(resource, access).iter().map(ToString::to_string).collect()
        };
        assert_eq!(named("users", Access::Read), ["users:read", "users:write", "read", "write", "admin"]);
        assert_eq!(named("jobs", Access::Write), ["jobs:write", "jobs", "admin"]);
        assert_eq!(named("keys", Access::Write), ["keys:write", "admin"]);
    }

    #[test]
    fn a_scope_is_written_as_it_is_read() {
        let resources = RESOURCES.iter().flat_map(|resource| [format!("{resource}:read"), format!("{resource}:write")]);
        for text in resources.chain(WORDS.map(|(word, _)| word.to_owned())) {
            assert_eq!(text.parse::<Scope>().expect("a scope").to_string(), text);
            let json = serde_json::to_string(&text).expect("json");
            let scope: Scope = serde_json::from_str(&json).expect("a scope");
            assert_eq!(serde_json::to_string(&scope).expect("json"), json);
        }
        for text in ["", "root", "READ", "users", "users:", "users:admin", "rooms:read", "users:read:write"] {
            let error = text.parse::<Scope>().expect_err(text).to_string();
            assert!(error.starts_with(&format!("scopes: {text:?} is none of read, write")), "{error}");
        }
    }
}
