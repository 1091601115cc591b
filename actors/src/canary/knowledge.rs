//! What the actor knows of its canary object: the plan, and the state as last stored.

use aviary_providers::{ObjectKind, Subject, targets, traffic};
use aviary_rollout::{Capabilities, Plan, Settings, State};
use kube::core::DynamicObject;
use serde_json::Value;

use crate::cache::version;
use crate::deps::CanarySettings;
use crate::dialects::{self, Dialect};
use crate::metrics::Metrics;
use crate::snapshot::Understood;

/// What identifies the spec that was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spec {
    uid: String,
    generation: Option<i64>,
}

struct Held {
    /// `status` as stored.
    raw: Value,
    /// Version of the object it was read from.
    version: u64,
    state: State,
}

/// What a look at the object brought.
pub(super) struct News {
    /// Whether answers to earlier questions are void: the plan is another one, or somebody else changed the status.
    pub(super) answers_are_void: bool,
    /// The former and the present name of the apex service, where it was changed.
    pub(super) renamed: Option<(String, String)>,
}

/// Plan and state of one canary.
#[derive(Default)]
pub(super) struct Knowledge {
    spec: Option<Spec>,
    understood: Option<Result<Understood, String>>,
    held: Option<Held>,
}

impl Knowledge {
    /// Whether the object is another one of the same name.
    pub(super) fn is_about_another(&self, object: &DynamicObject) -> bool {
        self.spec.as_ref().is_some_and(|spec| object.metadata.uid.as_deref() != Some(spec.uid.as_str()))
    }

    /// Takes in the object as it is.
    pub(super) fn learn(
        &mut self,
        kind: &'static ObjectKind,
        object: &DynamicObject,
        settings: &CanarySettings,
        metrics: &Metrics,
    ) -> News {
        let service = if self.is_about_another(object) { None } else { self.service() };
        let answers_are_void = self.take_in(kind, object, settings, metrics);
        let renamed = service.zip(self.service()).filter(|(before, now)| before != now);
        News { answers_are_void, renamed }
    }

    /// Name of the apex service, if it is known.
    fn service(&self) -> Option<String> {
        let understood = self.understood.as_ref()?.as_ref().ok()?;
        Some(understood.canary.service.name.clone())
    }

    /// Takes in the object as it is. Returns whether answers to earlier questions are
    /// void: the plan is another one, or somebody else changed the status.
    fn take_in(
        &mut self,
        kind: &'static ObjectKind,
        object: &DynamicObject,
        settings: &CanarySettings,
        metrics: &Metrics,
    ) -> bool {
        let spec =
            Spec { uid: object.metadata.uid.clone().unwrap_or_default(), generation: object.metadata.generation };
        if self.is_about_another(object) {
            self.held = None;
        }
        // Without a generation (no CRD has such objects) every version is parsed anew.
        let respecified = self.spec.as_ref() != Some(&spec) || spec.generation.is_none();
        if respecified {
            self.forget_refusal(metrics);
            let understood = understand(dialects::of(kind, object), object, settings);
            if understood.is_err() {
                metrics.refused.inc();
            }
            self.understood = Some(understood);
            self.spec = Some(spec);
        }
        let raw = object.data.get("status").unwrap_or(&Value::Null);
        let version = version(object);
        match &mut self.held {
            Some(held) if held.version >= version && version != 0 => respecified,
            Some(held) if held.raw == *raw => {
                held.version = version;
                respecified
            }
            _ => {
                self.held = Some(Held {
                    raw: raw.clone(),
                    version,
                    state: State::from_status(&dialects::of(kind, object).status(object)),
                });
                true
            }
        }
    }

    /// The plan and the state, or why there is no plan.
    pub(super) fn understood(&self) -> Result<(&Understood, &State), &str> {
        match (&self.understood, &self.held) {
            (Some(Ok(understood)), Some(held)) => Ok((understood, &held.state)),
            (Some(Err(refusal)), _) => Err(refusal),
            _ => Err("not yet read"),
        }
    }

