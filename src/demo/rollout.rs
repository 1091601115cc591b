//! The rollout as the API shows it: the Canary and its Events, watched as `kubectl get --watch` would.

use aviary_crds::{Canary, Phase};
use futures::stream::{BoxStream, PollNext};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

use super::{NAME, NAMESPACE};

/// Something worth a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) time: Option<Timestamp>,
    /// `Normal` or `Warning`, or `Phase` for a change of the status.
    pub(super) kind: String,
    pub(super) reason: String,
    pub(super) message: String,
    /// How often the event was seen.
    pub(super) count: i32,
}

impl Line {
    /// Whether it tells of a check that failed.
    pub(super) fn is_halt(&self) -> bool {
        self.kind == "Warning" && self.message.starts_with("Halt ") && self.message.contains(" advancement ")
    }
}

enum News {
    Event(Box<Event>),
    Canary(Box<Canary>),
}

/// The last seen state, and where news come from.
pub(super) struct Rollout {
    news: BoxStream<'static, watcher::Result<News>>,
    canary: Canary,
}

/// A check of the analysis, with its limit in words.
pub(super) struct Check {
    pub(super) name: String,
    pub(super) limit: String,
}

impl Rollout {
    pub(super) fn watch(kubectl: &Client) -> Rollout {
        let of_canary = format!("involvedObject.kind=Canary,involvedObject.name={NAME}");
        let events =
            applied(Api::namespaced(kubectl.clone(), NAMESPACE), watcher::Config::default().fields(&of_canary));
        let named = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let canaries = applied(Api::namespaced(kubectl.clone(), NAMESPACE), named);
        let events = events.map_ok(|event| News::Event(Box::new(event)));
        let canaries = canaries.map_ok(|canary| News::Canary(Box::new(canary)));
        Rollout {
            news: stream::select_with_strategy(canaries, events, phases_first).boxed(),
            canary: Canary::default(),
        }
    }

    /// Waits for news, and returns what is worth a line.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Line>> {
        match self.news.try_next().await? {
            Some(News::Event(event)) => Ok(Some(Line {
                time: event.last_timestamp.as_ref().map(|time| time.0),
                kind: event.type_.unwrap_or_default(),
                reason: event.reason.unwrap_or_default(),
                message: event.message.unwrap_or_default(),
                count: event.count.unwrap_or(1),
            })),
            Some(News::Canary(canary)) => {
                let before = std::mem::replace(&mut self.canary, *canary);
                let phase = self.phase();
                let is_new = before.status.map_or(Phase::Uninitialized, |status| status.phase) != phase;
                Ok(is_new.then(|| Line {
                    time: self.canary.status.as_ref().and_then(|status| status.last_transition_time),
                    kind: "Phase".to_owned(),
                    reason: String::new(),
                    message: phase.to_string(),
                    count: 1,
                }))
            }
            None => anyhow::bail!("the watches of the demo ended"),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.canary.status.as_ref().map_or(Phase::Uninitialized, |status| status.phase)
    }

    /// The hash of the revision that the status speaks of.
    pub(super) fn revision(&self) -> Option<&str> {
        self.canary.status.as_ref()?.last_applied_spec.as_deref()
    }

    /// Phase, and the text of the condition that goes with it.
    pub(super) fn verdict(&self) -> (Phase, String) {
        let condition = self.canary.status.as_ref().and_then(|status| status.conditions.first());
        (self.phase(), condition.map(|condition| condition.message.clone()).unwrap_or_default())
    }

    /// Percentage of the traffic that the canary gets.
    pub(super) fn weight(&self) -> u32 {
        let weight = self.canary.status.as_ref().map_or(0, |status| status.canary_weight);
        u32::try_from(weight.clamp(0, 100)).unwrap_or(0)
    }

    /// Failed checks, and how many end the run.
    pub(super) fn failed_checks(&self) -> (i64, i64) {
        let failed = self.canary.status.as_ref().map_or(0, |status| status.failed_checks);
        let threshold = self.canary.spec.analysis.as_ref().and_then(|analysis| analysis.threshold);
        (failed, threshold.unwrap_or(1))
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let metrics = self.canary.spec.analysis.iter().flat_map(|analysis| &analysis.metrics);
        let checks = metrics.map(|metric| {
            let range = metric.threshold_range.unwrap_or_default();
            let limits = [("min", range.min), ("max", range.max)];
            let limits: Vec<_> =
                limits.iter().filter_map(|(name, limit)| Some(format!("{name} {}", (*limit)?))).collect();
            Check { name: metric.name.clone(), limit: limits.join(", ") }
        });
        checks.collect()
    }
}

/// Of news that arrive together the phase comes first, however often somebody looks: two runs then read alike.
fn phases_first(_: &mut ()) -> PollNext {
    PollNext::Left
}

/// Objects as they are created and changed.
fn applied<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<K>> + Send
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    // Errors end nothing: the watch is opened again, and misses nothing.
    let objects = watcher(api, config).default_backoff().applied_objects();
    objects.filter(|object| std::future::ready(object.is_ok()))
}
