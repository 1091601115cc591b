#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn fleet(options: &Options) -> Report {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .try_init();
    run(options).unwrap()
}

#[test]
fn every_release_of_a_small_fleet_ends_as_it_should_and_idle_canaries_cost_nothing() {
    let report = fleet(&Options { canaries: 50, namespaces: 5, releases: 10, ..Options::default() });
    assert_eq!(report.releases.wrong, [""; 0], "{report}");
    assert_eq!((report.releases.promoted, report.releases.rolled_back), (5, 5));
    assert_eq!((report.quiet.calls, report.quiet.queries), (0, 0), "{report}");
    assert_eq!((report.calls.of_idle_canaries, report.calls.reads), (0, 0), "{report}");
    assert_eq!((report.violations, report.restarts, report.events_dropped), (0, 0, 0));
    assert!(report.calls.writes > 0 && report.calls.event_writes > 0 && report.queries.asked > 0, "{report}");
    assert!(report.decisions.count > 0);
}

#[test]
fn a_canary_can_release_again_after_success_and_after_failure() {
    let report = fleet(&Options { canaries: 2, namespaces: 1, releases: 8, ..Options::default() });
    assert_eq!(report.releases.wrong, [""; 0], "{report}");
    assert_eq!((report.releases.promoted, report.releases.rolled_back), (4, 4));
}
