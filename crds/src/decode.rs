//! Decoding of one object at a time.
//!
//! Flagger decodes whole lists, so that one object with `stepWeight: 2.5` (which its schema admits) blinds it for all
//! canaries. Here an object that cannot be decoded is reported by name and path and set aside alone.

use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};
use thiserror::Error;

/// Why an object could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.render())]
pub struct DecodeError {
    /// Path of the field from the root of the object, such as `spec.analysis.metrics[0].threshold`.
    pub path: String,
    /// What stands there, as JSON, shortened. `None` if nothing does.
    pub value: Option<String>,
    /// What is wrong with it, such as `expected a whole number`.
    pub hint: String,
}

impl DecodeError {
    fn render(&self) -> String {
        match &self.value {
            Some(value) => format!("{}: invalid value {value}: {}", self.path, self.hint),
            None => format!("{}: {}", self.path, self.hint),
        }
    }
}

/// Decodes an object.
///
/// # Errors
/// Names the first field that is missing or does not fit.
pub fn decode<T: DeserializeOwned>(object: &Value) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(object).map_err(|error| explain(error.path(), &error.inner().to_string(), object))
}

/// Decodes an object from a watch.
///
/// # Errors
/// Names the first field that is missing or does not fit.
pub fn decode_object<T: DeserializeOwned>(object: &DynamicObject) -> Result<T, DecodeError> {
    let value = serde_json::to_value(object).map_err(|error| DecodeError {
        path: "metadata".to_owned(),
        value: None,
        hint: error.to_string(),
    })?;
    decode(&value)
}

/// Turns serde's message into path, value and hint.
fn explain(path: &Path, message: &str, object: &Value) -> DecodeError {
    if let Some(field) = quoted_after(message, "missing field `") {
        return DecodeError {
            path: join(&render_path(path), field),
            value: None,
            hint: "required field is missing".to_owned(),
        };
    }
    let hint = match message.find("expected ") {
        Some(start) => name_types(&message[start..]),
        None => message.to_owned(),
    };
    DecodeError { path: render_path(path), value: value_at(object, path).map(shorten), hint }
}

fn quoted_after<'a>(message: &'a str, start: &str) -> Option<&'a str> {
    message.strip_prefix(start)?.split('`').next()
}

/// Replaces Rust's words for types by those of the schema.
fn name_types(hint: &str) -> String {
    match hint {
        "expected i64" | "expected i32" | "expected u16" => "expected a whole number".to_owned(),
        "expected f64" => "expected a number".to_owned(),
        "expected a sequence" => "expected a list".to_owned(),
        "expected a map" => "expected an object".to_owned(),
        other if other.starts_with("expected struct ") => "expected an object".to_owned(),
        other => other.to_owned(),
    }
}

fn render_path(path: &Path) -> String {
    let mut rendered = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => rendered.push_str(&format!("[{index}]")),
            Segment::Map { key } => rendered = join(&rendered, key),
            Segment::Enum { variant } => rendered = join(&rendered, variant),
            Segment::Unknown => rendered = join(&rendered, "?"),
        }
    }
    rendered
}

fn join(parent: &str, field: &str) -> String {
    if parent.is_empty() { field.to_owned() } else { format!("{parent}.{field}") }
}

