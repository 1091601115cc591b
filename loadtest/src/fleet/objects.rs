//! The objects that users create.

use std::time::Duration;

use aviary_crds::duration::format_go_duration;
use serde_json::{Value, json};

/// Where a canary is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// The name of a canary, of its Deployment and of its service.
pub(super) fn name(index: usize, namespaces: usize) -> Name {
    Name { namespace: format!("team-{}", index % namespaces.max(1)), name: format!("app-{index}") }
}

/// Images with this in their tag fail requests.
pub(super) const BROKEN: &str = "-broken";

/// The image of a revision; 0 is the first one.
pub(super) fn image(revision: u32, fails: bool) -> String {
    format!("registry.test/app:1.{revision}.0{}", if fails { BROKEN } else { "" })
}

pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A patch that changes the image, as `kubectl set image` makes it.
pub(super) fn image_patch(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}}})
}

pub(super) fn deployment(name: &Name) -> Value {
    let Name { namespace, name } = name;
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "app",
                    "image": image(0, false),
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }]},
            },
        },
    })
}

/// Weights from 10 to 50, both built-in checks, and a third failure rolls back.
pub(super) fn canary(name: &Name, interval: Duration) -> Value {
    let Name { namespace, name } = name;
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "progressDeadlineSeconds": 60,
            "service": {"port": 80, "targetPort": 8080},
            "analysis": {
                "interval": format_go_duration(interval), "threshold": 3, "maxWeight": 50, "stepWeight": 10,
                "metrics": [
                    {"name": "request-success-rate", "interval": "1m", "thresholdRange": {"min": 99}},
                    {"name": "request-duration", "interval": "1m", "thresholdRange": {"max": 500}},
                ],
            },
        },
    })
}
