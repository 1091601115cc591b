//! Weights of a TrafficSplit: quantities or numbers, of which only the proportion matters.

use aviary_rollout::Split;
use serde_json::Value;

use super::{Sides, is_of};

/// The weights of primary and canary in thousandths; `None` where one of them is missing or none.
pub(super) fn of_sides(backends: &[Value], sides: &Sides) -> Option<(u64, u64)> {
    let of = |service: &str| thousandths(backends.iter().find(|backend| is_of(backend, service))?.get("weight")?);
    Some((of(&sides.primary)?, of(&sides.canary)?))
}

/// The split that weights stand for; `None` if both are zero, or if the parts are no whole percents.
pub(super) fn split(primary: u64, canary: u64) -> Option<Split> {
    let total = primary.checked_add(canary).filter(|total| *total > 0)?;
    let percent = canary.checked_mul(100)?;
    let canary = u32::try_from(percent / total).ok()?;
    (percent % total == 0).then(|| Split::to_canary(canary))
}

/// A weight of a TrafficSplit in thousandths, as `10`, `"10"`, `"100m"` and `"0.1"` say it. More than a person would write is none.
pub fn thousandths(weight: &Value) -> Option<u64> {
    let text = match weight {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return None,
    };
    if let Some(thousandths) = text.strip_suffix('m') {
        return digits(thousandths);
    }
    let (whole, part) = text.split_once('.').unwrap_or((&text, ""));
    // Numbers beyond thousandths are no weights that anybody sets; "10.0" is what a float of 10 looks like.
    if part.len() > 3 || (part.is_empty() && text.contains('.')) {
        return None;
    }
    let part = digits(&format!("{part:0<3}"))?;
    digits(whole)?.checked_mul(1000)?.checked_add(part)
}

fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{split, thousandths};

    #[test]
    fn weights_are_numbers_or_quantities() {
        for (weight, expected) in [
            (json!(10), Some(10_000)),
            (json!("10"), Some(10_000)),
            (json!("100m"), Some(100)),
            (json!("0.5"), Some(500)),
            (json!(10.0), Some(10_000)),
            (json!("-1"), None),
            (json!(-1), None),
            (json!("1e3"), None),
            (json!(""), None),
            (json!("m"), None),
            (json!(null), None),
            (json!("99999999999999999999"), None),
        ] {
            assert_eq!(thousandths(&weight), expected, "{weight}");
        }
    }

    #[test]
    fn only_the_proportion_matters() {
        assert_eq!(split(900, 100).map(|split| split.canary), Some(10));
        assert_eq!(split(0, 5).map(|split| split.canary), Some(100));
        assert_eq!(split(1000, 3000).map(|split| (split.primary, split.canary)), Some((25, 75)));
        assert_eq!(split(2, 1), None);
        assert_eq!(split(0, 0), None);
    }
}
