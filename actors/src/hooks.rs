//! From the webhooks and alerts of a canary to requests.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary_crds::validated::{AlertSeverity, ValidatedCanary, ValidatedWebhook, WebhookType};
use aviary_crds::{AlertProvider, decode_object};
use aviary_providers::metrics::secret_data;
use aviary_providers::notify::{self, Alert, AlertTarget};
use aviary_providers::{HttpRequest, Subject, kinds};
use aviary_rollout::{Message as Note, Notice, Plan};
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::messages::CanaryId;

/// A webhook call, ready to be made.
#[derive(Clone, Debug)]
pub struct PreparedHook {
    /// Name of the hook.
    pub name: String,
    /// The call.
    pub request: HttpRequest,
    /// Further tries after the first.
    pub retries: u32,
}

/// Which statuses of a webhook's answer are a yes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookSuccess {
    /// 200, 201 and 202, as in Flagger: a gate that answers 203 or 204 means "closed".
    #[default]
    UpTo202,
    /// All from 200 to 299, as Flagger's documentation says.
    Any2xx,
}

impl WebhookSuccess {
    /// Whether this status is a yes.
    #[must_use]
    pub fn includes(self, status: u16) -> bool {
        match self {
            WebhookSuccess::UpTo202 => (200..=202).contains(&status),
            WebhookSuccess::Any2xx => (200..300).contains(&status),
        }
    }
}

/// Body of a webhook call (Flagger's reference 5.2). Metadata without entries are left out, as Go's `omitempty` does.
#[derive(Serialize)]
struct Payload<'a> {
    name: &'a str,
    namespace: &'a str,
    phase: &'a str,
    checksum: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a BTreeMap<String, String>>,
}

/// The calls of one type, in list order.
pub fn prepare(canary: &ValidatedCanary, kind: WebhookType, phase: &str, checksum: &str) -> Vec<PreparedHook> {
    let hooks = canary.analysis.webhooks.iter().filter(|hook| hook.kind == kind);
    hooks.map(|hook| prepare_one(canary, hook, phase, checksum)).collect()
}

/// What an event hook is told.
pub struct EventNews<'a> {
    /// What happened.
    pub note: &'a Note,
    /// When.
    pub at: Timestamp,
    /// Phase of the canary then.
    pub phase: &'a str,
    /// Checksum of its revision then.
    pub checksum: &'a str,
}

/// Timeout of the hook of `--event-webhook`, Flagger's.
const EVENT_WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The calls that an event causes: of the canary's own event hooks, or, where it has none, of the one that `--event-webhook`
/// names. `canary` is absent where the object is not understood.
pub fn prepare_event(
    id: &CanaryId,
    canary: Option<&ValidatedCanary>,
    news: &EventNews,
    global: Option<&str>,
) -> Vec<PreparedHook> {
    let own = canary.into_iter().flat_map(|canary| &canary.analysis.webhooks);
    let own: Vec<&ValidatedWebhook> = own.filter(|hook| hook.kind == WebhookType::Event).collect();
    let metadata = |given: Option<&BTreeMap<String, String>>| {
        let mut metadata = given.cloned().unwrap_or_default();
        metadata.extend(about_event(news));
        metadata
    };
    if !own.is_empty() {
        let calls = own.into_iter().map(|hook| {
            let metadata = metadata(hook.metadata.as_ref());
            prepared(hook, &payload(id, news.phase, news.checksum, Some(&metadata)))
        });
        return calls.collect();
    }
    let call = |address: &str| {
        let metadata = metadata(None);
        let mut request =
            HttpRequest::post_json(address.to_owned(), &payload(id, news.phase, news.checksum, Some(&metadata)));
        request.timeout = EVENT_WEBHOOK_TIMEOUT;
        PreparedHook { name: "events".to_owned(), request, retries: 0 }
    };
    global.map(call).into_iter().collect()
}

fn about_event(news: &EventNews) -> BTreeMap<String, String> {
    let event_type = match news.note.severity() {
        AlertSeverity::Info => "Normal",
        AlertSeverity::Warn | AlertSeverity::Error => "Warning",
    };
    BTreeMap::from([
        ("eventMessage".to_owned(), news.note.to_string()),
        ("eventType".to_owned(), event_type.to_owned()),
        ("timestamp".to_owned(), news.at.as_millisecond().to_string()),
    ])
}

fn prepare_one(canary: &ValidatedCanary, hook: &ValidatedWebhook, phase: &str, checksum: &str) -> PreparedHook {
    let id = CanaryId::canary(canary.key.namespace.as_str(), canary.key.name.as_str());
    prepared(hook, &payload(&id, phase, checksum, hook.metadata.as_ref()))
}

