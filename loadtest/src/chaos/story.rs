//! What users do in one world: canaries, and the revisions that they release. Decided by the seed alone.

use std::time::Duration;

use serde_json::{Value, json};

use crate::objects::{self, Name};
use crate::random::Random;

/// Canaries of one world: enough that one's trouble could show in another, few enough that a world that fails can be read.
const CANARIES: usize = 8;
/// Namespaces that they share.
const NAMESPACES: usize = 3;
/// Releases of each canary at most.
const MOST_RELEASES: u64 = 4;

/// How a revision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quality {
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
    pub(super) fn suffix(self) -> &'static str {
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

/// One new revision.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Revision {
    pub(super) image: String,
    pub(super) quality: Quality,
    /// How long the canary was at rest before.
    pub(super) pause: Duration,
    /// An earlier attempt, replaced after so long: before its analysis can have ended.
    pub(super) replaces: Option<(String, Duration)>,
}

impl Revision {
    pub(super) fn expected_phase(&self) -> &'static str {
        if self.quality == Quality::Good { "Succeeded" } else { "Failed" }
    }
}

/// One canary and its releases.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tale {
    pub(super) name: Name,
    pub(super) canary: Value,
    pub(super) releases: Vec<Revision>,
}

impl Tale {
    /// Whether users get requests failed by a new version.
    pub(super) fn fails_requests(&self) -> bool {
        self.releases.iter().any(|release| matches!(release.quality, Quality::Failing | Quality::Broken))
    }
}

/// The tales of a world.
pub(super) fn tales(random: &mut Random) -> Vec<Tale> {
    (0..CANARIES).map(|index| tale(index, random)).collect()
}

fn tale(index: usize, random: &mut Random) -> Tale {
    let name = objects::name(index, NAMESPACES);
    // Long enough that Prometheus has scraped twice before the first check: one sample gives no rate.
    let interval = Duration::from_secs(random.pick([10, 15, 30]));
    let mut canary = objects::canary(&name, interval);
    let analysis = &mut canary["spec"]["analysis"];
    analysis["threshold"] = json!(random.pick([2, 3, 5]));
    match random.below(8) {
        0 => {
            analysis["stepWeights"] = if random.below(2) == 0 { json!([5, 20, 60]) } else { json!([1, 2, 10, 80]) };
            remove(analysis, &["stepWeight", "maxWeight"]);
        }
        1 => {
            analysis["stepWeight"] = json!(25);
            analysis["maxWeight"] = json!(100);
            analysis["stepWeightPromotion"] = json!(random.pick([20, 50]));
        }
        2 => analysis["mirror"] = json!(true),
        3 => analysis["sessionAffinity"] = json!({"cookieName": "canary-ck", "primaryCookieName": "primary-ck"}),
        // Judged by copies of the requests: nothing else sends any before everybody does.
        4 => {
            analysis["iterations"] = json!(random.pick([1, 3]));
            analysis["mirror"] = json!(true);
            remove(analysis, &["stepWeight", "maxWeight"]);
        }
        _ => analysis["stepWeight"] = json!(random.pick([10, 20, 50])),
    }
    let skips = random.below(8) == 0;
    canary["spec"]["skipAnalysis"] = json!(skips);
    canary["spec"]["revertOnDeletion"] = json!(random.below(4) == 0);
    let count = 1 + random.below(MOST_RELEASES);
    let mut releases: Vec<Revision> = (0..count).map(|number| revision(number, interval, skips, random)).collect();
    // What a slow version leaves in the counters limits how Prometheus extrapolates the next one's buckets, each
    // differently (the counter's zero point), and shows slow requests that there were not.
    if let Some(slow) = releases.iter().position(|release| release.quality == Quality::Slow) {
        releases.truncate(slow + 1);
    }
    // Whether an attempt that was replaced had come so far as to give cookies is a matter of moments, and the routes remember.
    if canary["spec"]["analysis"].get("sessionAffinity").is_some() {
        releases.iter_mut().for_each(|release| release.replaces = None);
    }
    Tale { name, canary, releases }
}

fn revision(number: u64, interval: Duration, skips_analysis: bool, random: &mut Random) -> Revision {
    let number = u32::try_from(number).unwrap_or(0);
    let quality = match random.below(10) {
        // Nobody would see what is wrong with it.
        _ if skips_analysis => Quality::Good,
        0 | 1 => Quality::Failing,
        2 => Quality::Broken,
        3 => Quality::Slow,
        4 => Quality::Unready,
        5 => Quality::Crashing,
        _ => Quality::Good,
    };
    // A version that serves would leave its failures in the window of the next one's queries.
    // A good one could be promoted, rightly, while an outage hides that it was replaced; then there is another end.
    let replaces = (!skips_analysis && random.below(4) == 0).then(|| {
        let quality = random.pick([Quality::Unready, Quality::Crashing]);
        let image = objects::image(number * 2 + 1, quality.suffix());
        (image, interval.mul_f64(random.unit()))
    });
    Revision {
        image: objects::image(number * 2 + 2, quality.suffix()),
        quality,
        // The checks look back one minute and count both versions as one workload.
        pause: Duration::from_secs(90 + random.below(60)),
        replaces,
    }
}

fn remove(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        object.retain(|name, _| !fields.contains(&name.as_str()));
    }
}
