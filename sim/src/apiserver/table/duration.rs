//! Ages as `kubectl` shows them (`duration.HumanDuration` of `apimachinery`).

use jiff::Timestamp;
use serde_json::Value;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY_HOURS: i64 = 24;
const YEAR_DAYS: i64 = 365;

/// A span of time in at most two units, coarser the longer it is.
pub(super) fn human(seconds: i64) -> String {
    // Clocks of two machines may differ a little: a second in the future counts as now.
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / MINUTE, seconds / HOUR);
    let days = hours / DAY_HOURS;
    match () {
        () if seconds < 2 * MINUTE => format!("{seconds}s"),
        () if minutes < 10 => two_units(minutes, "m", seconds % MINUTE, "s"),
        () if minutes < 3 * 60 => format!("{minutes}m"),
        () if hours < 8 => two_units(hours, "h", minutes % 60, "m"),
        () if hours < 2 * DAY_HOURS => format!("{hours}h"),
        () if days < 8 => two_units(days, "d", hours % DAY_HOURS, "h"),
        () if days < 2 * YEAR_DAYS => format!("{days}d"),
        () if days < 8 * YEAR_DAYS => two_units(days / YEAR_DAYS, "y", days % YEAR_DAYS, "d"),
        () => format!("{}y", days / YEAR_DAYS),
    }
}

fn two_units(large: i64, large_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 { format!("{large}{large_unit}") } else { format!("{large}{large_unit}{small}{small_unit}") }
}

/// The time since a moment, e.g. a creation timestamp; `<unknown>` without one.
pub(super) fn since(moment: &Value, now: Timestamp) -> String {
    match moment.as_str().and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(moment) => human(whole_seconds(now, moment)),
        None => "<unknown>".to_owned(),
    }
}

/// Seconds between two moments, towards zero as Go converts a duration.
pub(super) fn whole_seconds(later: Timestamp, earlier: Timestamp) -> i64 {
    i64::try_from((later.as_nanosecond() - earlier.as_nanosecond()) / 1_000_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{DAY_HOURS, HOUR, MINUTE, YEAR_DAYS, human};

    #[test]
    fn ages_read_as_kubectl_prints_them() {
        let day = DAY_HOURS * HOUR;
        let year = YEAR_DAYS * day;
        for (seconds, expected) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (10 * MINUTE - 1, "9m59s"),
            (10 * MINUTE + 5, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 5 * MINUTE, "3h5m"),
            (8 * HOUR + 5 * MINUTE, "8h"),
            (2 * day - 1, "47h"),
            (2 * day + HOUR, "2d1h"),
            (8 * day + HOUR, "8d"),
            (2 * year - 1, "729d"),
            (2 * year, "2y"),
            (3 * year + 2 * day, "3y2d"),
            (9 * year + 2 * day, "9y"),
        ] {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
    }
}
