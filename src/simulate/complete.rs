//! What the input refers to and does not hold is made up, aloud.

use std::collections::{BTreeMap, BTreeSet};

use aviary_crds::names;
use aviary_crds::validated::{AutoscalerKind, TargetKind};
use aviary_providers::required_configs;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::manifests::{Manifest, Manifests};
use super::network;
use super::scenario::Scenario;
use super::subject::{Subject, limits};

/// Pods of a target that is made up: two, so that one can be replaced while the other serves.
const REPLICAS: u32 = 2;
/// Tag of an image that is made up.
const TAG: &str = "1.0.0";
/// Where containers listen if the canary does not say it.
const PORT: u16 = 8080;

/// Adds what is missing, and a note for each object added. Namespaces come without a note: one does not write them into
/// manifests of an application.
pub(crate) fn complete(manifests: &mut Manifests, subjects: &[Subject], scenario: &Scenario) {
    for subject in subjects {
        targets(manifests, subject);
        autoscalers(manifests, subject);
        templates(manifests, subject, scenario);
        alert_providers(manifests, subject);
    }
    configs(manifests);
    credentials(manifests);
    namespaces(manifests);
}

fn add(manifests: &mut Manifests, object: Value, note: &str) {
    let manifest = Manifest::made_up(object);
    manifests.notes.push(format!("{} is not in the input and was made up{note}", manifest.title()));
    manifests.objects.push(manifest);
}

fn targets(manifests: &mut Manifests, subject: &Subject) {
    let (namespace, target) = (subject.namespace(), &subject.canary.target);
    // Its workloads are found by their labels, or missed.
    if [TargetKind::Subset, TargetKind::Service].contains(&target.kind) {
        return;
    }
    if manifests.find("apps", target.kind.as_str(), namespace, &target.name).is_some() {
        return;
    }
    let (port, port_name) = match &subject.canary.service.target_port {
        IntOrString::Int(port) => (u16::try_from(*port).unwrap_or(PORT), "http"),
        IntOrString::String(name) => (PORT, name.as_str()),
    };
    let labels = json!({"app": target.name});
    let image = format!("example.com/{}:{TAG}", target.name);
    let mut spec = json!({
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{
                "name": target.name,
                "image": image,
                "ports": [{"name": port_name, "containerPort": port, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            }]},
        },
    });
    let mut note = format!(", with image {image}");
    if target.kind == TargetKind::Deployment {
        spec["replicas"] = json!(REPLICAS);
        note.push_str(&format!(" and {REPLICAS} replicas"));
    }
    let object = json!({
        "apiVersion": "apps/v1", "kind": target.kind.as_str(),
        "metadata": {"name": target.name, "namespace": namespace, "labels": labels}, "spec": spec,
    });
    add(manifests, object, &note);
}

fn autoscalers(manifests: &mut Manifests, subject: &Subject) {
    let Some(autoscaler) = &subject.canary.autoscaler else { return };
    let (namespace, name) = (subject.namespace(), autoscaler.name.as_str());
    let group = match autoscaler.kind {
        AutoscalerKind::HorizontalPodAutoscaler => "autoscaling",
        AutoscalerKind::ScaledObject => "keda.sh",
    };
    if manifests.find(group, autoscaler.kind.as_str(), namespace, name).is_some() {
        return;
    }
    let target = &subject.canary.target;
    let scaled = json!({"apiVersion": "apps/v1", "kind": target.kind.as_str(), "name": target.name});
    let metadata = json!({"name": name, "namespace": namespace});
    let object = match autoscaler.kind {
        AutoscalerKind::HorizontalPodAutoscaler => json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata,
            "spec": {
                "scaleTargetRef": scaled, "minReplicas": REPLICAS, "maxReplicas": 2 * REPLICAS,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
            },
        }),
        AutoscalerKind::ScaledObject => json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata,
            "spec": {
                "scaleTargetRef": scaled, "minReplicaCount": REPLICAS, "maxReplicaCount": 2 * REPLICAS,
                "triggers": [{"type": "cpu", "metricType": "Utilization", "metadata": {"value": "80"}}],
            },
        }),
    };
    add(manifests, object, &format!(", with {REPLICAS} to {} replicas", 2 * REPLICAS));
}

