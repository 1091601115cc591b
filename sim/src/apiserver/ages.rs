//! Times for those who compute ages by their own clock.
//!
//! `kubectl get` is told ages, `kubectl describe` works them out from times and the clock of the computer that it runs on. Where
//! the cluster's clock runs faster, all that has just happened is in the future there, and an age is `<invalid>`. So the commands
//! that print ages of their own, and say who they are, get times that are as long ago by their clock as they are by the
//! cluster's. What is written back never comes from them.

use http::request::Parts;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::response::{Answer, AnswerBody};
use crate::clock::{Clock, format_seconds};
use crate::store::to_bytes;

/// Tells the command that a request of kubectl belongs to.
const COMMAND: &str = "kubectl-command";

/// Commands that print ages of their own, and nothing that could be written back.
const COMMANDS: [&str; 2] = ["kubectl describe", "kubectl events"];

/// Below this nobody sees the difference: ages are told in seconds.
const TOLERATED: SignedDuration = SignedDuration::from_millis(500);

/// Fields whose texts are the user's.
const OWN_TEXTS: [&str; 4] = ["annotations", "labels", "data", "stringData"];

/// Moves the times in an answer to such a command to the clock of the computer.
#[allow(clippy::disallowed_methods, reason = "kubectl reads the computer's clock, whatever the cluster's is")]
pub(super) fn by_the_clients_clock(answer: &mut Answer, head: &Parts, clock: &Clock) {
    let command = head.headers.get(COMMAND).and_then(|command| command.to_str().ok()).unwrap_or_default();
    if !COMMANDS.contains(&command) {
        return;
    }
    let ahead = clock.now().duration_since(Timestamp::now());
    if ahead.abs() < TOLERATED {
        return;
    }
    if let AnswerBody::Json(bytes) = &mut answer.body
        && let Ok(mut value) = serde_json::from_slice(bytes)
    {
        shift(&mut value, ahead);
        *bytes = to_bytes(&value);
    }
}

fn shift(value: &mut Value, ahead: SignedDuration) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| shift(item, ahead)),
        Value::Object(fields) => {
            let fields = fields.iter_mut().filter(|(name, _)| !OWN_TEXTS.contains(&name.as_str()));
            fields.for_each(|(_, field)| shift(field, ahead));
        }
        Value::String(text) => {
            if let Some(shifted) = shifted(text, ahead) {
                *text = shifted;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Another moment in the same form; `None` for what is no time.
fn shifted(text: &str, ahead: SignedDuration) -> Option<String> {
    let looks_like_one =
        text.len() >= "2026-01-01T00:00:00Z".len() && text.as_bytes()[10] == b'T' && text.ends_with('Z');
    let time: Timestamp = looks_like_one.then(|| text.parse().ok()).flatten()?;
    let moved = time.checked_sub(ahead).ok()?;
    Some(match text.contains('.') {
        true => moved.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        false => format_seconds(moved),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

    use std::time::Duration;

    use serde_json::json;

    use super::*;

    /// What a request of this command gets from a cluster whose clock is an hour ahead.
    fn answered(command: &str, object: &Value) -> Value {
        let clock = Clock::new(Timestamp::now() + SignedDuration::from_hours(1));
        let request = http::Request::get("/").header("Kubectl-Command", command).body(()).unwrap();
        let mut answer = Answer::json(200, to_bytes(object));
        by_the_clients_clock(&mut answer, &request.into_parts().0, &clock);
        let AnswerBody::Json(bytes) = answer.body else { panic!("no JSON") };
        serde_json::from_slice(&bytes).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_age_that_kubectl_computes_is_that_of_the_cluster() {
        let now = Timestamp::now();
        let text = |ago: u64| format_seconds(now + SignedDuration::from_hours(1) - Duration::from_secs(ago));
        let own = json!({"at": text(30), "note": "2026-01-01T"});
        let object = json!({
            "metadata": {"creationTimestamp": text(30), "annotations": own, "name": "2026-01-01t00-00-00z-abcdef"},
            "status": {"conditions": [{"lastTransitionTime": text(20)}]}, "eventTime": "2026-01-01T00:00:00.123456Z",
            "data": own,
        });
        let described = answered("kubectl describe", &object);
        for (path, ago) in [("/metadata/creationTimestamp", 30), ("/status/conditions/0/lastTransitionTime", 20)] {
            let told: Timestamp = described.pointer(path).and_then(Value::as_str).unwrap().parse().unwrap();
            let age = now.duration_since(told).as_secs();
            assert!((ago - 2..=ago + 2).contains(&age), "{path}: {age} s");
        }
        let micros = described["eventTime"].as_str().unwrap();
        assert!(micros.starts_with("2025-12-31T2") && micros.len() == "2026-01-01T00:00:00.123456Z".len(), "{micros}");
        assert_eq!((&described["metadata"]["annotations"], &described["data"]), (&own, &own), "texts of the user's");
        assert_eq!(described["metadata"]["name"], object["metadata"]["name"]);
        assert_eq!(answered("kubectl get", &object), object, "what may be written back stays");
    }
}
