#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::json;

use super::*;
use crate::targets::revision;
use crate::testing::{World, deployment};

const TARGET: DeploymentTarget = DeploymentTarget;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn world() -> World {
    let mut world = World::new(json!({}));
    world.put(&kinds::DEPLOYMENT, "podinfo", deployment());
    world
}

fn world_with_config() -> World {
    let mut world = world();
    world.put(&kinds::CONFIG_MAP, "app", json!({"data": {"color": "red"}}));
    let uses = json!({"spec": {"template": {"spec": {"volumes": [{"name": "a", "configMap": {"name": "app"}}]}}}});
    world.edit(&kinds::DEPLOYMENT, "podinfo", uses);
    world
}

fn set_image(world: &mut World, image: &str) {
    let mut containers = world.json(&kinds::DEPLOYMENT, "podinfo")["spec"]["template"]["spec"]["containers"].clone();
    containers[0]["image"] = image.into();
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"template": {"spec": {"containers": containers}}}}));
}

fn observed(world: &World) -> TargetView {
    TARGET.observe(&world.subject(), now()).unwrap()
}

fn primary(world: &World) -> Value {
    world.json(&kinds::DEPLOYMENT, "podinfo-primary")
}

fn id(world: &World) -> String {
    primary(world)["spec"]["template"]["metadata"]["annotations"]["flagger-id"].as_str().unwrap().to_owned()
}

fn bootstrap(world: &mut World) {
    let changes = TARGET.apply_primary(&world.subject()).unwrap();
    world.apply(changes);
}

fn promote(world: &mut World) -> usize {
    let view = observed(world);
    let changes = TARGET.promote(&world.subject(), &view.revision, &view.configs).unwrap();
    let count = changes.len();
    world.apply(changes);
    count
}

fn matches(world: &World) -> bool {
    TARGET.observe_primary(&world.subject(), now()).unwrap().expect("a primary").matches_target
}

#[test]
fn the_primary_is_made_of_the_target() {
    let mut world = world();
    world.settings.include_label_prefixes = vec!["team".into()];
    assert_eq!(TARGET.observe_primary(&world.subject(), now()), Ok(None));
    bootstrap(&mut world);
    let id = id(&world);
    let primary = primary(&world);
    let expected = json!({
        "progressDeadlineSeconds": 60,
        "minReadySeconds": 5,
        "revisionHistoryLimit": 3,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
        "replicas": 2,
        "selector": {"matchLabels": {"app": "podinfo-primary"}},
        "template": {
            "metadata": {
                "labels": {"app": "podinfo-primary", "version": "v1"},
                "annotations": {"prometheus.io/scrape": "true", "flagger-id": id},
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
    });
    assert_eq!(primary["spec"], expected);
    assert_eq!(primary["metadata"]["labels"], json!({"app": "podinfo-primary", "team": "web"}));
    assert_eq!(primary["metadata"]["annotations"], json!({"example.com/owner": "me"}));
    assert_eq!(primary["metadata"]["ownerReferences"][0]["uid"], "canary-uid");
    assert!(matches(&world));
    assert_eq!(TARGET.apply_primary(&world.subject()), Ok(vec![]));
    assert_eq!(promote(&mut world), 0, "promoting what runs changes nothing");
}

#[test]
fn a_primary_is_never_made_with_zero_replicas() {
    let mut world = world();
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"replicas": 0}}));
    bootstrap(&mut world);
    assert_eq!(primary(&world)["spec"]["replicas"], 1);
    world.edit(&kinds::DEPLOYMENT, "podinfo-primary", json!({"spec": {"replicas": 0}}));
    promote(&mut world);
    assert_eq!(primary(&world)["spec"]["replicas"], 1);
}

#[test]
fn a_promotion_copies_template_and_settings_and_restarts_pods() {
    let mut world = world();
    bootstrap(&mut world);
    let old_id = id(&world);
    set_image(&mut world, "podinfo:2");
    let settings = json!({"spec": {"replicas": 4, "strategy": {"type": "Recreate", "rollingUpdate": null}}});
    world.edit(&kinds::DEPLOYMENT, "podinfo", settings);
    assert!(!matches(&world));
    assert_eq!(promote(&mut world), 1);
    let promoted = primary(&world);
    assert_eq!(promoted["spec"]["template"]["spec"]["containers"][0]["image"], "podinfo:2");
    assert_eq!(promoted["spec"]["strategy"], json!({"type": "Recreate"}));
    assert_eq!(promoted["spec"]["replicas"], 4);
    assert_ne!(id(&world), old_id);
    assert!(matches(&world));
    assert_eq!(promote(&mut world), 0);
}

