#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

use serde_json::json;

use super::*;
use crate::testing::{World, canary};

const VIRTUAL_SERVICE: &ObjectKind = &kinds::VIRTUAL_SERVICE;

fn world(spec: Value) -> World {
    World::new(spec)
}

fn reconcile(world: &mut World, split: Split) -> usize {
    let changes = Istio.reconcile(&world.subject(), split).unwrap();
    let count = changes.len();
    world.apply(changes);
    assert_eq!(Istio.reconcile(&world.subject(), split), Ok(vec![]), "idempotent");
    count
}

fn set(world: &mut World, split: Split) {
    let changes = Istio.set(&world.subject(), split).unwrap();
    world.apply(changes);
    assert_eq!(Istio.set(&world.subject(), split), Ok(vec![]), "idempotent");
}

fn spec(world: &World) -> Value {
    world.json(VIRTUAL_SERVICE, "podinfo")["spec"].clone()
}

fn mirrored() -> Split {
    Split { mirrored: true, ..Split::PRIMARY }
}

fn both(primary: u32, canary: u32) -> Value {
    json!([
        {"destination": {"host": "podinfo-primary"}, "weight": primary},
        {"destination": {"host": "podinfo-canary"}, "weight": canary},
    ])
}

#[test]
fn the_initial_shape_is_flaggers() {
    let mut world = world(json!({}));
    assert_eq!(reconcile(&mut world, Split::PRIMARY), 3);
    let expected = json!({"hosts": ["podinfo"], "gateways": ["mesh"], "http": [{"route": both(100, 0)}]});
    assert_eq!(spec(&world), expected);
    let metadata = world.json(VIRTUAL_SERVICE, "podinfo")["metadata"].clone();
    assert_eq!(metadata.get("labels"), None);
    assert_eq!(metadata["annotations"]["kustomize.toolkit.fluxcd.io/reconcile"], "disabled");
    for name in ["podinfo-primary", "podinfo-canary"] {
        assert_eq!(world.json(&kinds::DESTINATION_RULE, name)["spec"], json!({"host": name}));
    }
}

#[test]
fn every_routing_setting_shows() {
    let routing = json!({
        "match": [{"uri": {"prefix": "/api"}, "statPrefix": "new-in-istio"}],
        "timeout": "15s",
        "retries": {"attempts": 3, "perTryTimeout": "1s", "retryOn": "5xx", "retryRemoteLocalities": true},
        "corsPolicy": {"allowOrigins": [{"exact": "https://a"}], "maxAge": "24h", "allowCredentials": false},
        "headers": {"request": {"set": {"x": "1"}}, "response": {"remove": ["y"]}},
    });
    let mut service = json!({
        "port": 80,
        "hosts": ["app.example.com"],
        "gateways": ["istio-system/public", "mesh"],
        "rewrite": {"uri": "/", "type": "ReplacePrefixMatch"},
        "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}},
        "apex": {"labels": {"team": "web"}, "annotations": {"note": "1"}},
    });
    crate::testing::merge(&mut service, &routing);
    let mut world = world(json!({"service": service}));
    reconcile(&mut world, Split::to_canary(10));
    let mut route = routing;
    route["rewrite"] = json!({"uri": "/"});
    route["route"] = both(90, 10);
    let expected = json!({
        "hosts": ["app.example.com", "podinfo"],
        "gateways": ["istio-system/public", "mesh"],
        "http": [route],
    });
    assert_eq!(spec(&world), expected);
    let object = world.json(VIRTUAL_SERVICE, "podinfo");
    assert_eq!(object["metadata"]["labels"], json!({"team": "web"}));
    assert_eq!(object["metadata"]["annotations"]["note"], "1");
    let rule = world.json(&kinds::DESTINATION_RULE, "podinfo-canary")["spec"].clone();
    assert_eq!(rule, json!({"host": "podinfo-canary", "trafficPolicy": {"tls": {"mode": "ISTIO_MUTUAL"}}}));
}

