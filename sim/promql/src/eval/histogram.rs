//! `histogram_quantile` over classic buckets.

use std::collections::HashMap;

use super::{Element, Metric};

const BUCKET_LABEL: &str = "le";

#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper_bound: f64,
    count: f64,
}

/// The φ-quantile of every histogram in `buckets`. Elements without a readable `le` label are ignored, as upstream.
pub(crate) fn histogram_quantile(phi: f64, buckets: &[Element]) -> Vec<Element> {
    let mut histograms: Vec<(Metric, Vec<Bucket>)> = Vec::new();
    let mut positions: HashMap<Vec<(&str, &str)>, usize> = HashMap::new();
    for element in buckets {
        let Some(upper_bound) = element.metric.get(BUCKET_LABEL).and_then(parse_bound) else {
            continue;
        };
        let identity = element.metric.iter_without_name().filter(|(name, _)| *name != BUCKET_LABEL);
        let position = *positions.entry(identity.collect()).or_insert_with(|| {
            histograms.push((element.metric.clone().except(&[BUCKET_LABEL]), Vec::new()));
            histograms.len() - 1
        });
        histograms[position].1.push(Bucket { upper_bound, count: element.value });
    }
    histograms.into_iter().map(|(metric, buckets)| Element { metric, value: bucket_quantile(phi, buckets) }).collect()
}

fn parse_bound(text: &str) -> Option<f64> {
    // Rust reads "+Inf", "Inf" and "inf" as Go does.
    text.parse().ok()
}

/// Upstream: `bucketQuantile`. NaN for a NaN φ, without a `+Inf` bucket, with fewer than two buckets or without any
/// observation; ±Inf for φ outside 0..=1. Within a bucket observations are taken to be spread evenly; the first bucket
/// begins at 0 unless its bound is negative; a quantile in the `+Inf` bucket is the highest finite bound.
fn bucket_quantile(phi: f64, mut buckets: Vec<Bucket>) -> f64 {
    if phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    buckets.sort_by(|left, right| left.upper_bound.total_cmp(&right.upper_bound));
    if buckets.last().is_none_or(|bucket| bucket.upper_bound != f64::INFINITY) {
        return f64::NAN;
    }
    buckets.dedup_by(|later, earlier| {
        let same = later.upper_bound == earlier.upper_bound;
        if same {
            earlier.count += later.count;
        }
        same
    });
    make_monotonic(&mut buckets);
    let [.., highest_finite, infinite] = buckets.as_slice() else {
        return f64::NAN;
    };
    let observations = infinite.count;
    if observations == 0.0 {
        return f64::NAN;
    }
    let rank = phi * observations;
    let finite = &buckets[..buckets.len() - 1];
    let Some(index) = finite.iter().position(|bucket| bucket.count >= rank) else {
        return highest_finite.upper_bound;
    };
    let bucket = finite[index];
    let Some(previous) = index.checked_sub(1).map(|previous| finite[previous]) else {
        if bucket.upper_bound <= 0.0 {
            return bucket.upper_bound;
        }
        return bucket.upper_bound * (rank / bucket.count);
    };
    let width = bucket.upper_bound - previous.upper_bound;
    previous.upper_bound + width * ((rank - previous.count) / (bucket.count - previous.count))
}

/// Rates of the buckets are computed one by one, so that a higher bucket can come out below a lower one.
fn make_monotonic(buckets: &mut [Bucket]) {
    let mut highest = f64::NEG_INFINITY;
    for bucket in buckets {
        if bucket.count < highest {
            bucket.count = highest;
        }
        highest = highest.max(bucket.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(phi: f64, buckets: &[(f64, f64)]) -> f64 {
        bucket_quantile(phi, buckets.iter().map(|&(upper_bound, count)| Bucket { upper_bound, count }).collect())
    }

    const INF: f64 = f64::INFINITY;

    #[test]
    fn interpolates_inside_the_bucket_of_the_rank() {
        // Rank 0.5 * 100 = 50 lies in (10, 20], which holds 60 - 20 = 40: 30 of 40 into a width of 10.
        assert_eq!(quantile(0.5, &[(10.0, 20.0), (20.0, 60.0), (50.0, 100.0), (INF, 100.0)]), 17.5);
        // The first bucket begins at zero: rank 10 of 20 is the middle of (0, 10].
        assert_eq!(quantile(0.1, &[(10.0, 20.0), (INF, 100.0)]), 5.0);
        // The order in which the buckets come does not matter.
        assert_eq!(quantile(0.1, &[(INF, 100.0), (10.0, 20.0)]), 5.0);
    }

    #[test]
    fn the_infinite_bucket_answers_with_the_highest_finite_bound() {
        assert_eq!(quantile(0.99, &[(10.0, 20.0), (20.0, 30.0), (INF, 100.0)]), 20.0);
    }

    #[test]
    fn answers_nan_where_there_is_nothing_to_say() {
        assert!(quantile(0.5, &[(10.0, 20.0), (20.0, 30.0)]).is_nan(), "no +Inf bucket");
        assert!(quantile(0.5, &[(INF, 30.0)]).is_nan(), "only +Inf");
        assert!(quantile(0.5, &[(10.0, 0.0), (INF, 0.0)]).is_nan(), "no observation");
        assert!(quantile(f64::NAN, &[(10.0, 1.0), (INF, 1.0)]).is_nan());
    }

    #[test]
    fn edges_of_phi() {
        let buckets = [(10.0, 20.0), (INF, 20.0)];
        assert_eq!(quantile(-0.1, &buckets), f64::NEG_INFINITY);
        assert_eq!(quantile(1.1, &buckets), f64::INFINITY);
        assert_eq!(quantile(1.0, &buckets), 10.0);
        assert_eq!(quantile(0.0, &buckets), 0.0);
        assert_eq!(quantile(0.5, &[(-5.0, 20.0), (INF, 20.0)]), -5.0, "a negative first bucket has no width");
    }

    #[test]
    fn buckets_are_made_monotonic_and_equal_bounds_are_added() {
        // 20 bucket raised from 40 to 50: rank 50 is reached at the bound 10 already.
        assert_eq!(quantile(0.5, &[(10.0, 50.0), (20.0, 40.0), (INF, 100.0)]), 10.0);
        assert_eq!(quantile(0.5, &[(10.0, 30.0), (10.0, 30.0), (20.0, 100.0), (INF, 100.0)]), 10.0 * 50.0 / 60.0);
    }
}
