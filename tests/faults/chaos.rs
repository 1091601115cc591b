//! Thousands of releases with faults by seed; a million by `aviary-loadtest chaos --rollouts 1000000`.

use aviary_loadtest::chaos::{Options, run};

/// Releases in every run of the tests: some three minutes of two cores, unoptimised. `AVIARY_ROLLOUTS` asks for more or less.
const ROLLOUTS: u64 = 2_000;

#[test]
fn releases_end_as_they_would_without_faults() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = Options {
        rollouts: number("AVIARY_ROLLOUTS").unwrap_or(ROLLOUTS),
        seed: number("AVIARY_SEED").unwrap_or(1),
        threads,
    };
    let report = run(&options, |_| {}).unwrap();
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.rollouts >= options.rollouts && report.faults > 0 && report.deaths > 0, "{report}");
    // Fewer may all end as they should in spite of the lies.
    assert!(report.misjudged > 0 || report.rollouts < ROLLOUTS, "{report}");
    println!("{report}");
}
