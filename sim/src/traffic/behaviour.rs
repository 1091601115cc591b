//! How versions of a workload behave: how many requests they fail and how long they take.

use crate::image_tag::ImageTag;

/// The finite bucket bounds of Istio's `istio_request_duration_milliseconds`, in milliseconds; `+Inf` follows.
pub(crate) const BUCKET_BOUNDS_MS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1_000.0,
    2_500.0,
    5_000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// What a version does with requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Behaviour {
    /// The part of the requests that fails, 0 to 1.
    pub error_ratio: f64,
    /// The status code of a failed request.
    pub error_code: u16,
    /// How long requests take, failed ones too.
    pub latency: Latency,
}

impl Behaviour {
    /// Fails this part (0 to 1) of the requests with status 500, otherwise healthy.
    #[must_use]
    pub fn failing(error_ratio: f64) -> Self {
        Self { error_ratio, ..Self::default() }
    }

    /// Answers everything, with these latencies.
    #[must_use]
    pub fn slow(p50_ms: f64, p99_ms: f64) -> Self {
        Self { latency: Latency { p50_ms, p99_ms }, ..Self::default() }
    }
}

impl Default for Behaviour {
    /// Healthy: no errors, 20 ms at the median, 60 ms at the 99th percentile.
    fn default() -> Self {
        Self { error_ratio: 0.0, error_code: 500, latency: Latency { p50_ms: 20.0, p99_ms: 60.0 } }
    }
}

/// A distribution of durations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Median in milliseconds. It is what the requests take; what a histogram shows of it depends on the buckets.
    pub p50_ms: f64,
    /// 99th percentile in milliseconds. The histogram is shaped so that `histogram_quantile(0.99, …)` answers with it
    /// (for values from 0.5 ms to an hour and enough requests): a check against a limit sees the number that was set.
    pub p99_ms: f64,
}

impl Latency {
    /// The mean of the distribution in milliseconds.
    pub(crate) fn mean_ms(&self) -> f64 {
        let Self { p50_ms, p99_ms } = self.ordered();
        // Half of the requests below the median, 49 % between it and p99, 1 % above.
        0.5 * (p50_ms / 2.0) + 0.49 * (p50_ms + p99_ms) / 2.0 + 0.01 * TAIL_MEAN * p99_ms
    }

    /// The part of the requests that takes at most each bound of [`BUCKET_BOUNDS_MS`].
    pub(crate) fn cumulative(&self) -> [f64; BUCKET_BOUNDS_MS.len()] {
        let p99_ms = self.ordered().p99_ms;
        let mut shares = BUCKET_BOUNDS_MS.map(|bound| self.share_up_to(bound));
        let Some(bucket) = BUCKET_BOUNDS_MS.iter().position(|bound| *bound >= p99_ms) else {
            return shares;
        };
        let (lower_bound, lower_share) = match bucket.checked_sub(1) {
            Some(below) => (BUCKET_BOUNDS_MS[below], shares[below]),
            None => (0.0, 0.0),
        };
        // Prometheus assumes that observations are spread evenly over a bucket: choose the share at its upper bound, or
        // where that would exceed 1 the share at its lower bound, so that the line between the two meets 0.99 at p99.
        let position = (p99_ms - lower_bound) / (BUCKET_BOUNDS_MS[bucket] - lower_bound);
        let upper_share = lower_share + (0.99 - lower_share) / position;
        if upper_share <= 1.0 {
            shares[bucket] = upper_share;
        } else {
            shares[bucket] = 1.0;
            if let Some(below) = bucket.checked_sub(1) {
                shares[below] = (0.99 - position) / (1.0 - position);
            }
        }
        let reached = shares[bucket];
        shares[bucket..].iter_mut().for_each(|share| *share = share.max(reached));
        shares
    }

    fn share_up_to(&self, bound_ms: f64) -> f64 {
        let Self { p50_ms, p99_ms } = self.ordered();
        if bound_ms < p50_ms {
            return 0.5 * bound_ms / p50_ms;
        }
        if bound_ms < p99_ms {
            return 0.5 + 0.49 * (bound_ms - p50_ms) / (p99_ms - p50_ms);
        }
        (0.99 + 0.01 * (bound_ms - p99_ms) / (p99_ms * (TAIL_END - 1.0))).min(1.0)
    }

    fn ordered(&self) -> Self {
        // A request that takes no time at all would divide by zero; a microsecond is below every bucket.
        let p50_ms = self.p50_ms.max(0.001);
        Self { p50_ms, p99_ms: self.p99_ms.max(p50_ms) }
    }
}

/// The slowest request, in multiples of p99.
const TAIL_END: f64 = 1.5;
/// The mean of the slowest percent, in multiples of p99.
const TAIL_MEAN: f64 = f64::midpoint(1.0, TAIL_END);

/// Which pods a [`Behaviour`] is for. A field that is `None` admits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BehaviourMatch {
    /// The pods' namespace.
    pub namespace: Option<String>,
    /// The name of the workload (Deployment, DaemonSet, …) that owns the pods.
    pub workload: Option<String>,
    /// A part of the image of one of the pods' containers, for example `podinfo:6.1`.
    pub image: Option<String>,
}

impl BehaviourMatch {
    /// Pods with a container whose image contains `part`, in every namespace.
    #[must_use]
    pub fn image(part: &str) -> Self {
        Self { image: Some(part.to_owned()), ..Self::default() }
    }

