#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aviary_crds::Phase;

use super::{Options, Report, run};
use crate::args::Speed;

fn play(good_error_rate: f64, bad_error_rate: f64, live: bool) -> (Report, String) {
    let mut out = Vec::new();
    let options = Options { speed: Speed::Max, good_error_rate, bad_error_rate, live, color: live };
    let report = run(&options, &mut out).unwrap();
    (report, String::from_utf8(out).unwrap())
}

/// The lines with this text, without times.
fn lines<'a>(text: &'a str, part: &str) -> Vec<&'a str> {
    text.lines()
        .filter(|line| line.contains(part))
        .filter_map(|line| line.split_once("canary/podinfo  "))
        .map(|(_, line)| line)
        .collect()
}

#[test]
fn the_good_release_is_promoted_and_the_bad_one_rolled_back() {
    let (report, text) = play(0.0, 0.1, false);
    assert!(report.is_as_expected(), "{text}");
    let [good, bad] = report.releases.as_slice() else { panic!("two releases") };
    assert_eq!((good.version.as_str(), bad.version.as_str()), ("6.0.1", "6.0.2"));

    // Users: a good release loses nothing, and a bad one hurts only those who met it.
    assert!(good.requests.canary.requests > 0.0 && good.requests.all.requests > good.requests.canary.requests);
    assert_eq!(good.requests.all.failures, 0.0, "{text}");
    assert_eq!(bad.requests.primary.failures, 0.0, "{text}");
    let met = bad.requests.canary;
    assert!(
        (met.failures / met.requests - 0.1).abs() < 0.001 && met.requests < bad.requests.all.requests / 5.0,
        "{text}"
    );

    // The operator reads from its watches alone.
    assert_eq!((good.reads, bad.reads), (0, 0));

    let weights = lines(&text, "Advance podinfo.test canary weight");
    let advance = |weight: &str| format!("Advance podinfo.test canary weight {weight}");
    assert_eq!(weights, ["10", "20", "30", "40", "50", "10  (x2)"].map(advance), "{text}");
    assert_eq!(lines(&text, "Promotion completed!"), ["Promotion completed! Scaling down podinfo.test"]);
    assert_eq!(lines(&text, "Rolling back"), ["Rolling back podinfo.test failed checks threshold reached 3"]);
    assert!(!text.contains('\x1b'), "plain output has no escapes");

    assert_eq!(report.surprise(), None);
    assert_eq!(bad.halts.len(), 3, "{text}");
    let end = text.lines().rev().find(|line| !line.is_empty()).unwrap_or_default();
    assert!(
        end.starts_with("6.0.2: ") && end.contains("3 checks failed, the last one because of success rate 9"),
        "{end}"
    );

    // The picture changes nothing of what stands above it.
    let (_, live) = play(0.0, 0.1, true);
    let in_order = |text: &str| -> Vec<String> {
        let news = text.lines().filter_map(|line| line.split_once("canary/podinfo  ")).map(|(_, line)| line);
        news.map(|line| line.trim_end_matches("\x1b[0m").to_owned()).collect()
    };
    assert_eq!(in_order(&live), in_order(&text));
}

#[test]
fn a_good_version_that_fails_requests_is_rolled_back() {
    let (report, text) = play(0.1, 0.1, false);
    assert_eq!(
        report.releases.iter().map(|release| release.phase).collect::<Vec<_>>(),
        [Phase::Failed, Phase::Failed],
        "{text}"
    );
    assert!(!report.is_as_expected());
    assert!(text.ends_with("expected 6.0.1 to be promoted, but it was rolled back\n"), "{text}");
    assert!(lines(&text, "Promotion completed!").is_empty());
}

#[test]
fn a_bad_version_without_failures_is_promoted() {
    let (report, text) = play(0.0, 0.0, true);
    assert_eq!(
        report.releases.iter().map(|release| release.phase).collect::<Vec<_>>(),
        [Phase::Succeeded; 2],
        "{text}"
    );
    assert!(!report.is_as_expected());
    assert_eq!(report.surprise().as_deref(), Some("expected 6.0.2 to be rolled back, but it was promoted"));
    assert!(text.contains("\x1b[") && text.contains("canary  ") && text.contains("100.00 %"), "{text}");
}
