#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;

/// Two virtual hosts, one of them for a service with a dot in a backend's name, and a file without routes.
fn template() -> Files {
    let routes = r#"
version_info: "0"
resources:
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: local
  virtual_hosts:
  - name: podinfo
    domains: ["podinfo.test", "app.example.com"]
    routes:
    - match: {prefix: "/"}
      route:
        timeout: 0.25s
        weighted_clusters:
          clusters:
          - {name: podinfo-canary, weight: 0}
          - {name: podinfo-primary, weight: 100}
  - name: frontend
    domains: ["*"]
    routes:
    - match: {prefix: "/"}
      route: {weighted_clusters: {clusters: [{name: frontend_prod-canary, weight: 0}, {name: frontend-primary, weight: 100}]}}
"#;
    [("rds.yaml", routes), ("cds.yaml", "resources: [] # as it is\n")]
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .into()
}

fn object(service: &str, backends: &Value) -> Value {
    json!({"spec": {"service": service, "backends": backends}})
}

fn podinfo(primary: &Value, canary: &Value) -> Value {
    let backends = json!([
        {"service": "podinfo-canary", "weight": canary}, {"service": "podinfo-primary", "weight": primary},
    ]);
    object("podinfo", &backends)
}

fn split(name: &str, object: &Value) -> Split {
    let mut split = Split::unseen(name);
    split.take(object).unwrap();
    split
}

fn document(merged: &Merged) -> Value {
    serde_saphyr::from_str(&merged.files["rds.yaml"]).unwrap()
}

/// Weights by cluster.
fn weights(merged: &Merged) -> BTreeMap<String, u64> {
    let mut document = document(merged);
    let mut found = BTreeMap::new();
    for host in virtual_hosts(&mut document) {
        for cluster in clusters(host) {
            found.insert(cluster["name"].as_str().unwrap().to_owned(), cluster["weight"].as_u64().unwrap());
        }
    }
    found
}

#[test]
fn several_splits_of_one_file_do_not_undo_each_other() {
    let backends =
        json!([{"service": "frontend.prod-canary", "weight": 7}, {"service": "frontend-primary", "weight": 93}]);
    let splits =
        [split("podinfo", &podinfo(&json!("70"), &json!("30"))), split("frontend", &object("frontend", &backends))];
    let merged = merge(&template(), &splits, &Files::new());
    assert_eq!(merged.problems, Vec::<String>::new());
    let expected =
        [("podinfo-canary", 30), ("podinfo-primary", 70), ("frontend_prod-canary", 7), ("frontend-primary", 93)];
    assert_eq!(weights(&merged), expected.map(|(name, weight)| (name.to_owned(), weight)).into());
    let host = &document(&merged)["resources"][0]["virtual_hosts"][0];
    assert_eq!(host["routes"][0]["route"]["timeout"], "0.25s", "the rest is the template's");
    assert_eq!(merged.files["cds.yaml"], template()["cds.yaml"], "a file without routes stays as it is");
}

#[test]
fn the_version_is_that_of_the_content() {
    let at = |primary: u32| {
        merge(&template(), &[split("podinfo", &podinfo(&json!(primary), &json!(100 - primary)))], &Files::new())
    };
    let version = |merged: &Merged| document(merged)["version_info"].as_str().unwrap().to_owned();
    assert_eq!(version(&at(70)), version(&at(70)));
    assert_ne!(version(&at(70)), version(&at(60)));
    assert_eq!(version(&at(70)).len(), 17);
}

#[test]
fn a_host_that_is_named_otherwise_is_found_by_domain_and_by_the_splits_name() {
    for service in ["app.example.com", "something-else"] {
        let mut object = podinfo(&json!(60), &json!(40));
        object["spec"]["service"] = json!(service);
        let merged = merge(&template(), &[split("podinfo", &object)], &Files::new());
        assert_eq!((weights(&merged)["podinfo-canary"], merged.problems.len()), (40, 0), "{service}");
    }
}

#[test]
fn weights_that_cannot_be_used_leave_those_in_force() {
    let mut split = split("podinfo", &podinfo(&json!(60), &json!(40)));
    for (bad, told) in [
        (podinfo(&json!("1e3"), &json!(1)), "spec.backends[1].weight of TrafficSplit podinfo: \"1e3\" is no weight"),
        (podinfo(&json!(0), &json!("0")), "all weights are 0"),
        (json!({"spec": {}}), "all weights are 0"),
        (podinfo(&json!(4_000_000_000_u64), &json!(4_000_000_000_u64)), "too large for Envoy"),
    ] {
        let error = split.take(&bad).unwrap_err();
        assert!(error.contains(told), "{error}");
        let merged = merge(&template(), std::slice::from_ref(&split), &Files::new());
        assert_eq!(weights(&merged)["podinfo-canary"], 40, "{bad}");
    }
    split.take(&podinfo(&json!("500m"), &json!("1.5"))).unwrap();
    let merged = merge(&template(), &[split], &Files::new());
    assert_eq!((weights(&merged)["podinfo-canary"], weights(&merged)["podinfo-primary"]), (1500, 500));
}

#[test]
fn a_restart_without_a_usable_split_keeps_the_weights_of_the_file_in_place() {
    let before = merge(&template(), &[split("podinfo", &podinfo(&json!(35), &json!(65)))], &Files::new());
    let mut bad = Split::unseen("podinfo");
    bad.take(&podinfo(&json!("x"), &json!(1))).unwrap_err();
    for unknown in [Split::unseen("podinfo"), bad] {
        let after = merge(&template(), &[unknown], &before.files);
        assert_eq!(after.files, before.files, "not even the version differs");
    }
    let first = merge(&template(), &[Split::unseen("podinfo")], &Files::new());
    assert_eq!(weights(&first)["podinfo-primary"], 100, "the template's, where there is no file yet");
}

#[test]
fn a_split_that_leads_nowhere_is_told_with_what_there_is() {
    let nowhere = split("shop", &object("shop", &json!([{"service": "shop-primary", "weight": 1}])));
    let merged = merge(&template(), &[nowhere], &Files::new());
    assert_eq!(
        merged.problems,
        [
            "TrafficSplit shop: no weighted virtual host is named shop or shop, so its weights change nothing; there are: podinfo, \
          frontend"
        ]
    );
    let third = json!([{"service": "podinfo-primary", "weight": 1}, {"service": "podinfo-third", "weight": 1}]);
    let merged = merge(&template(), &[split("podinfo", &object("podinfo", &third))], &Files::new());
    assert_eq!(merged.problems, ["TrafficSplit podinfo: no cluster is named podinfo-third"]);
    // Only a backend without a cluster has a weight.
    let third = json!([{"service": "podinfo-primary", "weight": 0}, {"service": "podinfo-third", "weight": 1}]);
    let merged = merge(&template(), &[split("podinfo", &object("podinfo", &third))], &Files::new());
    assert_eq!(weights(&merged)["podinfo-primary"], 100, "never 0 and 0");
}

#[test]
fn what_is_no_yaml_is_written_as_it_is() {
    let files: Files = [("x.yaml".to_owned(), "a: [".to_owned())].into();
    let merged = merge(&files, &[Split::unseen("podinfo")], &Files::new());
    assert_eq!(merged.files, files);
    assert!(merged.problems[0].starts_with("x.yaml: not YAML"), "{:?}", merged.problems);
}
