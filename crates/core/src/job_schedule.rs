//! A schedule: a job that is enqueued again and again.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::{Error, JobScheduleId, NewJob, Result, Timestamp, limits};

/// Runs that were missed by more than this are left out when nothing is said: an hour, in seconds.
pub const DEFAULT_CATCH_UP_SECONDS: i64 = 60 * 60;
/// The longest time that runs are made up for: 30 days, in seconds.
pub const MOST_CATCH_UP_SECONDS: i64 = 30 * 24 * 60 * 60;

/// A schedule.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobSchedule {
    /// Its id.
    pub id: JobScheduleId,
    /// Its name; unique.
    pub name: String,
    /// When: minute, hour, day of the month, month, day of the week, as in crontab(5).
    pub cron: String,
    /// The IANA time zone in which that is read.
    pub time_zone: String,
    /// Each run that is due is enqueued, also when nobody was there at its time; those that were missed by more than
    /// this are left out.
    pub catch_up_seconds: i64,
    /// Whether it enqueues anything.
    pub active: bool,
    /// The job that is enqueued.
    pub job: NewJob,
    /// When the next run is due.
    pub next_run_at: Timestamp,
    /// When the last run was due.
    pub last_run_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A schedule to create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewJobSchedule {
    /// Its name.
    pub name: String,
    /// When: five fields, as in crontab(5).
    pub cron: String,
    /// The IANA time zone in which that is read.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Runs that were missed by more than this are left out.
    #[serde(default = "default_catch_up")]
    pub catch_up_seconds: i64,
    /// The job.
    pub job: NewJob,
}

fn utc() -> String {
    "UTC".to_owned()
}

const fn default_catch_up() -> i64 {
    DEFAULT_CATCH_UP_SECONDS
}

impl NewJobSchedule {
    /// A schedule in UTC.
    pub fn new(name: impl Into<String>, cron: impl Into<String>, job: NewJob) -> Self {
        Self { name: name.into(), cron: cron.into(), time_zone: utc(), catch_up_seconds: default_catch_up(), job }
    }

    /// Refuses what no schedule may have.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field: a cron text or a time zone that cannot be read, a job that breaks a rule,
    /// has an id or a time of its own.
    pub fn check(&self) -> Result<()> {
        limits::check_name("name", &self.name)?;
        Times::parse(&self.cron, &self.time_zone)?;
        check_catch_up(self.catch_up_seconds)?;
        check_job(&self.job)
    }
}

/// Changes of a schedule; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields, default)]
pub struct JobSchedulePatch {
    /// Another name.
    pub name: Option<String>,
    /// Another time; the next run is found anew.
    pub cron: Option<String>,
    /// Another time zone; the next run is found anew.
    pub time_zone: Option<String>,
    /// Runs that were missed by more than this are left out.
    pub catch_up_seconds: Option<i64>,
    /// Whether it enqueues anything; one that becomes active begins with the next run from now.
    pub active: Option<bool>,
    /// Another job.
    pub job: Option<NewJob>,
}

impl JobSchedulePatch {
    /// As [`NewJobSchedule::check`], for what is given.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field.
    pub fn check(&self) -> Result<()> {
        limits::check_optional_name("name", self.name.as_deref())?;
        self.catch_up_seconds.map_or(Ok(()), check_catch_up)?;
        self.job.as_ref().map_or(Ok(()), check_job)
    }
}

fn check_catch_up(seconds: i64) -> Result<()> {
    if (0..=MOST_CATCH_UP_SECONDS).contains(&seconds) {
        return Ok(());
    }
    Err(Error::invalid("catch_up_seconds", format!("is {seconds}; 0 to {MOST_CATCH_UP_SECONDS} are allowed")))
}

fn check_job(job: &NewJob) -> Result<()> {
    job.check().map_err(|error| error.at("job"))?;
    for (field, given) in [("job.id", job.id.is_some()), ("job.run_at", job.run_at.is_some())] {
        if given {
            return Err(Error::invalid(field, "is for the schedule to decide"));
        }
    }
    Ok(())
}

/// The times of a schedule.
#[derive(Debug)]
pub struct Times {
    cron: Cron,
    zone: TimeZone,
}

impl Times {
    /// Reads a cron text of five fields (or `@hourly` and its like), for a time zone.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field `cron` or `time_zone`.
    pub fn parse(cron: &str, time_zone: &str) -> Result<Self> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let unreadable = |error: &dyn std::fmt::Display| {
            let told = "minute hour day month weekday, such as */5 * * * *";
            Error::invalid("cron", format!("{cron:?} cannot be read: {error}; write {told}"))
        };
        let parsed = parser.parse(cron).map_err(|error| unreadable(&error))?;
        let zone = TimeZone::get(time_zone).map_err(|error| {
            Error::invalid("time_zone", format!("{time_zone:?} is no IANA time zone such as Europe/Berlin: {error}"))
        })?;
        let times = Self { cron: parsed, zone };
        // The 30th of February can be written and never comes.
        times.after(Timestamp::from_micros(0)?).map_err(|error| match error {
            Error::Invalid { reason, .. } => unreadable(&reason),
            other => other,
        })?;
        Ok(times)
    }

    /// The first time after `time`. Where a clock is put forward, times that it leaves out come right after the gap;
    /// where it is put back, a fixed time comes once.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the field `cron` when there is none.
    pub fn after(&self, time: Timestamp) -> Result<Timestamp> {
        let never = |error: &dyn std::fmt::Display| Error::invalid("cron", format!("no time comes: {error}"));
        let start = jiff::Timestamp::from_microsecond(time.as_micros()).map_err(|error| never(&error))?;
        let start = start.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&start, false).map_err(|error| never(&error))?;
        Timestamp::from_micros(next.timestamp().as_microsecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(cron: &str, zone: &str, after: &str) -> String {
        let times = Times::parse(cron, zone).expect(cron);
        times.after(after.parse().expect("a time")).expect("a time").to_string()
    }

    #[test]
    fn the_next_time_is_that_of_the_zone() {
        assert_eq!(next("*/15 * * * *", "UTC", "2025-03-01T12:00:00Z"), "2025-03-01T12:15:00.000000Z");
        assert_eq!(next("30 9 * * 1", "UTC", "2025-03-01T12:00:00Z"), "2025-03-03T09:30:00.000000Z");
        assert_eq!(next("0 9 * * *", "Europe/Berlin", "2025-01-01T12:00:00Z"), "2025-01-02T08:00:00.000000Z");
        assert_eq!(next("0 9 * * *", "Europe/Berlin", "2025-07-01T12:00:00Z"), "2025-07-02T07:00:00.000000Z");
    }

    #[test]
    fn what_cannot_be_read_is_told_by_field() {
        for (cron, zone, wanted) in [
            ("every day", "UTC", "cron"),
            ("61 * * * *", "UTC", "cron"),
            ("* * * *", "UTC", "cron"),
            ("0 0 0 * * *", "UTC", "cron"),
            ("0 0 30 2 *", "UTC", "cron"),
            ("* * * * *", "Atlantis/Sunken", "time_zone"),
        ] {
            let error = Times::parse(cron, zone).expect_err(cron);
            assert!(matches!(&error, Error::Invalid { field, .. } if field == wanted), "{cron}: {error:?}");
        }
    }
}
