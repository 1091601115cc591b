//! What the operator reaches by HTTP, answered in this process: Prometheus, webhooks, chats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aviary_actors::transport::{HttpResponse, NoAnswer, Transport};
use aviary_crds::validated::WebhookType;
use aviary_providers::HttpRequest;
use aviary_sim::prometheus::{Prometheus, with_value};
use aviary_sim::traffic::Traffic;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::Method;
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::{Value, json};

use super::load_tester::LoadTester;
use super::scenario::{Metric, MetricAnswer, PrometheusFault, PrometheusFaultKind, Scenario};
use super::time::Time;
use super::{chats, queries, series};

/// Host of values that the scenario gives. No name ends like this outside of this process.
const METRICS_HOST: &str = "metrics.simulation.invalid";
/// Host of chats whose address is not known.
const ALERTS_HOST: &str = "alerts.simulation.invalid";
/// Answers of a slow Prometheus take this long by default: longer than the operator waits.
const SLOW: Duration = Duration::from_secs(10);

/// The scenario's values for a metric template.
pub(crate) fn metric_of<'a>(scenario: &'a Scenario, namespace: &str, name: &str) -> Option<&'a Metric> {
    let metric = scenario.metrics.get(name)?;
    metric.namespace.as_deref().is_none_or(|wanted| wanted == namespace).then_some(metric)
}

/// `spec` of a metric template that the scenario answers, or that has one value.
pub(crate) fn simulated_provider(namespace: &str, name: &str, value: Option<f64>) -> Value {
    let value = value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let address = format!("http://{METRICS_HOST}/{namespace}/{name}/{value}");
    json!({"provider": {"type": "prometheus", "address": address}, "query": name})
}

/// Whether values of the scenario, or made up, come from this address.
pub(crate) fn is_simulated(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| url.host_str() == Some(METRICS_HOST))
}

/// Address of a chat that is made up.
pub(crate) fn alert_address(namespace: &str, name: &str) -> String {
    format!("http://{ALERTS_HOST}/{namespace}/{name}")
}

/// A message to a chat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alert {
    pub(crate) at: jiff::Timestamp,
    /// `podinfo.test`; empty if the message does not say it.
    pub(crate) canary: String,
    pub(crate) text: String,
}

/// Calls of one webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) made: u64,
    /// Those that were not answered with 200, 201 or 202.
    pub(crate) refused: u64,
}

/// What the operator reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    pub(crate) alerts: Vec<Alert>,
    /// By canary (`podinfo.test`) and name of the webhook.
    pub(crate) webhooks: BTreeMap<(String, String), Calls>,
    /// Queries that the simulation cannot answer as a real Prometheus would, and why. All that are known before are refused
    /// before; these are the work of actions that change a Canary or a MetricTemplate.
    pub(crate) unanswerable: BTreeMap<String, String>,
}

/// The network of the cluster.
#[derive(Clone)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

struct Shared {
    prometheus: Prometheus,
    load_tester: LoadTester,
    time: Time,
    scenario: Arc<Scenario>,
    /// Inline queries, as they are asked, with the namespaces and names of their metrics.
    inline: queries::Inline,
    /// Webhooks that ask whether to roll back, by canary and name.
    rollbacks: BTreeSet<(String, String)>,
    observed: Mutex<Observed>,
}

impl Network {
    pub(crate) fn new(
        prometheus: &Prometheus,
        traffic: &Traffic,
        time: &Time,
        scenario: &Arc<Scenario>,
        subjects: &[super::subject::Subject],
        inline: queries::Inline,
    ) -> Network {
        let hooks = subjects.iter().flat_map(|subject| {
            let rollbacks = subject.webhooks().filter(|hook| hook.kind == WebhookType::Rollback);
            rollbacks.map(|hook| (subject.id(), hook.name.clone()))
        });
        Network {
            shared: Arc::new(Shared {
                prometheus: prometheus.clone(),
                load_tester: LoadTester::new(traffic.clone(), time.clock()),
                time: time.clone(),
                scenario: scenario.clone(),
                inline,
                rollbacks: hooks.collect(),
                observed: Mutex::default(),
            }),
        }
    }

    /// What was reached until now.
    pub(crate) fn observed(&self) -> Observed {
        self.shared.observed.lock().clone()
    }
}

impl Transport for Network {
    fn send(&self, request: HttpRequest) -> BoxFuture<'static, Result<HttpResponse, NoAnswer>> {
        let shared = self.shared.clone();
        async move {
            let timeout = request.timeout;
            let answer = tokio::time::timeout(timeout, shared.answer(request)).await;
            answer.unwrap_or_else(|_| Err(NoAnswer("timeout exceeded while awaiting an answer".to_owned())))
        }
        .boxed()
    }
}

impl Shared {
    async fn answer(&self, request: HttpRequest) -> Result<HttpResponse, NoAnswer> {
        let url = Url::parse(&request.url).map_err(|error| NoAnswer(error.to_string()))?;
        if let Some(webhook) = &request.webhook {
            return Ok(self.webhook(webhook, &url, &request.body).await);
        }
        if url.host_str() == Some(METRICS_HOST) {
            return Ok(self.value(&url, &query(&request, &url)));
        }
        if url.path().ends_with("/api/v1/query") {
            return self.query(&query(&request, &url)).await;
        }
        self.alert(&request.body);
        Ok(response(200, "ok".to_owned()))
    }

