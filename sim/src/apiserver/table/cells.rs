//! Texts that several kinds share.

use jiff::Timestamp;
use serde_json::Value;

use super::duration;

pub(super) const NONE: &str = "<none>";
pub(super) const UNKNOWN: &str = "<unknown>";

/// The text at a JSON pointer; empty where there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The text at a JSON pointer, or a word that stands for nothing.
pub(super) fn text_or<'a>(object: &'a Value, pointer: &str, nothing: &'a str) -> &'a str {
    match text(object, pointer) {
        "" => nothing,
        found => found,
    }
}

/// The number at a JSON pointer; zero where there is none, as for a missing Go field.
pub(super) fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The items at a JSON pointer.
pub(super) fn items<'a>(
    object: &'a Value,
    pointer: &str,
) -> impl DoubleEndedIterator<Item = &'a Value> + ExactSizeIterator {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter()
}

pub(super) fn name(object: &Value) -> Value {
    Value::from(text(object, "/metadata/name"))
}

pub(super) fn age(object: &Value, now: Timestamp) -> Value {
    Value::from(duration::since(&object["metadata"]["creationTimestamp"], now))
}

/// A number or a text as it stands, e.g. an `IntOrString`.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// Names and images of the containers of a pod spec, each with commas between.
pub(super) fn containers(pod_spec: Option<&Value>) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let texts: Vec<&str> = pod_spec
            .and_then(|spec| spec["containers"].as_array())
            .into_iter()
            .flatten()
            .map(|container| container[field].as_str().unwrap_or_default())
            .collect();
        Value::from(texts.join(","))
    })
}

/// A map of labels as `a=1,b=2`; `<none>` for an empty one (`labels.FormatLabels`).
pub(super) fn labels(labels: Option<&Value>) -> String {
    let pairs: Vec<String> = pairs(labels);
    if pairs.is_empty() { NONE.to_owned() } else { pairs.join(",") }
}

fn pairs(labels: Option<&Value>) -> Vec<String> {
    let mut pairs: Vec<(&String, String)> =
        labels.and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key, plain(value))).collect();
    pairs.sort();
    pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

/// A label selector as `a=1,b in (x,y)`; `<none>` for one that selects by nothing (`metav1.FormatLabelSelector`).
pub(super) fn selector(selector: &Value) -> String {
    let mut requirements: Vec<(String, String)> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", plain(value))))
        .collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = plain(&expression["key"]);
        let mut values: Vec<String> = expression["values"].as_array().into_iter().flatten().map(plain).collect();
        values.sort();
        let values = values.join(",");
        let requirement = match expression["operator"].as_str().unwrap_or_default() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        };
        requirements.push((key, requirement));
    }
    requirements.sort_by(|left, right| left.0.cmp(&right.0));
    if requirements.is_empty() {
        return NONE.to_owned();
    }
    requirements.into_iter().map(|(_, requirement)| requirement).collect::<Vec<_>>().join(",")
}

/// The first few of a list, and how many more there are.
pub(super) fn first_few(texts: &[String], shown: usize) -> String {
    if texts.len() <= shown {
        return texts.join(",");
    }
    format!("{} + {} more...", texts[..shown].join(","), texts.len() - shown)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{first_few, labels, selector};

    #[test]
    fn selectors_and_labels_read_as_kubectl_prints_them() {
        let both = json!({
            "matchLabels": {"b": "2", "a": "1"},
            "matchExpressions": [
                {"key": "c", "operator": "NotIn", "values": ["y", "x"]}, {"key": "aa", "operator": "DoesNotExist"},
            ],
        });
        assert_eq!(selector(&both), "a=1,!aa,b=2,c notin (x,y)");
        assert_eq!(selector(&json!({})), "<none>");
        assert_eq!(labels(Some(&json!({"b": "", "a": "1"}))), "a=1,b=");
        assert_eq!(labels(None), "<none>");
    }

    #[test]
    fn long_lists_are_cut() {
        let texts: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(first_few(&texts[..3], 3), "a,b,c");
        assert_eq!(first_few(&texts, 3), "a,b,c + 2 more...");
    }
}
