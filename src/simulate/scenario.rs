//! Scenario files: what users, versions, servers and people do during a simulation.
//!
//! All times count from the first release. What has no beginning holds from the start of the cluster on.

mod check;
mod contradictions;
mod json_schema;
mod names;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_crds::duration::parse_go_duration;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub(crate) use check::{Problem, nearest, unknown};
pub use json_schema::json_schema;
use shape::{SCENARIO, Shape};

use super::yaml::{self, Node, Place};

/// Waiting ends after this long by default: the longest analysis of the examples takes one hour, and a pipeline waits for
/// nothing that takes longer than a working day.
const TIME_LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Queries look back one minute as a rule; they should see users.
const WARM_UP: Duration = Duration::from_secs(60);

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scenario {
    #[serde(default, rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(default, rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) seed: Option<u64>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) time_limit: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    warm_up: Option<Duration>,
    #[serde(default)]
    requests_per_pod: Option<f64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) load: Vec<Load>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) versions: BTreeMap<String, Version>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) releases: Vec<Release>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) metrics: BTreeMap<String, Metric>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) webhooks: BTreeMap<String, Webhook>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) prometheus: Vec<PrometheusFault>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) api: Vec<ApiFault>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) actions: Vec<Action>,
    /// Where its fields stand.
    #[serde(skip)]
    pub(crate) node: Option<Node>,
}

/// A time during which something holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Window {
    /// `None`: from the start of the cluster on, or from the first release on, whichever the field says.
    #[serde(default, deserialize_with = "duration")]
    pub(crate) from: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) until: Option<Duration>,
}

impl Window {
    /// Whether it holds at a time after the first release; `None` is before it.
    pub(crate) fn holds(&self, at: Option<Duration>) -> bool {
        match (at, self.from) {
            (None, from) => from.is_none(),
            (Some(at), from) => from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until),
        }
    }

    /// The same for a window that never begins before the first release.
    pub(crate) fn holds_after_release(&self, at: Option<Duration>) -> bool {
        at.is_some() && self.holds(at)
    }
}

/// Requests of users.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Load {
    #[serde(default)]
    pub(crate) service: Option<String>,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) requests_per_second: f64,
    #[serde(flatten)]
    pub(crate) window: Window,
}

/// What a version does. A field that is `None` is as it would be without the scenario.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Version {
    #[serde(flatten)]
    pub(crate) conduct: Conduct,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) startup_delay: Option<Duration>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) changes: Vec<VersionChange>,
}

/// How requests and pods fare.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Conduct {
    #[serde(default)]
    pub(crate) error_rate: Option<f64>,
    #[serde(default)]
    pub(crate) error_code: Option<u16>,
    #[serde(default)]
    pub(crate) latency: Option<Latency>,
    #[serde(default)]
    pub(crate) pods: Option<Pods>,
}

/// How long requests take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Latency {
    #[serde(deserialize_with = "needed_duration")]
    pub(crate) median: Duration,
    #[serde(deserialize_with = "needed_duration")]
    pub(crate) p99: Duration,
}

/// What becomes of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Pods {
    Ready,
    NeverReady,
    CrashLoop,
    ImagePullError,
}

/// What is different about a version for a time.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct VersionChange {
    #[serde(flatten)]
    pub(crate) window: Window,
    #[serde(flatten)]
    pub(crate) conduct: Conduct,
}

impl Version {
    /// How it behaves at a time after the first release; `None` is before it.
    pub(crate) fn at(&self, at: Option<Duration>) -> Conduct {
        let mut conduct = self.conduct;
        for change in self.changes.iter().filter(|change| change.window.holds_after_release(at)) {
            conduct = Conduct {
                error_rate: change.conduct.error_rate.or(conduct.error_rate),
                error_code: change.conduct.error_code.or(conduct.error_code),
                latency: change.conduct.latency.or(conduct.latency),
                pods: change.conduct.pods.or(conduct.pods),
            };
        }
        conduct
    }
}

