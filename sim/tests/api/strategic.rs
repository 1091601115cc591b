//! Strategic merge patches: what `kubectl apply`, `edit`, `set` and `patch` send.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{Refusal, deployment, object, value, world};

async fn strategic(api: &Api<DynamicObject>, patch: Value) -> Result<Value, kube::Error> {
    let patched = api.patch("a", &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(value(&patched))
}

/// A deployment with two containers, environment and ports.
async fn two_containers() -> (crate::support::World, Api<DynamicObject>) {
    let world = world().await;
    let deployments = world.deployments();
    let mut made = deployment("a", "web:1");
    made.data["spec"]["template"]["spec"]["containers"] = json!([
        {"name": "web", "image": "web:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
         "args": ["x", "y"], "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81, "name": "admin"}]},
        {"name": "sidecar", "image": "sidecar:1"},
    ]);
    deployments.create(&PostParams::default(), &made).await.unwrap();
    (world, deployments)
}

fn names<'a>(list: &'a Value, key: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().map(|item| &item[key]).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_merge_by_the_key_of_their_type() {
    let (_world, deployments) = two_containers().await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "image": "web:2", "args": ["z"], "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]},
        {"name": "added", "image": "added:1"},
    ]}}}});
    let patched = strategic(&deployments, patch).await.unwrap();
    let containers = &patched["spec"]["template"]["spec"]["containers"];
    // Items of the patch keep their order among each other, and those of the server theirs.
    assert_eq!(names(containers, "name"), ["web", "added", "sidecar"]);
    let web = &containers[0];
    assert_eq!(web["image"], "web:2");
    assert_eq!(web["args"], json!(["z"]), "a list without merge strategy is replaced");
    assert_eq!(
        web["env"],
        json!([{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}])
    );
    assert_eq!(names(&web["ports"], "containerPort"), [80, 81]);
}

#[tokio::test(start_paused = true)]
async fn ports_of_services_and_of_containers_have_different_keys() {
    let (world, deployments) = two_containers().await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "web", "ports": [{"containerPort": 81, "name": "control"}]},
    ]}}}});
    let patched = strategic(&deployments, patch).await.unwrap();
    assert_eq!(names(&patched["spec"]["template"]["spec"]["containers"][0]["ports"], "name"), ["http", "control"]);
    let services = world.api("", "v1", "Service");
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}]},
    });
    services.create(&PostParams::default(), &object(service)).await.unwrap();
    let patched = strategic(&services, json!({"spec": {"ports": [{"port": 81, "targetPort": 8081}]}})).await.unwrap();
    assert_eq!(names(&patched["spec"]["ports"], "targetPort"), [80, 8081]);
}

#[tokio::test(start_paused = true)]
async fn directives_delete_replace_order_and_retain() {
    let (_world, deployments) = two_containers().await;
    let containers = |patch: Value| json!({"spec": {"template": {"spec": patch}}});
    let patch = containers(json!({
        "$setElementOrder/containers": [{"name": "sidecar"}, {"name": "web"}],
        "containers": [{"name": "web", "env": [{"name": "A", "$patch": "delete"}], "ports": [
            {"$patch": "replace"}, {"containerPort": 90},
        ]}],
    }));
    let patched = strategic(&deployments, patch).await.unwrap();
    let list = &patched["spec"]["template"]["spec"]["containers"];
    assert_eq!(names(list, "name"), ["sidecar", "web"]);
    assert_eq!(names(&list[1]["env"], "name"), ["B"]);
    assert_eq!(names(&list[1]["ports"], "containerPort"), [90]);
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    let patched = strategic(&deployments, patch).await.unwrap();
    assert_eq!(patched["spec"]["strategy"], json!({"type": "Recreate"}));
    let patch = containers(json!({"containers": [{"name": "sidecar", "$patch": "delete"}]}));
    let patched = strategic(&deployments, patch).await.unwrap();
    assert_eq!(names(&patched["spec"]["template"]["spec"]["containers"], "name"), ["web"]);
    let replace = json!({"metadata": {"labels": {"$patch": "replace", "only": "this"}}});
    let patched = strategic(&deployments, replace.clone()).await.unwrap();
    // As upstream: what a directive stands in is dropped where there is nothing to direct it at.
    assert!(patched["metadata"]["labels"].is_null());
    strategic(&deployments, json!({"metadata": {"labels": {"old": "x"}}})).await.unwrap();
    let patched = strategic(&deployments, replace).await.unwrap();
    assert_eq!(patched["metadata"]["labels"], json!({"only": "this"}));
}

