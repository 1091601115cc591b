//! More of what random sequences have found to be otherwise in a real server (`tests/differential`): creations, deletions, and the
//! words for what is refused.

use futures::StreamExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::{Value, json};

use crate::support::{Refusal, World, config_map, deployment, object, value, version_of, widget, world};

const MAPS: &str = "/api/v1/namespaces/test/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/test/deployments";
const SERVICES: &str = "/api/v1/namespaces/test/services";

async fn post(world: &World, path: &str, body: &Value) -> Result<Value, kube::Error> {
    world.request("POST", path, "application/json", &body.to_string()).await
}

async fn apply(world: &World, path: &str, body: &Value) -> Result<Value, kube::Error> {
    world.request("PATCH", path, "application/apply-patch+yaml", &body.to_string()).await
}

#[tokio::test(start_paused = true)]
async fn a_new_object_may_have_a_version_that_is_no_number() {
    let world = world().await;
    let mut map = value(&config_map("a"));
    map["metadata"]["resourceVersion"] = json!("7");
    let refusal = post(&world, MAPS, &map).await.refusal();
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (500, "resourceVersion should not be set on objects to be created")
    );
    map["metadata"]["resourceVersion"] = json!("99x");
    let created = post(&world, MAPS, &map).await.unwrap();
    assert_ne!(created["metadata"]["resourceVersion"], "99x");
    assert_eq!(post(&world, MAPS, &map).await.refusal().reason, "AlreadyExists");
}