#[test]
fn what_others_wrote_on_the_primary_survives() {
    let mut world = world();
    bootstrap(&mut world);
    let mine = json!({
        "metadata": {"labels": {"mine": "1"}, "annotations": {"mine": "1", "deployment.kubernetes.io/revision": "3"}},
        "spec": {"somethingNew": 1},
    });
    world.edit(&kinds::DEPLOYMENT, "podinfo-primary", mine.clone());
    assert!(matches(&world));
    set_image(&mut world, "podinfo:2");
    promote(&mut world);
    let promoted = primary(&world);
    assert_eq!(promoted["metadata"]["annotations"]["mine"], "1");
    assert_eq!(promoted["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(promoted["metadata"]["labels"]["mine"], "1");
    assert_eq!(promoted["spec"]["somethingNew"], 1);
}

/// As an admission webhook does with every write, `kubectl rollout restart` once, and controllers that restart pods on a change of
/// their configs. A primary that never equals its target would never be initialized.
#[test]
fn what_others_add_to_the_primarys_pods_is_no_difference() {
    let mut world = world_with_config();
    bootstrap(&mut world);
    let add = |world: &mut World| {
        let mut containers = primary(world)["spec"]["template"]["spec"]["containers"].clone();
        containers[0]["env"] = json!([{"name": "ADDED", "value": "1"}]);
        containers.as_array_mut().unwrap().insert(0, json!({"name": "sidecar", "image": "proxy:1"}));
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
        let template = json!({"metadata": {"annotations": annotations, "labels": {"policy": "a"}}, "spec": {"containers": containers}});
        world.edit(&kinds::DEPLOYMENT, "podinfo-primary", json!({"spec": {"template": template}}));
    };
    add(&mut world);
    assert!(matches(&world));
    assert_eq!(TARGET.apply_primary(&world.subject()), Ok(vec![]));
    assert_eq!(promote(&mut world), 0);
    // Another revision is made of the target alone, also where it only lacks something.
    set_image(&mut world, "podinfo:2");
    assert!(!matches(&world));
    assert_eq!(promote(&mut world), 1);
    assert_eq!(primary(&world)["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    add(&mut world);
    assert!(matches(&world));
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"template": {"metadata": {"annotations": null}}}}));
    assert!(!matches(&world));
    // What is changed is a difference.
    promote(&mut world);
    let mut containers = primary(&world)["spec"]["template"]["spec"]["containers"].clone();
    containers[0]["image"] = "podinfo:3".into();
    world.edit(
        &kinds::DEPLOYMENT,
        "podinfo-primary",
        json!({"spec": {"template": {"spec": {"containers": containers}}}}),
    );
    assert!(!matches(&world));
}

#[test]
fn an_autoscaler_keeps_the_replicas() {
    let mut world = world();
    bootstrap(&mut world);
    world.edit(&kinds::DEPLOYMENT, "podinfo-primary", json!({"spec": {"replicas": 7}}));
    world.canary = crate::testing::canary(json!({
        "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"},
    }));
    set_image(&mut world, "podinfo:2");
    promote(&mut world);
    assert_eq!(primary(&world)["spec"]["replicas"], 7);
}

#[test]
fn only_what_was_analysed_is_promoted() {
    let mut world = world_with_config();
    bootstrap(&mut world);
    let analysed = observed(&world);
    set_image(&mut world, "podinfo:2");
    let refused = TARGET.promote(&world.subject(), &analysed.revision, &analysed.configs).unwrap_err();
    assert!(matches!(refused, TargetError::Superseded { .. }), "{refused}");

    let analysed = observed(&world);
    world.edit(&kinds::CONFIG_MAP, "app", json!({"data": {"color": "blue"}}));
    let refused = TARGET.promote(&world.subject(), &analysed.revision, &analysed.configs).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "deployment podinfo.test changed after its analysis, not promoting: its configs are not the analysed ones"
    );
}