#[test]
fn the_apex_host_is_not_repeated() {
    for (hosts, expected) in [
        (json!(["*"]), json!(["*"])),
        (json!(["podinfo", "a"]), json!(["podinfo", "a"])),
        (json!(["podinfo.test"]), json!(["podinfo.test", "podinfo"])),
    ] {
        let mut world = world(json!({"service": {"port": 80, "hosts": hosts}}));
        reconcile(&mut world, Split::PRIMARY);
        assert_eq!(spec(&world)["hosts"], expected);
    }
}

#[test]
fn a_gateway_is_told_the_port_when_there_are_several() {
    let port = |service: Value| {
        let mut world = world(json!({"service": service}));
        reconcile(&mut world, Split::PRIMARY);
        spec(&world)["http"][0]["route"][0]["destination"].get("port").cloned()
    };
    let number = Some(json!({"number": 80}));
    assert_eq!(port(json!({"port": 80, "portDiscovery": true})), None);
    assert_eq!(port(json!({"port": 80, "portDiscovery": true, "gateways": ["mesh", "public"]})), None);
    assert_eq!(port(json!({"port": 80, "gateways": ["public"]})), None);
    assert_eq!(port(json!({"port": 80, "portDiscovery": true, "gateways": ["public"]})), number);
    assert_eq!(port(json!({"port": 80, "portDiscovery": true, "delegation": true})), number);
}

#[test]
fn a_delegate_has_neither_hosts_nor_gateways() {
    let mut world = world(json!({}));
    reconcile(&mut world, Split::PRIMARY);
    world.canary = canary(json!({"service": {"delegation": true}}));
    reconcile(&mut world, Split::PRIMARY);
    assert_eq!(spec(&world), json!({"http": [{"route": both(100, 0)}]}));
    world.canary = canary(json!({"service": {"delegation": true, "hosts": ["a"]}}));
    let error = Istio.reconcile(&world.subject(), Split::PRIMARY).unwrap_err();
    assert_eq!(error.to_string(), "VirtualService podinfo.test cannot have hosts and gateways when delegation enabled");
}

#[test]
fn tcp_routes_have_weights_and_nothing_else() {
    let mut world = world(
        json!({"service": {"appProtocol": "TCP", "timeout": "5s", "match": [{"port": 5432}, {"uri": {"exact": "/"}}]}}),
    );
    reconcile(&mut world, Split::to_canary(20));
    let expected = json!({"hosts": ["podinfo"], "gateways": ["mesh"], "tcp": [{"match": [{"port": 5432}], "route": both(80, 20)}]});
    assert_eq!(spec(&world), expected);
    set(&mut world, mirrored());
    assert_eq!(Istio.observed(&world.subject()), Ok(Split::PRIMARY), "TCP cannot be mirrored");
}

#[test]
fn a_change_of_protocol_leaves_no_routes_behind() {
    let mut world = world(json!({}));
    reconcile(&mut world, Split::PRIMARY);
    let mut http = spec(&world)["http"].clone();
    http.as_array_mut().unwrap().push(json!({"name": "users", "route": [{"destination": {"host": "other"}}]}));
    world.edit(VIRTUAL_SERVICE, "podinfo", json!({"spec": {"http": http}}));
    world.canary = canary(json!({"service": {"appProtocol": "tcp"}}));
    reconcile(&mut world, Split::PRIMARY);
    assert_eq!(spec(&world)["tcp"], json!([{"route": both(100, 0)}]));
    assert_eq!(spec(&world)["http"], json!([{"name": "users", "route": [{"destination": {"host": "other"}}]}]));
}

#[test]
fn mirroring() {
    let mut world = world(json!({"analysis": {"mirror": true, "mirrorWeight": 20}}));
    reconcile(&mut world, Split::PRIMARY);
    set(&mut world, mirrored());
    let route = spec(&world)["http"][0].clone();
    assert_eq!(route["mirror"], json!({"host": "podinfo-canary"}));
    assert_eq!(route["mirrorPercentage"], json!({"value": 20}));
    assert_eq!(Istio.observed(&world.subject()), Ok(mirrored()));
    assert_eq!(reconcile(&mut world, Split::PRIMARY), 0, "mirroring is no drift");

    set(&mut world, Split::to_canary(10));
    assert_eq!(spec(&world)["http"][0], json!({"route": both(90, 10)}));
}

