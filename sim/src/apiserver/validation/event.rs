//! Events (`ValidateEventUpdate`).

use serde_json::Value;

use crate::store::FieldError;

/// What `events.k8s.io/v1` lets nobody change, by the names of the stored form.
const IMMUTABLE: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

/// Problems of a change through `events.k8s.io/v1`, of two stored forms. Through the core group everything may be changed.
pub(in crate::apiserver) fn event_update_problems(value: &Value, present: &Value) -> Vec<FieldError> {
    let is_absent = |field: &Value| {
        field.is_null() || *field == "" || *field == 0 || field.as_object().is_some_and(serde_json::Map::is_empty)
    };
    let changed = IMMUTABLE.iter().filter(|field| {
        let (value, present) = (&value[**field], &present[**field]);
        value != present && !(is_absent(value) && is_absent(present))
    });
    // The name of the internal type's field.
    let name = |field: &str| if field == "reportingComponent" { "reportingController" } else { field }.to_owned();
    changed.map(|field| FieldError::invalid(name(field), &value[*field], "field is immutable")).collect()
}
