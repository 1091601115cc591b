//! How simulated pods behave, by the image they run.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::image_tag::{ImageTag, tag};

/// What becomes of a container once it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodOutcome {
    /// It becomes ready after its start-up delay.
    #[default]
    Ready,
    /// It runs, but its readiness probe never succeeds.
    NeverReady,
    /// It exits with an error as soon as it was started, and is restarted with the back-off of a kubelet.
    CrashLoop,
    /// Its image cannot be pulled.
    ImagePullError,
}

/// Behaviour of the containers of an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodBehaviour {
    /// Time from the creation of the pod to its readiness (or its first crash); `None` takes
    /// [`ControllerOptions::start_delay`](super::ControllerOptions::start_delay).
    pub start_delay: Option<Duration>,
    /// What becomes of it.
    pub outcome: PodOutcome,
}

impl PodBehaviour {
    /// A behaviour with the default start-up delay.
    #[must_use]
    pub fn new(outcome: PodOutcome) -> Self {
        Self { start_delay: None, outcome }
    }
}

/// A shared table of behaviours, which may be changed while the cluster runs: pods that exist follow a change at once, in both
/// directions.
///
/// Without a matching rule, an image whose tag contains `crash` crashes, one whose tag contains `noready` or has the part
/// `unready` never becomes ready, and every other one becomes ready, with the part `start5` after five seconds
/// ([`ImageTag`]). A table belongs to one cluster.
#[derive(Debug, Clone, Default)]
pub struct PodBehaviours {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Later rules win.
    rules: Mutex<Vec<(String, PodBehaviour)>>,
    changed: Notify,
}

impl PodBehaviours {
    /// Sets the behaviour of every image whose reference contains `image_part`; of several matching rules the one that was
    /// set last counts.
    pub fn set(&self, image_part: impl Into<String>, behaviour: PodBehaviour) {
        let image_part = image_part.into();
        let mut rules = self.inner.rules.lock();
        rules.retain(|(part, _)| *part != image_part);
        rules.push((image_part, behaviour));
        drop(rules);
        self.inner.changed.notify_one();
    }

    /// Takes back what [`set`](Self::set) set for exactly this `image_part`.
    pub fn reset(&self, image_part: &str) {
        self.inner.rules.lock().retain(|(part, _)| part != image_part);
        self.inner.changed.notify_one();
    }

    /// The behaviour of an image.
    #[must_use]
    pub fn of_image(&self, image: &str) -> PodBehaviour {
        let rules = self.inner.rules.lock();
        if let Some((_, behaviour)) = rules.iter().rev().find(|(part, _)| image.contains(part.as_str())) {
            return *behaviour;
        }
        let tag = tag(image);
        let ImageTag { start_delay, is_unready, .. } = ImageTag::of_tag(tag);
        let outcome = if tag.contains("crash") {
            PodOutcome::CrashLoop
        } else if is_unready || tag.contains("noready") {
            PodOutcome::NeverReady
        } else {
            PodOutcome::Ready
        };
        PodBehaviour { start_delay, outcome }
    }

    /// The behaviour of a pod: its worst container decides, its slowest one gives the delay.
    pub(super) fn of_pod<'a>(&self, images: impl IntoIterator<Item = &'a str>) -> PodBehaviour {
        let mut pod = PodBehaviour::default();
        for image in images {
            let behaviour = self.of_image(image);
            pod.outcome = pod.outcome.max(behaviour.outcome);
            pod.start_delay = pod.start_delay.max(behaviour.start_delay);
        }
        pod
    }

    pub(super) async fn changed(&self) {
        self.inner.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_decides_by_default_and_the_last_rule_wins() {
        let behaviours = PodBehaviours::default();
        let outcome = |image: &str| behaviours.of_image(image).outcome;
        assert_eq!(outcome("crash.example:5000/app:1.0"), PodOutcome::Ready);
        assert_eq!(outcome("reg:5000/app:2.0-crash"), PodOutcome::CrashLoop);
        assert_eq!(outcome("app:noready"), PodOutcome::NeverReady);
        assert_eq!(outcome("noready"), PodOutcome::Ready);
        assert_eq!(outcome("app:1-unready"), PodOutcome::NeverReady);
        assert_eq!(behaviours.of_image("app:1-start5").start_delay, Some(Duration::from_secs(5)));
        behaviours.set("app", PodBehaviour::new(PodOutcome::ImagePullError));
        behaviours.set("app:2", PodBehaviour::new(PodOutcome::Ready));
        assert_eq!(outcome("reg:5000/app:2.0-crash"), PodOutcome::Ready);
        assert_eq!(outcome("app:3"), PodOutcome::ImagePullError);
        behaviours.reset("app");
        assert_eq!(outcome("app:3"), PodOutcome::Ready);
    }

    #[test]
    fn the_worst_container_decides_for_the_pod() {
        let behaviours = PodBehaviours::default();
        let pod = behaviours.of_pod(["proxy:1", "app:crash"]);
        assert_eq!(pod.outcome, PodOutcome::CrashLoop);
    }
}