/// Whether configs are tracked can change between the start of a run and its promotion.
#[test]
fn a_run_is_promoted_although_the_tracking_of_configs_was_switched() {
    let mut plain = world();
    bootstrap(&mut plain);
    set_image(&mut plain, "podinfo:2");
    let revision = observed(&plain).revision;
    let changes = TARGET.promote(&plain.subject(), &revision, &None).unwrap();
    assert_eq!(changes.len(), 1, "tracked none, and there are none");

    let mut world = world_with_config();
    bootstrap(&mut world);
    set_image(&mut world, "podinfo:2");
    let analysed = observed(&world);
    let refused = TARGET.promote(&world.subject(), &analysed.revision, &None).unwrap_err();
    assert!(matches!(refused, TargetError::Superseded { .. }), "nobody has seen this config: {refused}");
    world.settings.config_tracking = false;
    let changes = TARGET.promote(&world.subject(), &analysed.revision, &analysed.configs).unwrap();
    world.apply(changes);
    let volumes = primary(&world)["spec"]["template"]["spec"]["volumes"].clone();
    assert_eq!(volumes[0]["configMap"]["name"], "app", "no longer a copy");
}

#[test]
fn a_changed_config_restarts_the_primary_even_if_the_promotion_was_cut() {
    let mut world = world_with_config();
    bootstrap(&mut world);
    assert_eq!(primary(&world)["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"], "app-primary");
    let old_id = id(&world);
    world.edit(&kinds::CONFIG_MAP, "app", json!({"data": {"color": "blue"}}));
    assert!(!matches(&world));

    // The process dies after the copy.
    let view = observed(&world);
    let mut changes = TARGET.promote(&world.subject(), &view.revision, &view.configs).unwrap();
    assert_eq!(changes.iter().map(|change| change.key.kind.kind).collect::<Vec<_>>(), ["ConfigMap", "Deployment"]);
    changes.truncate(1);
    world.apply(changes);
    assert!(!matches(&world), "the pods still run with the old config");
    assert_eq!(promote(&mut world), 1);
    assert_ne!(id(&world), old_id);
    assert!(matches(&world));
}

#[test]
fn flaggers_primaries_are_adopted_without_a_restart() {
    let mut world = world();
    bootstrap(&mut world);
    let foreign = json!({"spec": {"template": {"metadata": {"annotations": {"flagger-id": "f47ac10b-58cc-4372-a567-0e02b2c3d479"}}}}});
    world.edit(&kinds::DEPLOYMENT, "podinfo-primary", foreign);
    assert!(matches(&world));
    assert_eq!(TARGET.apply_primary(&world.subject()), Ok(vec![]));
    assert_eq!(promote(&mut world), 0);
}

#[test]
fn flaggers_pods_are_restarted_once_if_their_configs_are_unknown() {
    let mut world = world_with_config();
    bootstrap(&mut world);
    let foreign = json!({"flagger-id": "f47ac10b-58cc-4372-a567-0e02b2c3d479"});
    let foreign = json!({"spec": {"template": {"metadata": {"annotations": foreign}}}});
    world.edit(&kinds::DEPLOYMENT, "podinfo-primary", foreign);
    assert!(matches(&world));
    assert_eq!(promote(&mut world), 1);
    assert!(revision::is_own_pod_id(&id(&world)));
    assert_eq!(promote(&mut world), 0);
}

#[test]
fn settings_without_a_new_template_restart_nothing() {
    let mut world = world();
    bootstrap(&mut world);
    let template = primary(&world)["spec"]["template"].clone();
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"minReadySeconds": 30}}));
    assert_eq!(promote(&mut world), 1);
    assert_eq!(primary(&world)["spec"]["minReadySeconds"], 30);
    assert_eq!(primary(&world)["spec"]["template"], template);
}

/// An API server leaves `minReadySeconds: 0` out.
#[test]
fn a_setting_that_is_taken_back_goes_from_the_primary_too() {
    let mut world = world();
    bootstrap(&mut world);
    assert_eq!(primary(&world)["spec"]["minReadySeconds"], 5);
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"minReadySeconds": null}}));
    assert_eq!(promote(&mut world), 1);
    assert_eq!(primary(&world)["spec"].get("minReadySeconds"), None);
    assert_eq!(promote(&mut world), 0);
}