#[tokio::test(start_paused = true)]
async fn a_rehearsed_creation_may_have_any_version() {
    let world = world().await;
    let mut map = value(&config_map("a"));
    map["metadata"]["resourceVersion"] = json!("7");
    let path = format!("{MAPS}?dryRun=All");
    assert_eq!(post(&world, &path, &map).await.unwrap()["metadata"]["resourceVersion"], "7");
    world.config_maps().create(&PostParams::default(), &config_map("a")).await.unwrap();
    assert_eq!(post(&world, &path, &map).await.refusal().reason, "AlreadyExists");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_was_generated_if_it_could_have_been() {
    let world = world().await;
    let mut map = value(&config_map("a"));
    map["metadata"]["generateName"] = json!("a-");
    post(&world, MAPS, &map).await.unwrap();
    let refusal = post(&world, MAPS, &map).await.refusal();
    let expected = "configmaps \"a\" already exists, the server was not able to generate a unique name for the object";
    assert_eq!((refusal.code, refusal.message.as_str()), (409, expected));
    assert_eq!(refusal.details.unwrap().retry_after_seconds, 1);
}

#[tokio::test(start_paused = true)]
async fn an_object_without_name_is_told_all_that_is_wrong_with_it() {
    let world = world().await;
    let mut nameless = value(&deployment("web", "podinfo:1"));
    nameless["metadata"]["name"] = json!(null);
    nameless["spec"]["replicas"] = json!(-1);
    let refusal = post(&world, DEPLOYMENTS, &nameless).await.refusal();
    let expected = "Deployment.apps \"\" is invalid: [metadata.name: Required value: name or generateName is required, \
                    spec.replicas: Invalid value: -1: must be greater than or equal to 0]";
    assert_eq!((refusal.code, refusal.message.as_str()), (422, expected));
}

#[tokio::test(start_paused = true)]
async fn kinds_without_generation_keep_the_one_that_they_are_given() {
    let world = world().await;
    let mut map = value(&config_map("a"));
    map["metadata"]["generation"] = json!(7);
    assert_eq!(post(&world, MAPS, &map).await.unwrap()["metadata"]["generation"], 7);
    map["metadata"]["generation"] = json!(8);
    let replaced = world.request("PUT", &format!("{MAPS}/a"), "application/json", &map.to_string()).await.unwrap();
    assert_eq!(replaced["metadata"]["generation"], 7);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_takes_the_last_finalizer_is_a_deletion_alone() {
    let world = world().await;
    let maps = world.config_maps();
    let mut held = config_map("a");
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    maps.create(&PostParams::default(), &held).await.unwrap();
    let marked = maps.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    let events = maps.watch(&WatchParams::default(), &version_of(&marked)).await.unwrap();
    let mut events = std::pin::pin!(events);
    let patch = Patch::Merge(json!({"metadata": {"finalizers": null}, "data": {"key": "2"}}));
    let last = maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!((last.metadata.finalizers.as_deref(), &last.data["data"]["key"]), (None, &json!("2")));
    assert_eq!(version_of(&last), version_of(&marked), "nothing was stored");
    let WatchEvent::Deleted(deleted) = events.next().await.unwrap().unwrap() else { panic!("the object is gone") };
    assert_eq!(deleted.data["data"]["key"], "1");
    assert_eq!(deleted.metadata.finalizers, held.metadata.finalizers);
}

#[tokio::test(start_paused = true)]
async fn a_rehearsed_deletion_shows_what_would_be_waited_for() {
    let world = world().await;
    let maps = world.config_maps();
    let rehearsed = |params: DeleteParams| DeleteParams { dry_run: true, ..params };
    let created = maps.create(&PostParams::default(), &config_map("a")).await.unwrap();
    assert!(maps.delete("a", &rehearsed(DeleteParams::background())).await.unwrap().is_right());
    let waiting = maps.delete("a", &rehearsed(DeleteParams::foreground())).await.unwrap().left().unwrap();
    assert_eq!(waiting.metadata.finalizers, Some(vec!["foregroundDeletion".to_owned()]));
    assert!(waiting.metadata.deletion_timestamp.is_some());
    assert_eq!(maps.get("a").await.unwrap(), created, "it was only rehearsed");
}

#[tokio::test(start_paused = true)]
async fn a_patch_of_the_scale_of_another_object_names_where_that_is_stored() {
    let world = world().await;
    let widgets = world.widgets().await;
    let mut replacing = widgets.create(&PostParams::default(), &widget("a", &json!({"size": 1}))).await.unwrap();
    replacing.metadata.uid = Some("other".to_owned());
    for (dry_run, root) in [(false, "/registry/example.com/widgets/"), (true, "Key: /example.com/widgets/")] {
        let params = PostParams { dry_run, ..PostParams::default() };
        let refusal = widgets.replace("a", &params, &replacing).await.refusal();
        assert!(refusal.message.contains(root), "{}", refusal.message);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_copied_from_nowhere_in_an_object_is_null() {
    let world = world().await;
    world.config_maps().create(&PostParams::default(), &config_map("a")).await.unwrap();
    let copy = json!([{"op": "copy", "from": "/data/none", "path": "/data/key"}]).to_string();
    let path = format!("{MAPS}/a");
    let patched = world.request("PATCH", &path, "application/json-patch+json", &copy).await.unwrap();
    assert_eq!(patched["data"]["key"], "");
    let moved = json!([{"op": "move", "from": "/data/none", "path": "/data/key"}]).to_string();
    assert_eq!(world.request("PATCH", &path, "application/json-patch+json", &moved).await.refusal().code, 422);
}

#[tokio::test(start_paused = true)]
async fn an_applied_value_of_the_wrong_type_is_an_error_of_the_converter() {
    let world = world().await;
    let config =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "binaryData": {"b": "no base64"}});
    let refusal = apply(&world, &format!("{MAPS}/a?fieldManager=ann"), &config).await.refusal();
    assert_eq!(refusal.code, 500);
    let expected = "failed to convert new object (/a; /v1, Kind=ConfigMap) to proper version: unable to convert unstructured \
                    object to /v1, Kind=ConfigMap: error decoding from json: illegal base64 data at input byte";
    assert!(refusal.message.starts_with(expected), "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_of_nothing_is_first_asked_for_its_namespace() {
    let world = world().await;
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "other"}});
    let refusal = apply(&world, &format!("{MAPS}/a?fieldManager=ann"), &config).await.refusal();
    let expected = "the namespace of the provided object does not match the namespace sent on the request";
    assert_eq!((refusal.code, refusal.message.as_str()), (400, expected));
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_deployment_has_to_add_up() {
    let world = world().await;
    world.deployments().create(&PostParams::default(), &deployment("web", "podinfo:1")).await.unwrap();
    let patch = json!({"status": {"replicas": 1, "readyReplicas": 2}}).to_string();
    let path = format!("{DEPLOYMENTS}/web/status");
    let refusal = world.request("PATCH", &path, "application/merge-patch+json", &patch).await.refusal();
    let expected = "Deployment.apps \"web\" is invalid: status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas";
    assert_eq!((refusal.code, refusal.message.as_str()), (422, expected));
}

#[tokio::test(start_paused = true)]
async fn the_older_name_of_the_service_account_keeps_the_newer() {
    let world = world().await;
    let deployments = world.deployments();
    let mut robot = deployment("web", "podinfo:1");
    robot.data["spec"]["template"]["spec"]["serviceAccountName"] = json!("robot");
    deployments.create(&PostParams::default(), &robot).await.unwrap();
    let account = async |spec: Value| {
        let patch = Patch::Merge(json!({"spec": {"template": {"spec": spec}}}));
        let patched = value(&deployments.patch("web", &PatchParams::default(), &patch).await.unwrap());
        let spec = &patched["spec"]["template"]["spec"];
        (spec["serviceAccountName"].clone(), spec["serviceAccount"].clone())
    };
    assert_eq!(account(json!({"serviceAccountName": null})).await, (json!("robot"), json!("robot")));
    assert_eq!(account(json!({"serviceAccountName": "other"})).await, (json!("other"), json!("other")));
    assert_eq!(account(json!({"serviceAccountName": null, "serviceAccount": null})).await, (json!(null), json!(null)));
}

#[tokio::test(start_paused = true)]
async fn the_second_source_of_a_volume_is_the_one_too_many() {
    let world = world().await;
    let mut two = deployment("web", "podinfo:1");
    two.data["spec"]["template"]["spec"]["volumes"] =
        json!([{"name": "v", "configMap": {"name": "c"}, "emptyDir": {}}]);
    let refusal = world.deployments().create(&PostParams::default(), &two).await.refusal();
    let expected = "Deployment.apps \"web\" is invalid: spec.template.spec.volumes[0].configMap: Forbidden: may not specify \
                    more than 1 volume type";
    assert_eq!(refusal.message, expected);
}

#[tokio::test(start_paused = true)]
async fn a_strategy_that_does_not_exist_is_shown_with_its_defaults() {
    let world = world().await;
    let deployments = world.deployments();
    deployments.create(&PostParams::default(), &deployment("web", "podinfo:1")).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"strategy": {"type": "Other"}}}));
    let refusal = deployments.patch("web", &PatchParams::default(), &patch).await.refusal();
    let expected = "Deployment.apps \"web\" is invalid: spec.strategy: Unsupported value: {\"Type\":\"Other\",\
                    \"RollingUpdate\":{\"MaxUnavailable\":\"25%\",\"MaxSurge\":\"25%\"}}: supported values: \"Recreate\", \
                    \"RollingUpdate\"";
    assert_eq!(refusal.message, expected);
}

