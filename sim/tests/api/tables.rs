use futures::AsyncBufReadExt;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::support::{Refusal, World, config_map, deployment, object, widget, world};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

async fn get(world: &World, path: &str, accept: &str) -> Value {
    let request = http::Request::get(path).header("Accept", accept).body(Vec::new()).unwrap();
    world.client.request(request).await.unwrap()
}

fn names(table: &Value) -> Vec<&str> {
    table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn lists_and_objects_come_as_tables_when_asked_for() {
    let world = world().await;
    world.deployments().create(&PostParams::default(), &deployment("web", "podinfo:1")).await.unwrap();
    world.pass_seconds(130).await;
    let table = get(&world, "/apis/apps/v1/namespaces/test/deployments", TABLE).await;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let expected = ["Name", "Ready", "Up-to-date", "Available", "Age", "Containers", "Images", "Selector"];
    assert_eq!(names(&table), expected);
    assert_eq!(table["columnDefinitions"][5]["priority"], 1);
    let mut cells = table["rows"][0]["cells"].clone();
    world.assert_age(&cells[4].take(), "2m10s");
    assert_eq!(cells, json!(["web", "0/1", 0, 0, null, "app", "podinfo:1", "app=web"]));
    let row = &table["rows"][0]["object"];
    assert_eq!((&row["kind"], &row["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("web")));
    assert!(row.get("spec").is_none());
    let list = world.deployments().list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(table["metadata"]["resourceVersion"], json!(list.metadata.resource_version));

    let single = get(&world, "/apis/apps/v1/namespaces/test/deployments/web", TABLE).await;
    assert_eq!(single["rows"][0]["cells"][0], "web");
    assert_eq!(single["metadata"]["resourceVersion"], row["metadata"]["resourceVersion"]);
    let with_object = get(&world, "/apis/apps/v1/namespaces/test/deployments?includeObject=Object", TABLE).await;
    assert_eq!(with_object["rows"][0]["object"]["spec"]["replicas"], 1);
    let without = get(&world, "/apis/apps/v1/namespaces/test/deployments?includeObject=None", TABLE).await;
    assert_eq!(without["rows"][0]["object"], Value::Null);
}

/// kubectl would make a table of its own of it, with an age by its own clock.
#[tokio::test(start_paused = true)]
async fn a_scale_has_columns_of_its_own_and_its_age_in_the_time_of_the_cluster() {
    let world = world().await;
    world.deployments().create(&PostParams::default(), &deployment("web", "podinfo:1")).await.unwrap();
    world.pass_seconds(130).await;
    let table = get(&world, "/apis/apps/v1/namespaces/test/deployments/web/scale", TABLE).await;
    assert_eq!(names(&table), ["Name", "Desired", "Available", "Age"]);
    let mut cells = table["rows"][0]["cells"].clone();
    world.assert_age(&cells[3].take(), "2m10s");
    assert_eq!(cells, json!(["web", 1, 0, null]));
    assert_eq!(table["rows"][0]["object"]["metadata"]["name"], "web");
    let with_object =
        get(&world, "/apis/apps/v1/namespaces/test/deployments/web/scale?includeObject=Object", TABLE).await;
    assert_eq!(with_object["rows"][0]["object"]["kind"], "Scale");
    let plain = get(&world, "/apis/apps/v1/namespaces/test/deployments/web/scale", "application/json").await;
    assert_eq!((&plain["kind"], &plain["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
}

/// They are stored, so that what installs them works; the server does not ask webhooks nor sign certificates.
#[tokio::test(start_paused = true)]
async fn objects_that_extend_a_server_are_stored_and_shown() {
    let world = world().await;
    let client = json!({"service": {"namespace": "test", "name": "hook"}});
    let webhook = json!({
        "name": "hook.example.com", "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
    });
    let (admission, certificates) = ("admissionregistration.k8s.io/v1", "certificates.k8s.io/v1");
    let policy =
        json!({"validations": [{"expression": "true"}], "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}});
    let api_service = json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
        "service": {"namespace": "test", "name": "api"}});
    let signing = json!({"signerName": "example.com/s", "request": "AAAA", "usages": ["digital signature"],
        "expirationSeconds": 7200});
    let template =
        json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "app", "image": "a:1"}]}});
    let cases = [
        (admission, "ValidatingWebhookConfiguration", "", "webhooks", json!([webhook]), json!(["o", 1, "0s"])),
        (admission, "MutatingWebhookConfiguration", "", "webhooks", json!([webhook]), json!(["o", 1, "0s"])),
        (admission, "ValidatingAdmissionPolicy", "", "spec", policy, json!(["o", 1, "v1/ConfigMap", "0s"])),
        (
            admission,
            "ValidatingAdmissionPolicyBinding",
            "",
            "spec",
            json!({"policyName": "p", "paramRef": {"name": "c"}, "validationActions": ["Deny"]}),
            json!(["o", "p", "*/c", "0s"]),
        ),
        ("apiregistration.k8s.io/v1", "APIService", "", "spec", api_service, json!(["o", "test/api", "Unknown", "0s"])),
        (
            certificates,
            "CertificateSigningRequest",
            "",
            "spec",
            signing,
            json!(["o", "0s", "example.com/s", "", "120m", "Pending"]),
        ),
        ("v1", "PodTemplate", "namespaces/test/", "template", template, json!(["o", "app", "a:1", "app=a"])),
    ];
    for (api_version, kind, namespace, field, value, cells) in cases {
        let root = if api_version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{api_version}") };
        let plural = kind.to_lowercase().replace("policy", "policie") + "s";
        let plural = plural.replace("policiebinding", "policybinding");
        let path = format!("{root}/{namespace}{plural}");
        let body = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "o"}, field: value});
        let request = http::Request::post(&path).header("Content-Type", "application/json");
        let request = request.body(body.to_string().into_bytes()).unwrap();
        let created: Value = world.client.request(request).await.unwrap();
        assert_eq!(created["kind"], kind);
        assert_eq!(get(&world, &path, TABLE).await["rows"][0]["cells"], cells, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_form_that_exists_is_given() {
    let world = world().await;
    let path = "/api/v1/namespaces/test/configmaps";
    let plain = get(&world, path, "application/vnd.unheard-of,application/json").await;
    assert_eq!(plain["kind"], "ConfigMapList");
    let metadata = get(&world, path, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(metadata["kind"], "PartialObjectMetadataList");
    let old = get(&world, path, "application/json;as=Table;v=v1beta1;g=meta.k8s.io").await;
    assert_eq!(old["apiVersion"], "meta.k8s.io/v1beta1");
}

#[tokio::test(start_paused = true)]
async fn protobuf_is_passed_over() {
    let world = world().await;
    let accept = "application/vnd.kubernetes.protobuf,application/json";
    assert_eq!(get(&world, "/api/v1/namespaces/test/configmaps", accept).await["kind"], "ConfigMapList");
}

#[tokio::test(start_paused = true)]
async fn pages_of_tables_go_on() {
    let world = world().await;
    for name in ["a", "b", "c"] {
        world.config_maps().create(&PostParams::default(), &config_map(name)).await.unwrap();
    }
    let path = "/api/v1/namespaces/test/configmaps?limit=2";
    let first = get(&world, path, TABLE).await;
    assert_eq!((&first["rows"][1]["cells"][0], &first["metadata"]["remainingItemCount"]), (&json!("b"), &json!(1)));
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = get(&world, &format!("{path}&continue={token}"), TABLE).await;
    assert_eq!(second["rows"].as_array().unwrap().len(), 1);
    assert_eq!(second["rows"][0]["cells"][0], "c");
}

#[tokio::test(start_paused = true)]
async fn a_watch_describes_its_columns_once() {
    let world = world().await;
    for name in ["a", "b"] {
        world.config_maps().create(&PostParams::default(), &config_map(name)).await.unwrap();
    }
    let path = "/api/v1/namespaces/test/configmaps?watch=true&resourceVersion=0";
    let request = http::Request::get(path).header("Accept", TABLE).body(Vec::new()).unwrap();
    let mut lines = std::pin::pin!(world.client.request_stream(request).await.unwrap());
    let mut events = Vec::new();
    for _ in 0..2 {
        let mut line = String::new();
        lines.read_line(&mut line).await.unwrap();
        events.push(serde_json::from_str::<Value>(&line).unwrap());
    }
    assert_eq!(events[0]["type"], "ADDED");
    assert_eq!(names(&events[0]["object"]), ["Name", "Data", "Age"]);
    assert_eq!(events[1]["object"]["columnDefinitions"], Value::Null);
    assert_eq!(events[1]["object"]["rows"][0]["cells"][0], "b");
}

#[tokio::test(start_paused = true)]
async fn custom_resources_show_the_columns_of_their_definition() {
    let world = world().await;
    let widgets = world.widgets().await;
    widgets.create(&PostParams::default(), &widget("one", &json!({"size": 3, "colour": "red"}))).await.unwrap();
    let path = "/apis/example.com/v1/namespaces/test/widgets";
    let table = get(&world, path, TABLE).await;
    assert_eq!(names(&table), ["Name", "Age"]);
    assert_eq!(table["rows"][0]["cells"], json!(["one", "0s"]));

    let definitions = world.cluster_api("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let mut definition = definitions.get("widgets.example.com").await.unwrap();
    definition.data["spec"]["versions"][0]["additionalPrinterColumns"] = json!([
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Colour", "type": "string", "jsonPath": ".spec.colour", "priority": 1},
    ]);
    definitions.replace("widgets.example.com", &PostParams::default(), &definition).await.unwrap();
    let shown = async || get(&world, path, TABLE).await;
    world.until(async || names(&shown().await) == ["Name", "Size", "Colour"]).await;
    assert_eq!(shown().await["rows"][0]["cells"], json!(["one", 3, "red"]));

    definition = definitions.get("widgets.example.com").await.unwrap();
    definition.data["spec"]["versions"][0]["additionalPrinterColumns"][1]["jsonPath"] = json!("spec.colour");
    let refused = definitions.replace("widgets.example.com", &PostParams::default(), &definition).await.unwrap_err();
    assert!(refused.to_string().contains("spec.additionalPrinterColumns[1].JSONPath"), "{refused}");
    // A path that cannot be read is found when the columns are shown: those before it are.
    definition.data["spec"]["versions"][0]["additionalPrinterColumns"][1]["jsonPath"] = json!(".spec[");
    definitions.replace("widgets.example.com", &PostParams::default(), &definition).await.unwrap();
    world.until(async || names(&shown().await) == ["Name", "Size"]).await;
}

#[tokio::test(start_paused = true)]
async fn events_of_both_groups_are_the_same_objects() {
    let world = world().await;
    let new = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "namespace": "test", "name": "p"}, "note": "hello", "reason": "Greeted", "type": "Normal",
        "reportingController": "tests", "reportingInstance": "here", "action": "Greet",
    });
    let events = world.api("events.k8s.io", "v1", "Event");
    let created = events.create(&PostParams::default(), &object(new)).await.unwrap();
    assert_eq!(created.data["note"], "hello");
    let core = world.api("", "v1", "Event").get("e").await.unwrap();
    assert_eq!((&core.data["message"], &core.data["involvedObject"]["name"]), (&json!("hello"), &json!("p")));
    assert_eq!(core.types.unwrap().api_version, "v1");
    for (path, field) in [("/api/v1", "involvedObject"), ("/apis/events.k8s.io/v1", "regarding")] {
        let path = format!("{path}/namespaces/test/events?fieldSelector={field}.name=p");
        let list = get(&world, &path, "application/json").await;
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{path}");
        let table = get(&world, &path, TABLE).await;
        assert_eq!(table["rows"][0]["cells"][3], "pod/p", "{path}");
    }
    let patch = kube::api::Patch::Merge(json!({"note": "changed"}));
    let refusal = events.patch("e", &kube::api::PatchParams::default(), &patch).await.refusal();
    assert_eq!(refusal.message, "Event \"e\" is invalid: message: Invalid value: \"changed\": field is immutable");
    let labels = kube::api::Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    events.patch("e", &kube::api::PatchParams::default(), &labels).await.unwrap();
    let core = world.api("", "v1", "Event");
    let patch = kube::api::Patch::Merge(json!({"message": "changed"}));
    core.patch("e", &kube::api::PatchParams::default(), &patch).await.unwrap();
    assert_eq!(events.get("e").await.unwrap().data["note"], "changed");
}

#[tokio::test(start_paused = true)]
async fn the_older_autoscaler_is_a_view_of_the_newer_one() {
    let world = world().await;
    let old = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 3,
            "targetCPUUtilizationPercentage": 70},
    });
    world
        .api("autoscaling", "v1", "HorizontalPodAutoscaler")
        .create(&PostParams::default(), &object(old))
        .await
        .unwrap();
    let new = world.api("autoscaling", "v2", "HorizontalPodAutoscaler").get("a").await.unwrap();
    assert_eq!(new.data["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    assert!(new.data["spec"].get("targetCPUUtilizationPercentage").is_none());
    let old = world.api("autoscaling", "v1", "HorizontalPodAutoscaler").get("a").await.unwrap();
    assert_eq!(old.data["spec"]["targetCPUUtilizationPercentage"], 70);
    assert!(old.data["spec"].get("metrics").is_none());
}