#[test]
fn mirrors_of_others_are_not_aviarys() {
    let mut world = world(json!({}));
    reconcile(&mut world, Split::PRIMARY);
    let mut http = spec(&world)["http"].clone();
    http[0]["mirror"] = json!({"host": "recorder"});
    world.edit(VIRTUAL_SERVICE, "podinfo", json!({"spec": {"http": http}}));
    assert_eq!(Istio.observed(&world.subject()), Ok(Split::PRIMARY));
    set(&mut world, Split::to_canary(10));
    reconcile(&mut world, Split::to_canary(10));
    assert_eq!(spec(&world)["http"][0]["mirror"], json!({"host": "recorder"}));
}

fn ab(service: Value) -> World {
    world(json!({
        "service": service,
        "analysis": {
            "stepWeight": null, "maxWeight": null, "iterations": 10,
            "match": [
                {"headers": {"x-canary": {"exact": "insider"}}},
                {"sourceLabels": {"app": "tester"}, "queryParams": {"beta": {"exact": "1"}}},
            ],
        },
    }))
}

#[test]
fn ab_tests_divide_those_who_meet_the_conditions() {
    let mut world =
        ab(json!({"timeout": "5s", "match": [{"uri": {"prefix": "/"}, "headers": {"old": {"exact": "1"}}}]}));
    reconcile(&mut world, Split::PRIMARY);
    set(&mut world, Split::CANARY);
    let expected = json!([
        {
            "match": [
                {"uri": {"prefix": "/"}, "headers": {"x-canary": {"exact": "insider"}}},
                {"uri": {"prefix": "/"}, "headers": {"old": {"exact": "1"}}, "sourceLabels": {"app": "tester"},
                 "queryParams": {"beta": {"exact": "1"}}},
            ],
            "timeout": "5s",
            "route": both(0, 100),
        },
        {
            "match": [{"uri": {"prefix": "/"}, "headers": {"old": {"exact": "1"}}}],
            "timeout": "5s",
            "route": [{"destination": {"host": "podinfo-primary"}, "weight": 100}],
        },
    ]);
    assert_eq!(spec(&world)["http"], expected);
    assert_eq!(Istio.observed(&world.subject()), Ok(Split::CANARY));
    assert_eq!(reconcile(&mut world, Split::PRIMARY), 0);
}

#[test]
fn without_service_conditions_those_of_the_analysis_stand_alone() {
    let mut world = ab(json!({}));
    reconcile(&mut world, Split::PRIMARY);
    let http = spec(&world)["http"].clone();
    assert_eq!(http[0]["match"][0], json!({"headers": {"x-canary": {"exact": "insider"}}}));
    assert_eq!(http[1].get("match"), None);
}

fn users_virtual_service() -> Value {
    json!({
        "metadata": {"labels": {"mine": "1"}, "annotations": {"mine": "1"}},
        "spec": {
            "hosts": ["podinfo.example.com"],
            "gateways": ["public"],
            "exportTo": ["."],
            "tls": [{"match": [{"sniHosts": ["a"]}], "route": [{"destination": {"host": "a"}}]}],
            "tcp": [{"route": [{"destination": {"host": "db"}}]}],
            "http": [{"timeout": "10s", "route": [{"destination": {"host": "podinfo"}}]}],
        },
    })
}

