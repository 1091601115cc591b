//! How a pod answers: by its image's tag, and by an annotation that can be changed while it runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aviary_crds::duration::{DurationError, parse_go_duration};
use aviary_sim::image_tag::ImageTag;
pub(super) use aviary_sim::image_tag::tag;
use serde::Deserialize;

/// Annotation of a pod that overrides what its image's tag says: `{"errorRatio": 0.1, "latency": "300ms"}`. A field that is
/// missing is left to the tag.
pub const BEHAVIOUR_ANNOTATION: &str = "loadtest.aviary.app/behaviour";

/// How the answers of a container are.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Behaviour {
    /// Share of the requests that are answered with status 500, from 0 to 1.
    pub error_ratio: f64,
    /// How long an answer takes.
    pub latency: Duration,
    /// Whether the container never gets as far as to listen, whatever its node says of it.
    pub is_broken: bool,
}

/// An annotation that says nothing.
#[derive(Debug, thiserror::Error)]
pub enum BehaviourError {
    /// It is no JSON object of these fields.
    #[error("failed to read the annotation")]
    Json(#[from] serde_json::Error),
    /// The ratio is none.
    #[error("failed to read errorRatio {0}: expected a number from 0 to 1")]
    ErrorRatio(f64),
    /// The latency is none.
    #[error("failed to read latency")]
    Latency(#[from] DurationError),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Override {
    error_ratio: Option<f64>,
    latency: Option<String>,
}

impl Behaviour {
    /// What a tag says in its parts between dashes: `err10` fails ten percent of the requests, `slow300` takes 300 ms,
    /// `unready` and `crash` never listen. Everything else, and `start5`, which is the node's business, says nothing.
    #[must_use]
    pub fn of_tag(tag: &str) -> Behaviour {
        let read = ImageTag::of_tag(tag);
        Behaviour {
            error_ratio: read.error_ratio.unwrap_or(0.0),
            latency: read.latency.unwrap_or_default(),
            is_broken: read.is_unready || read.crashes,
        }
    }

    /// This behaviour with what the annotation says.
    ///
    /// # Errors
    /// If the annotation cannot be understood.
    pub fn overridden(self, annotation: &str) -> Result<Behaviour, BehaviourError> {
        let Override { error_ratio, latency } = serde_json::from_str(annotation)?;
        if let Some(ratio) = error_ratio.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
            return Err(BehaviourError::ErrorRatio(ratio));
        }
        let latency = latency.map(|text| parse_go_duration(&text)).transpose()?;
        Ok(Behaviour {
            error_ratio: error_ratio.unwrap_or(self.error_ratio),
            latency: latency.unwrap_or(self.latency),
            ..self
        })
    }
}

/// Decides which requests fail: evenly spread, so that few requests show the ratio too, and without a period that clients
/// or load balancers could fall in step with.
#[derive(Debug, Default)]
pub(super) struct Failures {
    requests: AtomicU64,
}

impl Failures {
    pub(super) fn is_next(&self, ratio: f64) -> bool {
        /// 2^64 divided by the golden ratio: its multiples modulo 2^64 are the most evenly spread ones.
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        // A ratio of 1 saturates, and nothing is above `u64::MAX`; exactly this value occurs once in 2^64 requests.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as it should")]
        let limit = (ratio * 2.0_f64.powi(64)) as u64;
        request.wrapping_mul(STEP) < limit
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_tag_says_how_a_pod_answers() {
        let behaviour = |image| Behaviour::of_tag(tag(image));
        let millis = Duration::from_millis;
        assert_eq!(behaviour("registry:5000/app"), Behaviour::default());
        assert_eq!(behaviour("app:err10"), Behaviour::default(), "the version itself is no behaviour");
        assert_eq!(behaviour("registry:5000/app:2.0.0-err10"), Behaviour { error_ratio: 0.1, ..Behaviour::default() });
        assert_eq!(
            behaviour("app:2-slow300-err100@sha256:0"),
            Behaviour { error_ratio: 1.0, latency: millis(300), is_broken: false }
        );
        assert_eq!(behaviour("app:2-error-slowly-start5"), Behaviour::default());
        assert!(behaviour("app:2-crash").is_broken && behaviour("app:2-unready").is_broken);
    }

    #[test]
    fn the_annotation_overrides_what_it_names() {
        let slow = Behaviour::of_tag("2-slow300");
        let both = slow.overridden(r#"{"errorRatio": 0.25, "latency": "1.5s"}"#).unwrap();
        assert_eq!((both.error_ratio, both.latency), (0.25, Duration::from_millis(1500)));
        assert_eq!(slow.overridden(r#"{"errorRatio": 0}"#).unwrap(), slow);
        for wrong in ["", "[]", r#"{"errors": 1}"#, r#"{"errorRatio": 10}"#, r#"{"latency": "soon"}"#] {
            assert!(slow.overridden(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_of_the_requests_fails_evenly_spread() {
        for ratio in [0.0, 0.01, 0.1, 0.5, 1.0] {
            let failures = Failures::default();
            for from in 0..20 {
                let failed = (0..100).filter(|_| failures.is_next(ratio)).count();
                let difference = failed as f64 - ratio * 100.0;
                assert!(difference.abs() <= 2.0, "{failed} of the requests {from}00 to {from}99 failed at {ratio}");
            }
        }
    }
}
