//! Kubernetes events: how one is written.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aviary_crds::names::EVENT_REASON;
use aviary_crds::validated::AlertSeverity;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::dialects;
use crate::messages::{EventSubject, Record};
use crate::retry::Retry;

/// An event that takes longer to write is given up: as long as any other write, so that one lost connection does not hold up
/// the events of other canaries of its namespace for longer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// An event that repeats within this time raises the count of the first one, as `kubectl describe` shows it.
const REPEAT_WINDOW: Duration = Duration::from_secs(600);
/// Events remembered for that: more than a thousand busy canaries say in that time. Beyond it the oldest are forgotten and a
/// repetition is a new event.
const REMEMBERED: usize = 16_000;

/// Tries to record an event while the API server is away, and first and longest wait in between: a minute and a half in
/// all, as long as the API server of a cluster without a spare one takes for an upgrade. (client-go: 12 tries as well.)
const TRIES: u32 = 12;
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Events that are forbidden are tried again until they have been for this long: an API server that was started anew knows
/// nobody's roles yet and forbids everything to everybody, for about a second. Where the right is missing, it is waited
/// for this long once for each namespace, and never again until the right is there.
const REFUSAL_DOUBTED: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Recent {
    name: String,
    count: i32,
    last: Timestamp,
}

/// Writes events. A cheap handle.
#[derive(Clone)]
pub(super) struct Writer {
    client: Client,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    recent: HashMap<(String, String), Recent>,
    /// Namespaces whose last event was refused, and since when they are.
    refused_since: HashMap<String, Instant>,
}

impl Writer {
    pub(super) fn new(client: Client) -> Writer {
        Writer { client, memory: Arc::default() }
    }

    /// Writes an event, or says why it could not be. `number` makes the names of events of one instant differ.
    pub(super) async fn record(&self, record: &Record, number: u64) -> Result<(), String> {
        let writing = AssertUnwindSafe(self.write_patiently(record, number)).catch_unwind();
        writing.await.unwrap_or_else(|_| Err("the write panicked".to_owned()))
    }

    fn with_memory<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for an API server that is away: what happened meanwhile is what people will ask about.
    async fn write_patiently(&self, record: &Record, number: u64) -> Result<(), String> {
        let name = event_name(record, number);
        let mut retry = Retry::new(RETRY.0, RETRY.1, &name);
        let mut tries = 1;
        loop {
            match tokio::time::timeout(TIMEOUT, self.write(record, &name)).await {
                Ok(Ok(())) => {
                    self.with_memory(|memory| memory.refused_since.remove(&record.about.canary.namespace));
                    return Ok(());
                }
                // An earlier try arrived after all.
                Ok(Err(kube::Error::Api(status))) if status.code == 409 && tries > 1 => return Ok(()),
                Ok(Err(error)) if is_away(&error) && tries < TRIES => tokio::time::sleep(retry.next_delay()).await,
                // Nobody can read it any more: client-go, too, says this to debuggers only.
                Ok(Err(kube::Error::Api(status))) if is_of_gone_namespace(&status) => {
                    tracing::debug!("an event was not recorded: {}", status.message);
                    return Ok(());
                }
                Ok(Err(kube::Error::Api(status))) if status.code == 403 && self.doubts_refusal(record) => {
                    tokio::time::sleep(retry.next_delay()).await;
                }
                Ok(Err(kube::Error::Api(status))) => return Err(status.message.clone()),
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(format!("no answer from the API server within {TIMEOUT:?}")),
            }
            tries += 1;
        }
    }

    /// Whether a refusal may be that of an API server that has just been started.
    fn doubts_refusal(&self, record: &Record) -> bool {
        let namespace = record.about.canary.namespace.clone();
        let since = self.with_memory(|memory| *memory.refused_since.entry(namespace).or_insert_with(Instant::now));
        since.elapsed() < REFUSAL_DOUBTED
    }

