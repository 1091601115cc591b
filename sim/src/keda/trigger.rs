//! What a trigger measures.

use http::Method;
use serde_json::Value;

use super::TIMEOUT;
use crate::prometheus::Prometheus;

/// Whether KEDA asks somebody about it here; resource metrics are the autoscaler's.
pub(super) fn is_asked(trigger: &Value) -> bool {
    trigger["type"] == "prometheus"
}

/// The value of its query; nothing found is zero, as with `ignoreNullValues`, which is KEDA's default.
///
/// # Errors
/// Why there is none.
pub(super) async fn ask(prometheus: &Prometheus, trigger: &Value) -> Result<f64, String> {
    let query: String = url_encoded(trigger["metadata"]["query"].as_str().unwrap_or_default());
    let path = format!("/api/v1/query?query={query}");
    let answer = tokio::time::timeout(TIMEOUT, prometheus.handle(&Method::GET, &path, b"")).await;
    let (status, body) = answer
        .map_err(|_| "error requesting prometheus: no answer".to_owned())?
        .map_err(|error| format!("error requesting prometheus: {error}"))?;
    if !status.is_success() {
        return Err(format!("prometheus query api returned error. status: {} response: {body}", status.as_u16()));
    }
    let answer: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
    let result = &answer["data"]["result"];
    let sample = match answer["data"]["resultType"].as_str() {
        Some("scalar") => &result[1],
        _ => match result.as_array().map_or(0, Vec::len) {
            0 => return Ok(0.0),
            1 => &result[0]["value"][1],
            _ => return Err("prometheus query returned multiple elements".to_owned()),
        },
    };
    let value = sample.as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(if value.is_finite() { value } else { 0.0 })
}

fn url_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn number(trigger: &Value, field: &str) -> Option<f64> {
    match &trigger["metadata"][field] {
        Value::String(text) => text.parse().ok(),
        other => other.as_f64(),
    }
}

/// Above it the trigger is active.
pub(super) fn activation(trigger: &Value) -> f64 {
    number(trigger, "activationThreshold").unwrap_or(0.0)
}

/// The value for which one pod is enough.
pub(super) fn threshold(trigger: &Value) -> f64 {
    number(trigger, "threshold").filter(|threshold| *threshold > 0.0).unwrap_or(1.0)
}

/// Pods that a value asks for: as many times the threshold as it is, or with `metricType: Value` that many times the pods there
/// are.
#[allow(clippy::cast_precision_loss, reason = "replicas are few")]
pub(super) fn pods(trigger: &Value, value: f64, replicas: i64) -> f64 {
    let times = value / threshold(trigger);
    if trigger["metricType"] == "Value" { times * replicas as f64 } else { times }
}