    async fn webhook(&self, name: &str, url: &Url, body: &[u8]) -> HttpResponse {
        let payload: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| payload[field].as_str().unwrap_or_default().to_owned();
        let key = (format!("{}.{}", text("name"), text("namespace")), name.to_owned());
        let answer =
            self.scenario.webhooks.get(name).map(|hook| hook.at(self.time.since_release())).unwrap_or_default();
        // A rollback is not asked for unless the scenario says so; a gate that is called halt is closed.
        let is_no = self.rollbacks.contains(&key) || url.path().ends_with("/gate/halt");
        let status = answer.status.unwrap_or(if is_no { 403 } else { 200 });
        {
            let mut observed = self.observed.lock();
            let calls = observed.webhooks.entry(key).or_default();
            calls.made += 1;
            calls.refused += u64::from(!(200..=202).contains(&status));
        }
        if let Some(delay) = answer.delay {
            tokio::time::sleep(delay).await;
        }
        let command = payload["metadata"]["cmd"].as_str();
        if let (200..300, Some(command)) = (status, command) {
            self.load_tester.run(command, &text("namespace"), &text("name"));
        }
        response(status, String::new())
    }

    /// The answer to a template whose values the scenario gives; the path is `/NAMESPACE/NAME/DEFAULT/api/v1/query`.
    fn value(&self, url: &Url, query: &str) -> HttpResponse {
        let parts: Vec<&str> = url.path_segments().into_iter().flatten().collect();
        let [namespace, name, default, ..] = parts.as_slice() else { return response(404, String::new()) };
        let default = MetricAnswer { value: default.parse().ok(), ..MetricAnswer::default() };
        let metric = metric_of(&self.scenario, namespace, name);
        let answer = metric.map_or(default, |metric| metric.at(self.time.since_release()));
        self.scenario_answer(&answer, query)
    }

    fn scenario_answer(&self, answer: &MetricAnswer, query: &str) -> HttpResponse {
        if let Some(status) = answer.error {
            let error = json!({"status": "error", "errorType": "execution", "error": "the scenario says so"});
            return response(status, error.to_string());
        }
        // The operator asks whether the backend is there; where there is no data, it is.
        let value = if series::is_probe(query) { Some(1.0) } else { answer.value };
        let now = self.time.now().as_duration().as_secs_f64();
        let result: Vec<Value> =
            value.map(|value| json!({"metric": {}, "value": [now, value.to_string()]})).into_iter().collect();
        response(200, json!({"status": "success", "data": {"resultType": "vector", "result": result}}).to_string())
    }

    async fn query(&self, query: &str) -> Result<HttpResponse, NoAnswer> {
        let mut names = self.inline.get(query).into_iter().flatten();
        if let Some(metric) = names.find_map(|(namespace, name)| metric_of(&self.scenario, namespace, name)) {
            return Ok(self.scenario_answer(&metric.at(self.time.since_release()), query));
        }
        let since = self.time.since_release();
        let faults = || self.scenario.prometheus.iter().filter(|fault| fault.window.holds(since));
        for fault in faults() {
            if let Some(answer) = interrupt(fault).await {
                return answer;
            }
        }
        if let Err(why) = queries::answerable(query) {
            self.observed.lock().unanswerable.insert(query.to_owned(), why);
        }
        let path = instant_query(query);
        let answer = self.prometheus.handle(&Method::GET, &path, b"").await;
        let (status, mut body) = answer.map_err(|error| NoAnswer(error.to_string()))?;
        if faults().any(|fault| fault.fault == PrometheusFaultKind::Empty) && !series::is_probe(query) {
            let nothing = json!({"status": "success", "data": {"resultType": "vector", "result": []}});
            body = nothing.to_string();
        }
        if let Some(fault) = faults().rfind(|fault| fault.fault == PrometheusFaultKind::Wrong)
            && !series::is_probe(query)
        {
            body = with_value(&body, fault.value.unwrap_or_default());
        }
        Ok(response(status.as_u16(), body))
    }

    fn alert(&self, body: &[u8]) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let (canary, text) = chats::read(&body);
        self.observed.lock().alerts.push(Alert { at: self.time.now(), canary, text });
    }
}

/// What a fault answers instead of Prometheus; `None` if Prometheus answers after all.
async fn interrupt(fault: &PrometheusFault) -> Option<Result<HttpResponse, NoAnswer>> {
    match fault.fault {
        PrometheusFaultKind::Down => Some(Err(NoAnswer("connection failed: Connection refused".to_owned()))),
        PrometheusFaultKind::Error => {
            let error = json!({"status": "error", "errorType": "unavailable", "error": "the scenario says so"});
            Some(Ok(response(fault.status.unwrap_or(503), error.to_string())))
        }
        PrometheusFaultKind::Slow => {
            tokio::time::sleep(fault.delay.unwrap_or(SLOW)).await;
            None
        }
        PrometheusFaultKind::Empty | PrometheusFaultKind::Wrong => None,
    }
}

/// The text of a query, from the address or from a form.
fn query(request: &HttpRequest, url: &Url) -> String {
    let of = |url: &Url| url.query_pairs().find(|(name, _)| name == "query").map(|(_, value)| value.into_owned());
    if request.method != Method::POST {
        return of(url).unwrap_or_default();
    }
    let mut form = url.clone();
    form.set_query(std::str::from_utf8(&request.body).ok());
    of(&form).unwrap_or_default()
}

/// Path of a query.
fn instant_query(query: &str) -> String {
    let encoded: String = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
    format!("/api/v1/query?{encoded}")
}

fn response(status: u16, body: String) -> HttpResponse {
    HttpResponse { status, retry_after: None, body: body.into_bytes() }
}