#[tokio::test(start_paused = true)]
async fn a_service_without_address_and_selector_has_both_families() {
    let world = world().await;
    let spec = json!({"clusterIP": "None", "ports": [{"port": 80}]});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec});
    let created = post(&world, SERVICES, &service).await.unwrap();
    assert_eq!(created["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    assert_eq!(created["spec"]["ipFamilyPolicy"], "RequireDualStack");
    let mut selecting = service.clone();
    selecting["metadata"]["name"] = json!("b");
    selecting["spec"]["selector"] = json!({"app": "b"});
    let created = post(&world, SERVICES, &selecting).await.unwrap();
    assert_eq!(created["spec"]["ipFamilies"], json!(["IPv4"]));
    assert_eq!(created["spec"]["ipFamilyPolicy"], "SingleStack");
}

#[tokio::test(start_paused = true)]
async fn a_port_of_a_service_that_is_none_has_no_target_either() {
    let world = world().await;
    let service = object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"name": "http"}]},
    }));
    let refusal = world.api("", "v1", "Service").create(&PostParams::default(), &service).await.refusal();
    let expected = "Service \"a\" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, \
                    spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]";
    assert_eq!(refusal.message, expected);
}

#[tokio::test(start_paused = true)]
async fn nulls_that_go_drops_are_not_shown_in_a_refused_strategic_patch() {
    let world = world().await;
    let deployments = world.deployments();
    deployments.create(&PostParams::default(), &deployment("web", "podinfo:1")).await.unwrap();
    let patch = Patch::Strategic(json!({"metadata": {"labels": {"x": null}}, "spec": {"replicas": 1.5}}));
    let refusal = deployments.patch("web", &PatchParams::default(), &patch).await.refusal();
    let expected = "\"map[metadata:map[labels:map[]] spec:map[replicas:1.5]]\": cannot convert float64 to int32";
    assert!(refusal.message.ends_with(expected), "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn ordered_lists_are_not_shown_in_a_refused_strategic_patch() {
    let world = world().await;
    let deployments = world.deployments();
    deployments.create(&PostParams::default(), &deployment("web", "podinfo:1")).await.unwrap();
    // As `kubectl apply` writes it.
    let pod = json!({"$setElementOrder/containers": [{"name": "app"}], "containers": [{"name": "app", "image": "podinfo:2"}]});
    let patch = Patch::Strategic(json!({"spec": {"replicas": "x", "template": {"spec": pod}}}));
    let refusal = deployments.patch("web", &PatchParams::default(), &patch).await.refusal();
    let expected = "\"map[spec:map[replicas:x template:map[spec:map[]]]]\": unrecognized type: int32";
    assert!(refusal.message.ends_with(expected), "{}", refusal.message);
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_has_its_warnings_too() {
    let world = world().await;
    world.widgets().await;
    let body = value(&widget("a", &json!({"size": 11, "unheard": 1}))).to_string().into_bytes();
    let request = http::Request::post("/apis/example.com/v1/namespaces/test/widgets")
        .header("Content-Type", "application/json")
        .body(kube::client::Body::from(body))
        .unwrap();
    let response = world.client.send(request).await.unwrap();
    assert_eq!(response.status(), 422);
    assert_eq!(response.headers()["Warning"], "299 - \"unknown field \\\"spec.unheard\\\"\"");
}