/// The primary of a target that is paused must start.
#[test]
fn a_paused_target_does_not_pause_the_primary() {
    let mut world = world();
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"paused": true}}));
    bootstrap(&mut world);
    assert_eq!(primary(&world)["spec"].get("paused"), None);
    set_image(&mut world, "podinfo:2");
    promote(&mut world);
    assert_eq!(primary(&world)["spec"].get("paused"), None);
}

#[test]
fn targets_that_cannot_be_used_say_why() {
    let mut world = World::new(json!({}));
    let error = |world: &World| TARGET.observe(&world.subject(), now()).unwrap_err().to_string();
    assert_eq!(error(&world), "deployment podinfo.test get query error: deployments.apps \"podinfo\" not found");
    assert!(world.was_asked_for(&kinds::DEPLOYMENT, "podinfo"));

    world.put(&kinds::DEPLOYMENT, "podinfo", deployment());
    world.edit(
        &kinds::DEPLOYMENT,
        "podinfo",
        json!({"spec": {"selector": {"matchLabels": {"app": null, "k8s": "x"}}}}),
    );
    assert_eq!(
        error(&world),
        "getSelectorLabel failed: deployment podinfo.test spec.selector.matchLabels must contain one of \
         [app name app.kubernetes.io/name]"
    );
}

#[test]
fn the_target_is_seen_as_it_is() {
    let mut world = world_with_config();
    let view = observed(&world);
    assert!(revision::is_own_revision(&view.revision));
    assert_eq!(view.configs, Some(BTreeMap::from([("configmap/app".into(), "241889ca0604e333".into())])));
    assert_eq!((view.scaled_to_zero, view.available, view.readiness), (false, 2, Readiness::Ready));

    // What does not belong to the template makes no revision.
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"replicas": 1, "minReadySeconds": 9}}));
    let same = observed(&world);
    assert_eq!((same.revision, same.available), (view.revision, 1));

    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"replicas": 0}}));
    let zero = observed(&world);
    assert_eq!((zero.scaled_to_zero, zero.available), (true, 0));

    world.settings.config_tracking = false;
    assert_eq!(observed(&world).configs, None);
}

#[test]
fn reasons_name_the_workload() {
    let mut world = world();
    bootstrap(&mut world);
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"status": {"updatedReplicas": 1}}));
    let Readiness::Waiting { reason, .. } = observed(&world).readiness else { panic!("not waiting") };
    assert_eq!(
        reason,
        "canary deployment podinfo.test not ready: waiting for rollout to finish: 1 out of 2 new replicas have been updated"
    );
    let view = TARGET.observe_primary(&world.subject(), now()).unwrap().unwrap();
    let Readiness::Waiting { reason, .. } = view.readiness else { panic!("not waiting") };
    assert_eq!(
        reason,
        "podinfo-primary.test not ready: waiting for rollout to finish: 0 out of 2 new replicas have been updated"
    );
}

fn scaled(world: &mut World, scale: Scale) -> Value {
    let changes = TARGET.scale(&world.subject(), scale).unwrap();
    world.apply(changes);
    assert_eq!(TARGET.scale(&world.subject(), scale), Ok(vec![]), "scaling twice");
    world.json(&kinds::DEPLOYMENT, "podinfo")["spec"]["replicas"].clone()
}

#[test]
fn the_target_is_scaled_down_and_up() {
    let mut world = world();
    assert_eq!(scaled(&mut world, Scale::Up), 2, "it is up already");
    assert_eq!(scaled(&mut world, Scale::Zero), 0);
    assert_eq!(scaled(&mut world, Scale::Up), 1, "there is no primary to compare with");

    bootstrap(&mut world);
    world.edit(&kinds::DEPLOYMENT, "podinfo-primary", json!({"spec": {"replicas": 3}}));
    scaled(&mut world, Scale::Zero);
    assert_eq!(scaled(&mut world, Scale::Up), 3);

    world.canary = crate::testing::canary(json!({
        "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"},
    }));
    scaled(&mut world, Scale::Zero);
    assert_eq!(scaled(&mut world, Scale::Up), 1);
    world.put(&kinds::HORIZONTAL_POD_AUTOSCALER, "podinfo", json!({"spec": {"minReplicas": 2, "maxReplicas": 4}}));
    scaled(&mut world, Scale::Zero);
    assert_eq!(scaled(&mut world, Scale::Up), 2);
}