#[test]
fn a_virtual_service_of_the_user_is_taken_over_once() {
    let mut world = world(json!({"service": {"gateways": ["public"], "hosts": ["podinfo.example.com"]}}));
    let original = users_virtual_service();
    world.put(VIRTUAL_SERVICE, "podinfo", original.clone());
    assert_eq!(
        Istio.observed(&world.subject()).unwrap_err().to_string(),
        "VirtualService podinfo.test does not contain routes for podinfo-primary and podinfo-canary"
    );
    reconcile(&mut world, Split::PRIMARY);
    let mut expected = original["spec"].clone();
    expected["hosts"] = json!(["podinfo.example.com", "podinfo"]);
    expected["http"] = json!([{"route": both(100, 0)}]);
    assert_eq!(spec(&world), expected);

    let kept = |world: &World| -> Value {
        let annotations = world.json(VIRTUAL_SERVICE, "podinfo")["metadata"]["annotations"].clone();
        serde_json::from_str(annotations["flagger.kubernetes.io/original-configuration"].as_str().unwrap()).unwrap()
    };
    assert_eq!(kept(&world), original["spec"]);
    let metadata = world.json(VIRTUAL_SERVICE, "podinfo")["metadata"].clone();
    assert_eq!(metadata["labels"], json!({"mine": "1"}));
    assert_eq!(metadata["annotations"]["mine"], "1");
    assert_eq!(metadata.get("ownerReferences"), None);

    // Later drift does not replace the original.
    world.edit(VIRTUAL_SERVICE, "podinfo", json!({"spec": {"hosts": ["elsewhere"], "http": []}}));
    reconcile(&mut world, Split::to_canary(30));
    assert_eq!(kept(&world), original["spec"]);
    assert_eq!(Istio.observed(&world.subject()), Ok(Split::to_canary(30)));
}