/// A change of a target.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Release {
    #[serde(default, deserialize_with = "duration")]
    pub(crate) at: Option<Duration>,
    #[serde(default)]
    pub(crate) canary: Option<String>,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    #[serde(default)]
    pub(crate) image: Option<String>,
    #[serde(default)]
    pub(crate) tag: Option<String>,
    #[serde(default)]
    pub(crate) container: Option<String>,
    #[serde(default)]
    pub(crate) config: Option<Config>,
}

/// A change of a ConfigMap or Secret.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) kind: Option<String>,
    pub(crate) name: String,
    pub(crate) data: BTreeMap<String, String>,
}

/// Answers to the queries of a metric.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Metric {
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    #[serde(flatten)]
    pub(crate) answer: MetricAnswer,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) changes: Vec<MetricChange>,
}

/// One answer. At most one field is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MetricAnswer {
    #[serde(default)]
    pub(crate) value: Option<f64>,
    #[serde(default)]
    pub(crate) no_data: Option<bool>,
    #[serde(default)]
    pub(crate) error: Option<u16>,
}

/// Another answer for a time.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct MetricChange {
    #[serde(flatten)]
    pub(crate) window: Window,
    #[serde(flatten)]
    pub(crate) answer: MetricAnswer,
}

impl Metric {
    /// The answer at a time after the first release; `None` is before it.
    pub(crate) fn at(&self, at: Option<Duration>) -> MetricAnswer {
        let change = self.changes.iter().rev().find(|change| change.window.holds_after_release(at));
        change.map_or(self.answer, |change| change.answer)
    }
}

/// Answers of a webhook.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Webhook {
    #[serde(flatten)]
    answer: WebhookAnswer,
    #[serde(default, deserialize_with = "or_default")]
    changes: Vec<WebhookChange>,
}

/// One answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct WebhookAnswer {
    #[serde(default)]
    pub(crate) status: Option<u16>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) delay: Option<Duration>,
}

/// Another answer for a time.
#[derive(Clone, Copy, Debug, Deserialize)]
struct WebhookChange {
    #[serde(flatten)]
    window: Window,
    #[serde(flatten)]
    answer: WebhookAnswer,
}

impl Webhook {
    /// When its changes hold.
    pub(crate) fn windows(&self) -> impl Iterator<Item = Window> {
        self.changes.iter().map(|change| change.window)
    }

    /// The answer at a time after the first release; `None` is before it.
    pub(crate) fn at(&self, at: Option<Duration>) -> WebhookAnswer {
        let mut answer = self.answer;
        for change in self.changes.iter().filter(|change| change.window.holds_after_release(at)) {
            answer = WebhookAnswer {
                status: change.answer.status.or(answer.status),
                delay: change.answer.delay.or(answer.delay),
            };
        }
        answer
    }
}

/// A fault of the metrics server.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct PrometheusFault {
    pub(crate) fault: PrometheusFaultKind,
    #[serde(flatten)]
    pub(crate) window: Window,
    #[serde(default)]
    pub(crate) status: Option<u16>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) delay: Option<Duration>,
    #[serde(default)]
    pub(crate) value: Option<f64>,
}

/// What is wrong with the metrics server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum PrometheusFaultKind {
    Down,
    Slow,
    Error,
    Empty,
    Wrong,
}

/// A fault of the API server.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiFault {
    pub(crate) fault: ApiFaultKind,
    #[serde(flatten)]
    pub(crate) window: Window,
    #[serde(default)]
    pub(crate) probability: Option<f64>,
    #[serde(default)]
    pub(crate) times: Option<u64>,
    #[serde(default)]
    pub(crate) resource: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) verbs: Vec<String>,
    #[serde(default)]
    pub(crate) status: Option<u16>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) retry_after: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) delay: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) every: Option<Duration>,
}