fn templates(manifests: &mut Manifests, subject: &Subject, scenario: &Scenario) {
    for (key, check) in subject.templates() {
        if manifests.find(names::GROUP, "MetricTemplate", &key.namespace, &key.name).is_some() {
            continue;
        }
        let value = match limits(check) {
            (Some(min), Some(max)) => f64::midpoint(min, max),
            (Some(limit), None) | (None, Some(limit)) => limit,
            (None, None) => 0.0,
        };
        let note = match network::metric_of(scenario, &key.namespace, &key.name) {
            Some(_) => ", with the values of the scenario".to_owned(),
            None => {
                format!(", with the value {value}, which passes; the scenario's metrics.{} can say another", key.name)
            }
        };
        let object = json!({
            "apiVersion": names::API_VERSION, "kind": "MetricTemplate",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "spec": network::simulated_provider(&key.namespace, &key.name, Some(value)),
        });
        add(manifests, object, &note);
    }
}

fn alert_providers(manifests: &mut Manifests, subject: &Subject) {
    for alert in &subject.canary.analysis.alerts {
        let key = &alert.provider;
        if manifests.find(names::GROUP, "AlertProvider", &key.namespace, &key.name).is_some() {
            continue;
        }
        let object = json!({
            "apiVersion": names::API_VERSION, "kind": "AlertProvider",
            "metadata": {"name": key.name, "namespace": key.namespace},
            "spec": {"type": "slack", "channel": "general", "address": network::alert_address(&key.namespace, &key.name)},
        });
        add(manifests, object, ", of type slack");
    }
}

/// ConfigMaps and Secrets without which pods do not start.
fn configs(manifests: &mut Manifests) {
    let mut missing: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
    for manifest in manifests.objects.iter().filter(|manifest| manifest.group() == "apps") {
        let template = &manifest.object["spec"]["template"];
        for (kind, name) in required_configs(template) {
            if manifests.find("", kind.kind, manifest.namespace(), &name).is_none() {
                let keys = missing.entry((manifest.namespace().to_owned(), kind.kind.to_owned(), name.clone()));
                keys.or_default().extend(keys_of(template, &name));
            }
        }
    }
    for ((namespace, kind, name), keys) in missing {
        let field = if kind == "Secret" { "stringData" } else { "data" };
        let data: BTreeMap<String, &str> = keys.into_iter().map(|key| (key, "simulated")).collect();
        let object = json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, field: data,
        });
        add(manifests, object, "");
    }
}

/// Keys of a ConfigMap or Secret that variables of the template's containers take their values from.
fn keys_of(template: &Value, name: &str) -> Vec<String> {
    let containers = template["spec"]["containers"].as_array().into_iter().flatten();
    let variables = containers.flat_map(|container| container["env"].as_array().into_iter().flatten());
    let references = variables.flat_map(|variable| {
        ["secretKeyRef", "configMapKeyRef"].into_iter().map(|field| &variable["valueFrom"][field])
    });
    let of_name = references.filter(|reference| reference["name"] == name);
    of_name.filter_map(|reference| reference["key"].as_str().map(str::to_owned)).collect()
}

/// Secrets of metric templates and alert providers. What is in them reaches nobody.
fn credentials(manifests: &mut Manifests) {
    let mut missing = Vec::new();
    for kind in ["MetricTemplate", "AlertProvider"] {
        for manifest in manifests.of(names::GROUP, kind) {
            let spec = &manifest.object["spec"];
            let reference = if kind == "AlertProvider" { &spec["secretRef"] } else { &spec["provider"]["secretRef"] };
            let Some(name) = reference["name"].as_str() else { continue };
            if manifests.find("", "Secret", manifest.namespace(), name).is_some() {
                continue;
            }
            let data = match kind {
                "AlertProvider" => json!({"address": network::alert_address(manifest.namespace(), manifest.name())}),
                _ => json!({"username": "simulated", "password": "simulated"}),
            };
            let object = json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": name, "namespace": manifest.namespace()}, "stringData": data,
            });
            missing.push(object);
        }
    }
    for object in missing {
        let (namespace, name) = (object["metadata"]["namespace"].clone(), object["metadata"]["name"].clone());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // Two providers may share a Secret.
        if manifests.find("", "Secret", &text(&namespace), &text(&name)).is_none() {
            add(manifests, object, "");
        }
    }
}

/// Adds the namespaces of all objects.
pub(crate) fn namespaces(manifests: &mut Manifests) {
    let named: BTreeSet<String> = manifests.objects.iter().map(|manifest| manifest.namespace().to_owned()).collect();
    for name in named.into_iter().filter(|name| !name.is_empty()) {
        if manifests.find("", "Namespace", "", &name).is_none() {
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            manifests.objects.push(Manifest::made_up(object));
        }
    }
}