#[test]
fn no_original_is_kept_where_there_is_one_or_none_is_needed() {
    let annotated = |world: &World| {
        let metadata = world.json(VIRTUAL_SERVICE, "podinfo")["metadata"].clone();
        metadata["annotations"].get("flagger.kubernetes.io/original-configuration").is_some()
    };
    let mut applied = world(json!({}));
    let mut original = users_virtual_service();
    original["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = json!("{}");
    applied.put(VIRTUAL_SERVICE, "podinfo", original);
    reconcile(&mut applied, Split::PRIMARY);
    assert!(!annotated(&applied));

    // Somebody removed the annotation; what is there now is no original.
    let mut forgotten = world(json!({}));
    forgotten.put(VIRTUAL_SERVICE, "podinfo", json!({"spec": {"hosts": ["x"], "http": [{"route": both(60, 40)}]}}));
    assert_eq!(reconcile(&mut forgotten, Split::to_canary(40)), 3);
    assert_eq!(spec(&forgotten)["hosts"], json!(["podinfo"]));
    assert!(!annotated(&forgotten));

    let mut own = world(json!({}));
    reconcile(&mut own, Split::PRIMARY);
    own.edit(VIRTUAL_SERVICE, "podinfo", json!({"spec": {"http": [{"route": [{"destination": {"host": "x"}}]}]}}));
    reconcile(&mut own, Split::PRIMARY);
    assert!(!annotated(&own));
}

#[test]
fn edits_of_what_aviary_owns_are_repaired_and_additions_are_kept() {
    let mut world = world(json!({"service": {"timeout": "5s"}}));
    reconcile(&mut world, Split::PRIMARY);
    set(&mut world, Split::to_canary(30));
    let mut http = spec(&world)["http"].clone();
    http[0]["timeout"] = json!("50s");
    http[0]["rewrite"] = json!({"uri": "/x"});
    http[0]["fault"] = json!({"delay": {"fixedDelay": "1s"}});
    http[0]["route"][1]["headers"] = json!({"response": {"add": {"a": "b"}}});
    world.edit(VIRTUAL_SERVICE, "podinfo", json!({"spec": {"http": http}}));
    assert_eq!(reconcile(&mut world, Split::to_canary(30)), 1);
    set(&mut world, Split::to_canary(40));
    let route = spec(&world)["http"][0].clone();
    assert_eq!(route["timeout"], "5s");
    assert_eq!(route.get("rewrite"), None);
    assert_eq!(route["fault"], json!({"delay": {"fixedDelay": "1s"}}));
    assert_eq!(route["route"][1]["headers"], json!({"response": {"add": {"a": "b"}}}));
    assert_eq!(Istio.observed(&world.subject()), Ok(Split::to_canary(40)));
}

#[test]
fn a_step_writes_routes_and_nothing_else() {
    let mut world = world(json!({"service": {"timeout": "5s"}}));
    reconcile(&mut world, Split::PRIMARY);
    world.edit(VIRTUAL_SERVICE, "podinfo", json!({"spec": {"hosts": ["edited"]}}));
    let changes = Istio.set(&world.subject(), Split::to_canary(10)).unwrap();
    let crate::Verb::Patch(patch) = &changes[0].verb else { panic!("a patch") };
    assert_eq!(patch["spec"], json!({"http": [{"timeout": "5s", "route": both(90, 10)}]}));
    assert_eq!(patch["metadata"].as_object().unwrap().keys().collect::<Vec<_>>(), ["resourceVersion"]);
}

#[test]
fn what_flagger_made_is_taken_over_without_a_write() {
    let mut world = world(json!({"service": {"timeout": "5s", "match": [{"uri": {"prefix": "/"}}]}}));
    reconcile(&mut world, Split::PRIMARY);
    let flaggers = json!({
        "metadata": {
            "labels": {"app": "podinfo"},
            "annotations": {
                "kustomize.toolkit.fluxcd.io/reconcile": "disabled",
                "helm.toolkit.fluxcd.io/driftDetection": "disabled",
            },
        },
        "spec": {
            "gateways": ["mesh"],
            "hosts": ["podinfo"],
            "http": [{
                "match": [{"uri": {"prefix": "/"}}],
                "retries": null,
                "route": [
                    {"destination": {"host": "podinfo-primary"}, "weight": 60},
                    {"destination": {"host": "podinfo-canary"}, "weight": 40},
                ],
                "timeout": "5s",
            }],
        },
    });
    world.put(VIRTUAL_SERVICE, "podinfo", flaggers);
    assert_eq!(Istio.observed(&world.subject()), Ok(Split::to_canary(40)));
    assert_eq!(reconcile(&mut world, Split::PRIMARY), 0);
}

#[test]
fn weights_that_make_no_sense_are_drift() {
    let mut world = world(json!({}));
    reconcile(&mut world, Split::PRIMARY);
    for nonsense in [both(50, 30), both(0, 0), json!([{"destination": {"host": "podinfo-canary"}}])] {
        world.edit(VIRTUAL_SERVICE, "podinfo", json!({"spec": {"http": [{"route": nonsense}]}}));
        assert!(Istio.observed(&world.subject()).is_err());
        assert_eq!(reconcile(&mut world, Split::to_canary(20)), 1);
        assert_eq!(Istio.observed(&world.subject()), Ok(Split::to_canary(20)));
    }
}

#[test]
fn routes_that_are_gone_are_named() {
    let world = world(json!({}));
    assert_eq!(
        Istio.set(&world.subject(), Split::PRIMARY).unwrap_err().to_string(),
        "VirtualService podinfo.test get query error virtualservices.networking.istio.io \"podinfo\" not found"
    );
}

#[test]
fn destination_rules_keep_what_others_added() {
    let mut world = world(json!({"service": {"trafficPolicy": {"tls": {"mode": "DISABLE"}}}}));
    reconcile(&mut world, Split::PRIMARY);
    let kind = &kinds::DESTINATION_RULE;
    world.edit(
        kind,
        "podinfo-primary",
        json!({"spec": {"subsets": [{"name": "a"}], "trafficPolicy": {"tls": {"mode": "SIMPLE"}}}}),
    );
    assert_eq!(reconcile(&mut world, Split::PRIMARY), 1);
    let expected = json!({
        "host": "podinfo-primary", "subsets": [{"name": "a"}], "trafficPolicy": {"tls": {"mode": "DISABLE"}},
    });
    assert_eq!(world.json(kind, "podinfo-primary")["spec"], expected);
    world.canary = canary(json!({}));
    reconcile(&mut world, Split::PRIMARY);
    assert_eq!(world.json(kind, "podinfo-primary")["spec"].get("trafficPolicy"), None);
}