    /// The state, if it was read.
    pub(super) fn state(&self) -> Option<&State> {
        self.held.as_ref().map(|held| &held.state)
    }

    /// Whether the stored status is what was read or written last.
    pub(super) fn has_status_of(&self, object: &DynamicObject) -> bool {
        let raw = object.data.get("status").unwrap_or(&Value::Null);
        self.held.as_ref().is_some_and(|held| held.raw == *raw)
    }

    /// The status was written; `object` is what the cache holds now. The state keeps the precision (and the fields that
    /// an older CRD prunes) that the stored form lost, unless somebody else has written since.
    pub(super) fn wrote(&mut self, kind: &'static ObjectKind, object: &DynamicObject, written: &Value, state: State) {
        let raw = object.data.get("status").cloned().unwrap_or(Value::Null);
        let stored = State::from_status(&dialects::of(kind, object).status(object));
        let state = if is_stored_form(&raw, written) { state } else { stored };
        self.held = Some(Held { raw, version: version(object), state });
    }

    /// Drops everything.
    pub(super) fn forget(&mut self, metrics: &Metrics) {
        self.forget_refusal(metrics);
        *self = Knowledge::default();
    }

    fn forget_refusal(&mut self, metrics: &Metrics) {
        if matches!(self.understood, Some(Err(_))) {
            metrics.refused.dec();
        }
    }
}

/// Whether every field that is stored is what was written. Fields may be missing: a CRD without them prunes.
fn is_stored_form(stored: &Value, written: &Value) -> bool {
    match (stored, written) {
        (Value::Object(stored), Value::Object(written)) => {
            stored.iter().all(|(key, value)| written.get(key).is_some_and(|written| is_stored_form(value, written)))
        }
        _ => stored == written,
    }
}

/// Decodes, validates and plans. The error is what a person needs to mend the object.
pub(crate) fn understand(
    dialect: &dyn Dialect,
    object: &DynamicObject,
    settings: &CanarySettings,
) -> Result<Understood, String> {
    let canary = dialect.validate(object, &settings.validation)?;
    let subject = Subject { canary: &canary, settings: &settings.providers, objects: &NoObjects, cookies: None };
    let traffic = traffic::for_subject(&subject).map_err(|error| format!("spec.provider: {error}"));
    let target = targets::for_subject(&subject).map_err(|error| format!("spec.targetRef.kind: {error}"));
    let plan = |provider| {
        let settings = Settings {
            outage: settings.outage,
            provider,
            cluster_name: settings.cluster_name.clone(),
            traffic_settle_time: settings.traffic_settle_time,
            endpoints_settle_time: settings.endpoints_settle_time,
        };
        Plan::new(&canary, &settings).map_err(|error| error.to_string())
    };
    let refusals = traffic.as_ref().map_or_else(|_| Vec::new(), |traffic| traffic.refusals(&canary));
    // What an unknown provider can do, or one that has its own words for it, is no reason for further complaints.
    let capabilities = match &traffic {
        Ok(traffic) if refusals.is_empty() => traffic.capabilities(&canary),
        _ => Capabilities::ALL,
    };
    let plan = match (plan(capabilities), refusals.is_empty()) {
        (plan, true) => plan,
        (plan, false) => Err(refusals.into_iter().chain(plan.err()).collect::<Vec<_>>().join("\n")),
    };
    match (plan, target, traffic) {
        (Ok(plan), Ok(target), Ok(traffic)) => Ok(Understood { canary, plan, target, traffic }),
        (plan, target, traffic) => {
            let refusals = [traffic.err(), target.err(), plan.err()];
            Err(refusals.into_iter().flatten().collect::<Vec<_>>().join("\n"))
        }
    }
}

struct NoObjects;

impl aviary_providers::Objects for NoObjects {
    fn list(&self, _: &'static ObjectKind, _: &str) -> Vec<std::sync::Arc<DynamicObject>> {
        Vec::new()
    }

    fn get(&self, _: &'static aviary_providers::ObjectKind, _: &str, _: &str) -> Option<std::sync::Arc<DynamicObject>> {
        None
    }
}