    async fn write(&self, record: &Record, name: &str) -> kube::Result<()> {
        let at = record.at;
        let namespace = record.about.canary.namespace.clone();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let text = record.note.to_string();
        let key = (record.about.uid.clone(), text.clone());
        let known = self.with_memory(|memory| memory.recent.get(&key).cloned());
        if let Some(recent) = known.filter(|recent| is_repeat(recent, at)) {
            let count = recent.count + 1;
            let patch = serde_json::json!({"count": count, "lastTimestamp": Time(whole(at))});
            match events.patch(&recent.name, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => {
                    self.with_memory(|memory| memory.remember(key, Recent { count, last: at, ..recent }));
                    return Ok(());
                }
                // The event was deleted meanwhile (they live for an hour); record it anew.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = event(name, &record.about, &text, record.note.severity(), at);
        let created = events.create(&PostParams::default(), &event).await?;
        if let Some(name) = created.metadata.name {
            self.with_memory(|memory| memory.remember(key, Recent { name, count: 1, last: at }));
        }
        Ok(())
    }
}

impl Memory {
    fn remember(&mut self, key: (String, String), recent: Recent) {
        if self.recent.len() >= REMEMBERED {
            let now = recent.last;
            self.recent.retain(|_, known| is_repeat(known, now));
            if self.recent.len() >= REMEMBERED {
                self.recent.clear();
            }
        }
        self.recent.insert(key, recent);
    }
}

/// Whether an event is refused because its namespace is going or gone.
fn is_of_gone_namespace(status: &kube::core::Status) -> bool {
    let details = status.details.as_ref();
    let is_terminating = details
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
        || (status.code == 403 && status.message.ends_with("because it is being terminated"));
    is_terminating || (status.code == 404 && details.is_some_and(|details| details.kind == "namespaces"))
}

/// Whether the API server may well take the event later. A 500 is not it: it comes from the webhook of some tenant, for
/// which the others do not wait.
fn is_away(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 503),
        kube::Error::HyperError(_) | kube::Error::Service(_) => true,
        _ => false,
    }
}

/// client-go's naming, the object and the time in hexadecimal nanoseconds; with our own name in between, because a
/// workload of the canary's name has events of its own.
fn event_name(record: &Record, number: u64) -> String {
    let nanoseconds = record.at.as_nanosecond().saturating_add(number.into());
    format!("{}.aviary.{nanoseconds:x}", record.about.canary.name)
}

fn is_repeat(recent: &Recent, at: Timestamp) -> bool {
    at.duration_since(recent.last).unsigned_abs() < REPEAT_WINDOW
}

fn whole(at: Timestamp) -> Timestamp {
    aviary_crds::status::whole_seconds(at)
}

fn event(name: &str, about: &EventSubject, text: &str, severity: AlertSeverity, at: Timestamp) -> Event {
    let time = Time(whole(at));
    let source = dialects::event_source(about.canary.kind);
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(about.canary.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(about.canary.kind.api_version()),
            kind: Some(about.canary.kind.kind.to_owned()),
            namespace: Some(about.canary.namespace.clone()),
            name: Some(about.canary.name.clone()),
            uid: Some(about.uid.clone()),
            resource_version: Some(about.resource_version.clone()),
            ..ObjectReference::default()
        },
        type_: Some(match severity {
            AlertSeverity::Info => "Normal".to_owned(),
            AlertSeverity::Warn | AlertSeverity::Error => "Warning".to_owned(),
        }),
        reason: Some(EVENT_REASON.to_owned()),
        message: Some(text.to_owned()),
        source: Some(EventSource { component: Some(source.to_owned()), ..EventSource::default() }),
        reporting_component: Some(source.to_owned()),
        first_timestamp: Some(time.clone()),
        last_timestamp: Some(time),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_a_namespace_that_goes_are_no_matter() {
        let status = |value| serde_json::from_value::<kube::core::Status>(value).unwrap();
        let message =
            "events \"a\" is forbidden: unable to create new content in namespace test because it is being terminated";
        assert!(is_of_gone_namespace(&status(
            json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": message})
        )));
        let gone = json!({"status": "Failure", "code": 404, "reason": "NotFound", "message": "namespaces \"test\" not found",
            "details": {"kind": "namespaces", "name": "test"}});
        assert!(is_of_gone_namespace(&status(gone)));
        let forbidden =
            json!({"status": "Failure", "code": 403, "reason": "Forbidden", "message": "events is forbidden: no role"});
        assert!(!is_of_gone_namespace(&status(forbidden)));
    }
}