#[tokio::test(start_paused = true)]
async fn lists_of_scalars_merge_and_lose_single_values() {
    let (_world, deployments) = two_containers().await;
    let patched =
        strategic(&deployments, json!({"metadata": {"finalizers": ["example.com/a", "example.com/b"]}})).await.unwrap();
    assert_eq!(patched["metadata"]["finalizers"], json!(["example.com/a", "example.com/b"]));
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["example.com/a"],
        "finalizers": ["example.com/c"],
    }});
    let patched = strategic(&deployments, patch).await.unwrap();
    let mut finalizers: Vec<&str> =
        patched["metadata"]["finalizers"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    finalizers.sort_unstable();
    assert_eq!(finalizers, ["example.com/b", "example.com/c"]);
}

/// Texts as a 1.36.3 API server gives them.
#[tokio::test(start_paused = true)]
async fn patches_that_make_no_sense_are_refused() {
    let (_world, deployments) = two_containers().await;
    let spec = |spec: Value| json!({"spec": spec});
    let pod = |pod: Value| json!({"spec": {"template": {"spec": pod}}});
    for (patch, code, message) in [
        (
            spec(json!({"replicas": "three"})),
            422,
            " \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:three]]\": unrecognized type: int32",
        ),
        (
            pod(json!({"containers": [{"name": "web", "image": 5}]})),
            422,
            " \"\" is invalid: patch: Invalid value: \"map[spec:map[template:map[spec:map[containers:[map[image:5 \
             name:web]]]]]]\": cannot convert int64 to string",
        ),
        (
            pod(json!({"containers": "x"})),
            422,
            " \"\" is invalid: patch: Invalid value: \"map[spec:map[template:map[spec:map[containers:x]]]]\": cannot \
             restore slice from string",
        ),
        (
            pod(json!({"containers": [{"image": "x"}]})),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            spec(json!({"strategy": {"$retainKeys": ["x"], "type": "Recreate"}})),
            400,
            "invalid patch format of retainKeys",
        ),
        (
            spec(json!({"strategy": {"type": "Recreate"}})),
            422,
            "Deployment.apps \"a\" is invalid: spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy \
             `type` is 'Recreate'",
        ),
    ] {
        let refusal = strategic(&deployments, patch).await.refusal();
        assert_eq!((refusal.code, refusal.message.as_str()), (code, message));
    }
}

#[tokio::test(start_paused = true)]
async fn values_get_the_form_that_go_gives_them() {
    let (_world, deployments) = two_containers().await;
    let patch = json!({"metadata": {"labels": null, "annotations": {}}, "spec": {"paused": false, "template": {"spec": {
        "hostNetwork": false, "nodeSelector": {}, "containers": [{"name": "web", "tty": false, "stdin": true, "env": null,
            "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "0100m"}}}],
    }}}});
    let patched = strategic(&deployments, patch).await.unwrap();
    let pod = &patched["spec"]["template"]["spec"];
    let web = &pod["containers"][0];
    assert_eq!(web["resources"], json!({"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "0100m"}}));
    assert_eq!(web["stdin"], true);
    for absent in [&web["tty"], &web["env"], &pod["hostNetwork"], &pod["nodeSelector"], &patched["spec"]["paused"]] {
        assert!(absent.is_null(), "{absent}");
    }
    assert!(patched["metadata"]["annotations"].is_null());
}
