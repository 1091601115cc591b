//! Schedules of CronJobs: five fields or a name such as `@hourly`, after `robfig/cron`, which Kubernetes uses.

use std::ops::RangeInclusive;

use jiff::civil::{Date, DateTime, time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

/// A parsed schedule with its time zone.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
    zone: TimeZone,
    /// Of `@every 1h30m`: nothing else counts then.
    every: Option<SignedDuration>,
}

/// The values that a field allows, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    bits: u64,
    /// Written as `*`: of day and weekday the other one alone decides then.
    is_any: bool,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// `robfig/cron` gives up after five years: a schedule such as 30 February never comes.
const HORIZON_YEARS: i64 = 5;

impl Schedule {
    /// Reads a schedule; `None` if it is none. Without a zone it is read in UTC.
    pub(crate) fn parse(text: &str, zone: Option<&str>) -> Option<Self> {
        let zone = match zone {
            None | Some("UTC" | "Etc/UTC") => TimeZone::UTC,
            Some(name) => TimeZone::get(name).ok()?,
        };
        let every = match text.trim().strip_prefix("@every ") {
            // Shorter ones are rounded up to a second.
            Some(every) => Some(every.trim().parse::<SignedDuration>().ok()?.max(SignedDuration::from_secs(1))),
            None => None,
        };
        let text = match text.trim() {
            _ if every.is_some() => "* * * * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            minutes: Field::parse(minutes, 0..=59, &[])?,
            hours: Field::parse(hours, 0..=23, &[])?,
            days: Field::parse(days, 1..=31, &[])?,
            months: Field::parse(months, 1..=12, &MONTHS)?,
            weekdays: Field::parse(weekdays, 0..=6, &WEEKDAYS)?,
            zone,
            every,
        })
    }

    /// The first moment of the schedule after another.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if let Some(every) = self.every {
            return after.checked_add(every).ok();
        }
        let local = after.to_zoned(self.zone.clone()).datetime();
        let mut at = local.date().to_datetime(time(local.hour(), local.minute(), 0, 0));
        let end = at.checked_add(Span::new().years(HORIZON_YEARS)).ok()?;
        at = at.checked_add(Span::new().minutes(1)).ok()?;
        while at <= end {
            at = match self.skip(at)? {
                Some(later) => later,
                None => {
                    let moment = at.to_zoned(self.zone.clone()).ok()?.timestamp();
                    // Where clocks are set back the same local time comes twice.
                    if moment > after {
                        return Some(moment);
                    }
                    at.checked_add(Span::new().minutes(1)).ok()?
                }
            };
        }
        None
    }

    /// Where to look next, if this minute is none of the schedule; the outer option is for the end of all times.
    fn skip(&self, at: DateTime) -> Option<Option<DateTime>> {
        let day = |date: Date, days: i32| date.checked_add(Span::new().days(days)).ok().map(|date| date.at(0, 0, 0, 0));
        if !self.months.has(at.month()) {
            return Some(Some(day(at.date().last_of_month(), 1)?));
        }
        let (in_days, in_weekdays) =
            (self.days.has(at.day()), self.weekdays.has(at.date().weekday().to_sunday_zero_offset()));
        let fits =
            if self.days.is_any || self.weekdays.is_any { in_days && in_weekdays } else { in_days || in_weekdays };
        if !fits {
            return Some(Some(day(at.date(), 1)?));
        }
        if !self.hours.has(at.hour()) {
            let hour = at.date().at(at.hour(), 0, 0, 0);
            return Some(Some(hour.checked_add(Span::new().hours(1)).ok()?));
        }
        if !self.minutes.has(at.minute()) {
            return Some(Some(at.checked_add(Span::new().minutes(1)).ok()?));
        }
        Some(None)
    }
}

impl Field {
    fn parse(text: &str, range: RangeInclusive<u32>, names: &[&str]) -> Option<Self> {
        let mut field = Self { bits: 0, is_any: false };
        for part in text.split(',') {
            let (values, step) = match part.split_once('/') {
                Some((values, step)) => (values, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
                None => (part, None),
            };
            let number = |text: &str| -> Option<u32> {
                let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
                let number = match named {
                    Some(index) => u32::try_from(index).ok()? + range.start(),
                    None => text.parse().ok()?,
                };
                range.contains(&number).then_some(number)
            };
            let (first, last) = match (values, values.split_once('-')) {
                ("*" | "?", _) => {
                    field.is_any |= step.is_none_or(|step| step == 1);
                    (*range.start(), *range.end())
                }
                (_, Some((first, last))) => (number(first)?, number(last)?),
                // `5/15` counts on to the end, `5` is one value.
                (one, None) => (number(one)?, if step.is_some() { *range.end() } else { number(one)? }),
            };
            if first > last {
                return None;
            }
            let step = usize::try_from(step.unwrap_or(1)).ok()?;
            for value in (first..=last).step_by(step) {
                field.bits |= 1 << value;
            }
        }
        Some(field)
    }

    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits & (1 << value) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    fn next(schedule: &str, after: &str) -> Option<String> {
        let after = after.parse().ok()?;
        Some(Schedule::parse(schedule, None)?.next_after(after)?.to_string())
    }

    #[test]
    fn the_next_moment_follows_every_field() {
        let monday = "2026-01-05T10:20:30Z";
        for (schedule, expected) in [
            ("* * * * *", "2026-01-05T10:21:00Z"),
            ("*/15 * * * *", "2026-01-05T10:30:00Z"),
            ("5/15 * * * *", "2026-01-05T10:35:00Z"),
            ("20 10 * * *", "2026-01-06T10:20:00Z"),
            ("@hourly", "2026-01-05T11:00:00Z"),
            ("@every 1h30m", "2026-01-05T11:50:30Z"),
            ("0 9-17 * * mon-fri", "2026-01-05T11:00:00Z"),
            ("0 0 13 * 5", "2026-01-09T00:00:00Z"),
            ("0 0 1 feb,mar *", "2026-02-01T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
        ] {
            assert_eq!(next(schedule, monday).as_deref(), Some(expected), "{schedule}");
        }
        assert_eq!(next("0 0 30 2 *", monday), None, "there is no such day");
        for broken in ["", "* * * *", "60 * * * *", "* * * * 7", "*/0 * * * *", "5-1 * * * *", "@never", "a * * * *"] {
            assert!(Schedule::parse(broken, None).is_none(), "{broken}");
        }
    }
}
