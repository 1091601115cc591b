//! What users release, and what they do while it is analysed.

use std::time::Duration;

use super::shape::{Gate, Shape, Strategy};
use crate::objects;
use crate::random::Random;

/// How a revision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chaos) enum Quality {
    Good,
    /// Fails a tenth of its requests.
    Failing,
    /// Fails every request.
    Broken,
    /// Takes a second for a request.
    Slow,
    /// Its pods never become ready.
    Unready,
    /// Its pods crash.
    Crashing,
}

impl Quality {
    /// The part of an image's tag by which a world tells how it behaves.
    pub(in crate::chaos) fn suffix(self) -> &'static str {
        match self {
            Quality::Good => "",
            Quality::Failing => "-failing",
            Quality::Broken => objects::BROKEN,
            Quality::Slow => "-slow",
            Quality::Unready => "-noready",
            Quality::Crashing => "-crash",
        }
    }
}

/// What is new in a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chaos) enum Change {
    Image,
    /// What the pods read from a ConfigMap.
    Config,
}

/// Something that a user does while a release is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chaos) enum Deed {
    Open(Gate),
    Suspend,
    Resume,
    /// Another interval of the analysis, in seconds.
    Interval(u64),
    /// Checks look back for this long, in seconds.
    Window(u64),
}

/// One new revision.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::chaos) struct Release {
    pub(in crate::chaos) change: Change,
    /// The image that it runs.
    pub(in crate::chaos) image: String,
    pub(in crate::chaos) quality: Quality,
    /// How long the canary was at rest before.
    pub(in crate::chaos) pause: Duration,
    /// An attempt before, which is taken back to what is promoted after so long.
    pub(in crate::chaos) withdrawn: Option<(String, Duration)>,
    /// An earlier attempt, replaced after so long: before its analysis can have ended.
    pub(in crate::chaos) replaces: Option<(String, Duration)>,
    /// What happens meanwhile, by the time since its beginning.
    pub(in crate::chaos) deeds: Vec<(Duration, Deed)>,
    /// It is good, and somebody rolls it back.
    pub(in crate::chaos) is_called_back: bool,
}

impl Release {
    /// Whether it may end in this phase. Where the metrics lie, only those verdicts are sure that need none: pods that are
    /// not ready are never promoted, and a rollback on demand is one.
    pub(in crate::chaos) fn may_end(&self, phase: &str, metrics_lie: bool, skips_analysis: bool) -> bool {
        let starts = !matches!(self.quality, Quality::Unready | Quality::Crashing);
        if metrics_lie && !skips_analysis && starts && !self.is_called_back {
            return matches!(phase, "Succeeded" | "Failed");
        }
        let is_good = self.quality == Quality::Good && !self.is_called_back;
        phase == if is_good { "Succeeded" } else { "Failed" }
    }
}

/// The releases of one canary.
pub(super) fn releases(count: u64, shape: &Shape, random: &mut Random) -> Vec<Release> {
    let mut releases: Vec<Release> = Vec::new();
    for number in 0..count {
        let release = release(u32::try_from(number).unwrap_or(0), &releases, shape, random);
        let is_slow = release.quality == Quality::Slow;
        releases.push(release);
        // What a slow version leaves in the counters limits how Prometheus extrapolates the next one's buckets, each
        // differently (the counter's zero point), and shows slow requests that there were not.
        if is_slow {
            break;
        }
    }
    releases
}

fn release(number: u32, former: &[Release], shape: &Shape, random: &mut Random) -> Release {
    let quality = quality(shape, random);
    // Whether an attempt that was replaced had come so far as to give cookies is a matter of moments, and the routes remember.
    let can_try = !shape.skips_analysis && shape.strategy != Strategy::Sticky;
    // Attempts are such as cannot end by themselves. A version that serves would leave its failures in the window of the
    // next one's queries, and a good one could be promoted, rightly, while an outage hides that it was replaced; then
    // there is another end.
    let attempt = |number: u32, random: &mut Random| {
        let quality = random.pick([Quality::Unready, Quality::Crashing]);
        (objects::image(number, quality.suffix()), shape.interval.mul_f64(random.unit()))
    };
    // With a config that has failed, going back to the promoted image is a release of its own.
    let withdrawn = (can_try && !shape.has_config && random.below(6) == 0).then(|| attempt(number * 3 + 1, random));
    let changes_config = shape.has_config && random.below(2) == 0;
    let replaces = (can_try && !changes_config && random.below(4) == 0).then(|| attempt(number * 3 + 2, random));
    // What the pods read is as good as the image that they run.
    let (change, image, quality) = match (changes_config, former.last()) {
        (false, _) => (Change::Image, objects::image(number * 3 + 3, quality.suffix()), quality),
        (true, Some(last)) => (Change::Config, last.image.clone(), last.quality),
        (true, None) => (Change::Config, objects::image(0, ""), Quality::Good),
    };
    let is_called_back = quality == Quality::Good
        && [Gate::Promotion, Gate::Rollback].iter().all(|gate| shape.gates.contains(gate))
        && random.below(2) == 0;
    Release {
        change,
        image,
        quality,
        // The checks look back one minute and count both versions as one workload.
        pause: Duration::from_secs(90 + random.below(60)),
        withdrawn,
        replaces,
        deeds: deeds(shape, is_called_back, random),
        is_called_back,
    }
}

fn quality(shape: &Shape, random: &mut Random) -> Quality {
    match (random.below(10), shape.strategy) {
        // Nobody would see what is wrong with it.
        _ if shape.skips_analysis => Quality::Good,
        (0..=3, Strategy::BlueGreenUnjudged) => Quality::Good,
        (0 | 1, _) => Quality::Failing,
        (2, _) => Quality::Broken,
        (3, _) => Quality::Slow,
        (4, _) => Quality::Unready,
        (5, _) => Quality::Crashing,
        _ => Quality::Good,
    }
}

fn deeds(shape: &Shape, is_called_back: bool, random: &mut Random) -> Vec<(Duration, Deed)> {
    let mut deeds = Vec::new();
    for gate in &shape.gates {
        let at = Duration::from_secs(random.below(2) * random.below(180));
        match gate {
            // Only if it is not called back by another gate, without which it would go on to its end.
            Gate::Promotion if is_called_back => {}
            Gate::Rollback if !is_called_back => {}
            gate => deeds.push((at, Deed::Open(*gate))),
        }
    }
    if random.below(6) == 0 {
        let at = random.below(120);
        deeds.push((Duration::from_secs(at), Deed::Suspend));
        deeds.push((Duration::from_secs(at + 1 + random.below(180)), Deed::Resume));
    }
    if random.below(6) == 0 {
        let interval = random.pick([10, 15, 30]);
        deeds.push((Duration::from_secs(random.below(120)), Deed::Interval(interval)));
    }
    if random.below(6) == 0 && shape.strategy != Strategy::BlueGreenUnjudged {
        // Longer would show what the release before did.
        let window = random.pick([30, 45, 60]);
        deeds.push((Duration::from_secs(random.below(120)), Deed::Window(window)));
    }
    deeds.sort_by_key(|(at, _)| *at);
    deeds
}
