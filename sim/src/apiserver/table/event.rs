//! The row of an event.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{UNKNOWN, name, number, text, text_or};
use super::duration;

pub(super) fn cells(event: &Value, now: Timestamp) -> Vec<Value> {
    let since =
        |pointer: &str| event.pointer(pointer).filter(|time| !time.is_null()).map(|time| duration::since(time, now));
    let first = since("/firstTimestamp").or_else(|| since("/eventTime")).unwrap_or_else(|| UNKNOWN.to_owned());
    let mut last = since("/lastTimestamp").unwrap_or_else(|| first.clone());
    // An event that happened once has no count in the newer API.
    let mut count = number(event, "/count").max(1);
    if event.pointer("/series").is_some_and(Value::is_object) {
        last = since("/series/lastObservedTime").unwrap_or_else(|| UNKNOWN.to_owned());
        count = number(event, "/series/count");
    }
    let mut object = text(event, "/involvedObject/kind").to_lowercase();
    let object_name = text(event, "/involvedObject/name");
    if !object_name.is_empty() {
        object = format!("{object}/{object_name}");
    }
    vec![
        json!(last),
        json!(text(event, "/type")),
        json!(text(event, "/reason")),
        json!(object),
        json!(text(event, "/involvedObject/fieldPath")),
        json!(source(event)),
        json!(text(event, "/message").trim()),
        json!(first),
        json!(count),
        name(event),
    ]
}

fn source(event: &Value) -> String {
    let component = text_or(event, "/source/component", text(event, "/reportingComponent"));
    match text_or(event, "/source/host", text(event, "/reportingInstance")) {
        "" => component.to_owned(),
        instance => format!("{component}, {instance}"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::cells;

    #[test]
    fn old_and_new_events_show_when_and_how_often() {
        let now = Timestamp::from_second(100).unwrap_or_default();
        let old = cells(
            &json!({
                "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p"}, "count": 3, "message": "m\n",
                "firstTimestamp": "1970-01-01T00:00:40Z", "lastTimestamp": "1970-01-01T00:01:30Z",
                "source": {"component": "kubelet", "host": "node-1"},
            }),
            now,
        );
        assert_eq!((&old[0], &old[7], &old[8]), (&json!("10s"), &json!("60s"), &json!(3)));
        assert_eq!((&old[3], &old[5], &old[6]), (&json!("pod/p"), &json!("kubelet, node-1"), &json!("m")));
        let new = cells(
            &json!({
                "metadata": {"name": "e"}, "involvedObject": {"kind": "Node"}, "eventTime": "1970-01-01T00:00:50.000000Z",
                "reportingComponent": "scheduler", "series": {"count": 5, "lastObservedTime": "1970-01-01T00:01:35.000000Z"},
            }),
            now,
        );
        assert_eq!((&new[0], &new[7], &new[8]), (&json!("5s"), &json!("50s"), &json!(5)));
        assert_eq!((&new[3], &new[5]), (&json!("node"), &json!("scheduler")));
    }
}
