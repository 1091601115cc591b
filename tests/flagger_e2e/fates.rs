//! What becomes of each of the 42 manifests.

use std::collections::BTreeSet;

use crate::differences::has_test;
use crate::fixtures_run::{documents, fixtures};

enum Fate {
    /// It runs to the end that its script waits for, in this test.
    Runs(&'static str),
    /// Its canary is refused by the name of what is not served, see [`REFUSED`]: its provider, or its target.
    Refused(&'static str),
    /// It holds no canary.
    NoCanary,
}

use Fate::{NoCanary, Refused, Runs};

/// The test that applies each canary which is refused, and looks at the message.
const REFUSED: &str = "every_other_canary_is_refused_by_name";

const FATES: [(&str, Fate); 42] = [
    ("apisix-canary.yaml", Refused("apisix")),
    ("contour-abtest.yaml", Refused("contour")),
    ("contour-canary.yaml", Refused("contour")),
    ("contour-rollback.yaml", Refused("contour")),
    ("gatewayapi-abtest.yaml", Refused("gatewayapi:v1")),
    ("gatewayapi-bluegreen.yaml", Refused("gatewayapi:v1")),
    ("gatewayapi-canary.yaml", Refused("gatewayapi:v1")),
    ("gatewayapi-gateway.yaml", NoCanary),
    ("gatewayapi-metrictemplates.yaml", NoCanary),
    ("gatewayapi-rollback.yaml", Refused("gatewayapi:v1")),
    ("gatewayapi-session-affinity.yaml", Refused("gatewayapi:v1")),
    ("gloo-abtest.yaml", Refused("gloo")),
    ("gloo-canary.yaml", Refused("gloo")),
    ("istio-abtest.yaml", Runs("e2e_istio_canary_blue_green_ab_test_and_finalizer")),
    ("istio-bluegreen.yaml", Runs("e2e_istio_canary_blue_green_ab_test_and_finalizer")),
    ("istio-canary.yaml", Runs("e2e_istio_canary_blue_green_ab_test_and_finalizer")),
    ("istio-delegation.yaml", Runs("e2e_istio_delegation")),
    ("istio-finalizer-existing-objects.yaml", Runs("e2e_istio_canary_blue_green_ab_test_and_finalizer")),
    ("istio-finalizer.yaml", Runs("e2e_istio_canary_blue_green_ab_test_and_finalizer")),
    ("istio-session-affinity.yaml", Runs("e2e_istio_session_affinity")),
    ("istio-skip-analysis.yaml", Runs("e2e_istio_skip_analysis")),
    ("keda-scaledobject.yaml", Runs("keda_scaled_object")),
    ("knative-canary.yaml", Refused("knative")),
    ("knative-rollback.yaml", Refused("knative")),
    ("knative-service.yaml", NoCanary),
    ("kubernetes-daemonset-finalizer.yaml", Runs("kubernetes_daemon_set_finalizer")),
    ("kubernetes-daemonset.yaml", Runs("kubernetes_daemon_set")),
    ("kubernetes-deployment.yaml", Runs("kubernetes_deployment")),
    ("kubernetes-hpa.yaml", Runs("kubernetes_hpa")),
    ("kuma-canary.yaml", Refused("kuma")),
    ("kuma-rollback.yaml", Refused("kuma")),
    ("linkerd-canary-second-target.yaml", Refused("linkerd")),
    ("linkerd-canary.yaml", Refused("linkerd")),
    ("linkerd-rollback.yaml", Refused("linkerd")),
    ("linkerd-steps.yaml", Refused("linkerd")),
    ("nginx-abtest.yaml", Refused("nginx")),
    ("nginx-canary.yaml", Refused("nginx")),
    ("nginx-ingress-reapply.yaml", NoCanary),
    ("nginx-lifecycle-retry.yaml", Refused("nginx")),
    ("nginx-lifecycle-rollback.yaml", Refused("nginx")),
    ("skipper-canary.yaml", Refused("skipper")),
    ("traefik-canary.yaml", Refused("traefik")),
];

/// The name that the refusal of a canary must hold; `None` where it is not said which.
pub fn refused_name(file: &str) -> Option<&'static str> {
    let file = file.strip_prefix("e2e/")?;
    FATES.iter().find_map(|(name, fate)| match fate {
        Refused(what) if *name == file => Some(*what),
        _ => None,
    })
}

#[test]
fn each_manifest_of_flaggers_scripts_has_its_fate() {
    let found = std::fs::read_dir(fixtures().join("e2e")).unwrap();
    let found: BTreeSet<String> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let told: BTreeSet<String> = FATES.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(found, told);
    assert!(has_test(REFUSED));
    for (file, fate) in &FATES {
        let path = format!("e2e/{file}");
        let canaries = documents(&path).iter().filter(|object| object["kind"] == "Canary").count();
        match fate {
            Runs(test) => assert!(canaries == 1 && has_test(test), "{file} runs in {test}, which is not there"),
            Refused(_) => assert_eq!(canaries, 1, "{file}"),
            NoCanary => assert_eq!(canaries, 0, "{file}"),
        }
        if let Refused(_) = fate {
            assert!(!crate::fixtures_run::SERVED.contains(&path.as_str()), "{file} is served");
        }
    }
}
