//! Which canaries release what, and when.

use std::time::Duration;

use super::Options;
use crate::objects;
use crate::random::Random;

/// A new revision of one canary's workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Release {
    /// Index of the canary.
    pub(super) canary: usize,
    /// Time since the beginning.
    pub(super) at: Duration,
    pub(super) fails: bool,
    pub(super) image: String,
}

/// How long a release takes at most, in analysis intervals: five weights, two more for the moments between them, and
/// three for checks that are repeated because Prometheus scrapes late.
const RUN_INTERVALS: u32 = 10;
/// Time for pods to start and stop, four times in one release, each in a few seconds.
const RUN_PODS: Duration = Duration::from_secs(60);

/// Time within which a release has ended.
pub(super) fn longest_run(interval: Duration) -> Duration {
    interval * RUN_INTERVALS + RUN_PODS
}

/// The releases in order of time, and all ended before the time is over. Where there are more of them than canaries,
/// a canary's next release begins when its last one has ended.
///
/// # Errors
/// There is not enough time.
pub(super) fn releases(options: &Options) -> anyhow::Result<Vec<Release>> {
    if options.releases == 0 {
        return Ok(Vec::new());
    }
    anyhow::ensure!(options.canaries > 0, "releases need canaries");
    let run = longest_run(options.interval);
    let rounds = options.releases.div_ceil(options.canaries);
    let round = options.time / u32::try_from(rounds)?;
    let Some(spread) = round.checked_sub(run) else {
        anyhow::bail!("{} releases of {} canaries need {run:?} each", options.releases, options.canaries);
    };
    let mut random = Random::new(options.seed);
    let mut fates: Vec<bool> = (0..options.releases).map(|index| index < failing(options)).collect();
    random.shuffle(&mut fates);
    let mut releases = Vec::new();
    for (number, fates) in (0_u32..).zip(fates.chunks(options.canaries)) {
        let mut canaries: Vec<usize> = (0..options.canaries).collect();
        random.shuffle(&mut canaries);
        for (canary, fails) in canaries.into_iter().zip(fates) {
            let at = round * number + spread.mul_f64(random.unit());
            let image = objects::image(number + 1, if *fails { objects::BROKEN } else { "" });
            releases.push(Release { canary, at, fails: *fails, image });
        }
    }
    releases.sort_by_key(|release| release.at);
    Ok(releases)
}

/// How many releases fail.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn failing(options: &Options) -> usize {
    (options.releases as f64 * options.failing.clamp(0.0, 1.0)).round() as usize
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::*;

    fn options(canaries: usize, releases: usize, seed: u64) -> Options {
        Options { canaries, releases, seed, ..Options::default() }
    }

    #[test]
    fn a_canary_never_releases_twice_at_once() {
        let options = options(7, 30, 3);
        let planned = releases(&options).unwrap();
        assert_eq!(planned.len(), 30);
        assert_eq!(planned.iter().filter(|release| release.fails).count(), 15);
        let run = longest_run(options.interval);
        let mut last: BTreeMap<usize, &Release> = BTreeMap::new();
        for release in &planned {
            assert!(release.at + run <= options.time);
            if let Some(before) = last.insert(release.canary, release) {
                assert!(before.at + run <= release.at, "{before:?} {release:?}");
                assert_ne!(before.image, release.image);
            }
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(releases(&options(50, 10, 1)).unwrap(), releases(&options(50, 10, 1)).unwrap());
        assert_ne!(releases(&options(50, 10, 1)).unwrap(), releases(&options(50, 10, 2)).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(releases(&options(1, 1000, 1)).is_err());
        assert!(releases(&options(0, 1, 1)).is_err());
        assert!(releases(&options(0, 0, 1)).unwrap().is_empty());
    }
}
