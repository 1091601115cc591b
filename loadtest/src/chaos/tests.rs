#![allow(clippy::unwrap_used)]

use super::*;
use crate::random::Random;

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
    let report = Report {
        first_seed: 1,
        worlds: 7,
        rollouts: 20,
        faults: 3,
        deaths: 2,
        misjudged: 0,
        seconds: 1.0,
        failures: vec![failure],
    };
    let text = report.to_string();
    assert!(
        text.contains("seed 7 failed") && text.contains("weights sum to 90") && text.contains("--seed 7"),
        "{text}"
    );
}

/// What a story can hold is told in some of them: nothing is there for show.
#[test]
fn every_kind_of_story_is_told() {
    use story::{Change, Deed, Gate, Quality, Strategy};

    let tales: Vec<story::Tale> = (0..40).flat_map(|seed| story::tales(&mut Random::new(seed))).collect();
    let releases = || tales.iter().flat_map(|tale| &tale.releases);
    let strategies = [
        Strategy::Weights,
        Strategy::Sticky,
        Strategy::AbTest,
        Strategy::BlueGreenMirrored,
        Strategy::BlueGreenUnjudged,
    ];
    for strategy in strategies {
        assert!(tales.iter().any(|tale| tale.shape.strategy == strategy), "{strategy:?}");
    }
    for quality in
        [Quality::Good, Quality::Failing, Quality::Broken, Quality::Slow, Quality::Unready, Quality::Crashing]
    {
        assert!(releases().any(|release| release.quality == quality), "{quality:?}");
    }
    let deeds = || releases().flat_map(|release| release.deeds.iter().map(|(_, deed)| *deed));
    for gate in [Gate::Rollout, Gate::TrafficIncrease, Gate::Promotion, Gate::Rollback] {
        assert!(deeds().any(|deed| deed == Deed::Open(gate)), "{gate:?}");
    }
    let shapes = || tales.iter().map(|tale| &tale.shape);
    let deleted = |during: bool, reverts: bool| {
        let farewells = || tales.iter().filter_map(|tale| tale.farewell.as_ref());
        farewells().any(|farewell| farewell.during.is_some() == during && farewell.reverts == reverts)
    };
    for (what, is_told) in [
        ("suspended", deeds().any(|deed| deed == Deed::Suspend)),
        ("another interval", deeds().any(|deed| matches!(deed, Deed::Interval(_)))),
        ("another window", deeds().any(|deed| matches!(deed, Deed::Window(_)))),
        ("called back", releases().any(|release| release.is_called_back)),
        ("withdrawn", releases().any(|release| release.withdrawn.is_some())),
        ("replaced", releases().any(|release| release.replaces.is_some())),
        ("a new config", releases().any(|release| release.change == Change::Config)),
        ("no analysis", shapes().any(|shape| shape.skips_analysis)),
        ("an autoscaler", shapes().any(|shape| shape.is_scaled && !shape.is_scaled_by_keda())),
        ("an autoscaler of KEDA's", shapes().any(|shape| shape.is_scaled && shape.is_scaled_by_keda())),
        ("deleted at rest", deleted(false, false)),
        ("deleted at rest, given back", deleted(false, true)),
        ("deleted in a run", deleted(true, false)),
        ("deleted in a run, given back", deleted(true, true)),
    ] {
        assert!(is_told, "{what}");
    }
}

#[test]
fn lies_excuse_no_verdict_that_needs_no_metrics() {
    let tales: Vec<story::Tale> = (0..40).flat_map(|seed| story::tales(&mut Random::new(seed))).collect();
    let all = || tales.iter().flat_map(|tale| tale.releases.iter().map(|release| (release, tale.shape.skips_analysis)));
    let mut excused = 0;
    for (release, skips) in all() {
        let is_sure = matches!(release.quality, story::Quality::Unready | story::Quality::Crashing)
            || release.is_called_back
            || skips;
        let ends = |lies| ["Succeeded", "Failed"].map(|phase| release.may_end(phase, lies, skips));
        assert_eq!(ends(false).iter().filter(|may| **may).count(), 1, "{release:?}");
        assert_eq!(ends(true) == ends(false), is_sure, "{release:?}");
        assert!(!release.may_end("Progressing", true, skips));
        excused += u64::from(!is_sure);
    }
    assert!(excused > 0);
}
