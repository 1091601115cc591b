//! What Flagger 1.44 leaves in a cluster: its objects as its client writes them, with its labels, annotations, owners and ids, and
//! a status with its hashes and none of Aviary's fields.

use std::time::Duration;

use aviary_sim::store::{GroupKind, kinds};
use serde_json::{Map, Value, json};

use crate::support::{World, canary, deployment};

pub const OLD: &str = "podinfo:6.0.0";
pub const NEW: &str = "podinfo:6.0.1";

/// Everything that Flagger made.
const MADE: [(&GroupKind, &str); 9] = [
    (&kinds::DEPLOYMENT, "podinfo-primary"),
    (&kinds::HPA, "podinfo-primary"),
    (&kinds::CONFIG_MAP, "settings-primary"),
    (&kinds::SERVICE, "podinfo"),
    (&kinds::SERVICE, "podinfo-canary"),
    (&kinds::SERVICE, "podinfo-primary"),
    (&kinds::DESTINATION_RULE, "podinfo-canary"),
    (&kinds::DESTINATION_RULE, "podinfo-primary"),
    (&kinds::VIRTUAL_SERVICE, "podinfo"),
];

/// Where Flagger was stopped.
#[derive(Clone, Copy)]
pub struct Left {
    pub phase: &'static str,
    /// As the status has it.
    pub weight: i64,
    pub iterations: i64,
    /// Weight of the canary in the routes.
    pub routed: u64,
    /// Image of the target.
    pub target: &'static str,
    /// Image of the primary.
    pub primary: &'static str,
    pub scaled_to_zero: bool,
}

impl Left {
    /// Between two runs, with nothing new.
    pub fn at_rest(phase: &'static str) -> Left {
        Left { phase, weight: 0, iterations: 0, routed: 0, target: OLD, primary: OLD, scaled_to_zero: true }
    }

    /// In a run of the new version.
    pub fn running(phase: &'static str, weight: i64, routed: u64) -> Left {
        Left { phase, weight, routed, target: NEW, scaled_to_zero: false, ..Left::at_rest(phase) }
    }

    fn conditions(&self, now: &str) -> Value {
        let status = match self.phase {
            "Initialized" | "Succeeded" => "True",
            "Failed" => "False",
            _ => "Unknown",
        };
        json!([{
            "type": "Promoted", "status": status, "reason": self.phase, "message": "as Flagger says it",
            "lastUpdateTime": now, "lastTransitionTime": now,
        }])
    }
}

impl World {
    /// A target with an autoscaler and a config, its Canary, and what Flagger has made of them.
    pub async fn leave(&self, left: Left, change: impl FnOnce(&mut Value)) {
        let data = json!({"color": "red"});
        let settings = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "test", "name": "settings"}, "data": data,
        });
        self.create(settings).await;
        let mut target = deployment("test", "podinfo", left.target);
        target["spec"]["template"]["spec"]["containers"][0]["envFrom"] =
            json!([{"configMapRef": {"name": "settings"}}]);
        target["metadata"]["annotations"] =
            json!({"team": "a", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
        if left.scaled_to_zero {
            target["spec"]["replicas"] = json!(0);
        }
        self.create(target).await;
        self.create(autoscaler("podinfo")).await;
        let mut object = canary("test", "podinfo");
        object["spec"]["autoscalerRef"] =
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
        change(&mut object);
        let sticky = object["spec"]["analysis"]["sessionAffinity"].is_object();
        let tested = object["spec"]["analysis"]["match"].is_array();
        self.create(object).await;

        let uid = self.get(&kinds::CANARY, "podinfo").expect("exists")["metadata"]["uid"].clone();
        let target = self.get(&kinds::DEPLOYMENT, "podinfo").expect("exists");
        let http = match (sticky, tested) {
            (true, _) => sticky_routes(left.routed),
            (_, true) => tested_routes(left.routed),
            _ => json!([{"route": destinations(left.routed)}]),
        };
        for mut object in made(&target, left.primary, &http) {
            object["metadata"]["namespace"] = json!("test");
            object["metadata"]["ownerReferences"] = json!([{
                "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "name": "podinfo", "uid": uid,
                "controller": true, "blockOwnerDeletion": true,
            }]);
            self.create(object).await;
        }
        self.pass(Duration::from_secs(60)).await;
        let now = self.cluster.clock().now();
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        self.change(&kinds::CANARY, "podinfo", |canary| {
            canary["status"] = json!({
                "phase": left.phase, "canaryWeight": left.weight, "failedChecks": 0, "iterations": left.iterations,
                "lastAppliedSpec": "5f56684589", "lastPromotedSpec": "4cb74184589",
                "trackedConfigs": {"configmap/settings": "241889ca0604e333"},
                "lastTransitionTime": now, "conditions": left.conditions(&now),
            });
            if sticky {
                canary["status"]["sessionAffinityCookie"] = json!("canary-ck=AAAAAAAAAA");
                canary["status"]["primarySessionAffinityCookie"] = json!("primary-ck=BBBBBBBBBB");
            }
        });
    }

    /// What Flagger made, without what servers and controllers write.
    pub fn made(&self) -> Vec<Value> {
        let object = |(kind, name): &(&GroupKind, &str)| {
            let mut object = self.get(kind, name).unwrap_or_else(|| panic!("no {kind} {name}\n{}", self.story()));
            object.as_object_mut().expect("an object").remove("status");
            let metadata = object["metadata"].as_object_mut().expect("an object");
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
            object
        };
        MADE.iter().map(object).collect()
    }
}