    /// Restricts the match to a namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Restricts the match to a workload.
    #[must_use]
    pub fn of_workload(mut self, workload: &str) -> Self {
        self.workload = Some(workload.to_owned());
        self
    }

    fn admits(&self, namespace: &str, workload: &str, images: &str) -> bool {
        let admits = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        admits(&self.namespace, namespace)
            && admits(&self.workload, workload)
            && self.image.as_deref().is_none_or(|part| images.contains(part))
    }
}

impl From<&str> for BehaviourMatch {
    fn from(image: &str) -> Self {
        Self::image(image)
    }
}

/// The rules in force; the latest one that admits a pod wins. Without one the tags of the images decide.
#[derive(Debug, Default)]
pub(crate) struct Behaviours {
    rules: Vec<(BehaviourMatch, Behaviour)>,
}

impl Behaviours {
    pub(crate) fn set(&mut self, pods: BehaviourMatch, behaviour: Behaviour) {
        self.remove(&pods);
        self.rules.push((pods, behaviour));
    }

    pub(crate) fn remove(&mut self, pods: &BehaviourMatch) {
        self.rules.retain(|(existing, _)| existing != pods);
    }

    pub(crate) fn of(&self, namespace: &str, workload: &str, images: &str) -> Behaviour {
        self.rules
            .iter()
            .rev()
            .find(|(pods, _)| pods.admits(namespace, workload, images))
            .map_or_else(|| of_tags(images), |(_, behaviour)| *behaviour)
    }
}

/// What the tags of images, separated by spaces, say ([`ImageTag`]): the worst container decides. One that is slow takes the
/// same time for every request, as a program that sleeps does.
fn of_tags(images: &str) -> Behaviour {
    let mut behaviour = Behaviour::default();
    for ImageTag { error_ratio, latency, .. } in images.split(' ').map(ImageTag::of_image) {
        behaviour.error_ratio = behaviour.error_ratio.max(error_ratio.unwrap_or(0.0));
        let milliseconds = latency.map_or(0.0, |latency| latency.as_secs_f64() * 1000.0);
        if milliseconds > behaviour.latency.p99_ms {
            behaviour.latency = Latency { p50_ms: milliseconds, p99_ms: milliseconds };
        }
    }
    behaviour
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prometheus' estimate of the 99th percentile.
    fn estimate(latency: Latency) -> f64 {
        let shares = latency.cumulative();
        let bucket = shares.iter().position(|share| *share >= 0.99).unwrap_or(shares.len() - 1);
        let below = bucket.checked_sub(1);
        let (bound, share) = below.map_or((0.0, 0.0), |below| (BUCKET_BOUNDS_MS[below], shares[below]));
        bound + (BUCKET_BOUNDS_MS[bucket] - bound) * (0.99 - share) / (shares[bucket] - share)
    }

    #[test]
    fn the_histogram_shows_the_percentile_that_was_set() {
        for (p50_ms, p99_ms) in
            [(20.0, 60.0), (20.0, 24.0), (20.0, 99.0), (20.0, 100.0), (20.0, 51.0), (400.0, 1_200.0), (3.0, 3.0)]
        {
            let shown = estimate(Latency { p50_ms, p99_ms });
            assert!((shown - p99_ms).abs() < 1e-6, "{p50_ms}/{p99_ms} is shown as {shown}");
        }
    }

    #[test]
    fn shares_never_fall_and_end_at_one() {
        for p99_ms in [0.1, 0.7, 10.0, 55.0, 240.0, 4_000.0] {
            let shares = Latency { p50_ms: 5.0, p99_ms }.cumulative();
            assert!(shares.is_sorted(), "{p99_ms}: {shares:?}");
            assert!(shares.last().is_some_and(|share| (*share - 1.0).abs() < 1e-12));
        }
    }

    #[test]
    fn without_a_rule_the_tag_decides() {
        let mut behaviours = Behaviours::default();
        let of = |behaviours: &Behaviours| behaviours.of("test", "podinfo", "proxy:1 podinfo:6.1-err10-slow800");
        let found = of(&behaviours);
        assert_eq!((found.error_ratio, found.latency), (0.1, Latency { p50_ms: 800.0, p99_ms: 800.0 }));
        assert_eq!(behaviours.of("test", "podinfo", "proxy:1 podinfo:6.1"), Behaviour::default());
        behaviours.set("podinfo:6.1".into(), Behaviour::failing(0.5));
        assert_eq!(of(&behaviours), Behaviour::failing(0.5));
    }

    #[test]
    fn the_latest_rule_wins() {
        let mut behaviours = Behaviours::default();
        behaviours.set("podinfo:6.1".into(), Behaviour::failing(0.5));
        behaviours.set(BehaviourMatch::image("podinfo").in_namespace("test"), Behaviour::failing(0.1));
        let ratio = |namespace, image| behaviours.of(namespace, "podinfo", image).error_ratio;
        assert_eq!(ratio("test", "ghcr.io/podinfo:6.1"), 0.1);
        assert_eq!(ratio("prod", "ghcr.io/podinfo:6.1"), 0.5);
        assert_eq!(ratio("prod", "ghcr.io/podinfo:6.2"), 0.0);
        behaviours.set("podinfo:6.1".into(), Behaviour::failing(0.9));
        assert_eq!(behaviours.of("test", "podinfo", "podinfo:6.1").error_ratio, 0.9);
    }
}