fn payload(id: &CanaryId, phase: &str, checksum: &str, metadata: Option<&BTreeMap<String, String>>) -> Value {
    let metadata = metadata.filter(|metadata| !metadata.is_empty());
    let payload = Payload { name: &id.name, namespace: &id.namespace, phase, checksum, metadata };
    serde_json::to_value(&payload).unwrap_or(Value::Null)
}

fn prepared(hook: &ValidatedWebhook, body: &Value) -> PreparedHook {
    let mut request = HttpRequest::post_json(hook.url.clone(), body);
    request.timeout = hook.timeout;
    request.insecure_skip_verify = hook.disable_tls;
    request.webhook = Some(hook.name.clone());
    PreparedHook { name: hook.name.clone(), request, retries: hook.retries }
}

/// Checksum of a revision, as Flagger computes it for webhook payloads (its reference 13.1): FNV-1a of the state's
/// rendering in Go's `%#v`, in an alphabet that is safe in names.
pub fn checksum(configs: Option<&BTreeMap<String, String>>, last_applied: &str) -> String {
    let configs = match configs {
        None => "<nil>".to_owned(),
        Some(configs) => {
            let entries: Vec<String> = configs.iter().map(|(name, sum)| format!("{name}:{sum}")).collect();
            format!("map[{}]", entries.join(" "))
        }
    };
    let text = format!(
        "(struct {{ TrackedConfigs *map[string]string; LastAppliedSpec string }}){{TrackedConfigs:(*map[string]string){configs} LastAppliedSpec:(string){last_applied}}}"
    );
    let sum = text.bytes().fold(2_166_136_261_u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(16_777_619));
    sum.to_string().bytes().map(|digit| char::from(b"456789bcdf"[usize::from(digit - b'0')])).collect()
}

/// Header of an alert's id, the same for every try of one alert (draft-ietf-httpapi-idempotency-key-header).
pub const ALERT_ID: HeaderName = HeaderName::from_static("idempotency-key");

/// An alert, ready to be sent.
#[derive(Clone, Debug)]
pub struct PreparedAlert {
    /// Where it goes, for the log.
    pub provider: String,
    /// The request, or why there is none.
    pub request: Result<HttpRequest, String>,
}

/// The alerts that a notice causes: those listed in the canary whose severity fits, or the global notifier.
pub fn prepare_alerts(
    plan: &Plan,
    notice: &Notice,
    id: &str,
    subject: &Subject,
    global: Option<&GlobalNotifier>,
) -> Vec<PreparedAlert> {
    let mut alerts = prepare_each(plan, notice, subject, global);
    let requests = alerts.iter_mut().filter_map(|alert| alert.request.as_mut().ok());
    // The payloads are the chats'; whoever has to tell a repetition from news finds the id beside them.
    if let Ok(id) = HeaderValue::try_from(id) {
        requests.for_each(|request| drop(request.headers.insert(ALERT_ID, id.clone())));
    }
    alerts
}

fn prepare_each(
    plan: &Plan,
    notice: &Notice,
    subject: &Subject,
    global: Option<&GlobalNotifier>,
) -> Vec<PreparedAlert> {
    let canary = subject.canary;
    let facts = &plan.alert_facts;
    let details = if notice.with_facts { facts.fields.as_slice() } else { &[] };
    let alert = Alert {
        message: notice.text.clone(),
        severity: notice.severity,
        canary: plan.canary.clone(),
        namespace: plan.namespace.clone(),
        fields: facts.cluster.iter().chain(details).cloned().collect(),
    };
    if canary.analysis.alerts.is_empty() {
        return global.into_iter().filter_map(|global| global.prepare(&alert)).collect();
    }
    let wanted = canary.analysis.alerts.iter().filter(|wanted| notify::wants(wanted.severity, notice.severity));
    wanted
        .filter_map(|wanted| {
            let provider = format!("{}.{}", wanted.provider.name, wanted.provider.namespace);
            let request =
                through_provider(&wanted.provider.namespace, &wanted.provider.name, &alert, subject).transpose()?;
            Some(PreparedAlert { provider, request })
        })
        .collect()
}

