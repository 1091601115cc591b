#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn the_same_seed_gives_the_same_run() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    for (story, trouble) in [(0, Trouble::Honest(1)), (1, Trouble::Lying(7))] {
        let [once, again] = [(); 2].map(|()| {
            let end = world::play(story, trouble).unwrap();
            (end.faults, end.deaths, end.story)
        });
        assert!(once.0 > 0, "{trouble:?} hits nothing");
        assert_eq!(once, again, "{trouble:?}");
    }
}

#[test]
fn a_world_that_goes_wrong_is_told_with_the_command_that_plays_it_again() {
    let failure = Failure { seed: 7, problems: vec!["test/podinfo: weights sum to 90".to_owned()] };
    let report =
        Report { first_seed: 1, worlds: 7, rollouts: 20, faults: 3, deaths: 2, seconds: 1.0, failures: vec![failure] };
    let text = report.to_string();
    assert!(
        text.contains("seed 7 failed") && text.contains("weights sum to 90") && text.contains("--seed 7"),
        "{text}"
    );
}