fn autoscaler(name: &str) -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"namespace": "test", "name": name, "labels": {"team": "a"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 2, "maxReplicas": 4,
            "metrics": [{"type": "Resource", "resource":
                {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 99}}}],
        },
    })
}

fn made(target: &Value, image: &str, http: &Value) -> Vec<Value> {
    let flux = json!({
        "kustomize.toolkit.fluxcd.io/reconcile": "disabled", "helm.toolkit.fluxcd.io/driftDetection": "disabled",
    });
    let service = |name: &str, pods: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "labels": {"app": name}, "annotations": flux},
            "spec": {
                "type": "ClusterIP", "selector": {"app": pods},
                "ports": [{"name": "http", "protocol": "TCP", "port": 9898, "targetPort": 9898}],
            },
        })
    };
    let rule = |name: &str| {
        json!({
            "apiVersion": "networking.istio.io/v1beta1", "kind": "DestinationRule", "metadata": {"name": name},
            "spec": {"host": name},
        })
    };
    let settings = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings-primary"}, "data": {"color": "red"},
    });
    let routes = json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "podinfo", "annotations": flux},
        "spec": {"hosts": ["podinfo"], "gateways": ["mesh"], "http": http},
    });
    vec![
        settings,
        primary(target, image),
        autoscaler("podinfo-primary"),
        service("podinfo-canary", "podinfo"),
        service("podinfo-primary", "podinfo-primary"),
        service("podinfo", "podinfo-primary"),
        rule("podinfo-canary"),
        rule("podinfo-primary"),
        routes,
    ]
}

/// All annotations of the target, the label with the suffix, a random `flagger-id`, configs by their copies' names.
fn primary(target: &Value, image: &str) -> Value {
    let mut spec = Map::new();
    for field in ["progressDeadlineSeconds", "minReadySeconds", "revisionHistoryLimit", "strategy"] {
        if let Some(value) = target["spec"].get(field) {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    let mut template = target["spec"]["template"].clone();
    template["metadata"]["labels"]["app"] = json!("podinfo-primary");
    template["metadata"]["annotations"] = json!({"flagger-id": "f47ac10b-58cc-4372-a567-0e02b2c3d479"});
    template["spec"]["containers"][0]["image"] = json!(image);
    template["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": "settings-primary"}}]);
    spec.insert("replicas".to_owned(), json!(2));
    spec.insert("selector".to_owned(), json!({"matchLabels": {"app": "podinfo-primary"}}));
    spec.insert("template".to_owned(), template);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "podinfo-primary", "labels": {"app": "podinfo-primary"},
            "annotations": target["metadata"]["annotations"],
        },
        "spec": spec,
    })
}

fn destinations(canary: u64) -> Value {
    json!([
        {"destination": {"host": "podinfo-primary"}, "weight": 100 - canary},
        {"destination": {"host": "podinfo-canary"}, "weight": canary},
    ])
}

/// An A/B test: those who meet the condition, and everybody else.
fn tested_routes(canary: u64) -> Value {
    json!([
        {"match": [{"headers": {"x-user": {"exact": "insider"}}}], "route": destinations(canary)},
        // Of a single destination the weight means nothing.
        {"route": [{"destination": {"host": "podinfo-primary"}, "weight": 100 - canary}]},
    ])
}

fn sticky_routes(canary: u64) -> Value {
    let holders = |regex: &str| json!([{"headers": {"Cookie": {"regex": regex}}}]);
    let mut by_weight = destinations(canary);
    let set = |cookie: &str| json!({"response": {"add": {"Set-Cookie": cookie}}});
    by_weight[0]["headers"] = set("primary-ck=BBBBBBBBBB; Max-Age=10");
    by_weight[1]["headers"] = set("canary-ck=AAAAAAAAAA; Max-Age=86400");
    json!([
        {"match": holders(".*canary-ck.*AAAAAAAAAA.*"), "route": destinations(100)},
        {"match": holders(".*primary-ck.*BBBBBBBBBB.*"), "route": destinations(0)},
        {"route": by_weight},
    ])
}