fn through_provider(
    namespace: &str,
    name: &str,
    alert: &Alert,
    subject: &Subject,
) -> Result<Option<HttpRequest>, String> {
    let object = subject.objects.get(&kinds::ALERT_PROVIDER, namespace, name);
    let object = object.ok_or_else(|| format!("alertprovider.flagger.app \"{name}\" not found"))?;
    let provider: AlertProvider = decode_object(&object).map_err(|error| error.to_string())?;
    let secret = match provider.spec.secret_ref.as_ref().map(|reference| reference.name.as_str()) {
        None | Some("") => None,
        Some(name) => {
            let secret = subject.objects.get(&kinds::SECRET, namespace, name);
            Some(secret_data(&*secret.ok_or_else(|| format!("secretRef error: {}", kinds::SECRET.not_found(name)))?))
        }
    };
    let target = AlertTarget::from_provider(&provider, secret.as_ref()).map_err(|error| error.to_string())?;
    let channel = notify::for_type(&provider.spec.provider_type).map_err(|error| error.to_string())?;
    channel.request(&target, alert).map_err(|error| error.to_string())
}

/// Where alerts of canaries without `spec.analysis.alerts` go (`--slack-url`, `--msteams-url` …).
#[derive(Clone, Debug)]
pub struct GlobalNotifier {
    /// `slack` or `msteams`.
    pub channel: String,
    /// Where.
    pub target: AlertTarget,
}

impl GlobalNotifier {
    fn prepare(&self, alert: &Alert) -> Option<PreparedAlert> {
        let channel = notify::for_type(&self.channel).map_err(|error| error.to_string());
        let request =
            channel.and_then(|channel| channel.request(&self.target, alert).map_err(|error| error.to_string()));
        Some(PreparedAlert { provider: self.channel.clone(), request: request.transpose()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{checksum, prepare};
    use std::collections::BTreeMap;
    use std::time::Duration;

    use aviary_crds::ValidationOptions;
    use aviary_crds::validated::{ValidatedCanary, WebhookType};
    use serde_json::{Value, json};

    #[test]
    fn webhooks_become_the_calls_that_flagger_makes() {
        let canary = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
            "metadata": {"name": "podinfo", "namespace": "test", "uid": "1"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "service": {"port": 80},
                "analysis": {"interval": "10s", "threshold": 1, "stepWeight": 10, "webhooks": [
                    {"name": "plain", "url": "http://a/"},
                    {"name": "full", "url": "https://b/", "type": "rollout", "timeout": "90s", "retries": 2, "disableTLS": true,
                        "metadata": {"team": "a"}},
                    {"name": "empty", "url": "http://c/", "metadata": {}},
                    {"name": "gate", "url": "http://d/", "type": "confirm-rollout"},
                ]},
            },
        });
        let canary =
            ValidatedCanary::parse(&serde_json::from_value(canary).unwrap(), &ValidationOptions::default()).unwrap();
        let calls = prepare(&canary, WebhookType::Rollout, "Progressing", "85d557f47b");
        let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["plain", "full", "empty"]);
        let bodies: Vec<Value> = calls.iter().map(|call| serde_json::from_slice(&call.request.body).unwrap()).collect();
        let plain = json!({"name": "podinfo", "namespace": "test", "phase": "Progressing", "checksum": "85d557f47b"});
        let mut full = plain.clone();
        full["metadata"] = json!({"team": "a"});
        assert_eq!(bodies, [plain.clone(), full, plain]);
        let [plain, full, _] = calls.as_slice() else { unreachable!() };
        assert_eq!((plain.request.method.as_str(), plain.request.url.as_str()), ("POST", "http://a/"));
        assert_eq!(plain.request.headers["content-type"], "application/json");
        assert_eq!((plain.request.timeout, plain.retries), (Duration::from_secs(10), 0));
        assert_eq!((full.request.timeout, full.retries), (Duration::from_secs(90), 2));
        assert_eq!((plain.request.insecure_skip_verify, full.request.insecure_skip_verify), (false, true));
    }

    fn configs(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(name, sum)| ((*name).to_owned(), (*sum).to_owned())).collect()
    }

    #[test]
    fn checksums_agree_with_flagger() {
        let one = configs(&[("test-config-map", "484637c76acaa7c6")]);
        assert_eq!(checksum(Some(&one), "5f56684589"), "85d557f47b");
        assert_eq!(checksum(Some(&one), "4cb74184589"), "569bdb7cb9");
        assert_eq!(checksum(None, "4cb74184589"), "7c9d467496");
        assert_eq!(checksum(Some(&configs(&[])), "4cb74184589"), "56966965f5");
        let two = configs(&[("configmap/a", "y"), ("secret/b", "x")]);
        assert_eq!(checksum(Some(&two), "abc"), "5694d467f4");
        assert_eq!(checksum(None, ""), "758df7c9fc");
    }
}