#[test]
fn a_target_is_given_back_with_the_pods_that_everybody_needs() {
    let returned = |world: &World| TARGET.returned(&world.subject(), now()).unwrap();
    let mut world = world();
    bootstrap(&mut world);
    world.edit(&kinds::DEPLOYMENT, "podinfo-primary", json!({"spec": {"replicas": 7}}));
    for (present, wanted) in [(0, 7), (2, 7), (9, 9)] {
        world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"replicas": present}}));
        assert_eq!(returned(&world).is_short_of_pods, present < wanted, "{present}");
        let scale = |world: &World| TARGET.scale(&world.subject(), Scale::Restore).unwrap();
        let changes = scale(&world);
        world.apply(changes);
        assert_eq!(world.json(&kinds::DEPLOYMENT, "podinfo")["spec"]["replicas"], wanted);
        assert_eq!(scale(&world), [], "idempotent");
    }
    // The primary is gone: one is better than none.
    world.remove(&kinds::DEPLOYMENT, "podinfo-primary");
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"replicas": 0}}));
    assert!(returned(&world).is_short_of_pods);
    world.apply(TARGET.scale(&world.subject(), Scale::Restore).unwrap());
    assert_eq!(world.json(&kinds::DEPLOYMENT, "podinfo")["spec"]["replicas"], 1);
    world.remove(&kinds::DEPLOYMENT, "podinfo");
    assert_eq!(TARGET.returned(&world.subject(), now()), None);
}

/// Two writers of one figure would never agree.
#[test]
fn a_target_that_its_autoscaler_has_started_is_left_to_it() {
    let reference = json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "podinfo"});
    let mut world = World::new(json!({"autoscalerRef": reference}));
    world.put(&kinds::DEPLOYMENT, "podinfo", deployment());
    bootstrap(&mut world);
    world.edit(&kinds::DEPLOYMENT, "podinfo-primary", json!({"spec": {"replicas": 7}}));
    let short = |world: &World| TARGET.returned(&world.subject(), now()).unwrap().is_short_of_pods;
    assert!(!short(&world));
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"replicas": 0}}));
    assert!(short(&world));
    world.apply(TARGET.scale(&world.subject(), Scale::Restore).unwrap());
    assert_eq!(world.json(&kinds::DEPLOYMENT, "podinfo")["spec"]["replicas"], 7);
}

#[test]
fn ports_are_discovered() {
    let mut world = world();
    let containers = json!([
        {"name": "app", "ports": [{"name": "http", "containerPort": 9898}, {"containerPort": 9797}, {"name": "grpc", "containerPort": 9999, "protocol": "UDP"}]},
        {"name": "istio-proxy", "ports": [{"containerPort": 15001}]},
        {"name": "envoy", "ports": [{"containerPort": 9901}]},
    ]);
    world.edit(&kinds::DEPLOYMENT, "podinfo", json!({"spec": {"template": {"spec": {"containers": containers}}}}));
    let mut discovered = |service: Value| {
        world.canary = crate::testing::canary(json!({"service": service}));
        let ports = TARGET.discovered_ports(&world.subject()).unwrap();
        ports.into_iter().map(|port| (port.name, port.port)).collect::<Vec<_>>()
    };
    let port = |name: &str, number: i64| (name.to_owned(), number);
    let (http, unnamed, grpc) = (port("http", 9898), port("tcp-app-1", 9797), port("grpc", 9999));
    assert_eq!(discovered(json!({"port": 9898})), []);
    assert_eq!(discovered(json!({"port": 9898, "portDiscovery": true})), [unnamed.clone(), grpc.clone()]);
    assert_eq!(discovered(json!({"port": 80, "targetPort": 9797, "portDiscovery": true})), [http, grpc.clone()]);
    assert_eq!(discovered(json!({"port": 80, "targetPort": "http", "portDiscovery": true})), [unnamed, grpc]);
}
