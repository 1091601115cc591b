//! Queries of the target's triggers, asked about the primary.
//!
//! Flagger replaces the name of the target wherever its letters occur: the metric `podinfo_requests_total` becomes
//! `podinfo-primary_requests_total`, and another workload `podinfo-web` becomes `podinfo-primary-web`. Here the name
//! counts where it stands for the target: alone, or before what tells its pods apart in a pattern (`podinfo-.*`).

use aviary_crds::names::{CANARY_SUFFIX, PRIMARY_SUFFIX};

/// The query with `<target>-primary` in place of `<target>` and `<target>-canary`.
pub(super) fn of_primary(query: &str, target: &str) -> String {
    if target.is_empty() {
        return query.to_owned();
    }
    let mut rewritten = String::with_capacity(query.len() + PRIMARY_SUFFIX.len());
    let mut rest = query;
    while let Some(position) = rest.find(target) {
        let (before, found) = rest.split_at(position);
        let after = &found[target.len()..];
        rewritten.push_str(before);
        let (replacement, length) = match begins_a_name(&rewritten) {
            true => occurrence(target, after),
            false => (target.to_owned(), target.len()),
        };
        rewritten.push_str(&replacement);
        rest = &found[length..];
    }
    rewritten.push_str(rest);
    rewritten
}

/// What stands for the target before `after`, and how much of the query that replaces.
fn occurrence(target: &str, after: &str) -> (String, usize) {
    let primary = format!("{target}{PRIMARY_SUFFIX}");
    for suffix in [CANARY_SUFFIX, PRIMARY_SUFFIX] {
        if after.strip_prefix(suffix).is_some_and(ends_a_name) {
            return (primary, target.len() + suffix.len());
        }
    }
    if ends_a_name(after) { (primary, target.len()) } else { (target.to_owned(), target.len()) }
}

fn is_part_of_a_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Whether a name may begin after this.
fn begins_a_name(before: &str) -> bool {
    let mut letters = before.chars().rev();
    match letters.next() {
        Some('-') => !letters.next().is_some_and(is_part_of_a_name),
        Some(letter) => !is_part_of_a_name(letter),
        None => true,
    }
}

/// Whether a name may end before this. A dash or a colon goes on to a longer name only if more of it follows: patterns of
/// pods (`-.*`) and ports (`:9898`) do not.
fn ends_a_name(after: &str) -> bool {
    let mut letters = after.chars();
    match letters.next() {
        Some('-') => !letters.next().is_some_and(is_part_of_a_name),
        Some(':') => !letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_'),
        Some(letter) => !is_part_of_a_name(letter),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::of_primary;

    #[test]
    fn queries_ask_about_the_primary() {
        for (query, expected) in [
            // What Flagger's own tests have.
            (
                r#"sum(rate(http_requests_total{app="podinfo"}[2m]))"#,
                r#"sum(rate(http_requests_total{app="podinfo-primary"}[2m]))"#,
            ),
            (
                r#"sum(rate(http_requests_total{app="podinfo-canary"}[2m]))"#,
                r#"sum(rate(http_requests_total{app="podinfo-primary"}[2m]))"#,
            ),
            (
                r#"sum(rate(envoy{job=~"podinfo-canary", x="podinfo"}[30s]))"#,
                r#"sum(rate(envoy{job=~"podinfo-primary", x="podinfo-primary"}[30s]))"#,
            ),
            // Patterns of its pods, its address, a tag of Datadog.
            (r#"{pod=~"podinfo-.*"}"#, r#"{pod=~"podinfo-primary-.*"}"#),
            (r#"{pod=~"podinfo-[0-9a-z]+-[0-9a-z]+"}"#, r#"{pod=~"podinfo-primary-[0-9a-z]+-[0-9a-z]+"}"#),
            (r#"{pod=~"podinfo-canary-.*"}"#, r#"{pod=~"podinfo-primary-.*"}"#),
            (r#"{pod=~"podinfo.+"}"#, r#"{pod=~"podinfo-primary.+"}"#),
            (r#"{instance="podinfo:9898"}"#, r#"{instance="podinfo-primary:9898"}"#),
            ("sum:requests{service:podinfo}.as_count()", "sum:requests{service:podinfo-primary}.as_count()"),
            (r#"{pod=~"(podinfo|other)-.*"}"#, r#"{pod=~"(podinfo-primary|other)-.*"}"#),
            ("podinfo", "podinfo-primary"),
        ] {
            assert_eq!(of_primary(query, "podinfo"), expected);
            assert_eq!(of_primary(expected, "podinfo"), expected, "twice is once");
        }
    }

    #[test]
    fn longer_names_are_others() {
        for query in [
            r#"sum(podinfo_requests_total{app="web"})"#,
            r#"{app="podinfo-web"}"#,
            r#"{app="podinfo-canary-web"}"#,
            r#"{app="my-podinfo"}"#,
            r#"{app="mypodinfo", other="podinfo2"}"#,
            "podinfo:requests:rate5m",
            r#"{app="podinfo-primary"}"#,
            "",
        ] {
            assert_eq!(of_primary(query, "podinfo"), query);
        }
    }
}