impl ApiFault {
    /// When it begins after the first release; `None` is the start of the cluster. What happens at a moment has nobody to
    /// happen to before the operator watches.
    pub(crate) fn from(&self) -> Option<Duration> {
        match self.fault {
            ApiFaultKind::DropWatches | ApiFaultKind::Restart | ApiFaultKind::Compact => {
                Some(self.window.from.unwrap_or_default())
            }
            ApiFaultKind::Error
            | ApiFaultKind::Conflict
            | ApiFaultKind::TooManyRequests
            | ApiFaultKind::Delay
            | ApiFaultKind::LoseResponse => self.window.from,
        }
    }
}

/// What is wrong with the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum ApiFaultKind {
    Error,
    Conflict,
    TooManyRequests,
    Delay,
    LoseResponse,
    DropWatches,
    Restart,
    Compact,
}

/// Something that a user does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Action {
    #[serde(default, deserialize_with = "duration")]
    pub(crate) at: Option<Duration>,
    pub(crate) action: ActionKind,
    #[serde(default)]
    pub(crate) api_version: Option<String>,
    #[serde(default)]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) patch: Option<Value>,
}

impl Action {
    /// Kind of the object.
    pub(crate) fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or("Canary")
    }
}

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum ActionKind {
    Suspend,
    Resume,
    Patch,
    Delete,
}

impl Default for Scenario {
    /// A healthy service, and one release.
    fn default() -> Self {
        Scenario {
            _api_version: None,
            _kind: None,
            description: None,
            seed: None,
            time_limit: None,
            warm_up: None,
            requests_per_pod: None,
            load: Vec::new(),
            versions: BTreeMap::new(),
            releases: Vec::new(),
            metrics: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            prometheus: Vec::new(),
            api: Vec::new(),
            actions: Vec::new(),
            node: None,
        }
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Scenario, Vec<Problem>> {
        let whole = |place: Place, message: String| Problem { place, path: String::new(), message };
        let mut found = yaml::parse(text);
        // What kubectl would not mind is nearly always a mistake, too.
        let unreadable = found.errors.into_iter().chain(found.duplicates);
        let unreadable: Vec<Problem> = unreadable.map(|error| whole(error.place, error.message)).collect();
        if !unreadable.is_empty() {
            return Err(unreadable);
        }
        if let Some(second) = found.documents.get(1) {
            return Err(vec![whole(second.place, "a scenario is one document; this is a second one".to_owned())]);
        }
        let Some(node) = found.documents.pop() else { return Ok(Scenario::default()) };
        let mut problems = Vec::new();
        check::check(&node, &Shape::Object(SCENARIO), "", &mut problems);
        contradictions::find(&node, &mut problems);
        if !problems.is_empty() {
            problems.sort_by_key(|problem| problem.place);
            return Err(problems);
        }
        // The shape admits nothing that the types do not.
        let mut scenario: Scenario =
            serde_json::from_value(node.to_value()).map_err(|error| vec![whole(node.place, error.to_string())])?;
        scenario.node = Some(node);
        Ok(scenario)
    }

    /// How long users are served before the first release.
    pub(crate) fn warm_up(&self) -> Duration {
        self.warm_up.unwrap_or(WARM_UP)
    }

    /// Requests per second for which a pod uses all the CPU it asks for.
    pub(crate) fn requests_per_pod(&self) -> f64 {
        self.requests_per_pod.unwrap_or(crate::embedded::REQUESTS_PER_POD)
    }

    /// When waiting ends, after the first release.
    pub(crate) fn time_limit(&self) -> Duration {
        self.time_limit.unwrap_or(TIME_LIMIT)
    }

    /// A problem with a field that only shows where the objects are known.
    pub(crate) fn problem(&self, path: &str, message: String) -> Problem {
        let place = self.node.as_ref().map(|node| node.place_of(path)).unwrap_or_default();
        Problem { place, path: path.to_owned(), message }
    }
}

fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Value::String(text)) => parse_go_duration(&text).map(Some).map_err(serde::de::Error::custom),
        // Nothing but 0 passes the check.
        Some(_) => Ok(Some(Duration::ZERO)),
    }
}

fn needed_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    duration(deserializer)?.ok_or_else(|| serde::de::Error::custom("expected a duration"))
}
