//! The way from `kubectl apply` to `kubectl apply --server-side`: kubectl's annotation tells which fields it set itself
//! (`lastAppliedManager`, `lastAppliedUpdater`).

use serde_json::Value;

use super::compare::{compare, fields_of};
use super::set::Set;
use super::update::Writer;

/// The only manager for which the annotation counts. Others say that they do not want this by their name.
pub(super) const MANAGER: &str = "kubectl";

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Sum of the sizes of all annotations of an object (`TotalAnnotationSizeLimitB`).
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Fields that the annotation set and that still have the annotation's value. `None` without a usable annotation.
pub(super) fn unchanged_fields(writer: &Writer<'_>, live: &Value) -> Option<Set> {
    let text = live["metadata"]["annotations"][ANNOTATION].as_str()?;
    let last: Value = serde_json::from_str(text).ok()?;
    if last["apiVersion"] != writer.api_version() {
        return None;
    }
    let ty = writer.own_type();
    let changes = compare(ty, &last, live, |_| true);
    let fields = fields_of(ty, &last);
    Some(fields.difference(&changes.modified).difference(&changes.added).difference(&changes.removed))
}

/// Keeps an annotation that is there up to date with what was applied.
pub(super) fn refresh(value: &mut Value, config: &Value) {
    let Some(annotations) = self::annotations(value) else {
        return;
    };
    if annotations.get(ANNOTATION).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = self::annotations(&mut config) {
        annotations.remove(ANNOTATION);
    }
    // As Go's encoder prints it: HTML escaped, and a line.
    let text = config.to_string().replace('&', "\\u0026").replace('<', "\\u003c").replace('>', "\\u003e") + "\n";
    let others = annotations.iter().filter(|(name, _)| name.as_str() != ANNOTATION);
    let size: usize = others.map(|(name, value)| name.len() + value.as_str().map_or(0, str::len)).sum();
    if size + ANNOTATION.len() + text.len() > ANNOTATIONS_LIMIT {
        annotations.remove(ANNOTATION);
    } else {
        annotations.insert(ANNOTATION.to_owned(), Value::String(text));
    }
}

fn annotations(object: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}
