//! A small world for tests: objects, and changes applied to them as an API server would.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

mod fixtures;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aviary_crds::validated::{ValidatedCanary, ValidationOptions};
use aviary_crds::{Canary, decode};
use aviary_rollout::Cookies;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::change::{Change, Verb};
use crate::object::{ObjectKey, ObjectKind, Objects};
use crate::{Settings, Subject};

pub(crate) const NAMESPACE: &str = "test";

/// The Rollout of Steerer's README.
pub(crate) fn rollout() -> ValidatedCanary {
    let object = json!({
        "apiVersion": "apps.weave.works/v1beta1", "kind": "Rollout",
        "metadata": {"name": "podinfo", "namespace": NAMESPACE},
        "spec": {
            "primary": {"name": "podinfo", "host": "podinfo"},
            "canary": {"name": "podinfo-canary", "host": "podinfo-canary"},
            "virtualService": {"name": "podinfo", "weight": 10},
            "metric": {"name": "istio_requests_total", "interval": "1m", "threshold": 99},
        },
    });
    let rollout: aviary_crds::Rollout = decode(&object).unwrap();
    rollout.validated(&ValidationOptions::default()).unwrap()
}

/// Objects, a canary and settings.
pub(crate) struct World {
    pub(crate) canary: ValidatedCanary,
    pub(crate) settings: Settings,
    pub(crate) cookies: Option<Cookies>,
    objects: BTreeMap<ObjectKey, Arc<DynamicObject>>,
    asked: RefCell<BTreeSet<ObjectKey>>,
    version: u64,
}

impl Objects for World {
    fn list(&self, kind: &'static ObjectKind, namespace: &str) -> Vec<Arc<DynamicObject>> {
        let of_kind = self.objects.iter().filter(|(key, _)| key.kind == kind && key.namespace == namespace);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    fn get(&self, kind: &'static ObjectKind, namespace: &str, name: &str) -> Option<Arc<DynamicObject>> {
        let key = ObjectKey { kind, namespace: namespace.to_owned(), name: name.to_owned() };
        let found = self.objects.get(&key).cloned();
        self.asked.borrow_mut().insert(key);
        found
    }
}

impl World {
    /// A world with the canary `podinfo` of the Deployment `podinfo`, merged with `spec`.
    pub(crate) fn new(spec: Value) -> World {
        World {
            canary: canary(spec),
            settings: Settings::default(),
            cookies: None,
            objects: BTreeMap::new(),
            asked: RefCell::default(),
            version: 0,
        }
    }

    /// A world with somebody's canary.
    pub(crate) fn of(canary: ValidatedCanary) -> World {
        World { canary, ..World::new(json!({})) }
    }

    pub(crate) fn subject(&self) -> Subject<'_> {
        Subject { canary: &self.canary, settings: &self.settings, objects: self, cookies: self.cookies.as_ref() }
    }

    /// Puts an object where it belongs; name and contents are given.
    pub(crate) fn put(&mut self, kind: &'static ObjectKind, name: &str, object: Value) {
        let mut object: DynamicObject = {
            let mut object = object;
            object["metadata"]["name"] = name.into();
            object["metadata"]["namespace"] = NAMESPACE.into();
            serde_json::from_value(object).unwrap()
        };
        self.version += 1;
        object.metadata.resource_version = Some(self.version.to_string());
        self.objects.insert(key(kind, name), Arc::new(object));
    }

    pub(crate) fn remove(&mut self, kind: &'static ObjectKind, name: &str) {
        self.objects.remove(&key(kind, name)).expect("an object to remove");
    }

    pub(crate) fn exists(&self, kind: &'static ObjectKind, name: &str) -> bool {
        self.objects.contains_key(&key(kind, name))
    }

    /// The object as JSON.
    pub(crate) fn json(&self, kind: &'static ObjectKind, name: &str) -> Value {
        let object = self.objects.get(&key(kind, name)).unwrap_or_else(|| panic!("no {} {name}", kind.kind));
        serde_json::to_value(&**object).unwrap()
    }

    /// Edits an object as a user would.
    pub(crate) fn edit(&mut self, kind: &'static ObjectKind, name: &str, patch: Value) {
        let mut object = self.json(kind, name);
        merge(&mut object, &patch);
        self.put(kind, name, object);
    }