fn value_at<'a>(object: &'a Value, path: &Path) -> Option<&'a Value> {
    let mut value = object;
    for segment in path {
        value = match segment {
            Segment::Seq { index } => value.get(index)?,
            Segment::Map { key } => value.get(key)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    Some(value)
}

/// JSON of a value, cut to fit in one line of a condition or an event.
pub(crate) fn shorten(value: &Value) -> String {
    // Enough to recognise what one has written; a Kubernetes event message holds 1024 bytes in all.
    const MAX_CHARS: usize = 60;
    let json = value.to_string();
    if json.chars().count() <= MAX_CHARS {
        return json;
    }
    let start: String = json.chars().take(MAX_CHARS).collect();
    format!("{start}…")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;
    use crate::Canary;

    fn canary(field: &str, value: Value) -> Value {
        let mut object = json!({
            "metadata": {"name": "podinfo", "namespace": "test"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
                "service": {"port": 80, "match": [{"uri": {"prefix": "/"}}]},
                "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10, "stepWeights": [1, 2],
                             "metrics": [{"name": "latency", "thresholdRange": {"max": 1}}]}
            },
            "status": {"phase": "Progressing", "conditions": [{"type": "Promoted", "status": "Unknown"}]}
        });
        *object.pointer_mut(field).expect("the field is there") = value;
        object
    }

    #[track_caller]
    fn refusal(field: &str, value: Value) -> String {
        decode::<Canary>(&canary(field, value)).expect_err("must be refused").to_string()
    }

    #[test]
    fn names_path_value_and_expectation() {
        assert_eq!(
            refusal("/spec/analysis/stepWeight", json!(2.5)),
            "spec.analysis.stepWeight: invalid value 2.5: expected a whole number"
        );
        assert_eq!(
            refusal("/spec/analysis/stepWeights/1", json!(2.5)),
            "spec.analysis.stepWeights[1]: invalid value 2.5: expected a whole number"
        );
        assert_eq!(
            refusal("/spec/analysis/stepWeights", json!(5)),
            "spec.analysis.stepWeights: invalid value 5: expected a list of whole numbers"
        );
        assert_eq!(
            refusal("/spec/service/port", json!("http")),
            "spec.service.port: invalid value \"http\": expected a whole number"
        );
        assert_eq!(
            refusal("/spec/analysis/metrics/0/thresholdRange/max", json!("1")),
            "spec.analysis.metrics[0].thresholdRange.max: invalid value \"1\": expected a number"
        );
        assert_eq!(
            refusal("/spec/analysis/metrics", json!({})),
            "spec.analysis.metrics: invalid value {}: expected a list"
        );
        assert_eq!(refusal("/spec/analysis", json!("x")), "spec.analysis: invalid value \"x\": expected an object");
        // Inside types that keep unknown fields.
        assert_eq!(
            refusal("/spec/service/match/0/uri/prefix", json!(1)),
            "spec.service.match[0].uri.prefix: invalid value 1: expected a string"
        );
        let phase = refusal("/status/phase", json!("Flying"));
        assert!(
            phase.starts_with("status.phase: invalid value \"Flying\": expected one of ``, `Initializing`,"),
            "{phase}"
        );
    }

    #[test]
    fn names_a_missing_field() {
        assert_eq!(refusal("/spec", json!({"analysis": {}})), "spec.targetRef: required field is missing");
        assert_eq!(
            refusal("/spec/analysis/metrics/0", json!({"interval": "1m"})),
            "spec.analysis.metrics[0].name: required field is missing"
        );
        assert_eq!(decode::<Canary>(&json!({})).expect_err("refused").to_string(), "spec: required field is missing");
    }

    #[test]
    fn shortens_long_values() {
        let error = refusal("/spec/service/port", json!("x".repeat(500)));
        assert!(error.chars().count() < 150, "{error}");
        assert!(error.contains("xx…:"), "{error}");
    }

    #[test]
    fn whole_floats_are_integers_and_null_is_nothing() {
        let decoded: Canary = decode(&canary("/spec/analysis/stepWeight", json!(10.0))).expect("decodes");
        assert_eq!(decoded.spec.effective_analysis().unwrap().step_weight, Some(10));
        let decoded: Canary = decode(&canary("/spec/analysis/stepWeights", json!([10.0, 20]))).expect("decodes");
        assert_eq!(decoded.spec.effective_analysis().unwrap().step_weights, [10, 20]);
        let decoded: Canary = decode(&canary("/spec/analysis/metrics", Value::Null)).expect("decodes");
        assert!(decoded.spec.effective_analysis().unwrap().metrics.is_empty());
        let decoded: Canary = decode(&canary("/spec/analysis/stepWeights", Value::Null)).expect("decodes");
        assert!(decoded.spec.effective_analysis().unwrap().step_weights.is_empty());
    }

    #[test]
    fn objects_from_a_watch_keep_their_metadata() {
        let object: DynamicObject = serde_json::from_value(canary("/spec/service/port", json!(80))).expect("an object");
        let decoded: Canary = decode_object(&object).expect("decodes");
        assert_eq!(decoded.metadata.name.as_deref(), Some("podinfo"));
        assert_eq!(decoded.spec.service.expect("a service").port, 80);

        let object: DynamicObject =
            serde_json::from_value(canary("/spec/service/port", json!(0.5))).expect("an object");
        let error = decode_object::<Canary>(&object).expect_err("refused");
        assert_eq!((error.path.as_str(), error.value.as_deref()), ("spec.service.port", Some("0.5")));
    }
}