    /// Applies changes in order. Panics where an API server would refuse.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) {
        for Change { key, verb } in changes {
            match verb {
                Verb::Create(object) => {
                    assert_eq!(object.metadata.name.as_deref(), Some(key.name.as_str()));
                    assert!(!self.objects.contains_key(&key), "{} exists", key.name);
                    self.put(key.kind, &key.name, serde_json::to_value(&*object).unwrap());
                }
                Verb::Delete { uid, version } => {
                    let metadata = &self.json(key.kind, &key.name)["metadata"];
                    assert_eq!((&metadata["uid"], &metadata["resourceVersion"]), (&uid.into(), &version.into()));
                    self.remove(key.kind, &key.name);
                }
                Verb::SetInSpec { generation, uid, path, value } => {
                    let mut object = self.json(key.kind, &key.name);
                    assert_eq!(object["metadata"]["generation"], generation, "a conditional patch");
                    assert_eq!(object["metadata"]["uid"], uid.as_str(), "a conditional patch");
                    let (parent, field) = path.rsplit_once('/').expect("a pointer");
                    object.pointer_mut(parent).expect("an object to set it in")[field] = value;
                    self.put(key.kind, &key.name, object);
                }
                Verb::Patch(mut patch) => {
                    let mut object = self.json(key.kind, &key.name);
                    let metadata = patch["metadata"].as_object_mut().expect("metadata in the patch");
                    let version = metadata.remove("resourceVersion");
                    assert_eq!(version.as_ref(), Some(&object["metadata"]["resourceVersion"]), "a conditional patch");
                    merge(&mut object, &patch);
                    self.put(key.kind, &key.name, object);
                }
            }
        }
    }

    /// Whether something was looked up, found or not.
    pub(crate) fn was_asked_for(&self, kind: &'static ObjectKind, name: &str) -> bool {
        self.asked.borrow().contains(&key(kind, name))
    }
}

fn key(kind: &'static ObjectKind, name: &str) -> ObjectKey {
    ObjectKey { kind, namespace: NAMESPACE.into(), name: name.into() }
}

/// The canary `podinfo` with uid `canary-uid`, merged with `spec`.
pub(crate) fn canary(spec: Value) -> ValidatedCanary {
    let mut object = json!({
        "metadata": {"name": "podinfo", "namespace": NAMESPACE, "uid": "canary-uid"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "podinfo"},
            "service": {"port": 80},
            "analysis": {"interval": "1m", "threshold": 5, "stepWeight": 10, "maxWeight": 50},
        },
    });
    merge(&mut object["spec"], &spec);
    let canary: Canary = decode(&object).unwrap();
    ValidatedCanary::parse(&canary, &ValidationOptions::default()).unwrap()
}

/// The BirdWatch `aleph` that tries version v04, merged with `spec`.
pub(crate) fn birdwatch(spec: Value) -> ValidatedCanary {
    let mut object = json!({
        "metadata": {"name": "aleph-v04", "namespace": NAMESPACE, "uid": "birdwatch-uid"},
        "spec": {"service": "aleph", "canary_version": "v04", "metric": "sum(errors)", "deviation": 0.5},
    });
    merge(&mut object["spec"], &spec);
    decode::<aviary_crds::BirdWatch>(&object).unwrap().validated().unwrap()
}

/// RFC 7386.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

/// The Deployment `podinfo` as an API server holds it.
pub(crate) fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "generation": 1,
            "uid": "target-uid",
            "labels": {"app": "podinfo", "team": "web", "kustomize.toolkit.fluxcd.io/name": "apps"},
            "annotations": {
                "deployment.kubernetes.io/revision": "7",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "example.com/owner": "me",
            },
        },
        "spec": {
            "replicas": 2,
            "minReadySeconds": 5,
            "progressDeadlineSeconds": 60,
            "revisionHistoryLimit": 3,
            "paused": false,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "podinfo"}},
            "template": {
                "metadata": {
                    "labels": {"app": "podinfo", "version": "v1"},
                    "annotations": {"prometheus.io/scrape": "true", "kustomize.toolkit.fluxcd.io/checksum": "1"},
                },
                "spec": {
                    "containers": [{
                        "name": "podinfod",
                        "image": "podinfo:1",
                        "ports": [{"name": "http", "containerPort": 9898, "protocol": "TCP"}],
                        "somethingNew": {"kept": true},
                    }],
                },
            },
        },
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
    })
}
